"""helmops/sources/oci_knowledge.py: what is known of repositories in registries. How charts come of
it is tested with `oci_artifacts`, how files do with `oci_trees`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from devcluster.loopback import Fault
from devcluster.oci_server import OciServer
from helmops.errors import ChartRefused, SignatureRefused, SourceInvalid, SourceUnavailable
from helmops.http import Http
from helmops.model.credentials import HttpCredentials
from helmops.model.declarations import OCIRepositorySpec
from helmops.sources.oci_knowledge import (
    FAILURE_KEPT,
    OciKnowledge,
    Wanted,
    layer_of_type,
    of_artifact,
    refuse_want_of_key,
)
from helmops.sources.oci_registry import Descriptor, Manifest

NONE = HttpCredentials()
NAME = "team/fleet"


class Room:
    def __init__(self, server: OciServer, http: Http, cache: Path) -> None:
        self.server, self._http, self.cache = server, http, cache
        self.now = 0.0
        self.restart()

    def restart(self) -> None:
        """A new process on the same cache."""
        self.knowledge = OciKnowledge(self._http, self.cache, monotonic=lambda: self.now)

    def spec(self, **given: Any) -> OCIRepositorySpec:
        said = {"url": f"{self.server.url}/{NAME}", "interval": "5m", "insecure": True, **given}
        return OCIRepositorySpec.model_validate(said)

    def asked(self, **given: Any) -> Wanted:
        return of_artifact(self.spec(**given), NONE)

    def requests(self) -> int:
        return len(self.server.server.requests)


@pytest.fixture
def server() -> Iterator[OciServer]:
    with OciServer() as one:
        yield one


@pytest.fixture
async def http() -> AsyncIterator[Http]:
    async with Http() as one:
        yield one


@pytest.fixture
def room(server: OciServer, http: Http, tmp_path: Path) -> Room:
    return Room(server, http, tmp_path)


async def test_a_tag_is_asked_for_once_an_interval(room: Room) -> None:
    digest = room.server.push(NAME, "latest", b"one")
    asked = room.asked()
    known = await room.knowledge.known(asked)
    assert await room.knowledge.pinned(known, asked) == digest
    newer = room.server.push(NAME, "latest", b"two")
    assert await room.knowledge.pinned(known, asked) == digest
    assert room.requests() == 1
    room.now += 301
    assert await room.knowledge.pinned(known, asked) == newer


async def test_a_failure_counts_for_all_that_come_right_after_it(room: Room) -> None:
    room.server.push(NAME, "latest", b"one")
    room.server.server.fail(Fault(status=503))
    asked = room.asked()
    known = await room.knowledge.known(asked)
    for _ in range(3):
        with pytest.raises(SourceUnavailable):
            await room.knowledge.poll(known, asked)
    assert room.requests() == 1
    assert "503" in await room.knowledge.trouble(asked)
    room.server.server.heal()
    room.now += FAILURE_KEPT + 1
    await room.knowledge.poll(known, asked)
    assert await room.knowledge.trouble(asked) == ""


async def test_what_was_seen_is_known_to_the_next_process_and_asked_for_again(room: Room) -> None:
    digest = room.server.push(NAME, "latest", b"one")
    asked = room.asked()
    await room.knowledge.pinned(await room.knowledge.known(asked), asked)
    room.restart()
    known = await room.knowledge.known(asked)
    assert known.pins["latest"].digest == digest
    newer = room.server.push(NAME, "latest", b"two")
    assert await room.knowledge.pinned(known, asked) == newer


async def test_what_is_on_disk_is_believed_only_where_it_is_whole(room: Room) -> None:
    room.server.push(NAME, "latest", b"one")
    asked = room.asked()
    await room.knowledge.pinned(await room.knowledge.known(asked), asked)
    (state,) = room.knowledge.directory.glob("*.json")
    for damaged in ("", "{", '{"pins": {"latest": "sha256:../../x", "no tag": "sha256:00"}}'):
        state.write_text(damaged)
        room.restart()
        assert not (await room.knowledge.known(asked)).pins


async def test_repositories_are_apart_by_what_they_are_opened_with(room: Room) -> None:
    ann = HttpCredentials(username="ann", password="hunter2")
    one = await room.knowledge.known(room.asked())
    other = await room.knowledge.known(of_artifact(room.spec(), ann))
    assert one is not other
    assert one is await room.knowledge.known(room.asked(ref={"tag": "other"}))
    assert "hunter2" not in repr(of_artifact(room.spec(), ann))


def test_a_layer_is_found_by_its_media_type() -> None:
    layers = tuple(Descriptor(f"sha256:{n}", 1, kind) for n, kind in enumerate(("a", "b", "b")))
    manifest = Manifest("sha256:0", layers=layers)
    assert layer_of_type(manifest, "b", "here") is layers[1]
    with pytest.raises(ChartRefused, match="no layer of the media type c") as refused:
        layer_of_type(manifest, "c", "here")
    assert refused.value.next_step == "it has: a, b"


def test_what_must_be_signed_needs_a_key(room: Room) -> None:
    signed = room.spec(verify={"provider": "cosign"})
    refuse_want_of_key(signed, room.asked(), (b"key",))
    refuse_want_of_key(room.spec(), room.asked(), ())
    with pytest.raises(SignatureRefused, match="no key is given"):
        refuse_want_of_key(signed, room.asked(), ())


def test_a_reference_that_can_be_none_is_refused(room: Room) -> None:
    with pytest.raises(SourceInvalid, match="is no digest"):
        room.asked(ref={"digest": "sha256:abc"})
    with pytest.raises(SourceInvalid, match="is no tag"):
        room.asked(ref={"tag": "../../x"})
