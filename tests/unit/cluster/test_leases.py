from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from helmops.cluster.leases import ClusterLeases, Holder, _started, lease_name
from helmops.cluster.transport import Answer
from helmops.errors import ClusterUnreachable, LeaseHeld, ObjectConflict
from helmops.model.releases import ReleaseId
from tests.fakes.kubernetes_api import FakeKubernetes

WEB = ReleaseId("apps", "web")
START = datetime(2026, 1, 5, 12, tzinfo=UTC)
US = Holder.this_process()
ELSEWHERE = Holder("elsewhere", "another-boot", "1", 7, "99")


class World:
    """A server, and time that passes only by sleeping or on request."""

    def __init__(self) -> None:
        self.server = FakeKubernetes("apps")
        self.elapsed = 0.0
        self.woken = asyncio.Condition()

    def now(self) -> datetime:
        return START + timedelta(seconds=self.elapsed)

    def monotonic(self) -> float:
        return self.elapsed

    async def sleep(self, seconds: float) -> None:
        until = self.elapsed + seconds
        async with self.woken:
            await self.woken.wait_for(lambda: self.elapsed >= until)

    async def pass_time(self, seconds: float) -> None:
        """Second by second, with everybody getting their turn."""
        await asyncio.sleep(0)
        for _ in range(int(seconds)):
            async with self.woken:
                self.elapsed += 1
                self.woken.notify_all()
            for _ in range(20):
                await asyncio.sleep(0)

    def leases(self, holder: Holder = US) -> ClusterLeases:
        return ClusterLeases(
            self.server.api(),
            self.now,
            holder=holder,
            monotonic=self.monotonic,
            sleep=self.sleep,
        )

    @property
    def lease(self) -> dict[str, Any] | None:
        return self.server.find("coordination.k8s.io/v1", "leases", "apps", "helmops.web")

    def put(self, holder: Holder | str, renewed: datetime | None = None) -> None:
        """A lease as somebody else left it."""
        spec = {
            "holderIdentity": str(holder),
            "leaseDurationSeconds": 15,
            "renewTime": (renewed or self.now()).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        }
        metadata = {"name": "helmops.web", "namespace": "apps"}
        kind = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease"}
        self.server.put({**kind, "metadata": metadata, "spec": spec})


@pytest.fixture
def world() -> World:
    return World()


async def held(world: World, holder: Holder = US) -> bool:
    """Whether the lease can be had now."""
    try:
        async with world.leases(holder).hold(WEB):
            return True
    except LeaseHeld:
        return False


def test_the_name_is_the_releases() -> None:
    assert lease_name(WEB) == "helmops.web"


async def test_a_held_lease_says_who_and_until_when(world: World) -> None:
    async with world.leases().hold(WEB):
        assert world.lease is not None
        spec = world.lease["spec"]
        assert spec["holderIdentity"] == str(US)
        assert spec["leaseDurationSeconds"] == 15
        assert spec["renewTime"] == "2026-01-05T12:00:00.000000Z"
    assert world.lease is None


async def test_it_is_renewed_every_five_seconds(world: World) -> None:
    async with world.leases().hold(WEB):
        await world.pass_time(11)
        assert world.lease is not None
        assert world.lease["spec"]["renewTime"] == "2026-01-05T12:00:10.000000Z"
        assert world.lease["spec"]["acquireTime"] == "2026-01-05T12:00:00.000000Z"
    assert world.lease is None


# Taking over


async def test_a_foreign_lease_is_free_after_it_was_seen_unchanged_for_its_duration(
    world: World,
) -> None:
    leases = world.leases()

    async def try_it() -> bool:
        try:
            async with leases.hold(WEB):
                return True
        except LeaseHeld:
            return False

    # Its clock is five minutes behind ours, which must not matter.
    behind = START - timedelta(minutes=5)
    world.put(ELSEWHERE, behind)
    assert not await try_it()
    await world.pass_time(10)
    world.put(ELSEWHERE, behind + timedelta(seconds=10))  # renewed
    assert not await try_it()
    await world.pass_time(14)
    assert not await try_it()
    await world.pass_time(1)
    assert await try_it()


async def test_a_lease_that_is_over_for_long_is_free_at_first_sight(world: World) -> None:
    world.put(ELSEWHERE, START - timedelta(seconds=614))
    assert not await held(world)
    world.put(ELSEWHERE, START - timedelta(seconds=616))
    assert await held(world)


async def test_a_dead_process_of_this_machine_holds_nothing(world: World) -> None:
    child = subprocess.Popen(["true"])  # noqa: ASYNC220
    dead = Holder(US.host, US.boot, US.process_namespace, child.pid, "1")
    child.wait()
    world.put(dead)
    assert dead.is_dead()
    assert await held(world)


async def test_a_process_with_an_old_number_and_another_start_is_not_the_holder(
    world: World,
) -> None:
    before = Holder(US.host, US.boot, US.process_namespace, os.getpid(), "1")
    world.put(before)
    assert await held(world)


@pytest.mark.parametrize("field", ["host", "boot", "process_namespace"])
async def test_nobody_is_dead_of_whom_we_cannot_know(world: World, field: str) -> None:
    other = replace(US, pid=2**22 + 1, **{field: "another"})
    assert not other.is_dead()
    world.put(other)
    assert not await held(world)


async def test_a_living_process_keeps_its_lease(world: World) -> None:
    sleeper = subprocess.Popen(["sleep", "60"])  # noqa: ASYNC220
    try:
        living = Holder(US.host, US.boot, US.process_namespace, sleeper.pid, _started(sleeper.pid))
        assert not living.is_dead()
        world.put(living)
        assert not await held(world)
    finally:
        sleeper.kill()
        sleeper.wait()
    assert living.is_dead()


