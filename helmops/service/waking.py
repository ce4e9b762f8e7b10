"""Which releases a change concerns. Computational only: two sets of declarations in, keys out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress

from helmops.errors import HelmopsError
from helmops.model.declarations import GitRepository, HelmRelease
from helmops.model.declared import DeclarationSet, Declared, KindKey
from helmops.model.releases import DeclarationKey
from helmops.reconcile.dependencies import dependencies_of


def changed_releases(before: DeclarationSet, after: DeclarationSet) -> dict[DeclarationKey, str]:
    """Declared releases that a change of declarations concerns, and why they are woken."""
    woken: dict[DeclarationKey, str] = {}
    changed = _changed_objects(before, after)
    for key, release in after.releases.items():
        old = before.releases.get(key)
        if old is None:
            woken[key] = "declared"
        elif old.digest != release.digest or old.where != release.where:
            woken[key] = "its declaration changed"
        elif dict(old.resource.metadata.annotations) != dict(release.resource.metadata.annotations):
            woken[key] = "its annotations changed"
        elif before.policy_for(key) != after.policy_for(key):
            woken[key] = "its policy changed"
        elif before.first_waits.get(key) != after.first_waits.get(key):
            woken[key] = "what it waits for changed"
        else:
            touched = changed.intersection(_all_references(after, release))
            if touched:
                kind, name = min(touched)
                woken[key] = f"{kind} {name} changed"
    return woken


def _changed_objects(before: DeclarationSet, after: DeclarationSet) -> set[KindKey]:
    changed: set[KindKey] = set()
    for old, new in (
        (_objects(before), _objects(after)),
        (_broken(before), _broken(after)),
    ):
        changed |= {key for key in old.keys() | new.keys() if old.get(key) != new.get(key)}
    return changed


def _objects(declared: DeclarationSet) -> dict[KindKey, str]:
    digests = {key: source.digest for key, source in declared.sources.items()}
    digests |= {("ConfigMap", key): each.digest for key, each in declared.config_maps.items()}
    digests |= {("Secret", key): each.digest for key, each in declared.secrets.items()}
    return digests


def _broken(declared: DeclarationSet) -> dict[KindKey, str]:
    return {key: str(error) for key, error in declared.broken.items()}


def references_of(declared: DeclarationSet, release: Declared[HelmRelease]) -> Iterator[KindKey]:
    """Everything that a release's chart and values come from, each once."""
    found: dict[KindKey, None] = {}
    waiting = list(_named_by(declared, release))
    while waiting:
        reference = waiting.pop(0)
        if reference not in found:
            found[reference] = None
            waiting += _included_by(declared, reference)
    yield from found


def _included_by(declared: DeclarationSet, reference: KindKey) -> Iterator[KindKey]:
    """The GitRepositories whose files one has within its own."""
    source = declared.sources.get(reference)
    if source is not None and isinstance(source.resource, GitRepository):
        for one in source.resource.spec.include:
            yield "GitRepository", DeclarationKey(reference[1].namespace, one.repository.name)


def _named_by(declared: DeclarationSet, release: Declared[HelmRelease]) -> Iterator[KindKey]:
    reference = release.resource.spec.chart_ref
    if reference is not None:
        namespace = reference.namespace or release.key.namespace
        yield reference.kind, DeclarationKey(namespace, reference.name)
    with suppress(HelmopsError):  # a HelmChart that is not there names no source
        chart = declared.chart_of(release)
        if chart is not None:
            source = chart.spec.source_ref
            yield (
                source.kind,
                DeclarationKey(source.namespace or release.key.namespace, source.name),
            )
    for value in release.resource.spec.values_from:
        if value.kind != "File":
            yield value.kind, DeclarationKey(release.key.namespace, value.name)


def _all_references(declared: DeclarationSet, release: Declared[HelmRelease]) -> Iterator[KindKey]:
    """Those of the release, and the Secrets that its sources are opened with."""
    for reference in references_of(declared, release):
        yield reference
        for key in secrets_of(declared, reference):
            yield "Secret", key
    with suppress(HelmopsError):  # without a source there is nothing to verify
        chart, source = declared.chart_of(release), declared.source_of(release)
        verify = chart.spec.verify if chart is not None else None
        if source is not None and verify is not None and verify.secret_ref is not None:
            yield "Secret", DeclarationKey(source.key.namespace, verify.secret_ref.name)


def needs_of(declared: DeclarationSet, release: Declared[HelmRelease]) -> Iterator[KindKey]:
    """ConfigMaps and Secrets that a release needs: for its values, its sources and its checks."""
    for kind, key in _all_references(declared, release):
        if kind in ("ConfigMap", "Secret"):
            yield kind, key
    for policy in declared.policies_of(release.key):
        for check in policy.resource.spec.verify.checks:
            if check.secret_ref is not None:
                yield "Secret", DeclarationKey(release.key.namespace, check.secret_ref.name)


def needs_in_cluster(
    declared: DeclarationSet,
) -> Mapping[KindKey, tuple[DeclarationKey, ...]]:
    """By ConfigMap and Secret that is not declared beside the releases: those that need it."""
    needing: dict[KindKey, list[DeclarationKey]] = {}
    beside = {("ConfigMap", key) for key in declared.config_maps}
    beside |= {("Secret", key) for key in declared.secrets}
    beside |= set(declared.broken)
    for key, release in declared.releases.items():
        for need in set(needs_of(declared, release)) - beside:
            needing.setdefault(need, []).append(key)
    return {need: tuple(keys) for need, keys in needing.items()}


def opened_with(declared: DeclarationSet, secret: DeclarationKey) -> tuple[KindKey, ...]:
    """The sources that a Secret opens."""
    return tuple(source for source in declared.sources if secret in secrets_of(declared, source))


def users_of(declared: DeclarationSet, source: KindKey) -> tuple[DeclarationKey, ...]:
    """The releases that use a source."""
    return tuple(
        key
        for key, release in declared.releases.items()
        if source in set(references_of(declared, release))
    )


def secrets_of(declared: DeclarationSet, source: KindKey) -> tuple[DeclarationKey, ...]:
    """Secrets that a source is opened with."""
    try:
        spec = getattr(declared.source(*source).resource, "spec", None)
    except HelmopsError:
        return ()
    references = [
        getattr(spec, name, None) for name in ("secret_ref", "cert_secret_ref", "proxy_secret_ref")
    ]
    references.append(getattr(getattr(spec, "verify", None), "secret_ref", None))
    return tuple(
        DeclarationKey(source[1].namespace, reference.name) for reference in references if reference
    )


def dependents_of(
    declared: DeclarationSet,
) -> Mapping[DeclarationKey, tuple[DeclarationKey, ...]]:
    """By release: those that wait for it."""
    waiting: dict[DeclarationKey, list[DeclarationKey]] = {}
    for key, release in declared.releases.items():
        first = declared.first_waits.get(key)
        for dependency in {*dependencies_of(release), *(first.releases if first else ())}:
            waiting.setdefault(dependency, []).append(key)
    return {key: tuple(keys) for key, keys in waiting.items()}
