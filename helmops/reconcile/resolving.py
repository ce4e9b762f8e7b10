"""Fetch, resolve, compose: from a declaration to the chart and values that it means now."""

from __future__ import annotations

import logging
import posixpath
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from operator import itemgetter
from typing import Any, Literal

from pydantic import BaseModel

from helmops.decide.backoff import backoff
from helmops.decide.quarantine import in_force, said_of
from helmops.errors import (
    ChartRefused,
    ExpressionError,
    Follows,
    HelmopsError,
    NotSupported,
    SignatureRefused,
    SourceError,
    SourceUnavailable,
    VersionError,
)
from helmops.health import CustomRules
from helmops.model.actions import Desired, Target, Unresolved
from helmops.model.charts import ChartArtifact, ChartVersion, Tree
from helmops.model.credentials import HttpCredentials
from helmops.model.declarations import (
    ChartVerification,
    Defaults,
    GitRepository,
    HelmRelease,
    HelmReleaseSpec,
    HelmRepository,
    HelmRepositorySpec,
    OCIRepository,
    OCIVerification,
    ReleasePolicySpec,
    with_defaults,
)
from helmops.model.declarations.unsupported import command_places
from helmops.model.declared import DeclarationSet, Declared, KindKey, SourceFile, template_of
from helmops.model.documents import dotted
from helmops.model.post_rendering import PostRendering
from helmops.model.records import Quarantined, Record, Verdict
from helmops.model.releases import DeclarationKey, ReleaseId
from helmops.reconcile.credentials import CredentialReader
from helmops.reconcile.dependencies import not_ready
from helmops.reconcile.ports import (
    ChartBuilder,
    ChartRepositories,
    Clock,
    Decrypt,
    DependencyFetch,
    GitTrees,
    Helm,
    OciRepositories,
    TreeFiles,
)
from helmops.reconcile.secrets import DeclaredSecrets
from helmops.reconcile.trees import Trees, directory_beside
from helmops.reconcile.values import ValuesReader, as_it_is
from helmops.resolve.digest import config_digest
from helmops.resolve.layers import composed
from helmops.resolve.post_rendering import post_rendering_of
from helmops.resolve.selection import Choice, UpgradeAllow, choose
from helmops.resolve.version import Version

log = logging.getLogger(__name__)

#: A source that fails is asked again no later than this.
_LONGEST_RETRY = timedelta(minutes=5)


@dataclass(frozen=True, slots=True)
class _Chart:
    artifact: ChartArtifact
    choice: str
    held_back: tuple[str, ...] = ()
    is_downgrade: bool = False
    is_yanked: bool = False
    #: Somebody published it under its version, and is not expected to change it.
    is_published: bool = False
    follows_content: bool = False


@dataclass(frozen=True, slots=True)
class _Limits:
    """What limits the choice among a chart's versions."""

    deployed: str
    policy: ReleasePolicySpec
    quarantine: tuple[Quarantined, ...] = ()
    #: The digest of the archive that the deployed version was released from; empty where unknown.
    released_from: str = ""

    def retagged_from(self, chart: _Chart) -> str:
        """The digest that the deployed version had, where it has another one now; else empty."""
        digest = chart.artifact.upstream_digest or chart.artifact.digest
        is_same = _without_build(chart.artifact.version) == _without_build(self.deployed)
        known = self.released_from
        return known if chart.is_published and is_same and known not in ("", digest) else ""

    def bar(self, version: ChartVersion) -> str:
        """Why a version is not to be chosen while there is another."""
        return self.why_quarantined(version.name, version.version, version.digest)

    def why_quarantined(self, chart: str, version: str, digest: str) -> str:
        """Why a chart version is in quarantine; empty where it is not."""
        found = (q for q in self.quarantine if q.means(chart, version, digest))
        return next((said_of(q) for q in found), "")


