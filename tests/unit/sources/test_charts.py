"""helmops/sources/charts.py: charts from directories."""

# ruff: noqa: ASYNC240 - tests may block

from __future__ import annotations

import asyncio
import gzip
import os
import shutil
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from helmops.errors import (
    ChartRefused,
    HelmopsError,
    SourceMissing,
    SourceUnavailable,
)
from helmops.model.charts import ChartArtifact, Tree
from helmops.sources.archive import ArchiveLimits
from helmops.sources.artifact_cache import ArtifactCache, digest_of
from helmops.sources.charts import ChartPackager
from tests.fakes.chart_archives import chart_archive, chart_yaml


class Repository:
    """Fetches dependencies: what it was told of, into files."""

    def __init__(self, directory: Path) -> None:
        self.asked: list[tuple[str, str, str]] = []
        self.offers: dict[str, tuple[str, bytes]] = {}
        self.error: HelmopsError | None = None
        self._directory = directory

    def offer(self, name: str, version: str) -> None:
        self.offers[name] = version, chart_archive(name, version)

    async def __call__(self, name: str, version: str, repository: str) -> ChartArtifact:
        self.asked.append((name, version, repository))
        if self.error is not None:
            raise self.error
        found, content = self.offers[name]
        self._directory.mkdir(exist_ok=True)
        path = self._directory / f"{name}.tgz"
        path.write_bytes(content)
        return ChartArtifact(name, found, str(path), digest_of(path), repository)


@pytest.fixture
def fetch(tmp_path: Path) -> Repository:
    return Repository(tmp_path / "fetched")


@pytest.fixture
def packager(tmp_path: Path) -> ChartPackager:
    return ChartPackager(ArtifactCache(tmp_path / "cache"), scratch=tmp_path / "scratch")


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    root = tmp_path / "tree"
    root.mkdir()
    return Tree(name="GitRepository/apps", revision="main@sha1:0123456789ab", path=str(root))


def write(tree: Tree, files: dict[str, str]) -> None:
    for name, content in files.items():
        path = Path(tree.path, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)


def put_chart(
    tree: Tree, path: str = "charts/app", name: str = "app", version: str = "1.2.3", more: str = ""
) -> None:
    write(
        tree,
        {
            f"{path}/Chart.yaml": chart_yaml(name, version, more),
            f"{path}/values.yaml": "replicas: 1 # one\n",
            f"{path}/templates/config.yaml": "kind: ConfigMap\n",
        },
    )


def contents(artifact: ChartArtifact) -> dict[str, bytes]:
    with tarfile.open(artifact.path) as archive:
        return {
            member.name: content.read()
            for member in archive
            if (content := archive.extractfile(member)) is not None
        }


async def test_a_chart_is_packaged_as_it_is(packager: ChartPackager, tree: Tree) -> None:
    more = "appVersion: '9'\ndeprecated: true\n"
    put_chart(tree, more=more)
    artifact = await packager.build(tree, "./charts/app")
    assert contents(artifact) == {
        "app/Chart.yaml": chart_yaml(
            "app", "1.2.3", "appVersion: '9'\ndeprecated: true\n"
        ).encode(),
        "app/templates/config.yaml": b"kind: ConfigMap\n",
        "app/values.yaml": b"replicas: 1 # one\n",
    }
    assert artifact == ChartArtifact(
        name="app",
        version="1.2.3",
        path=artifact.path,
        digest=digest_of(Path(artifact.path)),
        source="GitRepository/apps@main@sha1:0123456789ab",
        revision="1.2.3",
        app_version="9",
        deprecated=True,
    )


async def test_equal_files_give_an_equal_archive_wherever_and_whenever(
    tmp_path: Path, packager: ChartPackager, tree: Tree, fetch: Repository
) -> None:
    put_chart(tree)
    first = await packager.build(tree, "charts/app")
    other = Tree("elsewhere", "other", str(tmp_path / "other"))
    shutil.copytree(tree.path, other.path)
    for path in Path(other.path).rglob("*"):
        path.chmod(0o700)
        os.utime(path, (1, 1))
    again = ChartPackager(ArtifactCache(tmp_path / "cache2"))
    assert (await again.build(other, "/charts/app/")).digest == first.digest
    assert Path(first.path).read_bytes()[4:8] == bytes(4)  # the time in gzip's header
    with gzip.open(first.path) as raw, tarfile.open(fileobj=raw) as archive:
        assert {(member.mtime, member.uid, member.uname) for member in archive} == {(0, 0, "")}


