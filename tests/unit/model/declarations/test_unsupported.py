from typing import Any

import pytest

from helmops.model.declarations import KINDS, OCIRepository, Resource
from helmops.model.declarations.unsupported import chart_places, unsupported_places
from helmops.model.documents import dotted
from tests.unit.model.manifests import (
    chart,
    config_map,
    document,
    git_repository,
    helm_repository,
    oci_repository,
    policy,
    provider,
    release,
)


def places(resource: Resource) -> list[str]:
    return [dotted(path) for path, _ in unsupported_places(resource)]


@pytest.mark.parametrize(
    ("spec", "place"),
    [
        ({"serviceAccountName": "deployer"}, "spec.serviceAccountName"),
        ({"kubeConfig": {"secretRef": {"name": "a"}}}, "spec.kubeConfig"),
        ({"storageNamespace": "elsewhere"}, "spec.storageNamespace"),
        ({"storageNamespace": "apps", "targetNamespace": "prod"}, "spec.storageNamespace"),
        ({"driftDetection": {"mode": "warn"}}, "spec.driftDetection.mode"),
        ({"driftDetection": {"mode": "enabled"}}, "spec.driftDetection.mode"),
        ({"install": {"crds": "CreateReplace"}}, "spec.install.crds"),
        ({"upgrade": {"crds": "Create"}}, "spec.upgrade.crds"),
        ({"upgrade": {"crds": "CreateReplace"}}, "spec.upgrade.crds"),
        ({"chart": chart(verify={"provider": "cosign"})}, "spec.chart.spec.verify"),
        (
            {"chart": chart(verify={"provider": "notation", "secretRef": {"name": "a"}})},
            "spec.chart.spec.verify.provider",
        ),
        (
            {"chart": chart(sourceRef={"kind": "Bucket", "name": "b"})},
            "spec.chart.spec.sourceRef.kind",
        ),
        (
            {"chart": None, "chartRef": {"kind": "ExternalArtifact", "name": "a"}},
            "spec.chartRef",
        ),
    ],
)
def test_what_could_do_harm_when_ignored_is_named(spec: dict[str, Any], place: str) -> None:
    assert places(release(**spec)) == [place]


@pytest.mark.parametrize(
    "spec",
    [
        {},
        {"persistentClient": False},
        {"rollback": {"recreate": True}},
        {"commonMetadata": {"labels": {"a": "b"}}},
        {"postRenderers": [{"kustomize": {"images": [{"name": "a", "newTag": "b"}]}}]},
        {"postRenderStrategy": "combined"},
        {"storageNamespace": "apps"},
        {"storageNamespace": "prod", "targetNamespace": "prod"},
        {"driftDetection": {"mode": "disabled"}},
        {"driftDetection": {"ignore": [{"paths": ["/a"]}]}},
        {"install": {"crds": "Create"}, "upgrade": {"crds": "Skip"}},
        {"install": {"crds": "Skip"}},
        {"chart": chart(interval="5m")},
        {"chart": chart(verify={"provider": "cosign", "secretRef": {"name": "a"}})},
        {
            "chart": chart(
                valuesFiles=["a.yaml"], sourceRef={"kind": "GitRepository", "name": "apps"}
            )
        },
    ],
)
def test_what_is_acted_on_or_without_effect_is_not_named(spec: dict[str, Any]) -> None:
    assert places(release(**spec)) == []


