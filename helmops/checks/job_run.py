"""One run of a Kubernetes Job in the release's namespace: for remediation hooks and for checks.

Its deadline is the cluster's to keep, so it ends even when helmops died. A run that a dead helmops
left going is taken up by the same run of the next, and not started a second time.
"""

from __future__ import annotations

import copy
import hashlib
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from helmops.checks.diagnosis import diagnose
from helmops.checks.output import last_part
from helmops.checks.surroundings import Clock, Cluster, Object, Progress
from helmops.errors import AccessDenied, ClusterError, ClusterUnreachable
from helmops.health.fields import condition, dig, integer, is_true, items, text, told
from helmops.model.declarations import format_duration
from helmops.model.redaction import redact
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
GRACE_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class JobOrder:
    """What to run: `template` is a Job's spec or a Pod's template, `timeout` the time that it has.

    `purpose` is `hook` or `check`, `name` the declared one. Containers get the `facts` as
    `HELMOPS_…`. `identity` tells one run from another: an equal one is taken up where it still
    runs.
    """

    purpose: str
    name: str
    template: Mapping[str, Any]
    timeout: timedelta
    release: ReleaseId
    facts: Mapping[str, str]
    identity: Sequence[Any]
    annotations: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class JobEnd:
    """How it ended; `output` is the end of its logs. Both are redacted and bounded. One that
    `was_refused` never ran: its template is no Job, or the API server does not take it.
    """

    succeeded: bool
    message: str
    output: str = ""
    was_refused: bool = False


