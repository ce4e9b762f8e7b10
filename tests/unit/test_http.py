"""helmops/http.py, against mocks for words and against loopback sockets for time and size."""

from __future__ import annotations

import asyncio
import gzip
import os
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import requests
import responses

from helmops.errors import (
    SourceDenied,
    SourceError,
    SourceInvalid,
    SourceMissing,
    SourceUnavailable,
)
from helmops.http import Http, same_origin, shown_url
from helmops.model.credentials import HttpCredentials
from tests.fakes.web_server import (
    Answer,
    Asked,
    TestCertificates,
    WebServer,
    make_certificates,
    web_server,
)

LOGIN = HttpCredentials(username="ann", password="s3cret-Pässword")
BASIC = "Basic YW5uOnMzY3JldC1Qw6Rzc3dvcmQ="
SHORT = timedelta(seconds=0.5)


@pytest.fixture
async def http() -> AsyncIterator[Http]:
    async with Http() as one:
        yield one


@pytest.fixture
def server() -> Iterator[WebServer]:
    with web_server() as one:
        yield one


@pytest.fixture
def other() -> Iterator[WebServer]:
    with web_server() as one:
        yield one


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> TestCertificates:
    return make_certificates(tmp_path_factory.mktemp("tls"))


async def eventually(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not holds():  # noqa: ASYNC110 - what is waited for happens in threads
            await asyncio.sleep(0.01)


def redirect(to: str, status: int = 302) -> Answer:
    return Answer(status, headers={"Location": to})


# What is shown.


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://u:p@h.example/a/index.yaml", "https://h.example/a/index.yaml"),
        ("https://h/x?token=abc&v=1", "https://h/x?token=***&v=***"),
        ("https://h/x?justasecret", "https://h/x?justasecret=***"),
        ("https://h/x#secret", "https://h/x"),
        ("http://[::1]:8080/x", "http://[::1]:8080/x"),
        ("http://h:port/x", "(an URL that cannot be read)"),
    ],
)
def test_a_shown_url_holds_no_user_password_or_query_value(url: str, shown: str) -> None:
    assert shown_url(url) == shown


def test_origins_are_equal_with_and_without_their_default_port() -> None:
    assert same_origin("https://H.example/a", "https://h.example:443/b")
    assert not same_origin("https://h.example/a", "http://h.example/a")
    assert not same_origin("https://h.example/a", "https://h.example:444/a")


# Statuses.


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (401, SourceDenied),
        (403, SourceDenied),
        (407, SourceDenied),
        (404, SourceMissing),
        (410, SourceMissing),
        (429, SourceUnavailable),
        (500, SourceUnavailable),
        (503, SourceUnavailable),
        (418, SourceUnavailable),
        (302, SourceUnavailable),
    ],
)
@responses.activate
async def test_each_status_has_its_error_and_none_shows_the_secret_parts_of_the_url(
    http: Http, status: int, kind: type[SourceError]
) -> None:
    responses.get("https://charts.example/index.yaml", status=status)
    with pytest.raises(kind) as caught:
        await http.get("https://ann:s3cret@charts.example/index.yaml?token=s3cret")
    assert type(caught.value) is kind
    assert "s3cret" not in str(caught.value)
    assert str(status) in str(caught.value)
    assert "https://charts.example/index.yaml" in str(caught.value)


@pytest.mark.parametrize("status", [200, 204, 304])
@responses.activate
async def test_success_and_not_modified_are_answers(http: Http, status: int) -> None:
    responses.get("https://charts.example/", status=status, headers={"ETag": '"1"'})
    response = await http.get("https://charts.example/")
    assert (response.status, response.headers["etag"]) == (status, '"1"')


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"Retry-After": "17"}, 17.0),
        ({"Retry-After": "99999999999999999999"}, 3600.0),
        (
            {
                "Retry-After": "Fri, 31 Dec 1999 23:59:59 GMT",
                "Date": "Fri, 31 Dec 1999 23:59:29 GMT",
            },
            30.0,
        ),
        (
            {
                "Retry-After": "Fri, 31 Dec 1999 23:59:59 GMT",
                "Date": "Sat, 01 Jan 2000 23:59:29 GMT",
            },
            0.0,
        ),
        ({"Retry-After": "soon"}, None),
        ({"Retry-After": "-5"}, None),
        ({}, None),
    ],
)
@responses.activate
async def test_retry_after_is_passed_on_in_seconds(
    http: Http, headers: dict[str, str], seconds: float | None
) -> None:
    responses.get("https://charts.example/", status=429, headers=headers)
    with pytest.raises(SourceUnavailable) as caught:
        await http.get("https://charts.example/")
    assert caught.value.retry_after == seconds


