"""The port `RolloutWatcher` and who fills it: the fake, and watches of an API server in memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any, Protocol

import pytest

from helmops.checks.rollout import Rollouts
from helmops.cluster.object_watches import ObjectWatches
from helmops.errors import HelmWaitTimeout, ObjectRefused
from helmops.health.slimmed import slimmed
from helmops.model.releases import HelmRun, ReleaseId
from tests.fakes.kubernetes_api import FakeKubernetes
from tests.fakes.rollouts import FakeRollouts
from tests.fakes.stepped_clock import SteppedClock

WEB = ReleaseId("apps", "web")
RUN = HelmRun("done", timedelta(seconds=1))
PATIENCE = timedelta(seconds=30)


class World(Protocol):
    """Somebody who watches rollouts; `stand_still` lets nothing move for longer than patience."""

    watcher: Any

    def prepare_to_stand_still(self) -> None: ...

    async def stand_still(self) -> None: ...


class Faked:
    def __init__(self) -> None:
        self.watcher = FakeRollouts()

    def prepare_to_stand_still(self) -> None:
        self.watcher.verdict = HelmWaitTimeout("nothing has moved for 30s")

    async def stand_still(self) -> None:
        await asyncio.sleep(0)


class Real:
    def __init__(self) -> None:
        self.clock = SteppedClock()
        api = FakeKubernetes("apps").api()
        self.watches = ObjectWatches(api, slimmed, sleep=self.clock.sleep)
        self.watcher = Rollouts(self.watches, api, self.clock)

    def prepare_to_stand_still(self) -> None:
        return None

    async def stand_still(self) -> None:
        for _ in range(4):
            await self.clock.step(10)


@pytest.fixture(params=[Faked, Real], ids=["fake", "real"])
async def world(request: pytest.FixtureRequest) -> AsyncIterator[World]:
    made = request.param()
    yield made
    if isinstance(made, Real):
        await made.watches.close()


async def test_work_that_ends_gives_what_it_gives(world: World) -> None:
    async def work() -> HelmRun:
        return RUN

    assert world.watcher.may_watch("apps")
    assert await world.watcher.run(WEB, work(), patience=PATIENCE) is RUN


async def test_work_that_fails_raises_what_it_raises(world: World) -> None:
    async def work() -> HelmRun:
        raise ObjectRefused("no")

    with pytest.raises(ObjectRefused):
        await world.watcher.run(WEB, work(), patience=PATIENCE)


async def test_work_that_stands_still_is_cancelled_and_has_failed(world: World) -> None:
    ended = asyncio.Event()

    async def work() -> HelmRun:
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            ended.set()
        return RUN

    world.prepare_to_stand_still()
    running = asyncio.ensure_future(world.watcher.run(WEB, work(), patience=PATIENCE))
    await world.stand_still()
    with pytest.raises(HelmWaitTimeout, match="nothing has moved for 30s"):
        await running
    assert ended.is_set()
