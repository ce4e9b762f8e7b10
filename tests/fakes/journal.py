"""The store, in memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from datetime import datetime

from helmops.errors import StoreError
from helmops.model.events import Event
from helmops.model.evidence import Evidence
from helmops.model.ledger import KeptEntry
from helmops.model.records import Record
from helmops.model.releases import DeclarationKey
from helmops.store.entries import PublishedRelease, StoredEvent, StoredEvidence


class FakeJournal:
    """A `Journal` with the reads of the real one. It keeps everything.

    While `failure` is set, every write raises it and is kept for later, as the real one does.
    """

    def __init__(self) -> None:
        self.failure: StoreError | None = None
        self.backlog = 0
        self.dropped = 0
        self._stored: list[StoredEvent] = []
        self._published: dict[DeclarationKey, PublishedRelease] = {}
        self._ledger: dict[tuple[str, int], KeptEntry] = {}
        self._evidence: dict[DeclarationKey, list[Evidence]] = {}

    @property
    def told(self) -> list[Event]:
        """All events in the order of writing."""
        return [entry.event for entry in self._stored]

    async def open(self) -> None:
        self._fail()

    async def close(self) -> None:
        pass

    async def append(self, events: Sequence[Event]) -> None:
        for event in events:
            self._stored.append(StoredEvent(len(self._stored) + 1, event))
        self._fail()

    async def publish(self, record: Record) -> None:
        self._published[record.key] = PublishedRelease(
            key=record.key,
            release=record.release,
            status=record.public_status(),
            updated_at=record.updated_at or datetime.min,  # noqa: DTZ901 - never compared
        )
        await self.chronicle([record])

    async def chronicle(self, records: Sequence[Record]) -> None:
        for record in records:
            if record.ledger is not None and record.version:
                for entry in record.ledger.entries():
                    self._ledger.setdefault((entry.chain, entry.number), entry)
        self._fail()

    @property
    def ledger(self) -> tuple[KeptEntry, ...]:
        """All entries of all ledgers, chain by chain."""
        return tuple(self._ledger[place] for place in sorted(self._ledger))

    async def keep_evidence(self, key: DeclarationKey, evidence: Evidence) -> int:
        self._fail()
        found = self._evidence.setdefault(key, [])
        found.append(evidence)
        return len(found)

    async def evidence(self, key: DeclarationKey, number: int = 0) -> StoredEvidence | None:
        found = self._evidence.get(key, [])
        number = number or len(found)
        if not 0 < number <= len(found):
            return None
        return StoredEvidence(number, found[number - 1])

    async def withdraw(self, key: DeclarationKey) -> None:
        self._published.pop(key, None)
        self._fail()

    async def events(
        self,
        key: DeclarationKey | None = None,
        *,
        namespace: str | None = None,
        since: datetime | None = None,
        after: int | None = None,
        limit: int = 100,
    ) -> tuple[StoredEvent, ...]:
        found = [
            entry
            for entry in self._stored
            if (key is None or entry.event.key == key)
            and (namespace is None or entry.event.key.namespace == namespace)
            and (since is None or entry.event.at >= since)
            and (after is None or entry.id > after)
        ]
        return tuple(found[-limit:] if after is None else found[:limit])

    async def last_event(self) -> int:
        return len(self._stored)

    async def follow(
        self,
        key: DeclarationKey | None = None,
        *,
        namespace: str | None = None,
        after: int | None = None,
        every: float = 1.0,
    ) -> AsyncIterator[StoredEvent]:
        seen = len(self._stored) if after is None else after
        while True:
            for entry in await self.events(key, namespace=namespace, after=seen):
                seen = entry.id
                yield entry
            await asyncio.sleep(0)

    async def releases(
        self, key: DeclarationKey | None = None, *, namespace: str | None = None
    ) -> tuple[PublishedRelease, ...]:
        return tuple(
            entry
            for entry in sorted(self._published.values(), key=lambda entry: entry.key)
            if (key is None or entry.key == key)
            and (namespace is None or entry.key.namespace == namespace)
        )

    def _fail(self) -> None:
        if self.failure is not None:
            raise self.failure
