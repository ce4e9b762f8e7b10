"""Never back to a bad revision: quarantine, barriers, evidence, kept copies, locks, live health."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from helmops.decide.quarantine import lift
from helmops.decide.remember import resume
from helmops.errors import ClusterUnreachable
from helmops.model.actions import Held, Request, RetryAfter, Settled, Stalled
from helmops.model.declarations import Defaults, RollbackSpec, UpgradeSpec
from helmops.model.evidence import Evidence
from helmops.model.health import LiveHealth
from helmops.model.records import HoldReason, Verdict
from helmops.model.releases import ReleaseId
from tests.fakes.cluster_state import FakeChart, Killed, Moment, Point
from tests.fakes.world import World

GOOD = FakeChart(version="1.0.0")
BETTER = FakeChart(version="1.1.0")
BAD = FakeChart(version="1.2.0", unhealthy=True)
MINUTE = timedelta(minutes=1)


@pytest.fixture
def world() -> World:
    return World()


async def installed(world: World, chart: FakeChart = GOOD, **declared: Any) -> None:
    world.declare(chart, **declared)
    await world.settle()
    assert world.ready()


def reasons(world: World) -> list[str]:
    return [event.reason for event in world.journal.told]


async def hand_made(world: World, chart: FakeChart = BETTER, **values: Any) -> None:
    """Somebody upgrades with helm."""
    artifact = world.cluster.publish(chart)
    await world.person.upgrade(
        world.release, artifact, values, UpgradeSpec(), timeout=MINUTE, description="by hand"
    )


# Quarantine


async def test_a_version_that_failed_is_not_tried_again_with_other_values(world: World) -> None:
    await installed(world)
    world.declare(BAD)
    await world.settle()
    assert world.running() == "1.0.0"

    world.declare(BAD, {"replicas": 2})
    passed = await world.settle()

    assert isinstance(passed.decision, Stalled)
    assert passed.decision.reason == "Quarantined"
    assert "Deployment/app is not ready" in passed.decision.why
    assert "quarantine lift app" in passed.decision.why
    assert world.cluster.runs["upgrade"] == 1
    assert reasons(world).count("Quarantined") == 2  # the version is put there; the release stalls


async def test_quarantine_outlives_the_process(world: World) -> None:
    await installed(world)
    world.declare(BAD)
    await world.settle()
    world.restart()
    world.declare(BAD, {"replicas": 2})

    await world.settle()

    assert world.cluster.runs["upgrade"] == 1
    assert [q.version for q in world.record.quarantine] == ["1.2.0"]


async def test_who_lifts_a_quarantine_gets_another_try(world: World) -> None:
    await installed(world)
    world.declare(BAD)
    await world.settle()
    world.declare(BAD, {"replicas": 2})
    await world.settle()

    world.records.write_by_other(lift(world.record))
    await world.settle()

    assert world.cluster.runs["upgrade"] == 2


async def test_a_quarantine_with_a_time_ends_by_itself(world: World) -> None:
    policy = {"quarantine": {"ttl": "1h"}}
    await installed(world)
    world.declare(BAD, policy=policy)
    await world.settle()
    world.declare(BAD, {"replicas": 2}, policy=policy)
    await world.settle()
    assert world.cluster.runs["upgrade"] == 1

    world.clock.advance(timedelta(hours=1))
    await world.settle()

    assert world.cluster.runs["upgrade"] == 2


async def test_new_content_under_the_same_version_is_another_one(world: World) -> None:
    await installed(world)
    world.declare(BAD)
    await world.settle()
    world.declare(FakeChart(version="1.2.0", content="mended"))

    await world.settle()

    assert world.running() == "1.2.0"
    assert world.ready()


async def test_values_that_do_not_suit_a_proven_version_do_not_put_it_in_quarantine(
    world: World,
) -> None:
    chart = FakeChart(unhealthy=lambda values: bool(values.get("broken")))
    await installed(world, chart)
    world.declare(chart, {"broken": True})
    await world.settle()
    assert world.record.quarantine == ()

    world.declare(chart, {"broken": False})
    await world.settle()

    assert world.ready()


async def test_a_first_install_that_failed_is_tried_again_with_other_values(world: World) -> None:
    chart = FakeChart(unhealthy=lambda values: not values.get("right"))
    world.declare(chart)
    await world.settle()
    world.declare(chart, {"right": True})

    await world.settle()

    assert world.ready()
    assert world.record.quarantine == ()


async def test_the_flux_set_has_no_quarantine_unless_it_is_asked_for() -> None:
    remediation = {"remediation": {"retries": 1}}
    world = World(Defaults.FLUX)
    await installed(world)
    world.declare(BAD, upgrade=remediation)
    await world.settle()
    assert world.record.quarantine == ()

    world.declare(BAD, {"a": 1}, upgrade=remediation, policy={"quarantine": {"enabled": True}})
    await world.settle()
    assert [q.version for q in world.record.quarantine] == ["1.2.0"]


async def test_retries_come_before_quarantine(world: World) -> None:
    await installed(world)
    world.declare(BAD, upgrade={"remediation": {"retries": 2}})

    await world.settle()

    assert world.cluster.runs["upgrade"] == 3
    assert [q.version for q in world.record.quarantine] == ["1.2.0"]


# The kept copy


def pruning(world: World, *numbers: int) -> None:
    """Somebody prunes these revisions as soon as the next upgrade is through."""

    def prune(moment: Moment) -> None:
        if (moment.operation, moment.point) == ("upgrade", Point.FINISHED):
            for number in numbers:
                world.cluster.forget(world.release, number)

    world.cluster.watchers.append(prune)


async def test_what_somebody_pruned_is_put_back_and_gone_back_to(world: World) -> None:
    await installed(world)
    world.declare(BETTER)
    await world.settle()
    pruning(world, 2)
    world.declare(BAD)

    await world.settle()

    assert "PutBack" in world.actions()
    assert world.running() == "1.1.0", "not 1.0.0, which is stored still"
    assert world.statuses()[2] == "superseded"
    assert world.ready() is False
    assert world.record.head is not None
    assert world.record.head.verdict is Verdict.HEALTHY


async def test_the_copy_is_of_the_last_healthy_revision(world: World) -> None:
    await installed(world)
    first = world.record.kept
    world.declare(BETTER)
    await world.settle()
    world.declare(BAD)
    await world.settle()

    assert first is not None
    assert first.revision == 1
    assert world.record.kept is not None
    assert world.record.kept.digest == world.record.history[0].digest
    assert world.cluster.copies[world.release].chart.version == "1.1.0"


async def test_killed_between_putting_back_and_going_back_the_next_pass_goes_on(
    world: World,
) -> None:
    await installed(world)
    world.declare(BETTER)
    await world.settle()
    pruning(world, 1, 2)
    world.cluster.kill("put_back", Point.FINISHED)
    world.declare(BAD)
    with pytest.raises(Killed):
        await world.settle()
    world.cluster.watchers.clear()
    world.restart()

    await world.settle()

    assert world.running() == "1.1.0"


async def test_without_a_copy_and_without_a_target_nothing_is_touched(world: World) -> None:
    await installed(world)
    world.cluster.copies.clear()
    pruning(world, 1)
    world.declare(BAD)

    passed = await world.settle()

    assert isinstance(passed.decision, Stalled)
    assert passed.decision.reason == "MissingRollbackTarget"
    assert "could not be put back" in passed.decision.why
    assert world.cluster.runs["rollback"] == 0


# Barriers


MIGRATING = FakeChart(version="1.2.0", unhealthy=True, migrates=True)


async def test_a_failure_past_a_step_that_no_rollback_undoes_is_held(world: World) -> None:
    await installed(world)
    world.declare(MIGRATING)

    passed = await world.settle()

    assert isinstance(passed.decision, Held)
    assert passed.decision.hold.reason is HoldReason.IRREVERSIBLE
    assert "Job/migrate runs as a pre-upgrade hook" in passed.decision.hold.message
    assert world.cluster.runs["rollback"] == 0
    assert world.running() == "1.2.0"
    assert "IrreversibleStep" in reasons(world)


async def test_the_policy_may_say_to_go_back_all_the_same(world: World) -> None:
    await installed(world)
    world.declare(MIGRATING, policy={"remediation": {"irreversible": "rollback"}})

    await world.settle()

    assert world.running() == "1.0.0"


async def test_so_may_a_person(world: World) -> None:
    await installed(world)
    world.declare(MIGRATING)
    await world.settle()

    await world.settle(Request(rollback_to=0, by="ada"))

    assert world.running() == "1.0.0"
    assert world.record.hold is not None
    assert world.record.hold.reason is HoldReason.ROLLED_BACK


async def test_who_resumes_tries_once_more(world: World) -> None:
    await installed(world)
    world.declare(MIGRATING)
    await world.settle()

    world.records.write_by_other(resume(world.record))
    await world.settle()

    assert world.cluster.runs["upgrade"] == 2


async def test_a_barrier_of_the_policy_counts_for_the_step_over_it_only(world: World) -> None:
    barriers = [{"version": ">=1.2.0", "reason": "tables are rewritten"}]
    policy = {"upgrade": {"barriers": barriers}, "quarantine": {"enabled": False}}
    await installed(world, policy=policy)
    world.declare(BAD, policy=policy)
    passed = await world.settle()
    assert isinstance(passed.decision, Held)
    assert ">=1.2.0: tables are rewritten" in passed.decision.hold.message

    other = World()
    await installed(other, FakeChart(version="1.2.0"), policy=policy)
    other.declare(FakeChart(version="1.3.0", unhealthy=True), policy=policy)
    await other.settle()
    assert other.running() == "1.2.0"


async def test_killed_in_the_upgrade_its_barriers_are_still_known(world: World) -> None:
    await installed(world)
    world.cluster.kill("upgrade", Point.FINISHED)
    world.declare(MIGRATING)
    with pytest.raises(Killed):
        await world.settle()
    world.restart()

    passed = await world.settle()

    assert isinstance(passed.decision, Held)
    assert passed.decision.hold.reason is HoldReason.IRREVERSIBLE


# Evidence


class Gatherer:
    """The `EvidenceGatherer` port: notes what it was asked for."""

    def __init__(self, world: World, failure: Exception | None = None) -> None:
        self.world = world
        self.failure = failure
        self.running: list[str] = []

    def recording(self, release: ReleaseId) -> AbstractAsyncContextManager[None]:
        return nullcontext()

    async def gather(
        self,
        release: ReleaseId,
        revision: int,
        objects: Sequence[Mapping[str, Any]],
        *,
        before: Sequence[Mapping[str, Any]] = (),
        helm_output: str = "",
        hooks: Sequence[str] = (),
    ) -> Evidence:
        self.running.append(self.world.running())
        if self.failure is not None:
            raise self.failure
        return Evidence(release, revision, self.world.clock.now(), "pod web: it crashed")


def gathering(world: World, gatherer: Gatherer) -> None:
    performer = world.reconciler._performer
    world.reconciler._performer = replace(performer, evidence=gatherer)


async def test_evidence_is_gathered_while_the_failure_still_runs(world: World) -> None:
    await installed(world)
    gatherer = Gatherer(world)
    gathering(world, gatherer)
    world.declare(BAD)

    await world.settle()

    assert gatherer.running == ["1.2.0"]
    failed = next(s for s in world.record.history if s.verdict is Verdict.FAILED)
    assert failed.evidence is not None
    assert failed.evidence.summary == "pod web: it crashed"


@pytest.mark.parametrize("failure", [ClusterUnreachable("gone"), TimeoutError()])
async def test_evidence_that_cannot_be_had_keeps_no_rollback_from_coming(
    world: World, failure: Exception
) -> None:
    await installed(world)
    gathering(world, Gatherer(world, failure))
    world.declare(BAD)

    await world.settle()

    assert world.running() == "1.0.0"
    failed = next(s for s in world.record.history if s.verdict is Verdict.FAILED)
    assert failed.evidence is not None
    assert failed.evidence.summary.startswith("no evidence could be gathered")


# Locks that others left


async def abandoned(world: World) -> None:
    """Somebody's helm dies in the middle of an upgrade."""
    await installed(world)
    world.cluster.kill("upgrade", Point.APPLIED)
    with pytest.raises(Killed):
        await hand_made(world)


