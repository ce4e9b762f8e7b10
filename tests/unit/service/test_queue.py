from __future__ import annotations

import asyncio
import contextvars
import itertools
from collections.abc import AsyncIterator, Callable
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helmops.model.releases import DeclarationKey
from helmops.service.queue import ComeBack, WorkQueue

A, B, C = (DeclarationKey("ns", name) for name in "abc")


class Workshop:
    """A queue and what happened in it. Runs of a key in `held` last until they are let go."""

    def __init__(self, clock: Any, *, random: float = 1.0, concurrency: int = 8) -> None:
        self.clock = clock
        self.started: list[tuple[DeclarationKey, tuple[str, ...]]] = []
        self.finished: list[DeclarationKey] = []
        self.errors: list[tuple[DeclarationKey, BaseException]] = []
        self.gates: dict[DeclarationKey, asyncio.Event] = {}
        self.answers: dict[DeclarationKey, Callable[[], ComeBack | None]] = {}
        self.queue = WorkQueue(
            self.work,
            clock=clock,
            random=lambda: random,
            on_error=lambda key, error: self.errors.append((key, error)),
            concurrency=concurrency,
            cap=timedelta(seconds=10),
        )

    async def work(self, key: DeclarationKey, reasons: tuple[str, ...]) -> ComeBack | None:
        self.started.append((key, reasons))
        if key in self.gates:
            await self.gates[key].wait()
        answer = self.answers.get(key, lambda: None)()
        self.finished.append(key)
        return answer

    def hold(self, *keys: DeclarationKey) -> None:
        self.gates.update({key: asyncio.Event() for key in keys})

    def let_go(self, key: DeclarationKey) -> None:
        self.gates.pop(key).set()

    @property
    def starts(self) -> list[DeclarationKey]:
        return [key for key, _ in self.started]


@pytest.fixture
async def shop(clock: Any) -> AsyncIterator[Workshop]:
    shop = Workshop(clock)
    shop.queue.start()
    yield shop
    await asyncio.gather(shop.queue.stop(timedelta()), clock.step())


async def test_a_woken_key_runs_with_the_reason(shop: Workshop) -> None:
    shop.queue.wake(A, "file changed")
    await shop.clock.step()
    assert shop.started == [(A, ("file changed",))]


async def test_wake_ups_before_the_turn_are_one_run_with_each_reason_once(clock: Any) -> None:
    shop = Workshop(clock)
    for reason in ("file changed", "interval", "file changed"):
        shop.queue.wake(A, reason)
    assert shop.queue.depth == 1
    shop.queue.start()
    await clock.step()
    assert shop.started == [(A, ("file changed", "interval"))]


async def test_a_key_woken_while_it_runs_runs_again_afterwards_and_only_once(
    shop: Workshop,
) -> None:
    shop.hold(A)
    shop.queue.wake(A, "first")
    await shop.clock.step()
    shop.queue.wake(A, "second")
    shop.queue.wake(A, "third")
    await shop.clock.step()
    assert shop.starts == [A]
    shop.let_go(A)
    await shop.clock.step()
    assert shop.started == [(A, ("first",)), (A, ("second", "third"))]


async def test_a_key_that_wakes_itself_runs_again(shop: Workshop) -> None:
    def answer() -> None:
        if len(shop.started) == 1:
            shop.queue.wake(A, "myself")

    shop.answers[A] = answer
    shop.queue.wake(A, "first")
    await shop.clock.step()
    assert shop.started == [(A, ("first",)), (A, ("myself",))]


async def test_no_more_than_allowed_run_at_once_and_the_rest_in_order(clock: Any) -> None:
    shop = Workshop(clock, concurrency=2)
    shop.queue.start()
    shop.hold(A, B, C)
    for key in (A, B, C):
        shop.queue.wake(key, "go")
    await clock.step()
    assert shop.starts == [A, B]
    assert set(shop.queue.running) == {A, B}
    assert shop.queue.depth == 1
    shop.let_go(B)
    await clock.step()
    assert shop.starts == [A, B, C]
    shop.let_go(A)
    shop.let_go(C)
    await shop.queue.idle()


