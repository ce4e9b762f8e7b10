"""StatefulSet."""

from __future__ import annotations

from typing import Any

import pytest

from helmops.health import assess
from helmops.model.health import Health, HealthStatus


def stateful_set(spec: dict[str, Any], **status: Any) -> dict[str, Any]:
    return {
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": {"name": "db", "generation": 1},
        "spec": spec,
        "status": {"observedGeneration": 1, **status},
    }


def full(count: int, **changed: Any) -> dict[str, Any]:
    return {"replicas": count, "readyReplicas": count, "currentReplicas": count} | changed


def partition(number: int) -> dict[str, Any]:
    return {"type": "RollingUpdate", "rollingUpdate": {"partition": number}}


@pytest.mark.parametrize(
    ("object_", "status", "message"),
    [
        pytest.param(
            stateful_set({"replicas": 4}, **full(4)),
            HealthStatus.CURRENT,
            "ready, replicas: 4",
            id="all replicas are ready and of one revision",
        ),
        pytest.param(
            stateful_set({"replicas": 4}, **full(4, currentRevision="b", updateRevision="b")),
            HealthStatus.CURRENT,
            "ready, replicas: 4",
            id="the update is rolled out",
        ),
        pytest.param(
            stateful_set({"replicas": 0}, **full(0)),
            HealthStatus.CURRENT,
            "ready, replicas: 0",
            id="scaled to nothing",
        ),
        pytest.param(
            stateful_set({"updateStrategy": {"type": "OnDelete"}}),
            HealthStatus.CURRENT,
            "uses the update strategy OnDelete",
            id="whose pods a person replaces is not waited for",
        ),
        pytest.param(
            stateful_set({}, currentReplicas=1),
            HealthStatus.IN_PROGRESS,
            "replicas: 0/1",
            id="no pods yet, and one is wanted",
        ),
        pytest.param(
            stateful_set({"replicas": 4}, **full(4, readyReplicas=2)),
            HealthStatus.IN_PROGRESS,
            "ready: 2/4",
            id="too few are ready",
        ),
        pytest.param(
            stateful_set({"replicas": 4}, **full(4, replicas=8)),
            HealthStatus.IN_PROGRESS,
            "4 replicas still to terminate",
            id="more pods than wanted",
        ),
        pytest.param(
            stateful_set({"replicas": 4}, **full(4, currentReplicas=2)),
            HealthStatus.IN_PROGRESS,
            "of the current revision: 2/4",
            id="half of the pods are of the old revision",
        ),
        pytest.param(
            stateful_set({"replicas": 4}, **full(4, currentRevision="a", updateRevision="b")),
            HealthStatus.IN_PROGRESS,
            "its update is not rolled out yet",
            id="the current revision is not the update's yet",
        ),
        pytest.param(
            stateful_set(
                {"replicas": 4, "updateStrategy": partition(3)}, **full(4, updatedReplicas=0)
            ),
            HealthStatus.IN_PROGRESS,
            "updated: 0/1 down to partition 3",
            id="the one pod above the partition is not updated",
        ),
        pytest.param(
            stateful_set(
                {"replicas": 4, "updateStrategy": partition(3)},
                **full(4, updatedReplicas=1, currentRevision="a", updateRevision="b"),
            ),
            HealthStatus.CURRENT,
            "partition rolled out, updated: 1",
            id="below the partition the old revision stays",
        ),
    ],
)
def test_a_stateful_set(object_: dict[str, Any], status: HealthStatus, message: str) -> None:
    assert assess(object_) == Health(status, message)