async def test_somebodys_lock_is_broken_when_it_is_older_than_any_timeout(world: World) -> None:
    await abandoned(world)
    passed = await world.run_pass()
    assert isinstance(passed.decision, RetryAfter)
    assert world.reason() == "PendingRelease"

    world.clock.advance(timedelta(minutes=7))
    passed = await world.settle()

    assert world.statuses() == {1: "deployed", 2: "failed"}
    assert isinstance(passed.decision, Held)
    assert passed.decision.hold.reason is HoldReason.DIVERGED


async def test_a_lock_whose_objects_still_change_is_left_alone(world: World) -> None:
    await abandoned(world)
    world.clock.advance(timedelta(minutes=7))
    world.checks.last_changed = world.clock.now() - timedelta(seconds=30)

    passed = await world.run_pass()

    assert isinstance(passed.decision, RetryAfter)
    assert world.statuses()[2] == "pending-upgrade"
    assert "still change" in passed.decision.why


# Revisions made by hand


async def test_revert_goes_back_to_what_was_seen_healthy(world: World) -> None:
    policy = {"outOfBand": "revert"}
    await installed(world, policy=policy)
    await hand_made(world, a=1)

    passed = await world.settle()

    assert isinstance(passed.decision, Settled)
    assert world.running() == "1.0.0"
    assert world.ready()
    assert world.cluster.runs["rollback"] == 1