async def test_a_delayed_key_runs_at_its_time_and_not_before(shop: Workshop) -> None:
    shop.queue.wake_at(A, shop.clock.now() + timedelta(seconds=100), "later")
    await shop.clock.step(99)
    assert shop.started == []
    await shop.clock.step(1)
    assert shop.started == [(A, ("later",))]


async def test_a_time_that_has_passed_is_now(shop: Workshop) -> None:
    shop.queue.wake_at(A, shop.clock.now() - timedelta(days=1), "late")
    await shop.clock.step()
    assert shop.starts == [A]


async def test_an_earlier_appointment_does_not_wait_for_a_later_one(shop: Workshop) -> None:
    for seconds, key in ((50, A), (10, B), (30, C)):
        shop.queue.wake_at(key, shop.clock.now() + timedelta(seconds=seconds), "")
    await shop.clock.step(60)
    assert shop.starts == [B, C, A]


async def test_an_appointment_is_kept_although_the_key_ran_before(shop: Workshop) -> None:
    shop.queue.wake_at(A, shop.clock.now() + timedelta(seconds=10), "appointment")
    shop.queue.wake(A, "now")
    await shop.clock.step(10)
    assert shop.started == [(A, ("now",)), (A, ("appointment",))]


async def test_a_failing_key_comes_back_after_longer_and_longer_times_up_to_the_cap(
    shop: Workshop,
) -> None:
    times = []

    def fail() -> None:
        times.append(shop.clock.now())
        raise RuntimeError("no")

    shop.answers[A] = fail
    shop.queue.wake(A, "go")
    await shop.clock.step(60)
    waits = [(b - a).total_seconds() for a, b in itertools.pairwise(times)]
    assert waits[:6] == [1, 2, 4, 8, 10, 10]
    assert [str(error) for _, error in shop.errors[:1]] == ["no"]


async def test_the_back_off_has_full_jitter(clock: Any) -> None:
    shop = Workshop(clock, random=0.5)
    shop.queue.start()
    shop.answers[A] = lambda: ComeBack("no answer")
    shop.queue.wake(A, "go")
    await clock.step()
    assert shop.queue.due(A) == clock.now() + timedelta(seconds=0.5)
    await clock.step(0.5)
    assert shop.started[-1] == (A, ("no answer",))
    assert shop.queue.due(A) == clock.now() + timedelta(seconds=1)


async def test_success_ends_the_back_off(shop: Workshop) -> None:
    answers = [ComeBack("no"), ComeBack("no"), None, ComeBack("no")]
    shop.answers[A] = lambda: answers.pop(0)
    shop.queue.wake(A, "go")
    await shop.clock.step(3)
    assert answers == [ComeBack("no")]
    shop.queue.wake(A, "again")
    await shop.clock.step()
    assert shop.queue.due(A) == shop.clock.now() + timedelta(seconds=1)


async def test_a_wake_up_does_not_wait_for_the_back_off_and_makes_it_void(shop: Workshop) -> None:
    answers: list[ComeBack | None] = [ComeBack("no"), None]
    shop.answers[A] = lambda: answers.pop(0)
    shop.queue.wake(A, "go")
    await shop.clock.step()
    assert shop.queue.delayed == 1
    shop.queue.wake(A, "the source changed")
    await shop.clock.step(100)
    assert shop.started == [(A, ("go",)), (A, ("the source changed",))]
    assert shop.queue.delayed == 0


async def test_a_run_may_say_when_it_comes_back_and_many_of_them_are_spread(clock: Any) -> None:
    shop = Workshop(clock, random=0.5)
    shop.queue.start()
    at = clock.now() + timedelta(seconds=100)
    shop.answers[A] = lambda: ComeBack("watching", at=at) if len(shop.started) == 1 else None
    shop.queue.wake(A, "go")
    await clock.step(100)
    assert shop.starts == [A]
    await clock.step(5)
    assert shop.started == [(A, ("go",)), (A, ("watching",))]


async def test_a_run_that_keeps_asking_for_the_past_does_not_run_all_the_time(
    shop: Workshop,
) -> None:
    shop.answers[A] = lambda: ComeBack("now!", at=shop.clock.now() - timedelta(hours=1))
    shop.queue.wake(A, "go")
    await shop.clock.step(1)
    assert len(shop.started) == 6


