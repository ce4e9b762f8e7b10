from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

import pytest

from helmops.cluster.object_watches import ObjectWatches, Scope
from helmops.errors import AccessDenied, ObjectNotFound
from tests.fakes.kubernetes_api import FakeKubernetes

DEPLOYMENTS = Scope("apps/v1", "Deployment", "apps")
PODS = Scope("v1", "Pod", "apps")


def deployment(name: str, ready: int = 1, namespace: str = "apps", **metadata: Any) -> Any:
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": namespace, **metadata},
        "status": {"readyReplicas": ready},
    }


def slim(object_: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """What a deployment has ready; one called `boring` is not kept."""
    if object_["metadata"]["name"] == "boring":
        return None
    metadata = {k: object_["metadata"].get(k) for k in ("namespace", "name")}
    return {"kind": object_["kind"], "metadata": metadata, "status": object_.get("status")}


class Seen:
    """What a follower was told."""

    def __init__(self) -> None:
        self.told: list[tuple[Any, Any]] = []

    def __call__(self, scope: Scope, old: Any, new: Any) -> None:
        self.told.append((old, new))

    @property
    def changes(self) -> list[tuple[int | None, int | None]]:
        """Ready replicas before and after; None where there was no object."""
        return [
            (old and old["status"]["readyReplicas"], new and new["status"]["readyReplicas"])
            for old, new in self.told
            if old or new
        ]


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 - nobody tells of what is waited for
            await asyncio.sleep(0)


async def quiet() -> None:
    for _ in range(50):
        await asyncio.sleep(0)


class Sleeps:
    """Sleeps that end when a test says so, and how long each was to be."""

    def __init__(self) -> None:
        self.asked: list[float] = []
        self._over = asyncio.Event()

    async def __call__(self, seconds: float) -> None:
        self.asked.append(seconds)
        await self._over.wait()
        self._over.clear()

    def end(self) -> None:
        self._over.set()


@pytest.fixture
def server() -> FakeKubernetes:
    return FakeKubernetes("apps", "other")


@pytest.fixture
async def sleeps() -> Sleeps:
    return Sleeps()


@pytest.fixture
async def watches(server: FakeKubernetes, sleeps: Sleeps) -> AsyncIterator[ObjectWatches]:
    made = ObjectWatches(server.api(), slim, sleep=sleeps)
    yield made
    await made.close()


async def live(watches: ObjectWatches, scope: Scope) -> None:
    await until(lambda: watches.is_live(scope))


async def test_it_knows_all_objects_once_it_has_listed(
    server: FakeKubernetes, watches: ObjectWatches
) -> None:
    server.put(deployment("web"))
    server.put(deployment("db", namespace="other"))
    seen = Seen()
    watches.follow(DEPLOYMENTS, seen)
    assert not watches.is_live(DEPLOYMENTS)
    await live(watches, DEPLOYMENTS)
    assert list(watches.objects(DEPLOYMENTS)) == [("apps", "web")]
    assert seen.told == [(None, watches.objects(DEPLOYMENTS)["apps", "web"]), (None, None)]


async def test_a_scope_without_namespace_sees_all_of_them(
    server: FakeKubernetes, watches: ObjectWatches
) -> None:
    server.put(deployment("web"))
    server.put(deployment("db", namespace="other"))
    everywhere = Scope("apps/v1", "Deployment")
    watches.follow(everywhere, Seen())
    await live(watches, everywhere)
    assert set(watches.objects(everywhere)) == {("apps", "web"), ("other", "db")}


async def test_each_change_is_told_with_what_was_before(
    server: FakeKubernetes, watches: ObjectWatches
) -> None:
    seen = Seen()
    watches.follow(DEPLOYMENTS, seen)
    await live(watches, DEPLOYMENTS)
    await quiet()
    server.put(deployment("web", ready=1))
    server.put(deployment("web", ready=2))
    server.remove("apps/v1", "deployments", "apps", "web")
    await until(lambda: len(seen.changes) == 3)
    assert seen.changes == [(None, 1), (1, 2), (2, None)]
    assert not watches.objects(DEPLOYMENTS)


async def test_a_change_of_what_is_not_kept_is_not_told(
    server: FakeKubernetes, watches: ObjectWatches
) -> None:
    server.put(deployment("web"))
    seen = Seen()
    watches.follow(DEPLOYMENTS, seen)
    await live(watches, DEPLOYMENTS)
    await quiet()
    server.put(deployment("web", annotations={"heartbeat": "now"}))
    server.put(deployment("boring"))
    server.put(deployment("web", ready=5))
    await until(lambda: len(seen.changes) == 2)
    assert seen.changes == [(None, 1), (1, 5)]
    assert set(watches.objects(DEPLOYMENTS)) == {("apps", "web")}


async def test_a_whole_scope_keeps_objects_as_they_come(
    server: FakeKubernetes, watches: ObjectWatches
) -> None:
    server.put(deployment("web", labels={"a": "b"}))
    whole = Scope("apps/v1", "Deployment", "apps", is_whole=True)
    watches.follow(whole, Seen())
    await live(watches, whole)
    assert watches.objects(whole)["apps", "web"]["metadata"]["labels"] == {"a": "b"}


async def test_two_followers_share_one_watch_which_the_last_one_ends(
    server: FakeKubernetes, watches: ObjectWatches
) -> None:
    server.put(deployment("web"))
    first, second = Seen(), Seen()
    watches.follow(DEPLOYMENTS, first)
    await live(watches, DEPLOYMENTS)
    watches.follow(DEPLOYMENTS, second)
    await quiet()
    assert server.watch_count == 1
    watches.unfollow(DEPLOYMENTS, first)
    await quiet()
    server.put(deployment("web", ready=2))
    await until(lambda: second.changes == [(1, 2)])
    assert first.changes == [(None, 1)]
    watches.unfollow(DEPLOYMENTS, second)
    await until(lambda: server.watch_count == 0)
    assert watches.scopes == ()
    assert not watches.is_live(DEPLOYMENTS)


async def test_what_was_never_followed_can_be_given_up(watches: ObjectWatches) -> None:
    watches.unfollow(PODS, Seen())
    assert watches.refusal(PODS) is None


async def test_a_broken_watch_is_not_live_until_it_has_listed_again(
    server: FakeKubernetes, watches: ObjectWatches
) -> None:
    server.put(deployment("web"))
    server.put(deployment("db"))
    seen = Seen()
    watches.follow(DEPLOYMENTS, seen)
    await live(watches, DEPLOYMENTS)
    await quiet()
    seen.told.clear()
    server.is_unreachable = True
    server.drop_watches()
    await until(lambda: not watches.is_live(DEPLOYMENTS))
    assert set(watches.objects(DEPLOYMENTS)) == {("apps", "web"), ("apps", "db")}
    server.remove("apps/v1", "deployments", "apps", "db")
    server.put(deployment("web", ready=3))
    server.is_unreachable = False
    await live(watches, DEPLOYMENTS)
    assert sorted(seen.changes, key=str) == [(1, 3), (1, None)]


async def test_an_expired_version_is_listed_anew_without_a_break(
    server: FakeKubernetes, watches: ObjectWatches
) -> None:
    server.put(deployment("web"))
    seen = Seen()
    watches.follow(DEPLOYMENTS, seen)
    await live(watches, DEPLOYMENTS)
    await quiet()
    seen.told.clear()
    server.expire_watches()
    await until(lambda: (None, None) in seen.told)
    assert watches.is_live(DEPLOYMENTS)
    assert seen.changes == []


@pytest.mark.parametrize("verb", ["list", "watch"])
async def test_a_scope_that_may_not_be_watched_says_so_and_is_tried_again(
    server: FakeKubernetes, watches: ObjectWatches, sleeps: Sleeps, verb: str
) -> None:
    server.denied.add((verb, "deployments", "apps"))
    seen = Seen()
    watches.follow(DEPLOYMENTS, seen)
    await until(lambda: watches.refusal(DEPLOYMENTS) is not None)
    assert isinstance(watches.refusal(DEPLOYMENTS), AccessDenied)
    assert not watches.is_live(DEPLOYMENTS)
    assert (None, None) in seen.told
    await until(lambda: sleeps.asked == [60.0])
    server.denied.clear()
    sleeps.end()
    await live(watches, DEPLOYMENTS)
    assert watches.refusal(DEPLOYMENTS) is None


async def test_a_kind_that_nobody_knows_is_refused_until_it_comes(
    server: FakeKubernetes, watches: ObjectWatches, sleeps: Sleeps
) -> None:
    gadgets = Scope("example.test/v1", "Gadget", "apps")
    watches.follow(gadgets, Seen())
    await until(lambda: isinstance(watches.refusal(gadgets), ObjectNotFound))
    server.serve("example.test/v1", "Gadget", "gadgets", is_namespaced=True)
    await until(lambda: bool(sleeps.asked))
    sleeps.end()
    await live(watches, gadgets)


async def test_a_server_that_is_away_is_asked_again(
    server: FakeKubernetes, watches: ObjectWatches, sleeps: Sleeps
) -> None:
    server.is_unreachable = True
    gadgets = Scope("example.test/v1", "Gadget", "apps")
    server.serve("example.test/v1", "Gadget", "gadgets", is_namespaced=True)
    watches.follow(gadgets, Seen())
    await until(lambda: bool(sleeps.asked))
    assert watches.refusal(gadgets) is None
    server.is_unreachable = False
    sleeps.end()
    await live(watches, gadgets)


async def test_closing_ends_all_watches(server: FakeKubernetes) -> None:
    watches = ObjectWatches(server.api(), slim)
    watches.follow(DEPLOYMENTS, Seen())
    watches.follow(PODS, Seen())
    await until(lambda: server.watch_count == 2)
    await watches.close()
    assert server.watch_count == 0


async def test_a_watch_has_no_logging_context_of_who_followed_first(
    server: FakeKubernetes, watches: ObjectWatches
) -> None:
    import contextvars

    about = contextvars.ContextVar("about", default="nobody")
    found: list[str] = []

    def note(scope: Scope, old: Any, new: Any) -> None:
        found.append(about.get())

    token = about.set("apps/web")
    with contextlib.ExitStack() as stack:
        stack.callback(about.reset, token)
        watches.follow(DEPLOYMENTS, note)
        await until(lambda: bool(found))
    assert found == ["nobody"]


def test_a_scope_tells_what_it_sees() -> None:
    assert str(DEPLOYMENTS) == "Deployment in apps"
    assert str(Scope("apps/v1", "Deployment")) == "Deployment in all namespaces"
