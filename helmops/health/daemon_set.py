"""DaemonSet: by its counts; nothing counts before its controller has seen it."""

from __future__ import annotations

from helmops.health.fields import Object, current, dig, in_progress, integer
from helmops.model.health import Health


def assess_daemon_set(object_: Object) -> Health:
    """Scheduled, updated, available and ready on every node that wants it."""
    # Without these numbers its counts mean nothing, so the leniency that other kinds get is not
    # for this one.
    for path in (("metadata", "generation"), ("status", "observedGeneration")):
        if not isinstance(dig(object_, *path), int):
            return in_progress(f"{'.'.join(path)} is not set yet")

    wanted = integer(object_, "status", "desiredNumberScheduled", default=-1)
    if wanted == -1:
        return in_progress("status.desiredNumberScheduled is not set yet")
    for word, name in (
        ("scheduled", "currentNumberScheduled"),
        ("updated", "updatedNumberScheduled"),
        ("available", "numberAvailable"),
        ("ready", "numberReady"),
    ):
        count = integer(object_, "status", name)
        if count < wanted:
            return in_progress(f"{word}: {count}/{wanted}")
    return current(f"ready on {wanted} nodes")