@responses.activate
async def test_request_gives_every_status_back_as_an_answer(http: Http) -> None:
    responses.post("https://hooks.example/", status=503, body="try later")
    response = await http.request("POST", "https://hooks.example/", body=b"{}")
    assert (response.status, response.text) == (503, "try later")


@pytest.mark.parametrize(
    "url", ["ftp://h/x", "file:///etc/passwd", "charts", "http://", "http://h:x/"]
)
async def test_what_is_no_web_address_is_refused_before_anything_is_sent(
    http: Http, url: str
) -> None:
    with pytest.raises(SourceInvalid, match="not a URL"):
        await http.get(url)


@responses.activate
async def test_texts_of_the_libraries_below_are_not_passed_on(http: Http) -> None:
    secret = requests.ConnectionError("Max retries exceeded with url: /index.yaml?token=s3cret")
    responses.get("https://charts.example/index.yaml", body=secret)
    with pytest.raises(SourceUnavailable) as caught:
        await http.get("https://charts.example/index.yaml?token=s3cret")
    assert "s3cret" not in str(caught.value)
    assert caught.value.__suppress_context__


# Credentials.


@responses.activate
async def test_user_and_password_go_as_utf8_and_a_token_goes_first(http: Http) -> None:
    responses.get("https://charts.example/")
    await http.get("https://charts.example/", credentials=LOGIN)
    token = HttpCredentials(username="ann", bearer_token="tok\n")
    await http.get("https://charts.example/", credentials=token)
    await http.get("https://ann:p%40ss@charts.example/")
    sent = [call.request.headers.get("Authorization") for call in responses.calls]
    assert sent == [BASIC, "Bearer tok", "Basic YW5uOnBAc3M="]


