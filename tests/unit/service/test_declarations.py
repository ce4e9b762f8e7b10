from __future__ import annotations

import shutil
from datetime import timedelta
from pathlib import Path

import pytest
import yaml

from helmops.errors import SourceUnavailable
from helmops.model.credentials import GitCredentials
from helmops.model.declarations import GitRepositorySpec
from helmops.model.declared import DeclarationSet, SourceFile
from helmops.service.declarations import Declarations
from tests.fakes.artifact_trees import FakeArtifactTrees
from tests.fakes.clock import FakeClock
from tests.fakes.git_trees import FakeGitTrees
from tests.unit.reconcile.samples import GIT, key, release, repository

LABEL = "https://git.example.com/apps.git?ref=main"
INTERVAL = timedelta(minutes=5)


class Room:
    """Declarations of a directory, of Git, or of both."""

    def __init__(self, tmp_path: Path) -> None:
        self.clock = FakeClock()
        self.git = FakeGitTrees()
        self.path = tmp_path
        self.apps = tmp_path / "apps"
        self.declarations = Declarations(
            clock=self.clock,
            git=self.git,
            artifacts=FakeArtifactTrees(),
            default_namespace="apps",
            random=lambda: 1.0,
        )

    def write(self, name: str, *documents: object, directory: Path | None = None) -> Path:
        file = (directory or self.apps) / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(yaml.safe_dump_all(documents))
        return file

    def push(self, *documents: object, name: str = "all.yaml", path: str = "") -> None:
        """A commit whose only file this is."""
        tree = self.path / f"tree-{len(list(self.path.iterdir()))}"
        tree.mkdir()
        if documents:
            self.write(name, *documents, directory=tree / path if path else tree)
        self.git.push(GIT, path=str(tree))

    def add_git(self, path: str = "") -> None:
        spec = GitRepositorySpec.model_validate(
            {"url": GIT, "interval": "5m", "ref": {"branch": "main"}}
        )
        self.declarations.add_git(spec, path, LABEL, GitCredentials())


@pytest.fixture
def room(tmp_path: Path) -> Room:
    return Room(tmp_path)


def names(declared: DeclarationSet | None) -> set[str]:
    assert declared is not None
    return {each.name for each in declared.releases}


def troubles(declared: DeclarationSet | None) -> list[str]:
    assert declared is not None
    return [str(error) for error in declared.errors]


# Directories


async def test_a_directory_is_read_and_read_again_when_it_changes(room: Room) -> None:
    room.write("web.yaml", release("web"))
    room.declarations.add_directory(str(room.apps))
    assert names(await room.declarations.read()) == {"web"}
    assert await room.declarations.poll() is None
    room.write("db.yaml", release("db"))
    assert names(await room.declarations.poll()) == {"web", "db"}
    (room.apps / "web.yaml").unlink()
    changed = await room.declarations.poll()
    assert names(changed) == {"db"}
    assert changed is room.declarations.current
    assert changed is not None
    assert changed.complete, "a file that was deleted is a removal"


async def test_a_single_file_will_do(room: Room) -> None:
    file = room.write("web.yaml", release("web"))
    room.write("db.yaml", release("db"))
    room.declarations.add_directory(str(file))
    assert names(await room.declarations.read()) == {"web"}


async def test_documents_without_a_namespace_are_in_the_one_that_was_said(room: Room) -> None:
    document = release("web")
    del document["metadata"]["namespace"]
    room.write("web.yaml", document)
    room.declarations.add_directory(str(room.apps))
    assert set((await room.declarations.read()).releases) == {key("web")}


@pytest.mark.parametrize("how", ["deleted", "emptied"])
async def test_a_directory_that_vanishes_keeps_what_it_declared(room: Room, how: str) -> None:
    room.write("web.yaml", release("web"))
    room.declarations.add_directory(str(room.apps))
    await room.declarations.read()
    shutil.rmtree(room.apps)
    if how == "emptied":
        room.apps.mkdir()

    after = await room.declarations.poll()

    assert names(after) == {"web"}
    assert after is not None
    assert not after.complete, "so that nothing counts as removed"
    assert len(after.errors) == 1
    assert await room.declarations.poll() is None, "it is said once"


