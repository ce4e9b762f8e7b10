"""Fetch, resolve, compose: from a declaration to the chart and values that it means now."""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from operator import itemgetter
from typing import Any, Literal, assert_never

from pydantic import BaseModel

from helmops.decide.backoff import backoff
from helmops.errors import (
    ChartNotFound,
    ChartRefused,
    ExpressionError,
    Follows,
    HelmopsError,
    NotSupported,
    SourceError,
    SourceUnavailable,
    ValuesReferenceMissing,
    VersionError,
)
from helmops.health import CustomRules
from helmops.model.actions import Desired, Target, Unresolved
from helmops.model.charts import ChartArtifact, ChartVersion, Tree
from helmops.model.credentials import GitCredentials, HttpCredentials
from helmops.model.declarations import (
    Defaults,
    GitRepository,
    HelmRelease,
    HelmReleaseSpec,
    HelmRepository,
    HelmRepositorySpec,
    ReleasePolicySpec,
    ValuesReference,
    with_defaults,
)
from helmops.model.declared import DeclarationSet, Declared, SourceFile, template_of
from helmops.model.documents import dotted
from helmops.model.records import Record
from helmops.model.releases import DeclarationKey, ReleaseId
from helmops.reconcile.credentials import CredentialReader
from helmops.reconcile.dependencies import not_ready
from helmops.reconcile.ports import (
    ChartBuilder,
    ChartRepositories,
    Clock,
    DependencyFetch,
    GitTrees,
    Helm,
    References,
    TreeFiles,
)
from helmops.resolve.digest import config_digest
from helmops.resolve.selection import Choice, UpgradeAllow, choose
from helmops.resolve.values import TargetValue, compose_values, parse_values
from helmops.resolve.version import Version

#: A source that fails is asked again no later than this.
_LONGEST_RETRY = timedelta(minutes=5)
_VALUES_KEY = "values.yaml"
_SHORTEST_SECRET = 6


@dataclass(frozen=True, slots=True)
class _Chart:
    artifact: ChartArtifact
    choice: str
    held_back: tuple[str, ...] = ()
    is_downgrade: bool = False
    follows_content: bool = False


@dataclass(frozen=True, slots=True)
class _Memo:
    """What a resolution was made of; the same parts make the same target."""

    declarations: DeclarationSet
    versions: tuple[ChartVersion, ...]
    deployed: str
    desired: Desired


@dataclass(frozen=True, slots=True)
class _Revision:
    revision: str
    at: datetime


class DeclaredSecrets:
    """Secrets that are declared beside the releases, before those in the cluster.

    `hide` is told each text that must not be shown, once.
    """

    def __init__(self, references: References, hide: Callable[..., None] = lambda *_: None) -> None:
        self._references = references
        self._hide = hide
        self.declarations = DeclarationSet()
        #: Texts of all Secrets that were read, to be hidden wherever helm repeats one.
        self.seen: set[str] = set()

    async def secret(self, key: DeclarationKey) -> Mapping[str, bytes] | None:
        """Its data, decoded, or None where there is none. Raises ClusterError."""
        declared = self.declarations.secrets.get(key)
        if declared is not None:
            data: Mapping[str, bytes] | None = declared.resource.content
        else:
            data = await self._references.secret(key)
        new = set(texts_of(data or {})) - self.seen
        if new:
            self.seen |= new
            self._hide(*new)
        return data

    async def config_map(self, key: DeclarationKey) -> Mapping[str, bytes] | None:
        """Its data, or None where there is none. Raises ClusterError."""
        declared = self.declarations.config_maps.get(key)
        if declared is not None:
            return declared.resource.content
        return await self._references.config_map(key)


def texts_of(data: Mapping[str, bytes]) -> Iterator[str]:
    """The texts in a Secret that would give something away: whole values, and the values in a file
    of YAML. Short ones would hide half of every log.
    """
    for content in data.values():
        text = content.decode("utf-8", "replace").strip()
        lines = text.splitlines()
        candidates = [text, *(line.partition(":")[2] for line in lines)] if lines else []
        for candidate in candidates:
            bare = candidate.strip().strip("\"'")
            if len(bare) >= _SHORTEST_SECRET:
                yield bare


