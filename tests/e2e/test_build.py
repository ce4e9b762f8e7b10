"""Flux repositories, built by a real kubectl, and `helmops build`."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from helmops.errors import DeclarationError
from helmops.model.releases import DeclarationKey
from helmops.sources import kustomize
from helmops.sources.file_tree import FileTree
from helmops.sources.kustomize import Built, Kustomizer
from tests.e2e.helmops_process import HELMOPS
from tests.fakes.flux_repository import FluxRepository, keys, problems
from tests.fakes.kustomizations import Kustomizations

OURS = {"HelmRelease", "OCIRepository", "Kustomization", "ReleasePolicy"}


@pytest.fixture
def repository(tmp_path: Path, kubectl: Path) -> FluxRepository:
    return FluxRepository(tmp_path, str(kubectl))


def key(text: str) -> DeclarationKey:
    return DeclarationKey(*text.split("/"))


VALUES = """
values:
  host: ${APP}.${DOMAIN:=example.com}
  port: ${PORT}
  quoted: "${PORT}"
  list: ${LIST}
  nothing: "a${UNDEFINED}b"
  kept: $${APP}
  upper: ${APP^^}
  secret: ${PASSWORD}
"""


async def test_variables_are_substituted_as_flux_does_it(repository: FluxRepository) -> None:
    repository.flux(
        "web",
        "./apps/web",
        """
        targetNamespace: shop
        postBuild:
          substitute:
            APP: web
            PORT: "8080"
            LIST: "[1, two]"
          substituteFrom:
            - kind: ConfigMap
              name: settings
            - kind: Secret
              name: secrets
            - kind: ConfigMap
              name: nowhere
              optional: true
        """,
    )
    repository.write(
        "clusters/prod/settings.yaml",
        """
        apiVersion: v1
        kind: ConfigMap
        metadata: {name: settings, namespace: flux-system}
        data: {APP: loses, DOMAIN: "shop.example.org\\n"}
        """,
    )
    secrets = {"PASSWORD": b"correct horse"}
    repository.cluster.objects["Secret", key("flux-system/secrets")] = secrets
    repository.release("apps/web/release.yaml", "web", VALUES)
    declared = await repository.read()
    assert problems(declared) == []
    release = declared.releases[key("shop/web")]
    assert release.resource.spec.values == {
        "host": "web.shop.example.org",
        "port": 8080,
        "quoted": 8080,
        "list": [1, "two"],
        "nothing": "ab",
        "kept": "${APP}",
        "upper": "WEB",
        "secret": "correct horse",
    }
    assert release.where_is(("spec", "values", "port")).endswith("apps/web/release.yaml:12")
    assert secrets in repository.seen, "what came out of a Secret is hidden from here on"
    asked = repository.cluster.asked
    assert await repository.poll() is None
    assert repository.cluster.asked == asked, "the cluster is asked at the interval only"
    repository.cluster.objects["Secret", key("flux-system/secrets")] = {"PASSWORD": b"another"}
    await repository.clock.sleep(601)
    later = await repository.poll()
    assert later is not None
    values = later.releases[key("shop/web")].resource.spec.values
    assert values is not None
    assert values["secret"] == "another"


async def test_substitution_is_left_out_without_variables_and_where_it_is_not_wanted(
    repository: FluxRepository,
) -> None:
    repository.flux("none", "./none", "postBuild: {substitute: {}}")
    repository.flux("always", "./always", "postBuild: {substituteStrategy: Always}")
    repository.flux("out", "./out", "postBuild: {substitute: {A: b}}")
    values = "values: {a: '${A}'}"
    repository.release("none/release.yaml", "none", values)
    repository.release("always/release.yaml", "always", values)
    repository.release(
        "out/release.yaml",
        "out",
        values,
        "annotations: {kustomize.toolkit.fluxcd.io/substitute: disabled}",
    )
    declared = await repository.read()
    found = {str(k): r.resource.spec.values for k, r in declared.releases.items()}
    assert found == {
        "default/none": {"a": "${A}"},
        "default/always": {"a": None},
        "default/out": {"a": "${A}"},
    }


async def test_prefixes_images_components_and_json_patches_are_kustomizes(
    repository: FluxRepository,
) -> None:
    repository.flux(
        "web",
        "./apps/web",
        """
        namePrefix: a-
        nameSuffix: -z
        commonMetadata:
          labels: {team: shop}
          annotations: {note: "yes"}
        components: [../../components/quick, ../../components/nowhere]
        ignoreMissingComponents: true
        images:
          - name: busybox
            newTag: "1.37"
        patches:
          - patch: |
              - op: replace
                path: /spec/interval
                value: 5m
            target:
              kind: HelmRelease
        """,
    )
    repository.release("apps/web/release.yaml", "web")
    repository.kustomization(
        "components/quick",
        """
        patches:
          - target: {kind: HelmRelease}
            patch: |
              apiVersion: helm.toolkit.fluxcd.io/v2
              kind: HelmRelease
              metadata: {name: any}
              spec: {timeout: 1m}
        """,
        is_component=True,
    )
    declared = await repository.read()
    assert problems(declared) == []
    release = declared.releases[key("default/a-web-z")]
    assert (str(release.resource.spec.interval), str(release.resource.spec.timeout)) == (
        "0:05:00",
        "0:01:00",
    )
    labels, annotations = release.resource.metadata.labels, release.resource.metadata.annotations
    assert (labels["team"], annotations) == ("shop", {"note": "yes"})
    assert release.where.endswith("apps/web/release.yaml:1"), "found though it has another name"


async def test_generated_config_maps_are_declarations_like_others(
    repository: FluxRepository,
) -> None:
    repository.flux("web", "./apps/web", "targetNamespace: shop")
    repository.kustomization(
        "apps/web",
        """
        configMapGenerator:
          - name: web-values
            files: [values.yaml=./settings/values.txt]
            options: {disableNameSuffixHash: true}
        """,
    )
    repository.write("apps/web/settings/values.txt", "replicas: 2\n")
    declared = await repository.read()
    content = declared.config_maps[key("shop/web-values")].resource.content
    assert content == {"values.yaml": b"replicas: 2\n"}
    repository.write("apps/web/settings/values.txt", "replicas: 3\n")
    changed = await repository.poll()
    assert changed is not None
    content = changed.config_maps[key("shop/web-values")].resource.content
    assert content == {"values.yaml": b"replicas: 3\n"}


async def test_only_what_changed_is_built_again_also_by_the_next_process(
    repository: FluxRepository, tmp_path: Path, kubectl: Path
) -> None:
    for name in ("one", "two", "three"):
        repository.flux(name, f"./{name}", "namePrefix: a-")
        repository.release(f"{name}/release.yaml", name)
    await repository.read()
    assert repository.builder.runs == 3
    repository.release("two/release.yaml", "two", "timeout: 1m")
    assert await repository.poll() is not None
    assert repository.builder.runs == 4
    other = Kustomizer(str(kubectl), tmp_path / "cache")
    overlay = kustomize.Overlay(name_prefix="a-")
    other.build(FileTree(str(repository.root)), "one", overlay)
    assert other.runs == 0


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "resources: [https://example.com/x.yaml]",
            "resources[0]: `https://example.com/x.yaml` is a",
        ),
        ("resources: ['github.com/a/b?ref=v1']", "`github.com/a/b` is a remote base"),
        ("resources: [../../../../etc/passwd]", "leads out of the repository"),
        ("resources: [/etc/passwd]", "leads out of the repository"),
        ("resources: [../other]", "include each other: apps/web -> apps/other -> apps/web"),
        ("resources: [./nowhere.yaml]", "`./nowhere.yaml` does not exist"),
        ("configMapGenerator: [{name: x, files: [/etc/passwd]}]", "leads out of the repository"),
        ("components: [../nothing]", "components[0]: `../nothing` does not exist"),
        ("transformers: ['{kind: PatchTransformer, path: ../../../x}\\n']", "leads out of"),
        ("resources: [./release.yaml]\nresources: []", "the key is given twice"),
        ("unknownField: 1", "unknown field"),
        ('patches: [{patch: \'[{"op": "add", "path": "/a", "value": 1}]\'}]', "target"),
        ("patches: [{patch: 'kind: HelmRelease'}]", "kustomize: "),
        (
            "helmCharts: [{name: x, repo: 'https://example.com'}]",
            "helmCharts: charts in a kustomization are not rendered",
        ),
    ],
)
async def test_a_bad_kustomization_is_one_error_and_others_stand(
    repository: FluxRepository, text: str, said: str
) -> None:
    repository.flux("web", "./apps/web")
    repository.flux("db", "./apps/db")
    repository.release("apps/db/release.yaml", "db")
    repository.release("apps/web/release.yaml", "web")
    repository.kustomization("apps/web", text.replace("\\n", "\n") + "\n")
    repository.kustomization("apps/other", "resources: [../web]\n")
    declared = await repository.read()
    assert keys(declared) == {"default/db"}
    assert len(declared.errors) == 1
    assert said in problems(declared)[0]
    assert problems(declared)[0].startswith("apps/")
    assert "root:" not in problems(declared)[0]


async def test_a_bomb_is_refused_in_bounded_time(repository: FluxRepository) -> None:
    laughs = "a: &a [x,x,x,x,x,x,x,x,x]\n"
    for before, name in zip("abcdefgh", "bcdefghi", strict=True):
        laughs += f"{name}: &{name} [{','.join([f'*{before}'] * 9)}]\n"
    repository.flux("bomb", "./bomb")
    repository.flux("db", "./apps/db")
    repository.write(
        "bomb/all.yaml", f"apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: x}}\n{laughs}"
    )
    repository.release("apps/db/release.yaml", "db")
    declared = await repository.read()
    assert keys(declared) == {"default/db"}
    assert len(declared.errors) == 1


async def test_an_error_repeats_nothing_of_a_secret(repository: FluxRepository) -> None:
    repository.flux("web", "./apps/web")
    repository.write(
        "apps/web/secret.yaml",
        "apiVersion: v1\nkind: Secret\nmetadata: {name: x}\nstringData: {1: hunter2hunter2}\n",
    )
    repository.flux("db", "./apps/db", "postBuild: {substitute: {A: 'hunter2hunter2: {'}}")
    repository.release("apps/db/release.yaml", "db", "values: {a: '${A}'}")
    declared = await repository.read()
    assert len(declared.errors) == 2
    assert "hunter2" not in str(problems(declared))


def test_what_is_built_without_kubectl_is_what_kubectl_builds(
    tmp_path: Path, kubectl: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Generated directories; those that are built simply are built both ways."""
    compared = 0
    for seed in range(160):
        root = tmp_path / str(seed)
        Kustomizations(root, seed).write()
        tree = FileTree(str(root))
        try:
            simple = Kustomizer("/nonexistent/kubectl", root / "one").build(tree, "app")
        except DeclarationError:
            continue  # kubectl is asked
        compared += 1
        with monkeypatch.context() as patched:
            patched.setattr(kustomize, "build_simply", lambda *_: None)
            real = Kustomizer(str(kubectl), root / "two").build(tree, "app")
        assert _told(simple) == _told(real), seed
    assert compared > 20


