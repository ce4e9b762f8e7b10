from __future__ import annotations

import asyncio
import base64
import contextlib
import gzip
import random
from typing import Any

import pytest

from helmops.cluster.records import SecretRecords, secret_name
from helmops.cluster.watches import SecretIndex
from helmops.errors import AccessDenied, ClusterError
from helmops.model.records import Record, healthy_secret_name
from helmops.model.releases import DeclarationKey, ReleaseId
from tests.fakes.kubernetes_api import FakeKubernetes

WEB = ReleaseId("apps", "web")


def record(release: ReleaseId = WEB, **changes: Any) -> Record:
    return Record(key=DeclarationKey("declared", "web"), release=release, **changes)


@pytest.fixture
def server() -> FakeKubernetes:
    return FakeKubernetes("apps", "shop")


def stored(server: FakeKubernetes, release: ReleaseId = WEB) -> dict[str, Any]:
    found = server.find("v1", "secrets", release.namespace, f"helmops.{release.name}")
    assert found is not None
    return found


async def test_the_secret_is_one_that_helm_overlooks(server: FakeKubernetes) -> None:
    await SecretRecords(server.api()).save(record())
    secret = stored(server)
    assert secret["type"] == "helmops.dev/record"
    assert secret["metadata"]["labels"]["owner"] == "helmops"
    assert secret["metadata"]["labels"]["name"] == "web"
    assert secret["metadata"]["annotations"]["helmops.dev/declaration"] == "declared/web"
    assert (secret_name(WEB), healthy_secret_name(WEB)) == ("helmops.web", "helmops.web.healthy")


async def test_an_unchanged_record_is_not_a_new_version(server: FakeKubernetes) -> None:
    records = SecretRecords(server.api())
    first = await records.save(record(failures=1))
    assert (await records.save(first)).version == first.version


async def test_labels_that_somebody_put_on_it_stay(server: FakeKubernetes) -> None:
    records = SecretRecords(server.api())
    saved = await records.save(record())
    secret = stored(server)
    secret["metadata"]["labels"]["backup"] = "daily"
    await records.save(saved.evolve(failures=1))
    assert stored(server)["metadata"]["labels"]["backup"] == "daily"


async def test_a_record_too_large_for_a_secret_is_said_before_it_is_sent(
    server: FakeKubernetes,
) -> None:
    noise = base64.b64encode(random.Random(1).randbytes(1024 * 1024)).decode()
    with pytest.raises(ClusterError, match="more than a Secret can hold"):
        await SecretRecords(server.api()).save(record(manifest={"noise": noise}))
    assert server.asked == []


def spoil(secret: dict[str, Any], data: bytes) -> None:
    secret["data"]["record"] = base64.b64encode(data).decode()


@pytest.mark.parametrize(
    "data",
    [
        b"not gzip",
        gzip.compress(b"not json", mtime=0),
        gzip.compress(b"{}", mtime=0),
        gzip.compress(b"x" * 1000, mtime=0)[:-10],
        gzip.compress(b"0" * (65 * 1024 * 1024), mtime=0),
    ],
    ids=["not gzip", "not json", "no record", "truncated", "a bomb"],
)
async def test_a_record_that_cannot_be_read_says_where_and_hurts_nobody_else(
    server: FakeKubernetes, data: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    records = SecretRecords(server.api())
    await records.save(record())
    other = await records.save(record(ReleaseId("apps", "other")))
    secret = stored(server)
    spoil(secret, data)
    server.put(secret)

    with pytest.raises(ClusterError, match=r"Secret apps/helmops\.web: the record cannot be read"):
        await SecretRecords(server.api()).load(WEB)
    assert await SecretRecords(server.api()).load_all() == (other,)
    assert "helmops.web" in caplog.text


async def test_a_record_that_was_copied_elsewhere_is_not_believed(server: FakeKubernetes) -> None:
    records = SecretRecords(server.api())
    await records.save(record())
    copied = {**stored(server), "metadata": {**stored(server)["metadata"], "namespace": "shop"}}
    server.put(copied)
    with pytest.raises(ClusterError, match="was it copied"):
        await records.load(ReleaseId("shop", "web"))


async def test_the_secret_reserved_for_the_healthy_copy_is_no_record(
    server: FakeKubernetes,
) -> None:
    records = SecretRecords(server.api())
    saved = await records.save(record())
    copy = stored(server)
    healthy = {**copy["metadata"], "name": "helmops.web.healthy"}
    server.put({**copy, "metadata": healthy, "type": "helmops.dev/healthy"})
    assert await records.load_all() == (saved,)


# Which namespaces


async def test_where_all_namespaces_are_denied_those_that_are_known_are_listed(
    server: FakeKubernetes,
) -> None:
    saved = await SecretRecords(server.api()).save(record())
    server.denied.add(("list", "secrets", ""))
    records = SecretRecords(server.api())
    with pytest.raises(AccessDenied, match="in the whole cluster"):
        await records.load_all()
    records.see("apps")
    assert await records.load_all() == (saved,)


async def test_a_limited_adapter_asks_for_its_namespaces_only(server: FakeKubernetes) -> None:
    everything = SecretRecords(server.api())
    await everything.save(record())
    await everything.save(record(ReleaseId("shop", "web")))
    found = await SecretRecords(server.api(), namespaces=["shop"]).load_all()
    assert [each.release.namespace for each in found] == ["shop"]


async def test_a_missing_namespace_is_created(server: FakeKubernetes) -> None:
    records = SecretRecords(server.api())
    await records.ensure_namespace("new")
    assert server.find("v1", "namespaces", "", "new")
    asked = len(server.asked)
    await records.ensure_namespace("new")
    assert server.asked[asked:] == [("GET", "/api/v1/namespaces/new")]


async def test_who_may_create_namespaces_needs_not_look_at_them(server: FakeKubernetes) -> None:
    server.denied.add(("get", "namespaces", ""))
    await SecretRecords(server.api()).ensure_namespace("new")
    assert server.find("v1", "namespaces", "", "new")


async def test_who_may_do_neither_is_told(server: FakeKubernetes) -> None:
    server.denied |= {("get", "namespaces", ""), ("create", "namespaces", "")}
    with pytest.raises(AccessDenied, match="may not create namespaces"):
        await SecretRecords(server.api()).ensure_namespace("new")


# With an index


async def test_with_an_index_a_record_is_read_once(server: FakeKubernetes) -> None:
    api = server.api()
    index = SecretIndex(api, lambda kind, release: None)
    task = asyncio.create_task(index.run())
    records = SecretRecords(api, index=index)
    saved = await records.save(record())
    while not (index.is_live("apps") and server.watch_count):  # noqa: ASYNC110
        await asyncio.sleep(0)

    asked = len(server.asked)
    for _ in range(3):
        assert await records.load(WEB) == saved
        assert await records.load(ReleaseId("apps", "nobody")) is None
    assert len(server.asked) == asked

    # Somebody else writes: seen when the event comes.
    newer = await SecretRecords(server.api()).save(saved.evolve(failures=5))
    while index.record_version(WEB) != newer.version:  # noqa: ASYNC110
        await asyncio.sleep(0)
    assert await records.load(WEB) == newer

    await records.delete(newer)
    assert await records.load(WEB) is None
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
