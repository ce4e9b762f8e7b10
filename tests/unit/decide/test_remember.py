from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from helmops.decide.remember import (
    failed_tests,
    has_checks,
    hold,
    ignores_test_failures,
    intend,
    is_flux,
    is_moved,
    new_record,
    note_declaration,
    note_request,
    remember,
    resume,
    rolled_back_by_hand,
    snapshot_of,
    stopping_hook,
    waits,
    without_failures,
)
from helmops.model.actions import (
    Action,
    Adopt,
    CheckHealth,
    HookPoint,
    Install,
    Prune,
    Request,
    Rollback,
    RunHooks,
    RunTests,
    Uninstall,
    Unlock,
    Unresolved,
    Upgrade,
)
from helmops.model.declarations import Defaults
from helmops.model.health import CheckResult
from helmops.model.post_rendering import PostRendering
from helmops.model.records import (
    Handled,
    Hold,
    HoldReason,
    Origin,
    Proof,
    Record,
    Suspension,
    Verdict,
)
from helmops.model.releases import HelmStatus, ReleaseId, TestHook, TestPhase
from tests.unit.decide.samples import (
    KEY,
    MINUTE,
    NOW,
    RELEASE,
    attempt,
    desired,
    done,
    failed,
    hook_outcome,
    in_flight,
    observed,
    outcome,
    record,
    revision,
    snapshot,
    target,
)

ONE = revision(1)
TWO = revision(2, version="2.0.0")
TWO_FAILED = revision(2, HelmStatus.FAILED, version="2.0.0")
UPGRADE = Upgrade(target("2.0.0"), "1.0.0")
CHECK = CheckHealth(1, (), waits=True)
FAILURES: dict[str, Any] = {
    "failures": 3,
    "install_failures": 1,
    "upgrade_failures": 2,
    "rollback_failures": 1,
    "interruptions": 2,
}


def counts(of: Record) -> tuple[int, int, int, int]:
    return of.failures, of.install_failures, of.upgrade_failures, of.rollback_failures


def held(reason: HoldReason = HoldReason.DIVERGED, subject: str = "2:d2", **other: Any) -> Hold:
    fields = {"message": "m", "at": NOW - MINUTE, "declaration_digest": "declared", **other}
    return Hold(reason=reason, subject=subject, **fields)


# Declarations


def test_a_new_record_knows_its_declaration_and_release_and_nothing_else() -> None:
    assert new_record(desired()) == Record(key=KEY, release=RELEASE)


def test_an_unchanged_declaration_changes_nothing() -> None:
    said = desired().policy.model_dump(mode="json", by_alias=True, exclude_unset=True)
    before = record(snapshot(), origin="a.yaml:1", location="/a", policy=said)
    told = {"origin": "a.yaml:1", "location": "/a"}
    assert note_declaration(before, desired(given=told), NOW) is before


def test_a_changed_declaration_is_a_new_generation() -> None:
    wanted = desired(given={"declaration_digest": "new", "manifest": {"kind": "HelmRelease"}})
    noted = note_declaration(record(), wanted, NOW)
    assert (noted.generation, noted.observed_generation) == (2, 1)
    assert noted.declaration_digest == "new"
    assert noted.manifest == {"kind": "HelmRelease"}


@pytest.mark.parametrize("reason", list(HoldReason))
def test_a_changed_declaration_lifts_every_hold(reason: HoldReason) -> None:
    before = record(hold=held(reason), accepted="something:earlier")
    noted = note_declaration(before, desired(given={"declaration_digest": "new"}), NOW)
    assert noted.hold is None
    # What a person released by hand before is accepted by the newer word, and nothing else is.
    accepted = "RevisionMadeByHand:2:d2" if reason is HoldReason.DIVERGED else ""
    assert noted.accepted == accepted


@pytest.mark.parametrize(
    ("wanted", "field", "value"),
    [
        (desired(given={"origin": "b.yaml:7"}), "origin", "b.yaml:7"),
        (desired(given={"location": "/b"}), "location", "/b"),
        (desired(policy={"prune": True}), "prune", True),
    ],
    ids=["place", "location", "prune"],
)
def test_what_is_no_part_of_the_declaration_is_kept_without_a_new_generation(
    wanted: Any, field: str, value: object
) -> None:
    noted = note_declaration(record(snapshot()), wanted, NOW)
    assert getattr(noted, field) == value
    assert noted.generation == 1


def test_a_declaration_that_came_back_is_no_longer_removed() -> None:
    assert not note_declaration(record(removed=True), desired(), NOW).removed


def test_versions_held_back_are_those_of_the_newest_choice() -> None:
    before = record(held_back=("3.0.0: too far",))
    assert note_declaration(before, desired(), NOW).held_back == ()
    assert note_declaration(before, desired(Unresolved("r", "m")), NOW).held_back != ()


# Which target failures count against


FAILED_AT_TWO = {"attempt": attempt(version="2.0.0", error="it broke", stalled=True), **FAILURES}


