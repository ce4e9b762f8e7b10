import re
from collections.abc import Sequence

import pytest

from helmops.errors import DeclarationError, DecryptionFailed
from helmops.model.declaration_set import (
    DeclarationSet,
    SourceFile,
    cycle_through,
    read_declarations,
)
from helmops.model.releases import DeclarationKey
from tests.unit.model.manifests import file


def key(name: str, namespace: str = "apps") -> DeclarationKey:
    return DeclarationKey(namespace, name)


def release(name: str, *spec: str, namespace: str = "apps", labels: str = "{}") -> str:
    more = "".join(f"  {line}\n" for line in spec)
    return (
        "apiVersion: helm.toolkit.fluxcd.io/v2\nkind: HelmRelease\n"
        f"metadata: {{name: {name}, namespace: {namespace}, labels: {labels}}}\n"
        "spec:\n  interval: 1h\n"
        "  chart: {spec: {chart: podinfo, sourceRef: {kind: HelmRepository, name: podinfo}}}\n"
        f"{more}---\n"
    )


def policy(name: str, spec: str = "{}", namespace: str = "apps") -> str:
    return (
        "apiVersion: helmops.dev/v1alpha1\nkind: ReleasePolicy\n"
        f"metadata: {{name: {name}, namespace: {namespace}}}\nspec: {spec}\n---\n"
    )


REPOSITORY = """\
apiVersion: source.toolkit.fluxcd.io/v1
kind: HelmRepository
metadata: {name: podinfo, namespace: apps}
spec: {url: "https://charts.example.com"}
---
"""


def read(*texts: str | SourceFile, previous: DeclarationSet | None = None) -> DeclarationSet:
    files = [
        text if isinstance(text, SourceFile) else file(f"{chr(ord('a') + n)}.yaml", text)
        for n, text in enumerate(texts)
    ]
    return read_declarations(files, previous=previous)


def said(declared: DeclarationSet) -> list[str]:
    return [str(error) for error in declared.errors]


def names(keys: Sequence[DeclarationKey] | object) -> list[str]:
    return sorted(key.name for key in keys)  # type: ignore[attr-defined]


def test_everything_that_is_declared_is_found_by_kind_and_key() -> None:
    declared = read(
        release("web") + REPOSITORY + policy("all"),
        """\
        apiVersion: v1
        kind: ConfigMap
        metadata: {name: settings, namespace: apps}
        data: {values.yaml: "a: 1"}
        ---
        apiVersion: v1
        kind: Secret
        metadata: {name: login, namespace: apps}
        stringData: {a: b}
        ---
        apiVersion: notification.toolkit.fluxcd.io/v1beta3
        kind: Provider
        metadata: {name: hooks, namespace: apps}
        spec: {type: generic, address: "https://hooks.example.com"}
        ---
        apiVersion: notification.toolkit.fluxcd.io/v1beta3
        kind: Alert
        metadata: {name: all, namespace: apps}
        spec: {providerRef: {name: hooks}, eventSources: [{kind: HelmRelease, name: "*"}]}
        ---
        apiVersion: notification.toolkit.fluxcd.io/v1
        kind: Receiver
        metadata: {name: push, namespace: apps}
        spec: {type: github, secretRef: {name: a}, resources: [{kind: HelmRelease, name: web}]}
        """,
    )
    assert said(declared) == []
    assert names(declared.releases) == ["web"]
    assert list(declared.sources) == [("HelmRepository", key("podinfo"))]
    assert names(declared.policies) == ["all"]
    assert declared.config_maps[key("settings")].resource.content == {"values.yaml": b"a: 1"}
    assert declared.secrets[key("login")].resource.content == {"a": b"b"}
    assert names(declared.providers) == ["hooks"]
    assert names(declared.alerts) == ["all"]
    assert names(declared.receivers) == ["push"]
    assert declared.complete


