"""Pod: phase, readiness, crash loops, scheduling; and what to tell of a pod that is in trouble."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any

from helmops.health.fields import (
    Object,
    condition,
    current,
    dig,
    failed,
    in_progress,
    integer,
    is_true,
    items,
    moment,
    text,
)
from helmops.model.health import Health, HealthStatus

#: How long a new pod may be unschedulable before it counts as failed (kstatus: 15 s).
SCHEDULE_WINDOW = timedelta(seconds=15)

_LONGEST_MESSAGE = 300


def assess_pod(object_: Object, now: datetime | None = None) -> Health:
    """Ready, or completed with success.

    kstatus calls a pod that completed without success Current, too. Here it is a failure: a
    revision with such a pod must not be remembered as healthy.
    """
    phase = text(object_, "status", "phase")
    if phase == "Succeeded":
        return current("completed")
    if phase == "Failed":
        return failed(_told_of(f"failed{_because(object_)}"))
    if phase == "Running":
        if is_true(condition(object_, "Ready")):
            return current("is Ready")
        if looping := _crash_looping(object_):
            return failed(f"CrashLoopBackOff in {', '.join(looping)}")
        return in_progress("runs, but is not Ready")
    if phase == "Pending":
        scheduled = condition(object_, "PodScheduled")
        if (
            text(scheduled, "status") == "False"
            and text(scheduled, "reason") == "Unschedulable"
            and not _is_new(object_, now)
        ):
            return failed(_told_of(f"Unschedulable: {text(scheduled, 'message')}"))
        return in_progress("is Pending")
    if phase:
        return Health(HealthStatus.UNKNOWN, f"has the unknown phase {phase}")
    return in_progress("is not observed yet")


def pod_trouble(object_: Object) -> str:
    """Why a pod is not ready, in the words of `kubectl get pods`; empty where it is fine.

    Waiting and terminated containers (init containers first), scheduling, then readiness. What a
    container wrote to its termination log is left out: it may hold anything.
    """
    if text(object_, "metadata", "deletionTimestamp"):
        return ""
    if text(object_, "status", "phase") == "Succeeded" or is_true(condition(object_, "Ready")):
        return ""
    for container in containers_of(object_):
        if trouble := container_trouble(container):
            return _told_of(trouble)
    scheduled = condition(object_, "PodScheduled")
    if text(scheduled, "status") == "False":
        reason = text(scheduled, "reason", default="not scheduled")
        return _told_of(f"{reason}: {text(scheduled, 'message')}".removesuffix(": "))
    if text(object_, "status", "phase") == "Failed":
        return _told_of(f"Failed{_because(object_)}")
    unready = [text(c, "name") for c in containers_of(object_) if c.get("ready") is False]
    if text(object_, "status", "phase") == "Running" and unready:
        return f"runs, but not ready: {', '.join(unready)}"
    return text(object_, "status", "phase") or "not observed yet"


def container_trouble(status: Mapping[str, Any]) -> str:
    """Why a container does not run, out of its status; empty where it runs or is on its way."""
    name = text(status, "name")
    reason = text(status, "state", "waiting", "reason")
    if reason and reason not in ("ContainerCreating", "PodInitializing"):
        message = text(status, "state", "waiting", "message")
        last = dig(status, "lastState", "terminated")
        if reason == "CrashLoopBackOff" and isinstance(last, Mapping):
            # The message is only "back-off 10s restarting …"; how it ended tells more.
            message = f"container {name} {_ended(last)}"
        return f"{reason}: {message}" if message else f"{reason} in {name}"
    terminated = dig(status, "state", "terminated")
    if isinstance(terminated, Mapping) and integer(terminated, "exitCode") != 0:
        return f"container {name} {_ended(terminated)}"
    return ""


def _ended(terminated: Mapping[str, Any]) -> str:
    reason = text(terminated, "reason", default="Error")
    return f"ended with exit code {integer(terminated, 'exitCode')} ({reason})"


def _because(object_: Object) -> str:
    reason = text(object_, "status", "reason")
    if reason:
        return f": {reason}: {text(object_, 'status', 'message')}".removesuffix(": ")
    for container in containers_of(object_):
        terminated = dig(container, "state", "terminated")
        if isinstance(terminated, Mapping) and integer(terminated, "exitCode") != 0:
            return f": container {text(container, 'name')} {_ended(terminated)}"
    return ""


def _is_new(object_: Object, now: datetime | None) -> bool:
    created = moment(object_, "metadata", "creationTimestamp")
    return now is not None and created is not None and now - created < SCHEDULE_WINDOW


def _crash_looping(object_: Object) -> list[str]:
    return [
        text(status, "name")
        for status in items(object_, "status", "containerStatuses")
        if text(status, "state", "waiting", "reason") == "CrashLoopBackOff"
    ]


def containers_of(object_: Object) -> Iterator[Mapping[str, Any]]:
    """The statuses of a pod's containers, init containers first."""
    yield from items(object_, "status", "initContainerStatuses")
    yield from items(object_, "status", "containerStatuses")


def _told_of(message: str) -> str:
    message = " ".join(message.split()).removesuffix(":")
    return message if len(message) <= _LONGEST_MESSAGE else message[: _LONGEST_MESSAGE - 1] + "…"
