"""A repository's files as Flux has them: without what is ignored.

Flux builds from an archive of the repository that lacks some files (`sourceignore.py`). A checkout
or directory has them all, so they are looked past here, and nothing is copied. The ignore files are
among what the tree remembers: a look at it sees them come, change and go.
"""

from __future__ import annotations

from collections.abc import Callable

from helmops.sources.file_tree import FileTree, digest_of_names, joined
from helmops.sources.sourceignore import IGNORE_FILE, SourceIgnore


class ArtifactFiles:
    """The `TreeView` of `tree` without ignored files; `ignore` is the GitRepository's own field.

    Good until the tree is looked at again: what is ignored is decided once for each path. Methods
    raise DeclarationError as those of the tree, and SourceInvalid for ignore rules that are none.
    """

    def __init__(self, tree: FileTree, ignore: str | None) -> None:
        """Raises SourceInvalid."""
        self._tree = tree
        self._rules = SourceIgnore(self._text_of, ignore or "", where=tree.show(""))
        self._ignored: dict[str, bool] = {}
        self._names: dict[str, tuple[str, ...] | None] = {}

    @property
    def show(self) -> Callable[[str], str]:
        """What people are told of a path."""
        return self._tree.show

    def read(self, path: str) -> bytes | None:
        """A file's content; None where there is no file, or it is ignored."""
        return None if self.ignores(path) else self._tree.read(path)

    def digest(self, path: str) -> str:
        """Hex SHA-256 of a file; empty where there is none, or it is ignored."""
        return "" if self.ignores(path) else self._tree.digest(path)

    def names(self, path: str) -> tuple[str, ...] | None:
        """What is in a directory without what is ignored; None where it is none."""
        if path not in self._names:
            found = self._tree.names_seen(path) if self.is_directory(path) else None
            self._names[path] = found and tuple(name for name in found if self._has(path, name))
        return self._names[path]

    def names_digest(self, path: str) -> str:
        """A digest of `names`; empty where there is no directory."""
        return digest_of_names(self.names(path))

    def is_directory(self, path: str) -> bool:
        """Whether there is a directory with anything in it that is not ignored."""
        if not self._tree.is_directory(path):
            return False
        if not path or not self.ignores(f"{path}/"):
            return True
        return self._rules.may_bring_in(path) and any(
            self._has(path, name) for name in self._tree.names_seen(path) or ()
        )

    def is_file(self, path: str) -> bool:
        """Whether there is a file that is not ignored."""
        return self._tree.is_file(path) and not self.ignores(path)

    def real(self, path: str) -> str:
        """The path without links, itself in the tree."""
        return self._tree.real(path)

    def ignores(self, path: str) -> bool:
        """Whether a path is ignored: a file, or with a `/` behind a directory."""
        found = self._ignored.get(path)
        if found is None:
            # What leads out of the tree is refused by the tree.
            is_inside = path not in ("", "..") and not path.startswith(("../", "/"))
            found = self._ignored[path] = is_inside and self._rules.ignores(path)
        return found

    def _has(self, directory: str, name: str) -> bool:
        path = joined(directory, name)
        return self.is_directory(path) if name.endswith("/") else not self.ignores(path)

    def _text_of(self, directory: str) -> str:
        path = joined(directory, IGNORE_FILE)
        if not self._tree.digest(path):
            return ""
        return (self._tree.read(path) or b"").decode("utf-8", "replace")
