from __future__ import annotations

import asyncio
import contextlib
import shutil
import sqlite3
import threading
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from helmops.errors import StoreError
from helmops.model.events import Event, EventKind, Severity
from helmops.model.evidence import LARGEST_EVIDENCE, Evidence, EvidenceKind, EvidenceSection
from helmops.model.records import Record
from helmops.model.releases import DeclarationKey, ReleaseId
from helmops.store.address import StateAddress
from helmops.store.entries import Retention
from helmops.store.journal import SqlJournal

NOON = datetime(2026, 1, 5, 12, 0, tzinfo=UTC)
WEB = DeclarationKey("shop", "web")


def event(message: str = "done", at: datetime = NOON) -> Event:
    return Event(at, WEB, EventKind.INFO, Severity.INFO, "Tested", message)


def record(name: str = "web") -> Record:
    return Record(DeclarationKey("shop", name), ReleaseId("shop", name), updated_at=NOON)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "state.db"


@pytest.fixture
async def journal(path: Path) -> AsyncIterator[SqlJournal]:
    journal = SqlJournal(
        StateAddress.of_file(path), now=lambda: NOON, backlog_limit=5, retry_seconds=0.01
    )
    await journal.open()
    yield journal
    await journal.close()


def block(path: Path) -> None:
    """Make the state unwritable, for root too: a file stands where its directory was."""
    shutil.rmtree(path.parent)
    path.parent.write_text("in the way")


def unblock(path: Path) -> None:
    path.parent.unlink()


def remove(path: Path) -> None:
    path.unlink()


async def messages(journal: SqlJournal) -> list[str]:
    return [entry.event.message for entry in await journal.events()]


async def test_what_could_not_be_written_is_written_when_it_can_be(
    journal: SqlJournal, path: Path
) -> None:
    block(path)
    with pytest.raises(StoreError):
        await journal.append([event("a")])
    with pytest.raises(StoreError):
        await journal.publish(record())
    assert journal.backlog == 2
    unblock(path)
    await journal.append([event("b")])
    assert journal.backlog == 0
    assert await messages(journal) == ["a", "b"]
    assert len(await journal.releases()) == 1


async def test_it_is_tried_again_without_a_new_event(journal: SqlJournal, path: Path) -> None:
    block(path)
    with pytest.raises(StoreError):
        await journal.append([event("a")])
    unblock(path)
    async with asyncio.timeout(30):
        while not await messages(journal):
            pass
    assert await messages(journal) == ["a"]
    assert journal.backlog == 0


async def test_the_backlog_is_bounded_and_the_oldest_go_first(
    journal: SqlJournal, path: Path
) -> None:
    block(path)
    for number in range(8):
        with pytest.raises(StoreError):
            await journal.append([event(str(number))])
    assert (journal.backlog, journal.dropped) == (5, 3)
    unblock(path)
    await journal.append([])
    await journal.publish(record())
    assert await messages(journal) == ["3", "4", "5", "6", "7"]


async def test_closing_says_what_could_not_be_written(path: Path) -> None:
    journal = SqlJournal(StateAddress.of_file(path), now=lambda: NOON)
    await journal.open()
    block(path)
    with pytest.raises(StoreError):
        await journal.append([event()])
    with pytest.raises(StoreError):
        await journal.close()


async def test_closing_writes_what_is_left(path: Path) -> None:
    address = StateAddress.of_file(path)
    journal = SqlJournal(address, now=lambda: NOON, retry_seconds=3600)
    await journal.open()
    block(path)
    with pytest.raises(StoreError):
        await journal.append([event("late")])
    unblock(path)
    await journal.close()
    again = SqlJournal(address, now=lambda: NOON)
    assert await messages(again) == ["late"]
    await again.close()


