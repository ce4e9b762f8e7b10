from __future__ import annotations

from typing import Any

import pytest

from helmops.model.events import EventKind, Severity
from helmops.notify.routing import wanted_by
from tests.fakes.alerts import alert, event


def test_a_star_takes_every_release_of_the_alerts_namespace() -> None:
    assert wanted_by(alert(), event(), {})
    assert not wanted_by(alert(namespace="other"), event(), {})


@pytest.mark.parametrize(
    ("source", "wanted"),
    [
        ({"kind": "HelmRelease", "name": "web"}, True),
        ({"kind": "HelmRelease", "name": "api"}, False),
        ({"kind": "HelmRelease", "name": "*", "namespace": "apps"}, True),
        ({"kind": "HelmRelease", "name": "*", "namespace": "other"}, False),
        ({"kind": "HelmRepository", "name": "*"}, False),
        ({"kind": "HelmRelease", "name": "*", "matchLabels": {"team": "a"}}, True),
        ({"kind": "HelmRelease", "name": "*", "matchLabels": {"team": "b"}}, False),
        ({"kind": "HelmRelease", "name": "*", "matchLabels": {"team": "a", "x": "y"}}, False),
        # As in Flux, labels count only where the name is a star.
        ({"kind": "HelmRelease", "name": "web", "matchLabels": {"team": "b"}}, True),
    ],
)
def test_sources_choose_by_kind_name_namespace_and_labels(
    source: dict[str, Any], wanted: bool
) -> None:
    assert wanted_by(alert(source), event(), {"team": "a"}) is wanted


def test_one_of_several_sources_is_enough() -> None:
    sources = ({"kind": "HelmRelease", "name": "api"}, {"kind": "HelmRelease", "name": "web"})
    assert wanted_by(alert(*sources), event(), {})


def test_severity_error_leaves_out_what_is_info() -> None:
    info = event(severity=Severity.INFO, kind=EventKind.SUCCESS)
    assert wanted_by(alert(eventSeverity="info"), info, {})
    assert not wanted_by(alert(eventSeverity="error"), info, {})
    assert wanted_by(alert(eventSeverity="error"), event(), {})


def test_a_suspended_alert_wants_nothing() -> None:
    assert not wanted_by(alert(suspend=True), event(), {})


@pytest.mark.parametrize(
    ("lists", "wanted"),
    [
        ({"inclusionList": ["(?i)UPGRADE"]}, True),
        ({"inclusionList": ["^upgrade"]}, False),
        ({"inclusionList": ["install", r"failed\z"]}, True),
        ({"exclusionList": ["failed$"]}, False),
        ({"inclusionList": ["Helm"], "exclusionList": ["upgrade"]}, False),
        ({"inclusionList": ["Helm"], "exclusionList": ["rollback"]}, True),
        ({"inclusionList": [r"\p{Lu}elm [[:alpha:]]+"]}, True),
    ],
)
def test_patterns_are_go_expressions_on_the_message(lists: dict[str, Any], wanted: bool) -> None:
    assert wanted_by(alert(**lists), event(), {}) is wanted


def test_a_pattern_that_is_none_matches_nothing_and_is_said(
    caplog: pytest.LogCaptureFixture,
) -> None:
    assert wanted_by(alert(exclusionList=["(", "(?=x)"]), event(), {})
    assert not wanted_by(alert(inclusionList=["("]), event(), {})
    assert "a pattern of an Alert cannot be used" in caplog.text


def test_no_pattern_is_slow() -> None:
    """With backtracking this one takes longer than the universe is old."""
    assert wanted_by(alert(exclusionList=["(a+)+$"]), event("a" * 5000 + "!"), {})
