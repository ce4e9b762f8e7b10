"""What happens every so often, or at a time. Jobs only wake a key: the work is the queue's.

On APScheduler 3.11, whose habits decide how it is used (seen with 3.11.3): by default a job that
is more than a second late is left out for a whole interval, so `misfire_grace_time=None`; a job
that is no coroutine function goes through a thread; stopping the scheduler cancels running jobs,
so nothing of worth runs inside one; the first run has no jitter, so we say when it is.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Generic, TypeVar

from apscheduler.jobstores.base import JobLookupError
from apscheduler.schedulers.asyncio import AsyncIOScheduler
from apscheduler.triggers.date import DateTrigger
from apscheduler.triggers.interval import IntervalTrigger

from helmops.reconcile.ports import Clock

Key = TypeVar("Key", bound=Hashable)

#: A shorter interval would be a busy loop.
SHORTEST = timedelta(seconds=1)


@dataclass(frozen=True, slots=True)
class _Job:
    handle: Any
    interval: timedelta | None
    jitter: timedelta | None


class Scheduler(Generic[Key]):
    """Calls `wake(key, reason)` in the event loop. `random` gives numbers from 0 to 1.

    Each key has at most one job per reason: giving another one replaces it.
    """

    def __init__(
        self,
        wake: Callable[[Key, str], None],
        *,
        clock: Clock,
        random: Callable[[], float],
    ) -> None:
        self._wake = wake
        self._clock = clock
        self._random = random
        self._jobs: dict[Key, dict[str, _Job]] = {}
        self._scheduler = AsyncIOScheduler(
            timezone=UTC,
            job_defaults={"misfire_grace_time": None, "coalesce": True, "max_instances": 1},
        )

    def start(self) -> None:
        """Begin; the event loop must be running. Jobs may be given before."""
        self._scheduler.start()

    def stop(self) -> None:
        """Wake nobody any more."""
        if self._scheduler.running:
            self._scheduler.shutdown(wait=False)

    def every(
        self,
        key: Key,
        interval: timedelta,
        *,
        jitter: timedelta | None = None,
        reason: str = "interval",
    ) -> None:
        """Wake a key every `interval`, each time up to `jitter` later (a tenth by default).

        The first time comes at random within one interval, so that many keys that are given at
        once do not come at once. The same interval again leaves the rhythm as it is.
        """
        interval = max(interval, SHORTEST)
        jitter = interval / 10 if jitter is None else jitter
        before = self._jobs.get(key, {}).get(reason)
        if before is not None and (before.interval, before.jitter) == (interval, jitter):
            return
        trigger = IntervalTrigger(
            seconds=interval.total_seconds(),
            jitter=jitter.total_seconds() or None,
            start_date=self._clock.now(),
            timezone=UTC,
        )
        first = self._clock.now() + interval * self._random()
        self._add(key, reason, trigger, first, interval, jitter)

    def at(self, key: Key, time: datetime, reason: str) -> None:
        """Wake a key once. A time that has passed is now."""
        self._add(key, reason, DateTrigger(time, UTC), time, None, None)

    def remove(self, key: Key, reason: str | None = None) -> None:
        """Wake a key no more: not for that reason, or for none at all."""
        jobs = self._jobs.get(key, {})
        for name in [reason] if reason is not None else list(jobs):
            if (job := jobs.pop(name, None)) is not None:
                self._drop(job)
        if not jobs:
            self._jobs.pop(key, None)

    def next_time(self, key: Key, reason: str = "interval") -> datetime | None:
        """When a key is woken next for that reason, or None."""
        job = self._jobs.get(key, {}).get(reason)
        if job is None:
            return None
        time: datetime | None = job.handle.next_run_time
        return time

    def _add(
        self,
        key: Key,
        reason: str,
        trigger: object,
        first: datetime,
        interval: timedelta | None,
        jitter: timedelta | None,
    ) -> None:
        self.remove(key, reason)
        handle = self._scheduler.add_job(
            self._enqueue, trigger, args=(key, reason), next_run_time=first
        )
        self._jobs.setdefault(key, {})[reason] = _Job(handle, interval, jitter)

    @staticmethod
    def _drop(job: _Job) -> None:
        # An appointment that was kept is gone by itself.
        with contextlib.suppress(JobLookupError):
            job.handle.remove()

    async def _enqueue(self, key: Key, reason: str) -> None:
        job = self._jobs.get(key, {}).get(reason)
        if job is None:
            return  # removed while it was on its way
        if job.interval is None:
            self.remove(key, reason)
        self._wake(key, reason)
