from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from helmops.decide.conditions import conclude, conclude_blind, why_unproven
from helmops.model.actions import (
    CheckHealth,
    Decision,
    Desired,
    Held,
    ReleaseState,
    RetryAfter,
    Run,
    Settled,
    Stalled,
    Unresolved,
    Upgrade,
)
from helmops.model.records import (
    Hold,
    HoldReason,
    Origin,
    Proof,
    Record,
)
from helmops.model.releases import HelmStatus, TestHook
from tests.unit.decide.samples import (
    MINUTE,
    NOW,
    attempt,
    desired,
    failed,
    record,
    revision,
    snapshot,
    target,
)

LATER = NOW + MINUTE
WANTED = desired()
HEALTHY = record(snapshot())
IN_SYNC = Settled(ReleaseState.IN_SYNC, "as declared")
UPGRADING = Run(Upgrade(target("2.0.0")), ReleaseState.OUT_OF_SYNC, "web 1.0.0 is to become 2.0.0")
CHECKING = Run(CheckHealth(1, (), waits=True), ReleaseState.UNCHECKED, "not checked yet")
LOOKING = Run(CheckHealth(1, (), True, is_rewatch=True), ReleaseState.WATCHING, "watched")
RETRYING = RetryAfter(LATER, ReleaseState.FAILED, "it broke", "UpgradeFailed")
STALLED = Stalled(ReleaseState.FAILED, "it broke", "RetriesExceeded")
HOLD = Hold(HoldReason.DIVERGED, "made by hand", NOW, "declared", plan=("go back", "and forth"))
HELD = Held(ReleaseState.DIVERGED, HOLD)
SUSPENDED = Settled(ReleaseState.SUSPENDED, "suspended by ada", "Suspended")
FETCH_FAILS = desired(Unresolved("SourceNotReady", "no answer"))
SOURCE_RETRY = RetryAfter(LATER, ReleaseState.IN_SYNC, "no answer", "SourceNotReady")


def told(of: Record, decision: Decision, wanted: Desired = WANTED) -> dict[str, tuple[str, str]]:
    """Status and reason by type."""
    concluded = conclude(of, wanted, decision, NOW)
    return {c.type: (c.status.value, c.reason) for c in concluded.conditions}


def message(of: Record, decision: Decision, kind: str, wanted: Desired = WANTED) -> str:
    condition = conclude(of, wanted, decision, NOW).condition(kind)
    assert condition is not None
    return condition.message


# Flux's words, whole


def test_an_installed_release() -> None:
    assert told(HEALTHY, IN_SYNC) == {
        "Ready": ("True", "InstallSucceeded"),
        "Released": ("True", "InstallSucceeded"),
        "Healthy": ("True", "SeenHealthy"),
    }
    expected = "Install succeeded for release apps/web.v1 with chart web@1.0.0"
    assert message(HEALTHY, IN_SYNC, "Ready") == expected


def test_a_tested_release() -> None:
    tested = record(snapshot(tests=Proof.PASSED))
    assert told(tested, IN_SYNC) == {
        "Ready": ("True", "TestSucceeded"),
        "Released": ("True", "InstallSucceeded"),
        "TestSuccess": ("True", "TestSucceeded"),
        "Healthy": ("True", "SeenHealthy"),
    }


def test_a_release_under_way() -> None:
    unchecked = record(snapshot(health=Proof.PENDING))
    assert told(unchecked, CHECKING) == {
        "Ready": ("Unknown", "Progressing"),
        "Reconciling": ("True", "Progressing"),
        "Released": ("True", "InstallSucceeded"),
        "Healthy": ("Unknown", "Pending"),
    }
    assert message(unchecked, CHECKING, "Reconciling") == "CheckHealth: not checked yet"


def test_a_failed_upgrade_that_is_tried_again() -> None:
    broken = record(failed(revision(2, HelmStatus.FAILED)), snapshot())
    assert told(broken, RETRYING) == {
        "Ready": ("False", "UpgradeFailed"),
        "Reconciling": ("True", "ProgressingWithRetry"),
        "Released": ("False", "UpgradeFailed"),
        "Healthy": ("False", "HealthCheckFailed"),
    }


def test_a_release_that_was_rolled_back() -> None:
    restored = record(snapshot(revision(3), Origin.ROLLBACK, message="rolled back to revision 1"))
    assert told(restored, STALLED) == {
        "Ready": ("False", "RetriesExceeded"),
        "Stalled": ("True", "RetriesExceeded"),
        "Remediated": ("True", "RollbackSucceeded"),
        "Healthy": ("True", "SeenHealthy"),
    }


