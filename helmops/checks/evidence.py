"""What a failure left behind, gathered before anything is rolled back or uninstalled.

`ReleaseEvidence` meets the port `EvidenceGatherer`. Pieces are gathered side by side and have a few
seconds: a piece that cannot be had is named in the evidence, and keeps no rollback waiting.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections import Counter, OrderedDict
from collections.abc import (
    AsyncIterator,
    Callable,
    Coroutine,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from helmops.checks.manifest_diff import manifest_diff
from helmops.checks.output import CUT_MARK, last_part
from helmops.checks.pod_logs import (
    KEPT_BYTES,
    KEPT_LINES,
    HookRecorder,
    LogCluster,
    ReadHooks,
    RecordedLog,
)
from helmops.checks.pods import pods_of
from helmops.checks.surroundings import Clock, Cluster, Object
from helmops.errors import ClusterError, HelmopsError, ObjectNotFound
from helmops.health.fields import dig, integer, items, text
from helmops.health.pod_report import ContainerReport, container_reports, pod_lines, trouble_of
from helmops.model.evidence import Evidence, EvidenceKind, EvidenceSection
from helmops.model.hooks import ChartHook
from helmops.model.redaction import redactor, secrets_in_objects
from helmops.model.releases import ReleaseId

log = logging.getLogger(__name__)

#: Seconds for all that the cluster is asked.
_BUDGET = 12.0
_AT_ONCE = 4
#: Releases whose hooks' logs are kept in memory until they are asked for.
_REMEMBERED = 100
#: Pods of one workload that are shown, and whose logs are read: a hundred fail in the same way.
_SHOWN_PODS = 10
_READ_PODS = 2
_READ_CONTAINERS = 24
_READ_BYTES = 8 * KEPT_BYTES
_SHOWN_EVENTS = 60
_SUMMARY_LINES = 3
_LONGEST_QUOTE = 160
_HELM_LINES = 400
_HELM_BYTES = 48 * 1024

_WORKLOADS = frozenset(
    {
        ("apps/v1", "DaemonSet"),
        ("apps/v1", "Deployment"),
        ("apps/v1", "ReplicaSet"),
        ("apps/v1", "StatefulSet"),
        ("batch/v1", "Job"),
        ("v1", "Pod"),
        ("v1", "ReplicationController"),
    }
)
#: Control characters could forge lines or colour a terminal; tabs and line breaks stay.
_CONTROL = re.compile(
    r"\x1b\[[0-9;?]*[ -/]*[@-~]|[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]"
)
#: A line of a log that tells why a program ended.
_TELLING = re.compile(
    r"(?i)panic|fatal|error|exception|traceback|cannot|could not|unable|refused|denied|fail"
)


class EvidenceCluster(Cluster, LogCluster, Protocol):
    """The part of `helmops.cluster.api.Api` that is needed; see there."""


Redact = Callable[[str], str]


@dataclass(slots=True)
class _PodSeen:
    """One pod of the release, and what its containers said."""

    owner: str
    pod: Object
    trouble: int
    logs: list[tuple[ContainerReport, bool, str]] = field(default_factory=list)

    @property
    def name(self) -> str:
        return text(self.pod, "metadata", "name")


@dataclass(slots=True)
class _Found:
    """What comes together piece by piece."""

    pods: list[_PodSeen] = field(default_factory=list)
    hook_logs: list[RecordedLog] = field(default_factory=list)
    hooks: Sequence[ChartHook] = ()
    events: list[Object] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    diff: str = ""


@dataclass(frozen=True, slots=True)
class _Heard:
    """What was recorded of the hooks of one revision."""

    revision: int
    logs: tuple[RecordedLog, ...]
    trouble: str = ""


class ReleaseEvidence:
    """Gathers from one cluster. `secrets` gives the values that must not be shown, as known now;
    those in the release's own manifests are found here.
    """

    def __init__(
        self,
        cluster: EvidenceCluster,
        clock: Clock,
        read_hooks: ReadHooks,
        *,
        secrets: Callable[[], Iterable[str]] = tuple,
        budget: float = _BUDGET,
    ) -> None:
        self._cluster = cluster
        self._clock = clock
        self._read_hooks = read_hooks
        self._secrets = secrets
        self._budget = budget
        self._heard: OrderedDict[ReleaseId, _Heard] = OrderedDict()

    @asynccontextmanager
    async def recording(self, release: ReleaseId) -> AsyncIterator[None]:
        """Enter around helm's install, upgrade, rollback and test; see `pod_logs`. Raises nothing
        of its own.
        """
        recorder = HookRecorder(self._cluster, self._read_hooks, release)
        listening = asyncio.create_task(recorder.run())
        try:
            try:
                yield
            finally:
                await recorder.finish()
        finally:
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)
            await recorder.stop()
            self._remember(release, recorder)

    async def gather(
        self,
        release: ReleaseId,
        revision: int,
        objects: Sequence[Mapping[str, Any]],
        *,
        before: Sequence[Mapping[str, Any]] = (),
        helm_output: str = "",
        hooks: Sequence[str] = (),
    ) -> Evidence:
        """See the port. What could not be had is in `missing`; nothing is raised for it."""
        found = _Found()
        await self._in_time(
            found,
            {
                "the hooks": self._gather_hooks(found, release, revision),
                "the pods": self._gather_pods(found, release, objects),
                "the events": self._gather_events(found, release, objects),
                "the diff": self._gather_diff(found, release, objects, before),
            },
        )
        manifests = [*objects, *before, *(hook.manifest for hook in found.hooks)]
        redact = redactor([*self._secrets(), *secrets_in_objects(manifests)])

        def clean(said: str) -> str:
            return redact(_CONTROL.sub("", said.replace("\r\n", "\n")))

        found.events = _of_release(found, objects)
        return Evidence(
            release=release,
            revision=revision,
            at=self._clock.now(),
            summary=clean(_summary(found)),
            sections=tuple(_sections(found, helm_output, hooks, clean)),
            missing=tuple(clean(line) for line in dict.fromkeys(found.missing)),
        ).within()

    async def _in_time(
        self, found: _Found, pieces: Mapping[str, Coroutine[Any, Any, None]]
    ) -> None:
        """Do all pieces; what is not done in time, or fails, is named."""
        tasks = {asyncio.create_task(piece): name for name, piece in pieces.items()}
        try:
            await asyncio.wait(tasks, timeout=self._budget)
        finally:
            late = [task for task in tasks if not task.done()]
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)
        for task, name in tasks.items():
            if task in late:
                found.missing.append(f"{name}: not all, after {self._budget:g} s of asking")
            elif isinstance(error := task.exception(), HelmopsError):
                found.missing.append(f"{name}: {error.what}")
            elif error is not None:
                log.error("gathering %s failed", name, exc_info=error)
                found.missing.append(f"{name}: helmops failed to gather them, see its log")

    # ------------------------------------------------------------------ pods of the release

    async def _gather_pods(
        self, found: _Found, release: ReleaseId, objects: Sequence[Mapping[str, Any]]
    ) -> None:
        slots = asyncio.Semaphore(_AT_ONCE)

        async def look(one: Mapping[str, Any]) -> None:
            kind, name = text(one, "kind"), text(one, "metadata", "name")
            namespace = text(one, "metadata", "namespace") or release.namespace
            owner = f"{kind}/{namespace}/{name}"
            async with slots:
                try:
                    live = await self._cluster.get(text(one, "apiVersion"), kind, name, namespace)
                    pods = await pods_of(self._cluster, live) if live else []
                except ClusterError as error:
                    found.missing.append(f"the pods of {owner}: {error.what}")
                    return
            if live is None:
                found.missing.append(f"the pods of {owner}: it does not exist")
            found.pods += [_PodSeen(owner, pod, trouble_of(pod)) for pod in pods]

        await asyncio.gather(*(look(one) for one in objects if _is_workload(one)))
        found.pods.sort(key=lambda seen: (-seen.trouble, seen.owner, seen.name))
        await asyncio.gather(
            *(self._read_logs(found, seen, slots) for seen in _to_read(found.pods))
        )

    async def _read_logs(self, found: _Found, seen: _PodSeen, slots: asyncio.Semaphore) -> None:
        """Of each container the log, and before it that of the one that it replaced."""
        namespace = text(seen.pod, "metadata", "namespace")
        for report in container_reports(seen.pod):
            if not report.has_log:
                continue
            for previous in (True, False) if report.has_previous else (False,):
                async with slots:
                    said = await self._log(found, seen.name, namespace, report.name, previous)
                if said:
                    seen.logs.append((report, previous, said))

    async def _log(
        self, found: _Found, pod: str, namespace: str, container: str, previous: bool
    ) -> str:
        try:
            said = await self._cluster.logs(
                pod,
                namespace,
                container=container,
                tail_lines=KEPT_LINES + 1,
                limit_bytes=_READ_BYTES,
                previous=previous,
            )
        except ClusterError as error:
            which = "the log before the restart" if previous else "the log"
            found.missing.append(f"{which} of {container} in pod {pod}: {error.what}")
            return ""
        # A line that the limit broke off may hold half a secret, which nobody would find.
        return said if len(said.encode()) < _READ_BYTES else said.rpartition("\n")[0]

    # ------------------------------------------------------------------ hooks and tests

    async def _gather_hooks(self, found: _Found, release: ReleaseId, revision: int) -> None:
        """What was recorded while helm ran, else what is there still."""
        heard = self._heard.get(release)
        if heard is not None and heard.revision == revision:
            found.hook_logs += heard.logs
            if heard.trouble:
                found.missing.append(f"the logs of hooks while they ran: {heard.trouble}")
        found.hooks = await self._read_hooks(release, revision)
        now = {(hook.kind, hook.namespace, hook.name): hook for hook in found.hooks}
        for recorded in found.hook_logs:
            # How it ended was not known yet when it was heard.
            key = recorded.hook.kind, recorded.hook.namespace, recorded.hook.name
            recorded.hook = now.get(key, recorded.hook)
        known = {(h.hook.kind, h.hook.name) for h in found.hook_logs if not h.error}
        for hook in found.hooks:
            if hook.kind not in ("Job", "Pod") or not hook.phase:
                continue
            if (hook.kind, hook.name) not in known:
                await self._read_hook(found, hook)
        for lost in found.hook_logs:
            if lost.error:
                place = f"{_hook_title(lost.hook)}, pod {lost.pod}, container {lost.container}"
                found.missing.append(f"the log of {place}: {lost.error}")

    async def _read_hook(self, found: _Found, hook: ChartHook) -> None:
        """The logs of a hook's pods that are still there."""
        title = _hook_title(hook)
        try:
            pods = await self._pods_of_hook(hook)
        except ClusterError as error:
            found.missing.append(f"the log of {title}: {error.what}")
            return
        if not pods:
            policies = ", ".join(hook.delete_policies)
            why = f" (hook-delete-policy: {policies})" if policies else ""
            told = f"the log of {title}: it was gone before anybody listened{why}"
            if not any(lost.hook.name == hook.name for lost in found.hook_logs):
                found.missing.append(told)
            return
        for pod in pods[-_READ_PODS:]:
            name, namespace = text(pod, "metadata", "name"), text(pod, "metadata", "namespace")
            for report in container_reports(pod):
                if not report.has_log:
                    continue
                said = await self._log(found, name, namespace, report.name, previous=False)
                recorded = RecordedLog(hook, name, text(pod, "metadata", "uid"), report.name)
                recorded.add(said.encode())
                if said:
                    found.hook_logs.append(recorded)

    async def _pods_of_hook(self, hook: ChartHook) -> list[Object]:
        if hook.kind == "Pod":
            pod = await self._cluster.get("v1", "Pod", hook.name, hook.namespace)
            return [pod] if pod else []
        listing = await self._cluster.list(
            "v1", "Pod", hook.namespace, label_selector=f"job-name={hook.name}"
        )
        return sorted(listing.items, key=lambda pod: text(pod, "metadata", "creationTimestamp"))

    def _remember(self, release: ReleaseId, recorder: HookRecorder) -> None:
        logs, trouble = tuple(recorder.logs), recorder.trouble
        if not logs and not trouble:
            return
        earlier = self._heard.get(release)
        if earlier is not None and earlier.revision == recorder.revision:
            logs = (*earlier.logs, *logs)[-2 * _READ_CONTAINERS :]
            trouble = trouble or earlier.trouble
        self._heard[release] = _Heard(recorder.revision, logs, trouble)
        self._heard.move_to_end(release)
        while len(self._heard) > _REMEMBERED:
            self._heard.popitem(last=False)

    # ------------------------------------------------------------------ events, diff

    async def _gather_events(
        self, found: _Found, release: ReleaseId, objects: Sequence[Mapping[str, Any]]
    ) -> None:
        namespaces = {text(one, "metadata", "namespace") or release.namespace for one in objects}
        for namespace in sorted(namespaces | {release.namespace}):
            try:
                listing = await self._cluster.list("v1", "Event", namespace)
            except ObjectNotFound:
                continue
            found.events += listing.items

    async def _gather_diff(
        self,
        found: _Found,
        release: ReleaseId,
        objects: Sequence[Mapping[str, Any]],
        before: Sequence[Mapping[str, Any]],
    ) -> None:
        if before:
            found.diff = await asyncio.to_thread(manifest_diff, before, objects, release.namespace)


