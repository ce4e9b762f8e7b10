"""Which releases a helm on this machine works on, even one whose helmops is dead.

A helm that acts on a release inherits a locked file (`flock`): the kernel keeps the lock as long as
any process has the file open, whatever becomes of us. A later helmops that cannot lock the file
knows that helm still runs. The file's content, helm's process id, is only for the person who looks.

Helm is told to end with its parent as well (see process.py); the lock is for the helm that does
not: one that hangs on a dead API server and takes its time over SIGTERM.
"""

from __future__ import annotations

import fcntl
import os
from contextlib import suppress
from pathlib import Path

from helmops.errors import HelmUnavailable, ReleaseLocked
from helmops.model.releases import ReleaseId


class ReleaseLocks:
    """One file per release, in a directory of this machine. Files are left where they are."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._ours: set[ReleaseId] = set()

    def take(self, release: ReleaseId) -> int:
        """Lock a release; returns the open file, to be inherited by helm and then released.

        Raises ReleaseLocked where a helm has it, HelmUnavailable where no file can be made.
        """
        try:
            file = self._open(release)
        except OSError as error:
            raise HelmUnavailable(
                f"the lock file of the release cannot be made: {error.strerror}",
                where=str(self._path(release)),
                next_step="helmops needs a directory that it may write to",
            ) from error
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            process = os.pread(file, 20, 0).decode(errors="replace").strip()
            os.close(file)
            raise ReleaseLocked(
                "a helm that was started earlier still works on the release"
                + (f" (process {process})" if process else ""),
                where=str(release),
                next_step="helmops waits until it ends",
            ) from None
        self._ours.add(release)
        return file

    def note(self, file: int, process: int) -> None:
        """Write down who has the lock."""
        with suppress(OSError):
            os.ftruncate(file, 0)
            os.pwrite(file, f"{process}\n".encode(), 0)

    def release(self, release: ReleaseId, file: int) -> None:
        """Close our end; the lock goes when the last process that inherited it is gone."""
        os.close(file)
        self._ours.discard(release)

    def is_running(self, release: ReleaseId) -> bool:
        """Whether a helm works on the release that this object did not start."""
        if release in self._ours or not self._path(release).exists():
            return False
        try:
            file = self._open(release)
        except OSError:
            return False  # we could not start one either
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(file)
        return False

    def _path(self, release: ReleaseId) -> Path:
        # A namespace has no dot, so the two parts cannot be confused.
        return self._directory / f"{release.namespace}.{release.name}.lock"

    def _open(self, release: ReleaseId) -> int:
        self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        return os.open(self._path(release), flags, 0o600)
