"""Passes over some releases until they are settled: what `helmops reconcile` and its like do."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timedelta

from helmops.model.actions import NO_REQUEST, ReleaseState, Request, RetryAfter
from helmops.model.releases import DeclarationKey
from helmops.reconcile.ports import Clock
from helmops.reconcile.reconciler import Passed, Reconciler, Wanted

#: Waiting any longer is of no use within a command: somebody else has to do something.
_GIVES_UP = frozenset({"PendingRelease", "LeaseHeld", "NamespaceMissing"})


class Once:
    """Runs passes until every release is settled, or the time is over."""

    def __init__(
        self,
        *,
        clock: Clock,
        reconciler: Reconciler,
        wanted: Callable[[DeclarationKey], Wanted],
        concurrency: int,
    ) -> None:
        self._clock = clock
        self._reconciler = reconciler
        self._wanted = wanted
        self._slots = asyncio.Semaphore(concurrency)

    async def settle(
        self,
        keys: Iterable[DeclarationKey],
        requests: Mapping[DeclarationKey, Request] | None = None,
        *,
        timeout: timedelta,
    ) -> dict[DeclarationKey, Passed]:
        """The last pass of each release.

        A release that waits for another is tried again whenever one of the others was passed over;
        when only such are left, they stay as they are. A source that fails is not waited for.
        Where a pass breaks off by a mistake of ours, the others are brought to their end first.
        """
        requests = requests or {}
        end = self._clock.now() + timeout
        asked = dict.fromkeys(keys)
        results: dict[DeclarationKey, Passed] = {}
        waiting = list(asked)
        while waiting:
            passed = await asyncio.gather(
                *(self._to_rest(key, requests.get(key, NO_REQUEST), end) for key in waiting),
                return_exceptions=True,
            )
            requests = {}
            moved = False
            for key, result in zip(waiting, passed, strict=True):
                if isinstance(result, BaseException):
                    raise result
                before = results.get(key)
                moved |= before is None or before.record.conditions != result.record.conditions
                results[key] = result
            waiting = [key for key in waiting if _waits(results[key])] if moved else []
        return results

    async def _to_rest(self, key: DeclarationKey, request: Request, end: datetime) -> Passed:
        while True:
            async with self._slots:
                passed = await self._reconciler.reconcile(self._wanted(key), request)
            request = Request(by=request.by)  # asked once; who asked for all of it stays known
            decision = passed.decision
            if not isinstance(decision, RetryAfter) or is_at_rest(passed):
                return passed
            now = self._clock.now()
            if decision.at > end or now >= end:
                return passed
            await self._clock.sleep(max((decision.at - now).total_seconds(), 0))


def is_at_rest(passed: Passed) -> bool:
    """Whether another pass of this command would not get further."""
    decision = passed.decision
    if not isinstance(decision, RetryAfter):
        return True
    if decision.state in (ReleaseState.WATCHING, ReleaseState.IN_SYNC) or _waits(passed):
        return True
    return decision.reason in _GIVES_UP or passed.record.condition("FetchFailed") is not None


def _waits(passed: Passed) -> bool:
    decision = passed.decision
    return isinstance(decision, RetryAfter) and decision.reason == "DependencyNotReady"
