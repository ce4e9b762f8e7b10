from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from helmops.model.ledger import (
    LARGEST_ENTRY,
    NOTHING_BEFORE,
    RECENT_BYTES,
    RECENT_ENTRIES,
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


def draft(message: str = "done", **more: Any) -> Draft:
    fields: dict[str, Any] = {
        "kind": EntryKind.ACTION,
        "at": NOON,
        "declaration": DeclarationKey("apps", "web"),
        "release": ReleaseId("shop", "web-release"),
        "reason": "UpgradeSucceeded",
        "message": message,
        "by": "ada@laptop",
    }
    return Draft(**fields | more)


def chain(count: int) -> Ledger:
    ledger = new_ledger(draft("number 1"))
    for number in range(2, count + 1):
        ledger = ledger.extended(draft(f"number {number}"))
    return ledger


def test_a_chain_begins_with_number_one_after_nothing() -> None:
    ledger = new_ledger(draft())
    (entry,) = ledger.entries()
    assert (ledger.number, entry.number) == (1, 1)
    assert entry.entry["previous"] == NOTHING_BEFORE
    assert ledger.hash == entry.hash == hash_of(entry.content)
    assert entry.chain == ledger.chain
    assert len(ledger.chain) == 16


def test_each_entry_holds_the_hash_of_the_one_before() -> None:
    entries = chain(3).entries()
    assert [e.number for e in entries] == [1, 2, 3]
    links = [e.entry["previous"] for e in entries]
    assert links == [NOTHING_BEFORE, entries[0].hash, entries[1].hash]
    assert chain(3).hash == entries[2].hash


def test_chains_that_begin_otherwise_or_at_another_moment_have_other_names() -> None:
    first = new_ledger(draft())
    assert new_ledger(draft()).chain == first.chain
    assert new_ledger(draft("else")).chain != first.chain
    assert new_ledger(draft(at=NOON + timedelta(microseconds=1))).chain != first.chain


def test_the_text_of_an_entry_has_one_form() -> None:
    content = draft("a\n  b", details={"z": 1, "a": [True]}).content("c", 7, "f" * 64)
    assert content == canonical(json.loads(content))
    assert content.isascii()
    assert " " not in canonical({"a": 1, "b": [1, 2]})
    assert json.loads(content)["message"] == "a b"


def test_what_is_empty_is_left_out() -> None:
    assert set(json.loads(draft("", by="", reason="R").content("c", 1, ""))) == {
        *("format", "chain", "number", "previous", "at", "declaration", "release", "kind"),
        "reason",
    }


def test_moments_are_in_utc_to_the_microsecond() -> None:
    moment = datetime(2026, 1, 5, 14, 0, 0, 5, timezone(timedelta(hours=2)))
    ledger = new_ledger(draft(at=moment))
    (entry,) = ledger.entries()
    assert entry.entry["at"] == "2026-01-05T12:00:00.000005+00:00"
    assert entry.at == moment


@pytest.mark.parametrize(
    "details",
    [
        {"plan": ["x" * 5000] * 3},
        {"checks": [{"name": "n" * 200, "message": "é" * 200, "passed": False}] * 10},
        {"deep": {"a": {"b": ["c" * 3000]}}},
        {f"key{n}": "v" * 300 for n in range(200)},
        {"k" * 5000: 1},
    ],
)
def test_no_entry_is_larger_than_the_limit_and_none_loses_who_and_what(details: Any) -> None:
    content = draft("é" * 10_000, details=details).content("c", 1, NOTHING_BEFORE)
    entry = json.loads(content)
    assert len(content) <= LARGEST_ENTRY
    assert entry["shortened"] is True
    assert (entry["kind"], entry["reason"], entry["by"]) == (
        "action",
        "UpgradeSucceeded",
        "ada@laptop",
    )


def test_an_entry_that_gets_shortened_keeps_digests_whole() -> None:
    digest = "sha256:" + "a" * 64
    details = {"digests": {"plan": digest}, "plan": ["x" * 200] * 40}
    entry = json.loads(draft(details=details).content("c", 1, NOTHING_BEFORE))
    assert entry["shortened"] is True
    assert entry["digests"]["plan"] == digest


def test_the_record_keeps_the_newest_entries_only() -> None:
    ledger = chain(RECENT_ENTRIES + 5)
    entries = ledger.entries()
    assert [e.number for e in entries] == list(range(6, RECENT_ENTRIES + 6))
    assert ledger.number == RECENT_ENTRIES + 5


def test_the_record_keeps_no_more_bytes_than_it_may_and_always_the_newest() -> None:
    ledger = new_ledger(draft())
    for _ in range(20):
        ledger = ledger.extended(draft(details={"plan": ["y" * 71] * 40}))
        assert sum(map(len, ledger.recent)) <= RECENT_BYTES
        assert ledger.entries()[-1].hash == ledger.hash
    assert 1 < len(ledger.recent) < RECENT_ENTRIES


def test_a_chain_is_over_with_its_last_entry() -> None:
    assert not chain(2).is_ended
    assert chain(2).extended(draft(kind=EntryKind.ENDED)).is_ended


def test_a_head_without_entries_is_not_over() -> None:
    assert not Ledger("c", 3, "f" * 64).is_ended
    assert not Ledger("c", 3, "f" * 64, ("not JSON",)).is_ended
    assert not Ledger("c", 3, "f" * 64, ("[]",)).is_ended


def test_an_exported_line_comes_back_as_the_same_entry() -> None:
    for entry in chain(4).entries():
        line = entry.to_line()
        assert KeptEntry.from_line(line) == entry
        assert json.loads(line)["hash"] == entry.hash
        assert line == canonical(json.loads(line))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no JSON",
        "[]",
        "{}",
        '"text"',
        "[" * 100_000,
        '{"hash":1}',
        '{"hash":"a","chain":"c","number":1,"at":"noon","declaration":"a/b","release":"a/b"}',
        '{"hash":"a","chain":"c","number":1,"at":"2026-01-05","declaration":7,"release":"a/b"}',
    ],
)
def test_any_other_line_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        KeptEntry.from_line(text)
    with pytest.raises(ValueError, match=r"."):
        KeptEntry.of(text)


def test_half_characters_become_whole_ones() -> None:
    ledger = new_ledger(draft("a\udcffb", by="\ud800", details={"checks": ["\udcff"]}))
    (entry,) = ledger.entries()
    assert entry.entry["message"] == "a\ufffdb"
    assert entry.entry["checks"] == ["\ufffd"]


def test_the_hashes_that_a_record_vouches_for_end_where_it_is_damaged() -> None:
    ledger = chain(4)
    hashes = {e.number: e.hash for e in ledger.entries()}
    assert ledger.known_hashes() == {0: NOTHING_BEFORE, **hashes}
    broken = replace(ledger, recent=(*ledger.recent[:2], "?", ledger.recent[3]))
    assert broken.known_hashes() == {3: hashes[3], 4: hashes[4]}
    assert replace(ledger, recent=()).known_hashes() == {4: hashes[4]}
