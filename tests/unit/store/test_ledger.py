from __future__ import annotations

import asyncio
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from helmops.decide.audit import Anchor, Harm, audit
from helmops.errors import StoreError
from helmops.model.events import Event, EventKind, Severity
from helmops.model.ledger import Draft, EntryKind, KeptEntry, new_ledger
from helmops.model.records import Record
from helmops.model.releases import DeclarationKey, ReleaseId
from helmops.store.address import StateAddress
from helmops.store.entries import Retention
from helmops.store.journal import SqlJournal
from helmops.store.ledger import kept_entries

NOON = datetime(2026, 1, 5, 12, 0, 0, 123456, tzinfo=UTC)
WEB = DeclarationKey("shop", "web")


def ledgered(count: int, name: str = "web", namespace: str = "shop", *, minutes: int = 0) -> Record:
    key, release = DeclarationKey(namespace, name), ReleaseId(namespace, f"{name}-release")
    drafts = [
        Draft(
            EntryKind.ACTION,
            NOON + timedelta(minutes=minutes + number),
            key,
            release,
            "Tested",
            f"number {number}: ümlaut",
        )
        for number in range(1, count + 1)
    ]
    ledger = new_ledger(drafts[0])
    for draft in drafts[1:]:
        ledger = ledger.extended(draft)
    return Record(key, release, version="1", updated_at=NOON, ledger=ledger)


def anchor(record: Record) -> Anchor:
    assert record.ledger is not None
    return Anchor(record.key, record.release, record.ledger)


@pytest.fixture
def address(tmp_path: Path) -> StateAddress:
    return StateAddress.of_file(tmp_path / "odd name ?#%" / "state.db")


def write(address: StateAddress, *records: Record) -> None:
    async def run() -> None:
        journal = SqlJournal(address, now=lambda: NOON)
        await journal.open()
        await journal.chronicle(records)
        await journal.close()

    asyncio.run(run())


def tamper(address: StateAddress, *statements: str) -> None:
    assert address.path is not None
    with closing(sqlite3.connect(address.path)) as connection:
        for statement in statements:
            connection.execute(statement)
        connection.commit()


def read(address: StateAddress, **chosen: object) -> list[KeptEntry]:
    return list(kept_entries(address, **chosen))  # type: ignore[arg-type]


def test_entries_come_by_chain_and_number_the_oldest_chain_first(address: StateAddress) -> None:
    newer, older = ledgered(3, minutes=60), ledgered(2, "api")
    write(address, newer, older)
    found = read(address)
    assert [(e.declaration.name, e.number) for e in found] == [
        *(("api", n) for n in (1, 2)),
        *(("web", n) for n in (1, 2, 3)),
    ]
    assert newer.ledger is not None
    assert tuple(found[2:]) == newer.ledger.entries()


def test_what_is_chosen_are_whole_chains(address: StateAddress) -> None:
    write(address, ledgered(2), ledgered(2, "api"), ledgered(2, namespace="bank"))
    assert {str(e.declaration) for e in read(address, key=WEB)} == {"shop/web"}
    assert {str(e.declaration) for e in read(address, namespace="shop")} == {"shop/api", "shop/web"}
    assert [e.number for e in read(address, only_first=True)] == [1, 1, 1]
    assert read(address, key=DeclarationKey("no", "such")) == []
    tamper(address, "UPDATE ledger SET name = 'other' WHERE number = 2")
    assert [e.number for e in read(address, key=WEB)] == [1, 2]


def test_it_sees_what_a_running_service_has_just_written(address: StateAddress) -> None:
    async def run() -> None:
        journal = SqlJournal(address, now=lambda: NOON)
        await journal.open()
        await journal.publish(ledgered(1))
        assert len(read(address)) == 1
        await journal.publish(ledgered(2))
        assert len(read(address)) == 2
        await journal.close()

    asyncio.run(run())


def test_reading_writes_nothing(address: StateAddress) -> None:
    write(address, ledgered(2))
    assert address.path is not None
    before = address.path.read_bytes()
    read(address)
    assert address.path.read_bytes() == before


