from __future__ import annotations

from typing import Any

import pytest

from helmops.errors import DeclarationError
from helmops.model.declaration_set import read_declarations
from helmops.model.declared import DeclarationSet, SourceFile
from helmops.service.waking import (
    changed_releases,
    dependents_of,
    needs_in_cluster,
    opened_with,
    references_of,
    secrets_of,
    users_of,
)
from tests.unit.reconcile.samples import (
    artifact,
    chart,
    config_map,
    declare,
    git_repository,
    helm_chart,
    key,
    policy,
    release,
    repository,
    secret,
    source_file,
)

BEFORE = (
    repository(secretRef={"name": "token"}),
    release(
        "web",
        valuesFrom=[
            {"kind": "ConfigMap", "name": "values"},
            {"kind": "Secret", "name": "passwords"},
        ],
    ),
    release("db"),
    config_map("values", a="1"),
    secret("passwords", a="1"),
    secret("token", username="ada", password="x"),
)


def files(*documents: dict[str, Any]) -> DeclarationSet:
    """Each document in a file of its own, so that a change of one moves no other."""
    named = {f"{d['kind']}-{d['metadata']['name']}.yaml": d for d in documents}
    return read_declarations([source_file(d, path=name) for name, d in named.items()])


def woken(*after: dict[str, Any], before: tuple[dict[str, Any], ...] = BEFORE) -> dict[str, str]:
    """Names of the releases that are woken, and why, when these take the place of their like."""
    changed = {(d["kind"], d["metadata"]["name"]) for d in after}
    kept = [d for d in before if (d["kind"], d["metadata"]["name"]) not in changed]
    found = changed_releases(files(*before), files(*kept, *after))
    return {each.name: why for each, why in found.items()}


# What a change of declarations wakes


def test_nothing_changed_nobody_is_woken() -> None:
    assert woken() == {}
    assert changed_releases(DeclarationSet(), DeclarationSet()) == {}


def test_at_the_start_everybody_is_woken() -> None:
    assert set(changed_releases(DeclarationSet(), files(*BEFORE))) == {key("web"), key("db")}


def test_a_new_release_is_woken_alone() -> None:
    assert woken(release("new")) == {"new": "declared"}


def test_a_changed_release_is_woken_alone() -> None:
    assert woken(release("db", interval="2h")) == {"db": "its declaration changed"}


def test_a_release_that_stands_elsewhere_now_is_woken_to_say_so() -> None:
    one, other = source_file(release(), path="a.yaml"), source_file(release(), path="b.yaml")
    found = changed_releases(read_declarations([one]), read_declarations([other]))
    assert found == {key(): "its declaration changed"}


def test_annotations_ask_for_something() -> None:
    asked = release("db", metadata={"annotations": {"reconcile.fluxcd.io/requestedAt": "now"}})
    assert woken(asked) == {"db": "its annotations changed"}


def test_labels_alone_are_nothing_to_act_on() -> None:
    assert woken(release("db", metadata={"labels": {"team": "a"}})) == {}


def test_a_label_that_brings_another_policy_is() -> None:
    chosen = policy(selector={"matchLabels": {"team": "a"}}, prune=True)
    labelled = release("db", metadata={"labels": {"team": "a"}})
    assert woken(labelled, before=(*BEFORE, chosen)) == {"db": "its policy changed"}


@pytest.mark.parametrize(
    ("selector", "expected"), [({}, {"web", "db"}), ({"names": ["db"]}, {"db"})]
)
def test_a_policy_wakes_those_that_it_is_for(selector: Any, expected: set[str]) -> None:
    assert set(woken(policy(selector=selector, prune=True))) == expected


