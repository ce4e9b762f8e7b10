from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from helmops.decide.audit import Anchor, Audit, End, Finding, Harm, audit, first_harm
from helmops.model.ledger import (
    Draft,
    EntryKind,
    KeptEntry,
    Ledger,
    canonical,
    hash_of,
    new_ledger,
)
from helmops.model.releases import DeclarationKey, ReleaseId

NOON = datetime(2026, 1, 5, 12, 0, tzinfo=UTC)
WEB = DeclarationKey("apps", "web")
RELEASE = ReleaseId("apps", "web")


def draft(
    number: int, kind: EntryKind = EntryKind.ACTION, name: str = "web", **details: object
) -> Draft:
    return Draft(
        kind,
        NOON + timedelta(minutes=number),
        DeclarationKey("apps", name),
        ReleaseId("apps", name),
        "Tested",
        f"number {number}",
        details=details,
    )


def chain(count: int, *, name: str = "web", ended: bool = False) -> tuple[list[KeptEntry], Anchor]:
    """All entries of a chain, and what its record says."""
    ledger = new_ledger(draft(1, name=name))
    kept = list(ledger.entries())
    for number in range(2, count + 1):
        last = ended and number == count
        ledger = ledger.extended(
            draft(number, EntryKind.ENDED if last else EntryKind.ACTION, name=name)
        )
        kept.append(ledger.entries()[-1])
    return kept, Anchor(DeclarationKey("apps", name), ReleaseId("apps", name), ledger)


def judged(kept: Sequence[KeptEntry], anchor: Anchor | None = None) -> Audit:
    (found,) = audit(kept, [anchor] if anchor else [])
    return found


def harm(kept: Sequence[KeptEntry], anchor: Anchor | None = None) -> tuple[Harm, int, int] | None:
    finding = judged(kept, anchor).finding
    return (finding.harm, finding.number, finding.last) if finding else None


def refit(entry: KeptEntry, **changes: object) -> KeptEntry:
    """An entry that was changed by somebody who knows how hashes are made."""
    content = canonical({**entry.entry, **changes})
    return replace(entry, content=content, hash=hash_of(content))


def rewritten(kept: list[KeptEntry], start: int, **changes: object) -> list[KeptEntry]:
    """All from one index on written again, every hash made to fit."""
    out = list(kept)
    out[start] = refit(kept[start], **changes)
    for index in range(start + 1, len(kept)):
        out[index] = refit(kept[index], previous=out[index - 1].hash)
    return out


def test_an_untouched_chain_is_intact() -> None:
    kept, anchor = chain(30)
    found = judged(kept, anchor)
    assert found.is_intact
    assert (found.entries, found.first, found.last, found.end) == (30, 1, 30, End.RECORD)
    assert (found.declaration, found.release) == (WEB, RELEASE)


def test_the_order_in_which_entries_come_is_of_no_matter() -> None:
    kept, anchor = chain(30)
    assert judged(kept[::-1], anchor).is_intact


CHANGES: dict[str, Callable[[KeptEntry], KeptEntry]] = {
    "a byte of the text": lambda e: replace(e, content=e.content.replace("number ", "numbet ")),
    "the hash": lambda e: replace(e, hash="0" * 64),
    "the name": lambda e: replace(e, declaration=DeclarationKey("apps", "db")),
    "the release": lambda e: replace(e, release=ReleaseId("other", "web")),
    "the moment": lambda e: replace(e, at=e.at + timedelta(microseconds=1)),
    "text and hash": lambda e: refit(e, message="nothing happened"),
    "text, hash and link": lambda e: refit(e, previous="1" * 64),
    "no link": lambda e: refit(e, previous=None),
    "not JSON": lambda e: replace(e, content="?", hash=hash_of("?")),
    "no object": lambda e: replace(e, content="[]", hash=hash_of("[]")),
    "another's": lambda e: replace(chain(5, name="db")[0][3], number=e.number, chain=e.chain),
}


