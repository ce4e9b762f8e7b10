"""A clock whose sleepers wait until the test lets time pass."""

from __future__ import annotations

import asyncio
import heapq
from datetime import UTC, datetime, timedelta


class SteppedClock:
    """A `Clock`; `step` lets time pass and wakes who has slept enough, one after another."""

    def __init__(self) -> None:
        self._now = datetime(2026, 1, 5, 12, 0, tzinfo=UTC)
        self._sleepers: list[tuple[datetime, int, asyncio.Future[None]]] = []
        self._sequence = 0

    def now(self) -> datetime:
        return self._now

    async def sleep(self, seconds: float) -> None:
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._sequence += 1
        until = self._now + timedelta(seconds=seconds)
        heapq.heappush(self._sleepers, (until, self._sequence, future))
        await future

    async def step(self, seconds: float = 0) -> None:
        """Let time pass; afterwards everybody who could do something has done it."""
        until = self._now + timedelta(seconds=seconds)
        await self._settle()
        while self._sleepers and self._sleepers[0][0] <= until:
            moment, _, future = heapq.heappop(self._sleepers)
            self._now = max(self._now, moment)
            if not future.done():
                future.set_result(None)
                await self._settle()
        self._now = until
        await self._settle()

    async def _settle(self) -> None:
        for _ in range(40):
            await asyncio.sleep(0)
