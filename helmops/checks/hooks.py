"""Remediation hooks: a Kubernetes Job in the release's namespace, or a webhook.

A hook runs around a remediation, so it must end: a Job gets the hook's timeout as its
`activeDeadlineSeconds`, and the cluster stops it even when helmops died. Run again in the same
context (the same release, revision and reason), a hook that a dead helmops left running is waited
for and not started a second time.
"""

from __future__ import annotations

from collections.abc import Mapping

from helmops.checks.job_hook import JobHook
from helmops.checks.surroundings import Clock, Cluster, Progress
from helmops.checks.webhook import send_webhook
from helmops.http import Http
from helmops.model.credentials import HttpCredentials
from helmops.model.declarations import RemediationHook
from helmops.model.hooks import HookResult
from helmops.model.releases import ReleaseId


class ReleaseHooks:
    """Meets the port `Hooks`, against one cluster."""

    def __init__(self, cluster: Cluster, http: Http, clock: Clock) -> None:
        self._cluster = cluster
        self._http = http
        self._clock = clock

    async def run(
        self,
        hook: RemediationHook,
        release: ReleaseId,
        context: Mapping[str, str],
        credentials: HttpCredentials,
        *,
        progress: Progress | None = None,
    ) -> HookResult:
        """Run one hook to its end or its timeout. A failed hook is a result. Raises ClusterError.

        `context` says what it is about (`revision`, `chart`, `version`, `reason`, `phase`…); a Job
        gets it as environment variables (`HELMOPS_REVISION`…), a webhook as JSON or in its body.
        """
        facts = {
            "release": release.name,
            "namespace": release.namespace,
            "hook": hook.name,
            "at": hook.at,
        } | dict(context)
        if hook.webhook:
            return await send_webhook(self._http, hook, hook.webhook, facts, credentials)
        job = JobHook(self._cluster, self._clock, hook, release, facts, credentials)
        return await job.run(progress)
