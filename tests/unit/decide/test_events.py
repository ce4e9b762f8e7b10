from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from helmops.decide.conditions import conclude
from helmops.decide.events import events_between
from helmops.model.actions import (
    Decision,
    Held,
    ReleaseState,
    RetryAfter,
    Settled,
    Stalled,
    Unresolved,
)
from helmops.model.events import Event, EventKind, Severity
from helmops.model.records import (
    EvidenceNote,
    Hold,
    HoldReason,
    HookRecord,
    Origin,
    Proof,
    Record,
    Suspension,
)
from helmops.model.releases import HelmStatus, ReleaseId
from tests.unit.decide.samples import (
    KEY,
    MINUTE,
    NOW,
    attempt,
    desired,
    failed,
    record,
    revision,
    snapshot,
)

ONE = revision(1)
TWO = revision(2, version="2.0.0")
UNCHECKED = snapshot(TWO, Origin.UPGRADE, health=Proof.PENDING)
BROKEN = failed(revision(2, HelmStatus.FAILED, version="2.0.0"))
BEFORE = record(snapshot(ONE))


def between(old: Record | None, new: Record) -> tuple[Event, ...]:
    return events_between(old, new, NOW)


def reasons(old: Record | None, new: Record) -> list[str]:
    return [event.reason for event in between(old, new)]


def only(old: Record | None, new: Record) -> Event:
    (event,) = between(old, new)
    return event


LEFT = EvidenceNote(3, "pod web-1 container main: CrashLoopBackOff", "d")


def test_evidence_of_a_failure_is_told_once_with_its_number() -> None:
    old = record(BROKEN, snapshot(ONE))
    new = record(replace(BROKEN, evidence=LEFT), snapshot(ONE))

    told = only(old, new)

    assert (told.reason, told.kind, told.severity) == (
        "EvidenceGathered",
        EventKind.FAILURE,
        Severity.ERROR,
    )
    assert told.message == (
        f"evidence of the failure of revision 2 ({BROKEN.versioned_chart}): {LEFT.summary}"
    )
    assert told.metadata["evidence"] == "3"
    assert told.metadata["evidenceSummary"] == LEFT.summary
    assert between(new, new) == ()


def test_evidence_that_could_not_be_stored_is_told_without_a_number() -> None:
    old = record(BROKEN, snapshot(ONE))
    new = record(replace(BROKEN, evidence=EvidenceNote(0, "it crashes")), snapshot(ONE))

    assert "evidence" not in only(old, new).metadata


def test_evidence_of_nothing_is_not_told() -> None:
    old = record(BROKEN, snapshot(ONE))

    assert between(old, record(replace(BROKEN, evidence=EvidenceNote(0, "")), snapshot(ONE))) == ()


def with_hold(**other: Any) -> Record:
    fields: dict[str, Any] = {
        "reason": HoldReason.DIVERGED,
        "message": "made by hand",
        "at": NOW,
        "declaration_digest": "declared",
        "subject": "2:d2",
        **other,
    }
    return BEFORE.evolve(hold=Hold(**fields))


def after(decision: Decision, *, of: Record = BEFORE, source: str = "") -> Record:
    wanted = desired(Unresolved(source, "no answer")) if source else desired()
    return conclude(of, wanted, decision, NOW)


# Nothing happened


def test_the_same_record_twice_tells_nothing() -> None:
    full = with_hold().evolve(suspended=Suspension(NOW), removed=True, attempt=attempt(error="x"))
    assert between(full, full) == ()


def test_a_release_that_is_seen_for_the_first_time_tells_nothing_yet() -> None:
    assert between(None, record()) == ()


def test_new_times_and_texts_of_the_same_thing_tell_nothing() -> None:
    good = after(Settled(ReleaseState.IN_SYNC, "as declared"))
    assert between(good, good.evolve(updated_at=NOW, next_try=NOW, generation=2)) == ()


# Revisions


@pytest.mark.parametrize(
    ("origin", "reason", "kind", "says"),
    [
        (Origin.INSTALL, "InstallSucceeded", EventKind.INFO, "installed revision 2 (web@2.0.0)"),
        (Origin.UPGRADE, "UpgradeSucceeded", EventKind.INFO, "upgraded to revision 2 (web@2.0.0)"),
        (
            Origin.ROLLBACK,
            "RollbackSucceeded",
            EventKind.ROLLBACK,
            "rolled back: revision 2 (web@2.0.0)",
        ),
        (Origin.ADOPT, "AdoptSucceeded", EventKind.INFO, "taken over: revision 2 (web@2.0.0)"),
    ],
)
def test_a_new_revision_is_told(origin: Origin, reason: str, kind: EventKind, says: str) -> None:
    new = record(snapshot(TWO, origin, health=Proof.PENDING), snapshot(ONE))
    event = only(BEFORE, new)
    assert (event.reason, event.kind, event.severity) == (reason, kind, Severity.INFO)
    assert event.message == says
    assert (event.at, event.key, event.revision) == (NOW, KEY, 2)
    assert event.metadata == {
        "release": "apps/web",
        "revision": "2.0.0",
        "chart": "web",
        "app-version": "",
        "digest": "d2",
    }


