"""Both transports, held to the same behaviour against a real socket."""

from __future__ import annotations

import asyncio
import base64
import json
import socket
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from helmops.cluster.aio import AioTransport
from helmops.cluster.kubeconfig import Connection
from helmops.cluster.transport import ConnectionDropped, LightTransport, Transport
from helmops.errors import ClusterUnreachable, UsageError
from tests.fakes.web_server import (
    Answer,
    Asked,
    TestCertificates,
    WebServer,
    make_certificates,
    web_server,
)

Make = Callable[[Connection], Transport]
SECRET = (("Authorization", "Bearer s3cret"), ("Content-Type", "application/json"))


@pytest.fixture(params=[LightTransport, AioTransport])
async def make(request: pytest.FixtureRequest) -> AsyncIterator[Make]:
    made: list[Transport] = []

    def make(connection: Connection) -> Transport:
        made.append(request.param(connection))
        return made[-1]

    yield make
    for transport in made:
        await transport.close()


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> TestCertificates:
    return make_certificates(tmp_path_factory.mktemp("certificates"))


async def test_a_request_carries_headers_and_body(make: Make) -> None:
    with web_server() as server:
        server.routes["/api"] = lambda asked: Answer(201, b"done", {"Retry-After": "3"})
        answer = await make(Connection(server.url)).request(
            "POST", "/api?a=b", SECRET, {"name": "ä"}, 5
        )
    assert (answer.status, answer.body, answer.headers["retry-after"]) == (201, b"done", "3")
    (asked,) = server.asked
    assert asked.path == "/api?a=b"
    assert asked.headers["authorization"] == "Bearer s3cret"
    assert json.loads(asked.body) == {"name": "ä"}


async def test_repeated_headers_are_all_sent(make: Make) -> None:
    seen: list[Any] = []
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        link, _ = listener.accept()
        with link:
            seen.append(link.recv(65536))
            link.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")

    thread = threading.Thread(target=serve)
    thread.start()
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    groups = (("Impersonate-Group", "a"), ("Impersonate-Group", "b"))
    await make(Connection(url)).request("GET", "/", groups, None, 5)
    thread.join()
    listener.close()
    assert seen[0].count(b"Impersonate-Group") == 2


async def test_a_connection_is_used_again(make: Make) -> None:
    with web_server() as server:
        server.routes["/"] = Answer(200, b"{}")
        transport = make(Connection(server.url))
        for _ in range(3):
            await transport.request("GET", "/", (), None, 5)
        assert server.connections == 1


async def test_a_path_of_the_server_is_kept(make: Make) -> None:
    with web_server() as server:
        server.routes["/clusters/one/version"] = Answer(200, b"{}")
        transport = make(Connection(f"{server.url}/clusters/one"))
        assert (await transport.request("GET", "/version", (), None, 5)).status == 200


async def test_nobody_listening_is_unreachable(make: Make) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    with pytest.raises(ClusterUnreachable, match="no answer") as raised:
        await make(Connection(url)).request("GET", "/", SECRET, None, 5)
    assert not isinstance(raised.value, ConnectionDropped)
    assert url in str(raised.value)
    assert "s3cret" not in str(raised.value)


async def test_a_connection_that_breaks_is_told_apart(make: Make) -> None:
    with web_server() as server:
        server.routes["/"] = Answer(raw=lambda wire, stopping: None)
        with pytest.raises(ConnectionDropped) as raised:
            await make(Connection(server.url)).request("POST", "/", SECRET, {}, 5)
    assert not raised.value.was_timeout
    assert "s3cret" not in str(raised.value)


async def test_an_answer_that_ends_early_is_no_answer(make: Make) -> None:
    def half(wire: Any, stopping: threading.Event) -> None:
        wire.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")

    with web_server() as server:
        server.routes["/"] = Answer(raw=half)
        with pytest.raises(ConnectionDropped):
            await make(Connection(server.url)).request("GET", "/", (), None, 5)


async def test_a_server_that_drips_is_cut_off_at_the_deadline(make: Make) -> None:
    def drip(wire: Any, stopping: threading.Event) -> None:
        wire.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n")
        while not stopping.wait(0.02):
            wire.write(b".")
            wire.flush()

    with web_server() as server:
        server.routes["/"] = Answer(raw=drip)
        with pytest.raises(ConnectionDropped) as raised:
            await make(Connection(server.url)).request("GET", "/", (), None, 0.3)
    assert raised.value.was_timeout


async def test_after_a_failure_the_next_request_is_sound(make: Make) -> None:
    answers = iter([Answer(raw=lambda wire, stopping: None), Answer(200, b"{}")])
    with web_server() as server:
        server.routes["/"] = lambda asked: next(answers)
        transport = make(Connection(server.url))
        with pytest.raises(ConnectionDropped):
            await transport.request("POST", "/", (), {}, 5)
        assert (await transport.request("GET", "/", (), None, 5)).status == 200


