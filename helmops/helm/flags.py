"""Flux's fields as flags of this helm: one function per command, and one table of what has none.

Two rules of Flux need more than a flag: server-side apply always forces conflicts, and `force`
(replace) is without effect with server-side apply. helm 4 refuses both combinations the wrong way
round, so whoever calls says by which method objects are applied; helm 3 knows only client-side.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

from semver import Version

from helmops.model.declarations import (
    InstallSpec,
    RollbackSpec,
    TestSpec,
    UninstallSpec,
    UpgradeSpec,
)

#: Older helms lack `--take-ownership` (3.17), `--hide-notes` and `--skip-schema-validation`.
OLDEST = Version(3, 17, 0)
#: `helm rollback --description` came with 4.3 and takes this many characters.
ROLLBACK_DESCRIPTION = Version(4, 3, 0)
_LONGEST_ROLLBACK_DESCRIPTION = 256

Flags = list[str]


@dataclass(frozen=True, slots=True)
class HelmVersion:
    """What the binary said of itself."""

    version: Version

    @property
    def major(self) -> int:
        return int(self.version.major)

    @property
    def has_server_side_apply(self) -> bool:
        return self.major >= 4


#: Fields that some helm has no flag for, and when. Values are those of the declaration.
_UNSUPPORTED: dict[str, Callable[[HelmVersion, object], bool]] = {
    # helm creates the objects in crds/ on install and never touches them again
    "install.crds": lambda helm, value: value == "CreateReplace",
    "upgrade.crds": lambda helm, value: value in ("Create", "CreateReplace"),
    "install.serverSideApply": lambda helm, value: value is True and helm.major < 4,
    "upgrade.serverSideApply": lambda helm, value: value == "enabled" and helm.major < 4,
    "rollback.serverSideApply": lambda helm, value: value == "enabled" and helm.major < 4,
    # helm 3 waits by its own rules only
    "waitStrategy.name": lambda helm, value: value == "poller" and helm.major < 4,
    # helm 3 gives post-renderers no hooks
    "postRenderStrategy": lambda helm, value: value in ("combined", "separate") and helm.major < 4,
}


def is_unsupported(helm: HelmVersion, field: str, value: object) -> bool:
    """Whether this helm cannot do what the field asks for."""
    rule = _UNSUPPORTED.get(field)
    return rule is not None and rule(helm, value)


def duration(time: timedelta) -> str:
    """As Go reads it."""
    return f"{max(time.total_seconds(), 0.001):.3f}".rstrip("0").rstrip(".") + "s"


def install(
    helm: HelmVersion, spec: InstallSpec, timeout: timedelta, description: str, wait_strategy: str
) -> Flags:
    """For `helm install`."""
    is_server_side = helm.has_server_side_apply and spec.server_side_apply is not False
    return [
        *_render_flags(spec),
        *_common(timeout, spec.disable_hooks),
        *_wait(helm, wait_strategy, spec.disable_wait, spec.disable_wait_for_jobs),
        *_method(helm, is_server_side=is_server_side, force=False),
        *_if(spec.skip_crds or spec.crds == "Skip", "--skip-crds"),
        *_if(spec.replace, "--replace"),
        *_if(spec.create_namespace, "--create-namespace"),
        *_if(bool(description), "--description", description),
    ]


def upgrade(
    helm: HelmVersion,
    spec: UpgradeSpec,
    timeout: timedelta,
    description: str,
    wait_strategy: str,
    *,
    is_server_side: bool,
) -> Flags:
    """For `helm upgrade`. Values are always said to be reset or reused: helm without either keeps
    the last revision's where it is given none.
    """
    return [
        *_render_flags(spec),
        *_common(timeout, spec.disable_hooks),
        *_wait(helm, wait_strategy, spec.disable_wait, spec.disable_wait_for_jobs),
        *_method(helm, is_server_side=is_server_side, force=spec.force),
        "--history-max=0",
        "--reuse-values" if spec.preserve_values else "--reset-values",
        *_if(spec.cleanup_on_fail, "--cleanup-on-fail"),
        *_if(bool(description), "--description", description),
    ]


def rollback(
    helm: HelmVersion,
    spec: RollbackSpec,
    timeout: timedelta,
    description: str,
    wait_strategy: str,
    *,
    is_server_side: bool,
) -> Flags:
    """For `helm rollback`. A helm before 4.3 writes its own description."""
    can_describe = helm.version >= ROLLBACK_DESCRIPTION
    return [
        *_common(timeout, spec.disable_hooks),
        *_wait(helm, wait_strategy, spec.disable_wait, spec.disable_wait_for_jobs),
        *_method(helm, is_server_side=is_server_side, force=spec.force),
        "--history-max=0",
        *_if(spec.cleanup_on_fail, "--cleanup-on-fail"),
        *_if(
            bool(description) and can_describe,
            "--description",
            description[:_LONGEST_ROLLBACK_DESCRIPTION],
        ),
    ]


def uninstall(
    helm: HelmVersion, spec: UninstallSpec, timeout: timedelta, description: str
) -> Flags:
    """For `helm uninstall`."""
    return [
        *_common(timeout, spec.disable_hooks),
        *_wait(helm, "poller", spec.disable_wait, disable_wait_for_jobs=True),
        f"--cascade={spec.deletion_propagation}",
        *_if(spec.keep_history, "--keep-history"),
        *_if(bool(description), "--description", description),
    ]


def test(helm: HelmVersion, spec: TestSpec, timeout: timedelta) -> Flags:
    """For `helm test`. Several names are alternatives, exclusions count beside them."""
    filters = [f"{'!' if each.exclude else ''}name={each.name}" for each in spec.filters]
    return [
        "--timeout",
        duration(timeout),
        "--logs",
        *_if(helm.major < 4, "--hide-notes"),  # helm 4 shows none here
        *(part for each in filters for part in ("--filter", each)),
    ]


def template(*, is_upgrade: bool, skip_schema_validation: bool, with_hooks: bool = False) -> Flags:
    """For `helm template`: the objects alone, whoever owns those that exist."""
    return [
        *("--values", "-", "--skip-crds"),
        *_if(not with_hooks, "--no-hooks"),
        *("--take-ownership", "--disable-openapi-validation"),
        *_if(is_upgrade, "--is-upgrade"),
        *_if(skip_schema_validation, "--skip-schema-validation"),
    ]


def asking_the_cluster(helm: HelmVersion) -> Flags:
    """For `helm template` with `lookup` and the cluster's capabilities. Helm 3 needs `--validate`
    for the latter, which would refuse existing objects were it not for `--take-ownership`.
    """
    return ["--dry-run=server", *_if(helm.major < 4, "--validate")]


def _render_flags(spec: InstallSpec | UpgradeSpec) -> Flags:
    return [
        "--values",
        "-",
        "--hide-notes",  # charts print passwords there
        *_if(not spec.disable_take_ownership, "--take-ownership"),
        *_if(spec.disable_open_api_validation, "--disable-openapi-validation"),
        *_if(spec.disable_schema_validation, "--skip-schema-validation"),
    ]


def _common(timeout: timedelta, disable_hooks: bool) -> Flags:
    return ["--timeout", duration(timeout), *_if(disable_hooks, "--no-hooks")]


def _wait(
    helm: HelmVersion, strategy: str, disable_wait: bool, disable_wait_for_jobs: bool
) -> Flags:
    if disable_wait:
        return []
    wait = f"--wait={'legacy' if strategy == 'legacy' else 'watcher'}"
    return [
        wait if helm.major >= 4 else "--wait",
        *_if(not disable_wait_for_jobs, "--wait-for-jobs"),
    ]


def _method(helm: HelmVersion, *, is_server_side: bool, force: bool) -> Flags:
    if not helm.has_server_side_apply:
        return _if(force, "--force")
    if is_server_side:
        return ["--server-side=true", "--force-conflicts"]
    return ["--server-side=false", *_if(force, "--force-replace")]


def _if(condition: bool, *flags: str) -> Flags:
    return list(flags) if condition else []
