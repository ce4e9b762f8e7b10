"""helmops/sources/index_entries.py: it reads what Helm writes, and as YAML reads it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helmops.errors import SourceInvalid
from helmops.sources.index_entries import regular_entries
from helmops.sources.index_events import Events, IrregularError

REFUSED = object()


def by_yaml(block: str) -> Any:
    try:
        return Events(block.encode(), "").value_of("web")
    except (IrregularError, SourceInvalid):
        return REFUSED


VALUES = (
    "1.2.3",
    "v1.0.0+build.7",
    "https://charts.example/web-1.2.3.tgz?a=b",
    "a: b",
    "a :b",
    "a:",
    "a #b",
    "a#b",
    "two  spaces",
    "trailing ",
    "null",
    "~",
    "NULL",
    "true",
    "0x10",
    '"quoted: text # here"',
    '"with \\" in it"',
    '"open',
    "'single: # text'",
    "'it''s'",
    "'open",
    "don't",
    'say "so"',
    "[a, b]",
    "{a: b}",
    "[a",
    "|",
    ">-",
    "&anchor text",
    "*anchor",
    "!!str 7",
    "- item",
    "? key",
    "@at",
    "%directive",
    "ä text",
    "tab\there",
    "line\u2028break",
    "text # and a comment",
    "",
)
KEYS = ("name", "version", "urls", "annotations", "description", "<<", '"quoted"', "x.y-z_1", "ä")
BELOW = ("    - ", "      ", "    -", "   ", "    ", "      - ", "", "# ", "     # ")

lines = st.lists(
    st.one_of(
        st.builds(
            "{}{}: {}\n".format,
            st.sampled_from(["  - ", "    "]),
            *map(st.sampled_from, (KEYS, VALUES)),
        ),
        st.builds("    {}:\n".format, st.sampled_from(KEYS)),
        st.builds("{}{}\n".format, st.sampled_from(BELOW), st.sampled_from(VALUES)),
        st.builds("{}{}: {}\n".format, *map(st.sampled_from, (BELOW, KEYS, VALUES))),
    ),
    max_size=9,
)


@given(lines)
@settings(max_examples=1500, deadline=None)
def test_whatever_it_reads_is_what_yaml_reads(below: list[str]) -> None:
    block = "".join(["  web:\n", "  - name: web\n", *below])
    read = regular_entries(block.encode(), "web")
    assert read is None or read == by_yaml(block)


@pytest.mark.parametrize("value", VALUES)
@pytest.mark.parametrize("place", ["home: {}", "urls:\n    - {}", "annotations:\n      a: {}"])
def test_a_value_of_any_kind_is_what_yaml_reads_or_left_to_it(place: str, value: str) -> None:
    block = f"  web:\n  - name: web\n    {place.format(value)}\n    version: 1.0.0\n"
    read = regular_entries(block.encode(), "web")
    assert read is None or read == by_yaml(block)


def test_an_anchor_of_one_value_is_not_seen_by_another_so_all_is_left_to_yaml() -> None:
    block = "  web:\n  - name: web\n    home: &a x\n    icon: *a\n"
    assert regular_entries(block.encode(), "web") is None
    assert by_yaml(block) == [{"name": "web", "home": "x", "icon": "x"}]


def test_levels_are_counted_from_the_list_on() -> None:
    for depth in (97, 98, 99):
        block = f"  web:\n  - name: web\n    deep: {'[' * depth}{']' * depth}\n"
        read = regular_entries(block.encode(), "web")
        assert (REFUSED if read is None else read) == by_yaml(block)


@pytest.mark.parametrize("dash", [2, 4, 6])
def test_what_helm_writes_is_read_without_yaml_but_for_what_is_nested(
    dash: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def entry(version: str) -> str:
        return (
            f'- apiVersion: v2\n  created: "2026-08-06T23:01:31.8Z"\n  home: https://web.example\n'
            f"  keywords:\n  - one\n  - two\n  name: web\n  urls:\n  - https://x/{version}.tgz\n"
            f"  version: {version}\n"
        )

    written = "".join(map(entry, ("1.1.0", "1.0.0")))
    block = "  web:\n" + "".join(" " * dash + line + "\n" for line in written.splitlines())
    expected = by_yaml(block)
    asked = []
    original = Events.value_of
    monkeypatch.setattr(
        Events, "value_of", lambda self, only: asked.append(only) or original(self, only)
    )
    assert regular_entries(block.encode(), "web") == expected
    assert len(asked) == 1, "the keywords, once for both"
