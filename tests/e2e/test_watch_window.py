"""What the service sees of a release after it was released: through watches, at once."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from devcluster.chart_server import ChartRepository
from tests.e2e.helmops_process import Helmops, policy, release, repository, until


@pytest.fixture
def declare(helmops: Helmops, chart_repository: ChartRepository) -> Callable[..., None]:
    """Declares the release `app` of the chart `web`, watched for so long."""

    def declare(watch: str, **values: Any) -> None:
        helmops.declare(
            repository(chart_repository.url),
            release("app", "web", values=values),
            policy(verify={"watch": watch}),
        )

    return declare


@pytest.fixture
def simulate(helmops: Helmops, kubectl: Path) -> Callable[[str], None]:
    """Has the pods of the release do something else from now on."""

    def simulate(word: str) -> None:
        subprocess.run(
            [
                kubectl,
                "-n",
                helmops.namespace,
                "annotate",
                *("pods", "--all", f"helmops.dev/simulate={word}", "--overwrite"),
            ],
            env={"KUBECONFIG": str(helmops.cluster.kubeconfig)},
            check=True,
            capture_output=True,
        )

    return simulate


def test_a_crash_inside_the_window_is_rolled_back(
    helmops: Helmops, declare: Callable[..., None]
) -> None:
    declare("0s", message="good")
    helmops.reconcile()
    declare("10m", message="bad", simulate="crash-later")
    with helmops.serve() as service:
        seen = service.until_seen(
            "the crash is rolled back",
            lambda seen: seen.history and seen.history[0]["action"] == "rollback",
        )
        assert "CrashLoopBackOff" in seen.history[1]["helmops"]["message"]
        service.until_logged("woken: its objects: pod app-")
    assert helmops.revisions()[2] != "deployed"


def test_the_window_goes_on_where_a_dead_service_left_it(
    helmops: Helmops, declare: Callable[..., None], simulate: Callable[[str], None]
) -> None:
    declare("0s", message="good")
    helmops.reconcile()
    declare("10m", message="bad")
    with helmops.serve() as service:
        before = service.until_seen("it is watched", lambda seen: seen.ours["state"] == "Watching")
        service.until_logged("its objects: is watched")
        service.kill()
    with helmops.serve() as service:
        service.until_logged("its objects: is watched")
        simulate("crash")
        seen = service.until_seen(
            "the crash is rolled back",
            lambda seen: seen.history and seen.history[0]["action"] == "rollback",
        )
    assert seen.history[1]["version"] == before.history[0]["version"] == 2


def test_after_the_window_a_failure_is_told_and_nothing_is_rolled_back(
    helmops: Helmops, declare: Callable[..., None], simulate: Callable[[str], None]
) -> None:
    declare("0s", message="good")
    with helmops.serve() as service:
        service.until_ready()
        simulate("never-ready")
        lost = service.until_seen("the loss is told", _is_lost)
        assert "available: 0/1" in lost.condition("Healthy")["message"]
        assert lost.is_ready
        simulate("run")
        service.until_seen("it is well again", lambda seen: not _is_lost(seen))
    assert helmops.revisions() == {1: "deployed"}


def _is_lost(seen: Any) -> bool:
    return bool(seen.condition("Healthy").get("status") == "False")


def test_objects_that_change_without_harm_wake_nobody(
    helmops: Helmops, declare: Callable[..., None], kubectl: Path
) -> None:
    declare("10m", message="good")
    with helmops.serve() as service:
        service.until_seen("it is watched", lambda seen: seen.ours["state"] == "Watching")
        service.until_logged("its objects: is watched")
        scale = ["scale", "deployment/app", "--replicas=3", "-n", helmops.namespace]
        subprocess.run(
            [kubectl, *scale],
            env={"KUBECONFIG": str(helmops.cluster.kubeconfig)},
            check=True,
            capture_output=True,
        )
        until(
            "all replicas are ready",
            lambda: helmops.get("apps/v1/deployments/app")["status"].get("readyReplicas") == 3,
        )
        assert service.log.count("its objects:") == 1
