"""Service."""

from __future__ import annotations

from typing import Any

import pytest

from helmops.health import assess
from helmops.model.health import HealthStatus


@pytest.mark.parametrize(
    ("spec", "status"),
    [
        pytest.param({}, HealthStatus.CURRENT, id="without a type"),
        pytest.param({"type": "NodePort"}, HealthStatus.CURRENT, id="of type NodePort"),
        pytest.param({"type": "ExternalName"}, HealthStatus.CURRENT, id="a name for another one"),
        pytest.param(
            {"type": "LoadBalancer"}, HealthStatus.IN_PROGRESS, id="a balancer without address"
        ),
        pytest.param(
            {"type": "LoadBalancer", "clusterIP": "10.0.0.1"},
            HealthStatus.CURRENT,
            id="a balancer with its cluster address, the outer one is not waited for",
        ),
    ],
)
def test_a_service(spec: dict[str, Any], status: HealthStatus) -> None:
    object_ = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s"}, "spec": spec}

    assert assess(object_).status is status
