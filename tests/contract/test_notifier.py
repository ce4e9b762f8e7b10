"""Every `Notifier` takes an event at once and never raises."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

import pytest

from helmops.http import Http
from helmops.model.records import Record
from helmops.model.releases import DeclarationKey, ReleaseId
from helmops.notify.webhooks import WebhookNotifier
from helmops.reconcile.ports import Notifier
from tests.fakes.alerts import alert, event, provider
from tests.fakes.notifier import FakeNotifier
from tests.fakes.web_server import Answer, web_server

RECORD = Record(key=DeclarationKey("apps", "web"), release=ReleaseId("apps", "web"))


@dataclass
class World:
    """A notifier, how to wait for it, and how many events have come out of it."""

    notifier: Notifier
    drain: Callable[[], Awaitable[None]]
    count: Callable[[], int]


@pytest.fixture(params=["fake", "webhook"])
async def world(request: pytest.FixtureRequest) -> AsyncIterator[World]:
    async def nothing() -> None:
        return None

    async def no_secret(key: DeclarationKey) -> None:
        return None

    if request.param == "fake":
        fake = FakeNotifier()
        yield World(fake, nothing, lambda: len(fake.sent))
        return
    with web_server() as server:
        server.routes["/"] = Answer(204)
        async with Http() as http:
            notifier = WebhookNotifier(
                http,
                alerts=lambda: [alert()],
                provider=lambda key: provider(address=server.url + "/"),
                read_secret=no_secret,
            )
            yield World(notifier, lambda: notifier.drain(10), lambda: len(server.asked))


async def test_every_event_comes_out_once(world: World) -> None:
    for number in range(3):
        await world.notifier.send(event(str(number)), RECORD)
    await world.drain()
    assert world.count() == 3
