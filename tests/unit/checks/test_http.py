"""The HTTP check, against a real server on loopback."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from helmops.checks.http import HttpProbe
from helmops.http import Http
from helmops.model.credentials import HttpCredentials
from helmops.model.declarations import HttpCheck
from helmops.model.releases import ReleaseId
from tests.fakes.web_server import (
    Answer,
    TestCertificates,
    WebServer,
    make_certificates,
    web_server,
)

WEB = ReleaseId("shop", "web")
NOBODY = HttpCredentials()
LOGIN = HttpCredentials(username="me", password="hunter2")


@pytest.fixture
async def http() -> AsyncIterator[Http]:
    async with Http(workers=2) as one:
        yield one


@pytest.fixture
def server() -> Iterator[WebServer]:
    with web_server() as one:
        yield one


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> TestCertificates:
    return make_certificates(Path(tmp_path_factory.mktemp("tls")))


def check(url: str, **fields: Any) -> HttpCheck:
    return HttpCheck.model_validate({"url": url, "timeout": "5s"} | fields)


def ok(document: object, **headers: str) -> Answer:
    return Answer(200, json.dumps(document).encode(), headers)


async def ask(
    http: Http, declared: HttpCheck, credentials: HttpCredentials = NOBODY
) -> tuple[bool, str]:
    outcome = await HttpProbe(http, declared, WEB, credentials)()
    return outcome.passed, outcome.message


EXPECTATIONS = [
    pytest.param(Answer(200), {}, True, "200 OK", id="200 is expected unless said otherwise"),
    pytest.param(
        Answer(503, b"no\n database"),
        {},
        False,
        "503 Service Unavailable, expected 200 (body: no database)",
        id="another status, with what the server said",
    ),
    pytest.param(Answer(204), {"status": [200, 204]}, True, "204 No Content", id="one of several"),
    pytest.param(
        Answer(404), {"status": [200, 204]}, False, "expected 200 or 204", id="none of several"
    ),
    pytest.param(
        Answer(200, b"version 1.2.3"), {"body": r"1\.2\.\d"}, True, "200 OK", id="body found"
    ),
    pytest.param(
        Answer(200, b"version 1.3.0"),
        {"body": r"1\.2\.\d"},
        False,
        r"the body does not match /1\.2\.\d/ (body: version 1.3.0)",
        id="body not found",
    ),
    pytest.param(
        Answer(200, b"", {"X-Version": "1.2.3"}),
        {"headers": {"x-version": "^1[.]2"}},
        True,
        "200 OK",
        id="header found",
    ),
    pytest.param(
        Answer(200, b"", {"X-Version": "1.3.0"}),
        {"headers": {"X-Version": "^1[.]2"}},
        False,
        "the header X-Version does not match /^1[.]2/",
        id="header differs",
    ),
    pytest.param(
        Answer(200),
        {"headers": {"X-Version": "."}},
        False,
        "the header X-Version is missing",
        id="header missing",
    ),
    pytest.param(
        ok({"status": {"ok": True, "items": [{"n": 1}]}}),
        {
            "jsonPath": [
                {"path": "{.status.ok}", "equals": True},
                {"path": "{.status.items[0].n}", "equals": 1},
            ]
        },
        True,
        "200 OK",
        id="JSON holds",
    ),
    pytest.param(
        ok({"status": {"ok": 1}}),
        {"jsonPath": [{"path": "{.status.ok}", "equals": True}]},
        False,
        "{.status.ok} is 1, expected true",
        id="JSON holds something else, and 1 is not true",
    ),
    pytest.param(
        ok({"status": {}}),
        {"jsonPath": [{"path": "{.status.ok}", "equals": True}]},
        False,
        "the body has nothing at .status.ok",
        id="JSON without the place",
    ),
    pytest.param(
        Answer(200, b"<html>"),
        {"jsonPath": [{"path": "{.ok}", "equals": True}]},
        False,
        "the body is not JSON (body: <html>)",
        id="no JSON",
    ),
    pytest.param(
        Answer(200, b"[" * 100_000),
        {"jsonPath": [{"path": "{.ok}", "equals": True}]},
        False,
        "the body is not JSON",
        id="JSON that is too deep",
    ),
    pytest.param(
        Answer(500, b"oops"),
        {"body": "fine", "headers": {"X": "."}},
        False,
        "expected 200; the header X is missing; the body does not match /fine/ (body: oops)",
        id="all that is wrong is told",
    ),
    pytest.param(
        Answer(500, b"x" * 1000),
        {},
        False,
        "(body: " + "x" * 200 + "…)",
        id="a long body is cut",
    ),
    pytest.param(
        Answer(200, b"a" * 3_000_000),
        {"body": "^a"},
        True,
        "200 OK",
        id="only the first megabyte of a body is looked at",
    ),
]


@pytest.mark.parametrize(("answer", "expect", "passed", "told"), EXPECTATIONS)
async def test_an_answer(
    http: Http,
    server: WebServer,
    answer: Answer,
    expect: dict[str, Any],
    passed: bool,
    told: str,
) -> None:
    server.routes["/healthz"] = answer

    result, message = await ask(http, check(f"{server.url}/healthz", expect=expect))

    assert result is passed
    assert told in message
    assert message.startswith(f"GET {server.url}/healthz: ")


async def test_the_url_may_name_release_and_namespace(http: Http, server: WebServer) -> None:
    server.routes["/shop/web"] = Answer()

    assert await ask(http, check(f"{server.url}/{{namespace}}/{{release}}")) == (
        True,
        f"GET {server.url}/shop/web: 200 OK",
    )


async def test_method_headers_and_body_are_sent(http: Http, server: WebServer) -> None:
    server.routes["/"] = Answer()

    await ask(http, check(f"{server.url}/", method="POST", body="hi", headers={"X-A": "b"}), LOGIN)

    asked = server.asked[0]
    assert (asked.method, asked.body, asked.headers["x-a"]) == ("POST", b"hi", "b")
    assert base64.b64decode(asked.headers["authorization"].removeprefix("Basic ")) == b"me:hunter2"


async def test_redirects_are_followed_unless_one_is_expected(http: Http, server: WebServer) -> None:
    server.routes["/"] = Answer(302, b"", {"Location": "/login"})
    server.routes["/login"] = Answer(200)

    assert (await ask(http, check(f"{server.url}/")))[0]
    assert (await ask(http, check(f"{server.url}/", expect={"status": [302]})))[0]


@pytest.mark.parametrize(
    ("credentials", "headers", "leak"),
    [
        (LOGIN, {}, "your password is hunter2"),
        (HttpCredentials(bearer_token="tok-12345"), {}, "you sent tok-12345"),
        (LOGIN, {}, f"got {base64.b64encode(b'me:hunter2').decode()}"),
        (NOBODY, {"X-Key": "key-of-mine"}, "unknown key-of-mine"),
    ],
)
async def test_a_body_that_repeats_a_credential_is_not_shown(
    http: Http,
    server: WebServer,
    credentials: HttpCredentials,
    headers: dict[str, str],
    leak: str,
) -> None:
    server.routes["/"] = Answer(401, leak.encode())

    passed, message = await ask(http, check(f"{server.url}/", headers=headers), credentials)

    assert not passed
    assert "(the body is not shown, it repeats a credential)" in message
    assert leak.split()[-1] not in message


async def test_a_json_value_that_repeats_a_credential_is_not_shown(
    http: Http, server: WebServer
) -> None:
    server.routes["/"] = ok({"echo": "hunter2"})
    declared = check(f"{server.url}/", expect={"jsonPath": [{"path": ".echo", "equals": "x"}]})

    _, message = await ask(http, declared, LOGIN)

    assert '.echo is another value, expected "x"' in message
    assert "hunter2" not in message


async def test_secrets_in_the_url_are_not_shown(http: Http, server: WebServer) -> None:
    address = server.url.replace("://", "://me:hunter2@")

    for url in (f"{address}/?key=s3cr3t", "http://127.0.0.1:1/?key=s3cr3t"):
        passed, message = await ask(http, check(url))

        assert not passed
        assert "hunter2" not in message
        assert "s3cr3t" not in message


async def test_no_answer_is_a_failure(http: Http) -> None:
    assert await ask(http, check("http://127.0.0.1:1/x")) == (
        False,
        "GET http://127.0.0.1:1/x: the connection is refused",
    )


async def test_one_request_is_made_per_try(http: Http, server: WebServer) -> None:
    server.routes["/"] = Answer(503)

    await ask(http, check(f"{server.url}/"))

    assert len(server.asked) == 1


async def test_a_certificate_of_nobody_is_refused(
    http: Http, certificates: TestCertificates
) -> None:
    with web_server(certificates.server_context()) as server:
        server.routes["/"] = Answer()

        passed, message = await ask(http, check(f"{server.url}/"))

    assert not passed
    assert "certificate is refused" in message


async def test_a_certificate_of_a_known_authority_is_taken(
    http: Http, certificates: TestCertificates
) -> None:
    with web_server(certificates.server_context()) as server:
        server.routes["/"] = Answer()

        assert (await ask(http, check(f"{server.url}/"), HttpCredentials(ca=certificates.ca)))[0]


async def test_any_certificate_is_taken_where_told_so(
    http: Http, certificates: TestCertificates
) -> None:
    with web_server(certificates.server_context()) as server:
        server.routes["/"] = Answer()
        declared = check(f"{server.url}/", tls={"insecureSkipVerify": True})

        assert (await ask(http, declared))[0]


@pytest.mark.parametrize(("name", "passed"), [("localhost", True), ("shop.example.com", False)])
async def test_the_certificate_must_be_for_the_name_that_was_given(
    http: Http, certificates: TestCertificates, name: str, passed: bool
) -> None:
    with web_server(certificates.server_context()) as server:
        server.routes["/"] = Answer()
        declared = check(f"{server.url}/", tls={"serverName": name})

        result, message = await ask(http, declared, HttpCredentials(ca=certificates.ca))

    assert result is passed, message
