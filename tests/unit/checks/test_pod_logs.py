"""Listening to hooks; how that ends up in evidence is in test_evidence.py."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest

from helmops.checks.pod_logs import KEPT_BYTES, HookRecorder, RecordedLog
from helmops.errors import ClusterUnreachable
from helmops.model.hooks import ChartHook
from helmops.model.releases import ReleaseId
from tests.fakes.clock import FakeClock
from tests.fakes.objects import FakeObjects

WEB = ReleaseId("shop", "web")
TEST = ChartHook("Pod", "web-test", "shop", ("test",))


def recorded() -> RecordedLog:
    return RecordedLog(TEST, "web-test", "u", "main")


def test_of_an_endless_log_the_end_is_kept_in_bounded_memory() -> None:
    heard = recorded()
    for number in range(20_000):
        heard.add(f"line number {number}\n".encode())

    assert heard.is_cut
    assert heard.text.endswith("line number 19999\n")
    assert 4 * KEPT_BYTES <= len(heard.text) <= 8 * KEPT_BYTES


def test_a_character_that_comes_in_two_pieces_is_whole() -> None:
    heard = recorded()
    for piece in ("ü".encode()[:1], "ü".encode()[1:]):
        heard.add(piece)

    assert (heard.text, heard.is_cut) == ("ü", False)


class World:
    def __init__(self) -> None:
        self.cluster = FakeObjects(FakeClock())
        self.hooks: list[ChartHook] = [TEST]
        self.recorder = HookRecorder(self.cluster, self.read, WEB)
        metadata = {"name": "sh.helm.release.v1.web.v3", "namespace": "shop"}
        labels = {"labels": {"owner": "helm", "name": "web"}}
        self.cluster.put({"kind": "Secret", "metadata": metadata | labels})

    async def read(self, release: ReleaseId, revision: int) -> Sequence[ChartHook]:
        return self.hooks

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[None]:
        task = asyncio.create_task(self.recorder.run())
        await self.until(lambda: any(one.startswith("watch Pod") for one in self.cluster.asked))
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await self.recorder.stop()

    async def until(self, true: Callable[[], bool]) -> None:
        async with asyncio.timeout(10):
            while not true():  # noqa: ASYNC110 - what is waited for is what other tasks did
                await asyncio.sleep(0)

    def pod(self, *statuses: dict[str, Any], name: str = "web-test") -> None:
        self.cluster.put(
            {
                "kind": "Pod",
                "metadata": {"name": name, "namespace": "shop", "uid": "u"},
                "status": {"phase": "Running", "containerStatuses": list(statuses)},
            }
        )


@pytest.fixture
def world() -> World:
    return World()


def status(name: str = "main", restarts: int = 0, **state: Any) -> dict[str, Any]:
    return {"name": name, "restartCount": restarts, "state": state or {"running": {}}}


async def test_a_container_that_is_yet_to_start_is_waited_for(world: World) -> None:
    world.cluster.container_logs["web-test", "main"] = "begun"
    async with world.listening():
        world.pod(status(waiting={"reason": "ContainerCreating"}))
        for _ in range(20):
            await asyncio.sleep(0)
        assert world.recorder.logs == []
        world.pod(status())
        await world.until(lambda: bool(world.recorder.logs and world.recorder.logs[0].is_over))

    assert [heard.text for heard in world.recorder.logs] == ["begun"]
    assert world.recorder.revision == 3


async def test_each_container_and_each_run_of_it_is_heard(world: World) -> None:
    world.cluster.container_logs["web-test", "main"] = "m"
    world.cluster.container_logs["web-test", "side"] = "s"
    async with world.listening():
        world.pod(status(), status("side"))
        world.pod(status(), status("side"))
        world.pod(status(restarts=1), status("side"))
        await world.until(lambda: len(world.recorder.logs) == 3)
        await world.recorder.finish()

    assert [(h.container, h.restarts) for h in world.recorder.logs] == [
        ("main", 0),
        ("side", 0),
        ("main", 1),
    ]
    assert sum(one.startswith("follow") for one in world.cluster.asked) == 3


async def test_a_pod_that_is_gone_when_it_is_first_seen_is_not_asked(world: World) -> None:
    async with world.listening():
        world.pod(status(waiting={"reason": "ContainerCreating"}))
        ended = {"metadata": {"name": "web-test", "namespace": "shop", "uid": "u"}, "kind": "Pod"}
        statuses = [status(terminated={"exitCode": 1})]
        world.cluster.objects["Pod", "shop", "web-test"]["status"] = {"containerStatuses": statuses}
        world.cluster.drop(ended)
        await world.until(lambda: bool(world.recorder.logs))

    [heard] = world.recorder.logs
    assert heard.error == "it was deleted before its log could be read"
    assert not any(one.startswith("follow") for one in world.cluster.asked)


async def test_a_log_that_breaks_off_keeps_what_came(world: World) -> None:
    async def break_off(*args: Any, **kwargs: Any) -> Any:
        yield b"half"
        raise ClusterUnreachable("the connection broke")

    world.cluster.follow_logs = break_off  # type: ignore[method-assign]
    async with world.listening():
        world.pod(status())
        await world.until(lambda: bool(world.recorder.logs))
        await world.recorder.finish()

    [heard] = world.recorder.logs
    assert (heard.text, heard.error, heard.is_over) == ("half", "", True)


async def test_one_that_never_came_says_why(world: World) -> None:
    world.cluster.fails_on["follow", "Pod"] = ClusterUnreachable("the node is away")
    async with world.listening():
        world.pod(status())
        await world.until(lambda: bool(world.recorder.logs))
        await world.recorder.finish()

    assert world.recorder.logs[0].error == "the node is away"


async def test_a_log_that_goes_on_holds_up_nobody(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("helmops.checks.pod_logs._DRAIN_SECONDS", 0.01)
    world.cluster.streams["web-test", "main"] = asyncio.Queue()
    async with world.listening():
        world.pod(status())
        await world.until(lambda: bool(world.recorder.logs))
        await world.recorder.finish()

    assert not world.recorder.logs[0].is_over


async def test_other_pods_are_not_looked_at(world: World) -> None:
    async with world.listening():
        world.pod(status(), name="web-1")
        for _ in range(20):
            await asyncio.sleep(0)

    assert world.recorder.logs == []
