"""Objects that are not in the cluster."""

from __future__ import annotations

from typing import Any

import pytest

from helmops.health import assess_absence
from helmops.model.health import HealthStatus


@pytest.mark.parametrize(
    ("manifest", "status"),
    [
        pytest.param(
            {"apiVersion": "v1", "kind": "ConfigMap"}, HealthStatus.NOT_FOUND, id="is missed"
        ),
        pytest.param(
            {"apiVersion": "batch/v1", "kind": "Job", "spec": {}},
            HealthStatus.NOT_FOUND,
            id="a Job without a time to live is missed",
        ),
        pytest.param(
            {"apiVersion": "batch/v1", "kind": "Job", "spec": {"ttlSecondsAfterFinished": 0}},
            HealthStatus.CURRENT,
            id="a Job with a time to live has finished and was removed",
        ),
        pytest.param(
            {"apiVersion": "x.io/v1", "kind": "Job", "spec": {"ttlSecondsAfterFinished": 0}},
            HealthStatus.NOT_FOUND,
            id="somebody else's Job is missed",
        ),
    ],
)
def test_an_absent_object(manifest: dict[str, Any], status: HealthStatus) -> None:
    assert assess_absence(manifest).status is status