def test_a_document_without_namespace_goes_to_the_default_one() -> None:
    text = release("web").replace(", namespace: apps", "")
    (release_key,) = read_declarations([file("a.yaml", text)], default_namespace="prod").releases
    assert release_key == key("web", "prod")


def test_kinds_of_others_are_counted_and_no_error() -> None:
    other = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: a}\n---\n"
    namespace = "apiVersion: v1\nkind: Namespace\nmetadata: {name: a}\n"
    declared = read(other + other + namespace)
    assert dict(declared.ignored) == {"Deployment (apps)": 2, "Namespace (core)": 1}
    assert declared.errors == ()
    assert declared.complete


def test_the_releases_of_a_bad_file_are_untouched_and_the_others_are_read() -> None:
    declared = read(
        release("good") + release("bad", "timeout: never"), release("elsewhere") + REPOSITORY
    )
    assert names(declared.releases) == ["elsewhere"]
    assert names(declared.untouched) == ["bad", "good"]
    assert declared.bad_files == {"a.yaml"}
    assert declared.complete
    assert [error.field for error in declared.errors] == ["spec.timeout"]
    assert declared.knows(key("good"))
    assert declared.knows(key("elsewhere"))
    assert not declared.knows(key("gone"))


def test_errors_of_all_files_come_together_in_the_order_of_lines() -> None:
    declared = read(
        release("one", "a: 1", "b: 2") + release("two", "timeout: x"), release("three", "c: 1")
    )
    assert [error.where for error in declared.errors] == [
        "a.yaml:7",
        "a.yaml:8",
        "a.yaml:16",
        "b.yaml:7",
    ]


def test_a_broken_file_leaves_open_what_is_in_it() -> None:
    declared = read(release("web") + "a: [\n", release("other"))
    assert not declared.complete
    assert names(declared.untouched) == ["web"]
    assert names(declared.releases) == ["other"]


def test_a_file_that_could_not_be_read_leaves_open_what_is_in_it() -> None:
    error = DeclarationError("permission denied", where="a.yaml")
    declared = read(SourceFile("a.yaml", error=error), release("other"))
    assert not declared.complete
    assert names(declared.releases) == ["other"]
    assert declared.bad_files == {"a.yaml"}
    assert said(declared) == ["a.yaml: permission denied"]


@pytest.mark.parametrize(
    "text",
    [
        "apiVersion: helm.toolkit.fluxcd.io/v2\nkind: HelmRelease\nmetadata: {name: 5}\nspec: {}\n",
        "apiVersion: helm.toolkit.fluxcd.io/v2\nkind: HelmRelease\n",
        "apiVersion: helm.toolkit.fluxcd.io/v2\nkind: HelmReleese\nmetadata: {name: web}\n",
        "kind: HelmRelease\nmetadata: {name: web, namespace: 5}\n",
        release("web").replace("{name: web,", "{name: web, name: web2,"),
        "replicas: 1\n",
    ],
)
def test_a_document_that_may_be_any_release_leaves_the_set_incomplete(text: str) -> None:
    declared = read(text)
    assert declared.errors
    assert not declared.complete


@pytest.mark.parametrize(
    "text",
    [
        release("web").replace("v2", "v2beta2"),
        release("web").replace("helm.toolkit.fluxcd.io/v2", "helm.fluxcd.io/v1"),
        release("web", "zzz: 1"),
    ],
)
def test_a_release_that_is_wrong_but_known_by_name_is_untouched(text: str) -> None:
    declared = read(text, release("other"))
    assert names(declared.untouched) == ["web"]
    assert names(declared.releases) == ["other"]
    assert declared.complete


def test_an_empty_file_is_an_error_since_it_may_be_in_the_middle_of_being_written() -> None:
    declared = read(SourceFile("a.yaml", ""), release("other"))
    assert not declared.complete
    assert "is empty" in said(declared)[0]
    assert names(declared.releases) == ["other"]
    commented = read("# web moved to another repository\n")
    assert commented.errors == ()
    assert commented.complete