@dataclass(frozen=True, slots=True)
class _Memo:
    """What a resolution was made of; the same parts make the same target."""

    declarations: DeclarationSet
    versions: tuple[ChartVersion, ...]
    deployed: str
    quarantine: tuple[Quarantined, ...]
    released_from: str
    desired: Desired


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
        artifacts: OciRepositories,
        git: GitTrees,
        builder: ChartBuilder,
        files: TreeFiles,
        references: DeclaredSecrets,
        defaults: Defaults,
        decrypt: Decrypt = as_it_is,
        location_of: Callable[[SourceFile], str] = lambda file: file.root,
        observe_only: bool = False,
        allow_commands: bool = False,
    ) -> None:
        self._clock = clock
        self._helm = helm
        self._repositories = repositories
        self._artifacts = artifacts
        self._builder = builder
        self._references = references
        self._credentials = CredentialReader(references)
        self._trees = Trees(clock=clock, git=git, credentials=self._credentials)
        self._values = ValuesReader(
            references=references, trees=self._trees, files=files, decrypt=decrypt
        )
        self._defaults = defaults
        self._location_of = location_of
        self._observe_only = observe_only
        self._allow_commands = allow_commands
        self._memo: dict[DeclarationKey, _Memo] = {}
        #: What repositories of charts and artifacts were opened with last.
        self._opened_with: dict[KindKey, HttpCredentials] = {}
        self._failures: dict[DeclarationKey, int] = {}
        self._told_of_hooks: set[DeclarationKey] = set()
        self._offered: dict[DeclarationKey, tuple[ChartVersion, ...]] = {}

    def wanted(self, declarations: DeclarationSet, key: DeclarationKey) -> WantedRelease:
        """The declared release of that key, to be resolved when a pass asks."""
        self._references.declarations = declarations
        return WantedRelease(self, declarations, declarations.releases[key])

    def forget(self, key: DeclarationKey) -> None:
        """A declaration is gone."""
        self._memo.pop(key, None)
        self._failures.pop(key, None)

    async def poll(self, source: Declared[Any]) -> bool:
        """Ask a source now; whether anything changed. Raises SourceError."""
        if isinstance(source.resource, HelmRepository):
            return await self.poll_repository(source)
        if isinstance(source.resource, OCIRepository):
            return await self.poll_artifact(source)
        if isinstance(source.resource, GitRepository):
            return await self.poll_git(source)
        return False

    async def poll_repository(self, source: Declared[HelmRepository]) -> bool:
        """Ask a chart repository now; whether anything changed. Raises SourceError."""
        credentials = await self._http_credentials(source)
        return await self._repositories.refresh(source.resource.spec, credentials)

    async def poll_artifact(self, source: Declared[OCIRepository]) -> bool:
        """Ask a registry now; whether an artifact is another one, also where a declaration of the
        same artifact was told before this one. Raises SourceError.
        """
        spec = source.resource.spec
        credentials = await self._registry_credentials(source)
        changed = await self._artifacts.refresh(spec, credentials)
        before = self._offered.get(source.key)
        now = self._offered[source.key] = await self._artifacts.versions(spec, credentials)
        return changed or (before is not None and before is not now)

    async def poll_git(self, source: Declared[GitRepository]) -> bool:
        """Ask a Git repository now; whether it has another revision. Raises SourceError."""
        return await self._trees.poll(source)

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
        quarantine = in_force(release.key, records, self._clock.now())
        released_from = _released_from(records.get(release.key), deployed)
        known = self._memo.get(release.key)
        if (
            known is not None
            and known.declarations is declarations
            and known.deployed == deployed
            and known.quarantine == quarantine
            and known.released_from == released_from
            and await self._has_same_versions(known, declarations, release)
        ):
            desired = await self._with_trouble(known.desired, declarations, release)
            return self._with_dependencies(desired, release, declarations, records)
        desired = self._template(declarations, release)
        versions: tuple[ChartVersion, ...] | None = None
        try:
            self._refuse_unsupported(declarations, release)
            _check_expressions(release)
            spec = self._with_chart(desired.spec, declarations, release)
            limits = _Limits(deployed, desired.policy, quarantine, released_from)
            chart, versions = await self._chart(declarations, release, spec, limits)
            values = composed(await self._values.layers(declarations, release))
            rendering = post_rendering_of(spec, helm_major=self._helm.major)
            self._tell_of_hooks(release, rendering)
            desired = replace(
                desired,
                target=Target(
                    chart=replace(chart.artifact, post_rendering=rendering),
                    values=values,
                    config_digest=config_digest(values),
                    choice=chart.choice,
                    held_back=chart.held_back,
                    downgrade_from=deployed if chart.is_downgrade else "",
                    yanked=deployed if chart.is_yanked else "",
                    retagged_from=limits.retagged_from(chart),
                    follows_content=chart.follows_content,
                    quarantined=limits.why_quarantined(
                        chart.artifact.name, chart.artifact.version, chart.artifact.digest
                    ),
                ),
            )
            self._failures.pop(release.key, None)
        except HelmopsError as error:
            desired = replace(desired, target=self._unresolved(release.key, error))
        is_memorable = versions is not None and not release.resource.spec.values_from
        if versions is not None and is_memorable and isinstance(desired.target, Target):
            self._memo[release.key] = _Memo(
                declarations, versions, deployed, quarantine, released_from, desired
            )
        else:
            self._memo.pop(release.key, None)
        desired = await self._with_trouble(desired, declarations, release)
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
            commit=release.file.revision,
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

    async def _with_trouble(
        self, desired: Desired, declarations: DeclarationSet, release: Declared[HelmRelease]
    ) -> Desired:
        """With what went wrong at the source, where the target is of what it offered last."""
        target = desired.target
        if not isinstance(target, Target):
            return desired
        trouble = ""
        source = declarations.source_of(release)
        if source is None:
            return desired
        opened = (source.resource.kind, source.key)
        if isinstance(source.resource, HelmRepository):
            credentials = self._opened_with.get(opened, HttpCredentials())
            trouble = await self._repositories.trouble(source.resource.spec, credentials)
        elif isinstance(source.resource, OCIRepository):
            credentials = self._opened_with.get(opened, HttpCredentials())
            trouble = await self._artifacts.trouble(source.resource.spec, credentials)
        elif isinstance(source.resource, GitRepository):
            trouble = self._trees.trouble(opened)
        return (
            replace(desired, target=replace(target, fetch_failed=trouble)) if trouble else desired
        )

    def _with_dependencies(
        self,
        desired: Desired,
        release: Declared[HelmRelease],
        declarations: DeclarationSet,
        records: Mapping[DeclarationKey, Record],
    ) -> Desired:
        if not release.resource.spec.depends_on and release.key not in declarations.first_waits:
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
            if source is None:
                return False
            if isinstance(source.resource, OCIRepository):
                credentials = await self._registry_credentials(source)
                versions = await self._artifacts.versions(source.resource.spec, credentials)
                return versions is known.versions
            chart = declarations.chart_of(release)
            if chart is None or not isinstance(source.resource, HelmRepository):
                return False
            credentials = await self._http_credentials(source)
            versions = await self._repositories.versions(
                source.resource.spec, chart.spec.chart, credentials, chart.spec.version or ""
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
        refused = [
            *declarations.unsupported(release.key),
            *self._unknown_to_helm(release),
            *(() if self._allow_commands else _commands(declarations, release.key)),
        ]
        if refused:
            raise NotSupported("; ".join(str(error) for error in refused))

    def _unknown_to_helm(self, release: Declared[HelmRelease]) -> Iterator[NotSupported]:
        spec = release.resource.spec
        strategy = spec.post_render_strategy
        is_rendered = post_rendering_of(spec, helm_major=self._helm.major) is not None
        if is_rendered and self._helm.unsupported("postRenderStrategy", strategy):
            place = ("spec", "postRenderStrategy")
            yield NotSupported(
                f"helm {self._helm.major} gives post-renderers no hooks, so only `nohooks` is true",
                where=release.where_is(place),
                field=dotted(place),
                next_step="ask for `nohooks`, or use helm 4",
            )
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

    def _tell_of_hooks(
        self, release: Declared[HelmRelease], rendering: PostRendering | None
    ) -> None:
        """Say once of a release that its hooks are left out, where nobody asked for that."""
        is_left_out = rendering is not None and rendering.is_default and self._helm.major < 4
        if is_left_out and release.key not in self._told_of_hooks:
            self._told_of_hooks.add(release.key)
            log.warning(
                "%s: helm %s gives post-renderers no hooks, so these stay as the chart has them; "
                "`postRenderStrategy: nohooks` says that this is meant",
                release.key,
                self._helm.major,
                extra={"action": "resolve"},
            )

    # Charts

    async def _chart(
        self,
        declarations: DeclarationSet,
        release: Declared[HelmRelease],
        spec: HelmReleaseSpec,
        limits: _Limits,
    ) -> tuple[_Chart, tuple[ChartVersion, ...] | None]:
        deployed = limits.deployed
        source = declarations.source_of(release)
        if limits.policy.upgrade.provenance is not None and (
            source is None or not isinstance(source.resource, HelmRepository)
        ):
            raise SignatureRefused(
                "upgrade.provenance of its policy asks for Helm's provenance, which only charts of "
                "a HelmRepository have",
                where=release.where,
                next_step="verify commits by a GitRepository's `verify`, registries by cosign",
            )
        if source is None:
            if spec.chart is None:  # a `chartRef` that is refused before
                raise NotSupported("chartRef is not acted on yet", where=release.where)
            fetch = self._dependencies_of(declarations, release.key.namespace)
            return await self._chart_of_directory(release, spec, deployed, fetch), None
        resource: Any = source.resource
        if resource.spec.suspend:
            raise _suspended(source)
        if isinstance(source.resource, HelmRepository):
            return await self._chart_of_repository(source, release, spec, limits)
        if isinstance(source.resource, OCIRepository):
            return await self._chart_of_artifact(source, limits)
        if isinstance(source.resource, GitRepository):
            tree = await self._trees.of(declarations, source)
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
        limits: _Limits,
    ) -> tuple[_Chart, tuple[ChartVersion, ...]]:
        assert spec.chart is not None  # noqa: S101 - asked before
        wanted = spec.chart.spec
        repository = source.resource.spec
        credentials = await self._http_credentials(source)
        versions = await self._repositories.versions(
            repository, wanted.chart, credentials, wanted.version or ""
        )
        said = limits.policy.upgrade.allow
        allow = UpgradeAllow(said) if said else None
        if allow is None and not wanted.version:
            # Nobody asked for a version: the newest, and then no new major by itself.
            allow = UpgradeAllow.MINOR
        choice = self._choose(versions, wanted.version or "", limits, allow, str(source.key))
        signers = await self._public_keys(source, wanted.verify)
        artifact = await self._repositories.pull(repository, choice.selected, credentials, signers)
        _refuse_library(artifact, source)
        signer = ""
        if limits.policy.upgrade.provenance is not None:
            keys = await self._credentials.files(
                release.key.namespace, limits.policy.upgrade.provenance.keyring_secret_ref
            )
            signer = await self._repositories.signer(
                repository, choice.selected, artifact, credentials, keys
            )
        if wanted.values_files:
            artifact = await self._builder.with_values_files(
                artifact,
                wanted.values_files,
                ignore_missing_values_files=wanted.ignore_missing_values_files,
            )
        chart = _Chart(
            artifact=artifact,
            choice=f"{choice.reason}, signed by {signer}" if signer else choice.reason,
            held_back=tuple(f"{held.version}: {held.why}" for held in choice.held_back),
            is_downgrade=choice.is_downgrade,
            is_yanked=_is_gone(limits.deployed, versions, wanted.version or ""),
            is_published=True,
            # Other values files make another chart of the same version.
            follows_content=bool(wanted.values_files),
        )
        return chart, versions

    async def _chart_of_artifact(
        self, source: Declared[Any], limits: _Limits
    ) -> tuple[_Chart, tuple[ChartVersion, ...]]:
        """The chart that an OCIRepository is. A policy's limits count for tags as for ranges."""
        repository = source.resource.spec
        credentials = await self._registry_credentials(source)
        keys = await self._public_keys(source, repository.verify)
        versions = await self._artifacts.versions(repository, credentials)
        self._offered.setdefault(source.key, versions)
        said = limits.policy.upgrade.allow
        allow = UpgradeAllow(said) if said else None
        ref, where = repository.ref, f"OCIRepository {source.key}"
        if ref.semver and not ref.digest:
            choice = self._choose(versions, ref.semver, limits, allow, where)
            artifact = await self._artifacts.pull(repository, choice.selected, credentials, keys)
            reason = choice.reason
        else:
            artifact = await self._artifacts.pull(repository, versions[0], credentials, keys)
            only = (ChartVersion(artifact.name, artifact.version),)
            choice = self._choose(only, artifact.version, limits, allow, where)
            reason = (
                f"{artifact.version} is what {where} has at {ref.digest or ref.tag or 'latest'}"
            )
        _refuse_library(artifact, source)
        # What runs under the published version goes on under it, so that taking over what helm
        # released changes nothing; then it is the content that tells of a tag that moved.
        is_plain = limits.deployed == artifact.version
        is_range = bool(ref.semver and not ref.digest)
        chart = _Chart(
            is_yanked=is_range and _is_gone(limits.deployed, versions, ref.semver),
            is_published=True,
            artifact=replace(artifact, revision=artifact.version)
            if is_plain
            else await self._with_digest(artifact),
            choice=reason,
            held_back=tuple(f"{held.version}: {held.why}" for held in choice.held_back),
            is_downgrade=choice.is_downgrade,
            follows_content=is_plain,
        )
        return chart, versions

    async def _with_digest(self, artifact: ChartArtifact) -> ChartArtifact:
        """The chart with twelve digits of the artifact's digest behind its version, as Flux has it:
        a tag that names something else is another version.
        """
        directory, name = posixpath.split(artifact.path)
        tree = Tree(name=artifact.source, revision=artifact.revision, path=directory)
        built = await self._builder.build(tree, name, version_suffix=_suffix(artifact.revision))
        return replace(
            artifact,
            version=built.version,
            path=built.path,
            digest=built.digest,
            upstream_digest=artifact.digest,
            revision=built.version,
        )

    @staticmethod
    def _choose(
        versions: tuple[ChartVersion, ...],
        wanted: str,
        limits: _Limits,
        allow: UpgradeAllow | None,
        where: str,
    ) -> Choice:
        bar, deployed = limits.bar, limits.deployed
        try:
            return choose(versions, wanted, deployed=deployed, allow=allow, bar=bar, where=where)
        except VersionError:
            # What is deployed has no semantic version, so nothing can be counted from it.
            return choose(versions, wanted, bar=bar, where=where)

    async def _chart_of_directory(
        self,
        release: Declared[HelmRelease],
        spec: HelmReleaseSpec,
        deployed: str,
        fetch: DependencyFetch,
    ) -> _Chart:
        assert spec.chart is not None  # noqa: S101 - asked before
        wanted = spec.chart.spec
        tree = directory_beside(release, wanted.source_ref.name)
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
            versions = await self._repositories.versions(spec, name, credentials, version)
            choice = choose(versions, version, where=f"{spec.url}, for a dependency")
            return await self._repositories.pull(spec, choice.selected, credentials)

        return fetch

    # Credentials

    async def _http_credentials(self, source: Declared[Any]) -> HttpCredentials:
        spec = source.resource.spec
        if spec.url.startswith("oci://"):
            credentials = await self._credentials.for_registry(
                source.key.namespace, spec.url, spec.secret_ref, spec.cert_secret_ref
            )
            self._opened_with[source.resource.kind, source.key] = credentials
            return credentials
        credentials = await self._credentials.for_http(
            source.key.namespace, spec.secret_ref, spec.cert_secret_ref
        )
        self._opened_with[source.resource.kind, source.key] = credentials
        return credentials

    async def _registry_credentials(self, source: Declared[Any]) -> HttpCredentials:
        spec = source.resource.spec
        credentials = await self._credentials.for_registry(
            source.key.namespace,
            spec.url,
            spec.secret_ref,
            spec.cert_secret_ref,
            spec.proxy_secret_ref,
        )
        self._opened_with[source.resource.kind, source.key] = credentials
        return credentials

    async def _public_keys(
        self, source: Declared[Any], verify: ChartVerification | OCIVerification | None
    ) -> tuple[bytes, ...]:
        """The keys of which one must have signed, from a Secret beside the source; none where no
        signature is asked for.
        """
        if verify is None or verify.secret_ref is None:  # without a key it is refused before
            return ()
        return await self._credentials.public_keys(source.key.namespace, verify.secret_ref)


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


