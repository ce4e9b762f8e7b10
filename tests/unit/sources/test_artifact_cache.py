"""helmops/sources/artifact_cache.py."""

from __future__ import annotations

import os
import subprocess
import sys
import time
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
    aged(left, 25 * 3600)
    put(cache, b"chart")
    assert not left.exists()
    assert fresh.exists()


def test_the_digest_of_a_file_is_its_sha256(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"content")
    assert digest_of(tmp_path / "file") == sha256(b"content")


def test_a_cache_of_things_in_use_is_bounded_all_the_same(tmp_path: Path) -> None:
    cache = ArtifactCache(tmp_path, limit=10)
    paths = [put(cache, bytes([65 + number]) * 5) for number in range(6)]
    left = [path for path in paths if path.exists()]
    assert sum(path.stat().st_size for path in left) <= 20
    assert paths[-1] in left


def test_what_is_larger_than_the_limit_can_be_used_once(tmp_path: Path) -> None:
    cache = ArtifactCache(tmp_path, limit=10)
    old = put(cache, b"old")
    large = put(cache, b"x" * 100)
    assert large.exists()
    assert not old.exists()


# Several processes.

WRITER = """
import hashlib, sys
from pathlib import Path
from helmops.sources.artifact_cache import ArtifactCache
directory, rounds, limit, seed = Path(sys.argv[1]), *map(int, sys.argv[2:])
cache = ArtifactCache(directory, limit=limit)
for number in range(rounds):
    content = f"chart {(number * seed) % 23}".encode() * 2000
    digest = hashlib.sha256(content).hexdigest()
    found = cache.find(digest)
    if found is None:
        with cache.incoming() as incoming:
            with incoming.open("wb") as file:
                for start in range(0, len(content), 1000):
                    file.write(content[start : start + 1000])
            found = cache.add(incoming, digest)
    try:
        read = found.read_bytes()
    except FileNotFoundError:  # the other one threw it away: to be fetched again
        continue
    assert hashlib.sha256(read).hexdigest() == digest, "half a file was seen"
print("done")
"""


def writer(directory: Path, *arguments: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", WRITER, str(directory), *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def test_two_processes_that_write_and_throw_away_never_see_half_a_file(tmp_path: Path) -> None:
    both = [writer(tmp_path, 150, 60_000, seed) for seed in (1, 7)]
    for process in both:
        said, _ = process.communicate(timeout=60)
        assert said == "done\n"
    left = list(tmp_path.glob("??/*.tgz"))
    assert left
    assert all(digest_of(path) == path.stem for path in left)
    assert list(tmp_path.glob("*.part")) == []


def test_a_process_that_is_killed_at_any_moment_leaves_nothing_that_is_taken_for_whole(
    tmp_path: Path,
) -> None:
    for delay in (0.0, 0.002, 0.01, 0.03):
        process = writer(tmp_path, 100_000, 10**9, 5)
        assert process.stdout is not None
        # Not before it writes; then in the middle of it.
        deadline = time.monotonic() + 30
        while not list(tmp_path.glob("*.part")) and time.monotonic() < deadline:
            pass
        time.sleep(delay)
        process.kill()
        process.communicate()
    cache = ArtifactCache(tmp_path)
    for number in range(23):
        content = f"chart {number}".encode() * 2000
        found = cache.find(sha256(content))
        assert found is None or found.read_bytes() == content
    for path in tmp_path.glob("*.part"):
        aged(path, 2 * 24 * 3600)
    put(cache, b"another")
    assert list(tmp_path.glob("*.part")) == []
