import pytest

from helmops.errors import DeclarationError, NotSupported, SourceMissing
from helmops.model.declaration_set import (
    DeclarationSet,
    SourceFile,
    read_declarations,
    unsupported_fields,
)
from helmops.model.releases import DeclarationKey

WEB = DeclarationKey("apps", "web")


def read(*texts: str) -> DeclarationSet:
    return read_declarations(SourceFile(f"{n}.yaml", text) for n, text in enumerate(texts))


def release(chart: str, *spec: str, name: str = "web", annotations: str = "{}") -> str:
    return (
        "apiVersion: helm.toolkit.fluxcd.io/v2\nkind: HelmRelease\n"
        f"metadata: {{name: {name}, namespace: apps, annotations: {annotations}}}\n"
        f"spec:\n  interval: 1h\n  chart: {{spec: {chart}}}\n"
        + "".join(f"  {line}\n" for line in spec)
        + "---\n"
    )


def source(kind: str, name: str, spec: str, namespace: str = "apps") -> str:
    return (
        f"apiVersion: source.toolkit.fluxcd.io/v1\nkind: {kind}\n"
        f"metadata: {{name: {name}, namespace: {namespace}}}\nspec: {spec}\n---\n"
    )


PODINFO = "{chart: podinfo, sourceRef: {kind: HelmRepository, name: podinfo}}"
SHARED = "{chart: podinfo, sourceRef: {kind: HelmRepository, name: podinfo, namespace: flux}}"
REPOSITORY = source("HelmRepository", "podinfo", '{url: "https://charts.example.com"}')


def test_the_source_of_a_release_is_in_its_namespace_unless_it_says_another() -> None:
    other = source("HelmRepository", "podinfo", '{url: "https://b.example.com"}', "flux")
    declared = read(release(PODINFO) + release(SHARED, name="b") + REPOSITORY + other)
    assert said_url(declared, "web") == "https://charts.example.com"
    assert said_url(declared, "b") == "https://b.example.com"


def said_url(declared: DeclarationSet, name: str) -> str:
    found = declared.source_of(declared.releases[DeclarationKey("apps", name)])
    assert found is not None
    return str(found.resource.manifest()["spec"]["url"])


def test_a_source_that_is_not_declared_is_missing_at_the_place_that_wants_it() -> None:
    declared = read(release(PODINFO), source("HelmRepository", "podinf", '{url: "http://a"}'))
    with pytest.raises(SourceMissing) as raised:
        declared.source_of(declared.releases[WEB])
    assert str(raised.value) == (
        "0.yaml:6: HelmRepository apps/podinfo is not declared (declared are apps/podinf)"
    )
    with pytest.raises(SourceMissing, match="no GitRepository is"):
        declared.source("GitRepository", WEB)


def test_a_source_with_an_error_is_told_with_that_error() -> None:
    declared = read(release(PODINFO), source("HelmRepository", "podinfo", '{url: "ftp://a"}'))
    with pytest.raises(DeclarationError) as raised:
        declared.source_of(declared.releases[WEB])
    assert raised.value.where == "1.yaml:4"
    assert "HelmRepository apps/podinfo has an error" in str(raised.value)


def test_a_directory_and_an_external_artifact_have_no_source() -> None:
    directory = "{chart: web, sourceRef: {kind: Directory, name: charts}}"
    declared = read(release(directory))
    assert declared.source_of(declared.releases[WEB]) is None
    text = release(PODINFO, "chartRef: {kind: ExternalArtifact, name: a}")
    declared = read(text.replace(f"  chart: {{spec: {PODINFO}}}\n", ""))
    assert declared.source_of(declared.releases[WEB]) is None


def test_the_source_of_a_chart_reference_may_be_in_another_namespace() -> None:
    text = release(PODINFO, "chartRef: {kind: OCIRepository, name: a, namespace: flux}")
    text = text.replace(f"  chart: {{spec: {PODINFO}}}\n", "")
    there = source("OCIRepository", "a", '{url: "oci://a/b", interval: 1m}')
    declared = read(text, there.replace("namespace: apps", "namespace: flux"))
    found = declared.source_of(declared.releases[WEB])
    assert found is not None
    assert (found.resource.kind, str(found.key)) == ("OCIRepository", "flux/a")
    declared = read(text, there)
    with pytest.raises(SourceMissing, match="OCIRepository flux/a is not declared"):
        declared.source_of(declared.releases[WEB])


def test_what_is_not_acted_on_is_named_for_release_source_policies_and_values() -> None:
    declared = read(
        release(
            PODINFO,
            "serviceAccountName: a",
            "valuesFrom: [{kind: GitRepository, name: env, path: a.yaml}]",
        ),
        source("HelmRepository", "podinfo", '{url: "oci://a/b", provider: aws}'),
        source("GitRepository", "env", '{url: "https://a", interval: 1m, provider: azure}'),
        "apiVersion: helmops.dev/v1alpha1\nkind: ReleasePolicy\n"
        "metadata: {name: p, namespace: apps}\nspec:\n  outOfBand: revert\n",
    )
    found = declared.unsupported(WEB)
    assert [(error.where, error.field) for error in found] == [
        ("0.yaml:7", "spec.serviceAccountName"),
        ("1.yaml:4", "spec.provider"),
        ("2.yaml:4", "spec.provider"),
    ]
    assert all(isinstance(error, NotSupported) for error in found)
    assert unsupported_fields(declared.releases[WEB]) == ("spec.serviceAccountName (0.yaml:7)",)


def test_a_source_that_is_missing_is_not_told_as_unsupported() -> None:
    assert read(release(PODINFO)).unsupported(WEB) == ()


def digest(text: str) -> str:
    return read(text).releases[WEB].digest


def test_the_digest_changes_with_the_meaning_and_with_nothing_else() -> None:
    same = digest(release(PODINFO, "timeout: 1m"))
    assert digest("# comment\n" + release(PODINFO, 'timeout: "1m"')) == same
    assert digest(release(PODINFO, "timeout: 1m", annotations="{a: b}")) == same
    assert digest(release(PODINFO, "timeout: 2m")) != same
    assert digest(release(PODINFO, "timeout: 1m", "values: {a: 1}")) != same


def test_the_manifest_has_its_namespace_filled_in_and_is_otherwise_as_written() -> None:
    text = release(PODINFO).replace("namespace: apps, ", "")
    declared = read_declarations([SourceFile("a.yaml", text)], default_namespace="apps")
    manifest = declared.releases[WEB].manifest
    assert manifest["metadata"] == {"name": "web", "namespace": "apps", "annotations": {}}
    assert manifest["spec"]["interval"] == "1h"


def test_nothing_prints_what_is_in_a_declaration() -> None:
    declared = read(
        release(PODINFO, "values: {password: hunter2}")
        + "apiVersion: v1\nkind: Secret\nmetadata: {name: a}\nstringData: {b: hunter2}\n"
    )
    assert "hunter2" not in repr(declared)


def test_an_empty_set_declares_nothing() -> None:
    nothing = DeclarationSet()
    assert nothing.complete
    assert not nothing.knows(WEB)
    assert nothing.policy_for(WEB).mode == "enforce"
