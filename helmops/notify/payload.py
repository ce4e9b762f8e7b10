"""The body of a notification: Flux's event, so that what receives Flux's receives ours."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Mapping
from typing import Any

from helmops.model.declarations.notification import Alert
from helmops.model.events import Event

#: `reportingController`, and the header that Flux sends it in as well.
CONTROLLER = "helmops"
COMPONENT_HEADER = "Gotk-Component"
SIGNATURE_HEADER = "X-Signature"

_API_VERSION = "helm.toolkit.fluxcd.io/v2"
_KIND = "HelmRelease"


def payload(event: Event, alert: Alert, manifest: Mapping[str, Any], instance: str) -> bytes:
    """The event as JSON, with fields and meanings of Flux's `events.md`.

    `instance` tells which helmops it was. The Alert's `eventMetadata` is added and never overrides
    what the event says itself. Ours in the metadata: `kind` (success, failure, rollback, hold,
    info) and `releaseRevision`, Helm's number.
    """
    metadata = {"kind": event.kind.value}
    if event.revision is not None:
        metadata["releaseRevision"] = str(event.revision)
    metadata |= event.metadata
    if alert.spec.summary:
        metadata.setdefault("summary", alert.spec.summary)
    involved = {
        "apiVersion": str(manifest.get("apiVersion") or _API_VERSION),
        "kind": _KIND,
        "name": event.key.name,
        "namespace": event.key.namespace,
    }
    uid = (manifest.get("metadata") or {}).get("uid")
    if uid:
        involved["uid"] = str(uid)
    body = {
        "involvedObject": involved,
        "severity": event.severity.value,
        "timestamp": event.at.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "message": event.message,
        "reason": event.reason,
        "metadata": {**alert.spec.event_metadata, **metadata},
        "reportingController": CONTROLLER,
        "reportingInstance": instance,
    }
    return json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()


def signature(body: bytes, token: bytes) -> str:
    """The value of `X-Signature` for `generic-hmac`."""
    return f"sha256={hmac.new(token, body, hashlib.sha256).hexdigest()}"
