"""Time that passes only when a test says so."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

#: Where fake time begins unless a test says otherwise: a Monday noon.
START = datetime(2026, 1, 5, 12, 0, tzinfo=UTC)


class FakeClock:
    """A `Clock` whose `sleep` returns at once and moves `now` by what was asked.

    `slept` keeps every sleep, in seconds, for tests that ask how long somebody wanted to wait.
    """

    def __init__(self, start: datetime = START) -> None:
        self._now = start
        self.slept: list[float] = []

    def now(self) -> datetime:
        return self._now

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.advance(timedelta(seconds=max(0.0, seconds)))
        await asyncio.sleep(0)  # others get their turn, as with a real sleep

    def advance(self, by: timedelta | float) -> datetime:
        """Let time pass (a number is seconds); returns the new time."""
        self._now += by if isinstance(by, timedelta) else timedelta(seconds=by)
        return self._now

    def set(self, to: datetime) -> None:
        """Jump, forwards or backwards."""
        self._now = to
