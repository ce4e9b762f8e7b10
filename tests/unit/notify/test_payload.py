from __future__ import annotations

import json
from typing import Any

from helmops.notify.payload import payload, signature
from tests.fakes.alerts import alert, event


def body(manifest: dict[str, Any] | None = None, **spec: Any) -> dict[str, Any]:
    happened = event("ä", revision=3, metadata={"revision": "1.2.0", "env": "event"})
    decoded: dict[str, Any] = json.loads(payload(happened, alert(**spec), manifest or {}, "pod-1"))
    return decoded


def test_the_body_is_fluxs_event() -> None:
    assert body({"metadata": {"uid": "u-1"}}) == {
        "involvedObject": {
            "apiVersion": "helm.toolkit.fluxcd.io/v2",
            "kind": "HelmRelease",
            "name": "web",
            "namespace": "apps",
            "uid": "u-1",
        },
        "severity": "error",
        "timestamp": "2026-01-05T12:00:00Z",
        "message": "ä",
        "reason": "UpgradeFailed",
        "metadata": {
            "kind": "failure",
            "releaseRevision": "3",
            "revision": "1.2.0",
            "env": "event",
        },
        "reportingController": "helmops",
        "reportingInstance": "pod-1",
    }


def test_the_alerts_metadata_is_added_and_overrides_nothing() -> None:
    metadata = body(eventMetadata={"env": "alert", "cluster": "prod"})["metadata"]
    assert (metadata["env"], metadata["cluster"]) == ("event", "prod")


def test_the_deprecated_summary_becomes_metadata() -> None:
    assert body(summary="prod is ill")["metadata"]["summary"] == "prod is ill"


def test_an_object_that_never_was_in_a_cluster_has_no_uid() -> None:
    assert "uid" not in body()["involvedObject"]


def test_the_signature_is_one_that_fluxs_receivers_verify() -> None:
    # From RFC 4231, test case 2.
    assert signature(b"what do ya want for nothing?", b"Jefe") == (
        "sha256=5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
    )
