"""Any history, any tampering: the ledger is whole after the one, and tells of the other."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from helmops.decide.audit import Anchor, Finding, Harm, audit
from helmops.model.declarations import Defaults
from helmops.model.ledger import Draft, EntryKind, KeptEntry, canonical, hash_of, new_ledger
from helmops.model.records import Record
from helmops.model.releases import DeclarationKey, ReleaseId
from tests.fakes.cluster_state import FakeChart
from tests.fakes.journal import FakeJournal
from tests.fakes.world import World
from tests.property.test_promises import CHARTS, EXAMPLES, Step, Truth, happen, steps

SECRET = "swordfish-9000"
NOON = datetime(2026, 1, 5, 12, 0, tzinfo=UTC)


class StrictJournal(FakeJournal):
    """Where another entry under a number that is taken already is a failure."""

    def __init__(self) -> None:
        super().__init__()
        self.forks: list[str] = []

    async def publish(self, record: Record) -> None:
        before = {(e.chain, e.number): e for e in self.ledger}
        for entry in record.ledger.entries() if record.ledger and record.version else ():
            known = before.get((entry.chain, entry.number), entry)
            if known != entry:
                self.forks.append(f"{known.content} and {entry.content}")
        await super().publish(record)


class SecretWorld(World):
    """Every declaration has a password among its values."""

    def __init__(self, defaults: Defaults) -> None:
        super().__init__(defaults)
        self.journal = StrictJournal()
        self.restart()

    def declare(
        self, chart: FakeChart, values: Mapping[str, Any] | None = None, **more: Any
    ) -> None:
        super().declare(chart, {**(values or {}), "password": SECRET}, **more)


async def live(history: list[Step], defaults: Defaults) -> None:
    world = SecretWorld(defaults)
    truth = Truth(world, agreed=True)
    world.declare(CHARTS[0])
    is_lost = False
    for step in history:
        is_lost |= step.what == "lose state"
        await happen(step, world, truth)
        await world.reconciler.load() if step.what in ("crash", "lose state") else None
        assert isinstance(world.journal, StrictJournal)
        assert not world.journal.forks, world.journal.forks
    world.cluster.unreachable = world.records.is_unreachable = False
    world.restart()
    await world.reconciler.load()
    entries = world.journal.ledger
    assert SECRET not in "".join(entry.content for entry in entries)
    records = await world.records.load_all()
    anchors = [Anchor(r.key, r.release, r.ledger) for r in records if r.ledger is not None]
    for found in audit(entries, anchors, [e for e in entries if e.number == 1]):
        if is_lost and found.finding is not None:
            assert (found.finding.harm, found.finding.number) == (Harm.MISSING, 1)
        else:
            assert found.finding is None, found.finding


@settings(max_examples=EXAMPLES // 2, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(steps(), st.sampled_from(list(Defaults)))
def test_whatever_happens_the_ledger_is_whole_and_holds_no_secret(
    history: list[Step], defaults: Defaults
) -> None:
    asyncio.run(live(history, defaults))


# Tampering


def chain(count: int) -> tuple[list[KeptEntry], Anchor]:
    key, release = DeclarationKey("apps", "web"), ReleaseId("apps", "web")

    def draft(number: int) -> Draft:
        moment = NOON + timedelta(minutes=number)
        return Draft(EntryKind.ACTION, moment, key, release, "Tested", f"number {number}")

    ledger = new_ledger(draft(1))
    kept = list(ledger.entries())
    for number in range(2, count + 1):
        ledger = ledger.extended(draft(number))
        kept.append(ledger.entries()[-1])
    return kept, Anchor(key, release, ledger)


def finding_of(kept: list[KeptEntry], anchor: Anchor) -> Finding | None:
    (found,) = audit(kept, [anchor])
    return found.finding


def flipped(text: str, position: int, bit: int) -> str:
    at = position % len(text)
    return text[:at] + chr(ord(text[at]) ^ (1 << bit)) + text[at + 1 :]


@settings(max_examples=EXAMPLES, deadline=None)
@given(st.data())
def test_of_any_tampering_the_first_entry_is_named(data: st.DataObject) -> None:
    count = data.draw(st.integers(1, 40))
    kept, anchor = chain(count)
    numbers = st.integers(0, count - 1)
    changed = data.draw(st.dictionaries(numbers, st.tuples(st.integers(0), st.integers(0, 6))))
    in_hash = data.draw(st.booleans())
    removed = data.draw(st.sets(numbers))
    for index, (position, bit) in changed.items():
        entry = kept[index]
        if in_hash:
            kept[index] = replace(entry, hash=flipped(entry.hash, position, bit))
        else:
            kept[index] = replace(entry, content=flipped(entry.content, position, bit))
    left = [entry for index, entry in enumerate(kept) if index not in removed]
    left = data.draw(st.permutations(left))
    finding = finding_of(left, anchor)
    harmed = {index + 1 for index in (changed.keys() | removed)}
    if not harmed:
        assert finding is None
    else:
        assert finding is not None
        assert finding.number == min(harmed)
        is_missing = min(harmed) - 1 in removed
        assert finding.harm is (Harm.MISSING if is_missing else Harm.CHANGED)


@settings(max_examples=EXAMPLES, deadline=None)
@given(st.integers(2, 40), st.data())
def test_one_entry_whose_hash_was_made_to_fit_is_named(count: int, data: st.DataObject) -> None:
    kept, anchor = chain(count)
    index = data.draw(st.integers(0, count - 1))
    field = data.draw(st.sampled_from(["message", "at", "reason", "previous", "kind", "added"]))
    content = canonical({**kept[index].entry, field: "2026-01-05T12:00:00.000000+00:00"})
    kept[index] = replace(kept[index], content=content, hash=hash_of(content))
    if field == "at":
        kept[index] = replace(kept[index], at=NOON)
    finding = finding_of(kept, anchor)
    assert finding is not None
    assert (finding.harm, finding.number) == (Harm.CHANGED, index + 1)


@settings(max_examples=EXAMPLES, deadline=None)
@given(st.integers(1, 40), st.data())
def test_whatever_is_cut_off_at_the_end_is_named(count: int, data: st.DataObject) -> None:
    kept, anchor = chain(count)
    left = data.draw(st.integers(0, count - 1))
    finding = finding_of(kept[:left], anchor)
    assert finding is not None
    assert (finding.harm, finding.number, finding.last) == (Harm.MISSING, left + 1, count)
