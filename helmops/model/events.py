"""What happened to a release, as told to people: events, notifications, the event log."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from helmops.model.releases import DeclarationKey


class Severity(StrEnum):
    """Flux's two severities."""

    INFO = "info"
    ERROR = "error"


class EventKind(StrEnum):
    """What a notification can be chosen by, beside its severity."""

    SUCCESS = "success"
    FAILURE = "failure"
    ROLLBACK = "rollback"
    HOLD = "hold"
    INFO = "info"


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened to one release. Holds no secret values."""

    at: datetime
    key: DeclarationKey
    kind: EventKind
    severity: Severity
    reason: str
    message: str
    revision: int | None = None
    metadata: dict[str, str] = field(default_factory=dict)
