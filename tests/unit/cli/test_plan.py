"""What counts as an error of a plan: the rest of the command is run in tests/e2e."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from helmops.cli.plan import is_error
from helmops.model.actions import Decision, ReleaseState, RetryAfter, Settled, Stalled

AT = datetime(2026, 1, 5, 12, 0, tzinfo=UTC)
ABSENT, IN_SYNC = ReleaseState.ABSENT, ReleaseState.IN_SYNC


@pytest.mark.parametrize(
    "decision",
    [
        RetryAfter(AT, ABSENT, "no answer", "SourceNotReady", is_blind=True),
        Stalled(ABSENT, "spec.kubeConfig", "NotSupported"),
    ],
    ids=["no-answer", "not-supported"],
)
def test_a_plan_that_is_not_to_be_had_is_an_error(decision: Decision) -> None:
    assert is_error(decision)


@pytest.mark.parametrize(
    "decision",
    [
        Settled(IN_SYNC, "as declared"),
        RetryAfter(AT, ABSENT, "waits for apps/database", "DependencyNotReady"),
        Stalled(ReleaseState.FAILED, "upgrade failed once", "RetriesExceeded"),
    ],
    ids=["settled", "waits", "failed-before"],
)
def test_waiting_or_having_failed_before_is_none(decision: Decision) -> None:
    assert not is_error(decision)