def test_a_rollback_that_failed() -> None:
    broken = record(failed(revision(3, HelmStatus.FAILED), Origin.ROLLBACK))
    assert told(broken, STALLED)["Remediated"] == ("False", "RollbackFailed")


def test_a_held_release() -> None:
    assert told(HEALTHY, HELD)["Ready"] == ("False", "RevisionMadeByHand")
    assert told(HEALTHY, HELD)["Stalled"] == ("True", "RevisionMadeByHand")
    assert message(HEALTHY, HELD, "Ready") == "made by hand (would: go back; and forth)"
    assert message(HEALTHY, HELD, "Stalled") == "made by hand"


def test_an_attempt_that_stored_nothing_is_told_over_the_revision_that_runs() -> None:
    tried = attempt(version="2.0.0", error="does not render", changed_storage=False)
    assert told(record(snapshot(), attempt=tried), STALLED) == {
        "Ready": ("False", "RetriesExceeded"),
        "Stalled": ("True", "RetriesExceeded"),
        "Healthy": ("True", "SeenHealthy"),
        "Released": ("False", "UpgradeFailed"),
    }


@pytest.mark.parametrize(
    "tried",
    [attempt(error="it broke", changed_storage=True), attempt(changed_storage=False)],
    ids=["stored a revision", "went well"],
)
def test_other_attempts_are_told_by_the_revision_that_they_made(tried: Any) -> None:
    restored = record(snapshot(revision(3), Origin.ROLLBACK), attempt=tried)
    assert "Released" not in told(restored, STALLED)


def test_a_failed_install_that_was_uninstalled() -> None:
    tried = attempt(Origin.INSTALL, error="it broke")
    gone = record(attempt=tried, install_failures=1, failures=1)
    absent = RetryAfter(LATER, ReleaseState.ABSENT, "again", "InstallFailed")
    assert told(gone, absent)["Remediated"] == ("True", "UninstallSucceeded")
    for other in (record(), record(attempt=tried), record(install_failures=1)):
        assert "Remediated" not in told(other, absent)
    kept = gone.evolve(history=(failed(revision(1, HelmStatus.FAILED), Origin.INSTALL),))
    assert "Remediated" not in told(kept, STALLED)


@pytest.mark.parametrize(
    ("proof", "expected"),
    [
        (Proof.PASSED, ("True", "TestSucceeded")),
        (Proof.FAILED, ("False", "TestFailed")),
        (Proof.IGNORED, ("False", "TestFailed")),
        (Proof.PENDING, ("Unknown", "Pending")),
        (Proof.SKIPPED, None),
    ],
)
def test_how_the_tests_stand(proof: Proof, expected: Any) -> None:
    assert told(record(snapshot(tests=proof)), IN_SYNC).get("TestSuccess") == expected


@pytest.mark.parametrize(
    ("names", "says"),
    [((), "the chart has no tests"), (("a",), "1 test passed"), (("a", "b"), "2 tests passed")],
)
def test_how_many_tests_passed_is_said(names: tuple[str, ...], says: str) -> None:
    hooks = tuple(TestHook(name) for name in names)
    tested = record(snapshot(revision(tests=hooks), tests=Proof.PASSED))
    assert message(tested, IN_SYNC, "TestSuccess") == says


# Ready


def ready(of: Record, decision: Decision, wanted: Desired = WANTED) -> tuple[str, str]:
    return told(of, decision, wanted)["Ready"]


def concluded(decision: Decision = IN_SYNC, of: Record = HEALTHY) -> Record:
    return conclude(of, WANTED, decision, NOW)


def test_watching_is_ready() -> None:
    watching = RetryAfter(LATER, ReleaseState.WATCHING, "watched", "Watching")
    assert told(HEALTHY, watching)["Ready"] == ("True", "InstallSucceeded")
    assert "Reconciling" not in told(HEALTHY, watching)


@pytest.mark.parametrize(
    "decision",
    [SOURCE_RETRY, Stalled(ReleaseState.IN_SYNC, "no such chart", "ArtifactFailed")],
    ids=["for a while", "for good"],
)
def test_ready_stays_when_only_the_source_fails(decision: Decision) -> None:
    after = told(concluded(), decision, FETCH_FAILS)
    assert after["Ready"] == ("True", "InstallSucceeded")
    assert after["FetchFailed"] == ("True", "SourceNotReady")


def test_a_changed_declaration_is_not_ready_while_its_source_fails() -> None:
    before = concluded().evolve(generation=2)
    assert ready(before, SOURCE_RETRY, FETCH_FAILS) == ("False", "SourceNotReady")


