"""The ledger: what was decided and done about a release, and how it ended, entry after entry.

Entries are only ever added. Each holds the hash of the one before it, so that nobody can change or
take away one without the next one telling; the hash of the newest stands in the record Secret. All
entries from a release's first sight to the end of its record are one *chain*.

An entry is its text: JSON in one canonical form, whose SHA-256 is its hash. What a newer helmops
adds to entries is therefore verified by an older one as well.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Final

import msgspec

from helmops.model.releases import DeclarationKey, ReleaseId

#: Of the entries' form; it grows when a field gets another meaning.
FORMAT: Final = 1
#: What the first entry of a chain names as the hash before it.
NOTHING_BEFORE: Final = "0" * 64
#: Bytes that the text of one entry may have.
LARGEST_ENTRY: Final = 4096
#: The newest entries, which the record Secret keeps beside the store: at most so many, and bytes.
RECENT_ENTRIES: Final = 16
RECENT_BYTES: Final = 24 * 1024


class EntryKind(StrEnum):
    """What an entry tells."""

    #: The declaration is new, another one than before, or there again.
    DECLARED = "declared"
    #: The declaration is gone, and the release is left running.
    UNDECLARED = "undeclared"
    #: Something was done.
    ACTION = "action"
    #: What became of an action whose end nobody saw.
    INTERRUPTED = "interrupted"
    #: A revision was found healthy, failed, or neither any more.
    VERDICT = "verdict"
    HELD = "held"
    HOLD_LIFTED = "hold-lifted"
    SUSPENDED = "suspended"
    RESUMED = "resumed"
    #: A person or an annotation had the failures forgotten.
    RESET = "reset"
    QUARANTINED = "quarantined"
    QUARANTINE_LIFTED = "quarantine-lifted"
    #: A revision that was proven healthy is not well any more, or is again.
    HEALTH_LOST = "health-lost"
    HEALTH_BACK = "health-back"
    #: The last of its chain: the record is deleted with the release.
    ENDED = "ended"


@dataclass(frozen=True, slots=True)
class Draft:
    """An entry that has no place in a chain yet.

    `by` is who asked: `ada@laptop`, `schedule (…)`, `annotation`. `rule` is why it was decided.
    `details` are JSON: texts, whole numbers, truth values, lists and objects of these.
    """

    kind: EntryKind
    at: datetime
    declaration: DeclarationKey
    release: ReleaseId
    reason: str
    message: str
    by: str = ""
    origin: str = ""
    commit: str = ""
    rule: str = ""
    details: Mapping[str, Any] = field(default_factory=dict)

    def content(self, chain: str, number: int, previous: str) -> str:
        """The text of the entry at a place in a chain, at most `LARGEST_ENTRY` bytes of ASCII."""
        entry: dict[str, Any] = {
            "format": FORMAT,
            "chain": chain,
            "number": number,
            "previous": previous,
            "at": in_utc(self.at),
            "declaration": str(self.declaration),
            "release": str(self.release),
            "kind": self.kind.value,
        }
        told = {
            "reason": _short(self.reason, 100),
            "message": _short(self.message, 600),
            "by": _short(self.by, 200),
            "origin": _short(self.origin, 300),
            "commit": _short(self.commit, 200),
            "rule": _short(self.rule, 300),
        }
        entry |= {name: text for name, text in told.items() if text}
        details = {name: _pruned(value, LARGEST_ENTRY) for name, value in self.details.items()}
        text = canonical(entry | details)
        if len(text) <= LARGEST_ENTRY:
            return text
        for shortest in (200, 80, 30):
            entry |= {name: _short(entry[name], shortest) for name in told if name in entry}
            details = {name: _pruned(value, shortest) for name, value in self.details.items()}
            text = canonical({**entry, **details, "shortened": True})
            if len(text) <= LARGEST_ENTRY:
                return text
        return canonical({**entry, "shortened": True})


@dataclass(frozen=True, slots=True)
class Ledger:
    """How far the chain of a release has come; a part of its record.

    `number` and `hash` are the newest entry's. `recent` are the texts of the newest entries, oldest
    first: they are written down here first, and from here into the store.
    """

    chain: str
    number: int
    hash: str
    recent: tuple[str, ...] = ()

    def known_hashes(self) -> dict[int, str]:
        """Hashes by number, of the newest entry and all before it that its text vouches for."""
        known, expected, number = {self.number: self.hash}, self.hash, self.number
        for text in reversed(self.recent):
            if hash_of(text) != expected:
                break
            number, expected = number - 1, str(_object_in(text).get("previous"))
            known[number] = expected
        return known

    def entries(self) -> tuple[KeptEntry, ...]:
        """The recent entries as the store keeps them; what somebody damaged is left out."""
        found = []
        for text in self.recent:
            with suppress(ValueError):
                found.append(KeptEntry.of(text))
        return tuple(found)

    @property
    def newest(self) -> Mapping[str, Any]:
        """What the newest entry says; nothing where it is not here."""
        try:
            return _object_in(self.recent[-1])
        except (IndexError, ValueError):
            return {}

    @property
    def is_ended(self) -> bool:
        """Whether the chain takes no more entries."""
        return self.newest.get("kind") == EntryKind.ENDED

    def extended(self, draft: Draft) -> Ledger:
        """The chain with one more entry."""
        number = self.number + 1
        text = draft.content(self.chain, number, self.hash)
        recent = (*self.recent, text)[-RECENT_ENTRIES:]
        while len(recent) > 1 and sum(map(len, recent)) > RECENT_BYTES:
            recent = recent[1:]
        return Ledger(self.chain, number, hash_of(text), recent)


def new_ledger(first: Draft) -> Ledger:
    """A chain that begins with this entry. Its name comes from what the entry says, its moment
    included, so that no two are alike.
    """
    chain = hash_of(first.content("", 1, NOTHING_BEFORE))[:16]
    return Ledger(chain, 0, NOTHING_BEFORE).extended(first)


@dataclass(frozen=True, slots=True)
class KeptEntry:
    """An entry as the store keeps it: its text and hash, and what it is looked up by.

    What stands beside the text must be what the text says; whoever verifies looks at that too.
    """

    chain: str
    number: int
    hash: str
    content: str
    at: datetime
    declaration: DeclarationKey
    release: ReleaseId

    @classmethod
    def of(cls, content: str, entry: Mapping[str, Any] | None = None) -> KeptEntry:
        """The entry of a text that helmops wrote; `entry` is what it says, where that is known.
        Raises ValueError for any other.
        """
        if entry is None:
            entry = _object_in(content)
        try:
            return cls(
                chain=entry["chain"],
                number=entry["number"],
                hash=hash_of(content),
                content=content,
                at=datetime.fromisoformat(entry["at"]),
                declaration=DeclarationKey(*_two_names(entry["declaration"])),
                release=ReleaseId(*_two_names(entry["release"])),
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"not an entry of a ledger: {error}") from error

    @property
    def entry(self) -> dict[str, Any]:
        """What the text says. Raises ValueError where it is no JSON object."""
        return _object_in(self.content)

    def to_line(self) -> str:
        """One line of an export: the entry with its hash, in canonical form."""
        return canonical({**self.entry, "hash": self.hash})

    @classmethod
    def from_line(cls, line: str) -> KeptEntry:
        """Read a line of an export; its hash is taken as it stands there. Raises ValueError."""
        entry = _object_in(line)
        stated = entry.pop("hash", None)
        if not isinstance(stated, str):
            raise ValueError("not a line of an exported ledger")
        found = cls.of(canonical(entry))
        return replace(found, hash=stated)


def canonical(value: Any) -> str:
    """JSON in one form: keys sorted, no spaces, ASCII."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def hash_of(text: str) -> str:
    """Hex SHA-256 of a text."""
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()