def test_a_policy_that_says_the_same_in_other_words_wakes_nobody() -> None:
    before = (*BEFORE, policy(prune=True))
    assert woken(policy(prune=True, selector={"names": ["web", "db"]}), before=before) == {}


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        (config_map("values", a="2"), {"web": "ConfigMap apps/values changed"}),
        (secret("passwords", a="2"), {"web": "Secret apps/passwords changed"}),
        (
            repository(url="https://other.example.com", secretRef={"name": "token"}),
            {
                "web": "HelmRepository apps/charts changed",
                "db": "HelmRepository apps/charts changed",
            },
        ),
        (
            secret("token", username="ada", password="y"),
            {"web": "Secret apps/token changed", "db": "Secret apps/token changed"},
        ),
        (config_map("unused", a="1"), {}),
        (repository("unused"), {}),
    ],
    ids=["values", "secret values", "source", "credentials", "unused values", "unused source"],
)
def test_what_a_release_is_made_of_wakes_it(changed: Any, expected: dict[str, str]) -> None:
    assert woken(changed) == expected


def test_what_is_needed_of_the_cluster_is_what_is_not_declared() -> None:
    check = {"name": "up", "http": {"url": "http://web", "secretRef": {"name": "probe"}}}
    declared = files(
        repository(secretRef={"name": "token"}),
        release("web", valuesFrom=[{"kind": "ConfigMap", "name": "values"}]),
        release("db", valuesFrom=[{"kind": "Secret", "name": "passwords"}]),
        policy(selector={"names": ["db"]}, verify={"checks": [check]}),
        secret("passwords", a="1"),
        config_map("unused", a="1"),
    )
    assert dict(needs_in_cluster(declared)) == {
        ("Secret", key("token")): (key("web"), key("db")),
        ("ConfigMap", key("values")): (key("web"),),
        ("Secret", key("probe")): (key("db"),),
    }
    assert opened_with(declared, key("token")) == (("HelmRepository", key("charts")),)
    assert opened_with(declared, key("values")) == ()


def test_what_comes_or_goes_wakes_as_well() -> None:
    without = tuple(d for d in BEFORE if d["metadata"]["name"] != "values")
    assert woken(config_map("values", a="1"), before=without) == {
        "web": "ConfigMap apps/values changed"
    }
    found = changed_releases(files(*BEFORE), files(*without))
    assert found == {key("web"): "ConfigMap apps/values changed"}


def test_a_source_that_breaks_or_is_mended_wakes_its_users() -> None:
    broken = repository(noSuchField=1)
    assert set(woken(broken)) == {"web", "db"}
    mended = tuple(d for d in BEFORE if d["kind"] != "HelmRepository")
    assert set(woken(repository(), before=(*mended, broken))) == {"web", "db"}
    assert woken(broken, before=(*mended, broken)) == {}


def test_a_release_that_can_no_longer_be_used_is_not_woken_by_this() -> None:
    assert woken(release("db", noSuchField=1)) == {}


# Who belongs to whom


def test_a_release_refers_to_its_chart_and_to_its_values() -> None:
    found = declare(
        repository(),
        git_repository(),
        release(
            chart=chart(sourceRef={"kind": "HelmRepository", "name": "far", "namespace": "infra"}),
            valuesFrom=[
                {"kind": "GitRepository", "name": "git", "path": "a.yaml"},
                {"kind": "File", "path": "b.yaml"},
                {"kind": "Secret", "name": "s"},
            ],
        ),
    )
    assert list(references_of(found, found.releases[key()])) == [
        ("HelmRepository", key("far", "infra")),
        ("GitRepository", key("git")),
        ("Secret", key("s")),
    ]


def test_a_release_refers_to_its_helm_chart_and_to_its_source() -> None:
    referring = release(chartRef={"kind": "HelmChart", "name": "web", "namespace": "infra"})
    del referring["spec"]["chart"]
    chart_there = helm_chart(metadata={"namespace": "infra"})
    found = declare(referring, chart_there)
    assert list(references_of(found, found.releases[key()])) == [
        ("HelmChart", key("web", "infra")),
        ("HelmRepository", key("charts", "infra")),
    ]
    assert users_of(found, ("HelmRepository", key("charts", "infra"))) == (key(),)
    chart_there["spec"]["version"] = "2.x"
    assert changed_releases(found, declare(referring, chart_there)) == {
        key(): "HelmChart infra/web changed"
    }
    gone = declare(referring)
    assert list(references_of(gone, gone.releases[key()])) == [("HelmChart", key("web", "infra"))]


