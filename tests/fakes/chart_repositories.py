"""Chart repositories in memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from helmops.errors import (
    ChartNotFound,
    ChartRefused,
    SignatureRefused,
    SourceError,
    SourceMissing,
    SourceUnavailable,
)
from helmops.model.charts import ChartArtifact, ChartVersion
from helmops.model.credentials import HttpCredentials
from helmops.model.declarations import HelmRepositorySpec
from tests.fakes.chart_archives import sha256


@dataclass
class _Offer:
    charts: dict[str, list[ChartVersion]] = field(default_factory=dict)
    failure: SourceError | None = None
    changed: bool = True


class FakeChartRepositories:
    """A `ChartRepositories` whose repositories offer what tests say.

    News are seen by `refresh`, or at once where `polls` is true (an interval that is always over);
    without news, the very same list is given again, as by the real one.
    `asked` keeps every call: `("versions", url, chart)`, `("pull", url, "chart-version")`,
    `("refresh", url, "")`.
    """

    def __init__(self, *, polls: bool = True) -> None:
        self.polls = polls
        self.asked: list[tuple[str, str, str]] = []
        #: Names of charts that are library charts.
        self.libraries: set[str] = set()
        #: Who signed, by "chart-version".
        self.signers: dict[str, str] = {}
        #: What `pull` raises, by "chart-version".
        self.refused: dict[str, ChartRefused | SourceError] = {}
        #: What the last pull had to be signed with.
        self.keys: tuple[bytes, ...] = ()
        self._offered: dict[str, _Offer] = {}
        self._seen: dict[str, dict[str, tuple[ChartVersion, ...]]] = {}

    def offer(self, url: str, chart: str, *versions: str | ChartVersion) -> None:
        """Let a repository list these versions of a chart, beside what it lists already; given
        as text they have a digest of their own and no date."""
        offer = self._offered.setdefault(url, _Offer())
        listed = offer.charts.setdefault(chart, [])
        for version in versions:
            if isinstance(version, str):
                version = ChartVersion(
                    name=chart,
                    version=version,
                    urls=(f"{chart}-{version}.tgz",),
                    digest=sha256(f"{url} {chart} {version}".encode()),
                )
            listed.append(version)
        offer.changed = True

    def withdraw(self, url: str, chart: str, version: str) -> None:
        """Take a version from the list."""
        offer = self._offered[url]
        offer.charts[chart] = [one for one in offer.charts[chart] if one.version != version]
        offer.changed = True

    def fail(self, url: str, error: SourceError | None) -> None:
        """Let a repository fail, until it is told None."""
        self._offered.setdefault(url, _Offer()).failure = error

    async def versions(
        self,
        repository: HelmRepositorySpec,
        chart: str,
        credentials: HttpCredentials,
        wanted: str = "",
    ) -> tuple[ChartVersion, ...]:
        self.asked.append(("versions", repository.url, chart))
        if self.polls or repository.url not in self._seen:
            try:
                self._poll(repository.url)
            except SourceUnavailable:
                if repository.url not in self._seen:
                    raise
        listed = self._seen[repository.url].get(chart)
        if not listed:
            raise ChartNotFound(f"no chart {chart} in the repository", where=repository.url)
        return listed

    async def trouble(self, repository: HelmRepositorySpec, credentials: HttpCredentials) -> str:
        offer = self._offered.get(repository.url)
        return str(offer.failure) if offer is not None and offer.failure is not None else ""

    async def pull(
        self,
        repository: HelmRepositorySpec,
        version: ChartVersion,
        credentials: HttpCredentials,
        keys: Sequence[bytes] = (),
    ) -> ChartArtifact:
        self.keys = tuple(keys)
        named = f"{version.name}-{version.version}"
        self.asked.append(("pull", repository.url, named))
        if named in self.refused:
            raise self.refused[named]
        return ChartArtifact(
            name=version.name,
            version=version.version,
            path=f"/cache/{named}.tgz",
            digest=version.digest or sha256(named.encode()),
            source=repository.url,
            revision=version.version,
            app_version=version.app_version,
            deprecated=version.deprecated,
            is_library=version.name in self.libraries,
        )

    async def signer(
        self,
        repository: HelmRepositorySpec,
        version: ChartVersion,
        artifact: ChartArtifact,
        credentials: HttpCredentials,
        keys: Mapping[str, bytes],
    ) -> str:
        """Signed by whoever `signers` says, if their name is among the keys."""
        name = self.signers.get(f"{version.name}-{version.version}", "")
        if name not in keys:
            raise SignatureRefused(f"{version.name} {version.version} is not signed")
        return name

    async def refresh(self, repository: HelmRepositorySpec, credentials: HttpCredentials) -> bool:
        self.asked.append(("refresh", repository.url, ""))
        return self._poll(repository.url)

    def _poll(self, url: str) -> bool:
        offer = self._offered.get(url)
        if offer is None:
            raise SourceMissing("the server answered 404", where=url)
        if offer.failure is not None:
            raise offer.failure
        changed, offer.changed = offer.changed, False
        if changed or url not in self._seen:
            self._seen[url] = {chart: tuple(listed) for chart, listed in offer.charts.items()}
        return changed
