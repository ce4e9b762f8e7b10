"""What holds for objects of every kind: deletion, observed generation, standard conditions."""

from __future__ import annotations

from helmops.health.fields import (
    Object,
    condition,
    conditions,
    current,
    dig,
    failed,
    in_progress,
    is_true,
    text,
    told,
)
from helmops.model.health import Health, HealthStatus


def assess_first(object_: Object) -> Health | None:
    """What decides before the rules of a kind: None where they are to be asked.

    Stalled and Reconciling are the "abnormal is True" conditions of kstatus: a controller that
    sets them has spoken for its object. The first of the two in the list counts.
    """
    if text(object_, "metadata", "deletionTimestamp"):
        return Health(HealthStatus.TERMINATING, "is being deleted")
    if behind := generation_behind(object_):
        return behind
    for found in conditions(object_):
        if is_true(found) and text(found, "type") == "Reconciling":
            return in_progress(told(found))
        if is_true(found) and text(found, "type") == "Stalled":
            return failed(told(found))
    return None


def generation_behind(object_: Object) -> Health | None:
    """In progress while a controller has not yet seen the latest change, else None.

    An object without either number does not tell, and is left to the other rules; so is one whose
    observed generation is no integer (some CRDs have a string).
    """
    generation = dig(object_, "metadata", "generation")
    observed = dig(object_, "status", "observedGeneration")
    if not isinstance(generation, int) or not isinstance(observed, int) or generation == observed:
        return None
    return in_progress(f"generation {generation} is not observed yet, only {observed}")


def assess_last(object_: Object) -> Health:
    """For kinds without rules of their own: the Ready condition, and Current where there is none.

    Ready=False is in progress, not failed: controllers set it while they work.
    """
    ready = condition(object_, "Ready")
    if ready is None or text(ready, "status") not in ("True", "False", "Unknown"):
        return current("exists")
    return current("is Ready") if is_true(ready) else in_progress(told(ready))