def test_failures_count_on_while_the_target_is_the_same() -> None:
    noted = note_declaration(record(**FAILED_AT_TWO), desired("2.0.0"), NOW)
    assert counts(noted) == (3, 1, 2, 1)


@pytest.mark.parametrize(
    "wanted",
    [
        desired("2.0.1"),
        desired(target("2.0.0", config_digest="others")),
        desired(target("2.0.0", digest="rebuilt", follows_content=True)),
        desired("2.0.0", given={"declaration_digest": "new"}),
    ],
    ids=["another version", "other values", "other content that is followed", "new generation"],
)
def test_another_target_begins_with_no_failures(wanted: Any) -> None:
    noted = note_declaration(record(**FAILED_AT_TWO), wanted, NOW)
    assert counts(noted) == (0, 0, 0, 0)
    assert noted.interruptions == 0
    assert noted.attempt is not None
    assert (noted.attempt.error, noted.attempt.stalled) == ("", False)


def test_other_content_under_the_same_version_begins_with_no_failures() -> None:
    wanted = desired(target("2.0.0", digest="mended"))
    assert counts(note_declaration(record(**FAILED_AT_TWO), wanted, NOW)) == (0, 0, 0, 0)


def test_followed_content_that_is_the_same_is_the_same_target() -> None:
    wanted = desired(target("2.0.0", follows_content=True))
    assert counts(note_declaration(record(**FAILED_AT_TWO), wanted, NOW)) == (3, 1, 2, 1)


def test_while_the_source_fails_nothing_is_forgotten() -> None:
    wanted = desired(Unresolved("SourceNotReady", "no answer"))
    assert counts(note_declaration(record(**FAILED_AT_TWO), wanted, NOW)) == (3, 1, 2, 1)


def test_without_failures_there_is_nothing_to_forget() -> None:
    before = record(snapshot(), attempt=attempt())
    assert without_failures(before) is before


@pytest.mark.parametrize("counter", list(FAILURES))
def test_every_counter_is_forgotten(counter: str) -> None:
    assert without_failures(record(**{counter: 1})) == record()


# Requests


def test_a_token_is_handled_once() -> None:
    asked = Request(force="t1", reconcile="t1")
    noted, left = note_request(record(), asked)
    assert left == asked
    assert noted.handled == Handled(reconcile="t1", force="t1")
    again, left = note_request(noted, asked)
    assert left.force == ""
    assert again is noted


@pytest.mark.parametrize("token", ["reconcile", "force", "reset"])
def test_a_token_leaves_the_others_as_they_were(token: str) -> None:
    before = Handled(reconcile="r0", force="f0", reset="s0")
    noted, _ = note_request(record(handled=before), Request(**{token: "new"}))
    assert noted.handled == replace(before, **{token: "new"})


def test_another_token_counts_again() -> None:
    _, left = note_request(record(handled=Handled(force="t1")), Request(force="t2"))
    assert left.force == "t2"


def test_a_reset_forgets_failures_once() -> None:
    noted, left = note_request(record(**FAILED_AT_TWO), Request(reset="t1"))
    assert counts(noted) == (0, 0, 0, 0)
    assert left.reset == "t1"
    handled = record(handled=Handled(reset="t1"), **FAILED_AT_TWO)
    noted, left = note_request(handled, Request(reset="t1"))
    assert counts(noted) == (3, 1, 2, 1)
    assert left.reset == ""


def test_a_request_without_tokens_leaves_the_record_as_it_is() -> None:
    before = record(handled=Handled(force="t1"))
    noted, left = note_request(before, Request(rollback_to=0, by="ada"))
    assert noted is before
    assert left == Request(rollback_to=0, by="ada")


# Holds


def test_resume_lifts_suspension_and_hold_and_remembers_what_was_accepted() -> None:
    before = record(suspended=Suspension(NOW), hold=held(), **FAILED_AT_TWO)
    resumed = resume(before)
    assert (resumed.suspended, resumed.hold) == (None, None)
    assert resumed.accepted == "RevisionMadeByHand:2:d2"
    assert counts(resumed) == (0, 0, 0, 0)


def test_resume_without_a_hold_accepts_nothing_new() -> None:
    assert resume(record(accepted="x:y", suspended=Suspension(NOW))).accepted == "x:y"


def test_the_same_hold_twice_keeps_its_time() -> None:
    before = record(hold=held(plan=("a",)))
    assert hold(before, held(plan=("a",), at=NOW)) is before


@pytest.mark.parametrize(
    "other",
    [held(HoldReason.UNMANAGED), held(subject="3:d3"), held(plan=("b",))],
    ids=["reason", "subject", "plan"],
)
def test_another_hold_takes_its_place(other: Hold) -> None:
    assert hold(record(hold=held(plan=("a",))), other).hold == other


def test_a_rollback_by_hand_is_held_for_the_declaration_as_it_is() -> None:
    made = rolled_back_by_hand(record(), "d1", NOW)
    assert (made.reason, made.subject, made.at) == (HoldReason.ROLLED_BACK, "d1", NOW)
    assert made.declaration_digest == "declared"


# Before an action


