"""A remediation hook that is a Kubernetes Job in the release's namespace.

A Job that succeeded is deleted, one that failed stays for a person to look at until its
`ttlSecondsAfterFinished` (an hour, unless the template says otherwise).
"""

from __future__ import annotations

from collections.abc import Mapping

from helmops.checks.job_run import JobOrder, JobRun
from helmops.checks.surroundings import Clock, Cluster, Progress
from helmops.model.credentials import HttpCredentials
from helmops.model.declarations import RemediationHook
from helmops.model.hooks import HookResult
from helmops.model.redaction import secrets_of
from helmops.model.releases import ReleaseId


class JobHook:
    """One run of one hook."""

    def __init__(
        self,
        cluster: Cluster,
        clock: Clock,
        hook: RemediationHook,
        release: ReleaseId,
        facts: Mapping[str, str],
        credentials: HttpCredentials,
    ) -> None:
        self._hook = hook
        order = hook_order(hook, release, facts)
        secrets = secrets_of(credentials)
        self._run = JobRun(cluster, clock, order, secrets=secrets, keeps_failed=True)

    async def run(self, progress: Progress | None = None) -> HookResult:
        """See `JobRun.run`. Raises AccessDenied, ClusterUnreachable."""
        end = await self._run.run(progress)
        return HookResult(self._hook.name, end.succeeded, end.message, end.output)


def hook_order(hook: RemediationHook, release: ReleaseId, facts: Mapping[str, str]) -> JobOrder:
    """What to run: the same hook, as declared, in the same context is the same run."""
    return JobOrder(
        purpose="hook",
        name=hook.name,
        template=hook.job.template if hook.job else {},
        timeout=hook.timeout,
        release=release,
        facts=facts,
        identity=[hook.manifest()],
        annotations={"helmops.dev/at": hook.at},
    )
