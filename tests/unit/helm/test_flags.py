"""Each field becomes its flag, for each helm; what has none is known."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from semver import Version

from helmops.helm import flags
from helmops.helm.flags import HelmVersion, is_unsupported
from helmops.model.declarations import (
    InstallSpec,
    RollbackSpec,
    TestSpec,
    UninstallSpec,
    UpgradeSpec,
)

H3 = HelmVersion(Version(3, 19, 0))
H41 = HelmVersion(Version(4, 1, 4))
H4 = HelmVersion(Version(4, 3, 1))
MINUTE = timedelta(minutes=1)


def install(helm: HelmVersion = H4, wait: str = "poller", **fields: Any) -> list[str]:
    return flags.install(helm, InstallSpec(**fields), MINUTE, "why", wait)


def upgrade(
    helm: HelmVersion = H4, wait: str = "poller", server_side: bool = True, **fields: Any
) -> list[str]:
    return flags.upgrade(
        helm, UpgradeSpec(**fields), MINUTE, "why", wait, is_server_side=server_side
    )


def rollback(helm: HelmVersion = H4, server_side: bool = True, **fields: Any) -> list[str]:
    spec = RollbackSpec(**fields)
    return flags.rollback(helm, spec, MINUTE, "why", "poller", is_server_side=server_side)


def uninstall(helm: HelmVersion = H4, **fields: Any) -> list[str]:
    return flags.uninstall(helm, UninstallSpec(**fields), MINUTE, "why")


def follows(options: list[str], flag: str) -> str:
    return options[options.index(flag) + 1]


@pytest.mark.parametrize("options", [install(), upgrade()])
def test_values_come_by_standard_input_and_notes_are_hidden(options: list[str]) -> None:
    assert follows(options, "--values") == "-"
    assert "--hide-notes" in options


@pytest.mark.parametrize("options", [install(), upgrade(), rollback(), uninstall()])
def test_timeout_description_and_waiting_are_the_rule(options: list[str]) -> None:
    assert follows(options, "--timeout") == "60s"
    assert follows(options, "--description") == "why"
    assert "--wait=watcher" in options


@pytest.mark.parametrize("options", [upgrade(), upgrade(H3), rollback(), rollback(H3)])
def test_helm_never_prunes_history(options: list[str]) -> None:
    assert "--history-max=0" in options


def test_waiting_follows_the_strategy_and_the_helm() -> None:
    assert "--wait=legacy" in install(wait="legacy")
    assert "--wait" in install(H3)
    assert "--wait" in install(H3, wait="legacy")
    assert "--wait-for-jobs" in install()
    assert "--wait-for-jobs" not in install(disable_wait_for_jobs=True)
    without = install(disable_wait=True)
    assert not [flag for flag in without if flag.startswith("--wait")]
    assert not [flag for flag in uninstall(disable_wait=True) if flag.startswith("--wait")]
    assert "--wait-for-jobs" not in uninstall()


@pytest.mark.parametrize(
    ("fields", "flag"),
    [
        ({"disable_hooks": True}, "--no-hooks"),
        ({"disable_open_api_validation": True}, "--disable-openapi-validation"),
        ({"disable_schema_validation": True}, "--skip-schema-validation"),
    ],
)
def test_what_can_be_disabled_is_only_disabled_when_asked(
    fields: dict[str, Any], flag: str
) -> None:
    for options, command in ((install(**fields), install), (upgrade(**fields), upgrade)):
        assert flag in options
        assert flag not in command()


def test_ownership_is_taken_unless_that_is_disabled() -> None:
    for command in (install, upgrade):
        assert "--take-ownership" in command()
        assert "--take-ownership" in command(disable_take_ownership=False)
        assert "--take-ownership" not in command(disable_take_ownership=True)


def test_fields_of_install_alone() -> None:
    assert not {"--replace", "--create-namespace", "--skip-crds"} & set(install())
    assert "--replace" in install(replace=True)
    assert "--create-namespace" in install(create_namespace=True)
    assert "--skip-crds" in install(crds="Skip")
    assert "--skip-crds" in install(skip_crds=True)
    assert "--skip-crds" not in install(crds="Create")


def test_fields_of_upgrade_alone() -> None:
    assert "--reset-values" in upgrade()
    assert "--reuse-values" not in upgrade()
    assert "--reuse-values" in upgrade(preserve_values=True)
    assert "--reset-values" not in upgrade(preserve_values=True)
    assert "--cleanup-on-fail" in upgrade(cleanup_on_fail=True)
    assert "--cleanup-on-fail" not in upgrade()


def test_server_side_apply_always_forces_conflicts_and_never_replaces() -> None:
    for options in (install(), upgrade(force=True), rollback(force=True)):
        assert {"--server-side=true", "--force-conflicts"} <= set(options)
        assert "--force-replace" not in options


def test_client_side_apply_replaces_when_asked_and_never_forces_conflicts() -> None:
    for command in (upgrade, rollback):
        options = command(server_side=False, force=True)
        assert {"--server-side=false", "--force-replace"} <= set(options)
        assert "--force-conflicts" not in options
        assert "--force-replace" not in command(server_side=False)
    assert "--server-side=false" in install(server_side_apply=False)


def test_helm_3_knows_only_its_own_force() -> None:
    for options in (install(H3), upgrade(H3), rollback(H3)):
        assert not [flag for flag in options if "server-side" in flag or "force" in flag]
    for command in (upgrade, rollback):
        assert "--force" in command(H3, server_side=False, force=True)


def test_a_rollback_is_described_where_helm_can() -> None:
    assert "--description" not in rollback(H41)
    assert "--description" not in rollback(H3)
    long = flags.rollback(H4, RollbackSpec(), MINUTE, "x" * 999, "poller", is_server_side=True)
    assert len(follows(long, "--description")) == 256


def test_uninstall_has_its_own() -> None:
    assert "--cascade=background" in uninstall()
    assert "--cascade=orphan" in uninstall(deletion_propagation="orphan")
    assert "--keep-history" in uninstall(keep_history=True)
    assert "--keep-history" not in uninstall()


def test_filters_choose_and_leave_out_tests() -> None:
    spec = TestSpec(filters=({"name": "a"}, {"name": "b", "exclude": True}))  # type: ignore[arg-type]
    options = flags.test(H4, spec, MINUTE)
    chosen = [options[i + 1] for i, flag in enumerate(options) if flag == "--filter"]
    assert chosen == ["name=a", "!name=b"]
    assert "--hide-notes" not in options
    assert "--hide-notes" in flags.test(H3, spec, MINUTE)


@pytest.mark.parametrize(
    ("time", "text"),
    [
        (timedelta(minutes=5), "300s"),
        (timedelta(milliseconds=1500), "1.5s"),
        (timedelta(0), "0.001s"),
    ],
)
def test_durations_are_gos(time: timedelta, text: str) -> None:
    assert flags.duration(time) == text


@pytest.mark.parametrize(
    ("field", "value", "helms"),
    [
        ("install.crds", "CreateReplace", {H3, H4}),
        ("install.crds", "Create", set()),
        ("upgrade.crds", "Create", {H3, H4}),
        ("upgrade.crds", "Skip", set()),
        ("install.serverSideApply", True, {H3}),
        ("install.serverSideApply", False, set()),
        ("upgrade.serverSideApply", "enabled", {H3}),
        ("upgrade.serverSideApply", "auto", set()),
        ("rollback.serverSideApply", "enabled", {H3}),
        ("waitStrategy.name", "poller", {H3}),
        ("waitStrategy.name", "legacy", set()),
        ("install.replace", True, set()),
    ],
)
def test_what_a_helm_has_no_flag_for_is_known(
    field: str, value: object, helms: set[HelmVersion]
) -> None:
    assert {helm for helm in (H3, H4) if is_unsupported(helm, field, value)} == helms
