"""Events, ledgers, evidence and the latest state of each release, kept in the state database.

All that blocks is done in one thread of its own. Whatever is to be written first goes into a
queue in memory, and one transaction takes all that is there: a burst of events costs one write,
and what could not be written (a full disk) is still there when it can be.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from itertools import islice
from typing import Any, TypeVar

import msgspec
from sqlalchemy import (
    Connection,
    Executable,
    Row,
    Select,
    Table,
    delete,
    func,
    insert,
    select,
    tuple_,
)
from sqlalchemy.dialects import sqlite

from helmops.errors import StoreError
from helmops.model.events import Event, EventKind, Severity
from helmops.model.evidence import Evidence
from helmops.model.ledger import RECENT_ENTRIES, KeptEntry, Ledger
from helmops.model.records import Record
from helmops.model.releases import DeclarationKey, ReleaseId
from helmops.store import tables
from helmops.store.address import StateAddress
from helmops.store.database import Database
from helmops.store.entries import PublishedRelease, Retention, StoredEvent, StoredEvidence

_T = TypeVar("_T")

#: Old events are looked for after this many new ones, and at the first write.
_PRUNE_EVERY = 500


class SqlJournal:
    """The Journal over SQLite or PostgreSQL, and what the command line reads from it.

    `now` is the clock's. At most `backlog_limit` events wait in memory, and as many entries of
    ledgers beyond those that records still have; beyond that the oldest go, and `dropped` counts
    them. While something waits that could not be written, it is tried again every `retry_seconds`.
    Any method raises StoreError, and UsageError for an unusable URL.
    """

    def __init__(
        self,
        address: StateAddress,
        *,
        now: Callable[[], datetime],
        retention: Retention = Retention(),  # noqa: B008 - frozen
        backlog_limit: int = 10_000,
        retry_seconds: float = 5.0,
    ) -> None:
        self.database = Database(address)
        self._now = now
        self._retention = retention
        self._backlog_limit = backlog_limit
        self._retry_seconds = retry_seconds
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="helmops-store")
        self._retrying: asyncio.Task[None] | None = None
        # Shared with the thread, changed under the lock.
        self._lock = threading.Lock()
        self._events: deque[tuple[int, dict[str, Any]]] = deque()
        self._releases: dict[DeclarationKey, tuple[int, dict[str, Any] | None]] = {}
        self._published: dict[DeclarationKey, dict[str, Any]] = {}
        self._ledgers: dict[DeclarationKey, Ledger] = {}
        self._entries: dict[tuple[str, int], str] = {}
        self._next = 0
        self._dropped = 0
        # Only touched by the thread.
        self._incarnation = 0
        self._until_prune = 0
        self._chains: set[str] = set()

    @property
    def backlog(self) -> int:
        """How many events, entries of ledgers and states wait to be written."""
        with self._lock:
            return len(self._events) + len(self._entries) + len(self._releases)

    @property
    def dropped(self) -> int:
        """How many events and entries were lost because too many waited."""
        return self._dropped

    async def open(self) -> None:
        """Make the database where there is none, and migrate it."""
        await self._in_thread(self.database.open)

    async def close(self) -> None:
        """Write what is left and close. Raises StoreError when something could not be written."""
        if self._retrying is not None:
            self._retrying.cancel()
            await asyncio.gather(self._retrying, return_exceptions=True)
            self._retrying = None
        try:
            await self._in_thread(self._write_out)
        finally:
            await self._in_thread(self.database.close)
            self._thread.shutdown(wait=False)

    async def append(self, events: Sequence[Event]) -> None:
        """Keep events. After a StoreError they are kept in memory, and written when that works."""
        if not events:
            return
        rows = [_event_row(event) for event in events]
        with self._lock:
            for row in rows:
                self._events.append((self._number(), row))
            while len(self._events) > self._backlog_limit:
                self._events.popleft()
                self._dropped += 1
        await self._write()

    async def publish(self, record: Record) -> None:
        """Keep the latest state of a release, without secret values, and its new entries."""
        row = {
            "namespace": record.key.namespace,
            "name": record.key.name,
            "release_namespace": record.release.namespace,
            "release_name": record.release.name,
            "status": _clean(record.public_status()),
            "updated_at": record.updated_at or self._now(),
        }
        with self._lock:
            has_entries = self._take_entries(record)
            if record.key in self._releases or self._published.get(record.key) != row:
                self._releases[record.key] = (self._number(), row)
            elif not has_entries:
                return  # a pass that changed nothing costs no write
        await self._write()

    async def chronicle(self, records: Sequence[Record]) -> None:
        """Keep what is new in the ledgers of these records, where they were saved."""
        with self._lock:
            has_entries = [self._take_entries(record) for record in records]
        if any(has_entries):
            await self._write()

    async def keep_evidence(self, key: DeclarationKey, evidence: Evidence) -> int:
        """Keep what a failure left behind; returns its number, from 1 for each release. It is
        written at once, or not at all: it is too large to wait in memory.
        """
        return await self._in_thread(self._write_evidence, key, evidence)

    async def evidence(self, key: DeclarationKey, number: int = 0) -> StoredEvidence | None:
        """The evidence of that number of a release, the newest for 0; None where there is none."""
        table = tables.evidence
        query = _chosen(select(table.c.number, table.c.content), key, None)
        if number:
            query = query.where(table.c.number == number)
        rows = await self._in_thread(self._read, query.order_by(table.c.number.desc()).limit(1))
        if not rows:
            return None
        try:
            return StoredEvidence(rows[0].number, Evidence.from_json(rows[0].content))
        except ValueError as error:
            raise StoreError(
                f"evidence {rows[0].number} of {key} is damaged",
                where=self.database.address.shown,
                next_step="put the state database back from a backup, or do without it",
            ) from error

    async def withdraw(self, key: DeclarationKey) -> None:
        """Forget the state of a release that is no more. Its events and its ledger stay."""
        with self._lock:
            self._releases[key] = (self._number(), None)
            self._ledgers.pop(key, None)
        await self._write()

    async def events(
        self,
        key: DeclarationKey | None = None,
        *,
        namespace: str | None = None,
        since: datetime | None = None,
        after: int | None = None,
        limit: int = 100,
    ) -> tuple[StoredEvent, ...]:
        """Events in the order of writing: the newest `limit` of them, or with `after` the first
        `limit` whose number is greater. `since` is a moment, included.
        """
        query = _chosen(select(tables.events), key, namespace)
        if since is not None:
            query = query.where(tables.events.c.at >= since)
        if after is None:
            query = query.order_by(tables.events.c.id.desc())
        else:
            query = query.where(tables.events.c.id > after).order_by(tables.events.c.id)
        rows = await self._in_thread(self._read, query.limit(limit))
        found = [_stored_event(row) for row in rows]
        return tuple(reversed(found) if after is None else found)

    async def last_event(self) -> int:
        """The number of the newest event, 0 where there is none."""
        rows = await self._in_thread(self._read, select(func.max(tables.events.c.id)))
        return rows[0][0] or 0

    async def follow(
        self,
        key: DeclarationKey | None = None,
        *,
        namespace: str | None = None,
        after: int | None = None,
        every: float = 1.0,
    ) -> AsyncIterator[StoredEvent]:
        """Events as they are written, by whichever process, from now on or after a number.

        Looks every `every` seconds. Goes on from the start when the state was made anew.
        """
        seen = await self.last_event() if after is None else after
        while True:
            found = await self.events(key, namespace=namespace, after=seen)
            for entry in found:
                seen = entry.id
                yield entry
            if not found:
                if await self.last_event() < seen:
                    seen = 0
                await asyncio.sleep(every)

    async def releases(
        self, key: DeclarationKey | None = None, *, namespace: str | None = None
    ) -> tuple[PublishedRelease, ...]:
        """The latest published state of each release, by namespace and name."""
        table = tables.releases
        query = _chosen(select(table), key, namespace).order_by(table.c.namespace, table.c.name)
        rows = await self._in_thread(self._read, query)
        return tuple(
            PublishedRelease(
                key=DeclarationKey(row.namespace, row.name),
                release=ReleaseId(row.release_namespace, row.release_name),
                status=row.status,
                updated_at=row.updated_at,
            )
            for row in rows
        )

    async def _write(self) -> None:
        try:
            await self._in_thread(self._write_out)
        except StoreError:
            if self._retrying is None or self._retrying.done():
                self._retrying = asyncio.create_task(self._write_later())
            raise

    async def _write_later(self) -> None:
        while self.backlog:
            await asyncio.sleep(self._retry_seconds)
            try:
                await self._in_thread(self._write_out)
            except StoreError:
                continue  # it was said once, by whoever wanted to write

    async def _in_thread(self, work: Callable[..., _T], *arguments: Any) -> _T:
        running = asyncio.get_running_loop().run_in_executor(self._thread, work, *arguments)
        running.add_done_callback(_look_at)
        # A caller that is cancelled goes at once, the work in the thread goes on.
        return await asyncio.shield(running)

    def _number(self) -> int:
        self._next += 1
        return self._next

    def _take_entries(self, record: Record) -> bool:
        """Have the entries of a saved record written; whether there may be new ones. Called under
        the lock.
        """
        ledger = record.ledger
        if ledger is None or not record.version or self._ledgers.get(record.key) == ledger:
            return False
        self._ledgers[record.key] = ledger
        self._entries |= _texts_of(ledger)
        limit = self._backlog_limit + RECENT_ENTRIES * len(self._ledgers)
        while len(self._entries) > limit:
            del self._entries[next(iter(self._entries))]
            self._dropped += 1
        return True

    # What follows runs in the thread.

    def _read(self, query: Select[Any]) -> Sequence[Row[Any]]:
        rows = self._rows(query)
        if self._is_anew():
            self._write_out()
            rows = self._rows(query)
        return rows

    def _rows(self, query: Select[Any]) -> Sequence[Row[Any]]:
        with self.database.reading() as connection:
            return connection.execute(query).all()

    def _is_anew(self) -> bool:
        """Whether the file was deleted while we ran, and with it what we had published."""
        had_some = bool(self._published or self._ledgers)
        return had_some and self.database.incarnation != self._incarnation

    def _write_out(self) -> None:
        """Write all that waits, in one transaction. On an error everything stays as it was."""
        with self._lock:
            events = tuple(self._events)
            releases = dict(self._releases)
            entries = dict(self._entries)
        if not events and not releases and not entries and not self._is_anew():
            return
        with self.database.writing() as connection:
            states = {key: row for key, (_, row) in releases.items()}
            if self._is_anew():
                states = {**self._published, **states}
                with self._lock:
                    ledgers = tuple(self._ledgers.values())
                for ledger in ledgers:
                    entries |= _texts_of(ledger)
                self._chains.clear()
            self._write_releases(connection, states)
            self._write_entries(connection, entries)
            if events:
                connection.execute(insert(tables.events), [row for _, row in events])
            if prunes := self._until_prune <= len(events):
                self._prune(connection)
        self._incarnation = self.database.incarnation
        self._chains.update(chain for chain, _ in entries)
        self._until_prune = _PRUNE_EVERY if prunes else self._until_prune - len(events)
        with self._lock:
            for key, row in states.items():
                if row is None:
                    self._published.pop(key, None)
                else:
                    self._published[key] = row
            while self._events and events and self._events[0][0] <= events[-1][0]:
                self._events.popleft()
            for key, written in releases.items():
                if self._releases.get(key) is written:
                    del self._releases[key]
            for place in entries:
                self._entries.pop(place, None)

    def _write_releases(
        self, connection: Connection, states: dict[DeclarationKey, dict[str, Any] | None]
    ) -> None:
        table = tables.releases
        # Bounded lists: a statement takes no more than 999 parameters in some SQLite.
        for keys in _chunks(states, 400):
            names = [(key.namespace, key.name) for key in keys]
            connection.execute(
                delete(table).where(tuple_(table.c.namespace, table.c.name).in_(names))
            )
        rows = [row for row in states.values() if row is not None]
        if rows:
            connection.execute(insert(table), rows)

    def _write_evidence(self, key: DeclarationKey, evidence: Evidence) -> int:
        table = tables.evidence
        content = json.dumps(_clean(msgspec.to_builtins(evidence.within())), ensure_ascii=False)
        of_release = (table.c.namespace == key.namespace) & (table.c.name == key.name)
        with self.database.writing() as connection:
            newest = connection.execute(select(func.max(table.c.number)).where(of_release)).scalar()
            number = (newest or 0) + 1
            row = {
                "namespace": key.namespace,
                "name": key.name,
                "number": number,
                "at": evidence.at,
                "revision": evidence.revision,
                "size": len(content.encode()),
                "content": content,
            }
            connection.execute(insert(table), row)
            is_old = table.c.at < self._now() - self._retention.age
            is_surplus = table.c.number <= number - self._retention.evidence
            connection.execute(
                delete(table).where(of_release, table.c.number != number, is_old | is_surplus)
            )
        return number

    def _write_entries(self, connection: Connection, texts: dict[tuple[str, int], str]) -> None:
        """Add these entries of ledgers where they are not there yet; none is ever written over."""
        table = tables.ledger
        # After a start all that records remember is here: most of it was written long ago.
        newest = {chain: number for chain, number in sorted(texts) if chain not in self._chains}
        there: set[str] = set()
        for chains in _chunks(newest, 400):
            last = select(table.c.chain, func.max(table.c.number)).where(table.c.chain.in_(chains))
            for chain, number in connection.execute(last.group_by(table.c.chain)):
                if number >= newest[chain]:
                    there.add(chain)
        rows = []
        for place in sorted(place for place in texts if place[0] not in there):
            with contextlib.suppress(ValueError):  # damaged in the record; verifying it says so
                rows.append(_entry_row(texts[place]))
        if rows:
            connection.execute(_adding(connection, table), rows)

    def _prune(self, connection: Connection) -> None:
        table = tables.events
        connection.execute(delete(table).where(table.c.at < self._now() - self._retention.age))
        newest = (
            select(table.c.id).order_by(table.c.id.desc()).offset(self._retention.rows).limit(1)
        )
        last = connection.execute(newest).scalar()
        if last is not None:
            connection.execute(delete(table).where(table.c.id <= last))


def _adding(connection: Connection, table: Table) -> Executable:
    """An insert that leaves alone what is there."""
    if connection.dialect.name == "sqlite":
        return sqlite.insert(table).on_conflict_do_nothing()
    from sqlalchemy.dialects import postgresql  # of no use to those who have a file

    return postgresql.insert(table).on_conflict_do_nothing()


def _chosen(query: Select[Any], key: DeclarationKey | None, namespace: str | None) -> Select[Any]:
    table = query.get_final_froms()[0]
    if key is not None:
        query = query.where(table.c.namespace == key.namespace, table.c.name == key.name)
    if namespace is not None:
        query = query.where(table.c.namespace == namespace)
    return query


def _event_row(event: Event) -> dict[str, Any]:
    row: dict[str, Any] = _clean(
        {
            "at": event.at,
            "namespace": event.key.namespace,
            "name": event.key.name,
            "kind": event.kind.value,
            "severity": event.severity.value,
            "reason": event.reason,
            "message": event.message,
            "revision": event.revision,
            "metadata": event.metadata,
        }
    )
    return row


def _texts_of(ledger: Ledger) -> dict[tuple[str, int], str]:
    """The texts of the newest entries by their places."""
    first = ledger.number - len(ledger.recent) + 1
    return {(ledger.chain, first + index): text for index, text in enumerate(ledger.recent)}


def _entry_row(text: str) -> dict[str, Any]:
    entry = KeptEntry.of(text)
    return {
        "chain": entry.chain,
        "number": entry.number,
        "at": entry.at,
        "namespace": entry.declaration.namespace,
        "name": entry.declaration.name,
        "release_namespace": entry.release.namespace,
        "release_name": entry.release.name,
        "hash": entry.hash,
        "content": entry.content,
    }


def _stored_event(row: Row[Any]) -> StoredEvent:
    return StoredEvent(
        id=row.id,
        event=Event(
            at=row.at,
            key=DeclarationKey(row.namespace, row.name),
            kind=_one_of(EventKind, row.kind, EventKind.INFO),
            severity=_one_of(Severity, row.severity, Severity.INFO),
            reason=row.reason,
            message=row.message,
            revision=row.revision,
            metadata=row._mapping["metadata"],
        ),
    )


def _look_at(done: asyncio.Future[Any]) -> None:
    """The caller may be gone; asyncio complains of errors that nobody looked at."""
    if not done.cancelled():
        done.exception()


_E = TypeVar("_E", EventKind, Severity)


def _one_of(words: type[_E], text: str, otherwise: _E) -> _E:
    """A newer helmops that shares the database may write words that this one does not know."""
    try:
        return words(text)
    except ValueError:
        return otherwise


def _clean(value: Any) -> Any:
    """What no database takes in a text becomes U+FFFD: one odd event must not block the others.

    PostgreSQL refuses U+0000, both refuse half surrogates (undecodable bytes of a program).
    """
    if isinstance(value, str):
        value = value.replace("\0", "\ufffd")
        return (
            value
            if value.isascii()
            else value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        )
    if isinstance(value, dict):
        return {_clean(key): _clean(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_clean(entry) for entry in value]
    return value


def _chunks(items: Iterable[_T], size: int) -> Iterable[list[_T]]:
    rest = iter(items)
    while chunk := list(islice(rest, size)):
        yield chunk
