"""The Kubernetes API as the rest of helmops uses it: plain dicts, few verbs, mapped errors.

One `Api` is one connection pool to one cluster. Objects are the JSON that the server sends, decoded
without models. Whatever goes wrong becomes one of `helmops.errors`' ClusterErrors, whose text names
the verb, the object and the server and never a credential.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Literal, Self
from urllib.parse import urlencode

import msgspec

from helmops.cluster.credentials import Credentials, run_plugin
from helmops.cluster.kubeconfig import Connection, load_connection
from helmops.cluster.refusals import Target, error_of, read_status
from helmops.cluster.resources import WELL_KNOWN, Resource, group_path
from helmops.cluster.transport import (
    Answer,
    ConnectionDropped,
    Headers,
    LightTransport,
    Stream,
    Transport,
)
from helmops.errors import (
    AccessDenied,
    ClusterError,
    ClusterUnreachable,
    ObjectNotFound,
)

#: Told of each request before it leaves: (verb as in RBAC, resource, namespace, name).
ApiAudit = Callable[[str, str, str, str], None]

Object = dict[str, Any]
Propagation = Literal["Background", "Foreground", "Orphan"]
PatchKind = Literal["merge", "strategic", "apply"]

#: Seconds for one request, retries not counted.
REQUEST_TIMEOUT = 30.0
#: Objects in one page of a list; a page of the largest release Secrets is then about 60 MB.
PAGE_SIZE = 500

_ATTEMPTS = 4
#: A log is the node's to give: where it cannot be reached the API server says 500 for every try,
#: and somebody may be waiting for a rollback.
_LOG_ATTEMPTS = 2
_FIRST_DELAY = 0.25
_LONGEST_DELAY = 10.0
#: The server ends a watch after this many seconds, and it is opened again.
_WATCH_SECONDS = 300
#: The server sends a bookmark about every minute; after this silence the watch is opened again.
_WATCH_IDLE_SECONDS = 150.0
_WATCH_FIRST_DELAY = 0.5
#: A hook may say nothing for as long as helm waits for it.
_LOG_IDLE_SECONDS = 3600.0
_WATCH_LONGEST_DELAY = 30.0
_JSON = "application/json"
_METADATA = "application/json;as={kind};g=meta.k8s.io;v=v1"
_PATCH_TYPES = {
    "merge": "application/merge-patch+json",
    "strategic": "application/strategic-merge-patch+json",
    "apply": "application/apply-patch+yaml",
}
_WRITES = frozenset({"create", "update", "patch", "delete", "deletecollection"})
#: Reviews are created to ask a question and are never stored.
_QUESTIONS = frozenset({"selfsubjectaccessreviews"})


@dataclass(frozen=True, slots=True)
class Listing:
    """A consistent list: all pages, as of `resource_version`."""

    items: tuple[Object, ...]
    resource_version: str


@dataclass(frozen=True, slots=True)
class Listed:
    """A watch begins, or begins anew: these are all objects that there are."""

    items: tuple[Object, ...]
    resource_version: str


@dataclass(frozen=True, slots=True)
class Changed:
    """One object was added, modified or deleted (then `object` is its last state)."""

    type: Literal["ADDED", "MODIFIED", "DELETED"]
    object: Object
    resource_version: str


@dataclass(frozen=True, slots=True)
class Reached:
    """A bookmark: everything up to `resource_version` was seen."""

    resource_version: str


@dataclass(frozen=True, slots=True)
class Lost:
    """The watch broke off: what is known may be old. Listed follows once the server answers."""

    error: ClusterError


WatchEvent = Listed | Changed | Reached | Lost


class Api:
    """One cluster. Use `Api.connect`, and `async with`.

    `read_only` refuses every writing verb before it leaves. Reads that fail with 5xx, 429 or a
    dropped connection are tried four times in all; writes only where the server surely did nothing
    (429). Every request has a timeout.
    """

    def __init__(
        self,
        transport: Transport,
        connection: Connection,
        *,
        read_only: bool = False,
        audit: ApiAudit | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._transport = transport
        self._streams: Transport | None = None
        self._connection = connection
        self._credentials = Credentials(connection)
        self._read_only = read_only
        self._audit = audit
        self._sleep = sleep
        self._discovered: dict[str, dict[str, Resource]] = {}

    @classmethod
    async def connect(
        cls,
        *,
        kubeconfig: str | None = None,
        context: str | None = None,
        read_only: bool = False,
        audit: ApiAudit | None = None,
        light: bool = False,
    ) -> Self:
        """Open a cluster by kubectl's rules (see `cluster/kubeconfig.py`); sends nothing yet.

        `light` is for commands that ask little and end: it spares the import of the Kubernetes
        client where the connection needs no proxy. Raises UsageError, AccessDenied.
        """
        connection = load_connection(kubeconfig, context)
        if connection.plugin is not None:
            connection = await run_plugin(connection)
        light = light and not _needs_client(connection)
        transport = LightTransport(connection) if light else _client_transport(connection)
        return cls(transport, connection, read_only=read_only, audit=audit)

    @property
    def server(self) -> str:
        """The API server's URL."""
        return self._connection.server

    @property
    def context(self) -> str:
        """The kubeconfig context, or `in-cluster`."""
        return self._connection.context

    @property
    def namespace(self) -> str:
        """The context's namespace, `default` where it names none."""
        return self._connection.namespace or "default"

    def __repr__(self) -> str:
        return f"<Api of {self.context or self.server}>"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close all connections; watches end."""
        await self._transport.close()
        if self._streams is not None:
            await self._streams.close()

    # Reads

    async def get(
        self,
        api_version: str,
        kind: str,
        name: str,
        namespace: str = "",
        *,
        metadata_only: bool = False,
        timeout: float = REQUEST_TIMEOUT,
    ) -> Object | None:
        """One object, or None where there is none."""
        resource = await self.resource_for(api_version, kind)
        accept = _METADATA.format(kind="PartialObjectMetadata") if metadata_only else _JSON
        try:
            answer = await self._ask(
                "GET",
                resource.path(namespace, name),
                Target.of("get", resource, namespace, name),
                headers=(("Accept", accept),),
                timeout=timeout,
            )
        except ObjectNotFound:
            return None
        return _decoded(answer)

    async def list(
        self,
        api_version: str,
        kind: str,
        namespace: str = "",
        *,
        label_selector: str = "",
        field_selector: str = "",
        metadata_only: bool = False,
        page_size: int = PAGE_SIZE,
        timeout: float = REQUEST_TIMEOUT,
    ) -> Listing:
        """All objects of a kind, in one namespace or in all; items carry apiVersion and kind.

        A list of a kind in a namespace that does not exist is empty, as the server has it.
        """
        resource = await self.resource_for(api_version, kind)
        query = _selectors(label_selector, field_selector) | {"limit": str(page_size)}
        accept = _METADATA.format(kind="PartialObjectMetadataList") if metadata_only else _JSON
        target = Target.of("list", resource, namespace)
        items: list[Object] = []
        while True:
            path = _with_query(resource.path(namespace), query)
            answer = await self._exchange(
                "GET", path, target, headers=(("Accept", accept),), timeout=timeout
            )
            if answer.status == 410 and "continue" in query:
                # The pages took so long that the server forgot their version: all in one page.
                items = []
                query = _selectors(label_selector, field_selector)
                continue
            page = _decoded(self._accepted(answer, target))
            items.extend(page.get("items") or [])
            metadata = page.get("metadata") or {}
            if not metadata.get("continue"):
                break
            query["continue"] = metadata["continue"]
        for item in items:
            if not metadata_only:
                item.setdefault("apiVersion", api_version)
                item.setdefault("kind", kind)
        return Listing(tuple(items), str(metadata.get("resourceVersion", "")))

    async def logs(
        self,
        pod: str,
        namespace: str,
        *,
        container: str = "",
        tail_lines: int = 200,
        limit_bytes: int = 256 * 1024,
        previous: bool = False,
        timeout: float = REQUEST_TIMEOUT,
    ) -> str:
        """The last lines of one container's log. Raises ObjectNotFound, and ClusterError where the
        container has not started.
        """
        resource = WELL_KNOWN["v1", "Pod"]
        query = {"tailLines": str(tail_lines), "limitBytes": str(limit_bytes)}
        if container:
            query["container"] = container
        if previous:
            query["previous"] = "true"
        answer = await self._ask(
            "GET",
            _with_query(resource.path(namespace, pod, "log"), query),
            Target.of("get", resource, namespace, pod, "log"),
            timeout=timeout,
            attempts=_LOG_ATTEMPTS,
        )
        return answer.body.decode(errors="replace")

    async def follow_logs(
        self, pod: str, namespace: str, *, container: str = ""
    ) -> AsyncGenerator[bytes, None]:
        """One container's log from its beginning, as it is written, until the container ends; close
        the iterator to stop. Raises as `logs`, and ClusterUnreachable where the connection breaks.
        """
        resource = WELL_KNOWN["v1", "Pod"]
        query = {"follow": "true"}
        if container:
            query["container"] = container
        path = _with_query(resource.path(namespace, pod, "log"), query)
        target = Target.of("get", resource, namespace, pod, "log")
        chunks = self._chunks(path, target, _JSON, _LOG_IDLE_SECONDS)
        async with aclosing(chunks):
            async for chunk in chunks:
                yield chunk

    async def server_version(self) -> str:
        """The API server's version, as `v1.37.2`."""
        answer = await self._ask("GET", "/version", Target("get", "/version"))
        return str(_decoded(answer).get("gitVersion", ""))

    async def can_i(
        self,
        verb: str,
        api_version: str,
        kind: str,
        namespace: str = "",
        *,
        name: str = "",
        subresource: str = "",
    ) -> bool:
        """Whether the API server would let us; asked by a SelfSubjectAccessReview."""
        resource = await self.resource_for(api_version, kind)
        attributes = {
            "verb": verb,
            "group": resource.group,
            "resource": resource.plural,
            "namespace": namespace,
            "name": name,
            "subresource": subresource,
        }
        review = await self.create(
            {
                "apiVersion": "authorization.k8s.io/v1",
                "kind": "SelfSubjectAccessReview",
                "spec": {"resourceAttributes": {k: v for k, v in attributes.items() if v}},
            }
        )
        return bool((review.get("status") or {}).get("allowed"))

    async def resource_for(self, api_version: str, kind: str) -> Resource:
        """Where a kind lives. Raises ObjectNotFound where the API server does not know it."""
        known = WELL_KNOWN.get((api_version, kind))
        known = known or self._discovered.get(api_version, {}).get(kind)
        if known is not None:
            return known
        target = Target("get", f"the resources of {api_version}")
        answer = await self._exchange("GET", group_path(api_version), target)
        found: list[Object] = []
        if answer.status != 404:
            found = _decoded(self._accepted(answer, target)).get("resources") or []
        # Kept only where it answers: a CRD that comes later is found by asking again.
        self._discovered[api_version] = {
            item["kind"]: Resource(api_version, item["kind"], item["name"], item["namespaced"])
            for item in found
            if "/" not in item["name"]
        }
        try:
            return self._discovered[api_version][kind]
        except KeyError:
            raise ObjectNotFound(
                f"the API server has no kind {kind} in {api_version}",
                where=self.server,
                next_step="is its CustomResourceDefinition installed?",
            ) from None

    # Writes

    async def create(
        self, manifest: Mapping[str, Any], *, timeout: float = REQUEST_TIMEOUT
    ) -> Object:
        """Create an object. Raises ObjectConflict where it exists, ObjectNotFound where its
        namespace does not.
        """
        resource, namespace, name = await self._place(manifest)
        answer = await self._ask(
            "POST",
            resource.path(namespace),
            Target.of("create", resource, namespace, name),
            body=manifest,
            timeout=timeout,
        )
        return _decoded(answer)

    async def replace(
        self, manifest: Mapping[str, Any], *, timeout: float = REQUEST_TIMEOUT
    ) -> Object:
        """Replace an object whole. With a `metadata.resourceVersion` it raises ObjectConflict where
        somebody wrote in between.
        """
        resource, namespace, name = await self._place(manifest)
        answer = await self._ask(
            "PUT",
            resource.path(namespace, name),
            Target.of("update", resource, namespace, name),
            body=manifest,
            timeout=timeout,
        )
        return _decoded(answer)

    async def patch(
        self,
        api_version: str,
        kind: str,
        name: str,
        namespace: str,
        body: Mapping[str, Any],
        *,
        how: PatchKind = "merge",
        force: bool = False,
        dry_run: bool = False,
        field_manager: str = "helmops",
        timeout: float = REQUEST_TIMEOUT,
    ) -> Object:
        """Patch an object; `apply` is server-side apply and creates where there is none.

        `force` takes over fields of other managers (only with `apply`). A `resourceVersion` in the
        body is checked, as in `replace`.
        """
        resource = await self.resource_for(api_version, kind)
        query = {"fieldManager": field_manager}
        if how == "apply":
            query["force"] = "true" if force else "false"
        if dry_run:
            query["dryRun"] = "All"
        answer = await self._ask(
            "PATCH",
            _with_query(resource.path(namespace, name), query),
            Target.of("patch", resource, namespace, name),
            headers=(("Content-Type", _PATCH_TYPES[how]),),
            body=body,
            timeout=timeout,
        )
        return _decoded(answer)

    async def delete(
        self,
        api_version: str,
        kind: str,
        name: str,
        namespace: str = "",
        *,
        propagation: Propagation = "Background",
        resource_version: str = "",
        uid: str = "",
        timeout: float = REQUEST_TIMEOUT,
    ) -> bool:
        """Delete an object; whether there was one. Raises ObjectConflict where it is not of the
        version or uid that was named.
        """
        resource = await self.resource_for(api_version, kind)
        preconditions = {
            key: value
            for key, value in (("resourceVersion", resource_version), ("uid", uid))
            if value
        }
        options: Object = {"kind": "DeleteOptions", "apiVersion": "v1"}
        options["propagationPolicy"] = propagation
        if preconditions:
            options["preconditions"] = preconditions
        try:
            await self._ask(
                "DELETE",
                resource.path(namespace, name),
                Target.of("delete", resource, namespace, name),
                body=options,
                timeout=timeout,
            )
        except ObjectNotFound:
            return False
        return True

    # Watches

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
        """A list, then every change, without end; close the iterator to stop.

        A watch that the server ends as agreed goes on where it was. One that breaks is told of by
        Lost, tried again with growing delays, and begins anew with Listed: after a gap only a list
        tells surely what there is. Raises AccessDenied where list or watch is not allowed.
        """
        resource = await self.resource_for(api_version, kind)
        delay = _WATCH_FIRST_DELAY
        while True:
            try:
                listing = await self.list(
                    api_version,
                    kind,
                    namespace,
                    label_selector=label_selector,
                    field_selector=field_selector,
                    metadata_only=metadata_only,
                )
                yield Listed(listing.items, listing.resource_version)
                changes = self._follow(
                    resource,
                    namespace,
                    _selectors(label_selector, field_selector),
                    metadata_only,
                    listing.resource_version,
                )
                async with aclosing(changes):
                    async for event in changes:
                        delay = _WATCH_FIRST_DELAY
                        yield event
            except AccessDenied:
                raise
            except _ExpiredError:
                continue  # the server forgot our version: list again, nothing is wrong
            except ClusterError as error:
                yield Lost(error)
            await self._sleep(delay * random.uniform(0.8, 1.2))  # noqa: S311
            delay = min(delay * 2, _WATCH_LONGEST_DELAY)

    async def _follow(
        self,
        resource: Resource,
        namespace: str,
        selectors: dict[str, str],
        metadata_only: bool,
        version: str,
    ) -> AsyncGenerator[Changed | Reached, None]:
        """Changes from a version on, over as many requests as the server makes of it.

        Raises _ExpiredError, and ClusterError where a request fails or breaks.
        """
        target = Target.of("watch", resource, namespace)
        accept = _METADATA.format(kind="PartialObjectMetadata") if metadata_only else _JSON
        query = selectors | {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(_WATCH_SECONDS),
        }
        while True:
            query["resourceVersion"] = version
            path = _with_query(resource.path(namespace), query)
            async for line in self._lines(path, target, accept):
                event = msgspec.json.decode(line)
                found = event.get("object") or {}
                if event.get("type") == "ERROR":
                    code = int(found.get("code") or 500)
                    if code == 410:
                        raise _ExpiredError
                    raise error_of(code, found, target, self.server)
                version = str(found["metadata"]["resourceVersion"])
                if event["type"] == "BOOKMARK":
                    yield Reached(version)
                else:
                    yield Changed(event["type"], found, version)

    async def _lines(self, path: str, target: Target, accept: str) -> AsyncIterator[bytes]:
        """The lines of one watch request, until the server ends it."""
        rest = b""
        chunks = self._chunks(path, target, accept, _WATCH_IDLE_SECONDS)
        async with aclosing(chunks):
            async for chunk in chunks:
                *lines, rest = (rest + chunk).split(b"\n")
                for line in lines:
                    if line:
                        yield line

    async def _chunks(
        self, path: str, target: Target, accept: str, idle_seconds: float
    ) -> AsyncGenerator[bytes, None]:
        """The body of one request as it comes, until the server ends it."""
        self._note(target)
        renewed = False
        while True:
            headers = await self._headers((("Accept", accept),), was_refused=renewed)
            async with self._streaming().stream(path, headers, idle_seconds) as stream:
                if stream.status == 200:
                    async for chunk in stream.chunks:
                        yield chunk
                    return
                if stream.status == 410:
                    raise _ExpiredError
                if stream.status == 401 and not renewed:
                    renewed = True
                    continue
                body = await _read_all(stream)
                raise error_of(stream.status, read_status(body), target, self.server)

    def _streaming(self) -> Transport:
        if not isinstance(self._transport, LightTransport):
            return self._transport
        if self._streams is None:
            self._streams = _client_transport(self._connection)
        return self._streams

    # One request

    async def _place(self, manifest: Mapping[str, Any]) -> tuple[Resource, str, str]:
        resource = await self.resource_for(manifest["apiVersion"], manifest["kind"])
        metadata = manifest.get("metadata") or {}
        name = str(metadata.get("name") or metadata.get("generateName") or "")
        return resource, str(metadata.get("namespace") or ""), name

    def _note(self, target: Target) -> None:
        """Tell the audit; refuse what a reading Api must not send."""
        if self._audit is not None:
            self._audit(target.verb, target.resource, target.namespace, target.name)
        if self._read_only and target.verb in _WRITES and target.resource not in _QUESTIONS:
            raise AccessDenied(
                f"helmops only observes and must not {target.verb} {target.resource}",
                where=str(target),
            )

    async def _headers(
        self, extra: Headers, *, was_refused: bool = False
    ) -> tuple[tuple[str, str], ...]:
        ours = await self._credentials.headers(was_refused=was_refused)
        given = {name for name, _ in extra}
        defaults = (("Accept", _JSON), ("Content-Type", _JSON), ("User-Agent", "helmops"))
        return (*extra, *(pair for pair in defaults if pair[0] not in given), *ours)

    async def _ask(
        self,
        method: str,
        path: str,
        target: Target,
        *,
        headers: Headers = (),
        body: Mapping[str, Any] | None = None,
        timeout: float = REQUEST_TIMEOUT,
        attempts: int = _ATTEMPTS,
    ) -> Answer:
        """One request with its retries; raises for every answer that is not a success."""
        answer = await self._exchange(
            method, path, target, headers=headers, body=body, timeout=timeout, attempts=attempts
        )
        return self._accepted(answer, target)

    def _accepted(self, answer: Answer, target: Target) -> Answer:
        if 200 <= answer.status < 300:
            return answer
        raise error_of(answer.status, read_status(answer.body), target, self.server)

    async def _exchange(
        self,
        method: str,
        path: str,
        target: Target,
        *,
        headers: Headers = (),
        body: Mapping[str, Any] | None = None,
        timeout: float = REQUEST_TIMEOUT,
        attempts: int = _ATTEMPTS,
    ) -> Answer:
        """One request with its retries, whatever the last answer was."""
        self._note(target)
        is_read = method == "GET"
        renewed = False
        for attempt in range(1, attempts + 1):
            is_last = attempt == attempts
            try:
                answer = await self._once(method, path, headers, body, timeout, renewed)
                if answer.status == 401 and not renewed:
                    renewed = True
                    answer = await self._once(method, path, headers, body, timeout, renewed)
            except ConnectionDropped as error:
                if is_read and not is_last and not error.was_timeout:
                    await self._sleep(_delay(attempt, {}))
                    continue
                raise
            # 429 is said before anything is done; a write that met a 5xx may have been done.
            is_worth_it = answer.status == 429 or (is_read and answer.status >= 500)
            if is_last or not is_worth_it:
                break
            await self._sleep(_delay(attempt, answer.headers))
        return answer

    async def _once(
        self,
        method: str,
        path: str,
        headers: Headers,
        body: Mapping[str, Any] | None,
        timeout: float,
        renewed: bool,
    ) -> Answer:
        sent = await self._headers(headers, was_refused=renewed)
        return await self._transport.request(method, path, sent, body, timeout)


