"""ConfigMaps and Secrets in the cluster that declarations refer to, watched instead of asked for.

One metadata-only watch for each kind and namespace that something is referred to in: of that one
object where it is only one (a Role may then name it in `resourceNames`), else of all in the
namespace, Helm's own Secrets left out. Nothing that is referred to, no watch.

Whoever reads an object tells which version it read (`note`); a watch that shows another one calls
`on_change`. So nothing that happened between a read and the beginning of a watch is missed, and
nobody is woken for an object that is as it was read.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from helmops.cluster.api import Changed, Listed, Lost, Reached, WatchEvent
from helmops.cluster.watches import Watching
from helmops.errors import AccessDenied
from helmops.model.releases import DeclarationKey

log = logging.getLogger(__name__)

#: Kind (ConfigMap or Secret) and key of an object.
Reference = tuple[str, DeclarationKey]

#: Told of each object that is not as it was read.
OnReferenceChange = Callable[[str, DeclarationKey], None]

#: Seconds until a watch that is not allowed is tried again: somebody may add the Role.
_DENIED_DELAY = 60.0
_NOT_HELMS = "owner notin (helm,helmops)"


@dataclass(slots=True)
class _Scope:
    """One watch. `name` is empty where it is of a whole namespace."""

    kind: str
    namespace: str
    name: str
    is_live: bool = False
    versions: dict[str, str] = field(default_factory=dict)
    task: asyncio.Task[None] | None = None


class ReferenceIndex:
    """Versions of the objects that are referred to. `run` keeps it up to date."""

    def __init__(
        self,
        api: Watching,
        on_change: OnReferenceChange,
        *,
        sleep: Callable[[float], Any] = asyncio.sleep,
    ) -> None:
        self._api = api
        self._on_change = on_change
        self._sleep = sleep
        self._wanted: frozenset[Reference] = frozenset()
        self._scopes: dict[tuple[str, str], _Scope] = {}
        self._read: dict[Reference, str] = {}
        self._group: asyncio.TaskGroup | None = None

    async def run(self) -> None:
        """Watch until cancelled."""
        try:
            async with asyncio.TaskGroup() as group:
                self._group = group
                for scope in self._scopes.values():
                    self._start(scope)
                await asyncio.get_running_loop().create_future()
        finally:
            self._group = None
            for scope in self._scopes.values():
                scope.is_live = False

    def follow(self, wanted: Iterable[Reference]) -> None:
        """What is referred to from now on; other watches end."""
        self._wanted = frozenset(wanted)
        self._read = {
            reference: version
            for reference, version in self._read.items()
            if reference in self._wanted
        }
        names: defaultdict[tuple[str, str], set[str]] = defaultdict(set)
        for kind, key in self._wanted:
            names[kind, key.namespace].add(key.name)
        for place in self._scopes.keys() - names.keys():
            self._stop(self._scopes.pop(place))
        for place, its_names in names.items():
            name = next(iter(its_names)) if len(its_names) == 1 else ""
            scope = self._scopes.get(place)
            # A watch of all goes on where one object is left: that changes too often.
            if scope is not None and (not scope.name or scope.name == name):
                continue
            if scope is not None:
                self._stop(scope)
            self._scopes[place] = _Scope(*place, name)
            self._start(self._scopes[place])

    def version(self, kind: str, key: DeclarationKey) -> str | None:
        """ResourceVersion of an object, empty where there is none, None where only a request can
        tell.
        """
        scope = self._scopes.get((kind, key.namespace))
        if scope is None or not scope.is_live or (kind, key) not in self._wanted:
            return None
        return scope.versions.get(key.name, "")

    def note(self, kind: str, key: DeclarationKey, version: str) -> bool:
        """This version was read; empty where there was none. Whether the object is followed."""
        is_followed = (kind, key) in self._wanted
        if is_followed:
            self._read[kind, key] = version
        return is_followed

    def _start(self, scope: _Scope) -> None:
        if self._group is not None:
            scope.task = self._group.create_task(self._watch(scope))

    @staticmethod
    def _stop(scope: _Scope) -> None:
        scope.is_live = False
        if scope.task is not None:
            scope.task.cancel()

    async def _watch(self, scope: _Scope) -> None:
        was_denied = False
        while True:
            try:
                await self._follow(scope)
            except AccessDenied as error:
                if not was_denied:
                    log.warning(
                        "not allowed to watch %ss in %s: changes are seen at the interval only",
                        scope.kind,
                        scope.namespace,
                        extra={"action": "watch", "error": str(error)},
                    )
                was_denied = True
                await self._sleep(_DENIED_DELAY)

    async def _follow(self, scope: _Scope) -> None:
        """One watch, for as long as it is allowed."""
        is_all = not scope.name
        events = self._api.watch(
            "v1",
            scope.kind,
            scope.namespace,
            label_selector=_NOT_HELMS if is_all and scope.kind == "Secret" else "",
            field_selector="" if is_all else f"metadata.name={scope.name}",
            metadata_only=True,
        )
        try:
            async with contextlib.aclosing(events):
                async for event in events:
                    self._take(scope, event)
        finally:
            scope.is_live = False

    def _take(self, scope: _Scope, event: WatchEvent) -> None:
        match event:
            case Listed(items, _):
                scope.versions = {_name(item): _version(item) for item in items}
                scope.is_live = True
                for kind, key in self._wanted:
                    if (kind, key.namespace) == (scope.kind, scope.namespace):
                        self._compare(scope, key.name)
            case Changed(change, item, _):
                name = _name(item)
                if change == "DELETED":
                    scope.versions.pop(name, None)
                else:
                    scope.versions[name] = _version(item)
                self._compare(scope, name)
            case Reached():
                pass
            case Lost(error):
                if scope.is_live:
                    log.warning(
                        "the watch of %ss in %s broke off: %s",
                        *(scope.kind, scope.namespace, error),
                        extra={"action": "watch"},
                    )
                scope.is_live = False

    def _compare(self, scope: _Scope, name: str) -> None:
        reference = (scope.kind, DeclarationKey(scope.namespace, name))
        read = self._read.get(reference)
        if read is not None and read != scope.versions.get(name, ""):
            self._on_change(*reference)


def _name(item: Mapping[str, Any]) -> str:
    return str(item["metadata"]["name"])


def _version(item: Mapping[str, Any]) -> str:
    return str(item["metadata"]["resourceVersion"])
