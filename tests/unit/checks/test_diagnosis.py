"""What lies below a workload that is not ready. Deployments are in test_readiness.py."""

from __future__ import annotations

from typing import Any

import pytest

from helmops.checks.diagnosis import diagnose
from tests.fakes.clock import FakeClock
from tests.fakes.objects import FakeObjects


@pytest.mark.parametrize(
    ("api_version", "kind"),
    [
        ("apps/v1", "StatefulSet"),
        ("apps/v1", "DaemonSet"),
        ("apps/v1", "ReplicaSet"),
        ("batch/v1", "Job"),
        ("v1", "ReplicationController"),
    ],
)
async def test_the_pods_of_a_workload_tell(api_version: str, kind: str) -> None:
    cluster = FakeObjects(FakeClock())
    owner = workload(api_version, kind)
    cluster.put(owner, crashed_pod())

    told = await diagnose(cluster, owner)

    assert told == "pod p: container app ended with exit code 2 (Error)"


async def test_a_pod_tells_of_itself() -> None:
    assert (
        await diagnose(FakeObjects(FakeClock()), crashed_pod())
        == "container app ended with exit code 2 (Error)"
    )


async def test_a_workload_without_trouble_tells_nothing() -> None:
    cluster = FakeObjects(FakeClock())
    owner = workload("apps/v1", "DaemonSet")
    cluster.put(owner)

    assert await diagnose(cluster, owner) == ""


@pytest.mark.parametrize(("api_version", "kind"), [("v1", "Service"), ("example.com/v1", "Widget")])
async def test_other_objects_have_nothing_below_them(api_version: str, kind: str) -> None:
    cluster = FakeObjects(FakeClock())

    assert await diagnose(cluster, workload(api_version, kind)) == ""
    assert cluster.asked == []


def workload(api_version: str, kind: str) -> dict[str, Any]:
    return {
        "apiVersion": api_version,
        "kind": kind,
        "metadata": {"name": "w", "namespace": "shop", "uid": "u"},
        "spec": {"selector": {"matchLabels": {"app": "w"}}},
    }


def crashed_pod() -> dict[str, Any]:
    ended = {"terminated": {"exitCode": 2, "reason": "Error"}}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": "p",
            "namespace": "shop",
            "labels": {"app": "w"},
            "ownerReferences": [{"uid": "u"}],
        },
        "status": {
            "phase": "Failed",
            "containerStatuses": [{"name": "app", "ready": False, "state": ended}],
        },
    }
