"""What is in the cache, for people, and what to throw away when it gets too large.

Everything in it can be fetched again. Charts are bounded by themselves (`artifact_cache`); here is
the rest of it, too: indexes, artifacts of registries, Git mirrors and checkouts. An entry is
renamed before it is removed, so that no other process takes half of it for all; a mirror is
removed under the lock that its users take.
"""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import os
import shutil
import stat
import tarfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from helmops.errors import ChartRefused
from helmops.sources.archive import read_chart_yaml

#: Seconds in which what was used stays even when all is to go: a helm may be about to read it.
IN_USE: Final = 60.0

#: Bytes of a Chart.yaml that are read for its name.
_LONGEST_CHART_YAML: Final = 1024 * 1024
_HIDDEN: Final = ".prune-"


@dataclass(frozen=True, slots=True)
class CacheEntry:
    """One thing that was fetched: `kind` and `name` for people, `size` in bytes."""

    kind: str
    name: str
    path: Path
    size: int
    used: datetime


def cache_entries(directory: Path) -> tuple[CacheEntry, ...]:
    """Everything in a cache directory, what was used last first. Blocks. Raises OSError for a
    directory that cannot be read; one that is not there is empty.
    """
    found = [
        *_of_files("chart", directory / "charts", "??/*.tgz", _chart_name),
        *_of_files("index", directory / "indexes", "*.yaml", _short),
        *_of_files("registry", directory / "oci", "**/*", _short),
        *_of_trees("git mirror", directory / "git" / "mirrors", "*", _described),
        *_of_trees("git checkout", directory / "git" / "trees", "*/*", _named),
        *_of_trees("artifact", directory / "artifacts", "*/*", _short),
    ]
    return tuple(sorted(found, key=lambda entry: (entry.used, entry.name), reverse=True))


def prune(
    directory: Path, max_size: int, *, dry_run: bool = False
) -> tuple[tuple[CacheEntry, ...], int]:
    """Remove what was not used for longest until no more than `max_size` bytes are left; gives back
    what was removed, and the bytes that are left. What was used within the last minute stays.
    Blocks. Raises OSError.
    """
    entries = cache_entries(directory)
    left = sum(entry.size for entry in entries)
    newest = max((entry.used.timestamp() for entry in entries), default=0.0)
    # By the clock of the file system, as the others' times are.
    now = max(newest, _clock_of(directory)) if entries else 0.0
    removed: list[CacheEntry] = []
    for entry in reversed(entries):
        if left <= max_size or now - entry.used.timestamp() < IN_USE:
            break
        if dry_run or _remove(entry):
            removed.append(entry)
            left -= entry.size
    return tuple(removed), left


def _of_files(
    kind: str, directory: Path, pattern: str, name_of: Callable[[Path], str]
) -> Iterator[CacheEntry]:
    for path in directory.glob(pattern):
        with contextlib.suppress(FileNotFoundError):  # another process removed it
            status = path.stat()
            if stat.S_ISREG(status.st_mode) and path.suffix != ".part":
                used = _time(status.st_mtime)
                yield CacheEntry(kind, name_of(path), path, status.st_size, used)


def _of_trees(
    kind: str, directory: Path, pattern: str, name_of: Callable[[Path], str]
) -> Iterator[CacheEntry]:
    for path in directory.glob(pattern):
        with contextlib.suppress(FileNotFoundError):
            if path.is_dir() and not path.name.startswith("."):
                used = path.stat().st_mtime
                lock = path.with_suffix(".lock")
                if kind == "git mirror" and lock.exists():
                    used = max(used, lock.stat().st_mtime)
                yield CacheEntry(kind, name_of(path), path, _size_of(path), _time(used))


def _short(path: Path) -> str:
    return path.stem[:12]


def _chart_name(path: Path) -> str:
    """Name, version and the first digits of the digest. helm puts Chart.yaml first."""
    try:
        with tarfile.open(path, "r|gz") as archive:
            for member in itertools.islice(archive, 3):
                content = archive.extractfile(member)
                if member.name.count("/") == 1 and member.name.endswith("/Chart.yaml") and content:
                    facts = read_chart_yaml(content.read(_LONGEST_CHART_YAML), "")
                    return f"{facts.name}-{facts.version} {_short(path)}"
    except (OSError, EOFError, zlib.error, tarfile.TarError, ChartRefused):
        return _short(path)  # gone, or damaged, which its next user will find out
    return _short(path)


def _described(mirror: Path) -> str:
    """The URL that a mirror was made for."""
    try:
        text = (mirror / "description").read_text("utf-8", "replace").strip()
    except OSError:
        return mirror.name
    return text if "://" in text else mirror.name


def _named(checkout: Path) -> str:
    mirror = checkout.parents[2] / "mirrors" / checkout.parent.name
    return f"{_described(mirror)}@{checkout.name[:12]}"


def _size_of(directory: Path) -> int:
    total = 0
    waiting = [os.fspath(directory)]
    while waiting:
        with (
            contextlib.suppress(FileNotFoundError, NotADirectoryError),
            os.scandir(waiting.pop()) as listing,
        ):
            for child in listing:
                if child.is_dir(follow_symlinks=False):
                    waiting.append(child.path)
                else:
                    total += child.stat(follow_symlinks=False).st_size
    return total


def _remove(entry: CacheEntry) -> bool:
    """Whether it is gone now, and by us."""
    if entry.kind == "git mirror":
        with entry.path.with_suffix(".lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:  # somebody works with it
                return False
            return _take_away(entry.path)
    return _take_away(entry.path)


def _take_away(path: Path) -> bool:
    aside = path.with_name(f"{_HIDDEN}{os.getpid()}-{path.name}")
    try:
        path.rename(aside)
    except FileNotFoundError:
        return False
    if aside.is_dir():
        shutil.rmtree(aside, ignore_errors=True)
    else:
        aside.unlink(missing_ok=True)
    return True


def _clock_of(directory: Path) -> float:
    """The file system's idea of now."""
    probe = directory / f"{_HIDDEN}{os.getpid()}-clock"
    probe.touch()
    try:
        return probe.stat().st_mtime
    finally:
        probe.unlink(missing_ok=True)


def _time(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
