"""A Flux repository on disk, written by a test, and read as helmops reads it."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Mapping
from pathlib import Path

from helmops.model.declared import DeclarationSet
from helmops.model.releases import DeclarationKey
from helmops.service.declarations import Declarations
from helmops.sources.flux_kustomization import Decrypt
from helmops.sources.kustomize import Kustomizer
from tests.fakes.artifact_trees import FakeArtifactTrees
from tests.fakes.clock import FakeClock
from tests.fakes.git_trees import FakeGitTrees

URL = "https://git.example.com/team/fleet"


class FakeCluster:
    """ConfigMaps and Secrets of a cluster, by kind and key."""

    def __init__(self) -> None:
        self.objects: dict[tuple[str, DeclarationKey], Mapping[str, bytes]] = {}
        self.asked = 0

    async def config_map(self, key: DeclarationKey) -> Mapping[str, bytes] | None:
        self.asked += 1
        return self.objects.get(("ConfigMap", key))

    async def secret(self, key: DeclarationKey) -> Mapping[str, bytes] | None:
        self.asked += 1
        return self.objects.get(("Secret", key))


class FluxRepository:
    """Files below `root`, which looks like a checkout of `URL`."""

    def __init__(
        self, path: Path, kubectl: str = "/nonexistent/kubectl", *, decrypt: Decrypt | None = None
    ) -> None:
        self.root = path / "fleet"
        (self.root / ".git").mkdir(parents=True)
        (self.root / ".git/HEAD").write_text("ref: refs/heads/main\n")
        (self.root / ".git/config").write_text(f'[remote "origin"]\n\turl = {URL}.git\n')
        self.clock = FakeClock()
        self.git = FakeGitTrees()
        self.artifacts = FakeArtifactTrees()
        self.cluster = FakeCluster()
        self.builder = Kustomizer(kubectl, path / "cache")
        self.seen: list[Mapping[str, bytes]] = []
        self.declarations = Declarations(
            clock=self.clock,
            git=self.git,
            artifacts=self.artifacts,
            default_namespace="default",
            random=lambda: 1.0,
            builder=self.builder,
            cluster=self.cluster,
            decrypt=decrypt,
            see=self.seen.append,
        )
        self._is_added = False

    def write(self, path: str, text: str) -> None:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(textwrap.dedent(text).lstrip("\n"))

    def flux(
        self, name: str, path: str, spec: str = "", *, file: str = "", prune: str = "true"
    ) -> None:
        """A Flux Kustomization in `clusters/prod`; `spec` is more of its spec, unindented."""
        more = textwrap.indent(textwrap.dedent(spec).strip(), "  ")
        self.write(
            file or f"clusters/prod/{name}.yaml",
            f"apiVersion: kustomize.toolkit.fluxcd.io/v1\nkind: Kustomization\n"
            f"metadata:\n  name: {name}\n  namespace: flux-system\nspec:\n  interval: 10m\n"
            f"  prune: {prune}\n  path: {path}\n"
            f"  sourceRef:\n    kind: GitRepository\n    name: flux-system\n{more}\n",
        )

    def release(self, path: str, name: str, spec: str = "", metadata: str = "") -> None:
        """A HelmRelease and its source."""
        more = textwrap.indent(textwrap.dedent(spec).strip(), "  ")
        about = textwrap.indent(textwrap.dedent(metadata).strip(), "  ")
        self.write(
            path,
            f"apiVersion: helm.toolkit.fluxcd.io/v2\nkind: HelmRelease\nmetadata:\n"
            f"  name: {name}\n{about}{about and chr(10)}spec:\n  interval: 1h\n"
            f"  chartRef:\n    kind: OCIRepository\n    name: {name}\n{more}\n---\n"
            f"apiVersion: source.toolkit.fluxcd.io/v1\nkind: OCIRepository\nmetadata:\n"
            f"  name: {name}\nspec:\n  interval: 15m\n  url: oci://registry.example.com/{name}\n",
        )

    def kustomization(self, directory: str, text: str, *, is_component: bool = False) -> None:
        kind, version = ("Component", "v1alpha1") if is_component else ("Kustomization", "v1beta1")
        self.write(
            f"{directory}/kustomization.yaml",
            f"apiVersion: kustomize.config.k8s.io/{version}\nkind: {kind}\n"
            + textwrap.dedent(text).lstrip("\n"),
        )

    async def read(self, start: str = "clusters/prod") -> DeclarationSet:
        if not self._is_added:
            self.declarations.add_directory(str(self.root / start))
            self._is_added = True
        return await self.declarations.read()

    async def poll(self) -> DeclarationSet | None:
        return await self.declarations.poll()


def problems(declared: DeclarationSet) -> list[str]:
    """Errors without the directory of this test."""
    return [re.sub(r"[^\s(]*/fleet/", "", str(error)) for error in declared.errors]


def keys(declared: DeclarationSet) -> set[str]:
    return {str(key) for key in declared.releases}
