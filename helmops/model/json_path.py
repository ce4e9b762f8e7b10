"""One place in a JSON document, as kubectl's JSONPath names it: `{.status.items[0].name}`.

The part of the language that names exactly one place: fields (`.name`, `['a.b/c']`), items of lists
by number (`[0]`, from the end `[-1]`), with or without the braces and a leading `$`. Wildcards,
slices, filters and `..` name many places and are refused.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from helmops.errors import DeclarationError

_STEP = re.compile(
    r"""\.(?P<name>[^.\[\]{}'"*\s?@:,]+)"""
    r"""|\[\s*(?P<number>-?\d{1,9})\s*\]"""
    r"""|\[\s*'(?P<single>[^']+)'\s*\]"""
    r"""|\[\s*"(?P<double>[^"]+)"\s*\]"""
)


@dataclass(frozen=True, slots=True)
class JsonPath:
    """`steps` are the names of fields and the numbers of list items; none is the document."""

    text: str
    steps: tuple[str | int, ...]

    @classmethod
    def parse(cls, text: str) -> JsonPath:
        """Raises DeclarationError for what is no such path, saying where it goes wrong."""
        inner = text.strip()
        if inner.startswith("{") and inner.endswith("}"):
            inner = inner[1:-1].strip()
        inner = inner.removeprefix("$")
        if inner in ("", "."):
            return cls(text, ())
        if inner[0] not in ".[":
            inner = f".{inner}"
        steps: list[str | int] = []
        position = 0
        while position < len(inner):
            match = _STEP.match(inner, position)
            if match is None:
                raise DeclarationError(
                    f"`{text}` is no path to one place, see `{inner[position : position + 20]}`",
                    next_step="write it as `{.status.items[0].name}` or `{['a.b'].c}`; "
                    "wildcards and filters are not supported",
                )
            number = match["number"]
            name = match["name"] or match["single"] or match["double"]
            steps.append(name if number is None else int(number))
            position = match.end()
        return cls(text, tuple(steps))

    def find(self, document: Any) -> Any:
        """What is at the place. Raises LookupError where there is no such place, naming how far
        the path leads.
        """
        value = document
        for count, step in enumerate(self.steps):
            is_there = (
                isinstance(value, list) and -len(value) <= step < len(value)
                if isinstance(step, int)
                else isinstance(value, dict) and step in value
            )
            if not is_there:
                raise LookupError(f"nothing at {_shown(self.steps[: count + 1])}")
            value = value[step]
        return value


def equal(one: Any, other: Any) -> bool:
    """Whether two JSON values are the same: true is not 1, but 1 is 1.0."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(equal, one, other))
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(equal(one[key], other[key]) for key in one)
    return bool(one == other)


def _shown(steps: tuple[str | int, ...]) -> str:
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in steps)
