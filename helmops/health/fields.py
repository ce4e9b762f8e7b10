"""Reading Kubernetes objects that may lack anything, or hold something else than expected.

Kinds below are dictionaries out of JSON. A field of an unexpected type reads as absent: a status
that a foreign controller wrote must not break a pass.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from helmops.model.health import Health, HealthStatus

#: A Kubernetes object, decoded.
Object = Mapping[str, Any]


def dig(value: object, *path: str) -> Any:
    """What lies at `path`, or None."""
    for key in path:
        if not isinstance(value, Mapping):
            return None
        value = value.get(key)
    return value


def integer(value: object, *path: str, default: int = 0) -> int:
    """The integer at `path`, or `default`; True and False are no integers here."""
    found = dig(value, *path)
    return found if isinstance(found, int) and not isinstance(found, bool) else default


def text(value: object, *path: str, default: str = "") -> str:
    """The string at `path`, or `default`."""
    found = dig(value, *path)
    return found if isinstance(found, str) else default


def items(value: object, *path: str) -> Iterator[Mapping[str, Any]]:
    """The maps in the list at `path`; nothing where there is no list."""
    found = dig(value, *path)
    if isinstance(found, list):
        yield from (item for item in found if isinstance(item, Mapping))


def conditions(object_: Object) -> Iterator[Mapping[str, Any]]:
    """`status.conditions`, in their order."""
    return items(object_, "status", "conditions")


def condition(object_: Object, type_: str) -> Mapping[str, Any] | None:
    """The first condition of that type, or None."""
    return next((c for c in conditions(object_) if text(c, "type") == type_), None)


def is_true(condition_: Mapping[str, Any] | None) -> bool:
    """Whether a condition is there and has the status True."""
    return condition_ is not None and text(condition_, "status") == "True"


def told(condition_: Mapping[str, Any]) -> str:
    """What a condition says to a person: its reason and message, or its type and status."""
    parts = [part for part in (text(condition_, "reason"), text(condition_, "message")) if part]
    return ": ".join(parts) or f"{text(condition_, 'type')} is {text(condition_, 'status')}"


def moment(value: object, *path: str) -> datetime | None:
    """The RFC 3339 time at `path`, aware; None where there is none that can be read."""
    found = text(value, *path)
    try:
        parsed = datetime.fromisoformat(found)
    except ValueError:
        return None
    return parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)


def group_of(api_version: str) -> str:
    """The API group of an `apiVersion`; empty for the core group."""
    return api_version.rpartition("/")[0]


def current(message: str) -> Health:
    """The object is what it was asked to be."""
    return Health(HealthStatus.CURRENT, message)


def in_progress(message: str) -> Health:
    """The object is on its way."""
    return Health(HealthStatus.IN_PROGRESS, message)


def failed(message: str) -> Health:
    """The object will not get there without a change."""
    return Health(HealthStatus.FAILED, message)
