"""Charts in OCI registries: which versions there are, and the archives.

What registries say is asked and kept by `oci_knowledge`, the archives are kept by their digests: an
upgrade of what is at hand needs no registry. Archives are looked through (`archive`) before they
get their name there.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final
from weakref import WeakValueDictionary

from helmops.errors import ChartNotFound, ChartRefused, SourceError, VersionError
from helmops.http import Http
from helmops.model.charts import ChartArtifact, ChartVersion
from helmops.model.credentials import HttpCredentials
from helmops.model.declarations import HelmRepositorySpec, OCIRepositorySpec
from helmops.resolve.version import Version
from helmops.sources.archive import ArchiveLimits, ChartFacts, inspect_archive
from helmops.sources.artifact_cache import ArtifactCache
from helmops.sources.cache_files import disk_errors
from helmops.sources.oci_knowledge import (
    MOST_REPOSITORIES,
    Known,
    OciKnowledge,
    Ref,
    Wanted,
    checked_tag,
    layer_of_type,
    of_artifact,
    refuse_want_of_key,
    tag_in,
)
from helmops.sources.oci_reference import OciRepository, tag_of_version, version_of_tag
from helmops.sources.oci_registry import Descriptor, Manifest, OciRegistry

#: Media types of Helm's artifacts.
HELM_CONFIG: Final = "application/vnd.cncf.helm.config.v1+json"
HELM_CONTENT: Final = "application/vnd.cncf.helm.chart.content.v1.tar+gzip"
_OLD_HELM_CONTENT: Final = "application/tar+gzip"
_IMAGE_CONFIGS: Final = frozenset(
    {
        "application/vnd.oci.image.config.v1+json",
        "application/vnd.docker.container.image.v1+json",
    }
)

#: Seconds that a chart of a repository is polled after somebody asked for it.
_ASKED_KEPT: Final = 24 * 3600.0

_MOST_FACTS: Final = 4096


class OciArtifacts:
    """The `OciArtifacts` port of the real world, and what is in registries of `ChartRepositories`
    (`OciChartRepositories`).
    """

    def __init__(
        self,
        http: Http,
        cache: Path,
        *,
        artifacts: ArtifactCache | None = None,
        limits: ArchiveLimits | None = None,
        registry: OciRegistry | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """`cache` is a directory of our own, which other processes may share; it is made where it
        is missing. `artifacts` defaults to a part of it.
        """
        self.knowledge = OciKnowledge(http, cache, registry=registry, monotonic=monotonic)
        self._directory = self.knowledge.directory
        self._artifacts = artifacts or ArtifactCache(cache / "charts")
        self._limits = limits or ArchiveLimits()
        self._monotonic = monotonic
        self._pulls: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._facts: OrderedDict[str, ChartFacts] = OrderedDict()
        #: SHA-256 of layers that a registry knows by another digest.
        self._other_digests: dict[str, str] = {}
        #: By repository of charts: what was asked of it, and when.
        self._charts: dict[tuple[str, bool, HttpCredentials], OrderedDict[Wanted, float]] = {}

    # The port.

    async def versions(
        self, repository: OCIRepositorySpec, credentials: HttpCredentials
    ) -> tuple[ChartVersion, ...]:
        """What `ref` names: one entry for a digest or a tag, for a range one for each tag that is a
        version. The very same tuple as long as nothing changed. Raises SourceError,
        ConstraintError for a `semverFilter` that is no regular expression.
        """
        return await self.knowledge.versions(of_artifact(repository, credentials))

    async def pull(
        self,
        repository: OCIRepositorySpec,
        version: ChartVersion,
        credentials: HttpCredentials,
        keys: Sequence[bytes] = (),
    ) -> ChartArtifact:
        """The archive of one of these versions, checked and at hand; its `revision` is Flux's
        (`1.2.3@sha256:…`). `keys` are PEM texts, of which one must have signed it where there are
        any. Raises SourceError, ChartRefused, SignatureRefused.
        """
        asked = of_artifact(repository, credentials)
        refuse_want_of_key(repository, asked, keys)
        return await self._pull(asked, version, keys)

    async def refresh(self, repository: OCIRepositorySpec, credentials: HttpCredentials) -> bool:
        """Ask now; whether anything changed. Raises SourceError."""
        return await self.knowledge.refresh(of_artifact(repository, credentials))

    async def trouble(self, repository: OCIRepositorySpec, credentials: HttpCredentials) -> str:
        """What went wrong at the last poll, where what was there before stands; else empty."""
        return await self.knowledge.trouble(of_artifact(repository, credentials))

    # Charts of a HelmRepository whose URL begins with oci://.

    async def chart_versions(
        self,
        repository: HelmRepositorySpec,
        chart: str,
        credentials: HttpCredentials,
        wanted: str = "",
    ) -> tuple[ChartVersion, ...]:
        """The versions of a chart in a registry; only the `wanted` one where that is a version and
        no range. Raises SourceError, ChartNotFound.
        """
        asked = _of_chart(repository, chart, credentials, wanted)
        self._note(repository, credentials, asked)
        versions = await self.knowledge.versions(asked)
        if not versions:
            raise ChartNotFound(
                f"no tag of {asked.repository.name} is a version", where=str(asked.repository)
            )
        return versions

    async def pull_chart(
        self,
        repository: HelmRepositorySpec,
        version: ChartVersion,
        credentials: HttpCredentials,
        keys: Sequence[bytes] = (),
    ) -> ChartArtifact:
        """As `pull`; the artifact's `revision` is its version."""
        asked = _of_chart(repository, version.name, credentials, version.version)
        return await self._pull(asked, version, keys)

    async def refresh_charts(
        self, repository: HelmRepositorySpec, credentials: HttpCredentials
    ) -> bool:
        """Ask for all charts of this repository that somebody asked for; whether anything changed.

        One that fails does not keep the others from being asked. Raises SourceError where all do.
        """
        noted = self._charts.get((repository.url, repository.insecure, credentials))
        asked = list(noted or ())
        changed, failures = False, []
        for one in asked:
            try:
                changed = await self.knowledge.refresh(one) or changed
            except SourceError as error:
                failures.append(error)
        if failures and len(failures) == len(asked):
            raise failures[0]
        return changed

    async def trouble_of_charts(
        self, repository: HelmRepositorySpec, credentials: HttpCredentials
    ) -> str:
        """As `trouble`, of the charts of this repository that somebody asked for."""
        asked = self._charts.get((repository.url, repository.insecure, credentials))
        told = [await self.knowledge.trouble(one) for one in list(asked or ())]
        return next(filter(None, told), "")

    def _note(
        self, repository: HelmRepositorySpec, credentials: HttpCredentials, asked: Wanted
    ) -> None:
        """What polls of the repository ask for: all that was asked within a day."""
        now = self._monotonic()
        noted = self._charts.setdefault(
            (repository.url, repository.insecure, credentials), OrderedDict()
        )
        while len(self._charts) > MOST_REPOSITORIES:
            del self._charts[next(iter(self._charts))]
        noted[asked] = now
        noted.move_to_end(asked)
        while noted and next(iter(noted.values())) < now - _ASKED_KEPT:
            noted.popitem(last=False)

    # Pulling.

    async def _pull(
        self, asked: Wanted, version: ChartVersion, keys: Sequence[bytes]
    ) -> ChartArtifact:
        known = await self.knowledge.known(asked)
        tag, digest = "", asked.ref.digest
        if not digest:
            tag = asked.ref.tag or tag_in(version, asked.repository)
            digest = await self.knowledge.pinned(known, replace(asked, ref=Ref(tag=tag)))
            known.in_use.add(tag)
        lock = self._pulls.setdefault(digest, asyncio.Lock())
        async with lock:
            return await self._artifact(known, asked, tag, digest, keys)

    async def _artifact(
        self, known: Known, asked: Wanted, tag: str, digest: str, keys: Sequence[bytes]
    ) -> ChartArtifact:
        where = f"{asked.repository}:{tag}" if tag else f"{asked.repository}@{digest}"
        if keys:
            await self.knowledge.check_signature(known, asked, digest, keys, where)
        layer = _layer_of(await self.knowledge.manifest(known, asked, digest), asked, where)
        if layer.size > self._limits.packed:
            raise ChartRefused(
                f"the chart is larger than {self._limits.packed >> 20} MiB", where=where
            )
        path, sha256 = await self._at_hand(layer) or await self._fetch(asked, layer, where)
        facts = await self._facts_of(path, sha256, where)
        _check_facts(facts, asked, tag, where)
        return ChartArtifact(
            name=facts.name,
            version=facts.version,
            path=str(path),
            digest=sha256,
            source=str(asked.repository),
            revision=facts.version if asked.chart else f"{tag}@{digest}".removeprefix("@"),
            app_version=facts.app_version,
            deprecated=facts.deprecated,
            annotations=facts.annotations,
            is_library=facts.is_library,
        )

    async def _at_hand(self, layer: Descriptor) -> tuple[Path, str] | None:
        algorithm, _, value = layer.digest.partition(":")
        sha256 = value if algorithm == "sha256" else self._other_digests.get(layer.digest, "")
        if not sha256:
            return None
        with disk_errors(self._directory), contextlib.suppress(FileNotFoundError):
            path = await asyncio.to_thread(self._artifacts.find, sha256)
            return (path, sha256) if path is not None else None
        return None

    async def _fetch(self, asked: Wanted, layer: Descriptor, where: str) -> tuple[Path, str]:
        """Stream the layer to the cache; it is looked through before it gets its name there."""
        with disk_errors(self._directory), self._artifacts.incoming() as incoming:
            sha256 = await self.knowledge.download(asked, layer, incoming)
            await self._facts_of(incoming, sha256, where)
            path = await asyncio.to_thread(self._artifacts.add, incoming, sha256)
        if not layer.digest.startswith("sha256:"):
            self._other_digests[layer.digest] = sha256
        return path, sha256

    async def _facts_of(self, path: Path, sha256: str, where: str) -> ChartFacts:
        facts = self._facts.get(sha256)
        if facts is None:
            facts = await asyncio.to_thread(inspect_archive, path, where, self._limits)
            self._facts[sha256] = facts
            while len(self._facts) > _MOST_FACTS:
                self._facts.popitem(last=False)
        return facts