def _refuse_library(artifact: ChartArtifact, source: Declared[Any]) -> None:
    if artifact.is_library:
        raise ChartRefused(
            f"{artifact.name} is a library chart: it has nothing to install",
            where=str(source.key),
            next_step="name the chart that uses it",
        )


def _released_from(record: Record | None, deployed: str) -> str:
    """The digest of the archive that the deployed version came from; empty where nobody knows."""
    for snapshot in record.history if record is not None else ():
        if snapshot.chart_version == deployed and snapshot.verdict is not Verdict.FAILED:
            return snapshot.upstream_digest
    return ""


def _is_gone(deployed: str, versions: Sequence[ChartVersion], wanted: str) -> bool:
    """Whether the deployed version is not among those that a source offers. Where exactly one
    version is wanted, registries list no other.
    """
    listed = [version.version for version in versions]
    if not deployed or listed == [wanted]:
        return False
    return _without_build(deployed) not in map(_without_build, listed)


def _without_build(version: str) -> str:
    """A version as it is compared: without build metadata and a leading v."""
    try:
        return str(Version.parse(version)).partition("+")[0]
    except VersionError:
        return version


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


def _commands(declarations: DeclarationSet, key: DeclarationKey) -> Iterator[NotSupported]:
    """The hooks of its policies that are a command."""
    for policy in declarations.policies_of(key):
        for path, what in command_places(policy.resource):
            yield NotSupported(
                what,
                where=policy.where_is(path),
                field=dotted(path),
                next_step="ask whoever runs helmops, or make it a `job` or `webhook`",
            )


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