@pytest.mark.parametrize(
    ("action", "name"), [(Install(target("2.0.0")), "install"), (UPGRADE, "upgrade")]
)
def test_before_a_release_it_is_noted_what_will_be_stored(action: Action, name: str) -> None:
    intended = intend(record(snapshot(ONE)), action, observed(ONE), NOW, "host/1")
    assert intended is not None
    assert intended.in_flight == in_flight(name, base=1, at=NOW, holder="host/1")


def test_a_first_install_is_based_on_nothing() -> None:
    intended = intend(record(), Install(target("2.0.0")), observed(), NOW, "host/1")
    assert intended is not None
    assert intended.in_flight is not None
    assert intended.in_flight.base == 0


@pytest.mark.parametrize("is_remediation", [True, False])
def test_before_a_rollback_it_is_noted_whose_wish_it_is(is_remediation: bool) -> None:
    action = Rollback(1, "d1", is_remediation=is_remediation)
    intended = intend(record(), action, observed(ONE, TWO), NOW, "host/1")
    assert intended is not None
    note = in_flight(
        "rollback",
        2,
        at=NOW,
        target_digest="d1",
        target_revision=1,
        by_hand=not is_remediation,
        holder="host/1",
    )
    assert intended.in_flight == note


def test_before_an_uninstall_the_revision_that_it_locks_is_noted() -> None:
    intended = intend(record(), Uninstall(RELEASE, "why"), observed(ONE, TWO), NOW, "host/1")
    assert intended is not None
    assert intended.in_flight == in_flight("uninstall", 2, at=NOW, holder="host/1")


@pytest.mark.parametrize(
    "action",
    [
        Adopt(ONE, None, only_if_same=False),
        RunTests(1),
        CHECK,
        Unlock(1),
        RunHooks(HookPoint.FAILED, (), None),
        Prune((1,)),
    ],
    ids=lambda action: type(action).__name__,
)
def test_what_may_happen_twice_needs_no_note(action: Action) -> None:
    assert intend(record(), action, observed(ONE), NOW, "host/1") is None


# What was asked to be proven of a new revision


def fresh(origin: Origin = Origin.UPGRADE, **spec: Any) -> Any:
    wanted = desired("2.0.0", **spec)
    return snapshot_of(TWO, origin, wanted, artifact_digest="a", released=Proof.PASSED, at=NOW)


@pytest.mark.parametrize("origin", list(Origin))
def test_a_new_revision_is_proven_by_nothing_but_helm(origin: Origin) -> None:
    made = fresh(origin)
    assert (made.released, made.health, made.tests, made.watched) == (
        Proof.PASSED,
        Proof.PENDING,
        Proof.SKIPPED,
        Proof.SKIPPED,
    )
    assert made.verdict is Verdict.UNKNOWN


def test_tests_are_waited_for_where_they_are_enabled_but_not_of_what_is_taken_over() -> None:
    test = {"enable": True}
    assert fresh(test=test).tests is Proof.PENDING
    assert fresh(Origin.ROLLBACK, test=test).tests is Proof.PENDING
    assert fresh(Origin.ADOPT, test=test).tests is Proof.SKIPPED


def test_a_watch_window_is_opened_but_not_for_what_is_taken_over() -> None:
    policy = {"verify": {"watch": "5m"}}
    assert fresh(policy=policy).watched is Proof.PENDING
    assert fresh(Origin.ADOPT, policy=policy).watched is Proof.SKIPPED


WITHOUT_WAIT = {
    Origin.INSTALL: {"install": {"disableWait": True}},
    Origin.UPGRADE: {"upgrade": {"disableWait": True}},
    Origin.ROLLBACK: {"rollback": {"disableWait": True}},
}


@pytest.mark.parametrize("origin", list(WITHOUT_WAIT))
def test_disable_wait_is_about_its_own_action_only(origin: Origin) -> None:
    wanted = desired(**WITHOUT_WAIT[origin])
    assert {each for each in Origin if not waits(wanted, each)} == {origin}
    assert fresh(origin, **WITHOUT_WAIT[origin]).health is Proof.SKIPPED


def test_without_waiting_the_checks_of_a_policy_are_still_made() -> None:
    policy = {"verify": {"checks": [{"name": "smoke", "http": {"url": "http://app/"}}]}}
    assert has_checks(desired(policy=policy))
    assert not has_checks(desired())
    assert fresh(policy=policy, upgrade={"disableWait": True}).health is Proof.PENDING


def test_long_messages_are_cut() -> None:
    made = snapshot_of(
        TWO, Origin.UPGRADE, desired(), artifact_digest="", released=Proof.FAILED, at=NOW,
        message="x" * 5000,
    )  # fmt: skip
    assert len(made.message) == 1024


