"""The cluster's adapters against a real API server, where the fakes can only guess."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from devcluster.cluster import Cluster
from helmops.cluster.api import Api, Changed, Listed, Lost, Reached
from helmops.cluster.leases import ClusterLeases
from helmops.cluster.records import SecretRecords
from helmops.cluster.references import ClusterReferences
from helmops.cluster.watches import SecretIndex
from helmops.errors import (
    AccessDenied,
    ClusterUnreachable,
    LeaseHeld,
    ObjectConflict,
    ObjectNotFound,
)
from helmops.model.records import Record
from helmops.model.releases import DeclarationKey, ReleaseId
from tests.fakes.clock import FakeClock


@pytest.fixture(params=["client", "light"])
async def either(request: pytest.FixtureRequest, kubeconfig: Path) -> AsyncIterator[Api]:
    """An Api over each transport."""
    is_light = request.param == "light"
    async with await Api.connect(kubeconfig=str(kubeconfig), light=is_light) as api:
        yield api


@pytest.fixture
async def api(kubeconfig: Path) -> AsyncIterator[Api]:
    async with await Api.connect(kubeconfig=str(kubeconfig)) as api:
        yield api


def config_map(namespace: str, name: str, **data: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": namespace, "labels": {"made-by": "test"}},
        "data": data,
    }


async def test_objects_are_made_changed_and_removed(either: Api, namespace: str) -> None:
    made = await either.create(config_map(namespace, "one", a="1"))
    with pytest.raises(ObjectConflict):
        await either.create(config_map(namespace, "one"))

    replaced = await either.replace({**made, "data": {"a": "2"}})
    with pytest.raises(ObjectConflict):
        await either.replace({**made, "data": {"a": "3"}})

    where = ("v1", "ConfigMap", "one", namespace)
    merged = await either.patch(*where, {"data": {"b": "3"}})
    assert merged["data"] == {"a": "2", "b": "3"}
    old = {"metadata": {"resourceVersion": replaced["metadata"]["resourceVersion"]}}
    with pytest.raises(ObjectConflict):
        await either.patch(*where, {**old, "data": {"b": "4"}})

    intent = {**config_map(namespace, "applied", c="1")}
    applied = await either.patch("v1", "ConfigMap", "applied", namespace, intent, how="apply")
    assert applied["metadata"]["managedFields"][0]["manager"] == "helmops"
    dry = {**config_map(namespace, "applied", c="2")}
    await either.patch("v1", "ConfigMap", "applied", namespace, dry, how="apply", dry_run=True)
    found = await either.get("v1", "ConfigMap", "applied", namespace)
    assert found is not None
    assert found["data"] == {"c": "1"}

    assert await either.delete(*where, uid=made["metadata"]["uid"])
    assert not await either.delete(*where)
    assert await either.get(*where) is None


async def test_lists_are_paged_selected_and_slimmed(either: Api, namespace: str) -> None:
    for number in range(5):
        await either.create(config_map(namespace, f"c{number}", a="1"))
    listing = await either.list(
        "v1", "ConfigMap", namespace, label_selector="made-by=test", page_size=2
    )
    assert [item["metadata"]["name"] for item in listing.items] == [f"c{n}" for n in range(5)]
    assert listing.items[0]["kind"] == "ConfigMap"

    slim = await either.list(
        "v1", "ConfigMap", namespace, field_selector="metadata.name=c3", metadata_only=True
    )
    assert [sorted(item) for item in slim.items] == [["metadata"]] or "data" not in slim.items[0]


async def test_refusals_of_a_real_server_are_mapped(either: Api, namespace: str) -> None:
    with pytest.raises(ObjectNotFound):
        await either.create(config_map("no-such-namespace", "one"))
    with pytest.raises(ObjectNotFound, match="Widget"):
        await either.resource_for("example.com/v1", "Widget")
    with pytest.raises(ObjectNotFound, match="no kind Nonsense"):
        await either.resource_for("apps/v1", "Nonsense")
    with pytest.raises(ObjectNotFound):
        await either.logs("nobody", namespace)
    assert (await either.resource_for("apiregistration.k8s.io/v1", "APIService")).plural
    assert (await either.resource_for("resource.k8s.io/v1", "ResourceClaim")).is_namespaced
    assert (await either.server_version()).startswith("v1.")
    assert await either.can_i("delete", "v1", "Secret", namespace)


async def test_a_secret_that_is_refused_is_not_quoted(either: Api, namespace: str) -> None:
    manifest = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "one", "namespace": namespace},
        "data": {"a key": "czNjcmV0", "token": 12345678},
    }
    with pytest.raises(Exception, match="Secret") as raised:
        await either.create(manifest)
    assert "12345678" not in str(raised.value)
    assert "czNjcmV0" not in str(raised.value)


async def test_a_wrong_token_is_refused_and_not_shown(cluster: Cluster, tmp_path: Path) -> None:
    path = tmp_path / "config"
    path.write_text(
        f"current-context: c\ncontexts: [{{name: c, context: {{cluster: c, user: u}}}}]\n"
        f"users: [{{name: u, user: {{token: s3cret}}}}]\n"
        f"clusters: [{{name: c, cluster: {{server: '{cluster.server}', "
        f"certificate-authority: '{cluster.ca_file}'}}}}]\n"
    )
    async with await Api.connect(kubeconfig=str(path)) as api:
        with pytest.raises(AccessDenied, match="does not accept our credentials") as raised:
            await api.get("v1", "Namespace", "default")
    assert "s3cret" not in str(raised.value)


async def test_a_watch_sees_what_happens(api: Api, namespace: str) -> None:
    await api.create(config_map(namespace, "before"))
    events = api.watch(
        "v1", "ConfigMap", namespace, label_selector="made-by=test", metadata_only=True
    )
    async with asyncio.timeout(20), aclosing(events):  # type: ignore[type-var]
        first = await anext(events)
        assert isinstance(first, Listed)
        assert [item["metadata"]["name"] for item in first.items] == ["before"]
        assert "data" not in first.items[0]

        made = await api.create(config_map(namespace, "after", big="x" * 100_000))
        await api.delete("v1", "ConfigMap", "after", namespace)
        seen = []
        while len(seen) < 2:
            event = await anext(events)
            if isinstance(event, Changed):
                seen.append((event.type, event.object["metadata"]["name"]))
                assert int(event.resource_version) >= int(made["metadata"]["resourceVersion"])
        assert seen == [("ADDED", "after"), ("DELETED", "after")]


async def test_an_api_server_that_goes_and_comes_back(private_cluster: Cluster) -> None:
    kubeconfig = str(private_cluster.kubeconfig)
    changes: list[ReleaseId] = []
    release = ReleaseId("default", "web")
    async with await Api.connect(kubeconfig=kubeconfig) as api:
        index = SecretIndex(api, lambda kind, changed: changes.append(changed))
        task = asyncio.create_task(index.run())
        records = SecretRecords(api, index=index)
        leases = ClusterLeases(api, FakeClock().now, duration=3, renew_every=0.5)
        saved = await records.save(Record(DeclarationKey("default", "web"), release))
        await _until(lambda: index.record_version(release) == saved.version)

        async def work() -> None:
            async with leases.hold(release):
                await asyncio.to_thread(private_cluster.stop_apiserver)
                await asyncio.sleep(30)

        with pytest.raises(LeaseHeld, match="could not be renewed"):
            await work()
        await _until(lambda: not index.is_live("default"))
        with pytest.raises(ClusterUnreachable):
            await records.load(release)

        await asyncio.to_thread(private_cluster.start_apiserver)
        await _until(lambda: index.is_live("default"), seconds=40)
        assert await records.load(release) == saved
        newer = await records.save(saved.evolve(failures=1))
        await _until(lambda: index.record_version(release) == newer.version)
        # What was left behind is this process's own, and free at once.
        async with leases.hold(release):
            pass
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def _until(condition: Callable[[], bool], seconds: float = 20) -> None:
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_the_index_knows_what_a_real_helm_wrote(
    api: Api, namespace: str, helm: Path, charts: Path, kubeconfig: Path
) -> None:
    release = ReleaseId(namespace, "app")
    seen: list[tuple[str, ReleaseId]] = []

    def note(kind: str, changed: ReleaseId) -> None:
        if changed.namespace == namespace:
            seen.append((kind, changed))

    index = SecretIndex(api, note)
    task = asyncio.create_task(index.run())
    await _until(lambda: index.is_live(namespace))
    assert index.versions(release) == {}

    async def run(*command: str) -> None:
        environment = {**os.environ, "KUBECONFIG": str(kubeconfig)}
        process = await asyncio.create_subprocess_exec(
            str(helm), *command, "-n", namespace, env=environment, stdout=subprocess.DEVNULL
        )
        assert await process.wait() == 0

    async def listed() -> tuple[dict[str, str], str]:
        found = await api.list(
            "v1", "Secret", namespace, label_selector="owner=helm,name=app", metadata_only=True
        )
        versions = {
            item["metadata"]["name"]: item["metadata"]["resourceVersion"] for item in found.items
        }
        return versions, found.resource_version

    for command in (
        ("install", "app", str(charts / "config")),
        ("upgrade", "app", str(charts / "config"), "--set", "message=two"),
        ("rollback", "app", "1"),
        ("uninstall", "app"),
    ):
        with index.changing(release):
            await run(*command)
            assert index.versions(release) is None
        mark = index.begin_read(release)
        truth, version = await listed()
        index.finish_read(mark, truth, version)
        # At once or a moment later, and never anything but the truth.
        await _until(lambda: index.versions(release) is not None)
        assert index.versions(release) == truth
    assert seen
    assert set(seen) == {("helm", release)}

    # Somebody else's helm is seen too.
    await run("install", "app", str(charts / "config"))
    await _until(lambda: bool(index.versions(release)))
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


async def test_objects_of_a_real_release_are_known_as_its_own(
    api: Api, namespace: str, helm: Path, charts: Path, kubeconfig: Path
) -> None:
    environment = {**os.environ, "KUBECONFIG": str(kubeconfig)}
    subprocess.run(  # noqa: ASYNC221
        [helm, "install", "app", charts / "config", "-n", namespace],
        env=environment,
        check=True,
        stdout=subprocess.DEVNULL,
    )
    maps = await api.list(
        "v1", "ConfigMap", namespace, label_selector="app.kubernetes.io/managed-by=Helm"
    )
    references = ClusterReferences(api)
    assert maps.items
    assert await references.owned_by_other(ReleaseId(namespace, "app"), maps.items) == ()
    told = await references.owned_by_other(ReleaseId(namespace, "other"), maps.items)
    assert len(told) == len(maps.items)
    assert told[0].endswith(f"belongs to release {namespace}/app")


async def test_a_lease_of_a_killed_process_is_free_at_once(
    api: Api, namespace: str, kubeconfig: Path
) -> None:
    program = """
