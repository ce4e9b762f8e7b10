"""Files that declarations refer to: of sources, and in directories beside the declarations.

What the files of a source are is a `Tree`, whatever kind the source is of.
"""

from __future__ import annotations

import asyncio
import posixpath
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol
from weakref import WeakValueDictionary

from helmops.errors import ChartNotFound, SourceInvalid, SourceUnavailable
from helmops.model.charts import IncludedTree, Tree
from helmops.model.credentials import GitCredentials, HttpCredentials
from helmops.model.declarations import (
    GitRepositorySpec,
    HelmRelease,
    OCIRepositorySpec,
)
from helmops.model.declared import DeclarationSet, Declared, KindKey
from helmops.model.releases import DeclarationKey
from helmops.reconcile.credentials import CredentialReader
from helmops.reconcile.ports import ArtifactTrees, Clock, GitTrees


@dataclass(frozen=True, slots=True)
class _Revision:
    """What a reference of a source named when it was asked."""

    revision: str
    at: datetime
    url: str
    ref: object


class _Opener(Protocol):
    """Does for one kind of source what differs. `opened` are credentials of its own kind."""

    async def opened_with(self, source: Declared[Any]) -> Any:
        """What to open a source with."""

    async def resolve(self, spec: Any, opened: Any) -> str:
        """The revision that it has now."""

    async def seen(self, spec: Any, opened: Any) -> str:
        """The revision that it had when anybody asked last; empty where that is not known."""

    async def checkout(
        self,
        declarations: DeclarationSet,
        source: Declared[Any],
        opened: Any,
        revision: str,
        above: tuple[DeclarationKey, ...],
    ) -> Tree:
        """The files of a revision; `above` are the sources that include this one."""


class Trees:
    """Trees of files by what declarations call them. A source is asked at its interval; one that
    does not answer is taken to be as it was. Without `artifacts`, only Git repositories have files.
    """

    def __init__(
        self,
        *,
        clock: Clock,
        git: GitTrees,
        credentials: CredentialReader,
        artifacts: ArtifactTrees | None = None,
    ) -> None:
        self._clock = clock
        self._openers: dict[str, _Opener] = {"GitRepository": _Git(git, credentials, self)}
        if artifacts is not None:
            self._openers["OCIRepository"] = _Artifacts(artifacts, credentials)
        self._revisions: dict[KindKey, _Revision] = {}
        self._troubles: dict[KindKey, str] = {}
        self._locks: WeakValueDictionary[KindKey, asyncio.Lock] = WeakValueDictionary()

    async def poll(self, source: Declared[Any]) -> bool:
        """Ask a source now; whether it has another revision. Raises SourceError."""
        before = self._revisions.get(_key(source))
        opened = await self._openers[source.resource.kind].opened_with(source)
        try:
            revision = await self._resolve(source, opened)
        except SourceUnavailable as error:
            if before is not None:
                self._troubles[_key(source)] = str(error)
            raise
        return before is not None and before.revision != revision

    def trouble(self, source: KindKey) -> str:
        """Why a source could not be asked, where it is taken to be as it was; else empty."""
        return self._troubles.get(source, "")

    async def of(
        self,
        declarations: DeclarationSet,
        source: Declared[Any],
        above: tuple[DeclarationKey, ...] = (),
    ) -> Tree:
        """The files of the revision that was seen last; asked anew when the interval is over.

        Raises SourceError, ChartRefused, SignatureRefused, DeclarationError, ClusterError.
        """
        opener = self._openers[source.resource.kind]
        opened = await opener.opened_with(source)
        # Several Kustomizations come for the same source at once.
        async with self._locks.setdefault(_key(source), asyncio.Lock()):
            revision = await self._revision(source, opened)
        return await opener.checkout(declarations, source, opened, revision, above)

    async def _revision(self, source: Declared[Any], opened: Any) -> str:
        key, spec = _key(source), source.resource.spec
        known = self._revisions.get(key)
        if known is not None and (known.url, known.ref) != (spec.url, spec.ref):
            known = None
        if known is not None and self._clock.now() - known.at < spec.interval:
            return known.revision
        try:
            return await self._resolve(source, opened)
        except SourceUnavailable as error:
            opener = self._openers[source.resource.kind]
            last = known.revision if known is not None else await opener.seen(spec, opened)
            if not last:
                raise
            self._troubles[key] = str(error)
            # Its polls tell that it does not answer, and nothing says that it changed.
            self._revisions[key] = _Revision(last, self._clock.now(), spec.url, spec.ref)
            return last

    async def _resolve(self, source: Declared[Any], opened: Any) -> str:
        key, spec = _key(source), source.resource.spec
        revision = await self._openers[source.resource.kind].resolve(spec, opened)
        self._troubles.pop(key, None)
        self._revisions[key] = _Revision(revision, self._clock.now(), spec.url, spec.ref)
        return revision


