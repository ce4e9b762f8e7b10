"""Unpacks an archive of files: what a source is that is no Git repository.

As source-controller 1.9.1 does it: symbolic links are left out, what is neither a file nor a
directory is refused, and what the ignore rules name is not there. Ours on top: limits, no file
twice, no hard links (they would become empty files), and nothing of what an archive says of owners,
modes and times.
"""

from __future__ import annotations

import os
import posixpath
import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Final

from helmops.errors import SourceInvalid
from helmops.sources.archive import ArchiveLimits, named, opened_archive, safe_entries
from helmops.sources.sourceignore import IGNORE_FILE, LONGEST_TEXT, SourceIgnore

#: What an archive of files may be at most, in bytes and entries.
TREE_LIMITS: Final = ArchiveLimits(packed=50 * 1024**2, file=100 * 1024**2)

#: Bytes of a name, and of a path, that every file system takes.
_LONGEST_NAME: Final = 255
_LONGEST_PATH: Final = 2000


def unpack(
    archive: Path,
    target: Path,
    where: str,
    *,
    ignore: str | None = "",
    limits: ArchiveLimits = TREE_LIMITS,
) -> None:
    """Put the files of a `.tgz` into an empty directory; `where` is what people are told. `ignore`
    are rules beside those of `.sourceignore` files; with None, nothing is left out.

    Blocks. Raises SourceInvalid, and OSError for the disk.
    """
    refuse = partial(_refused, where=where)
    files: set[str] = set()
    directories: set[str] = set()
    with opened_archive(archive, limits, refuse) as opened:
        for path, member in safe_entries(opened, limits, refuse):
            if not path or member.issym() or ".git" in path.split("/"):
                continue
            if _is_too_long(path):
                raise refuse(f"a name is too long: {named(path)}")
            if member.islnk():
                raise refuse(f"{named(path)} is a hard link")
            if member.sparse is not None or not (member.isreg() or member.isdir()):
                raise refuse(f"{named(path)} is neither a file nor a directory")
            above = [*_above(path), *([path] if member.isdir() else [])]
            is_directory_too = member.isreg() and path in directories
            if is_directory_too or path in files or not files.isdisjoint(above):
                raise refuse(f"it has {named(path)} twice")
            for directory in above:
                if directory not in directories:
                    (target / directory).mkdir()
                    directories.add(directory)
            content = opened.extractfile(member)
            if content is not None:
                files.add(path)
                with (target / path).open("wb") as file:
                    shutil.copyfileobj(content, file)
    if ignore is not None:
        _leave_out(target, files, ignore, where)


def _above(path: str) -> Iterator[str]:
    """The directories that a path is in, the outermost first."""
    parts = path.split("/")
    return ("/".join(parts[:count]) for count in range(1, len(parts)))


def _is_too_long(path: str) -> bool:
    name = max(path.split("/"), key=len)
    return len(os.fsencode(path)) > _LONGEST_PATH or len(os.fsencode(name)) > _LONGEST_NAME


def _leave_out(target: Path, files: set[str], own: str, where: str) -> None:
    """Remove the files that are to be ignored, and the directories that are empty then."""
    texts = {
        posixpath.dirname(path): _beginning_of(target / path)
        for path in files
        if posixpath.basename(path) == IGNORE_FILE
    }
    rules = SourceIgnore(lambda directory: texts.get(directory, ""), own, where=where)
    for path in filter(rules.ignores, files):
        (target / path).unlink()
        for directory in (target / path).parents:
            if directory == target or any(directory.iterdir()):
                break
            directory.rmdir()


def _beginning_of(file: Path) -> str:
    """As much of an ignore file as tells that it is too long."""
    with file.open("rb") as stream:
        return stream.read(LONGEST_TEXT + 1).decode("utf-8", "replace")


def _refused(why: str, where: str) -> SourceInvalid:
    return SourceInvalid(
        f"the archive of files is refused: {why}",
        where=where,
        next_step="push it anew with flux push artifact",
    )
