"""What every `OciRepositories` does: the fake of the scenarios, and the real one."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, Protocol

import pytest

from devcluster.loopback import Fault
from devcluster.oci_server import OciServer
from helmops.errors import (
    ChartRefused,
    SignatureRefused,
    SourceDenied,
    SourceError,
    SourceMissing,
    SourceUnavailable,
)
from helmops.http import Http
from helmops.model.credentials import HttpCredentials
from helmops.model.declarations import OCIRepositorySpec
from helmops.reconcile.ports import OciRepositories
from helmops.sources.oci_artifacts import OciArtifacts
from tests.fakes.chart_archives import chart_archive
from tests.fakes.oci_repositories import FakeOciRepositories
from tests.fakes.signatures import new_key, public_key, sign_simply

NONE = HttpCredentials()


class World(Protocol):
    """A registry that tests can fill and break."""

    artifacts: OciRepositories

    def spec(self, **ref: str) -> OCIRepositorySpec: ...

    def push(self, tag: str, version: str = "", content: str = "") -> str:
        """Returns the digest of the artifact."""

    def sign(self, tag: str, key: Any) -> None: ...

    def fail(self, status: int) -> None: ...

    def heal(self) -> None: ...

    def lie_about(self, tag: str) -> None: ...

    def pass_time(self) -> None:
        """Until the interval is over."""


class FakeWorld:
    def __init__(self) -> None:
        self.artifacts = self._fake = FakeOciRepositories(polls=False)
        self._url = "oci://registry.example/charts/app"

    def spec(self, **ref: str) -> OCIRepositorySpec:
        return OCIRepositorySpec(url=self._url, interval="5m", ref=ref)  # type: ignore[arg-type]

    def push(self, tag: str, version: str = "", content: str = "") -> str:
        return "sha256:" + self._fake.push(self._url, tag, "app", version or tag, content)

    def sign(self, tag: str, key: Any) -> None:
        self._fake.sign(self._url, tag, public_key(key))

    def fail(self, status: int) -> None:
        kinds: dict[int, type[SourceError]] = {401: SourceDenied, 404: SourceMissing}
        self._fake.fail(self._url, kinds.get(status, SourceUnavailable)(f"answered {status}"))

    def heal(self) -> None:
        self._fake.fail(self._url, None)

    def lie_about(self, tag: str) -> None:
        self._fake.refused[f"{self._url}:{tag}"] = ChartRefused("not what the manifest says")

    def pass_time(self) -> None:
        self._fake.polls = True


class RealWorld:
    def __init__(self, server: OciServer, http: Http, cache: Path) -> None:
        self._server = server
        self._now = 0.0
        self.artifacts = OciArtifacts(http, cache, monotonic=lambda: self._now)

    def spec(self, **ref: str) -> OCIRepositorySpec:
        return OCIRepositorySpec(
            url=f"{self._server.url}/charts/app",
            interval="5m",  # type: ignore[arg-type]
            insecure=True,
            ref=ref,  # type: ignore[arg-type]
        )

    def push(self, tag: str, version: str = "", content: str = "") -> str:
        archive = chart_archive("app", version or tag, values=content)
        return self._server.push("charts/app", tag, archive)

    def sign(self, tag: str, key: Any) -> None:
        sign_simply(self._server, "charts/app", tag, key)

    def fail(self, status: int) -> None:
        self._server.server.fail(Fault(status=status))

    def heal(self) -> None:
        self._server.server.heal()

    def lie_about(self, tag: str) -> None:
        blobs = self._server.repository("charts/app").blobs
        for digest in blobs:
            blobs[digest] = b"evil"

    def pass_time(self) -> None:
        self._now += 301


@pytest.fixture
def server() -> Iterator[OciServer]:
    with OciServer() as one:
        yield one


@pytest.fixture(params=["fake", "real"])
async def world(
    request: pytest.FixtureRequest, server: OciServer, tmp_path: Path
) -> AsyncIterator[World]:
    async with Http() as http:
        yield FakeWorld() if request.param == "fake" else RealWorld(server, http, tmp_path)


async def test_a_tag_is_one_version_and_its_artifact(world: World) -> None:
    digest = world.push("1.0.0")
    spec = world.spec(tag="1.0.0")
    [version] = await world.artifacts.versions(spec, NONE)
    assert version.version == "1.0.0"
    artifact = await world.artifacts.pull(spec, version, NONE)
    assert (artifact.name, artifact.version) == ("app", "1.0.0")
    assert artifact.revision == f"1.0.0@{digest}"
    assert artifact.source == spec.url


async def test_a_range_is_every_tag_that_is_a_version(world: World) -> None:
    for tag in ("1.0.0", "2.0.0", "2.1.0-rc.1", "1.0.0_b1"):
        world.push(tag, tag.replace("_", "+"))
    world.push("latest", "2.0.0")
    spec = world.spec(semver="1.x")
    versions = await world.artifacts.versions(spec, NONE)
    assert {one.version for one in versions} == {"1.0.0", "2.0.0", "2.1.0-rc.1", "1.0.0+b1"}
    build = next(one for one in versions if one.version == "1.0.0+b1")
    assert (await world.artifacts.pull(spec, build, NONE)).version == "1.0.0+b1"


async def test_without_a_reference_it_is_the_tag_latest(world: World) -> None:
    world.push("latest", "3.0.0")
    [version] = await world.artifacts.versions(world.spec(), NONE)
    assert (await world.artifacts.pull(world.spec(), version, NONE)).version == "3.0.0"


async def test_the_very_same_tuple_is_given_as_long_as_nothing_changed(world: World) -> None:
    world.push("1.0.0")
    for spec in (world.spec(tag="1.0.0"), world.spec(semver="*")):
        versions = await world.artifacts.versions(spec, NONE)
        await world.artifacts.pull(spec, versions[0], NONE)
        await world.artifacts.refresh(spec, NONE)
        assert await world.artifacts.versions(spec, NONE) is versions


async def test_a_tag_that_moved_is_another_version_and_artifact(world: World) -> None:
    world.push("1.0.0")
    spec = world.spec(tag="1.0.0")
    before = await world.artifacts.versions(spec, NONE)
    old = await world.artifacts.pull(spec, before[0], NONE)
    moved = world.push("1.0.0", content="other")
    assert await world.artifacts.versions(spec, NONE) is before
    world.pass_time()
    after = await world.artifacts.versions(spec, NONE)
    assert after != before
    new = await world.artifacts.pull(spec, after[0], NONE)
    assert new.digest != old.digest
    assert new.revision == f"1.0.0@{moved}"


async def test_a_tag_of_a_range_that_moved_is_news_where_it_is_in_use(world: World) -> None:
    world.push("1.0.0")
    spec = world.spec(semver="1.x")
    before = await world.artifacts.versions(spec, NONE)
    old = await world.artifacts.pull(spec, before[0], NONE)
    world.push("1.0.0", content="other")
    assert await world.artifacts.refresh(spec, NONE) is True
    after = await world.artifacts.versions(spec, NONE)
    assert after is not before
    assert (await world.artifacts.pull(spec, after[0], NONE)).digest != old.digest


async def test_a_refresh_says_whether_there_are_news(world: World) -> None:
    world.push("1.0.0")
    spec = world.spec(semver="*")
    assert await world.artifacts.refresh(spec, NONE) is True
    assert await world.artifacts.refresh(spec, NONE) is False
    world.push("1.1.0")
    assert await world.artifacts.refresh(spec, NONE) is True
    assert len(await world.artifacts.versions(spec, NONE)) == 2


@pytest.mark.parametrize(
    ("status", "kind"),
    [(401, SourceDenied), (404, SourceMissing), (429, SourceUnavailable), (503, SourceUnavailable)],
)
async def test_a_failing_registry_raises_what_it_means(
    world: World, status: int, kind: type[SourceError]
) -> None:
    world.push("1.0.0")
    world.fail(status)
    for spec in (world.spec(tag="1.0.0"), world.spec(semver="*")):
        with pytest.raises(kind):
            await world.artifacts.versions(spec, NONE)
        with pytest.raises(kind):
            await world.artifacts.refresh(spec, NONE)


async def test_within_the_interval_a_failing_registry_is_not_noticed(world: World) -> None:
    world.push("1.0.0")
    spec = world.spec(tag="1.0.0")
    versions = await world.artifacts.versions(spec, NONE)
    world.fail(503)
    assert await world.artifacts.versions(spec, NONE) is versions


async def test_a_registry_that_does_not_answer_any_more_is_done_without(world: World) -> None:
    world.push("1.0.0")
    for spec in (world.spec(tag="1.0.0"), world.spec(semver="*")):
        versions = await world.artifacts.versions(spec, NONE)
        before = await world.artifacts.pull(spec, versions[0], NONE)
        world.fail(503)
        world.pass_time()
        assert await world.artifacts.versions(spec, NONE) is versions
        assert await world.artifacts.pull(spec, versions[0], NONE) == before
        assert "503" in await world.artifacts.trouble(spec, NONE)
        with pytest.raises(SourceUnavailable):
            await world.artifacts.refresh(spec, NONE)
        world.heal()
        await world.artifacts.refresh(spec, NONE)
        assert await world.artifacts.trouble(spec, NONE) == ""


@pytest.mark.parametrize("status", [401, 404])
async def test_a_registry_that_says_no_is_believed(world: World, status: int) -> None:
    world.push("1.0.0")
    spec = world.spec(tag="1.0.0")
    await world.artifacts.versions(spec, NONE)
    world.fail(status)
    world.pass_time()
    with pytest.raises(SourceError):
        await world.artifacts.versions(spec, NONE)


async def test_an_artifact_that_is_not_what_it_says_is_refused(world: World) -> None:
    world.push("1.0.0")
    world.lie_about("1.0.0")
    spec = world.spec(tag="1.0.0")
    [version] = await world.artifacts.versions(spec, NONE)
    with pytest.raises(ChartRefused):
        await world.artifacts.pull(spec, version, NONE)


async def test_a_signature_must_be_by_one_of_the_keys(world: World) -> None:
    ours, theirs = new_key(), new_key()
    world.push("1.0.0")
    spec = world.spec(tag="1.0.0")
    [version] = await world.artifacts.versions(spec, NONE)
    with pytest.raises(SignatureRefused):
        await world.artifacts.pull(spec, version, NONE, [public_key(ours)])
    world.sign("1.0.0", ours)
    await world.artifacts.pull(spec, version, NONE, [public_key(theirs), public_key(ours)])
    with pytest.raises(SignatureRefused):
        await world.artifacts.pull(spec, version, NONE, [public_key(theirs)])
