"""helmops/sources/cache_content.py: what is in a cache, and what goes first."""

# ruff: noqa: ASYNC240 - tests may block

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from helmops.model.credentials import GitCredentials
from helmops.model.declarations import GitRepositorySpec
from helmops.sources.artifact_cache import ArtifactCache
from helmops.sources.cache_content import IN_USE, cache_entries, prune
from helmops.sources.git import GitMirrors
from tests.fakes.chart_archives import chart_archive, sha256
from tests.fakes.git_server import GitRepository


def put(directory: Path, content: bytes, *, age: float = 3600.0) -> Path:
    cache = ArtifactCache(directory / "charts")
    with cache.incoming() as incoming:
        incoming.write_bytes(content)
        path = cache.add(incoming, sha256(content))
    return aged(path, age)


def aged(path: Path, seconds: float) -> Path:
    then = path.stat().st_mtime - seconds
    os.utime(path, (then, then))
    return path


def index(directory: Path, content: str, *, age: float = 3600.0) -> Path:
    path = directory / "indexes" / f"{sha256(content.encode())}.yaml"
    path.parent.mkdir(exist_ok=True)
    path.write_text(content)
    return aged(path, age)


def test_a_cache_that_is_not_there_is_empty(tmp_path: Path) -> None:
    assert cache_entries(tmp_path / "none") == ()
    assert prune(tmp_path / "none", 0) == ((), 0)


def test_everything_is_listed_last_used_first(tmp_path: Path) -> None:
    old = put(tmp_path, chart_archive("web", "1.2.3"), age=7200)
    new = index(tmp_path, "apiVersion: v1\n", age=100)
    (tmp_path / "indexes" / "salt").write_bytes(b"s" * 32)
    (tmp_path / "charts" / "half.part").write_bytes(b"half")
    entries = cache_entries(tmp_path)
    assert [(entry.kind, entry.path) for entry in entries] == [("index", new), ("chart", old)]
    assert entries[1].name == f"web-1.2.3 {old.stem[:12]}"
    assert entries[1].size == old.stat().st_size
    assert entries[1].used == datetime.fromtimestamp(old.stat().st_mtime, UTC)


def test_a_damaged_chart_is_listed_by_its_digest(tmp_path: Path) -> None:
    path = put(tmp_path, b"no archive")
    assert [entry.name for entry in cache_entries(tmp_path)] == [path.stem[:12]]


async def test_mirrors_are_listed_by_their_url_and_fetched_again_when_they_went(
    tmp_path: Path,
) -> None:
    repository = GitRepository(tmp_path / "apps")
    repository.commit({"file": "one"})
    cache = tmp_path / "cache"
    git = GitMirrors(cache / "git")
    spec = GitRepositorySpec.model_validate(
        {"url": repository.url, "ref": {"branch": "main"}, "interval": "1m"}
    )
    try:
        revision = await git.resolve(spec, GitCredentials())
        tree = await git.checkout(spec, GitCredentials(), revision)
        listed = {entry.kind: entry for entry in cache_entries(cache)}
        assert listed["git mirror"].name == repository.url
        assert listed["git checkout"].name == f"{repository.url}@{revision[-40:][:12]}"
        assert listed["git checkout"].size == 3
        for path in (Path(tree.path), listed["git mirror"].path):
            aged(path, 3600)
        aged(listed["git mirror"].path.with_suffix(".lock"), 3600)
        removed, left = prune(cache, 0)
        assert (len(removed), left) == (2, 0)
        assert not Path(tree.path).exists()
        again = await git.checkout(spec, GitCredentials(), revision)
        assert (Path(again.path) / "file").read_text() == "one"
    finally:
        git.close()


def test_what_was_not_used_for_longest_goes_until_it_is_small_enough(tmp_path: Path) -> None:
    sizes = {}
    for hours in (1, 2, 3, 4):
        path = put(tmp_path, bytes([hours]) * 100, age=3600.0 * hours)
        sizes[hours] = path
    removed, left = prune(tmp_path, 250)
    assert [entry.path for entry in removed] == [sizes[4], sizes[3]]
    assert left == 200
    assert [path.exists() for path in sizes.values()] == [True, True, False, False]
    assert prune(tmp_path, 250) == ((), 200)


def test_a_dry_run_removes_nothing(tmp_path: Path) -> None:
    path = put(tmp_path, b"chart")
    removed, left = prune(tmp_path, 0, dry_run=True)
    assert [entry.path for entry in removed] == [path]
    assert (left, path.exists()) == (0, True)


def test_what_is_in_use_stays_even_when_all_is_to_go(tmp_path: Path) -> None:
    path = put(tmp_path, b"chart", age=IN_USE / 2)
    assert prune(tmp_path, 0) == ((), 5)
    assert path.exists()


def test_a_mirror_that_somebody_works_with_stays(tmp_path: Path) -> None:
    mirror = tmp_path / "git" / "mirrors" / "0123"
    mirror.mkdir(parents=True)
    (mirror / "HEAD").write_text("ref")
    lock = mirror.with_suffix(".lock")
    with lock.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        for path in (mirror, lock):
            aged(path, 3600)
        assert prune(tmp_path, 0) == ((), 3)
    aged(lock, 3600)
    assert len(prune(tmp_path, 0)[0]) == 1


PRUNER = "import sys; from pathlib import Path; from helmops.sources.cache_content import prune\n"
PRUNER += "print(len(prune(Path(sys.argv[1]), 0)[0]))"


def test_two_that_prune_at_once_do_not_disturb_each_other(tmp_path: Path) -> None:
    for number in range(200):
        put(tmp_path, f"chart {number}".encode())
    both = [
        subprocess.Popen(
            [sys.executable, "-c", PRUNER, str(tmp_path)], stdout=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    removed = [int(process.communicate(timeout=60)[0]) for process in both]
    assert sum(removed) == 200
    assert cache_entries(tmp_path) == ()
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_a_cache_that_cannot_be_written_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path, b"chart")

    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(PermissionError):
        prune(tmp_path, 0)
