from __future__ import annotations

import asyncio
import json

import pytest

from helmops.cli.app import status_of
from helmops.model.records import Origin
from helmops.model.releases import HelmStatus
from tests.fakes.installation import Machine
from tests.unit.decide.samples import failed, record, revision, snapshot

Capture = pytest.CaptureFixture[str]
TWO_FAILED = revision(2, HelmStatus.FAILED, version="2.0.0")
HISTORY = record(
    snapshot(revision(3), Origin.ROLLBACK, message="rolled back\nto revision 1"),
    failed(TWO_FAILED),
    snapshot(revision(1, HelmStatus.SUPERSEDED)),
)


def test_revisions_are_listed_newest_first_with_what_was_seen(
    machine: Machine, capsys: Capture
) -> None:
    asyncio.run(machine.keep(HISTORY))
    assert status_of(["history", "web"]) == 0
    header, *rows = capsys.readouterr().out.splitlines()
    assert header.split() == [
        "REVISION", "ACTION", "CHART", "HELM", "STATUS", "VERDICT", "AGE", "MESSAGE",
    ]  # fmt: skip
    assert [row.split()[:5] for row in rows] == [
        ["3", "rollback", "web@1.0.0", "deployed", "healthy"],
        ["2", "upgrade", "web@2.0.0", "failed", "failed"],
        ["1", "install", "web@1.0.0", "superseded", "healthy"],
    ]
    assert rows[0].endswith("rolled back to revision 1")
    assert rows[1].endswith("it broke")


def test_programs_get_fluxs_history(machine: Machine, capsys: Capture) -> None:
    asyncio.run(machine.keep(HISTORY))
    assert status_of(["history", "apps/web", "-o", "json"]) == 0
    entries = json.loads(capsys.readouterr().out)
    assert entries == HISTORY.public_status()["history"]


def test_a_release_without_revisions_says_so(machine: Machine, capsys: Capture) -> None:
    asyncio.run(machine.keep(record()))
    assert status_of(["history", "web"]) == 0
    assert capsys.readouterr().out == "apps/web has no revisions.\n"


def test_a_release_that_nobody_knows_is_said(machine: Machine, capsys: Capture) -> None:
    assert status_of(["history", "none"]) == 1
    assert "there is no release apps/none" in capsys.readouterr().err


def test_somebody_has_to_be_named(machine: Machine) -> None:
    assert status_of(["history"]) == 2
