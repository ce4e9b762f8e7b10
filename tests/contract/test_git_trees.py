"""What every `GitTrees` does: the fake of the scenarios, and the real one."""

# ruff: noqa: ASYNC240 - tests may block

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, Protocol

import pytest

from helmops.errors import SourceError, SourceMissing
from helmops.model.credentials import GitCredentials
from helmops.model.declarations import GitRepositorySpec
from helmops.reconcile.ports import GitTrees
from helmops.sources.git import GitMirrors
from tests.fakes.git_server import GitRepository
from tests.fakes.git_trees import FakeGitTrees

NONE = GitCredentials()


class World(Protocol):
    """A repository that tests can push to."""

    trees: GitTrees
    url: str

    def push(self, content: str, *, branch: str = "main", tag: str = "") -> str:
        """A commit whose file `file` has that content; its hash."""

    def delete_branch(self, branch: str) -> None: ...


class FakeWorld:
    def __init__(self, files: Path) -> None:
        self.trees = self._fake = FakeGitTrees()
        self.url = "https://git.example/apps.git"
        self._files = files
        self._count = 0

    def push(self, content: str, *, branch: str = "main", tag: str = "") -> str:
        self._count += 1
        path = self._files / str(self._count)
        path.mkdir()
        (path / "file").write_text(content)
        return self._fake.push(self.url, branch=branch, tag=tag, path=str(path))

    def delete_branch(self, branch: str) -> None:
        self._fake.delete_branch(self.url, branch)


class RealWorld:
    def __init__(self, directory: Path) -> None:
        self._repository = GitRepository(directory / "apps")
        self._repository.commit({})
        self.trees = self._mirrors = GitMirrors(directory / "cache")
        self.url = self._repository.url

    def push(self, content: str, *, branch: str = "main", tag: str = "") -> str:
        self._repository.git("checkout", "--quiet", "-B", branch)
        commit = self._repository.commit({"file": content})
        if tag:
            self._repository.git("tag", "--annotate", "--message", "release", tag)
        return commit

    def delete_branch(self, branch: str) -> None:
        self._repository.git("checkout", "--quiet", "--detach")
        self._repository.git("branch", "--quiet", "--delete", "--force", branch)

    def close(self) -> None:
        self._mirrors.close()


@pytest.fixture(params=["fake", "real"])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    if request.param == "fake":
        yield FakeWorld(tmp_path)
        return
    real = RealWorld(tmp_path)
    yield real
    real.close()


def spec(world: World, **ref: Any) -> GitRepositorySpec:
    return GitRepositorySpec.model_validate(
        {"url": world.url, "ref": ref, "interval": timedelta(minutes=1)}
    )


async def content(world: World, repository: GitRepositorySpec) -> str:
    revision = await world.trees.resolve(repository, NONE)
    tree = await world.trees.checkout(repository, NONE, revision)
    assert tree.revision == revision
    return Path(tree.path, "file").read_text()


async def test_a_branch_is_followed(world: World) -> None:
    repository = spec(world, branch="main")
    first = world.push("one")
    assert await world.trees.resolve(repository, NONE) == f"main@sha1:{first}"
    assert await content(world, repository) == "one"
    world.push("two")
    assert await content(world, repository) == "two"


async def test_without_a_reference_it_is_the_branch_master(world: World) -> None:
    world.push("one")
    with pytest.raises(SourceMissing, match="no branch master"):
        await world.trees.resolve(spec(world), NONE)
    commit = world.push("two", branch="master")
    assert await world.trees.resolve(spec(world), NONE) == f"master@sha1:{commit}"


async def test_a_tag_is_its_commit(world: World) -> None:
    commit = world.push("one", tag="v1.0.0")
    world.push("two")
    repository = spec(world, tag="v1.0.0")
    assert await world.trees.resolve(repository, NONE) == f"v1.0.0@sha1:{commit}"
    assert await content(world, repository) == "one"


async def test_a_range_takes_the_newest_tag_in_it(world: World) -> None:
    world.push("one", tag="v1.2.0")
    ten = world.push("ten", tag="v1.10.0")
    world.push("two", tag="v2.0.0")
    assert await world.trees.resolve(spec(world, semver="1.x"), NONE) == f"v1.10.0@sha1:{ten}"


async def test_a_full_name_is_taken_as_it_is(world: World) -> None:
    commit = world.push("one", branch="feature/a", tag="v1")
    repository = spec(world, name="refs/heads/feature/a")
    assert await world.trees.resolve(repository, NONE) == f"refs/heads/feature/a@sha1:{commit}"
    tag = spec(world, name="refs/tags/v1")
    assert await world.trees.resolve(tag, NONE) == f"refs/tags/v1@sha1:{commit}"


async def test_a_commit_goes_before_all_others(world: World) -> None:
    commit = world.push("one", tag="v1.0.0")
    world.push("two", tag="v1.1.0")
    repository = spec(world, commit=commit, branch="main", tag="v1.1.0", semver="*")
    assert await world.trees.resolve(repository, NONE) == f"main@sha1:{commit}"
    assert await content(world, repository) == "one"
    assert await world.trees.resolve(spec(world, commit=commit), NONE) == f"sha1:{commit}"


@pytest.mark.parametrize(
    "ref",
    [
        {"branch": "gone"},
        {"tag": "gone"},
        {"semver": ">=9"},
        {"name": "refs/heads/gone"},
        {"branch": "*"},
        {"branch": "--upload-pack=touch /tmp/x"},
    ],
)
async def test_what_is_not_there_is_missing(world: World, ref: dict[str, str]) -> None:
    world.push("one", tag="v1.0.0")
    with pytest.raises(SourceMissing):
        await world.trees.resolve(spec(world, **ref), NONE)


async def test_a_branch_that_went_is_missing(world: World) -> None:
    world.push("one", branch="gone")
    await world.trees.resolve(spec(world, branch="gone"), NONE)
    world.delete_branch("gone")
    with pytest.raises(SourceMissing, match="no branch gone"):
        await world.trees.resolve(spec(world, branch="gone"), NONE)


async def test_a_commit_that_is_not_there_cannot_be_checked_out(world: World) -> None:
    world.push("one")
    repository = spec(world, branch="main")
    with pytest.raises(SourceError):
        await world.trees.checkout(repository, NONE, f"main@sha1:{'0' * 40}")


async def test_an_earlier_revision_can_still_be_checked_out(world: World) -> None:
    repository = spec(world, branch="main")
    world.push("one")
    first = await world.trees.resolve(repository, NONE)
    await world.trees.checkout(repository, NONE, first)
    world.push("two")
    await content(world, repository)
    tree = await world.trees.checkout(repository, NONE, first)
    assert Path(tree.path, "file").read_text() == "one"
