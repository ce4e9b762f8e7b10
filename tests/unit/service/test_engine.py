"""Single pieces of the engine; what it does over time is in tests/scenario."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from helmops.model.actions import NO_REQUEST, Action, CheckHealth, Request, Rollback, Upgrade
from helmops.model.declared import Declared
from helmops.model.records import Handled
from helmops.service.engine import FORCE_AT, RECONCILE_AT, RESET_AT, asked_by, request_of
from tests.fakes.service import Service
from tests.unit.decide.samples import done, record, target
from tests.unit.reconcile.samples import declare, key, release, repository


def asked(**annotations: str) -> Declared[Any]:
    names = {"reconcile": RECONCILE_AT, "force": FORCE_AT, "reset": RESET_AT}
    written = {names[name]: token for name, token in annotations.items()}
    declared = declare(repository(), release(metadata={"annotations": written}))
    return declared.releases[key()]


@pytest.mark.parametrize(
    ("annotations", "request_"),
    [
        ({}, NO_REQUEST),
        ({"reconcile": "a"}, Request(reconcile="a", by="annotation")),
        ({"reconcile": "a", "force": "a"}, Request(reconcile="a", force="a", by="annotation")),
        ({"reconcile": "a", "reset": "a"}, Request(reconcile="a", reset="a", by="annotation")),
        ({"reconcile": "b", "force": "a", "reset": "a"}, Request(reconcile="b", by="annotation")),
        ({"force": "a", "reset": "a"}, NO_REQUEST),
    ],
    ids=str,
)
def test_force_and_reset_count_only_with_the_token_of_the_request(
    annotations: dict[str, str], request_: Request
) -> None:
    assert request_of(asked(**annotations)) == request_


def test_who_asked_is_the_annotation_while_it_is_new_and_then_what_woke_the_release() -> None:
    annotated = Request(reconcile="a", by="annotation")
    assert asked_by(annotated, None, ("declared",)).by == "annotation"
    assert asked_by(annotated, record(handled=Handled("b")), ("declared",)).by == "annotation"
    handled = record(handled=Handled("a"))
    assert asked_by(annotated, handled, ("a", "b", "c", "d")).by == "schedule (a, b, c)"
    assert asked_by(NO_REQUEST, None, ()) == Request(by="schedule")


def test_the_annotations_are_fluxs() -> None:
    assert {RECONCILE_AT, FORCE_AT, RESET_AT} == {
        "reconcile.fluxcd.io/requestedAt",
        "reconcile.fluxcd.io/forceAt",
        "reconcile.fluxcd.io/resetAt",
    }


@pytest.fixture
def service(tmp_path: Path) -> Service:
    return Service(tmp_path)


async def test_before_anything_was_read_the_service_is_not_ready(service: Service) -> None:
    assert service.engine.missing() == {
        "declarations": "not read yet",
        "cluster": "records not read yet",
    }


@pytest.mark.parametrize(
    ("action", "kind", "rollbacks"),
    [
        (Upgrade(target()), "Upgrade", None),
        (CheckHealth(1, (), True), "CheckHealth", None),
        (Rollback(1, "d1"), "Rollback", 1.0),
    ],
    ids=["upgrade", "check", "rollback"],
)
async def test_every_action_is_counted_and_rollbacks_by_release(
    service: Service, action: Action, kind: str, rollbacks: float | None
) -> None:
    service.engine.count_action(key(), done(action))
    sample = service.metrics.registry.get_sample_value
    counted = sample("helmops_actions_total", {"kind": kind, "outcome": "succeeded"})
    assert counted == 1.0
    labels = {"namespace": "apps", "name": "web", "outcome": "succeeded"}
    assert sample("helmops_rollbacks_total", labels) == rollbacks
