"""Deployment: conditions and counts, ProgressDeadlineExceeded is a failure."""

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
)
from helmops.model.health import Health

#: The controller takes this deadline as none, and then sets no Progressing condition.
_NO_DEADLINE = 2**31 - 1


def assess_deployment(object_: Object) -> Health:
    """Rolled out, and as many available as are wanted."""
    progressing = condition(object_, "Progressing")
    if text(progressing, "reason") == "ProgressDeadlineExceeded":
        return failed("progress deadline exceeded")

    wanted = integer(object_, "spec", "replicas", default=1)
    replicas = integer(object_, "status", "replicas")
    updated = integer(object_, "status", "updatedReplicas")
    available = integer(object_, "status", "availableReplicas")
    ready = integer(object_, "status", "readyReplicas")
    if replicas < wanted:
        return in_progress(f"replicas: {replicas}/{wanted}")
    if updated < wanted:
        return in_progress(f"updated: {updated}/{wanted}")
    if replicas > wanted:
        return in_progress(f"{replicas - wanted} old replicas still to terminate")
    if available < updated:
        return in_progress(f"available: {available}/{updated}")
    if ready < wanted:
        return in_progress(f"ready: {ready}/{wanted}")

    rolled_out = is_true(progressing) and text(progressing, "reason") == "NewReplicaSetAvailable"
    deadline = integer(object_, "spec", "progressDeadlineSeconds", default=_NO_DEADLINE)
    if not rolled_out and deadline != _NO_DEADLINE:
        return in_progress("its new ReplicaSet is not available")
    if not is_true(condition(object_, "Available")):
        return in_progress("is not available")
    return current(f"available, replicas: {replicas}")
