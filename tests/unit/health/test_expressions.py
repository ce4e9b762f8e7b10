"""`healthCheckExprs`."""

from __future__ import annotations

from typing import Any

import pytest

from helmops.errors import ExpressionError
from helmops.health import CustomRules
from helmops.model.declarations import HealthCheckExpr
from helmops.model.health import Health, HealthStatus


def rule(**fields: str) -> HealthCheckExpr:
    return HealthCheckExpr.model_validate(
        {"apiVersion": "example.com/v1", "kind": "Widget", "current": "status.up", **fields}
    )


def widget(metadata: dict[str, Any] | None = None, **status: Any) -> dict[str, Any]:
    return {
        "apiVersion": "example.com/v2",
        "kind": "Widget",
        "metadata": {"name": "w", **(metadata or {})},
        "status": status,
    }


ALL = rule(inProgress="status.busy", failed="status.broken", current="status.up")


@pytest.mark.parametrize(
    ("object_", "status"),
    [
        pytest.param(
            widget(busy=True, broken=True, up=True), HealthStatus.IN_PROGRESS, id="busy goes first"
        ),
        pytest.param(
            widget(busy=False, broken=True, up=True), HealthStatus.FAILED, id="then broken"
        ),
        pytest.param(widget(busy=False, broken=False, up=True), HealthStatus.CURRENT, id="then up"),
        pytest.param(
            widget(busy=False, broken=False, up=False), HealthStatus.IN_PROGRESS, id="none of them"
        ),
        pytest.param(
            widget({"generation": 2}, observedGeneration=1, busy=False, broken=False, up=True),
            HealthStatus.IN_PROGRESS,
            id="the generation before does not count",
        ),
        pytest.param(
            widget({"generation": 2}, observedGeneration="1", busy=False, broken=False, up=True),
            HealthStatus.CURRENT,
            id="an observed generation that is no number is not compared",
        ),
        pytest.param(
            widget(
                {"deletionTimestamp": "2026-01-01T00:00:00Z"}, busy=False, broken=False, up=True
            ),
            HealthStatus.TERMINATING,
            id="deletion goes before all of them",
        ),
        pytest.param(
            {"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {}},
            HealthStatus.IN_PROGRESS,
            id="without a status nothing can be said yet",
        ),
    ],
)
def test_a_widget(object_: dict[str, Any], status: HealthStatus) -> None:
    health = CustomRules([ALL]).assess(object_)

    assert health is not None
    assert health.status is status


def test_what_cannot_be_evaluated_is_waited_for_and_says_why() -> None:
    assert CustomRules([rule()]).assess(widget()) == Health(
        HealthStatus.IN_PROGRESS, "`status.up`: there is no field `up`"
    )


def test_an_answer_that_is_neither_true_nor_false_is_waited_for() -> None:
    health = CustomRules([rule()]).assess(widget(up="yes"))

    assert health == Health(
        HealthStatus.IN_PROGRESS, "`status.up` gives a string, not true or false"
    )


def test_fields_outside_of_status_can_be_asked() -> None:
    rules = CustomRules([rule(current="data.mode == 'on' && metadata.name == 'w'")])

    health = rules.assess(widget() | {"data": {"mode": "on"}})

    assert health is not None
    assert health.status is HealthStatus.CURRENT


@pytest.mark.parametrize(
    ("api_version", "kind", "matches"),
    [
        ("example.com/v1", "Widget", True),
        ("example.com/v1beta1", "Widget", True),
        ("example.com/v1", "Gadget", False),
        ("other.com/v1", "Widget", False),
        ("v1", "Widget", False),
    ],
)
def test_group_and_kind_are_compared_and_the_version_is_not(
    api_version: str, kind: str, matches: bool
) -> None:
    health = CustomRules([rule()]).assess(
        {"apiVersion": api_version, "kind": kind, "status": {"up": True}}
    )

    assert (health is not None) is matches


def test_a_rule_without_a_kind_is_for_its_group_and_gives_way_to_one_for_the_kind() -> None:
    rules = CustomRules([rule(kind="", current="true"), rule(current="false")])

    gadget = rules.assess(widget() | {"kind": "Gadget"})
    assert gadget is not None
    assert gadget.status is HealthStatus.CURRENT
    own = rules.assess(widget())
    assert own is not None
    assert own.status is HealthStatus.IN_PROGRESS


def test_two_rules_for_the_same_kind_are_refused() -> None:
    with pytest.raises(ExpressionError, match=r"two healthCheckExprs are for Widget"):
        CustomRules([rule(), rule(apiVersion="example.com/v2")])


@pytest.mark.parametrize("field", ["inProgress", "failed", "current"])
def test_a_rule_that_does_not_compile_is_refused(field: str) -> None:
    with pytest.raises(ExpressionError, match="ends too early"):
        CustomRules([rule(**{field: "status.up &&"})])
