"""Whole passes over fakes: what the ledger says of them, and that it is whole whatever happens."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from helmops.decide.audit import Anchor, Audit, End, audit
from helmops.decide.ledger import Said, entered
from helmops.decide.remember import resume
from helmops.errors import ObjectConflict, StoreError
from helmops.model.actions import Request
from helmops.model.declarations import HelmReleaseSpec, UpgradeSpec, with_defaults
from helmops.model.ledger import RECENT_ENTRIES, KeptEntry
from helmops.model.records import Suspension
from helmops.model.releases import ReleaseId
from tests.fakes.cluster_state import FakeChart, Killed, Point
from tests.fakes.journal import FakeJournal
from tests.fakes.world import World

GOOD = FakeChart(version="1.0.0")
BETTER = FakeChart(version="1.1.0")
SICK = FakeChart(version="1.3.0", unhealthy=True)
AWAY = StoreError("the disk is full")


@pytest.fixture
def world() -> World:
    return World()


async def installed(world: World, chart: FakeChart = GOOD, **spec: object) -> World:
    world.declare(chart, **spec)
    await world.settle()
    assert world.ready()
    world.clock.advance(60)
    return world


def told(world: World) -> list[str]:
    """Kind of each entry, actions by their names."""
    return [word(entry) for entry in world.journal.ledger]


def word(kept: KeptEntry) -> str:
    entry = kept.entry
    return str(entry["action"]["name"] if entry["kind"] == "action" else entry["kind"])


async def audited(world: World) -> tuple[Audit, ...]:
    """Against the record as it is in the cluster, not as helmops remembers it."""
    entries = world.journal.ledger
    records = await world.records.load_all()
    anchors = [Anchor(r.key, r.release, r.ledger) for r in records if r.ledger is not None]
    return audit(entries, anchors, [e for e in entries if e.number == 1])


async def intact(world: World) -> Audit:
    (found,) = await audited(world)
    assert found.finding is None, found.finding
    assert found.end is End.RECORD
    return found


async def test_an_install_is_told_from_the_declaration_to_the_verdict(world: World) -> None:
    await installed(world)
    assert told(world)[:4] == ["declared", "Install", "CheckHealth", "verdict"]
    install = world.journal.ledger[1].entry
    assert install["action"]["succeeded"] is True
    assert install["revision"]["number"] == 1
    assert install["by"] == "schedule"
    assert install["rule"]
    assert await intact(world)


async def test_a_pass_without_news_adds_nothing_and_writes_nothing(world: World) -> None:
    await installed(world)
    before, saves = world.journal.ledger, len(world.records.saves)
    for _ in range(3):
        await world.run_pass()
    assert world.journal.ledger == before
    assert len(world.records.saves) == saves


async def test_a_rollback_tells_what_failed_why_and_what_it_went_to(world: World) -> None:
    await installed(world)
    before = len(world.journal.ledger)
    world.declare(SICK)
    await world.settle()
    words = told(world)[before:]
    assert [w for w in words if w in ("Upgrade", "Rollback")] == ["Upgrade", "Rollback"]
    assert words.index("quarantined") < words.index("Rollback")
    (rollback,) = (e.entry for e in world.journal.ledger if word(e) == "Rollback")
    assert rollback["action"]["to"] == 1
    assert "seen healthy" in rollback["rule"]
    verdicts = [e.entry["revision"] for e in world.journal.ledger if word(e) == "verdict"]
    assert [(v["number"], v["verdict"]) for v in verdicts] == [
        (1, "healthy"),
        (2, "failed"),
        (3, "healthy"),
    ]
    assert await intact(world)


async def test_who_asked_for_a_rollback_stands_at_all_that_it_brought_about(world: World) -> None:
    await installed(world)
    world.declare(BETTER)
    await world.settle()
    before = len(world.journal.ledger)
    await world.run_pass(Request(rollback_to=0, by="ada@laptop"))
    fresh = world.journal.ledger[before:]
    assert {e.entry["by"] for e in fresh} == {"ada@laptop"}
    assert "held" in told(world)[before:]


async def test_a_restart_goes_on_with_the_chain(world: World) -> None:
    await installed(world)
    chain = world.journal.ledger[0].chain
    world.restart()
    await world.reconciler.load()
    world.declare(BETTER)
    await world.settle()
    assert {e.chain for e in world.journal.ledger} == {chain}
    assert await intact(world)


async def test_what_a_dead_process_did_not_write_is_written_at_the_next_start(world: World) -> None:
    await installed(world)
    kept = world.journal
    world.journal = FakeJournal()  # its writes are lost with the process
    world.restart()
    await world.reconciler.load()
    lost = world.journal
    world.declare(BETTER)
    await world.settle()
    assert len(lost.ledger) > len(kept.ledger)
    world.journal = kept
    world.restart()
    await world.reconciler.load()
    assert await intact(world)


@pytest.mark.parametrize("point", list(Point))
async def test_killed_at_any_point_of_an_upgrade_its_ledger_is_whole_and_says_so(
    world: World, point: Point
) -> None:
    await installed(world)
    world.cluster.kill("upgrade", point)
    world.declare(BETTER)
    with pytest.raises(Killed):
        await world.settle()
    world.clock.advance(60)
    world.restart()
    await world.reconciler.load()
    await world.settle()
    assert told(world).count("interrupted") == 1
    assert world.ready()
    assert await intact(world)


async def test_a_store_that_is_away_stops_nothing_and_gets_what_it_missed(world: World) -> None:
    await installed(world)
    kept = world.journal
    world.journal = FakeJournal()
    world.journal.failure = AWAY
    world.restart()
    await world.reconciler.load()
    world.declare(BETTER)
    await world.settle()
    assert world.ready()
    assert world.journal_errors
    world.journal = kept
    world.restart()
    await world.reconciler.load()
    assert await intact(world)


async def test_a_lost_database_goes_on_and_says_which_entries_are_missing(world: World) -> None:
    await installed(world)
    for chart in (BETTER, GOOD, BETTER, GOOD):
        world.declare(chart, values={"n": world.clock.now().isoformat()})
        await world.settle()
        world.clock.advance(60)
        await world.settle(Request(force=world.clock.now().isoformat()))
    assert world.record.ledger is not None
    number = world.record.ledger.number
    assert number > RECENT_ENTRIES
    world.journal = FakeJournal()
    world.restart()
    await world.reconciler.load()
    (found,) = await audited(world)
    assert found.finding is not None
    assert (found.finding.number, found.finding.last) == (1, number - RECENT_ENTRIES)
    assert found.entries == RECENT_ENTRIES


async def test_what_a_person_writes_meanwhile_and_what_the_pass_writes_are_one_chain(
    world: World,
) -> None:
    await installed(world)
    world.declare(BETTER)
    save = world.records.save
    began = raced = False

    async def with_race(record: Any) -> Any:
        nonlocal began, raced
        began = began or record.in_flight is not None
        if began and not raced and record.in_flight is None:
            raced = True
            fresh = await world.records.load(world.release)
            assert fresh is not None
            now = world.clock.now()
            asked = fresh.evolve(suspended=Suspension(now, "ada@laptop"))
            world.records.write_by_other(entered(fresh, asked, Said(by="ada@laptop"), now))
            raise ObjectConflict("somebody else wrote the record in between")
        return await save(record)

    world.records.save = with_race  # type: ignore[method-assign]
    await world.settle()
    words = told(world)
    assert raced
    assert words.index("suspended") < words.index("Upgrade")
    assert (await intact(world)).last == len(words)


async def test_what_others_wrote_is_kept_though_the_pass_finds_nothing_to_do(world: World) -> None:
    await installed(world)
    fresh = await world.records.load(world.release)
    assert fresh is not None
    now = world.clock.now()
    once = entered(fresh, fresh.evolve(suspended=Suspension(now, "ada")), Said(by="ada"), now)
    back = entered(once, resume(once), Said(by="ada"), now)
    world.records.write_by_other(back)
    await world.run_pass()
    assert told(world)[-2:] == ["suspended", "resumed"]
    assert await intact(world)


async def test_a_release_that_is_pruned_ends_its_chain_and_a_later_one_begins_anew(
    world: World,
) -> None:
    await installed(world, policy={"prune": True})
    spec = with_defaults(
        HelmReleaseSpec.model_validate(world.record.manifest["spec"]), world.defaults
    )
    assert await world.reconciler.remove(world.record, spec) is None
    assert told(world)[-2:] == ["Uninstall", "ended"]
    assert await world.records.load(world.release) is None
    (found,) = await audited(world)
    assert (found.end, found.finding) == (End.CLOSED, None)
    world.clock.advance(60)
    await installed(world)
    assert sorted(each.end for each in await audited(world)) == [End.CLOSED, End.RECORD]


async def test_killed_between_its_last_entry_and_its_record_a_chain_ends_once(world: World) -> None:
    await installed(world, policy={"prune": True})
    spec = with_defaults(
        HelmReleaseSpec.model_validate(world.record.manifest["spec"]), world.defaults
    )
    delete = world.records.delete

    async def killed(_: object) -> None:
        raise Killed

    world.records.delete = killed  # type: ignore[method-assign]
    with pytest.raises(Killed):
        await world.reconciler.remove(world.record, spec)
    world.records.delete = delete  # type: ignore[method-assign]
    world.restart()
    (record,) = await world.reconciler.load()
    assert await world.reconciler.remove(record, spec) is None
    assert told(world).count("ended") == 1
    assert [each.end for each in await audited(world)] == [End.CLOSED]


async def test_a_release_that_moves_ends_its_chain_and_the_new_one_follows_it(world: World) -> None:
    await installed(world)
    world.declare(GOOD, release=ReleaseId("other", "app"))
    await world.settle()
    fresh = await world.records.load(world.release)
    assert fresh is not None
    now = world.clock.now()
    world.records.write_by_other(entered(fresh, resume(fresh), Said(by="ada"), now))
    await world.settle()
    old, new = (
        [e for e in world.journal.ledger if e.release == place]
        for place in (world.release, ReleaseId("other", "app"))
    )
    assert [word(each) for each in old][-2:] == ["Uninstall", "ended"]
    assert "Uninstall" not in [word(each) for each in new], "it is told where it happened"
    assert new[0].entry["follows"] == {
        "chain": old[-1].chain,
        "number": old[-1].number,
        "hash": old[-1].hash,
    }
    assert [each.finding for each in await audited(world)] == [None, None]


async def test_what_is_only_looked_at_has_no_ledger(world: World) -> None:
    world.observe_only = True
    world.restart()
    world.declare(GOOD)
    await world.run_pass()
    assert world.journal.ledger == ()
    assert world.record.ledger is None


async def test_a_release_without_a_namespace_begins_its_ledger_with_its_record(
    world: World,
) -> None:
    world.namespaces = world.records._namespaces = set()
    world.restart()
    world.declare(GOOD)
    await world.run_pass()
    assert world.journal.ledger == ()


async def test_a_revision_made_by_hand_is_told_as_held(world: World) -> None:
    await installed(world)
    artifact = world.cluster.publish(BETTER)
    await world.person.upgrade(
        world.release,
        artifact,
        {},
        UpgradeSpec(),
        timeout=timedelta(minutes=1),
        description="by hand",
    )
    await world.settle()
    held = world.journal.ledger[-1].entry
    assert (held["kind"], held["reason"]) == ("held", "RevisionMadeByHand")
    assert held["by"] == "schedule"


async def test_every_entry_says_at_which_commit_it_was_declared(world: World) -> None:
    world.declare(GOOD)
    assert world.declared is not None
    template = replace(world.declared.template, commit="main@sha1:0a1b", origin="apps/app.yaml:1")
    world.declared = replace(world.declared, template=template)
    await world.settle()
    entries = [e.entry for e in world.journal.ledger]
    assert {(e["commit"], e["origin"]) for e in entries} == {("main@sha1:0a1b", "apps/app.yaml:1")}
    saves, count = len(world.records.saves), len(entries)
    world.declared = replace(world.declared, template=replace(template, commit="main@sha1:ffff"))
    await world.settle()
    assert (len(world.records.saves), len(world.journal.ledger)) == (saves, count)
