"""One loop for all kinds of policy checks: interval, timeout and thresholds.

A *try* says yes or no with a sentence. Successes in a row up to the one threshold make the check
pass, failures in a row up to the other make it fail, and so does the time: a further try that would
begin after the timeout is not waited for.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from helmops.checks.surroundings import Clock, Progress
from helmops.model.declarations import PolicyCheck, format_duration
from helmops.model.health import CheckResult


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one try found."""

    passed: bool
    message: str


#: One try; it may take as long as it likes, and is cut off at the check's timeout.
Probe = Callable[[], Awaitable[Outcome]]


async def run_check(
    check: PolicyCheck,
    probe: Probe,
    clock: Clock,
    progress: Progress | None = None,
    *,
    grace: float = 0.0,
) -> CheckResult:
    """Try until a threshold or the timeout is reached. What a probe raises passes through.

    `grace` (seconds) is for a probe that keeps the time itself and has to tell how it went.
    """
    ends_at = clock.now() + check.timeout
    interval = check.interval.total_seconds()
    successes = failures = attempts = 0
    while True:
        attempts += 1
        outcome = await _try(probe, (ends_at - clock.now()).total_seconds() + grace)
        if outcome.passed:
            successes, failures = successes + 1, 0
            if successes >= check.success_threshold:
                return CheckResult(check.name, True, outcome.message, attempts)
            line = f"passed {successes} of {check.success_threshold} times"
        else:
            successes, failures = 0, failures + 1
            if failures >= check.failure_threshold:
                times = "" if failures == 1 else f" ({failures} times in a row)"
                return CheckResult(check.name, False, f"{outcome.message}{times}", attempts)
            line = f"failed {failures} of {check.failure_threshold} times: {outcome.message}"
        if (ends_at - clock.now()).total_seconds() <= interval:
            return CheckResult(check.name, False, _too_late(check, outcome, successes), attempts)
        if progress:
            progress(f"check {check.name} {line}")
        await clock.sleep(interval)


async def _try(probe: Probe, seconds: float) -> Outcome:
    try:
        async with asyncio.timeout(seconds):
            return await probe()
    except TimeoutError:
        return Outcome(False, f"no answer within {seconds:.3g} s, the rest of the check's timeout")


def _too_late(check: PolicyCheck, last: Outcome, successes: int) -> str:
    within = f"within {format_duration(check.timeout)}"
    if last.passed:
        return f"passed only {successes} of {check.success_threshold} times {within}"
    return f"{last.message} (not healthy {within})"
