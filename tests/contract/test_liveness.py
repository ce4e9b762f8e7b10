"""The port `Liveness` and who fills it: the fake, and watches of an API server in memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, Protocol

import pytest

from helmops.checks.liveness import LiveReleases
from helmops.cluster.object_watches import ObjectWatches
from helmops.health.slimmed import slimmed
from helmops.model.health import LiveHealth
from helmops.model.records import Origin, Proof, Snapshot
from helmops.model.releases import HelmStatus, ReleaseId
from tests.fakes.clock import START
from tests.fakes.kubernetes_api import FakeKubernetes
from tests.fakes.liveness import FakeLiveness
from tests.fakes.stepped_clock import SteppedClock

WEB = ReleaseId("apps", "web")


class World(Protocol):
    """A release of one Deployment that is well, and somebody who looks after it."""

    liveness: Any

    async def settle(self) -> None: ...

    async def break_it(self) -> None: ...


class Faked:
    def __init__(self) -> None:
        self.liveness = FakeLiveness()
        self.liveness.health[WEB] = LiveHealth(is_live=True)

    async def settle(self) -> None:
        return None

    async def break_it(self) -> None:
        self.liveness.health[WEB] = LiveHealth(is_live=True, bad="is not ready", version=1)


class Real:
    def __init__(self) -> None:
        self.server = FakeKubernetes("apps")
        self.clock = SteppedClock()
        api = self.server.api()
        self.watches = ObjectWatches(api, slimmed, sleep=self.clock.sleep)
        self.liveness = LiveReleases(self.watches, api, self, self.clock, lambda *_: None)
        self.server.put(_deployment(1))
        self.running = asyncio.ensure_future(self.liveness.run())

    async def objects(self, release: ReleaseId, revision: int) -> tuple[dict[str, Any], ...]:
        return (_deployment(1),)

    async def settle(self) -> None:
        await self.clock.step(3)

    async def break_it(self) -> None:
        self.server.put(_deployment(0))
        await self.clock.step(1)
        await self.clock.step(5)


def _deployment(ready: int) -> dict[str, Any]:
    counts = ("replicas", "updatedReplicas")
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {
            "name": "web",
            "namespace": "apps",
            "labels": {"app.kubernetes.io/managed-by": "Helm"},
        },
        "status": {
            **dict.fromkeys(counts, 1),
            "readyReplicas": ready,
            "availableReplicas": ready,
            "conditions": [{"type": "Available", "status": "True"}],
        },
    }


@pytest.fixture(params=[Faked, Real], ids=["fake", "real"])
async def world(request: pytest.FixtureRequest) -> AsyncIterator[World]:
    made = request.param()
    yield made
    if isinstance(made, Real):
        made.running.cancel()
        await asyncio.wait({made.running})
        await made.watches.close()


async def follow(world: World) -> None:
    snapshot = Snapshot(
        revision=1,
        digest="d",
        origin=Origin.INSTALL,
        status=HelmStatus.DEPLOYED,
        chart_name="web",
        chart_version="1.0.0",
        app_version="",
        config_digest="",
        first_deployed=START,
        last_deployed=START,
        watched=Proof.PENDING,
    )
    await world.liveness.follow(WEB, snapshot, max_restarts=3)
    await world.settle()


async def test_of_a_release_that_nobody_follows_nothing_is_known(world: World) -> None:
    assert world.liveness.of(WEB) is None
    await follow(world)
    assert world.liveness.of(ReleaseId("apps", "other")) is None


async def test_a_release_that_is_followed_is_seen(world: World) -> None:
    await follow(world)
    assert world.liveness.of(WEB) == LiveHealth(is_live=True)


async def test_what_is_bad_is_seen_with_another_version(world: World) -> None:
    await follow(world)
    await world.break_it()
    found = world.liveness.of(WEB)
    assert found.is_live
    assert "not ready" in found.bad
    assert found.version == 1


async def test_what_is_not_followed_any_more_is_not_seen(world: World) -> None:
    await follow(world)
    world.liveness.unfollow(WEB)
    world.liveness.unfollow(WEB)
    assert world.liveness.of(WEB) is None
