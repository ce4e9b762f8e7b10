"""Every `Leases` lets one in at a time, and lets the next one in afterwards."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import UTC, datetime

import pytest

from helmops.cluster.api import Api
from helmops.cluster.leases import ClusterLeases, Holder
from helmops.errors import LeaseHeld, ObjectNotFound
from helmops.model.releases import ReleaseId
from helmops.reconcile.ports import Leases
from tests.fakes.kubernetes_api import FakeKubernetes
from tests.fakes.leases import FakeLeases

NOW = datetime(2026, 1, 5, 12, tzinfo=UTC)
US = Holder("here", "boot", "1", 1, "1")
THEM = Holder("there", "boot", "1", 1, "1")


@dataclass
class World:
    """Two processes and the releases that both want."""

    ours: Leases
    theirs: Leases
    release: ReleaseId
    other: ReleaseId


@pytest.fixture(params=["fake", "memory", pytest.param("cluster", marks=pytest.mark.e2e)])
async def world(request: pytest.FixtureRequest) -> AsyncIterator[World]:
    def on(api: Api, namespace: str) -> World:
        return World(
            ClusterLeases(api, lambda: NOW, holder=US),
            ClusterLeases(api, lambda: NOW, holder=THEM),
            ReleaseId(namespace, "web"),
            ReleaseId(namespace, "api"),
        )

    if request.param == "fake":
        ours = FakeLeases(holder="us", namespaces=["apps"])
        theirs = FakeLeases(ours.table, holder="them", namespaces=["apps"])
        yield World(ours, theirs, ReleaseId("apps", "web"), ReleaseId("apps", "api"))
    elif request.param == "memory":
        yield on(FakeKubernetes("apps").api(), "apps")
    else:
        make: Callable[[], str] = request.getfixturevalue("make_namespace")
        async with await Api.connect(kubeconfig=str(request.getfixturevalue("kubeconfig"))) as api:
            yield on(api, make())


async def test_who_comes_second_is_told_that_it_is_held(world: World) -> None:
    async with world.ours.hold(world.release):
        with pytest.raises(LeaseHeld):
            async with world.theirs.hold(world.release):
                pytest.fail("both hold it")


async def test_a_second_task_of_the_same_process_is_not_let_in_either(world: World) -> None:
    async with world.ours.hold(world.release):
        with pytest.raises(LeaseHeld):
            async with world.ours.hold(world.release):
                pytest.fail("both hold it")


async def test_another_release_is_another_lease(world: World) -> None:
    async with world.ours.hold(world.release), world.theirs.hold(world.other):
        pass


async def test_it_is_free_as_soon_as_the_holder_leaves(world: World) -> None:
    async with world.ours.hold(world.release):
        pass
    async with world.theirs.hold(world.release):
        pass
    async with world.ours.hold(world.release):
        pass


async def test_it_is_free_after_the_body_failed(world: World) -> None:
    with pytest.raises(ZeroDivisionError):
        async with world.ours.hold(world.release):
            raise ZeroDivisionError
    async with world.theirs.hold(world.release):
        pass


async def test_it_is_free_after_the_body_was_cancelled(world: World) -> None:
    inside = asyncio.Event()

    async def work() -> None:
        async with world.ours.hold(world.release):
            inside.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(work())
    await inside.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    async with world.theirs.hold(world.release):
        pass


async def test_of_many_who_come_at_once_exactly_one_is_let_in(world: World) -> None:
    leave = asyncio.Event()
    let_in: list[int] = []
    refused: list[int] = []

    async def come(number: int, leases: Leases) -> None:
        try:
            async with leases.hold(world.release):
                let_in.append(number)
                await leave.wait()
        except LeaseHeld:
            refused.append(number)
        if len(refused) == 5:
            leave.set()

    async with asyncio.timeout(30):
        await asyncio.gather(*(come(n, world.ours if n % 2 else world.theirs) for n in range(6)))
    assert len(let_in) == 1


async def test_a_namespace_that_does_not_exist_is_said(world: World) -> None:
    with pytest.raises(ObjectNotFound):
        async with world.ours.hold(ReleaseId("no-such-namespace", "web")):
            pytest.fail("there is nothing to hold")