def test_what_was_not_ready_does_not_become_so_because_the_source_fails() -> None:
    assert ready(concluded(STALLED), SOURCE_RETRY, FETCH_FAILS) == ("False", "SourceNotReady")
    assert ready(record(snapshot()), SOURCE_RETRY, FETCH_FAILS) == ("False", "SourceNotReady")


def test_a_failed_release_is_not_ready_whatever_the_source_does() -> None:
    assert ready(concluded(), RETRYING, FETCH_FAILS) == ("False", "UpgradeFailed")


def test_suspending_leaves_ready_as_it_was() -> None:
    assert ready(concluded(), SUSPENDED) == ("True", "InstallSucceeded")
    assert ready(concluded(STALLED), SUSPENDED) == ("False", "RetriesExceeded")
    assert ready(record(), SUSPENDED) == ("Unknown", "Suspended")


def test_a_look_inside_the_watch_window_does_not_make_it_unready() -> None:
    assert ready(concluded(), LOOKING) == ("True", "InstallSucceeded")


@pytest.mark.parametrize(
    ("before", "decision"),
    [
        (concluded(), UPGRADING),
        (concluded().evolve(generation=2), CHECKING),
        (concluded().evolve(generation=2), LOOKING),
        (concluded(STALLED), LOOKING),
        (record(snapshot()), LOOKING),
    ],
    ids=[
        "an upgrade",
        "a new declaration",
        "a new declaration of what is watched",
        "not ready before",
        "never passed over",
    ],
)
def test_other_work_makes_ready_unknown(before: Record, decision: Decision) -> None:
    assert ready(before, decision) == ("Unknown", "Progressing")


@pytest.mark.parametrize(
    ("origin", "reason"),
    [
        (Origin.INSTALL, "InstallSucceeded"),
        (Origin.UPGRADE, "UpgradeSucceeded"),
        (Origin.ROLLBACK, "RollbackSucceeded"),
        (Origin.ADOPT, "AdoptSucceeded"),
    ],
)
def test_ready_has_the_reason_of_what_brought_the_revision(origin: Origin, reason: str) -> None:
    assert ready(record(snapshot(origin=origin)), IN_SYNC) == ("True", reason)


# Times, generations and the rest of the record


def test_a_transition_time_changes_with_the_status_and_with_nothing_else() -> None:
    before = conclude(HEALTHY, WANTED, IN_SYNC, NOW)
    upgraded = before.evolve(history=(snapshot(revision(2), Origin.UPGRADE),))
    after = conclude(upgraded, WANTED, IN_SYNC, LATER)
    same, other = after.condition("Ready"), conclude(after, WANTED, STALLED, LATER)
    assert same is not None
    assert (same.reason, same.last_transition_time) == ("UpgradeSucceeded", NOW)
    changed = other.condition("Ready")
    assert changed is not None
    assert changed.last_transition_time == LATER


def test_conditions_carry_the_generation_that_they_are_about() -> None:
    after = conclude(record(snapshot(), generation=4), WANTED, IN_SYNC, NOW)
    assert {c.observed_generation for c in after.conditions} == {4}


def test_a_generation_is_observed_when_its_pass_is_through() -> None:
    before = record(snapshot(), generation=2)
    assert conclude(before, WANTED, UPGRADING, NOW).observed_generation == 1
    for decision in (IN_SYNC, RETRYING, STALLED, HELD, SUSPENDED):
        assert conclude(before, WANTED, decision, NOW).observed_generation == 2


def test_only_what_is_tried_again_has_a_next_try() -> None:
    assert conclude(HEALTHY, WANTED, RETRYING, NOW).next_try == LATER
    before = HEALTHY.evolve(next_try=LATER)
    for decision in (IN_SYNC, STALLED, HELD, UPGRADING):
        assert conclude(before, WANTED, decision, NOW).next_try is None


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (None, LATER),
        (NOW + timedelta(seconds=5), NOW + timedelta(seconds=5)),
        (LATER, LATER),
        (NOW, LATER),
        (LATER + MINUTE, LATER),
    ],
    ids=["nothing", "earlier and ahead", "the same", "over", "too late"],
)
def test_a_next_try_that_was_said_stays_while_it_is_ahead_and_not_too_late(
    said: Any, expected: Any
) -> None:
    before = HEALTHY.evolve(next_try=said)
    assert conclude(before, WANTED, RETRYING, NOW).next_try == expected
    assert conclude_blind(before, RETRYING, NOW).next_try == expected


def test_the_state_is_that_of_the_decision() -> None:
    assert conclude(HEALTHY, WANTED, HELD, NOW).state == "Diverged"