async def test_a_deleted_state_file_gets_the_published_releases_again(
    journal: SqlJournal, path: Path
) -> None:
    await journal.publish(record("web"))
    await journal.publish(record("api"))
    await journal.publish(record("gone"))
    await journal.withdraw(DeclarationKey("shop", "gone"))
    await journal.append([event("lost")])
    remove(path)
    await journal.append([event("new")])
    assert [entry.key.name for entry in await journal.releases()] == ["api", "web"]
    assert await messages(journal) == ["new"]


async def test_a_file_that_was_deleted_after_a_failure_gets_them_again_too(
    journal: SqlJournal, path: Path
) -> None:
    await journal.publish(record("web"))
    journal.database.close()  # as after any failure; the new file may get the old one's inode
    remove(path)
    assert [entry.key.name for entry in await journal.releases()] == ["web"]


async def test_a_reader_finds_the_published_releases_in_a_state_that_was_made_anew(
    journal: SqlJournal, path: Path
) -> None:
    await journal.publish(record("web"))
    remove(path)
    assert [entry.key.name for entry in await journal.releases()] == ["web"]


async def test_a_state_that_did_not_change_is_not_written_again(journal: SqlJournal) -> None:
    await journal.publish(record("web"))
    with journal.database.writing() as connection:
        connection.exec_driver_sql("DELETE FROM releases")
    await journal.publish(record("web"))
    assert await journal.releases() == ()
    await journal.publish(record("web").evolve(failures=1))
    assert len(await journal.releases()) == 1
    await journal.withdraw(DeclarationKey("shop", "web"))
    await journal.publish(record("web").evolve(failures=1))
    assert len(await journal.releases()) == 1


async def test_two_processes_worth_of_journals_share_a_file(path: Path) -> None:
    address = StateAddress.of_file(path)
    journals = [SqlJournal(address, now=lambda: NOON) for _ in range(3)]
    await asyncio.gather(
        *(journal.append([event()]) for journal in journals for _ in range(20)),
        *(journal.publish(record()) for journal in journals),
    )
    assert [len(await journal.events()) for journal in journals] == [60, 60, 60]
    assert len(await journals[0].releases()) == 1
    for journal in journals:
        await journal.close()


async def test_whoever_follows_goes_on_in_a_state_that_was_made_anew(
    journal: SqlJournal, path: Path
) -> None:
    await journal.append([event(str(number)) for number in range(5)])
    following = journal.follow(every=0.01, after=await journal.last_event())
    remove(path)
    await journal.append([event("first of the new")])
    async with asyncio.timeout(30):
        assert (await anext(following)).event.message == "first of the new"


async def test_following_shows_only_what_comes_from_now_on(journal: SqlJournal) -> None:
    await journal.append([event("old")])
    following = journal.follow(every=0.01)
    waiting = asyncio.create_task(anext(following))
    await journal.last_event()  # the thread has answered the follower's first question by now
    await journal.append([event("new")])
    async with asyncio.timeout(30):
        assert (await waiting).event.message == "new"


async def test_old_events_are_thrown_away(path: Path) -> None:
    now = NOON
    journal = SqlJournal(
        StateAddress.of_file(path), now=lambda: now, retention=Retention(age=timedelta(days=30))
    )
    await journal.append([event("old", NOON - timedelta(days=31)), event("new")])
    assert await messages(journal) == ["new"]
    await journal.close()


async def test_all_but_the_newest_rows_are_thrown_away_and_numbers_are_not_used_again(
    path: Path,
) -> None:
    address = StateAddress.of_file(path)
    journal = SqlJournal(address, now=lambda: NOON, retention=Retention(rows=3))
    await journal.append([event(str(number)) for number in range(10)])
    assert [entry.id for entry in await journal.events()] == [8, 9, 10]
    await journal.close()
    nothing_kept = SqlJournal(address, now=lambda: NOON, retention=Retention(rows=0))
    await nothing_kept.append([event()])
    assert await nothing_kept.last_event() == 0
    await nothing_kept.close()
    journal = SqlJournal(address, now=lambda: NOON)
    await journal.append([event("next")])
    assert [entry.id for entry in await journal.events()] == [12]
    await journal.close()


