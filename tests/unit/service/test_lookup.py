from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from helmops.errors import AccessDenied, ClusterUnreachable, HelmopsError, ObjectNotFound
from helmops.model.records import Record, Suspension
from helmops.model.releases import DeclarationKey, ReleaseId
from helmops.service import lookup
from helmops.service.settings import Settings
from helmops.store.journal import SqlJournal
from tests.unit.decide.samples import NOW
from tests.unit.reconcile.samples import key

SECOND = timedelta(seconds=1)
MICROSECOND = timedelta(microseconds=1)


def record(name: str = "web", namespace: str = "apps", **other: Any) -> Record:
    fields = {"updated_at": NOW, "state": "InSync", "manifest": {"spec": {"interval": "1h"}}}
    return Record(
        DeclarationKey(namespace, name), ReleaseId(namespace, name), **{**fields, **other}
    )


class Room:
    """A cluster's records and a state database, both as the tests fill them."""

    def __init__(self, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
        self.settings = settings
        self.records: tuple[Record, ...] = ()
        self.failure: HelmopsError | None = None
        monkeypatch.setattr(lookup, "records", self._records)

    async def _records(self, _: Settings, *, namespace: str | None = None) -> tuple[Record, ...]:
        if self.failure is not None:
            raise self.failure
        return self.records

    async def publish(self, *records: Record) -> None:
        journal = SqlJournal(self.settings.state, now=lambda: NOW)
        await journal.open()
        for each in records:
            await journal.publish(each)
        await journal.close()

    async def states(self, namespace: str | None = None) -> dict[str, str]:
        return {
            manifest["metadata"]["name"]: manifest["status"]["helmops"]["state"]
            for manifest in await lookup.manifests(self.settings, namespace=namespace)
        }


@pytest.fixture
def room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Room:
    settings = Settings.load({}, {"HOME": str(tmp_path), "XDG_STATE_HOME": str(tmp_path / "s")})
    return Room(settings, monkeypatch)


async def test_records_are_found_without_a_database(room: Room) -> None:
    room.records = (record("web"), record("db", "data"))
    assert await room.states() == {"db": "InSync", "web": "InSync"}
    assert not room.settings.state.path or not room.settings.state.path.exists()


async def test_what_never_got_a_record_is_found_in_the_database(room: Room) -> None:
    await room.publish(record("new", state="Absent"))
    room.records = (record("web"),)
    assert await room.states() == {"new": "Absent", "web": "InSync"}
    (new, _) = await lookup.manifests(room.settings)
    assert new["kind"] == "HelmRelease"
    assert "spec" not in new, "the database holds no declarations"


@pytest.mark.parametrize(
    ("later", "state"),
    [
        (-SECOND, "InSync"),
        (-MICROSECOND, "InSync"),
        (timedelta(), "InSync"),
        (MICROSECOND, "Failed"),
        (SECOND, "Failed"),
    ],
    ids=str,
)
async def test_of_a_record_and_the_database_the_newer_says_how_it_is(
    room: Room, later: timedelta, state: str
) -> None:
    await room.publish(record(state="Failed", updated_at=NOW + later))
    room.records = (record(),)
    assert await room.states() == {"web": state}
    (manifest,) = await lookup.manifests(room.settings)
    assert manifest["spec"] == {"interval": "1h"}, "the declaration is the record's in any case"


async def test_what_a_person_has_just_suspended_is_suspended(room: Room) -> None:
    """The service may be down, so that nobody tells the database."""
    moment = NOW + timedelta(microseconds=500_000)
    await room.publish(record(updated_at=moment))
    suspended = record(suspended=Suspension(moment), updated_at=moment + MICROSECOND)
    room.records = (suspended,)
    (manifest,) = await lookup.manifests(room.settings)
    assert manifest["status"]["helmops"]["suspended"]


async def test_a_record_without_a_time_is_older_than_anything(room: Room) -> None:
    await room.publish(record(state="Failed"))
    room.records = (record(updated_at=None),)
    assert await room.states() == {"web": "Failed"}


async def test_releases_come_by_namespace_and_name(room: Room) -> None:
    room.records = (record("b", "z"), record("c", "a"), record("a", "z"))
    assert list(await room.states()) == ["c", "a", "b"]


async def test_a_namespace_is_that_of_the_declaration(room: Room) -> None:
    moved = Record(key("web"), ReleaseId("prod", "web"), state="InSync", updated_at=NOW)
    room.records = (moved, record("db", "data"))
    assert list(await room.states("apps")) == ["web"]
    assert list(await room.states("prod")) == []


async def test_without_a_cluster_the_database_is_enough(room: Room) -> None:
    await room.publish(record())
    room.failure = ClusterUnreachable("gone")
    assert await room.states() == {"web": "InSync"}


@pytest.mark.parametrize("failure", [ClusterUnreachable("gone"), AccessDenied("403")])
async def test_where_nothing_can_be_known_that_is_said(room: Room, failure: HelmopsError) -> None:
    room.failure = failure
    with pytest.raises(type(failure)):
        await lookup.manifests(room.settings)


async def test_one_release_is_found_by_namespace_and_name(room: Room) -> None:
    room.records = (record("web"), record("web", "other", state="Failed"))
    found = await lookup.one(room.settings, key("web", "other"))
    assert found["status"]["helmops"]["state"] == "Failed"


async def test_a_release_that_is_not_there_is_said_with_where_to_look(room: Room) -> None:
    room.records = (record("web"),)
    with pytest.raises(ObjectNotFound, match="there is no release apps/none") as raised:
        await lookup.one(room.settings, key("none"))
    assert "helmops get releases -A" in raised.value.next_step