async def test_a_file_in_the_place_of_a_directory_removes_nothing(room: Room) -> None:
    room.write("web.yaml", release("web"))
    room.declarations.add_directory(str(room.apps))
    await room.declarations.read()
    shutil.rmtree(room.apps)
    room.apps.write_text("")
    after = await room.declarations.poll()
    assert after is not None
    assert not after.complete


async def test_a_directory_that_comes_back_is_read_again(room: Room) -> None:
    room.write("web.yaml", release("web"))
    room.declarations.add_directory(str(room.apps))
    await room.declarations.read()
    shutil.rmtree(room.apps)
    await room.declarations.poll()
    room.write("db.yaml", release("db"))
    after = await room.declarations.poll()
    assert names(after) == {"db"}
    assert after is not None
    assert after.complete
    assert after.errors == ()


async def test_a_directory_that_was_never_there_declares_nothing_and_removes_nothing(
    room: Room,
) -> None:
    room.declarations.add_directory(str(room.apps))
    declared = await room.declarations.read()
    assert (names(declared), declared.complete) == (set(), False)
    assert "it does not exist" in troubles(declared)[0]
    assert "nothing of it is taken for removed" in troubles(declared)[0]
    assert room.declarations.locations == frozenset()


async def test_one_place_in_trouble_leaves_the_others_as_they_are(room: Room) -> None:
    others = room.path / "others"
    room.write("web.yaml", release("web"))
    room.write("db.yaml", release("db"), directory=others)
    room.declarations.add_directory(str(room.apps))
    room.declarations.add_directory(str(others))
    await room.declarations.read()
    shutil.rmtree(others)
    room.write("web.yaml", release("web", interval="2h"))
    after = await room.declarations.poll()
    assert names(after) == {"web", "db"}
    assert after is not None
    assert after.releases[key("web")].resource.spec.interval == timedelta(hours=2)


async def test_a_mistake_in_a_file_is_told_beside_the_trouble_of_a_place(room: Room) -> None:
    room.write("web.yaml", release("web", noSuchField=1))
    room.declarations.add_directory(str(room.apps))
    room.declarations.add_directory(str(room.path / "none"))
    found = troubles(await room.declarations.read())
    assert len(found) == 2
    assert "none" in found[0]
    assert "noSuchField" in found[1]


# Git


async def test_a_git_repository_is_asked_at_its_interval(room: Room) -> None:
    room.push(repository(), release("web"))
    room.add_git()
    assert names(await room.declarations.read()) == {"web"}
    room.push(repository(), release("db"))
    assert await room.declarations.poll() is None
    room.clock.advance(INTERVAL - timedelta(seconds=1))
    assert await room.declarations.poll() is None
    room.clock.advance(1)
    assert names(await room.declarations.poll()) == {"db"}


async def test_reading_asks_whatever_the_interval(room: Room) -> None:
    room.push(release("web"))
    room.add_git()
    await room.declarations.read()
    room.push(release("db"))
    assert names(await room.declarations.read()) == {"db"}


async def test_an_unchanged_revision_is_not_checked_out_again(room: Room) -> None:
    room.push(release("web"))
    room.add_git()
    await room.declarations.read()
    room.clock.advance(INTERVAL)
    assert await room.declarations.poll() is None
    assert [call[0] for call in room.git.asked] == ["resolve", "checkout", "resolve"]


async def test_a_path_in_the_repository_is_all_that_is_read(room: Room) -> None:
    room.push(release("web"), path="clusters/prod")
    room.add_git("/clusters/prod/")
    declared = await room.declarations.read()
    assert names(declared) == {"web"}
    assert declared.releases[key("web")].where == f"{LABEL}/all.yaml:1"
    assert declared.releases[key("web")].file.revision == room.git.asked[-1][2]


async def test_git_that_does_not_answer_keeps_what_it_declared(room: Room) -> None:
    room.push(release("web"))
    room.add_git()
    await room.declarations.read()
    room.git.fail(GIT, SourceUnavailable("no answer", next_step="look at the network"))
    room.clock.advance(INTERVAL)
    after = await room.declarations.poll()
    assert names(after) == {"web"}
    assert after is not None
    assert not after.complete
    assert troubles(after) == [f"{LABEL}: no answer (look at the network)"]


