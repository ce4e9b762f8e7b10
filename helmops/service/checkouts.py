"""Checkouts of the GitRepositories that Kustomizations take their files from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from helmops.errors import HelmopsError, SourceError, SourceUnavailable
from helmops.model.declarations import GitRepository
from helmops.model.declared import DeclarationSet, Declared, unsupported
from helmops.model.releases import DeclarationKey
from helmops.reconcile.credentials import CredentialReader
from helmops.reconcile.ports import Clock, GitTrees
from helmops.reconcile.trees import Trees
from helmops.service.polling import Polls
from helmops.sources.file_tree import FileTree
from helmops.sources.flux_kustomization import Cluster
from helmops.sources.flux_places import shown_in_git
from helmops.sources.git_process import shown_url


@dataclass(slots=True)
class _Used:
    """A repository that something came from the last time."""

    source: Declared[GitRepository]
    asked_at: datetime


class Checkouts:
    """The repositories by their declarations, each asked at its interval."""

    def __init__(
        self,
        *,
        clock: Clock,
        git: GitTrees,
        random: Callable[[], float],
        cluster: Cluster | None,
        see: Callable[[Any], None],
    ) -> None:
        self._clock = clock
        self._secrets = _Secrets(cluster, see)
        self._trees = Trees(clock=clock, git=git, credentials=CredentialReader(self._secrets))
        self._polls: Polls[DeclarationKey] = Polls(
            clock=clock, random=random, cap=timedelta(minutes=2)
        )
        self._used: dict[DeclarationKey, _Used] = {}
        self._before: dict[DeclarationKey, _Used] = {}
        self._opened: dict[str, FileTree] = {}

    def begin(self) -> None:
        """Declarations are read anew: what is not asked for now is not used any more."""
        self._before, self._used = self._used, {}

    async def files_of(self, declared: DeclarationSet, source: Declared[GitRepository]) -> FileTree:
        """The files of a repository as they were seen last. Raises HelmopsError.

        `declared` has what is declared so far: Secrets to open it with, repositories it includes.
        """
        refused = unsupported(source)
        if refused:
            raise refused[0]
        spec = source.resource.spec
        if spec.suspend:
            raise SourceUnavailable(
                f"GitRepository {source.key} is suspended", next_step="set spec.suspend to false"
            )
        self._secrets.declared = declared
        before = self._before.get(source.key) or self._used.get(source.key)
        tree = await self._trees.of_git(declared, source)
        now = self._clock.now()
        self._used[source.key] = _Used(source, before.asked_at if before else now)
        opened = self._opened.get(tree.path)
        if opened is None:
            label = f"git+{shown_url(spec.url)}"
            opened = FileTree(
                tree.path, frozen=True, show=lambda path: shown_in_git(label, "", path)
            )
            self._opened = {**dict(list(self._opened.items())[-50:]), tree.path: opened}
        return opened

    async def is_stale(self) -> bool:
        """Whether a repository that is used has another revision now; asked at its interval."""
        changed = False
        for key, used in self._used.items():
            now = self._clock.now()
            if now - used.asked_at < used.source.resource.spec.interval:
                continue
            if not self._polls.is_due(key):
                continue
            used.asked_at = now
            try:
                changed |= await self._trees.poll(used.source)
                self._polls.succeeded(key)
            except HelmopsError as error:
                # What was checked out stays in use; a release that needs the source says so.
                retry_after = error.retry_after if isinstance(error, SourceError) else None
                self._polls.failed(key, retry_after)
        return changed


class _Secrets:
    """Declared Secrets, then those of the cluster."""

    def __init__(self, cluster: Cluster | None, see: Callable[[Any], None]) -> None:
        self._cluster = cluster
        self._see = see
        self.declared = DeclarationSet()

    async def secret(self, key: DeclarationKey) -> Mapping[str, bytes] | None:
        """Its data, or None where there is none. Raises HelmopsError."""
        found = self.declared.secrets.get(key)
        if found is not None:
            data: Mapping[str, bytes] | None = found.resource.content
        else:
            data = await self._cluster.secret(key) if self._cluster is not None else None
        self._see(data or {})
        return data
