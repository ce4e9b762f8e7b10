"""The main job, by the real command line: declarations in, healthy releases out."""

from __future__ import annotations

import json
from typing import Any

import pytest

from devcluster.chart_server import ChartRepository
from devcluster.loopback import Answer, LoopbackServer, Request
from tests.e2e.helmops_process import Helmops, policy, release, repository


@pytest.fixture
def charts(chart_repository: ChartRepository) -> dict[str, Any]:
    return repository(chart_repository.url)


def test_a_declared_release_is_installed_and_seen_healthy(
    helmops_of_either: Helmops, chart_repository: ChartRepository
) -> None:
    helmops = helmops_of_either
    helmops.declare(
        repository(chart_repository.url),
        release("app", "web", values={"message": "hi"}, test={"enable": True}),
    )
    helmops.reconcile()
    seen = helmops.see()
    assert seen.is_ready
    assert seen.reason == "TestSucceeded"
    assert seen.healthy_revision == 1
    assert helmops.revisions() == {1: "deployed"}
    tests = seen.history[0]["testHooks"]
    assert {name: test["phase"] for name, test in tests.items()} == {
        "app-answers-test": "Succeeded",
        "app-health-test": "Succeeded",
        "app-version-test": "Succeeded",
    }


def test_a_second_look_changes_nothing(helmops: Helmops, chart_repository: ChartRepository) -> None:
    helmops.declare(repository(chart_repository.url), release())
    helmops.reconcile()
    before = helmops.everything()
    helmops.reconcile()
    assert helmops.everything() == before


# Upgrades


def test_values_and_versions_are_upgraded_and_the_last_healthy_one_goes_along(
    helmops_of_either: Helmops, charts: dict[str, Any], chart_repository: ChartRepository
) -> None:
    helmops = helmops_of_either
    helmops.declare(charts, release(values={"data": {"message": "one"}}))
    helmops.reconcile()
    helmops.declare(charts, release(values={"data": {"message": "two"}}))
    helmops.reconcile()
    chart_repository.publish("config", "1.1.0")
    helmops.reconcile("--with-source")
    seen = helmops.see()
    assert (helmops.data()["message"], helmops.data()["chart"]) == ("two", "1.1.0")
    assert helmops.revisions() == {1: "superseded", 2: "superseded", 3: "deployed"}
    assert seen.healthy_revision == 3
    assert seen.status["lastAttemptedRevision"] == "1.1.0"
    history = helmops.run("history", "app", "-o", "json").stdout
    assert "1.1.0" in history


def test_a_chart_that_was_published_again_is_held_and_nothing_changes(
    helmops: Helmops, charts: dict[str, Any], chart_repository: ChartRepository
) -> None:
    helmops.declare(charts, release())
    helmops.reconcile()
    chart_repository.publish("config", "1.0.0", values={"data": {"message": "other"}})
    helmops.reconcile("--with-source", status=1)
    assert helmops.see().reason == "VersionRetagged"
    assert helmops.revisions() == {1: "deployed"}


def test_force_upgrades_once_what_is_in_sync(helmops: Helmops, charts: dict[str, Any]) -> None:
    helmops.declare(charts, release())
    helmops.reconcile()
    helmops.reconcile("--force")
    assert helmops.revisions() == {1: "superseded", 2: "deployed"}
    helmops.reconcile()
    assert helmops.revisions() == {1: "superseded", 2: "deployed"}


def test_annotations_of_flux_ask_for_the_same(helmops: Helmops, charts: dict[str, Any]) -> None:
    def asked(token: str) -> dict[str, Any]:
        return release(
            metadata={
                "annotations": {
                    "reconcile.fluxcd.io/requestedAt": token,
                    "reconcile.fluxcd.io/forceAt": token,
                }
            }
        )

    helmops.declare(charts, release())
    with helmops.serve() as service:
        service.until_ready()
        helmops.declare(charts, asked("one"))
        service.until_seen("upgraded", lambda seen: seen.healthy_revision == 2)
        assert service.terminate() == 0
    assert helmops.see().status["lastHandledForceAt"] == "one"


# Order


def test_dependencies_come_first_and_a_failed_one_holds_up_the_rest(
    helmops: Helmops, charts: dict[str, Any]
) -> None:
    def declared(**values: object) -> None:
        helmops.declare(
            charts,
            release("third", dependsOn=[{"name": "second"}]),
            release("second", dependsOn=[{"name": "first"}]),
            release("first", "template-error", values=values),
        )

    declared()
    helmops.reconcile(status=1)
    assert helmops.see("second").reason == "DependencyNotReady"
    assert helmops.revisions("second") == helmops.revisions("third") == {}
    declared(owner={"team": "us"})
    helmops.reconcile()
    made = [helmops.see(name).history[0]["firstDeployed"] for name in ("first", "second", "third")]
    assert made == sorted(made)


