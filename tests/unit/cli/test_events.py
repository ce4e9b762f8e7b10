from __future__ import annotations

import asyncio
import json
from datetime import timedelta

import pytest

from helmops.cli.app import status_of
from helmops.model.events import Event, EventKind, Severity
from helmops.model.releases import DeclarationKey
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
