"""What Flux leaves out of a source: the rules of `.sourceignore` files, of `ignore`, and its own.

The patterns are Git's, and the last one that matches a file counts: unlike with Git, also for a
file in a directory that is left out (`/*` and then `!/deploy/a.yaml`). Rules of a deeper directory
go before those above it, and those of `ignore` before all. Where there are any, Flux's own count
for Git's files only (seen in the code of source-controller 1.9.1 and fluxcd/pkg/sourceignore 0.9).
They are matched by RE2, which no pattern makes slow.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from helmops.errors import SourceInvalid

if TYPE_CHECKING:
    from pathspec import PathSpec

IGNORE_FILE: Final = ".sourceignore"

#: What Flux leaves out, by names of files and directories; an expression of our own, as most
#: sources have no other rules.
_GIT: Final = re.compile(r"(?:^|/)(?:\.git/|\.git(?:ignore|modules|attributes)(?:/|$))")
_DEFAULT: Final = re.compile(
    r"\.(?:jpg|jpeg|gif|png|wmv|flv|tar\.gz|zip)(?:/|$)"
    r"|(?:^|/)(?:\.github|\.circleci)/"
    r"|(?:^|/)(?:\.travis\.yml|\.gitlab-ci\.yml|appveyor\.yml|\.drone\.yml|cloudbuild\.yaml"
    r"|codeship-services\.yml|codeship-steps\.yml"
    r"|\.goreleaser\.yml|\.sops\.yaml|\.flux\.yaml)(?:/|$)"
)

#: Patterns in one text, characters of it, and texts in one source.
_MOST_PATTERNS: Final = 1000
LONGEST_TEXT: Final = 64 * 1024
_MOST_TEXTS: Final = 100


class SourceIgnore:
    """The rules of one source: `text_of` gives the text of a directory's ignore file, empty where
    there is none, and is asked once for each; `own` are those of its declaration. `where` is what
    people are told.
    """

    def __init__(self, text_of: Callable[[str], str], own: str = "", *, where: str = "") -> None:
        """Raises SourceInvalid for a pattern that is none, or too many."""
        self._text_of = text_of
        self._where = where
        self._own = _rules(own, where)
        #: From a directory up, those that have rules.
        self._chains: dict[str, tuple[tuple[str, PathSpec[Any]], ...]] = {}
        self._texts = 0

    def ignores(self, path: str) -> bool:
        """Whether a file, by its path with `/`, is left out; with a `/` behind, a directory with
        all in it, as far as nothing of that is brought in again. Raises SourceInvalid.
        """
        chain = self._chain(posixpath.dirname(path.rstrip("/")))
        if self._own is None and not chain:
            return bool(_GIT.search(path) or _DEFAULT.search(path))
        said = _said(self._own, path)
        for directory, rules in chain:
            if said is not None:
                break
            said = _said(rules, path[len(directory) :].lstrip("/"))
        return bool(_GIT.search(path)) if said is None else said

    def may_bring_in(self, directory: str) -> bool:
        """Whether a rule above an ignored directory, or in it, may bring something in again."""
        above = (rules for _, rules in self._chain(directory))
        return any(
            pattern.include is False
            for rules in (self._own, *above)
            if rules is not None
            for pattern in rules.patterns
        )

    def _chain(self, directory: str) -> tuple[tuple[str, PathSpec[Any]], ...]:
        found = self._chains.get(directory)
        if found is None:
            found = self._chain(posixpath.dirname(directory)) if directory else ()
            where = posixpath.join(self._where, directory, IGNORE_FILE)
            if rules := _rules(self._text_of(directory), where):
                self._texts += 1
                if self._texts > _MOST_TEXTS:
                    raise SourceInvalid(
                        f"there are more than {_MOST_TEXTS} {IGNORE_FILE} files", where=self._where
                    )
                found = ((directory, rules), *found)
            self._chains[directory] = found
        return found


def _rules(text: str, where: str) -> PathSpec[Any] | None:
    """None for a text without any pattern."""
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    if len(text) > LONGEST_TEXT or len(lines) > _MOST_PATTERNS:
        raise SourceInvalid(
            f"there are more than {_MOST_PATTERNS} patterns, or {LONGEST_TEXT >> 10} KiB of them",
            where=where,
        )
    if not lines:
        return None
    # Here, because it takes its time, and few have rules.
    from pathspec import PathSpec
    from pathspec.patterns.gitignore.base import GitIgnorePatternError
    from pathspec.patterns.gitignore.spec import GitIgnoreSpecPattern

    try:
        return PathSpec.from_lines(GitIgnoreSpecPattern, lines, backend="re2")
    except GitIgnorePatternError as error:
        raise SourceInvalid(f"a pattern cannot be read: {error}", where=where) from None


def _said(rules: PathSpec[Any] | None, path: str) -> bool | None:
    """Whether a file is left out, or brought in again; None where nothing matches."""
    return rules.check_file(path).include if rules is not None else None