def test_a_ready_expression_replaces_the_look_at_ready(
    helmops: Helmops, charts: dict[str, Any]
) -> None:
    # `web` never gets ready; its own condition Released says nothing of that.
    ready = "dep.status.history.size() > 0"
    helmops.declare(
        charts,
        release("web", "web", values={"simulate": "never-ready"}, timeout="2s"),
        release("app", dependsOn=[{"name": "web", "readyExpr": ready}]),
    )
    helmops.reconcile(status=1)
    assert helmops.see("app").is_ready


# Failed installs


def test_a_failed_install_is_kept_and_tried_again_when_something_changes(
    helmops: Helmops, charts: dict[str, Any]
) -> None:
    helmops.declare(charts, release("app", "hooks", values={"fail": "post-install"}))
    helmops.reconcile(status=1)
    seen = helmops.see()
    assert helmops.revisions() == {1: "failed"}
    assert seen.reason == "RetriesExceeded"
    assert seen.status["installFailures"] == 1
    helmops.reconcile(status=1)
    assert helmops.revisions() == {1: "failed"}
    helmops.declare(charts, release("app", "hooks"))
    helmops.reconcile()
    assert helmops.see().verdicts == {2: "healthy", 1: "failed"}


def test_install_retries_uninstall_in_between(helmops: Helmops, charts: dict[str, Any]) -> None:
    helmops.declare(
        charts,
        release(
            "app",
            "hooks",
            interval="1s",
            values={"fail": "post-install"},
            install={"remediation": {"retries": 1, "remediateLastFailure": True}},
        ),
    )
    helmops.reconcile(status=1)
    assert helmops.revisions() == {}
    assert helmops.get("configmaps/app") is None
    assert helmops.see().status["installFailures"] == 2


def test_flux_defaults_leave_a_failed_upgrade_as_it_is(
    helmops: Helmops, charts: dict[str, Any]
) -> None:
    helmops.more_environment["HELMOPS_DEFAULTS"] = "flux"
    helmops.declare(charts, release("app", "broken-service"))
    helmops.reconcile()
    helmops.declare(charts, release("app", "broken-service", values={"mode": "bad"}))
    helmops.reconcile(status=1)
    assert helmops.revisions() == {1: "deployed", 2: "failed"}
    assert helmops.see().condition("Stalled")["reason"] == "RetriesExceeded"


def test_a_reset_tries_again_after_retries_were_used_up(
    helmops: Helmops, charts: dict[str, Any]
) -> None:
    answers = [503]
    with LoopbackServer(lambda request: Answer(answers[-1])) as server:
        check = {"name": "up", "http": {"url": server.url}, "failureThreshold": 1}
        rules = policy(verify={"checks": [{**check, "interval": "100ms", "timeout": "2s"}]})
        helmops.declare(charts, release(), rules)
        helmops.reconcile(status=1)
        answers.append(200)
        helmops.reconcile(status=1)
        helmops.reconcile("--reset")
    assert helmops.see().is_ready


# Tests, checks and hooks


def test_tests_can_be_chosen_and_their_failure_ignored(
    helmops: Helmops, charts: dict[str, Any]
) -> None:
    chosen = {"enable": True, "filters": [{"name": "app-health-test"}]}
    failing = {"tests": {"fail": True}}
    helmops.declare(charts, release("app", "web", values=failing, test=chosen))
    helmops.reconcile()
    seen = helmops.see()
    assert seen.is_ready
    phases = {name: test["phase"] for name, test in seen.history[0]["testHooks"].items()}
    assert phases["app-health-test"] == "Succeeded"
    assert phases.get("app-answers-test", "") == ""
    ignoring = {"enable": True, "ignoreFailures": True}
    helmops.declare(charts, release("app", "web", values={**failing, "a": 1}, test=ignoring))
    helmops.reconcile()
    seen = helmops.see()
    assert seen.is_ready
    assert seen.condition("TestSuccess")["status"] == "False"
    assert seen.healthy_revision == 1  # a release whose test failed is nothing to go back to


def test_helmops_test_runs_the_tests_of_what_is_released(
    helmops: Helmops, charts: dict[str, Any]
) -> None:
    helmops.declare(charts, release("app", "web"), release("bad", "failing-test"))
    helmops.reconcile()
    helmops.run("test", "app")
    helmops.run("test", "bad", status=1)