def test_two_declarations_of_the_same_name_are_both_refused_and_only_they() -> None:
    declared = read(release("web") + release("ok"), release("web"))
    assert said(declared) == [
        "a.yaml:1: metadata.name: HelmRelease apps/web is declared more than once, also at "
        "b.yaml:1 (keep one of them)",
        "b.yaml:1: metadata.name: HelmRelease apps/web is declared more than once, also at "
        "a.yaml:1 (keep one of them)",
    ]
    assert names(declared.untouched) == ["web"]
    assert names(declared.releases) == ["ok"]
    assert declared.complete


def test_the_same_name_in_another_namespace_or_kind_is_another_declaration() -> None:
    declared = read(release("web") + release("web", namespace="prod") + policy("web"))
    assert declared.errors == ()


def test_a_source_that_is_declared_twice_cannot_be_used() -> None:
    declared = read(release("web") + REPOSITORY, REPOSITORY)
    assert declared.sources == {}
    with pytest.raises(DeclarationError, match="declared more than once"):
        declared.source_of(declared.releases[key("web")])


def test_two_releases_that_are_one_to_helm_are_both_refused() -> None:
    declared = read(
        release("web", "releaseName: front")
        + release("front")
        + release("front", namespace="prod")
        + release("a", "targetNamespace: prod", "releaseName: front")
    )
    assert sorted(str(k) for k in declared.untouched) == [
        "apps/a",
        "apps/front",
        "apps/web",
        "prod/front",
    ]
    assert (
        "gives helm the release apps/front, and so does apps/front (a.yaml:9)" in said(declared)[0]
    )
    assert declared.errors[0].where == "a.yaml:7"


def test_releases_that_depend_on_each_other_in_a_circle_are_refused_and_only_they() -> None:
    declared = read(
        release("a", "dependsOn: [{name: b}]")
        + release("b", "dependsOn: [{name: c}, {name: free}]")
        + release("c", "dependsOn: [{name: a, namespace: apps}]")
        + release("needs-a", "dependsOn: [{name: a}]")
        + release("free", "dependsOn: [{name: missing}]")
    )
    assert names(declared.untouched) == ["a", "b", "c"]
    assert names(declared.releases) == ["free", "needs-a"]
    assert said(declared)[0] == (
        "a.yaml:7: spec.dependsOn: the releases depend on each other in a circle: "
        "apps/a -> apps/b -> apps/c -> apps/a "
        "(none of them could ever begin; remove one dependency)"
    )


def test_a_release_that_depends_on_itself_is_a_circle() -> None:
    assert names(read(release("a", "dependsOn: [{name: a}]")).untouched) == ["a"]


def test_a_circle_through_a_bad_file_is_still_a_circle() -> None:
    declared = read(
        release("a", "dependsOn: [{name: b}]") + "b: 1\n", release("b", "dependsOn: [{name: a}]")
    )
    assert names(declared.untouched) == ["a", "b"]


def test_the_same_name_in_another_namespace_is_no_circle() -> None:
    declared = read(release("a", "dependsOn: [{name: a, namespace: base}]"))
    assert declared.errors == ()


def test_the_shortest_circle_is_told() -> None:
    wants = {
        key("a"): [key("b"), key("c")],
        key("b"): [key("c")],
        key("c"): [key("a")],
        key("d"): [key("a")],
    }
    assert cycle_through(key("a"), wants) == (key("a"), key("c"))
    assert cycle_through(key("b"), wants) == (key("b"), key("c"), key("a"))
    assert cycle_through(key("d"), wants) == ()


def test_a_long_chain_of_dependencies_is_no_circle() -> None:
    texts = [
        release(f"r{n}", f"dependsOn: [{{name: r{n + 1}}}]" if n < 300 else "suspend: false")
        for n in range(301)
    ]
    assert read("".join(texts)).errors == ()