@pytest.mark.parametrize("changed", ["charts/app/values.yaml", "charts/app/templates/config.yaml"])
async def test_another_content_gives_another_digest(
    packager: ChartPackager, tree: Tree, changed: str
) -> None:
    put_chart(tree)
    first = await packager.build(tree, "charts/app")
    write(tree, {changed: "other: 1\n"})
    later = Tree(tree.name, "main@sha1:new", tree.path)
    assert (await packager.build(later, "charts/app")).digest != first.digest


async def test_the_tree_is_never_written_to(
    packager: ChartPackager, tree: Tree, fetch: Repository, tmp_path: Path
) -> None:
    put_chart(tree, more=REMOTE)
    fetch.offer("common", "1.0.0")
    before = sorted(Path(tree.path).rglob("*"))
    await packager.build(tree, "charts/app", version_suffix="abc", fetch=fetch)
    assert sorted(Path(tree.path).rglob("*")) == before
    assert os.listdir(tmp_path / "scratch") == []


# What is at hand.


async def test_a_revision_is_built_once(
    packager: ChartPackager, tree: Tree, fetch: Repository
) -> None:
    put_chart(tree, more=REMOTE)
    fetch.offer("common", "1.0.0")
    builds = await asyncio.gather(
        *(packager.build(tree, "charts/app", fetch=fetch) for _ in range(5))
    )
    assert len({build.digest for build in builds}) == 1
    assert len(fetch.asked) == 1


async def test_a_directory_is_built_again_when_something_in_it_changed(
    packager: ChartPackager, tree: Tree
) -> None:
    directory = Tree("charts", "", tree.path)
    put_chart(directory)
    write(directory, {"shared.yaml": "a: 1\n"})

    async def digest() -> str:
        return (await packager.build(directory, "charts/app", values_files=["shared.yaml"])).digest

    seen = [await digest()]
    assert await digest() == seen[0]
    for name in ("charts/app/templates/config.yaml", "shared.yaml", "charts/app/new.yaml"):
        write(directory, {name: f"changed: {name}\n"})
        seen.append(await digest())
    assert len(set(seen)) == 4


async def test_an_archive_that_was_thrown_away_is_made_again(
    packager: ChartPackager, tree: Tree
) -> None:
    put_chart(tree)
    first = await packager.build(tree, "charts/app")
    os.unlink(first.path)
    assert await packager.build(tree, "charts/app") == first
    assert os.path.exists(first.path)


# What is not there.


async def test_a_missing_directory_is_missing(packager: ChartPackager, tree: Tree) -> None:
    with pytest.raises(SourceMissing, match="no charts/app"):
        await packager.build(tree, "charts/app")


async def test_a_directory_without_chart_is_said_so(packager: ChartPackager, tree: Tree) -> None:
    write(tree, {"charts/app/values.yaml": "{}"})
    with pytest.raises(SourceMissing, match=r"it has no Chart\.yaml"):
        await packager.build(tree, "charts/app")


@pytest.mark.parametrize("path", ["../other", "charts/../../other", "a/../.."])
async def test_a_path_out_of_the_tree_is_refused(
    packager: ChartPackager, tree: Tree, path: str
) -> None:
    with pytest.raises(ChartRefused, match="leads out"):
        await packager.build(tree, path)


async def test_a_library_chart_is_refused(packager: ChartPackager, tree: Tree) -> None:
    put_chart(tree, more="type: library\n")
    with pytest.raises(ChartRefused, match="library chart") as caught:
        await packager.build(tree, "charts/app")
    assert "name the chart that uses it" in caught.value.next_step


async def test_a_broken_chart_yaml_is_refused(packager: ChartPackager, tree: Tree) -> None:
    write(tree, {"charts/app/Chart.yaml": "name: ["})
    with pytest.raises(ChartRefused, match=r"Chart\.yaml cannot be read"):
        await packager.build(tree, "charts/app")


