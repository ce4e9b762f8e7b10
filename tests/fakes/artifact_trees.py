"""Artifacts of files in registries, in memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from helmops.errors import HelmopsError, SignatureRefused, SourceMissing
from helmops.model.charts import Tree
from helmops.model.credentials import HttpCredentials
from helmops.model.declarations import OCIRepositorySpec
from helmops.resolve.constraint import Constraint
from helmops.resolve.version import Version
from tests.fakes.chart_archives import sha256


@dataclass
class _Repository:
    tags: dict[str, str] = field(default_factory=dict)
    #: By digest: where the files are.
    trees: dict[str, str] = field(default_factory=dict)
    signed_by: dict[str, bytes] = field(default_factory=dict)
    failure: HelmopsError | None = None
    pushes: int = 0


class FakeArtifactTrees:
    """An `ArtifactTrees` whose registries hold what tests push.

    `asked` keeps every call: `("resolve", url, "")`, `("checkout", url, revision)`. What an earlier
    process saw is in `seen_before`, by URL.
    """

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, str]] = []
        self.seen_before: dict[str, str] = {}
        #: What `checkout` raises, where that is anything.
        self.refused_checkout: HelmopsError | None = None
        #: What the last calls were given.
        self.credentials = HttpCredentials()
        self.keys: tuple[bytes, ...] = ()
        self._repositories: dict[str, _Repository] = {}

    def push(self, url: str, *, tag: str = "latest", path: str = "", key: bytes = b"") -> str:
        """A new artifact under a tag; gives back its revision. `path` is where its files are,
        `/artifacts/DIGEST` by default, `key` that of who signed it."""
        repository = self._repositories.setdefault(url, _Repository())
        repository.pushes += 1
        digest = f"sha256:{sha256(f'{url} {repository.pushes}'.encode())}"
        repository.tags[tag] = digest
        repository.trees[digest] = path or f"/artifacts/{digest}"
        repository.signed_by[digest] = key
        return f"{tag}@{digest}"

    def fail(self, url: str, error: HelmopsError | None) -> None:
        """Let a registry fail, until it is told None; what was pulled is at hand."""
        self._repositories.setdefault(url, _Repository()).failure = error

    async def resolve(self, repository: OCIRepositorySpec, credentials: HttpCredentials) -> str:
        self.asked.append(("resolve", repository.url, ""))
        self.credentials = credentials
        if repository.ref.digest:
            return repository.ref.digest
        known = self._repositories.get(repository.url)
        if known is None:
            raise SourceMissing("the registry has no such repository", where=repository.url)
        if known.failure is not None:
            raise known.failure
        tag = repository.ref.tag or "latest"
        if repository.ref.semver:
            wanted = Constraint.parse(repository.ref.semver)
            tags = [tag for tag in known.tags if tag[:1].isdigit() and wanted.matches(tag)]
            tag = max(tags, key=Version.parse, default="")
        if tag not in known.tags:
            raise SourceMissing(f"the registry has no tag {tag}", where=repository.url)
        return f"{tag}@{known.tags[tag]}"

    async def seen(self, repository: OCIRepositorySpec, credentials: HttpCredentials) -> str:
        return self.seen_before.get(repository.url, "")

    async def checkout(
        self,
        repository: OCIRepositorySpec,
        credentials: HttpCredentials,
        revision: str,
        *,
        keys: Sequence[bytes] = (),
    ) -> Tree:
        self.asked.append(("checkout", repository.url, revision))
        self.keys = tuple(keys)
        if self.refused_checkout is not None:
            raise self.refused_checkout
        known = self._repositories[repository.url]
        digest = revision.rpartition("@")[2]
        if digest not in known.trees:
            raise SourceMissing(f"the registry has no {digest}", where=repository.url)
        if repository.verify is not None and known.signed_by[digest] not in self.keys:
            raise SignatureRefused("the signature cannot be verified", where=repository.url)
        return Tree(name=repository.url, revision=revision, path=known.trees[digest])
