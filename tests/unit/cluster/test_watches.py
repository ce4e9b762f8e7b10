from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from helmops.cluster.watches import SecretIndex, SecretKind
from helmops.model.releases import ReleaseId
from tests.fakes.kubernetes_api import FakeKubernetes

WEB = ReleaseId("apps", "web")
API = ReleaseId("apps", "api")


def helm_secret(release: ReleaseId, revision: int) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {
            "name": f"sh.helm.release.v1.{release.name}.v{revision}",
            "namespace": release.namespace,
            "labels": {"owner": "helm", "name": release.name},
        },
        "data": {"release": "Zm9v"},
    }


def record_secret(release: ReleaseId) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {
            "name": f"helmops.{release.name}",
            "namespace": release.namespace,
            "labels": {"owner": "helmops", "name": release.name},
        },
    }


class Seen:
    """What the index told of, and a way to wait for it."""

    def __init__(self) -> None:
        self.changes: list[tuple[SecretKind, ReleaseId]] = []

    def __call__(self, kind: SecretKind, release: ReleaseId) -> None:
        self.changes.append((kind, release))


async def until(condition: Callable[[], bool]) -> None:
    """Let the index work until the condition holds."""
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0)


async def quiet() -> None:
    """Let everything that is on its way arrive."""
    for _ in range(50):
        await asyncio.sleep(0)


@contextlib.asynccontextmanager
async def running(
    server: FakeKubernetes, seen: Seen, *namespaces: str
) -> AsyncIterator[SecretIndex]:
    denials = asyncio.Event()

    async def sleep(_: float) -> None:
        await denials.wait()

    index = SecretIndex(server.api(), seen, namespaces, sleep=sleep)
    task = asyncio.create_task(index.run())
    try:
        yield index
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


@contextlib.asynccontextmanager
async def live(server: FakeKubernetes, seen: Seen | None = None) -> AsyncIterator[SecretIndex]:
    async with running(server, seen or Seen()) as index:
        await until(lambda: index.is_live("apps") and server.watch_count == 1)
        yield index


@pytest.fixture
def server() -> FakeKubernetes:
    return FakeKubernetes("apps", "shop")


def version(server: FakeKubernetes, release: ReleaseId, revision: int) -> str:
    name = f"sh.helm.release.v1.{release.name}.v{revision}"
    found = server.find("v1", "secrets", release.namespace, name)
    assert found is not None
    return str(found["metadata"]["resourceVersion"])


async def test_nothing_is_known_before_the_first_list(server: FakeKubernetes) -> None:
    index = SecretIndex(server.api(), Seen())
    assert index.versions(WEB) is None
    assert index.record_version(WEB) is None


async def test_versions_are_those_of_the_release_and_no_other(server: FakeKubernetes) -> None:
    for secret in (helm_secret(WEB, 1), helm_secret(WEB, 2), helm_secret(API, 1)):
        server.put(secret)
    server.put(record_secret(WEB))
    async with live(server) as index:
        assert index.versions(WEB) == {
            "sh.helm.release.v1.web.v1": version(server, WEB, 1),
            "sh.helm.release.v1.web.v2": version(server, WEB, 2),
        }
        assert index.versions(ReleaseId("apps", "nobody")) == {}
        record = server.find("v1", "secrets", "apps", "helmops.web")
        assert record is not None
        assert index.record_version(WEB) == record["metadata"]["resourceVersion"]
        assert index.record_version(API) == ""


async def test_only_metadata_is_asked_for(server: FakeKubernetes) -> None:
    async with live(server):
        assert all("PartialObjectMetadata" in headers["Accept"] for headers in server.headers)
        assert all("owner+in+%28helm%2Chelmops%29" in path for _, path in server.asked)


