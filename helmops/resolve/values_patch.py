"""What makes one set of values of another, for a person who edits a declaration."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class ValuesPatch:
    """Values to be merged in, and the keys to be taken out, from the outside in.

    A null would not take a key out: helm keeps it as a null among the user's values.
    """

    merged: Mapping[str, Any]
    removed: tuple[tuple[str, ...], ...] = ()


def values_patch(before: Mapping[str, Any], after: Mapping[str, Any]) -> ValuesPatch:
    """The smallest change that makes `after` of `before`. Computational only.

    >>> values_patch({"a": 1, "b": {"c": 1, "d": 2}}, {"b": {"c": 3, "d": 2}})
    ValuesPatch(merged={'b': {'c': 3}}, removed=(('a',),))
    """
    return ValuesPatch(_merged(before, after), tuple(_removed(before, after)))


def _merged(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
    patch: dict[str, Any] = {}
    for key, value in after.items():
        if key not in before:
            patch[key] = value
        elif isinstance(value, Mapping) and isinstance(before[key], Mapping):
            if inner := _merged(before[key], value):
                patch[key] = inner
        elif type(value) is not type(before[key]) or value != before[key]:
            patch[key] = value
    return patch


def _removed(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    for key, value in before.items():
        if key not in after:
            yield (key,)
        elif isinstance(value, Mapping) and isinstance(after[key], Mapping):
            for path in _removed(value, after[key]):
                yield (key, *path)
