"""Alerts, Providers and events to send, as tests of notifications need them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from helmops.model.declarations.notification import Alert, Provider
from helmops.model.events import Event, EventKind, Severity
from helmops.model.releases import DeclarationKey

NOW = datetime(2026, 1, 5, 12, tzinfo=UTC)


def event(message: str = "Helm upgrade failed", **changes: Any) -> Event:
    fields = {
        "at": NOW,
        "key": DeclarationKey("apps", "web"),
        "kind": EventKind.FAILURE,
        "severity": Severity.ERROR,
        "reason": "UpgradeFailed",
        "message": message,
    }
    return Event(**{**fields, **changes})


def alert(*sources: dict[str, Any], namespace: str = "apps", **spec: Any) -> Alert:
    return Alert.model_validate(
        {
            "apiVersion": "notification.toolkit.fluxcd.io/v1beta3",
            "kind": "Alert",
            "metadata": {"name": "all", "namespace": namespace},
            "spec": {
                "providerRef": {"name": "hook"},
                "eventSources": list(sources) or [{"kind": "HelmRelease", "name": "*"}],
                **spec,
            },
        }
    )


def provider(name: str = "hook", **spec: Any) -> Provider:
    return Provider.model_validate(
        {
            "apiVersion": "notification.toolkit.fluxcd.io/v1beta3",
            "kind": "Provider",
            "metadata": {"name": name, "namespace": "apps"},
            "spec": {"type": "generic", **spec},
        }
    )
