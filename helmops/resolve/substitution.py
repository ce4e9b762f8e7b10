"""`${VAR}` and its string functions, as Flux substitutes them after a build of kustomize.

The language is that of Flux's envsubst (a descendant of drone/envsubst), with its surprises, which
files out there rely on; seen with fluxcd/pkg/envsubst 1.9.0 and held by vectors made with it:

- Only `${…}` is a variable; `$VAR` is text, and `$$` is how a `$` is written before a brace.
- What is not defined is empty. All of `=`, `:=`, `:-`, `:?` and `:+` mean "this, if it is empty".
- Without `:`, only `=` gives a default; `${VAR-text}` is an error.
- Lengths and positions count bytes of UTF-8.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Final

#: What the name of a variable that is defined must look like.
NAME: Final = re.compile(r"[_a-zA-Z][_a-zA-Z0-9]*")

#: Variables within each other's arguments.
_MAX_DEPTH: Final = 50
#: Steps that the pattern of one removal (`#`, `%`) may take.
_MAX_STEPS: Final = 2_000_000
#: Characters that a text may grow to.
_MAX_LENGTH: Final = 8 * 1024 * 1024

_INTEGER: Final = re.compile(r"[+-]?[0-9]+")
_LARGEST: Final = 2**63 - 1


class SubstitutionError(ValueError):
    """Text that cannot be substituted; `line` is the line in it, from 1."""

    def __init__(self, what: str, line: int = 1) -> None:
        super().__init__(what)
        self.what = what
        self.line = line


def substitute(text: str, variables: Mapping[str, str]) -> str:
    """The text with all variables replaced. Raises SubstitutionError."""
    if "$" not in text:
        return text
    return _Reader(text, variables).all()


def check_names(variables: Mapping[str, object]) -> None:
    """Raises SubstitutionError where a name of a variable is none."""
    for name in variables:
        if not NAME.fullmatch(name):
            raise SubstitutionError(
                f"`{name}` is no name of a variable: letters, digits and `_`, no digit first"
            )


class _Reader:
    """Reads a text from left to right, and writes what it means as it goes."""

    def __init__(self, text: str, variables: Mapping[str, str]) -> None:
        self._text = text
        self._variables = variables
        self._at = 0
        self._depth = 0

    def all(self) -> str:
        """The whole text."""
        parts: list[str] = []
        length = 0
        while self._at < len(self._text):
            dollar = self._text.find("$", self._at)
            if dollar < 0:
                parts.append(self._text[self._at :])
                break
            parts.append(self._text[self._at : dollar])
            self._at = dollar + 1
            if self._peek() == "{":
                self._at += 1
                parts.append(self._variable())
            else:
                self._at += self._peek() == "$"
                parts.append("$")
            length += len(parts[-2]) + len(parts[-1])
            if length > _MAX_LENGTH:
                raise self._error("the text grows beyond what a declaration can hold")
        return "".join(parts)

    def _variable(self) -> str:
        """What stands between `${` and `}`, evaluated."""
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            raise self._error(f"more than {_MAX_DEPTH} variables within each other")
        value = self._length() if self._peek() == "#" else self._named()
        self._depth -= 1
        return value

    def _length(self) -> str:
        self._at += 1
        value = self._value_of(self._name())
        self._close()
        return str(len(value.encode("utf-8", "surrogatepass")))

    def _named(self) -> str:
        name = self._name()
        value = self._value_of(name)
        match self._peek():
            case ":" if self._text[self._at + 1 : self._at + 2] in ("=", "-", "?", "+"):
                self._at += 2
                return self._or_default(value)
            case ":":
                self._at += 1
                return self._part(value)
            case "=":
                self._at += 1
                return self._or_default(value)
            case "," | "^":
                return self._cased(value)
            case "/":
                return self._replaced(value)
            case "#" | "%":
                return self._trimmed(value)
            case _:
                self._close()
                return value

    def _name(self) -> str:
        start = self._at
        while self._at < len(self._text) and _is_of_name(self._text[self._at]):
            self._at += 1
        if self._at == start:
            raise self._error("`${` without a name behind it (a plain `${` is written `$${`)")
        return self._text[start : self._at]

    def _value_of(self, name: str) -> str:
        return self._variables.get(name, "")

    def _or_default(self, value: str) -> str:
        default = []
        while self._peek() != "}":
            default.append(self._argument("}"))
        self._at += 1
        return value or "".join(default)

    def _part(self, value: str) -> str:
        position = self._argument(":}")
        length = None
        if self._peek() == ":":
            while self._peek() == ":":
                self._at += 1
            length = self._argument("}")
        self._close()
        return _part(value, position, length)

    def _cased(self, value: str) -> str:
        start = self._at
        while self._peek() in (",", "^") and self._at - start < 2:
            self._at += 1
        operator = self._text[start : self._at]
        self._close()
        case = _CASES.get(operator)
        return case(value) if case is not None else value

    def _replaced(self, value: str) -> str:
        start = self._at
        self._at += 1
        if self._peek() in ("/", "#", "%"):
            self._at += 1
        operator = self._text[start : self._at]
        pattern = self._argument("/", escapes=True)
        if self._peek() != "/":
            raise self._error("a pattern without a `/` behind it")
        while self._peek() == "/":
            self._at += 1
        replacement = None if self._peek() == "}" else self._argument("}", escapes=True)
        self._close()
        match operator:
            case "/":
                return value.replace(pattern, replacement or "", 1)
            case "//":
                return value.replace(pattern, replacement or "")
            case "/#" if replacement is not None and value.startswith(pattern):
                return replacement + value[len(pattern) :]
            case "/%" if replacement is not None and value.endswith(pattern):
                return value[: len(value) - len(pattern)] + replacement
            case _:
                return value

    def _trimmed(self, value: str) -> str:
        sign = self._peek()
        start = self._at
        while self._peek() == sign and self._at - start < 2:
            self._at += 1
        is_longest = self._at - start == 2
        pattern = self._argument("}")
        self._close()
        if len(value) ** 2 * max(len(pattern), 1) > _MAX_STEPS:
            raise self._error("the value is too long to look for a pattern in it")
        if sign == "#":
            return value[_matched(pattern, value, longest=is_longest) :]
        # From the end: both are turned around, classes of characters too.
        turned = value[::-1]
        return turned[_matched(pattern[::-1], turned, longest=is_longest) :][::-1]

    def _argument(self, ends: str, *, escapes: bool = False) -> str:
        """One argument: either a variable, or text up to one, or to a character of `ends`."""
        if self._text.startswith("${", self._at):
            self._at += 2
            return self._variable()
        start, text = self._at, []
        while self._at < len(self._text):
            two = self._text[self._at : self._at + 2]
            if two == "${":
                break
            if escapes and two in ("$$", "\\/", "\\\\"):
                text.append(two[1])
                self._at += 2
                continue
            if two[0] in ends:
                break
            text.append(two[0])
            self._at += 1
        if self._at == start:
            raise self._error("an argument is missing, or `}`")
        return "".join(text)

    def _close(self) -> None:
        if self._peek() != "}":
            raise self._error("`}` is missing")
        self._at += 1

    def _peek(self) -> str:
        return self._text[self._at : self._at + 1]

    def _error(self, what: str) -> SubstitutionError:
        return SubstitutionError(what, self._text.count("\n", 0, self._at) + 1)


def _is_of_name(character: str) -> bool:
    return character == "_" or character.isalpha() or character.isdecimal()


def _part(value: str, position: str, length: str | None) -> str:
    """The bytes from a position on; a position or length that is no integer gives all."""
    start = _integer(position)
    if start is None:
        return value
    raw = value.encode("utf-8", "surrogatepass")
    if start < 0:
        start = max(len(raw) + start, 0)
    end = len(raw)
    if length is not None:
        count = _integer(length)
        if count is None:
            return value
        end = len(raw) + count if count < 0 else min(start + count, len(raw))
    return raw[start : max(end, 0)].decode("utf-8", "replace")


def _integer(text: str) -> int | None:
    if len(text) > 20 or not _INTEGER.fullmatch(text):
        return None
    number = int(text)
    return number if -_LARGEST - 1 <= number <= _LARGEST else None


def _each(text: str, case: Callable[[str], str]) -> str:
    """Character by character, each to one character: `ß` stays as it is."""
    return "".join(c if len(case(c)) != 1 else case(c) for c in text)


_CASES: Final[dict[str, Callable[[str], str]]] = {
    ",": lambda text: _each(text[:1], str.lower) + text[1:],
    ",,": lambda text: _each(text, str.lower),
    "^": lambda text: _each(text[:1], str.upper) + text[1:],
    "^^": lambda text: _each(text, str.upper),
}


def _matched(pattern: str, value: str, *, longest: bool) -> int:
    """Length of the longest or shortest beginning of a value that a pattern matches; 0 if none."""
    matched = 0
    for length in range(len(value), 0, -1):
        is_match = _matches(pattern, value[:length])
        if is_match is None:
            return 0
        if is_match:
            matched = length
            if longest:
                break
    return matched


def _matches(pattern: str, name: str) -> bool | None:
    r"""Whether a shell pattern (`*`, `?`, `[a-z]`, `\`) is all of a text; None for a bad pattern.

    What follows a `*` is looked for once, from the left: there is no way back.
    """
    while pattern:
        is_star, chunk, pattern = _first_chunk(pattern)
        if is_star and not chunk:
            return True
        try:
            rest = _after_chunk(chunk, name)
            if rest is not None and (not rest or pattern):
                name = rest
                continue
            if not is_star:
                return False
            for start in range(1, len(name) + 1):
                rest = _after_chunk(chunk, name[start:])
                if rest is not None and (pattern or not rest):
                    name = rest
                    break
            else:
                return False
        except _BadPatternError:
            return None
    return not name


class _BadPatternError(Exception):
    """A class of characters that has no end, and the like."""


def _first_chunk(pattern: str) -> tuple[bool, str, str]:
    """Whether it begins with a star, what follows up to the next star, and the rest."""
    bare = pattern.lstrip("*")
    at, is_in_class = 0, False
    while at < len(bare):
        match bare[at]:
            case "\\":
                at += at + 1 < len(bare)
            case "[":
                is_in_class = True
            case "]":
                is_in_class = False
            case "*" if not is_in_class:
                break
        at += 1
    return len(bare) < len(pattern), bare[:at], bare[at:]


def _after_chunk(chunk: str, name: str) -> str | None:
    """What is left of a text behind a match of a pattern without stars; None if there is none."""
    at = 0
    while chunk:
        if at >= len(name):
            return None
        character, sign = name[at], chunk[0]
        if sign == "[":
            is_member, chunk = _in_class(chunk[1:], character)
            if not is_member:
                return None
        elif sign == "?":
            chunk = chunk[1:]
        else:
            if sign == "\\":
                chunk = chunk[1:]
                if not chunk:
                    raise _BadPatternError
            if chunk[0] != character:
                return None
            chunk = chunk[1:]
        at += 1
    return name[at:]


def _in_class(chunk: str, character: str) -> tuple[bool, str]:
    """Whether a character is in a class, and what follows the class."""
    is_negated = chunk.startswith("^")
    chunk = chunk[is_negated:]
    is_member, ranges = False, 0
    while not (chunk.startswith("]") and ranges):
        low, chunk = _of_class(chunk)
        high = low
        if chunk[0] == "-":
            high, chunk = _of_class(chunk[1:])
        is_member |= low <= character <= high
        ranges += 1
    return is_member != is_negated, chunk[1:]


def _of_class(chunk: str) -> tuple[str, str]:
    if not chunk or chunk[0] in "-]":
        raise _BadPatternError
    if chunk[0] == "\\":
        chunk = chunk[1:]
    if len(chunk) < 2:
        raise _BadPatternError
    return chunk[0], chunk[1:]
