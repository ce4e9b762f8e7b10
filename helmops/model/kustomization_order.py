"""`dependsOn` of Flux Kustomizations: what it means for the releases that come out of them.

A Kustomization is ready when it could be built and its own dependencies are ready, and, with
`wait`, when all that came out of it is ready, too (without it, the releases in `healthChecks`).
Flux does not apply a Kustomization before. Here a release that was never installed waits; one that
was is looked after like any other.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol

from helmops.model.declarations.kustomization import KustomizationSpec
from helmops.model.releases import DeclarationKey


class Chained(Protocol):
    """What says which Kustomizations something came out of."""

    @property
    def chain(self) -> tuple[DeclarationKey, ...]:
        """Outermost first."""


@dataclass(frozen=True, slots=True)
class FirstWait:
    """Releases that must be ready, and Kustomizations that are missing or failed, each with why."""

    releases: tuple[DeclarationKey, ...] = ()
    missing: tuple[str, ...] = ()


def wanted_by(key: DeclarationKey, spec: KustomizationSpec) -> tuple[DeclarationKey, ...]:
    """The Kustomizations that one depends on."""
    return tuple(
        DeclarationKey(dependency.namespace or key.namespace, dependency.name)
        for dependency in spec.depends_on
    )


def first_waits(
    specs: Mapping[DeclarationKey, KustomizationSpec],
    releases: Mapping[DeclarationKey, Chained],
    failed: Collection[DeclarationKey],
) -> dict[DeclarationKey, FirstWait]:
    """By release that waits for anything: what for. `releases` are all that came out of some
    Kustomization, `failed` the Kustomizations that could not be built.
    """
    order = _Order(specs, releases, failed)
    found: dict[DeclarationKey, FirstWait] = {}
    by_chain: dict[tuple[DeclarationKey, ...], FirstWait] = {}
    for key, built_by in releases.items():
        chain = built_by.chain
        if chain not in by_chain:
            by_chain[chain] = order.of_chain(chain)
        wait = by_chain[chain]
        others = tuple(release for release in wait.releases if release != key)
        if others or wait.missing:
            found[key] = FirstWait(others, wait.missing)
    return found


class _Order:
    def __init__(
        self,
        specs: Mapping[DeclarationKey, KustomizationSpec],
        releases: Mapping[DeclarationKey, Chained],
        failed: Collection[DeclarationKey],
    ) -> None:
        self._specs = specs
        self._failed = failed
        self._own: dict[DeclarationKey, list[DeclarationKey]] = {}
        self._inner: dict[DeclarationKey, set[DeclarationKey]] = {}
        for release, built_by in releases.items():
            for outer, inner in pairwise(built_by.chain):
                self._inner.setdefault(outer, set()).add(inner)
            if built_by.chain:
                self._own.setdefault(built_by.chain[-1], []).append(release)

    def of_chain(self, chain: tuple[DeclarationKey, ...]) -> FirstWait:
        """What a release with this chain waits for: all that any of it depends on."""
        releases: dict[DeclarationKey, None] = {}
        missing: dict[str, None] = {}
        seen = set(chain)
        waiting = [
            wanted
            for key in chain
            if key in self._specs
            for wanted in wanted_by(key, self._specs[key])
        ]
        while waiting:
            key = waiting.pop()
            if key in seen:
                continue
            seen.add(key)
            spec = self._specs.get(key)
            if spec is None or key in self._failed:
                why = "is not declared" if spec is None else "cannot be built"
                missing[f"Kustomization {key} {why}"] = None
                continue
            waiting += wanted_by(key, spec)
            if spec.wait:
                waiting += self._inner.get(key, ())
            releases |= dict.fromkeys(self._of_readiness(key, spec))
        return FirstWait(tuple(sorted(releases)), tuple(sorted(missing)))

    def _of_readiness(
        self, key: DeclarationKey, spec: KustomizationSpec
    ) -> Iterator[DeclarationKey]:
        """The releases right in a Kustomization whose readiness is part of its own."""
        if spec.wait:
            yield from self._own.get(key, ())
            return
        for check in spec.health_checks:
            if check.kind == "HelmRelease":
                yield DeclarationKey(check.namespace or key.namespace, check.name)