# ---------------------------------------------------------------------- putting it in order


def _sections(
    found: _Found, helm_output: str, hooks: Sequence[str], clean: Redact
) -> Iterator[EvidenceSection]:
    """Everything, the most important first."""
    in_trouble = [seen for seen in found.pods if seen.trouble]
    well = [seen for seen in found.pods if not seen.trouble]
    if found.pods:
        yield EvidenceSection(EvidenceKind.PODS, "pods", clean(_pod_states(found.pods)))
    for seen in in_trouble:
        yield from _logs_of(seen, clean)
    for heard in sorted(found.hook_logs, key=lambda heard: heard.hook.phase != "Failed"):
        if heard.text.strip():
            yield _hook_section(heard, clean)
    if helm_output.strip():
        said = clean(helm_output)
        yield _ending(EvidenceKind.HELM, "helm", said, lines=_HELM_LINES, size=_HELM_BYTES)
    if found.events:
        yield EvidenceSection(EvidenceKind.EVENTS, "events", clean(_event_lines(found.events)))
    for said in hooks:
        if said.strip():
            yield _ending(EvidenceKind.HOOK_OUTPUT, "remediation hook", clean(said))
    if found.diff:
        title = "what changed since the healthy revision"
        yield EvidenceSection(EvidenceKind.DIFF, title, clean(found.diff))
    for seen in well:
        yield from _logs_of(seen, clean)


