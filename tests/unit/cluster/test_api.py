from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import pytest

from helmops.cluster.api import Api, Changed, Listed, Lost, Reached, WatchEvent
from helmops.cluster.kubeconfig import Connection
from helmops.cluster.transport import Answer, ConnectionDropped
from helmops.errors import (
    AccessDenied,
    ClusterUnreachable,
    ObjectConflict,
    ObjectNotFound,
)
from tests.fakes.kubernetes_api import FakeKubernetes


def config_map(name: str, **data: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": "default", "labels": {"app": name}},
        "data": data,
    }


def refusal(code: int, **headers: str) -> Answer:
    status = {"kind": "Status", "code": code, "reason": "Some", "message": "not now"}
    return Answer(code, {k.replace("_", "-"): v for k, v in headers.items()}, _json(status))


def _json(value: Any) -> bytes:
    return json.dumps(value).encode()


class SlowTime:
    """Remembers what was slept."""

    def __init__(self) -> None:
        self.slept: list[float] = []

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        await asyncio.sleep(0)


@pytest.fixture
def server() -> FakeKubernetes:
    return FakeKubernetes()


# Reads and writes


async def test_an_object_goes_in_and_comes_out(server: FakeKubernetes) -> None:
    api = server.api()
    created = await api.create(config_map("one", a="1"))
    assert await api.get("v1", "ConfigMap", "one", "default") == created
    assert await api.get("v1", "ConfigMap", "two", "default") is None


async def test_metadata_only_leaves_the_data_out(server: FakeKubernetes) -> None:
    api = server.api()
    await api.create(config_map("one", a="1"))
    found = await api.get("v1", "ConfigMap", "one", "default", metadata_only=True)
    assert found is not None
    assert "data" not in found


async def test_a_list_has_all_pages_and_names_its_kinds(server: FakeKubernetes) -> None:
    api = server.api()
    for number in range(5):
        await api.create({**config_map(f"c{number}"), "kind": "ConfigMap"})
    listing = await api.list("v1", "ConfigMap", page_size=2)
    assert [item["metadata"]["name"] for item in listing.items] == ["c0", "c1", "c2", "c3", "c4"]
    assert {(item["apiVersion"], item["kind"]) for item in listing.items} == {("v1", "ConfigMap")}
    assert listing.resource_version


async def test_a_list_whose_pages_expire_starts_again_in_one_piece(
    server: FakeKubernetes,
) -> None:
    api = server.api()
    for number in range(3):
        await api.create(config_map(f"c{number}"))
    server.answers = [lambda: None, refusal(410)]
    listing = await api.list("v1", "ConfigMap", page_size=2)
    assert len(listing.items) == 3
    assert "limit" not in server.asked[-1][1]


async def test_selectors_are_sent(server: FakeKubernetes) -> None:
    api = server.api()
    await api.create(config_map("one"))
    await api.create(config_map("two"))
    listing = await api.list("v1", "ConfigMap", "default", label_selector="app in (two,three)")
    assert [item["metadata"]["name"] for item in listing.items] == ["two"]


async def test_replace_refuses_an_old_version(server: FakeKubernetes) -> None:
    api = server.api()
    old = await api.create(config_map("one", a="1"))
    await api.replace({**old, "data": {"a": "2"}})
    with pytest.raises(ObjectConflict):
        await api.replace({**old, "data": {"a": "3"}})


async def test_a_merge_patch_changes_what_it_names(server: FakeKubernetes) -> None:
    api = server.api()
    await api.create(config_map("one", a="1", b="2"))
    patched = await api.patch(
        "v1", "ConfigMap", "one", "default", {"data": {"a": None, "c": "3"}}, how="merge"
    )
    assert patched["data"] == {"b": "2", "c": "3"}


async def test_patches_say_what_they_are(server: FakeKubernetes) -> None:
    api = server.api()
    await api.create(config_map("one"))
    await api.patch("v1", "ConfigMap", "one", "default", {}, how="apply", force=True, dry_run=True)
    assert server.headers[-1]["Content-Type"] == "application/apply-patch+yaml"
    assert "force=true" in server.asked[-1][1]
    assert "dryRun=All" in server.asked[-1][1]
    assert "fieldManager=helmops" in server.asked[-1][1]


async def test_delete_tells_whether_there_was_something(server: FakeKubernetes) -> None:
    api = server.api()
    made = await api.create(config_map("one"))
    with pytest.raises(ObjectConflict):
        await api.delete("v1", "ConfigMap", "one", "default", resource_version="1")
    assert await api.delete(
        "v1", "ConfigMap", "one", "default", uid=made["metadata"]["uid"], propagation="Orphan"
    )
    assert not await api.delete("v1", "ConfigMap", "one", "default")


