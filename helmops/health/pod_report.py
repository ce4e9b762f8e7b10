"""What a pod's status says, for a person who cannot look at the pod any more."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from helmops.health.fields import Object, condition, conditions, dig, integer, is_true, items, text

_LONGEST = 300
#: Reasons of waiting that every container has for a moment.
_ON_ITS_WAY = frozenset({"ContainerCreating", "PodInitializing", ""})


@dataclass(frozen=True, slots=True)
class ContainerReport:
    """One container: `state` in words (`CrashLoopBackOff (exit code 1, Error)`), `detail` what the
    cluster says about it. `trouble` is 0 for a container that is well (or is yet to start), 1 for
    one that is not ready, 2 for one with a reason.
    """

    name: str
    state: str
    detail: str
    trouble: int
    restarts: int
    has_log: bool
    has_previous: bool


def container_reports(pod: Object) -> tuple[ContainerReport, ...]:
    """Its containers, those of the beginning first; nothing before the node has taken them on."""
    ended = text(pod, "status", "phase") in ("Succeeded", "Failed")
    return tuple(_container(status, ended=ended) for status in _statuses(pod))


def pod_lines(pod: Object) -> Iterator[str]:
    """Phase, node and times, conditions that do not hold, then a line for each container."""
    phase = text(pod, "status", "phase") or "not observed"
    if text(pod, "metadata", "deletionTimestamp"):
        phase += ", being deleted"
    parts = [phase]
    if reason := text(pod, "status", "reason"):
        parts.append(_line(f"{reason}: {text(pod, 'status', 'message')}".removesuffix(": ")))
    if node := text(pod, "spec", "nodeName"):
        parts.append(f"on {node}")
    if created := text(pod, "metadata", "creationTimestamp"):
        parts.append(f"created {created}")
    yield ", ".join(parts)
    for one in conditions(pod):
        if not is_true(one):
            parts = [f"{text(one, 'type')} is {text(one, 'status')}"]
            parts += [part for name in ("reason", "message") if (part := text(one, name))]
            yield f"  {_line(': '.join(parts))}"
    images = {text(c, "name"): text(c, "image") for c in _declared(pod)}
    for report in container_reports(pod):
        restarts = f", {report.restarts} restarts" if report.restarts else ""
        detail = f": {report.detail}" if report.detail else ""
        image = images.get(report.name, "")
        yield f"  container {report.name} ({image}): {report.state}{restarts}{detail}"


def trouble_of(pod: Object) -> int:
    """How much a pod tells of a failure: 0 nothing, 1 not ready, 2 it has a reason, 3 it ended or
    ends again and again.
    """
    if text(pod, "status", "phase") == "Succeeded" or is_true(condition(pod, "Ready")):
        return 0
    reports = container_reports(pod)
    if any(report.trouble == 2 and report.has_log for report in reports):
        return 3
    if text(pod, "status", "phase") == "Failed" or any(r.trouble == 2 for r in reports):
        return 2
    scheduled = condition(pod, "PodScheduled")
    return 2 if text(scheduled, "status") == "False" else 1


def _container(status: Mapping[str, Any], *, ended: bool) -> ContainerReport:
    restarts = integer(status, "restartCount")
    last = dig(status, "lastState", "terminated")
    has_previous = isinstance(last, Mapping)
    waiting, running = dig(status, "state", "waiting"), dig(status, "state", "running")
    terminated = dig(status, "state", "terminated")
    detail, trouble = "", 0
    if isinstance(terminated, Mapping):
        state = _ended(terminated)
        trouble = 2 if integer(terminated, "exitCode") else 0
        detail = text(terminated, "message")
    elif isinstance(running, Mapping):
        is_ready = dig(status, "ready") is True or ended
        state = "running" if is_ready else "running, not ready"
        trouble = 0 if is_ready else 1
        if has_previous:
            state += f", before that {_ended(last)}"
            trouble = max(trouble, 0 if is_ready else 2)
    else:
        reason = text(waiting, "reason")
        detail = text(waiting, "message")
        state = reason or "waiting"
        trouble = 0 if reason in _ON_ITS_WAY else 2
        if has_previous:
            state = f"{state} ({_ended(last)})"
            detail = text(last, "message") or detail
    return ContainerReport(
        name=text(status, "name"),
        state=state,
        detail=_line(detail),
        trouble=trouble,
        restarts=restarts,
        has_log=isinstance(terminated, Mapping) or isinstance(running, Mapping) or has_previous,
        has_previous=has_previous,
    )


def _ended(terminated: Mapping[str, Any]) -> str:
    code = integer(terminated, "exitCode")
    reason = text(terminated, "reason")
    if not code:
        return reason.lower() or "completed"
    return f"exit code {code}{f', {reason}' if reason else ''}"


def _statuses(pod: Object) -> Iterator[Mapping[str, Any]]:
    yield from items(pod, "status", "initContainerStatuses")
    yield from items(pod, "status", "containerStatuses")


def _declared(pod: Object) -> Iterator[Mapping[str, Any]]:
    yield from items(pod, "spec", "initContainers")
    yield from items(pod, "spec", "containers")


def _line(message: str) -> str:
    line = " ".join(message.split())
    return line if len(line) <= _LONGEST else f"{line[: _LONGEST - 1]}…"
