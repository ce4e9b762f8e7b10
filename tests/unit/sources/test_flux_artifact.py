"""helmops/sources/flux_artifact.py: the files of a repository as Flux has them."""

from __future__ import annotations

from pathlib import Path

import pytest

from helmops.errors import SourceInvalid
from helmops.sources.file_tree import FileTree, LeavesTree
from helmops.sources.flux_artifact import ArtifactFiles

FILES = (
    "apps/web.yaml",
    "apps/appveyor.yml",
    "apps/docs/deep/readme.yaml",
    "apps/docs/keep.yaml",
    "logo.png",
    "old/only.yaml",
)

DOCS = {"apps/docs/deep/readme.yaml", "apps/docs/keep.yaml"}


@pytest.fixture
def tree(tmp_path: Path) -> FileTree:
    for path in FILES:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(path)
    return FileTree(str(tmp_path))


def left(files: ArtifactFiles) -> set[str]:
    """What is there, asked for in every way, which must agree."""
    found = set()
    for path in FILES:
        is_there = files.is_file(path)
        assert (files.read(path) is not None) is is_there
        assert bool(files.digest(path)) is is_there
        if is_there:
            found.add(path)
    walked, waiting = set(), [""]
    while waiting:
        directory = waiting.pop()
        for name in files.names(directory) or ():
            path = f"{directory}/{name}".strip("/") if directory else name.strip("/")
            if name.endswith("/"):
                assert files.is_directory(path)
                waiting.append(path)
            else:
                walked.add(path)
    assert walked == found
    return found


def test_without_rules_flux_own_leave_files_out(tree: FileTree) -> None:
    assert left(ArtifactFiles(tree, None)) == {*FILES} - {"logo.png", "apps/appveyor.yml"}
    assert left(ArtifactFiles(tree, "# nothing\n")) == {*FILES} - {"logo.png", "apps/appveyor.yml"}


@pytest.mark.parametrize(
    ("texts", "own", "gone"),
    [
        ({"": "docs/\n/old/*.yaml\n"}, None, DOCS | {"old/only.yaml"}),
        ({"apps": "/docs/deep\n"}, None, {"apps/docs/deep/readme.yaml", "logo.png"}),
        ({"": "docs/\n"}, "!keep.yaml\n", {"apps/docs/deep/readme.yaml"}),
        ({"": "docs/\n", "apps/docs": "!*.yaml\n"}, None, set()),
        ({"": "docs/\n", "apps": "!/docs/deep\n"}, "", {"apps/docs/keep.yaml"}),
        ({}, "/*\n!/apps/docs\n", {*FILES} - DOCS),
    ],
)
def test_ignore_files_of_all_directories_and_the_declaration_leave_files_out(
    tree: FileTree, texts: dict[str, str], own: str | None, gone: set[str]
) -> None:
    for directory, text in texts.items():
        (Path(tree.root) / directory / ".sourceignore").write_text(text)
    assert left(ArtifactFiles(tree, own)) == {*FILES} - gone


def test_a_directory_of_which_nothing_is_left_is_not_there(tree: FileTree) -> None:
    files = ArtifactFiles(tree, "/old/\ndocs/\n!keep.yaml\n")
    assert [files.is_directory(path) for path in ("", "old", "apps", "apps/docs", "none")] == [
        True,
        False,
        True,
        True,
        False,
    ]
    assert (files.names("old"), files.names_digest("old")) == (None, "")
    assert not files.is_directory("apps/docs/deep")
    assert files.names("apps/docs") == ("keep.yaml",)
    everything = FileTree(tree.root)
    assert files.names_digest("apps/docs") != everything.names_digest("apps/docs")
    assert files.names_digest("apps") == everything.names_digest("apps")


def test_what_leads_out_is_refused_as_ever(tree: FileTree) -> None:
    for path in ("../secret", "..", "/etc/passwd"):
        with pytest.raises(LeavesTree):
            ArtifactFiles(tree, "*").read(path)


def test_a_look_sees_ignore_files_come_change_and_go(tree: FileTree) -> None:
    file = Path(tree.root) / "apps/.sourceignore"
    for text, is_there in (("", True), ("web.yaml", False), ("wed.yaml", True), (None, True)):
        if text is None:
            file.unlink()
        elif text:
            file.write_text(text)
        assert tree.look() is (text != "")
        assert ArtifactFiles(tree, None).is_file("apps/web.yaml") is is_there


def test_directories_are_listed_and_ignore_files_looked_for_once(
    tree: FileTree, monkeypatch: pytest.MonkeyPatch
) -> None:
    left(ArtifactFiles(tree, None))

    def refuse(path: str) -> None:
        raise AssertionError(f"{path} was read again")

    monkeypatch.setattr(tree, "_names", refuse)
    monkeypatch.setattr(tree, "_read", refuse)
    again = ArtifactFiles(tree, None)
    assert again.names("apps/docs") == ("deep/", "keep.yaml")
    assert again.digest("apps/web.yaml")
    assert again.names_digest("apps")


def test_rules_that_are_none_are_told_with_their_file(tree: FileTree) -> None:
    (Path(tree.root) / "apps/.sourceignore").write_text("a\\")
    shown = FileTree(tree.root, show=lambda path: f"fleet/{path}")
    with pytest.raises(SourceInvalid, match=r"^fleet/apps/\.sourceignore: "):
        ArtifactFiles(shown, None).is_file("apps/web.yaml")
    with pytest.raises(SourceInvalid, match=r"^fleet/: "):
        ArtifactFiles(shown, "a\\")


def test_an_ignored_directory_is_not_looked_into_where_nothing_is_brought_in_again(
    tree: FileTree,
) -> None:
    assert ArtifactFiles(tree, "/old/\n").names("") == ("apps/", "logo.png")
    (Path(tree.root) / "old/more.yaml").write_text("")
    (Path(tree.root) / "old/deeper").mkdir()
    assert not tree.look()
    assert ArtifactFiles(tree, "/old/\n!keep.yaml\n").names("") == ("apps/", "logo.png")
    (Path(tree.root) / "old/keep.yaml").write_text("")
    assert tree.look()
    files = ArtifactFiles(tree, "/old/\n!keep.yaml\n")
    assert files.names("") == ("apps/", "logo.png", "old/")
    assert files.names("old") == ("keep.yaml",)
