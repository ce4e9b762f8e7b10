"""Objects of the cluster as they are now: watches that run only as long as somebody looks.

Whoever follows a scope (a kind in a namespace) is told of every change, and may read all objects of
it from memory. Two that follow the same scope share one watch. What is kept of an object is what
`slim` leaves of it, so that memory is bounded by the number of objects, not by their size; a change
that leaves the slimmed object as it was is not told.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import logging
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Protocol

from helmops.cluster.api import Changed, Listed, Lost, Reached, WatchEvent
from helmops.errors import AccessDenied, ClusterError, ObjectNotFound

log = logging.getLogger(__name__)

Object = Mapping[str, Any]
#: Namespace (empty for objects without one) and name.
Place = tuple[str, str]
#: Leaves of an object what is looked at; None for one that is not kept at all.
Slim = Callable[[Object], Object | None]
#: Told of one object (before, after; None where there is none), and with None twice of a scope that
#: was listed, lost or refused.
OnChange = Callable[["Scope", Object | None, Object | None], None]

#: Seconds until a scope that we may not watch, or whose kind nobody knows, is tried again.
_REFUSED_DELAY = 60.0
_BROKEN_DELAY = 5.0


@dataclass(frozen=True, slots=True, order=True)
class Scope:
    """What one watch sees. Without a namespace: all of them, or a kind that has none.

    `is_whole` keeps objects as they come, for rules that may look at anything.
    """

    api_version: str
    kind: str
    namespace: str = ""
    label_selector: str = ""
    field_selector: str = ""
    is_whole: bool = False

    def __str__(self) -> str:
        return f"{self.kind} in {self.namespace or 'all namespaces'}"


class Watching(Protocol):
    """The part of `Api` that is needed."""

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


@dataclass(slots=True)
class _Watch:
    """One running watch and what it knows."""

    task: asyncio.Task[None] | None = None
    followers: list[OnChange] = field(default_factory=list)
    objects: dict[Place, Object] = field(default_factory=dict)
    is_live: bool = False
    refusal: ClusterError | None = None


class ObjectWatches:
    """Watches of one cluster, by scope. Everything is called from the event loop's thread.

    Made outside of any pass: the watches do not inherit the logging context of who follows first.
    """

    def __init__(
        self, api: Watching, slim: Slim, *, sleep: Callable[[float], Any] = asyncio.sleep
    ) -> None:
        self._api = api
        self._slim = slim
        self._sleep = sleep
        self._watches: dict[Scope, _Watch] = {}
        self._context = contextvars.copy_context()

    @property
    def scopes(self) -> tuple[Scope, ...]:
        """What is watched now."""
        return tuple(self._watches)

    def follow(self, scope: Scope, on_change: OnChange) -> None:
        """Begin to look; where the scope is watched already, its objects are there at once."""
        watch = self._watches.get(scope)
        if watch is None:
            watch = self._watches[scope] = _Watch()
            watch.task = asyncio.get_running_loop().create_task(
                self._run(scope, watch), context=self._context.copy()
            )
        watch.followers.append(on_change)

    def unfollow(self, scope: Scope, on_change: OnChange) -> None:
        """Look no more; the last one to do so ends the watch."""
        watch = self._watches.get(scope)
        if watch is None or on_change not in watch.followers:
            return
        watch.followers.remove(on_change)
        if not watch.followers:
            del self._watches[scope]
            if watch.task is not None:
                watch.task.cancel()

    def is_live(self, scope: Scope) -> bool:
        """Whether the scope was listed, and the watch has not broken since."""
        watch = self._watches.get(scope)
        return watch is not None and watch.is_live

    def refusal(self, scope: Scope) -> ClusterError | None:
        """Why the scope cannot be watched (no right to, no such kind), or None."""
        watch = self._watches.get(scope)
        return watch.refusal if watch is not None else None

    def objects(self, scope: Scope) -> Mapping[Place, Object]:
        """All objects of a scope as last seen, slimmed; empty where nobody follows it."""
        watch = self._watches.get(scope)
        return watch.objects if watch is not None else {}

    async def close(self) -> None:
        """End all watches."""
        watches = list(self._watches.values())
        self._watches.clear()
        for watch in watches:
            watch.followers.clear()
            if watch.task is not None:
                watch.task.cancel()
        for watch in watches:
            if watch.task is not None:
                with suppress(asyncio.CancelledError):
                    await watch.task

    # One watch

    async def _run(self, scope: Scope, watch: _Watch) -> None:
        while True:
            try:
                await self._read(scope, watch)
                delay = _BROKEN_DELAY
            except (AccessDenied, ObjectNotFound) as error:
                delay = _REFUSED_DELAY
                watch.refusal = error
            except ClusterError as error:
                delay = _BROKEN_DELAY
                log.debug("the watch of %s broke off: %s", scope, error)
            self._is_lost(scope, watch)
            await self._sleep(delay)

    async def _read(self, scope: Scope, watch: _Watch) -> None:
        events = self._api.watch(
            scope.api_version,
            scope.kind,
            scope.namespace,
            label_selector=scope.label_selector,
            field_selector=scope.field_selector,
        )
        try:
            async with contextlib.aclosing(events):
                async for event in events:
                    self._take(scope, watch, event)
        finally:
            watch.is_live = False

    def _take(self, scope: Scope, watch: _Watch, event: WatchEvent) -> None:
        match event:
            case Listed(items):
                self._relist(scope, watch, items)
            case Changed(kind, item):
                place = _place(item)
                fresh = None if kind == "DELETED" else self._kept(scope, item)
                self._put(scope, watch, place, fresh)
            case Reached():
                pass
            case Lost(error):
                log.debug("the watch of %s broke off: %s", scope, error)
                self._is_lost(scope, watch)

    def _relist(self, scope: Scope, watch: _Watch, items: tuple[Object, ...]) -> None:
        there = {_place(item): self._kept(scope, item) for item in items}
        for place in watch.objects.keys() - there.keys():
            self._put(scope, watch, place, None)
        for place, fresh in there.items():
            self._put(scope, watch, place, fresh)
        watch.is_live, watch.refusal = True, None
        self._tell(scope, watch, None, None)

    def _kept(self, scope: Scope, item: Object) -> Object | None:
        # A watch sends them with the item, a list only once for all.
        item = {**item, "apiVersion": scope.api_version, "kind": scope.kind}
        return item if scope.is_whole else self._slim(item)

    def _put(self, scope: Scope, watch: _Watch, place: Place, fresh: Object | None) -> None:
        old = watch.objects.get(place)
        if old == fresh:
            return
        if fresh is None:
            del watch.objects[place]
        else:
            watch.objects[place] = fresh
        self._tell(scope, watch, old, fresh)

    def _is_lost(self, scope: Scope, watch: _Watch) -> None:
        watch.is_live = False
        self._tell(scope, watch, None, None)

    def _tell(self, scope: Scope, watch: _Watch, old: Object | None, fresh: Object | None) -> None:
        for follower in tuple(watch.followers):
            follower(scope, old, fresh)


def _place(item: Object) -> Place:
    metadata = item["metadata"]
    return str(metadata.get("namespace") or ""), str(metadata["name"])