class JobRun:
    """One run of one order. `secrets` are values that must not be shown. What failed is deleted as
    well as what succeeded, unless it `keeps_failed` ones for a person to look at.
    """

    def __init__(
        self,
        cluster: Cluster,
        clock: Clock,
        order: JobOrder,
        *,
        secrets: Sequence[str] = (),
        keeps_failed: bool = False,
    ) -> None:
        self._cluster = cluster
        self._clock = clock
        self._order = order
        self._namespace = order.release.namespace
        self._secrets = secrets
        self._keeps_failed = keeps_failed

    async def run(self, progress: Progress | None = None) -> JobEnd:
        """Create the Job, or take up the one that is still running for this very run, and wait.

        Raises AccessDenied, ClusterUnreachable; a Job that the API server refuses for what it is
        has failed. A cancelled run leaves its Job to be taken up.
        """
        manifest = job_manifest(self._order)
        if manifest is None:
            return self._refused(
                "its template is neither a Job's spec nor a Pod's: it has no containers"
            )
        try:
            job = await self._running(manifest) or await self._cluster.create(manifest)
        except (AccessDenied, ClusterUnreachable):
            raise
        except ClusterError as error:  # invalid, over quota, no such namespace
            return self._refused(f"the Job cannot be created: {error.what}")
        name = text(job, "metadata", "name")
        if progress:
            what = f"{self._order.purpose} {self._order.name}"
            progress(f"{what}: waiting for Job {self._namespace}/{name}")
        ended = await self._wait(name)
        if ended is None:
            return self._end(False, f"Job {name} was deleted while it ran")
        output = await self._output(ended)
        succeeded = is_true(condition(ended, "Complete"))
        message = await self._told(ended)
        if succeeded or not self._keeps_failed:
            await self._tidy_up(name)
        return self._end(succeeded, f"Job {name} {message}", output)

    def _end(self, succeeded: bool, message: str, output: str = "") -> JobEnd:
        return JobEnd(
            succeeded,
            redact(message, self._secrets),
            last_part(redact(output, self._secrets), lines=_KEPT_LINES, size=_KEPT_BYTES),
        )

    def _refused(self, message: str) -> JobEnd:
        return JobEnd(False, redact(message, self._secrets), was_refused=True)

    async def _running(self, manifest: Object) -> Object | None:
        """The unfinished Job of a helmops that died in the middle of this same run."""
        run = manifest["metadata"]["labels"][_RUN_LABEL]
        listing = await self._cluster.list(
            _BATCH, "Job", self._namespace, label_selector=f"{_RUN_LABEL}={run}"
        )
        return next((job for job in listing.items if not _is_over(job)), None)

    async def _wait(self, name: str) -> Object | None:
        """The Job when it is over or the time is up, None when it is gone."""
        seconds = self._order.timeout.total_seconds() + GRACE_SECONDS
        begun, delay = self._clock.now(), _FIRST_DELAY
        while True:
            job = await self._cluster.get(_BATCH, "Job", name, self._namespace)
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
        timeout = format_duration(self._order.timeout)
        if failure is None or not is_true(failure):
            return f"is not done within {timeout}{because}"
        if text(failure, "reason") == "DeadlineExceeded":
            return f"was stopped after {timeout}{because}"
        return f"failed: {told(failure)}{because}"

    async def _output(self, job: Object) -> str:
        """The logs of its last pods. What cannot be had is left out: nothing fails for it."""
        name = text(job, "metadata", "name")
        try:
            listing = await self._cluster.list(
                "v1", "Pod", self._namespace, label_selector=f"job-name={name}"
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
                self._namespace,
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
            await self._cluster.delete(_BATCH, "Job", name, self._namespace)
        except ClusterError:
            return


def job_manifest(order: JobOrder) -> Object | None:
    """The Job to create; None for a template in which there is no pod.

    What the template leaves out is filled in: no second attempt, an hour to live when finished,
    `restartPolicy: Never`. Its deadline is the order's timeout, or its own where that is shorter.
    """
    given: dict[str, Any] = copy.deepcopy(dict(order.template))
    spec: dict[str, Any] = given if "template" in given else {"template": given}
    pod = dig(spec, "template", "spec")
    if not isinstance(pod, dict) or not isinstance(pod.get("containers"), list):
        return None
    timeout = max(1, math.ceil(order.timeout.total_seconds()))
    spec.setdefault("backoffLimit", 0)
    spec.setdefault("ttlSecondsAfterFinished", _TTL_SECONDS)
    own = integer(spec, "activeDeadlineSeconds", default=timeout)
    spec["activeDeadlineSeconds"] = min(own, timeout)
    pod.setdefault("restartPolicy", "Never")
    for container in items(pod, "containers"):
        _add_environment(container, order.facts)
    return {
        "apiVersion": _BATCH,
        "kind": "Job",
        "metadata": {
            "generateName": f"helmops-{order.purpose}-",
            "namespace": order.release.namespace,
            "labels": {
                "app.kubernetes.io/managed-by": "helmops",
                "helmops.dev/release": _label(order.release.name),
                f"helmops.dev/{order.purpose}": _label(order.name),
                _RUN_LABEL: _run_of(order),
            },
            "annotations": {
                "helmops.dev/owner": str(order.release),
                f"helmops.dev/{order.purpose}": order.name,
                **order.annotations,
            },
        },
        "spec": spec,
    }


def variable(fact: str) -> str:
    """The environment variable that a program gets a fact as: `HELMOPS_REVISION`."""
    return f"HELMOPS_{re.sub(r'[^A-Za-z0-9]', '_', fact).upper()}"


def _add_environment(container: Any, facts: Mapping[str, str]) -> None:
    environment = container.setdefault("env", [])
    if not isinstance(environment, list):
        return
    taken = {text(each, "name") for each in environment}
    for fact, value in sorted(facts.items()):
        if variable(fact) not in taken:
            # Kubernetes would take $(NAME) for a variable.
            environment.append({"name": variable(fact), "value": value.replace("$(", "$$(")})


def _run_of(order: JobOrder) -> str:
    content = json.dumps([*order.identity, dict(order.facts)], sort_keys=True, default=str)
    return hashlib.sha256(content.encode()).hexdigest()[:32]


def _label(value: str) -> str:
    """A value that a label may have; the whole one is in an annotation."""
    return re.sub(r"[^A-Za-z0-9._-]", "-", value)[:63].strip("-._")


def _is_over(job: Object) -> bool:
    return is_true(condition(job, "Complete")) or is_true(condition(job, "Failed"))


def _containers(pod: Object) -> list[str]:
    return [text(one, "name") for one in items(pod, "spec", "containers")]
