"""Job: started is enough to be Current, as kstatus has it; failed is failed."""

from __future__ import annotations

from helmops.health.fields import (
    Object,
    condition,
    current,
    failed,
    in_progress,
    integer,
    is_true,
    text,
    told,
)
from helmops.model.health import Health


def assess_job(object_: Object) -> Health:
    """Complete, or running; helm itself waits for Jobs to complete where it was told to."""
    parallelism = integer(object_, "spec", "parallelism", default=1)
    completions = integer(object_, "spec", "completions", default=parallelism)
    succeeded = integer(object_, "status", "succeeded")
    failures = integer(object_, "status", "failed")
    if is_true(condition(object_, "Complete")):
        return current(f"completed, succeeded: {succeeded}/{completions}")
    failure = condition(object_, "Failed")
    if failure is not None and is_true(failure):
        return failed(f"failed, {failures} pods failed: {told(failure)}")
    if not text(object_, "status", "startTime"):
        return in_progress("has not started")
    active = integer(object_, "status", "active")
    return current(f"runs, succeeded: {succeeded}, active: {active}, failed: {failures}")
