"""Whole passes over fakes. Each name is a sentence about what helmops does."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from helmops.decide.remember import resume
from helmops.errors import ClusterUnreachable, HelmCancelled, HelmError
from helmops.model.actions import Held, Request, RetryAfter, Settled, Stalled, Unresolved
from helmops.model.declarations import (
    Defaults,
    ReleasePolicySpec,
    UninstallSpec,
    UpgradeSpec,
)
from helmops.model.records import HoldReason, Origin, Suspension, Verdict
from helmops.model.releases import HelmStatus, ReleaseId
from tests.fakes.cluster_state import FakeChart, FakeCluster, Killed, Point
from tests.fakes.world import World

GOOD = FakeChart(version="1.0.0")
BETTER = FakeChart(version="1.1.0")
BAD = FakeChart(version="1.2.0", fails_upgrade=True)
SICK = FakeChart(version="1.3.0", unhealthy=True)
MINUTE = timedelta(minutes=1)
KILLED = HelmCancelled("helm was ended by signal 9")


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def flux() -> World:
    return World(Defaults.FLUX)


async def installed(world: World, chart: FakeChart = GOOD, **spec: object) -> World:
    world.declare(chart, **spec)
    await world.settle()
    assert world.ready()
    return world


# The straight way


async def test_a_new_release_is_installed_checked_and_ready(world: World) -> None:
    world.declare(GOOD)

    passed = await world.settle()

    assert isinstance(passed.decision, Settled)
    assert world.actions() == ["Install", "CheckHealth"]
    assert world.statuses() == {1: "deployed"}
    assert world.record.last_healthy is not None
    assert world.record.last_healthy.revision == 1
    assert world.reason() == "InstallSucceeded"


async def test_a_settled_release_costs_no_helm_and_no_write(world: World) -> None:
    await installed(world)
    runs, saves = world.cluster.runs.copy(), len(world.records.saves)
    world.clock.advance(MINUTE)

    await world.run_pass()

    assert world.cluster.runs == runs
    assert len(world.records.saves) == saves
    assert world.leases.holds == [world.release]


async def test_a_new_version_is_an_upgrade(world: World) -> None:
    await installed(world)
    world.declare(BETTER)

    await world.settle()

    assert world.statuses() == {1: "superseded", 2: "deployed"}
    assert world.reason() == "UpgradeSucceeded"
    assert world.record.generation == world.record.observed_generation == 2


async def test_changed_values_are_an_upgrade(world: World) -> None:
    await installed(world)
    world.declare(GOOD, {"replicas": 2})

    await world.settle()

    assert world.running() == "1.0.0"
    assert len(world.statuses()) == 2
    assert world.ready()


async def test_tests_run_after_the_checks_and_make_it_ready(world: World) -> None:
    world.declare(FakeChart(tests=("one", "two")), test={"enable": True})

    await world.settle()

    assert world.actions() == ["Install", "CheckHealth", "RunTests"]
    assert world.reason() == "TestSucceeded"
    assert world.reason("TestSuccess") == "TestSucceeded"


async def test_a_chart_without_tests_counts_as_tested_without_running_helm(world: World) -> None:
    world.declare(GOOD, test={"enable": True})

    await world.settle()

    assert world.ready()
    assert world.cluster.runs["test"] == 0


# Failures and the way back


async def test_a_failed_upgrade_goes_back_to_the_last_healthy_revision(world: World) -> None:
    await installed(world)
    world.declare(BAD)

    passed = await world.settle()

    assert isinstance(passed.decision, Stalled)
    assert world.statuses() == {1: "superseded", 2: "failed", 3: "deployed"}
    assert world.running() == "1.0.0"
    assert world.reason() == "RetriesExceeded"
    assert world.reason("Remediated") == "RollbackSucceeded"
    assert world.record.upgrade_failures == 1
    assert "RollbackSucceeded" in world.notifier.reasons


async def test_a_failed_health_check_goes_back_although_helm_was_content(world: World) -> None:
    await installed(world)
    world.declare(SICK)

    await world.settle()

    assert world.running() == "1.0.0"
    assert world.statuses()[2] == "superseded"
    assert world.record.healthy_digests == {world.record.history[-1].digest}


async def test_a_failed_policy_check_goes_back(world: World) -> None:
    policy = {"verify": {"checks": [{"name": "smoke", "http": {"url": "http://app/"}}]}}
    await installed(world, policy=policy)
    world.checks.failing_checks = {"smoke"}
    world.declare(BETTER, policy=policy)

    passed = await world.run_pass()

    # What was restored fails the same check: stop there, touch nothing more.
    assert world.running() == "1.0.0"
    assert isinstance(passed.decision, Stalled)
    assert world.reason() == "RollbackFailed"
    assert len(world.statuses()) == 3


async def test_a_failed_test_goes_back_and_what_was_restored_is_tested(world: World) -> None:
    await installed(world, FakeChart(tests=("t",)), test={"enable": True})
    world.declare(FakeChart(version="2.0.0", failing_tests=("t",)), test={"enable": True})

    await world.settle()

    assert world.actions() == [
        "Upgrade", "CheckHealth", "RunTests", "Rollback", "CheckHealth", "RunTests",
    ]  # fmt: skip
    assert world.running() == "1.0.0"
    assert world.record.head is not None
    assert world.record.head.verdict is Verdict.HEALTHY


async def test_ignored_test_failures_leave_it_ready_but_no_rollback_target(world: World) -> None:
    world.declare(FakeChart(failing_tests=("t",)), test={"enable": True, "ignoreFailures": True})

    await world.settle()

    assert world.ready()
    assert world.reason("TestSuccess") == "TestFailed"
    assert world.record.last_healthy is None


async def test_good_failed_failed_goes_back_to_the_good_one(world: World) -> None:
    # As libraries found it on real clusters: good(1) failed(2) failed(3).
    await installed(world, upgrade={"remediation": {"retries": 0, "remediateLastFailure": False}})
    keep = {"upgrade": {"remediation": {"retries": 0, "remediateLastFailure": False}}}
    world.declare(BAD, **keep)
    await world.settle()
    world.declare(FakeChart(version="1.2.1", fails_upgrade=True), **keep)
    await world.settle()
    assert world.statuses() == {1: "deployed", 2: "failed", 3: "failed"}

    world.declare(FakeChart(version="1.2.2", fails_upgrade=True))
    await world.settle()

    assert world.running() == "1.0.0"
    assert world.cluster.calls[-1].revision == 1


async def test_a_superseded_revision_that_failed_is_never_a_target(world: World) -> None:
    """A failed `helm rollback` by hand turns the failed revision into `superseded`."""
    await installed(world)
    keep = {"upgrade": {"remediation": {"retries": 0, "remediateLastFailure": False}}}
    world.declare(BAD, **keep)
    await world.settle()
    for revision in world.cluster.revisions(world.release):
        if revision.number == 2:
            revision.status = HelmStatus.SUPERSEDED
    world.cluster.touch(world.release)

    world.declare(FakeChart(version="1.2.2", fails_upgrade=True))
    await world.settle()

    assert world.running() == "1.0.0"
    assert world.cluster.calls[-1].revision == 1


async def test_without_a_healthy_revision_nothing_is_touched(world: World) -> None:
    world.declare(FakeChart(unhealthy=True))
    await world.settle()
    assert world.reason() == "RetriesExceeded"
    world.declare(BAD)

    passed = await world.settle()

    assert isinstance(passed.decision, Stalled)
    assert world.reason() == "MissingRollbackTarget"
    assert world.statuses() == {1: "deployed", 2: "failed"}
    assert world.cluster.runs["rollback"] == 0


async def test_a_revision_whose_content_was_changed_is_no_target(world: World) -> None:
    await installed(world)
    stored = world.cluster.last(world.release)
    assert stored is not None
    world.declare(BAD, upgrade={"remediation": {"remediateLastFailure": False}})
    await world.settle()
    stored.values = {"tampered": True}
    world.cluster.touch(world.release)
    world.declare(FakeChart(version="1.2.2", fails_upgrade=True))

    await world.settle()

    assert world.reason() == "MissingRollbackTarget"


async def test_without_waiting_a_revision_is_ready_but_no_target(world: World) -> None:
    world.declare(GOOD, install={"disableWait": True})

    await world.settle()

    assert world.ready()
    assert world.record.last_healthy is None
    assert world.reason("Healthy") == "WaitDisabled"


async def test_a_failed_install_is_kept_for_inspection(world: World) -> None:
    world.declare(FakeChart(fails_install=True))

    passed = await world.settle()

    assert isinstance(passed.decision, Stalled)
    assert world.statuses() == {1: "failed"}
    assert world.reason() == "RetriesExceeded"
    assert world.record.install_failures == 1


async def test_a_failed_install_is_tried_again_when_the_declaration_changes(world: World) -> None:
    world.declare(FakeChart(fails_install=True))
    await world.settle()
    world.declare(BETTER)

    await world.settle()

    assert world.ready()
    assert world.running() == "1.1.0"


async def test_install_retries_uninstall_in_between_and_stop_after_the_last(flux: World) -> None:
    flux.declare(FakeChart(fails_install=True), install={"remediation": {"retries": 2}})

    await flux.settle()

    assert flux.cluster.runs == {"install": 3, "uninstall": 2}
    assert flux.statuses() == {1: "failed"}
    assert flux.reason() == "RetriesExceeded"
    assert flux.record.install_failures == 3


async def test_upgrade_retries_roll_back_to_the_newest_good_content_each_time(flux: World) -> None:
    await installed(flux)
    flux.declare(BAD, upgrade={"remediation": {"retries": 1}})

    await flux.settle()

    assert flux.statuses() == {
        1: "superseded", 2: "failed", 3: "superseded", 4: "failed", 5: "deployed",
    }  # fmt: skip
    assert [c.revision for c in flux.cluster.calls if c.operation == "rollback"] == [1, 3]
    assert flux.record.upgrade_failures == 2
    assert flux.reason() == "RetriesExceeded"


async def test_flux_defaults_leave_a_failed_upgrade_as_it_is(flux: World) -> None:
    await installed(flux)
    flux.declare(BAD)

    await flux.settle()

    assert flux.statuses() == {1: "deployed", 2: "failed"}
    assert flux.reason() == "RetriesExceeded"


async def test_negative_retries_never_end(flux: World) -> None:
    await installed(flux)
    flux.declare(BAD, upgrade={"remediation": {"retries": -1}})

    for _ in range(12):
        passed = await flux.run_pass()
        assert isinstance(passed.decision, RetryAfter)
        flux.clock.set(passed.decision.at)

    assert flux.cluster.runs["upgrade"] == 12
    assert flux.running() == "1.0.0"


async def test_remediation_by_uninstall_uninstalls(world: World) -> None:
    await installed(world)
    world.declare(
        BAD,
        upgrade={"remediation": {"strategy": "uninstall", "retries": 1}},
        install={"remediation": {"retries": 0}},
    )

    await world.run_pass()

    assert world.cluster.runs["uninstall"] == 1


async def test_retry_on_failure_upgrades_again_after_its_interval(world: World) -> None:
    strategy = {"name": "RetryOnFailure", "retryInterval": "2m"}
    world.declare(FakeChart(fails_install=True, fails_upgrade=True), install={"strategy": strategy})

    passed = await world.run_pass()
    assert isinstance(passed.decision, RetryAfter)
    assert passed.decision.at - world.clock.now() > timedelta(minutes=1)
    world.clock.set(passed.decision.at)
    await world.run_pass()

    assert world.cluster.runs == {"install": 1, "upgrade": 1}
    assert world.cluster.runs["uninstall"] == 0


async def test_a_template_error_leaves_the_cluster_alone_and_is_not_repeated(world: World) -> None:
    await installed(world)
    world.declare(FakeChart(version="1.4.0", fails_render=True))
    await world.settle()
    assert world.statuses() == {1: "deployed"}
    runs = world.cluster.runs.copy()
    world.clock.advance(timedelta(hours=5))

    passed = await world.run_pass()

    assert isinstance(passed.decision, Stalled)
    assert world.cluster.runs == runs
    assert world.reason() == "UpgradeFailed"
    world.declare(BETTER)
    await world.settle()
    assert world.ready()


async def test_a_template_error_after_a_failed_install_is_not_repeated(world: World) -> None:
    world.declare(FakeChart(fails_install=True))
    await world.settle()
    world.declare(FakeChart(version="1.4.0", fails_render=True))

    passed = await world.settle()

    assert isinstance(passed.decision, Stalled)
    assert world.cluster.runs["upgrade"] == 1


async def test_retry_on_failure_waits_after_a_template_error_too(world: World) -> None:
    strategy = {"strategy": {"name": "RetryOnFailure", "retryInterval": "2m"}}
    world.declare(FakeChart(fails_install=True), install=strategy, upgrade=strategy)
    await world.run_pass()
    world.declare(FakeChart(version="1.4.0", fails_render=True), install=strategy, upgrade=strategy)
    await world.run_pass()

    passed = await world.run_pass()

    assert world.cluster.runs["upgrade"] == 1
    assert isinstance(passed.decision, RetryAfter)
    assert passed.decision.at - world.clock.now() > timedelta(minutes=1)


async def test_a_restored_revision_that_is_not_healthy_stops_everything(world: World) -> None:
    await installed(world)
    world.declare(BAD)
    world.cluster.at("rollback", Point.FINISHED, _sickens(world.cluster, world.release))

    passed = await world.settle()

    assert isinstance(passed.decision, Stalled)
    assert world.reason() == "RollbackFailed"
    assert world.cluster.runs["rollback"] == 1


def _sickens(cluster: FakeCluster, release: ReleaseId):
    async def sicken() -> None:
        cluster.sicken(release)

    return sicken


# Crashes


@pytest.mark.parametrize("point", list(Point))
async def test_killed_in_an_install_the_next_pass_finishes(world: World, point: Point) -> None:
    world.cluster.kill("install", point)
    world.declare(GOOD)
    with pytest.raises(Killed):
        await world.run_pass()
    world.restart()

    await world.settle()

    assert world.ready()
    assert world.running() == "1.0.0"
    assert "pending" not in " ".join(world.statuses().values())


@pytest.mark.parametrize("point", list(Point))
async def test_killed_in_an_upgrade_the_next_pass_finishes(world: World, point: Point) -> None:
    await installed(world)
    world.cluster.kill("upgrade", point)
    world.declare(BETTER)
    with pytest.raises(Killed):
        await world.run_pass()
    world.restart()

    await world.settle()

    assert world.ready()
    assert world.running() == "1.1.0"
    assert world.record.hold is None
    assert "pending" not in " ".join(world.statuses().values())


@pytest.mark.parametrize("point", list(Point))
async def test_killed_in_a_rollback_the_next_pass_finishes(world: World, point: Point) -> None:
    await installed(world)
    world.cluster.kill("rollback", point)
    world.declare(BAD)
    with pytest.raises(Killed):
        await world.run_pass()
    world.restart()

    await world.settle()

    assert world.running() == "1.0.0"
    assert world.reason() == "RetriesExceeded"
    assert "pending" not in " ".join(world.statuses().values())


@pytest.mark.parametrize("point", [Point.STARTED, Point.FINISHED])
async def test_killed_in_a_test_the_next_pass_tests(world: World, point: Point) -> None:
    world.cluster.kill("test", point)
    world.declare(FakeChart(tests=("t",)), test={"enable": True})
    with pytest.raises(Killed):
        await world.run_pass()
    world.restart()

    await world.settle()

    assert world.ready()
    assert world.cluster.runs["install"] == 1


def kill_helm(
    world: World,
    monkeypatch: pytest.MonkeyPatch,
    operation: str,
    point: Point,
    error: HelmError = KILLED,
) -> None:
    """helm alone dies there, and helmops sees it end with this error."""
    runs = getattr(world.helm, operation)

    async def dies(*arguments: object, **options: object) -> object:
        try:
            return await runs(*arguments, **options)
        except Killed as killed:
            raise error from killed

    world.cluster.kill(operation, point)
    monkeypatch.setattr(world.helm, operation, dies)


@pytest.mark.parametrize("point", list(Point))
async def test_a_helm_that_is_killed_in_an_upgrade_leaves_no_lock_and_no_failure(
    world: World, monkeypatch: pytest.MonkeyPatch, point: Point
) -> None:
    await installed(world)
    kill_helm(world, monkeypatch, "upgrade", point)
    world.declare(BETTER)

    await world.settle()

    assert world.ready()
    assert world.running() == "1.1.0"
    assert "pending" not in " ".join(world.statuses().values())


@pytest.mark.parametrize("point", list(Point))
async def test_a_helm_that_is_killed_in_a_rollback_leaves_no_lock(
    world: World, monkeypatch: pytest.MonkeyPatch, point: Point
) -> None:
    await installed(world)
    kill_helm(world, monkeypatch, "rollback", point)
    world.declare(BAD)

    await world.settle()

    assert world.running() == "1.0.0"
    assert world.reason() == "RetriesExceeded"
    assert "pending" not in " ".join(world.statuses().values())


async def test_a_helm_that_is_killed_in_a_test_says_nothing_of_the_test(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    kill_helm(world, monkeypatch, "test", Point.STARTED)
    world.declare(FakeChart(tests=("t",)), test={"enable": True})

    await world.settle()

    assert world.ready()
    assert world.statuses() == {1: "deployed"}


async def test_a_lock_that_a_failed_helm_of_ours_left_is_mended_at_once(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await installed(world)
    kill_helm(world, monkeypatch, "upgrade", Point.APPLIED, HelmError("helm panicked"))
    world.declare(BETTER)

    await world.settle()

    assert world.statuses() == {1: "superseded", 2: "failed", 3: "deployed"}
    assert world.running() == "1.0.0"
    assert world.reason() == "RetriesExceeded"


async def test_a_failed_uninstall_of_ours_is_done_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    kill_helm(world, monkeypatch, "uninstall", Point.STORED, HelmError("a hook failed"))
    world.declare(
        FakeChart(fails_upgrade=True, unhealthy=True),
        install={"remediation": {"retries": 0, "remediateLastFailure": True}},
    )

    await world.settle()

    assert world.statuses() == {}
    assert world.reason() == "RetriesExceeded"


async def test_while_the_helm_of_a_dead_helmops_still_works_it_is_waited_for(world: World) -> None:
    await installed(world)
    world.cluster.kill("upgrade", Point.STORED)
    world.declare(BETTER)
    with pytest.raises(Killed):
        await world.run_pass()
    world.restart()
    world.cluster.orphans.add(world.release)

    passed = await world.run_pass()

    assert isinstance(passed.decision, RetryAfter)
    assert world.statuses()[2] == "pending-upgrade"
    world.cluster.orphans.clear()
    await world.settle()
    assert world.ready()


async def test_somebody_elses_lock_is_left_alone(world: World) -> None:
    await installed(world)
    world.cluster.add(world.release, BETTER, status=HelmStatus.PENDING_UPGRADE)
    world.declare(BAD)

    passed = await world.run_pass()

    assert isinstance(passed.decision, RetryAfter)
    assert world.reason() == "PendingRelease"
    assert world.statuses()[2] == "pending-upgrade"


async def test_an_upgrade_that_kills_its_helmops_three_times_counts_as_failed(
    world: World,
) -> None:
    await installed(world)
    world.cluster.kill("upgrade", Point.APPLIED, times=3)
    world.declare(BETTER)
    for _ in range(3):
        with pytest.raises(Killed):
            await world.run_pass()
        world.restart()

    await world.settle()

    assert world.running() == "1.0.0"
    assert world.reason() == "RetriesExceeded"


async def test_without_an_api_server_nothing_is_lost(world: World) -> None:
    await installed(world)
    world.declare(BETTER)
    world.cluster.unreachable = True
    world.records.is_unreachable = True

    passed = await world.run_pass()

    assert isinstance(passed.decision, RetryAfter)
    assert world.reason() == "ClusterUnreachable"
    world.cluster.unreachable = world.records.is_unreachable = False
    await world.settle()
    assert world.running() == "1.1.0"
    assert world.ready()


async def test_an_api_server_that_goes_during_an_upgrade_is_no_failure_of_it(world: World) -> None:
    await installed(world)
    world.cluster.fail("upgrade", Point.APPLIED, ClusterUnreachable("connection refused"))
    world.declare(BETTER)

    await world.settle()

    assert world.ready()
    assert world.running() == "1.1.0"
    assert world.cluster.runs["rollback"] == 0


# What people do


async def test_a_running_release_with_the_same_plan_is_taken_over_untouched(world: World) -> None:
    world.cluster.add(world.release, GOOD)
    world.declare(GOOD)
    writes = world.cluster.writes

    await world.settle()

    assert world.ready()
    assert world.cluster.writes == writes
    assert world.statuses() == {1: "deployed"}
    assert world.record.last_healthy is not None
    assert world.record.last_healthy.origin is Origin.ADOPT
    assert set(world.cluster.runs) <= {"template"}


async def test_the_first_upgrade_after_adoption_has_somewhere_to_go_back_to(world: World) -> None:
    world.cluster.add(world.release, GOOD)
    world.declare(GOOD)
    await world.settle()
    world.declare(BAD)

    await world.settle()

    assert world.running() == "1.0.0"


@pytest.mark.parametrize("values", [{}, {"replicas": 3}])
async def test_a_running_release_with_another_plan_is_held_with_the_plan(
    world: World, values: dict[str, int]
) -> None:
    world.cluster.add(world.release, GOOD)
    world.declare(GOOD if values else BETTER, values)

    passed = await world.settle()

    assert isinstance(passed.decision, Held)
    assert passed.decision.hold.plan
    assert world.reason() == "ReleaseNotManaged"
    assert world.statuses() == {1: "deployed"}


async def test_a_chart_with_the_same_version_and_other_content_is_held(world: World) -> None:
    world.cluster.add(world.release, FakeChart(content="old"))
    world.declare(FakeChart(content="new"))

    passed = await world.settle()

    assert isinstance(passed.decision, Held)
    assert any("ConfigMap" in line for line in passed.decision.hold.plan)


async def test_resume_lets_a_held_release_be_taken_over_and_changed(world: World) -> None:
    world.cluster.add(world.release, GOOD)
    world.declare(BETTER)
    await world.settle()
    world.records.write_by_other(resume(world.record))

    await world.settle()

    assert world.ready()
    assert world.running() == "1.1.0"
    assert [s.origin for s in world.record.history] == [Origin.UPGRADE, Origin.ADOPT]
    assert world.record.history[1].released.value == "passed"


async def test_a_release_that_helm_calls_failed_is_not_taken_for_good_because_it_looks_so(
    world: World,
) -> None:
    world.cluster.add(world.release, GOOD, status=HelmStatus.FAILED)
    world.declare(GOOD)

    passed = await world.settle()

    assert isinstance(passed.decision, Held)
    assert world.statuses() == {1: "failed"}
    world.records.write_by_other(resume(world.record))
    await world.settle()
    assert world.ready()
    assert [s.verdict for s in world.record.history] == [Verdict.HEALTHY, Verdict.FAILED]


async def test_flux_defaults_upgrade_over_a_failed_release_of_others(flux: World) -> None:
    flux.cluster.add(flux.release, GOOD, status=HelmStatus.FAILED)
    flux.declare(GOOD)

    await flux.settle()

    assert flux.ready()
    assert [s.verdict for s in flux.record.history] == [Verdict.HEALTHY, Verdict.FAILED]


async def test_flux_defaults_take_over_and_upgrade_with_a_baseline(flux: World) -> None:
    flux.cluster.add(flux.release, GOOD)
    flux.declare(BAD, upgrade={"remediation": {"retries": 1}})

    await flux.settle()

    assert flux.running() == "1.0.0"


async def test_a_revision_made_by_hand_is_held_and_said_once(world: World) -> None:
    await installed(world)
    await _upgrade_by_hand(world, BETTER)

    await world.run_pass()
    await world.run_pass()

    assert world.reason() == "RevisionMadeByHand"
    assert world.running() == "1.1.0"
    assert world.notifier.reasons.count("RevisionMadeByHand") == 1


async def test_a_changed_declaration_goes_on_after_a_revision_made_by_hand(world: World) -> None:
    await installed(world)
    await _upgrade_by_hand(world, BETTER)
    await world.run_pass()
    world.declare(FakeChart(version="1.5.0"))

    await world.settle()

    assert world.ready()
    assert world.running() == "1.5.0"


async def test_a_hand_made_revision_that_is_as_declared_is_taken_over(world: World) -> None:
    await installed(world)
    await _upgrade_by_hand(world, GOOD)

    await world.settle()

    assert world.ready()
    assert world.record.hold is None


async def test_an_uninstalled_release_is_installed_again_and_told(world: World) -> None:
    await installed(world)
    await world.person.uninstall(
        world.release, UninstallSpec(), timeout=MINUTE, description="by hand"
    )

    await world.settle()

    assert world.ready()
    assert world.statuses() == {1: "deployed"}


async def _upgrade_by_hand(world: World, chart: FakeChart) -> None:
    await world.person.upgrade(
        world.release,
        world.cluster.publish(chart),
        {},
        UpgradeSpec(),
        timeout=MINUTE,
        description="by hand",
    )


async def test_rollback_by_hand_holds_until_the_declaration_changes(world: World) -> None:
    await installed(world)
    world.declare(BETTER)
    await world.settle()

    await world.settle(Request(rollback_to=0, by="ada"))

    assert world.running() == "1.0.0"
    assert world.reason() == "RolledBackByHand"
    world.clock.advance(timedelta(hours=2))
    await world.settle()
    assert world.running() == "1.0.0"
    world.declare(FakeChart(version="1.6.0"))
    await world.settle()
    assert world.running() == "1.6.0"
    assert world.ready()


async def test_a_second_rollback_by_hand_goes_further_back_and_not_to_the_same(
    world: World,
) -> None:
    await installed(world)
    for version in ("1.1.0", "1.2.5"):
        world.declare(FakeChart(version=version))
        await world.settle()

    await world.settle(Request(rollback_to=0))
    assert world.running() == "1.1.0"
    await world.settle(Request(rollback_to=0))

    assert world.running() == "1.0.0"


async def test_resume_after_a_rollback_by_hand_goes_on(world: World) -> None:
    await installed(world)
    world.declare(BETTER)
    await world.settle()
    await world.settle(Request(rollback_to=1))
    world.records.write_by_other(resume(world.record))

    await world.settle()

    assert world.running() == "1.1.0"
    assert world.ready()


async def test_rollback_by_hand_to_a_failed_revision_is_refused(world: World) -> None:
    await installed(world)
    world.declare(BAD)
    await world.settle()

    passed = await world.run_pass(Request(rollback_to=2))

    assert isinstance(passed.decision, Stalled)
    assert passed.decision.reason == "MissingRollbackTarget"
    assert world.running() == "1.0.0"
    # The answer is about the request: the release is as it was.
    assert world.reason() == "RetriesExceeded"


async def test_the_record_remembers_what_the_policies_say(world: World) -> None:
    looked_at = {"apiVersion": "v1", "kind": "ConfigMap", "name": "x"}
    check = {"name": "c", "cel": {"object": looked_at, "expr": "true"}}
    policy = {"prune": True, "verify": {"watch": "5m", "checks": [check]}}
    await installed(world, policy=policy)

    remembered = ReleasePolicySpec.model_validate(world.record.policy)

    assert remembered == ReleasePolicySpec.model_validate(policy)


@pytest.mark.parametrize("point", list(Point))
async def test_a_rollback_by_hand_that_was_killed_is_finished_and_holds(
    world: World, point: Point
) -> None:
    await installed(world)
    world.declare(BETTER)
    await world.settle()
    world.cluster.kill("rollback", point)
    with pytest.raises(Killed):
        await world.run_pass(Request(rollback_to=0))
    world.restart()

    await world.settle()

    if point is Point.STARTED:  # helm had done nothing yet: nothing tells of the wish
        assert world.running() == "1.1.0"
    else:
        assert world.running() == "1.0.0"
        assert world.reason() == "RolledBackByHand"


async def test_a_suspended_release_is_left_alone(world: World) -> None:
    await installed(world)
    world.declare(BETTER, suspend=True)

    passed = await world.run_pass()

    assert isinstance(passed.decision, Settled)
    assert world.running() == "1.0.0"


async def test_suspension_by_command_survives_a_restart(world: World) -> None:
    await installed(world)
    suspended = world.record.evolve(suspended=Suspension(world.clock.now(), "ada"))
    world.records.write_by_other(suspended)
    world.restart()
    world.declare(BETTER)

    await world.settle()

    assert world.running() == "1.0.0"


# Policies


async def test_a_downgrade_is_held_until_resume(world: World) -> None:
    await installed(world, BETTER)
    world.declare(GOOD)

    passed = await world.settle()

    assert isinstance(passed.decision, Held)
    assert passed.decision.hold.reason is HoldReason.DOWNGRADE
    world.records.write_by_other(resume(world.record))
    await world.settle()
    assert world.running() == "1.0.0"


async def test_a_version_that_was_withdrawn_is_kept_until_resume(world: World) -> None:
    await installed(world, BETTER)
    world.declare(GOOD, is_yanked=True)
    revisions = len(world.cluster.revisions(world.release))

    for _ in range(3):
        passed = await world.settle()

    assert isinstance(passed.decision, Held)
    assert passed.decision.hold.reason is HoldReason.YANKED
    assert (world.running(), len(world.cluster.revisions(world.release))) == ("1.1.0", revisions)
    assert [e.reason for e in world.journal.told].count("VersionYanked") == 1
    world.records.write_by_other(resume(world.record))
    await world.settle()
    assert world.running() == "1.0.0"


async def test_other_content_of_the_same_version_is_not_taken_in_until_resume(
    world: World,
) -> None:
    await installed(world, GOOD)
    world.declare(replace(GOOD, content="other"), {"replicas": 2})
    revisions = len(world.cluster.revisions(world.release))

    for _ in range(3):
        passed = await world.settle()

    assert isinstance(passed.decision, Held)
    assert passed.decision.hold.reason is HoldReason.RETAGGED
    assert len(world.cluster.revisions(world.release)) == revisions
    assert [e.reason for e in world.journal.told].count("VersionRetagged") == 1
    world.records.write_by_other(resume(world.record))
    settled = await world.settle()
    assert settled.is_ready
    assert len(world.cluster.revisions(world.release)) == revisions + 1
    assert isinstance((await world.settle()).decision, Settled)


async def test_a_source_that_takes_its_other_content_back_ends_the_hold(world: World) -> None:
    await installed(world, GOOD)
    world.declare(replace(GOOD, content="other"))
    assert isinstance((await world.settle()).decision, Held)
    world.declare(GOOD)

    passed = await world.settle()

    assert passed.is_ready
    assert passed.record.hold is None


async def test_other_content_of_the_same_version_is_followed_with_flux_defaults() -> None:
    world = World(Defaults.FLUX)
    await installed(world, GOOD)
    world.declare(replace(GOOD, content="other"))
    revisions = len(world.cluster.revisions(world.release))

    await world.settle()

    assert len(world.cluster.revisions(world.release)) == revisions + 1


async def test_a_downgrade_is_followed_where_the_policy_says_so(world: World) -> None:
    await installed(world, BETTER)
    world.declare(GOOD, policy={"upgrade": {"downgrade": "follow"}})

    await world.settle()

    assert world.running() == "1.0.0"
    assert world.ready()


async def test_observed_releases_are_never_written(world: World) -> None:
    world.declare(GOOD, policy={"mode": "observe"})

    await world.run_pass()

    assert not world.cluster.writes
    assert not world.leases.holds


async def test_a_helmops_that_only_observes_writes_no_record(world: World) -> None:
    world.observe_only = True
    world.restart()
    world.declare(GOOD)

    await world.run_pass()

    assert not world.records.saves
    assert not world.cluster.writes
    assert "Install" in world.record.conditions[0].message


async def test_hooks_run_at_their_points(world: World) -> None:
    policy = {
        "remediation": {
            "hooks": [
                {"name": name, "at": name_at, "webhook": {"url": "http://hooks/"}}
                for name, name_at in [
                    ("prepare", "beforeUpgrade"),
                    ("tell", "failed"),
                    ("dump", "beforeRollback"),
                    ("restore", "afterRollback"),
                    ("cheer", "afterSuccess"),
                ]
            ]
        }
    }
    await installed(world, policy=policy)
    assert world.hooks.ran == ["cheer"]
    world.hooks.ran.clear()
    world.declare(BAD, policy=policy)

    await world.settle()

    assert world.hooks.ran == ["prepare", "tell", "dump", "restore"]
    assert world.record.hooks[0].output == "line one\n"


async def test_a_hook_that_stops_keeps_the_upgrade_from_running(world: World) -> None:
    hook = {
        "name": "gate", "at": "beforeUpgrade", "onError": "stop", "webhook": {"url": "http://h/"},
    }  # fmt: skip
    policy = {"remediation": {"hooks": [hook]}}
    await installed(world, policy=policy)
    world.hooks.failing = {"gate"}
    world.declare(BETTER, policy=policy)

    passed = await world.settle()

    assert isinstance(passed.decision, Stalled)
    assert world.reason() == "HookFailed"
    assert world.running() == "1.0.0"


async def test_a_release_is_watched_and_rolled_back_inside_its_window(world: World) -> None:
    policy = {"verify": {"watch": "5m"}}
    await installed(world, policy=policy)
    world.declare(BETTER, policy=policy)
    await world.run_pass()
    assert world.ready()
    assert world.record.head is not None
    assert world.record.head.verdict is Verdict.UNKNOWN
    world.cluster.sicken(world.release)
    world.clock.advance(30)

    await world.settle()

    assert world.running() == "1.0.0"


async def test_a_watched_release_that_is_woken_early_is_not_checked_again(world: World) -> None:
    world.declare(GOOD, policy={"verify": {"watch": "5m"}})
    await world.run_pass()
    saves = len(world.records.saves)

    for _ in range(3):
        world.clock.advance(1)
        passed = await world.run_pass()
        assert isinstance(passed.decision, RetryAfter)
        assert passed.done == ()

    assert len(world.records.saves) == saves
    world.clock.advance(10)
    await world.run_pass()
    assert world.actions() == ["CheckHealth"]


async def test_a_release_that_waits_writes_nothing_however_often_it_is_woken(world: World) -> None:
    world.declare(GOOD, waiting_for=("default/db: not ready",))
    await world.run_pass()
    saves = len(world.records.saves)

    for _ in range(3):
        world.clock.advance(1)
        await world.run_pass()

    assert len(world.records.saves) == saves


async def test_dependencies_that_are_not_ready_are_waited_for(world: World) -> None:
    world.declare(GOOD, waiting_for=("default/db: not ready",))

    passed = await world.run_pass()

    assert isinstance(passed.decision, RetryAfter)
    assert world.reason() == "DependencyNotReady"
    assert not world.cluster.runs


async def test_a_source_that_fails_leaves_a_good_release_ready(world: World) -> None:
    await installed(world)
    world.declare(GOOD, unresolved=Unresolved("SourceNotReady", "connection refused"))

    await world.run_pass()

    assert world.ready()
    assert world.reason("FetchFailed") == "SourceNotReady"


async def test_a_field_that_is_not_supported_stalls_and_touches_nothing(world: World) -> None:
    refusal = Unresolved("NotSupported", "spec.kubeConfig is not acted on yet", stalled=True)
    world.declare(GOOD, unresolved=refusal)

    passed = await world.run_pass()

    assert isinstance(passed.decision, Stalled)
    assert world.reason("Stalled") == "NotSupported"
    assert not world.cluster.runs


async def test_force_upgrades_a_release_that_is_in_sync_once(world: World) -> None:
    await installed(world)

    await world.settle(Request(force="token-1"))
    await world.settle(Request(force="token-1"))

    assert world.cluster.runs["upgrade"] == 1


async def test_reset_tries_again_after_retries_were_used_up(world: World) -> None:
    await installed(world)
    world.declare(BAD)
    await world.settle()
    assert world.cluster.runs["upgrade"] == 1

    await world.settle(Request(reset="again"))

    assert world.cluster.runs["upgrade"] == 2


# Moving


NEW_PLACE = ReleaseId("default", "renamed")


async def test_a_changed_release_name_is_held_with_what_it_would_uninstall(world: World) -> None:
    await installed(world)
    world.declare(GOOD, release=NEW_PLACE, releaseName="renamed")

    passed = await world.settle()

    assert isinstance(passed.decision, Held)
    assert "uninstall default/app" in passed.decision.hold.plan
    assert world.statuses() == {1: "deployed"}


async def test_flux_defaults_uninstall_the_old_name_and_install_the_new(flux: World) -> None:
    await installed(flux)
    flux.declare(GOOD, release=NEW_PLACE, releaseName="renamed")

    await flux.settle()

    assert not flux.statuses()
    assert flux.cluster.statuses(NEW_PLACE) == {1: "deployed"}
    assert flux.record.release == NEW_PLACE
    assert flux.ready()


async def test_another_chart_name_is_held(world: World) -> None:
    await installed(world)
    world.declare(FakeChart(name="other"))

    passed = await world.settle()

    assert isinstance(passed.decision, Held)
    assert passed.decision.hold.reason is HoldReason.CHART_NAME


async def test_another_chart_name_is_upgraded_in_place_where_that_is_said(world: World) -> None:
    await installed(world)
    world.declare(
        FakeChart(name="other", version="1.1.0"),
        upgrade={"chartNameChangeStrategy": "InPlaceUpdate"},
    )

    await world.settle()

    assert world.ready()
    assert world.statuses() == {1: "superseded", 2: "deployed"}


async def test_flux_defaults_reinstall_for_another_chart_name(flux: World) -> None:
    await installed(flux)
    flux.declare(FakeChart(name="other"))

    await flux.settle()

    assert flux.ready()
    assert flux.cluster.runs["uninstall"] == 1


# History


async def test_history_is_pruned_but_never_the_last_healthy_revision(world: World) -> None:
    keep = {"upgrade": {"remediation": {"remediateLastFailure": False}}, "maxHistory": 2}
    await installed(world, **keep)
    for number in range(1, 5):
        world.declare(FakeChart(version=f"2.0.{number}", fails_upgrade=True), **keep)
        await world.settle()

    assert 1 in world.statuses()
    assert len(world.statuses()) <= 3
    world.declare(FakeChart(version="2.1.0", fails_upgrade=True), maxHistory=2)
    await world.settle()
    assert world.running() == "1.0.0"


async def test_the_record_is_found_again_when_memory_and_journal_are_lost(world: World) -> None:
    await installed(world)
    world.restart()
    world.journal = type(world.journal)()
    runs = world.cluster.runs.copy()

    await world.settle()

    assert world.cluster.runs == runs
    assert world.ready()


async def test_a_lost_record_means_adoption_not_a_new_revision(world: World) -> None:
    await installed(world)
    world.records.lose(world.release)
    world.restart()

    await world.settle()

    assert world.statuses() == {1: "deployed"}
    assert world.ready()


async def test_a_helm_rollback_that_is_refused_is_tried_again_and_then_stops(
    world: World,
) -> None:
    await installed(world, FakeChart(fails_rollback=True))
    world.declare(BAD)

    passed = await world.settle()

    assert isinstance(passed.decision, Stalled)
    assert world.reason() == "RollbackFailed"
    assert world.cluster.runs["rollback"] == 5
