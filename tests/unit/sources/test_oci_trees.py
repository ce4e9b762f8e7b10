"""helmops/sources/oci_trees.py: artifacts of files, unpacked."""

from __future__ import annotations

import asyncio
import gzip
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from devcluster.loopback import Answer, Fault
from devcluster.oci_server import INDEX, MANIFEST, OciServer
from helmops.errors import (
    ChartRefused,
    HelmopsError,
    SignatureRefused,
    SourceInvalid,
    SourceMissing,
)
from helmops.http import Http
from helmops.model.charts import Tree
from helmops.model.credentials import HttpCredentials
from helmops.model.declarations import OCIRepositorySpec
from helmops.sources.archive import ArchiveLimits
from helmops.sources.cache_content import cache_entries
from helmops.sources.oci_knowledge import OciKnowledge
from helmops.sources.oci_trees import OciTrees
from tests.fakes.chart_archives import archive_of, member

NONE = HttpCredentials()
NAME = "team/fleet"
FLUX_CONFIG = "application/vnd.cncf.flux.config.v1+json"
FLUX_CONTENT = "application/vnd.cncf.flux.content.v1.tar+gzip"
LIMITS = ArchiveLimits(packed=100_000, unpacked=1024**2, file=1024**2, entries=1000)


class Room:
    """Files of one repository of a registry."""

    def __init__(self, server: OciServer, http: Http, cache: Path) -> None:
        self.server, self._http, self.cache = server, http, cache
        self.restart()

    def restart(self) -> None:
        """A new process on the same cache."""
        artifacts = OciKnowledge(self._http, self.cache)
        self.trees = OciTrees(artifacts, self.cache / "artifacts", limits=LIMITS)

    def push(self, tag: str = "latest", /, content: bytes | None = None, **files: str) -> str:
        packed = archive_of(member(f"{name}.yaml", text.encode()) for name, text in files.items())
        return self.server.push(
            NAME,
            tag,
            packed if content is None else content,
            config_type=FLUX_CONFIG,
            layer_type=FLUX_CONTENT,
        )

    async def tree(self, **spec: Any) -> Tree:
        given = {"url": f"{self.server.url}/{NAME}", "interval": "5m", "insecure": True, **spec}
        repository = OCIRepositorySpec.model_validate(given)
        revision = await self.trees.resolve(repository, NONE)
        return await self.trees.checkout(repository, NONE, revision)

    async def files(self, **spec: Any) -> set[str]:
        return files_in((await self.tree(**spec)).path)

    def asked_for_blobs(self) -> int:
        return sum("/blobs/" in seen.request.path for seen in self.server.server.requests)


def files_in(directory: str) -> set[str]:
    return {name for _, _, names in os.walk(directory) for name in names}


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


async def test_what_is_at_hand_is_not_fetched_again_also_by_the_next_process(room: Room) -> None:
    digest = room.push(web="one")
    tree = await room.tree()
    assert tree.name == f"{room.server.url}/{NAME}"
    assert tree.revision == f"latest@{digest}"
    assert room.asked_for_blobs() == 1
    room.restart()
    assert await room.tree() == tree
    assert room.asked_for_blobs() == 1


async def test_two_that_come_at_once_fetch_once(room: Room) -> None:
    room.push(web="one")
    one, other = await asyncio.gather(room.tree(), room.tree())
    assert one == other
    assert room.asked_for_blobs() == 1


async def test_the_first_layer_counts_and_else_that_of_the_media_type(room: Room) -> None:
    def layer(media_type: str, name: str) -> dict[str, Any]:
        content = archive_of([member(name, b"{}")])
        return {"mediaType": media_type, **room.server.put_blob(NAME, content)}

    config = {"mediaType": "application/vnd.oci.image.config.v1+json"}
    room.server.put_manifest(
        NAME,
        "latest",
        {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": {**config, **room.server.put_blob(NAME, b"{}")},
            "layers": [layer("a/a", "a.yaml"), layer("b/b", "b.yaml"), layer("b/b", "c.yaml")],
        },
    )
    assert await room.files() == {"a.yaml"}
    assert await room.files(layerSelector={"mediaType": "b/b"}) == {"b.yaml"}
    with pytest.raises(ChartRefused, match=r"no layer of the media type c/c"):
        await room.files(layerSelector={"mediaType": "c/c"})


