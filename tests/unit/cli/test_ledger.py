from __future__ import annotations

import asyncio
import json
import sqlite3
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from helmops.cli.app import status_of
from helmops.cluster.api import Api
from helmops.decide.ledger import Said, entered
from helmops.errors import ClusterUnreachable
from helmops.model.ledger import Draft, EntryKind, KeptEntry, Ledger, new_ledger
from helmops.model.records import Record
from helmops.model.releases import DeclarationKey, ReleaseId
from helmops.store.address import StateAddress
from helmops.store.journal import SqlJournal
from tests.fakes.installation import Machine
from tests.unit.decide.samples import NOW, record

Capture = pytest.CaptureFixture[str]


def chain(count: int, name: str = "web", namespace: str = "apps") -> Ledger:
    def draft(number: int) -> Draft:
        return Draft(
            EntryKind.ACTION,
            NOW + timedelta(minutes=number),
            DeclarationKey(namespace, name),
            ReleaseId(namespace, name),
            "UpgradeSucceeded",
            f"number {number}",
            by="ada@laptop",
            rule="app 1.0.0 is to become 1.1.0",
            details={
                "action": {"name": "Upgrade", "succeeded": True, "milliseconds": 1500},
                "chart": f"app@1.0.{number}",
            },
        )

    ledger = new_ledger(draft(1))
    for number in range(2, count + 1):
        ledger = ledger.extended(draft(number))
    return ledger


def of(name: str, ledger: Ledger, namespace: str = "apps") -> Record:
    key, release = DeclarationKey(namespace, name), ReleaseId(namespace, name)
    return record(updated_at=NOW, ledger=ledger).evolve(key=key, release=release)


def state_of(machine: Machine) -> Path:
    return machine.home / "state" / "helmops" / "state.db"


def keep(machine: Machine, *records: Record) -> None:
    """Write records into the cluster, and what they remember into the state database."""

    async def write() -> None:
        journal = SqlJournal(StateAddress.of_file(state_of(machine)), now=lambda: NOW)
        await journal.open()
        await journal.chronicle([each.evolve(version="1") for each in records])
        await journal.close()
        await machine.keep(*records)

    asyncio.run(write())


def tamper(machine: Machine, statement: str) -> None:
    with closing(sqlite3.connect(state_of(machine))) as connection:
        connection.execute(statement)
        connection.commit()


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("helmops.cli.ledger._SECONDS_BETWEEN", 0)


@pytest.fixture
def kept(machine: Machine) -> Machine:
    """Three releases with ledgers, one in another namespace."""
    keep(
        machine,
        of("web", chain(3)),
        of("db", chain(2, "db")),
        of("web", chain(4, namespace="default"), "default"),
    )
    return machine


def verified(capsys: Capture, *arguments: str) -> tuple[int, Any]:
    status = status_of(["ledger", "verify", *arguments, "-o", "json"])
    return status, json.loads(capsys.readouterr().out)


def test_what_is_as_written_is_said_in_one_line(kept: Machine, capsys: Capture) -> None:
    assert status_of(["ledger", "verify"]) == 0
    shown = capsys.readouterr()
    assert shown.out == "9 entries in 3 chains: intact\n"
    assert shown.err == ""


