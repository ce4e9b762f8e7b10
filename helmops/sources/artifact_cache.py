"""Chart archives on disk, by digest.

A file is written beside its place and moved there, so that a reader sees all of it or nothing, also
with several processes on one directory; equal content has one name, so that it does not matter who
comes first. The least recently used go when the whole gets larger than the limit; what was used
within the last ten minutes goes only when it gets twice as large: a helm may be about to read it.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

#: Seconds in which what was used stays while the whole is smaller than twice the limit.
GRACE: Final = 600.0
#: Seconds after which what is still on its way never arrives: its process is gone.
_ABANDONED: Final = 24 * 3600.0

_DIGEST: Final = re.compile(r"[0-9a-f]{64}")


def is_digest(text: str) -> bool:
    """Whether this is a SHA-256 in lower-case hex (and so safe in a path)."""
    return _DIGEST.fullmatch(text) is not None


def digest_of(path: Path) -> str:
    """The SHA-256 of a file. Raises OSError."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class ArtifactCache:
    """Archives under one directory. All methods do file work, and raise OSError: call them in a
    thread.
    """

    def __init__(self, directory: Path, *, limit: int = 2 * 1024**3) -> None:
        """`limit` is in bytes, over all archives."""
        self._directory = directory
        self._limit = limit
        self._checked: set[str] = set()

    def find(self, digest: str) -> Path | None:
        """The archive with this digest, and from now on recently used.

        Its content is checked once per process: one that does not fit its name is removed.
        """
        path = self._path(digest)
        try:
            os.utime(path)
            if digest not in self._checked and digest_of(path) != digest:
                path.unlink(missing_ok=True)
                return None
        except FileNotFoundError:
            return None
        self._checked.add(digest)
        return path

    @contextlib.contextmanager
    def incoming(self) -> Iterator[Path]:
        """A new empty file for an archive on its way; it is gone afterwards unless `add`ed."""
        self._directory.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(suffix=".part", dir=self._directory)
        os.close(handle)
        path = Path(name)
        try:
            yield path
        finally:
            path.unlink(missing_ok=True)

    def add(self, incoming: Path, digest: str) -> Path:
        """Keep what is complete now, under its digest, which the caller has checked."""
        path = self._path(digest)
        path.parent.mkdir(parents=True, exist_ok=True)
        incoming.chmod(0o644)
        with incoming.open("rb") as content:
            os.fsync(content.fileno())  # its name must not outlive a power loss without it
        incoming.replace(path)
        self._checked.add(digest)
        self._trim(path)
        return path

    def _path(self, digest: str) -> Path:
        if not is_digest(digest):
            raise ValueError("not a SHA-256 digest")
        return self._directory / digest[:2] / f"{digest}.tgz"

    def _trim(self, newest: Path) -> None:
        """Throw away the least recently used beyond the limit, and what was never completed."""
        now = _stat(newest)[0]  # by the clock of the file system, as the others' times are
        kept: list[tuple[float, int, Path]] = []
        for path in self._directory.glob("??/*.tgz"):
            used, size = _stat(path)
            kept.append((used, size, path))
        total = sum(size for _, size, _ in kept)
        for used, size, path in sorted(kept):
            if total <= self._limit or (used > now - GRACE and total <= 2 * self._limit):
                break
            if path == newest:
                continue
            path.unlink(missing_ok=True)
            self._checked.discard(path.stem)
            total -= size
        for path in self._directory.glob("*.part"):
            if _stat(path)[0] < now - _ABANDONED:
                path.unlink(missing_ok=True)


def _stat(path: Path) -> tuple[float, int]:
    """When it was last used and its size in bytes; zeros where another process removed it."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return 0.0, 0
    return found.st_mtime, found.st_size
