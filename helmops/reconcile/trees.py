"""Files that declarations refer to: in Git repositories, and in directories beside them."""

from __future__ import annotations

import posixpath
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from helmops.errors import ChartNotFound
from helmops.model.charts import Tree
from helmops.model.credentials import GitCredentials
from helmops.model.declarations import GitRepository, HelmRelease
from helmops.model.declared import Declared
from helmops.model.releases import DeclarationKey
from helmops.reconcile.credentials import CredentialReader
from helmops.reconcile.ports import Clock, GitTrees


@dataclass(frozen=True, slots=True)
class _Revision:
    revision: str
    at: datetime


class Trees:
    """Trees of files by what declarations call them. A Git repository is asked at its interval."""

    def __init__(self, *, clock: Clock, git: GitTrees, credentials: CredentialReader) -> None:
        self._clock = clock
        self._git = git
        self._credentials = credentials
        self._revisions: dict[DeclarationKey, _Revision] = {}

    async def poll(self, source: Declared[GitRepository]) -> bool:
        """Ask a Git repository now; whether it has another revision. Raises SourceError."""
        before = self._revisions.get(source.key)
        revision = await self._resolve(source, await self._opened_with(source))
        return before is not None and before.revision != revision

    async def of_git(self, source: Declared[Any]) -> Tree:
        """The files of the revision that was seen last; asked anew when the interval is over.

        Raises SourceError, ClusterError.
        """
        credentials = await self._opened_with(source)
        known = self._revisions.get(source.key)
        spec = source.resource.spec
        if known is None or self._clock.now() - known.at >= spec.interval:
            revision = await self._resolve(source, credentials)
        else:
            revision = known.revision
        return await self._git.checkout(spec, credentials, revision)

    async def _resolve(self, source: Declared[Any], credentials: GitCredentials) -> str:
        revision = await self._git.resolve(source.resource.spec, credentials)
        self._revisions[source.key] = _Revision(revision, self._clock.now())
        return revision

    async def _opened_with(self, source: Declared[Any]) -> GitCredentials:
        return await self._credentials.for_git(
            source.key.namespace, source.resource.spec.secret_ref
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
