"""What makes one set of values of another: the patch that helm's merge would apply."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def values_patch(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
    """The smallest values that, merged over `before` as helm merges, give `after`: maps are merged,
    null deletes a key, everything else replaces. Computational only.

    A null that `after` itself has stays one, as helm takes it: the key goes.

    >>> values_patch({"a": 1, "b": {"c": 1, "d": 2}}, {"b": {"c": 3, "d": 2}})
    {'a': None, 'b': {'c': 3}}
    """
    patch: dict[str, Any] = {key: None for key in before if key not in after}
    for key, value in after.items():
        if key not in before:
            patch[key] = value
        elif isinstance(value, Mapping) and isinstance(before[key], Mapping):
            if inner := values_patch(before[key], value):
                patch[key] = inner
        elif type(value) is not type(before[key]) or value != before[key]:
            patch[key] = value
    return patch
