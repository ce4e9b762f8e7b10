from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from helmops.cli.app import status_of
from helmops.cluster.transport import Answer
from helmops.model.records import Hold, HoldReason, Record
from tests.fakes.installation import Machine
from tests.unit.decide.samples import NOW, record

Capture = pytest.CaptureFixture[str]
HELD = record(
    hold=Hold(HoldReason.DIVERGED, "by hand", NOW, "declared", subject="2:d2"),
    failures=3,
    updated_at=NOW,
)


def kept(machine: Machine) -> Record:
    found = asyncio.run(machine.record())
    assert found is not None
    return found


@pytest.fixture
def held(machine: Machine) -> Machine:
    """A release that is held."""
    asyncio.run(machine.keep(HELD))
    return machine


def test_a_suspended_release_says_who_did_it_and_when(held: Machine, capsys: Capture) -> None:
    assert status_of(["suspend", "web"]) == 0
    assert capsys.readouterr().out == "apps/web suspended\n"
    suspension = kept(held).suspended
    assert suspension is not None
    assert "@" in suspension.by
    assert kept(held).updated_at == pytest.approx(suspension.at, abs=timedelta(minutes=1))
    assert kept(held).hold == HELD.hold, "a suspension is no word about the hold"


def test_suspending_twice_keeps_the_first(held: Machine) -> None:
    status_of(["suspend", "web"])
    before = kept(held)
    assert status_of(["suspend", "web"]) == 0
    assert kept(held) == before


def test_resume_lifts_both_and_accepts_what_it_was_held_for(held: Machine, capsys: Capture) -> None:
    status_of(["suspend", "web"])
    assert status_of(["resume", "apps/web"]) == 0
    after = kept(held)
    assert (after.suspended, after.hold, after.failures) == (None, None, 0)
    assert after.accepted == "RevisionMadeByHand:2:d2"
    assert capsys.readouterr().out.endswith("apps/web resumed\n")


def test_several_are_named_at_once_and_nothing_is_done_where_one_is_unknown(
    held: Machine, capsys: Capture
) -> None:
    assert status_of(["suspend", "web", "none", "other/none"]) == 1
    assert "there is no release apps/none, other/none" in capsys.readouterr().err
    assert kept(held).suspended is None


def test_somebody_who_writes_at_the_same_moment_is_not_overwritten(held: Machine) -> None:
    """A service may be in the middle of a pass."""

    def written_meanwhile() -> None:
        plural, name = "secrets", "helmops.web"
        stored = held.server.find("v1", plural, "apps", name)
        assert stored is not None
        held.server.put({**stored, "metadata": {**stored["metadata"], "annotations": {"a": "b"}}})

    held.server.answers = [lambda: None, written_meanwhile]
    assert status_of(["suspend", "web"]) == 0
    stored = held.server.find("v1", "secrets", "apps", "helmops.web")
    assert stored is not None
    assert kept(held).suspended is not None


def test_without_the_right_to_write_that_is_said(held: Machine, capsys: Capture) -> None:
    held.server.denied = {("update", "secrets", "apps"), ("patch", "secrets", "apps")}
    assert status_of(["suspend", "web"]) == 1
    assert "may not patch secrets in namespace apps" in capsys.readouterr().err


def test_an_answer_that_makes_no_sense_is_told_not_thrown(held: Machine, capsys: Capture) -> None:
    held.server.answers = [Answer(500, {}, b"oh no")] * 20
    assert status_of(["suspend", "web"]) == 1
    assert capsys.readouterr().err.startswith("helmops: ")


@pytest.mark.parametrize("command", ["suspend", "resume"])
def test_somebody_has_to_be_named(machine: Machine, command: str) -> None:
    assert status_of([command]) == 2
