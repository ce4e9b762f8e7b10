"""Logs of containers: the end of one, and those of hook and test pods while they live.

Helm deletes hooks by their `hook-delete-policy`, most often right when they end. So while helm
runs, the release's hook and test pods are watched, and each container's log is read as it is
written.
Where the release has no hook that makes pods, that costs one list and one watch of its release
Secrets' metadata.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Protocol

from helmops.checks.surroundings import Object
from helmops.cluster.api import Changed, Listed, WatchEvent
from helmops.errors import ClusterError, HelmopsError, ObjectNotFound
from helmops.health.fields import text
from helmops.health.pod_report import container_reports
from helmops.model.hooks import ChartHook
from helmops.model.releases import ReleaseId

log = logging.getLogger(__name__)

#: Of each container, in lines and in bytes.
KEPT_LINES = 100
KEPT_BYTES = 16 * 1024
#: Containers of hooks that are listened to in one run of helm.
_MOST_STREAMS = 40
#: Seconds that a log of a container which has ended may take to come in.
_DRAIN_SECONDS = 1.0

_JOB_LABEL = "job-name"
_REVISION = re.compile(r"\.v(\d+)$")


class LogCluster(Protocol):
    """The part of `helmops.cluster.api.Api` that listening needs; see there."""

    def watch(
        self,
        api_version: str,
        kind: str,
        namespace: str = "",
        *,
        label_selector: str = "",
        field_selector: str = "",
        metadata_only: bool = False,
    ) -> AsyncIterator[WatchEvent]: ...

    def follow_logs(
        self, pod: str, namespace: str, *, container: str = ""
    ) -> AsyncGenerator[bytes, None]: ...


#: The hooks of one stored revision; `HelmStorage.hooks`. May raise HelmopsError.
ReadHooks = Callable[[ReleaseId, int], Awaitable[Sequence[ChartHook]]]


@dataclass(slots=True)
class RecordedLog:
    """What one container of a hook said. `error` is why nothing could be read, empty where it
    could; `uid` is the pod's.
    """

    hook: ChartHook
    pod: str
    uid: str
    container: str
    restarts: int = 0
    error: str = ""
    is_over: bool = False
    _data: bytearray = field(default_factory=bytearray, repr=False)
    _cut: bool = False

    def add(self, chunk: bytes) -> None:
        """More of it; only the end is kept."""
        self._data += chunk
        if len(self._data) > 8 * KEPT_BYTES:
            del self._data[: -4 * KEPT_BYTES]
            self._cut = True

    @property
    def text(self) -> str:
        """The end of it; more as is kept of a log, so that it can be redacted first."""
        return self._data.decode(errors="replace")

    @property
    def is_cut(self) -> bool:
        """Whether there was more."""
        return self._cut


class HookRecorder:
    """Listens to the hooks of one release while helm runs. Enter `run` as a task; never raises."""

    def __init__(self, cluster: LogCluster, read_hooks: ReadHooks, release: ReleaseId) -> None:
        self._cluster = cluster
        self._read_hooks = read_hooks
        self._release = release
        self._heard: dict[tuple[str, str, int], RecordedLog] = {}
        self._streams: dict[tuple[str, str, int], asyncio.Task[None]] = {}
        self._watched: set[str] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._hooks: dict[tuple[str, str, str], ChartHook] = {}
        #: The newest revision that was seen, 0 before that.
        self.revision = 0
        self.trouble = ""

    @property
    def logs(self) -> list[RecordedLog]:
        """What was heard so far, in the order of beginning."""
        return list(self._heard.values())

    async def run(self) -> None:
        """Listen until cancelled."""
        try:
            await self._follow_revisions()
        except HelmopsError as error:
            self.trouble = self.trouble or error.what
        except Exception:
            log.exception("listening to the hooks of %s failed", self._release)

    async def finish(self) -> None:
        """Helm has ended: wait a moment for logs that are still coming in."""
        open_streams = [task for task in self._streams.values() if not task.done()]
        if open_streams:
            await asyncio.wait(open_streams, timeout=_DRAIN_SECONDS)

    async def stop(self) -> None:
        """Stop listening, at once."""
        tasks = [*self._tasks, *self._streams.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _follow_revisions(self) -> None:
        """Each revision's hooks from the moment on that helm has stored it."""
        secrets = self._cluster.watch(
            "v1",
            "Secret",
            self._release.namespace,
            label_selector=f"owner=helm,name={self._release.name}",
            metadata_only=True,
        )
        async for event in _each(secrets):
            if isinstance(event, Listed):
                found, is_first = list(event.items), self.revision == 0
            elif isinstance(event, Changed) and event.type != "DELETED":
                found, is_first = [event.object], False
            else:
                continue
            newest = max(found, key=_number, default=None)
            if newest is None or _number(newest) <= self.revision:
                continue
            self.revision = _number(newest)
            since = "" if is_first else text(newest, "metadata", "creationTimestamp")
            await self._follow_hooks(await self._read_hooks(self._release, self.revision), since)

    async def _follow_hooks(self, hooks: Sequence[ChartHook], since: str) -> None:
        """Watch the pods that these hooks make. `since` (RFC 3339) leaves out older pods."""
        for hook in hooks:
            if hook.kind not in ("Job", "Pod"):
                continue
            namespace = hook.namespace or self._release.namespace
            self._hooks[hook.kind, namespace, hook.name] = hook
            watched = f"{hook.kind}/{namespace}/{hook.name}"
            if watched in self._watched:
                continue
            self._watched.add(watched)
            task = asyncio.create_task(self._follow_pods(hook, namespace, since))
            self._tasks.add(task)

    async def _follow_pods(self, hook: ChartHook, namespace: str, since: str) -> None:
        place = hook.kind, namespace, hook.name
        is_job = hook.kind == "Job"
        pods = self._cluster.watch(
            "v1",
            "Pod",
            namespace,
            label_selector=f"{_JOB_LABEL}={hook.name}" if is_job else "",
            field_selector="" if is_job else f"metadata.name={hook.name}",
        )
        earlier: set[str] | None = None
        try:
            async for event in _each(pods):
                if isinstance(event, Listed):
                    if earlier is None:
                        # Without a moment to compare with, what has ended is of an earlier run.
                        earlier = {
                            text(pod, "metadata", "uid")
                            for pod in event.items
                            if (_is_older(pod, since) if since else _has_ended(pod))
                        }
                    seen, is_gone = event.items, False
                elif isinstance(event, Changed):
                    seen, is_gone = (event.object,), event.type == "DELETED"
                else:
                    continue
                for pod in seen:
                    if text(pod, "metadata", "uid") not in (earlier or ()):
                        self._saw(pod, self._hooks[place], is_gone=is_gone)
        except ClusterError as error:
            self.trouble = self.trouble or error.what

    def _saw(self, pod: Object, hook: ChartHook, *, is_gone: bool) -> None:
        uid, name = text(pod, "metadata", "uid"), text(pod, "metadata", "name")
        for report in container_reports(pod):
            key = uid, report.name, report.restarts
            if key in self._heard:
                continue
            if not report.has_log or len(self._heard) >= _MOST_STREAMS:
                continue
            heard = RecordedLog(hook, name, uid, report.name, report.restarts)
            self._heard[key] = heard
            if is_gone:
                heard.error = "it was deleted before its log could be read"
                heard.is_over = True
            else:
                namespace = text(pod, "metadata", "namespace")
                self._streams[key] = asyncio.create_task(self._listen(heard, namespace))

    async def _listen(self, heard: RecordedLog, namespace: str) -> None:
        chunks = self._cluster.follow_logs(heard.pod, namespace, container=heard.container)
        try:
            async with aclosing(chunks):
                async for chunk in chunks:
                    heard.add(chunk)
        except ObjectNotFound:
            if not heard.text:
                heard.error = "it was deleted before its log could be read"
        except ClusterError as error:
            if not heard.text:
                heard.error = error.what
        heard.is_over = True


async def _each(events: AsyncIterator[WatchEvent]) -> AsyncIterator[WatchEvent]:
    """The events; the watch is closed when nobody wants more."""
    assert isinstance(events, AsyncGenerator)  # noqa: S101 - `Api.watch` is one
    async with aclosing(events):
        async for event in events:
            yield event


def _number(secret: Object) -> int:
    """The revision that a release Secret is of."""
    found = _REVISION.search(text(secret, "metadata", "name"))
    return int(found[1]) if found else 0


def _is_older(pod: Object, since: str) -> bool:
    """Both are the API server's times, of the same form."""
    return text(pod, "metadata", "creationTimestamp", default=since) < since


def _has_ended(pod: Object) -> bool:
    return text(pod, "status", "phase") in ("Succeeded", "Failed")