async def test_a_chart_at_the_root_of_the_tree_is_packaged(
    packager: ChartPackager, tree: Tree
) -> None:
    put_chart(tree, path=".")
    assert (await packager.build(tree, ".")).name == "app"
    assert (await packager.build(tree, "")).name == "app"


async def test_an_archive_in_the_tree_is_packaged_anew(packager: ChartPackager, tree: Tree) -> None:
    Path(tree.path, "app.tgz").write_bytes(chart_archive("app", "1.0.0"))
    write(tree, {"values.yaml": "a: 1\n"})
    artifact = await packager.build(tree, "app.tgz", values_files=["values.yaml"])
    assert artifact.version == "1.0.0"
    assert contents(artifact)["app/values.yaml"] == b"a: 1\n"


async def test_an_archive_in_the_tree_that_leads_out_is_refused(
    packager: ChartPackager, tree: Tree
) -> None:
    Path(tree.path, "app.tgz").write_bytes(b"no archive")
    with pytest.raises(ChartRefused):
        await packager.build(tree, "app.tgz")


# Files.


async def test_helmignore_is_honoured(packager: ChartPackager, tree: Tree) -> None:
    put_chart(tree)
    write(
        tree,
        {
            "charts/app/.helmignore": "*.md\nci/\n",
            "charts/app/README.md": "x",
            "charts/app/ci/values.yaml": "x",
            "charts/app/templates/.swp": "x",
        },
    )
    names = contents(await packager.build(tree, "charts/app"))
    assert set(names) == {
        "app/.helmignore",
        "app/Chart.yaml",
        "app/templates/config.yaml",
        "app/values.yaml",
    }


async def test_a_bad_helmignore_is_refused(packager: ChartPackager, tree: Tree) -> None:
    put_chart(tree)
    write(tree, {"charts/app/.helmignore": "**/x\n"})
    with pytest.raises(ChartRefused, match=r"\*\* is not supported"):
        await packager.build(tree, "charts/app")


async def test_links_within_the_tree_are_followed(packager: ChartPackager, tree: Tree) -> None:
    put_chart(tree)
    write(tree, {"shared/notes.txt": "notes", "shared/sub/a.txt": "a"})
    Path(tree.path, "charts/app/notes.txt").symlink_to("../../shared/notes.txt")
    Path(tree.path, "charts/app/files").symlink_to("../../shared")
    Path(tree.path, "link").symlink_to("charts/app")
    found = contents(await packager.build(tree, "link"))
    assert found["app/notes.txt"] == b"notes"
    assert found["app/files/sub/a.txt"] == b"a"


def link_out(chart: Path) -> None:
    (chart / "secret").symlink_to("/etc/hostname")


def link_out_relative(chart: Path) -> None:
    (chart.parents[2] / "outside").write_text("x")
    (chart / "secret").symlink_to("../../../outside")


def link_to_directory_out(chart: Path) -> None:
    (chart / "secret").symlink_to("/etc")


def link_in_circles(chart: Path) -> None:
    (chart / "loop").symlink_to(".")


def link_to_itself(chart: Path) -> None:
    (chart / "loop").symlink_to("loop")


def pipe(chart: Path) -> None:
    os.mkfifo(chart / "pipe")


def helmignore_out(chart: Path) -> None:
    (chart / ".helmignore").symlink_to("/etc/hostname")


def big_file(chart: Path) -> None:
    with (chart / "big").open("wb") as file:
        file.truncate(6 * 1024 * 1024)


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (link_out, "leads out of the source"),
        (link_out_relative, "leads out of the source"),
        (link_to_directory_out, "leads out of the source"),
        (link_in_circles, "in circles"),
        (link_to_itself, "in circles"),
        (pipe, "neither a file nor a directory"),
        (helmignore_out, "leads out of the source"),
        (big_file, "big is larger than 5 MiB"),
    ],
)
async def test_what_must_not_be_packaged_is_refused(
    packager: ChartPackager, tree: Tree, spoil: Callable[[Path], None], says: str
) -> None:
    put_chart(tree)
    spoil(Path(tree.path, "charts/app"))
    with pytest.raises(ChartRefused, match=says):
        await packager.build(tree, "charts/app")