async def test_revert_without_anything_healthy_holds(world: World) -> None:
    world.declare(GOOD, upgrade={"disableWait": True}, install={"disableWait": True})
    await world.settle()
    world.declare(
        GOOD,
        upgrade={"disableWait": True},
        install={"disableWait": True},
        policy={"outOfBand": "revert"},
    )
    await hand_made(world, a=1)

    passed = await world.settle()

    assert isinstance(passed.decision, Held)
    assert world.cluster.runs["rollback"] == 0


async def test_a_revert_that_fails_is_not_repeated_without_end(world: World) -> None:
    policy = {"outOfBand": "revert"}
    await installed(world, FakeChart(fails_rollback=True), policy=policy)
    await hand_made(world, a=1)

    await world.settle(within=7 * 24 * 3600)

    assert 1 <= world.cluster.runs["rollback"] <= 6
    assert not world.ready()


async def test_absorb_takes_it_as_it_is_until_the_declaration_changes(world: World) -> None:
    policy = {"outOfBand": "absorb"}
    await installed(world, policy=policy)
    await hand_made(world, a=1)

    passed = await world.settle()
    assert isinstance(passed.decision, Settled)
    assert world.ready()
    assert world.running() == "1.1.0"
    assert world.record.head is not None
    assert world.record.head.verdict is Verdict.HEALTHY
    assert world.cluster.runs["upgrade"] == 0

    world.declare(FakeChart(version="1.3.0"), policy=policy)
    await world.settle()
    assert world.running() == "1.3.0"


