"""What is built without a process, and what is left to kustomize. That both are the same is proven
in e2e, with a real kubectl.
"""

from __future__ import annotations

import pytest

from helmops.sources.kustomize_simple import build_simply

RELEASE = (
    b"apiVersion: helm.toolkit.fluxcd.io/v2\nkind: HelmRelease\nmetadata: {name: web}\n"
    b"spec: {interval: 1h, install: {crds: Create}, list: [a, b]}\n"
)
PATCH = {
    "patch": "apiVersion: x/v1\nkind: X\nmetadata: {name: other}\n"
    "spec: {timeout: 1m, install: {timeout: 2m}, list: [c]}\n",
    "target": {"kind": "HelmRelease"},
}


def test_resources_get_the_namespace_and_patches() -> None:
    found = build_simply(
        {"apps/release.yaml": RELEASE},
        "apps",
        {"resources": ["./release.yaml"], "namespace": "shop", "patches": [PATCH]},
    )
    assert found is not None
    ((data, file),) = found
    assert file == "apps/release.yaml"
    assert data["metadata"] == {"name": "web", "namespace": "shop"}
    assert data["spec"] == {
        "interval": "1h",
        "timeout": "1m",
        "install": {"crds": "Create", "timeout": "2m"},
        "list": ["c"],
    }


def test_directories_and_components_are_built_into_it() -> None:
    component = b"apiVersion: kustomize.config.k8s.io/v1alpha1\nkind: Component\nnamespace: shop\n"
    found = build_simply(
        {
            "base/kustomization.yaml": b"resources: [release.yaml]\n",
            "base/release.yaml": RELEASE,
            "part/kustomization.yaml": component,
        },
        "apps",
        {"resources": ["../base"], "components": ["../part"]},
    )
    assert found is not None
    assert [data["metadata"].get("namespace") for data, _ in found] == ["shop"]


@pytest.mark.parametrize(
    "kustomization",
    [
        {"resources": ["release.yaml"], "namePrefix": "a-"},
        {"resources": ["release.yaml"], "configMapGenerator": []},
        {"resources": ["release.yaml"], "apiVersion": "kustomize.config.k8s.io/v2"},
        {"resources": ["release.yaml"], "kind": "Component"},
        {"resources": ["release.yaml", "release.yaml"]},
        {"resources": ["missing"]},
        {"resources": "release.yaml"},
        {"resources": ["release.yaml"], "namespace": "Not A Name"},
        {"resources": ["release.yaml"], "patches": [{"path": "p.yaml"}]},
        {"resources": ["release.yaml"], "patches": [{**PATCH, "target": {"name": "web"}}]},
        {"resources": ["release.yaml"], "patches": [{**PATCH, "patch": "- op: remove"}]},
        {
            "resources": ["release.yaml"],
            "patches": [{**PATCH, "patch": PATCH["patch"].replace("1m", "null")}],  # type: ignore[attr-defined]
        },
    ],
)
def test_what_is_not_plain_is_left_to_kustomize(kustomization: dict[str, object]) -> None:
    assert build_simply({"release.yaml": RELEASE}, "", kustomization) is None


@pytest.mark.parametrize(
    "scalar",
    [
        "yes",
        "0755",
        "1e3",
        "2024-01-01",
        "12:30:45",
        "1_000",
        "*x",
        "&x y",
        "!!str 1",
        "True",
        "0x1F",
    ],
)
def test_scalars_that_readers_differ_about_are_left_to_kustomize(scalar: str) -> None:
    text = RELEASE + f"more: {scalar}\n".encode()
    assert build_simply({"release.yaml": text}, "", {"resources": ["release.yaml"]}) is None


@pytest.mark.parametrize(
    "scalar", ["5m", "1.2.3", "true", "-7", "0.5", "10.0.0.1/24", "a:b", "'yes'"]
)
def test_plain_scalars_are_not(scalar: str) -> None:
    text = RELEASE + f"more: {scalar}\n".encode()
    assert build_simply({"release.yaml": text}, "", {"resources": ["release.yaml"]}) is not None
