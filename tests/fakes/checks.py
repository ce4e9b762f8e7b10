"""The `Checks` port over a `FakeCluster`: a release is healthy as its applied chart says."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from helmops.health import CustomRules
from helmops.model.credentials import HttpCredentials
from helmops.model.declarations import HealthCheckExpr, PolicyCheck
from helmops.model.health import CheckResult
from helmops.model.releases import Progress, ReleaseId
from tests.fakes.cluster_state import FakeCluster, Live, Moment, Point

#: What a check says: by what is applied now, or fixed.
Answer = bool | Callable[[Live | None], bool]


@dataclass(frozen=True)
class CheckCall:
    """One check that was run; `name` is `readiness` or a policy check's."""

    name: str
    release: ReleaseId
    objects: tuple[Mapping[str, Any], ...] = ()
    timeout: timedelta = timedelta()
    hard_timeout: timedelta | None = None


class FakeChecks:
    """- readiness follows `cluster.is_healthy`: charts that are `unhealthy` or `never_ready`,
      `cluster.sicken`, and objects that were applied only in part;
    - a policy check passes, unless `answers[name]` says otherwise: False, or a function of what is
      applied, as `lambda live: live.chart.version != "1.1.0"`; a list is used up, one answer each,
      and its last one stays;
    - a readiness that fails takes its whole `timeout` of the clock's time, all else a second;
    - `calls` lists what was run. `cluster.kill`, `hang` and `fail` work on the operations
      `readiness` and `check`, at STARTED and FINISHED.
    """

    def __init__(self, cluster: FakeCluster) -> None:
        self.cluster = cluster
        self.answers: dict[str, Answer | list[Answer]] = {}
        self.calls: list[CheckCall] = []

    def names(self) -> list[str]:
        """What was run, in order."""
        return [call.name for call in self.calls]

    async def readiness(
        self,
        release: ReleaseId,
        objects: Sequence[Mapping[str, Any]],
        expressions: Sequence[HealthCheckExpr],
        *,
        timeout: timedelta,
        hard_timeout: timedelta | None = None,
        progress: Progress | None = None,
    ) -> CheckResult:
        CustomRules(expressions)
        self.calls.append(CheckCall("readiness", release, tuple(objects), timeout, hard_timeout))
        await self._begin("readiness", release)
        if not objects or self.cluster.is_healthy(release):
            result = CheckResult("readiness", True, f"{len(objects)} objects are ready")
        else:
            first = objects[0]
            named = f"{first['kind']}/{release.namespace}/{first['metadata']['name']}"
            if progress:
                progress(f"waiting for {named}")
            result = CheckResult("readiness", False, f"1 of {len(objects)} is not ready: {named}")
        await self._end("readiness", release, timeout if not result.passed else timedelta())
        return result

    async def policy_check(
        self,
        check: PolicyCheck,
        release: ReleaseId,
        objects: Sequence[Mapping[str, Any]],
        credentials: HttpCredentials,
        *,
        progress: Progress | None = None,
    ) -> CheckResult:
        self.calls.append(CheckCall(check.name, release, tuple(objects), check.timeout))
        await self._begin("check", release)
        passed = self._answer(check.name, self.cluster.live.get(release))
        attempts = check.success_threshold if passed else check.failure_threshold
        await self._end("check", release)
        return CheckResult(check.name, passed, "as scripted", attempts)

    def _answer(self, name: str, live: Live | None) -> bool:
        answer = self.answers.get(name, True)
        if isinstance(answer, list):
            answer = answer.pop(0) if len(answer) > 1 else answer[0]
        return answer(live) if callable(answer) else answer

    async def _begin(self, operation: str, release: ReleaseId) -> None:
        await asyncio.sleep(0)
        await self.cluster.reach(Moment(operation, Point.STARTED, release))
        self.cluster.check_reachable()

    async def _end(self, operation: str, release: ReleaseId, took: timedelta = timedelta()) -> None:
        self.cluster.clock.advance(took or timedelta(seconds=1))
        await self.cluster.reach(Moment(operation, Point.FINISHED, release))