def _of_chart(
    spec: HelmRepositorySpec, chart: str, credentials: HttpCredentials, wanted: str
) -> Wanted:
    """What a chart of a HelmRepository in a registry wants. Raises SourceInvalid."""
    repository = OciRepository.parse(f"{spec.url.rstrip('/')}/{chart}", insecure=spec.insecure)
    is_version = version_of_tag(tag_of_version(wanted), leading_v=True) is not None
    ref = Ref(tag=checked_tag(tag_of_version(wanted), repository)) if is_version else Ref()
    return Wanted(
        repository,
        credentials,
        ref,
        spec.interval,
        spec.timeout,
        chart=chart,
    )


# What is in an artifact.


def _layer_of(manifest: Manifest, asked: Wanted, where: str) -> Descriptor:
    """The layer that is the chart. Raises ChartRefused."""
    if manifest.is_index:
        raise _no_chart("an index of several manifests (an image for several platforms?)", where)
    if asked.layer:
        return layer_of_type(manifest, asked.layer, where)
    by_type = {layer.media_type: layer for layer in reversed(manifest.layers)}
    if manifest.config_type in _IMAGE_CONFIGS and HELM_CONTENT not in by_type:
        raise _no_chart("a container image", where)
    if asked.chart and manifest.config_type != HELM_CONFIG:
        raise _no_chart(f"of the type {manifest.config_type[:100] or '(none)'}", where)
    for kind in (HELM_CONTENT, _OLD_HELM_CONTENT):
        if kind in by_type:
            return by_type[kind]
    if asked.chart or not manifest.layers:
        raise _no_chart("without a layer that could be one", where)
    return manifest.layers[0]


def _no_chart(what: str, where: str) -> ChartRefused:
    return ChartRefused(
        f"the artifact is no Helm chart but {what}",
        where=where,
        next_step="charts are put into registries with helm push",
    )


def _check_facts(facts: ChartFacts, asked: Wanted, tag: str, where: str) -> None:
    """That the archive is what its repository and tag say. Raises ChartRefused."""
    spelt = version_of_tag(tag, leading_v=True) if tag else None
    same = spelt is None or _same_version(spelt, facts.version, exactly=bool(asked.chart))
    if not same or (asked.chart and facts.name != asked.chart.rpartition("/")[2]):
        raise ChartRefused(
            f"the artifact holds {facts.name} {facts.version}, which is not what its repository"
            " and tag say",
            where=where,
            next_step="push the chart under its own name and version",
        )


def _same_version(one: str, other: str, *, exactly: bool) -> bool:
    """Whether two texts are one version; build metadata counts only where that is asked for."""
    try:
        first, second = Version.parse(one), Version.parse(other)
    except VersionError:
        return False
    return str(first) == str(second) if exactly else first == second