async def test_a_run_that_was_cancelled_from_inside_comes_back(shop: Workshop) -> None:
    def cancel() -> None:
        if len(shop.started) == 1:
            raise asyncio.CancelledError

    shop.answers[A] = cancel
    shop.queue.wake(A, "go")
    await shop.clock.step(1)
    assert shop.started == [(A, ("go",)), (A, ("cancelled",))]


async def test_a_forgotten_key_does_not_come_back(shop: Workshop) -> None:
    shop.answers[A] = lambda: ComeBack("no")
    shop.queue.wake(A, "go")
    await shop.clock.step()
    shop.queue.wake_at(A, shop.clock.now() + timedelta(seconds=1), "later")
    shop.queue.wake_at(B, shop.clock.now() + timedelta(seconds=1), "later")
    shop.queue.forget(A)
    await shop.clock.step(100)
    assert shop.starts == [A, B]


async def test_voided_plans_do_not_pile_up(shop: Workshop) -> None:
    shop.answers[A] = lambda: ComeBack("watching", at=shop.clock.now() + timedelta(days=1))
    for _ in range(500):
        shop.queue.wake(A, "go")
        await shop.clock.step()
    assert len(shop.queue._timers) < 100
    assert shop.queue.due(A) is not None


async def test_a_clock_that_was_set_forward_is_noticed_within_a_minute(shop: Workshop) -> None:
    shop.queue.wake_at(A, shop.clock.now() + timedelta(hours=5), "later")
    await shop.clock.step(1)
    shop.clock._now += timedelta(hours=5)
    await shop.clock.step(60)
    assert shop.starts == [A]


async def test_runs_do_not_inherit_the_context_of_whoever_woke_them(shop: Workshop) -> None:
    release: contextvars.ContextVar[str] = contextvars.ContextVar("release", default="none")
    seen: list[str] = []
    shop.answers[A] = lambda: (release.set("a"), shop.queue.wake(B, "dependency"), None)[-1]
    shop.answers[B] = lambda: seen.append(release.get())
    shop.queue.wake(A, "go")
    await shop.clock.step()
    assert seen == ["none"]


async def test_idle_waits_for_what_runs_and_what_waits_but_not_for_what_comes_back(
    clock: Any,
) -> None:
    shop = Workshop(clock, concurrency=1)
    shop.queue.start()
    await shop.queue.idle()
    shop.hold(A)
    shop.answers[B] = lambda: ComeBack("no")
    shop.queue.wake(A, "go")
    shop.queue.wake(B, "go")
    waiting = asyncio.create_task(shop.queue.idle())
    await clock.step()
    assert not waiting.done()
    shop.let_go(A)
    await clock.step()
    assert waiting.done()
    assert shop.finished == [A, B]


async def test_stopping_starts_nothing_and_lets_what_runs_end(shop: Workshop) -> None:
    shop.hold(A)
    shop.queue.wake(A, "go")
    await shop.clock.step()
    shop.queue.wake(A, "again")
    stopping = asyncio.create_task(shop.queue.stop(timedelta(seconds=30)))
    await shop.clock.step(10)
    shop.queue.wake(B, "too late")
    shop.queue.wake_at(C, shop.clock.now() + timedelta(seconds=1), "too late")
    assert not stopping.done()
    shop.let_go(A)
    await shop.clock.step()
    assert await stopping == ()
    await shop.clock.step(100)
    assert (shop.starts, shop.finished) == ([A], [A])


async def test_stopping_cancels_what_still_runs_before_the_grace_period_ends(
    shop: Workshop,
) -> None:
    cleaned: list[DeclarationKey] = []
    shop.hold(A, B)

    async def clean_up_slowly(key: DeclarationKey, reasons: tuple[str, ...]) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await shop.clock.sleep(1)
            cleaned.append(key)

    shop.queue._work = clean_up_slowly
    shop.queue.wake(A, "go")
    shop.queue.wake(B, "go")
    await shop.clock.step()
    stopping = asyncio.create_task(shop.queue.stop(timedelta(seconds=30)))
    await shop.clock.step(24)
    assert shop.queue.running == (A, B)
    await shop.clock.step(1.5)
    assert cleaned == []
    await shop.clock.step(1)
    assert cleaned == [A, B]
    assert await stopping == (A, B)


