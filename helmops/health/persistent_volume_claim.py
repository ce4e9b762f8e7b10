"""PersistentVolumeClaim: bound or not."""

from __future__ import annotations

from helmops.health.fields import Object, current, in_progress, text
from helmops.model.health import Health


def assess_persistent_volume_claim(object_: Object) -> Health:
    """Bound to a volume."""
    phase = text(object_, "status", "phase", default="unknown")
    if phase != "Bound":
        return in_progress(f"is not bound, its phase is {phase}")
    return current("is bound")