async def test_every_change_is_told_once_and_the_first_list_too(server: FakeKubernetes) -> None:
    server.put(helm_secret(WEB, 1))
    seen = Seen()
    async with live(server, seen) as index:
        assert seen.changes == [("helm", WEB)]
        server.put(record_secret(API))
        await until(lambda: len(seen.changes) == 2)
        server.remove("v1", "secrets", "apps", "sh.helm.release.v1.web.v1")
        await until(lambda: len(seen.changes) == 3)
        assert seen.changes[1:] == [("record", API), ("helm", WEB)]
        assert index.versions(WEB) == {}


async def test_secrets_that_are_no_releases_are_overlooked(server: FakeKubernetes) -> None:
    odd = helm_secret(WEB, 1)
    del odd["metadata"]["labels"]["name"]
    server.put(odd)
    seen = Seen()
    async with live(server, seen) as index:
        assert seen.changes == []
        assert index.versions(WEB) == {}


async def test_a_broken_watch_is_not_believed_until_it_has_listed_again(
    server: FakeKubernetes,
) -> None:
    server.put(helm_secret(WEB, 1))
    server.put(helm_secret(API, 1))
    seen = Seen()
    async with live(server, seen) as index:
        seen.changes.clear()
        server.is_unreachable = True
        server.drop_watches()
        await until(lambda: not index.is_live("apps"))
        assert index.versions(WEB) is None

        server.put(helm_secret(WEB, 2))
        server.is_unreachable = False
        await until(lambda: index.is_live("apps"))
        assert set(index.versions(WEB) or {}) == {
            "sh.helm.release.v1.web.v1",
            "sh.helm.release.v1.web.v2",
        }
        assert seen.changes == [("helm", WEB)]


async def test_a_stopped_index_is_not_believed(server: FakeKubernetes) -> None:
    async with live(server) as index:
        pass
    assert index.versions(WEB) is None


# Namespaces


async def test_where_all_namespaces_are_denied_those_it_is_told_of_are_watched(
    server: FakeKubernetes,
) -> None:
    server.denied.add(("list", "secrets", ""))
    server.put(helm_secret(WEB, 1))
    async with running(server, Seen()) as index:
        await until(lambda: not index.is_cluster_wide)
        assert index.versions(WEB) is None
        index.add_namespace("apps")
        index.add_namespace("apps")
        await until(lambda: index.is_live("apps"))
        assert index.versions(WEB)
        assert not index.is_live("shop")
        assert server.watch_count <= 1


async def test_a_namespace_that_is_denied_leaves_the_others_alone(server: FakeKubernetes) -> None:
    server.denied.add(("list", "secrets", "shop"))
    async with running(server, Seen(), "apps", "shop") as index:
        await until(lambda: index.is_live("apps"))
        await quiet()
        assert not index.is_live("shop")
        assert index.versions(ReleaseId("shop", "web")) is None


async def test_with_namespaces_given_only_they_are_asked_for(server: FakeKubernetes) -> None:
    async with running(server, Seen(), "apps") as index:
        await until(lambda: index.is_live("apps"))
        assert all("/namespaces/apps/" in path for _, path in server.asked)


# Our own writes


async def test_our_own_record_is_known_before_its_event_comes(server: FakeKubernetes) -> None:
    async with live(server) as index:
        index.wrote_record(WEB, "999999")
        assert index.record_version(WEB) == "999999"


async def test_our_own_record_is_forgotten_when_somebody_deletes_it(
    server: FakeKubernetes,
) -> None:
    async with live(server) as index:
        saved = server.put(record_secret(WEB))
        index.wrote_record(WEB, saved["metadata"]["resourceVersion"])
        server.remove("v1", "secrets", "apps", "helmops.web")
        await until(lambda: index.record_version(WEB) == "")


async def test_a_record_that_we_deleted_is_gone_at_once(server: FakeKubernetes) -> None:
    server.put(record_secret(WEB))
    async with live(server) as index:
        assert index.record_version(WEB)
        index.deleted_record(WEB)
        assert index.record_version(WEB) == ""


# While helm runs, and after it


async def test_while_helm_runs_nothing_is_believed(server: FakeKubernetes) -> None:
    async with live(server) as index:
        with index.changing(WEB):
            mark = index.begin_read(WEB)
            index.finish_read(mark, {}, "1")
            assert index.versions(WEB) is None
            assert index.versions(API) == {}
        assert index.versions(WEB) is None


