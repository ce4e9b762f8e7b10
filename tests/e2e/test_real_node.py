"""Real containers: what no simulated pod can show. Slow, and only where a real node can be had.

The node has kubelet and containerd (`devcluster up --real-node`); its cluster is this file's own.
"""

from __future__ import annotations

import secrets
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from devcluster import cluster as devcluster
from devcluster import real_node
from devcluster.chart_server import ChartRepository
from devcluster.cluster import Cluster
from tests.e2e.helmops_process import Helmops, policy, release, repository, until

pytestmark = pytest.mark.slow


def _say(text: str) -> None:
    print(text, file=sys.__stderr__, flush=True)


def _skip_where_there_can_be_none() -> None:
    if reasons := real_node.missing():
        pytest.skip(f"no real node on this machine: {'; '.join(reasons)}")


@pytest.fixture(scope="module")
def real_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A cluster with one real node; nothing of it is left on the machine afterwards."""
    _skip_where_there_can_be_none()
    own = devcluster.start(tmp_path_factory.mktemp("real") / "cluster", _say, real_node=True)
    yield own
    devcluster.remove(own)
    assert own.real_node.remains() == []


@pytest.fixture
def helmops(real_cluster: Cluster, helm4: Path, tmp_path: Path) -> Iterator[Helmops]:
    """helmops in a namespace of the real cluster."""
    namespace = f"t-{secrets.token_hex(5)}"
    real_cluster.request("POST", "/api/v1/namespaces", {"metadata": {"name": namespace}})
    made = Helmops(tmp_path / "helmops", real_cluster, namespace, helm4)
    # A pod of a namespace without it is refused.
    until("the service account exists", lambda: made.get("serviceaccounts/default"))
    yield made
    real_cluster.request("DELETE", f"/api/v1/namespaces/{namespace}")


class Declare:
    """Declares the release `app` of the chart `real`, with a policy."""

    def __init__(self, helmops: Helmops, charts: ChartRepository) -> None:
        self._helmops = helmops
        self._charts = charts

    def __call__(
        self, values: dict[str, Any], verify: dict[str, Any] | None = None, **spec: Any
    ) -> None:
        self._helmops.declare(
            repository(self._charts.url),
            release("app", "real", values=values, **spec),
            policy(verify=verify or {}),
        )


@pytest.fixture
def declare(helmops: Helmops, chart_repository: ChartRepository) -> Declare:
    return Declare(helmops, chart_repository)


def message(helmops: Helmops) -> str:
    """Of the Deployment that runs."""
    annotations = helmops.get("apps/v1/deployments/app")["metadata"]["annotations"]
    return str(annotations["example.test/message"])


# What the window is for ------------------------------------------------------------------------


def test_a_pod_that_gets_ready_and_crashes_inside_the_window_is_rolled_back(
    helmops: Helmops, declare: Declare
) -> None:
    verify = {"watch": "40s", "maxRestarts": 0}
    declare({"message": "good"}, {"watch": "2s"}, timeout="40s")
    with helmops.serve() as service:
        service.until_seen("good is healthy", lambda seen: seen.verdicts.get(1) == "healthy")
        declare({"message": "bad", "crashAfter": 20}, verify, timeout="40s")
        service.until_seen(
            "bad is released and ready",
            lambda seen: seen.is_ready and seen.history[0]["version"] == 2,
        )
        assert helmops.revisions()[2] == "deployed"
        seen = service.until_seen(
            "bad is rolled back",
            lambda seen: seen.history[0]["version"] == 3,
        )
        assert service.terminate() == 0
    assert seen.verdicts[2] == "failed"
    assert seen.verdicts[1] == "healthy"
    assert helmops.revisions() == {1: "superseded", 2: "superseded", 3: "deployed"}
    assert message(helmops) == "good"
    evidence = helmops.run("events", "app", "--evidence", "1").stdout
    assert "bad: out of luck" in evidence
    assert "restart" in evidence


# What a timeout is for -------------------------------------------------------------------------


def test_a_slow_start_that_still_moves_is_not_failed(helmops: Helmops, declare: Declare) -> None:
    # One after the other takes 4 × 4 s and more: longer than the timeout, which counts only while
    # nothing moves.
    declare({"message": "slow", "replicas": 4}, timeout="12s")
    helmops.reconcile()
    declare(
        {"message": "slower", "replicas": 4, "readyAfter": 4},
        {"hardTimeout": "120s"},
        timeout="12s",
    )
    began = time.monotonic()
    helmops.reconcile()
    assert time.monotonic() - began > 12
    assert helmops.revisions() == {1: "superseded", 2: "deployed"}
    assert helmops.see().verdicts == {1: "healthy", 2: "healthy"}
    assert message(helmops) == "slower"


def test_a_start_that_stands_still_is_failed_when_its_timeout_is_over(
    helmops: Helmops, declare: Declare
) -> None:
    declare({"message": "good"}, timeout="30s")
    helmops.reconcile()
    declare({"message": "never", "readyAfter": 3600}, {"hardTimeout": "300s"}, timeout="10s")
    began = time.monotonic()
    helmops.reconcile(status=1)
    assert time.monotonic() - began < 120
    assert helmops.revisions() == {1: "superseded", 2: "failed", 3: "deployed"}
    assert message(helmops) == "good"


# What is left of a pod that is gone ------------------------------------------------------------


def test_what_a_test_said_whose_pod_is_gone_is_in_the_evidence(
    helmops: Helmops, declare: Declare
) -> None:
    declare({"message": "good"}, timeout="30s", test={"enable": True})
    helmops.reconcile()
    declare({"message": "bad", "testStatus": 1}, timeout="30s", test={"enable": True})
    helmops.reconcile(status=1)
    assert message(helmops) == "good"
    assert helmops.get("pods/app-test") is None
    evidence = helmops.run("events", "app", "--evidence", "1").stdout
    assert "bad: looking for the answer" in evidence
    assert "bad: the answer is not 42" in evidence


# The node itself -------------------------------------------------------------------------------


def test_containers_run_crash_and_say_why(
    helmops: Helmops, kubectl: Path, charts: Path, declare: Declare
) -> None:
    helmops.run_helm(
        *("install", "app", str(charts / "real"), "--wait", "--timeout=40s", "--set=crashAfter=1")
    )

    def restarted() -> bool:
        (pod,) = helmops.get("pods")["items"]
        return bool(pod["status"]["containerStatuses"][0]["restartCount"])

    until("the container crashed", restarted)
    logs = _kubectl(helmops, kubectl, "logs", "deployment/app", "--previous")
    assert logs.splitlines() == ["hello: starting", "hello: ready", "hello: out of luck"]


def _kubectl(helmops: Helmops, kubectl: Path, *arguments: str) -> str:
    finished = subprocess.run(
        [
            kubectl,
            f"--kubeconfig={helmops.cluster.kubeconfig}",
            "-n",
            helmops.namespace,
            *arguments,
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    return finished.stdout


@pytest.mark.parametrize("end", ["stopped", "killed"])
def test_nothing_is_left_of_a_node_however_it_ends(
    tmp_path: Path, charts: Path, helm4: Path, end: str, request: pytest.FixtureRequest
) -> None:
    _skip_where_there_can_be_none()
    cluster = devcluster.start(tmp_path / "cluster", _say, real_node=True)
    request.addfinalizer(lambda: devcluster.remove(cluster))
    helmops = Helmops(tmp_path / "helmops", cluster, "default", helm4)
    install = ("install", "app", str(charts / "real"), "--wait", "--timeout=40s")
    helmops.run_helm(*install)
    assert cluster.real_node.remains() != []
    if end == "killed":
        node = cluster._process("node")
        assert node is not None
        subprocess.run(["kill", "-9", str(node.pid)], check=True)
        until("the node is missed", lambda: cluster.missing_parts() == ["node"])
    cluster.stop()
    assert cluster.real_node.remains() == []
    assert _processes_in(cluster.directory) == []
    # It comes back with its data, and its pods begin anew.
    devcluster.start(cluster.directory, _say)
    until("the pod is ready", lambda: _is_available(helmops))


def _processes_in(folder: Path) -> list[str]:
    """The programs that have the folder on their command line."""
    found = []
    for line in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            text = line.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if str(folder) in text:
            found.append(text)
    return found


def _is_available(helmops: Helmops) -> bool:
    status = helmops.get("apps/v1/deployments/app")["status"]
    return bool(status.get("availableReplicas")) and len(helmops.get("pods")["items"]) == 1
