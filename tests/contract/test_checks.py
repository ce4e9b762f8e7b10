"""What every Checks does: the one that scenarios use, and the one that reads a cluster."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any, Protocol

import pytest

from helmops.checks.release_checks import ReleaseChecks
from helmops.errors import ClusterUnreachable, ExpressionError
from helmops.http import Http
from helmops.model.credentials import HttpCredentials
from helmops.model.declarations import HealthCheckExpr, PolicyCheck
from helmops.model.health import CheckResult
from helmops.model.releases import ReleaseId
from helmops.reconcile.ports import Checks
from tests.fakes.checks import FakeChecks
from tests.fakes.clock import FakeClock
from tests.fakes.cluster_state import FakeChart, FakeCluster, Point
from tests.fakes.objects import FakeObjects
from tests.fakes.web_server import Answer, WebServer, web_server

WEB = ReleaseId("shop", "web")
MINUTE = timedelta(minutes=1)
NOBODY = HttpCredentials()


class World(Protocol):
    """A cluster with one release, and somebody who checks it."""

    checks: Checks
    clock: FakeClock
    objects: tuple[dict[str, Any], ...]

    def be_healthy(self, is_healthy: bool) -> None: ...

    def pass_check(self, passes: bool) -> None: ...

    def break_api(self) -> None: ...

    def hang(self) -> None: ...


class Fake:
    def __init__(self) -> None:
        self.cluster = FakeCluster()
        self.clock = self.cluster.clock
        fakes = FakeChecks(self.cluster)
        self.answers = fakes.answers
        self.checks: Checks = fakes
        stored = self.cluster.add(WEB, FakeChart())
        self.objects = stored.objects

    def be_healthy(self, is_healthy: bool) -> None:
        if is_healthy:
            self.cluster.heal(WEB)
        else:
            self.cluster.sicken(WEB)

    def pass_check(self, passes: bool) -> None:
        self.answers["front"] = passes

    def break_api(self) -> None:
        self.cluster.unreachable = True

    def hang(self) -> None:
        self.cluster.hang("readiness", Point.STARTED)
        self.cluster.hang("check", Point.STARTED)


class Real:
    def __init__(self, http: Http, server: WebServer) -> None:
        self.server = server
        self.clock = FakeClock()
        self.api = FakeObjects(self.clock)
        self.checks: Checks = ReleaseChecks(self.api, http, self.clock)
        self.objects = tuple(FakeChart().objects(WEB, {}))
        self.server.routes["/"] = Answer()
        self.be_healthy(True)

    def be_healthy(self, is_healthy: bool) -> None:
        count = 1 if is_healthy else 0
        names = ("replicas", "updatedReplicas", "availableReplicas", "readyReplicas")
        self.api.put(*self.objects)
        for one in self.api.of_kind("Deployment"):
            conditions = [{"type": "Available", "status": "True"}]
            one["status"] = {**dict.fromkeys(names, count), "conditions": conditions}

    def pass_check(self, passes: bool) -> None:
        self.server.routes["/"] = Answer(200 if passes else 503)

    def break_api(self) -> None:
        self.api.fails_with = ClusterUnreachable("no answer")

    def hang(self) -> None:
        async def hang(*args: Any, **kwargs: Any) -> None:
            await asyncio.Event().wait()

        self.api.get = hang  # type: ignore[method-assign]
        self.server.routes["/"] = Answer(raw=_say_nothing)


def _say_nothing(_: object, stopping: threading.Event) -> None:
    stopping.wait()


@pytest.fixture
def server() -> Iterator[WebServer]:
    with web_server() as one:
        yield one


@asynccontextmanager
async def real(server: WebServer) -> AsyncIterator[Real]:
    async with Http(workers=2) as http:
        yield Real(http, server)


@pytest.fixture(params=["fake", "real"])
async def world(request: pytest.FixtureRequest, server: WebServer) -> AsyncIterator[World]:
    if request.param == "fake":
        yield Fake()
        return
    async with real(server) as one:
        yield one


async def readiness(world: World, **more: Any) -> CheckResult:
    arguments: dict[str, Any] = {"expressions": (), "timeout": MINUTE} | more
    return await world.checks.readiness(WEB, world.objects, **arguments)


async def policy_check(world: World, server: WebServer, **more: Any) -> CheckResult:
    declared = {"name": "front", "http": {"url": f"{server.url}/"}, "interval": "1s"} | more
    check = PolicyCheck.model_validate(declared)
    return await world.checks.policy_check(check, WEB, world.objects, NOBODY)


async def test_a_healthy_release_is_ready(world: World) -> None:
    result = await readiness(world)

    assert result.passed
    assert result.name == "readiness"


async def test_a_release_without_objects_is_ready(world: World) -> None:
    world.be_healthy(False)

    assert (await world.checks.readiness(WEB, (), (), timeout=MINUTE)).passed


async def test_an_unhealthy_release_is_not_ready_and_says_what_is_not(world: World) -> None:
    world.be_healthy(False)

    result = await readiness(world)

    assert not result.passed
    assert "/shop/web" in result.message


async def test_readiness_waits_for_its_whole_timeout(world: World) -> None:
    world.be_healthy(False)
    begun = world.clock.now()

    await readiness(world, timeout=timedelta(minutes=3))

    assert world.clock.now() - begun >= timedelta(minutes=3)


async def test_it_says_what_it_waits_for(world: World) -> None:
    world.be_healthy(False)
    lines: list[str] = []

    await readiness(world, progress=lines.append)

    assert any("/shop/web" in line for line in lines)


async def test_health_is_as_it_is_now(world: World) -> None:
    for is_healthy in (True, False, True):
        world.be_healthy(is_healthy)

        assert (await readiness(world)).passed is is_healthy


async def test_rules_that_do_not_compile_are_no_verdict(world: World) -> None:
    rule = HealthCheckExpr.model_validate({"apiVersion": "x.io/v1", "current": "status &&"})

    with pytest.raises(ExpressionError):
        await readiness(world, expressions=[rule])


async def test_a_policy_check_passes(world: World, server: WebServer) -> None:
    result = await policy_check(world, server, successThreshold=2)

    assert result.passed
    assert (result.name, result.attempts) == ("front", 2)


async def test_a_policy_check_fails_with_a_reason(world: World, server: WebServer) -> None:
    world.pass_check(False)

    result = await policy_check(world, server, failureThreshold=3)

    assert not result.passed
    assert (result.name, result.attempts) == ("front", 3)
    assert result.message


async def test_an_unreachable_cluster_is_no_verdict(world: World) -> None:
    world.break_api()

    with pytest.raises(ClusterUnreachable):
        await readiness(world)


async def test_checks_can_be_cancelled(world: World, server: WebServer) -> None:
    world.hang()
    for check in (readiness(world), policy_check(world, server)):
        task = asyncio.ensure_future(check)
        await asyncio.wait({task}, timeout=0.1)
        assert not task.done()
        task.cancel()

        with pytest.raises(asyncio.CancelledError):
            await task