class Resolver:
    """Resolves declared releases. Remembers what it resolved, so that the next pass over a release
    of which nothing changed costs a comparison.
    """

    def __init__(
        self,
        *,
        clock: Clock,
        helm: Helm,
        repositories: ChartRepositories,
        git: GitTrees,
        builder: ChartBuilder,
        files: TreeFiles,
        references: DeclaredSecrets,
        defaults: Defaults,
        location_of: Callable[[SourceFile], str] = lambda file: file.root,
        observe_only: bool = False,
    ) -> None:
        self._clock = clock
        self._helm = helm
        self._repositories = repositories
        self._git = git
        self._builder = builder
        self._files = files
        self._references = references
        self._credentials = CredentialReader(references)
        self._defaults = defaults
        self._location_of = location_of
        self._observe_only = observe_only
        self._memo: dict[DeclarationKey, _Memo] = {}
        self._failures: dict[DeclarationKey, int] = {}
        self._revisions: dict[DeclarationKey, _Revision] = {}

    def wanted(self, declarations: DeclarationSet, key: DeclarationKey) -> WantedRelease:
        """The declared release of that key, to be resolved when a pass asks."""
        self._references.declarations = declarations
        return WantedRelease(self, declarations, declarations.releases[key])

    def forget(self, key: DeclarationKey) -> None:
        """A declaration is gone."""
        self._memo.pop(key, None)
        self._failures.pop(key, None)

    async def poll_repository(self, source: Declared[HelmRepository]) -> bool:
        """Ask a chart repository now; whether anything changed. Raises SourceError."""
        credentials = await self._http_credentials(source)
        return await self._repositories.refresh(source.resource.spec, credentials)

    async def poll_git(self, source: Declared[GitRepository]) -> bool:
        """Ask a Git repository now; whether it has another revision. Raises SourceError."""
        before = self._revisions.get(source.key)
        revision = await self._resolve_git(source, await self._git_credentials(source))
        return before is not None and before.revision != revision

    # From declaration to Desired

    async def desired(
        self,
        declarations: DeclarationSet,
        release: Declared[HelmRelease],
        deployed: str,
        records: Mapping[DeclarationKey, Record],
    ) -> Desired:
        """All that a pass needs to know of what is wanted. Raises nothing of HelmopsError."""
        if declarations.is_remembered:
            why = "what is declared now was not asked; the service, or `reconcile -f`, does"
            target = Unresolved("Progressing", why, is_unasked=True)
            return replace(self._template(declarations, release), target=target)
        known = self._memo.get(release.key)
        if (
            known is not None
            and known.declarations is declarations
            and known.deployed == deployed
            and await self._has_same_versions(known, declarations, release)
        ):
            return self._with_dependencies(known.desired, release, declarations, records)
        desired = self._template(declarations, release)
        versions: tuple[ChartVersion, ...] | None = None
        try:
            self._refuse_unsupported(declarations, release)
            _check_expressions(release)
            spec = self._with_chart(desired.spec, declarations, release)
            chart, versions = await self._chart(
                declarations, release, spec, desired.policy, deployed
            )
            values = await self._values(declarations, release)
            desired = replace(
                desired,
                target=Target(
                    chart=chart.artifact,
                    values=values,
                    config_digest=config_digest(values),
                    choice=chart.choice,
                    held_back=chart.held_back,
                    downgrade_from=deployed if chart.is_downgrade else "",
                    follows_content=chart.follows_content,
                ),
            )
            self._failures.pop(release.key, None)
        except HelmopsError as error:
            desired = replace(desired, target=self._unresolved(release.key, error))
        is_memorable = versions is not None and not release.resource.spec.values_from
        if versions is not None and is_memorable and isinstance(desired.target, Target):
            self._memo[release.key] = _Memo(declarations, versions, deployed, desired)
        else:
            self._memo.pop(release.key, None)
        return self._with_dependencies(desired, release, declarations, records)

    def _template(self, declarations: DeclarationSet, release: Declared[HelmRelease]) -> Desired:
        policy = declarations.policy_for(release.key)
        return Desired(
            key=release.key,
            release=release.resource.release_id,
            spec=with_defaults(release.resource.spec, self._defaults),
            policy=policy,
            defaults=self._defaults,
            declaration_digest=release.digest,
            target=Unresolved("Progressing", "not resolved yet"),
            origin=release.where,
            location=self._location_of(release.file),
            manifest=release.manifest,
            is_observed_only=self._observe_only or policy.mode == "observe",
        )

    def _with_chart(
        self,
        spec: HelmReleaseSpec,
        declarations: DeclarationSet,
        release: Declared[HelmRelease],
    ) -> HelmReleaseSpec:
        """The spec with the chart of the HelmChart that `chartRef` names, as if it were its own.

        Raises SourceMissing, DeclarationError, SourceUnavailable.
        """
        helm_chart = declarations.helm_chart_of(release)
        if helm_chart is None:
            return spec
        if helm_chart.resource.spec.suspend:
            raise _suspended(helm_chart)
        chart = template_of(helm_chart.resource)
        return with_defaults(spec.model_copy(update={"chart": chart}), self._defaults)

    def _with_dependencies(
        self,
        desired: Desired,
        release: Declared[HelmRelease],
        declarations: DeclarationSet,
        records: Mapping[DeclarationKey, Record],
    ) -> Desired:
        if not release.resource.spec.depends_on:
            return desired
        try:
            waiting = not_ready(release, declarations, records)
        except HelmopsError as error:
            return replace(desired, target=self._unresolved(release.key, error))
        return replace(desired, waiting_for=waiting)

    async def _has_same_versions(
        self, known: _Memo, declarations: DeclarationSet, release: Declared[HelmRelease]
    ) -> bool:
        """Whether the repository still offers the very same list; asked in memory mostly."""
        try:
            source = declarations.source_of(release)
            if source is None or not isinstance(source.resource, HelmRepository):
                return False
            chart = declarations.chart_of(release)
            if chart is None:
                return False
            credentials = await self._http_credentials(source)
            versions = await self._repositories.versions(
                source.resource.spec, chart.spec.chart, credentials
            )
        except HelmopsError:
            return False
        return versions is known.versions

    def _unresolved(self, key: DeclarationKey, error: HelmopsError) -> Unresolved:
        failures = self._failures.get(key, 0) + 1
        self._failures[key] = failures
        stalled = error.follows is Follows.STALLED
        delay = backoff(failures, cap=_LONGEST_RETRY)
        if isinstance(error, SourceError) and error.retry_after is not None:
            delay = max(delay, timedelta(seconds=error.retry_after))
        return Unresolved(
            reason=error.reason,
            message=str(error),
            stalled=stalled,
            retry_at=None if stalled else self._clock.now() + delay,
        )

    def _refuse_unsupported(
        self, declarations: DeclarationSet, release: Declared[HelmRelease]
    ) -> None:
        """Raises NotSupported with every field that is not acted on, by helmops or this helm."""
        refused = [*declarations.unsupported(release.key), *self._unknown_to_helm(release)]
        if refused:
            raise NotSupported("; ".join(str(error) for error in refused))

    def _unknown_to_helm(self, release: Declared[HelmRelease]) -> Iterator[NotSupported]:
        spec = release.resource.spec
        for action in ("install", "upgrade", "test", "rollback", "uninstall"):
            part: BaseModel = getattr(spec, action)
            for name in sorted(part.model_fields_set):
                field = type(part).model_fields[name].alias or name
                if not self._helm.unsupported(f"{action}.{field}", getattr(part, name)):
                    continue
                path = ("spec", action, field)
                yield NotSupported(
                    f"helm {self._helm.major} has no flag for it",
                    where=release.where_is(path),
                    field=dotted(path),
                    next_step="remove the field, or use another version of helm",
                )

    # Charts

    async def _chart(
        self,
        declarations: DeclarationSet,
        release: Declared[HelmRelease],
        spec: HelmReleaseSpec,
        policy: ReleasePolicySpec,
        deployed: str,
    ) -> tuple[_Chart, tuple[ChartVersion, ...] | None]:
        if spec.chart is None:  # `chartRef`, which is refused before
            raise NotSupported("chartRef is not acted on yet", where=release.where)
        source = declarations.source_of(release)
        if source is None:
            fetch = self._dependencies_of(declarations, release.key.namespace)
            return await self._chart_of_directory(release, spec, deployed, fetch), None
        resource: Any = source.resource
        if resource.spec.suspend:
            raise _suspended(source)
        if isinstance(source.resource, HelmRepository):
            return await self._chart_of_repository(source, release, spec, policy, deployed)
        if isinstance(source.resource, GitRepository):
            tree = await self._git_tree(source)
            fetch = self._dependencies_of(declarations, source.key.namespace)
            return await self._built(tree, spec, deployed, source.resource.kind, fetch), None
        raise NotSupported(
            f"charts from a {source.resource.kind} are not read yet", where=source.where
        )

    async def _chart_of_repository(
        self,
        source: Declared[Any],
        release: Declared[HelmRelease],
        spec: HelmReleaseSpec,
        policy: ReleasePolicySpec,
        deployed: str,
    ) -> tuple[_Chart, tuple[ChartVersion, ...]]:
        assert spec.chart is not None  # noqa: S101 - asked before
        wanted = spec.chart.spec
        repository = source.resource.spec
        credentials = await self._http_credentials(source)
        versions = await self._repositories.versions(repository, wanted.chart, credentials)
        allow = UpgradeAllow(policy.upgrade.allow) if policy.upgrade.allow else None
        if allow is None and not wanted.version:
            # Nobody asked for a version: the newest, and then no new major by itself.
            allow = UpgradeAllow.MINOR
        choice = self._choose(versions, wanted.version or "", deployed, allow, str(source.key))
        artifact = await self._repositories.pull(repository, choice.selected, credentials)
        if artifact.is_library:
            raise ChartRefused(
                f"{artifact.name} is a library chart: it has nothing to install",
                where=str(source.key),
                next_step="name the chart that uses it",
            )
        if wanted.values_files:
            artifact = await self._builder.with_values_files(
                artifact,
                wanted.values_files,
                ignore_missing_values_files=wanted.ignore_missing_values_files,
            )
        chart = _Chart(
            artifact=artifact,
            choice=choice.reason,
            held_back=tuple(f"{held.version}: {held.why}" for held in choice.held_back),
            is_downgrade=choice.is_downgrade,
            # Other values files make another chart of the same version.
            follows_content=bool(wanted.values_files),
        )
        return chart, versions

    @staticmethod
    def _choose(
        versions: tuple[ChartVersion, ...],
        wanted: str,
        deployed: str,
        allow: UpgradeAllow | None,
        where: str,
    ) -> Choice:
        try:
            return choose(versions, wanted, deployed=deployed, allow=allow, where=where)
        except VersionError:
            # What is deployed has no semantic version, so nothing can be counted from it.
            return choose(versions, wanted, where=where)

    async def _chart_of_directory(
        self,
        release: Declared[HelmRelease],
        spec: HelmReleaseSpec,
        deployed: str,
        fetch: DependencyFetch,
    ) -> _Chart:
        assert spec.chart is not None  # noqa: S101 - asked before
        wanted = spec.chart.spec
        tree = self._directory_tree(release, wanted.source_ref.name)
        return await self._built(tree, spec, deployed, "Directory", fetch)

    async def _built(
        self, tree: Tree, spec: HelmReleaseSpec, deployed: str, kind: str, fetch: DependencyFetch
    ) -> _Chart:
        assert spec.chart is not None  # noqa: S101 - asked before
        wanted = spec.chart.spec
        by_revision = wanted.reconcile_strategy == "Revision"
        artifact = await self._builder.build(
            tree,
            wanted.chart,
            values_files=wanted.values_files,
            ignore_missing_values_files=wanted.ignore_missing_values_files,
            version_suffix=_suffix(tree.revision) if by_revision else "",
            fetch=fetch,
        )
        return _Chart(
            artifact=artifact,
            choice=f"{artifact.version} is what {kind} {tree.name} has at {wanted.chart}",
            is_downgrade=_is_lower(artifact.version, deployed),
            follows_content=by_revision,
        )

    def _dependencies_of(self, declarations: DeclarationSet, namespace: str) -> DependencyFetch:
        """Fetches what charts depend on. As in Flux, a HelmRepository that is declared for the
        repository's URL beside the chart's source opens it; helm's `@name` is one by its name.
        """

        async def fetch(name: str, version: str, repository: str) -> ChartArtifact:
            source = _repository_of(declarations, namespace, repository)
            spec, credentials = _undeclared(repository), HttpCredentials()
            if source is not None:
                if source.resource.spec.suspend:
                    raise _suspended(source)
                spec, credentials = source.resource.spec, await self._http_credentials(source)
            if spec is None:
                raise ChartRefused(
                    f"the dependency {name} names the repository {repository}, which is neither a"
                    f" URL nor a HelmRepository of the namespace {namespace}",
                    next_step="declare the HelmRepository, or name http://, https:// or oci://",
                )
            versions = await self._repositories.versions(spec, name, credentials)
            choice = choose(versions, version, where=f"{spec.url}, for a dependency")
            return await self._repositories.pull(spec, choice.selected, credentials)

        return fetch

    def _directory_tree(self, release: Declared[HelmRelease], name: str) -> Tree:
        """The directory that holds a declaration's file; `name` is relative to it."""
        if not release.file.location:
            raise ChartNotFound(
                "a chart from a directory needs a declaration from a file", where=release.where
            )
        base = posixpath.dirname(release.file.location)
        path = posixpath.normpath(posixpath.join(base, name))
        root = release.file.root or base
        if path != root and not path.startswith(root.rstrip("/") + "/"):
            raise ChartNotFound(
                f"the directory {name} leaves {root}",
                where=release.where,
                next_step="name one beside the declaration",
            )
        return Tree(name=name, revision="", path=path)

    # Git

    async def _git_tree(self, source: Declared[Any]) -> Tree:
        """The files of the revision that was seen last; asked anew when the interval is over."""
        credentials = await self._git_credentials(source)
        known = self._revisions.get(source.key)
        spec = source.resource.spec
        if known is None or self._clock.now() - known.at >= spec.interval:
            revision = await self._resolve_git(source, credentials)
        else:
            revision = known.revision
        return await self._git.checkout(spec, credentials, revision)

    async def _resolve_git(self, source: Declared[Any], credentials: GitCredentials) -> str:
        revision = await self._git.resolve(source.resource.spec, credentials)
        self._revisions[source.key] = _Revision(revision, self._clock.now())
        return revision

    async def _http_credentials(self, source: Declared[Any]) -> HttpCredentials:
        spec = source.resource.spec
        return await self._credentials.for_http(
            source.key.namespace, spec.secret_ref, spec.cert_secret_ref
        )

    async def _git_credentials(self, source: Declared[Any]) -> GitCredentials:
        return await self._credentials.for_git(
            source.key.namespace, source.resource.spec.secret_ref
        )

    # Values

    async def _values(
        self, declarations: DeclarationSet, release: Declared[HelmRelease]
    ) -> dict[str, Any]:
        layers: list[dict[str, Any]] = []
        targets: list[TargetValue] = []
        for index, reference in enumerate(release.resource.spec.values_from):
            place = release.where_is(("spec", "valuesFrom", index))
            content, where = await self._referenced(declarations, release, reference, place)
            if content is None:
                continue
            if reference.target_path is not None:
                text = content.decode("utf-8", "replace")
                targets.append(TargetValue(reference.target_path, text, reference.literal, where))
            else:
                layers.append(parse_values(content, where))
        inline = release.resource.spec.values
        return compose_values(layers, inline or {}, targets)

    async def _referenced(
        self,
        declarations: DeclarationSet,
        release: Declared[HelmRelease],
        reference: ValuesReference,
        place: str,
    ) -> tuple[bytes | None, str]:
        """Content of a reference and what to call it; None for an optional one that is missing."""
        key = DeclarationKey(release.key.namespace, reference.name)
        match reference.kind:
            case "ConfigMap" | "Secret":
                where = f"{reference.kind} {key}"
                data = await (
                    self._references.config_map(key)
                    if reference.kind == "ConfigMap"
                    else self._references.secret(key)
                )
                if data is None:
                    return self._missing(reference, where, place), where
                name = reference.values_key or _VALUES_KEY
                if name not in data:
                    # As in Flux, `optional` is about the object, not about its keys.
                    raise ValuesReferenceMissing(
                        f"{where} has no key {name}", where=place, next_step="set valuesKey"
                    )
                return data[name], f"{where} key {name}"
            case "GitRepository":
                where = f"{reference.path} in GitRepository {key}"
                source = declarations.source("GitRepository", key, wanted_at=place)
                tree = await self._git_tree(source)
            case "File":
                where = reference.path
                tree = self._directory_tree(release, posixpath.dirname(reference.path) or ".")
            case _:
                assert_never(reference.kind)
        path = (
            reference.path
            if reference.kind == "GitRepository"
            else posixpath.basename(reference.path)
        )
        content = await self._files.read(tree, path)
        if content is None:
            return self._missing(reference, where, place), where
        return content, where

    @staticmethod
    def _missing(reference: ValuesReference, where: str, place: str) -> None:
        if not reference.optional:
            raise ValuesReferenceMissing(
                f"{where} does not exist", where=place, next_step="create it, or set optional"
            )


