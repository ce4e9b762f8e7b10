"""Paths with wildcards, as people write them in shells.

`*` and `?` stand for characters of one name, `[abc]` and `[!abc]` for one of them, `**` as a whole
name for any number of directories, none included. As in a shell, names that begin with a dot are
matched only by patterns that begin with one.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable
from dataclasses import dataclass

_MAGIC = re.compile(r"[*?\[]")


def has_wildcards(path: str) -> bool:
    """Whether a path stands for several."""
    return _MAGIC.search(path) is not None


def fixed_part(path: str) -> tuple[str, str]:
    """A path as the directory that has no wildcards, and the rest; either may be empty."""
    names = path.split("/")
    count = next((at for at, name in enumerate(names) if has_wildcards(name)), len(names) - 1)
    return "/".join(names[:count]), "/".join(names[count:])


@dataclass(frozen=True, slots=True)
class Glob:
    """A pattern, ready to be matched. The time that takes is the product of both lengths."""

    names: tuple[Callable[[str], object] | None, ...]

    def matches(self, path: str) -> bool:
        """Whether the whole of a path, with `/` between its names, is meant."""
        # Where in the pattern one may be after each name of the path.
        places = self._beyond({0})
        for name in path.split("/"):
            further: set[int] = set()
            for place in places:
                if place < len(self.names):
                    matcher = self.names[place]
                    if matcher is None and not name.startswith("."):
                        further.add(place)
                    elif matcher is not None and matcher(name):
                        further.add(place + 1)
            places = self._beyond(further)
        return len(self.names) in places

    def _beyond(self, places: set[int]) -> set[int]:
        """Those places, and those that are reached from there by letting `**` mean nothing."""
        reached = set(places)
        for place in sorted(places):
            while place < len(self.names) and self.names[place] is None:
                place += 1
                reached.add(place)
        return reached


def compiled(pattern: str) -> Glob:
    """A pattern to be matched against many paths."""
    names = pattern.split("/")
    if names[-1] == "**":
        names.append("*")  # all files beneath
    return Glob(tuple(None if name == "**" else _matcher(name) for name in names))


def _matcher(pattern: str) -> Callable[[str], object]:
    match = re.compile(fnmatch.translate(pattern)).match
    if pattern.startswith("."):
        return match
    return lambda name: not name.startswith(".") and match(name)
