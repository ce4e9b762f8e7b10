"""The files of the sources that Kustomizations take them from, as they are now."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from weakref import WeakValueDictionary

from helmops.errors import (
    DeclarationError,
    HelmopsError,
    SourceError,
    SourceInvalid,
    SourceUnavailable,
)
from helmops.model.charts import Tree
from helmops.model.declared import DeclarationSet, Declared, KindKey, unsupported
from helmops.model.releases import DeclarationKey
from helmops.reconcile.credentials import CredentialReader
from helmops.reconcile.ports import ArtifactTrees, Clock, GitTrees
from helmops.reconcile.trees import Trees
from helmops.service.polling import Polls
from helmops.sources.file_tree import FileTree
from helmops.sources.flux_kustomization import Cluster
from helmops.sources.flux_places import shown_in_git


@dataclass(slots=True)
class _Used:
    """A source that something was to come from the last time. `is_failing` where it gave nothing,
    or could not be asked.
    """

    source: Declared[Any]
    asked_at: datetime
    is_failing: bool = False


class Checkouts:
    """The sources by their declarations, each asked at its interval; earlier where it could not be
    asked before.
    """

    def __init__(
        self,
        *,
        clock: Clock,
        git: GitTrees,
        artifacts: ArtifactTrees,
        random: Callable[[], float],
        cluster: Cluster | None,
        see: Callable[[Any], None],
    ) -> None:
        self._clock = clock
        self._secrets = _Secrets(cluster, see)
        self._trees = Trees(
            clock=clock,
            git=git,
            artifacts=artifacts,
            credentials=CredentialReader(self._secrets),
        )
        self._polls: Polls[KindKey] = Polls(clock=clock, random=random, cap=timedelta(minutes=2))
        self._used: dict[KindKey, _Used] = {}
        self._before: dict[KindKey, _Used] = {}
        #: What was given in this reading: the same to all that ask.
        self._given: dict[KindKey, FileTree] = {}
        self._locks: WeakValueDictionary[KindKey, asyncio.Lock] = WeakValueDictionary()
        self._opened: dict[str, FileTree] = {}

    def begin(self) -> None:
        """Declarations are read anew: what is not asked for now is not used any more."""
        self._before, self._used, self._given = self._used, {}, {}

    async def files_of(self, declared: DeclarationSet, source: Declared[Any]) -> FileTree:
        """The files of a source as they were seen last, until the next `begin`. Raises
        HelmopsError.

        `declared` has what is declared so far: Secrets to open it with, repositories it includes.
        """
        refused = unsupported(source)
        if refused:
            raise refused[0]
        kind, spec = source.resource.kind, source.resource.spec
        if spec.suspend:
            raise SourceUnavailable(
                f"{kind} {source.key} is suspended", next_step="set spec.suspend to false"
            )
        key = kind, source.key
        # Many Kustomizations come for the same source at once.
        async with self._locks.setdefault(key, asyncio.Lock()):
            given = self._given.get(key)
            if given is None:
                self._secrets.declared = declared
                given = self._given[key] = self._opened_at(await self._tree_of(declared, source))
        return given

    async def _tree_of(self, declared: DeclarationSet, source: Declared[Any]) -> Tree:
        key = source.resource.kind, source.key
        before = self._before.get(key) or self._used.get(key)
        asked_at = before.asked_at if before else self._clock.now()
        used = self._used[key] = _Used(source, asked_at, is_failing=True)
        try:
            tree = await self._trees.of(declared, source)
        except HelmopsError as error:
            self._failed(key, error)
            raise
        used.is_failing = bool(self._trees.trouble(key))
        if used.is_failing:
            self._polls.failed(key)
        else:
            self._polls.succeeded(key)
        return tree

    def _opened_at(self, tree: Tree) -> FileTree:
        opened = self._opened.get(tree.path)
        if opened is None:
            label = tree.name if tree.name.startswith("oci://") else f"git+{tree.name}"
            opened = FileTree(
                tree.path, frozen=True, show=lambda path: shown_in_git(label, "", path)
            )
            self._opened = {**dict(list(self._opened.items())[-50:]), tree.path: opened}
        return opened

    async def is_stale(self) -> bool:
        """Whether a source that is used has another revision now, does not answer any more, or does
        again. Asked at its interval.
        """
        changed = False
        for key, used in list(self._used.items()):
            now = self._clock.now()
            is_due = now - used.asked_at >= used.source.resource.spec.interval
            if not (is_due or self._polls.failing(key)) or not self._polls.is_due(key):
                continue
            used.asked_at = now
            was_failing = used.is_failing
            try:
                changed |= await self._trees.poll(used.source) or was_failing
            except HelmopsError as error:
                # What was taken before stays in use, as long as nobody says that it is gone.
                used.is_failing = True
                changed |= not was_failing
                self._failed(key, error)
        return changed

    def troubles(self) -> tuple[DeclarationError, ...]:
        """The sources that could not be asked, whose files are taken to be as they were."""
        return tuple(
            DeclarationError(
                f"{kind} {key} cannot be asked, and is taken to be as it was: {trouble}",
                where=used.source.where,
            )
            for (kind, key), used in self._used.items()
            if (trouble := self._trees.trouble((kind, key)))
        )

    def _failed(self, key: KindKey, error: HelmopsError) -> None:
        """When to ask again: at its interval where it gave what cannot be used, else soon."""
        if isinstance(error, SourceError) and not isinstance(error, SourceInvalid):
            self._polls.failed(key, error.retry_after)


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
