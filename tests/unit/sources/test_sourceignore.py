"""helmops/sources/sourceignore.py: what Flux leaves out of a source."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from helmops.errors import SourceInvalid
from helmops.sources.sourceignore import SourceIgnore


def rules_of(texts: Mapping[str, str], own: str = "", where: str = "") -> SourceIgnore:
    return SourceIgnore(lambda directory: texts.get(directory, ""), own, where=where)


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
    assert rules_of(texts, own).ignores(path) is is_left_out


def test_no_pattern_makes_it_slow() -> None:
    rules = rules_of({"": "a*" * 40 + "b"})
    assert not any(rules.ignores("a" * 250 + f"/{number}") for number in range(100))


@pytest.mark.parametrize(
    ("texts", "said"),
    [
        ({"": "a\\"}, "fleet/.sourceignore: a pattern cannot be read"),
        ({"a": "x\n" * 1001}, "fleet/a/.sourceignore: there are more than 1000 patterns"),
        ({"": "#" * 70_000}, "more than 1000 patterns, or 64 KiB"),
        ({str(number): "x" for number in range(101)}, "more than 100 .sourceignore files"),
    ],
)
def test_what_is_no_pattern_or_too_much_is_refused(texts: dict[str, str], said: str) -> None:
    paths = ["b", "a/b", *(f"{number}/b" for number in range(101))]
    with pytest.raises(SourceInvalid) as refused:
        list(map(rules_of(texts, where="fleet").ignores, paths))
    assert said in str(refused.value)


@pytest.mark.parametrize(
    ("path", "is_left_out"),
    [
        (".git/config", True),
        ("modules/a/.git/config", True),
        ("a/.gitignore", True),
        ("a/.gitkeep", False),
        ("a/logo.PNG", False),
        ("a/x.tar.gz", True),
        ("a/x.tgz", False),
        (".github/a.yaml", True),
        ("a/.circleci/b/c.yaml", True),
        ("a/.circleci", False),
        ("a/.circleci/", True),
        ("a/my-cloudbuild.yaml", False),
        ("a/appveyor.yml/b.yaml", True),
        ("a/.sops.yaml", True),
    ],
)
def test_flux_leaves_out_what_only_git_ci_and_people_need(path: str, is_left_out: bool) -> None:
    assert rules_of({}).ignores(path) is is_left_out


def test_where_there_are_rules_of_ones_own_only_the_files_of_git_go_by_themselves() -> None:
    for rules in (rules_of({"": "x"}), rules_of({}, "x")):
        assert [rules.ignores(path) for path in ("logo.png", ".gitignore", "a/.git/x")] == [
            False,
            True,
            True,
        ]
    assert not rules_of({}, "!.gitignore").ignores(".gitignore")


def test_each_directory_is_asked_for_once() -> None:
    asked: list[str] = []
    rules = SourceIgnore(lambda directory: asked.append(directory) or "")
    for path in ("a/b/c.yaml", "a/b/d.yaml", "a/e.yaml", "f.yaml"):
        rules.ignores(path)
    assert asked == ["", "a", "a/b"]
