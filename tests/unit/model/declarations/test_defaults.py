from datetime import timedelta
from typing import Any

import pytest

from helmops.model.declarations import Defaults, HelmReleaseSpec, with_defaults
from tests.unit.model.manifests import chart, release

SAFE, FLUX = Defaults.SAFE, Defaults.FLUX


def filled(defaults: Defaults, **spec: Any) -> HelmReleaseSpec:
    return with_defaults(release(**spec).spec, defaults)


def test_a_failed_upgrade_rolls_back_in_safe_and_stays_in_flux() -> None:
    assert filled(SAFE).upgrade.remediation.remediate_last_failure is True
    assert filled(FLUX).upgrade.remediation.remediate_last_failure is False
    for defaults in Defaults:
        assert filled(defaults).upgrade.remediation.retries == 0
        assert filled(defaults).upgrade.remediation.strategy == "rollback"


@pytest.mark.parametrize("retries", [1, 3, -1])
def test_with_retries_flux_remediates_the_last_failure_too(retries: int) -> None:
    spec = filled(FLUX, upgrade={"remediation": {"retries": retries}})
    assert spec.upgrade.remediation.remediate_last_failure is True


def test_safe_never_makes_an_uninstall_of_a_failure_that_flux_would_leave() -> None:
    spec = filled(SAFE, upgrade={"remediation": {"strategy": "uninstall"}})
    assert spec.upgrade.remediation.remediate_last_failure is False
    asked = filled(SAFE, upgrade={"remediation": {"strategy": "uninstall", "retries": 1}})
    assert asked.upgrade.remediation.remediate_last_failure is True


def test_a_failed_install_is_kept_in_both() -> None:
    for defaults in Defaults:
        assert filled(defaults).install.remediation.remediate_last_failure is False


def test_objects_of_others_are_refused_in_safe_and_taken_in_flux() -> None:
    for action in ("install", "upgrade"):
        assert getattr(filled(SAFE), action).disable_take_ownership is True
        assert getattr(filled(FLUX), action).disable_take_ownership is False


def test_an_absent_version_is_open_in_safe_and_everything_in_flux() -> None:
    for version in ({}, {"version": ""}):
        safe, flux = filled(SAFE, chart=chart(**version)), filled(FLUX, chart=chart(**version))
        assert safe.chart is not None
        assert flux.chart is not None
        assert safe.chart.spec.version is None
        assert flux.chart.spec.version == "*"


def test_another_chart_name_holds_in_safe_and_reinstalls_in_flux() -> None:
    assert filled(SAFE).upgrade.chart_name_change_strategy is None
    assert filled(FLUX).upgrade.chart_name_change_strategy == "Reinstall"


def test_what_a_manifest_says_is_done_in_both() -> None:
    said = {
        "install": {"disableTakeOwnership": False, "remediation": {"remediateLastFailure": True}},
        "upgrade": {
            "disableTakeOwnership": True,
            "chartNameChangeStrategy": "InPlaceUpdate",
            "remediation": {"retries": 2, "remediateLastFailure": False},
        },
        "chart": chart(version="6.x"),
    }
    for defaults in Defaults:
        spec = filled(defaults, **said)
        assert spec.install.disable_take_ownership is False
        assert spec.install.remediation.remediate_last_failure is True
        assert spec.upgrade.disable_take_ownership is True
        assert spec.upgrade.chart_name_change_strategy == "InPlaceUpdate"
        assert spec.upgrade.remediation.remediate_last_failure is False
        assert spec.chart is not None
        assert spec.chart.spec.version == "6.x"


def test_timeouts_follow_that_of_the_spec_and_zero_is_a_timeout() -> None:
    spec = filled(SAFE, timeout="3m", install={"timeout": "1m"}, test={"timeout": "0s"})
    assert spec.install.timeout == timedelta(minutes=1)
    assert spec.test.timeout == timedelta(0)
    for action in (spec.upgrade, spec.rollback, spec.uninstall):
        assert action.timeout == timedelta(minutes=3)


def test_test_failures_are_ignored_where_the_tests_say_so_unless_the_action_says_otherwise() -> (
    None
):
    spec = filled(
        SAFE,
        test={"ignoreFailures": True},
        upgrade={"remediation": {"ignoreTestFailures": False}},
    )
    assert spec.install.remediation.ignore_test_failures is True
    assert spec.upgrade.remediation.ignore_test_failures is False


def test_the_chart_is_looked_for_at_the_interval_of_the_release() -> None:
    spec = filled(SAFE, interval="7m")
    assert spec.chart is not None
    assert spec.chart.spec.interval == timedelta(minutes=7)


def test_retry_on_failure_waits_five_minutes_unless_it_says_otherwise() -> None:
    spec = filled(
        SAFE,
        install={"strategy": {"name": "RetryOnFailure"}},
        upgrade={"strategy": {"name": "RetryOnFailure", "retryInterval": "1s"}},
    )
    assert spec.install.strategy is not None
    assert spec.upgrade.strategy is not None
    assert spec.install.strategy.retry_interval == timedelta(minutes=5)
    assert spec.upgrade.strategy.retry_interval == timedelta(seconds=1)
    default = filled(FLUX).install.strategy
    assert default is not None
    assert (default.name, default.retry_interval) == ("RemediateOnFailure", None)


def test_crds_are_created_at_an_install_and_left_alone_at_an_upgrade() -> None:
    for defaults in Defaults:
        assert filled(defaults).install.crds == "Create"
        assert filled(defaults).upgrade.crds == "Skip"
        assert filled(defaults, install={"skipCRDs": True}).install.crds == "Skip"
        explicit = filled(defaults, install={"skipCRDs": True, "crds": "Create"})
        assert explicit.install.crds == "Create"


def test_helm_waits_as_kstatus_does_unless_told_otherwise() -> None:
    assert (filled(SAFE).wait_strategy or object()) == filled(FLUX).wait_strategy
    legacy = filled(SAFE, waitStrategy={"name": "legacy"}).wait_strategy
    assert legacy is not None
    assert legacy.name == "legacy"


def test_a_chart_reference_has_no_chart_to_fill() -> None:
    reference = {"kind": "OCIRepository", "name": "podinfo"}
    assert filled(FLUX, chart=None, chartRef=reference).chart is None


def test_filling_twice_changes_nothing_and_the_original_stays() -> None:
    original = release().spec
    for defaults in Defaults:
        once = with_defaults(original, defaults)
        assert with_defaults(once, defaults) == once
    assert original.upgrade.timeout is None
