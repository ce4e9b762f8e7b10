"""Job."""

from __future__ import annotations

from typing import Any

import pytest

from helmops.health import assess
from helmops.model.health import Health, HealthStatus

STARTED = {"startTime": "2026-01-01T00:00:00Z"}


def job(
    spec: dict[str, Any], status: dict[str, Any], *conditions: dict[str, Any]
) -> dict[str, Any]:
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": "migrate", "generation": 1},
        "spec": spec,
        "status": {"conditions": list(conditions), **status},
    }


@pytest.mark.parametrize(
    ("object_", "status", "message"),
    [
        pytest.param(
            job({}, {}), HealthStatus.IN_PROGRESS, "has not started", id="has not started"
        ),
        pytest.param(
            job(
                {"completions": 10, "parallelism": 2},
                STARTED | {"succeeded": 3, "failed": 1, "active": 2},
                {"type": "Failed", "status": "False"},
                {"type": "Complete", "status": "False"},
            ),
            HealthStatus.CURRENT,
            "runs, succeeded: 3, active: 2, failed: 1",
            id="running is enough, helm waits for more where it is told to",
        ),
        pytest.param(
            job({}, {"succeeded": 1}, {"type": "Complete", "status": "True"}),
            HealthStatus.CURRENT,
            "completed, succeeded: 1/1",
            id="completed",
        ),
        pytest.param(
            job({"parallelism": 3}, {"succeeded": 3}, {"type": "Complete", "status": "True"}),
            HealthStatus.CURRENT,
            "completed, succeeded: 3/3",
            id="as many completions as run side by side, where none are asked for",
        ),
        pytest.param(
            job(
                {},
                STARTED | {"failed": 7},
                {
                    "type": "Failed",
                    "status": "True",
                    "reason": "BackoffLimitExceeded",
                    "message": "Job has reached the specified backoff limit",
                },
            ),
            HealthStatus.FAILED,
            "failed, 7 pods failed: "
            "BackoffLimitExceeded: Job has reached the specified backoff limit",
            id="has given up",
        ),
    ],
)
def test_a_job(object_: dict[str, Any], status: HealthStatus, message: str) -> None:
    assert assess(object_) == Health(status, message)
