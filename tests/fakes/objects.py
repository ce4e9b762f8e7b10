"""Objects of a cluster in memory, which change as time goes by: what checks and hooks look at."""

from __future__ import annotations

import asyncio
import copy
import itertools
from collections.abc import AsyncGenerator, Callable, Mapping
from datetime import timedelta
from typing import Any, Literal

from helmops.cluster.api import Changed, Listed, Listing, WatchEvent
from helmops.cluster.resources import WELL_KNOWN, Resource
from helmops.errors import ClusterError, ObjectConflict, ObjectNotFound
from tests.fakes.clock import FakeClock

Object = dict[str, Any]
Place = tuple[str, str, str]


class FakeObjects:
    """The part of `Api` that checks and hooks use, by kind, namespace and name.

    - `after(seconds, change)` does something when the clock has come so far.
    - `fails_with` is raised by every request, `fails_on[verb, kind]` by some of them.
    - `asked` lists the requests as `get Deployment/ns/web`, `busiest` is how many ran at once.
    """

    def __init__(self, clock: FakeClock) -> None:
        self.clock = clock
        self.objects: dict[Place, Object] = {}
        self.kinds = dict(WELL_KNOWN)
        self.container_logs: dict[tuple[str, str], str] = {}
        #: Of containers that were started anew.
        self.previous_logs: dict[tuple[str, str], str] = {}
        #: What a followed log says as time goes by; None ends it.
        self.streams: dict[tuple[str, str], asyncio.Queue[bytes | None]] = {}
        self._watchers: list[tuple[Callable[[Object], bool], asyncio.Queue[Changed]]] = []
        self.on_create: Callable[[Object], None] | None = None
        self.fails_with: ClusterError | None = None
        self.fails_on: dict[tuple[str, str], ClusterError] = {}
        self.asked: list[str] = []
        self.busiest = 0
        self._busy = 0
        self._numbers = itertools.count(1)
        self._changes: list[tuple[Any, Callable[[], object]]] = []

    # For tests

    def put(self, *objects: Object) -> None:
        """Put objects there as they are, in place of those that were there."""
        for one in objects:
            was_there = _place(one) in self.objects
            self.objects[_place(one)] = copy.deepcopy(one)
            self._tell("MODIFIED" if was_there else "ADDED", one)

    def drop(self, one: Object) -> None:
        """Take an object away."""
        if (gone := self.objects.pop(_place(one), None)) is not None:
            self._tell("DELETED", gone)

    def after(self, seconds: float, change: Callable[[], object]) -> None:
        """Do something at the first request after so many seconds."""
        self._changes.append((self.clock.now() + timedelta(seconds=seconds), change))

    def know(self, api_version: str, kind: str, plural: str, *, is_namespaced: bool = True) -> None:
        """A kind that a CRD brings."""
        self.kinds[api_version, kind] = Resource(api_version, kind, plural, is_namespaced)

    def of_kind(self, kind: str) -> list[Object]:
        """All objects of a kind."""
        return [one for (its_kind, _, _), one in self.objects.items() if its_kind == kind]

    # As `Api` has them

    async def get(
        self,
        api_version: str,
        kind: str,
        name: str,
        namespace: str = "",
        *,
        metadata_only: bool = False,
    ) -> Object | None:
        resource = await self.resource_for(api_version, kind)
        namespace = namespace if resource.is_namespaced else ""
        await self._reach("get", kind, namespace, name)
        found = self.objects.get((kind, namespace, name))
        if found is None:
            return None
        if metadata_only:
            metadata = copy.deepcopy(found["metadata"])
            return {
                "apiVersion": "meta.k8s.io/v1",
                "kind": "PartialObjectMetadata",
                "metadata": metadata,
            }
        return copy.deepcopy(found)

    async def list(
        self, api_version: str, kind: str, namespace: str = "", *, label_selector: str = ""
    ) -> Listing:
        await self.resource_for(api_version, kind)
        await self._reach("list", kind, namespace, label_selector)
        wanted = dict(part.split("=", 1) for part in label_selector.split(",") if part)
        items = [
            copy.deepcopy(one)
            for (its_kind, its_namespace, _), one in self.objects.items()
            if its_kind == kind
            and namespace in ("", its_namespace)
            and wanted.items() <= one["metadata"].get("labels", {}).items()
        ]
        return Listing(tuple(items), "1")

    async def logs(
        self,
        pod: str,
        namespace: str,
        *,
        container: str = "",
        tail_lines: int = 200,
        limit_bytes: int = 256 * 1024,
        previous: bool = False,
    ) -> str:
        await self._reach("logs", "Pod", namespace, pod)
        logs = self.previous_logs if previous else self.container_logs
        log = logs.get((pod, container))
        if log is None:
            raise ObjectNotFound(f"no log of {pod}/{container}")
        lines = log.splitlines(keepends=True)[-tail_lines:]
        return "".join(lines).encode()[:limit_bytes].decode(errors="replace")

    async def follow_logs(
        self, pod: str, namespace: str, *, container: str = ""
    ) -> AsyncGenerator[bytes, None]:
        """`streams` where a test says what comes and when, else the log as it is."""
        await self._reach("follow", "Pod", namespace, pod)
        if stream := self.streams.get((pod, container)):
            while (chunk := await stream.get()) is not None:
                yield chunk
            return
        if (pod, container) not in self.container_logs:
            raise ObjectNotFound(f"no log of {pod}/{container}")
        yield self.container_logs[pod, container].encode()

    async def watch(
        self,
        api_version: str,
        kind: str,
        namespace: str = "",
        *,
        label_selector: str = "",
        field_selector: str = "",
        metadata_only: bool = False,
    ) -> AsyncGenerator[WatchEvent, None]:
        """Listed, then Changed for whatever is put and dropped."""

        def wanted(one: Object) -> bool:
            metadata = one["metadata"]
            labels = dict(part.split("=", 1) for part in label_selector.split(",") if part)
            return (
                one["kind"] == kind
                and namespace in ("", metadata.get("namespace", ""))
                and labels.items() <= metadata.get("labels", {}).items()
                and field_selector in ("", f"metadata.name={metadata['name']}")
            )

        told: asyncio.Queue[Changed] = asyncio.Queue()
        watcher = wanted, told
        self._watchers.append(watcher)
        found = [copy.deepcopy(one) for one in self.objects.values() if wanted(one)]
        try:
            await self._reach("watch", kind, namespace, label_selector or field_selector)
            yield Listed(tuple(found), "1")
            while True:
                yield await told.get()
        finally:
            self._watchers.remove(watcher)

    def _tell(self, what: Literal["ADDED", "MODIFIED", "DELETED"], one: Object) -> None:
        for wanted, told in self._watchers:
            if wanted(one):
                told.put_nowait(Changed(what, copy.deepcopy(one), "1"))

    async def resource_for(self, api_version: str, kind: str) -> Resource:
        try:
            return self.kinds[api_version, kind]
        except KeyError:
            raise ObjectNotFound(f"the API server has no kind {kind} in {api_version}") from None

    async def create(self, manifest: Mapping[str, Any]) -> Object:
        made = copy.deepcopy(dict(manifest))
        metadata = made["metadata"]
        await self._reach("create", made["kind"], metadata.get("namespace", ""), "")
        if prefix := metadata.get("generateName"):
            metadata["name"] = f"{prefix}{next(self._numbers)}"
        if _place(made) in self.objects:
            raise ObjectConflict(f"{metadata['name']} exists")
        metadata.setdefault("uid", f"uid-{metadata['name']}")
        self.objects[_place(made)] = made
        self._tell("ADDED", made)
        if self.on_create:
            self.on_create(made)
        return copy.deepcopy(made)

    async def delete(self, api_version: str, kind: str, name: str, namespace: str = "") -> bool:
        await self._reach("delete", kind, namespace, name)
        gone = self.objects.pop((kind, namespace, name), None)
        if gone is not None:
            self._tell("DELETED", gone)
        return gone is not None

    async def _reach(self, verb: str, kind: str, namespace: str, name: str) -> None:
        self.asked.append(f"{verb} {kind}/{namespace}/{name}")
        self._busy += 1
        self.busiest = max(self.busiest, self._busy)
        try:
            await asyncio.sleep(0)
        finally:
            self._busy -= 1
        now = self.clock.now()
        due = [change for at, change in self._changes if at <= now]
        self._changes = [(at, change) for at, change in self._changes if at > now]
        for change in due:
            change()
        error = self.fails_with or self.fails_on.get((verb, kind))
        if error:
            raise error


def _place(one: Object) -> Place:
    metadata = one["metadata"]
    return one["kind"], metadata.get("namespace", ""), metadata["name"]