import asyncio, sys
from datetime import UTC, datetime
from helmops.cluster.api import Api
from helmops.cluster.leases import ClusterLeases
from helmops.model.releases import ReleaseId

async def main():
    async with await Api.connect(kubeconfig=sys.argv[1]) as api:
        now = datetime(2026, 1, 5, 12, tzinfo=UTC)
        async with ClusterLeases(api, lambda: now).hold(ReleaseId(sys.argv[2], "web")):
            print("held", flush=True)
            await asyncio.sleep(600)

asyncio.run(main())
"""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, str(kubeconfig), namespace, stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    assert await process.stdout.readline() == b"held\n"
    leases = ClusterLeases(api, FakeClock().now)
    release = ReleaseId(namespace, "web")
    try:
        with pytest.raises(LeaseHeld, match=f"process {process.pid} on"):
            async with leases.hold(release):
                pytest.fail("two hold it")
    finally:
        process.kill()
        await process.wait()
    async with leases.hold(release):
        pass


async def test_a_watch_that_is_cut_off_says_lost(private_cluster: Cluster) -> None:
    async with await Api.connect(kubeconfig=str(private_cluster.kubeconfig)) as api:
        events = api.watch("v1", "Namespace", metadata_only=True)
        async with asyncio.timeout(40), aclosing(events):  # type: ignore[type-var]
            assert isinstance(await anext(events), Listed)
            waiting = asyncio.ensure_future(anext(events))
            await asyncio.sleep(0.2)
            await asyncio.to_thread(private_cluster.stop_apiserver)
            event = await waiting
            while isinstance(event, Changed | Reached):
                event = await anext(events)
            assert isinstance(event, Lost)