async def test_client_certificate_and_ca_from_data(
    make: Make, certificates: TestCertificates
) -> None:
    with web_server(certificates.server_context(ask_client=True)) as server:
        server.routes["/"] = Answer(200, b"{}")
        connection = Connection(
            server.url,
            ca_data=certificates.ca,
            certificate_data=certificates.client.encode(),
            key_data=certificates.client_key.encode(),
        )
        assert (await make(connection).request("GET", "/", (), None, 5)).status == 200


async def test_a_certificate_of_another_ca_is_refused_with_a_hint(
    make: Make, certificates: TestCertificates, tmp_path: Path
) -> None:
    other = make_certificates(tmp_path)
    with (
        web_server(certificates.server_context()) as server,
        pytest.raises(ClusterUnreachable, match="certificate-authority"),
    ):
        await make(Connection(server.url, ca_data=other.ca)).request("GET", "/", (), None, 5)


async def test_the_name_in_the_certificate_may_be_another(
    make: Make, certificates: TestCertificates
) -> None:
    with web_server(certificates.server_context()) as server:
        server.routes["/"] = Answer(200, b"{}")
        good = Connection(server.url, ca_data=certificates.ca, tls_server_name="localhost")
        bad = Connection(server.url, ca_data=certificates.ca, tls_server_name="elsewhere")
        assert (await make(good).request("GET", "/", (), None, 5)).status == 200
        with pytest.raises(ClusterUnreachable):
            await make(bad).request("GET", "/", (), None, 5)


async def test_a_stream_comes_as_it_is_sent() -> None:
    def two(wire: Any, stopping: threading.Event) -> None:
        wire.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\none\n\r\n")
        wire.flush()
        stopping.wait(5)

    with web_server() as server:
        server.routes["/"] = Answer(raw=two)
        transport = AioTransport(Connection(server.url))
        async with transport.stream("/", SECRET, 5) as stream:
            assert stream.status == 200
            assert await anext(stream.chunks) == b"one\n"
        await transport.close()


async def test_a_silent_stream_ends_by_itself() -> None:
    def silent(wire: Any, stopping: threading.Event) -> None:
        wire.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        wire.flush()
        stopping.wait(5)

    with web_server() as server:
        server.routes["/"] = Answer(raw=silent)
        transport = AioTransport(Connection(server.url))
        async with transport.stream("/", (), 0.1) as stream:
            assert [chunk async for chunk in stream.chunks] == []
        await transport.close()


async def test_a_stream_that_breaks_says_so() -> None:
    def half(wire: Any, stopping: threading.Event) -> None:
        wire.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\none\n\r\n")

    with web_server() as server:
        server.routes["/"] = Answer(raw=half)
        transport = AioTransport(Connection(server.url))
        async with transport.stream("/", (), 5) as stream:
            with pytest.raises(ConnectionDropped):
                async for _ in stream.chunks:
                    pass
        await transport.close()


async def test_a_cancelled_request_ends_at_once() -> None:
    asked = asyncio.Event()
    loop = asyncio.get_running_loop()

    def hang(request: Asked) -> Answer:
        loop.call_soon_threadsafe(asked.set)
        return Answer(raw=lambda wire, stopping: stopping.wait(5) and None)

    with WebServer() as server:
        server.routes["/"] = hang
        transport = AioTransport(Connection(server.url))
        task = asyncio.create_task(transport.request("GET", "/", (), None, 60))
        await asked.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await transport.close()


async def test_netrc_and_proxies_of_others_are_not_used(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login me password s3cret\n")
    monkeypatch.setenv("NETRC", str(netrc))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    with web_server() as server:
        server.routes["/"] = Answer(200, b"{}")
        transport = AioTransport(Connection(server.url))
        await transport.request("GET", "/", (), None, 5)
        await transport.close()
    assert "authorization" not in server.asked[0].headers


async def test_a_proxy_is_used_where_the_kubeconfig_names_one() -> None:
    with web_server() as proxy:
        target = "http://cluster.invalid:6443"
        transport = AioTransport(Connection(target, proxy=proxy.url))
        await transport.request("GET", "/version", (), None, 5)
        await transport.close()
    assert proxy.paths == [f"{target}/version"]


def test_a_key_without_its_certificate_is_refused() -> None:
    key = base64.b64encode(b"key")
    with pytest.raises(UsageError, match="client-key-data needs"):
        Connection("https://x", certificate_file="/nonexistent", key_data=key).tls_context()
