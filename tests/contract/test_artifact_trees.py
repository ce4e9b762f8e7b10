"""What every `ArtifactTrees` does: the fake of the scenarios, and the real one."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, Protocol

import pytest

from devcluster.loopback import Fault
from devcluster.oci_server import OciServer
from helmops.errors import SignatureRefused, SourceDenied, SourceMissing, SourceUnavailable
from helmops.http import Http
from helmops.model.charts import Tree
from helmops.model.credentials import HttpCredentials
from helmops.model.declarations import OCIRepositorySpec
from helmops.reconcile.ports import ArtifactTrees
from helmops.sources.oci_knowledge import OciKnowledge
from helmops.sources.oci_trees import OciTrees
from tests.fakes.artifact_trees import FakeArtifactTrees
from tests.fakes.chart_archives import archive_of, member
from tests.fakes.signatures import new_key, public_key, sign_simply

NONE = HttpCredentials()
NAME = "team/fleet"


class World(Protocol):
    """A registry that tests can fill and break."""

    trees: ArtifactTrees
    url: str

    def push(self, tag: str, text: str = "", key: Any = None) -> str:
        """An artifact with `web.yaml` in it, signed where there is a key; gives its digest."""

    def fail(self, status: int) -> None: ...


class FakeWorld:
    trees: ArtifactTrees

    def __init__(self, path: Path) -> None:
        self.trees = self._fake = FakeArtifactTrees()
        self.url = f"oci://registry.example.com/{NAME}"
        self._path = path

    def push(self, tag: str, text: str = "", key: Any = None) -> str:
        files = self._path / f"{tag}-{text}"
        files.mkdir()
        (files / "web.yaml").write_text(text)
        signer = public_key(key) if key is not None else b""
        revision = self._fake.push(self.url, tag=tag, path=str(files), key=signer)
        self._fake.seen_before[self.url] = revision
        return revision.rpartition("@")[2]

    def fail(self, status: int) -> None:
        denied = SourceDenied("answered 401")
        self._fake.fail(self.url, denied if status == 401 else SourceUnavailable("answered 503"))


class RealWorld:
    trees: ArtifactTrees

    def __init__(self, server: OciServer, http: Http, cache: Path) -> None:
        self._server = server
        self.trees = OciTrees(OciKnowledge(http, cache), cache / "artifacts")
        self.url = f"{server.url}/{NAME}"

    def push(self, tag: str, text: str = "", key: Any = None) -> str:
        digest = self._server.push(NAME, tag, archive_of([member("web.yaml", text.encode())]))
        if key is not None:
            sign_simply(self._server, NAME, tag, key)
        return digest

    def fail(self, status: int) -> None:
        self._server.server.fail(Fault(status=status))


@pytest.fixture
def server() -> Iterator[OciServer]:
    with OciServer() as one:
        yield one


@pytest.fixture
async def http() -> AsyncIterator[Http]:
    async with Http() as one:
        yield one


@pytest.fixture(params=["fake", "real"])
def world(request: pytest.FixtureRequest, server: OciServer, http: Http, tmp_path: Path) -> World:
    return FakeWorld(tmp_path) if request.param == "fake" else RealWorld(server, http, tmp_path)


def spec(world: World, **given: Any) -> OCIRepositorySpec:
    said = {"url": world.url, "interval": "5m", "insecure": True, **given}
    return OCIRepositorySpec.model_validate(said)


def text_in(tree: Tree) -> str:
    return Path(tree.path, "web.yaml").read_text()


async def test_a_tag_has_the_revision_that_it_names_now(world: World) -> None:
    digest = world.push("latest", "one")
    revision = await world.trees.resolve(spec(world), NONE)
    assert revision == f"latest@{digest}"
    tree = await world.trees.checkout(spec(world), NONE, revision)
    assert (tree.revision, text_in(tree)) == (revision, "one")
    newer = world.push("latest", "two")
    assert await world.trees.resolve(spec(world), NONE) == f"latest@{newer}"
    assert text_in(await world.trees.checkout(spec(world), NONE, f"latest@{newer}")) == "two"
    assert text_in(await world.trees.checkout(spec(world), NONE, revision)) == "one"


async def test_a_range_has_the_revision_of_the_newest_tag_in_it(world: World) -> None:
    world.push("1.0.0", "one")
    newest = world.push("1.2.0", "two")
    world.push("2.0.0", "three")
    world.push("main", "four")
    wanted = spec(world, ref={"semver": "1.x", "tag": "main"})
    assert await world.trees.resolve(wanted, NONE) == f"1.2.0@{newest}"
    moved = world.push("1.2.0", "moved")
    assert await world.trees.resolve(wanted, NONE) == f"1.2.0@{moved}"
    with pytest.raises(SourceMissing):
        await world.trees.resolve(spec(world, ref={"semver": "3.x"}), NONE)


async def test_a_digest_is_its_own_revision_and_is_not_asked_for(world: World) -> None:
    digest = world.push("latest", "one")
    wanted = spec(world, ref={"digest": digest, "tag": "2.0.0"})
    world.fail(503)
    assert await world.trees.resolve(wanted, NONE) == digest


async def test_what_is_not_there_is_missing(world: World) -> None:
    world.push("latest", "one")
    with pytest.raises(SourceMissing):
        await world.trees.resolve(spec(world, ref={"tag": "other"}), NONE)


@pytest.mark.parametrize(("status", "error"), [(503, SourceUnavailable), (401, SourceDenied)])
async def test_a_registry_that_does_not_answer_or_refuses_is_an_error(
    world: World, status: int, error: type[Exception]
) -> None:
    world.push("latest", "one")
    revision = await world.trees.resolve(spec(world), NONE)
    before = await world.trees.checkout(spec(world), NONE, revision)
    world.fail(status)
    with pytest.raises(error):
        await world.trees.resolve(spec(world), NONE)
    assert await world.trees.seen(spec(world), NONE) == revision
    assert await world.trees.checkout(spec(world), NONE, revision) == before


async def test_nothing_was_seen_where_nobody_asked(world: World) -> None:
    assert await world.trees.seen(spec(world), NONE) == ""


async def test_who_must_have_signed_must_have(world: World) -> None:
    key = new_key()
    world.push("latest", "one", key)
    wanted = spec(world, verify={"provider": "cosign", "secretRef": {"name": "keys"}})
    revision = await world.trees.resolve(wanted, NONE)
    for others in ((), (public_key(new_key()),)):
        with pytest.raises(SignatureRefused):
            await world.trees.checkout(wanted, NONE, revision, keys=others)
    tree = await world.trees.checkout(wanted, NONE, revision, keys=(public_key(key),))
    assert text_in(tree) == "one"
    with pytest.raises(SignatureRefused):
        await world.trees.checkout(wanted, NONE, revision, keys=(public_key(new_key()),))