def test_conditions_that_no_longer_hold_are_gone() -> None:
    before = conclude(HEALTHY, WANTED, STALLED, NOW)
    assert "Stalled" not in told(before, IN_SYNC)


def test_messages_are_bounded() -> None:
    stalled = Stalled(ReleaseState.FAILED, "x" * 5000, "RetriesExceeded")
    after = conclude(HEALTHY, WANTED, stalled, NOW)
    assert max(len(c.message) for c in after.conditions) == 2048


# A release that could not be looked at


KNOWN = conclude(HEALTHY, WANTED, IN_SYNC, NOW - MINUTE)
BLIND = RetryAfter(LATER, ReleaseState.IN_SYNC, "no API server", "ClusterUnreachable")


def test_without_a_look_only_ready_changes() -> None:
    after = conclude_blind(KNOWN, BLIND, NOW)
    assert {c.type: (c.status.value, c.reason) for c in after.conditions} == {
        "Ready": ("False", "ClusterUnreachable"),
        "Reconciling": ("True", "ProgressingWithRetry"),
        "Released": ("True", "InstallSucceeded"),
        "Healthy": ("True", "SeenHealthy"),
    }
    assert after.next_try == LATER
    released = after.condition("Released")
    assert released == KNOWN.condition("Released")


def test_what_cannot_be_looked_at_for_good_is_stalled() -> None:
    denied = Stalled(ReleaseState.IN_SYNC, "forbidden", "AccessDenied")
    retried = conclude_blind(KNOWN, BLIND, NOW)
    after = conclude_blind(retried, denied, NOW)
    kinds = {c.type: c.reason for c in after.conditions}
    assert kinds["Stalled"] == kinds["Ready"] == "AccessDenied"
    assert "Reconciling" not in kinds
    assert after.next_try is None


def test_other_decisions_need_a_look() -> None:
    assert conclude_blind(KNOWN, IN_SYNC, NOW) is KNOWN


# Why a revision is no rollback target


@pytest.mark.parametrize(
    ("proofs", "reason"),
    [
        ({"health": Proof.SKIPPED}, "WaitDisabled"),
        ({"tests": Proof.IGNORED}, "TestFailuresIgnored"),
        ({"watched": Proof.PENDING, "watched_until": LATER}, "Watching"),
        ({"watched": Proof.PENDING}, "Pending"),
        ({"health": Proof.PENDING}, "Pending"),
        ({"tests": Proof.PENDING}, "Pending"),
        ({"tests": Proof.PENDING, "watched_until": LATER}, "Pending"),
    ],
    ids=str,
)
def test_why_a_revision_is_not_proven_is_said(proofs: dict[str, Any], reason: str) -> None:
    unproven = snapshot(**proofs)
    assert why_unproven(unproven)[0] == reason
    assert told(record(unproven), IN_SYNC)["Healthy"] == ("Unknown", reason)


def test_until_when_it_is_watched_is_said() -> None:
    until = NOW + timedelta(minutes=5)
    watched = snapshot(watched=Proof.PENDING, watched_until=until)
    assert why_unproven(watched)[1] == "watched until 2026-01-05T12:05:00Z"


UNASKED = desired(Unresolved("Progressing", "nobody asked", is_unasked=True))
UNASKED_RETRY = RetryAfter(LATER, ReleaseState.IN_SYNC, "nobody asked", "Progressing")


def test_what_nobody_asked_for_does_not_fail_to_be_fetched() -> None:
    assert "FetchFailed" not in told(concluded(), UNASKED_RETRY, UNASKED)


def test_what_nobody_asked_for_again_fails_to_be_fetched_as_it_did() -> None:
    before = conclude(concluded(), FETCH_FAILS, SOURCE_RETRY, NOW)
    assert told(before, UNASKED_RETRY, UNASKED)["FetchFailed"] == ("True", "SourceNotReady")


def test_without_asking_what_is_wanted_a_ready_release_stays_ready_and_another_is_unknown() -> None:
    assert ready(concluded(), UNASKED_RETRY, UNASKED)[0] == "True"
    assert ready(concluded(STALLED), UNASKED_RETRY, UNASKED) == ("Unknown", "Progressing")


def test_a_source_that_is_down_is_told_while_its_last_offer_stands() -> None:
    down = desired(target(fetch_failed="the connection is refused"))
    told_now = told(record(snapshot()), IN_SYNC, down)
    assert told_now["FetchFailed"] == ("True", "SourceNotReady")
    assert told_now["Ready"][0] == "True"
    assert "FetchFailed" not in told(record(snapshot()), IN_SYNC, desired())