async def test_a_chart_directory_that_is_a_link_out_is_refused(
    packager: ChartPackager, tree: Tree, tmp_path: Path
) -> None:
    put_chart(Tree("", "", str(tmp_path / "outside")), path=".")
    Path(tree.path, "app").symlink_to(tmp_path / "outside")
    with pytest.raises(ChartRefused, match="leads out"):
        await packager.build(tree, "app")


async def test_too_many_files_are_refused(tmp_path: Path, tree: Tree) -> None:
    put_chart(tree)
    few = ChartPackager(ArtifactCache(tmp_path / "c"), limits=ArchiveLimits(entries=2))
    with pytest.raises(ChartRefused, match="more than 2 files"):
        await few.build(tree, "charts/app")


# Values.


async def test_a_values_file_replaces_the_chart_s_byte_by_byte(
    packager: ChartPackager, tree: Tree
) -> None:
    put_chart(tree)
    text = "# ours\non: yes\nmode: 0755\n"
    write(tree, {"charts/app/prod.yaml": text})
    artifact = await packager.build(tree, "charts/app", values_files=["./charts/app/prod.yaml"])
    assert contents(artifact)["app/values.yaml"] == text.encode()


async def test_values_files_are_merged_in_order(packager: ChartPackager, tree: Tree) -> None:
    put_chart(tree)
    write(
        tree,
        {
            "a.yaml": "image: {tag: '1', pull: Always}\nlist: [1, 2]\non: true\n",
            "b.yaml": "image: {tag: '2', pull: null}\nlist: [3]\n",
        },
    )
    artifact = await packager.build(
        tree, "charts/app", values_files=["charts/app/values.yaml", "a.yaml", "b.yaml"]
    )
    assert yaml.safe_load(contents(artifact)["app/values.yaml"]) == {
        "replicas": 1,
        "image": {"tag": "2", "pull": None},
        "list": [3],
        "true": True,
    }


async def test_a_missing_values_file_is_missing_unless_that_is_to_be_ignored(
    packager: ChartPackager, tree: Tree
) -> None:
    put_chart(tree)
    write(tree, {"a.yaml": "a: 1\n"})
    with pytest.raises(SourceMissing, match=r"no values file gone\.yaml"):
        await packager.build(tree, "charts/app", values_files=["a.yaml", "gone.yaml"])
    some = await packager.build(
        tree, "charts/app", values_files=["a.yaml", "gone.yaml"], ignore_missing_values_files=True
    )
    none = await packager.build(
        tree, "charts/app", values_files=["gone.yaml"], ignore_missing_values_files=True
    )
    assert contents(some)["app/values.yaml"] == b"a: 1\n"
    assert contents(none)["app/values.yaml"] == b"replicas: 1 # one\n"


@pytest.mark.parametrize(
    ("name", "kind"),
    [("../outside.yaml", ChartRefused), ("link.yaml", ChartRefused), ("bad.yaml", ChartRefused)],
)
async def test_a_values_file_that_must_not_be_used_is_refused(
    packager: ChartPackager, tree: Tree, name: str, kind: type[HelmopsError]
) -> None:
    put_chart(tree)
    write(tree, {"bad.yaml": "s3cret: [\n"})
    Path(tree.path, "link.yaml").symlink_to("/etc/hostname")
    with pytest.raises(kind) as caught:
        await packager.build(tree, "charts/app", values_files=[name])
    assert "s3cret" not in str(caught.value)


# Versions.


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("apiVersion: v2\nname: app\nversion: 1.2.3 # now\n", "1.2.3+abc"),
        ("apiVersion: v2\nname: app\nversion: v1.2\n", "1.2.0+abc"),
        ('{"apiVersion": "v2", "name": "app", "version": "1.2.3+old"}', "1.2.3+abc"),
        ("apiVersion: v2\nname: app\n'version': 1.2.3-rc.1\n", "1.2.3-rc.1+abc"),
        ("description: |\n  x\nversion: 1.2.3\nname: app\n", "1.2.3+abc"),
    ],
)
async def test_a_suffix_takes_the_place_of_build_metadata(
    packager: ChartPackager, tree: Tree, text: str, version: str
) -> None:
    write(tree, {"app/Chart.yaml": text})
    artifact = await packager.build(tree, "app", version_suffix="abc")
    assert artifact.version == artifact.revision == version
    packed = yaml.safe_load(contents(artifact)["app/Chart.yaml"])
    before = yaml.safe_load(text)
    assert packed == {**before, "version": version}


