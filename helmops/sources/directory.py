"""Declarations in a directory: reads the files, and sees cheaply whether any of them changed.

`*.yaml`, `*.yml` and `*.json` count, in subdirectories, too. Left out are names that begin with a
dot (`.git`, and the `..data` of a mounted ConfigMap, whose files are links into it) and directories
with a `Chart.yaml`: templates are no declarations.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from helmops.errors import DeclarationError, DecryptionFailed, ValuesReferenceMissing
from helmops.model.declaration_set import SourceFile
from helmops.model.documents import MAX_SIZE

#: Files in one directory tree; more means that a wrong directory was named.
MAX_FILES: Final = 20_000

_SUFFIXES: Final = (".yaml", ".yml", ".json")


@dataclass(frozen=True, slots=True)
class DirectoryContent:
    """What a directory holds now, files by path.

    Where `vanished` is a sentence, there is nothing at all: the directory is missing, unreadable or
    empty. That is never a removal of what it declared.
    """

    files: tuple[SourceFile, ...] = ()
    vanished: str = ""


#: Takes a text and its name, and gives the text without its encryption; raises DecryptionFailed.
Decrypt = Callable[[bytes, str], bytes]

#: What changes with a file's content: times, size, and the file itself.
_Signature = tuple[int, int, int, int, int]


@dataclass(frozen=True, slots=True)
class _Seen:
    """A file as it was read. Until `settled` it is read again at the next poll: two writes within
    one tick of the file system's clock cannot be told apart by their times.
    """

    signature: _Signature
    file: SourceFile
    settled: bool


@dataclass(frozen=True, slots=True)
class _Entry:
    """A file that was found, or (with an error) one that must not or cannot be read."""

    shown: str
    location: str = ""
    signature: _Signature = (0, 0, 0, 0, 0)
    error: DeclarationError | None = None


class DeclarationDirectory:
    """A directory of declarations, or a single file.

    `label` is what its files' paths begin with where people see them; the path as given otherwise.
    `decrypt` is for files that are encrypted; one that cannot be decrypted has an error, and its
    text as it lies there. Methods block for the time of a few system calls a file, and of what
    decrypts those that changed.
    """

    def __init__(
        self, path: str, *, label: str | None = None, decrypt: Decrypt | None = None
    ) -> None:
        self._path = path
        self._decrypt = decrypt
        self._label = path if label is None else label
        self._seen: dict[str, _Seen] = {}
        self._last: DirectoryContent | None = None

    def poll(self) -> DirectoryContent | None:
        """What is there now; None where nothing changed since the last call of `poll` or `read`.

        Costs a `stat` a file. Raises nothing: what cannot be read is an error in its SourceFile.
        """
        before = self._last
        content = self.read()
        return None if content == before else content

    def read(self) -> DirectoryContent:
        """What is there now; only files that changed are read. Raises nothing."""
        root = os.path.realpath(self._path)
        try:
            entries = list(self._entries(root))
        except OSError as error:
            self._seen.clear()
            self._last = DirectoryContent(vanished=_reason(error))
            return self._last
        boundary = root if os.path.isdir(root) else os.path.dirname(root)
        seen = {entry.shown: self._seen_now(entry, boundary) for entry in entries}
        self._seen = seen
        files = tuple(seen[shown].file for shown in sorted(seen))
        vanished = "" if files else "there are no YAML or JSON files"
        self._last = DirectoryContent(files, vanished)
        return self._last

    def _seen_now(self, entry: _Entry, root: str) -> _Seen:
        before = self._seen.get(entry.shown)
        is_same = before is not None and (
            before.signature == entry.signature and before.file.location == entry.location
        )
        if before is not None and is_same and before.settled:
            return before
        if entry.error is not None:
            file = SourceFile(entry.shown, error=entry.error)
        else:
            text, error = _read_text(entry.shown, entry.location, self._decrypt)
            file = SourceFile(entry.shown, text, entry.location, root, error)
        if before is not None and _is_equal(file, before.file):
            # The same object, so that comparing contents is cheap, and finds errors equal.
            file = before.file
        return _Seen(entry.signature, file, settled=is_same and file.error is None)

    def _entries(self, root: str) -> Iterator[_Entry]:
        """What counts beneath the root. Raises OSError where the root itself cannot be read."""
        if not stat.S_ISDIR(os.stat(root).st_mode):
            yield self._file(self._label, root)
            return
        waiting = [(root, self._label)]
        visited: set[tuple[int, int]] = set()
        found: set[str] = set()
        while waiting:
            directory, shown = waiting.pop()
            try:
                status = os.stat(directory)
                with os.scandir(directory) as listing:
                    children = sorted(listing, key=lambda child: child.name)
            except OSError as error:
                if directory == root:
                    raise
                yield _Entry(shown, error=_unreadable(shown, error))
                continue
            if (status.st_dev, status.st_ino) in visited:
                continue
            visited.add((status.st_dev, status.st_ino))
            if any(child.name == "Chart.yaml" for child in children):
                continue
            for child in children:
                entry = self._look(root, child, f"{shown}/{child.name}")
                if isinstance(entry, str):
                    waiting.append((entry, f"{shown}/{child.name}"))
                elif entry is not None and (entry.error or entry.location not in found):
                    found.add(entry.location)
                    if len(found) > MAX_FILES:
                        yield _Entry(self._label, error=_too_many(self._label))
                        return
                    yield entry

    def _look(self, root: str, child: os.DirEntry[str], shown: str) -> _Entry | str | None:
        """A file to read, a directory to go into, or nothing."""
        if child.name.startswith("."):
            return None
        is_wanted = child.name.endswith(_SUFFIXES)
        if child.is_symlink():
            return self._look_at_link(root, child.path, shown, is_wanted)
        if child.is_dir():
            return child.path
        return self._file(shown, child.path) if is_wanted else None

    def _look_at_link(
        self, root: str, path: str, shown: str, is_wanted: bool
    ) -> _Entry | str | None:
        location = os.path.realpath(path)
        try:
            is_directory = stat.S_ISDIR(os.stat(location).st_mode)
        except OSError as error:
            return _Entry(shown, error=_unreadable(shown, error)) if is_wanted else None
        if not is_directory and not is_wanted:
            return None
        if not _is_within(root, location):
            return _Entry(shown, error=_leads_out(shown))
        return location if is_directory else self._file(shown, location)

    def _file(self, shown: str, location: str) -> _Entry:
        try:
            status = os.stat(location)
        except OSError as error:
            return _Entry(shown, error=_unreadable(shown, error))
        if not stat.S_ISREG(status.st_mode):
            return _Entry(shown, error=DeclarationError("not a regular file", where=shown))
        signature = (
            status.st_mtime_ns,
            status.st_ctime_ns,
            status.st_size,
            status.st_ino,
            status.st_dev,
        )
        return _Entry(shown, location, signature)


def path_beside(file: SourceFile, relative: str, *, where: str) -> str:
    """Where a path that a declaration names, relative to its own file, lies on disk.

    Raises DeclarationError for one that leaves what was read, or where the declaration lies in no
    directory, ValuesReferenceMissing where nothing is there; `where` is the place that names it.
    """
    if not file.location:
        raise DeclarationError(
            "a path beside the declaration needs a declaration in a directory", where=where
        )
    path = os.path.realpath(os.path.join(os.path.dirname(file.location), relative))
    if os.path.isabs(relative) or not _is_within(file.root, path):
        raise DeclarationError(
            f"`{relative}` leads out of the directory of the declarations",
            where=where,
            next_step="name a path within what -f names",
        )
    if not os.path.exists(path):
        raise ValuesReferenceMissing(f"`{relative}` does not exist", where=where)
    return path


def _is_within(root: str, location: str) -> bool:
    return location == root or location.startswith(root.rstrip("/") + "/")


def _is_equal(file: SourceFile, other: SourceFile) -> bool:
    return (file.text, file.location, file.root) == (
        other.text,
        other.location,
        other.root,
    ) and str(file.error) == str(other.error)


def _read_text(
    shown: str, location: str, decrypt: Decrypt | None
) -> tuple[str, DeclarationError | None]:
    try:
        with open(location, "rb") as stream:
            content = stream.read(MAX_SIZE + 1)
    except OSError as error:
        return "", _unreadable(shown, error)
    if len(content) > MAX_SIZE:
        return "", DeclarationError(
            f"the file is larger than {MAX_SIZE // 1024 // 1024} MiB", where=shown
        )
    refused: DeclarationError | None = None
    if decrypt is not None:
        try:
            content = decrypt(content, shown)
        except DecryptionFailed as error:
            refused = error
    try:
        return content.decode(), refused
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        return "", DeclarationError(
            "not text in UTF-8", where=f"{shown}:{line}", next_step="save it in UTF-8"
        )


def _unreadable(shown: str, error: OSError) -> DeclarationError:
    return DeclarationError(f"cannot be read: {_reason(error)}", where=shown)


def _reason(error: OSError) -> str:
    if error.errno == errno.ENOENT:
        return "it does not exist"
    return (error.strerror or "unknown error").lower()


def _leads_out(shown: str) -> DeclarationError:
    return DeclarationError(
        "a link that leads out of the directory is not followed",
        where=shown,
        next_step="copy the file here, or name its directory with another -f",
    )


def _too_many(shown: str) -> DeclarationError:
    return DeclarationError(
        f"more than {MAX_FILES} files",
        where=shown,
        next_step="name the directory of the declarations, not one far above it",
    )
