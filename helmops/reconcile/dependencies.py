"""Which releases a release waits for."""

from __future__ import annotations

from collections.abc import Mapping

from helmops.errors import ExpressionError
from helmops.model.declarations import DependsOn, HelmRelease
from helmops.model.declared import DeclarationSet, Declared
from helmops.model.expression import compile_expression
from helmops.model.records import Record
from helmops.model.releases import DeclarationKey


def dependencies_of(release: Declared[HelmRelease]) -> tuple[DeclarationKey, ...]:
    """Keys of the releases that must be ready first."""
    return tuple(_key(release, dependency) for dependency in release.resource.spec.depends_on)


def not_ready(
    release: Declared[HelmRelease],
    declarations: DeclarationSet,
    records: Mapping[DeclarationKey, Record],
) -> tuple[str, ...]:
    """The dependencies that are waited for, each with why; empty when all are ready.

    Those of its Kustomizations count until it is installed. `readyExpr` replaces the look at Ready,
    as in Flux. Raises ExpressionError for one that does not compile; one that cannot be evaluated
    (yet) means not ready.
    """
    waiting = []
    for dependency in release.resource.spec.depends_on:
        key = _key(release, dependency)
        why = _why_not(key, dependency, release, declarations, records.get(key))
        if why:
            waiting.append(f"{key} ({why})")
    own = records.get(release.key)
    if own is None or own.head is None:
        waiting += _not_ready_first(release.key, declarations, records)
    return tuple(waiting)


def _not_ready_first(
    key: DeclarationKey,
    declarations: DeclarationSet,
    records: Mapping[DeclarationKey, Record],
) -> list[str]:
    """What a release that was never installed waits for, because its Kustomization depends on
    others.
    """
    wait = declarations.first_waits.get(key)
    if wait is None:
        return []
    waiting = list(wait.missing)
    for other in wait.releases:
        record = records.get(other)
        if record is None or not record.is_ready():
            condition = record.condition("Ready") if record is not None else None
            why = "not released yet" if condition is None else condition.reason
            waiting.append(f"{other} ({why})")
    return waiting


def _key(release: Declared[HelmRelease], dependency: DependsOn) -> DeclarationKey:
    return DeclarationKey(dependency.namespace or release.key.namespace, dependency.name)


def _why_not(
    key: DeclarationKey,
    dependency: DependsOn,
    release: Declared[HelmRelease],
    declarations: DeclarationSet,
    record: Record | None,
) -> str:
    if record is None:
        return "not released yet" if declarations.knows(key) else "not declared"
    declared = declarations.releases.get(key)
    was_declared = record.declaration_digest  # empty where no pass got as far as that
    if declared is not None and was_declared not in ("", declared.digest):
        return "its declaration changed"
    if dependency.ready_expr:
        expression = compile_expression(dependency.ready_expr, {"dep": "dyn", "self": "dyn"})
        try:
            ready = expression.evaluate_bool(dep=record.to_manifest(), self=release.manifest)
        except ExpressionError as error:
            return f"readyExpr: {error.what}"
        return "" if ready else "readyExpr is false"
    if record.is_ready():
        return ""
    condition = record.condition("Ready")
    return condition.reason if condition is not None else "not ready"
