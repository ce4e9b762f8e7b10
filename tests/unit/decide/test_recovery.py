"""Every moment at which our process can die, as the next helmops finds it."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from helmops.decide.recovery import MAX_INTERRUPTIONS, is_our_lock, is_trace_of, recover
from helmops.model.records import (
    Attempt,
    HoldReason,
    KeptCopy,
    Origin,
    Proof,
    Record,
    Verdict,
)
from helmops.model.releases import HelmStatus, Revision
from tests.unit.decide.samples import (
    NOW,
    attempt,
    desired,
    failed,
    in_flight,
    observed,
    record,
    revision,
    snapshot,
)

ONE = revision(1)
TWO = revision(2, version="2.0.0")
TWO_FAILED = revision(2, HelmStatus.FAILED, version="2.0.0")
WANTED = desired("2.0.0")


def upgrading(**other: object) -> Record:
    """Revision 1 is healthy; an upgrade to 2.0.0 was noted."""
    return record(snapshot(ONE), in_flight=in_flight(), **other)


def after(*revisions: Revision, of: Record) -> Record:
    return recover(WANTED, observed(*revisions), of, NOW)


# Nothing to recover, or not yet


def test_without_a_note_nothing_changes() -> None:
    before = record(snapshot(ONE))
    assert after(ONE, TWO, of=before) is before


def test_while_its_helm_still_runs_the_note_stays() -> None:
    before = upgrading()
    assert recover(WANTED, observed(ONE, TWO, our_helm_runs=True), before, NOW) is before


@pytest.mark.parametrize("status", [s for s in HelmStatus if s.is_pending])
def test_while_the_revision_is_locked_the_note_stays_to_prove_whose_lock_it_is(
    status: HelmStatus,
) -> None:
    before = upgrading()
    assert after(ONE, revision(2, status, version="2.0.0"), of=before) is before


# Killed before helm stored anything


def test_an_upgrade_of_which_nothing_is_stored_never_happened() -> None:
    recovered = after(ONE, of=upgrading())
    assert recovered == record(snapshot(ONE))


def test_an_install_of_which_nothing_is_stored_never_happened() -> None:
    before = record(in_flight=in_flight("install", base=0))
    assert after(of=before) == record()


# Killed after helm stored the end of it


def test_an_upgrade_that_was_finished_is_ours_and_unproven() -> None:
    before = upgrading(accepted="x")
    assert before.in_flight is not None
    note = replace(before.in_flight, post_render_digest="labelled")
    recovered = after(ONE, TWO, of=before.evolve(in_flight=note))
    head = recovered.head
    assert head is not None
    assert (head.revision, head.origin) == (2, Origin.UPGRADE)
    assert (head.released, head.health) == (Proof.PASSED, Proof.PENDING)
    assert head.verdict is Verdict.UNKNOWN
    assert (head.artifact_digest, head.post_render_digest) == ("artifact 2.0.0", "labelled")
    assert [s.revision for s in recovered.history] == [2, 1]
    assert recovered.in_flight is None
    assert recovered.accepted == ""


def test_what_a_finished_upgrade_replaced_is_known_to_be_superseded() -> None:
    superseded = replace(ONE, status=HelmStatus.SUPERSEDED)
    recovered = after(superseded, TWO, of=upgrading())
    assert [s.status for s in recovered.history] == [HelmStatus.DEPLOYED, HelmStatus.SUPERSEDED]


def test_the_attempt_is_remembered_as_one_that_changed_the_storage() -> None:
    note = in_flight(at=NOW - timedelta(seconds=90))
    recovered = after(ONE, TWO, of=record(snapshot(ONE), generation=7, in_flight=note))
    assert recovered.attempt == Attempt(
        action=Origin.UPGRADE,
        generation=7,
        chart_version="2.0.0",
        artifact_digest="artifact 2.0.0",
        artifact_revision="2.0.0",
        config_digest="values",
        at=NOW,
        seconds=90.0,
        changed_storage=True,
    )


def test_a_finished_action_is_no_interruption() -> None:
    assert after(ONE, TWO, of=upgrading(interruptions=2)).interruptions == 2


def test_a_finished_install_is_ours() -> None:
    recovered = after(TWO_AS_FIRST, of=record(in_flight=in_flight("install", base=0)))
    assert recovered.head is not None
    assert recovered.head.origin is Origin.INSTALL


TWO_AS_FIRST = revision(1, version="2.0.0")


# Broken off: helm marked it failed, or the lock was broken


def test_a_broken_off_upgrade_is_a_failed_revision_that_counts_for_nothing_yet() -> None:
    recovered = after(ONE, TWO_FAILED, of=upgrading())
    assert recovered.head is not None
    assert recovered.head.verdict is Verdict.FAILED
    assert recovered.head.message == "the upgrade was broken off"
    assert recovered.interruptions == 1
    assert (recovered.failures, recovered.upgrade_failures) == (0, 0)


def test_the_third_time_it_kills_its_helmops_it_counts_as_a_failure_of_the_release() -> None:
    recovered = after(ONE, TWO_FAILED, of=upgrading(interruptions=MAX_INTERRUPTIONS - 1))
    assert recovered.interruptions == MAX_INTERRUPTIONS
    assert (recovered.failures, recovered.upgrade_failures) == (1, 1)
    assert recovered.install_failures == 0


def test_a_finished_action_counts_as_no_failure_however_often_it_was_interrupted_before() -> None:
    recovered = after(ONE, TWO, of=upgrading(interruptions=MAX_INTERRUPTIONS))
    assert (recovered.failures, recovered.upgrade_failures) == (0, 0)


def test_three_times_are_enough() -> None:
    assert MAX_INTERRUPTIONS == 3


def test_an_install_that_kills_its_helmops_counts_as_a_failed_install() -> None:
    before = record(in_flight=in_flight("install", base=0), interruptions=MAX_INTERRUPTIONS - 1)
    recovered = after(revision(1, HelmStatus.FAILED, version="2.0.0"), of=before)
    assert (recovered.install_failures, recovered.upgrade_failures) == (1, 0)


# Somebody was there before us


@pytest.mark.parametrize(
    "theirs",
    [
        revision(2, version="3.0.0"),
        revision(2, version="2.0.0", chart="other"),
        revision(2, version="2.0.0", config="others"),
        revision(3, version="2.0.0"),
    ],
    ids=["another version", "another chart", "other values", "another number"],
)
def test_a_revision_that_the_note_does_not_describe_is_not_taken_for_ours(
    theirs: Revision,
) -> None:
    recovered = after(ONE, theirs, of=upgrading())
    assert recovered == record(snapshot(ONE))


# Rollbacks


def rolling_back(*, by_hand: bool = False) -> Record:
    note = in_flight("rollback", base=2, target_digest="d1", by_hand=by_hand)
    return record(
        failed(TWO_FAILED),
        snapshot(ONE),
        in_flight=note,
        attempt=attempt(version="2.0.0", error="it broke"),
        failures=1,
        upgrade_failures=1,
    )


RESTORED = revision(3, digest="d1")


def test_a_finished_rollback_is_ours_and_says_nothing_of_attempts() -> None:
    before = rolling_back()
    recovered = after(ONE, TWO_FAILED, RESTORED, of=before)
    assert recovered.head is not None
    assert (recovered.head.origin, recovered.head.released) == (Origin.ROLLBACK, Proof.PASSED)
    assert recovered.attempt == before.attempt
    assert recovered.upgrade_failures == 1
    assert recovered.hold is None


def test_a_rollback_to_other_content_is_somebodys() -> None:
    recovered = after(ONE, TWO_FAILED, revision(3, digest="d9"), of=rolling_back())
    assert [s.revision for s in recovered.history] == [2, 1]


def test_a_finished_rollback_by_hand_ends_in_its_hold() -> None:
    recovered = after(ONE, TWO_FAILED, RESTORED, of=rolling_back(by_hand=True))
    assert recovered.hold is not None
    assert recovered.hold.reason is HoldReason.ROLLED_BACK
    assert (recovered.hold.subject, recovered.hold.at) == ("d1", NOW)


def test_a_rollback_by_hand_that_never_began_holds_nothing() -> None:
    recovered = after(ONE, TWO_FAILED, of=rolling_back(by_hand=True))
    assert recovered.hold is None
    assert recovered.in_flight is None


def test_a_broken_off_rollback_counts_against_no_action() -> None:
    before = rolling_back().evolve(interruptions=MAX_INTERRUPTIONS - 1)
    broken = revision(3, HelmStatus.FAILED, digest="d1")
    recovered = after(ONE, TWO_FAILED, broken, of=before)
    assert recovered.head is not None
    assert recovered.head.verdict is Verdict.FAILED
    assert (recovered.install_failures, recovered.upgrade_failures) == (0, 1)


# Uninstalls


UNINSTALLING = record(snapshot(ONE), in_flight=in_flight("uninstall", base=1))


def test_after_a_finished_uninstall_nothing_is_known_any_more() -> None:
    assert after(of=UNINSTALLING) == record(kept=KeptCopy(1, "d1"))


def test_a_kept_history_is_a_finished_uninstall_too() -> None:
    recovered = after(revision(1, HelmStatus.UNINSTALLED), of=UNINSTALLING)
    assert recovered.history == ()


def test_an_uninstall_that_never_began_leaves_all_as_it_was() -> None:
    assert after(ONE, of=UNINSTALLING) == record(snapshot(ONE))


# Traces and locks


def test_only_the_very_next_number_can_be_a_trace() -> None:
    assert is_trace_of(in_flight(base=1), TWO)
    assert not is_trace_of(in_flight(base=0), TWO)
    assert not is_trace_of(in_flight(base=2), TWO)


def test_a_lock_with_the_content_of_our_note_is_ours() -> None:
    lock = revision(2, HelmStatus.PENDING_UPGRADE, version="2.0.0")
    assert is_our_lock(upgrading(), lock)


def test_a_lock_without_a_note_is_somebodys() -> None:
    lock = revision(2, HelmStatus.PENDING_UPGRADE, version="2.0.0")
    assert not is_our_lock(record(snapshot(ONE)), lock)
    assert not is_our_lock(record(), lock)


def test_a_lock_on_what_our_helm_was_seen_to_fail_at_is_ours() -> None:
    """A helm that was killed, or a hook of a rollback that failed, leaves it so."""
    lock = revision(2, HelmStatus.PENDING_UPGRADE, version="2.0.0")
    assert is_our_lock(record(failed(lock), snapshot(ONE)), lock)
    assert not is_our_lock(record(snapshot(lock)), lock)
    other = revision(2, HelmStatus.PENDING_UPGRADE, version="2.0.0", digest="other")
    assert not is_our_lock(record(failed(lock)), other)
    half = revision(2, HelmStatus.UNINSTALLING, version="2.0.0")
    assert not is_our_lock(record(failed(TWO_FAILED)), half), "an uninstall is noted"


def test_a_lock_on_other_content_is_somebodys() -> None:
    lock = revision(2, HelmStatus.PENDING_UPGRADE, version="3.0.0")
    assert not is_our_lock(upgrading(), lock)


def test_a_lock_on_the_revision_that_a_rollback_makes_is_ours() -> None:
    assert is_our_lock(rolling_back(), revision(3, HelmStatus.PENDING_ROLLBACK, digest="d1"))


def test_our_uninstall_locks_the_revision_that_was_there() -> None:
    assert is_our_lock(UNINSTALLING, revision(1, HelmStatus.UNINSTALLING))
    assert not is_our_lock(UNINSTALLING, revision(2, HelmStatus.UNINSTALLING))
    upgrade_of_one = record(snapshot(ONE), in_flight=in_flight(base=1))
    assert not is_our_lock(upgrade_of_one, revision(1, HelmStatus.UNINSTALLING))


def test_somebodys_uninstall_during_our_upgrade_is_not_ours() -> None:
    assert not is_our_lock(upgrading(), revision(2, HelmStatus.UNINSTALLING, version="2.0.0"))
