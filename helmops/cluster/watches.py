"""What the cluster holds of Helm's release Secrets and our record Secrets, without asking.

One metadata-only watch (about 670 bytes an event, however large the Secret) keeps the
resourceVersions of all of them. An adapter that cached a Secret's content asks here whether it is
still the newest; a pass over an idle release then sends no request.

**When the index may be believed.** It answers None, which means "ask the cluster", in three cases:

1. Not every namespace's first list is here yet, or the watch is broken. After a break only a new
   list makes it live again, never the old version.
2. An operation of ours is running on the release (`changing`). helm is a child process, and what it
   writes reaches the index a moment later than helm ends.
3. Since that operation ended, nobody has listed the release's Secrets (`begin_read`, then
   `finish_read`), or the index has not caught up with that list. It has when it shows the same
   versions, or when it has seen anything as new as the list.

The rule for `changing` is sound because a list that begins after helm ended shows all that helm
wrote, and an index that is at least as new as that list does too.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from helmops.cluster.api import Changed, Listed, Lost, Reached, WatchEvent
from helmops.errors import AccessDenied
from helmops.model.releases import ReleaseId

log = logging.getLogger(__name__)

SecretKind = Literal["helm", "record"]

#: Told of each Secret that was seen to change: whose it is, and of which release.
OnChange = Callable[[SecretKind, ReleaseId], None]

#: Seconds until a namespace that we may not watch is tried again: somebody may add the Role.
_DENIED_DELAY = 60.0
_SELECTOR = "owner in (helm,helmops)"
_KIND_BY_OWNER: dict[str, SecretKind] = {"helm": "helm", "helmops": "record"}
#: The index's name for "all namespaces".
_EVERYWHERE = ""


class Watching(Protocol):
    """The part of `Api` that an index needs."""

    def watch(
        self,
        api_version: str,
        kind: str,
        namespace: str = "",
        *,
        label_selector: str = "",
        field_selector: str = "",
        metadata_only: bool = False,
    ) -> AsyncGenerator[WatchEvent, None]: ...


@dataclass(frozen=True, slots=True)
class _Seen:
    """One Secret as last seen."""

    kind: SecretKind
    release: ReleaseId
    version: str


@dataclass(frozen=True, slots=True)
class ReadMark:
    """Says which read is finished; see `SecretIndex.begin_read`."""

    release: ReleaseId
    generation: int


@dataclass(slots=True)
class _Doubt:
    """Why a release's versions are not believed."""

    running: int = 0
    generation: int = 0
    #: What a list after the operation showed, until the index has caught up with it.
    listed: Mapping[str, str] | None = None
    listed_at: str = ""


@dataclass(slots=True)
class _Scope:
    """One watch: of a namespace, or of all."""

    is_live: bool = False
    version: str = ""
    secrets: dict[tuple[str, str], _Seen] = field(default_factory=dict)


