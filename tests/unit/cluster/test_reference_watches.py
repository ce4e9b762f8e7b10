from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from urllib.parse import parse_qs, urlsplit

import pytest

from helmops.cluster.reference_watches import Reference, ReferenceIndex
from helmops.cluster.references import ClusterReferences
from helmops.model.releases import DeclarationKey
from tests.fakes.kubernetes_api import FakeKubernetes

VALUES = DeclarationKey("apps", "values")
OTHER = DeclarationKey("apps", "other")
CONFIG: Reference = ("ConfigMap", VALUES)
SECRET: Reference = ("Secret", VALUES)


def put(server: FakeKubernetes, reference: Reference, text: str = "", **labels: str) -> None:
    kind, key = reference
    server.put(
        {
            "apiVersion": "v1",
            "kind": kind,
            "metadata": {"name": key.name, "namespace": key.namespace, "labels": labels},
            "data": {"a": text} if kind == "ConfigMap" else {},
        }
    )


async def until(condition: Callable[[], bool]) -> None:
    """Let the index work until the condition holds."""
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0)


async def quiet() -> None:
    """Let everything that is on its way arrive."""
    for _ in range(100):
        await asyncio.sleep(0)


class Watched:
    """An index at work on a server, the references read through it, and what it told of."""

    def __init__(self, server: FakeKubernetes) -> None:
        self.told: list[Reference] = []
        self.retry = asyncio.Event()
        self.index = ReferenceIndex(
            server.api(), lambda *found: self.told.append(found), sleep=self._sleep
        )
        self.references = ClusterReferences(server.api(), self.index)

    async def _sleep(self, _: float) -> None:
        await self.retry.wait()


@contextlib.asynccontextmanager
async def watching(server: FakeKubernetes, *wanted: Reference) -> AsyncIterator[Watched]:
    watched = Watched(server)
    watched.index.follow(wanted)
    task = asyncio.create_task(watched.index.run())
    try:
        yield watched
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


@pytest.fixture
def server() -> FakeKubernetes:
    return FakeKubernetes("apps", "db")


def reads(server: FakeKubernetes) -> int:
    """How often a single object was asked for."""
    return sum(path.partition("?")[0].endswith("/values") for _, path in server.asked)


def lists(server: FakeKubernetes) -> list[dict[str, str]]:
    """The queries of all lists."""
    queries = (parse_qs(urlsplit(path).query) for _, path in server.asked)
    return [
        {name: texts[0] for name, texts in query.items()} for query in queries if "limit" in query
    ]


async def test_nothing_that_is_referred_to_is_no_watch(server: FakeKubernetes) -> None:
    async with watching(server):
        await quiet()
    assert server.asked == []


async def test_a_change_of_what_was_read_is_told(server: FakeKubernetes) -> None:
    put(server, CONFIG, "1")
    async with watching(server, CONFIG) as watched:
        assert await watched.references.config_map(VALUES) == {"a": b"1"}
        await until(lambda: watched.index.version(*CONFIG) is not None)
        assert watched.told == []
        put(server, CONFIG, "2")
        await until(lambda: watched.told == [CONFIG])
        assert await watched.references.config_map(VALUES) == {"a": b"2"}


async def test_what_did_not_change_is_not_read_again(server: FakeKubernetes) -> None:
    put(server, CONFIG, "1")
    async with watching(server, CONFIG, SECRET) as watched:
        await until(lambda: None not in (watched.index.version(*r) for r in (CONFIG, SECRET)))
        for _ in range(3):
            assert await watched.references.config_map(VALUES) == {"a": b"1"}
            assert await watched.references.secret(VALUES) is None
    assert reads(server) == 2


async def test_what_nobody_follows_is_not_kept(server: FakeKubernetes) -> None:
    put(server, CONFIG, "1")
    async with watching(server, SECRET) as watched:
        for _ in range(2):
            assert await watched.references.config_map(VALUES) == {"a": b"1"}
    assert reads(server) == 2


async def test_what_changed_before_the_watch_began_is_told(server: FakeKubernetes) -> None:
    put(server, CONFIG, "1")
    watched = Watched(server)
    watched.index.follow([CONFIG])
    await watched.references.config_map(VALUES)
    put(server, CONFIG, "2")
    task = asyncio.create_task(watched.index.run())
    await until(lambda: watched.told == [CONFIG])
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


async def test_one_that_is_created_or_deleted_is_told(server: FakeKubernetes) -> None:
    async with watching(server, SECRET) as watched:
        assert await watched.references.secret(VALUES) is None
        await until(lambda: watched.index.version(*SECRET) == "")
        put(server, SECRET)
        await until(lambda: watched.told == [SECRET])
        assert await watched.references.secret(VALUES) == {}
        server.remove("v1", "secrets", "apps", "values")
        await until(lambda: len(watched.told) == 2)


async def test_what_nobody_refers_to_wakes_nobody(server: FakeKubernetes) -> None:
    put(server, CONFIG, "1")
    also = ("ConfigMap", DeclarationKey("apps", "third"))
    async with watching(server, CONFIG, also) as watched:
        await watched.references.config_map(VALUES)
        await until(lambda: watched.index.version(*CONFIG) is not None)
        put(server, ("ConfigMap", OTHER), "1")
        await quiet()
        assert watched.told == []
        assert watched.index.version("ConfigMap", OTHER) is None


async def test_one_object_is_watched_by_its_name_and_several_by_their_namespace(
    server: FakeKubernetes,
) -> None:
    async with watching(server, SECRET) as watched:
        await until(lambda: watched.index.version(*SECRET) is not None)
        assert lists(server)[-1]["fieldSelector"] == "metadata.name=values"
        watched.index.follow([SECRET, ("Secret", OTHER)])
        await until(lambda: watched.index.version("Secret", OTHER) is not None)
        assert "fieldSelector" not in lists(server)[-1]
        assert lists(server)[-1]["labelSelector"] == "owner notin (helm,helmops)"
        await quiet()
        before = len(server.asked)
        watched.index.follow([SECRET])
        await quiet()
        assert len(server.asked) == before
        watched.index.follow([])
        await quiet()
        assert watched.index.version(*SECRET) is None


async def test_a_watch_that_is_not_allowed_leaves_asking_and_is_tried_again(
    server: FakeKubernetes, caplog: pytest.LogCaptureFixture
) -> None:
    put(server, CONFIG, "1")
    server.denied.add(("list", "configmaps", "apps"))
    async with watching(server, CONFIG) as watched:
        await until(lambda: "not allowed to watch ConfigMaps in apps" in caplog.text)
        assert watched.index.version(*CONFIG) is None
        for _ in range(2):
            assert await watched.references.config_map(VALUES) == {"a": b"1"}
        assert reads(server) == 2
        server.denied.clear()
        watched.retry.set()
        await until(lambda: watched.index.version(*CONFIG) is not None)
