"""Whether a rollout still moves, and whether it met something that cannot recover by itself.

A fold over the objects of a namespace while helm releases something there. *Movement* is only what
never goes back: more pods of the new revision scheduled, pulled, started and ready, fewer of the
old one, a Job's further completion, a volume bound. What flaps (a crash loop, a readiness that
comes and goes) reaches no new mark, so it does not count for ever.

What is *stuck* is told only of pods and Jobs that were not there before helm began: an upgrade that
mends a broken revision must not fail because of the broken pods that it replaces, and a rollback
must not because of the failed hook that it goes back for.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from helmops.health.fields import (
    Object,
    condition,
    dig,
    integer,
    is_true,
    items,
    text,
    told,
)
from helmops.health.pod import container_trouble, containers_of
from helmops.model.releases import ReleaseId

_RELEASE_NAME = "meta.helm.sh/release-name"
_RELEASE_NAMESPACE = "meta.helm.sh/release-namespace"
_HOOK = "helm.sh/hook"
_INSTANCE = "app.kubernetes.io/instance"
_REVISION = "deployment.kubernetes.io/revision"

#: What a registry says of a tag or an image that it does not have, in the words of containerd,
#: CRI-O and Docker. Refusals (401, 403) are left out: a pull secret may still come.
_MISSING_IMAGE = re.compile(
    r"not found|manifest unknown|manifest for .* unknown|name unknown|no such (?:image|manifest)"
    r"|ErrImageNeverPull|is not present with pull policy of Never",
    re.IGNORECASE,
)
_NO_NODE_MATCHES = re.compile(
    r"^0/(?P<all>\d+) nodes are available: (?P<misfit>\d+) node\(s\) "
    r"didn't (?:match Pod's node affinity/selector|match node selector)"
)
#: How long each must be seen before it is final. A registry or its mirror may be a moment late; a
#: ConfigMap or Secret that a container needs may come from elsewhere; nodes may be added.
_MISSING_IMAGE_FOR = timedelta(seconds=2)
_BAD_CONFIG_FOR = timedelta(seconds=30)
_NO_NODE_FOR = timedelta(seconds=60)

#: Key of an object: kind and name; all are of one namespace.
_Key = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Rollout:
    """What one look at a rollout shows.

    `moved`: something reached a mark that it had not reached before. `pulling` names a pod whose
    image is being pulled, which counts as movement as long as it goes on. `stuck` is why it cannot
    succeed any more, one sentence. `look_again` is when a look may show more without a change.
    """

    moved: bool
    pulling: str = ""
    stuck: str = ""
    look_again: datetime | None = None


@dataclass(slots=True)
class Marks:
    """The highest marks that were reached so far."""

    _reached: dict[tuple[str, ...], int] = field(default_factory=dict)

    def reach(self, marks: Iterable[tuple[tuple[str, ...], int]]) -> bool:
        """Whether one of these was not reached before."""
        moved = False
        for key, value in marks:
            if key not in self._reached or value > self._reached[key]:
                self._reached[key] = value
                moved = True
        return moved


#: What is wrong with what (two that are equal are the same thing), why, and how long it must last.
Final = tuple[tuple[str, ...], str, timedelta]


@dataclass(slots=True)
class Finals:
    """Since when things are wrong that cannot recover by themselves, if they last."""

    _since: dict[tuple[str, ...], datetime] = field(default_factory=dict)

    def judge(self, found: Iterable[Final], now: datetime) -> tuple[str, datetime | None]:
        """The first that is final by now, and when the next one would be. What is not found any
        more begins anew when it comes back.
        """
        seen: dict[tuple[str, ...], datetime] = {}
        final, look_again = "", None
        for thing, why, patience in found:
            since = seen[thing] = self._since.get(thing, now)
            at = since + patience
            if now >= at:
                final = final or why
            else:
                look_again = min(look_again, at) if look_again else at
        self._since = seen
        return final, look_again


@dataclass(slots=True)
class RolloutProgress:
    """The fold for one release and one action. `before` has the uids of the pods and Jobs that were
    there before it began; `max_restarts` is how often a container may restart.
    """

    release: ReleaseId
    before: Collection[str] = ()
    max_restarts: int = 3
    _marks: Marks = field(default_factory=Marks)
    _finals: Finals = field(default_factory=Finals)

    def look(self, objects: Iterable[Object], now: datetime) -> Rollout:
        """Take in all objects of the release's namespace as they are now."""
        there = _There.of(objects, self.release)
        moved = self._marks.reach(self._reached(there))
        stuck, look_again = self._finals.judge(self._found_in(there), now)
        return Rollout(moved, there.pulling(self.before), stuck, look_again)

    def _reached(self, there: _There) -> Iterator[tuple[tuple[str, ...], int]]:
        for workload in there.ours:
            name = (text(workload, "kind"), text(workload, "metadata", "name"))
            for mark, value in marks_of(workload):
                yield (*name, mark), value
        scores: dict[_Key, int] = {}
        for pod, owner in there.new_pods(self.before):
            scores[owner] = scores.get(owner, 0) + _score(pod, there.events)
        for owner, score in scores.items():
            yield (*owner, "pods"), score

    def _found_in(self, there: _There) -> Iterator[Final]:
        for workload in there.ours:
            if text(workload, "metadata", "uid") in self.before:
                continue
            name = text(workload, "metadata", "name")
            failure = condition(workload, "Failed")
            if text(workload, "kind") == "Job" and failure is not None and is_true(failure):
                yield ("Job", name, ""), f"Job {name} failed: {told(failure)}", timedelta(0)
        for pod, _ in there.new_pods(self.before):
            yield from pod_finals(pod, self.max_restarts)


