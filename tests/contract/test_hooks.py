"""What every Hooks does: the one that scenarios use, and the one that makes Jobs and requests."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any, Protocol

import pytest

from helmops.checks.hooks import ReleaseHooks
from helmops.errors import ClusterUnreachable
from helmops.http import Http
from helmops.model.credentials import HttpCredentials
from helmops.model.declarations import RemediationHook
from helmops.model.hooks import HookResult
from helmops.model.releases import ReleaseId
from helmops.reconcile.ports import Hooks
from tests.fakes.clock import FakeClock
from tests.fakes.cluster_state import FakeCluster, Point
from tests.fakes.hooks import FakeHooks
from tests.fakes.objects import FakeObjects
from tests.fakes.web_server import Answer, WebServer, web_server

WEB = ReleaseId("shop", "web")
CONTEXT = {"revision": "7", "reason": "UpgradeFailed"}
JOB = {"job": {"template": {"spec": {"containers": [{"name": "main", "image": "x"}]}}}}


class World(Protocol):
    """Somebody who runs hooks, and what becomes of them."""

    hooks: Hooks

    def succeed(self, succeeds: bool, output: str) -> None: ...

    def break_api(self) -> None: ...

    def hang(self) -> None: ...


class Fake:
    def __init__(self) -> None:
        self.cluster = FakeCluster()
        self.fakes = FakeHooks(self.cluster)
        self.hooks: Hooks = self.fakes

    def succeed(self, succeeds: bool, output: str) -> None:
        self.fakes.failing = set() if succeeds else {"backup"}
        self.fakes.output["backup"] = output

    def break_api(self) -> None:
        self.cluster.unreachable = True

    def hang(self) -> None:
        self.cluster.hang("hook", Point.STARTED)


class Real:
    def __init__(self, http: Http, server: WebServer) -> None:
        self.server = server
        self.clock = FakeClock()
        self.api = FakeObjects(self.clock)
        self.hooks: Hooks = ReleaseHooks(self.api, http, self.clock)

    def succeed(self, succeeds: bool, output: str) -> None:
        self.server.routes["/"] = Answer(200 if succeeds else 500, output.encode())
        condition = {"type": "Complete" if succeeds else "Failed", "status": "True"}

        def made(job: dict[str, Any]) -> None:
            job["status"] = {"conditions": [condition]}
            name = job["metadata"]["name"]
            pod = {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {"name": "p", "namespace": "shop", "labels": {"job-name": name}},
                "spec": {"containers": [{"name": "main"}]},
            }
            self.api.put(pod)
            self.api.container_logs["p", "main"] = output

        self.api.on_create = made

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


@pytest.fixture(params=["fake", "real"])
async def world(request: pytest.FixtureRequest, server: WebServer) -> AsyncIterator[World]:
    if request.param == "fake":
        yield Fake()
        return
    async with Http(workers=2) as http:
        yield Real(http, server)


@pytest.fixture(params=["job", "webhook"])
def hook(request: pytest.FixtureRequest, server: WebServer) -> RemediationHook:
    kind = JOB if request.param == "job" else {"webhook": {"url": f"{server.url}/"}}
    named = {"name": "backup", "at": "beforeRollback", "timeout": "30s"}
    return RemediationHook.model_validate(named | kind)


async def run(world: World, hook: RemediationHook) -> HookResult:
    return await world.hooks.run(hook, WEB, CONTEXT, HttpCredentials())


async def test_a_hook_succeeds_and_its_output_is_kept(world: World, hook: RemediationHook) -> None:
    world.succeed(True, "saved 3 tables")

    result = await run(world, hook)

    assert result.succeeded
    assert (result.name, result.output) == ("backup", "saved 3 tables")
    assert result.message


async def test_a_failed_hook_is_a_result_with_its_output(
    world: World, hook: RemediationHook
) -> None:
    world.succeed(False, "disk full")

    result = await run(world, hook)

    assert not result.succeeded
    assert (result.name, result.output) == ("backup", "disk full")
    assert result.message


async def test_an_unreachable_cluster_is_no_result(world: World) -> None:
    world.break_api()
    job = RemediationHook.model_validate({"name": "backup", "at": "failed"} | JOB)

    with pytest.raises(ClusterUnreachable):
        await run(world, job)


async def test_hooks_can_be_cancelled(world: World, hook: RemediationHook) -> None:
    world.hang()
    task = asyncio.create_task(run(world, hook))
    await asyncio.wait({task}, timeout=0.1)
    assert not task.done()

    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task
