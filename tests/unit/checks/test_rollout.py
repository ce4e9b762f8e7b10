from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from typing import Any

import pytest

from helmops.checks.rollout import Rollouts
from helmops.cluster.object_watches import ObjectWatches
from helmops.errors import HelmError, HelmWaitTimeout, ObjectRefused, RolloutStuck
from helmops.health.slimmed import slimmed
from helmops.model.releases import ReleaseId
from tests.fakes.kubernetes_api import FakeKubernetes
from tests.fakes.stepped_clock import SteppedClock

WEB = ReleaseId("apps", "web")
PATIENCE = timedelta(seconds=30)
NOT_FOUND = "example.test/web:nope: not found"


def deployment(ready: int = 0, wanted: int = 9) -> dict[str, Any]:
    annotations = {"meta.helm.sh/release-name": "web", "meta.helm.sh/release-namespace": "apps"}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "web", "namespace": "apps", "annotations": annotations},
        "spec": {"replicas": wanted},
        "status": {"readyReplicas": ready},
    }


def replica_set() -> dict[str, Any]:
    return {
        "apiVersion": "apps/v1",
        "kind": "ReplicaSet",
        "metadata": {
            "name": "web-1",
            "namespace": "apps",
            "ownerReferences": [{"kind": "Deployment", "name": "web", "controller": True}],
        },
    }


def pod(reason: str = "", message: str = "", *, name: str = "web-1-a") -> dict[str, Any]:
    state = {"waiting": {"reason": reason, "message": message}} if reason else {}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "namespace": "apps",
            "uid": f"uid-{name}",
            "ownerReferences": [{"kind": "ReplicaSet", "name": "web-1", "controller": True}],
        },
        "status": {"containerStatuses": [{"name": "web", "restartCount": 0, "state": state}]},
    }


def failed_job() -> dict[str, Any]:
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": "web-migrate",
            "namespace": "apps",
            "uid": "uid-web-migrate",
            "annotations": {"helm.sh/hook": "post-upgrade"},
        },
        "status": {"conditions": [{"type": "Failed", "status": "True", "message": "it did"}]},
    }


def pulling() -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": "e", "namespace": "apps"},
        "type": "Normal",
        "reason": "Pulling",
        "involvedObject": {"kind": "Pod", "uid": "uid-web-1-a"},
    }


class Helm:
    """A helm that waits until it is told how it ends."""

    def __init__(self) -> None:
        self.end: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.was_cancelled = False
        self.on_cancel: Callable[[], str] | None = None

    async def wait(self) -> str:
        try:
            return await asyncio.shield(self.end)
        except asyncio.CancelledError:
            self.was_cancelled = True
            if self.on_cancel is not None:
                return self.on_cancel()
            raise


class Room:
    """A cluster, its time and a helm; `start` begins to wait for it."""

    def __init__(self) -> None:
        self.server = FakeKubernetes("apps")
        self.clock = SteppedClock()
        self.watches = ObjectWatches(self.server.api(), slimmed, sleep=self.clock.sleep)
        self.rollouts = Rollouts(self.watches, self.server.api(), self.clock)
        self.helm = Helm()
        self.lines: list[str] = []
        self.run: asyncio.Task[str] | None = None

    async def start(self, patience: timedelta | None = PATIENCE, max_restarts: int = 0) -> None:
        self.run = asyncio.ensure_future(
            self.rollouts.run(
                WEB,
                self.helm.wait(),
                patience=patience,
                max_restarts=max_restarts,
                progress=self.lines.append,
            )
        )
        await self.clock.step(3)  # the watches are there

    async def see(self, *objects: dict[str, Any], after: float = 0) -> None:
        """Let these be in the cluster, and time pass."""
        for each in objects:
            self.server.put(each)
        await self.clock.step(1)
        await self.clock.step(after)

    async def failure(self) -> BaseException:
        assert self.run is not None
        await self.clock.step()
        assert self.run.done()
        error = self.run.exception()
        assert error is not None
        return error

    @property
    def goes_on(self) -> bool:
        return self.run is not None and not self.run.done()


@pytest.fixture
async def room() -> AsyncIterator[Room]:
    made = Room()
    yield made
    if made.run is not None:
        made.run.cancel()
        await asyncio.wait({made.run})
    await made.watches.close()


async def test_a_helm_that_is_soon_done_costs_one_list_and_no_watch(room: Room) -> None:
    room.helm.end.set_result("done")
    assert await room.rollouts.run(WEB, room.helm.wait(), patience=PATIENCE) == "done"
    assert all("/pods?" in target and "watch" not in target for _, target in room.server.asked)
    assert len(room.server.asked) <= 1


async def test_what_helm_says_is_passed_on(room: Room) -> None:
    await room.start()
    room.helm.end.set_exception(ObjectRefused("no such thing"))
    assert isinstance(await room.failure(), ObjectRefused)
    assert room.watches.scopes == ()


async def test_the_watches_end_with_the_run(room: Room) -> None:
    await room.start()
    assert room.server.watch_count == 7
    room.helm.end.set_result("done")
    await room.clock.step()
    assert room.run is not None
    assert room.run.result() == "done"
    assert room.server.watch_count == 0


async def test_what_cannot_recover_ends_it_at_once_and_stops_helm(room: Room) -> None:
    await room.start()
    await room.see(deployment(), replica_set(), pod("ErrImagePull", NOT_FOUND), after=3)
    error = await room.failure()
    assert isinstance(error, RolloutStuck)
    assert error.what == f"pod web-1-a: ErrImagePull: {NOT_FOUND}"
    assert error.where == "apps/web"
    assert room.helm.was_cancelled