async def test_hold_offers_what_would_absorb_it(world: World) -> None:
    await installed(world)
    await hand_made(world, a=1)

    passed = await world.settle()

    assert isinstance(passed.decision, Held)
    assert "`helmops absorb app` prints the values that would absorb it" in (
        passed.decision.hold.plan
    )


async def test_a_rollback_by_hand_with_helm_is_reverted_too(world: World) -> None:
    policy = {"outOfBand": "revert"}
    await installed(world, policy=policy)
    world.declare(BETTER, policy=policy)
    await world.settle()
    await world.person.rollback(
        world.release, 1, RollbackSpec(), timeout=MINUTE, description="by hand"
    )

    await world.settle()

    assert world.running() == "1.1.0"
    assert world.ready()


# Live health


WATCH = {"verify": {"watch": "15m"}}
WELL = LiveHealth(is_live=True)


def ill(bad: str = "Deployment/app is not ready", *, is_final: bool = False) -> LiveHealth:
    return LiveHealth(is_live=True, bad=bad, is_final=is_final)


async def watched(world: World) -> None:
    """In the watch window of 1.1.0, with 1.0.0 seen healthy."""
    await installed(world)
    world.declare(BETTER, policy=WATCH)
    world.live.health = WELL
    passed = await world.run_pass()
    assert isinstance(passed.decision, RetryAfter)
    assert world.ready(), "it is ready when the window begins"
    assert world.reason("Healthy") == "Watching"


