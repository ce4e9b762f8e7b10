"""The pages, called as an ASGI application; `tests/e2e/test_service_http.py` has the server."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from prometheus_client import CollectorRegistry, Counter

from helmops.errors import StoreError
from helmops.model.records import Condition, ConditionStatus, Record
from helmops.model.releases import DeclarationKey, ReleaseId
from helmops.service.http_server import application
from tests.fakes.journal import FakeJournal

NOON = datetime(2026, 1, 5, 12, 0, tzinfo=UTC)


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    text: str


async def ask(
    path: str,
    *,
    method: str = "GET",
    missing: Mapping[str, str] | None = None,
    registry: CollectorRegistry | None = None,
    journal: Any = None,
    accept: str = "*/*",
) -> Answer:
    app = application(
        missing=lambda: missing or {},
        registry=registry or CollectorRegistry(),
        releases=(journal or FakeJournal()).releases,
    )
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": [(b"host", b"localhost"), (b"accept", accept.encode())],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 9640),
    }
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    await app(scope, receive, send)
    return Answer(
        sent[0]["status"],
        {name.decode(): text.decode() for name, text in sent[0]["headers"]},
        b"".join(message.get("body", b"") for message in sent[1:]).decode(),
    )


def record(message: str = "all is well", state: str = "InSync") -> Record:
    return Record(
        key=DeclarationKey("shop", "web"),
        release=ReleaseId("shop", "web"),
        state=state,
        manifest={"spec": {"values": {"password": "hunter2"}}},
        conditions=(Condition("Ready", ConditionStatus.TRUE, "Succeeded", message, NOON),),
    )


async def test_health_is_an_answer_at_all() -> None:
    answer = await ask("/healthz", missing={"cluster": "unreachable"})
    assert (answer.status, answer.text) == (200, "ok\n")


async def test_ready_is_when_nothing_is_missing() -> None:
    answer = await ask("/readyz")
    assert answer.status == 200
    assert json.loads(answer.text) == {"ready": True, "missing": []}


async def test_what_is_missing_for_readiness_is_named() -> None:
    answer = await ask("/readyz", missing={"sources": "not loaded yet", "cluster": "no answer"})
    assert answer.status == 503
    assert json.loads(answer.text) == {
        "ready": False,
        "missing": [
            {"name": "cluster", "why": "no answer"},
            {"name": "sources", "why": "not loaded yet"},
        ],
    }


async def test_metrics_are_in_the_format_that_is_asked_for() -> None:
    registry = CollectorRegistry()
    Counter("helmops_passes", "Passes.", registry=registry).inc()
    plain = await ask("/metrics", registry=registry)
    assert "helmops_passes_total 1.0" in plain.text
    assert plain.headers["content-type"].startswith("text/plain; version=")
    modern = await ask(
        "/metrics", registry=registry, accept="application/openmetrics-text; version=1.0.0"
    )
    assert modern.headers["content-type"].startswith("application/openmetrics-text")
    assert modern.text.endswith("# EOF\n")


async def test_the_page_lists_releases() -> None:
    journal = FakeJournal()
    await journal.publish(record())
    page = (await ask("/", journal=journal)).text
    for part in ("shop", "web", "InSync", "True", "all is well"):
        assert f">{part}</td>" in page


async def test_what_releases_say_is_text_and_never_markup() -> None:
    journal = FakeJournal()
    await journal.publish(record('<script>alert("1")</script>', state="\"><img src=x>'"))
    page = (await ask("/", journal=journal)).text
    assert "<script" not in page
    assert "<img" not in page
    assert "&lt;script&gt;alert(&quot;1&quot;)" in page


async def test_the_page_shows_no_values() -> None:
    journal = FakeJournal()
    await journal.publish(record())
    assert "hunter2" not in (await ask("/", journal=journal)).text


async def test_a_page_without_releases_says_so() -> None:
    assert "No releases yet." in (await ask("/")).text


async def test_an_unreadable_state_is_said_on_the_page() -> None:
    class Broken:
        async def releases(self) -> Any:
            raise StoreError("the disk is <full>", where="sqlite:///x")

    answer = await ask("/", journal=Broken())
    assert answer.status == 503
    assert "the disk is &lt;full&gt;" in answer.text


async def test_every_answer_forbids_scripts_and_assets_from_elsewhere() -> None:
    for path in ("/", "/healthz", "/nowhere"):
        headers = (await ask(path)).headers
        assert headers["content-security-policy"].startswith("default-src 'none'")
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cache-control"] == "no-store"


async def test_nothing_can_be_written() -> None:
    for method in ("POST", "PUT", "DELETE", "PATCH"):
        assert (await ask("/", method=method)).status == 405
    assert (await ask("/", method="HEAD")).status == 200
    assert (await ask("/nowhere")).status == 404
