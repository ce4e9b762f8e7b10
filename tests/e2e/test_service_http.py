"""The HTTP server of the service on loopback, with real sockets and real signals."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from helmops.errors import UsageError
from helmops.service.http_server import HttpServer, application
from helmops.service.settings import Listen
from helmops.service.shutdown import Shutdown
from tests.fakes.journal import FakeJournal

pytestmark = pytest.mark.e2e


def pages(journal: Any = None) -> Any:
    return application(
        missing=dict, registry=CollectorRegistry(), releases=(journal or FakeJournal()).releases
    )


@asynccontextmanager
async def running(server: HttpServer) -> AsyncIterator[HttpServer]:
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


async def ask(server: HttpServer, path: str) -> str:
    reader, writer = await asyncio.open_connection(server.address.host, server.address.port)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
    answer = await asyncio.wait_for(reader.read(), 30)
    writer.close()
    await writer.wait_closed()
    return answer.decode()


async def test_it_answers_on_a_port_that_the_system_chose() -> None:
    async with running(HttpServer(Listen("127.0.0.1", 0), pages())) as server:
        assert server.address.port > 0
        assert (await ask(server, "/healthz")).startswith("HTTP/1.1 200 OK")
        assert '"ready":true' in await ask(server, "/readyz")
        assert "No releases yet." in await ask(server, "/")


async def test_it_answers_on_ipv6() -> None:
    try:
        async with running(HttpServer(Listen("::1", 0), pages())) as server:
            assert (await ask(server, "/healthz")).startswith("HTTP/1.1 200 OK")
    except UsageError:
        pytest.skip("no IPv6 on this machine")


async def test_a_port_in_use_is_named() -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as other:
        port = other.getsockname()[1]
        with pytest.raises(UsageError, match=f"port {port} of 127.0.0.1 is in use") as error:
            await HttpServer(Listen("127.0.0.1", port), pages()).start()
        assert "--listen" in str(error.value)


async def test_hosts_that_are_not_ours_or_not_known_are_named() -> None:
    with pytest.raises(UsageError, match="no address of this machine"):
        await HttpServer(Listen("192.0.2.1", 0), pages()).start()
    with pytest.raises(UsageError, match=r"'no\.such\.host\.invalid' is not known"):
        await HttpServer(Listen("no.such.host.invalid", 0), pages()).start()


async def test_it_listens_only_where_it_was_asked_to() -> None:
    async with running(HttpServer(Listen("127.0.0.1", 0), pages())) as server:
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.2", server.address.port)


async def test_a_port_is_free_again_after_stopping() -> None:
    async with running(HttpServer(Listen("127.0.0.1", 0), pages())) as server:
        await ask(server, "/healthz")
    async with running(HttpServer(server.address, pages())) as again:
        assert again.address == server.address


async def test_signals_stay_the_service_s() -> None:
    with Shutdown() as shutdown:
        async with running(HttpServer(Listen("127.0.0.1", 0), pages())) as server:
            os.kill(os.getpid(), signal.SIGTERM)
            assert await asyncio.wait_for(shutdown.requested(), 30) == "SIGTERM"
            assert (await ask(server, "/healthz")).startswith("HTTP/1.1 200 OK")


async def test_stopping_answers_what_was_asked_before() -> None:
    asked, go_on = asyncio.Event(), asyncio.Event()

    class Slow:
        async def releases(self) -> tuple[()]:
            asked.set()
            await go_on.wait()
            return ()

    server = HttpServer(Listen("127.0.0.1", 0), pages(Slow()))
    await server.start()
    asking = asyncio.create_task(ask(server, "/"))
    await asked.wait()
    stopping = asyncio.create_task(server.stop())
    await asyncio.sleep(0)
    go_on.set()
    assert "No releases yet." in await asking
    await stopping


async def test_stopping_does_not_wait_for_idle_connections_or_endless_requests() -> None:
    class Endless:
        async def releases(self) -> tuple[()]:
            await asyncio.Event().wait()
            return ()

    server = HttpServer(Listen("127.0.0.1", 0), pages(Endless()))
    await server.start()
    _, idle = await asyncio.open_connection("127.0.0.1", server.address.port)
    _, endless = await asyncio.open_connection("127.0.0.1", server.address.port)
    endless.write(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
    await endless.drain()
    await asyncio.wait_for(server.stop(), 60)
    for writer in (idle, endless):
        writer.close()


async def test_stopping_one_that_never_started_is_no_error() -> None:
    await HttpServer(Listen("127.0.0.1", 0), pages()).stop()
