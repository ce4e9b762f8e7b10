"""Deployment."""

from __future__ import annotations

from typing import Any

import pytest

from helmops.health import assess
from helmops.model.health import Health, HealthStatus

DONE = {"type": "Progressing", "status": "True", "reason": "NewReplicaSetAvailable"}
AVAILABLE = {"type": "Available", "status": "True"}


def deployment(spec: dict[str, Any], conditions: list[Any], **counts: int) -> dict[str, Any]:
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "web", "generation": 2},
        "spec": spec,
        "status": {"observedGeneration": 2, "conditions": conditions, **counts},
    }


def full(count: int, **changed: int) -> dict[str, int]:
    names = ("replicas", "updatedReplicas", "availableReplicas", "readyReplicas")
    return dict.fromkeys(names, count) | changed


DEADLINE = {"progressDeadlineSeconds": 600}


@pytest.mark.parametrize(
    ("object_", "status", "message"),
    [
        pytest.param(
            deployment(DEADLINE, [DONE, AVAILABLE], **full(1)),
            HealthStatus.CURRENT,
            "available, replicas: 1",
            id="rolled out and available",
        ),
        pytest.param(
            deployment({}, [AVAILABLE], **full(1)),
            HealthStatus.CURRENT,
            "available, replicas: 1",
            id="without a deadline its controller sets no Progressing, and none is asked for",
        ),
        pytest.param(
            deployment({"progressDeadlineSeconds": 2**31 - 1}, [AVAILABLE], **full(1)),
            HealthStatus.CURRENT,
            "available, replicas: 1",
            id="the longest deadline counts as none",
        ),
        pytest.param(
            deployment(DEADLINE | {"replicas": 0}, [DONE, AVAILABLE], **full(0)),
            HealthStatus.CURRENT,
            "available, replicas: 0",
            id="scaled to nothing",
        ),
        pytest.param(
            {
                "apiVersion": "apps/v1",
                "kind": "Deployment",
                "metadata": {"name": "web", "generation": 1},
            },
            HealthStatus.IN_PROGRESS,
            "replicas: 0/1",
            id="without a status nothing is there yet, and one replica is wanted",
        ),
        pytest.param(
            deployment({"replicas": 3}, [AVAILABLE], **full(3, updatedReplicas=1)),
            HealthStatus.IN_PROGRESS,
            "updated: 1/3",
            id="the old revision serves, the new one has just begun",
        ),
        pytest.param(
            deployment({"replicas": 3}, [AVAILABLE], **full(3, replicas=4)),
            HealthStatus.IN_PROGRESS,
            "1 old replicas still to terminate",
            id="an old pod is left",
        ),
        pytest.param(
            deployment({"replicas": 3}, [AVAILABLE], **full(3, availableReplicas=2)),
            HealthStatus.IN_PROGRESS,
            "available: 2/3",
            id="one pod is not available",
        ),
        pytest.param(
            deployment({"replicas": 3}, [AVAILABLE], **full(3, readyReplicas=2)),
            HealthStatus.IN_PROGRESS,
            "ready: 2/3",
            id="one pod is not ready",
        ),
        pytest.param(
            deployment(
                DEADLINE,
                [{"type": "Progressing", "status": "False", "reason": "Other"}, AVAILABLE],
                **full(1),
            ),
            HealthStatus.IN_PROGRESS,
            "its new ReplicaSet is not available",
            id="counts that fit, but the roll-out is not declared done",
        ),
        pytest.param(
            deployment(DEADLINE, [DONE | {"status": "Unknown"}, AVAILABLE], **full(1)),
            HealthStatus.IN_PROGRESS,
            "its new ReplicaSet is not available",
            id="a right reason with another status is not done",
        ),
        pytest.param(
            deployment(DEADLINE, [DONE, AVAILABLE | {"status": "False"}], **full(1)),
            HealthStatus.IN_PROGRESS,
            "is not available",
            id="rolled out, but not available",
        ),
        pytest.param(
            deployment(
                DEADLINE,
                [
                    {
                        "type": "Progressing",
                        "status": "False",
                        "reason": "ProgressDeadlineExceeded",
                    },
                    AVAILABLE,
                ],
                **full(1),
            ),
            HealthStatus.FAILED,
            "progress deadline exceeded",
            id="past its deadline, whatever the counts say",
        ),
        pytest.param(
            deployment({"replicas": 1}, [DONE, AVAILABLE], **full(1))
            | {"apiVersion": "extensions/v1beta1"},
            HealthStatus.CURRENT,
            "exists",
            id="the removed API group has no rules any more",
        ),
    ],
)
def test_a_deployment(object_: dict[str, Any], status: HealthStatus, message: str) -> None:
    assert assess(object_) == Health(status, message)