def test_a_revision_that_helm_could_not_release_is_one_failure_not_two() -> None:
    event = only(BEFORE, record(BROKEN, snapshot(ONE)))
    assert (event.reason, event.kind, event.severity) == (
        "UpgradeFailed",
        EventKind.FAILURE,
        Severity.ERROR,
    )
    assert event.message == "upgrade of revision 2 (web@2.0.0) failed: it broke"


def test_health_is_told_once() -> None:
    old, new = record(UNCHECKED), record(snapshot(TWO, Origin.UPGRADE))
    event = only(old, new)
    assert (event.reason, event.kind) == ("SeenHealthy", EventKind.SUCCESS)
    assert between(new, new.with_head(judged_at=NOW + MINUTE, message="again")) == ()


def test_a_revision_that_came_and_was_proven_at_once_is_told_twice_over() -> None:
    new = record(snapshot(TWO, Origin.UPGRADE), snapshot(ONE))
    assert reasons(BEFORE, new) == ["UpgradeSucceeded", "SeenHealthy"]


@pytest.mark.parametrize(
    ("proofs", "reason"),
    [
        ({"health": Proof.FAILED}, "HealthCheckFailed"),
        ({"watched": Proof.FAILED}, "HealthCheckFailed"),
        ({"tests": Proof.FAILED}, "TestFailed"),
    ],
    ids=str,
)
def test_how_a_revision_failed_is_told(proofs: dict[str, Any], reason: str) -> None:
    new = record(snapshot(TWO, Origin.UPGRADE, message="503", **proofs))
    event = only(record(UNCHECKED), new)
    assert (event.reason, event.kind, event.severity) == (
        reason,
        EventKind.FAILURE,
        Severity.ERROR,
    )
    assert event.message == "revision 2 (web@2.0.0) failed: 503"


def test_a_healthy_revision_that_fails_later_is_told() -> None:
    assert reasons(BEFORE, BEFORE.with_head(health=Proof.FAILED)) == ["HealthCheckFailed"]


def test_a_failure_is_told_once_whatever_else_is_learnt_of_it() -> None:
    sick = BEFORE.with_head(health=Proof.FAILED)
    assert between(sick, sick.with_head(message="503 again", hooks_run=("failed",))) == ()


def test_a_broken_off_action_that_failed_is_not_told_again_when_it_is_judged() -> None:
    old = record(BROKEN)
    assert between(old, old.evolve(upgrade_failures=1)) == ()


def test_the_same_number_and_content_installed_anew_is_a_new_revision() -> None:
    fresh = record(snapshot(ONE, health=Proof.PENDING)).with_head(last_deployed=NOW)
    assert reasons(BEFORE, fresh) == ["InstallSucceeded"]


def test_an_uninstalled_release_is_told() -> None:
    event = only(BEFORE, record())
    assert (event.reason, event.message) == ("UninstallSucceeded", "apps/web was uninstalled")
    assert event.revision is None


def test_a_move_is_not_told_as_the_uninstall_of_the_new_place() -> None:
    old = BEFORE.evolve(release=ReleaseId("apps", "old"))
    assert between(old, record()) == ()


# Attempts that stored nothing


TRIED = attempt(version="2.0.0", error="does not render", changed_storage=False)


def test_an_attempt_that_stored_nothing_is_told_each_time() -> None:
    once = BEFORE.evolve(attempt=TRIED)
    event = only(BEFORE, once)
    assert (event.reason, event.kind) == ("UpgradeFailed", EventKind.FAILURE)
    assert event.message == "upgrade to 2.0.0 failed: does not render"
    assert between(once, once.evolve(generation=2)) == ()
    again = attempt(version="2.0.0", error="does not render", changed_storage=False, at=NOW)
    assert reasons(once, once.evolve(attempt=again)) == ["UpgradeFailed"]


@pytest.mark.parametrize("quiet", [attempt(error="it broke"), attempt(changed_storage=False)])
def test_other_attempts_are_told_by_their_revision(quiet: Any) -> None:
    assert between(BEFORE, BEFORE.evolve(attempt=quiet)) == ()


# Holds and suspensions


def test_a_hold_is_told_once_with_what_it_would_do() -> None:
    held = with_hold(plan=("a", "b"))
    event = only(BEFORE, held)
    assert (event.reason, event.kind, event.severity) == (
        "RevisionMadeByHand",
        EventKind.HOLD,
        Severity.ERROR,
    )
    assert event.message == "held: made by hand; would: a; b"
    assert between(held, with_hold(plan=("c",), at=NOW + MINUTE)) == ()


def test_a_hold_about_something_else_is_told_again() -> None:
    assert reasons(with_hold(), with_hold(subject="3:d3")) == ["RevisionMadeByHand"]
    assert reasons(with_hold(), with_hold(reason=HoldReason.UNMANAGED)) == ["ReleaseNotManaged"]


def test_a_lifted_hold_is_told() -> None:
    event = only(with_hold(), BEFORE)
    assert (event.reason, event.severity) == ("HoldLifted", Severity.INFO)
    assert event.message == "no longer held (RevisionMadeByHand)"