def test_own_expressions_decide_what_is_healthy(helmops: Helmops, charts: dict[str, Any]) -> None:
    expression = {"apiVersion": "v1", "kind": "ConfigMap", "current": "data.message == 'good'"}
    for message, status in (("good", 0), ("bad", 1)):
        values = {"data": {"message": message}}
        app = release(values=values, healthCheckExprs=[expression], timeout="2s")
        helmops.declare(charts, app)
        helmops.reconcile(status=status)
    assert helmops.data()["message"] == "good"
    assert helmops.see().verdicts == {3: "healthy", 2: "failed", 1: "healthy"}


def test_hooks_run_around_an_upgrade_and_its_remediation(
    helmops: Helmops, charts: dict[str, Any]
) -> None:
    told: list[dict[str, Any]] = []

    def take(request: Request) -> Answer:
        told.append(json.loads(request.body))
        return Answer(200)

    job = {
        "spec": {
            "restartPolicy": "Never",
            "containers": [{"name": "dump", "image": "example.test/dump", "command": ["dump"]}],
        }
    }
    points = ("beforeUpgrade", "failed", "beforeRollback", "afterRollback", "afterSuccess")
    with LoopbackServer(take) as server:
        hooks: list[dict[str, Any]] = [
            {"name": f"tell-{point.lower()}", "at": point, "webhook": {"url": server.url}}
            for point in points
        ]
        hooks.append({"name": "dump", "at": "failed", "job": {"template": job}, "timeout": "20s"})
        rules = policy(remediation={"hooks": hooks})
        helmops.declare(charts, release("app", "broken-service"), rules)
        helmops.reconcile()
        bad = release("app", "broken-service", values={"mode": "bad"})
        helmops.declare(charts, bad, rules)
        helmops.reconcile(status=1)
    assert [each["at"] for each in told] == [
        *("afterSuccess", "beforeUpgrade", "failed", "beforeRollback", "afterRollback")
    ]
    ran = {each["name"]: each for each in helmops.see().ours["hooks"]}
    assert ran["dump"]["succeeded"]


# Other names


def test_another_release_name_is_held_with_what_it_would_uninstall(
    helmops: Helmops, charts: dict[str, Any]
) -> None:
    helmops.declare(charts, release())
    helmops.reconcile()
    helmops.declare(charts, release(releaseName="renamed"))
    helmops.reconcile(status=1)
    seen = helmops.see()
    assert seen.reason == "ReleaseMoved"
    assert any("uninstall" in line for line in seen.ours["hold"]["plan"])
    assert helmops.revisions("app") == {1: "deployed"}
    assert helmops.revisions("renamed") == {}
    helmops.run("resume", "app")
    helmops.reconcile()
    assert helmops.revisions("app") == {}
    assert helmops.revisions("renamed") == {1: "deployed"}


def test_another_chart_is_held_unless_it_may_be_upgraded_in_place(
    helmops: Helmops, charts: dict[str, Any]
) -> None:
    helmops.declare(charts, release())
    helmops.reconcile()
    helmops.declare(charts, release("app", "deprecated"))
    helmops.reconcile(status=1)
    assert helmops.see().reason == "ChartNameChanged"
    in_place = {"chartNameChangeStrategy": "InPlaceUpdate"}
    helmops.declare(charts, release("app", "deprecated", upgrade=in_place))
    helmops.reconcile()
    assert helmops.revisions() == {1: "superseded", 2: "deployed"}


def test_a_suspended_declaration_is_left_alone(helmops: Helmops, charts: dict[str, Any]) -> None:
    helmops.declare(charts, release(suspend=True))
    helmops.reconcile(status=None)
    assert helmops.revisions() == {}
    helmops.declare(charts, release())
    helmops.reconcile()
    assert helmops.revisions() == {1: "deployed"}


def test_reconcile_takes_a_removed_declaration_as_its_policy_said(
    helmops: Helmops, charts: dict[str, Any]
) -> None:
    prune = policy(prune=True, selector={"names": ["pruned"]})
    helmops.declare(charts, release("app"), file="rest.yaml")
    helmops.declare(prune, release("pruned"), release("left"), file="going.yaml")
    helmops.reconcile()
    helmops.declare(prune, file="going.yaml")
    helmops.reconcile("app")
    assert helmops.revisions("pruned") == {1: "deployed"}  # only what was named
    helmops.reconcile()
    assert helmops.revisions("pruned") == {}
    assert helmops.revisions("left") == {1: "deployed"}
    assert helmops.see("left").ours["removed"]
