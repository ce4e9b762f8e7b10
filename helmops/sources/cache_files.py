"""What adapters share that keep what they know of repositories in the cache directory."""

from __future__ import annotations

import contextlib
import os
import secrets
import tempfile
from collections.abc import Iterator
from pathlib import Path

from helmops.errors import SourceUnavailable


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