def test_suspending_and_resuming_are_told_with_who_did_it() -> None:
    suspended = BEFORE.evolve(suspended=Suspension(NOW, "ada@laptop"))
    assert only(BEFORE, suspended).message == "suspended by ada@laptop"
    assert only(suspended, BEFORE).reason == "Resumed"
    assert only(BEFORE, BEFORE.evolve(suspended=Suspension(NOW))).message == "suspended"
    later = BEFORE.evolve(suspended=Suspension(NOW + MINUTE, "bob"))
    assert between(suspended, later) == ()


# Standing still, sources that fail, waiting


STALLED = Stalled(ReleaseState.FAILED, "it broke", "RetriesExceeded")


def test_standing_still_is_told_once_for_each_reason() -> None:
    stalled = after(STALLED)
    event = only(BEFORE, stalled)
    assert (event.reason, event.kind, event.message) == (
        "RetriesExceeded",
        EventKind.FAILURE,
        "it broke",
    )
    again = after(Stalled(ReleaseState.FAILED, "in other words", "RetriesExceeded"), of=stalled)
    assert between(stalled, again) == ()
    other = after(Stalled(ReleaseState.FAILED, "x", "MissingRollbackTarget"), of=stalled)
    assert reasons(stalled, other) == ["MissingRollbackTarget"]


def test_standing_still_again_after_it_went_on_is_told_again() -> None:
    went_on = after(Settled(ReleaseState.IN_SYNC, "as declared"), of=after(STALLED))
    assert reasons(went_on, after(STALLED, of=went_on)) == ["RetriesExceeded"]


def test_a_hold_is_not_told_a_second_time_as_standing_still() -> None:
    held = with_hold()
    assert held.hold is not None
    stands = after(Held(ReleaseState.DIVERGED, held.hold), of=held)
    assert reasons(BEFORE, stands) == ["RevisionMadeByHand"]


SOURCE_RETRY = RetryAfter(NOW + MINUTE, ReleaseState.IN_SYNC, "no answer", "SourceNotReady")


def test_a_source_that_fails_is_told_once_until_it_fails_otherwise() -> None:
    failing = after(SOURCE_RETRY, source="SourceNotReady")
    event = only(BEFORE, failing)
    assert (event.reason, event.kind) == ("SourceNotReady", EventKind.FAILURE)
    assert between(failing, after(SOURCE_RETRY, of=failing, source="SourceNotReady")) == ()
    denied = after(SOURCE_RETRY, of=failing, source="AuthenticationFailed")
    assert reasons(failing, denied) == ["AuthenticationFailed"]


@pytest.mark.parametrize("reason", ["DependencyNotReady", "PendingRelease"])
def test_waiting_is_told_once(reason: str) -> None:
    waiting = after(RetryAfter(NOW, ReleaseState.ABSENT, "waits for apps/db", reason))
    event = only(BEFORE, waiting)
    assert (event.reason, event.kind, event.severity) == (reason, EventKind.INFO, Severity.INFO)
    good = after(Settled(ReleaseState.IN_SYNC, "as declared"))
    assert reasons(good, waiting) == [reason]
    longer = RetryAfter(NOW, ReleaseState.ABSENT, "waits for apps/db and more", reason)
    assert between(waiting, after(longer, of=waiting)) == ()


# Hooks and removal


def hook(name: str, *, succeeded: bool = True) -> HookRecord:
    return HookRecord(name, "failed", NOW, succeeded, "done" if succeeded else "exit 1", "out")


def test_hooks_are_told_in_the_order_of_running_without_their_output() -> None:
    old = BEFORE.evolve(hooks=(hook("zero"),))
    new = BEFORE.evolve(hooks=(hook("two", succeeded=False), hook("one"), hook("zero")))
    first, second = between(old, new)
    assert (first.reason, first.message) == ("HookSucceeded", "hook one at failed: done")
    assert (second.reason, second.message) == ("HookFailed", "hook two at failed: exit 1")
    assert (first.severity, second.severity) == (Severity.INFO, Severity.ERROR)


@pytest.mark.parametrize(
    ("before", "why"),
    [
        (BEFORE, "its policy did not say `prune` when it was last applied"),
        (BEFORE.evolve(prune=True, suspended=Suspension(NOW)), "it is suspended"),
        (BEFORE.evolve(prune=True), "its newest revision was not made by helmops"),
    ],
    ids=["no prune", "suspended", "by hand"],
)
def test_a_removed_declaration_is_told_once_with_why_its_release_runs(
    before: Record, why: str
) -> None:
    removed = before.evolve(removed=True)
    event = only(before, removed)
    assert event.reason == "DeclarationRemoved"
    assert event.message == f"the declaration is gone; the release is left running ({why})"
    assert between(removed, removed.evolve(updated_at=NOW)) == ()


def test_what_happened_comes_in_the_order_of_happening() -> None:
    new = after(STALLED, of=record(BROKEN, snapshot(ONE), hooks=(hook("dump"),)))
    assert reasons(BEFORE, new) == ["HookSucceeded", "UpgradeFailed", "RetriesExceeded"]
