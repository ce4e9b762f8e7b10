"""What a chart's .helmignore leaves out, by Helm's rules (4.3.1), which are not Git's.

Patterns are Go's `filepath.Match`: `*` and `?` stop at `/`, `[^a]` negates, `**` is an error. A
pattern with a `/` in it is matched against the whole path, one without against the last part; a
trailing `/` means directories only. With `!`, everything that does *not* match is left out. Hidden
files in templates/ always are.
"""

from __future__ import annotations

import posixpath
import re
from dataclasses import dataclass

#: Helm's own rule, over whatever the file says.
_ALWAYS = "templates/.?*"


class BadPatternError(ValueError):
    """A line that Helm refuses; the text says which and why."""


@dataclass(frozen=True, slots=True)
class _Rule:
    pattern: re.Pattern[str]
    whole_path: bool
    negated: bool
    directories_only: bool

    def matches(self, path: str) -> bool:
        subject = path if self.whole_path else posixpath.basename(path)
        return self.pattern.fullmatch(subject) is not None


class IgnoreRules:
    """The rules of one .helmignore; without text, only Helm's own."""

    def __init__(self, text: str = "") -> None:
        """Raises BadPatternError."""
        lines = [line.strip() for line in text.removeprefix("\ufeff").splitlines()]
        wanted = [line for line in lines if line and not line.startswith("#")]
        self._rules = [_rule(line) for line in (*wanted, _ALWAYS)]

    def ignores(self, path: str, *, is_directory: bool) -> bool:
        """Whether a path relative to the chart, with `/`, is left out; a directory with all that
        is in it.
        """
        for rule in self._rules:
            if rule.negated:
                if (rule.directories_only and not is_directory) or not rule.matches(path):
                    return True
            elif (is_directory or not rule.directories_only) and rule.matches(path):
                return True
        return False


def _rule(line: str) -> _Rule:
    if "**" in line:
        raise BadPatternError(f"{line!r}: ** is not supported")
    negated = line.startswith("!")
    rule = line[1:] if negated else line
    directories_only = rule.endswith("/")
    rule = rule.removesuffix("/")
    return _Rule(
        pattern=_compiled(rule.removeprefix("/"), line),
        whole_path="/" in rule,
        negated=negated,
        directories_only=directories_only,
    )


def _compiled(pattern: str, line: str) -> re.Pattern[str]:
    """Go's filepath.Match as a regular expression.

    What stands between two `*` is looked for once, at the first place that it fits, and never
    again: that is as good as any other place, and takes no exponential time.
    """
    chunks: list[list[str]] = [[]]
    at = 0
    while at < len(pattern):
        character = pattern[at]
        at += 1
        if character == "*":
            chunks.append([])
        elif character == "?":
            chunks[-1].append("[^/]")
        elif character == "[":
            found, at = _class(pattern, at, line)
            chunks[-1].append(found)
        elif character == "\\":
            if at == len(pattern):
                raise BadPatternError(f"{line!r}: nothing follows the last \\")
            chunks[-1].append(re.escape(pattern[at]))
            at += 1
        else:
            chunks[-1].append(re.escape(character))
    first, *others = ("".join(chunk) for chunk in chunks)
    middle = "".join(f"(?>[^/]*?{chunk})" for chunk in others[:-1])
    last = f"[^/]*{others[-1]}" if others else ""
    return re.compile(first + middle + last, re.DOTALL)


def _class(pattern: str, at: int, line: str) -> tuple[str, int]:
    """A `[…]` from behind its bracket, and where it ends."""
    negated = pattern[at : at + 1] == "^"
    at += negated
    ranges: list[str] = []
    while pattern[at : at + 1] != "]" or not ranges:
        low, at = _member(pattern, at, line)
        high = low
        if pattern[at : at + 1] == "-":
            high, at = _member(pattern, at + 1, line)
        if low <= high:
            ranges.append(f"{re.escape(low)}-{re.escape(high)}")
        else:
            ranges.append("")  # matches nothing, as in Go
    inside = "".join(ranges)
    if not inside:
        return ("[^/]" if negated else "(?!)"), at + 1
    return (f"[^/{inside}]" if negated else f"(?!/)[{inside}]"), at + 1


def _member(pattern: str, at: int, line: str) -> tuple[str, int]:
    if pattern[at : at + 1] == "\\":
        at += 1
    elif pattern[at : at + 1] in ("-", "]"):
        raise BadPatternError(f"{line!r}: {pattern[at]} is out of place")
    if at >= len(pattern):
        raise BadPatternError(f"{line!r}: a [ is not closed")
    return pattern[at], at + 1