def _ending(
    kind: EvidenceKind,
    title: str,
    said: str,
    *,
    lines: int = KEPT_LINES,
    size: int = KEPT_BYTES,
) -> EvidenceSection:
    """The end of a text, which is clean already: a secret that is cut in two is not found."""
    kept = last_part(said, lines=lines, size=size)
    return EvidenceSection(kind, title, kept, cut=kept.startswith(CUT_MARK))


def _pod_states(pods: Sequence[_PodSeen]) -> str:
    blocks, hidden = [], 0
    shown: Counter[str] = Counter()
    for seen in pods:
        shown[seen.owner] += 1
        if shown[seen.owner] > _SHOWN_PODS:
            hidden += 1
            continue
        first, *rest = pod_lines(seen.pod)
        blocks.append("\n".join([f"pod {seen.name} of {seen.owner}: {first}", *rest]))
    if hidden:
        blocks.append(f"and {hidden} more pods")
    return "\n".join(blocks)


def _logs_of(seen: _PodSeen, clean: Redact) -> Iterator[EvidenceSection]:
    """The container that is in trouble before the ones beside it."""
    for report, previous, said in sorted(seen.logs, key=lambda entry: -entry[0].trouble):
        when = ", before its restart" if previous else ""
        title = f"log of pod {seen.name}, container {report.name}{when}"
        yield _ending(EvidenceKind.LOG, title, clean(said))