@responses.activate
async def test_netrc_and_cookies_are_not_used(
    http: Http, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine charts.example login ann password s3cret\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    responses.get("https://charts.example/", headers={"Set-Cookie": "session=1"})
    for _ in range(2):
        await http.get("https://charts.example/")
    for call in responses.calls:
        assert "Authorization" not in call.request.headers
        assert "Cookie" not in call.request.headers


async def test_a_redirect_within_the_origin_keeps_the_credentials(
    http: Http, server: WebServer
) -> None:
    server.routes = {"/a": redirect("/b"), "/b": Answer(body=b"here")}
    response = await http.get(f"{server.url}/a", credentials=LOGIN)
    assert response.body == b"here"
    assert response.url == f"{server.url}/b"
    assert [asked.headers.get("authorization") for asked in server.asked] == [BASIC, BASIC]


async def test_a_user_named_in_the_url_survives_a_redirect_within_the_origin(
    http: Http, server: WebServer
) -> None:
    server.routes = {"/a": redirect("/b"), "/b": Answer()}
    await http.get(server.url.replace("//", "//ann:pw@") + "/a")
    assert [asked.headers.get("authorization") for asked in server.asked] == ["Basic YW5uOnB3"] * 2


async def test_a_redirect_to_another_port_gets_no_credentials_and_a_401_says_so(
    http: Http, server: WebServer, other: WebServer
) -> None:
    server.routes = {"/a": redirect(f"{other.url}/b")}
    other.routes = {"/b": Answer(401)}
    with pytest.raises(SourceDenied, match="passCredentials"):
        await http.get(f"{server.url}/a", credentials=LOGIN)
    assert "authorization" not in other.asked[0].headers


async def test_a_user_named_in_a_redirect_is_not_believed(
    http: Http, server: WebServer, other: WebServer
) -> None:
    server.routes = {"/a": redirect(other.url.replace("//", "//eve:pw@") + "/b")}
    other.routes = {"/b": Answer()}
    await http.get(f"{server.url}/a")
    assert "authorization" not in other.asked[0].headers


async def test_pass_credentials_sends_them_along(
    http: Http, server: WebServer, other: WebServer
) -> None:
    server.routes = {"/a": redirect(f"{other.url}/b")}
    other.routes = {"/b": Answer()}
    await http.get(f"{server.url}/a", credentials=LOGIN, pass_credentials=True)
    assert other.asked[0].headers["authorization"] == BASIC


async def test_what_an_index_names_elsewhere_gets_no_credentials(
    http: Http, server: WebServer
) -> None:
    server.routes = {"/chart.tgz": Answer()}
    await http.get(
        f"{server.url}/chart.tgz", credentials=LOGIN, credentials_for="https://charts.example/"
    )
    assert "authorization" not in server.asked[0].headers


async def test_credentials_never_go_from_https_to_http_and_do_not_come_back_with_it(
    http: Http, server: WebServer, certificates: TestCertificates
) -> None:
    login = HttpCredentials(username="ann", password="x", ca=certificates.ca)
    with web_server(certificates.server_context()) as secure:
        secure.routes = {"/a": redirect(f"{server.url}/b"), "/c": Answer()}
        server.routes = {"/b": redirect(f"{secure.url}/c")}
        await http.get(f"{secure.url}/a", credentials=login, pass_credentials=True)
    assert "authorization" in secure.asked[0].headers
    assert "authorization" not in server.asked[0].headers
    assert "authorization" not in secure.asked[1].headers


# Redirects.


async def test_a_circle_of_redirects_ends(http: Http, server: WebServer) -> None:
    server.routes = {"/a": redirect("/a")}
    with pytest.raises(SourceUnavailable, match="more than 10 redirects"):
        await http.get(f"{server.url}/a")
    assert len(server.asked) == 11


@pytest.mark.parametrize("to", ["file:///etc/passwd", "ftp://h/x", "http://h:x/"])
async def test_a_redirect_out_of_the_web_is_refused(http: Http, server: WebServer, to: str) -> None:
    server.routes = {"/a": redirect(to)}
    with pytest.raises(SourceInvalid, match="no URL of the web"):
        await http.get(f"{server.url}/a")


@pytest.mark.parametrize(
    "host", ["169.254.169.254", "[fe80::1]", "[::ffff:169.254.169.254]", "169.254.169.254:80"]
)
async def test_a_redirect_to_a_link_local_address_is_refused(
    http: Http, server: WebServer, host: str
) -> None:
    server.routes = {"/a": redirect(f"http://{host}/latest/meta-data")}
    with pytest.raises(SourceDenied, match="link-local"):
        await http.get(f"{server.url}/a", credentials=LOGIN, pass_credentials=True)


async def test_what_a_server_named_is_not_asked_at_a_link_local_address(http: Http) -> None:
    for url in ("http://169.254.169.254/token", "http://[fe80::1]/token"):
        with pytest.raises(SourceDenied, match="link-local"):
            await http.request("GET", url, credentials=LOGIN, named_by_server=True, timeout=SHORT)


async def test_what_a_server_named_gets_the_credentials_that_are_meant_for_it(
    http: Http, server: WebServer
) -> None:
    server.routes = {"/token": Answer(body=b"{}")}
    url = f"{server.url}/token"
    await http.request("GET", url, credentials=LOGIN, named_by_server=True)
    assert server.asked[0].headers["authorization"] == BASIC


async def test_a_name_that_leads_to_a_link_local_address_is_refused_when_connected(
    http: Http, server: WebServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("helmops.http._is_link_local", lambda host: host == "127.0.0.1")
    server.routes = {"/": Answer()}
    with pytest.raises(SourceDenied, match="link-local"):
        await http.get(f"http://localhost:{server.port}/", credentials_for="https://charts.example")
    assert server.asked == []


async def test_a_post_is_not_turned_into_a_get(http: Http, server: WebServer) -> None:
    server.routes = {"/a": redirect("/c", 302), "/b": redirect("/c", 307), "/c": Answer()}
    first = await http.request("POST", f"{server.url}/a", body=b"x")
    second = await http.request("POST", f"{server.url}/b", body=b"x")
    assert (first.status, second.status) == (302, 200)
    assert [(asked.method, asked.path) for asked in server.asked] == [
        ("POST", "/a"),
        ("POST", "/b"),
        ("POST", "/c"),
    ]
    assert server.asked[2].body == b"x"


async def test_without_redirects_a_redirect_is_an_answer(http: Http, server: WebServer) -> None:
    server.routes = {"/a": redirect("/b")}
    response = await http.request("GET", f"{server.url}/a", redirects=0)
    assert (response.status, response.headers["location"]) == (302, "/b")


# Time.


def dripping(head: bytes, drop: bytes) -> Answer:
    def raw(out: Any, stopping: threading.Event) -> None:
        out.write(head)
        while not stopping.wait(0.05):
            out.write(drop)
            out.flush()

    return Answer(raw=raw)


@pytest.mark.parametrize(
    "answer",
    [
        dripping(b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n", b"x"),
        dripping(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n"),
        dripping(b"HTTP/1.1 200 OK\r\nX-Endless: ", b"x"),
        dripping(b"", b""),
    ],
    ids=["body", "chunks", "headers", "silence"],
)
async def test_a_server_that_drips_is_cut_off_at_the_deadline(
    server: WebServer, answer: Answer
) -> None:
    http = Http(read_timeout=timedelta(seconds=30))
    server.routes = {"/": answer}
    began = time.monotonic()
    with pytest.raises(SourceUnavailable, match=r"within 0\.5 s"):
        await http.get(f"{server.url}/", timeout=SHORT)
    await http.close()
    http._pool.shutdown(wait=True)  # returns only because the thread was woken
    assert time.monotonic() - began < 10


async def test_a_tls_handshake_that_never_ends_is_cut_off(server: WebServer) -> None:
    listener = threading.Event()
    async with Http(connect_timeout=timedelta(seconds=30)) as http:

        async def swallow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read()
            listener.set()
            writer.close()

        silent = await asyncio.start_server(swallow, "127.0.0.1", 0)
        port = silent.sockets[0].getsockname()[1]
        with pytest.raises(SourceUnavailable, match="no complete answer"):
            await http.get(f"https://127.0.0.1:{port}/", timeout=SHORT)
        await eventually(listener.is_set)
        silent.close()


async def test_a_cancelled_call_ends_its_exchange(http: Http, server: WebServer) -> None:
    server.routes = {"/": dripping(b"", b"")}
    call = asyncio.create_task(http.get(f"{server.url}/"))
    await eventually(lambda: bool(server.asked))
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    await eventually(lambda: not http._origins)  # its thread gave its slot back


async def test_closing_ends_what_still_runs(server: WebServer) -> None:
    http = Http()
    server.routes = {"/": dripping(b"", b"")}
    call = asyncio.create_task(http.get(f"{server.url}/"))
    await eventually(lambda: bool(server.asked))
    await http.close()
    with pytest.raises(SourceUnavailable):
        await call
    with pytest.raises(SourceUnavailable, match="stopping"):
        await http.get(f"{server.url}/")
    await asyncio.to_thread(http._pool.shutdown, wait=True)


async def test_a_hanging_host_takes_only_its_own_slots(server: WebServer, other: WebServer) -> None:
    server.routes = {"/": dripping(b"", b"")}
    other.routes = {"/": Answer(body=b"fine")}
    async with Http(workers=3, per_origin=2) as http:
        hanging = [asyncio.create_task(http.get(f"{server.url}/")) for _ in range(5)]
        await eventually(lambda: len(server.asked) == 2)
        assert (await http.get(f"{other.url}/")).body == b"fine"
        assert len(server.asked) == 2
        for one in hanging:
            one.cancel()
        await asyncio.gather(*hanging, return_exceptions=True)


async def test_silence_between_two_pieces_has_its_own_limit(server: WebServer) -> None:
    server.routes = {"/": dripping(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nx", b"")}
    async with Http(read_timeout=timedelta(seconds=0.2)) as http:
        with pytest.raises(SourceUnavailable, match=r"silent for 0\.2 s"):
            await http.get(f"{server.url}/")


async def test_nobody_listening_is_said(http: Http) -> None:
    with web_server() as gone:
        pass
    with pytest.raises(SourceUnavailable, match="refused"):
        await http.get(f"{gone.url}/")


async def test_an_unknown_host_is_said(http: Http, monkeypatch: pytest.MonkeyPatch) -> None:
    import socket

    def unknown(*args: object, **kwargs: object) -> None:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(SourceUnavailable, match=r"host name nowhere\.example is not known"):
        await http.get("http://nowhere.example/")


# Size and completeness.


async def test_a_body_over_the_limit_is_refused_while_it_arrives(
    http: Http, server: WebServer
) -> None:
    server.routes = {"/": dripping(b"HTTP/1.1 200 OK\r\n\r\n", b"x" * 100_000)}
    with pytest.raises(SourceInvalid, match="limit of 1 MiB"):
        await http.get(f"{server.url}/", limit=2**20)


async def test_a_packed_bomb_is_counted_unpacked(http: Http, server: WebServer) -> None:
    bomb = gzip.compress(bytes(64 * 2**20), 9)
    server.routes = {"/": Answer(body=bomb, headers={"Content-Encoding": "gzip"})}
    with pytest.raises(SourceInvalid, match="limit of 1 MiB"):
        await http.get(f"{server.url}/", limit=2**20)


async def test_a_packed_body_is_unpacked(http: Http, server: WebServer) -> None:
    body = gzip.compress(b"entries: {}")
    server.routes = {"/": Answer(body=body, headers={"Content-Encoding": "gzip"})}
    assert (await http.get(f"{server.url}/")).body == b"entries: {}"
    assert server.asked[0].headers["accept-encoding"] == "gzip"


async def test_a_damaged_packed_body_is_invalid(http: Http, server: WebServer) -> None:
    server.routes = {"/": Answer(body=b"not gzip", headers={"Content-Encoding": "gzip"})}
    with pytest.raises(SourceInvalid, match="unpacked"):
        await http.get(f"{server.url}/")


@pytest.mark.parametrize(
    "sent",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhalf",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",
    ],
)
async def test_a_body_that_breaks_off_is_not_taken_for_whole(
    http: Http, server: WebServer, sent: bytes
) -> None:
    server.routes = {"/": Answer(raw=lambda out, _: out.write(sent))}
    with pytest.raises(SourceUnavailable, match="broken off"):
        await http.get(f"{server.url}/")


async def test_what_is_not_http_is_said(http: Http, server: WebServer) -> None:
    server.routes = {"/": Answer(raw=lambda out, _: out.write(b"SSH-2.0-OpenSSH_9.2\r\n"))}
    with pytest.raises(SourceUnavailable, match="not HTTP"):
        await http.get(f"{server.url}/")


async def test_a_sink_takes_a_good_body_and_no_other(http: Http, server: WebServer) -> None:
    server.routes = {"/good": Answer(body=b"good"), "/bad": Answer(404, body=b"bad")}
    pieces: list[bytes] = []
    response = await http.get(f"{server.url}/good", sink=pieces.append)
    with pytest.raises(SourceMissing):
        await http.get(f"{server.url}/bad", sink=pieces.append)
    assert (b"".join(pieces), response.body) == (b"good", b"")


async def test_an_error_of_the_sink_is_the_callers(http: Http, server: WebServer) -> None:
    server.routes = {"/": Answer(body=b"x")}

    def full(piece: bytes) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        await http.get(f"{server.url}/", sink=full)


# Connections.


async def test_connections_are_kept(http: Http, server: WebServer) -> None:
    server.routes = {"/": Answer(body=b"x")}
    for _ in range(5):
        await http.get(f"{server.url}/")
    assert server.connections == 1


async def test_a_kept_connection_that_was_dropped_is_tried_once_more(
    http: Http, server: WebServer
) -> None:
    def drop_second(asked: Asked) -> Answer:
        second = len(server.asked) == 2
        return Answer(raw=lambda out, _: None) if second else Answer(body=b"x")

    server.routes = {"/": drop_second}
    await http.get(f"{server.url}/")
    assert (await http.get(f"{server.url}/")).body == b"x"
    assert len(server.asked) == 3


async def test_a_new_connection_that_is_dropped_is_an_error_and_not_tried_again(
    http: Http, server: WebServer
) -> None:
    server.routes = {"/": Answer(raw=lambda out, _: None)}
    with pytest.raises(SourceUnavailable, match="dropped"):
        await http.get(f"{server.url}/")
    assert len(server.asked) == 1


async def test_a_post_on_a_dropped_connection_is_not_sent_twice(
    http: Http, server: WebServer
) -> None:
    server.routes = {"/": Answer(body=b"x"), "/hook": Answer(raw=lambda out, _: None)}
    await http.get(f"{server.url}/")
    with pytest.raises(SourceUnavailable):
        await http.request("POST", f"{server.url}/hook", body=b"{}")
    assert server.paths == ["/", "/hook"]


async def test_a_proxy_of_one_s_own_goes_before_the_environment_s(
    http: Http, server: WebServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.setenv("no_proxy", "charts.example")
    server.routes = {"http://charts.example/index.yaml": Answer(body=b"by proxy")}
    proxy = server.url.replace("http://", "http://ann:pr0xy@")
    mine = HttpCredentials(proxy=proxy)
    response = await http.get("http://charts.example/index.yaml", credentials=mine)
    assert response.body == b"by proxy"
    assert server.asked[0].headers["proxy-authorization"].startswith("Basic ")
    dead = HttpCredentials(proxy="http://ann:pr0xy@127.0.0.1:1")
    with pytest.raises(SourceUnavailable, match="proxySecretRef") as raised:
        await http.get("http://charts.example/index.yaml", credentials=dead)
    assert "pr0xy" not in str(raised.value)


async def test_a_proxy_comes_from_the_environment(
    http: Http, server: WebServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", server.url)
    monkeypatch.setenv("no_proxy", "direct.example")
    server.routes = {"http://charts.example/index.yaml": Answer(body=b"by proxy")}
    response = await http.get("http://charts.example/index.yaml")
    assert response.body == b"by proxy"


async def test_our_name_is_sent(http: Http, server: WebServer) -> None:
    server.routes = {"/": Answer()}
    await http.get(f"{server.url}/")
    assert server.asked[0].headers["user-agent"].startswith("helmops/")


# TLS.


async def test_an_unknown_ca_is_refused_and_the_own_ca_is_taken(
    http: Http, certificates: TestCertificates
) -> None:
    with web_server(certificates.server_context()) as secure:
        secure.routes = {"/": Answer(body=b"ok")}
        with pytest.raises(SourceDenied, match="certificate is refused") as caught:
            await http.get(f"{secure.url}/")
        assert "ca.crt" in caught.value.next_step
        own = HttpCredentials(ca=certificates.ca)
        assert (await http.get(f"{secure.url}/", credentials=own)).body == b"ok"
        assert (await http.request("GET", f"{secure.url}/", verify=False)).body == b"ok"


async def test_a_certificate_for_another_name_is_refused(
    http: Http, certificates: TestCertificates
) -> None:
    own = HttpCredentials(ca=certificates.ca)
    with (
        WebServer(certificates.server_context(), host="127.0.0.2") as secure,
        pytest.raises(SourceDenied, match="certificate is refused"),
    ):
        await http.get(f"{secure.url}/", credentials=own)


async def test_a_client_certificate_goes_where_credentials_go(
    http: Http, certificates: TestCertificates, server: WebServer
) -> None:
    own = HttpCredentials(
        ca=certificates.ca, certificate=certificates.client, key=certificates.client_key
    )
    with web_server(certificates.server_context(ask_client=True)) as secure:
        secure.routes = {"/": Answer(body=b"ok")}
        assert (await http.get(f"{secure.url}/", credentials=own)).body == b"ok"
        with pytest.raises(SourceError):
            await http.get(f"{secure.url}/", credentials=HttpCredentials(ca=certificates.ca))
        server.routes = {"/": redirect(f"{secure.url}/")}
        with pytest.raises(SourceError):
            await http.get(f"{server.url}/", credentials=own)


async def test_no_authority_is_read_for_plain_http(
    http: Http, server: WebServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr("ssl.create_default_context")
    server.routes = {"/": Answer(body=b"ok")}
    assert (await http.get(f"{server.url}/")).body == b"ok"


@pytest.mark.parametrize("name", ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"])
async def test_a_bundle_of_the_environment_counts_beside_the_system_s(
    http: Http,
    certificates: TestCertificates,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
) -> None:
    (tmp_path / "ca.pem").write_text(certificates.ca)
    monkeypatch.delenv("REQUESTS_CA_BUNDLE", raising=False)
    monkeypatch.setenv(name, str(tmp_path / "ca.pem"))
    with web_server(certificates.server_context()) as secure:
        secure.routes = {"/": Answer(body=b"ok")}
        assert (await http.get(f"{secure.url}/")).body == b"ok"


async def test_plain_http_behind_https_is_said(http: Http, server: WebServer) -> None:
    with pytest.raises(SourceUnavailable, match="TLS connection failed"):
        await http.get(f"https://127.0.0.1:{server.port}/")


@pytest.mark.parametrize(
    "credentials",
    [
        HttpCredentials(ca="no PEM"),
        HttpCredentials(certificate="no PEM", key="nor this"),
        HttpCredentials(certificate="only half"),
    ],
)
async def test_pem_that_is_none_is_said_without_showing_it(
    http: Http, credentials: HttpCredentials
) -> None:
    with pytest.raises(SourceDenied, match=r"cannot be (read|used)") as caught:
        await http.get("https://127.0.0.1:1/", credentials=credentials)
    assert "PEM" in caught.value.next_step
    assert "only half" not in str(caught.value)


async def test_a_key_leaves_no_file_behind(
    http: Http,
    certificates: TestCertificates,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    own = HttpCredentials(certificate=certificates.client, key=certificates.client_key)
    with pytest.raises(SourceUnavailable):
        await http.get("https://127.0.0.1:1/", credentials=own)
    assert os.listdir(tmp_path) == []
