"""helmops/sources/sourceignore.py: what Flux leaves out of a source."""

from __future__ import annotations

import pytest

from helmops.errors import SourceInvalid
from helmops.sources.sourceignore import SourceIgnore


@pytest.mark.parametrize(
    ("texts", "own", "path", "is_left_out"),
    [
        ({}, "", "apps/web.yaml", False),
        ({}, "", "logo.png", True),
        ({}, "", "cloudbuild.yaml", True),
        ({}, "!cloudbuild.yaml", "cloudbuild.yaml", False),
        ({}, "# all\n/*\n!/deploy\n", "apps/web.yaml", True),
        ({}, "/*\n!/deploy\n", "deploy/web.yaml", False),
        ({}, "/*\n!/deploy/web.yaml\n", "deploy/web.yaml", False),  # other than with Git
        ({}, "docs/\n", "a/docs/b/web.yaml", True),
        ({}, "docs/\n", "a/docs", False),
        ({"": "*.yaml"}, "", "a/b.yaml", True),
        ({"": "*.yaml", "a": "!b.yaml"}, "", "a/b.yaml", False),
        ({"": "*.yaml", "a": "!b.yaml"}, "b.yaml", "a/b.yaml", True),
        ({"a": "/b.yaml"}, "", "a/b.yaml", True),
        ({"a": "/b.yaml"}, "", "b.yaml", False),
        ({"a": "/b.yaml"}, "", "a/c/b.yaml", False),
        ({"a": "\n# nothing\n"}, "", "a/b.yaml", False),
    ],
)
def test_the_last_rule_that_matches_counts_the_nearest_first(
    texts: dict[str, str], own: str, path: str, is_left_out: bool
) -> None:
    assert SourceIgnore(texts, own).ignores(path) is is_left_out


def test_no_pattern_makes_it_slow() -> None:
    rules = SourceIgnore({"": "a*" * 40 + "b"})
    assert not any(rules.ignores("a" * 250 + f"/{number}") for number in range(100))


@pytest.mark.parametrize(
    ("texts", "said"),
    [
        ({"": "a\\"}, "fleet/.sourceignore: a pattern cannot be read"),
        ({"a": "x\n" * 1001}, "fleet/a/.sourceignore: there are more than 1000 patterns"),
        ({"": "#" * 70_000}, "more than 1000 patterns, or 64 KiB"),
        ({str(number): "" for number in range(101)}, "more than 100 .sourceignore files"),
    ],
)
def test_what_is_no_pattern_or_too_much_is_refused(texts: dict[str, str], said: str) -> None:
    with pytest.raises(SourceInvalid) as refused:
        SourceIgnore(texts, where="fleet")
    assert said in str(refused.value)