def in_utc(moment: datetime) -> str:
    """A moment as entries have it, `2026-01-05T12:00:00.000000+00:00`."""
    return moment.astimezone(UTC).isoformat(timespec="microseconds")


def _object_in(text: str) -> dict[str, Any]:
    """A JSON object. Raises ValueError for anything else."""
    try:
        found = _decoder.decode(text)
    except (RecursionError, UnicodeEncodeError):
        found = None
    if not isinstance(found, dict):
        raise ValueError("not an entry of a ledger")
    return found


def _two_names(text: str) -> tuple[str, str]:
    namespace, _, name = text.partition("/")
    return namespace, name


def _short(text: str, length: int) -> str:
    """One line, at most so long; half characters, which JSON does not have, become U+FFFD."""
    line = " ".join(text.split())
    if not line.isascii():
        line = line.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return line if len(line) <= length else f"{line[: length - 1]}…"


def _pruned(value: Any, length: int) -> Any:
    """Texts and lists cut down to a length, texts to one line."""
    if isinstance(value, str):
        return _short(value, max(length, 71))  # digests stay whole
    if isinstance(value, list | tuple):
        return [_pruned(each, length) for each in value[: length // 10]]
    if isinstance(value, Mapping):
        return {key: _pruned(each, length) for key, each in value.items()}
    return value


#: Several times faster than the standard library's, which verifying a whole store needs.
_decoder = msgspec.json.Decoder()