async def test_names_are_escaped_in_urls(server: FakeKubernetes) -> None:
    assert await server.api().get("v1", "ConfigMap", "a/../b", "default") is None
    assert server.asked[-1][1] == "/api/v1/namespaces/default/configmaps/a%2F..%2Fb"


async def test_common_kinds_need_no_discovery_and_others_one_request(
    server: FakeKubernetes,
) -> None:
    api = server.api()
    assert (await api.resource_for("apps/v1", "Deployment")).plural == "deployments"
    assert server.asked == []

    server.serve("example.com/v1", "Widget", "widgets", is_namespaced=False)
    for _ in range(2):
        widget = await api.resource_for("example.com/v1", "Widget")
        assert (widget.plural, widget.is_namespaced, widget.group) == (
            "widgets",
            False,
            "example.com",
        )
    assert server.asked == [("GET", "/apis/example.com/v1")]


async def test_a_kind_that_comes_later_is_found_then(server: FakeKubernetes) -> None:
    api = server.api()
    with pytest.raises(ObjectNotFound, match="CustomResourceDefinition"):
        await api.resource_for("example.com/v1", "Widget")
    server.serve("example.com/v1", "Widget", "widgets", is_namespaced=True)
    assert (await api.resource_for("example.com/v1", "Widget")).is_namespaced


async def test_logs_version_and_access(server: FakeKubernetes) -> None:
    api = server.api()
    assert await api.logs("pod", "default", container="main") == "a line\n"
    assert await api.server_version() == "v1.37.2"
    server.denied.add(("delete", "secrets", "default"))
    assert await api.can_i("get", "v1", "Secret", "default")
    assert not await api.can_i("delete", "v1", "Secret", "default")


async def test_a_log_is_followed_to_its_end(server: FakeKubernetes) -> None:
    chunks = server.api().follow_logs("pod", "default", container="main")
    async with aclosing(chunks):
        assert b"".join([chunk async for chunk in chunks]) == b"a line\nanother\n"
    path = server.asked[-1][1]
    assert path == "/api/v1/namespaces/default/pods/pod/log?follow=true&container=main"


async def test_a_log_that_is_not_there_is_not_followed(server: FakeKubernetes) -> None:
    with pytest.raises(ObjectNotFound):
        async for _ in server.api().follow_logs("missing", "default"):
            pass


async def test_following_a_log_asks_for_new_credentials_once(server: FakeKubernetes) -> None:
    server.answers = [refusal(401)]
    assert [chunk async for chunk in server.api().follow_logs("pod", "default")]
    server.answers = [refusal(401), refusal(401)]
    with pytest.raises(AccessDenied):
        async for _ in server.api().follow_logs("pod", "default"):
            pass


# Retries


async def test_a_read_is_tried_again_when_the_server_cannot_answer() -> None:
    server, time = FakeKubernetes(), SlowTime()
    api = Api(server, Connection("https://fake"), sleep=time.sleep)
    server.answers = [refusal(503), ConnectionDropped("reset"), refusal(429, retry_after="4")]
    assert await api.get("v1", "Namespace", "default")
    assert len(server.asked) == 4
    assert time.slept[-1] == 4.0


async def test_an_unreasonable_wait_is_bounded() -> None:
    server, time = FakeKubernetes(), SlowTime()
    api = Api(server, Connection("https://fake"), sleep=time.sleep)
    server.answers = [refusal(429, retry_after="86400")]
    await api.get("v1", "Namespace", "default")
    assert time.slept == [10.0]


async def test_in_the_end_the_cluster_is_unreachable(server: FakeKubernetes) -> None:
    server.answers = [refusal(503)] * 9
    with pytest.raises(ClusterUnreachable, match="503"):
        await server.api().get("v1", "Namespace", "default")
    assert len(server.asked) == 4


async def test_a_log_that_its_node_cannot_give_keeps_nobody_waiting(
    server: FakeKubernetes,
) -> None:
    server.answers = [refusal(500)] * 9
    with pytest.raises(ClusterUnreachable):
        await server.api().logs("pod", "default")
    assert len(server.asked) == 2


async def test_a_timeout_is_not_waited_for_again(server: FakeKubernetes) -> None:
    late = ConnectionDropped("timed out")
    late.was_timeout = True
    server.answers = [late]
    with pytest.raises(ConnectionDropped):
        await server.api().get("v1", "Namespace", "default")
    assert len(server.asked) == 1


