"""Helm's language of version ranges, as Masterminds/semver 3.5.0 defines it.

    range     = group { "||" group }                 any group has to hold
    group     = term { ( whitespace | "," ) term }   all of its terms have to hold
    term      = [ operator ] partial
    operator  = "=" "!=" ">" "<" ">=" "=>" "<=" "=<" "~" "~>" "^"
    partial   = [ "v" ] part [ "." part ] [ "." part ] [ "-" prerelease ] [ "+" build ]
    part      = digits | "x" | "X" | "*"             a part left out is a wildcard too

and `A - B` is written out as `>= A, <= B` before anything else is read. No other library for
Python has this language: npm's, Poetry's and Helm's differ in prereleases, commas and wildcards.

The rules that surprise people, all of them seen in the original:
- A group matches prereleases only when one of its terms names one, and then everywhere in its
  range: `^1.2.3-0` matches 1.5.0-rc.1.
- `=1.2` is `~1.2`; `^*` matches only 0.0.0; `<=*` only 0.0.x; `>1.2` starts at 1.3.0.
- What follows a wildcard part is read and ignored: `1.x.3` is `1.x`.
- Build metadata never matters.

A `|` may stand where a digit does, which makes `1||2 - 3` the two groups `>=1` and `=2, <=3`. That
is kept, because a range has to mean here what it means to Helm.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

import semver

from helmops.errors import ConstraintError, VersionError
from helmops.resolve.version import SortKey, Version, sort_key

__all__ = ["Constraint", "ConstraintError", "VersionError"]

#: Bytes of a range; Helm refuses more.
MAX_LENGTH = 512

#: Groups between `||`; Helm refuses more.
MAX_GROUPS = 32

# Quantifiers are possessive: each token is taken whole or not at all, so that reading takes time
# in proportion to the text. (The original's expression, in Python's `re`, took 16 s on 40 bytes.)
_SPACE = r"[\t\n\f\r ]"
_PART = r"[0-9xX*|]++"
_IDENTIFIERS = r"[0-9A-Za-z-]++(?:\.[0-9A-Za-z-]++)*+"
_PARTIAL = (
    rf"v?+({_PART})(?:\.({_PART}))?+(?:\.({_PART}))?+"
    rf"(?:-({_IDENTIFIERS}))?+(?:\+({_IDENTIFIERS}))?+"
)
_TOKEN_SPACE = re.compile(f"{_SPACE}*+")
_TOKEN_SEPARATOR = re.compile(f"({_SPACE}*+,)?+{_SPACE}*+")
_TOKEN_OPERATOR = re.compile(r"!=|>=|=>|<=|=<|~>|[=><~^]|")
_TOKEN_PARTIAL = re.compile(_PARTIAL)
_HYPHEN_RANGE = re.compile(f"{_SPACE}*+({_PARTIAL}){_SPACE}++-{_SPACE}++({_PARTIAL}){_SPACE}*+")
_LOW, _HIGH = 1, 7  # where the two versions are among the groups of _HYPHEN_RANGE

_SYNONYMS = {"": "=", "=>": ">=", "=<": "<=", "~>": "~"}
_WILDCARDS = frozenset("xX*")


@dataclass(frozen=True, slots=True)
class _Term:
    """One comparison. `parts` says how many parts were given before the first wildcard."""

    operator: str
    floor: Version
    parts: int

    def holds(self, key: SortKey) -> bool:
        """Whether the version with this key satisfies the term, prereleases set aside."""
        floor = self.floor.key
        match self.operator:
            case "=":
                return key == floor if self.parts == 3 else self._in_tilde(key, floor)
            case "!=":
                return self._differs(key, floor)
            case ">":
                if self.parts in (1, 2):  # >11 starts at 12.0.0, >11.1 at 11.2.0
                    return key[: self.parts] > floor[: self.parts]
                return key > floor
            case ">=":
                return key >= floor
            case "<":
                return key < floor
            case "<=":
                if self.parts == 3:
                    return key <= floor
                given = self.parts or 2  # <=* is <=0.0.x
                return key[:given] <= floor[:given]
            case "~":
                return self._in_tilde(key, floor)
            case _:
                return self._in_caret(key, floor)

    def _differs(self, key: SortKey, floor: SortKey) -> bool:
        if self.parts in (0, 3):
            return key != floor
        if key[: self.parts] != floor[: self.parts]:
            return True
        # !=1.2 excludes all of 1.2, but of prereleases only the one that it names.
        return self.parts == 2 and key[3:] != floor[3:]

    def _in_tilde(self, key: SortKey, floor: SortKey) -> bool:
        if key < floor:
            return False
        if self.parts in (0, 3) and floor[:3] == (0, 0, 0):  # ~* and ~0.0.0 are anything
            return True
        locked = 1 if self.parts == 1 else 2
        return key[:locked] == floor[:locked]

    def _in_caret(self, key: SortKey, floor: SortKey) -> bool:
        if key < floor:
            return False
        if floor[0] > 0 or self.parts == 1:
            return key[0] == floor[0]
        locked = 2 if floor[1] > 0 or self.parts == 2 else 3
        return key[:locked] == floor[:locked]


@dataclass(frozen=True, slots=True)
class _Group:
    """Terms that all have to hold."""

    terms: tuple[_Term, ...]
    opens_prereleases: bool


@dataclass(frozen=True, slots=True)
class Constraint:
    """A version range. Made by `Constraint.parse`; `str()` gives its text back."""

    text: str
    _groups: tuple[_Group, ...] = field(repr=False, compare=False)

    @classmethod
    def parse(cls, text: str) -> Constraint:
        """Read a range. Raises ConstraintError.

        Empty text is no range; Helm and Flux take it as `*` before they get here, and so does
        `selection.choose`.
        """
        if not isinstance(text, str):
            raise ConstraintError(f"a version range is text, not {type(text).__name__}")
        if not text.isascii() or len(text) > MAX_LENGTH:
            raise _not_a_range(text, f"it is not ASCII of at most {MAX_LENGTH} characters")
        groups = _without_hyphen_ranges(text).split("||")
        if len(groups) > MAX_GROUPS:
            raise _not_a_range(text, f"it has more than {MAX_GROUPS} groups")
        return cls(text, tuple(_read_group(group, text) for group in groups))

    def matches(self, version: str | semver.Version, *, include_prereleases: bool = False) -> bool:
        """Whether a version is in the range. Raises VersionError for text that is no version.

        `include_prereleases` opens every group to prereleases, to tell whether that is all that
        keeps a version out.
        """
        if isinstance(version, str):
            version = Version.parse(version)
        key = sort_key(version)
        is_release = key[3] == 1
        return any(
            (is_release or group.opens_prereleases or include_prereleases)
            and all(term.holds(key) for term in group.terms)
            for group in self._groups
        )

    @property
    def lowest(self) -> Version:
        """The lowest version that the range names, for telling what lies below and above it."""
        return min((term.floor for group in self._groups for term in group.terms), key=sort_key)

    def __str__(self) -> str:
        return self.text


def _without_hyphen_ranges(text: str) -> str:
    """Write `A - B` out. As text and at the first place that reads so, because that is what the
    original does: `3,1 - 2` is a range thereafter and `3 1 - 2` is not.
    """
    rewritten = text
    for found in _HYPHEN_RANGE.finditer(text):
        comparison = f">= {found[_LOW]}, <= {found[_HIGH]} "
        rewritten = rewritten.replace(found[0], comparison, 1)
    return rewritten


def _read_group(group: str, text: str) -> _Group:
    terms: list[_Term] = []
    at = _end(_TOKEN_SPACE, group, 0)
    while True:
        operator_end = _end(_TOKEN_OPERATOR, group, at)
        operator = group[at:operator_end]
        found = _TOKEN_PARTIAL.match(group, _end(_TOKEN_SPACE, group, operator_end))
        if found is None:
            raise _not_a_range(text, f"{group[at:].strip() or group!r} is not a comparison")
        terms.append(_read_term(_SYNONYMS.get(operator, operator), found, text))
        at = _end(_TOKEN_SEPARATOR, group, found.end())
        if not group[found.end() :].strip("\t\n\f\r "):
            break
        if at == found.end():
            raise _not_a_range(text, f"{group[found.end() :]!r} cannot follow {found[0]!r}")
    opens_prereleases = any(term.floor.prerelease is not None for term in terms)
    return _Group(tuple(terms), opens_prereleases)


def _read_term(operator: str, found: re.Match[str], text: str) -> _Term:
    parts = [part for part in found.groups()[:3] if part is not None]
    given = next((i for i, part in enumerate(parts) if part in _WILDCARDS), len(parts))
    if given == 3:
        floor = found[0]
    else:
        prerelease = f"-{found[4]}" if found[4] else ""
        floor = ".".join([*parts[:given], *["0"] * (3 - given)]) + prerelease
    try:
        return _Term(operator, Version.parse(floor), given)
    except VersionError as error:
        raise _not_a_range(text, error.what) from None


def _end(token: re.Pattern[str], text: str, at: int) -> int:
    found = token.match(text, at)
    return found.end() if found else at


def _not_a_range(text: str, why: str) -> ConstraintError:
    shown = text if len(text) <= 60 else f"{text[:57]}..."
    return ConstraintError(
        f"{shown!r} is not a version range: {why}",
        next_step="ranges look like ^1.2, ~1.2.3, 1.x or >=1.2 <2",
    )
