"""What of an object its rules of health look at: what a service keeps of thousands of them.

A Pod of 6 KB becomes some 600 bytes, and a change of anything else (heartbeats, managed fields,
probe times) leaves the slimmed object as it was, so that nobody is woken by it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from helmops.health.fields import Object, dig, group_of, items, text

_METADATA = ("name", "namespace", "uid", "generation", "deletionTimestamp", "creationTimestamp")
#: Whose an object is, and which of several ReplicaSets is the newest.
_ANNOTATIONS = (
    "meta.helm.sh/release-name",
    "meta.helm.sh/release-namespace",
    "helm.sh/hook",
    "deployment.kubernetes.io/revision",
)
_LABELS = (
    "app.kubernetes.io/instance",
    "controller-revision-hash",
    "pod-template-hash",
)
_SPEC: dict[tuple[str, str], tuple[str, ...]] = {
    ("", "PersistentVolumeClaim"): (),
    ("", "Pod"): (),
    ("apps", "DaemonSet"): (),
    ("apps", "Deployment"): ("replicas", "progressDeadlineSeconds"),
    ("apps", "ReplicaSet"): ("replicas",),
    ("apps", "StatefulSet"): ("replicas", "updateStrategy"),
    ("batch", "Job"): ("parallelism", "completions", "ttlSecondsAfterFinished"),
}
_CONDITION = ("type", "status", "reason", "message")
#: What a container wrote to its termination log is left out: it may hold anything.
_STATE = {"waiting": ("reason", "message"), "running": (), "terminated": ("reason", "exitCode")}


def slimmed(object_: Object) -> Object | None:
    """The part of an object that is looked at. Objects of kinds without rules of their own keep
    everything but their managed fields; of Events only those about images, volumes and places stay.
    """
    group, kind = group_of(text(object_, "apiVersion")), text(object_, "kind")
    if (group, kind) == ("", "Event"):
        return _event(object_)
    spec = _SPEC.get((group, kind))
    if spec is None:
        metadata = {k: v for k, v in object_["metadata"].items() if k != "managedFields"}
        return {**object_, "metadata": metadata}
    return {
        "apiVersion": object_["apiVersion"],
        "kind": kind,
        "metadata": _metadata(object_),
        "spec": _some(dig(object_, "spec"), spec),
        "status": _pod_status(object_) if kind == "Pod" else _status(object_),
    }


def _metadata(object_: Object) -> dict[str, Any]:
    metadata = _some(object_["metadata"], _METADATA)
    for name, wanted in (("annotations", _ANNOTATIONS), ("labels", _LABELS)):
        if found := _some(dig(object_, "metadata", name), wanted):
            metadata[name] = found
    owners = [
        _some(owner, ("apiVersion", "kind", "name", "uid"))
        for owner in items(object_, "metadata", "ownerReferences")
        if owner.get("controller")
    ]
    if owners:
        metadata["ownerReferences"] = owners
    return metadata


def _status(object_: Object) -> dict[str, Any]:
    status: dict[str, Any] = {
        name: value
        for name, value in (dig(object_, "status") or {}).items()
        if isinstance(value, (int, str))
    }
    if conditions := [_some(each, _CONDITION) for each in items(object_, "status", "conditions")]:
        status["conditions"] = conditions
    return status


def _pod_status(object_: Object) -> dict[str, Any]:
    status = _some(dig(object_, "status"), ("phase", "reason", "message"))
    status["conditions"] = [_some(c, _CONDITION) for c in items(object_, "status", "conditions")]
    for name in ("initContainerStatuses", "containerStatuses"):
        status[name] = [_container(each) for each in items(object_, "status", name)]
    return status


def _container(status: Mapping[str, Any]) -> dict[str, Any]:
    slim = _some(status, ("name", "ready", "restartCount", "started"))
    for moment in ("state", "lastState"):
        slim[moment] = {
            name: _some(state, _STATE.get(name, ()))
            for name, state in (status.get(moment) or {}).items()
        }
    return slim


#: Events that tell that something goes on with a pod; the rest is told by its status.
EVENTS_OF_MOVEMENT = frozenset(
    {"Scheduled", "SuccessfulAttachVolume", "Pulling", "Pulled", "Created", "Started"}
)


def _event(object_: Object) -> Object | None:
    reason = text(object_, "reason")
    if reason not in EVENTS_OF_MOVEMENT:
        return None
    return {
        "kind": "Event",
        "metadata": _some(object_["metadata"], ("name", "namespace")),
        "reason": reason,
        "involvedObject": _some(dig(object_, "involvedObject"), ("kind", "uid", "fieldPath")),
    }


def _some(value: Any, names: tuple[str, ...]) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        return {}
    return {name: value[name] for name in names if name in value}
