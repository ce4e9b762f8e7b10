"""Paths to one place in a JSON document."""

from __future__ import annotations

from typing import Any

import pytest

from helmops.errors import DeclarationError
from helmops.model.json_path import JsonPath, equal

DOCUMENT = {"status": {"items": [{"name": "a"}, {"name": "b"}], "x.y/z": 1, "none": None}}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("{.status.items[0].name}", "a"),
        (".status.items[0].name", "a"),
        ("$.status.items[1].name", "b"),
        ("{$.status.items[-1].name}", "b"),
        ("status.items[ 0 ].name", "a"),
        ("{['status'].items[0][\"name\"]}", "a"),
        ("{.status['x.y/z']}", 1),
        ("{.status.none}", None),
        ("{}", DOCUMENT),
        ("$", DOCUMENT),
        ("{.}", DOCUMENT),
    ],
)
def test_a_path_leads_to(text: str, value: object) -> None:
    assert JsonPath.parse(text).find(DOCUMENT) == value


@pytest.mark.parametrize(
    ("text", "missing"),
    [
        (".status.phase", ".status.phase"),
        (".status.phase.more", ".status.phase"),
        (".status.items[2].name", ".status.items[2]"),
        (".status.items[-3]", ".status.items[-3]"),
        (".status.items.name", ".status.items.name"),
        (".status[0]", ".status[0]"),
        (".status.none.more", ".status.none.more"),
    ],
)
def test_a_path_that_leads_nowhere_says_how_far_it_went(text: str, missing: str) -> None:
    with pytest.raises(LookupError) as caught:
        JsonPath.parse(text).find(DOCUMENT)

    assert str(caught.value) == f"nothing at {missing}"


@pytest.mark.parametrize(
    "text",
    [
        "..name",
        ".items[*].name",
        ".items[0:2]",
        ".items[?(@.a==1)]",
        ".a b",
        ".a.",
        "[",
        "{.a",
        "a}",
    ],
)
def test_what_names_many_places_or_none_is_refused(text: str) -> None:
    with pytest.raises(DeclarationError, match="no path to one place"):
        JsonPath.parse(text)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (1, 1.0, True),
        (True, 1, False),
        (False, 0, False),
        (True, True, True),
        (None, False, False),
        ("1", 1, False),
        ([1, True], [1.0, True], True),
        ([1], [True], False),
        ([1], [1, 2], False),
        ({"a": [1]}, {"a": [1]}, True),
        ({"a": 1}, {"a": True}, False),
        ({"a": 1}, {"b": 1}, False),
    ],
)
def test_values_are_compared_as_json(one: Any, other: Any, same: bool) -> None:
    assert equal(one, other) is same
    assert equal(other, one) is same
