"""A remediation hook that is a command: a program that helmops runs itself, without a shell.

Only where the operator allowed it: whoever may write a policy decides what is run, with the rights
of helmops. Of our environment it gets what a program needs to run, and nothing that holds
credentials, beside the facts as `HELMOPS_…`. It has a process group of its own, which is ended at
the hook's timeout, when the pass is cancelled and when helmops dies: a command is run again by the
next pass, where a Job would be taken up.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable, Mapping, Sequence

from helmops import process
from helmops.checks.job_run import variable
from helmops.checks.output import last_part
from helmops.checks.surroundings import Progress
from helmops.model.declarations import RemediationHook, format_duration
from helmops.model.hooks import HookResult
from helmops.model.redaction import redactor

_KEPT_LINES = 100
_KEPT_BYTES = 16 * 1024
#: What a program needs, and kubectl and curl in it. Not ours: a database's password may be in it.
_PASSED_ON = (
    "PATH",
    "HOME",
    "USER",
    "LANG",
    "TZ",
    "TMPDIR",
    "KUBECONFIG",
    "KUBERNETES_SERVICE_HOST",
    "KUBERNETES_SERVICE_PORT",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "http_proxy",
    "https_proxy",
    "no_proxy",
)
_GRACE = process.Grace(after_cancel=0.8, after_deadline=5.0)


async def run_command(
    hook: RemediationHook,
    command: Sequence[str],
    facts: Mapping[str, str],
    secrets: Iterable[str],
    progress: Progress | None = None,
) -> HookResult:
    """Run it to its end or the hook's timeout; status 0 is success. Of its arguments nothing is
    shown, and what it says (both streams, in their order) without `secrets`.
    """
    redact = redactor(secrets)
    said: deque[str] = deque(maxlen=_KEPT_LINES + 1)

    def hear(line: str) -> None:
        said.append(line)
        if progress:
            progress(f"hook {hook.name}: {redact(line)}")

    told = f"command {os.path.basename(command[0])}"
    try:
        finished = await process.run(
            command,
            environment=_environment(facts),
            directory="/",
            deadline=hook.timeout.total_seconds(),
            grace=_GRACE,
            stdout_limit=0,
            stderr_limit=0,
            on_line=hear,
        )
    except (OSError, ValueError) as error:  # no such program; a NUL among its arguments
        why = error.strerror if isinstance(error, OSError) else "its arguments cannot be passed on"
        return HookResult(hook.name, False, redact(f"{told} cannot be started: {why}"))
    output = last_part(redact("\n".join(said)), lines=_KEPT_LINES, size=_KEPT_BYTES)
    succeeded = finished.status == 0 and not finished.is_overdue
    message = f"{told} {_end_of(finished, hook)}"
    return HookResult(hook.name, succeeded, redact(message), output)


def _end_of(finished: process.Finished, hook: RemediationHook) -> str:
    if finished.is_overdue:
        return f"was stopped after {format_duration(hook.timeout)}"
    if finished.status < 0:
        return f"was ended by signal {-finished.status}"
    return f"ended with status {finished.status}" if finished.status else "succeeded"


def _environment(facts: Mapping[str, str]) -> dict[str, str]:
    ours = {
        name: value
        for name, value in os.environ.items()
        if name in _PASSED_ON or name.startswith("LC_")
    }
    return ours | {variable(fact): value.replace("\0", "") for fact, value in facts.items()}
