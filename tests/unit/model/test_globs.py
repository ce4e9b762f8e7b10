from __future__ import annotations

import pytest

from helmops.model.globs import compiled, fixed_part, has_wildcards


@pytest.mark.parametrize(
    ("pattern", "path", "matches"),
    [
        ("*.yaml", "a.yaml", True),
        ("*.yaml", "a.yml", False),
        ("*.yaml", "b/a.yaml", False),
        ("*.yaml", ".hidden.yaml", False),
        (".*.yaml", ".hidden.yaml", True),
        ("?.yaml", "a.yaml", True),
        ("?.yaml", "ab.yaml", False),
        ("a?b", "a/b", False),
        ("[ab].yaml", "b.yaml", True),
        ("[!ab].yaml", "b.yaml", False),
        ("[!ab].yaml", "c.yaml", True),
        ("a[!x]b", "a/b", False),
        ("[a-c].yaml", "b.yaml", True),
        ("[^a].yaml", "^.yaml", True),
        ("[", "[", True),
        ("**/a.yaml", "a.yaml", True),
        ("**/a.yaml", "x/y/a.yaml", True),
        ("**/a.yaml", "x/.git/a.yaml", False),
        ("x/**/a.yaml", "x/a.yaml", True),
        ("x/**", "x/y/a.yaml", True),
        ("**", "a.yaml", True),
        ("a+b(c).yaml", "a+b(c).yaml", True),
        ("a.yaml", "axyaml", False),
        ("***.yaml", "a.yaml", True),
    ],
)
def test_a_pattern_means_what_a_shell_means_by_it(pattern: str, path: str, matches: bool) -> None:
    assert compiled(pattern).matches(path) is matches


@pytest.mark.parametrize(
    ("path", "parts"),
    [
        ("values/*.yaml", ("values", "*.yaml")),
        ("../a/**/b.yaml", ("../a", "**/b.yaml")),
        ("*.yaml", ("", "*.yaml")),
        ("a/b.yaml", ("a", "b.yaml")),
        ("b.yaml", ("", "b.yaml")),
        ("/a/?/c", ("/a", "?/c")),
    ],
)
def test_the_directory_before_the_first_wildcard_is_fixed(
    path: str, parts: tuple[str, str]
) -> None:
    assert fixed_part(path) == parts
    assert has_wildcards(parts[0]) is False


@pytest.mark.parametrize("pattern", ["*a" * 30 + "b", "**/" * 20 + "x", "*" * 200 + "b"])
def test_no_pattern_matches_for_ever(pattern: str) -> None:
    assert not compiled(pattern).matches("a" * 60)
    assert not compiled(pattern).matches("/".join("a" * 40))
