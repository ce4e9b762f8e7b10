"""Whether a ledger is still what was written: chains, their links, their ends. Computational only.

A chain is judged from its end. What stands in the record Secret (the newest hash, and the newest
entries) tells what the last entries must be; each entry that is as it must be tells the same of the
one before it. So of one changed entry it is that entry which is named, not the next one, also where
its hash was made to fit.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from itertools import groupby

from helmops.model.ledger import NOTHING_BEFORE, EntryKind, KeptEntry, Ledger, hash_of
from helmops.model.releases import DeclarationKey, ReleaseId


class Harm(StrEnum):
    """What is wrong with entries."""

    CHANGED = "changed"
    MISSING = "missing"
    #: There, and not known to the record.
    ADDED = "added"


class End(StrEnum):
    """How it is known that a chain is whole to its end."""

    #: The record Secret says so.
    RECORD = "record"
    #: Its last entry says that it is the last.
    CLOSED = "closed"
    #: The chain that came after it says so.
    FOLLOWED = "followed"
    #: It is not: the record was not asked, or is gone.
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Finding:
    """The first entry of a chain that is not as it was written. `last` is the last missing one."""

    harm: Harm
    number: int
    last: int
    what: str
    next_step: str


@dataclass(frozen=True, slots=True)
class Audit:
    """What was found of one chain. Numbers are 0 where nothing of it is kept."""

    chain: str
    declaration: DeclarationKey
    release: ReleaseId
    entries: int
    first: int
    last: int
    end: End
    finding: Finding | None = None

    @property
    def is_intact(self) -> bool:
        """Whether nothing wrong was found."""
        return self.finding is None


@dataclass(frozen=True, slots=True)
class Anchor:
    """What the record of a release says of its chain."""

    declaration: DeclarationKey
    release: ReleaseId
    ledger: Ledger


def audit(
    entries: Iterable[KeptEntry],
    anchors: Iterable[Anchor] = (),
    firsts: Iterable[KeptEntry] = (),
    since: datetime | None = None,
) -> tuple[Audit, ...]:
    """Judge all chains that there are entries of, or that a record knows, in the order of
    declarations.

    `entries` have those of one chain together, in any order; `firsts` are the first entries of all
    chains, which tell the ends of the ones before them. With `since`, of each chain what is before
    the last entry from before then is not judged: a state database was lost, and that is known.
    """
    known = {anchor.ledger.chain: anchor for anchor in anchors}
    followed = _followed(firsts)
    found = [
        _audit(chain, _from(since, kept), known.pop(chain, None), followed, since)
        for chain, kept in groupby(entries, key=lambda entry: entry.chain)
    ]
    found += [_audit(chain, [], anchor, followed, since) for chain, anchor in known.items()]
    return tuple(sorted(found, key=lambda each: (each.declaration, each.release, each.chain)))


def first_harm(audits: Iterable[Audit]) -> Audit | None:
    """The first of the chains that has something wrong with it, or None."""
    return next((each for each in audits if each.finding is not None), None)


def _followed(firsts: Iterable[KeptEntry]) -> Mapping[str, tuple[int, str]]:
    """Number and hash of the ends of chains, as the first entries of those after them have them."""
    ends: dict[str, tuple[int, str]] = {}
    for first in firsts:
        with suppress(ValueError):
            follows = first.entry.get("follows")
            match follows:
                case {"chain": str(chain), "number": int(number), "hash": str(digest)}:
                    ends[chain] = number, digest
    return ends


def _audit(
    chain: str,
    kept: list[KeptEntry],
    anchor: Anchor | None,
    followed: Mapping[str, tuple[int, str]],
    since: datetime | None,
) -> Audit:
    newest = kept[-1] if kept else None
    number, digest, end = 0, "", End.UNKNOWN
    if anchor is not None:
        number, digest, end = anchor.ledger.number, anchor.ledger.hash, End.RECORD
    elif chain in followed:
        number, digest = followed[chain]
        end = End.FOLLOWED
    elif newest is not None and _is_last(newest):
        end = End.CLOSED
    finding = _missing_before_end(kept, number, anchor) if end in _ANCHORED else None
    flaws = [*_flaws(kept, number, digest, anchor), *([finding] if finding else [])]
    start = kept[0].number if kept and since is not None and kept[0].at < since else 1
    gap = _first_gap(kept, start, anchor)
    if gap is not None:
        flaws.append(gap)
    first = min(flaws, key=lambda flaw: flaw.number, default=None)
    return Audit(
        chain=chain,
        declaration=anchor.declaration if anchor else kept[-1].declaration,
        release=anchor.release if anchor else kept[-1].release,
        entries=len(kept),
        first=kept[0].number if kept else 0,
        last=kept[-1].number if kept else 0,
        end=end,
        finding=first,
    )


_ANCHORED = frozenset({End.RECORD, End.FOLLOWED})


def _is_last(entry: KeptEntry) -> bool:
    try:
        return entry.entry.get("kind") == EntryKind.ENDED
    except ValueError:
        return False


def _from(since: datetime | None, kept: Iterable[KeptEntry]) -> list[KeptEntry]:
    """The entries to be judged, by number."""
    entries = sorted(kept, key=lambda entry: entry.number)
    before = [entry.number for entry in entries if since is not None and entry.at < since]
    return [entry for entry in entries if entry.number >= before[-1]] if before else entries


def _first_gap(kept: list[KeptEntry], start: int, anchor: Anchor | None) -> Finding | None:
    expected = start
    for entry in kept:
        if entry.number > expected:
            return _missing(expected, entry.number - 1, anchor)
        expected = max(expected, entry.number + 1)
    return None


def _missing_before_end(
    kept: list[KeptEntry], number: int, anchor: Anchor | None
) -> Finding | None:
    last = kept[-1].number if kept else 0
    return _missing(last + 1, number, anchor) if last < number else None


def _missing(first: int, last: int, anchor: Anchor | None) -> Finding:
    recent = len(anchor.ledger.recent) if anchor is not None else 0
    at_hand = anchor is not None and first > anchor.ledger.number - recent
    which = f"number {first} is" if first == last else f"numbers {first} to {last} are"
    return Finding(
        Harm.MISSING,
        first,
        last,
        f"{which} missing",
        "the record Secret still has them: `helmops reconcile`, or the service when it starts, "
        "writes them again; whoever took them away is not undone by that"
        if at_hand
        else "they are lost here: look into exports and backups of the state database, and whether "
        "another one (--state) was written to at that time",
    )


def _flaws(kept: list[KeptEntry], number: int, digest: str, anchor: Anchor | None) -> list[Finding]:
    """What is wrong with the entries that are there, the last one first."""
    flaws: list[Finding] = []
    known = anchor.ledger.known_hashes() if anchor is not None else {number: digest}
    #: What the entry after the one that is looked at says that this one's hash is.
    expected = ""
    after = 0
    for index in range(len(kept) - 1, -1, -1):
        entry = kept[index]
        linked = expected if after == entry.number + 1 else ""
        what, previous = _own_flaw(entry)
        if number and entry.number > number:
            flaws.append(_added(entry))
        elif index and kept[index - 1].number == entry.number:
            flaws.append(_changed(entry, "is there twice"))
        elif what:
            flaws.append(_changed(entry, what))
        elif entry.number in known and known[entry.number] != entry.hash:
            flaws.append(_changed(entry, "is another one than the record Secret knows", refit=True))
        elif linked and linked != entry.hash:
            what = f"is not the one that number {entry.number + 1} was written after"
            flaws.append(_changed(entry, what, refit=True))
        else:
            expected, after = previous, entry.number
            if entry.number == 1 and previous != NOTHING_BEFORE:
                flaws.append(_changed(entry, "is not a first entry"))
            continue
        expected, after = "", 0
    return flaws


def _own_flaw(entry: KeptEntry) -> tuple[str, str]:
    """What is wrong with an entry, all others aside (empty: nothing), and the hash that it names as
    that of the one before it.
    """
    if hash_of(entry.content) != entry.hash:
        return "does not have its hash", ""
    try:
        entry_says = entry.entry
        said = KeptEntry.of(entry.content, entry_says)
    except ValueError:
        return "cannot be read", ""
    previous = entry_says.get("previous")
    if not isinstance(previous, str):
        return "does not say what came before it", ""
    if said != entry:
        return "is kept under a name, number or time that is not its own", ""
    return "", previous


def _changed(entry: KeptEntry, what: str, *, refit: bool = False) -> Finding:
    advice = (
        "compare it with an export or a backup of the state database; what stands there since "
        "cannot be trusted"
    )
    if refit:
        what += ", and its hash was made to fit; those before it may have been changed as well"
    return Finding(
        Harm.CHANGED, entry.number, entry.number, f"number {entry.number} {what}", advice
    )


def _added(entry: KeptEntry) -> Finding:
    return Finding(
        Harm.ADDED,
        entry.number,
        entry.number,
        f"number {entry.number} is not known to the record Secret",
        "somebody added it, or the record Secret was put back from a backup: compare both with one",
    )