def test_a_zombie_is_dead() -> None:
    child = subprocess.Popen(["true"])
    started = _started(child.pid) or "1"
    holder = Holder(US.host, US.boot, US.process_namespace, child.pid, started)
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert holder.is_dead()
    child.wait()


async def test_what_this_very_process_left_behind_is_taken(world: World) -> None:
    world.put(US)
    assert await held(world)


async def test_another_programs_identity_is_respected(world: World) -> None:
    world.put("somebody-else_1234")
    assert Holder.parse("somebody-else_1234") is None
    assert not await held(world)


def test_an_identity_reads_back() -> None:
    assert Holder.parse(str(US)) == US


async def test_taking_over_counts_and_says_since_when(world: World) -> None:
    world.put("")
    async with world.leases().hold(WEB):
        assert world.lease is not None
        assert world.lease["spec"]["leaseTransitions"] == 1
        assert world.lease["spec"]["acquireTime"] == "2026-01-05T12:00:00.000000Z"


async def test_who_was_faster_between_our_look_and_our_write_wins(world: World) -> None:
    world.put("")
    world.server.answers = [lambda: None, lambda: None, lambda: world.put(ELSEWHERE)]
    with pytest.raises(LeaseHeld, match="faster"):
        async with world.leases().hold(WEB):
            pytest.fail("two hold it")


# Losing it


async def work(world: World, inside: asyncio.Event, done: list[str]) -> None:
    async with world.leases().hold(WEB):
        inside.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            done.append("stopped")
            raise


async def lose(world: World, how: Callable[[], Any]) -> tuple[asyncio.Task[None], list[str]]:
    inside, done = asyncio.Event(), list[str]()
    task = asyncio.create_task(work(world, inside, done))
    await inside.wait()
    how()
    return task, done


async def test_a_lease_that_cannot_be_renewed_stops_the_work_before_others_may_begin(
    world: World,
) -> None:
    def cut() -> None:
        world.server.is_unreachable = True

    task, done = await lose(world, cut)
    await world.pass_time(9)
    assert not task.done()
    await world.pass_time(2)
    with pytest.raises(LeaseHeld, match="could not be renewed in time"):
        await task
    assert done == ["stopped"]
    assert world.elapsed < 15


async def test_a_short_outage_does_no_harm(world: World) -> None:
    def cut() -> None:
        world.server.answers = [ClusterUnreachable("away")]

    task, _ = await lose(world, cut)
    await world.pass_time(30)
    assert not task.done()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert world.lease is None


async def test_a_lease_that_another_took_stops_the_work_and_is_left_to_it(world: World) -> None:
    task, done = await lose(world, lambda: world.put(ELSEWHERE))
    await world.pass_time(6)
    with pytest.raises(LeaseHeld, match="taken the lease over"):
        await task
    assert done == ["stopped"]
    assert world.lease is not None
    assert world.lease["spec"]["holderIdentity"] == str(ELSEWHERE)


async def test_a_lease_that_another_took_unnoticed_is_not_given_back(world: World) -> None:
    async with world.leases().hold(WEB):
        world.put(ELSEWHERE)
    assert world.lease is not None
    assert world.lease["spec"]["holderIdentity"] == str(ELSEWHERE)


async def test_a_lease_that_somebody_annotated_is_still_ours(world: World) -> None:
    def touch() -> None:
        assert world.lease is not None
        world.lease["metadata"]["annotations"] = {"seen": "yes"}
        world.server.put(world.lease)

    task, _ = await lose(world, touch)
    await world.pass_time(12)
    assert not task.done()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert world.lease is None


async def test_a_lease_that_somebody_deleted_is_made_again(world: World) -> None:
    def delete() -> None:
        world.server.remove("coordination.k8s.io/v1", "leases", "apps", "helmops.web")

    task, _ = await lose(world, delete)
    await world.pass_time(6)
    assert world.lease is not None
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_renewal_whose_answer_was_lost_is_no_loss(world: World) -> None:
    """The server had done it, so our version is old; the lease is ours all the same."""

    def renew_behind_our_back() -> None:
        assert world.lease is not None
        world.server.put(world.lease)

    task, _ = await lose(world, renew_behind_our_back)
    # The task ends before it learns the new version: giving back must find it out.
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert world.lease is None


async def test_work_that_overhears_its_cancellation_is_not_a_success(world: World) -> None:
    async def deaf() -> None:
        async with world.leases().hold(WEB):
            world.put(ELSEWHERE)
            with contextlib.suppress(asyncio.CancelledError):
                await world.pass_time(6)

    with pytest.raises(LeaseHeld):
        await deaf()
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


async def test_somebody_elses_cancellation_goes_on_when_the_lease_is_lost_too(
    world: World,
) -> None:
    async def cancelled_twice() -> None:
        async with world.leases().hold(WEB):
            world.put(ELSEWHERE)
            try:
                await world.pass_time(6)
            except asyncio.CancelledError:
                task = asyncio.current_task()
                assert task is not None
                task.cancel()
                raise

    task = asyncio.create_task(cancelled_twice())
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_an_error_of_the_work_is_what_is_raised(world: World) -> None:
    with pytest.raises(ObjectConflict):
        async with world.leases().hold(WEB):
            raise ObjectConflict("something")
    assert world.lease is None


async def test_a_lease_that_cannot_be_given_back_is_no_error(world: World) -> None:
    async with world.leases().hold(WEB):
        world.server.answers = [Answer(500, {}, b"")] * 9
    assert world.lease is not None
