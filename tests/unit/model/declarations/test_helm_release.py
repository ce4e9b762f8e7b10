from datetime import timedelta
from typing import Any

import pytest
from pydantic import ValidationError

from helmops.model.declarations import HelmRelease
from helmops.model.releases import ReleaseId
from tests.unit.model.manifests import CHART, chart, release, release_document


def refused(**spec: Any) -> str:
    with pytest.raises(ValidationError) as raised:
        release(**spec)
    return str(raised.value)


@pytest.mark.parametrize(
    ("spec", "release_id"),
    [
        ({}, ReleaseId("apps", "web")),
        ({"releaseName": "front"}, ReleaseId("apps", "front")),
        ({"targetNamespace": "prod"}, ReleaseId("prod", "prod-web")),
        # Flux puts the prefix before the name also where the namespace is the same.
        ({"targetNamespace": "apps"}, ReleaseId("apps", "apps-web")),
        ({"targetNamespace": "prod", "releaseName": "front"}, ReleaseId("prod", "front")),
    ],
)
def test_the_release_has_fluxs_name(spec: dict[str, Any], release_id: ReleaseId) -> None:
    assert release(**spec).release_id == release_id


def test_a_long_name_is_cut_and_gets_a_digest_of_the_whole() -> None:
    name = "a" * 60
    # printf %060d | tr 0 a | sha256sum
    expected = (
        "a" * 40 + "-" + "11ee391211c6256460b6ed375957fadd8061cafbb31daf967db875aebd5aaad4"[:12]
    )
    assert release(name).release_id.name == expected
    assert len(expected) == 53


def test_a_name_of_53_characters_stays_as_it_is() -> None:
    assert release("b" * 53).release_id.name == "b" * 53
    assert release("b" * 48, targetNamespace="prod").release_id.name == "prod-" + "b" * 48
    assert len(release("b" * 49, targetNamespace="prod").release_id.name) == 53


def test_either_chart_or_chart_ref_is_needed() -> None:
    reference = {"kind": "OCIRepository", "name": "podinfo"}
    assert "exactly one" in refused(chartRef=reference)
    assert "exactly one" in refused(chart=None)
    assert release(chart=None, chartRef=reference).spec.chart_ref is not None


def test_only_retry_on_failure_has_an_interval() -> None:
    for action in ("install", "upgrade"):
        wrong = {"strategy": {"name": "RemediateOnFailure", "retryInterval": "1m"}}
        assert "retryInterval" in refused(**{action: wrong})
        right = {"strategy": {"name": "RetryOnFailure", "retryInterval": "1m"}}
        assert getattr(release(**{action: right}).spec, action).strategy.retry_interval == (
            timedelta(minutes=1)
        )


def test_a_kube_config_is_of_one_kind() -> None:
    assert "exactly one" in refused(kubeConfig={})
    both = {"secretRef": {"name": "a"}, "configMapRef": {"name": "b"}}
    assert "exactly one" in refused(kubeConfig=both)


@pytest.mark.parametrize(
    "reference",
    [
        {"kind": "ConfigMap", "name": "a"},
        {"kind": "Secret", "name": "a", "valuesKey": "k", "targetPath": "a.b[0]", "literal": True},
        {"kind": "GitRepository", "name": "apps", "path": "values/web.yaml", "optional": True},
        {"kind": "File", "path": "values/web.yaml", "targetPath": "a"},
    ],
)
def test_values_come_from_config_maps_secrets_git_and_files(reference: dict[str, Any]) -> None:
    (read,) = release(valuesFrom=[reference]).spec.values_from
    assert read.manifest() == reference


@pytest.mark.parametrize(
    ("reference", "said"),
    [
        ({"kind": "ConfigMap"}, "`name` is required"),
        ({"kind": "Secret", "name": "a", "path": "x"}, "use `valuesKey`"),
        ({"kind": "GitRepository", "name": "a"}, "`path` is required"),
        ({"kind": "GitRepository", "path": "a"}, "`name` is required"),
        ({"kind": "GitRepository", "name": "a", "path": "b", "valuesKey": "c"}, "taken whole"),
        ({"kind": "File", "name": "a", "path": "b"}, "no `name`"),
        ({"kind": "File"}, "`path` is required"),
        ({"kind": "ConfigMap", "name": "a", "targetPath": "a b"}, "pattern"),
    ],
)
def test_each_kind_of_values_has_its_own_fields(reference: dict[str, Any], said: str) -> None:
    assert said in refused(valuesFrom=[reference])


def test_nulls_within_values_are_kept_and_values_that_are_null_are_absent() -> None:
    assert release(values={"a": None, "b": [None]}).spec.values == {"a": None, "b": [None]}
    assert release(values=None).spec.values is None


def test_a_directory_is_a_source() -> None:
    spec = release(chart=chart(sourceRef={"kind": "Directory", "name": "charts"})).spec
    assert spec.chart is not None
    assert spec.chart.spec.source_ref.kind == "Directory"


def test_nothing_prints_values() -> None:
    assert "hunter2" not in repr(release(values={"password": "hunter2"}))


def test_status_is_accepted_and_forgotten() -> None:
    document = {**release_document(), "status": {"conditions": [1]}}
    assert "status" not in HelmRelease.model_validate(document).manifest()


def test_the_manifest_says_what_was_said() -> None:
    manifest = release_document(
        timeout="90s", upgrade={"remediation": {"retries": -1}}, test={"enable": True}
    )
    written = HelmRelease.model_validate(manifest).manifest()
    assert written == {
        **manifest,
        "spec": {**manifest["spec"], "interval": "1h0m0s", "timeout": "1m30s"},
    }
    assert written["spec"]["chart"] == CHART