@pytest.mark.parametrize("what", CHANGES)
@pytest.mark.parametrize("index", [0, 1, 10, 28, 29])
def test_the_entry_that_was_changed_is_named(what: str, index: int) -> None:
    kept, anchor = chain(30)
    kept[index] = CHANGES[what](kept[index])
    assert harm(kept, anchor) == (Harm.CHANGED, index + 1, index + 1)


@pytest.mark.parametrize("index", [0, 10, 28])
def test_without_the_record_a_change_is_named_too_unless_it_is_of_the_newest(index: int) -> None:
    kept, _ = chain(30)
    kept[index] = refit(kept[index], message="nothing happened")
    assert harm(kept) == (Harm.CHANGED, index + 1, index + 1)


def test_without_the_record_a_newest_entry_whose_hash_fits_is_not_known_to_be_changed() -> None:
    kept, _ = chain(3)
    kept[2] = refit(kept[2], message="nothing happened")
    found = judged(kept)
    assert found.is_intact
    assert found.end is End.UNKNOWN


def test_of_a_chain_that_was_written_again_the_oldest_that_can_be_told_is_named() -> None:
    kept, anchor = chain(30)
    assert harm(rewritten(kept, 20, message="x"), anchor) == (Harm.CHANGED, 21, 21)
    # Beyond what the record keeps of it, the link from there tells.
    assert harm(rewritten(kept, 3, message="x"), anchor) == (Harm.CHANGED, 14, 14)
    finding = judged(rewritten(kept, 3, message="x"), anchor).finding
    assert finding is not None
    assert "before it may have been changed as well" in finding.what


@pytest.mark.parametrize(
    ("gone", "expected"),
    [
        ([0], (1, 1)),
        ([0, 1, 2], (1, 3)),
        ([4], (5, 5)),
        ([4, 5, 6], (5, 7)),
        ([4, 8], (5, 5)),
        ([29], (30, 30)),
        ([27, 28, 29], (28, 30)),
        (list(range(30)), (1, 30)),
    ],
)
def test_missing_entries_are_named(gone: list[int], expected: tuple[int, int]) -> None:
    kept, anchor = chain(30)
    left = [entry for index, entry in enumerate(kept) if index not in gone]
    assert harm(left, anchor) == (Harm.MISSING, *expected)


def test_what_the_record_still_has_of_the_missing_is_said() -> None:
    kept, anchor = chain(30)
    lost, at_hand = judged(kept[:10], anchor).finding, judged(kept[:20], anchor).finding
    assert isinstance(lost, Finding)
    assert isinstance(at_hand, Finding)
    assert "exports and backups" in lost.next_step
    assert "record Secret still has them" in at_hand.next_step


def test_truncation_is_not_seen_without_the_record_and_that_is_said() -> None:
    kept, _ = chain(30)
    found = judged(kept[:20])
    assert found.is_intact
    assert found.end is End.UNKNOWN


def test_a_chain_that_ended_is_whole_without_a_record() -> None:
    kept, _ = chain(5, ended=True)
    assert judged(kept).end is End.CLOSED
    assert judged(kept).is_intact
    assert judged(kept[:4]).end is End.UNKNOWN
    kept[4] = replace(kept[4], content="?")
    assert harm(kept) == (Harm.CHANGED, 5, 5)


def test_the_chain_that_follows_tells_the_end_of_the_one_before() -> None:
    old, anchor = chain(5)
    ledger = anchor.ledger
    follows = {"chain": ledger.chain, "number": ledger.number, "hash": ledger.hash}
    new = new_ledger(draft(9, follows=follows))
    first = new.entries()[0]
    now = Anchor(WEB, RELEASE, new)

    def ends(kept: list[KeptEntry]) -> tuple[End, Harm | None]:
        found = {each.chain: each for each in audit([*kept, first], [now], [old[0], first])}
        before = found[ledger.chain]
        return before.end, before.finding.harm if before.finding else None

    assert ends(old) == (End.FOLLOWED, None)
    assert ends(old[:4]) == (End.FOLLOWED, Harm.MISSING)
    assert ends([*old[:4], refit(old[4], message="x")]) == (End.FOLLOWED, Harm.CHANGED)


