from __future__ import annotations

import asyncio
import json
from datetime import timedelta

import pytest

from helmops.cli.app import status_of
from helmops.model.records import Quarantined, Record
from tests.fakes.installation import Machine
from tests.unit.decide.samples import NOW, record, snapshot

Capture = pytest.CaptureFixture[str]
BARRED = record(
    snapshot(),
    quarantine=(
        Quarantined("web", "2.0.0", "abc", "release", NOW, "it crashed"),
        Quarantined("web", "2.1.0", "def", "chart", NOW, "503", NOW + timedelta(days=1)),
    ),
)


def kept(machine: Machine) -> Record:
    found = asyncio.run(machine.record())
    assert found is not None
    return found


@pytest.fixture
def barred(machine: Machine) -> Machine:
    """A release with two versions in quarantine."""
    asyncio.run(machine.keep(BARRED))
    return machine


def test_what_is_there_is_listed_with_its_reason(barred: Machine, capsys: Capture) -> None:
    assert status_of(["quarantine", "ls"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[0] == ["RELEASE", "CHART", "SCOPE", "SINCE", "UNTIL", "WHY"]
    assert lines[1][:3] == ["apps/web", "web@2.0.0", "release"]
    assert lines[1][-3:] == ["lifted", "it", "crashed"]
    assert lines[2][4] == "2026-01-06T12:00:00Z"


def test_programs_get_it_as_a_list(barred: Machine, capsys: Capture) -> None:
    assert status_of(["quarantine", "ls", "-A", "-o", "json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [item["version"] for item in found["items"]] == ["2.0.0", "2.1.0"]
    assert found["items"][0]["release"] == "apps/web"


def test_nothing_is_said_where_nothing_is(machine: Machine, capsys: Capture) -> None:
    asyncio.run(machine.keep(record(snapshot())))
    assert status_of(["quarantine", "ls"]) == 0
    assert capsys.readouterr().out == "nothing is in quarantine\n"


def test_one_is_lifted_or_all_and_the_ledger_says_who(barred: Machine, capsys: Capture) -> None:
    assert status_of(["quarantine", "lift", "web", "2.0.0"]) == 0
    assert capsys.readouterr().out == "apps/web may try web 2.0.0 again\n"
    assert [q.version for q in kept(barred).quarantine] == ["2.1.0"]
    assert status_of(["quarantine", "lift", "web"]) == 0
    assert kept(barred).quarantine == ()
    assert kept(barred).ledger is not None
    capsys.readouterr()
    assert status_of(["quarantine", "lift", "web"]) == 0
    assert capsys.readouterr().out == "apps/web has nothing in quarantine\n"


def test_lifting_what_is_not_there_is_an_error_that_says_what_is(
    barred: Machine, capsys: Capture
) -> None:
    assert status_of(["quarantine", "lift", "web", "3.0.0"]) == 2
    said = capsys.readouterr().err
    assert "3.0.0 is not in quarantine, 2.0.0, 2.1.0 is" in said
    assert len(kept(barred).quarantine) == 2


def test_a_person_puts_a_version_there(barred: Machine, capsys: Capture) -> None:
    arguments = ["web", "3.0.0", "--reason", "known bad", "--ttl", "24h", "--scope", "all"]
    assert status_of(["quarantine", "add", *arguments]) == 0
    assert capsys.readouterr().out == "apps/web no longer tries 3.0.0\n"
    entry = kept(barred).quarantine[0]
    assert (entry.chart, entry.version, entry.digest) == ("web", "3.0.0", "")
    assert (entry.scope, entry.why) == ("all", "known bad")
    assert entry.until == entry.at + timedelta(hours=24)
    assert "@" in entry.by


@pytest.mark.parametrize("ttl", ["soon", "-1h"])
def test_a_time_that_is_none_is_refused(barred: Machine, capsys: Capture, ttl: str) -> None:
    assert status_of(["quarantine", "add", "web", "3.0.0", f"--ttl={ttl}"]) == 2
    assert "--ttl" in capsys.readouterr().err
    assert len(kept(barred).quarantine) == 2


def test_a_release_that_nobody_knows_is_said(machine: Machine, capsys: Capture) -> None:
    assert status_of(["quarantine", "lift", "none"]) == 1
    assert "there is no release apps/none" in capsys.readouterr().err
