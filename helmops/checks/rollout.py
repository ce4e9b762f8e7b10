"""Helm's wait, cut short: where nothing moves any more, and where nothing can recover.

helm runs with the hard timeout. Beside it the pods and workloads of the namespace are watched,
and helm is cancelled when its release has not moved for the patience that `timeout` asks for, or at
once when it meets something final. A cancelled helm marks its install or upgrade `failed`; of a
rollback it leaves `pending-rollback`, which the pass unlocks as its own (seen with Helm 3.19.0 and
4.3.1).

A run that is over within a moment costs two small requests: the watches begin after that.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any, Protocol, TypeVar

from helmops.checks.surroundings import Clock, Object, Progress
from helmops.cluster.api import Listing
from helmops.cluster.object_watches import ObjectWatches, Scope
from helmops.errors import ClusterError, HelmError, HelmWaitTimeout, RolloutStuck
from helmops.health.progress import RolloutProgress
from helmops.model.declarations import format_duration
from helmops.model.releases import ReleaseId

log = logging.getLogger(__name__)

T = TypeVar("T")

#: The watches begin after this, or sooner where patience is short.
_BEGIN_AFTER = timedelta(seconds=2)
_FOREVER = timedelta(days=365)
#: Somebody may add the Role.
_REFUSED_FOR = timedelta(minutes=10)
#: Objects change in bursts; they are looked at together.
_AT_MOST_EVERY = 0.25
#: A pod that waits for something restarts some times before it is there; helm would wait, too.
_LEAST_RESTARTS = 5

_NEEDED = (
    ("v1", "Pod"),
    ("apps/v1", "Deployment"),
    ("apps/v1", "ReplicaSet"),
    ("apps/v1", "StatefulSet"),
    ("apps/v1", "DaemonSet"),
    ("batch/v1", "Job"),
)


class Cluster(Protocol):
    """The part of `helmops.cluster.api.Api` that is needed."""

    async def list(
        self,
        api_version: str,
        kind: str,
        namespace: str = "",
        *,
        metadata_only: bool = False,
    ) -> Listing: ...


class Rollouts:
    """Runs what waits for a rollout. One instance serves all releases; they share the watches."""

    def __init__(
        self,
        watches: ObjectWatches,
        cluster: Cluster,
        clock: Clock,
        *,
        begin_after: timedelta = _BEGIN_AFTER,
    ) -> None:
        self._watches = watches
        self._cluster = cluster
        self._clock = clock
        self._begin_after = begin_after
        #: Namespaces that may not be watched, and since when that is known.
        self._refused: dict[str, datetime] = {}
        self._without_events: set[str] = set()

    def may_watch(self, namespace: str) -> bool:
        """Whether the cluster was not seen to refuse watches there: else only plain timeouts."""
        since = self._refused.get(namespace)
        return since is None or self._clock.now() - since >= _REFUSED_FOR

    async def run(
        self,
        release: ReleaseId,
        work: Awaitable[T],
        *,
        patience: timedelta | None,
        max_restarts: int = 0,
        progress: Progress | None = None,
    ) -> T:
        """Do the work, and cancel it when nothing has moved for `patience` or nothing can recover.
        Without patience only the latter; helm knows for itself when its time is up.

        Raises what the work raises, HelmWaitTimeout, RolloutStuck. Where the cluster does not let
        us watch, `patience` is a plain timeout.
        """
        task = asyncio.ensure_future(work)
        judge = _Judge(self._clock, release, patience, max(max_restarts, _LEAST_RESTARTS), progress)
        watching = asyncio.ensure_future(self._watch(judge))
        try:
            await asyncio.wait({task, watching}, return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                return task.result()
            verdict = watching.result()
            task.cancel()
            await asyncio.wait({task})
            if not task.cancelled() and task.exception() is None:
                return task.result()  # it was faster
            raise verdict
        finally:
            for each in (task, watching):
                each.cancel()
            await asyncio.wait({task, watching})
            for each in (task, watching):
                if not each.cancelled():
                    each.exception()  # told already, or of no interest any more

    async def _watch(self, judge: _Judge) -> HelmError:
        """Why the work is to be cancelled."""
        release = judge.release
        try:
            judge.before = await self._uids_in(release.namespace)
        except ClusterError as error:
            self._note_refusal(release.namespace, error)
        if self.may_watch(release.namespace):
            first = min(self._begin_after, (judge.patience or _FOREVER) / 4)
            await self._clock.sleep(first.total_seconds())
            with self._following(release.namespace, judge.wake) as scopes:
                while True:
                    self._note_events(scopes[-1])
                    refusal = self._refusal(scopes)
                    if refusal is not None:
                        self._note_refusal(release.namespace, refusal)
                        break
                    verdict = judge.look(
                        self._objects(scopes), is_live=all(map(self._watches.is_live, scopes[:-1]))
                    )
                    if verdict is not None:
                        return verdict
                    await judge.wait()
        patience = judge.patience
        if patience is None:
            await asyncio.get_running_loop().create_future()  # until the work is done
            raise AssertionError("never")
        await self._clock.sleep(judge.left(patience))
        return HelmWaitTimeout(f"not ready after {format_duration(patience)}", where=str(release))

    async def _uids_in(self, namespace: str) -> frozenset[str]:
        """Of the pods and Jobs that are there now."""
        found: set[str] = set()
        for api_version, kind in (("v1", "Pod"), ("batch/v1", "Job")):
            listing = await self._cluster.list(api_version, kind, namespace, metadata_only=True)
            found |= {str(item["metadata"].get("uid")) for item in listing.items}
        return frozenset(found)

    @contextmanager
    def _following(self, namespace: str, wake: Callable[..., None]) -> Iterator[tuple[Scope, ...]]:
        """The needed scopes, and at the end Events: without them slow pulls are not seen."""
        scopes = (
            *(Scope(api_version, kind, namespace) for api_version, kind in _NEEDED),
            Scope("v1", "Event", namespace, field_selector="involvedObject.kind=Pod,type=Normal"),
        )
        for scope in scopes:
            self._watches.follow(scope, wake)
        try:
            yield scopes
        finally:
            for scope in scopes:
                self._watches.unfollow(scope, wake)

    def _refusal(self, scopes: Collection[Scope]) -> ClusterError | None:
        refusals = (self._watches.refusal(scope) for scope in scopes if scope.kind != "Event")
        return next((refusal for refusal in refusals if refusal is not None), None)

    def _note_events(self, events: Scope) -> None:
        refusal = self._watches.refusal(events)
        if refusal is not None and events.namespace not in self._without_events:
            self._without_events.add(events.namespace)
            log.warning(
                "events in %s cannot be watched, so a slow image pull does not count as movement: "
                "%s",
                events.namespace,
                refusal,
                extra={"action": "watch"},
            )

    def _note_refusal(self, namespace: str, error: ClusterError) -> None:
        if namespace not in self._refused:
            log.warning(
                "rollouts in %s cannot be watched, so timeouts there are plain ones: %s",
                namespace,
                error,
                extra={"action": "watch"},
            )
        self._refused[namespace] = self._clock.now()

    def _objects(self, scopes: Collection[Scope]) -> Iterator[Any]:
        for scope in scopes:
            yield from self._watches.objects(scope).values()


class _Judge:
    """Decides for one run when it has lasted too long."""

    def __init__(
        self,
        clock: Clock,
        release: ReleaseId,
        patience: timedelta | None,
        max_restarts: int,
        progress: Progress | None,
    ) -> None:
        self.release = release
        self.patience = patience
        self.before: frozenset[str] = frozenset()
        self._max_restarts = max_restarts
        self._clock = clock
        self._tell = progress
        self._fold: RolloutProgress | None = None
        self._started = self._moved_at = clock.now()
        self._look_at: datetime | None = None
        self._was_live = self._was_pulling = False
        self._changed = asyncio.Event()
        self._told: set[str] = set()

    def left(self, patience: timedelta) -> float:
        """Seconds of a plain timeout."""
        return max((self._started + patience - self._clock.now()).total_seconds(), 0.0)

    def wake(self, *_: Object | Scope | None) -> None:
        """Something changed: look again soon."""
        self._changed.set()

    def look(self, objects: Iterator[Any], *, is_live: bool) -> HelmError | None:
        """Why it is enough, None while it may go on."""
        now = self._clock.now()
        self._changed.clear()
        self._look_at = None
        if is_live != self._was_live:
            # Nobody knows what happened while nothing was seen.
            self._moved_at = now if self._fold is not None else self._moved_at
            self._was_live = is_live
        if is_live:
            if self._fold is None:
                self._fold = RolloutProgress(self.release, self.before, self._max_restarts)
            seen = self._fold.look(objects, now)
            if seen.stuck:
                return RolloutStuck(seen.stuck, where=str(self.release))
            if seen.moved or seen.pulling or self._was_pulling:
                self._moved_at = now  # it moved until just now
            self._was_pulling = bool(seen.pulling)
            if seen.pulling:
                self._say(f"pod {seen.pulling} pulls an image")
                return None
            self._look_at = seen.look_again
        if self.patience is None:
            return None
        ends_at, limit = self._moved_at + self.patience, format_duration(self.patience)
        if now >= ends_at:
            return HelmWaitTimeout(f"nothing has moved for {limit}", where=str(self.release))
        if now >= self._started + self.patience:
            self._say(f"not ready after {limit}, but it still moves")
        self._look_at = min(self._look_at, ends_at) if self._look_at else ends_at
        return None

    async def wait(self) -> None:
        """Until something changes, or it is time to look without that."""
        await self._clock.sleep(_AT_MOST_EVERY)
        changed = asyncio.ensure_future(self._changed.wait())
        waiting: set[asyncio.Future[Any]] = {changed}
        if self._look_at is not None:
            seconds = max((self._look_at - self._clock.now()).total_seconds(), 0.0)
            waiting.add(asyncio.ensure_future(self._clock.sleep(seconds)))
        try:
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for each in waiting:
                each.cancel()

    def _say(self, line: str) -> None:
        if self._tell is not None and line not in self._told:
            self._told.add(line)
            self._tell(line)