def test_a_release_refers_to_what_its_repository_includes_too() -> None:
    found = declare(
        git_repository(include=[{"repository": {"name": "shared"}}]),
        git_repository("shared", include=[{"repository": {"name": "git"}}]),  # in a circle
        release(chart=chart(sourceRef={"kind": "GitRepository", "name": "git"})),
    )
    assert list(references_of(found, found.releases[key()])) == [
        ("GitRepository", key("git")),
        ("GitRepository", key("shared")),
    ]


def test_users_of_a_source_are_those_that_refer_to_it() -> None:
    found = declare(*BEFORE, git_repository())
    assert set(users_of(found, ("HelmRepository", key("charts")))) == {key("web"), key("db")}
    assert users_of(found, ("ConfigMap", key("values"))) == (key("web"),)
    assert users_of(found, ("GitRepository", key("git"))) == ()
    assert users_of(found, ("HelmRepository", key("charts", "other"))) == ()


def test_a_source_is_opened_with_both_of_its_secrets() -> None:
    found = declare(
        repository("one", secretRef={"name": "token"}, certSecretRef={"name": "tls"}),
        git_repository("two", secretRef={"name": "ssh"}),
        repository("three"),
    )
    assert secrets_of(found, ("HelmRepository", key("one"))) == (key("token"), key("tls"))
    assert secrets_of(found, ("GitRepository", key("two"))) == (key("ssh"),)
    assert secrets_of(found, ("HelmRepository", key("three"))) == ()
    assert secrets_of(found, ("HelmRepository", key("none"))) == ()


def test_an_artifact_has_secrets_for_its_proxy_and_its_signatures_too() -> None:
    found = declare(
        artifact(
            "one",
            secretRef={"name": "login"},
            proxySecretRef={"name": "proxy"},
            verify={"secretRef": {"name": "keys"}},
        )
    )
    secrets = secrets_of(found, ("OCIRepository", key("one")))
    assert secrets == (key("login"), key("proxy"), key("keys"))


def test_a_changed_key_wakes_the_releases_whose_charts_it_verifies() -> None:
    signed = chart(verify={"provider": "cosign", "secretRef": {"name": "keys"}})
    documents = (repository(), release("web", chart=signed), release("db"))
    before = declare(*documents, secret("keys", cosign__pub="A"))
    after = declare(*documents, secret("keys", cosign__pub="B"))
    assert changed_releases(before, after) == {key("web"): "Secret apps/keys changed"}


def test_a_broken_source_has_no_secrets() -> None:
    found = DeclarationSet(broken={("HelmRepository", key("one")): DeclarationError("broken")})
    assert secrets_of(found, ("HelmRepository", key("one"))) == ()


def test_dependents_are_those_that_wait_whether_it_is_declared_or_not() -> None:
    found = declare(
        repository(),
        release("web", dependsOn=[{"name": "db"}, {"name": "mq", "namespace": "infra"}]),
        release("api", dependsOn=[{"name": "db"}]),
        release("db"),
    )
    assert dependents_of(found) == {
        key("db"): (key("web"), key("api")),
        key("mq", "infra"): (key("web"),),
    }


def test_a_file_that_cannot_be_read_wakes_nobody() -> None:
    before = files(*BEFORE)
    error = DeclarationError("cannot be read", where="x.yaml")
    after = read_declarations(
        [
            *(source_file(d, path=f"{d['kind']}-{d['metadata']['name']}.yaml") for d in BEFORE),
            SourceFile("x.yaml", error=error),
        ],
        previous=before,
    )
    assert changed_releases(before, after) == {}