class _Git:
    """GitRepositories, with the files of those that they include."""

    def __init__(self, git: GitTrees, credentials: CredentialReader, trees: Trees) -> None:
        self._git = git
        self._credentials = credentials
        self._trees = trees

    async def opened_with(self, source: Declared[Any]) -> GitCredentials:
        spec: GitRepositorySpec = source.resource.spec
        return await self._credentials.for_git(
            source.key.namespace, spec.secret_ref, spec.proxy_secret_ref
        )

    async def resolve(self, spec: GitRepositorySpec, opened: GitCredentials) -> str:
        return await self._git.resolve(spec, opened)

    async def seen(self, spec: GitRepositorySpec, opened: GitCredentials) -> str:
        return ""  # the mirrors do not say which of their commits a reference named

    async def checkout(
        self,
        declarations: DeclarationSet,
        source: Declared[Any],
        opened: GitCredentials,
        revision: str,
        above: tuple[DeclarationKey, ...],
    ) -> Tree:
        spec: GitRepositorySpec = source.resource.spec
        within = (*above, source.key)
        included = []
        for number, one in enumerate(spec.include):
            other = declarations.source(
                "GitRepository",
                DeclarationKey(source.key.namespace, one.repository.name),
                wanted_at=source.where_is(("spec", "include", number)),
            )
            _refuse_to_include(other, within)
            tree = await self._trees.of(declarations, other, within)
            included.append(IncludedTree(tree, one.from_path, one.to_path or one.repository.name))
        keys: Mapping[str, bytes] = {}
        if spec.verify is not None:
            keys = await self._credentials.files(source.key.namespace, spec.verify.secret_ref)
        return await self._git.checkout(spec, opened, revision, keys=keys, included=tuple(included))


class _Artifacts:
    """OCIRepositories."""

    def __init__(self, artifacts: ArtifactTrees, credentials: CredentialReader) -> None:
        self._artifacts = artifacts
        self._credentials = credentials

    async def opened_with(self, source: Declared[Any]) -> HttpCredentials:
        spec: OCIRepositorySpec = source.resource.spec
        return await self._credentials.for_registry(
            source.key.namespace,
            spec.url,
            spec.secret_ref,
            spec.cert_secret_ref,
            spec.proxy_secret_ref,
        )

    async def resolve(self, spec: OCIRepositorySpec, opened: HttpCredentials) -> str:
        return await self._artifacts.resolve(spec, opened)

    async def seen(self, spec: OCIRepositorySpec, opened: HttpCredentials) -> str:
        return await self._artifacts.seen(spec, opened)

    async def checkout(
        self,
        declarations: DeclarationSet,
        source: Declared[Any],
        opened: HttpCredentials,
        revision: str,
        above: tuple[DeclarationKey, ...],
    ) -> Tree:
        spec: OCIRepositorySpec = source.resource.spec
        keys: tuple[bytes, ...] = ()
        if spec.verify is not None and spec.verify.secret_ref is not None:
            keys = await self._credentials.public_keys(source.key.namespace, spec.verify.secret_ref)
        return await self._artifacts.checkout(spec, opened, revision, keys=keys)


def _key(source: Declared[Any]) -> KindKey:
    return source.resource.kind, source.key


def _refuse_to_include(source: Declared[Any], within: tuple[DeclarationKey, ...]) -> None:
    """Raises SourceInvalid for a circle, SourceUnavailable for one that is suspended."""
    if source.key in within:
        circle = " -> ".join(str(key) for key in (*within, source.key))
        raise SourceInvalid(
            f"GitRepositories include each other in a circle: {circle}", where=source.where
        )
    if source.resource.spec.suspend:
        raise SourceUnavailable(f"GitRepository {source.key} is suspended", where=source.where)


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
