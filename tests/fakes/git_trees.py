"""Git repositories in memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from helmops.errors import HelmopsError, SourceError, SourceMissing
from helmops.model.charts import IncludedTree, Tree
from helmops.model.credentials import GitCredentials
from helmops.model.declarations import GitRepositorySpec
from helmops.resolve.constraint import Constraint
from helmops.resolve.version import Version
from tests.fakes.chart_archives import sha256


@dataclass
class _Remote:
    branches: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    trees: dict[str, str] = field(default_factory=dict)
    failure: SourceError | None = None
    pushes: int = 0


class FakeGitTrees:
    """A `GitTrees` whose repositories hold what tests push.

    A commit's files are wherever a test says (`path` of `push`); `asked` keeps every call:
    `("resolve", url, "")`, `("checkout", url, revision)`.
    """

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, str]] = []
        self._remotes: dict[str, _Remote] = {}
        self._refused: dict[str, SourceError] = {}
        #: What `checkout` raises, where that is anything.
        self.refused_checkout: HelmopsError | None = None
        #: What the last calls were given.
        self.credentials: GitCredentials | None = None
        self.keys: dict[str, bytes] = {}
        self.included: tuple[IncludedTree, ...] = ()

    def push(self, url: str, *, branch: str = "main", tag: str = "", path: str = "") -> str:
        """A new commit on a branch, tagged where a tag is given; gives back its hash. `path` is
        where its files are, `/trees/COMMIT` by default."""
        remote = self._remotes.setdefault(url, _Remote())
        remote.pushes += 1
        commit = sha256(f"{url} {remote.pushes}".encode())[:40]
        remote.branches[branch] = commit
        remote.trees[commit] = path or f"/trees/{commit}"
        if tag:
            remote.tags[tag] = commit
        return commit

    def delete_branch(self, url: str, branch: str) -> None:
        del self._remotes[url].branches[branch]

    def fail(self, url: str, error: SourceError | None) -> None:
        """Let a repository fail, until it is told None."""
        self._remotes.setdefault(url, _Remote()).failure = error

    def refuse_to_resolve(self, url: str, error: SourceError | None) -> None:
        """Let a repository tell no revisions, until it is told None; checkouts are at hand."""
        if error is None:
            self._refused.pop(url, None)
        else:
            self._refused[url] = error

    async def resolve(self, repository: GitRepositorySpec, credentials: GitCredentials) -> str:
        self.asked.append(("resolve", repository.url, ""))
        self.credentials = credentials
        if repository.url in self._refused:
            raise self._refused[repository.url]
        ref = repository.ref
        if ref.commit:
            branch = f"{ref.branch}@" if ref.branch else ""
            return f"{branch}sha1:{ref.commit}"
        remote = self._reached(repository.url)
        if ref.name:
            kinds = {"refs/heads/": remote.branches, "refs/tags/": remote.tags}
            for prefix, known in kinds.items():
                if ref.name.startswith(prefix) and ref.name.removeprefix(prefix) in known:
                    return f"{ref.name}@sha1:{known[ref.name.removeprefix(prefix)]}"
            raise SourceMissing(f"there is no reference {ref.name}", where=repository.url)
        if ref.semver:
            wanted = Constraint.parse(ref.semver)
            tags = [tag for tag in remote.tags if wanted.matches(tag)]
            if not tags:
                raise SourceMissing(f"no tag is in {ref.semver!r}", where=repository.url)
            newest = max(tags, key=Version.parse)
            return f"{newest}@sha1:{remote.tags[newest]}"
        name, known = (
            (ref.tag, remote.tags) if ref.tag else (ref.branch or "master", remote.branches)
        )
        if name not in known:
            kind = "tag" if ref.tag else "branch"
            raise SourceMissing(f"there is no {kind} {name}", where=repository.url)
        return f"{name}@sha1:{known[name]}"

    async def checkout(
        self,
        repository: GitRepositorySpec,
        credentials: GitCredentials,
        revision: str,
        *,
        keys: Mapping[str, bytes] | None = None,
        included: Sequence[IncludedTree] = (),
    ) -> Tree:
        self.asked.append(("checkout", repository.url, revision))
        self.keys, self.included = dict(keys or {}), tuple(included)
        if self.refused_checkout is not None:
            raise self.refused_checkout
        commit = revision.rpartition(":")[2]
        path = self._reached(repository.url).trees.get(commit)
        if path is None:
            raise SourceMissing(f"there is no commit {commit}", where=repository.url)
        return Tree(name=repository.url, revision=revision, path=path)

    def _reached(self, url: str) -> _Remote:
        remote = self._remotes.get(url)
        if remote is None:
            raise SourceMissing("there is no such repository", where=url)
        if remote.failure is not None:
            raise remote.failure
        return remote
