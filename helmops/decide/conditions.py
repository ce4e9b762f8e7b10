"""Conditions, in Flux's words, out of a record and the decision that ended a pass.

Nobody sets Ready by hand: it follows from what is remembered and what was decided.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime
from typing import assert_never

from helmops.model.actions import (
    Decision,
    Desired,
    Held,
    ReleaseState,
    RetryAfter,
    Run,
    Settled,
    Stalled,
    Unresolved,
)
from helmops.model.records import (
    Condition,
    ConditionStatus,
    HoldReason,
    Origin,
    Proof,
    Record,
    Snapshot,
    Verdict,
)

_TRUE, _FALSE, _UNKNOWN = ConditionStatus.TRUE, ConditionStatus.FALSE, ConditionStatus.UNKNOWN
#: In these states the release runs as declared as far as is known.
_GOOD_STATES = (ReleaseState.IN_SYNC, ReleaseState.WATCHING)
_ACTION_NAMES = {
    Origin.INSTALL: "Install",
    Origin.UPGRADE: "Upgrade",
    Origin.ROLLBACK: "Rollback",
    Origin.ADOPT: "Adopt",
}


#: Holds because of what a source offers; they end with it.
_OF_SOURCE = frozenset({HoldReason.DOWNGRADE, HoldReason.YANKED, HoldReason.RETAGGED})


def conclude(record: Record, desired: Desired, decision: Decision, now: datetime) -> Record:
    """The record at this point of a pass: its state, conditions and the next try."""
    if isinstance(decision, Settled) and record.hold and record.hold.reason in _OF_SOURCE:
        record = record.evolve(hold=None)  # its source offers what is released again
    conditions = _merged(record, _conditions(record, desired, decision), now)
    finished = not isinstance(decision, Run)
    return record.evolve(
        state=decision.state.value,
        conditions=conditions,
        next_try=_next_try(record, decision, now),
        observed_generation=record.generation if finished else record.observed_generation,
    )


def conclude_blind(record: Record, decision: Decision, now: datetime) -> Record:
    """The record of a release that could not even be looked at: its last conditions, but Ready."""
    told: list[_Told] = []
    match decision:
        case RetryAfter(why=why, reason=reason):
            told.append(("Ready", _FALSE, reason, why))
            told.append(("Reconciling", _TRUE, "ProgressingWithRetry", why))
        case Stalled(why=why, reason=reason):
            told.append(("Ready", _FALSE, reason, why))
            told.append(("Stalled", _TRUE, reason, why))
        case _:
            return record
    kept = [
        (c.type, c.status, c.reason, c.message)
        for c in record.conditions
        if c.type not in ("Ready", "Reconciling", "Stalled")
    ]
    return record.evolve(
        state=decision.state.value,
        conditions=_merged(record, told + kept, now),
        next_try=_next_try(record, decision, now),
    )


def _next_try(record: Record, decision: Decision, now: datetime) -> datetime | None:
    """What was said before stays while it is ahead and not too late: a release that is looked at
    while it waits has nothing new to write, and what is written wakes it.
    """
    if not isinstance(decision, RetryAfter):
        return None
    said = record.next_try
    return said if said is not None and now < said <= decision.at else decision.at


_Told = tuple[str, ConditionStatus, str, str]


def _conditions(record: Record, desired: Desired, decision: Decision) -> list[_Told]:
    told = [_ready(record, desired, decision)]
    match decision:
        case Run(action=action, why=why):
            told.append(("Reconciling", _TRUE, "Progressing", f"{type(action).__name__}: {why}"))
        case RetryAfter(why=why, state=state) if state not in _GOOD_STATES:
            told.append(("Reconciling", _TRUE, "ProgressingWithRetry", why))
        case Stalled(why=why, reason=reason):
            told.append(("Stalled", _TRUE, reason, why))
        case Held(hold=hold):
            told.append(("Stalled", _TRUE, hold.reason.value, hold.message))
        case _:
            pass
    if isinstance(desired.target, Unresolved):
        told += _of_source(record, desired.target)
    elif desired.target.fetch_failed:
        told.append(("FetchFailed", _TRUE, "SourceNotReady", desired.target.fetch_failed))
    head = record.head
    attempt = record.attempt
    if head is not None:
        told += _of_head(head)
    if record.lost is not None:
        told = [t for t in told if t[0] != "Healthy"]
        since = f"since {record.lost.at:%Y-%m-%dT%H:%M:%SZ}"
        told.append(("Healthy", _FALSE, "HealthLost", f"{since}: {record.lost.message}"))
    if attempt is not None and attempt.error and not attempt.changed_storage:
        name = _ACTION_NAMES[attempt.action]
        told = [t for t in told if t[0] != "Released"]
        told.append(("Released", _FALSE, f"{name}Failed", attempt.error))
    if decision.state is ReleaseState.ABSENT and record.install_failures and attempt is not None:
        told.append(("Remediated", _TRUE, "UninstallSucceeded", "uninstalled after a failure"))
    return told


def _of_source(record: Record, unresolved: Unresolved) -> list[_Told]:
    if not unresolved.is_unasked:
        return [("FetchFailed", _TRUE, unresolved.reason, unresolved.message)]
    known = record.condition("FetchFailed")
    return [(known.type, known.status, known.reason, known.message)] if known else []


def _ready(record: Record, desired: Desired, decision: Decision) -> _Told:
    present = record.condition("Ready")
    match decision:
        case Settled(state=ReleaseState.SUSPENDED, why=why):
            if present is not None:
                return ("Ready", present.status, present.reason, present.message)
            return ("Ready", _UNKNOWN, "Suspended", why)
        case Settled(why=why):
            return ("Ready", _TRUE, _good_reason(record), _good_message(record, why))
        case RetryAfter(state=ReleaseState.WATCHING):
            return ("Ready", _TRUE, _good_reason(record), _good_message(record, decision.why))
        case RetryAfter(state=state) | Stalled(state=state) if (
            state is ReleaseState.IN_SYNC and _is_as_good_as_before(record, desired)
        ):
            # The source fails, the release does not: it runs what this very declaration asked for.
            return ("Ready", _TRUE, _good_reason(record), _good_message(record, decision.why))
        case RetryAfter(state=ReleaseState.IN_SYNC, why=why, reason=reason) if (
            isinstance(desired.target, Unresolved) and desired.target.is_unasked
        ):
            return ("Ready", _UNKNOWN, reason, why)
        case RetryAfter(why=why, reason=reason) | Stalled(why=why, reason=reason):
            return ("Ready", _FALSE, reason, why)
        case Held(hold=hold):
            plan = f" (would: {'; '.join(hold.plan)})" if hold.plan else ""
            return ("Ready", _FALSE, hold.reason.value, hold.message + plan)
        case Run(action=action, why=why):
            keeps = (
                present is not None
                and present.status is _TRUE
                and record.observed_generation == record.generation
                and decision.state in _GOOD_STATES
            )
            if present is not None and keeps:
                return ("Ready", _TRUE, present.reason, present.message)
            return ("Ready", _UNKNOWN, "Progressing", f"{type(action).__name__}: {why}")
        case _:
            assert_never(decision)


def _is_as_good_as_before(record: Record, desired: Desired) -> bool:
    present = record.condition("Ready")
    return (
        isinstance(desired.target, Unresolved)
        and present is not None
        and present.status is _TRUE
        and record.observed_generation == record.generation
    )


def _good_reason(record: Record) -> str:
    head = record.head
    if head is None:
        return "Succeeded"
    if head.tests in (Proof.PASSED,):
        return "TestSucceeded"
    return f"{_ACTION_NAMES[head.origin]}Succeeded"


def _good_message(record: Record, why: str) -> str:
    head = record.head
    if head is None:
        return why
    return (
        f"{_ACTION_NAMES[head.origin]} succeeded for release {record.release}.v{head.revision} "
        f"with chart {head.versioned_chart}" + (f": {head.message}" if head.message else "")
    )


def _of_head(head: Snapshot) -> list[_Told]:
    name = _ACTION_NAMES[head.origin]
    what = f"revision {head.revision} with chart {head.versioned_chart}"
    told: list[_Told] = []
    if head.origin is Origin.ROLLBACK:
        failed = head.verdict is Verdict.FAILED
        told.append(
            (
                "Remediated",
                _FALSE if failed else _TRUE,
                "RollbackFailed" if failed else "RollbackSucceeded",
                f"{what}: {head.message}",
            )
        )
    elif head.released is Proof.FAILED:
        told.append(("Released", _FALSE, f"{name}Failed", head.message))
    else:
        told.append(("Released", _TRUE, f"{name}Succeeded", f"{name} succeeded: {what}"))
    match head.tests:
        case Proof.PASSED:
            told.append(("TestSuccess", _TRUE, "TestSucceeded", _tests_message(head)))
        case Proof.FAILED | Proof.IGNORED:
            told.append(("TestSuccess", _FALSE, "TestFailed", head.message))
        case Proof.PENDING if head.verdict is Verdict.UNKNOWN:
            told.append(("TestSuccess", _UNKNOWN, "Pending", f"{what} was not tested yet"))
        case Proof.PENDING | Proof.SKIPPED:
            pass
    match head.verdict:
        case Verdict.HEALTHY:
            told.append(("Healthy", _TRUE, "SeenHealthy", what))
        case Verdict.FAILED:
            told.append(("Healthy", _FALSE, "HealthCheckFailed", head.message))
        case Verdict.UNKNOWN:
            told.append(("Healthy", _UNKNOWN, *why_unproven(head)))
    return told


def why_unproven(head: Snapshot) -> tuple[str, str]:
    """Reason and sentence: why a revision that did not fail is no rollback target (yet)."""
    if head.health is Proof.SKIPPED:
        return "WaitDisabled", "disableWait is set, so nobody saw it healthy: no rollback target"
    if head.tests is Proof.IGNORED:
        return "TestFailuresIgnored", "a test failed and was ignored: no rollback target"
    if head.watched is Proof.PENDING and head.watched_until is not None:
        return "Watching", f"watched until {head.watched_until:%Y-%m-%dT%H:%M:%SZ}"
    return "Pending", "not checked yet"


def _tests_message(head: Snapshot) -> str:
    count = len(head.test_hooks)
    if not count:
        return "the chart has no tests"
    return f"{count} test{'s' if count > 1 else ''} passed"


def _merged(record: Record, told: Iterable[_Told], now: datetime) -> tuple[Condition, ...]:
    """New conditions; a transition time changes only with the status, as in Kubernetes."""
    merged = []
    for kind, status, reason, message in told:
        condition = Condition(kind, status, reason, message[:2048], now, record.generation)
        present = record.condition(kind)
        if present is not None and present.status is status:
            condition = replace(condition, last_transition_time=present.last_transition_time)
        merged.append(condition)
    return tuple(merged)
