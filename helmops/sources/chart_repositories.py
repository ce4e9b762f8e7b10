"""Chart repositories of either sort: with an index over HTTP, or in a registry (`oci://`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from helmops.errors import ChartRefused, SignatureRefused, SourceInvalid
from helmops.http import shown_url
from helmops.model.charts import ChartArtifact, ChartVersion
from helmops.model.credentials import HttpCredentials
from helmops.model.declarations import HelmRepositorySpec
from helmops.sources.helm_repository import HelmRepositories
from helmops.sources.oci_artifacts import OciArtifacts
from helmops.sources.oci_reference import SCHEME


class AnyRepositories:
    """The `ChartRepositories` of the real world: goes by the scheme of the repository's URL."""

    def __init__(self, http: HelmRepositories, oci: OciArtifacts) -> None:
        self._http = http
        self._oci = oci

    async def versions(
        self,
        repository: HelmRepositorySpec,
        chart: str,
        credentials: HttpCredentials,
        wanted: str = "",
    ) -> tuple[ChartVersion, ...]:
        """All entries of one chart. Raises SourceError, ChartNotFound."""
        if _is_registry(repository):
            return await self._oci.chart_versions(repository, chart, credentials, wanted)
        return await self._http.versions(repository, chart, credentials)

    async def trouble(self, repository: HelmRepositorySpec, credentials: HttpCredentials) -> str:
        """What went wrong at the last poll, where what was offered before stands; else empty."""
        if _is_registry(repository):
            return await self._oci.trouble_of_charts(repository, credentials)
        return await self._http.trouble(repository, credentials)

    async def pull(
        self,
        repository: HelmRepositorySpec,
        version: ChartVersion,
        credentials: HttpCredentials,
        keys: Sequence[bytes] = (),
    ) -> ChartArtifact:
        """The archive. Raises SourceError, ChartRefused, SignatureRefused."""
        if _is_registry(repository):
            return await self._oci.pull_chart(repository, version, credentials, keys)
        if keys:
            raise SignatureRefused(
                "only charts in registries have such signatures",
                where=shown_url(repository.url),
                next_step="remove `verify`, or take the chart from a registry",
            )
        if version.urls and all(url.startswith(SCHEME) for url in version.urls):
            return await self._pull_elsewhere(repository, version, credentials)
        return await self._http.pull(repository, version, credentials)

    async def signer(
        self,
        repository: HelmRepositorySpec,
        version: ChartVersion,
        artifact: ChartArtifact,
        credentials: HttpCredentials,
        keys: Mapping[str, bytes],
    ) -> str:
        """Who signed an archive, by the provenance beside it. Raises SourceError,
        SignatureRefused, ValuesError.
        """
        if _is_registry(repository):
            raise SignatureRefused(
                "provenance files are read beside archives in repositories over HTTP only",
                where=shown_url(repository.url),
                next_step="sign charts in registries with cosign, and set `verify`",
            )
        return await self._http.signer(repository, version, artifact, credentials, keys)

    async def refresh(self, repository: HelmRepositorySpec, credentials: HttpCredentials) -> bool:
        """Ask now; whether anything changed. Raises SourceError."""
        if _is_registry(repository):
            return await self._oci.refresh_charts(repository, credentials)
        return await self._http.refresh(repository, credentials)

    async def _pull_elsewhere(
        self, repository: HelmRepositorySpec, version: ChartVersion, credentials: HttpCredentials
    ) -> ChartArtifact:
        """A chart that an index over HTTP has in a registry, which gets the credentials only where
        the declaration says that they may be passed on.
        """
        above, _, tagged = version.urls[0].rpartition("/")
        chart, _, tag = tagged.partition("@")[0].partition(":")
        if not repository.pass_credentials:
            credentials = HttpCredentials(ca=credentials.ca, proxy=credentials.proxy)
        registry = repository.model_copy(update={"url": above, "insecure": False})
        wanted = replace(version, name=chart, version=tag.replace("_", "+"))
        artifact = await self._oci.pull_chart(registry, wanted, credentials)
        if version.digest and artifact.digest != version.digest:
            raise ChartRefused(
                f"the archive is not the one that the index describes: its SHA-256 is"
                f" {artifact.digest}, the index says {version.digest}",
                where=str(version.urls[0]),
                next_step="the repository must publish an index that fits its archives",
            )
        return artifact


def _is_registry(repository: HelmRepositorySpec) -> bool:
    if repository.url.startswith(SCHEME):
        return True
    if repository.type == "oci":
        raise SourceInvalid(
            "a repository of the type oci needs a URL that begins with oci://",
            where=shown_url(repository.url),
        )
    return False