async def test_stopping_returns_in_time_although_a_run_does_not_end(shop: Workshop) -> None:
    release = asyncio.Event()

    async def stubborn(key: DeclarationKey, reasons: tuple[str, ...]) -> None:
        while not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                continue

    shop.queue._work = stubborn
    shop.queue.wake(A, "go")
    await shop.clock.step()
    stopping = asyncio.create_task(shop.queue.stop(timedelta(seconds=30)))
    await shop.clock.step(30)
    assert stopping.done()
    release.set()
    await shop.clock.step()


async def test_a_queue_for_nothing_at_once_is_refused(clock: Any) -> None:
    with pytest.raises(ValueError, match="nothing at once"):
        Workshop(clock, concurrency=0)


KEYS = st.sampled_from([A, B, C])
ENDS = st.sampled_from(["settled", "failed", "raised", "comes back", "wakes itself", "cancelled"])
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("wake"), KEYS),
        st.tuples(st.just("wake at"), KEYS, st.integers(-5, 30)),
        st.tuples(st.just("step"), st.integers(0, 20)),
    ),
    max_size=30,
)


@settings(max_examples=150, deadline=None)
@given(
    steps=STEPS,
    runs=st.lists(st.tuples(st.integers(0, 15), ENDS), max_size=40),
    concurrency=st.integers(1, 3),
    jitter=st.sampled_from([0.0, 0.3, 1.0]),
)
def test_no_key_runs_twice_at_once_and_no_wake_up_is_lost(
    clock_class: type,
    steps: list[tuple[Any, ...]],
    runs: list[tuple[int, str]],
    concurrency: int,
    jitter: float,
) -> None:
    """Whatever is woken and however runs end: each wake-up has a run that starts after it."""
    asyncio.run(_live(clock_class(), steps, list(runs), concurrency, jitter))


async def _live(
    clock: Any,
    steps: list[tuple[Any, ...]],
    runs: list[tuple[int, str]],
    concurrency: int,
    jitter: float,
) -> None:
    running: set[DeclarationKey] = set()
    order = itertools.count()
    starts: list[tuple[int, DeclarationKey, datetime, tuple[str, ...]]] = []
    woken: list[tuple[int, DeclarationKey, datetime, str]] = []

    async def work(key: DeclarationKey, reasons: tuple[str, ...]) -> ComeBack | None:
        assert key not in running
        running.add(key)
        assert len(running) <= concurrency
        starts.append((next(order), key, clock.now(), reasons))
        seconds, end = runs.pop(0) if runs else (0, "settled")
        try:
            await clock.sleep(seconds)
            match end:
                case "failed":
                    return ComeBack("failed")
                case "raised":
                    raise RuntimeError("raised")
                case "comes back":
                    return ComeBack("comes back", at=clock.now() + timedelta(seconds=3))
                case "wakes itself":
                    wake(key)
                case "cancelled":
                    raise asyncio.CancelledError
            return None
        finally:
            running.discard(key)

    queue = WorkQueue(
        work,
        clock=clock,
        random=lambda: jitter,
        on_error=lambda key, error: None,
        concurrency=concurrency,
        cap=timedelta(seconds=8),
    )

    def wake(key: DeclarationKey, seconds: int | None = None) -> None:
        number = next(order)
        reason = f"wake-up {number}"
        due = clock.now() + timedelta(seconds=seconds or 0)
        woken.append((number, key, due, reason))
        if seconds is None:
            queue.wake(key, reason)
        else:
            queue.wake_at(key, due, reason)

    for index, step in enumerate(steps):
        if index == 3:
            queue.start()
        match step:
            case ("wake", key):
                wake(key)
            case ("wake at", key, seconds):
                wake(key, seconds)
            case ("step", seconds):
                await clock.step(seconds)
    if len(steps) <= 3:
        queue.start()
    await clock.step(3600)

    for number, key, due, reason in woken:
        assert any(
            started > number and at >= due and reason in reasons
            for started, started_key, at, reasons in starts
            if started_key == key
        ), f"{reason} of {key} was lost"
    assert not running
    assert queue.depth == queue.delayed == 0
    assert await queue.stop(timedelta()) == ()
