"""ReplicaSet: by its counts; ReplicaFailure means that pods cannot be made."""

from __future__ import annotations

from helmops.health.fields import Object, condition, current, in_progress, integer, is_true, text
from helmops.model.health import Health


def assess_replica_set(object_: Object) -> Health:
    """As many labelled, available and ready as are wanted."""
    failure = condition(object_, "ReplicaFailure")
    if failure is not None and is_true(failure):
        # Often passes: a quota is raised, a webhook comes back.
        return in_progress(f"cannot make pods: {text(failure, 'message') or 'ReplicaFailure'}")

    wanted = integer(object_, "spec", "replicas", default=1)
    for word, name in (
        ("labelled", "fullyLabeledReplicas"),
        ("available", "availableReplicas"),
        ("ready", "readyReplicas"),
    ):
        count = integer(object_, "status", name)
        if count < wanted:
            return in_progress(f"{word}: {count}/{wanted}")
    replicas = integer(object_, "status", "replicas")
    if replicas > wanted:
        return in_progress(f"{replicas - wanted} replicas still to terminate")
    return current(f"available, replicas: {replicas}")
