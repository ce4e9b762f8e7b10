"""When a source that fails is asked again: later and later, and not before it said so."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Generic, TypeVar

from helmops.decide.backoff import backoff
from helmops.reconcile.ports import Clock

Key = TypeVar("Key", bound=Hashable)

#: No server is believed that wants to be left alone for longer.
LONGEST_RETRY_AFTER = timedelta(hours=1)

#: How much later than the server's Retry-After we come at most, as a part of it: all its other
#: clients come at that very moment.
_SPREAD = 0.1


@dataclass(frozen=True, slots=True)
class Failing:
    """A source that failed `failures` times in a row and is not asked before `not_before`."""

    failures: int
    not_before: datetime


def after_failure(
    before: Failing | None,
    *,
    now: datetime,
    random: float,
    cap: timedelta,
    retry_after: float | None = None,
) -> Failing:
    """The state after one more failure.

    `random` is a number from 0 to 1: the back-off has full jitter, and `cap` bounds it. Where the
    server said how long to stay away (`retry_after`, in seconds), it is not asked earlier.
    """
    failures = (before.failures if before else 0) + 1
    wait = backoff(failures, cap=cap) * random
    if retry_after is not None and math.isfinite(retry_after) and retry_after > 0:
        asked = timedelta(seconds=min(retry_after, LONGEST_RETRY_AFTER.total_seconds()))
        wait = max(wait, asked + asked * _SPREAD * random)
    return Failing(failures, now + wait)


class Polls(Generic[Key]):
    """The failing ones among all sources. `random` gives numbers from 0 to 1."""

    def __init__(
        self,
        *,
        clock: Clock,
        random: Callable[[], float],
        cap: timedelta = timedelta(minutes=5),
    ) -> None:
        self._clock = clock
        self._random = random
        self._cap = cap
        self._failing: dict[Key, Failing] = {}

    def is_due(self, key: Key) -> bool:
        """Whether a source may be asked now."""
        failing = self._failing.get(key)
        return failing is None or failing.not_before <= self._clock.now()

    def succeeded(self, key: Key) -> bool:
        """Note that a source answered; whether it had been failing."""
        return self._failing.pop(key, None) is not None

    def failed(self, key: Key, retry_after: float | None = None) -> Failing:
        """Note a failure; says when to ask again."""
        state = self._failing[key] = after_failure(
            self._failing.get(key),
            now=self._clock.now(),
            random=self._random(),
            cap=self._cap,
            retry_after=retry_after,
        )
        return state

    def failing(self, key: Key) -> Failing | None:
        """How a source fails, None for one that does not."""
        return self._failing.get(key)

    def forget(self, key: Key) -> None:
        """Drop a source that is not declared any more."""
        self._failing.pop(key, None)
