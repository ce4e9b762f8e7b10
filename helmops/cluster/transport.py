"""One HTTP request to the API server, in two ways that differ only in what they cost.

`AioTransport` (in `cluster/aio.py`) is the Python client's, with a connection pool and streams; to
import the client costs about 0.8 s of CPU. A command that only looks asks one or two questions and
uses `LightTransport` instead: the standard library's HTTP in a thread, 0.04 s to import.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import ssl
import threading
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import urlsplit

from helmops.cluster.kubeconfig import Connection
from helmops.errors import ClusterUnreachable

Headers = Sequence[tuple[str, str]]

#: Seconds to wait for a TCP and TLS handshake.
CONNECT_TIMEOUT = 5.0


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back; header names are lower-case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Stream:
    """An answer whose body comes in chunks, for as long as the server likes."""

    status: int
    headers: Mapping[str, str]
    chunks: AsyncIterator[bytes]


class ConnectionDropped(ClusterUnreachable):
    """The connection broke after the request may have left: a write may have been done."""

    #: Whether our own deadline ended it; to ask again would only wait as long again.
    was_timeout = False


class Transport(Protocol):
    """Sends bytes, knows nothing of Kubernetes.

    Every method raises ClusterUnreachable where no connection could be made or no answer came in
    time, ConnectionDropped where one broke. The text names the server, never a header.
    """

    async def request(
        self, method: str, target: str, headers: Headers, body: Any, timeout: float
    ) -> Answer:
        """One request. `target` is the path with its query, `body` goes out as JSON where it is
        not None; `timeout` in seconds is for all of it.
        """

    def stream(
        self, target: str, headers: Headers, idle_timeout: float
    ) -> AbstractAsyncContextManager[Stream]:
        """A GET whose body is read as it comes; it ends when nothing came for `idle_timeout`."""

    async def close(self) -> None:
        """Close all connections."""


def unreachable(server: str, why: BaseException, *, dropped: bool = False) -> ClusterUnreachable:
    """The error for a server that did not answer, with a hint for the usual causes."""
    text = str(why) or type(why).__name__
    hint = "is the cluster up, and is it the right context?"
    if "CERTIFICATE_VERIFY_FAILED" in text or "certificate verify failed" in text:
        hint = "the kubeconfig's certificate-authority is not this server's"
    kind = ConnectionDropped if dropped else ClusterUnreachable
    error = kind(f"no answer from the API server: {text}", where=server, next_step=hint)
    if isinstance(error, ConnectionDropped):
        error.was_timeout = isinstance(why, TimeoutError)
    return error


class LightTransport:
    """`http.client` in worker threads, connections kept for reuse. No proxies and no streams."""

    def __init__(self, connection: Connection) -> None:
        parts = urlsplit(connection.server)
        self._server = connection.server
        self._host = parts.hostname or ""
        self._port = parts.port or (443 if parts.scheme == "https" else 80)
        self._prefix = parts.path.rstrip("/")
        self._tls = connection.tls_context()
        self._tls_server_name = connection.tls_server_name or self._host
        self._idle: list[http.client.HTTPConnection] = []
        self._lock = threading.Lock()

    async def request(
        self, method: str, target: str, headers: Headers, body: Any, timeout: float
    ) -> Answer:
        return await asyncio.to_thread(self._request, method, target, headers, body, timeout)

    def stream(
        self, target: str, headers: Headers, idle_timeout: float
    ) -> AbstractAsyncContextManager[Stream]:
        raise NotImplementedError("LightTransport does not stream")  # Api opens the other one

    async def close(self) -> None:
        with self._lock:
            while self._idle:
                self._idle.pop().close()

    def _request(
        self, method: str, target: str, headers: Headers, body: Any, timeout: float
    ) -> Answer:
        deadline = time.monotonic() + timeout
        with self._lock:
            link = self._idle.pop() if self._idle else None
        if link is not None:
            try:
                return self._exchange(link, method, target, headers, body, deadline)
            except (http.client.RemoteDisconnected, BrokenPipeError, ConnectionResetError) as error:
                # The server had closed the idle connection; only a read is surely not done twice.
                if method != "GET":
                    raise unreachable(self._server, error, dropped=True) from None
            except (OSError, http.client.HTTPException) as error:
                raise unreachable(self._server, error, dropped=True) from None
        try:
            link = self._connect()
        except OSError as error:
            raise unreachable(self._server, error) from None
        try:
            return self._exchange(link, method, target, headers, body, deadline)
        except (OSError, http.client.HTTPException) as error:
            raise unreachable(self._server, error, dropped=True) from None

    def _connect(self) -> http.client.HTTPConnection:
        if self._tls is None:
            link = http.client.HTTPConnection(self._host, self._port, timeout=CONNECT_TIMEOUT)
            link.connect()
            return link
        link = _NamedHTTPSConnection(
            self._host, self._port, self._tls, self._tls_server_name, CONNECT_TIMEOUT
        )
        link.connect()
        return link

    def _exchange(
        self,
        link: http.client.HTTPConnection,
        method: str,
        target: str,
        headers: Headers,
        body: Any,
        deadline: float,
    ) -> Answer:
        try:
            self._limit(link, deadline)
            link.putrequest(method, self._prefix + target)
            for name, value in headers:
                link.putheader(name, value)
            content = None if body is None else json.dumps(body).encode()
            if content is not None:
                link.putheader("Content-Length", str(len(content)))
            link.endheaders(content)
            response = link.getresponse()
            received = bytearray()
            # In pieces, so that a server that drips cannot outlast the deadline.
            while piece := response.read1(1 << 20):
                received += piece
                self._limit(link, deadline)
            if response.length:  # closed before all was sent; read1 does not say so
                raise http.client.IncompleteRead(b"", response.length)
            response.close()  # read1 leaves a finished response open, and the connection taken
        except BaseException:
            link.close()
            raise
        if response.will_close:
            link.close()
        else:
            with self._lock:
                self._idle.append(link)
        return Answer(
            response.status,
            {name.lower(): value for name, value in response.getheaders()},
            bytes(received),
        )

    def _limit(self, link: http.client.HTTPConnection, deadline: float) -> None:
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("timed out")
        if link.sock is not None:
            link.sock.settimeout(left)


class _NamedHTTPSConnection(http.client.HTTPConnection):
    """HTTPS that checks the certificate against a name of its own (`tls-server-name`)."""

    def __init__(
        self, host: str, port: int, tls: ssl.SSLContext, server_name: str, timeout: float
    ) -> None:
        super().__init__(host, port, timeout=timeout)
        self._tls = tls
        self._server_name = server_name

    def connect(self) -> None:
        super().connect()
        self.sock = self._tls.wrap_socket(self.sock, server_hostname=self._server_name)
