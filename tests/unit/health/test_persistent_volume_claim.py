"""PersistentVolumeClaim."""

from __future__ import annotations

from typing import Any

import pytest

from helmops.health import assess
from helmops.model.health import Health, HealthStatus


@pytest.mark.parametrize(
    ("status", "health"),
    [
        pytest.param(
            {},
            Health(HealthStatus.IN_PROGRESS, "is not bound, its phase is unknown"),
            id="without a status",
        ),
        pytest.param(
            {"phase": "Pending"},
            Health(HealthStatus.IN_PROGRESS, "is not bound, its phase is Pending"),
            id="waiting for a volume",
        ),
        pytest.param(
            {"phase": "Lost"},
            Health(HealthStatus.IN_PROGRESS, "is not bound, its phase is Lost"),
            id="its volume is lost",
        ),
        pytest.param({"phase": "Bound"}, Health(HealthStatus.CURRENT, "is bound"), id="bound"),
    ],
)
def test_a_claim(status: dict[str, Any], health: Health) -> None:
    object_ = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": "data"},
        "status": status,
    }

    assert assess(object_) == health
