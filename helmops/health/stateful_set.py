"""StatefulSet: by its counts and revisions; its controller sets no conditions."""

from __future__ import annotations

from helmops.health.fields import Object, current, dig, in_progress, integer, text
from helmops.model.health import Health


def assess_stateful_set(object_: Object) -> Health:
    """All replicas there, ready and of the update's revision (down to the partition)."""
    strategy = dig(object_, "spec", "updateStrategy")
    if text(strategy, "type") == "OnDelete":
        # A person replaces the pods; there is nothing to wait for.
        return current("uses the update strategy OnDelete")

    wanted = integer(object_, "spec", "replicas", default=1)
    replicas = integer(object_, "status", "replicas")
    ready = integer(object_, "status", "readyReplicas")
    updated = integer(object_, "status", "updatedReplicas")
    if replicas < wanted:
        return in_progress(f"replicas: {replicas}/{wanted}")
    if ready < wanted:
        return in_progress(f"ready: {ready}/{wanted}")
    if replicas > wanted:
        return in_progress(f"{replicas - wanted} replicas still to terminate")

    partition = integer(strategy, "rollingUpdate", "partition", default=-1)
    if partition != -1:
        to_update = wanted - partition
        if updated < to_update:
            return in_progress(f"updated: {updated}/{to_update} down to partition {partition}")
        return current(f"partition rolled out, updated: {updated}")

    of_revision = integer(object_, "status", "currentReplicas")
    if of_revision < wanted:
        return in_progress(f"of the current revision: {of_revision}/{wanted}")
    if text(object_, "status", "currentRevision") != text(object_, "status", "updateRevision"):
        return in_progress("its update is not rolled out yet")
    return current(f"ready, replicas: {replicas}")
