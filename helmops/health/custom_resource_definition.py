"""CustomResourceDefinition: established or refused."""

from __future__ import annotations

from helmops.health.fields import Object, conditions, current, failed, in_progress, text, told
from helmops.model.health import Health


def assess_custom_resource_definition(object_: Object) -> Health:
    """Its names are accepted and its API is served."""
    for found in conditions(object_):
        type_, status = text(found, "type"), text(found, "status")
        if type_ == "NamesAccepted" and status == "False":
            return failed(told(found))
        if type_ == "Established":
            if status == "True":
                return current("is established")
            if status == "False" and text(found, "reason") != "Installing":
                return failed(told(found))
    return in_progress("is being installed")
