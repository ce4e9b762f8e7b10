"""The work queue: which key runs when.

What it promises:

- a key never runs twice at once, and at most `concurrency` keys run at the same time;
- every wake-up is followed by a run that *starts* after it. Wake-ups that come while a key waits
  are one run; one that comes while the key runs makes it run again;
- a key that failed comes again after a back-off with full jitter, or earlier when it is woken;
- runs do not inherit the logging context (contextvars) of whoever woke them.

Not thread-safe: everything is called from the event loop's thread.
"""

from __future__ import annotations

import asyncio
import contextvars
import heapq
from collections.abc import Callable, Coroutine, Hashable
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Generic, TypeVar

from helmops.decide.backoff import backoff
from helmops.reconcile.ports import Clock

Key = TypeVar("Key", bound=Hashable)

#: The longest sleep in one piece, in seconds: a clock that was set forward is noticed after that.
_LONGEST_SLEEP = 60.0

#: A run that asked to come back at a time starts up to this part of the wait later, so that many
#: that failed together do not come back together.
_SPREAD = 0.1

#: Nothing comes back by itself sooner than that: a run that asks for a moment that has passed, or
#: jitter that comes out as nothing, must not turn into a busy loop.
_SOONEST = timedelta(seconds=0.2)

#: How much of the grace period is left for runs to end after they were cancelled.
_CANCEL_SHARE = 0.2
_CANCEL_AT_MOST = timedelta(seconds=5)


@dataclass(frozen=True, slots=True)
class ComeBack:
    """What a run returns when it is not through: run the key again at `at` (or a little later).

    Without `at` it is a failure: the key comes again after a back-off that grows with each failure
    in a row.
    """

    why: str
    at: datetime | None = None


#: One run: the key, and why it was woken, each reason once, in the order of waking.
Work = Callable[[Key, tuple[str, ...]], Coroutine[Any, Any, ComeBack | None]]