@dataclass(frozen=True, slots=True)
class WantedRelease:
    """A declared release, as a pass wants it."""

    resolver: Resolver
    declarations: DeclarationSet
    declared: Declared[HelmRelease]

    @property
    def key(self) -> DeclarationKey:
        """Namespace and name of the declaration."""
        return self.declared.key

    @property
    def release(self) -> ReleaseId:
        """What helm is to call it."""
        return self.declared.resource.release_id

    def is_beside(self, other: DeclarationKey) -> bool:
        """Whether this other release is declared too."""
        return other != self.key and self.declarations.knows(other)

    async def desired(self, deployed: str, records: Mapping[DeclarationKey, Record]) -> Desired:
        """Fetch, resolve and compose. What fails becomes `Unresolved`, not an exception."""
        return await self.resolver.desired(self.declarations, self.declared, deployed, records)


def _suspended(source: Declared[Any]) -> SourceUnavailable:
    return SourceUnavailable(
        f"{source.resource.kind} {source.key} is suspended",
        where=source.where,
        next_step="set spec.suspend to false",
    )


def _repository_of(
    declarations: DeclarationSet, namespace: str, repository: str
) -> Declared[Any] | None:
    """The HelmRepository that is declared for a dependency's repository, by URL or helm's alias."""
    alias = repository.removeprefix("@").removeprefix("alias:")
    for (_, key), source in sorted(declarations.sources.items(), key=itemgetter(0)):
        if not isinstance(source.resource, HelmRepository) or key.namespace != namespace:
            continue
        is_alias = alias != repository and key.name == alias
        if is_alias or source.resource.spec.url.rstrip("/") == repository.rstrip("/"):
            return source
    return None


def _undeclared(repository: str) -> HelmRepositorySpec | None:
    """A repository that nobody declared; None for what is no URL."""
    if not repository.startswith(("http://", "https://", "oci://")):
        return None
    kind: Literal["oci", "default"] = "oci" if repository.startswith("oci://") else "default"
    return HelmRepositorySpec(url=repository, type=kind)


def _suffix(revision: str) -> str:
    """Twelve digits that tell one revision from another, as Flux appends them."""
    return revision.rsplit(":", 1)[-1].rsplit("/", 1)[-1][:12]


def _is_lower(version: str, deployed: str) -> bool:
    if not deployed:
        return False
    try:
        return Version.parse(version) < Version.parse(deployed)
    except VersionError:  # versions that are none have no order
        return False


def _check_expressions(release: Declared[HelmRelease]) -> None:
    """Raises ExpressionError for health checks that do not compile: they are needed when the
    release is out, and must be known to be of use before.
    """
    try:
        CustomRules(release.resource.spec.health_check_exprs)
    except ExpressionError as error:
        path = ("spec", "healthCheckExprs")
        raise ExpressionError(
            error.what,
            where=release.where_is(path),
            next_step=error.next_step,
            field=dotted(path),
        ) from None
