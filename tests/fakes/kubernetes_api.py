"""An API server in memory, below `Api`: it answers requests as a real one does, and breaks as told.

Kinds are those that `Api` knows without discovery, and what `serve` adds. Objects have
resourceVersions, stale writes are refused, watches see what matches their selectors.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import json
import re
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from helmops.cluster.api import Api, ApiAudit
from helmops.cluster.kubeconfig import Connection
from helmops.cluster.resources import WELL_KNOWN
from helmops.cluster.transport import Answer, ConnectionDropped, Headers, Stream
from helmops.errors import ClusterUnreachable

Object = dict[str, Any]
_PATH = re.compile(
    r"/(?:api|apis)/(?P<version>v1|[^/]+/[^/]+)"
    r"(?:/namespaces/(?P<namespace>[^/]+)(?=/))?"
    r"(?:/(?P<plural>[^/]+))?(?:/(?P<name>[^/]+))?(?:/(?P<sub>[^/]+))?$"
)
_IDENTITY = "system:serviceaccount:helmops:helmops"


@dataclass(eq=False)
class _Watch:
    key: tuple[str, str]
    namespace: str
    matches: Callable[[Object], bool]
    is_metadata: bool
    lines: asyncio.Queue[bytes | BaseException | None] = field(default_factory=asyncio.Queue)


class FakeKubernetes:
    """The server, and the `Transport` to it. `api` makes an `Api` on it.

    `asked` keeps (method, path) of every request. `answers` are given before anything else, one a
    request: an Answer, an exception, or a callable that is run (then the request goes on).
    `denied` holds (verb, plural, namespace); an empty namespace means cluster-wide requests.
    """

    def __init__(self, *namespaces: str) -> None:
        self.asked: list[tuple[str, str]] = []
        self.headers: list[dict[str, str]] = []
        self.answers: list[Answer | BaseException | Callable[[], None]] = []
        self.denied: set[tuple[str, str, str]] = set()
        self.is_unreachable = False
        self.is_closed = False
        self._plurals = {(r.api_version, r.plural): r.kind for r in WELL_KNOWN.values()}
        self._extra: dict[str, list[Object]] = {}
        self._objects: dict[tuple[str, str], dict[tuple[str, str], Object]] = {}
        self._watches: list[_Watch] = []
        self._version = 100
        for name in ("default", *namespaces):
            self.put({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})

    def api(self, *, read_only: bool = False, audit: ApiAudit | None = None) -> Api:
        """An Api on this server that never really sleeps."""
        connection = Connection("https://fake", context="fake", token="s3cret")
        return Api(self, connection, read_only=read_only, audit=audit, sleep=_no_sleep)

    def serve(self, api_version: str, kind: str, plural: str, *, is_namespaced: bool) -> None:
        """Know another kind, by discovery."""
        self._plurals[api_version, plural] = kind
        entry = {"kind": kind, "name": plural, "namespaced": is_namespaced}
        self._extra.setdefault(api_version, []).append(entry)

    def put(self, manifest: Object) -> Object:
        """Create or replace an object from outside, as another client would."""
        kind = manifest["kind"]
        plural = next(p for (v, p), k in self._plurals.items() if k == kind)
        key = (manifest["apiVersion"], plural)
        metadata = manifest["metadata"]
        place = (metadata.get("namespace", ""), metadata["name"])
        is_new = place not in self._objects.get(key, {})
        return self._store(key, place, copy.deepcopy(manifest), "ADDED" if is_new else "MODIFIED")

    def find(self, api_version: str, plural: str, namespace: str, name: str) -> Object | None:
        """What is stored, or None."""
        return self._objects.get((api_version, plural), {}).get((namespace, name))

    def remove(self, api_version: str, plural: str, namespace: str, name: str) -> None:
        """Delete an object from outside."""
        self._remove((api_version, plural), (namespace, name))

    def drop_watches(self) -> None:
        """Break every watch's connection."""
        self._end_watches(ConnectionDropped("connection reset", where="https://fake"))

    def end_watches(self) -> None:
        """End every watch as a server does when its time is up."""
        self._end_watches(None)

    def expire_watches(self) -> None:
        """Tell every watch that its version is too old."""
        status = {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old"}
        for watch in self._watches:
            watch.lines.put_nowait(_line("ERROR", status))

    def bookmark(self) -> str:
        """Send a bookmark to every watch; returns its version."""
        for watch in self._watches:
            item = {"metadata": {"resourceVersion": str(self._version)}}
            watch.lines.put_nowait(_line("BOOKMARK", item))
        return str(self._version)

    def advance(self) -> None:
        """Something else in the cluster is written."""
        self._version += 1

    @property
    def watch_count(self) -> int:
        """Open watches."""
        return len(self._watches)

    # Transport

    async def request(
        self, method: str, target: str, headers: Headers, body: Any, timeout: float
    ) -> Answer:
        await asyncio.sleep(0)
        self._meet(method, target, headers)
        scripted = self._scripted()
        if scripted is not None:
            return scripted
        return self._answer(method, target, dict(headers), copy.deepcopy(body))

    @contextlib.asynccontextmanager
    async def stream(
        self, target: str, headers: Headers, idle_timeout: float
    ) -> AsyncIterator[Stream]:
        await asyncio.sleep(0)
        self._meet("GET", target, headers)
        scripted = self._scripted()
        parts = urlsplit(target)
        found = _PATH.match(parts.path)
        assert found
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        if found["sub"] == "log":
            missing = found["name"] == "missing"
            refusal = scripted or (_status(404, "NotFound", "pod not found") if missing else None)
            said = refusal.body if refusal else b"a line\nanother\n"
            yield Stream(refusal.status if refusal else 200, {}, _once(said))
            return
        denied = self._denial("watch", found["plural"], found["namespace"] or "")
        refusal = scripted or denied
        if refusal is not None:
            yield Stream(refusal.status, {}, _once(refusal.body))
            return
        watch = _Watch(
            (found["version"], found["plural"]),
            found["namespace"] or "",
            _matcher(query),
            "PartialObjectMetadata" in dict(headers)["Accept"],
        )
        self._watches.append(watch)
        # What happened between the list and the watch, as a real server remembers.
        since = int(query["resourceVersion"])
        for kind, item in self._objects.get(watch.key, {}).items():
            if int(item["metadata"]["resourceVersion"]) > since:
                self._tell(watch, kind, item, "MODIFIED")
        try:
            yield Stream(200, {}, _lines(watch))
        finally:
            self._watches.remove(watch)

    async def close(self) -> None:
        self.is_closed = True

    # Answers

    def _meet(self, method: str, target: str, headers: Headers) -> None:
        self.asked.append((method, target))
        self.headers.append(dict(headers))
        if self.is_unreachable:
            raise ClusterUnreachable("no answer from the API server", where="https://fake")

    def _scripted(self) -> Answer | None:
        if not self.answers:
            return None
        scripted = self.answers.pop(0)
        if isinstance(scripted, Answer):
            return scripted
        if isinstance(scripted, BaseException):
            raise scripted
        scripted()
        return None

    def _answer(self, method: str, target: str, headers: dict[str, str], body: Any) -> Answer:
        parts = urlsplit(target)
        if parts.path == "/version":
            return _ok({"gitVersion": "v1.37.2"})
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        found = _PATH.match(parts.path)
        assert found, parts.path
        version, namespace, plural = found["version"], found["namespace"] or "", found["plural"]
        name = unquote(found["name"] or "")
        if not plural:
            if version not in self._extra:
                return Answer(404, {}, b"404 page not found\n")
            return _ok({"kind": "APIResourceList", "resources": self._extra[version]})
        verb = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}.get(
            method, "get" if name else "list"
        )
        if plural == "selfsubjectaccessreviews":
            wanted = body["spec"]["resourceAttributes"]
            rule = (wanted["verb"], wanted["resource"], wanted.get("namespace", ""))
            return _ok({**body, "status": {"allowed": rule not in self.denied}})
        denied = self._denial(verb, plural, namespace)
        if denied is not None:
            return denied
        if plural == "pods" and found["sub"] == "log":
            return Answer(200, {}, b"a line\n")
        key = (version, plural)
        is_metadata = "PartialObjectMetadata" in headers.get("Accept", "")
        stored = self._objects.setdefault(key, {})
        if verb == "list":
            items = [
                _shown(item, is_metadata)
                for place, item in sorted(stored.items())
                if (not namespace or place[0] == namespace) and _matcher(query)(item)
            ]
            return self._page(items, query)
        if verb == "create":
            return self._create(key, namespace, body)
        item = stored.get((namespace, name))
        if item is None:
            return _status(404, "NotFound", f'{plural} "{name}" not found')
        if verb == "get":
            return _ok(_shown(item, is_metadata))
        stale = _status(
            409, "Conflict", f'Operation cannot be fulfilled on {plural} "{name}": modified'
        )
        current = item["metadata"]["resourceVersion"]
        if verb == "delete":
            wanted = (body or {}).get("preconditions") or {}
            if wanted.get("resourceVersion", current) != current:
                return stale
            if wanted.get("uid", item["metadata"]["uid"]) != item["metadata"]["uid"]:
                return stale
            self._remove(key, (namespace, name))
            return _ok({"kind": "Status", "status": "Success"})
        if ((body.get("metadata") or {}).get("resourceVersion") or current) != current:
            return stale
        merged = body if verb == "update" else _merged(item, body)
        merged["metadata"]["uid"] = item["metadata"]["uid"]
        if {**merged, "metadata": {**merged["metadata"], "resourceVersion": current}} == item:
            return _ok(item)  # nothing changed, no new version
        return _ok(self._store(key, (namespace, name), merged, "MODIFIED"))

    def _page(self, items: list[Object], query: dict[str, str]) -> Answer:
        start, size = int(query.get("continue", 0)), int(query.get("limit", 0)) or len(items)
        metadata = {"resourceVersion": str(self._version)}
        if start + size < len(items):
            metadata["continue"] = str(start + size)
        return _ok({"kind": "List", "metadata": metadata, "items": items[start : start + size]})

    def _create(self, key: tuple[str, str], namespace: str, body: Object) -> Answer:
        name = body["metadata"]["name"]
        if namespace and ("", namespace) not in self._objects["v1", "namespaces"]:
            return _status(404, "NotFound", f'namespaces "{namespace}" not found')
        if (namespace, name) in self._objects[key]:
            return _status(409, "AlreadyExists", f'{key[1]} "{name}" already exists')
        return _ok(self._store(key, (namespace, name), body, "ADDED"))

    def _denial(self, verb: str, plural: str, namespace: str) -> Answer | None:
        if (verb, plural, namespace) not in self.denied:
            return None
        scope = f'in the namespace "{namespace}"' if namespace else "at the cluster scope"
        text = f'{plural} is forbidden: User "{_IDENTITY}" cannot {verb} resource "{plural}"'
        return _status(403, "Forbidden", f'{text} in API group "" {scope}')

    # Objects

    def _store(
        self, key: tuple[str, str], place: tuple[str, str], item: Object, event: str
    ) -> Object:
        self._version += 1
        metadata = item.setdefault("metadata", {})
        metadata["resourceVersion"] = str(self._version)
        metadata.setdefault("uid", f"uid-{self._version}")
        self._objects.setdefault(key, {})[place] = item
        for watch in self._watches:
            if watch.key == key:
                self._tell(watch, place, item, event)
        return copy.deepcopy(item)

    def _remove(self, key: tuple[str, str], place: tuple[str, str]) -> None:
        item = self._objects[key].pop(place)
        self._version += 1
        item["metadata"]["resourceVersion"] = str(self._version)
        for watch in self._watches:
            if watch.key == key:
                self._tell(watch, place, item, "DELETED")

    def _tell(self, watch: _Watch, place: tuple[str, str], item: Object, event: str) -> None:
        if watch.namespace in ("", place[0]) and watch.matches(item):
            watch.lines.put_nowait(_line(event, _shown(item, watch.is_metadata)))

    def _end_watches(self, how: BaseException | None) -> None:
        for watch in self._watches:
            watch.lines.put_nowait(how)


