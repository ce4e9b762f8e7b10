"""Artifacts in registries, in memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from helmops.errors import (
    ChartRefused,
    SignatureRefused,
    SourceError,
    SourceMissing,
    SourceUnavailable,
)
from helmops.model.charts import ChartArtifact, ChartVersion
from helmops.model.credentials import HttpCredentials
from helmops.model.declarations import OCIRepositorySpec
from tests.fakes.chart_archives import sha256


@dataclass
class _Repository:
    tags: dict[str, ChartArtifact] = field(default_factory=dict)
    failure: SourceError | None = None
    signed_by: dict[str, bytes] = field(default_factory=dict)


class FakeOciRepositories:
    """An `OciRepositories` whose registries hold what tests say.

    News are seen by `refresh`, or at once where `polls` is true. `asked` keeps every call:
    `("versions", url)`, `("pull", url:tag)`, `("refresh", url)`; `keys` those of the last pull, and
    `credentials` what was asked with last.
    """

    def __init__(self, *, polls: bool = True) -> None:
        self.polls = polls
        self.asked: list[tuple[str, str]] = []
        #: What `pull` raises, by `url:tag`.
        self.refused: dict[str, ChartRefused | SourceError] = {}
        self.keys: tuple[bytes, ...] = ()
        self.credentials = HttpCredentials()
        self._repositories: dict[str, _Repository] = {}
        self._seen: dict[tuple[str, str], tuple[tuple[str, ...], tuple[ChartVersion, ...]]] = {}

    def push(
        self, url: str, tag: str, name: str, version: str, content: str = "", library: bool = False
    ) -> str:
        """Let a tag name a chart; gives back the artifact's digest. Other `content` is another."""
        digest = sha256(f"{name} {version} {content}".encode())
        self._repositories.setdefault(url, _Repository()).tags[tag] = ChartArtifact(
            name=name,
            version=version,
            path=f"/oci/{digest[:8]}.tgz",
            digest=digest,
            source=url,
            revision=f"{tag}@sha256:{digest}",
            is_library=library,
        )
        return digest

    def sign(self, url: str, tag: str, key: bytes) -> None:
        """Let the artifact that a tag names be signed by the owner of a public key."""
        repository = self._repositories[url]
        repository.signed_by[repository.tags[tag].digest] = key

    def fail(self, url: str, error: SourceError | None) -> None:
        """Let a registry fail, until it is told None."""
        self._repositories.setdefault(url, _Repository()).failure = error

    async def versions(
        self, repository: OCIRepositorySpec, credentials: HttpCredentials
    ) -> tuple[ChartVersion, ...]:
        self.asked.append(("versions", repository.url))
        self.credentials = credentials
        if self.polls or _key(repository) not in self._seen:
            try:
                self._poll(repository)
            except SourceUnavailable:
                if _key(repository) not in self._seen:
                    raise
        return self._seen[_key(repository)][1]

    async def pull(
        self,
        repository: OCIRepositorySpec,
        version: ChartVersion,
        credentials: HttpCredentials,
        keys: Sequence[bytes] = (),
    ) -> ChartArtifact:
        self.keys = tuple(keys)
        named = version.urls[0].partition("@")[0]
        self.asked.append(("pull", named))
        if named in self.refused:
            raise self.refused[named]
        known = self._repositories[repository.url]
        artifact = known.tags[named.rpartition(":")[2]]
        if keys and known.signed_by.get(artifact.digest) not in keys:
            raise SignatureRefused("the signature cannot be verified", where=named)
        return artifact

    async def trouble(self, repository: OCIRepositorySpec, credentials: HttpCredentials) -> str:
        failure = self._repositories.get(repository.url, _Repository()).failure
        return str(failure) if failure is not None else ""

    async def refresh(self, repository: OCIRepositorySpec, credentials: HttpCredentials) -> bool:
        self.asked.append(("refresh", repository.url))
        before = self._seen.get(_key(repository))
        self._poll(repository)
        return self._seen[_key(repository)] is not before

    def _poll(self, spec: OCIRepositorySpec) -> None:
        known = self._repositories.get(spec.url)
        if known is None:
            raise SourceMissing("the registry has no such repository", where=spec.url)
        if known.failure is not None:
            raise known.failure
        state = tuple(f"{tag}@{one.digest}" for tag, one in sorted(known.tags.items()))
        if spec.ref.semver:
            offered = tuple(
                ChartVersion(one.name, tag.replace("_", "+"), urls=(f"{spec.url}:{tag}",))
                for tag, one in known.tags.items()
                if tag[:1].isdigit()
            )
        else:
            tag = spec.ref.tag or "latest"
            if tag not in known.tags:
                raise SourceMissing(f"the registry has no tag {tag}", where=spec.url)
            one = known.tags[tag]
            state = (one.digest,)
            offered = (
                ChartVersion(one.name, tag, urls=(f"{spec.url}:{tag}@sha256:{one.digest}",)),
            )
        seen = self._seen.get(_key(spec))
        if seen is None or seen[0] != state:
            self._seen[_key(spec)] = state, offered


def _key(spec: OCIRepositorySpec) -> tuple[str, str]:
    return spec.url, spec.ref.model_dump_json()
