import gzip
import json
from pathlib import Path
from typing import Any

import pytest
import semver

from helmops import errors
from helmops.resolve.constraint import Constraint, ConstraintError, VersionError
from helmops.resolve.version import Version

VECTORS: dict[str, Any] = json.loads(
    gzip.decompress(Path(__file__).with_name("vectors.json.gz").read_bytes())
)


def test_every_vector_of_the_go_library_agrees() -> None:
    """853 ranges against 51 versions, made with Masterminds/semver 3.5.0."""
    readable = [text for text in VECTORS["versions"] if text not in VECTORS["invalid_versions"]]
    assert len(VECTORS["cases"]) > 800
    for case in VECTORS["cases"]:
        text = case["constraint"]
        if case["error"]:
            with pytest.raises(ConstraintError):
                Constraint.parse(text)
            continue
        constraint = Constraint.parse(text)
        assert [v for v in readable if constraint.matches(v)] == case["matches"], text


def test_every_version_that_the_go_library_refuses_is_refused() -> None:
    constraint = Constraint.parse("*")
    for text in VECTORS["invalid_versions"]:
        with pytest.raises(VersionError):
            constraint.matches(text)


@pytest.mark.parametrize(
    ("text", "inside", "outside"),
    [
        ("^1.2.3", "1.9.0", "2.0.0"),
        ("~1.2.3", "1.2.9", "1.3.0"),
        (">=1.2 <2, !=1.5.0", "1.5.1", "1.5.0"),
        ("1.2 - 1.4", "1.4.9", "1.5.0"),
        ("=1.2", "1.2.9", "1.3.0"),
        (">1.2", "1.3.0", "1.2.9"),
        ("<=1", "1.9.9", "2.0.0"),
        ("^*", "0.0.0", "0.0.1"),
        ("<=*", "0.0.9", "0.1.0"),
        ("1.x.3", "1.5.0", "2.0.0"),
        ("^1.2.3-0", "1.5.0-rc.1", "2.0.0-alpha"),
        (">=1.0.0-0 <2.0.0", "2.0.0-alpha", "2.0.0"),
        ("1 || >=3.0.0-0", "3.1.0-rc.1", "1.2.0-rc.1"),
        ("1.2.3+a", "1.2.3+b", "1.2.4"),
        ("3,1 - 2", "none", "3.0.0"),
    ],
)
def test_rules_that_surprise_people(text: str, inside: str, outside: str) -> None:
    constraint = Constraint.parse(text)
    assert inside == "none" or constraint.matches(inside)
    assert not constraint.matches(outside)


def test_a_bar_in_a_hyphen_range_means_what_it_means_to_helm() -> None:
    constraint = Constraint.parse("1||2 - 3")  # >=1, or =2 with <=3
    assert constraint.matches("9.0.0")


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "latest",
        "==1",
        ",1",
        "1,",
        "1,,2",
        "||",
        "1||",
        "1.2.3.4",
        "1.2.3-01",
        "3 1 - 2",
        "V1",
        "1|2",
        "1\v2",
        "１",
        "\ud800",
        "1\0",
        "18446744073709551616",
        "1" * 513,
        " || ".join(["1"] * 33),
        ">" * 512,
        "1.2.3-" + "a" * 260,
    ],
)
def test_refuses_what_is_no_range(text: str) -> None:
    with pytest.raises(ConstraintError):
        Constraint.parse(text)


def test_takes_as_much_as_helm_takes() -> None:
    assert Constraint.parse("||".join(["1"] * 32)).matches("1.2.3")
    assert Constraint.parse("1" + " " * 511).matches("1.0.0")
    assert Constraint.parse("18446744073709551615").matches("18446744073709551615.1.0")


def test_reads_what_makes_a_backtracking_expression_hang() -> None:
    """Forty characters of this kept a translation of the original's expression busy for 16 s."""
    for start in ("1 " * 255, "1." * 255, "1-" + "a." * 250, "1," + " " * 509):
        with pytest.raises(ConstraintError):
            Constraint.parse(f"{start}!")


def test_gives_its_text_back_and_counts_as_a_value() -> None:
    text = ">= 1.2 ,<2 || ^3 "
    constraint = Constraint.parse(text)
    assert str(constraint) == text
    assert constraint == Constraint.parse(text)
    assert len({constraint, Constraint.parse(text), Constraint.parse("*")}) == 2
    with pytest.raises(AttributeError):
        constraint.text = "*"  # type: ignore[misc]


def test_takes_text_and_versions_of_both_kinds() -> None:
    constraint = Constraint.parse("^1")
    assert constraint.matches("v1.2")
    assert constraint.matches(Version.parse("1.2.3"))
    assert constraint.matches(semver.Version(1, 2, 3))
    assert not constraint.matches(semver.Version(1, 2, 3, "rc.1"))


def test_prereleases_can_be_let_in_to_see_what_keeps_a_version_out() -> None:
    constraint = Constraint.parse("^1")
    assert constraint.matches("1.2.3-rc.1", include_prereleases=True)
    assert not constraint.matches("2.0.0-rc.1", include_prereleases=True)


def test_errors_are_those_of_the_tree_and_say_what_to_write() -> None:
    assert ConstraintError is errors.ConstraintError
    assert VersionError is errors.VersionError
    with pytest.raises(ValueError, match=r"'latest' is not a version range: .*\(ranges look like"):
        Constraint.parse("latest")
