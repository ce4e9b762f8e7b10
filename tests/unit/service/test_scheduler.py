from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest

from helmops.model.releases import DeclarationKey
from helmops.service.clock import SystemClock
from helmops.service.scheduler import Scheduler

A, B = DeclarationKey("ns", "a"), DeclarationKey("ns", "b")
HOUR = timedelta(hours=1)


class Woken:
    def __init__(self) -> None:
        self.calls: asyncio.Queue[tuple[DeclarationKey, str]] = asyncio.Queue()

    def __call__(self, key: DeclarationKey, reason: str) -> None:
        self.calls.put_nowait((key, reason))

    async def next(self) -> tuple[DeclarationKey, str]:
        return await asyncio.wait_for(self.calls.get(), 30)


@pytest.fixture
def woken() -> Woken:
    return Woken()


def make(woken: Woken, random: float = 0.5) -> Scheduler[DeclarationKey]:
    return Scheduler(woken, clock=SystemClock(), random=lambda: random)


@pytest.fixture
async def scheduler(woken: Woken) -> AsyncIterator[Scheduler[DeclarationKey]]:
    scheduler = make(woken)
    scheduler.start()
    yield scheduler
    scheduler.stop()
    await asyncio.sleep(0)


async def test_the_first_time_is_spread_over_one_interval(woken: Woken) -> None:
    now = SystemClock().now()
    for random, earliest in ((0.0, timedelta()), (0.5, HOUR / 2), (1.0, HOUR)):
        scheduler = make(woken, random)
        scheduler.every(A, HOUR)
        first = scheduler.next_time(A)
        assert first is not None
        assert earliest <= first - now < earliest + timedelta(minutes=1)


async def test_a_key_is_woken_again_and_again(woken: Woken) -> None:
    scheduler = make(woken, random=0.0)
    scheduler.start()
    scheduler.every(A, timedelta(seconds=1), jitter=timedelta())
    assert [await woken.next(), await woken.next()] == [(A, "interval"), (A, "interval")]
    scheduler.stop()


async def test_each_later_time_is_an_interval_and_up_to_the_jitter_later(woken: Woken) -> None:
    scheduler = make(woken, random=0.0)
    scheduler.start()
    scheduler.every(A, HOUR, jitter=timedelta(minutes=1))
    first = scheduler.next_time(A)
    await woken.next()
    second = scheduler.next_time(A)
    assert first is not None
    assert second is not None
    assert HOUR <= second - first <= HOUR + timedelta(minutes=1)
    scheduler.stop()


async def test_a_rhythm_that_is_given_again_stays(scheduler: Scheduler[DeclarationKey]) -> None:
    scheduler.every(A, HOUR)
    before = scheduler.next_time(A)
    scheduler.every(A, HOUR)
    assert scheduler.next_time(A) == before
    scheduler.every(A, timedelta(minutes=1))
    after = scheduler.next_time(A)
    assert after is not None
    assert after - SystemClock().now() <= timedelta(minutes=1)


async def test_an_appointment_is_kept_once_and_no_time_is_left_of_it(
    scheduler: Scheduler[DeclarationKey], woken: Woken
) -> None:
    scheduler.at(A, SystemClock().now() - HOUR, "window opens")
    assert await woken.next() == (A, "window opens")
    assert scheduler.next_time(A, "window opens") is None


async def test_another_time_for_the_same_reason_replaces_the_first(
    scheduler: Scheduler[DeclarationKey], woken: Woken
) -> None:
    later = SystemClock().now() + HOUR
    scheduler.at(A, SystemClock().now() + HOUR / 2, "window opens")
    scheduler.at(A, later, "window opens")
    assert scheduler.next_time(A, "window opens") == later
    assert len(scheduler._scheduler.get_jobs()) == 1


async def test_a_removed_key_is_not_woken_and_others_are(
    scheduler: Scheduler[DeclarationKey], woken: Woken
) -> None:
    scheduler.at(A, SystemClock().now(), "window opens")
    scheduler.every(A, HOUR)
    scheduler.remove(A)
    scheduler.remove(A)
    scheduler.at(B, SystemClock().now(), "window opens")
    assert await woken.next() == (B, "window opens")
    assert scheduler.next_time(A) is None
    assert scheduler._scheduler.get_jobs() == []


async def test_one_reason_is_removed_without_the_others(
    scheduler: Scheduler[DeclarationKey],
) -> None:
    scheduler.every(A, HOUR)
    scheduler.at(A, SystemClock().now() + HOUR, "window opens")
    scheduler.remove(A, "window opens")
    assert scheduler.next_time(A, "window opens") is None
    assert scheduler.next_time(A) is not None


async def test_a_job_that_is_much_too_late_is_not_left_out(
    scheduler: Scheduler[DeclarationKey], woken: Woken
) -> None:
    scheduler.every(A, HOUR)
    job = scheduler._jobs[A]["interval"].handle
    job.modify(next_run_time=SystemClock().now() - timedelta(minutes=59))
    assert await woken.next() == (A, "interval")


async def test_an_interval_of_nothing_is_no_busy_loop(
    scheduler: Scheduler[DeclarationKey],
) -> None:
    scheduler.every(A, timedelta())
    assert scheduler._jobs[A]["interval"].interval == timedelta(seconds=1)


async def test_jobs_run_in_the_event_loop_and_not_in_a_thread(
    scheduler: Scheduler[DeclarationKey], monkeypatch: pytest.MonkeyPatch, woken: Woken
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("a thread was used")

    monkeypatch.setattr(asyncio.get_running_loop(), "run_in_executor", refuse)
    scheduler.at(A, SystemClock().now(), "now")
    assert await woken.next() == (A, "now")


async def test_stopping_twice_or_unstarted_is_no_error(woken: Woken) -> None:
    scheduler = make(woken)
    scheduler.stop()
    scheduler.start()
    scheduler.stop()
    await asyncio.sleep(0)
    scheduler.stop()
