"""Pod, and what to tell of one in trouble."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from helmops.health import assess
from helmops.health.pod import pod_trouble
from helmops.model.health import Health, HealthStatus

CREATED = datetime(2026, 1, 1, tzinfo=UTC)
NOT_READY = {"type": "Ready", "status": "False"}
UNSCHEDULABLE = {
    "type": "PodScheduled",
    "status": "False",
    "reason": "Unschedulable",
    "message": "0/3 nodes are available: 3 Insufficient cpu.",
}


def pod(phase: str, *conditions: dict[str, Any], **status: Any) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "p", "creationTimestamp": "2026-01-01T00:00:00Z"},
        "status": {"phase": phase, "conditions": list(conditions), **status},
    }


def waiting(name: str, reason: str, message: str = "", **more: Any) -> dict[str, Any]:
    state = {"waiting": {"reason": reason, "message": message}}
    return {"name": name, "ready": False, "state": state, **more}


def ended(name: str, code: int, reason: str = "Error") -> dict[str, Any]:
    state = {"terminated": {"exitCode": code, "reason": reason, "message": "token=abc"}}
    return {"name": name, "ready": False, "state": state}


LOOPING = waiting("app", "CrashLoopBackOff", "back-off 10s restarting failed container")


@pytest.mark.parametrize(
    ("object_", "status", "message"),
    [
        pytest.param(
            pod("Running", {"type": "Ready", "status": "True"}),
            HealthStatus.CURRENT,
            "is Ready",
            id="runs and is ready",
        ),
        pytest.param(
            pod("Succeeded", NOT_READY),
            HealthStatus.CURRENT,
            "completed",
            id="completed with success",
        ),
        pytest.param(
            pod("Failed", NOT_READY),
            HealthStatus.FAILED,
            "failed",
            id="completed without success, which kstatus lets pass",
        ),
        pytest.param(
            pod("Failed", reason="Evicted", message="The node was low on resource: memory."),
            HealthStatus.FAILED,
            "failed: Evicted: The node was low on resource: memory.",
            id="was evicted",
        ),
        pytest.param(
            pod("Failed", containerStatuses=[ended("side", 0), ended("app", 137, "OOMKilled")]),
            HealthStatus.FAILED,
            "failed: container app ended with exit code 137 (OOMKilled)",
            id="a container ended badly",
        ),
        pytest.param(
            pod("Running", NOT_READY),
            HealthStatus.IN_PROGRESS,
            "runs, but is not Ready",
            id="runs and is not ready",
        ),
        pytest.param(
            pod("Running", NOT_READY, containerStatuses=[LOOPING]),
            HealthStatus.FAILED,
            "CrashLoopBackOff in app",
            id="crashes again and again",
        ),
        pytest.param(
            pod("Running", {"type": "Ready", "status": "True"}, containerStatuses=[LOOPING]),
            HealthStatus.CURRENT,
            "is Ready",
            id="is ready, whatever else its containers say",
        ),
        pytest.param(pod("Pending"), HealthStatus.IN_PROGRESS, "is Pending", id="is being started"),
        pytest.param(
            pod("Pending", UNSCHEDULABLE),
            HealthStatus.FAILED,
            "Unschedulable: 0/3 nodes are available: 3 Insufficient cpu.",
            id="fits on no node",
        ),
        pytest.param(
            {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}},
            HealthStatus.IN_PROGRESS,
            "is not observed yet",
            id="nobody has looked at it yet",
        ),
        pytest.param(
            pod("Dreaming"),
            HealthStatus.UNKNOWN,
            "has the unknown phase Dreaming",
            id="a phase that nobody knows",
        ),
    ],
)
def test_a_pod(object_: dict[str, Any], status: HealthStatus, message: str) -> None:
    assert assess(object_) == Health(status, message)


@pytest.mark.parametrize(
    ("age", "status"),
    [
        (timedelta(seconds=14), HealthStatus.IN_PROGRESS),
        (timedelta(seconds=15), HealthStatus.FAILED),
    ],
)
def test_a_new_pod_may_be_unschedulable_for_fifteen_seconds(
    age: timedelta, status: HealthStatus
) -> None:
    assert assess(pod("Pending", UNSCHEDULABLE), CREATED + age).status is status


@pytest.mark.parametrize(
    ("object_", "trouble"),
    [
        pytest.param(
            pod("Pending", containerStatuses=[waiting("a", "ContainerCreating")]),
            "Pending",
            id="a container that is being made is no trouble of its own",
        ),
        pytest.param(
            pod("Pending", containerStatuses=[waiting("a", "ImagePullBackOff", 'no "x:1"')]),
            'ImagePullBackOff: no "x:1"',
            id="an image that cannot be pulled",
        ),
        pytest.param(
            pod("Pending", containerStatuses=[waiting("a", "CreateContainerConfigError")]),
            "CreateContainerConfigError in a",
            id="a reason without a message names its container",
        ),
        pytest.param(
            pod("Running", NOT_READY, containerStatuses=[LOOPING]),
            "CrashLoopBackOff: back-off 10s restarting failed container",
            id="a crash loop of which nothing else is known",
        ),
        pytest.param(
            pod(
                "Running",
                NOT_READY,
                containerStatuses=[
                    LOOPING | {"lastState": {"terminated": {"exitCode": 3, "reason": "Error"}}}
                ],
            ),
            "CrashLoopBackOff: container app ended with exit code 3 (Error)",
            id="a crash loop tells how it ended last",
        ),
        pytest.param(
            pod(
                "Pending",
                initContainerStatuses=[waiting("init", "ErrImagePull", "gone")],
                containerStatuses=[waiting("app", "PodInitializing")],
            ),
            "ErrImagePull: gone",
            id="init containers come first",
        ),
        pytest.param(
            pod("Pending", UNSCHEDULABLE),
            "Unschedulable: 0/3 nodes are available: 3 Insufficient cpu.",
            id="fits on no node",
        ),
        pytest.param(
            pod(
                "Pending", {"type": "PodScheduled", "status": "False", "reason": "SchedulingGated"}
            ),
            "SchedulingGated",
            id="is held back by a gate",
        ),
        pytest.param(
            pod("Running", NOT_READY, containerStatuses=[{"name": "app", "ready": False}]),
            "runs, but not ready: app",
            id="its readiness probe says no",
        ),
        pytest.param(
            pod("Failed", containerStatuses=[ended("app", 1)]),
            "container app ended with exit code 1 (Error)",
            id="what a container wrote at its end stays out",
        ),
        pytest.param(
            pod("Failed", reason="Evicted"),
            "Failed: Evicted",
            id="was evicted",
        ),
        pytest.param(pod(""), "not observed yet", id="nobody has looked at it yet"),
        pytest.param(pod("Succeeded"), "", id="completed is no trouble"),
        pytest.param(pod("Running", {"type": "Ready", "status": "True"}), "", id="ready is fine"),
        pytest.param(
            pod("Running", NOT_READY) | {"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}},
            "",
            id="a pod on its way out is nobody's trouble",
        ),
    ],
)
def test_the_trouble_of_a_pod(object_: dict[str, Any], trouble: str) -> None:
    assert pod_trouble(object_) == trouble


def test_a_long_message_is_cut() -> None:
    object_ = pod("Pending", containerStatuses=[waiting("a", "ErrImagePull", "x" * 2000)])

    assert len(pod_trouble(object_)) == 300
