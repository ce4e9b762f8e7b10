"""Files that declarations refer to: in Git repositories, and in directories beside them."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from helmops.errors import ChartNotFound, SourceInvalid, SourceUnavailable
from helmops.model.charts import IncludedTree, Tree
from helmops.model.credentials import GitCredentials
from helmops.model.declarations import GitRef, GitRepository, GitRepositorySpec, HelmRelease
from helmops.model.declared import DeclarationSet, Declared
from helmops.model.releases import DeclarationKey
from helmops.reconcile.credentials import CredentialReader
from helmops.reconcile.ports import Clock, GitTrees


@dataclass(frozen=True, slots=True)
class _Revision:
    """What a reference of a repository named when it was asked."""

    revision: str
    at: datetime
    url: str
    ref: GitRef


class Trees:
    """Trees of files by what declarations call them. A Git repository is asked at its interval; one
    that does not answer is taken to be as it was.
    """

    def __init__(self, *, clock: Clock, git: GitTrees, credentials: CredentialReader) -> None:
        self._clock = clock
        self._git = git
        self._credentials = credentials
        self._revisions: dict[DeclarationKey, _Revision] = {}
        self._troubles: dict[DeclarationKey, str] = {}

    async def poll(self, source: Declared[GitRepository]) -> bool:
        """Ask a Git repository now; whether it has another revision. Raises SourceError."""
        before = self._revisions.get(source.key)
        revision = await self._resolve(source, await self._opened_with(source))
        return before is not None and before.revision != revision

    def trouble(self, key: DeclarationKey) -> str:
        """Why a repository could not be asked, where it is taken to be as it was; else empty."""
        return self._troubles.get(key, "")

    async def of_git(
        self,
        declarations: DeclarationSet,
        source: Declared[Any],
        above: tuple[DeclarationKey, ...] = (),
    ) -> Tree:
        """The files of the revision that was seen last, with those of the repositories that it
        includes; asked anew when the interval is over.

        Raises SourceError, SignatureRefused, DeclarationError, ClusterError.
        """
        spec: GitRepositorySpec = source.resource.spec
        if source.key in above:
            circle = " -> ".join(str(key) for key in (*above, source.key))
            raise SourceInvalid(
                f"GitRepositories include each other in a circle: {circle}", where=source.where
            )
        if spec.suspend and above:
            raise SourceUnavailable(f"GitRepository {source.key} is suspended", where=source.where)
        credentials = await self._opened_with(source)
        revision = await self._revision(source, credentials)
        included = [
            IncludedTree(
                await self.of_git(
                    declarations,
                    declarations.source(
                        "GitRepository",
                        DeclarationKey(source.key.namespace, one.repository.name),
                        wanted_at=source.where_is(("spec", "include", number)),
                    ),
                    (*above, source.key),
                ),
                one.from_path,
                one.to_path or one.repository.name,
            )
            for number, one in enumerate(spec.include)
        ]
        keys: Mapping[str, bytes] = {}
        if spec.verify is not None:
            keys = await self._credentials.files(source.key.namespace, spec.verify.secret_ref)
        return await self._git.checkout(
            spec, credentials, revision, keys=keys, included=tuple(included)
        )

    async def _revision(self, source: Declared[Any], credentials: GitCredentials) -> str:
        spec: GitRepositorySpec = source.resource.spec
        known = self._revisions.get(source.key)
        if known is not None and (known.url, known.ref) != (spec.url, spec.ref):
            known = None
        if known is not None and self._clock.now() - known.at < spec.interval:
            return known.revision
        try:
            return await self._resolve(source, credentials)
        except SourceUnavailable as error:
            if known is None:
                raise
            self._troubles[source.key] = str(error)
            # Its polls tell that it does not answer, and nothing says that it changed.
            self._revisions[source.key] = replace(known, at=self._clock.now())
            return known.revision

    async def _resolve(self, source: Declared[Any], credentials: GitCredentials) -> str:
        spec: GitRepositorySpec = source.resource.spec
        revision = await self._git.resolve(spec, credentials)
        self._troubles.pop(source.key, None)
        now = self._clock.now()
        self._revisions[source.key] = _Revision(revision, now, spec.url, spec.ref)
        return revision

    async def _opened_with(self, source: Declared[Any]) -> GitCredentials:
        spec: GitRepositorySpec = source.resource.spec
        return await self._credentials.for_git(
            source.key.namespace, spec.secret_ref, spec.proxy_secret_ref
        )


def directory_beside(release: Declared[HelmRelease], name: str) -> Tree:
    """The directory `name`, relative to the file of a declaration.

    Raises ChartNotFound for one that leaves what was read.
    """
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
