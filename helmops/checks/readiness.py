"""Whether all objects of a release are what they were asked to be, as the cluster has them now.

All are read at once, eight requests at a time; those that are not Current are read again, after
0.25 s first and every 2 s in the end. When the last one is Current, the others are looked at once
more: all must be Current together.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from helmops.checks.diagnosis import diagnose
from helmops.checks.pods import pods_of
from helmops.checks.surroundings import Clock, Cluster, Object, Progress
from helmops.errors import ClusterError, ObjectNotFound
from helmops.health import CustomRules, assess, assess_absence
from helmops.health.fields import group_of, text
from helmops.health.progress import Final, Finals, Marks, marks_of, pod_finals
from helmops.model.declarations import HealthCheckExpr, format_duration
from helmops.model.health import CheckResult, Health, HealthStatus, ObjectRef
from helmops.model.releases import ReleaseId

#: The name of the result, beside those of a policy's checks.
NAME = "readiness"

_AT_ONCE = 8
_FIRST_DELAY = 0.25
_LONGEST_DELAY = 2.0
_DELAY_GROWTH = 1.6
_NAMED_OBJECTS = 5

#: A failure must still be seen after this. A Deployment that is rolled back shows the old
#: ProgressDeadlineExceeded with the new generation observed, until its old pods are gone (seen with
#: Kubernetes 1.37.2): what was just restored would count as failed.
_FAILED_PATIENCE = timedelta(seconds=1)
#: helm has applied everything before it is looked at, so what is not there was removed. Something
#: that removes may also put back, but not forever.
_MISSING_PATIENCE = timedelta(seconds=10)

#: The pods of what is waited for are looked at, too, but not as often.
_PODS_AFTER = timedelta(seconds=2)
_PODS_EVERY = timedelta(seconds=5)
#: A pod that waits for something restarts some times before it is there.
_MOST_RESTARTS = 5

#: Nothing but their existence counts, so their content is not read: secrets stay where they are.
_ONLY_EXIST = frozenset(
    {
        ("", "ConfigMap"),
        ("", "LimitRange"),
        ("", "ResourceQuota"),
        ("", "Secret"),
        ("", "ServiceAccount"),
        ("batch", "CronJob"),
        ("rbac.authorization.k8s.io", "ClusterRole"),
        ("rbac.authorization.k8s.io", "ClusterRoleBinding"),
        ("rbac.authorization.k8s.io", "Role"),
        ("rbac.authorization.k8s.io", "RoleBinding"),
    }
)

_NOT_LOOKED_AT = Health(HealthStatus.UNKNOWN, "was not looked at yet")


@dataclass(slots=True, eq=False)
class _Watched:
    """One object of the manifest, and what was last seen of it."""

    manifest: Mapping[str, Any]
    ref: ObjectRef
    only_exists: bool
    health: Health = _NOT_LOOKED_AT
    live: Object | None = None
    #: Since when it has had this status.
    since: datetime | None = None

    @property
    def is_current(self) -> bool:
        return self.health.status is HealthStatus.CURRENT

    def saw(self, health: Health, live: Object | None, now: datetime) -> None:
        if health.status is not self.health.status or self.since is None:
            self.since = now
        self.health, self.live = health, live

    def is_lost(self, now: datetime) -> bool:
        """Whether waiting is over: failed or missing for longer than may pass by itself."""
        seen_for = now - (self.since or now)
        if self.health.status is HealthStatus.FAILED:
            return self.ref.kind == "Job" or seen_for >= _FAILED_PATIENCE
        return self.health.status is HealthStatus.NOT_FOUND and seen_for >= _MISSING_PATIENCE


class Readiness:
    """Waits for the objects of releases; `at_once` bounds its requests over all releases."""

    def __init__(self, cluster: Cluster, clock: Clock, *, at_once: int = _AT_ONCE) -> None:
        self._cluster = cluster
        self._clock = clock
        self._at_once = at_once
        self._slots = asyncio.Semaphore(at_once)

    async def wait(
        self,
        release: ReleaseId,
        objects: Sequence[Mapping[str, Any]],
        expressions: Sequence[HealthCheckExpr],
        *,
        timeout: timedelta,
        hard_timeout: timedelta | None = None,
        progress: Progress | None = None,
    ) -> CheckResult:
        """Until all are Current, one is lost, or the time is up: `timeout` counts while nothing
        moves, and all ends at the `hard_timeout` (absent: the same). With a `timeout` of 0 it looks
        once. Raises ExpressionError, ClusterError.
        """
        rules = CustomRules(expressions)
        started = self._clock.now()
        ends_at, hard_end = started + timeout, started + max(hard_timeout or timeout, timeout)
        marks, finals, pods_at = Marks(), Finals(), started + _PODS_AFTER
        watched = await self._watched(release, objects, rules)
        look_at, delay, rounds, told = watched, _FIRST_DELAY, 0, ""
        while True:
            await self._each(look_at, lambda one: self._look(one, rules))
            rounds += 1
            now = self._clock.now()
            lost = [one for one in watched if one.is_lost(now)]
            waiting = [one for one in look_at if not one.is_current]
            if lost:
                return _failed(await self._described(lost), rounds)
            if not waiting:
                changeable = [one for one in watched if not one.only_exists]
                if set(changeable) <= set(look_at):
                    return CheckResult(NAME, True, _all_ready(watched), rounds)
                look_at = changeable
                continue
            if now >= pods_at:
                pods_at = now + _PODS_EVERY
                if stuck := await self._stuck(waiting, finals, now):
                    return _failed(f"{_shown(waiting[0])} ({stuck})", rounds)
            if marks.reach(_marks_of(watched)):
                ends_at = min(max(ends_at, now + timeout), hard_end)
            left = (ends_at - now).total_seconds()
            if left <= 0:
                head = f"{len(waiting)} of {len(watched)} objects are not ready"
                if timeout:
                    head += f" after {format_duration(timeout)}"
                return _failed(f"{head}: {await self._described(waiting)}", rounds)
            line = f"waiting for {len(waiting)} of {len(watched)} objects: {_shown(waiting[0])}"
            if progress and line != told:
                progress(line)
                told = line
            await self._clock.sleep(min(delay, left))
            delay = min(delay * _DELAY_GROWTH, _LONGEST_DELAY)
            look_at = waiting

    async def _stuck(self, waiting: Sequence[_Watched], finals: Finals, now: datetime) -> str:
        """What keeps pods of theirs from ever getting ready; empty where nothing does, or where
        pods cannot be read.
        """
        found: list[Final] = []
        for one in waiting[:_NAMED_OBJECTS]:
            if one.live is None:
                continue
            with contextlib.suppress(ClusterError):
                for pod in await pods_of(self._cluster, one.live):
                    found += pod_finals(pod, _MOST_RESTARTS)
        return finals.judge(found, now)[0]

    async def last_change(
        self, release: ReleaseId, objects: Sequence[Mapping[str, Any]]
    ) -> datetime | None:
        """When anybody last wrote to one of the objects, by their managed fields; None where none
        of them exists. Raises ClusterError.
        """
        times: list[datetime] = []

        async def look(one: _Watched) -> None:
            ref = one.ref
            with contextlib.suppress(ObjectNotFound):
                live = await self._cluster.get(
                    ref.api_version, ref.kind, ref.name, ref.namespace, metadata_only=True
                )
                metadata = (live or {}).get("metadata") or {}
                written = [f.get("time") for f in metadata.get("managedFields") or []]
                said = (metadata.get("creationTimestamp"), *written)
                times.extend(datetime.fromisoformat(each) for each in said if each)

        await self._each(await self._watched(release, objects, CustomRules(())), look)
        return max(times, default=None)

    async def _watched(
        self, release: ReleaseId, objects: Iterable[Mapping[str, Any]], rules: CustomRules
    ) -> list[_Watched]:
        """The objects with their places; each is there once, however often the chart has it."""
        watched: dict[ObjectRef, _Watched] = {}
        for manifest in _flattened(objects):
            api_version, kind = text(manifest, "apiVersion"), text(manifest, "kind")
            name = text(manifest, "metadata", "name")
            if not (api_version and kind and name):
                continue  # made by generateName: nobody knows what it is called
            namespace = text(manifest, "metadata", "namespace") or release.namespace
            try:
                resource = await self._cluster.resource_for(api_version, kind)
            except ObjectNotFound:
                pass  # told of when it is looked for
            else:
                namespace = namespace if resource.is_namespaced else ""
            ref = ObjectRef(api_version, kind, name, namespace)
            only_exists = (group_of(api_version), kind) in _ONLY_EXIST and not rules.cover(manifest)
            watched.setdefault(ref, _Watched(manifest, ref, only_exists))
        return list(watched.values())

    async def _look(self, one: _Watched, rules: CustomRules) -> None:
        ref = one.ref
        try:
            live = await self._cluster.get(
                ref.api_version,
                ref.kind,
                ref.name,
                ref.namespace,
                metadata_only=one.only_exists,
            )
        except ObjectNotFound as error:
            one.saw(Health(HealthStatus.NOT_FOUND, error.what), None, self._clock.now())
            return
        now = self._clock.now()
        if live is None:
            one.saw(assess_absence(one.manifest), None, now)
            return
        # Metadata alone comes as another kind.
        live = live | {"apiVersion": ref.api_version, "kind": ref.kind}
        one.saw(rules.assess(live) or assess(live, now), live, now)

    async def _described(self, troubled: Sequence[_Watched]) -> str:
        """The first few with what is wrong below them, and how many more there are."""
        named = troubled[:_NAMED_OBJECTS]
        reasons: dict[_Watched, str] = {}

        async def find_reason(one: _Watched) -> None:
            reasons[one] = await diagnose(self._cluster, one.live) if one.live else ""

        await self._each(named, find_reason)
        parts = [
            _shown(one) + (f" ({reasons[one]})" if _adds(reasons[one], one) else "")
            for one in named
        ]
        if len(troubled) > len(named):
            parts.append(f"and {len(troubled) - len(named)} more")
        return "; ".join(parts)

    async def _each(
        self, some: Sequence[_Watched], work: Callable[[_Watched], Awaitable[None]]
    ) -> None:
        """Do something for each, a few at once. The first error ends it all."""
        queue = iter(some)

        async def take() -> None:
            for one in queue:
                async with self._slots:
                    await work(one)

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(min(self._at_once, len(some))):
                    group.create_task(take())
        except* ClusterError as errors:
            raise _first(errors) from None


def _flattened(objects: Iterable[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    """The objects, with those inside of a List on their own, as helm applies them."""
    for one in objects:
        inner = one.get("items")
        if text(one, "kind").endswith("List") and isinstance(inner, list):
            yield from _flattened(item for item in inner if isinstance(item, Mapping))
        else:
            yield one


def _marks_of(watched: Iterable[_Watched]) -> Iterator[tuple[tuple[str, ...], int]]:
    """How far the objects have come, as numbers that grow on the way."""
    count = 0
    for one in watched:
        count += one.is_current
        if one.live is not None:
            for mark, value in marks_of(one.live):
                yield (str(one.ref), mark), value
    yield ("current",), count


def _first(errors: BaseExceptionGroup[ClusterError]) -> ClusterError:
    """One error for the caller, who cannot do more with several."""
    found: BaseException = errors
    while isinstance(found, BaseExceptionGroup):
        found = found.exceptions[0]
    assert isinstance(found, ClusterError)  # noqa: S101 - the group was split by this type
    return found


def _shown(one: _Watched) -> str:
    return f"{one.ref}: {one.health.message}"


def _adds(reason: str, one: _Watched) -> bool:
    return bool(reason) and reason not in one.health.message


def _failed(message: str, rounds: int) -> CheckResult:
    return CheckResult(NAME, False, message, rounds)


def _all_ready(watched: Sequence[_Watched]) -> str:
    count = len(watched)
    return f"{count} {'object is' if count == 1 else 'objects are'} ready"
