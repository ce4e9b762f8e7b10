"""How a release is doing while it runs: its objects and pods, folded into one fact.

What counts as *bad*: a workload that was ready and has fewer ready pods than it had, although
nobody asked for a change of it; one that failed, is being deleted or is gone; a container in a
crash loop, or one that restarted more often than is let pass. Scaling and a rollout that somebody
begins by hand change the object's generation, and a node that joins adds pods that were never
ready: none of these is a loss. Readiness that is lost may come back, so it counts only after a
while; a crash loop counts at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from helmops.health.assess import assess
from helmops.health.expressions import CustomRules
from helmops.health.fields import Object, integer, moment, text
from helmops.health.pod import container_trouble, containers_of
from helmops.model.health import Health, HealthStatus, LiveHealth, ObjectRef

#: Readiness that comes back within this was never lost, and a failure that passes was none (a
#: Deployment shows its old ProgressDeadlineExceeded for a moment after a rollback).
SETTLES_WITHIN = timedelta(seconds=3)
#: An object that was not seen ready yet may still be on its way.
STARTS_WITHIN = timedelta(seconds=15)

_READY_COUNT = {
    "DaemonSet": "numberReady",
    "Deployment": "readyReplicas",
    "ReplicaSet": "readyReplicas",
    "StatefulSet": "readyReplicas",
}
#: What kind of trouble, and whose.
_Key = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Trouble:
    key: _Key
    sentence: str
    is_final: bool
    patience: timedelta


@dataclass(frozen=True, slots=True)
class _Ready:
    """An object as it was when it was last Current."""

    generation: int
    count: int | None


@dataclass(slots=True)
class LiveFold:
    """The fold for one revision of a release. `released_at` is when helm released it: restarts that
    pods of before had until then are not its own.
    """

    rules: CustomRules
    max_restarts: int
    released_at: datetime
    health: LiveHealth = field(default_factory=lambda: LiveHealth(is_live=False))
    #: When a look may show more though nothing changes; None where only a change can.
    look_again: datetime | None = None
    _told: _Trouble | None = None
    _since: dict[_Key, datetime] = field(default_factory=dict)
    _ready: dict[ObjectRef, _Ready] = field(default_factory=dict)
    #: Objects that were there: one that never was is for the check after the action to miss.
    _there: set[ObjectRef] = field(default_factory=set)
    _restarts: dict[tuple[str, str], int] = field(default_factory=dict)

    def look(
        self,
        objects: Iterable[tuple[ObjectRef, Object | None]],
        pods: Iterable[Object],
        now: datetime,
    ) -> LiveHealth:
        """Take in the objects of the release as they are now (None for one that is gone), and the
        pods that its workloads made.
        """
        seen: dict[_Key, datetime] = {}
        due: list[_Trouble] = []
        self.look_again = None
        for trouble in (*self._of_objects(objects, now), *self._of_pods(pods)):
            since = seen[trouble.key] = self._since.get(trouble.key, now)
            at = since + trouble.patience
            if now >= at:
                due.append(trouble)
            elif self.look_again is None or at < self.look_again:
                self.look_again = at
        self._since = seen
        self._tell(due)
        return self.health

    def is_blind(self) -> LiveHealth:
        """Nothing is seen any more: what was bad may not be so."""
        return replace(self.health, is_live=False, bad="", is_final=False, since=None)

    def _tell(self, due: list[_Trouble]) -> None:
        """One thing is told of, and as long as it lasts it is told in the same words; only what is
        final takes the place of what is not.
        """
        worst = min(due, key=lambda trouble: not trouble.is_final, default=None)
        same = next((t for t in due if self._told and t.key == self._told.key), None)
        if same is not None and (worst is None or worst.is_final <= same.is_final):
            self.health = replace(self.health, is_live=True)
            return
        version = self.health.version + (worst is not None or self._told is not None)
        self._told = worst
        self.health = LiveHealth(
            is_live=True,
            bad=worst.sentence if worst else "",
            is_final=worst is not None and worst.is_final,
            since=self._since[worst.key] if worst else None,
            version=version,
        )

    def _of_objects(
        self, objects: Iterable[tuple[ObjectRef, Object | None]], now: datetime
    ) -> Iterator[_Trouble]:
        for ref, live in objects:
            if live is None and ref not in self._there:
                continue
            if live is None:
                yield _Trouble(
                    ("gone", str(ref)), f"{ref} does not exist", is_final=False,
                    patience=SETTLES_WITHIN,
                )  # fmt: skip
                continue
            self._there.add(ref)
            health = self.rules.assess(live) or assess(live, now)
            if health.status is HealthStatus.CURRENT:
                self._ready[ref] = _Ready(integer(live, "metadata", "generation"), _count(live))
            elif trouble := self._of_object(ref, live, health):
                yield trouble

    def _of_object(self, ref: ObjectRef, live: Object, health: Health) -> _Trouble | None:
        sentence = f"{ref}: {health.message}"
        match health.status:
            case HealthStatus.FAILED:
                return _Trouble(("failed", str(ref)), sentence, True, SETTLES_WITHIN)
            case HealthStatus.TERMINATING:
                return _Trouble(("deleted", str(ref)), sentence, False, SETTLES_WITHIN)
            case HealthStatus.IN_PROGRESS:
                was = self._ready.get(ref)
                if was is None:
                    return _Trouble(("unready", str(ref)), sentence, False, STARTS_WITHIN)
                if was.generation != integer(live, "metadata", "generation"):
                    return None
                count = _count(live)
                if was.count is not None and count is not None and count >= was.count:
                    return None
                lost = f"{ref} is not ready any more: {health.message}"
                return _Trouble(("lost", str(ref)), lost, False, SETTLES_WITHIN)
            case _:
                return None

    def _of_pods(self, pods: Iterable[Object]) -> Iterator[_Trouble]:
        restarts: dict[tuple[str, str], int] = {}
        for pod in pods:
            if text(pod, "metadata", "deletionTimestamp"):
                continue
            name, uid = text(pod, "metadata", "name"), text(pod, "metadata", "uid")
            made = moment(pod, "metadata", "creationTimestamp")
            is_older = made is not None and made < self.released_at
            for status in containers_of(pod):
                container, count = text(status, "name"), integer(status, "restartCount")
                key = (uid, container)
                restarts[key] = self._restarts.get(key, count if is_older else 0)
                own = count - restarts[key]
                if text(status, "state", "waiting", "reason") == "CrashLoopBackOff":
                    told = f"pod {name}: {container_trouble(status)}"
                    yield _Trouble(("crash", uid, container), told, True, timedelta(0))
                elif own > self.max_restarts:
                    yield _Trouble(
                        ("restarts", uid, container),
                        f"pod {name}: container {container} restarted {own} times"
                        + _ending(status),
                        True,
                        timedelta(0),
                    )
        self._restarts = restarts


def _count(object_: Object) -> int | None:
    name = _READY_COUNT.get(text(object_, "kind"))
    return integer(object_, "status", name) if name else None


def _ending(status: Mapping[str, Any]) -> str:
    reason = text(status, "lastState", "terminated", "reason")
    if not reason:
        return ""
    code = integer(status, "lastState", "terminated", "exitCode")
    return f", last with exit code {code} ({reason})"