def test_a_damaged_first_entry_tells_no_end() -> None:
    kept, anchor = chain(2)
    broken = replace(kept[0], content="?")
    odd = refit(kept[0], follows={"chain": 7})
    (found,) = audit(kept, [anchor], [broken, odd])
    assert found.is_intact


def test_an_entry_that_the_record_does_not_know_was_added() -> None:
    kept, anchor = chain(5)
    forged = anchor.ledger.extended(draft(6)).entries()[-1]
    assert harm([*kept, forged], anchor) == (Harm.ADDED, 6, 6)


def test_a_number_that_is_there_twice_is_named() -> None:
    kept, anchor = chain(5)
    assert harm([*kept, kept[2]], anchor) == (Harm.CHANGED, 3, 3)


def test_two_entries_that_changed_places_are_found() -> None:
    kept, anchor = chain(9)
    kept[3], kept[6] = replace(kept[6], number=4), replace(kept[3], number=7)
    assert harm(kept, anchor) == (Harm.CHANGED, 4, 4)


def test_a_record_whose_own_entries_are_damaged_still_tells_by_its_hash() -> None:
    kept, anchor = chain(5)
    damaged = replace(anchor, ledger=replace(anchor.ledger, recent=("?",) * 5))
    assert judged(kept, damaged).is_intact
    kept[4] = refit(kept[4], message="x")
    assert harm(kept, damaged) == (Harm.CHANGED, 5, 5)


def test_chains_are_told_in_the_order_of_declarations_and_the_first_harm_so() -> None:
    web, of_web = chain(3)
    db, of_db = chain(3, name="db")
    api, of_api = chain(3, name="api")
    found = audit([*web[:2], *db[:2], *api], [of_web, of_db, of_api])
    assert [str(each.declaration) for each in found] == ["apps/api", "apps/db", "apps/web"]
    assert first_harm(found) is found[1]
    assert first_harm(found[:1]) is None


def test_of_a_chain_that_is_gone_altogether_the_record_tells() -> None:
    _, anchor = chain(3)
    (found,) = audit([], [anchor])
    assert (found.entries, found.first, found.last) == (0, 0, 0)
    assert found.finding is not None
    assert (found.finding.number, found.finding.last) == (1, 3)


def test_a_head_alone_is_enough() -> None:
    kept, anchor = chain(3)
    bare = replace(anchor, ledger=Ledger(anchor.ledger.chain, 3, anchor.ledger.hash))
    assert judged(kept, bare).is_intact
    assert harm(kept[:2], bare) == (Harm.MISSING, 3, 3)


def test_what_is_known_to_be_lost_can_be_left_out_of_it() -> None:
    kept, anchor = chain(30)
    left = kept[9:]

    def since(number: int, entries: Sequence[KeptEntry]) -> tuple[Harm, int] | None:
        (found,) = audit(entries, [anchor], since=NOON + timedelta(minutes=number))
        return (found.finding.harm, found.finding.number) if found.finding else None

    assert since(5, left) == (Harm.MISSING, 1), "nothing from before then is there to begin with"
    assert since(10, left) == (Harm.MISSING, 1)
    assert since(11, left) is None
    assert since(11, [*left[:5], *left[6:]]) == (Harm.MISSING, 15)
    assert since(20, [*left[:5], *left[6:]]) is None
    assert since(20, left[:-1]) == (Harm.MISSING, 30)
    later = NOON + timedelta(hours=9)
    moved = [*left[:5], replace(left[5], at=NOON), *left[6:]]
    assert since(12, moved) == (Harm.CHANGED, 15)
    (found,) = audit(left, [anchor], since=later)
    assert (found.is_intact, found.entries) == (True, 1)