@pytest.mark.parametrize(
    ("spec", "origin", "ignores"),
    [
        ({}, Origin.INSTALL, False),
        ({"test": {"ignoreFailures": True}}, Origin.INSTALL, True),
        ({"test": {"ignoreFailures": True}}, Origin.ROLLBACK, True),
        ({"install": {"remediation": {"ignoreTestFailures": True}}}, Origin.INSTALL, True),
        ({"install": {"remediation": {"ignoreTestFailures": True}}}, Origin.UPGRADE, False),
        ({"upgrade": {"remediation": {"ignoreTestFailures": True}}}, Origin.ROLLBACK, False),
        ({"upgrade": {"remediation": {"ignoreTestFailures": True}}}, Origin.UPGRADE, True),
        (
            {
                "test": {"ignoreFailures": True},
                "upgrade": {"remediation": {"ignoreTestFailures": False}},
            },
            Origin.UPGRADE,
            False,
        ),
    ],
    ids=str,
)
def test_the_actions_own_word_on_test_failures_goes_first(
    spec: dict[str, Any], origin: Origin, ignores: bool
) -> None:
    assert ignores_test_failures(desired(**spec), origin) is ignores


# After install and upgrade


def upgraded(*, succeeded: bool, stored: bool = True, **other: Any) -> Record:
    """An upgrade from revision 1 ended."""
    before = record(snapshot(ONE), in_flight=in_flight(base=1), **other.pop("before", {}))
    seen = (ONE, TWO if succeeded else TWO_FAILED) if stored else (ONE,)
    step = done(UPGRADE, succeeded=succeeded, **other)
    return remember(before, step, desired("2.0.0"), observed(*seen))


def test_a_released_revision_is_the_new_head() -> None:
    after = upgraded(succeeded=True)
    assert [(s.revision, s.origin) for s in after.history] == [
        (2, Origin.UPGRADE),
        (1, Origin.INSTALL),
    ]
    assert after.in_flight is None
    assert after.attempt == attempt(version="2.0.0", at=NOW, seconds=2.0)


def test_a_released_revision_lifts_hold_and_acceptance_and_ends_rollback_failures() -> None:
    before = {"hold": held(), "accepted": "x", "rollback_failures": 3, "interruptions": 2}
    after = upgraded(succeeded=True, before=before)
    assert (after.hold, after.accepted) == (None, "")
    assert (after.rollback_failures, after.interruptions) == (0, 0)


def test_failures_are_no_history_before_the_new_revision_is_proven() -> None:
    after = upgraded(succeeded=True, before={"failures": 2, "upgrade_failures": 2})
    assert counts(after) == (2, 0, 2, 0)


def test_a_failed_revision_counts_against_its_action() -> None:
    after = upgraded(succeeded=False)
    assert counts(after) == (1, 0, 1, 0)
    assert after.head is not None
    assert (after.head.verdict, after.head.message) == (Verdict.FAILED, "it broke")
    assert after.attempt is not None
    assert (after.attempt.error, after.attempt.reason) == ("it broke", "ItFailed")
    assert after.attempt.changed_storage


def test_a_failed_install_counts_as_an_install() -> None:
    step = done(Install(target("2.0.0")), succeeded=False)
    first = revision(1, HelmStatus.FAILED, version="2.0.0")
    after = remember(
        record(in_flight=in_flight("install", 0)), step, desired("2.0.0"), observed(first)
    )
    assert counts(after) == (1, 1, 0, 0)


def test_what_helm_gave_up_before_it_stored_anything_counts_for_back_off_only() -> None:
    """As in Flux: without a new revision there is nothing to remediate."""
    after = upgraded(succeeded=False, stored=False)
    assert counts(after) == (1, 0, 0, 0)
    assert [s.revision for s in after.history] == [1]
    assert after.attempt is not None
    assert not after.attempt.changed_storage


def test_an_error_that_may_pass_stalls_nothing() -> None:
    for after in (upgraded(succeeded=False, stored=False), upgraded(succeeded=True, stalled=True)):
        assert after.attempt is not None
        assert not after.attempt.stalled


@pytest.mark.parametrize(("stored", "stalled"), [(False, True), (True, False)])
def test_an_error_that_no_repetition_mends_stalls_only_where_nothing_was_stored(
    stored: bool, stalled: bool
) -> None:
    after = upgraded(succeeded=False, stored=stored, stalled=True)
    assert after.attempt is not None
    assert after.attempt.stalled is stalled


def test_statuses_that_helm_rewrote_are_taken_over() -> None:
    before = record(snapshot(ONE), in_flight=in_flight(base=1))
    seen = observed(revision(1, HelmStatus.SUPERSEDED), TWO)
    after = remember(before, done(UPGRADE), desired("2.0.0"), seen)
    assert [s.status for s in after.history] == [HelmStatus.DEPLOYED, HelmStatus.SUPERSEDED]


def test_an_undetermined_outcome_teaches_nothing() -> None:
    before = record(snapshot(ONE), in_flight=in_flight())
    step = done(UPGRADE, succeeded=False, undetermined=True)
    assert remember(before, step, desired("2.0.0"), observed(ONE)) is before


def test_an_action_that_never_began_has_no_trace_that_could_be_its_own() -> None:
    """Otherwise the lock of a person who releases the same at the same time would be broken."""
    before = record(snapshot(ONE), in_flight=in_flight())
    step = done(UPGRADE, succeeded=False, undetermined=True, untouched=True)
    assert remember(before, step, desired("2.0.0"), observed(ONE)) == record(snapshot(ONE))


