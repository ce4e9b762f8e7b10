from datetime import timedelta

import pytest
from pydantic import ValidationError

from helmops.model.declarations import Alert
from tests.unit.model.manifests import document, provider


def test_an_alert_has_fluxs_defaults() -> None:
    spec = {
        "providerRef": {"name": "hooks"},
        "eventSources": [{"kind": "HelmRelease", "name": "*"}],
    }
    read = Alert.model_validate(
        document("notification.toolkit.fluxcd.io/v1beta3", "Alert", "all", spec)
    )
    assert read.spec.event_severity == "info"
    assert read.spec.suspend is False


def test_a_provider_has_fifteen_seconds() -> None:
    assert provider().spec.timeout == timedelta(seconds=15)


def test_an_address_is_not_printed_since_webhooks_carry_their_token_in_it() -> None:
    assert "hunter2" not in repr(provider(address="https://hooks.example.com/hunter2"))


def test_a_commit_status_expression_is_for_commit_statuses() -> None:
    assert provider(type="github", commitStatusExpr="'a'").spec.commit_status_expr == "'a'"
    with pytest.raises(ValidationError, match="commitStatusExpr"):
        provider(commitStatusExpr="'a'")
