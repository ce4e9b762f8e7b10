"""What adapters share that keep what they know of sources in the cache directory."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from helmops.errors import SourceUnavailable

#: Checkouts that are kept of each source, beside those that were used within the last hour.
_KEPT_TREES: Final = 4
_TREE_GRACE: Final = 3600.0


@contextlib.contextmanager
def disk_errors(directory: Path) -> Iterator[None]:
    """What goes wrong with the cache's files, in our words: raises SourceUnavailable."""
    try:
        yield
    except OSError as error:
        raise SourceUnavailable(
            f"the cache directory cannot be used: {error.strerror or type(error).__name__}",
            where=str(directory),
            next_step="see that there is space, and that it may be written",
        ) from None


def salt_in(directory: Path) -> bytes:
    """What credentials are hashed with to tell repositories apart on disk: without it a file's name
    would let passwords be guessed. Made once for a directory, which is made too. Raises OSError.
    """
    path = directory / "salt"
    directory.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileExistsError):
        handle, name = tempfile.mkstemp(dir=directory)
        with os.fdopen(handle, "wb") as file:
            file.write(secrets.token_bytes(32))
        try:
            os.link(name, path)  # whole or not at all, and the first one stays
        finally:
            Path(name).unlink()
    return path.read_bytes()


def is_used(target: Path) -> bool:
    """Whether there is a checkout; from now on it is a recently used one."""
    try:
        os.utime(target)
    except FileNotFoundError:
        return False
    return True


def drop_old_trees(newest: Path, is_checkout: Callable[[Path], bool]) -> None:
    """Remove checkouts beside this one that have not been used for long, by the clock of the file
    system. Raises OSError.
    """
    used = {path: path.stat().st_mtime for path in newest.parent.iterdir() if is_checkout(path)}
    by_age = sorted(used, key=lambda path: used[path], reverse=True)
    for old in by_age[_KEPT_TREES + 1 :]:
        if used[old] < used[newest] - _TREE_GRACE:
            # Renamed first: nobody may take half of it for all.
            half = old.with_name(f".checkout-old-{old.name}")
            shutil.rmtree(half, ignore_errors=True)
            old.rename(half)
            shutil.rmtree(half, ignore_errors=True)
