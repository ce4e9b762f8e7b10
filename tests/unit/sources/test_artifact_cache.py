"""helmops/sources/artifact_cache.py."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from helmops.sources.artifact_cache import GRACE, ArtifactCache, digest_of, is_digest
from tests.fakes.chart_archives import sha256


def put(cache: ArtifactCache, content: bytes) -> Path:
    with cache.incoming() as incoming:
        incoming.write_bytes(content)
        return cache.add(incoming, sha256(content))


def aged(path: Path, seconds: float) -> None:
    now = path.stat().st_mtime
    os.utime(path, (now - seconds, now - seconds))


def test_what_was_added_is_found_by_its_digest(tmp_path: Path) -> None:
    cache = ArtifactCache(tmp_path / "new" / "directory")
    path = put(cache, b"chart")
    assert cache.find(sha256(b"chart")) == path
    assert path.suffix == ".tgz"
    assert path.read_bytes() == b"chart"
    assert cache.find(sha256(b"other")) is None


def test_another_process_finds_it_too(tmp_path: Path) -> None:
    path = put(ArtifactCache(tmp_path), b"chart")
    assert ArtifactCache(tmp_path).find(sha256(b"chart")) == path


def test_a_file_that_does_not_fit_its_name_is_thrown_away(tmp_path: Path) -> None:
    path = put(ArtifactCache(tmp_path), b"chart")
    path.write_bytes(b"damaged")
    assert ArtifactCache(tmp_path).find(sha256(b"chart")) is None
    assert not path.exists()


@pytest.mark.parametrize("digest", ["", "../../etc/passwd", "A" * 64, "0" * 63, "0" * 65])
def test_what_is_no_digest_is_never_a_path(tmp_path: Path, digest: str) -> None:
    assert not is_digest(digest)
    with pytest.raises(ValueError, match="digest"):
        ArtifactCache(tmp_path).find(digest)


def test_what_was_not_added_is_gone_afterwards(tmp_path: Path) -> None:
    cache = ArtifactCache(tmp_path)
    with cache.incoming() as incoming:
        incoming.write_bytes(b"half")
    assert list(tmp_path.rglob("*")) == []


def test_adding_the_same_twice_keeps_one(tmp_path: Path) -> None:
    cache = ArtifactCache(tmp_path)
    assert put(cache, b"chart") == put(ArtifactCache(tmp_path), b"chart")
    assert len(list(tmp_path.rglob("*.tgz"))) == 1


def test_the_least_recently_used_go_first_and_recent_ones_stay(tmp_path: Path) -> None:
    cache = ArtifactCache(tmp_path, limit=250)
    oldest, old, recent = (put(cache, bytes([n]) * 100) for n in range(3))
    assert oldest.exists()  # over the limit, but all were used just now
    aged(oldest, GRACE * 3)
    aged(old, GRACE * 2)
    assert cache.find(oldest.stem) == oldest  # used again
    newest = put(cache, b"x" * 100)
    assert not old.exists()
    assert oldest.exists()
    assert recent.exists()
    assert newest.exists()
    assert cache.find(old.stem) is None


def test_files_that_were_never_completed_are_swept_after_a_day(tmp_path: Path) -> None:
    cache = ArtifactCache(tmp_path)
    left, fresh = tmp_path / "left.part", tmp_path / "fresh.part"
    left.touch()
    fresh.touch()
    aged(left, 25 * GRACE)
    put(cache, b"chart")
    assert not left.exists()
    assert fresh.exists()


def test_the_digest_of_a_file_is_its_sha256(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"content")
    assert digest_of(tmp_path / "file") == sha256(b"content")
