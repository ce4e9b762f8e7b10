"""Remediation hooks: a Kubernetes Job in the release's namespace, a webhook, or a command where the
operator allowed them.

A hook runs around a remediation, so it must end: a Job gets the hook's timeout as its
`activeDeadlineSeconds`, and the cluster stops it even when helmops died. Run again in the same
context (the same release, revision and reason), a hook that a dead helmops left running is waited
for and not started a second time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from helmops.checks.command_hook import run_command
from helmops.checks.job_hook import JobHook
from helmops.checks.surroundings import Clock, Cluster, Progress
from helmops.checks.webhook import send_webhook
from helmops.errors import NotSupported
from helmops.http import Http
from helmops.model.credentials import HttpCredentials
from helmops.model.declarations import RemediationHook
from helmops.model.declarations.unsupported import COMMANDS_NOT_ALLOWED
from helmops.model.hooks import HookResult
from helmops.model.releases import ReleaseId


class ReleaseHooks:
    """Meets the port `Hooks`, against one cluster. `secrets` gives values that must not be shown,
    as known now.
    """

    def __init__(
        self,
        cluster: Cluster,
        http: Http,
        clock: Clock,
        *,
        allow_commands: bool = False,
        secrets: Callable[[], Iterable[str]] = tuple,
    ) -> None:
        self._cluster = cluster
        self._http = http
        self._clock = clock
        self._allow_commands = allow_commands
        self._secrets = secrets

    async def run(
        self,
        hook: RemediationHook,
        release: ReleaseId,
        context: Mapping[str, str],
        credentials: HttpCredentials,
        *,
        progress: Progress | None = None,
    ) -> HookResult:
        """Run one hook to its end or its timeout. A failed hook is a result. Raises ClusterError,
        NotSupported for a command where none is allowed.

        `context` says what it is about (`revision`, `chart`, `version`, `reason`, `phase`…); a Job
        and a command get it as environment variables (`HELMOPS_REVISION`…), a webhook as JSON or in
        its body.
        """
        facts = {
            "release": release.name,
            "namespace": release.namespace,
            "hook": hook.name,
            "at": hook.at,
        } | dict(context)
        if hook.webhook:
            return await send_webhook(self._http, hook, hook.webhook, facts, credentials)
        if hook.command:
            if not self._allow_commands:
                raise NotSupported(COMMANDS_NOT_ALLOWED, where=f"hook {hook.name}")
            return await run_command(hook, hook.command, facts, self._secrets(), progress)
        job = JobHook(self._cluster, self._clock, hook, release, facts, credentials)
        return await job.run(progress)