@pytest.mark.parametrize("failure", [refusal(500), ConnectionDropped("reset")])
async def test_a_write_that_may_have_been_done_is_not_repeated(
    server: FakeKubernetes, failure: Any
) -> None:
    server.answers = [failure]
    with pytest.raises(ClusterUnreachable):
        await server.api().create(config_map("one"))
    assert len(server.asked) == 1


async def test_a_write_that_was_turned_away_is_repeated(server: FakeKubernetes) -> None:
    server.answers = [refusal(429)]
    await server.api().create(config_map("one"))
    assert len(server.asked) == 2


async def test_a_refused_token_is_renewed_once(server: FakeKubernetes, tmp_path: Any) -> None:
    token = tmp_path / "token"
    token.write_text("old")
    api = Api(server, Connection("https://fake", token_file=str(token)))
    await api.get("v1", "Namespace", "default")
    token.write_text("new")
    server.answers = [refusal(401)]
    await api.get("v1", "Namespace", "default")
    assert [h["Authorization"] for h in server.headers] == ["Bearer old"] * 2 + ["Bearer new"]


async def test_refused_credentials_are_said_and_never_shown(server: FakeKubernetes) -> None:
    server.answers = [refusal(401)] * 2
    with pytest.raises(AccessDenied, match="does not accept our credentials") as raised:
        await server.api().get("v1", "Namespace", "default")
    assert "s3cret" not in str(raised.value)
    assert "s3cret" not in repr(server.api())


async def test_what_is_no_api_server_is_said(server: FakeKubernetes) -> None:
    server.answers = [Answer(200, {}, b"<html>login</html>")]
    with pytest.raises(ClusterUnreachable, match="no Kubernetes API server"):
        await server.api().get("v1", "Namespace", "default")
    server.answers = [Answer(404, {}, b"<html>nginx</html>")]
    with pytest.raises(ClusterUnreachable, match="no Kubernetes API server"):
        await server.api().get("v1", "Namespace", "default")


# Observing


async def test_the_audit_hears_of_every_request_in_rbac_words(server: FakeKubernetes) -> None:
    heard: list[tuple[str, ...]] = []
    api = server.api(audit=lambda *args: heard.append(args))
    await api.create(config_map("one"))
    await api.get("v1", "ConfigMap", "one", "default")
    await api.list("v1", "Secret")
    await api.patch("v1", "ConfigMap", "one", "default", {})
    await api.delete("v1", "ConfigMap", "one", "default")
    async with aclosing(api.watch("v1", "Secret")) as events:  # type: ignore[type-var]
        await anext(events)
    assert heard == [
        ("create", "configmaps", "default", "one"),
        ("get", "configmaps", "default", "one"),
        ("list", "secrets", "", ""),
        ("patch", "configmaps", "default", "one"),
        ("delete", "configmaps", "default", "one"),
        ("list", "secrets", "", ""),
    ]


async def test_an_observer_writes_nothing(server: FakeKubernetes) -> None:
    api = server.api(read_only=True)
    made = server.put(config_map("one"))
    for write in (
        api.create(config_map("two")),
        api.replace(made),
        api.patch("v1", "ConfigMap", "one", "default", {}),
        api.delete("v1", "ConfigMap", "one", "default"),
    ):
        with pytest.raises(AccessDenied, match="only observes"):
            await write
    assert server.asked == []
    assert await api.can_i("delete", "v1", "ConfigMap", "default")


# Watches


class Follower:
    """Reads a watch in the background, event by event."""

    def __init__(self, events: AsyncIterator[WatchEvent]) -> None:
        self._events = events

    async def next(self) -> WatchEvent:
        return await asyncio.wait_for(anext(self._events), 5)


@pytest.fixture
async def follow(server: FakeKubernetes) -> AsyncIterator[Follower]:
    events = server.api().watch("v1", "ConfigMap", label_selector="app in (one,two)")
    yield Follower(events)
    await events.aclose()  # type: ignore[attr-defined]


async def watched(server: FakeKubernetes) -> None:
    """Until the watch is open."""
    while not server.watch_count:  # noqa: ASYNC110
        await asyncio.sleep(0)


async def test_a_watch_begins_with_a_list_and_goes_on_with_changes(
    server: FakeKubernetes, follow: Follower
) -> None:
    server.put(config_map("one"))
    first = await follow.next()
    assert isinstance(first, Listed)
    assert [item["metadata"]["name"] for item in first.items] == ["one"]

    waiting = asyncio.create_task(follow.next())
    await watched(server)
    server.put(config_map("other"))
    server.put(config_map("two"))
    server.remove("v1", "configmaps", "default", "one")
    second, third = await waiting, await follow.next()
    assert isinstance(second, Changed)
    assert isinstance(third, Changed)
    assert (second.object["metadata"]["name"], third.type) == ("two", "DELETED")
    assert int(third.resource_version) > int(second.resource_version)


