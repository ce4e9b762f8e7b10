"""The end of what other programs say."""

from __future__ import annotations

import pytest

from helmops.checks.output import last_part


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("", ""),
        ("a\nb\n", "a\nb"),
        ("a\nb\nc\nd", "[…]\nb\nc\nd"),
        ("x" * 30, "[…]\n" + "x" * 20),
        ("ü" * 15, "[…]\n" + "ü" * 10),
    ],
)
def test_the_end_of_a_text_is_kept(text: str, kept: str) -> None:
    assert last_part(text, lines=3, size=20) == kept
