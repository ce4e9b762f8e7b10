"""All that is declared at one moment, with everything that is wrong with it.

Two rules keep a mistake small. A release that has an error, stands in a file that has one, or whose
policy cannot be known, is `untouched`: neither changed nor taken for removed. And where a file
could not be read to its end, the set is not `complete`: nothing that is missing in it counts as
removed. What a bad file says of other kinds, as sources, is used where it can be read: releases of
other files may need it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType
from typing import Any, Final, Generic, TypeVar, cast

from helmops.errors import DeclarationError, NotSupported, SourceMissing
from helmops.model.declarations import (
    Alert,
    ChartTemplate,
    ChartTemplateSpec,
    ChartVerification,
    ConfigMap,
    CrossNamespaceRef,
    HelmChart,
    HelmRelease,
    Kustomization,
    OCIRepository,
    Provider,
    Receiver,
    ReleasePolicy,
    ReleasePolicySpec,
    Resource,
    Secret,
    Source,
)
from helmops.model.declarations.unsupported import Unsupported, chart_places, unsupported_places
from helmops.model.declarations.validation import with_namespace
from helmops.model.documents import Document, Path, dotted
from helmops.model.kustomization_order import FirstWait, first_waits
from helmops.model.releases import DeclarationKey

R = TypeVar("R", bound=Resource, covariant=True)

#: Kind and key of a declaration.
KindKey = tuple[str, DeclarationKey]

#: The parts of a policy that only one policy may set for a release.
SECTIONS: Final = ("mode", "prune", "out_of_band", "upgrade", "verify", "remediation", "quarantine")


@dataclass(frozen=True, slots=True)
class BuiltBy:
    """The Flux Kustomizations that a declaration came out of, the outermost first; empty for a
    directory that kustomize builds without one. `prune` is whether all of them say so.
    """

    chain: tuple[DeclarationKey, ...] = ()
    prune: bool = True


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A file that may hold declarations.

    `path` is what people are shown, unique among the files that were built alike. `location` is
    where the file lies (absolute), for references to files beside it, and `root` the directory that
    these must not leave; both empty where there is no such place. `error` says why there is no
    text. `built_by` is set for what kustomize made of the file, and `declared_in` then tells the
    place that it belongs to from any other in the world.
    """

    path: str
    text: str = field(default="", repr=False)
    location: str = ""
    root: str = ""
    error: DeclarationError | None = None
    #: The Git revision that it was read at. Not compared: another commit alone changes nothing.
    revision: str = field(default="", compare=False)
    built_by: BuiltBy | None = None
    declared_in: str = ""

    @property
    def reading(self) -> tuple[str, tuple[DeclarationKey, ...]]:
        """The file as it was read here: one file may be built by several Kustomizations."""
        return self.path, self.built_by.chain if self.built_by else ()


