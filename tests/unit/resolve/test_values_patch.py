from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helmops.resolve.values import merge_values
from helmops.resolve.values_patch import ValuesPatch, values_patch

SCALARS = st.one_of(st.booleans(), st.integers(-3, 3), st.text("ab", max_size=2))
VALUES = st.recursive(
    st.dictionaries(st.sampled_from("abc"), st.one_of(SCALARS, st.lists(SCALARS, max_size=2))),
    lambda inner: st.dictionaries(st.sampled_from("abc"), st.one_of(SCALARS, inner)),
    max_leaves=8,
)


@pytest.mark.parametrize(
    ("before", "after", "merged", "removed"),
    [
        ({}, {}, {}, ()),
        ({"a": 1}, {"a": 1}, {}, ()),
        ({"a": 1}, {"a": 2, "b": 3}, {"a": 2, "b": 3}, ()),
        ({"a": 1}, {}, {}, (("a",),)),
        ({"a": 1}, {"a": None}, {"a": None}, ()),
        ({"a": {"b": 1, "c": 2}}, {"a": {"b": 1, "c": 3}}, {"a": {"c": 3}}, ()),
        ({"a": {"b": 1, "c": 2}}, {"a": {"b": 1}}, {}, (("a", "c"),)),
        ({"a": [1, 2]}, {"a": [1]}, {"a": [1]}, ()),
        ({"a": {"b": 1}}, {"a": 1}, {"a": 1}, ()),
        ({"a": 1}, {"a": True}, {"a": True}, ()),
    ],
)
def test_it_holds_what_changed(
    before: dict[str, Any],
    after: dict[str, Any],
    merged: dict[str, Any],
    removed: tuple[tuple[str, ...], ...],
) -> None:
    assert values_patch(before, after) == ValuesPatch(merged, removed)


def without(values: dict[str, Any], path: tuple[str, ...]) -> dict[str, Any]:
    key, *rest = path
    if rest:
        return {**values, key: without(values[key], tuple(rest))}
    return {name: value for name, value in values.items() if name != key}


@given(VALUES, VALUES)
def test_merged_as_helm_merges_it_gives_the_other_values(
    before: dict[str, Any], after: dict[str, Any]
) -> None:
    patch = values_patch(before, after)
    edited = before
    for path in patch.removed:
        edited = without(edited, path)
    assert merge_values([edited, patch.merged]) == after