class _ExpiredError(Exception):
    """410 Gone: the resourceVersion is too old to go on from."""


def _client_transport(connection: Connection) -> Transport:
    from helmops.cluster.aio import AioTransport  # most of a second to import

    return AioTransport(connection)


def _needs_client(connection: Connection) -> bool:
    if connection.proxy:
        return True
    from urllib.request import getproxies, proxy_bypass

    host = connection.server.partition("://")[2].partition("/")[0].rpartition(":")[0]
    return bool(getproxies()) and not proxy_bypass(host)


def _delay(attempt: int, headers: Mapping[str, str]) -> float:
    """Seconds before the next attempt: what the server asked for, bounded, else growing."""
    try:
        asked = float(headers.get("retry-after", ""))
    except ValueError:  # none, or an HTTP date, which the API server does not send
        asked = _FIRST_DELAY * 3 ** (attempt - 1) * random.uniform(0.8, 1.2)  # noqa: S311
    return min(max(asked, 0.0), _LONGEST_DELAY)


def _selectors(label_selector: str, field_selector: str) -> dict[str, str]:
    pairs = {"labelSelector": label_selector, "fieldSelector": field_selector}
    return {name: value for name, value in pairs.items() if value}


def _with_query(path: str, query: Mapping[str, str]) -> str:
    return f"{path}?{urlencode(query)}" if query else path


def _decoded(answer: Answer) -> Object:
    try:
        decoded = msgspec.json.decode(answer.body)
    except msgspec.DecodeError:
        decoded = None
    if not isinstance(decoded, dict):
        raise ClusterUnreachable(
            "what answered is no Kubernetes API server: not a JSON object",
            next_step="is a proxy in between, or the kubeconfig's server wrong?",
        )
    return decoded


async def _read_all(stream: Stream, at_most: int = 1 << 16) -> bytes:
    body = b""
    async for chunk in stream.chunks:
        body += chunk
        if len(body) > at_most:
            break
    return body