# Dependencies.

REMOTE = """\
dependencies:
- name: common
  version: ^1.0.0
  repository: https://charts.example
"""


async def test_a_chart_without_dependencies_fetches_none(
    packager: ChartPackager, tree: Tree, fetch: Repository
) -> None:
    put_chart(tree)
    await packager.build(tree, "charts/app", fetch=fetch)
    assert fetch.asked == []


@pytest.mark.parametrize("form", ["directory", "archive"])
async def test_dependencies_that_are_vendored_are_not_fetched(
    packager: ChartPackager, tree: Tree, fetch: Repository, form: str
) -> None:
    put_chart(tree, more=REMOTE)
    if form == "directory":
        put_chart(tree, "charts/app/charts/common", "common", "1.5.0")
    else:
        Path(tree.path, "charts/app/charts").mkdir()
        Path(tree.path, "charts/app/charts/common-1.5.0.tgz").write_bytes(
            chart_archive("common", "1.5.0")
        )
    found = contents(await packager.build(tree, "charts/app", fetch=fetch))
    assert fetch.asked == []
    assert any(name.startswith("app/charts/common") for name in found)


async def test_a_vendored_dependency_of_another_version_does_not_count(
    packager: ChartPackager, tree: Tree, fetch: Repository
) -> None:
    put_chart(tree, more=REMOTE)
    put_chart(tree, "charts/app/charts/common", "common", "2.0.0")
    fetch.offer("common", "1.0.3")
    found = contents(await packager.build(tree, "charts/app", fetch=fetch))
    assert "app/charts/common-1.0.3.tgz" in found


async def test_what_is_missing_is_fetched_and_always_gives_the_same_archive(
    packager: ChartPackager, tree: Tree, fetch: Repository, tmp_path: Path
) -> None:
    put_chart(tree, more=REMOTE)
    fetch.offer("common", "1.0.0")
    first = await packager.build(tree, "charts/app", fetch=fetch)
    assert fetch.asked == [("common", "^1.0.0", "https://charts.example")]
    assert contents(first)["app/charts/common-1.0.0.tgz"] == fetch.offers["common"][1]
    assert "app/Chart.lock" not in contents(first)
    again = ChartPackager(ArtifactCache(tmp_path / "again"))
    assert (await again.build(tree, "charts/app", fetch=fetch)).digest == first.digest


@pytest.mark.parametrize("without", ["fetching", "a repository"])
async def test_what_can_be_had_from_nowhere_is_refused(
    packager: ChartPackager, tree: Tree, fetch: Repository, without: str
) -> None:
    put_chart(tree, more=REMOTE if without == "fetching" else REMOTE.rpartition("  repository")[0])
    asked = None if without == "fetching" else fetch
    with pytest.raises(ChartRefused, match=r"dependency common \^1\.0\.0 of app is not in charts/"):
        await packager.build(tree, "charts/app", fetch=asked)


LOCK = """\
dependencies:
- name: common
  repository: https://charts.example/
  version: 1.0.7
digest: sha256:0
generated: "2026-01-01T00:00:00Z"
"""


async def test_a_lock_says_which_version(
    packager: ChartPackager, tree: Tree, fetch: Repository
) -> None:
    put_chart(tree, more=REMOTE)
    write(tree, {"charts/app/Chart.lock": LOCK})
    fetch.offer("common", "1.0.7")
    found = contents(await packager.build(tree, "charts/app", fetch=fetch))
    assert fetch.asked == [("common", "1.0.7", "https://charts.example/")]
    assert found["app/Chart.lock"] == LOCK.encode()