def test_a_ledger_needs_no_sqlalchemy_to_be_read() -> None:
    code = (
        "import sys, helmops.store.ledger, helmops.decide.audit\n"
        "heavy = {'sqlalchemy', 'alembic', 'pydantic', 'kubernetes'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_no_file_is_an_error_and_none_is_made(address: StateAddress) -> None:
    with pytest.raises(StoreError, match=r"no state database.*--state"):
        read(address)
    assert address.path is not None
    assert not address.path.exists()


def test_a_state_of_before_the_ledger_is_an_error(address: StateAddress) -> None:
    write(address)
    tamper(address, "DROP TABLE ledger")
    with pytest.raises(StoreError, match="has no ledger"):
        read(address)


@pytest.mark.parametrize("content", [b"no database at all", b"SQLite format 3\0" + b"\0" * 200])
def test_what_cannot_be_read_is_an_error(address: StateAddress, content: bytes) -> None:
    assert address.path is not None
    address.path.parent.mkdir()
    address.path.write_bytes(content)
    with pytest.raises(StoreError, match=r"cannot be read|has no ledger"):
        read(address)


# What somebody did to the rows

TAMPERING: dict[str, tuple[str, Harm, int]] = {
    "content": (
        "UPDATE ledger SET content = replace(content, 'number 3', 'number 8') WHERE number = 3",
        Harm.CHANGED,
        3,
    ),
    "content that is no text": (
        "UPDATE ledger SET content = x'00ff' WHERE number = 3",
        Harm.CHANGED,
        3,
    ),
    "content with broken bytes": (
        "UPDATE ledger SET content = CAST(x'ff7b7d' AS TEXT) WHERE number = 3",
        Harm.CHANGED,
        3,
    ),
    "hash": ("UPDATE ledger SET hash = 'x' WHERE number = 4", Harm.CHANGED, 4),
    "hash that is a number": ("UPDATE ledger SET hash = 7 WHERE number = 4", Harm.CHANGED, 4),
    "moment": ("UPDATE ledger SET at = '2026-01-05' WHERE number = 5", Harm.CHANGED, 5),
    "no moment": ("UPDATE ledger SET at = 'noon' WHERE number = 5", Harm.CHANGED, 5),
    "name": ("UPDATE ledger SET name = 'api' WHERE number = 2", Harm.CHANGED, 2),
    "release": ("UPDATE ledger SET release_name = 'api' WHERE number = 2", Harm.CHANGED, 2),
    "namespace": ("UPDATE ledger SET release_namespace = '' WHERE number = 2", Harm.CHANGED, 2),
    "row": ("DELETE FROM ledger WHERE number = 2", Harm.MISSING, 2),
    "beginning": ("DELETE FROM ledger WHERE number < 4", Harm.MISSING, 1),
    "end": ("DELETE FROM ledger WHERE number > 4", Harm.MISSING, 5),
    "everything": ("DELETE FROM ledger", Harm.MISSING, 1),
    "chain": ("UPDATE ledger SET chain = 'x' WHERE number = 6", Harm.MISSING, 6),
    "number": ("UPDATE ledger SET number = 60 WHERE number = 6", Harm.MISSING, 6),
    "number that is a text": ("UPDATE ledger SET number = 'six' WHERE number = 6", Harm.CHANGED, 0),
}


@pytest.mark.parametrize("what", TAMPERING)
def test_whatever_somebody_does_to_a_row_is_found(address: StateAddress, what: str) -> None:
    statement, harm, number = TAMPERING[what]
    record = ledgered(6)
    write(address, record)
    tamper(address, statement)
    found = {each.chain: each for each in audit(read(address), [anchor(record)])}
    assert record.ledger is not None
    finding = found[record.ledger.chain].finding
    assert finding is not None
    assert (finding.harm, finding.number) == (harm, number)


# What the journal does for it


def journalled(address: StateAddress, work: Callable[[SqlJournal], object]) -> None:
    async def run() -> None:
        journal = SqlJournal(address, now=lambda: NOON)
        await journal.open()
        await work(journal)  # type: ignore[misc]
        await journal.close()

    asyncio.run(run())


def test_a_new_database_goes_on_with_what_the_records_remember(address: StateAddress) -> None:
    record = ledgered(40)
    write(address, record)
    assert [e.number for e in read(address)] == list(range(25, 41))
    (found,) = audit(read(address), [anchor(record)])
    assert found.finding is not None
    assert (found.finding.number, found.finding.last) == (1, 24)


def test_a_file_that_is_deleted_under_us_gets_what_is_remembered_again(
    address: StateAddress,
) -> None:
    async def work(journal: SqlJournal) -> None:
        await journal.publish(ledgered(5))
        assert address.path is not None
        for path in address.path.parent.iterdir():
            path.unlink()
        await journal.publish(ledgered(2, "api"))

    journalled(address, work)
    assert sorted((e.declaration.name, e.number) for e in read(address)) == [
        *(("api", n) for n in (1, 2)),
        *(("web", n) for n in range(1, 6)),
    ]


def test_what_is_left_to_write_is_written_at_the_end(address: StateAddress) -> None:
    async def work(journal: SqlJournal) -> None:
        assert address.path is not None
        with closing(sqlite3.connect(address.path, isolation_level=None)) as other:
            other.execute("ALTER TABLE ledger RENAME TO elsewhere")
            with pytest.raises(StoreError):
                await journal.publish(ledgered(3))
            assert journal.backlog == 4
            other.execute("ALTER TABLE elsewhere RENAME TO ledger")

    journalled(address, work)
    assert [e.number for e in read(address)] == [1, 2, 3]


def test_while_nothing_can_be_written_the_oldest_give_way_and_are_counted(
    address: StateAddress,
) -> None:
    async def run() -> None:
        journal = SqlJournal(address, now=lambda: NOON, backlog_limit=2, retry_seconds=60)
        await journal.open()
        assert address.path is not None
        with closing(sqlite3.connect(address.path, isolation_level=None)) as other:
            other.execute("ALTER TABLE ledger RENAME TO elsewhere")
            for count in range(1, 25):
                with pytest.raises(StoreError):
                    await journal.chronicle([ledgered(count)])
            other.execute("ALTER TABLE elsewhere RENAME TO ledger")
        assert journal.dropped == 6
        await journal.close()

    asyncio.run(run())
    assert [e.number for e in read(address)] == list(range(7, 25))


def test_entries_are_kept_when_events_of_their_age_are_thrown_away(address: StateAddress) -> None:
    write(address, ledgered(3, minutes=-1000 * 24 * 60))

    async def run() -> None:
        old = NOON - timedelta(days=1000)
        event = Event(old, WEB, EventKind.INFO, Severity.INFO, "Old", "long ago")
        journal = SqlJournal(address, now=lambda: NOON, retention=Retention(timedelta(days=1), 1))
        await journal.open()
        await journal.append([event])
        assert await journal.events() == ()
        await journal.close()

    asyncio.run(run())
    assert [e.number for e in read(address)] == [1, 2, 3]
