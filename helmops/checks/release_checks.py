"""`ReleaseChecks` meets the port `Checks`: readiness and the checks of policies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from helmops.checks.cel import CelProbe
from helmops.checks.http import HttpProbe
from helmops.checks.job_check import JobProbe
from helmops.checks.job_run import GRACE_SECONDS
from helmops.checks.prometheus import PrometheusProbe
from helmops.checks.readiness import Readiness
from helmops.checks.runner import Probe, run_check
from helmops.checks.surroundings import Clock, Cluster, Progress
from helmops.http import Http
from helmops.model.credentials import HttpCredentials
from helmops.model.declarations import HealthCheckExpr, PolicyCheck
from helmops.model.health import CheckResult
from helmops.model.releases import ReleaseId


class ReleaseChecks:
    """Checks against one cluster. `at_once` bounds readiness reads over all releases."""

    def __init__(self, cluster: Cluster, http: Http, clock: Clock, *, at_once: int = 8) -> None:
        self._cluster = cluster
        self._http = http
        self._clock = clock
        self._readiness = Readiness(cluster, clock, at_once=at_once)

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
        """Wait until all objects are Current; fails at once on one that is Failed or can never be
        ready, or with those that are not when nothing moved for the timeout, or at the hard one.
        Raises ExpressionError, ClusterError.
        """
        return await self._readiness.wait(
            release,
            objects,
            expressions,
            timeout=timeout,
            hard_timeout=hard_timeout,
            progress=progress,
        )

    async def policy_check(
        self,
        check: PolicyCheck,
        release: ReleaseId,
        objects: Sequence[Mapping[str, Any]],
        credentials: HttpCredentials,
        *,
        progress: Progress | None = None,
    ) -> CheckResult:
        """Run one check of a policy with its interval, timeout and thresholds. Raises
        DeclarationError (for what cannot be asked), ClusterError; a failed check is a result, not
        an exception.
        """
        if check.job:
            job = JobProbe(self._cluster, self._clock, check, release, objects, progress)
            return await run_check(check, job, self._clock, progress, grace=2 * GRACE_SECONDS)
        probe = self._probe(check, release, credentials)
        return await run_check(check, probe, self._clock, progress)

    async def last_change(
        self, release: ReleaseId, objects: Sequence[Mapping[str, Any]]
    ) -> datetime | None:
        """When anybody, controllers included, last wrote to one of the objects; None where none
        of them exists. Raises ClusterError.
        """
        return await self._readiness.last_change(release, objects)

    def _probe(self, check: PolicyCheck, release: ReleaseId, credentials: HttpCredentials) -> Probe:
        if check.http:
            return HttpProbe(self._http, check.http, release, credentials)
        if check.cel:
            return CelProbe(self._cluster, check.cel, release)
        assert check.prometheus is not None  # noqa: S101 - the model knows four kinds
        return PrometheusProbe(self._http, check.prometheus, release, credentials)
