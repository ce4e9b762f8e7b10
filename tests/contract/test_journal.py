"""What every Journal does: the one in memory, SQLite's and PostgreSQL's.

PostgreSQL takes part where HELMOPS_TEST_POSTGRESQL names a database, or where `postgres` and
`initdb` are installed and psycopg can be imported; a server is started then.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import os
import pwd
import shutil
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from helmops.model.events import Event, EventKind, Severity
from helmops.model.evidence import Evidence, EvidenceKind, EvidenceSection
from helmops.model.ledger import Draft, EntryKind, KeptEntry, new_ledger
from helmops.model.records import Record
from helmops.model.releases import DeclarationKey, ReleaseId
from helmops.store.address import StateAddress
from helmops.store.journal import SqlJournal
from helmops.store.ledger import kept_entries
from tests.fakes.journal import FakeJournal

NOON = datetime(2026, 1, 5, 12, 0, tzinfo=UTC)
WEB = DeclarationKey("shop", "web")
API = DeclarationKey("shop", "api")
OTHER = DeclarationKey("bank", "web")


def event(key: DeclarationKey = WEB, message: str = "done", minutes: int = 0, **more: Any) -> Event:
    return Event(
        at=NOON + timedelta(minutes=minutes),
        key=key,
        kind=more.pop("kind", EventKind.INFO),
        severity=Severity.INFO,
        reason="Tested",
        message=message,
        **more,
    )


def record(key: DeclarationKey = WEB, state: str = "InSync", **more: Any) -> Record:
    release = ReleaseId(key.namespace, f"{key.name}-release")
    return Record(key=key, release=release, state=state, updated_at=NOON, **more)


@pytest.fixture(scope="session")
def postgresql(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of an empty database."""
    if url := os.environ.get("HELMOPS_TEST_POSTGRESQL"):
        yield url
        return
    if importlib.util.find_spec("psycopg") is None:
        pytest.skip("psycopg is not installed")
    server, initdb = shutil.which("postgres"), shutil.which("initdb")
    if server is None or initdb is None:
        pytest.skip("no PostgreSQL server is installed")
    user: dict[str, Any] = {}
    home = tmp_path_factory.mktemp("postgresql")
    if os.geteuid() == 0:  # the server refuses to run as root
        try:
            account = pwd.getpwnam("postgres")
        except KeyError:
            pytest.skip("running as root, and there is no user postgres for the server")
        user = {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}
        os.chown(home, account.pw_uid, account.pw_gid)
        for parent in home.parents:  # pytest keeps its directories to their owner
            if parent.owner() == "root" and parent.name.startswith("pytest-"):
                parent.chmod(parent.stat().st_mode | 0o011)
    data = home / "data"
    subprocess.run(
        [initdb, "-D", data, "-U", "helmops", "-A", "trust", "-N", "-E", "UTF8", "--locale=C"],
        check=True,
        capture_output=True,
        cwd=home,
        **user,
    )
    with contextlib.closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with (home / "log").open("wb") as log:
        running = subprocess.Popen(
            [server, "-D", data, "-h", "127.0.0.1", "-p", str(port), "-k", home, "-F"],
            stdout=log,
            stderr=log,
            cwd=home,
            **user,
        )
    try:
        deadline = time.monotonic() + 60
        while True:
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            if running.poll() is not None or time.monotonic() > deadline:
                pytest.fail(f"PostgreSQL did not start:\n{(home / 'log').read_text()}")
            time.sleep(0.1)
        yield f"postgresql://helmops@127.0.0.1:{port}/postgres"
    finally:
        running.terminate()
        running.wait(30)


