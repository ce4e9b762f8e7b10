"""The `ReleaseStorage` port over a `FakeCluster`."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

from helmops.errors import ObjectConflict, ReleaseNotFound
from helmops.model.releases import HelmStatus, ReleaseId, StoredRelease
from tests.fakes.cluster_state import FakeCluster, Moment, Point, StoredRevision


class FakeReleaseStorage:
    """Reads and mends what `FakeHelm` stored. `reads` counts reads by whoever asked.

    The moments `("mark_failed" | "prune", STARTED)` come before, `FINISHED` after the write, so
    that a test can fail or die on either side of it.
    """

    def __init__(self, cluster: FakeCluster) -> None:
        self.cluster = cluster
        self.reads = 0

    async def read(self, release: ReleaseId) -> StoredRelease:
        self.reads += 1
        await self.cluster.reach(Moment("read", Point.STARTED, release))
        self.cluster.check_reachable()
        return StoredRelease(
            tuple(revision.as_revision() for revision in self.cluster.revisions(release)),
            self.cluster.version(release),
        )

    async def objects(self, release: ReleaseId, revision: int) -> tuple[dict[str, Any], ...]:
        self.cluster.check_reachable()
        return copy.deepcopy(self._get(release, revision).objects)

    async def mark_failed(self, release: ReleaseId, revision: int, description: str) -> None:
        await self.cluster.reach(Moment("mark_failed", Point.STARTED, release, revision))
        self.cluster.check_reachable()
        stored = self._get(release, revision)
        if stored.status is HelmStatus.FAILED:
            return
        if not stored.status.is_pending:
            raise ObjectConflict(f"revision {revision} is {stored.status.value} by now")
        stored.status, stored.description = HelmStatus.FAILED, description
        self.cluster.store(stored)
        await self.cluster.reach(Moment("mark_failed", Point.FINISHED, release, revision))

    async def prune(self, release: ReleaseId, revisions: Sequence[int]) -> None:
        await self.cluster.reach(Moment("prune", Point.STARTED, release))
        self.cluster.check_reachable()
        for number in revisions:
            self.cluster.forget(release, number)
        await self.cluster.reach(Moment("prune", Point.FINISHED, release))

    async def values(self, release: ReleaseId, revision: int) -> dict[str, Any]:
        self.cluster.check_reachable()
        return copy.deepcopy(dict(self._get(release, revision).values))

    async def keep(self, release: ReleaseId, revision: int, digest: str) -> None:
        await self.cluster.reach(Moment("keep", Point.STARTED, release, revision))
        self.cluster.check_reachable()
        stored = self._get(release, revision)
        if stored.as_revision().digest != digest:
            raise ReleaseNotFound(f"revision {revision} is another one now", where=str(release))
        self.cluster.copies[release] = copy.copy(stored)
        await self.cluster.reach(Moment("keep", Point.FINISHED, release, revision))

    async def put_back(self, release: ReleaseId, revision: int, digest: str) -> None:
        await self.cluster.reach(Moment("put_back", Point.STARTED, release, revision))
        self.cluster.check_reachable()
        kept = self.cluster.copies.get(release)
        if kept is None or kept.as_revision().digest != digest:
            raise ReleaseNotFound(f"no copy of revision {revision} was kept", where=str(release))
        there = self.cluster.history.get(release, {}).get(revision)
        if there is not None:
            if there.as_revision().digest != digest:
                raise ObjectConflict(f"there is another revision {revision}")
            return
        restored = copy.copy(kept)
        restored.status = HelmStatus.SUPERSEDED
        self.cluster.store(restored)
        await self.cluster.reach(Moment("put_back", Point.FINISHED, release, revision))

    def _get(self, release: ReleaseId, revision: int) -> StoredRevision:
        stored = self.cluster.history.get(release, {}).get(revision)
        if stored is None:
            raise ReleaseNotFound(f"Helm's storage has no revision {revision}", where=str(release))
        return stored
