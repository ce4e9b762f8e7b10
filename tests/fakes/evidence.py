"""The `EvidenceGatherer` port over a `FakeCluster`: it tells what a test says."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from helmops.errors import ClusterError
from helmops.model.evidence import Evidence, EvidenceKind, EvidenceSection
from helmops.model.releases import ReleaseId
from tests.fakes.cluster_state import FakeCluster, Moment, Point


class FakeEvidence:
    """- `summary` is that of all evidence;
    - `gathered` lists releases and revisions, `recorded` releases whose helm was listened to.
      `cluster.kill`, `hang` and `fail` work on the operation `evidence`, at STARTED and FINISHED.
    """

    def __init__(self, cluster: FakeCluster) -> None:
        self.cluster = cluster
        self.summary = 'pod app-1 container main: CrashLoopBackOff: "panic: no config"'
        self.gathered: list[tuple[ReleaseId, int]] = []
        self.recorded: list[ReleaseId] = []

    @asynccontextmanager
    async def recording(self, release: ReleaseId) -> AsyncIterator[None]:
        self.recorded.append(release)
        yield

    async def gather(
        self,
        release: ReleaseId,
        revision: int,
        objects: Sequence[Mapping[str, Any]],
        *,
        before: Sequence[Mapping[str, Any]] = (),
        helm_output: str = "",
        hooks: Sequence[str] = (),
    ) -> Evidence:
        self.gathered.append((release, revision))
        await asyncio.sleep(0)
        await self.cluster.reach(Moment("evidence", Point.STARTED, release))
        missing: tuple[str, ...] = ()
        summary = self.summary
        try:
            self.cluster.check_reachable()
        except ClusterError as error:
            missing, summary = (f"the pods: {error.what}",), ""
        said = [(EvidenceKind.HELM, "helm", helm_output)]
        said += [(EvidenceKind.HOOK_OUTPUT, "remediation hook", output) for output in hooks]
        evidence = Evidence(
            release=release,
            revision=revision,
            at=self.cluster.clock.now(),
            summary=summary,
            sections=tuple(EvidenceSection(*section) for section in said if section[2]),
            missing=missing,
        )
        await self.cluster.reach(Moment("evidence", Point.FINISHED, release))
        return evidence