def pod_finals(pod: Object, max_restarts: int) -> Iterator[Final]:
    """What keeps a pod from ever getting ready."""
    uid, name = text(pod, "metadata", "uid"), text(pod, "metadata", "name")
    for kind, why, patience in _finals_of(pod, max_restarts):
        yield (uid, name, kind), f"pod {name}: {why}", patience


def _finals_of(pod: Object, max_restarts: int) -> Iterator[tuple[str, str, timedelta]]:
    for status in containers_of(pod):
        reason = text(status, "state", "waiting", "reason")
        message = text(status, "state", "waiting", "message")
        container = text(status, "name")
        why = _shortened(container_trouble(status))
        match reason:
            case "InvalidImageName":
                yield f"image {container}", why, timedelta(0)
            case "ErrImagePull" | "ImagePullBackOff" | "ErrImageNeverPull":
                if _MISSING_IMAGE.search(f"{reason} {message}"):
                    yield f"image {container}", why, _MISSING_IMAGE_FOR
            case "CreateContainerConfigError" | "CreateContainerError" | "RunContainerError":
                yield f"config {container}", why, _BAD_CONFIG_FOR
        restarts = integer(status, "restartCount")
        if restarts > max_restarts and status.get("ready") is not True:
            ended = text(status, "state", "waiting", "reason") or "not ready"
            told_of = why or f"{ended} in {container}"
            more = f"{told_of}; restarted {restarts} times"
            yield f"restarts {container}", more, timedelta(0)
    scheduled = condition(pod, "PodScheduled")
    if text(scheduled, "status") == "False" and text(scheduled, "reason") == "Unschedulable":
        said = text(scheduled, "message")
        found = _NO_NODE_MATCHES.match(said)
        if found and found["all"] == found["misfit"]:
            yield "node", _shortened(f"Unschedulable: {said}"), _NO_NODE_FOR


@dataclass(slots=True)
class _There:
    """The objects of a namespace, those of one release found among them."""

    #: Workloads and volumes that helm says are of the release, and its hooks.
    ours: list[Object]
    #: Live pods with what made them: the workload, itself for a bare pod.
    pods: list[tuple[Object, _Key]]
    #: By pod: (reason, container) of the events that tell of movement.
    events: dict[str, set[tuple[str, str]]]

    @classmethod
    def of(cls, objects: Iterable[Object], release: ReleaseId) -> _There:
        pods: list[Object] = []
        sets: list[Object] = []
        others: list[Object] = []
        events: dict[str, set[tuple[str, str]]] = {}
        for each in objects:
            match text(each, "kind"):
                case "Pod":
                    pods.append(each)
                case "ReplicaSet":
                    sets.append(each)
                case "Event":
                    about = text(each, "involvedObject", "uid")
                    place = text(each, "involvedObject", "fieldPath")
                    events.setdefault(about, set()).add((text(each, "reason"), place))
                case _:
                    others.append(each)
        names = {text(e, "metadata", "annotations", _RELEASE_NAME) for e in (*others, *pods, *sets)}
        ours = {_key(each): each for each in others if _is_of(each, release, names)}
        for each in sets:
            if _owner(each) in ours or _is_of(each, release, names):
                ours[_key(each)] = each
        # Of a Deployment's ReplicaSets only the newest says anything about what is released now.
        newest: dict[_Key, int] = {}
        for each in sets:
            if (owner := _owner(each)) in ours:
                newest[owner] = max(newest.get(owner, 0), _revision(each))
        stale = {
            _key(each)
            for each in sets
            if (owner := _owner(each)) in newest and _revision(each) < newest[owner]
        }
        live: list[tuple[Object, _Key]] = []
        for pod in pods:
            if text(pod, "metadata", "deletionTimestamp"):
                continue
            owner = _owner(pod)
            if owner is None:
                if _is_of(pod, release, names):
                    live.append((pod, _key(pod)))
            elif owner in ours and owner not in stale:
                live.append((pod, owner))
        return cls([each for key, each in ours.items() if key not in stale], live, events)

    def new_pods(self, before: Collection[str]) -> Iterator[tuple[Object, _Key]]:
        for pod, owner in self.pods:
            if text(pod, "metadata", "uid") not in before:
                yield pod, owner

    def pulling(self, before: Collection[str]) -> str:
        """The name of a new pod whose image is being pulled; empty where there is none."""
        for pod, _ in self.new_pods(before):
            said = self.events.get(text(pod, "metadata", "uid"), set())
            for status in containers_of(pod):
                if _is_pulling(text(status, "name"), status, said):
                    return text(pod, "metadata", "name")
        return ""


