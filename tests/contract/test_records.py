"""Every `Records` keeps what it is given, and notices when somebody else wrote."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import UTC, datetime

import pytest

from helmops.cluster.api import Api
from helmops.cluster.records import SecretRecords
from helmops.errors import ObjectConflict, ObjectNotFound
from helmops.model.records import Record, Suspension
from helmops.model.releases import DeclarationKey, ReleaseId
from helmops.reconcile.ports import Records
from tests.fakes.kubernetes_api import FakeKubernetes
from tests.fakes.records import FakeRecords

NOW = datetime(2026, 1, 5, 12, tzinfo=UTC)


@dataclass
class World:
    """One way to keep records, seen by two who do not share their memory."""

    ours: Records
    theirs: Records
    namespace: str

    def record(self, name: str = "web") -> Record:
        return Record(
            key=DeclarationKey("declared", name),
            release=ReleaseId(self.namespace, name),
            manifest={"spec": {"values": {"big": 2**53 + 1, "text": "ä", "list": [1, None]}}},
            updated_at=NOW,
        )


@pytest.fixture(
    params=["fake", "memory", pytest.param("cluster", marks=pytest.mark.e2e)],
)
async def world(request: pytest.FixtureRequest) -> AsyncIterator[World]:
    if request.param == "fake":
        records = FakeRecords(["apps"])
        yield World(records, records, "apps")
    elif request.param == "memory":
        server = FakeKubernetes("apps")
        yield World(SecretRecords(server.api()), SecretRecords(server.api()), "apps")
    else:
        make: Callable[[], str] = request.getfixturevalue("make_namespace")
        async with await Api.connect(kubeconfig=str(request.getfixturevalue("kubeconfig"))) as api:
            yield World(SecretRecords(api), SecretRecords(api), make())


async def test_a_release_that_was_never_seen_has_no_record(world: World) -> None:
    assert await world.ours.load(ReleaseId(world.namespace, "nobody")) is None


async def test_what_was_saved_is_loaded_by_everybody(world: World) -> None:
    saved = await world.ours.save(world.record())

    assert saved.version
    assert await world.theirs.load(saved.release) == saved
    assert saved == world.record().evolve(version=saved.version)


async def test_a_changed_record_has_another_version(world: World) -> None:
    first = await world.ours.save(world.record())
    second = await world.ours.save(first.evolve(failures=3))

    assert second.version != first.version
    loaded = await world.theirs.load(first.release)
    assert loaded is not None
    assert loaded.failures == 3


async def test_who_writes_on_an_old_version_is_refused_and_changes_nothing(world: World) -> None:
    first = await world.ours.save(world.record())
    newer = await world.theirs.save(first.evolve(suspended=Suspension(NOW, "somebody")))

    with pytest.raises(ObjectConflict):
        await world.ours.save(first.evolve(failures=1))

    assert await world.ours.load(first.release) == newer


async def test_a_first_record_is_refused_where_there_is_one(world: World) -> None:
    await world.ours.save(world.record())
    with pytest.raises(ObjectConflict):
        await world.theirs.save(world.record())


async def test_a_record_that_was_deleted_in_between_is_a_conflict(world: World) -> None:
    first = await world.ours.save(world.record())
    await world.theirs.delete(first)
    with pytest.raises(ObjectConflict):
        await world.ours.save(first.evolve(failures=1))
    assert await world.ours.load(first.release) is None


async def test_a_missing_namespace_is_said(world: World) -> None:
    record = world.record()
    lost = record.evolve(release=ReleaseId("no-such-namespace", "web"))
    with pytest.raises(ObjectNotFound, match="no-such-namespace"):
        await world.ours.save(lost)


async def test_a_deleted_record_is_gone_and_deleting_it_again_is_no_error(world: World) -> None:
    saved = await world.ours.save(world.record())
    await world.ours.delete(saved)
    assert await world.ours.load(saved.release) is None
    assert await world.theirs.load(saved.release) is None
    await world.ours.delete(saved)


async def test_a_record_that_somebody_changed_is_not_deleted(world: World) -> None:
    saved = await world.ours.save(world.record())
    newer = await world.theirs.save(saved.evolve(failures=7))
    with pytest.raises(ObjectConflict):
        await world.ours.delete(saved)
    assert await world.ours.load(saved.release) == newer


async def test_all_records_of_the_namespaces_are_listed(world: World) -> None:
    for name in ("web", "api"):
        await world.ours.save(world.record(name))
    found = [r for r in await world.ours.load_all() if r.release.namespace == world.namespace]
    assert [record.release.name for record in found] == ["api", "web"]


async def test_a_namespace_that_exists_is_left_as_it_is(world: World) -> None:
    await world.ours.ensure_namespace(world.namespace)
    await world.ours.save(world.record())