@dataclass(frozen=True)
class Declared(Generic[R]):
    """A declaration and where it stands."""

    resource: R
    document: Document = field(repr=False)
    file: SourceFile = field(repr=False)

    @property
    def key(self) -> DeclarationKey:
        """Namespace and name."""
        return self.resource.key

    @property
    def where(self) -> str:
        """`file:line` of its beginning."""
        return self.document.where

    def where_is(self, path: Path) -> str:
        """`file:line` of the field at a path, as `("spec", "chart")`."""
        return self.document.where_is(path)

    @property
    def manifest(self) -> dict[str, Any]:
        """The document as it was written, its namespace filled in. May hold secrets."""
        return with_namespace(self.document.data, self.key.namespace)

    @cached_property
    def digest(self) -> str:
        """Hex SHA-256 of what is declared; it changes when a person changes the meaning of the
        declaration, not with comments, order of keys, labels, annotations or status.
        """
        said = {k: v for k, v in self.document.data.items() if k not in ("metadata", "status")}
        text = json.dumps([str(self.key), said], sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()


def _nothing() -> Mapping[Any, Any]:
    return MappingProxyType({})


@dataclass(frozen=True)
class DeclarationSet:
    """Everything declared, by key. Reading of it is `read_declarations`."""

    releases: Mapping[DeclarationKey, Declared[HelmRelease]] = field(default_factory=_nothing)
    sources: Mapping[KindKey, Declared[Source]] = field(default_factory=_nothing)
    policies: Mapping[DeclarationKey, Declared[ReleasePolicy]] = field(default_factory=_nothing)
    config_maps: Mapping[DeclarationKey, Declared[ConfigMap]] = field(default_factory=_nothing)
    secrets: Mapping[DeclarationKey, Declared[Secret]] = field(default_factory=_nothing)
    alerts: Mapping[DeclarationKey, Declared[Alert]] = field(default_factory=_nothing)
    providers: Mapping[DeclarationKey, Declared[Provider]] = field(default_factory=_nothing)
    receivers: Mapping[DeclarationKey, Declared[Receiver]] = field(default_factory=_nothing)
    #: Everything that is wrong, in the order of files and lines.
    errors: tuple[DeclarationError, ...] = ()
    #: Files with an error of their own.
    bad_files: frozenset[str] = frozenset()
    #: Declared HelmReleases that must stay as they are, and the reason; they are not in `releases`.
    untouched: Mapping[DeclarationKey, DeclarationError] = field(default_factory=_nothing)
    #: Declarations of other kinds that cannot be used, and the reason.
    broken: Mapping[KindKey, DeclarationError] = field(default_factory=_nothing)
    #: Whether every file was read to its end. Where not, nothing missing was removed.
    complete: bool = True
    #: Whether this is only what a record remembers: without sources, values and policies.
    is_remembered: bool = False
    #: Flux Kustomizations that were followed, or failed.
    kustomizations: Mapping[DeclarationKey, Declared[Kustomization]] = field(
        default_factory=_nothing
    )
    #: What each release came out of, where Kustomizations made it; untouched ones as well.
    built_by: Mapping[DeclarationKey, BuiltBy] = field(default_factory=_nothing)
    #: How many documents of kinds that are not ours, by `kind (group)`.
    ignored: Mapping[str, int] = field(default_factory=_nothing)

    def knows(self, key: DeclarationKey) -> bool:
        """Whether a HelmRelease is declared, readable or not. A release that is not was removed
        only where the set is `complete`.
        """
        return key in self.releases or key in self.untouched

    def knows_all(self) -> frozenset[DeclarationKey]:
        """Keys of all HelmReleases that are declared, readable or not."""
        return frozenset(self.releases) | frozenset(self.untouched)

    def source(self, kind: str, key: DeclarationKey, *, wanted_at: str = "") -> Declared[Source]:
        """A declared source. Raises SourceMissing where there is none, DeclarationError where there
        is one that has errors; `wanted_at` is the place that refers to it.
        """
        found = self.sources.get((kind, key))
        if found is not None:
            return found
        error = self.broken.get((kind, key))
        if error is not None:
            raise DeclarationError(
                f"{kind} {key} has an error: {error.what}",
                where=error.where,
                field=error.field,
                next_step=error.next_step,
            )
        others = sorted(str(k) for its_kind, k in self.sources if its_kind == kind)
        has = f"declared are {', '.join(others[:5])}" if others else f"no {kind} is"
        raise SourceMissing(f"{kind} {key} is not declared", where=wanted_at, next_step=has)

    def helm_chart_of(self, release: Declared[HelmRelease]) -> Declared[HelmChart] | None:
        """The HelmChart that a release's `chartRef` names; None where it names none. Raises as
        `source` does.
        """
        reference = release.resource.spec.chart_ref
        if reference is None or reference.kind != "HelmChart":
            return None
        key = DeclarationKey(reference.namespace or release.key.namespace, reference.name)
        place = release.where_is(("spec", "chartRef"))
        found: Any = self.source("HelmChart", key, wanted_at=place)
        return cast("Declared[HelmChart]", found)

    def chart_of(self, release: Declared[HelmRelease]) -> ChartTemplate | None:
        """The chart that a release wants, its own or that of the HelmChart it refers to; None for
        any other `chartRef`. Raises as `source` does.
        """
        helm_chart = self.helm_chart_of(release)
        return template_of(helm_chart.resource) if helm_chart else release.resource.spec.chart

    def source_of(self, release: Declared[HelmRelease]) -> Declared[Source] | None:
        """Where a release's chart comes from; None for a directory, and for a `chartRef` to what is
        neither a HelmChart nor an OCIRepository. Raises as `source` does.
        """
        artifact = release.resource.spec.chart_ref
        if artifact is not None and artifact.kind == "OCIRepository":
            key = DeclarationKey(artifact.namespace or release.key.namespace, artifact.name)
            return self.source(
                "OCIRepository", key, wanted_at=release.where_is(("spec", "chartRef"))
            )
        chart = self.chart_of(release)
        if chart is None or chart.spec.source_ref.kind == "Directory":
            return None
        reference = chart.spec.source_ref
        key = DeclarationKey(reference.namespace or release.key.namespace, reference.name)
        place = ("spec", "chart", "spec", "sourceRef")
        helm_chart = self.helm_chart_of(release)
        named_at = helm_chart.where_is(("spec", "sourceRef")) if helm_chart else None
        return self.source(reference.kind, key, wanted_at=named_at or release.where_is(place))

    def policies_of(self, key: DeclarationKey) -> tuple[Declared[ReleasePolicy], ...]:
        """The policies whose selector means a release, by name."""
        release = self.releases.get(key)
        labels = release.resource.metadata.labels if release else {}
        return tuple(
            policy
            for its_key, policy in sorted(self.policies.items())
            if its_key.namespace == key.namespace
            and policy.resource.spec.selector.matches(key.name, labels)
        )

    def policy_for(self, key: DeclarationKey) -> ReleasePolicySpec:
        """What the policies of a release say together; the defaults where there are none."""
        said: dict[str, Any] = {}
        for policy in self.policies_of(key):
            said |= sections_of(policy.resource.spec)
        if not self.built_by.get(key, BuiltBy()).prune:
            said["prune"] = False
        return ReleasePolicySpec(**said)

    @cached_property
    def first_waits(self) -> Mapping[DeclarationKey, FirstWait]:
        """What releases wait for before they are installed first, because a Kustomization that they
        came out of depends on others.
        """
        specs = {key: each.resource.spec for key, each in self.kustomizations.items()}
        failed = frozenset(key for kind, key in self.broken if kind == "Kustomization")
        return first_waits(specs, self.built_by, failed)

    def unsupported(self, key: DeclarationKey) -> tuple[NotSupported, ...]:
        """What is not acted on yet in a release, its sources and its policies. Raises nothing: a
        source that is missing is told by `source_of`.
        """
        release = self.releases[key]
        concerned: list[Declared[Resource]] = [release, *self.policies_of(key)]
        wanted = [
            ("GitRepository", DeclarationKey(key.namespace, reference.name))
            for reference in release.resource.spec.values_from
            if reference.kind == "GitRepository"
        ]
        with suppress(DeclarationError, SourceMissing):
            helm_chart = self.helm_chart_of(release)
            concerned += [helm_chart] if helm_chart else []
            if (chart := self.chart_of(release)) is not None:
                reference = chart.spec.source_ref
                namespace = reference.namespace or key.namespace
                wanted.insert(0, (reference.kind, DeclarationKey(namespace, reference.name)))
            elif (artifact := self.source_of(release)) is not None:
                wanted.insert(0, (artifact.resource.kind, artifact.key))
        sources = [self.sources[k] for k in dict.fromkeys(wanted) if k in self.sources]
        return (
            *unsupported(*concerned, *sources),
            *(_not_supported(each, *place) for each in sources for place in _chart_places(each)),
        )


def template_of(chart: HelmChart) -> ChartTemplate:
    """What a HelmChart says, as if a HelmRelease had said it."""
    spec = chart.spec
    reference = spec.source_ref
    said: dict[str, Any] = {
        "chart": spec.chart,
        # In `safe` an absent version means less than `*`, here as in a HelmRelease.
        "version": spec.version if "version" in spec.model_fields_set else None,
        "source_ref": CrossNamespaceRef(
            kind=reference.kind, name=reference.name, namespace=chart.key.namespace
        ),
        "interval": spec.interval,
        "reconcile_strategy": spec.reconcile_strategy,
        "values_files": spec.values_files,
        "ignore_missing_values_files": spec.ignore_missing_values_files,
        "verify": spec.verify
        and ChartVerification(provider=spec.verify.provider, secret_ref=spec.verify.secret_ref),
    }
    return ChartTemplate(spec=ChartTemplateSpec(**said))


def unsupported(*declared: Declared[Resource]) -> tuple[NotSupported, ...]:
    """What is not acted on yet in declarations, each with file, line and field."""
    return tuple(
        _not_supported(item, path, what)
        for item in declared
        for path, what in unsupported_places(item.resource)
    )


def _not_supported(item: Declared[Resource], path: Path, what: str) -> NotSupported:
    return NotSupported(
        what,
        where=item.where_is(path),
        field=dotted(path),
        next_step="remove the field, or leave this release to another tool for now",
    )


def _chart_places(source: Declared[Any]) -> Iterable[Unsupported]:
    resource = source.resource
    return chart_places(resource) if isinstance(resource, OCIRepository) else ()


def unsupported_fields(*declared: Declared[Resource]) -> tuple[str, ...]:
    """The same as `spec.kubeConfig (apps/web.yaml:12)`."""
    return tuple(f"{error.field} ({error.where})" for error in unsupported(*declared))


def sections_of(policy: ReleasePolicySpec) -> dict[str, Any]:
    """The parts that a policy sets, as they are."""
    return {name: getattr(policy, name) for name in SECTIONS if name in policy.model_fields_set}
