import textwrap

import pytest

from helmops.errors import NotSupported
from helmops.model.declarations.validation import (
    check_identity,
    identify,
    is_declaration,
    validate,
)
from helmops.model.documents import read_documents


def errors(text: str) -> list[str]:
    """Everything that is wrong with the only document of a text."""
    (document,) = read_documents("web.yaml", textwrap.dedent(text)).documents
    identity = identify(document, "default")
    error = check_identity(document, identity)
    if error is not None:
        return [str(error)]
    assert identity.model is not None
    return [str(error) for error in validate(document, identity.model, identity.namespace)[1]]


RELEASE = """\
    apiVersion: helm.toolkit.fluxcd.io/v2
    kind: HelmRelease
    metadata: {name: web}
    spec:
      interval: 1h
      chart: {spec: {chart: podinfo, sourceRef: {kind: HelmRepository, name: podinfo}}}
"""


def test_a_good_release_has_no_errors() -> None:
    assert errors(RELEASE) == []


@pytest.mark.parametrize(
    ("more", "error"),
    [
        (
            "upgrade: {remedation: {retries: 3}}",
            "web.yaml:7: spec.upgrade.remedation: unknown field (did you mean `remediation`?)",
        ),
        ("timeOut: 5m", "web.yaml:7: spec.timeOut: unknown field (did you mean `timeout`?)"),
        (
            "retries: 3",
            "web.yaml:7: spec.retries: unknown field (did you mean "
            "`spec.install.remediation.retries` or `spec.upgrade.remediation.retries`?)",
        ),
        ("zzz: 1", "web.yaml:7: spec.zzz: unknown field"),
        ("maxHistory: '5'", "web.yaml:7: spec.maxHistory: must be an integer, not a string"),
        ("maxHistory: 1.5", "web.yaml:7: spec.maxHistory: must be an integer, not a number"),
        (
            "suspend: 'true'",
            "web.yaml:7: spec.suspend: must be true or false, not a string (without quotes)",
        ),
        (
            "targetNamespace: 5",
            "web.yaml:7: spec.targetNamespace: must be a string, not a number "
            "(put it in quotes to have it as text)",
        ),
        (
            "releaseName: on",
            "web.yaml:7: spec.releaseName: must be a string, not a boolean (`yes`, `no`, `on` and "
            "`off` are some, too) (put it in quotes to have it as text)",
        ),
        ("releaseName: ''", "web.yaml:7: spec.releaseName: must not be empty"),
        (
            f"releaseName: {'a' * 54}",
            "web.yaml:7: spec.releaseName: is longer than 53 characters",
        ),
        ("install: []", "web.yaml:7: spec.install: must be a mapping, not a list"),
        ("values: x", "web.yaml:7: spec.values: must be a mapping, not a string"),
        ("dependsOn: {name: a}", "web.yaml:7: spec.dependsOn: must be a list, not a mapping"),
        ("dependsOn: [a]", "web.yaml:7: spec.dependsOn[0]: must be a mapping, not a string"),
        ("dependsOn: [{}]", "web.yaml:7: spec.dependsOn[0].name: required and missing"),
        (
            "dependsOn: [{nmae: a}]",
            "web.yaml:7: spec.dependsOn[0].name: required and missing (is `nmae` meant to be it?)",
        ),
        (
            "timeout: 5 minutes",
            "web.yaml:7: spec.timeout: is not a duration: write numbers with units ms, s, m or h, "
            "such as `90s` or `1h30m`",
        ),
        (
            "install: {crds: create}",
            "web.yaml:7: spec.install.crds: must be `Skip`, `Create` or `CreateReplace` "
            "(did you mean `Create`?)",
        ),
        (
            "kubeConfig: {}",
            "web.yaml:7: spec.kubeConfig: exactly one of `configMapRef` and `secretRef` must be "
            "set",
        ),
        (
            "chartRef: {kind: OCIRepository, name: a}",
            "web.yaml:4: spec: exactly one of `chart` and `chartRef` must be set",
        ),
    ],
)
def test_an_error_says_where_what_and_what_to_do(more: str, error: str) -> None:
    assert error in errors(RELEASE + f"      {more}\n")


def test_all_errors_of_a_document_are_said_at_once_each_with_its_line() -> None:
    found = errors("""\
        apiVersion: helm.toolkit.fluxcd.io/v2
        kind: HelmRelease
        metadata:
          name: Web
          label: {a: b}
        spec:
          interval: often
          chart:
            spec:
              sourceRef:
                kind: HelmRepo
        """)
    assert [text.split(": ")[:2] for text in found] == [
        ["web.yaml:4", "metadata.name"],
        ["web.yaml:5", "metadata.label"],
        ["web.yaml:9", "spec.chart.spec.chart"],
        ["web.yaml:11", "spec.chart.spec.sourceRef.kind"],
        ["web.yaml:10", "spec.chart.spec.sourceRef.name"],
        ["web.yaml:7", "spec.interval"],
    ]


def test_a_bad_name_is_told_how_names_are() -> None:
    (error,) = errors("""\
        apiVersion: v1
        kind: ConfigMap
        metadata: {name: My_Config}
        """)
    assert "lower-case letters, digits and `-`" in error