def test_what_was_there_before_is_counted_from_the_note_or_else_from_the_newest_snapshot() -> None:
    three = revision(3, version="2.0.0")
    step, wanted = done(UPGRADE), desired("2.0.0")
    noted = record(snapshot(ONE), in_flight=in_flight(base=3))
    assert remember(noted, step, wanted, observed(ONE, three)).history == (snapshot(ONE),)
    without = record(snapshot(ONE))
    assert len(remember(without, step, wanted, observed(ONE, three)).history) == 2
    first = remember(record(), done(Install(target("2.0.0"))), wanted, observed(TWO))
    assert len(first.history) == 1


# After a rollback


ROLLBACK = Rollback(1, "d1")
RESTORED = revision(3, digest="d1")
BEFORE_ROLLBACK = record(
    failed(TWO_FAILED),
    snapshot(ONE),
    in_flight=in_flight("rollback", 2, target_digest="d1"),
    attempt=attempt(version="2.0.0", error="it broke"),
    failures=1,
    upgrade_failures=1,
)


def rolled_back(
    action: Rollback = ROLLBACK, *, succeeded: bool = True, stored: bool = True, of: Any = None
) -> Record:
    seen = (ONE, TWO_FAILED, RESTORED) if stored else (ONE, TWO_FAILED)
    step = done(action, succeeded=succeeded)
    return remember(of or BEFORE_ROLLBACK, step, desired("2.0.0"), observed(*seen))


def test_what_was_restored_is_a_revision_of_its_own_that_is_not_proven_yet() -> None:
    after = rolled_back()
    assert after.head is not None
    assert (after.head.revision, after.head.origin) == (3, Origin.ROLLBACK)
    assert after.head.verdict is Verdict.UNKNOWN
    assert after.head.artifact_digest == "artifact 1.0.0"
    assert after.head.message == "rolled back to revision 1"
    assert after.hold is None


def test_after_a_rollback_the_failures_still_count_against_the_target_that_failed() -> None:
    after = rolled_back()
    assert counts(after) == (1, 0, 1, 0)
    assert after.attempt == BEFORE_ROLLBACK.attempt


def test_a_failed_rollback_is_counted_until_one_succeeds() -> None:
    once = rolled_back(succeeded=False)
    assert once.rollback_failures == 1
    assert rolled_back(of=once.evolve(in_flight=BEFORE_ROLLBACK.in_flight)).rollback_failures == 0


def test_a_rollback_that_helm_refused_is_counted_too() -> None:
    after = rolled_back(succeeded=False, stored=False)
    assert after.rollback_failures == 1
    assert [s.revision for s in after.history] == [2, 1]


BY_HAND = Rollback(1, "d1", is_remediation=False)


@pytest.mark.parametrize("succeeded", [True, False])
def test_a_rollback_by_hand_ends_in_a_hold_however_it_went(succeeded: bool) -> None:
    after = rolled_back(BY_HAND, succeeded=succeeded)
    assert after.hold is not None
    assert (after.hold.reason, after.hold.subject) == (HoldReason.ROLLED_BACK, "d1")


def test_a_rollback_by_hand_that_helm_refused_left_nothing_to_hold_or_count() -> None:
    after = rolled_back(BY_HAND, succeeded=False, stored=False)
    assert after == BEFORE_ROLLBACK.evolve(in_flight=None)


# After taking over


def test_what_is_taken_over_is_released_and_unproven() -> None:
    action = Adopt(ONE, target(), only_if_same=True)
    before = record(hold=held(), in_flight=in_flight())
    after = remember(before, done(action), desired(), observed(ONE))
    assert after.head is not None
    assert (after.head.origin, after.head.released) == (Origin.ADOPT, Proof.PASSED)
    assert after.head.verdict is Verdict.UNKNOWN
    assert (after.hold, after.in_flight) == (None, None)


@pytest.mark.parametrize(
    ("only_if_same", "digest"), [(True, "artifact 1.0.0"), (False, "")], ids=["proven", "taken"]
)
def test_the_chart_behind_it_is_known_only_where_both_were_compared(
    only_if_same: bool, digest: str
) -> None:
    action = Adopt(ONE, target(), only_if_same=only_if_same)
    after = remember(record(), done(action), desired(), observed(ONE))
    assert after.head is not None
    assert after.head.artifact_digest == digest


LABELLED = replace(
    target("2.0.0"),
    chart=replace(target("2.0.0").chart, post_rendering=PostRendering((), "combined", "labelled")),
)


@pytest.mark.parametrize("kind", [Install, Upgrade])
def test_what_became_of_the_charts_objects_is_remembered_and_noted_before(kind: Any) -> None:
    noted = intend(record(), kind(LABELLED), observed(), NOW, "me")
    assert noted is not None
    assert noted.in_flight is not None
    assert noted.in_flight.post_render_digest == "labelled"
    after = remember(noted, done(kind(LABELLED)), desired(LABELLED), observed(TWO))
    assert after.head is not None
    assert after.head.post_render_digest == "labelled"
    assert after.public_status()["observedPostRenderersDigest"] == "sha256:labelled"


