"""The files of a checkout or directory, by paths in it, and whether any that was used changed.

Paths are relative, with `/`, and never lead out: not by `..`, and not by links. Whatever is asked
for is remembered (also that it was not there), so that one look at times and sizes tells whether
the same questions would get the same answers.
"""

from __future__ import annotations

import hashlib
import os
import posixpath
import stat
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

from helmops.errors import DeclarationError

#: Bytes in one file.
MAX_FILE: Final = 8 * 1024 * 1024

_Signature = tuple[int, int, int, int, int]
_NOTHING: Final[_Signature] = (0, 0, 0, 0, 0)


class TreeView(Protocol):
    """A tree, or what is to be seen of it; methods as `FileTree` has them."""

    @property
    def show(self) -> Callable[[str], str]:
        """What people are told of a path."""

    def read(self, path: str) -> bytes | None: ...
    def digest(self, path: str) -> str: ...
    def names(self, path: str) -> tuple[str, ...] | None: ...
    def names_digest(self, path: str) -> str: ...
    def is_directory(self, path: str) -> bool: ...
    def is_file(self, path: str) -> bool: ...
    def real(self, path: str) -> str: ...
    def ignores(self, path: str) -> bool:
        """Whether a path is left out on purpose."""


class LeavesTree(DeclarationError):
    """A path that leads out of the tree."""


@dataclass(slots=True)
class _Seen:
    """What was there. Until `settled` it is read again at the next look: two writes within one tick
    of the file system's clock cannot be told apart by their times.
    """

    signature: _Signature
    digest: str
    settled: bool = False
    #: Of a directory.
    names: tuple[str, ...] | None = None


