"""Objects of any kind: deletion, generation, conditions."""

from __future__ import annotations

from typing import Any

import pytest

from helmops.health import assess
from helmops.model.health import Health, HealthStatus


def custom(
    *conditions: dict[str, Any], metadata: dict[str, Any] | None = None, **status: Any
) -> dict[str, Any]:
    return {
        "apiVersion": "example.com/v1",
        "kind": "Widget",
        "metadata": {"name": "w", "generation": 2, **(metadata or {})},
        "status": {"conditions": list(conditions), **status},
    }


def told(type_: str, status: str, reason: str = "", message: str = "") -> dict[str, str]:
    return {"type": type_, "status": status, "reason": reason, "message": message}


@pytest.mark.parametrize(
    ("object_", "health"),
    [
        pytest.param(
            {"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": "w"}},
            Health(HealthStatus.CURRENT, "exists"),
            id="without a status it only has to exist",
        ),
        pytest.param(
            custom(told("Painted", "False")),
            Health(HealthStatus.CURRENT, "exists"),
            id="conditions that nobody knows say nothing",
        ),
        pytest.param(
            custom(told("Ready", "True", "AllOk", "looks good")),
            Health(HealthStatus.CURRENT, "is Ready"),
            id="Ready",
        ),
        pytest.param(
            custom(told("Ready", "False", "NotYet", "working")),
            Health(HealthStatus.IN_PROGRESS, "NotYet: working"),
            id="not Ready is on its way, not failed",
        ),
        pytest.param(
            custom(told("Ready", "Unknown")),
            Health(HealthStatus.IN_PROGRESS, "Ready is Unknown"),
            id="unknown readiness is on its way",
        ),
        pytest.param(
            custom(told("Ready", "Maybe")),
            Health(HealthStatus.CURRENT, "exists"),
            id="a status that no condition has says nothing",
        ),
        pytest.param(
            custom(told("Ready", "True"), observedGeneration=1),
            Health(HealthStatus.IN_PROGRESS, "generation 2 is not observed yet, only 1"),
            id="Ready of the generation before does not count",
        ),
        pytest.param(
            custom(told("Ready", "True"), observedGeneration=2),
            Health(HealthStatus.CURRENT, "is Ready"),
            id="Ready of this generation counts",
        ),
        pytest.param(
            custom(told("Ready", "True"), observedGeneration="1"),
            Health(HealthStatus.CURRENT, "is Ready"),
            id="an observed generation that is no number is not compared",
        ),
        pytest.param(
            custom(told("Ready", "True"), told("Reconciling", "True", "Busy", "rolling")),
            Health(HealthStatus.IN_PROGRESS, "Busy: rolling"),
            id="Reconciling goes before Ready",
        ),
        pytest.param(
            custom(told("Ready", "True"), told("Stalled", "True", "Broken", "no such image")),
            Health(HealthStatus.FAILED, "Broken: no such image"),
            id="Stalled is failed",
        ),
        pytest.param(
            custom(told("Reconciling", "True", "Busy"), told("Stalled", "True", "Broken")),
            Health(HealthStatus.IN_PROGRESS, "Busy"),
            id="of Reconciling and Stalled the first in the list counts",
        ),
        pytest.param(
            custom(told("Reconciling", "False"), told("Stalled", "False"), told("Ready", "True")),
            Health(HealthStatus.CURRENT, "is Ready"),
            id="abnormal conditions that are False are over",
        ),
        pytest.param(
            custom(told("Ready", "True"), metadata={"deletionTimestamp": "2026-01-01T00:00:00Z"}),
            Health(HealthStatus.TERMINATING, "is being deleted"),
            id="deletion goes before everything",
        ),
    ],
)
def test_an_object_of_an_unknown_kind(object_: dict[str, Any], health: Health) -> None:
    assert assess(object_) == health


@pytest.mark.parametrize("kind", ["Deployment", "StatefulSet", "ReplicaSet"])
def test_what_is_generic_decides_before_the_rules_of_a_kind(kind: str) -> None:
    object_ = {
        "apiVersion": "apps/v1",
        "kind": kind,
        "metadata": {"name": "w", "generation": 3},
        "status": {"observedGeneration": 2},
    }

    assert assess(object_).message == "generation 3 is not observed yet, only 2"


@pytest.mark.parametrize(
    "status",
    [None, [], "x", {"conditions": None}, {"conditions": ["x", 1, None]}, {"conditions": {}}],
)
def test_a_status_of_another_shape_does_not_break_it(status: object) -> None:
    object_ = {"apiVersion": "example.com/v1", "kind": "W", "metadata": {}, "status": status}

    assert assess(object_) == Health(HealthStatus.CURRENT, "exists")
