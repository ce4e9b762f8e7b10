"""The Job check: a Kubernetes Job that must succeed, deleted when it is over, however it ended.

One try is one Job: where it fails, the next try runs it again, up to the check's
`failureThreshold`. The time that is left to the check is the Job's deadline. What a failed one said
last is in the message. A template that is no Job says nothing of the release, so it is no failure
but a DeclarationError.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from helmops.checks.job_run import JobOrder, JobRun
from helmops.checks.runner import Outcome
from helmops.checks.surroundings import Clock, Cluster, Progress
from helmops.errors import DeclarationError
from helmops.model.declarations import PolicyCheck
from helmops.model.releases import ReleaseId

_TOLD_LINES = 5
_TOLD_SIZE = 600


class JobProbe:
    """One Job check of one release. `objects` are the revision's: a Job that a dead helmops left
    running is taken up only where it was made for the same ones.
    """

    def __init__(
        self,
        cluster: Cluster,
        clock: Clock,
        check: PolicyCheck,
        release: ReleaseId,
        objects: Sequence[Mapping[str, Any]],
        progress: Progress | None = None,
    ) -> None:
        self._cluster = cluster
        self._clock = clock
        self._check = check
        self._release = release
        self._progress = progress
        manifest = json.dumps(list(objects), sort_keys=True, default=str)
        self._revision = hashlib.sha256(manifest.encode()).hexdigest()
        self._ends_at: datetime | None = None

    async def __call__(self) -> Outcome:
        """Run it once. Raises DeclarationError for what is no Job, AccessDenied,
        ClusterUnreachable.
        """
        now = self._clock.now()
        if self._ends_at is None:
            self._ends_at = now + self._check.timeout
        order = self.order(max(self._ends_at - now, timedelta(seconds=1)))
        end = await JobRun(self._cluster, self._clock, order).run(self._progress)
        if end.was_refused:
            raise DeclarationError(end.message, field="spec.verify.checks.job.template")
        return Outcome(end.succeeded, _with_output(end.message, end.output))

    def order(self, timeout: timedelta) -> JobOrder:
        """What is run, with so much time."""
        facts = {
            "release": self._release.name,
            "namespace": self._release.namespace,
            "check": self._check.name,
        }
        return JobOrder(
            purpose="check",
            name=self._check.name,
            template=self._check.job.template if self._check.job else {},
            timeout=timeout,
            release=self._release,
            facts=facts,
            identity=[self._check.manifest(), self._revision],
            annotations={},
        )


def _with_output(message: str, output: str) -> str:
    """The message, and the last lines of what it said, in one line."""
    lines = [line.strip() for line in output.splitlines() if line.strip()][-_TOLD_LINES:]
    if not lines:
        return message
    said = " | ".join(lines)
    return f"{message}; it said: {said if len(said) <= _TOLD_SIZE else '…' + said[-_TOLD_SIZE:]}"