def test_the_short_address_of_git_is_told_how_to_be_written() -> None:
    (error,) = errors("""\
        apiVersion: source.toolkit.fluxcd.io/v1
        kind: GitRepository
        metadata: {name: apps}
        spec: {interval: 1m, url: "git@example.com:apps.git"}
        """)
    assert "ssh://user@host/path" in error


def test_no_error_shows_what_a_secret_holds() -> None:
    found = errors("""\
        apiVersion: v1
        kind: Secret
        metadata: {name: a, hunter2: hunter3}
        stringData: {pin: 31337}
        data: {token: "hunter4!", list: [hunter5]}
        type: {hunter6: 1}
        """)
    assert len(found) >= 4
    for word in ("31337", "hunter3", "hunter4", "hunter5", "hunter6"):
        assert not [text for text in found if word in text]


def test_a_spec_that_is_missing_is_missed() -> None:
    assert errors("""\
        apiVersion: helm.toolkit.fluxcd.io/v2
        kind: HelmRelease
        metadata: {name: a}
        """) == ["web.yaml:1: spec: required and missing"]


@pytest.mark.parametrize(
    ("api_version", "kind", "said"),
    [
        (
            "helm.toolkit.fluxcd.io/v2beta1",
            "HelmRelease",
            "`apiVersion: helm.toolkit.fluxcd.io/v2`",
        ),
        ("helm.toolkit.fluxcd.io/v2beta2", "HelmRelease", "HelmRelease v2beta2 is not read"),
        ("source.toolkit.fluxcd.io/v1beta2", "HelmRepository", "migrate to `apiVersion: source"),
        ("notification.toolkit.fluxcd.io/v1beta2", "Alert", "/v1beta3`"),
        ("helm.fluxcd.io/v1", "HelmRelease", "`apiVersion: helm.toolkit.fluxcd.io/v2`"),
        ("v2", "HelmRelease", "another API group"),
        ("helm.toolkit.fluxcd.io/v2", "HelmReleese", "did you mean `HelmRelease`?"),
        ("source.toolkit.fluxcd.io/v1", "HelmRelease", "helm.toolkit.fluxcd.io/v2"),
        ("helmops.dev/v1alpha1", "Policy", "did you mean `ReleasePolicy`?"),
        ("helmops.dev/v1alpha1", "Zzz", "it has `ReleasePolicy`"),
        ("helmops.dev/v1alpha1", "Pipeline", "not acted on yet"),
        ("helmops.dev/v1alpha1", "Cluster", "not acted on yet"),
        ("v2", "ConfigMap", "`apiVersion: v1`"),
    ],
)
def test_another_version_or_kind_is_told_what_to_write(
    api_version: str, kind: str, said: str
) -> None:
    (error,) = errors(f"apiVersion: {api_version}\nkind: {kind}\nmetadata: {{name: a}}\n")
    assert said in error


def test_a_planned_kind_is_not_supported() -> None:
    (document,) = read_documents("a", "apiVersion: helmops.dev/v1\nkind: Pipeline\n").documents
    assert isinstance(check_identity(document, identify(document, "default")), NotSupported)


@pytest.mark.parametrize(
    ("api_version", "kind"),
    [
        ("apps/v1", "Deployment"),
        ("v1", "Namespace"),
        ("kustomize.config.k8s.io/v1beta1", "Kustomization"),
        ("helm.cattle.io/v1", "HelmChart"),
        ("pkg.crossplane.io/v1", "Provider"),
        ("source.toolkit.fluxcd.io/v1", "ExternalArtifact"),
    ],
)
def test_kinds_of_others_are_no_error(api_version: str, kind: str) -> None:
    text = f"apiVersion: {api_version}\nkind: {kind}\nmetadata: {{name: a}}\n"
    (document,) = read_documents("a", text).documents
    identity = identify(document, "default")
    assert identity.model is None
    assert check_identity(document, identity) is None


@pytest.mark.parametrize("text", ["kind: HelmRelease", "apiVersion: v1", "apiVersion: 1\nkind: A"])
def test_api_version_and_kind_are_both_needed(text: str) -> None:
    (error,) = errors(text)
    assert "required and missing" in error


@pytest.mark.parametrize(
    ("text", "namespace", "name", "is_certain"),
    [
        ("{name: a}", "default", "a", True),
        ("{name: a, namespace: b}", "b", "a", True),
        ("{name: a, namespace: ''}", "default", "a", True),
        ("{name: 5}", "default", "", False),
        ("{name: a, namespace: 5}", "default", "a", False),
        ("[a]", "default", "", False),
    ],
)
def test_a_document_says_who_it_is_also_when_it_is_wrong(
    text: str, namespace: str, name: str, is_certain: bool
) -> None:
    whole = f"apiVersion: helm.toolkit.fluxcd.io/v2\nkind: HelmRelease\nmetadata: {text}\n"
    (document,) = read_documents("a", whole).documents
    identity = identify(document, "default")
    assert (identity.namespace, identity.name, identity.is_certain) == (namespace, name, is_certain)


@pytest.mark.parametrize("data", [{"replicas": 1}, [1], "text", None, {}])
def test_values_are_no_declaration(data: object) -> None:
    assert not is_declaration(data)