@pytest.fixture(params=["fake", "sqlite", "postgresql"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> StateAddress | None:
    if request.param == "fake":
        return None
    if request.param == "sqlite":
        return StateAddress.of_file(tmp_path / "state.db")
    address = StateAddress.parse(request.getfixturevalue("postgresql"))
    _empty(address)
    return address


def _empty(address: StateAddress) -> None:
    from sqlalchemy import create_engine

    engine = create_engine(address.url)
    with engine.begin() as connection:
        connection.exec_driver_sql("DROP SCHEMA public CASCADE")
        connection.exec_driver_sql("CREATE SCHEMA public")
    engine.dispose()


@pytest.fixture
async def journal(address: StateAddress | None) -> AsyncIterator[FakeJournal | SqlJournal]:
    journal = FakeJournal() if address is None else SqlJournal(address, now=lambda: NOON)
    await journal.open()
    yield journal
    await journal.close()


Journal = FakeJournal | SqlJournal


async def messages(journal: Journal, *arguments: Any, **chosen: Any) -> list[str]:
    return [entry.event.message for entry in await journal.events(*arguments, **chosen)]


async def test_an_event_comes_back_as_it_went_in(journal: Journal) -> None:
    told = event(
        message="rolled back to v3\nsecond line — “quoted”",
        kind=EventKind.ROLLBACK,
        revision=7,
        metadata={"app.version": "1.2.3"},
    )
    await journal.append([told])
    assert [entry.event for entry in await journal.events()] == [told]


async def test_events_come_in_the_order_of_writing_and_the_newest_are_kept(
    journal: Journal,
) -> None:
    await journal.append([event(message=str(number)) for number in range(5)])
    await journal.append([event(message="5")])
    assert await messages(journal) == ["0", "1", "2", "3", "4", "5"]
    assert await messages(journal, limit=2) == ["4", "5"]


async def test_events_are_chosen_by_release_namespace_and_time(journal: Journal) -> None:
    await journal.append(
        [event(WEB, "a"), event(API, "b", 1), event(OTHER, "c", 2), event(WEB, "d", 3)]
    )
    assert await messages(journal, WEB) == ["a", "d"]
    assert await messages(journal, namespace="shop") == ["a", "b", "d"]
    assert await messages(journal, since=NOON + timedelta(minutes=2)) == ["c", "d"]
    assert await messages(journal, DeclarationKey("no", "such")) == []


async def test_numbers_let_a_reader_go_on_where_it_was(journal: Journal) -> None:
    await journal.append([event(message=str(number)) for number in range(5)])
    first = await journal.events(after=0, limit=2)
    rest = await journal.events(after=first[-1].id)
    assert [entry.event.message for entry in (*first, *rest)] == ["0", "1", "2", "3", "4"]
    assert rest[-1].id == await journal.last_event()


async def test_whoever_follows_sees_each_new_event_once(journal: Journal) -> None:
    await journal.append([event(message="before")])
    seen: list[str] = []

    async def follow() -> None:
        async for entry in journal.follow(WEB, after=await journal.last_event(), every=0.01):
            seen.append(entry.event.message)
            if len(seen) == 3:
                return

    following = asyncio.create_task(follow())
    await asyncio.sleep(0)
    await journal.append([event(message="a"), event(API, "not this one"), event(message="b")])
    await journal.append([event(message="c")])
    await asyncio.wait_for(following, 20)
    assert seen == ["a", "b", "c"]


async def test_no_events_are_no_work(journal: Journal) -> None:
    await journal.append([])
    assert await journal.events() == ()
    assert await journal.last_event() == 0


async def test_many_at_once_are_all_kept(journal: Journal) -> None:
    await asyncio.gather(*(journal.append([event(message=str(n))]) for n in range(50)))
    assert sorted(map(int, await messages(journal))) == list(range(50))


async def test_the_latest_state_of_a_release_replaces_the_one_before(journal: Journal) -> None:
    await journal.publish(record(state="OutOfSync"))
    await journal.publish(record(API))
    await journal.publish(record(state="InSync"))
    found = await journal.releases()
    assert [(entry.key, entry.status["helmops"]["state"]) for entry in found] == [
        (API, "InSync"),
        (WEB, "InSync"),
    ]
    assert found[1].release == ReleaseId("shop", "web-release")
    assert found[1].updated_at == NOON


async def test_releases_are_chosen_by_name_and_namespace(journal: Journal) -> None:
    for key in (WEB, API, OTHER):
        await journal.publish(record(key))
    assert [entry.key for entry in await journal.releases(namespace="shop")] == [API, WEB]
    assert [entry.key for entry in await journal.releases(OTHER)] == [OTHER]


async def test_a_withdrawn_release_is_gone_and_its_events_stay(journal: Journal) -> None:
    await journal.append([event()])
    await journal.publish(record())
    await journal.publish(record(API))
    await journal.withdraw(WEB)
    await journal.withdraw(DeclarationKey("never", "published"))
    assert [entry.key for entry in await journal.releases()] == [API]
    assert await messages(journal, WEB) == ["done"]


async def test_the_declaration_with_its_secret_values_is_not_kept(journal: Journal) -> None:
    await journal.publish(record(manifest={"spec": {"values": {"password": "hunter2-secret"}}}))
    assert "hunter2-secret" not in repr(await journal.releases())


# The ledger


def ledgered(count: int, key: DeclarationKey = WEB, version: str = "1") -> Record:
    """A saved record with so many entries in its ledger."""
    drafts = [
        Draft(
            EntryKind.ACTION,
            NOON + timedelta(minutes=number),
            key,
            ReleaseId(key.namespace, f"{key.name}-release"),
            "Tested",
            f"number {number} with an ümlaut and a \0",
        )
        for number in range(1, count + 1)
    ]
    ledger = new_ledger(drafts[0])
    for draft in drafts[1:]:
        ledger = ledger.extended(draft)
    return record(key, ledger=ledger, version=version)


def kept(journal: Journal) -> list[KeptEntry]:
    if isinstance(journal, FakeJournal):
        return list(journal.ledger)
    return list(kept_entries(journal.database.address))


def numbers(journal: Journal) -> list[int]:
    return [entry.number for entry in kept(journal)]


async def test_entries_of_a_ledger_are_kept_as_they_were_written(journal: Journal) -> None:
    written = ledgered(3)
    await journal.publish(written)
    assert written.ledger is not None
    assert kept(journal) == list(written.ledger.entries())


async def test_the_same_entries_written_again_are_there_once(journal: Journal) -> None:
    await journal.publish(ledgered(3))
    await journal.publish(ledgered(4))
    await journal.chronicle([ledgered(4), ledgered(4)])
    await journal.chronicle([ledgered(2)])
    await journal.chronicle([])
    assert numbers(journal) == [1, 2, 3, 4]


async def test_what_two_writers_have_is_put_together(journal: Journal) -> None:
    await journal.publish(ledgered(3))
    await journal.chronicle([ledgered(17)])
    await journal.chronicle([ledgered(40)])
    # Of number 40's record the newest 16 are known, of 17's those from 2 on.
    assert numbers(journal) == [*range(1, 18), *range(25, 41)]


async def test_a_record_that_was_never_saved_has_no_entries(journal: Journal) -> None:
    await journal.publish(ledgered(3, version=""))
    await journal.chronicle([ledgered(3, version=""), record()])
    assert numbers(journal) == []


async def test_ledgers_of_several_releases_are_kept_apart(journal: Journal) -> None:
    await journal.chronicle([ledgered(2), ledgered(3, API), ledgered(1, OTHER)])
    found = kept(journal)
    assert len({entry.chain for entry in found}) == 3
    assert sorted((str(e.declaration), e.number) for e in found) == [
        ("bank/web", 1),
        *(("shop/api", number) for number in (1, 2, 3)),
        *(("shop/web", number) for number in (1, 2)),
    ]


async def test_a_ledger_stays_when_its_release_is_withdrawn(journal: Journal) -> None:
    await journal.publish(ledgered(3))
    await journal.withdraw(WEB)
    assert numbers(journal) == [1, 2, 3]


async def test_an_entry_that_is_there_is_never_written_over(journal: Journal) -> None:
    await journal.publish(ledgered(2))
    other = ledgered(3)
    assert other.ledger is not None
    forged = replace(other.ledger, recent=(other.ledger.recent[0].replace("ümlaut", "u"),) * 3)
    await journal.publish(other.evolve(ledger=forged))
    assert kept(journal)[0] == ledgered(1).ledger.entries()[0]  # type: ignore[union-attr]


async def test_a_damaged_entry_in_a_record_keeps_nothing_else_from_being_written(
    journal: Journal,
) -> None:
    damaged = ledgered(3)
    assert damaged.ledger is not None
    recent = ("?", *damaged.ledger.recent[1:])
    await journal.publish(damaged.evolve(ledger=replace(damaged.ledger, recent=recent)))
    await journal.append([event()])
    assert numbers(journal) == [2, 3]
    assert await messages(journal) == ["done"]


# Evidence


def found(summary: str, **more: Any) -> Evidence:
    sections = (EvidenceSection(EvidenceKind.LOG, "pod web, container main", "panic: ümlaut \0"),)
    release = ReleaseId("shop", "web-release")
    return Evidence(release, 7, NOON, summary, **{"sections": sections, **more})


async def test_evidence_is_numbered_for_each_release_and_comes_back_whole(journal: Journal) -> None:
    first, second = found("one"), found("two", missing=("events: not allowed",))
    assert await journal.keep_evidence(WEB, first) == 1
    assert await journal.keep_evidence(API, first) == 1
    assert await journal.keep_evidence(WEB, second) == 2
    stored = await journal.evidence(WEB, 2)
    assert stored is not None
    assert (stored.number, stored.evidence.summary) == (2, "two")
    assert stored.evidence.missing == second.missing
    assert stored.evidence.sections[0].text.startswith("panic: ümlaut")
    assert await journal.evidence(WEB) == stored
    assert await journal.evidence(WEB, 3) is None
    assert await journal.evidence(OTHER) is None