async def test_a_broken_pod_of_before_does_not(room: Room) -> None:
    for each in (deployment(), replica_set(), pod("InvalidImageName")):
        room.server.put(each)
    await room.start()
    await room.see(deployment(1), after=5)
    assert room.goes_on


async def test_a_hook_that_failed_before_does_not(room: Room) -> None:
    room.server.put(failed_job())
    await room.start()
    await room.see(deployment(1), after=5)
    assert room.goes_on


async def test_a_hook_that_fails_now_does(room: Room) -> None:
    await room.start()
    await room.see(failed_job(), after=1)
    assert "it did" in str(await room.failure())


async def test_nothing_that_moves_for_so_long_ends_it(room: Room) -> None:
    await room.start()
    await room.see(deployment(), after=28)
    assert room.goes_on
    await room.clock.step(4)
    error = await room.failure()
    assert isinstance(error, HelmWaitTimeout)
    assert not isinstance(error, RolloutStuck)
    assert error.what == "nothing has moved for 30s"
    assert room.helm.was_cancelled


async def test_as_long_as_it_moves_it_goes_on(room: Room) -> None:
    await room.start()
    for ready in range(8):
        await room.see(deployment(ready), after=20)
    assert room.goes_on
    assert "not ready after 30s, but it still moves" in room.lines
    await room.clock.step(60)
    assert isinstance(await room.failure(), HelmWaitTimeout)


async def test_an_image_that_is_being_pulled_is_waited_for(room: Room) -> None:
    await room.start()
    await room.see(deployment(), replica_set(), pod("ContainerCreating"), pulling(), after=600)
    assert room.goes_on
    assert room.lines == ["pod web-1-a pulls an image"]
    await room.see(pod("ImagePullBackOff", "i/o timeout"), after=20)
    assert room.goes_on
    await room.clock.step(11)
    assert isinstance(await room.failure(), HelmWaitTimeout)


async def test_without_patience_only_what_cannot_recover_ends_it(room: Room) -> None:
    await room.start(patience=None)
    await room.see(deployment(), replica_set(), pod(), after=9999)
    assert room.goes_on
    await room.see(pod("InvalidImageName"))
    assert isinstance(await room.failure(), RolloutStuck)


async def test_a_crash_loop_gets_some_restarts_in_any_case(room: Room) -> None:
    await room.start(max_restarts=1)
    crashing = pod("CrashLoopBackOff", "back-off")
    crashing["status"]["containerStatuses"][0]["restartCount"] = 5
    await room.see(deployment(), replica_set(), crashing)
    assert room.goes_on
    crashing["status"]["containerStatuses"][0]["restartCount"] = 6
    await room.see(crashing)
    assert isinstance(await room.failure(), RolloutStuck)


async def test_a_helm_that_was_faster_than_our_stop_has_its_say(room: Room) -> None:
    room.helm.on_cancel = lambda: "done"
    await room.start()
    await room.clock.step(40)
    assert room.run is not None
    assert room.run.result() == "done"


async def test_a_helm_that_fails_while_it_is_stopped_failed_for_our_reason(room: Room) -> None:
    def fail() -> str:
        raise HelmError("context canceled")

    room.helm.on_cancel = fail
    await room.start()
    await room.clock.step(40)
    assert isinstance(await room.failure(), HelmWaitTimeout)


async def test_whoever_is_cancelled_stops_helm(room: Room) -> None:
    await room.start()
    assert room.run is not None
    room.run.cancel()
    await room.clock.step()
    assert room.run.cancelled()
    assert room.helm.was_cancelled
    assert room.server.watch_count == 0


@pytest.mark.parametrize("verb", ["list", "watch"])
async def test_where_pods_may_not_be_watched_the_timeout_is_a_plain_one(
    room: Room, verb: str, caplog: pytest.LogCaptureFixture
) -> None:
    room.server.denied.add((verb, "pods", "apps"))
    await room.start()
    await room.see(deployment(1), after=15)
    await room.see(deployment(2), after=9)
    assert room.goes_on
    await room.clock.step(3)
    error = await room.failure()
    assert isinstance(error, HelmWaitTimeout)
    assert error.what == "not ready after 30s"
    assert not room.rollouts.may_watch("apps")
    assert room.rollouts.may_watch("other")
    await room.clock.step(600)
    assert room.rollouts.may_watch("apps")  # somebody may have added the Role
    assert caplog.text.count("timeouts there are plain ones") == 1


async def test_where_events_may_not_be_watched_a_pull_is_no_movement(
    room: Room, caplog: pytest.LogCaptureFixture
) -> None:
    room.server.denied.add(("list", "events", "apps"))
    await room.start()
    await room.see(deployment(), replica_set(), pod("ContainerCreating"), pulling(), after=31)
    assert isinstance(await room.failure(), HelmWaitTimeout)
    assert caplog.text.count("does not count as movement") == 1


async def test_an_api_server_that_was_away_gives_new_patience(room: Room) -> None:
    await room.start()
    await room.see(deployment(), after=20)
    room.server.is_unreachable = True
    room.server.drop_watches()
    await room.clock.step(20)
    room.server.is_unreachable = False
    await room.clock.step(20)
    assert room.goes_on
    await room.clock.step(40)
    assert isinstance(await room.failure(), HelmWaitTimeout)


async def test_two_releases_of_a_namespace_share_the_watches(room: Room) -> None:
    await room.start()
    other = Helm()
    second = asyncio.ensure_future(
        room.rollouts.run(ReleaseId("apps", "db"), other.wait(), patience=PATIENCE)
    )
    await room.clock.step(3)
    assert room.server.watch_count == 7
    other.end.set_result("done")
    assert await second == "done"
    assert room.server.watch_count == 7
    assert room.goes_on