def read(server: FakeKubernetes, release: ReleaseId) -> tuple[dict[str, str], str]:
    """What a list would show now."""
    found = {
        name: str(item["metadata"]["resourceVersion"])
        for (namespace, name), item in server._objects.get(("v1", "secrets"), {}).items()
        if namespace == release.namespace
        and (item["metadata"].get("labels") or {}).get("name") == release.name
    }
    return found, str(server._version)


async def test_after_helm_it_is_believed_once_it_shows_what_a_list_showed(
    server: FakeKubernetes,
) -> None:
    async with live(server) as index:
        with index.changing(WEB):
            server.put(helm_secret(WEB, 1))
        # The list is here before the watch's event, and names a version that the watch, which sees
        # nothing but these Secrets, does not come to for a minute.
        server.advance()
        mark = index.begin_read(WEB)
        index.finish_read(mark, *read(server, WEB))
        assert index.versions(WEB) is None
        await until(lambda: index.versions(WEB) is not None)
        assert index.versions(WEB) == read(server, WEB)[0]


async def test_a_list_of_before_helm_ended_clears_nothing(server: FakeKubernetes) -> None:
    async with live(server) as index:
        with index.changing(WEB):
            mark = index.begin_read(WEB)
            listed = read(server, WEB)
            server.put(helm_secret(WEB, 1))
        index.finish_read(mark, *listed)
        await quiet()
        assert index.versions(WEB) is None


async def test_a_list_of_an_earlier_doubt_does_not_clear_a_later_one(
    server: FakeKubernetes,
) -> None:
    async with live(server) as index:
        with index.changing(WEB):
            pass
        early = index.begin_read(WEB)
        listed = read(server, WEB)
        index.finish_read(index.begin_read(WEB), *listed)
        assert index.versions(WEB) == {}
        with index.changing(WEB):
            server.put(helm_secret(WEB, 1))
        index.finish_read(early, *listed)
        assert index.versions(WEB) is None


async def test_of_two_operations_at_once_both_must_have_ended(server: FakeKubernetes) -> None:
    async with live(server) as index:
        with index.changing(WEB):
            with index.changing(WEB):
                pass
            index.finish_read(index.begin_read(WEB), *read(server, WEB))
            assert index.versions(WEB) is None
        index.finish_read(index.begin_read(WEB), *read(server, WEB))
        assert index.versions(WEB) == {}


async def test_an_index_that_is_ahead_of_the_list_is_believed(server: FakeKubernetes) -> None:
    async with live(server) as index:
        index.expect_change(WEB)
        mark = index.begin_read(WEB)
        listed = read(server, WEB)
        server.put(helm_secret(WEB, 7))  # somebody else, after our list
        await quiet()
        index.finish_read(mark, *listed)
        assert set(index.versions(WEB) or {}) == {"sh.helm.release.v1.web.v7"}


async def test_an_index_that_is_behind_waits_for_a_bookmark(server: FakeKubernetes) -> None:
    async with live(server) as index:
        index.expect_change(WEB)
        mark = index.begin_read(WEB)
        server.advance()
        index.finish_read(mark, {"sh.helm.release.v1.web.v1": "1"}, read(server, WEB)[1])
        await quiet()
        assert index.versions(WEB) is None
        server.bookmark()
        await until(lambda: index.versions(WEB) == {})


async def test_a_new_list_after_a_break_settles_what_was_in_doubt(server: FakeKubernetes) -> None:
    async with live(server) as index:
        index.expect_change(WEB)
        server.is_unreachable = True
        server.drop_watches()
        await until(lambda: not index.is_live("apps"))
        server.put(helm_secret(WEB, 1))
        index.finish_read(index.begin_read(WEB), *read(server, WEB))
        assert index.versions(WEB) is None
        server.is_unreachable = False
        await until(lambda: index.versions(WEB) == read(server, WEB)[0])
