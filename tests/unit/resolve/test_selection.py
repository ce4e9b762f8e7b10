from collections.abc import Callable
from datetime import UTC, datetime

import pytest

from helmops.errors import ChartNotFound, ConstraintError, NoVersionInRange, VersionError
from helmops.model.charts import ChartVersion
from helmops.resolve.selection import UpgradeAllow, choose, newest_first


def charts(*versions: str) -> list[ChartVersion]:
    return [ChartVersion("podinfo", version) for version in versions]


def test_nothing_asked_for_is_the_newest_release_and_no_prerelease() -> None:
    choice = choose(charts("1.0.0", "2.0.0-rc.1", "1.10.0", "1.9.0"))
    assert choice.selected.version == "1.10.0"
    assert choice.reason == "1.10.0 is the newest release"
    assert [c.version for c in choice.candidates] == ["1.10.0", "1.9.0", "1.0.0"]


def test_the_newest_in_the_range_is_chosen() -> None:
    choice = choose(charts("3.0.0", "2.1.0", "2.9.1", "1.0.0"), "^2")
    assert choice.selected.version == "2.9.1"
    assert choice.reason == "2.9.1 is the newest in '^2'"


def test_the_exact_text_comes_before_the_range_that_it_is_too() -> None:
    assert choose(charts("1.2.9", "1.2"), "1.2").selected.version == "1.2"
    assert choose(charts("1.2.9", "1.2.0"), "1.2").selected.version == "1.2.9"
    assert choose(charts("1.2.3+b", "1.2.3+a"), "1.2.3+a").selected.version == "1.2.3+a"


def test_a_prerelease_is_chosen_when_it_or_its_range_is_named() -> None:
    versions = charts("1.0.0", "1.1.0-rc.1")
    assert choose(versions, "1.1.0-rc.1").selected.version == "1.1.0-rc.1"
    assert choose(versions, ">=1.0.0-0").selected.version == "1.1.0-rc.1"


def test_of_versions_that_differ_in_metadata_the_one_created_last_is_chosen() -> None:
    versions = [
        ChartVersion("c", "1.0.0+a"),
        ChartVersion("c", "1.0.0+b", created=datetime(2026, 1, 2, tzinfo=UTC)),
        ChartVersion("c", "1.0.0+c", created=datetime(2026, 1, 1, tzinfo=UTC)),
    ]
    assert choose(versions, "^1").selected.version == "1.0.0+b"
    assert [c.version for c in newest_first(versions)] == ["1.0.0+b", "1.0.0+c", "1.0.0+a"]


def test_entries_that_are_no_version_are_passed_over_and_counted() -> None:
    choice = choose(charts("latest", "1.0.0", "1.2.3.4"))
    assert choice.selected.version == "1.0.0"
    assert choice.unreadable == 2


def test_a_deprecated_chart_is_said_so() -> None:
    choice = choose([ChartVersion("c", "1.0.0", deprecated=True)], "1.0.0")
    assert choice.is_deprecated
    assert choice.reason == "1.0.0 is the version asked for; the chart is deprecated"


@pytest.mark.parametrize(
    ("allow", "selected", "held"),
    [
        ("patch", "1.2.9", ["2.0.0", "1.3.0"]),
        ("minor", "1.3.0", ["2.0.0"]),
        ("major", "2.0.0", []),
        (UpgradeAllow.MINOR, "1.3.0", ["2.0.0"]),
        (None, "2.0.0", []),
    ],
)
def test_policy_holds_back_what_is_too_far(
    allow: str | None, selected: str, held: list[str]
) -> None:
    versions = charts("2.0.0", "1.3.0", "1.2.9", "1.2.3")
    choice = choose(versions, "*", deployed="1.2.3", allow=allow)
    assert choice.selected.version == selected
    assert [version for version, _ in choice.held_back] == held
    assert len(choice.candidates) == 4


def test_the_reason_names_what_is_held_back_and_by_which_rule() -> None:
    choice = choose(charts("2.0.0", "1.3.0"), deployed="1.2.3", allow="minor")
    assert choice.reason == (
        "1.3.0 is the newest in '*' that policy lets through; "
        "2.0.0 held back: upgrade.allow is minor, and 1.2.3 is deployed"
    )


