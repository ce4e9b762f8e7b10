"""What a release's values are made of, for people who ask: without helm, and a cluster only where
a value comes from there.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass

from helmops.cluster.api import Api
from helmops.cluster.references import ClusterReferences
from helmops.errors import ObjectNotFound, UsageError
from helmops.model.declarations import HelmRelease
from helmops.model.declared import DeclarationSet, Declared
from helmops.model.releases import DeclarationKey
from helmops.reconcile.credentials import CredentialReader
from helmops.reconcile.secrets import DeclaredSecrets
from helmops.reconcile.trees import Trees
from helmops.reconcile.values import ValuesReader
from helmops.resolve.layers import Layer
from helmops.service.clock import SystemClock
from helmops.service.lookup import records
from helmops.service.reading import declared_only
from helmops.service.settings import Settings
from helmops.service.wiring import remembered
from helmops.sources.git import GitMirrors
from helmops.sources.sops import Sops
from helmops.sources.tree_files import TreeFiles


async def layers_of(settings: Settings, key: DeclarationKey) -> tuple[Layer, ...]:
    """The layers of a release's values: as `-f` declares it, else as its record remembers it.

    Raises UsageError, ObjectNotFound, DeclarationError, ValuesError, SourceError, ClusterError.
    """
    declarations, release = await _declared(settings, key)
    async with contextlib.AsyncExitStack() as stack:
        secrets = DeclaredSecrets(_Cluster(settings, stack))
        secrets.declarations = declarations
        git = GitMirrors(settings.cache_dir / "git")
        stack.callback(git.close)
        reader = ValuesReader(
            references=secrets,
            trees=Trees(clock=SystemClock(), git=git, credentials=CredentialReader(secrets)),
            files=TreeFiles(),
            decrypt=Sops(settings.sops).decrypted,
        )
        return await reader.layers(declarations, release)


async def _declared(
    settings: Settings, key: DeclarationKey
) -> tuple[DeclarationSet, Declared[HelmRelease]]:
    if settings.filenames:
        declared = await declared_only(settings)
        if key in declared.untouched:
            raise declared.untouched[key]
        if key not in declared.releases:
            others = ", ".join(str(k) for k in sorted(declared.releases)[:5]) or "none"
            raise UsageError(f"{key} is not declared", next_step=f"declared are {others}")
        return declared, declared.releases[key]
    for record in await records(settings):
        if record.key == key and record.manifest:
            before = remembered(record)
            release = before.releases[key]
            _refuse_files(release)
            return before, release
    raise ObjectNotFound(
        f"there is no release {key}", next_step="helmops get releases -A lists all"
    )


def _refuse_files(release: Declared[HelmRelease]) -> None:
    """A record remembers what was declared, not the files beside it."""
    kinds = {reference.kind for reference in release.resource.spec.values_from}
    if kinds & {"File", "GitRepository"}:
        raise UsageError(
            f"values of {release.key} come from files, which only its declarations lead to",
            next_step="name these: -f DIR",
        )


@dataclass(slots=True)
class _Cluster:
    """ConfigMaps and Secrets in the cluster, which is connected to when one is asked for."""

    settings: Settings
    stack: contextlib.AsyncExitStack
    opened: ClusterReferences | None = None

    async def config_map(self, key: DeclarationKey) -> Mapping[str, bytes] | None:
        """Its data, or None where there is none. Raises ClusterError."""
        return await (await self._references()).config_map(key)

    async def secret(self, key: DeclarationKey) -> Mapping[str, bytes] | None:
        """Its data, or None where there is none. Raises ClusterError."""
        return await (await self._references()).secret(key)

    async def _references(self) -> ClusterReferences:
        if self.opened is None:
            connecting = await Api.connect(
                kubeconfig=self.settings.kubeconfig or None,
                context=self.settings.context or None,
                read_only=True,
                light=True,
            )
            self.opened = ClusterReferences(await self.stack.enter_async_context(connecting))
        return self.opened
