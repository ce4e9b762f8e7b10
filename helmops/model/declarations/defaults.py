"""The two sets of defaults. They fill only fields that are absent: what a manifest says is done."""

from __future__ import annotations

from datetime import timedelta
from enum import StrEnum
from typing import TypeVar

from helmops.model.declarations.helm_release import (
    ActionStrategy,
    ChartTemplate,
    HelmReleaseSpec,
    InstallSpec,
    UpgradeSpec,
    WaitStrategy,
)

T = TypeVar("T")

_RETRY_INTERVAL = timedelta(minutes=5)


class Defaults(StrEnum):
    """Where absent fields get their meaning from (design: Declarations)."""

    #: A failed upgrade rolls back, nothing of others is taken over.
    SAFE = "safe"
    #: As Flux's controllers have it.
    FLUX = "flux"


def with_defaults(spec: HelmReleaseSpec, defaults: Defaults) -> HelmReleaseSpec:
    """Fill what is absent: the fields that follow another field, and those of the set.

    Two fields stay None in `safe`, where no value of Flux's says what is meant:
    `chart.spec.version` (newest, then no new major without a policy) and
    `upgrade.chartNameChangeStrategy` (hold).
    """
    update = {
        "install": _install(spec, defaults),
        "upgrade": _upgrade(spec, defaults),
        "test": spec.test.model_copy(update={"timeout": _or(spec.test.timeout, spec.timeout)}),
        "rollback": spec.rollback.model_copy(
            update={"timeout": _or(spec.rollback.timeout, spec.timeout)}
        ),
        "uninstall": spec.uninstall.model_copy(
            update={"timeout": _or(spec.uninstall.timeout, spec.timeout)}
        ),
        "wait_strategy": spec.wait_strategy or WaitStrategy(name="poller"),
    }
    if spec.chart is not None:
        update["chart"] = _chart(spec.chart, spec.interval, defaults)
    return spec.model_copy(update=update)


def _chart(chart: ChartTemplate, interval: timedelta, defaults: Defaults) -> ChartTemplate:
    absent_version = "*" if defaults is Defaults.FLUX else None
    return chart.model_copy(
        update={
            "spec": chart.spec.model_copy(
                update={
                    # An empty version is an absent one, for Helm as for Flux.
                    "version": chart.spec.version or absent_version,
                    "interval": _or(chart.spec.interval, interval),
                }
            )
        }
    )


def _install(spec: HelmReleaseSpec, defaults: Defaults) -> InstallSpec:
    install = spec.install
    remediation = install.remediation
    return install.model_copy(
        update={
            "timeout": _or(install.timeout, spec.timeout),
            "strategy": _strategy(install.strategy),
            "crds": install.crds or ("Skip" if install.skip_crds else "Create"),
            "disable_take_ownership": _or(
                install.disable_take_ownership, defaults is Defaults.SAFE
            ),
            "remediation": remediation.model_copy(
                update={
                    "ignore_test_failures": _or(
                        remediation.ignore_test_failures, spec.test.ignore_failures
                    ),
                    "remediate_last_failure": _or(remediation.remediate_last_failure, False),
                }
            ),
        }
    )


def _upgrade(spec: HelmReleaseSpec, defaults: Defaults) -> UpgradeSpec:
    upgrade = spec.upgrade
    remediation = upgrade.remediation
    # `safe` rolls back by default, but never makes an uninstall of a failure that Flux would leave.
    remediates = remediation.retries != 0 or (
        defaults is Defaults.SAFE and remediation.strategy == "rollback"
    )
    name_change = "Reinstall" if defaults is Defaults.FLUX else None
    return upgrade.model_copy(
        update={
            "timeout": _or(upgrade.timeout, spec.timeout),
            "strategy": _strategy(upgrade.strategy),
            "crds": upgrade.crds or "Skip",
            "disable_take_ownership": _or(
                upgrade.disable_take_ownership, defaults is Defaults.SAFE
            ),
            "chart_name_change_strategy": upgrade.chart_name_change_strategy or name_change,
            "remediation": remediation.model_copy(
                update={
                    "ignore_test_failures": _or(
                        remediation.ignore_test_failures, spec.test.ignore_failures
                    ),
                    "remediate_last_failure": _or(remediation.remediate_last_failure, remediates),
                }
            ),
        }
    )


def _strategy(strategy: ActionStrategy | None) -> ActionStrategy:
    if strategy is None:
        return ActionStrategy(name="RemediateOnFailure")
    if strategy.name == "RetryOnFailure" and strategy.retry_interval is None:
        return strategy.model_copy(update={"retry_interval": _RETRY_INTERVAL})
    return strategy


def _or(said: T | None, absent: T) -> T:
    """What was said, also where it is false or zero."""
    return absent if said is None else said