async def test_bookmarks_tell_how_far_a_watch_has_come(
    server: FakeKubernetes, follow: Follower
) -> None:
    await follow.next()
    waiting = asyncio.create_task(follow.next())
    await watched(server)
    server.advance()
    version = server.bookmark()
    assert await waiting == Reached(version)


async def test_a_watch_that_ends_as_agreed_goes_on_where_it_was(
    server: FakeKubernetes, follow: Follower
) -> None:
    await follow.next()
    waiting = asyncio.create_task(follow.next())
    await watched(server)
    server.end_watches()
    server.put(config_map("one"))
    event = await waiting
    assert isinstance(event, Changed)
    watches = [path for _, path in server.asked if "watch=true" in path]
    assert len(watches) == 2

    # And from there on, not from the beginning.
    waiting = asyncio.create_task(follow.next())
    await watched(server)
    server.end_watches()
    server.put(config_map("two"))
    await waiting
    last = [path for _, path in server.asked if "watch=true" in path][-1]
    assert f"resourceVersion={event.resource_version}" in last
    assert sum("watch=true" not in path for _, path in server.asked) == 1


async def test_a_watch_that_breaks_says_so_and_begins_anew(
    server: FakeKubernetes, follow: Follower
) -> None:
    await follow.next()
    waiting = asyncio.create_task(follow.next())
    await watched(server)
    server.drop_watches()
    assert isinstance(await waiting, Lost)
    server.put(config_map("one"))
    again = await follow.next()
    assert isinstance(again, Listed)
    assert len(again.items) == 1


async def test_a_version_that_is_too_old_is_listed_anew_without_a_word(
    server: FakeKubernetes, follow: Follower
) -> None:
    await follow.next()
    waiting = asyncio.create_task(follow.next())
    await watched(server)
    server.expire_watches()
    assert isinstance(await waiting, Listed)


async def test_a_server_that_is_away_is_tried_until_it_is_back() -> None:
    server, time = FakeKubernetes(), SlowTime()
    server.is_unreachable = True
    api = Api(server, Connection("https://fake"), sleep=time.sleep)
    async with aclosing(api.watch("v1", "ConfigMap")) as events:  # type: ignore[type-var]
        for _ in range(9):
            assert isinstance(await anext(events), Lost)
        server.is_unreachable = False
        assert isinstance(await anext(events), Listed)
        assert max(time.slept) <= 30 * 1.2
        assert time.slept[5] > time.slept[0]

        # Once it has worked, a new break is tried again soon.
        waiting = asyncio.create_task(anext(events))
        await watched(server)
        server.put(config_map("one"))
        assert isinstance(await waiting, Changed)
        server.drop_watches()
        assert isinstance(await anext(events), Lost)
        assert isinstance(await anext(events), Listed)
        assert time.slept[-1] < 1


@pytest.mark.parametrize("verb", ["list", "watch"])
async def test_a_watch_that_is_not_allowed_ends(server: FakeKubernetes, verb: str) -> None:
    server.denied.add((verb, "configmaps", ""))
    with pytest.raises(AccessDenied, match=f'verbs \\["{verb}"\\]'):
        async for _ in server.api().watch("v1", "ConfigMap"):
            pass


async def test_a_watch_survives_an_expired_token(server: FakeKubernetes) -> None:
    api = server.api()
    async with aclosing(api.watch("v1", "ConfigMap")) as events:  # type: ignore[type-var]
        await anext(events)
        server.answers = [refusal(401)]
        waiting = asyncio.create_task(anext(events))
        await watched(server)
        server.put(config_map("one"))
        assert isinstance(await waiting, Changed)


# Connecting


async def test_connecting_sends_nothing(tmp_path: Any) -> None:
    path = tmp_path / "config"
    path.write_text(
        "current-context: c\n"
        "contexts: [{name: c, context: {cluster: c, namespace: apps}}]\n"
        "clusters: [{name: c, cluster: {server: 'http://127.0.0.1:1'}}]\n"
    )
    for light in (True, False):
        async with await Api.connect(kubeconfig=str(path), light=light) as api:
            assert (api.context, api.namespace, api.server) == ("c", "apps", "http://127.0.0.1:1")
            assert repr(api) == "<Api of c>"