def test_nothing_is_held_back_from_a_first_install() -> None:
    assert choose(charts("2.0.0", "1.0.0"), allow="patch").selected.version == "2.0.0"


def test_when_all_that_fits_is_held_back_the_error_says_so() -> None:
    with pytest.raises(NoVersionInRange, match=r"2\.0\.0 held back: upgrade\.allow is minor"):
        choose(charts("2.0.0", "1.3.0"), ">=2", deployed="1.2.3", allow="minor")


@pytest.mark.parametrize(
    ("wanted", "deployed", "is_downgrade"),
    [
        ("1.0.0", "1.2.3", True),
        ("1.0.0", "1.0.0+abc", False),
        ("1.0.0", "1.0.0-rc.1", False),
        ("1.0.0", "", False),
    ],
)
def test_a_version_below_the_deployed_one_is_a_downgrade(
    wanted: str, deployed: str, is_downgrade: bool
) -> None:
    choice = choose(charts("1.0.0"), wanted, deployed=deployed, allow="minor")
    assert choice.is_downgrade is is_downgrade


def test_no_version_in_range_names_the_nearest_below_and_above() -> None:
    with pytest.raises(NoVersionInRange) as caught:
        choose(charts("6.9.1", "6.9.2", "8.0.0", "9.0.0", "8.0.0-rc.1"), "^7", where="HelmRepo/x")
    assert str(caught.value) == (
        "HelmRepo/x: no version of podinfo is in '^7'; "
        "the nearest below is 6.9.2, the nearest above is 8.0.0"
    )


def test_no_version_in_range_says_when_only_prereleases_are() -> None:
    with pytest.raises(NoVersionInRange, match=r"only prereleases are: 7\.0\.0-rc\.2, 7"):
        choose(charts("6.0.0", "7.0.0-rc.1", "7.0.0-rc.2"), ">=6.5")


def test_no_entry_and_no_readable_entry_are_told_apart() -> None:
    with pytest.raises(ChartNotFound):
        choose([])
    with pytest.raises(NoVersionInRange, match="none of the 1 versions"):
        choose(charts("latest"))


def test_what_is_no_range_is_an_error_even_where_an_entry_is_called_so() -> None:
    with pytest.raises(ConstraintError):
        choose(charts("latest", "1.0.0"), "latest")
    with pytest.raises(VersionError):
        choose(charts("1.0.0"), deployed="unknown")


# What is barred


def barring(*versions: str) -> Callable[[ChartVersion], str]:
    return lambda chart: "in quarantine" if chart.version in versions else ""


def test_a_barred_version_gives_way_to_the_best_other_one() -> None:
    choice = choose(charts("1.0.0", "1.1.0", "1.2.0", "1.3.0"), "^1", bar=barring("1.3.0", "1.2.0"))
    assert (choice.selected.version, choice.barred) == ("1.1.0", "")
    assert [held.version for held in choice.held_back] == ["1.3.0", "1.2.0"]
    assert "1.3.0 held back: in quarantine" in choice.reason


def test_one_below_the_choice_is_not_mentioned() -> None:
    choice = choose(charts("1.0.0", "1.1.0", "1.2.0"), "^1", bar=barring("1.1.0"))
    assert (choice.selected.version, choice.held_back) == ("1.2.0", ())


def test_where_all_are_barred_the_newest_is_chosen_and_says_so() -> None:
    choice = choose(charts("1.0.0", "1.1.0"), "^1", bar=barring("1.0.0", "1.1.0"))
    assert (choice.selected.version, choice.barred) == ("1.1.0", "in quarantine")


def test_a_version_that_is_named_is_the_only_one() -> None:
    choice = choose(charts("1.0.0", "1.1.0"), "1.1.0", bar=barring("1.1.0"))
    assert (choice.selected.version, choice.barred) == ("1.1.0", "in quarantine")


def test_the_policys_limit_comes_before() -> None:
    choice = choose(
        charts("1.0.0", "1.1.0", "1.1.1", "2.0.0"),
        deployed="1.1.0",
        allow="minor",
        bar=barring("1.1.1"),
    )
    assert choice.selected.version == "1.1.0"
    assert [held.version for held in choice.held_back] == ["2.0.0", "1.1.1"]
