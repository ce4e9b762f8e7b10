"""ReplicaSet."""

from __future__ import annotations

from typing import Any

import pytest

from helmops.health import assess
from helmops.model.health import Health, HealthStatus

COUNTS = ("replicas", "fullyLabeledReplicas", "availableReplicas", "readyReplicas")


def replica_set(wanted: int | None, conditions: list[Any], **counts: int) -> dict[str, Any]:
    return {
        "apiVersion": "apps/v1",
        "kind": "ReplicaSet",
        "metadata": {"name": "web-1", "generation": 1},
        "spec": {} if wanted is None else {"replicas": wanted},
        "status": {"observedGeneration": 1, "conditions": conditions, **counts},
    }


def full(count: int, **changed: int) -> dict[str, int]:
    return dict.fromkeys(COUNTS, count) | changed


@pytest.mark.parametrize(
    ("object_", "status", "message"),
    [
        pytest.param(
            replica_set(2, [], **full(2)),
            HealthStatus.CURRENT,
            "available, replicas: 2",
            id="all there",
        ),
        pytest.param(
            replica_set(2, [{"type": "ReplicaFailure", "status": "False"}], **full(2)),
            HealthStatus.CURRENT,
            "available, replicas: 2",
            id="a failure that is over",
        ),
        pytest.param(
            replica_set(None, []),
            HealthStatus.IN_PROGRESS,
            "labelled: 0/1",
            id="no pods yet, and one is wanted",
        ),
        pytest.param(
            replica_set(4, [], **full(4, availableReplicas=2)),
            HealthStatus.IN_PROGRESS,
            "available: 2/4",
            id="too few are available",
        ),
        pytest.param(
            replica_set(4, [], **full(4, readyReplicas=2)),
            HealthStatus.IN_PROGRESS,
            "ready: 2/4",
            id="too few are ready",
        ),
        pytest.param(
            replica_set(4, [], **full(4, replicas=5)),
            HealthStatus.IN_PROGRESS,
            "1 replicas still to terminate",
            id="more pods than wanted",
        ),
        pytest.param(
            replica_set(
                4,
                [{"type": "ReplicaFailure", "status": "True", "message": "exceeded quota"}],
                **full(4),
            ),
            HealthStatus.IN_PROGRESS,
            "cannot make pods: exceeded quota",
            id="pods cannot be made, which may pass",
        ),
    ],
)
def test_a_replica_set(object_: dict[str, Any], status: HealthStatus, message: str) -> None:
    assert assess(object_) == Health(status, message)
