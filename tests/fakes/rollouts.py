"""A watcher of rollouts that does as it is told."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from dataclasses import dataclass
from datetime import timedelta

from helmops.errors import HelmWaitTimeout
from helmops.model.releases import HelmRun, Progress, ReleaseId


@dataclass(frozen=True)
class RolloutCall:
    """One run that was watched."""

    release: ReleaseId
    patience: timedelta | None
    max_restarts: int


class FakeRollouts:
    """`verdict` is what the next runs are cut off with, None to let them go on; `is_refused` says
    that nothing may be watched.
    """

    def __init__(self) -> None:
        self.calls: list[RolloutCall] = []
        self.verdict: HelmWaitTimeout | None = None
        self.is_refused = False

    def may_watch(self, namespace: str) -> bool:
        return not self.is_refused

    async def run(
        self,
        release: ReleaseId,
        work: Awaitable[HelmRun],
        *,
        patience: timedelta | None,
        max_restarts: int = 0,
        progress: Progress | None = None,
    ) -> HelmRun:
        self.calls.append(RolloutCall(release, patience, max_restarts))
        if self.verdict is None:
            return await work
        task = asyncio.ensure_future(work)
        for _ in range(20):
            await asyncio.sleep(0)  # helm gets as far as it does
        task.cancel()
        await asyncio.wait({task})
        raise self.verdict
