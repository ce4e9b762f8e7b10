"""Timeouts know whether a rollout moves: what cannot recover fails at once, what moves goes on."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from devcluster.chart_server import ChartRepository
from tests.e2e.helmops_process import Helmops, policy, release, repository, until

#: Longer than any of these tests may take: whoever waits for it has not noticed anything.
FOREVER = "5m"


class Declare:
    """Declares the release `app` of the chart `web`."""

    def __init__(self, helmops: Helmops, charts: ChartRepository) -> None:
        self._helmops = helmops
        self._charts = charts

    def __call__(
        self, values: dict[str, Any], verify: dict[str, Any] | None = None, **spec: Any
    ) -> Helmops:
        self._helmops.declare(
            repository(self._charts.url),
            release("app", "web", values=values, **spec),
            policy(verify=verify or {}),
        )
        return self._helmops


@pytest.fixture
def declare(helmops_of_either: Helmops, chart_repository: ChartRepository) -> Declare:
    """With helm 4, and once more with helm 3."""
    return Declare(helmops_of_either, chart_repository)


@pytest.fixture
def declare4(helmops: Helmops, chart_repository: ChartRepository) -> Declare:
    return Declare(helmops, chart_repository)


def took(work: Callable[[], object]) -> float:
    started = time.monotonic()
    work()
    return time.monotonic() - started


def test_a_missing_tag_fails_at_once_and_leaves_no_lock(declare: Declare) -> None:
    helmops = declare({"message": "good"})
    helmops.reconcile()
    declare({"image": {"tag": "missing"}}, timeout=FOREVER)
    helmops.reconcile(status=1)
    assert helmops.revisions() == {1: "superseded", 2: "failed", 3: "deployed"}
    seen = helmops.see()
    assert seen.verdicts == {3: "healthy", 2: "failed", 1: "healthy"}
    failed = seen.history[1]["helmops"]["message"]
    assert "ErrImagePull" in failed
    assert "example.test/web:missing: not found" in failed


def test_a_first_install_of_a_missing_tag_fails_at_once(declare4: Declare) -> None:
    helmops = declare4({"image": {"tag": "missing"}}, timeout=FOREVER)
    helmops.reconcile(status=1)
    assert helmops.revisions() == {1: "failed"}
    assert "missing: not found" in helmops.see().message


def test_a_broken_revision_that_is_still_there_does_not_fail_the_one_that_mends_it(
    declare4: Declare,
) -> None:
    helmops = declare4({"image": {"tag": "missing"}}, timeout=FOREVER)
    helmops.reconcile(status=1)
    # Long enough for the old pods to be looked at while the new ones come.
    declare4({"simulateDelay": "4s"}, timeout=FOREVER)
    helmops.reconcile()
    assert helmops.see().verdicts == {2: "healthy", 1: "failed"}


def test_a_rollout_that_moves_may_take_longer_than_its_timeout(declare4: Declare) -> None:
    helmops = declare4({"replicas": 4})
    helmops.reconcile()
    # One pod after the other, three seconds each.
    moving = {"replicas": 4, "message": "two", "simulateDelay": "3s"}
    declare4(moving, {"hardTimeout": FOREVER}, timeout="5s")
    seconds = took(helmops.reconcile)
    assert seconds > 5
    assert helmops.revisions() == {1: "superseded", 2: "deployed"}


def test_a_slow_pull_may_take_longer_than_the_timeout(declare4: Declare) -> None:
    pulling = {"simulate": "slow-pull", "simulateDelay": "6s"}
    helmops = declare4(pulling, {"hardTimeout": FOREVER}, timeout="7s")
    told = helmops.reconcile().text
    assert "pulls an image" in told
    assert helmops.revisions() == {1: "deployed"}


def test_one_that_stands_still_fails_after_its_timeout(declare4: Declare) -> None:
    helmops = declare4({"message": "good"})
    helmops.reconcile()
    declare4({"simulate": "never-ready"}, {"hardTimeout": FOREVER}, timeout="4s")
    helmops.reconcile(status=1)
    assert helmops.revisions() == {1: "superseded", 2: "failed", 3: "deployed"}
    failed = helmops.see().history[1]["helmops"]["message"]
    assert "nothing has moved for 4s" in failed
    assert "Deployment" in failed


def test_a_rollback_that_is_cut_off_leaves_no_lock_and_is_done_again(declare4: Declare) -> None:
    helmops = declare4({"replicas": 4, "message": "good"})
    helmops.reconcile()
    # From now on no pod can be made: neither for the upgrade, nor for the way back.
    quotas = f"/api/v1/namespaces/{helmops.namespace}/resourcequotas"
    quota = {"metadata": {"name": "full"}, "spec": {"hard": {"pods": "0"}}}
    helmops.cluster.request("POST", quotas, quota)
    until("the quota counts", lambda: helmops.get("resourcequotas/full").get("status"))
    declare4({"replicas": 4, "message": "bad"}, timeout="3s")
    helmops.reconcile("--timeout", "10s", status=1)
    seen = helmops.see()
    assert seen.history[0]["action"] == "rollback"
    assert "nothing has moved for 3s" in seen.history[0]["helmops"]["message"]
    assert set(helmops.revisions().values()) <= {"superseded", "deployed", "failed"}

    helmops.cluster.request("DELETE", f"{quotas}/full")
    until("the rollback is done", lambda: _is_back(helmops))
    assert deployment_message(helmops) == "good"


def _is_back(helmops: Helmops) -> bool:
    helmops.reconcile(status=1)
    return helmops.see().history[0]["helmops"]["verdict"] == "healthy"


def deployment_message(helmops: Helmops) -> str:
    template = helmops.get("apps/v1/deployments/app")["spec"]["template"]
    return str(template["metadata"]["annotations"]["example.test/message"])