def test_values_files_beside_declarations_are_no_declarations() -> None:
    declared = read_declarations(
        [
            file(
                "apps/web.yaml", release("web", "valuesFrom: [{kind: File, path: ../env/web.yml}]")
            ),
            file("env/web.yml", "replicas: 1\n---\n{{ broken\n"),
            file("apps/values.yaml", "a: 1\n"),
            file("apps/values-prod.yml", "{{ template }}\n"),
            file("apps/web.values.yaml", ""),
            file("apps/kustomization.yaml", "resources: [web.yaml]\n"),
        ]
    )
    assert said(declared) == []
    assert declared.complete
    assert names(declared.releases) == ["web"]


def test_files_that_a_pattern_refers_to_are_no_declarations() -> None:
    declared = read_declarations(
        [
            file("apps/web.yaml", release("web", "valuesFrom: [{kind: File, path: ../env/*.yml}]")),
            file("env/a.yml", "a: 1\n"),
            file("env/b.yml", "b: 1\n"),
        ]
    )
    assert declared.errors == ()
    assert declared.complete


def test_an_encrypted_file_that_nothing_decrypts_breaks_what_it_declares_and_no_more() -> None:
    locked = "apiVersion: v1\nkind: Secret\nmetadata: {name: db, namespace: apps}\nsops: {}\n"
    error, other = (DecryptionFailed("no key", where=name) for name in ("db.yaml", "inside.yaml"))
    declared = read_declarations(
        [
            file("web.yaml", release("web")),
            SourceFile("db.yaml", locked, error=error),
            SourceFile("inside.yaml", release("inside"), error=other),
            SourceFile("values-prod.yaml", "a: ENC[]\nsops: {}\n", error=error),
        ]
    )
    assert list(declared.releases) == [key("web")]
    assert list(declared.untouched) == [key("inside")]
    assert declared.broken == {("Secret", key("db")): error}
    assert declared.errors == (error, other)
    assert not declared.complete


def test_a_declaration_in_a_file_that_is_named_as_values_is_read() -> None:
    declared = read_declarations([file("values-of-web.yaml", release("web"))])
    assert names(declared.releases) == ["web"]


def test_a_file_that_is_neither_is_told_what_to_do() -> None:
    declared = read_declarations([file("web.yaml", "\nreplicas: 1\n")])
    assert said(declared) == [
        "web.yaml:2: neither `apiVersion` nor `kind`: this is no declaration "
        "(name values files `values*.yaml`, or refer to them by `valuesFrom`)"
    ]


def test_a_file_that_two_directories_name_is_read_once() -> None:
    text = release("web")
    declared = read_declarations(
        [
            SourceFile("apps/a.yaml", text, location="/srv/apps/a.yaml"),
            SourceFile("./apps/a.yaml", text, location="/srv/apps/a.yaml"),
        ]
    )
    assert declared.errors == ()


def test_the_policy_of_a_release_is_what_its_policies_say_together() -> None:
    declared = read(
        release("web", labels="{tier: front}")
        + release("db")
        + policy("all", "{verify: {watch: 1m}}")
        + policy("front", "{mode: observe, selector: {matchLabels: {tier: front}}}")
        + policy("other", "{prune: true}", namespace="prod")
    )
    assert declared.errors == ()
    web, db = declared.policy_for(key("web")), declared.policy_for(key("db"))
    assert (web.mode, web.verify.watch.seconds, web.prune) == ("observe", 60, False)
    assert (db.mode, db.verify.watch.seconds, db.prune) == ("enforce", 60, False)
    assert [policy.key.name for policy in declared.policies_of(key("web"))] == ["all", "front"]
    assert declared.policy_for(key("unheard-of")).mode == "enforce"


