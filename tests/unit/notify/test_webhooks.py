from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from typing import Any

import pytest

from helmops.errors import ClusterUnreachable
from helmops.http import Http
from helmops.model.declarations.notification import Alert, Provider
from helmops.model.records import Record
from helmops.model.releases import DeclarationKey, ReleaseId
from helmops.notify import webhooks
from helmops.notify.payload import signature
from helmops.notify.webhooks import WebhookNotifier, unsupported
from tests.fakes.alerts import alert, event, provider
from tests.fakes.web_server import Answer, Asked, WebServer, web_server

HOOK = DeclarationKey("apps", "hook")
RECORD = Record(
    key=DeclarationKey("apps", "web"),
    release=ReleaseId("apps", "web"),
    manifest={"metadata": {"labels": {"team": "a"}}},
)


class World:
    """A notifier, what it is configured with, and a receiver."""

    def __init__(self, server: WebServer, http: Http) -> None:
        self.server = server
        self.alerts: list[Alert] = [alert()]
        self.providers: dict[DeclarationKey, Provider] = {
            HOOK: provider(address=f"{server.url}/hook")
        }
        self.secrets: dict[DeclarationKey, Mapping[str, bytes]] = {}
        self.slept: list[float] = []
        self.notifier = WebhookNotifier(
            http,
            alerts=lambda: self.alerts,
            provider=lambda key: self.providers.get(key),
            read_secret=self.read_secret,
            instance="pod-1",
            sleep=self.sleep,
        )
        server.routes["/hook"] = Answer(200)

    async def read_secret(self, key: DeclarationKey) -> Mapping[str, bytes] | None:
        return self.secrets.get(key)

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)

    async def tell(self, *messages: str) -> None:
        for message in messages or ("Helm upgrade failed",):
            await self.notifier.send(event(message), RECORD)
        await self.notifier.drain(10)

    @property
    def messages(self) -> list[str]:
        return [json.loads(asked.body)["message"] for asked in self.server.asked]


@pytest.fixture
async def world() -> AsyncIterator[World]:
    with web_server() as server:
        async with Http() as http:
            yield World(server, http)


async def test_an_event_is_posted_as_json(world: World) -> None:
    await world.tell()
    (asked,) = world.server.asked
    assert (asked.method, asked.path) == ("POST", "/hook")
    assert asked.headers["content-type"] == "application/json"
    assert asked.headers["gotk-component"] == "helmops"
    assert "x-signature" not in asked.headers
    assert json.loads(asked.body)["reportingInstance"] == "pod-1"


async def test_events_of_one_receiver_come_in_order(world: World) -> None:
    await world.tell(*(str(number) for number in range(20)))
    assert world.messages == [str(number) for number in range(20)]


async def test_sending_does_not_wait_for_the_receiver(world: World) -> None:
    world.server.routes["/hook"] = Answer(raw=lambda wire, stopping: stopping.wait(10) and None)
    await asyncio.wait_for(world.notifier.send(event(), RECORD), 1)
    assert world.notifier.pending == 1


async def test_a_signed_event_carries_the_hmac_of_its_body(world: World) -> None:
    world.providers[HOOK] = provider(
        type="generic-hmac", address=f"{world.server.url}/hook", secretRef={"name": "key"}
    )
    world.secrets[DeclarationKey("apps", "key")] = {"token": b"s3cret"}
    await world.tell()
    (asked,) = world.server.asked
    assert asked.headers["x-signature"] == signature(asked.body, b"s3cret")


async def test_address_and_headers_may_be_secret(world: World) -> None:
    world.providers[HOOK] = provider(
        address=f"{world.server.url}/wrong", secretRef={"name": "hook"}
    )
    world.secrets[DeclarationKey("apps", "hook")] = {
        "address": f"{world.server.url}/hook?key=s3cret\n".encode(),
        "headers": b"Authorization: Bearer s3cret\n",
    }
    await world.tell()
    (asked,) = world.server.asked
    assert asked.path == "/hook?key=s3cret"
    assert asked.headers["authorization"] == "Bearer s3cret"