async def test_with_live_watches_nothing_is_looked_at_before_the_window_ends(world: World) -> None:
    await watched(world)
    passed = await world.run_pass()
    assert isinstance(passed.decision, RetryAfter)
    assert passed.decision.at - world.clock.now() > timedelta(minutes=14)
    readings = world.checks.readings

    await world.settle()

    assert world.checks.readings == readings + 1, "once, at the end"
    assert world.reason("Healthy") == "SeenHealthy"


async def test_readiness_that_is_lost_in_the_window_rolls_back(world: World) -> None:
    await watched(world)
    world.clock.advance(timedelta(minutes=3))
    world.cluster.sicken(world.release)
    world.live.health = ill()

    await world.settle()

    assert world.running() == "1.0.0"
    assert [q.version for q in world.record.quarantine] == ["1.1.0"]


async def test_what_recovers_before_it_is_looked_at_is_let_pass(world: World) -> None:
    await watched(world)
    world.live.health = ill()
    passed = await world.run_pass()
    assert isinstance(passed.decision, RetryAfter)
    readings = world.checks.readings
    for _ in range(3):  # woken again by what it wrote
        await world.run_pass()
    assert world.checks.readings == readings

    world.live.health = WELL
    await world.settle()

    assert world.running() == "1.1.0"
    assert world.reason("Healthy") == "SeenHealthy"


async def test_a_container_that_crashes_again_and_again_is_a_failure_though_ready(
    world: World,
) -> None:
    await watched(world)
    world.live.health = ill("container main restarted 4 times", is_final=True)

    await world.settle()

    assert world.running() == "1.0.0"
    assert "restarted 4 times" in world.record.history[1].message


async def test_a_restart_resumes_the_same_window(world: World) -> None:
    await watched(world)
    until = world.record.history[0].watched_until
    world.clock.advance(timedelta(minutes=5))
    world.restart()
    world.cluster.sicken(world.release)
    world.live.health = ill()

    passed = await world.run_pass()

    assert until is not None
    assert "Rollback" in [type(d.action).__name__ for d in passed.done]


async def test_after_the_window_a_failure_is_told_and_nothing_is_rolled_back(world: World) -> None:
    await watched(world)
    await world.settle()
    world.cluster.sicken(world.release)
    world.live.health = ill()

    passed = await world.run_pass()

    assert isinstance(passed.decision, Settled)
    assert world.running() == "1.1.0"
    assert world.ready()
    healthy = world.record.condition("Healthy")
    assert healthy is not None
    assert (healthy.status.value, healthy.reason) == ("False", "HealthLost")
    assert "HealthLost" in reasons(world)

    world.live.health = WELL
    await world.run_pass()
    assert world.reason("Healthy") == "SeenHealthy"
    assert reasons(world).count("HealthRegained") == 1


async def test_watches_that_are_not_connected_say_nothing(world: World) -> None:
    await watched(world)
    await world.settle()
    world.live.health = LiveHealth(is_live=False, bad="Deployment/app is not ready")

    await world.run_pass()

    assert world.reason("Healthy") == "SeenHealthy"


async def test_what_was_absorbed_is_left_as_it_is_though_it_is_not_well(world: World) -> None:
    policy = {"outOfBand": "absorb"}
    await installed(world, policy=policy)
    await hand_made(world, a=1)
    world.cluster.sicken(world.release)

    await world.settle()

    assert world.running() == "1.1.0"
    assert world.cluster.runs["upgrade"] == 0
    assert not world.ready()


async def test_a_window_that_went_by_unseen_is_judged_before_the_next_upgrade(
    world: World,
) -> None:
    world.declare(GOOD, policy=WATCH)
    await world.run_pass()
    world.clock.advance(timedelta(hours=1))
    world.restart()
    world.declare(BAD, policy=WATCH)

    await world.settle()

    assert world.running() == "1.0.0"
    assert world.record.last_healthy is not None
    assert world.cluster.copies[world.release].chart.version == "1.0.0"


async def test_who_mends_the_declaration_does_not_wait_for_what_was_restored_to_be_watched(
    world: World,
) -> None:
    await installed(world)
    world.declare(BAD, policy=WATCH)
    passed = await world.run_pass()
    passed = await world.run_pass()
    assert isinstance(passed.decision, RetryAfter)
    assert world.running() == "1.0.0"
    assert world.reason("Healthy") == "Watching"

    world.declare(BETTER, policy=WATCH)
    await world.run_pass()

    assert world.running() == "1.1.0"
