"""Failed upgrades go back to the last revision that was seen healthy, and to no other."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from devcluster.chart_server import ChartRepository
from devcluster.loopback import Answer, LoopbackServer
from tests.e2e.helmops_process import Helmops, policy, release, repository

BAD = {"mode": "bad"}


class Declare:
    """Declares the release `app` with a policy, and nothing else."""

    def __init__(self, helmops: Helmops, charts: ChartRepository) -> None:
        self._helmops = helmops
        self._charts = charts

    def __call__(
        self,
        chart: str,
        values: dict[str, Any] | None = None,
        rules: dict[str, Any] | None = None,
        **spec: Any,
    ) -> Helmops:
        self._helmops.declare(
            repository(self._charts.url),
            release("app", chart, values=values or {}, **spec),
            policy(**(rules or {})),
        )
        return self._helmops


@pytest.fixture
def declare(helmops: Helmops, chart_repository: ChartRepository) -> Declare:
    return Declare(helmops, chart_repository)


@pytest.fixture
def declare_for_either(helmops_of_either: Helmops, chart_repository: ChartRepository) -> Declare:
    """With helm 4, and once more with helm 3."""
    return Declare(helmops_of_either, chart_repository)


def deployment_message(helmops: Helmops) -> str:
    template = helmops.get("apps/v1/deployments/app")["spec"]["template"]
    return str(template["metadata"]["annotations"]["example.test/message"])


def test_an_upgrade_that_never_gets_ready_is_rolled_back(declare_for_either: Declare) -> None:
    declare_for_either("web", {"message": "good"}).reconcile()
    helmops = declare_for_either("web", {"message": "bad", "simulate": "crash"}, timeout="3s")
    helmops.reconcile(status=1)
    seen = helmops.see()
    assert helmops.revisions() == {1: "superseded", 2: "failed", 3: "deployed"}
    assert seen.verdicts == {3: "healthy", 2: "failed", 1: "healthy"}
    assert seen.condition("Remediated")["reason"] == "RollbackSucceeded"
    assert seen.condition("Stalled")["reason"] == "RetriesExceeded"
    assert seen.status["upgradeFailures"] == 1
    assert deployment_message(helmops) == "good"


def test_a_failed_test_is_rolled_back_and_what_is_restored_is_tested(
    declare_for_either: Declare,
) -> None:
    tests = {"enable": True}
    declare_for_either("failing-test", {"fail": False}, test=tests).reconcile()
    helmops = declare_for_either("failing-test", {"fail": True}, test=tests)
    helmops.reconcile(status=1)
    seen = helmops.see()
    assert helmops.data()["fail"] == "false"
    assert seen.verdicts == {3: "healthy", 2: "failed", 1: "healthy"}
    restored, failed = seen.history[0], seen.history[1]
    assert restored["testHooks"]["app-test"]["phase"] == "Succeeded"
    assert failed["testHooks"]["app-test"]["phase"] == "Failed"


def test_good_failed_failed_goes_to_the_good_one(declare_for_either: Declare) -> None:
    retries = {"remediation": {"retries": 0, "remediateLastFailure": False}}
    declare_for_either("broken-service", {"mode": "good"}).reconcile()
    helmops = declare_for_either("broken-service", BAD, upgrade=retries)
    helmops.reconcile(status=1)
    declare_for_either("broken-service", {**BAD, "again": True}, upgrade=retries).reconcile(
        status=1
    )
    assert helmops.revisions() == {1: "deployed", 2: "failed", 3: "failed"}
    # Now the same failure again, with Flux's remediation switched on.
    declare_for_either("broken-service", {**BAD, "again": True}).reconcile(status=1)
    assert helmops.data() == {"mode": "good"}
    seen = helmops.see()
    assert seen.history[0]["action"] == "rollback"
    assert seen.history[0]["digest"] == seen.history[-1]["digest"]
    assert seen.healthy_revision == max(helmops.revisions())


def test_a_bad_revision_that_helm_calls_superseded_is_no_target(
    declare_for_either: Declare,
) -> None:
    retries = {"remediation": {"retries": 0, "remediateLastFailure": False}}
    helmops = declare_for_either("broken-service", {"mode": "good"})
    helmops.reconcile()
    for number in (2, 3):
        declare_for_either("broken-service", {**BAD, "number": number}, upgrade=retries)
        helmops.reconcile(status=1)
    with pytest.raises(AssertionError, match=r"192\.0\.2\.1"):
        helmops.run_helm("rollback", "app")
    lie = {1: "deployed", 2: "failed", 3: "superseded", 4: "failed"}
    assert helmops.revisions() == lie
    # A person's revision is held first; then the way goes back past the lie.
    helmops.reconcile(status=1)
    assert helmops.see().reason == "RevisionMadeByHand"
    assert helmops.revisions() == lie
    helmops.run("rollback", "app")
    assert helmops.data() == {"mode": "good"}
    assert helmops.see().history[0]["action"] == "rollback"


def test_without_a_healthy_revision_nothing_is_touched(declare: Declare) -> None:
    helmops = declare("web", {"simulate": "crash"}, timeout="2s")
    helmops.reconcile(status=1)
    assert helmops.see().condition("Stalled")["reason"] == "RetriesExceeded"
    declare("web", {"simulate": "crash", "message": "other"}, timeout="2s")
    helmops.reconcile(status=1)
    seen = helmops.see()
    assert seen.condition("Stalled")["reason"] == "MissingRollbackTarget"
    assert helmops.revisions() == {1: "failed", 2: "failed"}
    before = helmops.everything()
    helmops.reconcile(status=1)
    assert helmops.everything() == before


def test_a_failed_http_check_is_a_failed_release(declare: Declare) -> None:
    answers = {"status": 200}
    with LoopbackServer(lambda request: Answer(answers["status"], b"{}")) as server:
        check = {
            "name": "answers",
            "http": {"url": f"{server.url}/health", "timeout": "2s"},
            "interval": "100ms",
            "timeout": "3s",
            "failureThreshold": 2,
        }
        rules = {"verify": {"checks": [check]}}
        helmops = declare("config", {"data": {"number": 1}}, rules)
        helmops.reconcile()
        upgraded = declare("config", {"data": {"number": 2}}, rules)
        answers["status"] = 503
        upgraded.reconcile(status=1)
    seen = helmops.see()
    assert helmops.data()["number"] == "1"
    assert [each["action"] for each in seen.history] == ["rollback", "upgrade", "install"]
    # The check fails for what was restored as well, and that is no reason to go on.
    assert seen.verdicts == {3: "failed", 2: "failed", 1: "healthy"}
    assert seen.condition("Stalled")["reason"] == "RollbackFailed"


def test_a_failed_cel_check_is_a_failed_release(declare: Declare) -> None:
    check = {
        "name": "small",
        "cel": {
            "object": {"apiVersion": "v1", "kind": "ConfigMap", "name": "app"},
            "expr": "int(object.data.number) < 5",
        },
        "interval": "100ms",
        "timeout": "2s",
        "failureThreshold": 2,
    }
    rules = {"verify": {"checks": [check]}}
    helmops = declare("config", {"data": {"number": 1}}, rules)
    helmops.reconcile()
    declare("config", {"data": {"number": 9}}, rules).reconcile(status=1)
    seen = helmops.see()
    assert helmops.data()["number"] == "1"
    assert seen.verdicts == {3: "healthy", 2: "failed", 1: "healthy"}
    assert "small" in seen.history[1]["helmops"]["message"]


def test_rollback_by_hand_holds_until_resume(declare: Declare) -> None:
    helmops = declare("config", {"data": {"number": 1}})
    helmops.reconcile()
    declare("config", {"data": {"number": 2}}).reconcile()
    helmops.run("rollback", "app")
    assert helmops.data()["number"] == "1"
    seen = helmops.see()
    assert seen.ours["hold"]["reason"] == "RolledBackByHand"
    helmops.reconcile(status=1)
    assert helmops.data()["number"] == "1"
    helmops.run("resume", "app")
    helmops.reconcile()
    assert helmops.data()["number"] == "2"


def test_rollback_by_hand_holds_until_the_declaration_changes(
    declare: Declare,
) -> None:
    helmops = declare("config", {"data": {"number": 1}})
    helmops.reconcile()
    declare("config", {"data": {"number": 2}}).reconcile()
    helmops.run("rollback", "app", "--to", "1")
    declare("config", {"data": {"number": 3}}).reconcile()
    assert helmops.data()["number"] == "3"
    assert helmops.see().ours["hold"] is None


def test_rollback_by_hand_goes_only_to_what_was_seen_healthy(
    declare: Declare,
) -> None:
    helmops = declare("web", {"message": "good"})
    helmops.reconcile()
    declare("web", {"message": "bad", "simulate": "crash"}, timeout="2s").reconcile(status=1)
    before = helmops.revisions()
    told = helmops.run("rollback", "app", "--to", "2", status=1)
    assert "was not seen healthy" in told.stderr
    assert "is not stored" in helmops.run("rollback", "app", "--to", "9", status=1).stderr
    assert helmops.revisions() == before


def test_old_revisions_are_pruned_but_never_the_healthy_one(
    declare: Declare,
) -> None:
    options = {"maxHistory": 2, "upgrade": {"remediation": {"remediateLastFailure": False}}}
    helmops = declare("broken-service", {"mode": "good"}, **options)
    helmops.reconcile()
    for number in (2, 3, 4):
        declare("broken-service", {**BAD, "number": number}, **options)
        helmops.reconcile(status=1)
    assert helmops.revisions() == {1: "deployed", 4: "failed"}
    declare("broken-service", {"mode": "good", "number": 5}, **options).reconcile()
    declare("broken-service", {"mode": "good", "number": 6}, **options).reconcile()
    assert helmops.revisions() == {5: "superseded", 6: "deployed"}


def test_retries_are_rolled_back_in_between_and_then_stop(declare: Declare) -> None:
    options = {"interval": "1s", "upgrade": {"remediation": {"retries": 1}}}
    helmops = declare("broken-service", {"mode": "good"}, **options)
    helmops.reconcile()
    declare("broken-service", BAD, **options).reconcile(status=1)
    seen = helmops.see()
    actions = [each["action"] for each in seen.history]
    assert actions == ["rollback", "upgrade", "rollback", "upgrade", "install"]
    assert seen.status["upgradeFailures"] == 2
    assert seen.condition("Stalled")["reason"] == "RetriesExceeded"
    assert helmops.data() == {"mode": "good"}


@pytest.mark.parametrize("first", ["helm3", "helm4"])
def test_releases_of_one_helm_are_upgraded_and_rolled_back_by_the_other(
    first: str,
    helm3: Path,
    helm4: Path,
    make_helmops: Callable[..., Helmops],
    chart_repository: ChartRepository,
) -> None:
    one, other = (helm3, helm4) if first == "helm3" else (helm4, helm3)
    helmops = make_helmops(one)
    charts = repository(chart_repository.url)
    tests = {"enable": True}
    helmops.declare(charts, release("app", "web", values={"message": "1"}, test=tests))
    helmops.reconcile()
    later = helmops.with_helm(other)
    later.declare(charts, release("app", "web", values={"message": "2"}, test=tests))
    later.reconcile()
    assert later.revisions() == {1: "superseded", 2: "deployed"}
    failing = {"message": "3", "tests": {"fail": True}}
    later.declare(charts, release("app", "web", values=failing, test=tests))
    later.reconcile(status=1)
    assert later.see().verdicts == {4: "healthy", 3: "failed", 2: "healthy", 1: "healthy"}
    assert deployment_message(later) == "2"
    helmops.declare(charts, release("app", "web", values={"message": "4"}, test=tests))
    helmops.reconcile()
    assert deployment_message(helmops) == "4"
