"""A remediation hook that is a Kubernetes Job in the release's namespace.

A Job that succeeded is deleted, one that failed stays for a person to look at until its
`ttlSecondsAfterFinished` (an hour, unless the template says otherwise).
"""

from __future__ import annotations

import copy
import hashlib
import json
import math
import re
from collections.abc import Mapping
from typing import Any

from helmops.checks.diagnosis import diagnose
from helmops.checks.output import last_part
from helmops.checks.surroundings import Clock, Cluster, Object, Progress
from helmops.errors import AccessDenied, ClusterError, ClusterUnreachable
from helmops.health.fields import condition, dig, integer, is_true, items, text, told
from helmops.model.credentials import HttpCredentials
from helmops.model.declarations import RemediationHook, format_duration
from helmops.model.hooks import HookResult
from helmops.model.redaction import redact, secrets_of
from helmops.model.releases import ReleaseId

_BATCH = "batch/v1"
_RUN_LABEL = "helmops.dev/hook-run"
_TTL_SECONDS = 3600
_FIRST_DELAY = 0.25
_LONGEST_DELAY = 2.0
_DELAY_GROWTH = 1.6
_KEPT_LINES = 100
_KEPT_BYTES = 16 * 1024
_PODS_WITH_OUTPUT = 3
#: The cluster stops the Job by its own deadline; so long may it take to say so.
_GRACE_SECONDS = 5.0


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
        self._cluster = cluster
        self._clock = clock
        self._hook = hook
        self._release = release
        self._facts = facts
        self._secrets = secrets_of(credentials)

    async def run(self, progress: Progress | None = None) -> HookResult:
        """Create the Job, or take up the one that is still running for this very run, and wait.

        Raises AccessDenied, ClusterUnreachable; a Job that the API server refuses for what it is
        is a failed hook.
        """
        manifest = job_manifest(self._hook, self._release, self._facts)
        if manifest is None:
            return self._result(
                False, "its template is neither a Job's spec nor a Pod's: it has no containers"
            )
        try:
            job = await self._running(manifest) or await self._cluster.create(manifest)
        except (AccessDenied, ClusterUnreachable):
            raise
        except ClusterError as error:  # invalid, over quota, no such namespace
            return self._result(False, f"the Job cannot be created: {error.what}")
        name = text(job, "metadata", "name")
        if progress:
            progress(f"hook {self._hook.name}: waiting for Job {self._release.namespace}/{name}")
        ended = await self._wait(name)
        if ended is None:
            return self._result(False, f"Job {name} was deleted while it ran")
        output = await self._output(ended)
        succeeded = is_true(condition(ended, "Complete"))
        message = await self._told(ended)
        if succeeded:
            await self._tidy_up(name)
        return self._result(succeeded, f"Job {name} {message}", output)

    def _result(self, succeeded: bool, message: str, output: str = "") -> HookResult:
        return HookResult(
            self._hook.name,
            succeeded,
            redact(message, self._secrets),
            last_part(redact(output, self._secrets), lines=_KEPT_LINES, size=_KEPT_BYTES),
        )

    async def _running(self, manifest: Object) -> Object | None:
        """The unfinished Job of a helmops that died in the middle of this same run."""
        run = manifest["metadata"]["labels"][_RUN_LABEL]
        listing = await self._cluster.list(
            _BATCH, "Job", self._release.namespace, label_selector=f"{_RUN_LABEL}={run}"
        )
        return next((job for job in listing.items if not _is_over(job)), None)

    async def _wait(self, name: str) -> Object | None:
        """The Job when it is over or the time is up, None when it is gone."""
        seconds = self._hook.timeout.total_seconds() + _GRACE_SECONDS
        begun, delay = self._clock.now(), _FIRST_DELAY
        while True:
            job = await self._cluster.get(_BATCH, "Job", name, self._release.namespace)
            if job is None or _is_over(job):
                return job
            left = seconds - (self._clock.now() - begun).total_seconds()
            if left <= 0:
                return job
            await self._clock.sleep(min(delay, left))
            delay = min(delay * _DELAY_GROWTH, _LONGEST_DELAY)

    async def _told(self, job: Object) -> str:
        if is_true(condition(job, "Complete")):
            return "completed"
        failure = condition(job, "Failed")
        trouble = await diagnose(self._cluster, job)
        because = f" ({trouble})" if trouble else ""
        if failure is None or not is_true(failure):
            return f"is not done within {format_duration(self._hook.timeout)}{because}"
        if text(failure, "reason") == "DeadlineExceeded":
            return f"was stopped after {format_duration(self._hook.timeout)}{because}"
        return f"failed: {told(failure)}{because}"

    async def _output(self, job: Object) -> str:
        """The logs of its last pods. What cannot be had is left out: a hook is not failed by it."""
        name = text(job, "metadata", "name")
        try:
            listing = await self._cluster.list(
                "v1", "Pod", self._release.namespace, label_selector=f"job-name={name}"
            )
        except ClusterError:
            return ""
        pods = sorted(listing.items, key=lambda p: text(p, "metadata", "creationTimestamp"))
        parts = [
            part
            for pod in pods[-_PODS_WITH_OUTPUT:]
            for container in _containers(pod)
            if (part := await self._log(text(pod, "metadata", "name"), container))
        ]
        return "\n".join(parts)

    async def _log(self, pod: str, container: str) -> str:
        try:
            log = await self._cluster.logs(
                pod,
                self._release.namespace,
                container=container,
                tail_lines=_KEPT_LINES,
                limit_bytes=4 * _KEPT_BYTES,
            )
        except ClusterError:
            return ""
        return log.strip("\n")

    async def _tidy_up(self, name: str) -> None:
        """Its time to live does it too, if this fails."""
        try:
            await self._cluster.delete(_BATCH, "Job", name, self._release.namespace)
        except ClusterError:
            return


