from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from datetime import timedelta

import pytest

from helmops.cli.app import status_of
from helmops.model.events import Event, EventKind, Severity
from helmops.model.evidence import Evidence, EvidenceKind, EvidenceSection
from helmops.model.releases import DeclarationKey, ReleaseId
from helmops.store.address import StateAddress
from helmops.store.journal import SqlJournal
from tests.fakes.installation import Machine
from tests.unit.decide.samples import NOW

Capture = pytest.CaptureFixture[str]


def event(number: int, name: str = "web", namespace: str = "apps") -> Event:
    return Event(
        at=NOW + timedelta(minutes=number),
        key=DeclarationKey(namespace, name),
        kind=EventKind.SUCCESS,
        severity=Severity.INFO,
        reason="SeenHealthy",
        message=f"number\n{number}",
        revision=number or None,
        metadata={"chart": "web"},
    )


@pytest.fixture
def told(machine: Machine) -> Machine:
    """A state database with events of three releases."""

    async def write() -> None:
        path = machine.home / "state" / "helmops" / "state.db"
        journal = SqlJournal(StateAddress.of_file(path), now=lambda: NOW)
        await journal.open()
        await journal.append([event(0), event(1), event(2, "db"), event(3, "web", "other")])
        await journal.close()

    asyncio.run(write())
    return machine


@pytest.fixture
def failed_twice(machine: Machine) -> Machine:
    """A state database with two failures of web, which left evidence."""

    async def write() -> None:
        path = machine.home / "state" / "helmops" / "state.db"
        journal = SqlJournal(StateAddress.of_file(path), now=lambda: NOW)
        await journal.open()
        for revision in (2, 4):
            section = EvidenceSection(EvidenceKind.LOG, "log of pod web-1", f"panic in {revision}")
            left = Evidence(ReleaseId("apps", "web"), revision, NOW, "web-1 crashes", (section,))
            number = await journal.keep_evidence(DeclarationKey("apps", "web"), left)
            told = {"evidence": str(number)}
            await journal.append([replace(event(revision), metadata=told)])
        await journal.append([event(5)])
        await journal.close()

    asyncio.run(write())
    return machine


def test_failures_are_listed_with_the_number_of_their_evidence(
    failed_twice: Machine, capsys: Capture
) -> None:
    assert status_of(["events", "web"]) == 0

    header, first, second, third = capsys.readouterr().out.splitlines()
    assert header.split() == [
        "TIME",
        "RELEASE",
        "KIND",
        "REASON",
        "REVISION",
        "EVIDENCE",
        "MESSAGE",
    ]
    assert [first.split()[5], second.split()[5]] == ["1", "2"]
    assert third.split()[4:6] == ["5", "number"]


@pytest.mark.parametrize(
    ("arguments", "number", "revision"),
    [(["--evidence"], 2, 4), (["--evidence", "2"], 2, 4), (["--evidence", "1"], 1, 2)],
)
def test_evidence_is_printed_the_newest_first(
    failed_twice: Machine, capsys: Capture, arguments: list[str], number: int, revision: int
) -> None:
    assert status_of(["events", "web", *arguments]) == 0
    assert capsys.readouterr().out == (
        f"evidence {number} of apps/web revision {revision}, 2026-01-05 12:00:00 UTC\n\n"
        f"web-1 crashes\n\n--- log of pod web-1\npanic in {revision}\n"
    )


def test_programs_get_evidence_as_json(failed_twice: Machine, capsys: Capture) -> None:
    assert status_of(["events", "web", "--evidence", "1", "-o", "json"]) == 0

    printed = json.loads(capsys.readouterr().out)
    assert (printed["number"], printed["revision"]) == (1, 2)
    assert printed["release"] == {"namespace": "apps", "name": "web"}
    assert printed["sections"][0]["kind"] == "log"
    assert printed["at"] == "2026-01-05T12:00:00Z"


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["web", "--evidence", "3"], 1, "there is no evidence 3 of apps/web"),
        (["db", "--evidence"], 1, "there is no evidence of apps/db"),
        (["--evidence"], 2, "evidence is of one release"),
        (["web", "--evidence", "x"], 2, "not a valid integer"),
    ],
)
def test_evidence_that_is_not_there_is_said(
    failed_twice: Machine, capsys: Capture, arguments: list[str], status: int, said: str
) -> None:
    assert status_of(["events", *arguments]) == status
    assert said in capsys.readouterr().err


def rows(capsys: Capture) -> list[list[str]]:
    return [line.split() for line in capsys.readouterr().out.splitlines()[1:]]


def test_what_happened_in_a_namespace_oldest_first(told: Machine, capsys: Capture) -> None:
    assert status_of(["events"]) == 0
    assert rows(capsys) == [
        ["2026-01-05T12:00:00Z", "apps/web", "success", "SeenHealthy", "-", "number", "0"],
        ["2026-01-05T12:01:00Z", "apps/web", "success", "SeenHealthy", "1", "number", "1"],
        ["2026-01-05T12:02:00Z", "apps/db", "success", "SeenHealthy", "2", "number", "2"],
    ]


@pytest.mark.parametrize(
    ("arguments", "numbers"),
    [
        (["web"], [0, 1]),
        (["other/web"], [3]),
        (["-A"], [0, 1, 2, 3]),
        (["-n", "other"], [3]),
        (["-A", "--limit", "2"], [2, 3]),
    ],
    ids=str,
)
def test_events_are_chosen_by_release_namespace_and_number(
    told: Machine, capsys: Capture, arguments: list[str], numbers: list[int]
) -> None:
    assert status_of(["events", *arguments]) == 0
    assert [int(row[-1]) for row in rows(capsys)] == numbers


def test_programs_get_all_of_an_event(told: Machine, capsys: Capture) -> None:
    status_of(["events", "other/web", "-o", "json"])
    (found,) = json.loads(capsys.readouterr().out)
    assert found["id"] > 0
    del found["id"]
    assert found == {
        "time": "2026-01-05T12:03:00Z",
        "release": "other/web",
        "kind": "success",
        "severity": "info",
        "reason": "SeenHealthy",
        "revision": 3,
        "message": "number 3",
        "metadata": {"chart": "web"},
    }


def test_where_nothing_happened_that_is_said(machine: Machine, capsys: Capture) -> None:
    assert status_of(["events"]) == 0
    assert capsys.readouterr().out == "No events.\n"
    assert machine.server.asked == [], "events are in the state database alone"


def test_a_state_that_cannot_be_opened_is_said(machine: Machine, capsys: Capture) -> None:
    (machine.home / "state").write_text("in the way")
    assert status_of(["events"]) == 1
    assert capsys.readouterr().err.startswith("helmops: ")