def test_what_is_restored_has_the_post_rendering_that_it_had() -> None:
    before = record(failed(TWO_FAILED), snapshot(ONE, post_render_digest="first"))
    noted = intend(before, ROLLBACK, observed(ONE, TWO_FAILED), NOW, "me")
    assert noted is not None
    assert noted.in_flight is not None
    assert noted.in_flight.post_render_digest == "first"
    after = rolled_back(of=noted)
    assert after.head is not None
    assert after.head.post_render_digest == "first"


@pytest.mark.parametrize(("only_if_same", "digest"), [(True, "labelled"), (False, "")])
def test_post_rendering_is_taken_over_only_where_it_was_compared(
    only_if_same: bool, digest: str
) -> None:
    action = Adopt(ONE, LABELLED, only_if_same=only_if_same)
    after = remember(record(), done(action), desired(), observed(ONE))
    assert after.head is not None
    assert after.head.post_render_digest == digest


def test_an_adoption_that_would_change_something_leaves_no_trace() -> None:
    action = Adopt(ONE, target(), only_if_same=True)
    before = record()
    assert remember(before, done(action, succeeded=False), desired(), observed(ONE)) is before


# After checks


UNCHECKED = record(snapshot(ONE, health=Proof.PENDING), attempt=attempt(Origin.INSTALL), **FAILURES)
WATCH = {"verify": {"watch": "5m"}}


def checked(
    *, of: Record = UNCHECKED, action: CheckHealth = CHECK, policy: Any = None, **other: Any
) -> Record:
    return remember(of, done(action, **other), desired(policy=policy), observed(ONE))


def test_a_passed_check_proves_health_and_makes_failures_history() -> None:
    after = checked()
    assert after.head is not None
    assert (after.head.verdict, after.head.judged_at) == (Verdict.HEALTHY, NOW)
    assert counts(after) == (0, 0, 0, 0)


@pytest.mark.parametrize("origin", [Origin.ROLLBACK, Origin.ADOPT])
def test_a_healthy_baseline_makes_no_failures_history(origin: Origin) -> None:
    before = record(snapshot(ONE, origin, health=Proof.PENDING), **FAILURES)
    assert counts(checked(of=before)) == (3, 1, 2, 1)


def test_checks_without_waiting_for_readiness_prove_nothing_to_roll_back_to() -> None:
    after = checked(action=replace(CHECK, waits=False))
    assert after.head is not None
    assert (after.head.health, after.head.verdict) == (Proof.SKIPPED, Verdict.UNKNOWN)


@pytest.mark.parametrize(
    ("origin", "action", "expected"),
    [
        (Origin.INSTALL, Origin.INSTALL, (1, 1, 0, 0)),
        (Origin.UPGRADE, Origin.UPGRADE, (1, 0, 1, 0)),
        # RetryOnFailure upgrades a failed install: Flux counts it against the upgrade.
        (Origin.INSTALL, Origin.UPGRADE, (1, 0, 1, 0)),
        (Origin.ROLLBACK, Origin.UPGRADE, (0, 0, 0, 0)),
        (Origin.ADOPT, Origin.UPGRADE, (0, 0, 0, 0)),
    ],
    ids=str,
)
def test_a_failed_check_counts_once_against_the_action_that_was_tried(
    origin: Origin, action: Origin, expected: tuple[int, int, int, int]
) -> None:
    before = record(snapshot(ONE, origin, health=Proof.PENDING), attempt=attempt(action))
    after = checked(of=before, succeeded=False)
    assert after.head is not None
    assert (after.head.verdict, after.head.message) == (Verdict.FAILED, "it broke")
    assert counts(after) == expected


def test_without_an_attempt_it_counts_against_the_revisions_own_origin() -> None:
    before = record(snapshot(ONE, Origin.INSTALL, health=Proof.PENDING))
    assert counts(checked(of=before, succeeded=False)) == (1, 1, 0, 0)


def test_results_of_checks_are_kept_until_there_are_newer_ones() -> None:
    results = (CheckResult("smoke", True, "200"), CheckResult("cel", False, "x" * 5000))
    after = checked(checks=results)
    assert [(c.name, c.passed, c.at) for c in after.checks] == [
        ("smoke", True, NOW),
        ("cel", False, NOW),
    ]
    assert len(after.checks[1].message) == 1024
    assert checked(of=after, checks=()).checks == after.checks


@pytest.mark.parametrize("action", [CHECK, RunTests(1)], ids=["checks", "tests"])
@pytest.mark.parametrize("succeeded", [True, False])
@pytest.mark.parametrize(
    "seen",
    [observed(ONE, TWO), observed(revision(digest="other")), observed()],
    ids=["newer", "other content", "gone"],
)
def test_what_was_found_while_another_revision_was_live_says_nothing_of_ours(
    action: Action, succeeded: bool, seen: Any
) -> None:
    before = record(snapshot(ONE, health=Proof.FAILED, tests=Proof.FAILED))
    step = done(action, succeeded=succeeded)
    assert remember(before, step, desired(), seen) is before


