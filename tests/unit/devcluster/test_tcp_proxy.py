from __future__ import annotations

import http.client
import socket
import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest

from devcluster.loopback import Answer, LoopbackServer
from devcluster.tcp_proxy import TcpProxy


@pytest.fixture
def server() -> Iterator[LoopbackServer]:
    with LoopbackServer(lambda request: Answer(200, request.path.encode())) as running:
        yield running


@pytest.fixture
def proxy(server: LoopbackServer) -> Iterator[TcpProxy]:
    with TcpProxy(server.port) as running:
        yield running


def ask(proxy: TcpProxy, *, timeout: float = 5) -> bytes:
    url = f"http://127.0.0.1:{proxy.port}/hello"
    with urllib.request.urlopen(url, timeout=timeout) as answer:
        return bytes(answer.read())


def ask_again(connection: http.client.HTTPConnection) -> bytes:
    connection.request("GET", "/second")
    return connection.getresponse().read()


@pytest.fixture
def connection(proxy: TcpProxy) -> Iterator[http.client.HTTPConnection]:
    """A connection that is open and has been used."""
    opened = http.client.HTTPConnection("127.0.0.1", proxy.port, timeout=5)
    opened.request("GET", "/first")
    assert opened.getresponse().read() == b"/first"
    yield opened
    opened.close()


def test_what_goes_in_comes_out(proxy: TcpProxy) -> None:
    assert ask(proxy) == b"/hello"


def test_cutting_resets_what_is_open_and_what_comes(
    proxy: TcpProxy, connection: http.client.HTTPConnection
) -> None:
    with proxy.cutting():
        with pytest.raises((ConnectionError, http.client.HTTPException)):
            ask_again(connection)
        with pytest.raises((ConnectionError, urllib.error.URLError)):
            ask(proxy)
    assert ask(proxy) == b"/hello"


def test_a_reset_spares_what_comes_afterwards(
    proxy: TcpProxy, connection: http.client.HTTPConnection
) -> None:
    proxy.reset()
    with pytest.raises((ConnectionError, http.client.HTTPException)):
        ask_again(connection)
    assert ask(proxy) == b"/hello"


def test_what_was_stalled_is_passed_on_later(
    proxy: TcpProxy, connection: http.client.HTTPConnection
) -> None:
    with proxy.stalling():
        connection.request("GET", "/second")
        assert connection.sock is not None
        connection.sock.settimeout(0.3)
        with pytest.raises(TimeoutError):
            connection.sock.recv(1)
        with pytest.raises(TimeoutError):
            ask(proxy, timeout=0.3)
    connection.sock.settimeout(5)
    assert b"200 OK" in connection.sock.recv(4096)


def test_a_target_that_does_not_run_is_a_reset() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        with (
            TcpProxy(unused.getsockname()[1]) as proxy,
            pytest.raises((ConnectionError, urllib.error.URLError)),
        ):
            ask(proxy)


def test_closing_lets_the_port_go(server: LoopbackServer) -> None:
    with TcpProxy(server.port) as proxy:
        port = proxy.port
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=5)
