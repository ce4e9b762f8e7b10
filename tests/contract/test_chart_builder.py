"""What every `ChartBuilder` does: the fake of the scenarios, and the real one."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import pytest

from helmops.errors import SourceMissing
from helmops.model.charts import ChartArtifact, Tree
from helmops.reconcile.ports import ChartBuilder
from helmops.sources.artifact_cache import ArtifactCache, digest_of
from helmops.sources.charts import ChartPackager
from tests.fakes.chart_archives import chart_archive, chart_yaml
from tests.fakes.chart_builder import FakeChartBuilder


class World(Protocol):
    """A tree that tests can put charts into."""

    builder: ChartBuilder
    tree: Tree

    def put(self, path: str, name: str, version: str, *, deprecated: bool = False) -> None: ...

    def put_values_file(self, path: str) -> None: ...

    def archive(self, name: str, version: str, *, values_file: str) -> ChartArtifact:
        """A pulled chart with a values file in it."""


class FakeWorld:
    def __init__(self) -> None:
        self.builder = self._fake = FakeChartBuilder()
        self.tree = Tree("GitRepository/apps", "main@sha1:0123", "/trees/0123")

    def put(self, path: str, name: str, version: str, *, deprecated: bool = False) -> None:
        self._fake.put(self.tree.path, path, name, version, deprecated=deprecated)

    def put_values_file(self, path: str) -> None:
        self._fake.put_values_file(self.tree.path, path)

    def archive(self, name: str, version: str, *, values_file: str) -> ChartArtifact:
        self._fake.put_values_file("", values_file)
        return ChartArtifact(name, version, "/cache/a.tgz", "1" * 64, "https://example.com")


class RealWorld:
    def __init__(self, directory: Path) -> None:
        self.builder = ChartPackager(ArtifactCache(directory / "cache"))
        self.tree = Tree("GitRepository/apps", "main@sha1:0123", str(directory / "tree"))

    def put(self, path: str, name: str, version: str, *, deprecated: bool = False) -> None:
        folder = Path(self.tree.path, path)
        folder.mkdir(parents=True)
        more = "deprecated: true\n" if deprecated else ""
        (folder / "Chart.yaml").write_text(chart_yaml(name, version, more))

    def put_values_file(self, path: str) -> None:
        Path(self.tree.path, path).write_text("a: 1\n")

    def archive(self, name: str, version: str, *, values_file: str) -> ChartArtifact:
        path = Path(self.tree.path).with_name("pulled.tgz")
        path.write_bytes(chart_archive(name, version, **{values_file: "a: 1\n"}))
        return ChartArtifact(name, version, str(path), digest_of(path), "https://example.com")


@pytest.fixture(params=["fake", "real"])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> World:
    return FakeWorld() if request.param == "fake" else RealWorld(tmp_path)


async def test_a_chart_is_described(world: World) -> None:
    world.put("charts/app", "app", "1.2.3", deprecated=True)
    artifact = await world.builder.build(world.tree, "charts/app")
    assert (artifact.name, artifact.version, artifact.revision) == ("app", "1.2.3", "1.2.3")
    assert artifact.deprecated
    assert artifact.source == "GitRepository/apps@main@sha1:0123"
    assert artifact.path.endswith(".tgz")
    assert len(artifact.digest) == 64


async def test_equal_requests_have_equal_digests_and_others_have_others(world: World) -> None:
    world.put("charts/app", "app", "1.2.3")
    world.put_values_file("values.yaml")
    build = world.builder.build
    digests = [
        (await build(world.tree, "charts/app")).digest,
        (await build(world.tree, "charts/app")).digest,
        (await build(world.tree, "charts/app", values_files=["values.yaml"])).digest,
        (await build(world.tree, "charts/app", version_suffix="abc")).digest,
    ]
    assert digests[0] == digests[1]
    assert len(set(digests)) == 3


async def test_a_suffix_is_the_version_s_build_metadata(world: World) -> None:
    world.put("charts/app", "app", "1.2.3+old")
    artifact = await world.builder.build(world.tree, "charts/app", version_suffix="abc")
    assert artifact.version == artifact.revision == "1.2.3+abc"


async def test_an_archive_gets_values_files_or_stays_as_it_is(world: World, tmp_path: Path) -> None:
    pulled = world.archive("app", "1.2.3", values_file="prod.yaml")
    made = await world.builder.with_values_files(pulled, ["prod.yaml"])
    assert (made.name, made.version, made.source) == ("app", "1.2.3", pulled.source)
    assert made.digest != pulled.digest
    assert await world.builder.with_values_files(pulled, ["prod.yaml"]) == made
    with pytest.raises(SourceMissing):
        await world.builder.with_values_files(pulled, ["gone.yaml"])
    ignoring = world.builder.with_values_files(
        pulled, ["gone.yaml"], ignore_missing_values_files=True
    )
    assert await ignoring == pulled


async def test_a_chart_or_values_file_that_is_not_there_is_missing(world: World) -> None:
    world.put("charts/app", "app", "1.2.3")
    with pytest.raises(SourceMissing):
        await world.builder.build(world.tree, "charts/web")
    with pytest.raises(SourceMissing):
        await world.builder.build(world.tree, "charts/app", values_files=["gone.yaml"])
    await world.builder.build(
        world.tree,
        "charts/app",
        values_files=["gone.yaml"],
        ignore_missing_values_files=True,
    )