def _hook_section(heard: RecordedLog, clean: Redact) -> EvidenceSection:
    kind = EvidenceKind.TEST_LOG if heard.hook.is_test else EvidenceKind.HOOK_LOG
    again = f", after {heard.restarts} restarts" if heard.restarts else ""
    title = f"log of {_hook_title(heard.hook)}, pod {heard.pod}, container {heard.container}{again}"
    section = _ending(kind, title, clean(heard.text))
    return replace(section, cut=section.cut or heard.is_cut)


def _hook_title(hook: ChartHook) -> str:
    what = "test" if hook.is_test else f"{', '.join(hook.events)} hook"
    return f"{what} {hook.kind}/{hook.name}"


def _of_release(found: _Found, objects: Sequence[Mapping[str, Any]]) -> list[Object]:
    """The events that are about objects of the release, their pods and its hooks; newest last."""
    names = {(text(one, "kind"), text(one, "metadata", "name")) for one in objects}
    names |= {("Pod", seen.name) for seen in found.pods}
    names |= {(hook.kind, hook.name) for hook in found.hooks}
    names |= {("Pod", heard.pod) for heard in found.hook_logs}
    names |= {
        (text(owner, "kind"), text(owner, "name"))
        for seen in found.pods
        for owner in items(seen.pod, "metadata", "ownerReferences")
    }
    about = [
        event
        for event in found.events
        if (text(event, "involvedObject", "kind"), text(event, "involvedObject", "name")) in names
    ]
    about.sort(key=_moment)
    warnings = [event for event in about if text(event, "type") == "Warning"][-_SHOWN_EVENTS:]
    others = [event for event in about if text(event, "type") != "Warning"]
    others = others[max(0, len(others) + len(warnings) - _SHOWN_EVENTS) :]
    return sorted([*warnings, *others], key=_moment)


