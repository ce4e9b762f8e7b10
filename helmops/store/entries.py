"""What is read back from the store, and how long it keeps it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from helmops.model.events import Event
from helmops.model.evidence import Evidence
from helmops.model.releases import DeclarationKey, ReleaseId


@dataclass(frozen=True, slots=True)
class StoredEvent:
    """An event and its number. Numbers grow in the order of writing and are never used again."""

    id: int
    event: Event


@dataclass(frozen=True, slots=True)
class PublishedRelease:
    """The latest published state of one release: `status` is `Record.public_status()`."""

    key: DeclarationKey
    release: ReleaseId
    status: dict[str, Any]
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class StoredEvidence:
    """What a failure left behind, and its number among the evidence of its release, from 1."""

    number: int
    evidence: Evidence


@dataclass(frozen=True, slots=True)
class Retention:
    """Events older than `age`, and all but the newest `rows`, are thrown away. So is evidence of
    that age, and all but the newest `evidence` of a release; the very newest of it is kept.
    """

    age: timedelta = timedelta(days=90)
    rows: int = 100_000
    evidence: int = 20
