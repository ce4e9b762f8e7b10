"""DaemonSet."""

from __future__ import annotations

from typing import Any

import pytest

from helmops.health import assess
from helmops.model.health import Health, HealthStatus

FULL = {
    "observedGeneration": 1,
    "desiredNumberScheduled": 4,
    "currentNumberScheduled": 4,
    "updatedNumberScheduled": 4,
    "numberAvailable": 4,
    "numberReady": 4,
}


def daemon_set(status: dict[str, Any], **metadata: Any) -> dict[str, Any]:
    return {
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": {"name": "agent", "generation": 1, **metadata},
        "status": status,
    }


@pytest.mark.parametrize(
    ("object_", "status", "message"),
    [
        pytest.param(
            daemon_set(FULL), HealthStatus.CURRENT, "ready on 4 nodes", id="ready on all nodes"
        ),
        pytest.param(
            daemon_set(dict.fromkeys(FULL, 0) | {"observedGeneration": 1}),
            HealthStatus.CURRENT,
            "ready on 0 nodes",
            id="no node wants it",
        ),
        pytest.param(
            daemon_set({}),
            HealthStatus.IN_PROGRESS,
            "status.observedGeneration is not set yet",
            id="its controller has not seen it",
        ),
        pytest.param(
            daemon_set(FULL, generation=None),
            HealthStatus.IN_PROGRESS,
            "metadata.generation is not set yet",
            id="it has no generation to compare",
        ),
        pytest.param(
            daemon_set({"observedGeneration": 1, "numberReady": 1}),
            HealthStatus.IN_PROGRESS,
            "status.desiredNumberScheduled is not set yet",
            id="nobody has counted the nodes yet",
        ),
        pytest.param(
            daemon_set(FULL, generation=2),
            HealthStatus.IN_PROGRESS,
            "generation 2 is not observed yet, only 1",
            id="the counts are of the generation before",
        ),
        pytest.param(
            daemon_set(FULL | {"currentNumberScheduled": 3}),
            HealthStatus.IN_PROGRESS,
            "scheduled: 3/4",
            id="not on all nodes",
        ),
        pytest.param(
            daemon_set(FULL | {"updatedNumberScheduled": 3}),
            HealthStatus.IN_PROGRESS,
            "updated: 3/4",
            id="not updated on all nodes",
        ),
        pytest.param(
            daemon_set(FULL | {"numberAvailable": 2}),
            HealthStatus.IN_PROGRESS,
            "available: 2/4",
            id="not available on all nodes",
        ),
        pytest.param(
            daemon_set(FULL | {"numberReady": 2}),
            HealthStatus.IN_PROGRESS,
            "ready: 2/4",
            id="not ready on all nodes",
        ),
    ],
)
def test_a_daemon_set(object_: dict[str, Any], status: HealthStatus, message: str) -> None:
    assert assess(object_) == Health(status, message)
