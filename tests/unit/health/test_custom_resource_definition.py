"""CustomResourceDefinition."""

from __future__ import annotations

import pytest

from helmops.health import assess
from helmops.model.health import Health, HealthStatus


def told(type_: str, status: str, reason: str, message: str = "") -> dict[str, str]:
    return {"type": type_, "status": status, "reason": reason, "message": message}


ACCEPTED = told("NamesAccepted", "True", "NoConflicts")


@pytest.mark.parametrize(
    ("conditions", "health"),
    [
        pytest.param(
            [], Health(HealthStatus.IN_PROGRESS, "is being installed"), id="without conditions"
        ),
        pytest.param(
            [ACCEPTED, told("Established", "False", "Installing")],
            Health(HealthStatus.IN_PROGRESS, "is being installed"),
            id="installing",
        ),
        pytest.param(
            [ACCEPTED, told("Established", "True", "InitialNamesAccepted")],
            Health(HealthStatus.CURRENT, "is established"),
            id="established",
        ),
        pytest.param(
            [told("NamesAccepted", "False", "PluralConflict", '"as" is already in use')],
            Health(HealthStatus.FAILED, 'PluralConflict: "as" is already in use'),
            id="a name is taken",
        ),
        pytest.param(
            [ACCEPTED, told("Established", "False", "NotAccepted")],
            Health(HealthStatus.FAILED, "NotAccepted"),
            id="will not be established",
        ),
    ],
)
def test_a_definition(conditions: list[dict[str, str]], health: Health) -> None:
    object_ = {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": "as.example.com"},
        "status": {"conditions": conditions},
    }

    assert assess(object_) == health
