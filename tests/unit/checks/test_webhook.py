"""Webhooks as remediation hooks, against a real server on loopback."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from helmops.checks.webhook import render_body, send_webhook
from helmops.http import Http
from helmops.model.credentials import HttpCredentials
from helmops.model.declarations import RemediationHook
from helmops.model.hooks import HookResult
from tests.fakes.web_server import Answer, WebServer, web_server

FACTS = {"release": "web", "namespace": "shop", "reason": 'it said "no"\n{release}'}


@pytest.fixture
async def http() -> AsyncIterator[Http]:
    async with Http(workers=2) as one:
        yield one


@pytest.fixture
def server() -> Iterator[WebServer]:
    with web_server() as one:
        yield one


async def send(
    http: Http, url: str, credentials: HttpCredentials | None = None, **webhook: Any
) -> HookResult:
    hook = RemediationHook.model_validate(
        {"name": "page", "at": "failed", "webhook": {"url": url} | webhook, "timeout": "2s"}
    )
    assert hook.webhook is not None
    return await send_webhook(http, hook, hook.webhook, FACTS, credentials or HttpCredentials())


async def test_all_facts_are_sent_as_json(http: Http, server: WebServer) -> None:
    server.routes["/x"] = Answer(202, b"queued")

    result = await send(http, f"{server.url}/x")

    assert result == HookResult("page", True, "POST to 127.0.0.1: 202 Accepted", "queued")
    asked = server.asked[0]
    assert (asked.method, asked.headers["content-type"]) == ("POST", "application/json")
    assert json.loads(asked.body) == FACTS


@pytest.mark.parametrize(
    ("template", "body", "content_type"),
    [
        (
            '{"text": "{release}: {reason}", "n": {}}',
            '{"text": "web: it said \\"no\\"\\n{release}", "n": {}}',
            "application/json",
        ),
        ('["{release}"]', '["web"]', "application/json"),
        ("{release} in {place}", "web in {place}", "text/plain; charset=utf-8"),
        ("[{namespace}] {release}", "[shop] web", "text/plain; charset=utf-8"),
    ],
)
async def test_a_body_is_filled_in(
    http: Http, server: WebServer, template: str, body: str, content_type: str
) -> None:
    server.routes["/x"] = Answer()

    await send(http, f"{server.url}/x", body=template)

    assert server.asked[0].body.decode() == body
    assert server.asked[0].headers["content-type"] == content_type


def test_an_empty_body_stays_empty() -> None:
    assert render_body("", FACTS) == ""


async def test_a_content_type_of_ones_own_is_kept(http: Http, server: WebServer) -> None:
    server.routes["/x"] = Answer()

    await send(http, f"{server.url}/x", headers={"content-type": "application/vnd.x+json"})

    assert server.asked[0].headers["content-type"] == "application/vnd.x+json"


async def test_get_has_no_body(http: Http, server: WebServer) -> None:
    server.routes["/x"] = Answer()

    await send(http, f"{server.url}/x", method="GET")

    assert (server.asked[0].method, server.asked[0].body) == ("GET", b"")


@pytest.mark.parametrize("status", [301, 307, 400, 401, 404, 500, 503])
async def test_everything_but_2xx_is_a_failure_and_is_not_repeated(
    http: Http, server: WebServer, status: int
) -> None:
    server.routes["/x"] = Answer(status, b"why", {"Location": "/y"})

    result = await send(http, f"{server.url}/x")

    assert not result.succeeded
    assert f"POST to 127.0.0.1: {status}" in result.message
    assert server.paths == ["/x"]


async def test_what_the_receiver_says_of_a_failure_is_kept(http: Http, server: WebServer) -> None:
    server.routes["/x"] = Answer(422, b"no such channel")

    assert (await send(http, f"{server.url}/x")).output == "no such channel"


async def test_no_answer_is_a_failure(http: Http) -> None:
    assert await send(http, "http://127.0.0.1:1/x") == HookResult(
        "page", False, "POST to 127.0.0.1: the connection is refused"
    )


async def test_the_path_of_the_url_may_be_a_secret(http: Http, server: WebServer) -> None:
    path = "/services/T000/hunter2"
    server.routes[path] = Answer(404, f"no such hook: {server.url}{path}".encode())

    for url in (f"{server.url}{path}", f"http://127.0.0.1:1{path}"):
        result = await send(http, url)

        assert "hunter2" not in repr(result)


async def test_credentials_are_sent_and_not_kept(http: Http, server: WebServer) -> None:
    server.routes["/x"] = Answer(200, b"thanks for tok-12345 and header-of-mine")

    result = await send(
        http,
        f"{server.url}/x",
        HttpCredentials(bearer_token="tok-12345"),
        headers={"X-Key": "header-of-mine"},
    )

    assert server.asked[0].headers["authorization"] == "Bearer tok-12345"
    assert result.output == "thanks for *** and ***"


async def test_a_long_answer_is_cut(http: Http, server: WebServer) -> None:
    server.routes["/x"] = Answer(200, b"x" * 100_000)

    result = await send(http, f"{server.url}/x")

    assert len(result.output) < 5000
