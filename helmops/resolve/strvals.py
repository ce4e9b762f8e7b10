r"""Helm's `--set` syntax, for the `targetPath` of a `valuesFrom` reference.

    a.b=1               the key b of the mapping a; `\.` is a dot in a key, `\` before anything
                        is that character
    a[0].b=1            the first item of the list a; lists grow with nulls as far as needed
    a={1,x}             a list
    a=1,b=2             several at once

Untyped values become booleans (`true`), null, integers of 64 bits that do not begin with 0, or
else text. Read off Helm 4.3.1's `pkg/strvals` and compared with it. It differs where Helm would
silently not do what was asked: an index without `]` or without a value and a path that ends with a
dot are errors (Helm sets nothing, or an empty list), and `a[0].b=` sets an empty text (Helm makes
`a` an empty list).

Values may be secret: errors name the path at most.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping
from typing import Any

from helmops.errors import ValuesError

#: The largest index of a list.
MAX_INDEX = 65_536

#: How many dots a path may have.
MAX_DEPTH = 30

_INTEGER = re.compile(r"[-+]?[0-9]+")
_INDEX = re.compile(r"[-+]?[0-9]+")
_VERBATIM = str.maketrans({character: f"\\{character}" for character in "\\,[]{}"})


def set_value(
    values: Mapping[str, Any], path: str, value: str, *, literal: bool = False, where: str = ""
) -> dict[str, Any]:
    """The values with one of them replaced, as Flux does it for `targetPath`.

    A value in quotes is text whatever it looks like, and so is a `literal` one, of which every
    character counts. Any other is read as by `--set`, commas and braces included. The values
    given stay as they are. Raises ValuesError; `where` names the reference in it.
    """
    if literal:
        line, as_text = f"{path}={value.translate(_VERBATIM)}", True
    elif value[:1] in ("'", '"') and value.endswith(value[0]):
        stripped = value.strip("'\"")
        line, as_text = f"{path}={stripped}", True
    else:
        line, as_text = f"{path}={value}", False
    try:
        return parse_set(line, values, as_text=as_text)
    except ValuesError as error:
        raise ValuesError(
            f"the value cannot be put at targetPath {path!r}: {error.what}",
            where=where,
            next_step="`literal: true` takes a value as it is, without the syntax of --set",
        ) from None


def parse_set(
    line: str, values: Mapping[str, Any] | None = None, *, as_text: bool = False
) -> dict[str, Any]:
    """The values with those of a `--set` line (`--set-string` with `as_text`) put in.

    The values given stay as they are. Raises ValuesError.
    """
    changed: dict[str, Any] = copy.deepcopy(dict(values or {}))
    parser = _Parser(line, as_text)
    while not parser.is_at_end:
        parser.read_key(changed, depth=0)
    return changed


class _Parser:
    """Reads one line from left to right."""

    def __init__(self, line: str, as_text: bool) -> None:
        self._line = line
        self._at = 0
        self._as_text = as_text

    @property
    def is_at_end(self) -> bool:
        return self._at >= len(self._line)

    def _until(self, stops: str) -> tuple[str, str]:
        """The text up to one of `stops`, escapes resolved, and which it was ("" at the end)."""
        found: list[str] = []
        while self._at < len(self._line):
            character = self._line[self._at]
            self._at += 1
            if character in stops:
                return "".join(found), character
            if character == "\\":
                if self.is_at_end:
                    break
                character = self._line[self._at]
                self._at += 1
            found.append(character)
        return "".join(found), ""

    def read_key(self, values: dict[str, Any], depth: int) -> None:
        """One key with all that follows it, and its value."""
        key, stop = self._until("=[,.")
        match stop:
            case "=":
                self._put(values, key, self._read_value())
            case "[":
                self._put(values, key, self._read_item(self._list_at(values, key), depth))
            case ".":
                if depth >= MAX_DEPTH:
                    raise ValuesError(f"a path has more than {MAX_DEPTH} dots")
                inner = self._mapping_at(values, key)
                if self.is_at_end:
                    raise ValuesError("a path ends with a dot")
                self.read_key(inner, depth + 1)
                if not inner:
                    raise ValuesError("a path ends without a key")
                self._put(values, key, inner)
            case _:
                if key or stop:
                    raise ValuesError("a path has no value; a comma in a value is written `\\,`")

    @staticmethod
    def _put(values: dict[str, Any], key: str, value: Any) -> None:
        if key:  # a value without a key goes nowhere, in Helm too
            values[key] = value

    @staticmethod
    def _list_at(values: dict[str, Any], key: str) -> list[Any]:
        present = values.get(key, [])
        if not isinstance(present, list):
            raise ValuesError("an index is put on what is not a list")
        return present

    @staticmethod
    def _mapping_at(values: dict[str, Any], key: str) -> dict[str, Any]:
        present = values.get(key, {})
        if not isinstance(present, dict):
            raise ValuesError("a key is put into what is not a mapping")
        return present

    def _read_item(self, items: list[Any], depth: int) -> list[Any]:
        """The rest of an index, behind its `[`, and what follows."""
        digits, stop = self._until("]")
        if not stop or not _INDEX.fullmatch(digits) or not digits.isascii():
            raise ValuesError("an index is not a number in brackets")
        index = int(digits) if len(digits) < 12 else MAX_INDEX + 1
        if not 0 <= index <= MAX_INDEX:
            raise ValuesError(f"an index is not between 0 and {MAX_INDEX}")
        between, stop = self._until("[.=")
        if between:
            raise ValuesError("something stands between an index and what follows it")
        present = items[index] if index < len(items) else None
        value: Any
        match stop:
            case "=":
                value = self._read_value()
            case "[":
                if present is not None and not isinstance(present, list):
                    raise ValuesError("an index is put on what is not a list")
                value = self._read_item(present or [], depth)
            case ".":
                value = present if isinstance(present, dict) else {}
                if self.is_at_end:
                    raise ValuesError("a path ends with a dot")
                self.read_key(value, depth)
            case _:
                raise ValuesError("an index has no value")
        items.extend([None] * (index + 1 - len(items)))
        items[index] = value
        return items

    def _read_value(self) -> Any:
        if not self._line.startswith("{", self._at):
            return self._typed(self._until(",")[0])
        self._at += 1
        items: list[Any] = []
        while True:
            text, stop = self._until(",}")
            if not stop:
                raise ValuesError("a list is not closed by `}`")
            items.append(self._typed(text))
            if stop == "}":
                if self._line.startswith(",", self._at):
                    self._at += 1
                return items

    def _typed(self, text: str) -> Any:
        if self._as_text:
            return text
        word = text.lower()
        if word in ("true", "false", "null"):
            return {"true": True, "false": False}.get(word)
        if text == "0":
            return 0
        if text.isascii() and not text.startswith("0") and _INTEGER.fullmatch(text):
            number = int(text) if len(text) < 24 else 2**64
            if -(2**63) <= number < 2**63:
                return number
        return text
