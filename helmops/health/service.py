"""Service: only one of type LoadBalancer has something to wait for."""

from __future__ import annotations

from helmops.health.fields import Object, current, in_progress, text
from helmops.model.health import Health


def assess_service(object_: Object) -> Health:
    """A load balancer's Service has its cluster IP; its external address is not waited for."""
    is_balancer = text(object_, "spec", "type") == "LoadBalancer"
    if is_balancer and not text(object_, "spec", "clusterIP"):
        return in_progress("has no cluster IP yet")
    return current("exists")
