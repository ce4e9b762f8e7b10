"""What Flux leaves out of a source: the rules of `.sourceignore` files, of `ignore`, and its own.

The patterns are Git's, and the last one that matches a file counts: unlike with Git, also for a
file in a directory that is left out (`/*` and then `!/deploy/a.yaml`). Rules of a deeper directory
go before those above it, and those of `ignore` before all (seen in the code of source-controller
1.9.1 and fluxcd/pkg/sourceignore). They are matched by RE2, which no pattern makes slow.
"""

from __future__ import annotations

import posixpath
from collections.abc import Mapping
from functools import cache
from typing import Any, Final

from pathspec import PathSpec
from pathspec.patterns.gitignore.base import GitIgnorePatternError
from pathspec.patterns.gitignore.spec import GitIgnoreSpecPattern

from helmops.errors import SourceInvalid

IGNORE_FILE: Final = ".sourceignore"

#: What Flux leaves out where no rule says otherwise.
_DEFAULT: Final = """
.git/
.gitignore
.gitmodules
.gitattributes
*.jpg
*.jpeg
*.gif
*.png
*.wmv
*.flv
*.tar.gz
*.zip
.github/
.circleci/
.travis.yml
.gitlab-ci.yml
appveyor.yml
.drone.yml
cloudbuild.yaml
codeship-services.yml
codeship-steps.yml
**/.goreleaser.yml
**/.goreleaser.brew.yml
**/.sops.yaml
**/.flux.yaml
**/.golangci.yaml
"""

#: Patterns in one text, characters of it, and texts in one source.
_MOST_PATTERNS: Final = 1000
LONGEST_TEXT: Final = 64 * 1024
_MOST_TEXTS: Final = 100


class SourceIgnore:
    """The rules of one source: `texts` are those of ignore files, by directory (empty for the
    top), `own` those of its declaration. `where` is what people are told.
    """

    def __init__(self, texts: Mapping[str, str], own: str = "", *, where: str = "") -> None:
        """Raises SourceInvalid for a pattern that is none, or too many."""
        if len(texts) > _MOST_TEXTS:
            raise SourceInvalid(
                f"there are more than {_MOST_TEXTS} {IGNORE_FILE} files", where=where
            )
        self._own = _rules(own, where)
        self._by_directory = {
            directory: rules
            for directory, text in texts.items()
            if (rules := _rules(text, posixpath.join(where, directory, IGNORE_FILE))) is not None
        }

    def ignores(self, path: str) -> bool:
        """Whether a file, by its path with `/`, is left out."""
        said = _said(self._own, path)
        directory = path
        while said is None and directory:
            directory = posixpath.dirname(directory)
            below = path[len(directory) :].lstrip("/")
            said = _said(self._by_directory.get(directory), below)
        return _said(_default(), path) is True if said is None else said


@cache
def _default() -> PathSpec[Any] | None:
    return _rules(_DEFAULT, "")


def _rules(text: str, where: str) -> PathSpec[Any] | None:
    """None for a text without any pattern."""
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    if len(text) > LONGEST_TEXT or len(lines) > _MOST_PATTERNS:
        raise SourceInvalid(
            f"there are more than {_MOST_PATTERNS} patterns, or {LONGEST_TEXT >> 10} KiB of them",
            where=where,
        )
    try:
        return PathSpec.from_lines(GitIgnoreSpecPattern, lines, backend="re2") if lines else None
    except GitIgnorePatternError as error:
        raise SourceInvalid(f"a pattern cannot be read: {error}", where=where) from None


def _said(rules: PathSpec[Any] | None, path: str) -> bool | None:
    """Whether a file is left out, or brought in again; None where nothing matches."""
    return rules.check_file(path).include if rules is not None else None
