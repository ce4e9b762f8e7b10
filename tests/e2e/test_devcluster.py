"""The local cluster does what the other tests rely on."""

import json
import os
import signal
import subprocess
import time
import urllib.error
from pathlib import Path
from typing import Any

import pytest

from devcluster.cluster import Cluster, start


def _pod(
    name: str, *, restart: str = "Always", simulate: str = "", **container: Any
) -> dict[str, Any]:
    return {
        "metadata": {
            "name": name,
            "annotations": {"helmops.dev/simulate": simulate} if simulate else {},
        },
        "spec": {
            "restartPolicy": restart,
            "containers": [{"name": "main", "image": "example.test/main:1", **container}],
        },
    }


def _until(cluster: Cluster, path: str, done: Any) -> dict[str, Any]:
    """The object at `path` as soon as `done` says so of it; the last one seen after 20 seconds."""
    deadline = time.monotonic() + 20
    while True:
        found: dict[str, Any] = cluster.request("GET", path)
        if done(found) or time.monotonic() > deadline:
            return found
        time.sleep(0.05)


def _looks(pod: dict[str, Any]) -> str:
    """What `kubectl get pods` shows as the status of a pod."""
    status = pod["status"]
    container = status.get("containerStatuses", [{}])[0]
    if reason := container.get("state", {}).get("waiting", {}).get("reason"):
        return str(reason)
    if status["phase"] == "Running":
        return "Ready" if container["ready"] else "NotReady"
    return str(status["phase"])


@pytest.mark.parametrize(
    ("pod", "expected"),
    [
        (_pod("plain"), "Ready"),
        (_pod("broken", image="example.test/main:broken"), "ImagePullBackOff"),
        (_pod("pull", simulate="image-pull"), "ImagePullBackOff"),
        (_pod("crash", simulate="crash"), "CrashLoopBackOff"),
        (
            _pod("by-variable", env=[{"name": "HELMOPS_SIMULATE", "value": "crash"}]),
            "CrashLoopBackOff",
        ),
        (_pod("never", simulate="never-ready"), "NotReady"),
        (_pod("once", restart="Never"), "Succeeded"),
        (_pod("true", restart="Never", command=["true"]), "Succeeded"),
        (_pod("false", restart="Never", command=["/bin/false"]), "Failed"),
        (_pod("exit", restart="Never", command=["sh", "-c"], args=["sleep 1; exit 3"]), "Failed"),
        (_pod("exit-0", restart="Never", command=["sh", "-c", "exit 0"]), "Succeeded"),
        (_pod("or", restart="Never", command=["sh", "-c", "wget x || exit 1"]), "Succeeded"),
        (_pod("falsework", restart="Never", command=["./falsework"]), "Succeeded"),
        (_pod("hang", restart="Never", simulate="hang"), "Ready"),
    ],
    ids=lambda value: value["metadata"]["name"] if isinstance(value, dict) else "",
)
def test_a_pod_does_what_it_says(
    cluster: Cluster, namespace: str, pod: dict[str, Any], expected: str
) -> None:
    name = pod["metadata"]["name"]
    pods = f"/api/v1/namespaces/{namespace}/pods"
    _until(cluster, f"/api/v1/namespaces/{namespace}/serviceaccounts", lambda o: o["items"])
    cluster.request("POST", pods, pod)
    assert _looks(_until(cluster, f"{pods}/{name}", lambda o: _looks(o) == expected)) == expected


def test_a_running_pod_follows_its_annotation_to_a_crash_and_back(
    cluster: Cluster, namespace: str
) -> None:
    pods = f"/api/v1/namespaces/{namespace}/pods"
    _until(cluster, f"/api/v1/namespaces/{namespace}/serviceaccounts", lambda o: o["items"])
    cluster.request("POST", pods, _pod("it"))
    seen = []
    for simulate, expected in ((None, "Ready"), ("crash", "CrashLoopBackOff"), (None, "Ready")):
        patch = {"metadata": {"annotations": {"helmops.dev/simulate": simulate}}}
        cluster.request("PATCH", f"{pods}/it", patch, content="merge-patch+json")
        seen.append(_looks(_until(cluster, f"{pods}/it", lambda o, e=expected: _looks(o) == e)))
    assert seen == ["Ready", "CrashLoopBackOff", "Ready"]


def test_helm_installs_waits_and_tests_the_web_chart(
    cluster: Cluster, namespace: str, helm: Path, charts: Path, tmp_path: Path
) -> None:
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        environment = {"KUBECONFIG": str(cluster.kubeconfig), "HOME": str(tmp_path)}
        command = [helm, *arguments, "--namespace", namespace, "--timeout", "60s"]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

    installed = run("install", "w", str(charts / "web"), "--wait")
    assert installed.returncode == 0, installed.stderr
    tested = run("test", "w")
    assert tested.stdout.count("Succeeded") == 3, tested.stdout + tested.stderr
    assert run("upgrade", "w", str(charts / "web"), "--set", "tests.fail=true").returncode == 0
    assert run("test", "w").returncode != 0


def test_the_api_server_goes_away_and_comes_back_with_its_data(private_cluster: Cluster) -> None:
    there = "/api/v1/namespaces/default/configmaps/it"
    private_cluster.request("POST", there.rpartition("/")[0], {"metadata": {"name": "it"}})
    address = private_cluster.server

    private_cluster.stop_apiserver()
    with pytest.raises(urllib.error.URLError):
        private_cluster.request("GET", there)
    assert private_cluster.missing_parts() == ["kube-apiserver"]

    private_cluster.start_apiserver()
    assert private_cluster.request("GET", there)["metadata"]["name"] == "it"
    assert private_cluster.server == address
    assert private_cluster.running()
    pods = "/api/v1/namespaces/default/pods"
    private_cluster.request("POST", pods, _pod("after"))
    assert (
        _looks(_until(private_cluster, f"{pods}/after", lambda o: _looks(o) == "Ready")) == "Ready"
    )


def test_a_second_start_finds_it_running_and_a_stopped_one_keeps_its_data(
    private_cluster: Cluster,
) -> None:
    there = "/api/v1/namespaces/default/configmaps/it"
    private_cluster.request("POST", there.rpartition("/")[0], {"metadata": {"name": "it"}})
    said: list[str] = []
    assert start(private_cluster.directory, said.append) == private_cluster
    assert said == []
    private_cluster.stop()
    assert not private_cluster.running()
    start(private_cluster.directory)
    assert private_cluster.request("GET", there)["metadata"]["name"] == "it"


def test_one_that_was_killed_as_by_a_power_loss_comes_back_with_its_data(
    private_cluster: Cluster,
) -> None:
    there = "/api/v1/namespaces/default/configmaps/it"
    private_cluster.request("POST", there.rpartition("/")[0], {"metadata": {"name": "it"}})
    records = list((private_cluster.directory / "pids").iterdir())
    for record in records:
        os.kill(json.loads(record.read_text())["pid"], signal.SIGKILL)
    while len(private_cluster.missing_parts()) < len(records) == 5:
        time.sleep(0.05)

    start(private_cluster.directory)
    assert private_cluster.running()
    assert private_cluster.request("GET", there)["metadata"]["name"] == "it"


def test_only_its_owner_may_read_the_kubeconfig_and_the_keys(cluster: Cluster) -> None:
    assert cluster.kubeconfig.stat().st_mode & 0o777 == 0o600
    assert (cluster.directory / "secrets").stat().st_mode & 0o777 == 0o700