def _told(built: Built) -> dict[tuple[str, ...], object]:
    return {
        (
            each.data["kind"],
            each.data["metadata"].get("namespace", ""),
            each.data["metadata"]["name"],
        ): (each.data, each.file, each.line)
        for each in built.objects
        if each.data["kind"] in OURS
    }


def _run(
    repository: FluxRepository, kubectl: Path, *arguments: str
) -> subprocess.CompletedProcess[str]:
    environment: Mapping[str, str] = {
        **os.environ,
        "HELMOPS_KUBECTL": str(kubectl),
        "HELMOPS_CACHE_DIR": str(repository.root.parent / "cache"),
        "HOME": str(repository.root.parent),
    }
    return subprocess.run(
        [HELMOPS, "build", *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        env=environment,
        cwd=repository.root,
    )


def test_the_command_prints_a_list_and_says_where_each_came_from(
    repository: FluxRepository, kubectl: Path
) -> None:
    repository.flux("web", "./apps/web", "namePrefix: a-")
    repository.flux("bad", "./nowhere")
    repository.release("apps/web/release.yaml", "web")
    repository.write(
        "apps/web/more.yaml",
        "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\nstringData: {p: hunter2hunter2}\n---\n"
        "apiVersion: v1\nkind: Service\nmetadata: {name: s}\n",
    )
    ended = _run(repository, kubectl, "-f", "clusters/prod", "-o", "json")
    assert ended.returncode == 2
    assert "clusters/prod/bad.yaml:9: spec.path: there is no directory `nowhere`" in ended.stderr
    assert "left alone: 1 Service (core)" in ended.stderr
    assert "hunter2" not in ended.stdout + ended.stderr
    printed: dict[str, Any] = json.loads(ended.stdout)
    assert (printed["apiVersion"], printed["kind"]) == ("v1", "List")
    found = {each["kind"]: each for each in printed["items"]}
    assert set(found) == {"HelmRelease", "OCIRepository", "Secret", "Kustomization"}
    assert found["HelmRelease"]["metadata"]["annotations"] == {
        "helmops.dev/origin": "apps/web/release.yaml:1",
        "helmops.dev/built-by": "flux-system/web",
    }
    assert found["Secret"]["stringData"] == {"p": "***"}
    (repository.root / "clusters/prod/bad.yaml").unlink()
    names = _run(repository, kubectl, "-f", "clusters/prod", "-o", "name")
    assert (names.returncode, names.stdout.splitlines()) == (
        0,
        [
            "HelmRelease/default/a-web",
            "OCIRepository/default/a-web",
            "Secret/default/a-s",
            "Kustomization/flux-system/web",
        ],
    )
    again = [_run(repository, kubectl, "-f", "clusters/prod").stdout for _ in range(2)]
    assert again[0] == again[1]
    assert again[0].startswith("apiVersion: helm.toolkit.fluxcd.io/v2\nkind: HelmRelease\n")