# The watch window


def test_the_window_begins_when_all_the_rest_is_proven() -> None:
    before = record(snapshot(ONE, health=Proof.PENDING, watched=Proof.PENDING), **FAILURES)
    after = checked(of=before, policy=WATCH)
    assert after.head is not None
    assert after.head.watched_until == NOW + timedelta(minutes=5)
    assert after.head.verdict is Verdict.UNKNOWN
    assert counts(after) == (3, 1, 2, 1), "the failures are history at its end, not before"


def test_the_window_does_not_begin_before_the_tests_are_through() -> None:
    waiting = snapshot(ONE, health=Proof.PENDING, tests=Proof.PENDING, watched=Proof.PENDING)
    after = checked(of=record(waiting), policy=WATCH)
    assert after.head is not None
    assert after.head.watched_until is None


REWATCH = replace(CHECK, is_rewatch=True)


def watched(until: timedelta, **other: Any) -> Record:
    before = record(
        snapshot(ONE, watched=Proof.PENDING, watched_until=NOW + until),
        attempt=attempt(Origin.INSTALL),
        **FAILURES,
    )
    return checked(of=before, action=REWATCH, policy=WATCH, **other)


def test_inside_the_window_another_good_look_changes_nothing() -> None:
    after = watched(timedelta(seconds=1))
    assert after.head is not None
    assert after.head.verdict is Verdict.UNKNOWN
    assert after.head.judged_at == NOW - 10 * MINUTE


def test_a_good_look_at_its_end_proves_it_and_makes_failures_history() -> None:
    after = watched(timedelta())
    assert after.head is not None
    assert (after.head.verdict, after.head.judged_at) == (Verdict.HEALTHY, NOW)
    assert counts(after) == (0, 0, 0, 0)


@pytest.mark.parametrize("until", [timedelta(minutes=1), timedelta(minutes=-1)])
def test_a_bad_look_fails_it_inside_the_window_and_at_its_end(until: timedelta) -> None:
    after = watched(until, succeeded=False)
    assert after.head is not None
    assert after.head.verdict is Verdict.FAILED
    assert counts(after) == (4, 2, 2, 1)


def test_asking_for_another_check_does_not_begin_the_window_anew() -> None:
    until = NOW + MINUTE
    before = record(snapshot(ONE, watched=Proof.PENDING, watched_until=until))
    after = checked(of=before, policy=WATCH)
    assert after.head is not None
    assert after.head.watched_until == until


# After tests


UNTESTED = record(snapshot(ONE, tests=Proof.PENDING), attempt=attempt(Origin.INSTALL), **FAILURES)


def after_tests(*, of: Record = UNTESTED, seen: Any = None, **other: Any) -> Record:
    wanted = desired(test={"enable": True, **other.pop("test", {})}, policy=other.pop("policy", {}))
    return remember(of, done(RunTests(1), **other), wanted, seen or observed(ONE))


def test_passed_tests_complete_the_proof() -> None:
    after = after_tests(message="all well")
    assert after.head is not None
    assert (after.head.tests, after.head.verdict) == (Proof.PASSED, Verdict.HEALTHY)
    assert after.head.message == "all well"
    assert counts(after) == (0, 0, 0, 0)


def test_passed_tests_open_the_window() -> None:
    before = record(snapshot(ONE, tests=Proof.PENDING, watched=Proof.PENDING))
    after = after_tests(of=before, policy=WATCH)
    assert after.head is not None
    assert after.head.watched_until == NOW + timedelta(minutes=5)


def test_the_window_does_not_begin_before_the_checks_are_through() -> None:
    waiting = snapshot(ONE, health=Proof.PENDING, tests=Proof.PENDING, watched=Proof.PENDING)
    after = after_tests(of=record(waiting), policy=WATCH)
    assert after.head is not None
    assert after.head.watched_until is None


def test_failed_tests_fail_the_revision() -> None:
    after = after_tests(succeeded=False)
    assert after.head is not None
    assert after.head.verdict is Verdict.FAILED
    assert counts(after) == (4, 2, 2, 1)


def test_ignored_failures_end_the_failures_but_prove_nothing_to_roll_back_to() -> None:
    after = after_tests(succeeded=False, test={"ignoreFailures": True})
    assert after.head is not None
    assert (after.head.tests, after.head.verdict) == (Proof.IGNORED, Verdict.UNKNOWN)
    assert counts(after) == (0, 0, 0, 0)


def test_how_each_test_ended_is_read_out_of_the_storage() -> None:
    hooks = (TestHook("smoke", TestPhase.SUCCEEDED), TestHook("deep", TestPhase.FAILED))
    after = after_tests(succeeded=False, seen=observed(replace(ONE, test_hooks=hooks)))
    assert after.head is not None
    assert failed_tests(after.head) == ("deep",)


# After an uninstall


def test_an_uninstalled_release_is_forgotten_but_not_its_failures() -> None:
    before = record(snapshot(ONE), hold=held(), accepted="x", in_flight=in_flight(), **FAILURES)
    step = done(Uninstall(RELEASE, "why"))
    assert remember(before, step, desired(), observed()) == record(kept=before.kept, **FAILURES)


