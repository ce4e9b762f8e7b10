"""Reads single files of a checkout or directory, and nothing outside of it."""

from __future__ import annotations

import asyncio
import os
import posixpath
import stat
from collections.abc import Sequence
from pathlib import Path

from helmops.errors import SourceInvalid
from helmops.model.charts import Tree
from helmops.model.globs import compiled, fixed_part

#: Values larger than Helm could store in a release make no sense.
_MAX_BYTES = 4 * 1024 * 1024
#: A chart directory with more files than this is looked at up to here only.
_MAX_FILES = 20_000


class TreeFiles:
    """The `TreeFiles` port over the file system."""

    async def read(self, tree: Tree, path: str) -> bytes | None:
        """One file, at most 4 MiB, or None where there is none. Raises SourceInvalid."""
        return await asyncio.to_thread(_read, tree, path)

    async def find(self, tree: Tree, pattern: str) -> tuple[str, ...]:
        """Paths of the files that match a pattern, sorted. Links to directories are not followed.
        Raises SourceInvalid.
        """
        return await asyncio.to_thread(_find, tree, pattern)


def _read(tree: Tree, path: str) -> bytes | None:
    try:
        root = Path(os.path.realpath(tree.path))
        file = Path(os.path.realpath(root / path))
        if not file.is_relative_to(root):
            raise SourceInvalid(
                f"the path {path} leaves {tree.name}", next_step="name a file in it"
            )
        status = file.stat()
        if not stat.S_ISREG(status.st_mode):  # reading a pipe would never end
            raise SourceInvalid(f"{path} in {tree.name} is not a regular file")
        if status.st_size > _MAX_BYTES:
            raise SourceInvalid(f"{path} in {tree.name} is larger than {_MAX_BYTES >> 20} MiB")
        return file.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except ValueError as error:  # a null character
        raise SourceInvalid(f"{path!r} is no path") from error
    except OSError as error:
        raise SourceInvalid(f"{path} in {tree.name} cannot be read: {error.strerror}") from error


def _find(tree: Tree, pattern: str) -> tuple[str, ...]:
    before, rest = fixed_part(posixpath.normpath(pattern))
    if before == ".." or before.startswith(("../", "/")):
        raise SourceInvalid(f"the path {pattern} leaves {tree.name}", next_step="name files in it")
    wanted = compiled(rest)
    top = os.path.join(os.path.realpath(tree.path), before)
    found: list[str] = []
    seen = 0
    for directory, names, files in os.walk(top):
        names[:] = sorted(name for name in names if not name.startswith("."))
        seen += len(files)
        if seen > _MAX_FILES:
            raise SourceInvalid(
                f"{pattern} in {tree.name} looks at more than {_MAX_FILES} files",
                next_step="name the directory that the files are in",
            )
        below = os.path.relpath(directory, top)
        for name in files:
            path = name if below == "." else posixpath.join(below, name)
            if wanted.matches(path):
                found.append(posixpath.join(before, path))
    return tuple(sorted(found))


def signature(paths: Sequence[str]) -> tuple[tuple[str, int, int], ...]:
    """What tells that files or directories changed: path, time and size of everything in them.

    Costs a `stat` a file. What is not there, or cannot be read, counts as empty.
    """
    found: list[tuple[str, int, int]] = []
    for path in paths:
        waiting = [path]
        while waiting:
            current = waiting.pop()
            try:
                status = os.stat(current)
                if stat.S_ISDIR(status.st_mode):
                    waiting += [f"{current}/{name}" for name in sorted(os.listdir(current))]
                else:
                    found.append((current, status.st_mtime_ns, status.st_size))
            except OSError:
                continue
            if len(found) > _MAX_FILES:
                return tuple(found)
    return tuple(found)
