from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from helmops.cli.app import status_of
from helmops.errors import HelmError
from tests.fakes.cluster_state import FakeChart, Point
from tests.fakes.installation import URL, Machine
from tests.unit.reconcile.samples import chart, release, repository

CHARTS = repository("charts", url=URL)
Capture = pytest.CaptureFixture[str]


def web(version: str, **spec: Any) -> dict[str, Any]:
    return release("web", **{"chart": chart(chart="app", version=version), **spec})


@pytest.fixture
def upgraded(machine: Machine, capsys: Capture) -> Machine:
    """Two healthy revisions; the declarations are not at hand any more."""
    machine.offer(FakeChart("app", "1.0.0"), FakeChart("app", "1.1.0"))
    for version in ("1.0.0", "1.1.0"):
        machine.declare(CHARTS, web(version))
        assert status_of(["reconcile", "-q"]) == 0
    machine.undeclare()
    capsys.readouterr()
    return machine


def running(machine: Machine) -> str:
    (live,) = machine.cluster.live.values()
    return live.chart.version


def test_it_goes_back_to_the_last_healthy_revision_and_stays(
    upgraded: Machine, capsys: Capture
) -> None:
    assert status_of(["rollback", "web"]) == 0
    assert running(upgraded) == "1.0.0"
    told = capsys.readouterr()
    assert "rolled back by hand" in told.out
    assert "Rollback: asked for by " in told.err
    upgraded.declare(CHARTS, web("1.1.0"))
    assert status_of(["reconcile", "-q"]) == 1
    assert running(upgraded) == "1.0.0"


def test_it_goes_to_the_revision_that_was_said(upgraded: Machine) -> None:
    status_of(["rollback", "web"])
    assert status_of(["rollback", "apps/web", "--to", "2"]) == 0
    assert running(upgraded) == "1.1.0"


@pytest.mark.parametrize(
    ("revision", "why"), [("7", "revision 7 is not stored"), ("3", "revision 3 was not seen")]
)
def test_what_was_not_seen_healthy_is_refused(
    upgraded: Machine, capsys: Capture, revision: str, why: str
) -> None:
    upgraded.offer(FakeChart("app", "1.2.0", unhealthy=True))
    upgraded.declare(CHARTS, web("1.2.0"))
    status_of(["reconcile", "-q"])
    upgraded.undeclare()
    capsys.readouterr()
    assert status_of(["rollback", "web", "--to", revision]) == 1
    assert why in capsys.readouterr().err
    assert upgraded.cluster.runs["rollback"] == 1, "only that of the failed upgrade"


def test_a_rollback_that_helm_refuses_is_no_success(upgraded: Machine, capsys: Capture) -> None:
    upgraded.cluster.fail("rollback", Point.STARTED, HelmError("helm says no"))
    assert status_of(["rollback", "web"]) == 1
    assert "helm says no" in capsys.readouterr().err
    record = asyncio.run(upgraded.record())
    assert record is not None
    assert record.hold is None
    assert running(upgraded) == "1.1.0"


def test_a_release_that_nobody_knows_is_said(machine: Machine, capsys: Capture) -> None:
    assert status_of(["rollback", "web"]) == 1
    assert "there is no release apps/web" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments", [["rollback"], ["rollback", "web", "--to", "-1"], ["rollback", "web", "--to", "x"]]
)
def test_mistakes_of_usage(machine: Machine, arguments: list[str]) -> None:
    assert status_of(arguments) == 2


def test_programs_get_the_release(upgraded: Machine, capsys: Capture) -> None:
    assert status_of(["rollback", "web", "-o", "json"]) == 0
    (item,) = json.loads(capsys.readouterr().out)["items"]
    assert item["status"]["helmops"]["hold"]["reason"] == "RolledBackByHand"