class FileTree:
    """A directory, `root`. With `frozen` it never changes, as a checkout of a commit. `show` makes
    of a path in it what people are told.
    """

    def __init__(
        self, root: str, *, frozen: bool = False, show: Callable[[str], str] = lambda path: path
    ) -> None:
        self.root = os.path.realpath(root)
        self.show = show
        self._frozen = frozen
        self._files: dict[str, _Seen] = {}
        self._listings: dict[str, _Seen] = {}
        self._real: dict[str, str] = {}
        self._locations: dict[str, str] = {}

    @property
    def is_used(self) -> bool:
        """Whether anything was asked for."""
        return bool(self._files or self._listings)

    def read(self, path: str) -> bytes | None:
        """A file's content; None where there is no file. Raises DeclarationError, LeavesTree."""
        content, seen = self._read(path)
        self._files[path] = self._settled(self._files.get(path), seen)
        return content

    def digest(self, path: str) -> str:
        """Hex SHA-256 of a file; empty where there is none. A file that was looked at since the
        last `look` is not read again. Raises DeclarationError, LeavesTree.
        """
        seen = self._files.get(path)
        if seen is None:
            self.read(path)
            seen = self._files[path]
        return seen.digest

    def names(self, path: str) -> tuple[str, ...] | None:
        """What is in a directory, directories with a `/` behind, in order; None where it is none.

        Names that begin with a dot are left out. Raises LeavesTree.
        """
        found = self._names(path)
        seen = _Seen(self._signature(path), digest_of_names(found), names=found)
        self._listings[path] = self._settled(self._listings.get(path), seen)
        return found

    def names_digest(self, path: str) -> str:
        """A digest of `names`; empty where there is no directory. Raises LeavesTree."""
        return self._listed(path).digest

    def names_seen(self, path: str) -> tuple[str, ...] | None:
        """`names`, where that was asked since the last `look` without asking again."""
        return self._listed(path).names

    def ignores(self, path: str) -> bool:
        """False: nothing is left out."""
        return False

    def _listed(self, path: str) -> _Seen:
        seen = self._listings.get(path)
        if seen is None:
            self.names(path)
            seen = self._listings[path]
        return seen

    def is_directory(self, path: str) -> bool:
        """Whether there is a directory. Raises LeavesTree."""
        return stat.S_ISDIR(self._signature(path)[4])

    def is_file(self, path: str) -> bool:
        """Whether there is a file. Raises LeavesTree."""
        return stat.S_ISREG(self._signature(path)[4])

    def real(self, path: str) -> str:
        """The path without links, itself in the tree. Raises LeavesTree."""
        return self._inside(os.path.realpath(self._location(path)), path)

    def look(self) -> bool:
        """Whether anything that was used has changed; what changed is read anew from here on.

        Costs a `stat` a path; nothing at all where the tree is frozen.
        """
        if self._frozen:
            return False
        self._real.clear()
        self._locations.clear()
        changed = [path for path, seen in self._files.items() if self._changed_file(path, seen)]
        gone = [path for path, seen in self._listings.items() if self._changed_names(path, seen)]
        for path in changed:
            del self._files[path]
        for path in gone:
            del self._listings[path]
        return bool(changed or gone)

    def _changed_file(self, path: str, seen: _Seen) -> bool:
        try:
            if self._signature(path) != seen.signature:
                return True
            if not seen.settled:
                seen.settled = True
                return self._read(path)[1].digest != seen.digest
        except DeclarationError:
            return True
        return False

    def _changed_names(self, path: str, seen: _Seen) -> bool:
        try:
            if self._signature(path) == seen.signature and seen.settled:
                return False
            digest = seen.digest
            self.names(path)
            self._listings[path].settled |= self._listings[path].signature == seen.signature
            return self._listings[path].digest != digest
        except DeclarationError:
            return True

    def _settled(self, before: _Seen | None, seen: _Seen) -> _Seen:
        seen.settled = self._frozen or (
            before is not None and before.signature == seen.signature and before.settled
        )
        return seen

    def _read(self, path: str) -> tuple[bytes | None, _Seen]:
        signature = self._signature(path)
        if not stat.S_ISREG(signature[4]):
            return None, _Seen(signature, "")
        if signature[2] > MAX_FILE:
            raise DeclarationError(
                f"the file is larger than {MAX_FILE // 1024 // 1024} MiB", where=self.show(path)
            )
        try:
            with open(self._location(path), "rb") as stream:
                content = stream.read(MAX_FILE)
        except OSError as error:
            reason = (error.strerror or "unknown error").lower()
            raise DeclarationError(f"cannot be read: {reason}", where=self.show(path)) from error
        return content, _Seen(signature, hashlib.sha256(content).hexdigest())

    def _names(self, path: str) -> tuple[str, ...] | None:
        if not self.is_directory(path):
            return None
        try:
            with os.scandir(self._location(path)) as listing:
                return tuple(
                    sorted(
                        child.name + "/" if child.is_dir() else child.name
                        for child in listing
                        if not child.name.startswith(".")
                    )
                )
        except OSError as error:
            reason = (error.strerror or "unknown error").lower()
            raise DeclarationError(f"cannot be read: {reason}", where=self.show(path)) from error

    def _signature(self, path: str) -> _Signature:
        """Times, size, identity and mode; all zero where there is nothing."""
        location = self._location(path)
        try:
            status = os.lstat(location)
            if stat.S_ISLNK(status.st_mode):
                self._inside(os.path.realpath(location), path)
                status = os.stat(location)
        except (OSError, ValueError):
            return _NOTHING
        return (
            status.st_mtime_ns,
            status.st_ctime_ns,
            status.st_size,
            status.st_ino,
            status.st_mode,
        )

    def _location(self, path: str) -> str:
        """Where a path lies, its directory without links. Raises LeavesTree."""
        found = self._locations.get(path)
        if found is None:
            found = self._locations[path] = self._located(path)
        return found

    def _located(self, path: str) -> str:
        if path in ("", "."):
            return self.root
        directory, name = posixpath.split(posixpath.normpath(path))
        if name == ".." or directory.split("/")[0] == ".." or posixpath.isabs(path):
            raise self._leaves(path)
        real = self._real.get(directory)
        if real is None:
            location = os.path.realpath(os.path.join(self.root, directory))
            self._inside(location, path)
            real = self._real[directory] = location
        return os.path.join(real, name)

    def _inside(self, location: str, path: str) -> str:
        if location == self.root:
            return ""
        if not location.startswith(self.root.rstrip("/") + "/"):
            raise self._leaves(path)
        return location[len(self.root.rstrip("/")) + 1 :]

    @staticmethod
    def _leaves(path: str) -> LeavesTree:
        return LeavesTree(
            f"`{path}` leads out of the repository",
            next_step="only files of the same repository are read",
        )


def digest_of_names(names: tuple[str, ...] | None) -> str:
    """What `names_digest` is of these."""
    return "" if names is None else hashlib.sha256("\0".join(names).encode()).hexdigest()


def joined(directory: str, path: str) -> str:
    """A path that is relative to a directory, relative to the tree; empty for the tree itself."""
    found = posixpath.normpath(posixpath.join(directory, path))
    return "" if found == "." else found