async def test_a_new_secret_counts_at_once(world: World) -> None:
    world.providers[HOOK] = provider(secretRef={"name": "hook"})
    for path in ("/one", "/two"):
        world.server.routes[path] = Answer(200)
        address = f"{world.server.url}{path}".encode()
        world.secrets[DeclarationKey("apps", "hook")] = {"address": address}
        await world.tell()
    assert world.server.paths == ["/one", "/two"]


async def test_what_an_alert_does_not_ask_for_is_not_sent(world: World) -> None:
    world.alerts = [alert({"kind": "HelmRelease", "name": "*", "matchLabels": {"team": "b"}})]
    await world.tell()
    assert world.server.asked == []


async def test_two_alerts_are_two_notifications(world: World) -> None:
    world.alerts = [alert(eventMetadata={"n": "1"}), alert(eventMetadata={"n": "2"})]
    await world.tell()
    assert [json.loads(a.body)["metadata"]["n"] for a in world.server.asked] == ["1", "2"]


async def test_a_suspended_provider_is_left_in_peace(world: World) -> None:
    world.providers[HOOK] = provider(address=f"{world.server.url}/hook", suspend=True)
    await world.tell()
    assert world.server.asked == []


# Failures


def fails(world: World, *statuses: int, **headers: str) -> None:
    """The receiver answers with these, then takes everything."""
    answers = [
        Answer(s, b"", {k.replace("_", "-"): v for k, v in headers.items()}) for s in statuses
    ]

    def answer(asked: Asked) -> Answer:
        return answers.pop(0) if answers else Answer(200)

    world.server.routes["/hook"] = answer


@pytest.mark.parametrize("status", [408, 429, 500, 503])
async def test_what_may_pass_is_tried_again_with_growing_delays(world: World, status: int) -> None:
    fails(world, status, status, status)
    await world.tell("one", "two")
    assert world.messages == ["one", "one", "one", "one", "two"]
    assert world.slept == sorted(world.slept)
    assert len(world.slept) == 3


async def test_a_receiver_may_ask_for_patience_within_bounds(world: World) -> None:
    fails(world, 429, Retry_After="30")
    await world.tell()
    assert world.slept == [30.0]
    world.slept.clear()
    fails(world, 429, Retry_After="86400")
    await world.tell()
    assert world.slept == [webhooks.LONGEST_DELAY]