async def test_ignore_counts_where_the_layer_is_unpacked_and_not_where_it_is_copied(
    room: Room,
) -> None:
    room.push(web="one", db="two")
    assert await room.files() == {"web.yaml", "db.yaml"}
    assert await room.files(ignore="/db.yaml") == {"web.yaml"}
    copied = {"operation": "copy"}
    assert await room.files(ignore="/db.yaml", layerSelector=copied) == {"web.yaml", "db.yaml"}
    assert await room.files() == {"web.yaml", "db.yaml"}


async def test_a_newer_process_goes_on_without_the_registry(room: Room) -> None:
    room.push(web="one")
    repository = OCIRepositorySpec(
        url=f"{room.server.url}/{NAME}",
        interval="5m",
        insecure=True,
        ref={"semver": "*"},
    )
    digest = room.push("1.0.0", web="two")
    revision = await room.trees.resolve(repository, NONE)
    tree = await room.trees.checkout(repository, NONE, revision)
    room.server.server.fail(Fault(drop=True))
    room.restart()
    assert await room.trees.seen(repository, NONE) == f"1.0.0@{digest}"
    assert await room.trees.checkout(repository, NONE, revision) == tree


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"no archive", "no gzip-packed tar archive"),
        (gzip.compress(b"no tar" * 1000), "no gzip-packed tar archive"),
        (archive_of([member("../../web.yaml", b"{}")]), "leads out of it"),
        (archive_of([member("bomb.yaml", bytes(2 * 1024**2))]), "larger than 1 MiB"),
        (archive_of(member(f"{n}.yaml", bytes(50_000)) for n in range(60)), "more than 1 MiB"),
        (archive_of(member(f"{n}.yaml") for n in range(1001)), "more than 1000 entries"),
        (os.urandom(100_001), "the layer is larger than"),
        (archive_of([member(".sourceignore", b"a\\")]), "a pattern cannot be read"),
    ],
    ids=["text", "no-tar", "traversal", "file", "bomb", "entries", "large", "pattern"],
)
async def test_what_must_not_be_unpacked_leaves_nothing_behind(
    room: Room, content: bytes, said: str
) -> None:
    room.push(content=content)
    with pytest.raises(SourceInvalid) as refused:
        await room.tree()
    assert said in str(refused.value)
    assert room.server.host in refused.value.where
    assert files_in(str(room.cache / "artifacts")) == set()


async def test_a_registry_that_lies_about_a_digest_is_not_believed(room: Room) -> None:
    room.push(web="one")
    blobs = room.server.repository(NAME).blobs
    evil = archive_of([member("web.yaml", b"evil")])
    blobs.update(dict.fromkeys(blobs, evil))
    with pytest.raises(HelmopsError):
        await room.tree()
    digest = room.push("other", web="two")
    path = f"/v2/{NAME}/manifests/{digest}"
    other = room.server.repository(NAME).manifests[room.push("third", web="three")][1]
    room.server.instead[path] = Answer(200, other, {"Content-Type": MANIFEST})
    with pytest.raises(ChartRefused, match="another manifest than it says"):
        await room.tree(ref={"tag": "other"})
    assert files_in(str(room.cache / "artifacts")) == set()


async def test_what_is_no_single_artifact_is_refused(room: Room) -> None:
    room.server.put_manifest(NAME, "latest", {"schemaVersion": 2, "manifests": []}, INDEX)
    with pytest.raises(SourceInvalid, match="an index of several manifests"):
        await room.tree()
    nothing: dict[str, Any] = {"schemaVersion": 2, "mediaType": MANIFEST, "layers": []}
    config = {"mediaType": FLUX_CONFIG, **room.server.put_blob(NAME, b"{}")}
    room.server.put_manifest(NAME, "empty", {**nothing, "config": config})
    with pytest.raises(SourceInvalid, match="no layers"):
        await room.tree(ref={"tag": "empty"})
    with pytest.raises(SourceMissing):
        await room.tree(url=f"{room.server.url}/team/other")


async def test_without_a_key_nothing_is_taken_for_signed_and_nobody_is_asked(room: Room) -> None:
    room.push(web="one")
    with pytest.raises(SignatureRefused, match="no key is given"):
        await room.tree(verify={"provider": "cosign"})
    assert room.asked_for_blobs() == 0


async def test_what_is_unpacked_is_seen_in_the_cache(room: Room) -> None:
    digest = room.push(web="one")
    await room.tree()
    (entry,) = [entry for entry in cache_entries(room.cache) if entry.kind == "artifact"]
    assert (entry.name, entry.size) == (digest.partition(":")[2][:12], 3)
