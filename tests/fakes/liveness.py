"""What watches show of releases, as a test says."""

from __future__ import annotations

from collections.abc import Sequence

from helmops.model.declarations import HealthCheckExpr
from helmops.model.health import LiveHealth
from helmops.model.records import Snapshot
from helmops.model.releases import ReleaseId


class FakeLiveness:
    """`health` is what is seen of releases, `followed` the revision that is looked after of each,
    `limits` the restarts that are let pass.
    """

    def __init__(self) -> None:
        self.health: dict[ReleaseId, LiveHealth] = {}
        self.followed: dict[ReleaseId, int] = {}
        self.limits: dict[ReleaseId, int] = {}

    def of(self, release: ReleaseId) -> LiveHealth | None:
        return self.health.get(release) if release in self.followed else None

    async def follow(
        self,
        release: ReleaseId,
        snapshot: Snapshot,
        *,
        expressions: Sequence[HealthCheckExpr] = (),
        max_restarts: int,
    ) -> None:
        self.followed[release] = snapshot.revision
        self.limits[release] = max_restarts

    def unfollow(self, release: ReleaseId) -> None:
        self.followed.pop(release, None)
