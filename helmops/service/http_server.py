"""What the service shows over HTTP: health, readiness, metrics, and a page of its releases.

Read-only, without authentication, without anything from elsewhere: hence it listens on this
machine alone unless told otherwise. No secret values are in what it shows, since none are in what
it is given.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import errno
import hashlib
import socket
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from html import escape
from typing import Any

import uvicorn
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from helmops import __version__
from helmops.errors import StoreError, UsageError
from helmops.service.settings import Listen
from helmops.store.entries import PublishedRelease

#: What is missing for readiness: a name, and why. Nothing missing is ready.
Missing = Callable[[], Mapping[str, str]]

#: The releases to show, as `SqlJournal.releases` gives them.
Releases = Callable[[], Awaitable[Sequence[PublishedRelease]]]

#: More at once than that many connections are answered 503.
_CONNECTIONS = 100
#: How long requests under way may take when the server stops, in seconds.
_STOP_SECONDS = 3

_STYLE = """
body { font: 15px/1.4 system-ui, sans-serif; margin: 2rem; }
table { border-collapse: collapse; }
th, td { text-align: left; padding: .3rem 1rem .3rem 0; vertical-align: top; }
tr { border-bottom: 1px solid #8884; }
td.message { white-space: pre-wrap; overflow-wrap: anywhere; max-width: 60rem; }
.True { color: #2a7d2a; } .False { color: #c02020; }
@media (prefers-color-scheme: dark) {
  body { background: #161616; color: #ddd; } .True { color: #6c6; } .False { color: #f77; }
}
"""

_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'; style-src 'sha256-"
    + base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
    + "'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


def application(*, missing: Missing, registry: CollectorRegistry, releases: Releases) -> ASGIApp:
    """The pages, as an ASGI application."""

    async def healthz(_: Request) -> Response:
        return PlainTextResponse("ok\n")  # an event loop that is stuck does not get here

    async def readyz(_: Request) -> Response:
        lacking = missing()
        body = {
            "ready": not lacking,
            "missing": [{"name": name, "why": why} for name, why in sorted(lacking.items())],
        }
        return JSONResponse(body, status_code=503 if lacking else 200)

    async def metrics(request: Request) -> Response:
        encode, content_type = choose_encoder(request.headers.get("accept", ""))
        # Thousands of series take a while; the event loop has other things to do.
        text = await asyncio.to_thread(encode, registry)
        return Response(text, headers={"Content-Type": content_type})

    async def page(_: Request) -> Response:
        try:
            found = await releases()
        except StoreError as error:
            return HTMLResponse(_page(f"<p>{escape(str(error))}</p>"), status_code=503)
        return HTMLResponse(_page(_table(found)))

    routes = [
        Route("/healthz", healthz),
        Route("/readyz", readyz),
        Route("/metrics", metrics),
        Route("/", page),
    ]
    return _WithHeaders(Starlette(routes=routes))


class HttpServer:
    """Serves `application` in the running event loop.

    Leaves signals alone, and costs nothing while nobody asks: uvicorn's own loop would wake the
    process ten times a second.
    """

    def __init__(self, listen: Listen, application: ASGIApp) -> None:
        self._listen = listen
        self._application = application
        self._server: _Server | None = None
        self._serving: asyncio.Task[None] | None = None
        #: Where it listens, with the port that was chosen for port 0.
        self.address = listen

    async def start(self) -> None:
        """Listen. Raises UsageError where that is impossible, as for a port in use."""
        listening = await asyncio.to_thread(_listening_socket, self._listen)
        self.address = Listen(self._listen.host, listening.getsockname()[1])
        config = uvicorn.Config(
            self._application,
            http="h11",
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            date_header=False,
            proxy_headers=False,
            limit_concurrency=_CONNECTIONS,
            timeout_keep_alive=15,
            timeout_graceful_shutdown=_STOP_SECONDS,
        )
        self._server = _Server(config)
        self._serving = asyncio.create_task(self._server.serve(sockets=[listening]))
        up = asyncio.create_task(self._server.up.wait())
        await asyncio.wait({self._serving, up}, return_when=asyncio.FIRST_COMPLETED)
        up.cancel()
        if self._serving.done():
            self._serving.result()

    async def stop(self) -> None:
        """Answer what was asked, then listen no more."""
        if self._server is not None and self._serving is not None:
            self._server.ask_to_stop()
            await self._serving
            self._server = self._serving = None


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.up = asyncio.Event()
        self._stopping = asyncio.Event()

    def ask_to_stop(self) -> None:
        self.should_exit = True
        self._stopping.set()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=sockets)
        self.up.set()

    async def main_loop(self) -> None:
        await self._stopping.wait()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield  # they are the service's


class _WithHeaders:
    """Puts the security headers on every answer, errors included."""

    def __init__(self, application: ASGIApp) -> None:
        self._application = application
        self._headers = [(name.lower().encode(), text.encode()) for name, text in _HEADERS.items()]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message.get("headers", ()), *self._headers]}
            await send(message)

        await self._application(scope, receive, send_with_headers)


def _listening_socket(listen: Listen) -> socket.socket:
    """Bind the first address of the host, and only that."""
    try:
        family, _, _, _, address = socket.getaddrinfo(
            listen.host, listen.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listening = socket.socket(family, socket.SOCK_STREAM)
    except OSError as error:
        raise _cannot_listen(listen, error) from error
    try:
        # A port whose last connections are still closing is free for us, one in use is not.
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listening.bind(address)
        listening.listen(_CONNECTIONS)
        listening.setblocking(False)
    except OSError as error:
        listening.close()
        raise _cannot_listen(listen, error) from error
    return listening


def _cannot_listen(listen: Listen, error: OSError) -> UsageError:
    advice = "name another address with --listen HOST:PORT, or HELMOPS_LISTEN"
    if isinstance(error, socket.gaierror):
        what = f"the host {listen.host!r} is not known"
    elif error.errno == errno.EADDRINUSE:
        what = f"port {listen.port} of {listen.host} is in use"
        advice = f"stop who has it (another helmops?), or {advice}"
    elif error.errno == errno.EACCES:
        what = f"port {listen.port} is not for this user; below 1024 they are the administrator's"
    elif error.errno == errno.EADDRNOTAVAIL:
        what = f"{listen.host} is no address of this machine"
    else:
        what = f"listening is impossible: {error.strerror or error}"
    return UsageError(what, where=f"--listen {listen}", next_step=advice)


def _page(body: str) -> str:
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>helmops</title>'
        f"<style>{_STYLE}</style></head><body><h1>helmops {escape(__version__)}</h1>{body}"
        "</body></html>"
    )


def _table(found: Sequence[PublishedRelease]) -> str:
    if not found:
        return "<p>No releases yet.</p>"
    rows = "".join(map(_row, found))
    return (
        "<table><thead><tr><th>Namespace</th><th>Name</th><th>Ready</th><th>State</th>"
        f"<th>Chart</th><th>Revision</th><th>Message</th></tr></thead><tbody>{rows}</tbody></table>"
    )


def _row(entry: PublishedRelease) -> str:
    conditions: list[dict[str, Any]] = entry.status.get("conditions") or []
    ready = next((c for c in conditions if c.get("type") == "Ready"), {})
    status = str(ready.get("status", "Unknown"))
    head: dict[str, Any] = next(iter(entry.status.get("history") or []), {})
    chart = f"{head.get('chartName', '')} {head.get('chartVersion', '')}".strip()
    cells = [
        _cell(entry.key.namespace),
        _cell(entry.key.name),
        _cell(status, status),
        _cell((entry.status.get("helmops") or {}).get("state") or ""),
        _cell(chart),
        _cell(head.get("version", "")),
        _cell(ready.get("message", ""), "message"),
    ]
    return f"<tr>{''.join(cells)}</tr>"


def _cell(content: object, kind: str = "") -> str:
    return f'<td class="{escape(kind)}">{escape(str(content))}</td>'