async def test_git_that_fails_is_asked_after_a_back_off_not_at_its_interval(room: Room) -> None:
    room.push(release("web"))
    room.add_git()
    await room.declarations.read()
    room.git.fail(GIT, SourceUnavailable("no answer"))
    room.clock.advance(INTERVAL)
    await room.declarations.poll()
    asked = len(room.git.asked)
    assert await room.declarations.poll() is None
    assert len(room.git.asked) == asked
    room.clock.advance(1)
    assert await room.declarations.poll() is None, "the same trouble is no news"
    assert len(room.git.asked) == asked + 1
    room.git.fail(GIT, None)
    room.clock.advance(2)
    after = await room.declarations.poll()
    assert after is not None
    assert (names(after), after.complete, after.errors) == ({"web"}, True, ())


async def test_git_that_says_when_is_not_asked_before(room: Room) -> None:
    room.add_git()
    room.git.fail(GIT, SourceUnavailable("429", retry_after=60.0))
    await room.declarations.read()
    room.push(release("web"))
    room.git.fail(GIT, None)
    room.clock.advance(59)
    assert await room.declarations.poll() is None
    room.clock.advance(8)
    assert names(await room.declarations.poll()) == {"web"}


async def test_a_commit_without_the_path_keeps_what_was_declared(room: Room) -> None:
    room.push(release("web"), path="prod")
    room.add_git("prod")
    await room.declarations.read()
    room.push(release("db"), path="moved")
    room.clock.advance(INTERVAL)
    after = await room.declarations.poll()
    assert names(after) == {"web"}
    assert after is not None
    assert not after.complete
    assert "it does not exist at main@sha1:" in troubles(after)[0]


async def test_an_empty_commit_keeps_what_was_declared(room: Room) -> None:
    room.push(release("web"))
    room.add_git()
    await room.declarations.read()
    room.push()
    room.clock.advance(INTERVAL)
    after = await room.declarations.poll()
    assert names(after) == {"web"}
    assert after is not None
    assert not after.complete


# Which declaration is whose


async def test_a_place_is_known_by_where_it_is_not_by_how_it_was_written(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    room.write("web.yaml", release("web"))
    room.declarations.add_directory(str(room.apps))
    await room.declarations.read()
    monkeypatch.chdir(room.path)
    for written in ("apps", "./apps", "apps/", "../" + room.path.name + "/apps"):
        other = Declarations(
            clock=room.clock,
            git=room.git,
            artifacts=FakeArtifactTrees(),
            default_namespace="apps",
            random=lambda: 1.0,
        )
        other.add_directory(written)
        declared = await other.read()
        assert other.locations == room.declarations.locations, written
        file = declared.releases[key("web")].file
        assert other.location_of(file) == str(room.apps.resolve()), written


async def test_the_working_directory_is_a_place_too(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    room.write("web.yaml", release("web"))
    monkeypatch.chdir(room.apps)
    room.declarations.add_directory(".")
    declared = await room.declarations.read()
    file = declared.releases[key("web")].file
    assert room.declarations.location_of(file) == str(room.apps.resolve())


async def test_a_file_of_git_belongs_to_its_repository_and_reference(room: Room) -> None:
    room.push(release("web"))
    room.add_git()
    declared = await room.declarations.read()
    assert room.declarations.location_of(declared.releases[key("web")].file) == LABEL
    assert room.declarations.locations == {LABEL}
    assert room.declarations.directories == ()


async def test_a_directory_with_the_name_of_another_in_front_is_not_that_one(room: Room) -> None:
    other = room.path / "apps-of-others"
    room.write("web.yaml", release("web"))
    room.write("db.yaml", release("db"), directory=other)
    room.declarations.add_directory(str(room.apps))
    room.declarations.add_directory(str(other))
    declared = await room.declarations.read()
    found = {
        each.name: room.declarations.location_of(r.file) for each, r in declared.releases.items()
    }
    assert found == {"web": str(room.apps.resolve()), "db": str(other.resolve())}
    assert room.declarations.directories == (str(room.apps.resolve()), str(other.resolve()))


def test_a_file_of_no_place_says_itself_where_it_is_from(room: Room) -> None:
    file = SourceFile("record", "", "", "/from/the/record")
    assert room.declarations.location_of(file) == "/from/the/record"