def job_manifest(
    hook: RemediationHook, release: ReleaseId, facts: Mapping[str, str]
) -> Object | None:
    """The Job to create; None for a template in which there is no pod.

    The template is a Job's spec or a Pod's template. What it leaves out is filled in: no second
    attempt, an hour to live when finished, `restartPolicy: Never`. Its deadline is the hook's
    timeout, or its own where that is shorter. Containers get the facts as `HELMOPS_…`.
    """
    given: dict[str, Any] = copy.deepcopy(hook.job.template) if hook.job else {}
    spec: dict[str, Any] = given if "template" in given else {"template": given}
    pod = dig(spec, "template", "spec")
    if not isinstance(pod, dict) or not isinstance(pod.get("containers"), list):
        return None
    timeout = max(1, math.ceil(hook.timeout.total_seconds()))
    spec.setdefault("backoffLimit", 0)
    spec.setdefault("ttlSecondsAfterFinished", _TTL_SECONDS)
    own = integer(spec, "activeDeadlineSeconds", default=timeout)
    spec["activeDeadlineSeconds"] = min(own, timeout)
    pod.setdefault("restartPolicy", "Never")
    for container in items(pod, "containers"):
        _add_environment(container, facts)
    return {
        "apiVersion": _BATCH,
        "kind": "Job",
        "metadata": {
            "generateName": "helmops-hook-",
            "namespace": release.namespace,
            "labels": {
                "app.kubernetes.io/managed-by": "helmops",
                "helmops.dev/release": _label(release.name),
                "helmops.dev/hook": _label(hook.name),
                _RUN_LABEL: _run_of(hook, facts),
            },
            "annotations": {
                "helmops.dev/owner": str(release),
                "helmops.dev/hook": hook.name,
                "helmops.dev/at": hook.at,
            },
        },
        "spec": spec,
    }


def _add_environment(container: Any, facts: Mapping[str, str]) -> None:
    environment = container.setdefault("env", [])
    if not isinstance(environment, list):
        return
    taken = {text(variable, "name") for variable in environment}
    for fact, value in sorted(facts.items()):
        name = f"HELMOPS_{re.sub(r'[^A-Za-z0-9]', '_', fact).upper()}"
        if name not in taken:
            # Kubernetes would take $(NAME) for a variable.
            environment.append({"name": name, "value": value.replace("$(", "$$(")})


def _run_of(hook: RemediationHook, facts: Mapping[str, str]) -> str:
    """Identifies this run: the same hook, as declared, in the same context."""
    content = json.dumps([hook.manifest(), dict(facts)], sort_keys=True, default=str)
    return hashlib.sha256(content.encode()).hexdigest()[:32]


def _label(value: str) -> str:
    """A value that a label may have; the whole one is in an annotation."""
    return re.sub(r"[^A-Za-z0-9._-]", "-", value)[:63].strip("-._")


def _is_over(job: Object) -> bool:
    return is_true(condition(job, "Complete")) or is_true(condition(job, "Failed"))


def _containers(pod: Object) -> list[str]:
    return [text(one, "name") for one in items(pod, "spec", "containers")]