@pytest.mark.parametrize(
    ("resource", "named"),
    [
        (helm_repository(), []),
        (helm_repository(passCredentials=True, certSecretRef={"name": "a"}), []),
        (helm_repository(accessFrom={"namespaceSelectors": []}), []),
        (helm_repository(url="oci://registry.example.com/charts"), []),
        (helm_repository(type="oci", url="oci://a/b", insecure=True), []),
        (oci_repository(ref={"semver": "1.x", "semverFilter": "^1"}, insecure=True), []),
        (oci_repository(proxySecretRef={"name": "a"}, certSecretRef={"name": "b"}), []),
        (oci_repository(verify={"secretRef": {"name": "keys"}}), []),
        (oci_repository(verify={"provider": "cosign"}), ["spec.verify"]),
        (
            oci_repository(verify={"provider": "notation", "secretRef": {"name": "a"}}),
            ["spec.verify.provider"],
        ),
        (
            oci_repository(
                verify={
                    "secretRef": {"name": "a"},
                    "matchOIDCIdentity": [{"issuer": "a", "subject": "b"}],
                    "trustedRootSecretRef": {"name": "b"},
                }
            ),
            ["spec.verify.matchOIDCIdentity", "spec.verify.trustedRootSecretRef"],
        ),
        (oci_repository(provider="aws"), ["spec.provider"]),
        (oci_repository(serviceAccountName="a"), ["spec.serviceAccountName"]),
        (oci_repository(ignore="*.md"), []),
        (helm_repository(provider="aws"), ["spec.provider"]),
        (git_repository(ref={"semver": "1.x"}, secretRef={"name": "a"}), []),
        (
            git_repository(provider="azure", serviceAccountName="a"),
            ["spec.provider", "spec.serviceAccountName"],
        ),
        (policy(mode="observe", prune=True, verify={"watch": "1m"}), []),
        (policy(outOfBand="revert"), []),
        (
            policy(
                verify={
                    "checks": [
                        {"name": "a", "http": {"url": "http://a"}},
                        {"name": "b", "prometheus": {"address": "http://a", "query": "up"}},
                        {"name": "c", "job": {"template": {"spec": {}}}},
                    ]
                }
            ),
            [],
        ),
        (provider(), []),
        (provider(type="generic-hmac", secretRef={"name": "a"}), []),
        (provider(type="slack"), ["spec.type"]),
        (provider(proxySecretRef={"name": "a"}), ["spec.proxySecretRef"]),
        (config_map(), []),
    ],
)
def test_sources_policies_and_providers_are_looked_at_too(
    resource: Resource, named: list[str]
) -> None:
    assert places(resource) == named


def test_what_is_not_acted_on_in_a_helm_chart_is_named() -> None:
    spec = {"chart": "a", "interval": "1m", "sourceRef": {"kind": "HelmRepository", "name": "b"}}
    said = {**spec, "verify": {"provider": "cosign"}}
    manifest = document("source.toolkit.fluxcd.io/v1", "HelmChart", "a", spec)
    assert places(KINDS["HelmChart"].model_validate(manifest)) == []
    manifest = document("source.toolkit.fluxcd.io/v1", "HelmChart", "a", said)
    assert places(KINDS["HelmChart"].model_validate(manifest)) == ["spec.verify"]
    said = {**spec, "sourceRef": {"kind": "Bucket", "name": "b"}}
    manifest = document("source.toolkit.fluxcd.io/v1", "HelmChart", "a", said)
    assert places(KINDS["HelmChart"].model_validate(manifest)) == ["spec.sourceRef.kind"]


@pytest.mark.parametrize(
    ("spec", "named"),
    [
        ({"ignore": "*.md"}, ["spec.ignore"]),
        ({"ignore": "*.md", "layerSelector": {"operation": "copy"}}, []),
        ({}, []),
    ],
)
def test_ignore_is_for_files_and_not_for_charts(spec: dict[str, Any], named: list[str]) -> None:
    artifact = oci_repository(**spec)
    assert isinstance(artifact, OCIRepository)
    assert [dotted(path) for path, _ in chart_places(artifact)] == named


@pytest.mark.parametrize(
    ("kind", "spec"),
    [
        ("Bucket", {"bucketName": "a", "endpoint": "b", "interval": "1m"}),
    ],
)
def test_kinds_that_are_only_read_say_so(kind: str, spec: dict[str, Any]) -> None:
    manifest = document("source.toolkit.fluxcd.io/v1", kind, "a", spec)
    assert places(KINDS[kind].model_validate(manifest)) == ["kind"]