def test_a_failed_uninstall_leaves_all_but_its_note() -> None:
    before = record(snapshot(ONE), in_flight=in_flight("uninstall"))
    step = done(Uninstall(RELEASE, "why"), succeeded=False)
    assert remember(before, step, desired(), observed(ONE)) == record(snapshot(ONE))


def test_a_half_done_uninstall_keeps_the_note_that_proves_whose_lock_it_left() -> None:
    before = record(snapshot(ONE), in_flight=in_flight("uninstall"))
    step = done(Uninstall(RELEASE, "why"), succeeded=False)
    half = observed(revision(1, HelmStatus.UNINSTALLING))
    assert remember(before, step, desired(), half) is before


def test_after_a_move_the_record_is_about_the_new_place_and_unsaved() -> None:
    old = ReleaseId("apps", "old")
    before = record(
        snapshot(ONE), version="7", manifest={"kind": "HelmRelease"}, origin="a:1", location="/a",
        prune=True, accepted="x", **FAILURES,
    ).evolve(release=old)  # fmt: skip
    after = remember(before, done(Uninstall(old, "moved")), desired(), observed())
    assert after == record(
        manifest={"kind": "HelmRelease"}, origin="a:1", location="/a", prune=True
    )
    assert is_moved(before, RELEASE)
    assert not is_moved(after, RELEASE)


# After hooks, unlocking and pruning


def hooks_ran(*outcomes: Any, revision: int | None = 1, of: Record | None = None) -> Record:
    action = RunHooks(HookPoint.AFTER_SUCCESS, (), revision)
    step = done(action, hooks=outcomes)
    return remember(of or record(snapshot(ONE)), step, desired(), observed(ONE))


def test_hooks_run_once_for_a_revision() -> None:
    after = hooks_ran(hook_outcome("a"), hook_outcome("b", succeeded=False))
    assert [(h.name, h.point, h.succeeded, h.output) for h in after.hooks] == [
        ("a", "afterSuccess", True, "a line\n"),
        ("b", "afterSuccess", False, "a line\n"),
    ]
    assert after.head is not None
    assert after.head.hooks_run == ("afterSuccess",)


def test_hooks_of_no_revision_leave_the_revisions_alone() -> None:
    after = hooks_ran(hook_outcome(), revision=None)
    assert after.head is not None
    assert after.head.hooks_run == ()


def test_the_newest_twenty_runs_of_hooks_are_kept() -> None:
    after = record(snapshot(ONE))
    for number in range(25):
        after = hooks_ran(hook_outcome(f"h{number}"), of=after)
    assert [h.name for h in after.hooks] == [f"h{n}" for n in range(24, 4, -1)]


def test_only_a_failed_hook_that_says_stop_stops() -> None:
    stops = hook_outcome("gate", succeeded=False, stops=True)
    goes_on = hook_outcome("tell", succeeded=False)
    passed = hook_outcome("fine", stops=True)
    assert stopping_hook(outcome(hooks=(passed, goes_on, stops))) is stops
    assert stopping_hook(outcome(hooks=(passed, goes_on))) is None


def pruned(before: Record, *left: Any) -> Record:
    return remember(before, done(Prune(())), desired(), observed(*left))


def test_snapshots_go_with_their_revisions() -> None:
    three, two, one = (snapshot(revision(n)) for n in (3, 2, 1))
    after = pruned(record(three, two, one), revision(2), revision(3))
    assert [s.revision for s in after.history] == [3, 2]


def test_the_last_healthy_snapshot_stays_even_when_somebody_pruned_its_revision() -> None:
    bad = [failed(revision(n, HelmStatus.FAILED)) for n in (4, 3)]
    two, one = snapshot(revision(2)), snapshot(revision(1))
    after = pruned(record(*bad, two, one), revision(3, HelmStatus.FAILED))
    assert [s.revision for s in after.history] == [4, 3, 2]


def test_an_earlier_installation_of_the_same_content_goes_like_any_other() -> None:
    earlier = replace(snapshot(ONE), last_deployed=ONE.last_deployed - timedelta(days=3))
    after = pruned(record(snapshot(ONE), earlier), ONE)
    assert after.history == (snapshot(ONE),)


def test_however_many_revisions_are_kept_the_record_stays_small() -> None:
    revisions = [revision(n) for n in range(1, 41)]
    history = [snapshot(r, health=Proof.FAILED) for r in reversed(revisions)]
    history[35] = snapshot(revisions[4])
    after = pruned(record(*history), *revisions)
    assert [s.revision for s in after.history] == [*range(40, 20, -1), 5]


def test_nothing_new_in_storage_is_no_new_record() -> None:
    before = record(snapshot(ONE))
    assert remember(before, done(Unlock(1)), desired(), observed(ONE)) is before


def test_flux_behaviour_is_that_of_flux_defaults() -> None:
    assert is_flux(desired(defaults=Defaults.FLUX))
    assert not is_flux(desired())