async def test_pruning_goes_on_while_the_service_runs(path: Path) -> None:
    journal = SqlJournal(StateAddress.of_file(path), now=lambda: NOON, retention=Retention(rows=10))
    for _ in range(12):
        await journal.append([event()] * 100)
    assert len(await journal.events(limit=10_000)) < 1_200
    await journal.close()


async def test_an_odd_text_does_not_keep_the_others_from_being_written(
    journal: SqlJournal,
) -> None:
    await journal.append([event("a\0b \udcff c"), event("fine – \N{ROCKET}")])
    assert await messages(journal) == ["a\ufffdb \ufffd c", "fine – \N{ROCKET}"]


async def test_a_kind_of_event_from_a_newer_helmops_is_shown_as_information(
    journal: SqlJournal,
) -> None:
    await journal.append([event()])
    with journal.database.writing() as connection:
        connection.exec_driver_sql("UPDATE events SET kind = 'promotion', severity = 'debug'")
    (entry,) = await journal.events()
    assert (entry.event.kind, entry.event.severity) == (EventKind.INFO, Severity.INFO)


async def test_a_cancelled_caller_does_not_take_its_events_along(journal: SqlJournal) -> None:
    busy = threading.Event()
    journal._thread.submit(busy.wait, 30)
    writing = asyncio.create_task(journal.append([event("kept")]))
    await asyncio.sleep(0)
    writing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await writing
    busy.set()
    assert await messages(journal) == ["kept"]


async def test_thousands_of_releases_are_written_again_in_one_go(
    journal: SqlJournal, path: Path
) -> None:
    await asyncio.gather(*(journal.publish(record(f"r{number}")) for number in range(1500)))
    remove(path)
    await journal.append([event()])
    assert len(await journal.releases()) == 1500


# Evidence


def evidence(summary: str = "", at: datetime = NOON) -> Evidence:
    section = EvidenceSection(EvidenceKind.LOG, "pod web", "x" * LARGEST_EVIDENCE)
    return Evidence(ReleaseId("shop", "web"), 1, at, summary, (section,))


async def test_evidence_is_bounded_whoever_made_it(journal: SqlJournal) -> None:
    await journal.keep_evidence(WEB, evidence())
    stored = await journal.evidence(WEB)
    assert stored is not None
    assert stored.evidence.sections[0].cut
    assert stored.evidence.size <= LARGEST_EVIDENCE


async def test_old_evidence_gives_way_and_its_number_is_not_used_again(path: Path) -> None:
    keeping = Retention(timedelta(days=1), evidence=2)
    journal = SqlJournal(StateAddress.of_file(path), now=lambda: NOON, retention=keeping)
    await journal.open()
    for _ in range(4):
        await journal.keep_evidence(WEB, evidence())
    assert [await journal.evidence(WEB, number) is None for number in (1, 2, 3, 4)] == [
        *(True, True, False, False)
    ]
    long_ago = evidence("long ago", NOON - timedelta(days=2))
    assert await journal.keep_evidence(WEB, long_ago) == 5
    assert await journal.evidence(WEB, 5) is not None
    assert await journal.keep_evidence(WEB, evidence()) == 6
    assert await journal.evidence(WEB, 5) is None
    await journal.close()


async def test_evidence_that_cannot_be_written_is_an_error_at_once(
    journal: SqlJournal, path: Path
) -> None:
    block(path)
    with pytest.raises(StoreError):
        await journal.keep_evidence(WEB, evidence())
    assert journal.backlog == 0
    unblock(path)
    assert await journal.keep_evidence(WEB, evidence()) == 1


async def test_damaged_evidence_is_said(journal: SqlJournal, path: Path) -> None:
    await journal.keep_evidence(WEB, evidence())
    with contextlib.closing(sqlite3.connect(path)) as other:
        other.execute("UPDATE evidence SET content = '{'")
        other.commit()
    with pytest.raises(StoreError, match="evidence 1 of shop/web is damaged"):
        await journal.evidence(WEB)