@pytest.mark.parametrize("status", [307, 400, 401, 404])
async def test_what_is_refused_is_not_tried_again_but_said(
    world: World, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    fails(world, status, Location="/elsewhere")
    await world.tell("one", "two")
    assert world.messages == ["one", "two"]
    assert world.server.paths == ["/hook", "/hook"]
    assert f"Provider apps/hook: the receiver answered {status}" in caplog.text


async def test_in_the_end_an_event_is_given_up_and_the_next_one_sent(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    fails(world, *([500] * webhooks.ATTEMPTS))
    await world.tell("one", "two")
    assert world.messages == ["one"] * webhooks.ATTEMPTS + ["two"]
    assert "a notification was not taken: Provider apps/hook" in caplog.text


async def test_a_receiver_that_hangs_holds_up_nobody_else(world: World) -> None:
    world.server.routes["/slow"] = Answer(raw=lambda wire, stopping: stopping.wait(10) and None)
    slow = alert()
    slow = slow.model_copy(
        update={
            "spec": slow.spec.model_copy(
                update={"provider_ref": slow.spec.provider_ref.model_copy(update={"name": "slow"})}
            )
        }
    )
    world.alerts = [slow, alert()]
    world.providers[DeclarationKey("apps", "slow")] = provider(
        "slow", address=f"{world.server.url}/slow"
    )
    await world.notifier.send(event("one"), RECORD)
    async with asyncio.timeout(5):
        while "/hook" not in world.server.paths:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    await world.notifier.drain(0)
    assert world.notifier.pending == 0


@pytest.mark.parametrize(
    ("spec", "secret", "said"),
    [
        ({}, None, "it has no address"),
        ({"type": "slack", "address": "http://x"}, None, "`spec.type` is not acted on yet"),
        ({"address": "http://x", "proxySecretRef": {"name": "p"}}, None, "spec.proxySecretRef"),
        ({"address": "http://x", "proxy": "http://p"}, None, "spec.proxy"),
        ({"type": "generic-hmac", "address": "http://x"}, None, "needs a Secret with `token`"),
        ({"secretRef": {"name": "hook"}}, {"proxy": b"http://p"}, "`proxy` in its Secret"),
        (
            {"address": "http://x", "secretRef": {"name": "hook"}},
            {"headers": b"[s3cret]"},
            "no map of strings",
        ),
        (
            {"address": "http://x", "secretRef": {"name": "hook"}},
            {"headers": b'A: "b\\r\\nEvil: s3cret"'},
            "has a line break",
        ),
        ({"address": "ftp://x/s3cret"}, None, "not a URL that can be asked"),
    ],
)
async def test_a_provider_that_cannot_be_used_is_said_without_its_secrets(
    world: World,
    caplog: pytest.LogCaptureFixture,
    spec: dict[str, Any],
    secret: dict[str, bytes] | None,
    said: str,
) -> None:
    world.providers[HOOK] = provider(**spec)
    if secret is not None:
        world.secrets[DeclarationKey("apps", "hook")] = secret
    await world.tell()
    assert world.server.asked == []
    assert said in caplog.text
    assert "s3cret" not in caplog.text


async def test_a_provider_that_does_not_exist_is_said(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.providers.clear()
    await world.tell()
    assert "Provider apps/hook: there is no such Provider" in caplog.text


async def test_a_missing_secret_is_waited_for(world: World) -> None:
    world.providers[HOOK] = provider(secretRef={"name": "hook"})

    async def sleep(seconds: float) -> None:
        address = f"{world.server.url}/hook".encode()
        world.secrets[DeclarationKey("apps", "hook")] = {"address": address}

    world.notifier._sleep = sleep
    await world.tell()
    assert world.server.paths == ["/hook"]


async def test_a_cluster_that_is_away_is_waited_for(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.providers[HOOK] = provider(secretRef={"name": "hook"})

    async def away(key: DeclarationKey) -> None:
        raise ClusterUnreachable("no answer")

    world.notifier._read_secret = away
    await world.tell()
    assert len(world.slept) == webhooks.ATTEMPTS - 1
    assert "Secret apps/hook cannot be read" in caplog.text


async def test_a_secret_in_the_address_is_not_logged(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.providers[HOOK] = provider(address="http://me:s3cret@127.0.0.1:1/hook?key=s3cret")
    await world.tell()
    assert "a notification was not taken" in caplog.text
    assert "s3cret" not in caplog.text


async def test_too_many_waiting_events_drop_the_oldest(
    world: World, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhooks, "QUEUE_SIZE", 3)
    await world.tell(*"abcdef")
    # `a` was on its way already.
    assert world.messages == ["a", "e", "f"]
    assert "the oldest is dropped" in caplog.text


async def test_at_the_end_what_cannot_be_sent_in_time_is_given_up(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.server.routes["/hook"] = Answer(raw=lambda wire, stopping: stopping.wait(10) and None)
    for message in "abc":
        await world.notifier.send(event(message), RECORD)
    await asyncio.sleep(0)
    await world.notifier.drain(0.05)
    assert "3 notifications were not sent before the end" in caplog.text
    assert world.notifier.pending == 0


async def test_after_a_pause_events_are_sent_again(world: World) -> None:
    await world.tell("one")
    await world.tell("two")
    assert world.messages == ["one", "two"]


def test_what_is_not_acted_on_is_named() -> None:
    assert unsupported(provider(address="http://x")) == ""
    assert unsupported(provider(type="slack")) == "spec.type"
