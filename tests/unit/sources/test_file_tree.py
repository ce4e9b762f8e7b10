from __future__ import annotations

import os
from pathlib import Path

import pytest

from helmops.errors import DeclarationError
from helmops.sources.file_tree import FileTree, LeavesTree, joined


@pytest.fixture
def root(tmp_path: Path) -> Path:
    directory = tmp_path / "tree"
    (directory / "a").mkdir(parents=True)
    (directory / "a/one.yaml").write_text("1")
    (tmp_path / "secret").write_text("outside")
    return directory


def test_it_reads_files_and_lists_names(root: Path) -> None:
    tree = FileTree(str(root))
    (root / ".hidden").write_text("")
    assert tree.read("a/one.yaml") == b"1"
    assert tree.read("a/two.yaml") is None
    assert (tree.names(""), tree.names("a"), tree.names("b")) == (("a/",), ("one.yaml",), None)
    assert tree.digest("a/two.yaml") == ""


@pytest.mark.parametrize("path", ["../secret", "a/../../secret", "/etc/passwd", ".."])
def test_no_path_leads_out(root: Path, path: str) -> None:
    with pytest.raises(LeavesTree, match="leads out of the repository"):
        FileTree(str(root)).read(path)


def test_no_link_leads_out(root: Path, tmp_path: Path) -> None:
    (root / "file.yaml").symlink_to(tmp_path / "secret")
    (root / "b").symlink_to(tmp_path)
    tree = FileTree(str(root))
    for path in ("file.yaml", "b/secret"):
        with pytest.raises(LeavesTree):
            tree.read(path)


def test_a_link_inside_is_followed(root: Path) -> None:
    (root / "b").symlink_to(root / "a")
    tree = FileTree(str(root))
    assert tree.read("b/one.yaml") == b"1"
    assert tree.real("b/one.yaml") == "a/one.yaml"


def test_a_look_sees_what_was_used_change_come_and_go(root: Path) -> None:
    tree = FileTree(str(root))
    assert not tree.look(), "nothing was used"
    tree.read("a/one.yaml")
    tree.read("a/two.yaml")
    tree.names("a")
    assert not tree.look()
    (root / "other").write_text("not asked for")
    assert not tree.look()
    (root / "a/two.yaml").write_text("2")
    assert tree.look()
    tree.names("a")
    assert tree.digest("a/two.yaml")
    os.unlink(root / "a/one.yaml")
    assert tree.look()
    assert tree.read("a/one.yaml") is None


def test_two_writes_within_a_tick_of_the_clock_are_told_apart(root: Path) -> None:
    tree, file = FileTree(str(root)), root / "a/one.yaml"
    tree.read("a/one.yaml")
    status = file.stat()
    with file.open("r+") as stream:
        stream.write("2")
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert tree.look()


def test_a_frozen_tree_is_not_looked_at(root: Path) -> None:
    tree = FileTree(str(root), frozen=True)
    tree.read("a/one.yaml")
    (root / "a/one.yaml").write_text("changed")
    assert not tree.look()


def test_a_file_that_is_too_large_is_refused(root: Path) -> None:
    with (root / "big.yaml").open("wb") as stream:
        stream.truncate(9 * 1024 * 1024)
    with pytest.raises(DeclarationError, match="larger than 8 MiB"):
        FileTree(str(root)).read("big.yaml")


def test_paths_are_joined_within_the_tree() -> None:
    assert (joined("a/b", "../c"), joined("a", ".."), joined("", "./x")) == ("a/c", "", "x")