async def _no_sleep(_: float) -> None:
    await asyncio.sleep(0)


async def _once(body: bytes) -> AsyncIterator[bytes]:
    yield body


async def _lines(watch: _Watch) -> AsyncIterator[bytes]:
    while (line := await watch.lines.get()) is not None:
        if isinstance(line, BaseException):
            raise line
        # In two pieces, as a network may deliver it.
        yield line[: len(line) // 2]
        yield line[len(line) // 2 :]


def _line(event: str, item: Object) -> bytes:
    return json.dumps({"type": event, "object": item}).encode() + b"\n"


def _ok(item: Object) -> Answer:
    return Answer(200, {}, json.dumps(item).encode())


def _status(code: int, reason: str, message: str) -> Answer:
    status = {"kind": "Status", "code": code, "reason": reason, "message": message}
    return Answer(code, {}, json.dumps(status).encode())


def _shown(item: Object, is_metadata: bool) -> Object:
    if not is_metadata:
        return copy.deepcopy(item)
    return {"kind": "PartialObjectMetadata", "metadata": copy.deepcopy(item["metadata"])}


def _matcher(query: dict[str, str]) -> Callable[[Object], bool]:
    labels, fields = query.get("labelSelector", ""), query.get("fieldSelector", "")

    def matches(item: Object) -> bool:
        found = item["metadata"].get("labels") or {}
        for term in re.split(r",(?![^(]*\))", labels) if labels else ():
            name, how, values = re.match(r"([^ =]+)(?: (in|notin) \((.*)\))?", term).groups()  # type: ignore[union-attr]
            if how:
                if (found.get(name) in values.split(",")) is not (how == "in"):
                    return False
            elif found.get(term.partition("=")[0]) != term.partition("=")[2]:
                return False
        return all(
            _field(item, term.partition("=")[0]) == term.partition("=")[2]
            for term in (fields.split(",") if fields else ())
        )

    return matches


def _field(item: Object, path: str) -> str:
    value: Any = item
    for name in path.split("."):
        value = (value or {}).get(name)
    return str(value)


def _merged(item: Any, patch: Any) -> Any:
    """RFC 7386."""
    if not isinstance(patch, dict):
        return patch
    merged = dict(item) if isinstance(item, dict) else {}
    for name, value in patch.items():
        if value is None:
            merged.pop(name, None)
        else:
            merged[name] = _merged(merged.get(name), value)
    return merged