class WorkQueue(Generic[Key]):
    """Runs `work` for keys that were woken, from `start` to `stop`.

    An exception out of `work` is handed to `on_error` and counts as a failure. `random` gives
    numbers from 0 to 1, `cap` is the longest back-off.
    """

    def __init__(
        self,
        work: Work[Key],
        *,
        clock: Clock,
        random: Callable[[], float],
        on_error: Callable[[Key, BaseException], None],
        concurrency: int = 8,
        cap: timedelta = timedelta(minutes=5),
    ) -> None:
        if concurrency < 1:
            raise ValueError("a queue that runs nothing at once never runs anything")
        self._work = work
        self._clock = clock
        self._random = random
        self._on_error = on_error
        self._concurrency = concurrency
        self._cap = cap
        self._context: contextvars.Context | None = None
        self._is_stopping = False
        self._idle = asyncio.Event()
        self._idle.set()
        # Dicts as ordered sets: keys in the order of waking, and of each key its reasons.
        self._ready: dict[Key, dict[str, None]] = {}
        self._again: dict[Key, dict[str, None]] = {}
        self._running: dict[Key, asyncio.Task[ComeBack | None]] = {}
        self._failures: dict[Key, int] = {}
        # Timers by due time. A `_Timer` that is a plan is void once its key runs or plans anew.
        self._timers: list[_Timer[Key]] = []
        self._plans: dict[Key, _Timer[Key]] = {}
        self._appointments = 0
        self._sequence = 0
        self._ticking: asyncio.Task[None] | None = None

    @property
    def depth(self) -> int:
        """How many keys wait for their turn now."""
        return len(self._ready)

    @property
    def running(self) -> tuple[Key, ...]:
        """The keys that run now."""
        return tuple(self._running)

    @property
    def delayed(self) -> int:
        """How many keys come back by themselves later."""
        return len(self._plans)

    def due(self, key: Key) -> datetime | None:
        """When a key that asked to come back does so, or None."""
        plan = self._plans.get(key)
        return plan.at if plan else None

    def start(self) -> None:
        """Begin to run keys, those included that were woken before."""
        self._context = contextvars.copy_context()
        self._start_ready()
        self._set_timer()

    def wake(self, key: Key, reason: str) -> None:
        """Run a key as soon as it is its turn."""
        if self._is_stopping:
            return
        waiting = self._again if key in self._running else self._ready
        waiting.setdefault(key, {})[reason] = None
        self._idle.clear()
        self._start_ready()

    def wake_at(self, key: Key, at: datetime, reason: str) -> None:
        """Wake a key at a time; one that is past is now. Whatever happens before, it is woken."""
        if at <= self._clock.now():
            self.wake(key, reason)
        elif not self._is_stopping:
            self._add_timer(key, at, reason)

    def forget(self, key: Key) -> None:
        """Drop all wake-ups and failures of a key. A run under way goes on, and what it returns
        counts.
        """
        self._ready.pop(key, None)
        self._again.pop(key, None)
        self._failures.pop(key, None)
        self._plans.pop(key, None)
        self._keep(lambda timer: timer.key != key)
        self._note_idle()

    async def idle(self) -> None:
        """Wait until no key runs or waits for its turn; those that come back later do not count."""
        await self._idle.wait()

    async def stop(self, grace: timedelta) -> tuple[Key, ...]:
        """Start nothing more, let what runs end, and cancel what still runs late in `grace`.

        Returns the keys that were cancelled. Returns within `grace`, whatever the runs do.
        """
        self._is_stopping = True
        if self._ticking is not None:
            self._ticking.cancel()
        self._ready.clear()
        self._again.clear()
        self._note_idle()
        for_cancelling = min(grace * _CANCEL_SHARE, _CANCEL_AT_MOST)
        await self._ended_within(grace - for_cancelling)
        cut_off = self.running
        for task in self._running.values():
            task.cancel()
        await self._ended_within(for_cancelling)
        return cut_off

    async def _ended_within(self, limit: timedelta) -> None:
        if not self._running:
            return
        ended = asyncio.ensure_future(self._idle.wait())
        # Cancelled runs get their turn even where no time is left.
        late = asyncio.ensure_future(self._clock.sleep(limit.total_seconds()))
        try:
            await asyncio.wait({ended, late}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            ended.cancel()
            late.cancel()

    def _start_ready(self) -> None:
        if self._context is None or self._is_stopping:
            return
        while self._ready and len(self._running) < self._concurrency:
            key = next(iter(self._ready))
            reasons = tuple(self._ready.pop(key))
            self._plans.pop(key, None)
            task = self._spawn(self._work(key, reasons))
            self._running[key] = task
            task.add_done_callback(partial(self._ended, key))

    def _ended(self, key: Key, task: asyncio.Task[ComeBack | None]) -> None:
        del self._running[key]
        if task.cancelled():
            # By `stop`; or from inside, by something that should have said what happened.
            result: ComeBack | None = ComeBack("cancelled")
        elif error := task.exception():
            self._on_error(key, error)
            result = ComeBack(str(error) or type(error).__name__)
        else:
            result = task.result()
        if not self._is_stopping:
            self._plan(key, result)
            if key in self._again:
                self._ready[key] = self._again.pop(key)
            self._start_ready()
        self._note_idle()

    def _plan(self, key: Key, result: ComeBack | None) -> None:
        if result is None:
            self._failures.pop(key, None)
            return
        now = self._clock.now()
        if result.at is not None:
            self._failures.pop(key, None)
            wait = result.at - now
            wait += wait * _SPREAD * self._random()
        else:
            failures = self._failures[key] = self._failures.get(key, 0) + 1
            wait = backoff(failures, cap=self._cap) * self._random()
        self._add_timer(key, now + max(wait, _SOONEST), result.why, is_plan=True)

    def _add_timer(self, key: Key, at: datetime, reason: str, *, is_plan: bool = False) -> None:
        self._sequence += 1
        timer = _Timer(at, self._sequence, key, reason, is_plan)
        heapq.heappush(self._timers, timer)
        if is_plan:
            self._plans[key] = timer
        else:
            self._appointments += 1
        if len(self._timers) > 64 + 2 * (len(self._plans) + self._appointments):
            self._keep(self._is_valid)
        if self._timers[0] is timer:
            self._set_timer()

    def _keep(self, wanted: Callable[[_Timer[Key]], bool]) -> None:
        self._timers = [timer for timer in self._timers if wanted(timer)]
        heapq.heapify(self._timers)
        self._appointments = sum(not timer.is_plan for timer in self._timers)

    def _is_valid(self, timer: _Timer[Key]) -> bool:
        return not timer.is_plan or self._plans.get(timer.key) is timer

    def _set_timer(self) -> None:
        if self._ticking is not None:
            self._ticking.cancel()
            self._ticking = None
        if self._timers and self._context is not None and not self._is_stopping:
            self._ticking = self._spawn(self._tick())

    async def _tick(self) -> None:
        while self._timers:
            wait = (self._timers[0].at - self._clock.now()).total_seconds()
            if wait > 0:
                await self._clock.sleep(min(wait, _LONGEST_SLEEP))
                continue
            timer = heapq.heappop(self._timers)
            self._appointments -= not timer.is_plan
            if self._is_valid(timer):
                self.wake(timer.key, timer.reason)

    def _spawn(self, work: Coroutine[Any, Any, _Result]) -> asyncio.Task[_Result]:
        context = self._context.copy() if self._context is not None else None
        return asyncio.get_running_loop().create_task(work, context=context)

    def _note_idle(self) -> None:
        if not self._ready and not self._running:
            self._idle.set()


_Result = TypeVar("_Result")


@dataclass(slots=True, order=False)
class _Timer(Generic[Key]):
    at: datetime
    sequence: int
    key: Key
    reason: str
    is_plan: bool

    def __lt__(self, other: _Timer[Key]) -> bool:
        return (self.at, self.sequence) < (other.at, other.sequence)
