"""What a pass does around its decisions. Whole passes are in tests/scenario."""

from __future__ import annotations

from typing import Any

import pytest

from helmops.errors import (
    HelmError,
    HelmopsError,
)
from helmops.model.declarations import UpgradeSpec
from helmops.model.records import Record, Suspension
from helmops.model.releases import HelmStatus
from tests.fakes.cluster_state import FakeChart, Point
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

    world.cluster.at(operation, point, happen)


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
