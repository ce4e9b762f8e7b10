import random

import pytest
import semver

from helmops.errors import VersionError
from helmops.resolve.version import Version

IN_ORDER = (
    "0.0.0-0",
    "0.0.0",
    "0.9.9",
    "1.0.0-0",
    "1.0.0-2",
    "1.0.0-11",
    "1.0.0-18446744073709551615",
    "1.0.0-18446744073709551616",  # more than 64 bits: a word
    "1.0.0-alpha",
    "1.0.0-alpha.1",
    "1.0.0-alpha.beta",
    "1.0.0-beta",
    "1.0.0-rc.1",
    "1.0.0",
    "1.0.1",
    "1.10.0",
    "2.0.0",
)


@pytest.mark.parametrize(
    ("text", "full"),
    [
        ("1.2.3", "1.2.3"),
        ("v1.2.3", "1.2.3"),
        ("1.2", "1.2.0"),
        ("1", "1.0.0"),
        ("01.02.003", "1.2.3"),
        ("v1-rc.1+b", "1.0.0-rc.1+b"),
        ("18446744073709551615.0.0", "18446744073709551615.0.0"),
        ("1.0.0--", "1.0.0--"),
    ],
)
def test_reads_what_helm_reads_and_keeps_the_text(text: str, full: str) -> None:
    version = Version.parse(text)
    assert str(version) == full
    assert version.text == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "latest",
        "1.2.3.4",
        "1.2.x",
        "V1",
        "1.2.3-",
        "1.2.3-01",
        "1.2.3-a..b",
        "1.2.3+",
        "1.2.3\n",
        " 1.2.3",
        "-1.0.0",
        "1.2.3-é",
        "١.0.0",
        "18446744073709551616.0.0",
        "1." + "0" * 260,
    ],
)
def test_refuses_what_helm_refuses(text: str) -> None:
    with pytest.raises(VersionError):
        Version.parse(text)


@pytest.mark.parametrize("text", ["v1.2.3", "1.2", "01.2.3", "1.2.3-01"])
def test_strict_reading_takes_only_the_specification(text: str) -> None:
    with pytest.raises(VersionError):
        Version.strict(text)


def test_a_version_error_is_a_value_error_and_shortens_what_it_quotes() -> None:
    with pytest.raises(ValueError, match=r"x\.\.\.' is not a semantic version") as caught:
        Version.parse("x" * 10_000)
    assert len(str(caught.value)) < 200


def test_versions_sort_as_semver_says_with_numbers_up_to_64_bits() -> None:
    shuffled = list(IN_ORDER)
    random.Random(1).shuffle(shuffled)
    assert sorted(shuffled, key=lambda text: Version.parse(text).key) == list(IN_ORDER)
    assert sorted(map(Version.parse, shuffled)) == list(map(Version.parse, IN_ORDER))


def test_build_metadata_counts_neither_in_equality_nor_in_hash() -> None:
    assert Version.parse("1.2.3+a") == Version.parse("v1.2.3+b")
    assert len({Version.parse("1.2.3+a"), Version.parse("1.2.3+b")}) == 1


def test_compares_with_versions_of_semver_and_with_nothing_else() -> None:
    assert Version.parse("1.2.3") == semver.Version(1, 2, 3)
    assert Version.parse("1.2.3") < semver.Version(1, 2, 4)
    assert Version.parse("1.2.3") != "1.2.3"
    with pytest.raises(TypeError):
        assert Version.parse("1.2.3") < "1.2.4"


def test_stays_a_version_through_the_methods_of_semver() -> None:
    bumped = Version.parse("v1.2.3-rc.1").bump_minor()
    assert isinstance(bumped, Version)
    assert bumped == Version.parse("1.3.0")
    assert Version.of(semver.Version(1, 3, 0)) == bumped
    assert bumped.text == "1.3.0"