@pytest.mark.parametrize(
    ("lock", "says"),
    [
        (LOCK.replace("1.0.7", "0.9.0"), r"it has common 0\.9\.0 of https://charts\.example/"),
        (LOCK.replace(".example", ".other"), r"it has common 1\.0\.7 of https://charts\.other/"),
        (LOCK.replace("common", "other"), "it does not have it"),
        ("dependencies: all\n", "it does not have it"),
    ],
)
async def test_a_lock_that_is_out_of_date_is_said_so(
    packager: ChartPackager, tree: Tree, fetch: Repository, lock: str, says: str
) -> None:
    put_chart(tree, more=REMOTE)
    write(tree, {"charts/app/Chart.lock": lock})
    with pytest.raises(ChartRefused, match=rf"Chart\.lock is out of date: app depends on .*{says}"):
        await packager.build(tree, "charts/app", fetch=fetch)
    assert fetch.asked == []


async def test_a_lock_that_is_no_lock_is_refused(
    packager: ChartPackager, tree: Tree, fetch: Repository
) -> None:
    put_chart(tree, more=REMOTE)
    write(tree, {"charts/app/Chart.lock": "ours\n"})
    with pytest.raises(ChartRefused, match=r"Chart\.lock"):
        await packager.build(tree, "charts/app", fetch=fetch)


async def test_a_repository_that_fails_is_told_and_tried_again(
    packager: ChartPackager, tree: Tree, fetch: Repository, tmp_path: Path
) -> None:
    put_chart(tree, more=REMOTE)
    fetch.error = SourceUnavailable("the connection is refused")
    for _ in range(2):
        with pytest.raises(SourceUnavailable, match="refused"):
            await packager.build(tree, "charts/app", fetch=fetch)
    assert len(fetch.asked) == 2
    assert os.listdir(tmp_path / "scratch") == []


async def test_dependencies_of_old_charts_are_read_from_requirements(
    packager: ChartPackager, tree: Tree, fetch: Repository
) -> None:
    put_chart(tree)
    write(tree, {"charts/app/requirements.yaml": REMOTE, "charts/app/requirements.lock": LOCK})
    fetch.offer("common", "1.0.7")
    await packager.build(tree, "charts/app", fetch=fetch)
    assert fetch.asked == [("common", "1.0.7", "https://charts.example/")]


async def test_a_chart_of_endless_dependencies_is_refused_before_any_is_fetched(
    packager: ChartPackager, tree: Tree, fetch: Repository
) -> None:
    listed = "".join(
        f"- {{name: c{number}, version: 1.x, repository: 'https://a.example'}}\n"
        for number in range(201)
    )
    put_chart(tree, more=f"dependencies:\n{listed}")
    with pytest.raises(ChartRefused, match="more than 200 dependencies"):
        await packager.build(tree, "charts/app", fetch=fetch)
    assert fetch.asked == []


async def test_one_chart_twice_under_two_names_is_fetched_in_both_versions(
    packager: ChartPackager, tree: Tree, fetch: Repository
) -> None:
    more = (
        "dependencies:\n"
        "- {name: common, version: 1.x, repository: 'https://a.example', alias: old}\n"
        "- {name: common, version: 2.x, repository: 'https://a.example', condition: new.on}\n"
    )
    put_chart(tree, more=more)

    async def of_range(name: str, version: str, repository: str) -> ChartArtifact:
        fetch.offer(name, version.replace("x", "0.0"))
        return await fetch(name, version, repository)

    found = contents(await packager.build(tree, "charts/app", fetch=of_range))
    assert {"app/charts/common-1.0.0.tgz", "app/charts/common-2.0.0.tgz"} <= set(found)
    assert "alias: old" in found["app/Chart.yaml"].decode()


def local(path: str, name: str = "lib", version: str = ">=0.1") -> str:
    return f"dependencies:\n- name: {name}\n  version: '{version}'\n  repository: file://{path}\n"


