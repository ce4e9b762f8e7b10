"""What it means that an object of a release is not in the cluster."""

from __future__ import annotations

from helmops.health.fields import Object, current, dig, group_of, text
from helmops.model.health import Health, HealthStatus


def assess_absence(manifest: Object) -> Health:
    """The health of an object of which only its manifest is known.

    A Job with `ttlSecondsAfterFinished` is removed by the cluster when it has finished, and a
    release does not turn bad by that. Every other object is missed.
    """
    is_job = (group_of(text(manifest, "apiVersion")), text(manifest, "kind")) == ("batch", "Job")
    if is_job and isinstance(dig(manifest, "spec", "ttlSecondsAfterFinished"), int):
        return current("was removed after it had finished (ttlSecondsAfterFinished)")
    return Health(HealthStatus.NOT_FOUND, "does not exist")