class SecretIndex:
    """Versions of all release and record Secrets in sight. `run` keeps it up to date.

    Without namespaces it watches all of them at once, and where that is denied, those that it is
    told of by `add_namespace`. The first list counts as changes, so that nothing that happened
    between a caller's own reads and the watch's begin is missed.
    """

    def __init__(
        self,
        api: Watching,
        on_change: OnChange,
        namespaces: Iterable[str] = (),
        *,
        sleep: Callable[[float], Any] = asyncio.sleep,
    ) -> None:
        self._api = api
        self._on_change = on_change
        self._sleep = sleep
        self._namespaces = set(namespaces)
        self._is_cluster_wide = not self._namespaces
        self._scopes: dict[str, _Scope] = {}
        self._by_release: dict[tuple[SecretKind, ReleaseId], dict[str, str]] = {}
        self._own: dict[ReleaseId, str] = {}
        self._doubts: dict[ReleaseId, _Doubt] = {}
        self._generation = 0
        self._group: asyncio.TaskGroup | None = None

    @property
    def is_cluster_wide(self) -> bool:
        """Whether one watch sees all namespaces."""
        return self._is_cluster_wide

    async def run(self) -> None:
        """Watch until cancelled."""
        try:
            async with asyncio.TaskGroup() as group:
                self._group = group
                if self._is_cluster_wide:
                    group.create_task(self._watch_everywhere())
                else:
                    for namespace in sorted(self._namespaces):
                        self._start(namespace)
                await asyncio.get_running_loop().create_future()
        finally:
            self._group = None
            for scope in self._scopes.values():
                scope.is_live = False

    def add_namespace(self, namespace: str) -> None:
        """See this namespace too; of no effect while all are seen."""
        if namespace in self._namespaces:
            return
        self._namespaces.add(namespace)
        if not self._is_cluster_wide:
            self._start(namespace)

    def is_live(self, namespace: str) -> bool:
        """Whether the namespace's Secrets are known as of now."""
        scope = self._scopes.get(_EVERYWHERE if self._is_cluster_wide else namespace)
        return scope is not None and scope.is_live

    def versions(self, release: ReleaseId) -> Mapping[str, str] | None:
        """ResourceVersion by name of Helm's Secrets of a release; None where only a request can
        tell.
        """
        if not self.is_live(release.namespace) or release in self._doubts:
            return None
        return dict(self._by_release.get(("helm", release), {}))

    def record_version(self, release: ReleaseId) -> str | None:
        """ResourceVersion of the record Secret, empty where there is none, None where only a
        request can tell.
        """
        if not self.is_live(release.namespace):
            return None
        seen = self._by_release.get(("record", release), {})
        watched = seen.get(f"helmops.{release.name}", "")
        own = self._own.get(release, "")
        if own and _number(own) > _number(watched):
            return own  # its event has not come yet
        return watched

    def wrote_record(self, release: ReleaseId, version: str) -> None:
        """Tell of a record that we saved, so that its event finds the index up to date."""
        self._own[release] = version

    def deleted_record(self, release: ReleaseId) -> None:
        """Tell of a record that we deleted."""
        self._own.pop(release, None)
        for scope in self._scopes.values():
            scope.secrets.pop((release.namespace, f"helmops.{release.name}"), None)
        self._by_release.pop(("record", release), None)

    # Read your own writes

    @contextlib.contextmanager
    def changing(self, release: ReleaseId) -> Iterator[None]:
        """Around everything of ours that changes a release's Helm Secrets."""
        doubt = self._doubts.setdefault(release, _Doubt())
        doubt.running += 1
        self._again(doubt)
        try:
            yield
        finally:
            doubt.running -= 1
            self._again(doubt)

    def expect_change(self, release: ReleaseId) -> None:
        """Something of ours has just changed the release's Secrets: believe no older state."""
        self._again(self._doubts.setdefault(release, _Doubt()))

    def begin_read(self, release: ReleaseId) -> ReadMark:
        """Call before listing a release's Secrets, and `finish_read` with what came."""
        doubt = self._doubts.get(release)
        return ReadMark(release, doubt.generation if doubt is not None else 0)

    def finish_read(
        self, mark: ReadMark, versions: Mapping[str, str], resource_version: str
    ) -> None:
        """The list showed these versions, as of the list's own resourceVersion."""
        doubt = self._doubts.get(mark.release)
        if doubt is None or doubt.generation != mark.generation:
            return
        doubt.listed, doubt.listed_at = dict(versions), resource_version
        self._settle(mark.release)

    def _again(self, doubt: _Doubt) -> None:
        # Never the same number twice, also not for a later doubt about the same release.
        self._generation += 1
        doubt.generation = self._generation
        doubt.listed = None

    def _settle(self, release: ReleaseId) -> None:
        """Believe the release again where the index has caught up with what was listed."""
        doubt = self._doubts.get(release)
        if doubt is None or doubt.running or doubt.listed is None:
            return
        scope = self._scope_of(release)
        if scope is None or not scope.is_live:
            return
        seen = self._by_release.get(("helm", release), {})
        if seen == doubt.listed or _number(scope.version) >= _number(doubt.listed_at):
            del self._doubts[release]

    # Watching

    def _start(self, namespace: str) -> None:
        if self._group is not None:
            self._group.create_task(self._watch_namespace(namespace))

    async def _watch_everywhere(self) -> None:
        try:
            await self._follow(_EVERYWHERE)
        except AccessDenied as error:
            log.warning(
                "not allowed to watch Secrets in all namespaces, watching each namespace instead",
                extra={"action": "watch", "error": str(error)},
            )
            self._scopes.pop(_EVERYWHERE, None)
            self._is_cluster_wide = False
            for namespace in sorted(self._namespaces):
                self._start(namespace)

    async def _watch_namespace(self, namespace: str) -> None:
        was_denied = False
        while True:
            try:
                await self._follow(namespace)
            except AccessDenied as error:
                if not was_denied:
                    log.warning(
                        "not allowed to watch Secrets in %s: every pass there asks the API server",
                        namespace,
                        extra={"action": "watch", "error": str(error)},
                    )
                was_denied = True
                await self._sleep(_DENIED_DELAY)

    async def _follow(self, namespace: str) -> None:
        """One watch, for as long as it is allowed."""
        scope = self._scopes.setdefault(namespace, _Scope())
        events = self._api.watch(
            "v1", "Secret", namespace, label_selector=_SELECTOR, metadata_only=True
        )
        try:
            async with contextlib.aclosing(events):
                async for event in events:
                    self._take(scope, event)
        finally:
            scope.is_live = False

    def _take(self, scope: _Scope, event: WatchEvent) -> None:
        match event:
            case Listed(items, version):
                self._relist(scope, items)
                scope.is_live = True
                self._reach(scope, version)
            case Changed(kind, item, version):
                self._change(scope, item, is_gone=kind == "DELETED")
                self._reach(scope, version)
            case Reached(version):
                self._reach(scope, version)
            case Lost(error):
                if scope.is_live:
                    log.warning(
                        "the watch of Secrets broke off: %s", error, extra={"action": "watch"}
                    )
                scope.is_live = False

    def _reach(self, scope: _Scope, version: str) -> None:
        """Everything up to this version was seen in this scope."""
        scope.version = version
        for release, own in list(self._own.items()):
            if self._scope_of(release) is scope and _number(own) <= _number(version):
                del self._own[release]
        for release in list(self._doubts):
            self._settle(release)

    def _scope_of(self, release: ReleaseId) -> _Scope | None:
        return self._scopes.get(_EVERYWHERE if self._is_cluster_wide else release.namespace)

    def _relist(self, scope: _Scope, items: Iterable[Mapping[str, Any]]) -> None:
        before = scope.secrets
        scope.secrets = {}
        for item in items:
            seen = _seen(item)
            if seen is not None:
                scope.secrets[_place(item)] = seen
        for place in before.keys() | scope.secrets.keys():
            old, new = before.get(place), scope.secrets.get(place)
            if old != new:
                self._index(place[1], old, new)

    def _change(self, scope: _Scope, item: Mapping[str, Any], *, is_gone: bool) -> None:
        place = _place(item)
        old = scope.secrets.get(place)
        new = None if is_gone else _seen(item)
        if new is None:
            scope.secrets.pop(place, None)
        else:
            scope.secrets[place] = new
        if is_gone and old is None:
            old = _seen(item)  # we deleted it ourselves and had forgotten it already
        self._index(place[1], old, new)

    def _index(self, name: str, old: _Seen | None, new: _Seen | None) -> None:
        for seen in (old, new):
            if seen is None:
                continue
            entries = self._by_release.setdefault((seen.kind, seen.release), {})
            if seen is new:
                entries[name] = seen.version
            else:
                entries.pop(name, None)
            if not entries:
                del self._by_release[seen.kind, seen.release]
        for kind, release in {(seen.kind, seen.release) for seen in (old, new) if seen is not None}:
            self._on_change(kind, release)


def _place(item: Mapping[str, Any]) -> tuple[str, str]:
    metadata = item["metadata"]
    return str(metadata["namespace"]), str(metadata["name"])


def _seen(item: Mapping[str, Any]) -> _Seen | None:
    """None for a Secret that is not about a release, whatever its labels say."""
    metadata = item["metadata"]
    labels = metadata.get("labels") or {}
    kind = _KIND_BY_OWNER.get(labels.get("owner", ""))
    name = labels.get("name", "")
    if kind is None or not name:
        return None
    release = ReleaseId(str(metadata["namespace"]), name)
    return _Seen(kind, release, str(metadata["resourceVersion"]))


def _number(version: str) -> int:
    """ResourceVersions of one kind are ordered numbers, since Kubernetes 1.35 by promise."""
    return int(version) if version.isdecimal() else 0
