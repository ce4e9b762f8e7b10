from __future__ import annotations

import os
from pathlib import Path

import pytest

from helmops.errors import SourceInvalid
from helmops.model.charts import Tree
from helmops.sources.tree_files import TreeFiles, signature


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "secret.yaml").write_text("a: secret")
    root = tmp_path / "tree"
    (root / "values").mkdir(parents=True)
    (root / "values" / "prod.yaml").write_bytes(b"a: 1\n\xff")
    return root


async def read(root: Path, path: str) -> bytes | None:
    return await TreeFiles().read(Tree("apps", "main@sha1:0", str(root)), path)


async def find(root: Path, pattern: str) -> tuple[str, ...]:
    return await TreeFiles().find(Tree("apps", "main@sha1:0", str(root)), pattern)


# Several files


async def test_files_of_a_pattern_are_found_in_the_order_of_their_paths(root: Path) -> None:
    for name in ("b.yaml", "a.yaml", "deep/er/c.yaml", ".git/d.yaml"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    assert await find(root, "*.yaml") == ("a.yaml", "b.yaml")
    assert await find(root, "./values/*.yaml") == ("values/prod.yaml",)
    every = ("a.yaml", "b.yaml", "deep/er/c.yaml", "values/prod.yaml")
    assert await find(root, "**/*.yaml") == every
    assert await find(root, "gone/*.yaml") == ()


@pytest.mark.parametrize("pattern", ["../*.yaml", "values/../../*.yaml", "/etc/*"])
async def test_no_pattern_leads_out_of_the_tree(root: Path, pattern: str) -> None:
    with pytest.raises(SourceInvalid, match="leaves apps"):
        await find(root, pattern)


async def test_a_pattern_over_too_many_files_is_refused(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("helmops.sources.tree_files._MAX_FILES", 2)
    for number in range(3):
        (root / f"{number}.yaml").touch()
    with pytest.raises(SourceInvalid, match="more than 2 files"):
        await find(root, "*.yaml")


# One file


async def test_a_file_is_read_byte_by_byte(root: Path) -> None:
    assert await read(root, "values/prod.yaml") == b"a: 1\n\xff"


@pytest.mark.parametrize(
    "path", ["./values/prod.yaml", "values/../values/prod.yaml", "values//prod.yaml"]
)
async def test_ways_about_the_tree_are_fine(root: Path, path: str) -> None:
    assert await read(root, path) is not None


@pytest.mark.parametrize(
    "path", ["values/none.yaml", "none/none.yaml", "values/prod.yaml/none.yaml"]
)
async def test_a_file_that_is_not_there_is_none(root: Path, path: str) -> None:
    assert await read(root, path) is None


async def test_a_tree_that_is_not_there_has_no_file(root: Path) -> None:
    assert await read(root / "gone", "values.yaml") is None


@pytest.mark.parametrize("path", ["../secret.yaml", "values/../../secret.yaml", "/etc/hostname"])
async def test_a_path_that_leaves_the_tree_is_refused(root: Path, path: str) -> None:
    with pytest.raises(SourceInvalid, match="leaves apps"):
        await read(root, path)


async def test_a_link_that_leaves_the_tree_is_refused(root: Path) -> None:
    (root / "link.yaml").symlink_to(root.parent / "secret.yaml")
    (root / "up").symlink_to(root.parent)
    for path in ("link.yaml", "up/secret.yaml"):
        with pytest.raises(SourceInvalid, match="leaves apps"):
            await read(root, path)


async def test_a_directory_beside_the_tree_with_its_name_in_front_is_outside(root: Path) -> None:
    beside = root.with_name("tree-of-others")
    beside.mkdir()
    (beside / "values.yaml").write_text("a: 1")
    with pytest.raises(SourceInvalid, match="leaves apps"):
        await read(root, "../tree-of-others/values.yaml")


async def test_a_link_within_the_tree_is_followed(root: Path) -> None:
    (root / "link.yaml").symlink_to("values/prod.yaml")
    assert await read(root, "link.yaml") is not None


async def test_a_tree_that_is_itself_a_link_is_read(root: Path) -> None:
    link = root.with_name("current")
    link.symlink_to(root)
    assert await read(link, "values/prod.yaml") is not None


async def test_only_regular_files_are_read(root: Path) -> None:
    """A read of a pipe would never end."""
    os.mkfifo(root / "pipe.yaml")
    for path in ("values", "pipe.yaml"):
        with pytest.raises(SourceInvalid, match=f"{path} in apps is not a regular file"):
            await read(root, path)


async def test_what_is_no_path_at_all_is_refused(root: Path) -> None:
    with pytest.raises(SourceInvalid, match="is no path"):
        await read(root, "values\0.yaml")


async def test_a_loop_of_links_cannot_be_read(root: Path) -> None:
    (root / "a.yaml").symlink_to("b.yaml")
    (root / "b.yaml").symlink_to("a.yaml")
    with pytest.raises(SourceInvalid, match=r"a\.yaml in apps cannot be read"):
        await read(root, "a.yaml")


@pytest.mark.parametrize(("size", "is_refused"), [(4 << 20, False), ((4 << 20) + 1, True)])
async def test_what_helm_could_never_store_is_not_read(
    root: Path, size: int, is_refused: bool
) -> None:
    with (root / "large.yaml").open("wb") as file:
        file.truncate(size)
    if is_refused:
        with pytest.raises(SourceInvalid, match="larger than 4 MiB"):
            await read(root, "large.yaml")
    else:
        assert len(await read(root, "large.yaml") or b"") == size


# Signatures


def of(*paths: Path) -> tuple[tuple[str, int, int], ...]:
    return signature([str(path) for path in paths])


def test_the_same_files_have_the_same_signature(root: Path) -> None:
    assert of(root) == of(root)
    assert len(of(root)) == 1


def test_a_changed_file_changes_it(root: Path) -> None:
    before = of(root)
    (root / "values" / "prod.yaml").write_bytes(b"a: 12\n\xff")
    assert of(root) != before


def test_a_change_of_the_same_size_changes_it(root: Path) -> None:
    before, file = of(root), root / "values" / "prod.yaml"
    os.utime(file, ns=(0, file.stat().st_mtime_ns + 1))
    assert of(root) != before


def test_new_and_renamed_and_deleted_files_change_it(root: Path) -> None:
    seen = [of(root)]
    new = root / "values" / "new.yaml"
    new.write_text("a: 1")
    seen.append(of(root))
    moved = new.rename(root / "new.yaml")
    seen.append(of(root))
    moved.unlink()
    assert len(set(seen)) == 3
    assert of(root) == seen[0]


def test_a_single_file_has_one_too(root: Path) -> None:
    file = root / "values" / "prod.yaml"
    ((path, _, size),) = of(file)
    assert (path, size) == (str(file), 6)


def test_what_is_not_there_counts_as_empty(root: Path) -> None:
    assert of(root / "none") == ()
    assert of(root / "none", root) == of(root)


def test_a_tree_of_links_to_itself_comes_to_an_end(root: Path) -> None:
    (root / "again").symlink_to(root)
    assert len(of(root)) >= 1


def test_it_looks_at_no_more_than_twenty_thousand_files(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("helmops.sources.tree_files._MAX_FILES", 3)
    for number in range(10):
        (root / f"{number}.yaml").write_text("")
    assert len(of(root)) == 4