async def test_local_dependencies_are_packaged_from_the_tree_and_theirs_before_them(
    packager: ChartPackager, tree: Tree, fetch: Repository, tmp_path: Path
) -> None:
    put_chart(tree, more=local("../../libs/lib"))
    put_chart(tree, "libs/lib", "lib", "0.2.0", "type: library\n" + local("../deep", "deep"))
    put_chart(tree, "libs/deep", "deep", "1.0.0")
    artifact = await packager.build(tree, "charts/app", fetch=fetch)
    assert fetch.asked == []
    inner = tmp_path / "inner.tgz"
    inner.write_bytes(contents(artifact)["app/charts/lib-0.2.0.tgz"])
    with tarfile.open(inner) as archive:
        assert "lib/charts/deep-1.0.0.tgz" in archive.getnames()


async def test_local_and_remote_dependencies_go_together(
    packager: ChartPackager, tree: Tree, fetch: Repository
) -> None:
    both = local("../../libs/lib") + REMOTE.removeprefix("dependencies:\n")
    put_chart(tree, more=both)
    put_chart(tree, "libs/lib", "lib", "0.2.0")
    fetch.offer("common", "1.0.0")
    found = contents(await packager.build(tree, "charts/app", fetch=fetch))
    assert {name for name in found if "/charts/" in name} == {
        "app/charts/common-1.0.0.tgz",
        "app/charts/lib-0.2.0.tgz",
    }
    assert [name for name, _, _ in fetch.asked] == ["common"]


async def test_a_lock_counts_for_local_dependencies_too(
    packager: ChartPackager, tree: Tree
) -> None:
    put_chart(tree, more=local("../../libs/lib"))
    put_chart(tree, "libs/lib", "lib", "0.3.0")
    lock = LOCK.replace("common", "lib").replace("1.0.7", "0.2.0")
    lock = lock.replace("https://charts.example/", "file://../../libs/lib")
    write(tree, {"charts/app/Chart.lock": lock})
    with pytest.raises(ChartRefused, match=r"app depends on lib 0\.2\.0, but .* has lib 0\.3\.0"):
        await packager.build(tree, "charts/app")


async def test_a_local_dependency_of_another_version_is_refused(
    packager: ChartPackager, tree: Tree
) -> None:
    put_chart(tree, more=local("../../libs/lib", version="^2.0.0"))
    put_chart(tree, "libs/lib", "lib", "0.2.0")
    with pytest.raises(ChartRefused, match=r"app depends on lib \^2\.0\.0, but .* has lib 0\.2\.0"):
        await packager.build(tree, "charts/app")


async def test_charts_that_depend_on_one_another_are_refused(
    packager: ChartPackager, tree: Tree
) -> None:
    put_chart(tree, more=local("../../libs/lib"))
    put_chart(tree, "libs/lib", "lib", "0.2.0", local("../../charts/app", "app"))
    with pytest.raises(ChartRefused, match="charts/app -> libs/lib -> charts/app"):
        await packager.build(tree, "charts/app")


@pytest.mark.parametrize(
    ("path", "kind"), [("../../../out", ChartRefused), ("../../gone", SourceMissing)]
)
async def test_a_local_dependency_out_of_the_tree_or_nowhere_is_said_so(
    packager: ChartPackager, tree: Tree, path: str, kind: type[HelmopsError]
) -> None:
    put_chart(tree, more=local(path))
    with pytest.raises(kind):
        await packager.build(tree, "charts/app")


async def test_a_changed_local_dependency_of_a_directory_is_noticed(
    packager: ChartPackager, tree: Tree
) -> None:
    directory = Tree("charts", "", tree.path)
    put_chart(directory, more=local("../../libs/lib"))
    put_chart(directory, "libs/lib", "lib", "0.2.0")
    first = await packager.build(directory, "charts/app")
    write(directory, {"libs/lib/templates/config.yaml": "kind: Secret\n"})
    assert (await packager.build(directory, "charts/app")).digest != first.digest


# Our own disk.


async def test_a_scratch_directory_that_cannot_be_made_is_said_so(
    tmp_path: Path, tree: Tree
) -> None:
    put_chart(tree)
    (tmp_path / "file").touch()
    packager = ChartPackager(ArtifactCache(tmp_path / "c"), scratch=tmp_path / "file" / "x")
    with pytest.raises(SourceUnavailable, match="cannot be packaged"):
        await packager.build(tree, "charts/app")


# Values files of archives.


