"""helmops/sources/helmignore.py: Helm's rules for what a chart leaves out."""

from __future__ import annotations

import pytest

from helmops.sources.helmignore import BadPatternError, IgnoreRules


@pytest.mark.parametrize(
    ("rules", "path", "ignored"),
    [
        ("helm.txt", "helm.txt", True),
        ("helm.txt", "templates/helm.txt", True),
        ("helm.txt", "helm.txt2", False),
        ("*.txt", "a/b/c.txt", True),
        ("*", "a", True),
        ("a*", "a/b", False),
        ("a/*", "a/b", True),
        ("a/*", "a/b/c", False),
        ("a/*/c", "a/b/c", True),
        ("/a.txt", "a.txt", True),
        ("/a.txt", "b/a.txt", False),
        ("b/a.txt", "c/b/a.txt", False),
        ("a?c", "abc", True),
        ("a?c", "a/c", False),
        ("[a-c].txt", "b.txt", True),
        ("[^a-c].txt", "b.txt", False),
        ("[^a-c].txt", "d.txt", True),
        ("[!a].txt", "!.txt", True),  # no negation in Go
        ("\\*.txt", "*.txt", True),
        ("\\*.txt", "a.txt", False),
        ("[\\]].txt", "].txt", True),
        ("# comment\n\n  \n", "# comment", False),
        ("  spaced  ", "spaced", True),
        ("!*.yaml", "a.txt", True),
        ("!*.yaml", "a.yaml", False),
        ("*.txt\n!x", "x", False),
        ("\ufeffa.txt", "a.txt", True),
        ("a.txt\r\nb.txt\r\n", "a.txt", True),
        ("", "templates/.hidden", True),
        ("", "templates/a/.hidden", False),
        ("", ".hidden", False),
        ("", "templates/_helpers.tpl", False),
        ("a.b", "axb", False),
    ],
)
def test_a_file_is_left_out_as_helm_leaves_it_out(rules: str, path: str, ignored: bool) -> None:
    assert IgnoreRules(rules).ignores(path, is_directory=False) is ignored


@pytest.mark.parametrize(
    ("rules", "path", "is_directory", "ignored"),
    [
        ("cargo/", "cargo", True, True),
        ("cargo/", "cargo", False, False),
        ("cargo/", "a/cargo", True, True),
        ("a/cargo/", "a/cargo", True, True),
        ("cargo", "cargo", True, True),
        ("!cargo/", "other", False, True),
        ("!cargo/", "cargo", True, False),
    ],
)
def test_a_trailing_slash_means_directories(
    rules: str, path: str, is_directory: bool, ignored: bool
) -> None:
    assert IgnoreRules(rules).ignores(path, is_directory=is_directory) is ignored


@pytest.mark.parametrize("rules", ["**/x", "a/**", "[", "[a", "[]", "[-a]", "[a-]", "x\\", "[a-\\"])
def test_a_pattern_that_helm_refuses_is_refused(rules: str) -> None:
    with pytest.raises(BadPatternError):
        IgnoreRules(rules)


def test_many_stars_are_matched_quickly() -> None:
    assert not IgnoreRules("*a" * 12 + "b").ignores("a" * 40, is_directory=False)
