from __future__ import annotations

from typing import Any

import pytest

from helmops.cli.app import status_of
from tests.fakes.cluster_state import FakeChart
from tests.fakes.installation import URL, Machine
from tests.unit.reconcile.samples import chart, release, repository

Capture = pytest.CaptureFixture[str]


def released(machine: Machine, capsys: Capture, version: str = "1.0.0", **what: Any) -> None:
    machine.offer(FakeChart("app", version, **what))
    machine.declare(
        repository("charts", url=URL), release("web", chart=chart(chart="app", version=version))
    )
    assert status_of(["reconcile", "-q"]) == 0
    machine.undeclare()
    capsys.readouterr()


def test_the_tests_of_what_is_released_are_run(machine: Machine, capsys: Capture) -> None:
    released(machine, capsys, tests=("smoke",))
    assert status_of(["test", "web"]) == 0
    assert machine.cluster.runs == {"install": 1, "test": 1}
    told = capsys.readouterr()
    assert "RunTests: asked for" in told.err
    assert "True" in told.out


def test_a_failed_test_is_a_failed_release(machine: Machine, capsys: Capture) -> None:
    released(machine, capsys, failing_tests=("smoke",))
    assert status_of(["test", "web"]) == 1
    told = capsys.readouterr()
    assert "the test smoke failed" in told.err
    assert "failed" in told.out


def test_a_chart_without_tests_has_passed_them(machine: Machine, capsys: Capture) -> None:
    released(machine, capsys)
    assert status_of(["test", "web"]) == 0
    assert machine.cluster.runs["test"] == 0


def test_a_release_that_is_not_there_has_not_passed(machine: Machine, capsys: Capture) -> None:
    assert status_of(["test", "none"]) == 1
    assert "there is no release apps/none" in capsys.readouterr().err