def archived(tmp_path: Path, content: bytes, version: str = "1.2.3") -> ChartArtifact:
    path = tmp_path / "pulled.tgz"
    path.write_bytes(content)
    return ChartArtifact(
        name="app",
        version=version,
        path=str(path),
        digest=digest_of(path),
        source="https://charts.example.com",
        revision=version,
    )


FILES = {
    "prod.yaml": "image: {tag: '2'}\n",
    "sub/big.yaml": "replicas: 9\n",
    "list.yaml": "[1]\n",
    "templates/a.yaml": "kind: ConfigMap\n",
}


async def test_an_archive_gets_the_values_files_that_are_in_it(
    packager: ChartPackager, tmp_path: Path
) -> None:
    pulled = archived(tmp_path, chart_archive("app", "1.2.3", **FILES))
    made = await packager.with_values_files(pulled, ["values.yaml", "prod.yaml", "./sub/big.yaml"])
    assert yaml.safe_load(contents(made)["app/values.yaml"]) == {
        "image": {"tag": "2"},
        "replicas": 9,
    }
    assert contents(made)["app/templates/a.yaml"] == b"kind: ConfigMap\n"
    assert (made.name, made.version, made.source) == ("app", "1.2.3", pulled.source)
    assert made.digest == digest_of(Path(made.path)) != pulled.digest


async def test_values_yaml_counts_only_when_listed(packager: ChartPackager, tmp_path: Path) -> None:
    pulled = archived(tmp_path, chart_archive("app", "1.2.3", **FILES))
    made = await packager.with_values_files(pulled, ["prod.yaml"])
    assert contents(made)["app/values.yaml"] == FILES["prod.yaml"].encode()


async def test_the_same_archive_with_the_same_values_files_is_made_once(
    packager: ChartPackager, tmp_path: Path
) -> None:
    pulled = archived(tmp_path, chart_archive("app", "1.2.3", **FILES))
    first = await packager.with_values_files(pulled, ["prod.yaml"])
    os.unlink(pulled.path)  # what was made is at hand
    assert await packager.with_values_files(pulled, ["prod.yaml"]) == first
    os.unlink(first.path)
    archived(tmp_path, chart_archive("app", "1.2.3", **FILES))
    assert await packager.with_values_files(pulled, ["prod.yaml"]) == first
    other = await packager.with_values_files(pulled, ["sub/big.yaml"])
    assert other.digest != first.digest


async def test_a_values_file_that_an_archive_lacks_is_missing_unless_ignored(
    packager: ChartPackager, tmp_path: Path
) -> None:
    pulled = archived(tmp_path, chart_archive("app", "1.2.3", **FILES))
    with pytest.raises(SourceMissing, match=r"no values file gone\.yaml"):
        await packager.with_values_files(pulled, ["prod.yaml", "gone.yaml"])
    some = await packager.with_values_files(
        pulled, ["prod.yaml", "gone.yaml"], ignore_missing_values_files=True
    )
    assert contents(some)["app/values.yaml"] == FILES["prod.yaml"].encode()
    none = await packager.with_values_files(pulled, ["gone.yaml"], ignore_missing_values_files=True)
    assert none == pulled


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("list.yaml", "list.yaml"),
        ("../../etc/passwd", "leads out of the source"),
        ("templates", "no values file templates"),
    ],
)
async def test_what_is_no_values_file_of_an_archive_is_refused(
    packager: ChartPackager, tmp_path: Path, name: str, says: str
) -> None:
    pulled = archived(tmp_path, chart_archive("app", "1.2.3", **FILES))
    with pytest.raises((ChartRefused, SourceMissing), match=says):
        await packager.with_values_files(pulled, [name])
    assert not any((tmp_path / "scratch").iterdir())


async def test_two_repositories_of_one_archive_keep_their_names(
    packager: ChartPackager, tmp_path: Path
) -> None:
    pulled = archived(tmp_path, chart_archive("app", "1.2.3", **FILES))
    other = replace(pulled, source="https://mirror.example.com")
    await packager.with_values_files(pulled, ["prod.yaml"])
    assert (await packager.with_values_files(other, ["prod.yaml"])).source == other.source
