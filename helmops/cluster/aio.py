"""The Python client's asynchronous transport: one pool of connections, and streams for watches.

Only the client's lowest layer is used (`ApiClient.rest_client`): its typed models cost five times
the CPU of plain JSON. Session and TLS context are ours: the client's would write private keys to
disk for as long as the process lives, take passwords from `.netrc`, and not notice a peer that is
gone. Importing this module costs most of a second; `Api.connect` does it only when it is needed.
"""

from __future__ import annotations

import contextlib
import socket
import urllib.request
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urlsplit

import aiohttp
from kubernetes.aio.client.api_client import ApiClient
from kubernetes.aio.client.configuration import Configuration
from multidict import CIMultiDict

from helmops.cluster.kubeconfig import Connection
from helmops.cluster.transport import CONNECT_TIMEOUT, Answer, Headers, Stream, unreachable

#: No limit: watches hold a connection each, as many as there are kinds and namespaces to look at,
#: and no request may wait for one of them to end. Requests are bounded by who asks.
_POOL_SIZE = 0


class AioTransport:
    """`kubernetes.aio`, raw. Must be made inside a running event loop."""

    def __init__(self, connection: Connection) -> None:
        configuration = Configuration(
            host=connection.server,
            tls_server_name=connection.tls_server_name or None,
            proxy=connection.proxy or _proxy_of_environment(connection.server),
        )
        self._server = connection.server
        self._client = ApiClient(configuration)
        tls = connection.tls_context()
        self._client.rest_client.pool_manager = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=_POOL_SIZE,
                ssl=tls if tls is not None else True,
                socket_factory=_socket_with_keepalive,
            ),
            trust_env=False,
            read_bufsize=2**20,
        )

    async def request(
        self, method: str, target: str, headers: Headers, body: Any, timeout: float
    ) -> Answer:
        limits = aiohttp.ClientTimeout(total=timeout, sock_connect=CONNECT_TIMEOUT)
        with self._failures():
            response = await self._send(method, target, headers, body, limits)
            async with response:
                content = await response.read()
        return Answer(response.status, _lowered(response), content)

    @contextlib.asynccontextmanager
    async def stream(
        self, target: str, headers: Headers, idle_timeout: float
    ) -> AsyncIterator[Stream]:
        limits = aiohttp.ClientTimeout(
            total=None, sock_connect=CONNECT_TIMEOUT, sock_read=idle_timeout
        )
        with self._failures():
            response = await self._send("GET", target, headers, None, limits)
        try:
            yield Stream(response.status, _lowered(response), self._chunks(response))
        finally:
            response.close()

    async def close(self) -> None:
        await self._client.close()

    async def _send(
        self, method: str, target: str, headers: Headers, body: Any, limits: aiohttp.ClientTimeout
    ) -> aiohttp.ClientResponse:
        answer = await self._client.rest_client.request(
            method,
            self._server + target,
            headers=CIMultiDict(headers),
            body=body,
            _request_timeout=limits,
        )
        response: aiohttp.ClientResponse = answer.response
        return response

    async def _chunks(self, response: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
        with self._failures():
            try:
                async for chunk in response.content.iter_any():
                    yield chunk
            except TimeoutError:
                return  # idle for too long: an end like any other

    @contextlib.contextmanager
    def _failures(self) -> Any:
        try:
            yield
        except aiohttp.ClientConnectorError as error:
            raise unreachable(self._server, error) from None
        except TimeoutError:
            # Also a connection that took too long; what was sent may have been done.
            raise unreachable(self._server, TimeoutError("timed out"), dropped=True) from None
        except (aiohttp.ClientError, OSError) as error:
            raise unreachable(self._server, error, dropped=True) from None


def _lowered(response: aiohttp.ClientResponse) -> dict[str, str]:
    return {name.lower(): value for name, value in response.headers.items()}


def _proxy_of_environment(server: str) -> str | None:
    parts = urlsplit(server)
    if urllib.request.proxy_bypass(parts.hostname or ""):
        return None
    return urllib.request.getproxies().get(parts.scheme)


def _socket_with_keepalive(address: Any) -> socket.socket:
    """A TCP socket on which a vanished peer is noticed within about a minute."""
    family, kind, protocol, _, _ = address
    made = socket.socket(family, kind, protocol)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (("TCP_KEEPIDLE", 30), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 3)):
        if hasattr(socket, option):
            made.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
    return made
