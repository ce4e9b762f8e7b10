"""What a pass does around its decisions. Whole passes are in tests/scenario."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from helmops.decide.remember import resume
from helmops.errors import (
    AccessDenied,
    ClusterUnreachable,
    ExpressionError,
    HelmError,
    HelmopsError,
    ObjectConflict,
    StoreError,
)
from helmops.model.actions import (
    CheckHealth,
    ReleaseState,
    Request,
    RetryAfter,
    Run,
    Settled,
    Stalled,
)
from helmops.model.declarations import Defaults, UpgradeSpec
from helmops.model.records import Record, Suspension
from helmops.model.releases import DeclarationKey, HelmStatus, ReleaseId
from tests.fakes.cluster_state import FakeChart, Point
from tests.fakes.records import FakeRecords
from tests.fakes.world import World

GOOD = FakeChart(version="1.0.0")
BETTER = FakeChart(version="1.1.0")
PRUNE = {"prune": True}


@pytest.fixture
def world() -> World:
    return World()


async def installed(world: World, chart: FakeChart = GOOD, **other: Any) -> World:
    world.declare(chart, **other)
    await world.settle()
    assert world.ready()
    return world


def when(world: World, operation: str, point: Point, what: Any) -> None:
    """Something happens while helm is at work."""

    async def happen() -> None:
        what()
        await asyncio.sleep(0)

    world.cluster.at(operation, point, happen)


# Writing down


async def test_what_is_about_to_happen_is_written_before_helm_starts(world: World) -> None:
    notes: list[Any] = []
    when(world, "install", Point.STARTED, lambda: notes.append(world.records.saves[-1].in_flight))
    await installed(world)
    (note,) = notes
    assert (note.action, note.base, note.holder) == ("install", 0, "test")


async def test_what_came_of_each_action_is_written_before_the_next(world: World) -> None:
    heads: list[Any] = []
    readiness = world.checks.readiness

    async def looked(*arguments: Any, **named: Any) -> Any:
        heads.append(world.records.saves[-1].head)
        return await readiness(*arguments, **named)

    world.checks.readiness = looked  # type: ignore[method-assign]
    await installed(world)
    assert [head.revision for head in heads] == [1]


async def test_somebody_who_suspends_in_the_middle_is_heard(world: World) -> None:
    await installed(world)

    def suspend() -> None:
        suspension = Suspension(world.clock.now(), "ada")
        world.records.write_by_other(world.records.saves[-1].evolve(suspended=suspension))

    when(world, "upgrade", Point.STORED, suspend)
    world.declare(BETTER)

    passed = await world.settle()

    assert isinstance(passed.decision, Settled)
    assert world.record.suspended is not None
    assert world.record.suspended.by == "ada"
    assert world.actions() == ["Upgrade"], "its check waits until somebody resumes"
    kept = await world.records.load(world.release)
    assert kept is not None
    assert kept.suspended is not None
    assert kept.head is not None
    assert kept.head.revision == 2, "and what was done is kept"


async def test_somebody_who_resumes_in_the_middle_is_heard(world: World) -> None:
    await installed(world)
    world.declare(BETTER)
    await world.settle()
    await world.settle(Request(rollback_to=1))
    assert world.record.hold is not None

    def resumed() -> None:
        world.records.write_by_other(resume(world.records.saves[-1]))

    when(world, "rollback", Point.STORED, resumed)
    await world.run_pass(Request(rollback_to=1))

    assert world.record.hold is None, "the later word counts"
    await world.settle()
    assert world.running() == "1.1.0"


async def test_what_was_accepted_in_the_middle_is_kept(world: World) -> None:
    world.cluster.add(world.release, GOOD)
    world.declare(GOOD)

    def accept() -> None:
        world.records.write_by_other(Record(key=world.key, release=world.release, accepted="x:y"))

    when(world, "template", Point.STARTED, accept)
    await world.settle()
    assert world.ready()


async def test_a_record_that_changes_faster_than_it_can_be_written_is_tried_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def conflicts(record: Record) -> Record:
        raise ObjectConflict("somebody else wrote the record in between")

    monkeypatch.setattr(world.records, "save", conflicts)
    world.declare(GOOD)

    passed = await world.run_pass()

    assert isinstance(passed.decision, RetryAfter)
    assert "look for another helmops" in passed.decision.why
    assert not world.cluster.runs, "what cannot be noted is not begun"


async def test_a_record_that_somebody_deleted_meanwhile_is_written_anew(world: World) -> None:
    await installed(world)
    when(world, "upgrade", Point.STORED, lambda: world.records.lose(world.release))
    world.declare(BETTER)

    await world.settle()

    assert world.ready()
    assert await world.records.load(world.release) is not None
    assert len(world.record.history) == 2


async def test_a_namespace_that_is_not_there_is_said_and_nothing_is_tried(world: World) -> None:
    world.records, world.namespaces = FakeRecords(namespaces=()), ()
    world.restart()
    world.declare(GOOD)

    passed = await world.run_pass()

    assert not passed.is_ready
    assert "namespace default does not exist" in passed.record.conditions[0].message
    assert "createNamespace" in passed.record.conditions[0].message
    assert world.records.created_namespaces == []
    assert not world.cluster.runs


async def test_a_namespace_is_made_where_that_is_said(world: World) -> None:
    world.records = FakeRecords(namespaces=())
    world.restart()
    await installed(world, install={"createNamespace": True}, targetNamespace="default")
    assert world.records.created_namespaces == ["default"]


async def test_a_journal_that_fails_stops_no_pass_and_is_told(world: World) -> None:
    world.journal.failure = StoreError("disk full")

    await installed(world)

    assert world.running() == "1.0.0"
    assert set(world.journal_errors) == {world.journal.failure}
    assert "SeenHealthy" in world.notifier.reasons, "and people are told all the same"


async def test_events_are_told_after_what_they_tell_of_is_saved(world: World) -> None:
    saved: list[bool] = []
    send = world.notifier.send

    async def sends(event: Any, record: Record) -> None:
        saved.append(record in world.records.saves)
        await send(event, record)

    world.notifier.send = sends  # type: ignore[method-assign]
    await installed(world)
    assert saved
    assert all(saved)


# Who may act


async def test_another_helmops_at_work_is_waited_for(world: World) -> None:
    world.declare(GOOD)
    world.leases.hold_by_other(world.release)

    passed = await world.run_pass()

    assert isinstance(passed.decision, RetryAfter)
    assert passed.decision.reason == "LeaseHeld"
    assert (passed.decision.at - world.clock.now()).total_seconds() == 2
    assert not world.cluster.runs
    world.leases.free(world.release)
    await world.settle()
    assert world.ready()


async def test_what_another_helmops_did_until_the_lease_was_had_is_seen(world: World) -> None:
    """Two that see the same absence: the second must not install again."""
    other = World()
    other.cluster, other.helm, other.storage = world.cluster, world.helm, world.storage
    other.records, other.clock, other.checks = world.records, world.clock, world.checks
    other.restart()
    world.declare(GOOD)
    other.declare(GOOD)
    hold = world.leases.hold

    def held(release: ReleaseId) -> Any:
        return _After(other.settle, hold(release))

    world.leases.hold = held  # type: ignore[method-assign]

    await world.settle()

    assert world.ready()
    assert world.cluster.runs == {"install": 1}


class _After:
    """Enters another context after something else has happened."""

    def __init__(self, first: Any, then: Any) -> None:
        self._first, self._then = first, then

    async def __aenter__(self) -> None:
        await self._first()
        await self._then.__aenter__()

    async def __aexit__(self, *error: Any) -> Any:
        return await self._then.__aexit__(*error)


async def test_a_lease_that_is_lost_ends_the_pass_and_the_next_one_goes_on(world: World) -> None:
    await installed(world)
    when(world, "upgrade", Point.STORED, lambda: world.leases.lose(world.release))
    world.declare(BETTER)

    passed = await world.run_pass()

    assert isinstance(passed.decision, RetryAfter)
    assert passed.decision.reason == "LeaseHeld"
    world.leases.free(world.release)
    await world.settle()
    assert world.ready()
    assert world.running() == "1.1.0"


# Looking only


async def test_a_helmops_that_only_observes_says_what_it_would_do(world: World) -> None:
    world.observe_only = True
    world.restart()
    world.declare(GOOD)

    passed = await world.run_pass()

    assert isinstance(passed.decision, Run)
    assert not world.records.saves
    assert not world.leases.holds
    assert not world.cluster.runs


async def test_an_observed_release_has_a_record_and_is_never_touched(world: World) -> None:
    world.declare(GOOD, policy={"mode": "observe"})

    passed = await world.run_pass()

    assert isinstance(passed.decision, Run)
    assert world.records.saves
    assert not world.leases.holds
    assert not world.cluster.runs


# What goes wrong


@pytest.mark.parametrize(
    ("error", "kind"), [(ClusterUnreachable("gone"), RetryAfter), (AccessDenied("403"), Stalled)]
)
async def test_what_cannot_be_read_leaves_the_last_conditions(
    world: World, error: HelmopsError, kind: type
) -> None:
    await installed(world)
    world.records.fail_next(error)

    passed = await world.run_pass()

    assert isinstance(passed.decision, kind)
    assert world.reason() == error.reason
    assert world.reason("Healthy") == "SeenHealthy"
    await world.settle()
    assert world.ready()


async def test_a_declaration_that_cannot_be_used_is_refused_and_nothing_is_touched(
    world: World,
) -> None:
    await installed(world)
    saves = len(world.records.saves)

    passed = await world.reconciler.refuse(world.key, world.release, ExpressionError("no CEL"))

    assert isinstance(passed.decision, Stalled)
    assert (world.reason(), world.reason("Stalled")) == (
        "InvalidCELExpression",
        "InvalidCELExpression",
    )
    assert len(world.records.saves) == saves
    assert world.running() == "1.0.0"


async def test_a_refused_declaration_of_a_new_release_is_told_too(world: World) -> None:
    passed = await world.reconciler.refuse(
        DeclarationKey("default", "new"), ReleaseId("default", "new"), ExpressionError("no CEL")
    )
    assert passed.record.state == "Absent"
    assert "InvalidCELExpression" in world.notifier.reasons


async def test_saying_the_same_again_writes_and_tells_nothing(world: World) -> None:
    error = ExpressionError("no CEL")
    await world.reconciler.refuse(world.key, world.release, error)
    told = len(world.notifier.sent)
    before = world.reconciler.known[world.key]
    world.clock.advance(60)
    await world.reconciler.refuse(world.key, world.release, error)
    assert len(world.notifier.sent) == told
    assert world.reconciler.known[world.key] is before


async def test_a_decider_that_goes_on_for_ever_is_stopped(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await installed(world)
    again = Run(CheckHealth(1, (), True), ReleaseState.UNCHECKED, "again")
    monkeypatch.setattr("helmops.reconcile.reconciler.decide", lambda *_: again)

    passed = await world.run_pass()

    assert isinstance(passed.decision, RetryAfter)
    assert len(passed.done) == 40


# What is remembered between passes


async def test_records_are_loaded_once_before_the_first_pass(world: World) -> None:
    await installed(world)
    world.restart()
    assert world.reconciler.known == {}
    records = await world.reconciler.load()
    assert [record.key for record in records] == [world.key]
    assert world.reconciler.known[world.key].head is not None


async def test_a_declaration_that_moved_to_another_namespace_takes_its_record_along(
    world: World,
) -> None:
    await installed(world)
    key = DeclarationKey("team", "app")
    world.declare(GOOD)
    assert world.declared is not None
    template = replace(world.declared.template, key=key)
    world.declared = replace(world.declared, template=template)
    runs = world.cluster.runs.copy()

    passed = await world.run_pass()

    assert passed.record.key == key
    assert world.cluster.runs == runs


async def test_each_step_is_told_as_it_happens(world: World) -> None:
    world.declare(GOOD)
    await world.settle()
    assert world.lines == [
        "Install: there is no release default/app; app 1.0.0",
        "Install done in 1.0 s",
        "CheckHealth: revision 1 was not checked yet",
        "CheckHealth done in 0.0 s",
        "KeepCopy: revision 1 was seen healthy",
        "KeepCopy done in 0.0 s",
    ]


async def test_a_failed_step_is_told_with_why(world: World) -> None:
    world.declare(FakeChart(fails_render=True))
    await world.run_pass()
    assert world.lines[-1] == "Install failed after 1.0 s: app@1.0.0: the chart does not render"


async def test_every_action_is_counted(world: World) -> None:
    await installed(world, policy=PRUNE)
    await removed(world)
    assert world.counted == ["Install", "CheckHealth", "KeepCopy", "Uninstall"]


async def test_flux_defaults_are_handed_on(world: World) -> None:
    flux = World(Defaults.FLUX)
    flux.cluster.add(flux.release, GOOD)
    flux.declare(BETTER)
    await flux.settle()
    assert flux.running() == "1.1.0"


# Removal


async def removed(world: World) -> Record | None:
    assert world.declared is not None
    return await world.reconciler.remove(world.record, world.declared.template.spec)


async def test_without_prune_a_release_is_left_running_and_that_is_said_once(
    world: World,
) -> None:
    await installed(world)

    left = await removed(world)
    again = await removed(world)

    assert left is not None
    assert left.removed
    assert again == left
    assert world.running() == "1.0.0"
    assert world.notifier.reasons.count("DeclarationRemoved") == 1
    (event,) = [e for e, _ in world.notifier.sent if e.reason == "DeclarationRemoved"]
    assert "did not say `prune`" in event.message


async def test_with_prune_it_is_uninstalled_and_forgotten(world: World) -> None:
    await installed(world, policy=PRUNE)

    assert await removed(world) is None

    assert world.statuses() == {}
    assert await world.records.load(world.release) is None
    assert world.key not in world.reconciler.known
    assert world.notifier.reasons[-1] == "UninstallSucceeded"
    assert "DeclarationRemoved" not in world.notifier.reasons


async def test_prune_counts_as_it_was_when_it_was_last_applied(world: World) -> None:
    await installed(world)
    world.declare(GOOD, policy=PRUNE)
    # The declaration goes before a pass has seen the policy.
    assert await removed(world) is not None
    assert world.running() == "1.0.0"


async def test_a_suspended_release_is_not_uninstalled(world: World) -> None:
    await installed(world, policy=PRUNE)
    world.records.write_by_other(world.record.evolve(suspended=Suspension(world.clock.now())))

    assert await removed(world) is not None

    assert world.running() == "1.0.0"
    (event,) = [e for e, _ in world.notifier.sent if e.reason == "DeclarationRemoved"]
    assert "suspended" in event.message


async def test_what_helmops_never_made_or_took_over_is_not_uninstalled(world: World) -> None:
    world.cluster.add(world.release, GOOD)
    world.declare(BETTER, policy=PRUNE)
    await world.settle()
    assert world.reason() == "ReleaseNotManaged"

    assert await removed(world) is not None

    assert world.running() == "1.0.0"
    assert world.cluster.runs["uninstall"] == 0


async def test_what_a_person_released_over_it_is_not_uninstalled(world: World) -> None:
    await installed(world, policy=PRUNE)
    await world.person.upgrade(
        world.release, world.cluster.publish(BETTER), {}, UpgradeSpec(),
        timeout=world.cluster.duration, description="by hand",
    )  # fmt: skip

    left = await removed(world)

    assert left is not None
    assert world.running() == "1.1.0"
    (event,) = [e for e, _ in world.notifier.sent if e.reason == "DeclarationRemoved"]
    assert "was not made by helmops" in event.message


async def test_a_locked_release_is_not_uninstalled_now(world: World) -> None:
    await installed(world, policy=PRUNE)
    world.cluster.add(world.release, BETTER, status=HelmStatus.PENDING_UPGRADE)

    with pytest.raises(HelmopsError, match="pending-upgrade"):
        await removed(world)

    assert world.statuses() == {1: "deployed", 2: "pending-upgrade"}


async def test_an_uninstall_that_fails_is_tried_again_and_told_as_nothing_else(
    world: World,
) -> None:
    await installed(world, policy=PRUNE)
    world.cluster.fail("uninstall", Point.STARTED, HelmError("helm says no"))

    with pytest.raises(HelmopsError, match="helm says no"):
        await removed(world)

    assert "DeclarationRemoved" not in world.notifier.reasons
    assert await removed(world) is None
    assert world.statuses() == {}


async def test_an_uninstall_that_was_broken_off_half_way_is_finished(world: World) -> None:
    await installed(world, policy=PRUNE)
    world.cluster.fail("uninstall", Point.APPLIED, HelmError("killed"))
    with pytest.raises(HelmopsError):
        await removed(world)
    assert world.statuses() == {1: "uninstalling"}

    assert await removed(world) is None

    assert world.statuses() == {}


async def test_what_is_gone_already_is_only_forgotten(world: World) -> None:
    await installed(world, policy=PRUNE)
    world.cluster.forget(world.release, 1)

    assert await removed(world) is None

    assert world.cluster.runs["uninstall"] == 0
    assert await world.records.load(world.release) is None


async def test_a_helmops_that_only_observes_removes_nothing(world: World) -> None:
    await installed(world, policy=PRUNE)
    world.observe_only = True
    world.restart()
    await world.run_pass()

    assert await removed(world) is not None

    assert world.running() == "1.0.0"


async def test_what_lost_its_namespace_and_record_is_forgotten(world: World) -> None:
    await installed(world, policy=PRUNE)
    world.records.lose(world.release)
    world.cluster.forget(world.release, 1)

    assert await removed(world) is None

    assert world.key not in world.reconciler.known
    assert world.leases.holds == [world.release], "only that of the install"
