"""Two declarations and one release name: renamed, moved, swapped."""

from __future__ import annotations

from dataclasses import replace

import pytest

from helmops.model.actions import Stalled
from helmops.model.declarations import Defaults
from helmops.model.releases import DeclarationKey, ReleaseId
from tests.fakes.cluster_state import FakeChart
from tests.fakes.records import FakeRecords
from tests.fakes.world import Declared, World

APP = DeclarationKey("default", "app")
OTHER = DeclarationKey("default", "other")
APPS_PLACE = ReleaseId("default", "app")
OTHERS_PLACE = ReleaseId("default", "other")


@pytest.fixture
def world() -> World:
    return World(Defaults.FLUX)


def declare(
    world: World,
    key: DeclarationKey,
    release: ReleaseId,
    *,
    beside: tuple[DeclarationKey, ...] = (),
    policy: dict[str, object] | None = None,
) -> Declared:
    world.declare(FakeChart(), policy=policy)
    assert world.declared is not None
    template = replace(world.declared.template, key=key, release=release)
    return replace(world.declared, template=template, beside=frozenset(beside))


async def test_a_release_that_another_declaration_has_is_not_taken_from_it(world: World) -> None:
    await world.reconciler.reconcile(declare(world, OTHER, OTHERS_PLACE))
    other = world.reconciler.known[OTHER]

    passed = await world.reconciler.reconcile(declare(world, APP, OTHERS_PLACE, beside=(OTHER,)))

    assert isinstance(passed.decision, Stalled)
    assert "default/other" in passed.decision.why
    assert await world.records.load(OTHERS_PLACE) == other


async def test_two_that_swap_their_releases_are_told_and_both_stay_as_they_are(
    world: World,
) -> None:
    await world.reconciler.reconcile(declare(world, APP, APPS_PLACE))
    await world.reconciler.reconcile(declare(world, OTHER, OTHERS_PLACE))
    before = world.cluster.runs.copy()

    for _ in range(2):
        one = await world.reconciler.reconcile(declare(world, APP, OTHERS_PLACE, beside=(OTHER,)))
        two = await world.reconciler.reconcile(declare(world, OTHER, APPS_PLACE, beside=(APP,)))

        assert isinstance(one.decision, Stalled)
        assert isinstance(two.decision, Stalled)
    assert world.cluster.runs == before
    kept = {record.release: record.key for record in await world.records.load_all()}
    assert kept == {APPS_PLACE: APP, OTHERS_PLACE: OTHER}


async def test_a_declaration_that_got_another_name_keeps_its_release(world: World) -> None:
    await world.reconciler.reconcile(declare(world, APP, APPS_PLACE))
    before = world.cluster.runs.copy()

    passed = await world.reconciler.reconcile(declare(world, OTHER, APPS_PLACE))

    assert passed.is_ready
    assert world.cluster.runs == before
    kept = await world.records.load(APPS_PLACE)
    assert kept is not None
    assert kept.key == OTHER


async def test_a_release_that_changed_hands_is_not_removed_with_its_old_declaration(
    world: World,
) -> None:
    prunes = {"prune": True}
    passed = await world.reconciler.reconcile(declare(world, APP, APPS_PLACE, policy=prunes))
    heir = declare(world, OTHER, APPS_PLACE, policy=prunes)
    await world.reconciler.reconcile(heir)

    left = await world.reconciler.remove(passed.record, heir.template.spec)

    assert left is None
    assert world.cluster.runs["uninstall"] == 0
    assert APP not in world.reconciler.known
    assert await world.records.load(APPS_PLACE) is not None


async def test_a_release_that_moves_gets_its_new_namespace_where_it_may_be_created(
    world: World,
) -> None:
    world.declare(FakeChart(), install={"createNamespace": True})
    await world.settle()
    world.records = FakeRecords(namespaces={"default"})
    for record in world.reconciler.known.values():
        world.records.write_by_other(record)
    world.restart()
    await world.reconciler.load()
    place = ReleaseId("elsewhere", "app")
    world.declare(FakeChart(), release=place, install={"createNamespace": True})

    await world.settle()

    assert world.records.created_namespaces == ["elsewhere"]
    assert world.cluster.statuses(place) == {1: "deployed"}