def _is_pulling(name: str, status: Mapping[str, Any], said: set[tuple[str, str]]) -> bool:
    waiting = text(status, "state", "waiting", "reason")
    if waiting not in ("ContainerCreating", "PodInitializing"):
        return False
    about = {reason for reason, place in said if not place or place.endswith(f"{{{name}}}")}
    return "Pulling" in about and not about & {"Pulled", "Created", "Started"}


def _is_of(object_: Object, release: ReleaseId, names: Collection[str]) -> bool:
    """Whether helm made this object for the release. Hooks carry no owner, only what the chart says
    of them: the instance label, or a name that begins as the release's does, and as no other
    release's of the namespace does better.
    """
    annotations = dig(object_, "metadata", "annotations")
    if owner := text(annotations, _RELEASE_NAME):
        namespace = text(annotations, _RELEASE_NAMESPACE, default=release.namespace)
        return (namespace, owner) == (release.namespace, release.name)
    if not text(annotations, _HOOK):
        return False
    if instance := text(dig(object_, "metadata", "labels"), _INSTANCE):
        return instance == release.name
    name = text(object_, "metadata", "name")
    fitting = [each for each in (*names, release.name) if each and _begins(name, each)]
    return max(fitting, key=len, default="") == release.name


def _begins(name: str, release: str) -> bool:
    return name == release or name.startswith(f"{release}-")


def marks_of(object_: Object) -> Iterator[tuple[str, int]]:
    """Numbers that grow while a workload is rolled out."""
    kind = text(object_, "kind")
    yield "generation", integer(object_, "metadata", "generation")
    yield "observed", integer(object_, "status", "observedGeneration")
    match kind:
        case "Deployment" | "StatefulSet" | "ReplicaSet":
            updated = integer(object_, "status", "updatedReplicas")
            old = integer(object_, "status", "replicas") - updated
            yield "old", -old if kind != "ReplicaSet" else 0
            generation = str(integer(object_, "metadata", "generation"))
            yield f"updated in {generation}", updated
            for name in ("readyReplicas", "availableReplicas"):
                yield f"{name} in {generation}", integer(object_, "status", name)
        case "DaemonSet":
            generation = str(integer(object_, "metadata", "generation"))
            for name in ("updatedNumberScheduled", "numberReady", "numberAvailable"):
                yield f"{name} in {generation}", integer(object_, "status", name)
        case "Job":
            yield "succeeded", integer(object_, "status", "succeeded")
            yield "ready", integer(object_, "status", "ready")
        case "PersistentVolumeClaim":
            yield "bound", int(text(object_, "status", "phase") == "Bound")


def _score(pod: Object, events: Mapping[str, Collection[object]]) -> int:
    """How far a pod has come, as a number that grows on the way."""
    score = 1 + len(events.get(text(pod, "metadata", "uid"), ()))
    for name in ("PodScheduled", "Initialized", "ContainersReady", "Ready"):
        score += is_true(condition(pod, name))
    for status in items(pod, "status", "initContainerStatuses"):
        score += integer(dig(status, "state", "terminated"), "exitCode", default=1) == 0
        score += status.get("started") is True
    for status in items(pod, "status", "containerStatuses"):
        score += status.get("ready") is True
    return score


def _key(object_: Object) -> _Key:
    return text(object_, "kind"), text(object_, "metadata", "name")


def _owner(object_: Object) -> _Key | None:
    """The controller of an object, None where it has none."""
    for owner in items(object_, "metadata", "ownerReferences"):
        if owner.get("controller", True):
            return text(owner, "kind"), text(owner, "name")
    return None


def _revision(replica_set: Object) -> int:
    number = text(dig(replica_set, "metadata", "annotations"), _REVISION)
    return int(number) if number.isdecimal() else 0


def _shortened(message: str) -> str:
    message = " ".join(message.split())
    return message if len(message) <= 300 else f"{message[:299]}…"