def test_one_release_is_shown_with_its_chain(kept: Machine, capsys: Capture) -> None:
    assert status_of(["ledger", "verify", "web"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["DECLARATION", "CHAIN", "ENTRIES", "END", "KNOWN", "BY", "RESULT"]
    assert lines[1].split() == ["apps/web", chain(3).chain, "3", "record", "intact"]
    assert lines[2] == "3 entries in 1 chain: intact"


@pytest.mark.parametrize(
    ("arguments", "entries"),
    [
        ([], [2, 3, 4]),
        (["-A"], [2, 3, 4]),
        (["-n", "apps"], [2, 3]),
        (["-n", "apps", "-A"], [2, 3, 4]),
        (["default/web"], [4]),
        (["-n", "default", "web"], [4]),
    ],
)
def test_what_is_verified(
    kept: Machine, capsys: Capture, arguments: list[str], entries: list[int]
) -> None:
    status, found = verified(capsys, *arguments)
    assert status == 0
    assert sorted(each["entries"] for each in found["chains"]) == entries
    assert found["ok"] is True
    assert found["endsJudged"] is True


@pytest.mark.parametrize(
    ("statement", "harm", "number", "words"),
    [
        ("UPDATE ledger SET content = replace(content, 'ada', 'eve')", "changed", 1, "its hash"),
        ("DELETE FROM ledger WHERE number = 2", "missing", 2, "number 2 is missing"),
        ("DELETE FROM ledger WHERE number >= 2", "missing", 2, "missing"),
        ("DELETE FROM ledger", "missing", 1, "missing"),
    ],
)
def test_the_first_that_was_changed_or_is_missing_is_named(
    kept: Machine, capsys: Capture, statement: str, harm: str, number: int, words: str
) -> None:
    tamper(kept, f"{statement} {'AND' if 'WHERE' in statement else 'WHERE'} name = 'web'")
    assert status_of(["ledger", "verify"]) == 1
    shown = capsys.readouterr()
    assert shown.out.endswith("in 3 chains: 2 not as written\n")
    assert "helmops: apps/web: chain" in shown.err
    assert words in shown.err
    status, found = verified(capsys, "web")
    assert status == 1
    assert found["first"]["declaration"] == "apps/web"
    assert (found["first"]["finding"]["harm"], found["first"]["finding"]["number"]) == (
        harm,
        number,
    )


def test_without_the_cluster_it_says_what_it_could_not_judge(
    kept: Machine, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def unreachable(**_: Any) -> Api:
        raise ClusterUnreachable("nobody answers", where="https://cluster")

    monkeypatch.setattr(Api, "connect", unreachable)
    tamper(kept, "DELETE FROM ledger WHERE number = 3")
    assert status_of(["ledger", "verify", "web"]) == 0
    shown = capsys.readouterr()
    assert "whether the newest entries are there was not judged" in shown.err
    assert "nobody answers" in shown.err
    tamper(kept, "DELETE FROM ledger WHERE number = 1")
    status, found = verified(capsys, "web")
    assert status == 1
    assert found["endsJudged"] is False


def test_a_record_that_is_gone_leaves_the_end_unknown(kept: Machine, capsys: Capture) -> None:
    asyncio.run(_forget(kept))
    assert status_of(["ledger", "verify"]) == 0
    shown = capsys.readouterr()
    assert f"apps/web ({chain(3).chain})" in shown.err
    assert "record Secret is gone" in shown.err


async def _forget(machine: Machine) -> None:
    found = await machine.record()
    assert found is not None
    await (await machine.records()).delete(found)


def test_a_release_without_a_ledger_is_an_error(kept: Machine, capsys: Capture) -> None:
    for command in ("verify", "show"):
        assert status_of(["ledger", command, "nobody"]) == 1
        assert "there is no ledger of apps/nobody" in capsys.readouterr().err


def test_no_state_is_an_error(machine: Machine, capsys: Capture) -> None:
    for arguments in (["verify"], ["export"], ["show", "web"]):
        assert status_of(["ledger", *arguments]) == 1
        assert "there is no state database" in capsys.readouterr().err


def exported(capsys: Capture, *arguments: str) -> list[str]:
    assert status_of(["ledger", "export", *arguments]) == 0
    return capsys.readouterr().out.splitlines()


def test_an_export_is_one_entry_a_line_always_the_same(kept: Machine, capsys: Capture) -> None:
    lines = exported(capsys, "web")
    assert lines == exported(capsys, "web")
    assert [KeptEntry.from_line(line) for line in lines] == list(chain(3).entries())
    assert len(exported(capsys)) == 9
    assert len(exported(capsys, "-n", "apps")) == 5


def test_an_export_can_begin_later(kept: Machine, capsys: Capture) -> None:
    moment = (NOW + timedelta(minutes=3)).isoformat()
    numbers = [
        KeptEntry.from_line(line).number for line in exported(capsys, "web", "--since", moment)
    ]
    assert numbers == [3]
    assert exported(capsys, "--since", "5m") == []
    assert len(exported(capsys, "--since", "2026-01-01")) == 9
    assert status_of(["ledger", "export", "--since", "yesterday"]) == 2
    assert "'yesterday' is no time" in capsys.readouterr().err


def test_a_damaged_entry_is_left_out_of_an_export_and_told(kept: Machine, capsys: Capture) -> None:
    tamper(kept, "UPDATE ledger SET content = '?' WHERE number = 2 AND namespace = 'apps'")
    assert status_of(["ledger", "export", "web"]) == 0
    shown = capsys.readouterr()
    assert len(shown.out.splitlines()) == 2
    assert "number 2" in shown.err


def test_an_export_can_be_verified_by_itself(
    kept: Machine, capsys: Capture, tmp_path: Path
) -> None:
    file = tmp_path / "export.jsonl"
    lines = exported(capsys)
    file.write_text("\n".join(lines) + "\n")
    status, found = verified(capsys, "--file", str(file))
    assert (status, found["endsJudged"], len(found["chains"])) == (0, False, 3)
    assert verified(capsys, "web", "--file", str(file))[1]["chains"][0]["entries"] == 3
    file.write_text("\n".join(lines).replace("number 2", "number 7"))
    status, found = verified(capsys, "--file", str(file))
    assert (status, found["first"]["finding"]["number"]) == (1, 2)
    file.write_text("no export\n")
    assert status_of(["ledger", "verify", "--file", str(file)]) == 2
    assert "export.jsonl:1" in capsys.readouterr().err


def test_a_ledger_is_shown_for_people_oldest_first(kept: Machine, capsys: Capture) -> None:
    assert status_of(["ledger", "show", "web"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == (
        "2026-01-05 12:01:00     1  Upgrade            done in 1.5 s app@1.0.1: number 1 "
        "(because app 1.0.0 is to become 1.1.0), asked by ada@laptop"
    )
    assert len(lines) == 3
    assert status_of(["ledger", "show", "web", "--limit", "1", "-o", "json"]) == 0
    (entry,) = json.loads(capsys.readouterr().out)
    assert (entry["number"], entry["hash"]) == (3, chain(3).hash)


def test_a_damaged_entry_is_shown_as_such(kept: Machine, capsys: Capture) -> None:
    tamper(kept, "UPDATE ledger SET content = '?' WHERE number = 2 AND namespace = 'apps'")
    assert status_of(["ledger", "show", "web"]) == 0
    assert "damaged" in capsys.readouterr().out.splitlines()[1]


def test_suspend_and_resume_write_who_it_was_into_the_chain(kept: Machine) -> None:
    assert status_of(["suspend", "web"]) == 0
    assert status_of(["resume", "web"]) == 0
    found = asyncio.run(kept.record())
    assert found is not None
    assert found.ledger is not None
    words = [(e.entry["kind"], "@" in e.entry["by"]) for e in found.ledger.entries()]
    assert words[-2:] == [("suspended", True), ("resumed", True)]
    assert found.ledger.number == 5


def test_entries_that_the_service_has_yet_to_write_are_told_as_missing(
    kept: Machine, capsys: Capture
) -> None:
    assert status_of(["suspend", "web"]) == 0
    capsys.readouterr()
    assert status_of(["ledger", "verify", "web"]) == 1
    assert "the record Secret still has them" in capsys.readouterr().err


def test_a_service_that_writes_meanwhile_is_waited_for(
    kept: Machine, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert status_of(["suspend", "web"]) == 0
    found = asyncio.run(kept.record())
    assert found is not None

    async def sleep(_: float) -> None:
        journal = SqlJournal(StateAddress.of_file(state_of(kept)), now=lambda: NOW)
        await journal.chronicle([found])
        await journal.close()

    monkeypatch.setattr(asyncio, "sleep", sleep)
    assert status_of(["ledger", "verify", "web"]) == 0


def test_an_entry_of_any_kind_can_be_shown(machine: Machine, capsys: Capture) -> None:
    plain = entered(None, record(updated_at=NOW), Said(end="over"), NOW)
    keep(machine, plain)
    assert status_of(["ledger", "show", "web"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[3] for line in lines] == ["declared", "ended"]


def test_after_a_loss_that_is_known_only_what_came_later_is_verified(
    kept: Machine, capsys: Capture
) -> None:
    tamper(kept, "DELETE FROM ledger WHERE number = 1 AND namespace = 'apps' AND name = 'web'")
    assert status_of(["ledger", "verify", "web"]) == 1
    later = (NOW + timedelta(minutes=2, seconds=30)).isoformat()
    assert status_of(["ledger", "verify", "web", "--since", later]) == 0
    assert "2 entries in 1 chain: intact" in capsys.readouterr().out
    assert status_of(["ledger", "verify", "--since", "soon"]) == 2