def _event_lines(events: Sequence[Object]) -> str:
    return "\n".join(
        f"{_moment(event)[:19]} {text(event, 'type')} {text(event, 'reason')} "
        f"{text(event, 'involvedObject', 'kind')}/{text(event, 'involvedObject', 'name')}: "
        f"{_one_line(text(event, 'message'), 500)}{_times(event)}"
        for event in events
    )


def _times(event: Object) -> str:
    count = max(integer(event, "count"), integer(event, "series", "count"))
    return f" ({count} times)" if count > 1 else ""


def _moment(event: Object) -> str:
    """RFC 3339, as the API server writes it; they sort as texts."""
    return (
        text(event, "series", "lastObservedTime")
        or text(event, "lastTimestamp")
        or text(event, "eventTime")
        or text(event, "metadata", "creationTimestamp")
    )


def _summary(found: _Found) -> str:
    """One to three lines with the most telling facts."""
    lines: list[str] = []
    for heard in found.hook_logs:
        if heard.hook.phase == "Failed":
            quote = _telling_line(heard.text)
            lines.append(f"{_hook_title(heard.hook)} failed{f': {quote}' if quote else ''}")
    for hook in found.hooks:
        told = f"{_hook_title(hook)} failed"
        if hook.phase == "Failed" and not any(line.startswith(told) for line in lines):
            lines.append(told)
    owners: set[str] = set()
    for seen in found.pods:
        if seen.trouble and seen.owner not in owners:
            owners.add(seen.owner)
            lines.append(_told_of(seen))
    if not lines:
        lines += [
            f"{text(event, 'involvedObject', 'kind')}/{text(event, 'involvedObject', 'name')}: "
            f"{text(event, 'reason')}: {_one_line(text(event, 'message'), _LONGEST_QUOTE)}"
            for event in found.events[-_SUMMARY_LINES:]
            if text(event, "type") == "Warning"
        ]
    return "\n".join(dict.fromkeys(lines[:_SUMMARY_LINES]))


def _told_of(seen: _PodSeen) -> str:
    """`pod web-7d9 container main: CrashLoopBackOff (exit code 1): "panic: no config"`."""
    reports = container_reports(seen.pod)
    worst = max(reports, key=lambda report: report.trouble, default=None)
    if worst is None or not worst.trouble:
        states = [line.strip() for line in list(pod_lines(seen.pod))[1:2]]
        phase = text(seen.pod, "status", "phase") or "not observed"
        return f"pod {seen.name}: {'; '.join([phase, *states])}"
    said = next(
        (said for report, _, said in seen.logs if report.name == worst.name and said.strip()), ""
    )
    quote = _telling_line(said) if worst.has_log else ""
    detail = quote or _one_line(worst.detail, _LONGEST_QUOTE)
    told = f"pod {seen.name} container {worst.name}: {worst.state}"
    return f"{told}: {detail}" if detail else told


def _telling_line(said: str) -> str:
    """The last line of a log's end that tells why, else its last line, in quotes."""
    lines = [line for line in said.splitlines() if line.strip()][-30:]
    if not lines:
        return ""
    telling = [line for line in lines if _TELLING.search(line)]
    return f'"{_one_line((telling or lines)[-1], _LONGEST_QUOTE)}"'


def _one_line(message: str, longest: int) -> str:
    line = " ".join(message.split())
    return line if len(line) <= longest else f"{line[: longest - 1]}…"


def _to_read(pods: Sequence[_PodSeen]) -> list[_PodSeen]:
    """The pods whose logs are read: of each workload the ones in most trouble."""
    taken: Counter[str] = Counter()
    chosen = []
    for seen in pods:
        taken[seen.owner] += 1
        most = _READ_PODS if seen.trouble else 1
        if taken[seen.owner] <= most:
            chosen.append(seen)
    return chosen[:_READ_CONTAINERS]


def _is_workload(one: Mapping[str, Any]) -> bool:
    return (text(one, "apiVersion"), text(one, "kind")) in _WORKLOADS and bool(
        dig(one, "metadata", "name")
    )