def test_two_policies_that_say_the_same_part_for_a_release_are_an_error_that_names_both() -> None:
    declared = read(
        release("web")
        + release("db")
        + policy("all", "{mode: enforce}")
        + policy("web", "{mode: observe, prune: true, selector: {names: [web]}}")
    )
    assert said(declared) == [
        "a.yaml:23: spec.mode: the policies apps/all (a.yaml:15) and apps/web both say `mode` for "
        "the release apps/web (let only one of them say it, or narrow a selector)"
    ]
    assert names(declared.untouched) == ["web"]
    assert names(declared.releases) == ["db"]


BAD_POLICY = "{mode: observ, selector: {names: [web]}}"


def test_a_policy_with_an_error_leaves_the_releases_it_means_untouched() -> None:
    declared = read(
        policy("p", BAD_POLICY), release("web") + release("db") + release("web", namespace="prod")
    )
    assert sorted(map(str, declared.untouched)) == ["apps/web"]
    assert "a policy that may be for it cannot be read (mend a.yaml:4)" in str(
        declared.untouched[key("web")]
    )


@pytest.mark.parametrize("spec", ["{selektor: {names: [web]}}", "{selector: {name: web}}", "5"])
def test_a_policy_whose_selector_is_unclear_may_be_for_all_of_its_namespace(spec: str) -> None:
    declared = read(
        policy("p", spec), release("web") + release("db") + release("web", namespace="prod")
    )
    assert sorted(map(str, declared.untouched)) == ["apps/db", "apps/web"]


def test_policies_that_may_be_in_a_broken_file_hold_every_release() -> None:
    declared = read("a: [\n" + policy("p"), release("web") + release("x", namespace="prod"))
    assert sorted(map(str, declared.untouched)) == ["apps/web", "prod/x"]


def test_a_policy_declared_twice_is_in_force_for_nobody_and_its_releases_are_untouched() -> None:
    declared = read(policy("p", "{mode: observe}"), policy("p", "{}"), release("web"))
    assert names(declared.untouched) == ["web"]
    assert declared.policies == {}


def test_a_policy_that_can_no_longer_be_read_stays_in_force() -> None:
    good = read(policy("p", "{mode: observe}"), release("web"))
    for text in (policy("p", "{mode: observ}"), "a: [\n", "", policy("q") + "a: [\n"):
        declared = read(SourceFile("a.yaml", text), release("web"), previous=good)
        assert names(declared.releases) == ["web"]
        assert declared.policy_for(key("web")).mode == "observe"
        again = read(SourceFile("a.yaml", text), release("web"), previous=declared)
        assert again.policy_for(key("web")).mode == "observe"


def test_releases_of_a_file_that_can_no_longer_be_read_are_untouched_and_say_why() -> None:
    good = read(release("web") + release("api"), release("db"))
    declared = read("a: [\n", release("db"), previous=good)
    assert names(declared.untouched) == ["api", "web"]
    assert names(declared.releases) == ["db"]
    again = read("b: [\n", release("db"), previous=declared)
    assert names(again.untouched) == ["api", "web"]
    moved = read("a: [\n", release("db") + release("web"), previous=good)
    assert names(moved.untouched) == ["api"]
    mended = read(release("web"), release("db"), previous=again)
    assert names(mended.releases) == ["db", "web"]
    assert mended.untouched == {}


def test_a_policy_that_was_removed_is_no_longer_in_force() -> None:
    good = read(policy("p", "{mode: observe}"), release("web"))
    declared = read(policy("q"), release("web"), previous=good)
    assert declared.policy_for(key("web")).mode == "enforce"


def test_nothing_raises_for_any_beginning_of_a_file() -> None:
    whole = release("web", "dependsOn: [{name: db}]", "values: {a: [1, {b: c}]}") + policy("p")
    for end in range(0, len(whole), 7):
        declared = read(whole[:end])
        keys = {key("web")} if re.search(r"name: web\b", whole[:end]) else set()
        if declared.complete:
            assert keys <= set(declared.releases) | set(declared.untouched), whole[:end]
