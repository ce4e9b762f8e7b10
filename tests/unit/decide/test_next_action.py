"""What comes next, state by state. Whole passes are in tests/scenario."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from helmops.decide.next_action import decide, deployed_version
from helmops.model.actions import (
    NO_REQUEST,
    Action,
    Adopt,
    CheckHealth,
    Decision,
    Desired,
    Done,
    Held,
    HookPoint,
    Install,
    Observation,
    Prune,
    ReleaseState,
    Request,
    RetryAfter,
    Rollback,
    Run,
    RunHooks,
    RunTests,
    Settled,
    Stalled,
    Uninstall,
    Unlock,
    Unresolved,
    Upgrade,
)
from helmops.model.declarations import Defaults
from helmops.model.records import (
    EvidenceNote,
    Hold,
    HoldReason,
    Origin,
    Proof,
    Record,
    Suspension,
)
from helmops.model.releases import HelmStatus, ReleaseId
from tests.unit.decide.samples import (
    MINUTE,
    NOW,
    RELEASE,
    SECOND,
    attempt,
    desired,
    done,
    failed,
    hook_outcome,
    hook_policy,
    in_flight,
    observed,
    record,
    revision,
    snapshot,
    target,
)

SEEN = EvidenceNote(1, "it broke")
ONE = revision(1)
TWO = revision(2, version="2.0.0")
ONE_FAILED = revision(1, HelmStatus.FAILED)
TWO_FAILED = revision(2, HelmStatus.FAILED, version="2.0.0")
FAILED_THREE = revision(3, HelmStatus.FAILED, digest="d1")
ABSENT, IN_SYNC = observed(), observed(ONE)
WELL = record(snapshot(ONE))
SOURCE_FAILS = Unresolved("SourceNotReady", "no answer")
FLUX: dict[str, Any] = {"defaults": Defaults.FLUX}


def next_after(
    wanted: Desired,
    seen: Observation,
    remembered: Record,
    *so_far: Done,
    request: Request = NO_REQUEST,
) -> Decision:
    return decide(wanted, seen, remembered, so_far, request, NOW)


def action(decision: Decision) -> Action:
    assert isinstance(decision, Run), decision
    return decision.action


def retry(decision: Decision) -> RetryAfter:
    assert isinstance(decision, RetryAfter), decision
    return decision


def stalled(decision: Decision) -> Stalled:
    assert isinstance(decision, Stalled), decision
    return decision


def hold_of(decision: Decision) -> Hold:
    assert isinstance(decision, Held), decision
    return decision.hold


# Nothing to do


def test_in_sync_is_settled() -> None:
    decision = next_after(desired(), IN_SYNC, WELL)
    assert decision == Settled(ReleaseState.IN_SYNC, "revision 1 (web@1.0.0) is as declared")


def test_suspended_is_settled_whatever_else_there_is_to_do() -> None:
    for seen in (ABSENT, IN_SYNC, observed(TWO_FAILED)):
        decision = next_after(desired("2.0.0", suspend=True), seen, WELL)
        assert isinstance(decision, Settled)
        assert decision.reason == "Suspended"


@pytest.mark.parametrize("state", ["present", "absent"])
def test_a_source_that_fails_is_waited_for(state: str) -> None:
    seen, remembered = (IN_SYNC, WELL) if state == "present" else (ABSENT, record())
    decision = retry(next_after(desired(SOURCE_FAILS), seen, remembered))
    assert (decision.reason, decision.why) == ("SourceNotReady", "no answer")
    assert decision.at == NOW + timedelta(hours=1), "the interval, where nobody says when"


def test_a_source_is_asked_again_when_it_said_so() -> None:
    unresolved = Unresolved("SourceNotReady", "429", retry_at=NOW + MINUTE)
    assert retry(next_after(desired(unresolved), IN_SYNC, WELL)).at == NOW + MINUTE


def test_only_a_source_that_was_asked_in_vain_leaves_it_unknown_what_to_do() -> None:
    assert retry(next_after(desired(SOURCE_FAILS), IN_SYNC, WELL)).is_blind
    waiting = desired(given={"waiting_for": ("apps/database",)})
    assert not retry(next_after(waiting, ABSENT, record())).is_blind


def test_what_cannot_be_resolved_without_a_person_is_stalled() -> None:
    unresolved = Unresolved("InvalidVersionRange", "no range", stalled=True)
    assert stalled(next_after(desired(unresolved), IN_SYNC, WELL)).reason == "InvalidVersionRange"


# Absent


def test_an_absent_release_is_installed() -> None:
    decision = next_after(desired(), ABSENT, record())
    assert action(decision) == Install(target())


def test_an_install_waits_for_dependencies_until_they_wake_it() -> None:
    wanted = desired(given={"waiting_for": ("apps/db (not ready)", "apps/mq (not ready)")})
    decision = retry(next_after(wanted, ABSENT, record()))
    assert decision.reason == "DependencyNotReady"
    assert decision.why == "waits for apps/db (not ready), apps/mq (not ready)"
    assert decision.at == NOW + timedelta(hours=1)


def after_install(failures: int = 1, **other: Any) -> Record:
    """The install failed, and what it left was uninstalled."""
    tried = attempt(Origin.INSTALL, error="it broke", reason="InstallFailed", **other)
    return record(attempt=tried, failures=failures, install_failures=failures)


def test_without_retries_a_failed_install_is_not_tried_again() -> None:
    decision = stalled(next_after(desired(), ABSENT, after_install()))
    assert decision.reason == "RetriesExceeded"
    assert decision.why == (
        "install failed once and is not tried again before something changes: it broke"
    )


RETRIES = {"install": {"remediation": {"retries": 2}}}


def test_a_retry_of_an_install_waits_for_its_back_off() -> None:
    waiting = retry(next_after(desired(**RETRIES), ABSENT, after_install(2, at=NOW - SECOND)))
    assert (waiting.at, waiting.reason) == (NOW + SECOND, "InstallFailed")
    due = next_after(desired(**RETRIES), ABSENT, after_install(2, at=NOW - 2 * SECOND))
    assert isinstance(action(due), Install)


@pytest.mark.parametrize(("failures", "is_over"), [(2, False), (3, True)])
def test_as_many_retries_as_were_said_and_no_more(failures: int, is_over: bool) -> None:
    decision = next_after(desired(**RETRIES), ABSENT, after_install(failures, at=NOW - MINUTE))
    assert isinstance(decision, Stalled) is is_over


def test_negative_retries_never_end() -> None:
    wanted = desired(install={"remediation": {"retries": -1}})
    decision = next_after(wanted, ABSENT, after_install(1000, at=NOW - timedelta(hours=2)))
    assert isinstance(action(decision), Install)


def test_an_install_that_stored_nothing_is_tried_again_later() -> None:
    tried = attempt(Origin.INSTALL, error="no answer", reason="InstallFailed", at=NOW)
    left = record(attempt=tried, failures=1)
    step = done(Install(target()), succeeded=False)
    decision = retry(next_after(desired(), ABSENT, left, step))
    assert (decision.at, decision.reason, decision.why) == (
        NOW + SECOND,
        "InstallFailed",
        "no answer",
    )


def test_what_no_repetition_mends_is_not_repeated() -> None:
    left = record(
        attempt=attempt(Origin.INSTALL, error="does not render", reason="X", stalled=True),
        failures=1,
    )
    decision = stalled(next_after(desired(), ABSENT, left))
    assert (decision.reason, decision.why) == ("X", "does not render")


def test_after_an_uninstall_in_this_pass_another_pass_installs() -> None:
    step = done(Uninstall(RELEASE, "why"))
    assert retry(next_after(desired(), ABSENT, record(), step)).at == NOW


def test_force_installs_though_the_retries_are_used_up() -> None:
    decision = next_after(desired(), ABSENT, after_install(), request=Request(force="t"))
    assert isinstance(action(decision), Install)


def test_force_does_not_install_twice_in_a_pass() -> None:
    step = done(Install(target()), succeeded=False)
    decision = next_after(desired(), ABSENT, after_install(), step, request=Request(force="t"))
    assert not isinstance(decision, Run)


# Locked

LOCK = replace(
    revision(2, HelmStatus.PENDING_UPGRADE, version="2.0.0"), last_deployed=NOW - 2 * MINUTE
)
OURS = record(snapshot(ONE), in_flight=in_flight())


def test_our_own_lock_is_broken() -> None:
    assert action(next_after(desired("2.0.0"), observed(ONE, LOCK), OURS)) == Unlock(2)


def test_our_lock_is_not_broken_while_our_helm_still_runs() -> None:
    decision = retry(next_after(desired(), observed(ONE, LOCK, our_helm_runs=True), OURS))
    assert (decision.reason, decision.at) == ("Progressing", NOW + SECOND)


def test_somebodys_lock_is_left_alone() -> None:
    decision = retry(next_after(desired("2.0.0"), observed(ONE, LOCK), WELL))
    assert (decision.reason, decision.at) == ("PendingRelease", NOW + 10 * SECOND)


def test_a_locked_release_answers_no_request() -> None:
    asked = Request(rollback_to=0, force="t", test=True, check=True)
    assert retry(next_after(desired(), observed(ONE, LOCK), WELL, request=asked))


# Outcomes that say nothing, and steps that must not be repeated


@pytest.mark.parametrize(
    "what",
    [Install(target()), Upgrade(target()), Rollback(1, "d1"), CheckHealth(1, (), True), Unlock(1)],
    ids=lambda what: type(what).__name__,
)
def test_an_undetermined_outcome_ends_the_pass(what: Action) -> None:
    step = done(what, succeeded=False, undetermined=True, reason="ClusterUnreachable")
    decision = retry(next_after(desired("2.0.0"), IN_SYNC, WELL, step))
    assert (decision.reason, decision.at) == ("ClusterUnreachable", NOW + 2 * SECOND)


def test_an_undetermined_outcome_that_no_repetition_mends_stands_still() -> None:
    step = done(
        CheckHealth(1, (), True), succeeded=False, undetermined=True, stalled=True, reason="Denied"
    )
    decision = stalled(next_after(desired(), IN_SYNC, WELL, step))
    assert (decision.reason, decision.why) == ("Denied", "it broke")


@pytest.mark.parametrize(
    "what",
    [Unlock(2), Uninstall(RELEASE, "why"), Prune((1,))],
    ids=lambda what: type(what).__name__,
)
def test_a_step_that_failed_is_not_repeated_in_the_same_pass(what: Action) -> None:
    decision = retry(next_after(desired(), IN_SYNC, WELL, done(what, succeeded=False)))
    assert (decision.reason, decision.why, decision.at) == (
        "ItFailed",
        "it broke",
        NOW + 8 * SECOND,
    )


# Somebody else's revision


def test_what_looks_as_declared_is_compared_before_it_is_taken_over() -> None:
    assert action(next_after(desired(), IN_SYNC, record())) == Adopt(
        ONE, target(), only_if_same=True
    )


def test_what_would_change_it_is_held_with_that_as_the_plan() -> None:
    hold = hold_of(next_after(desired("2.0.0"), IN_SYNC, record()))
    assert hold.reason is HoldReason.UNMANAGED
    assert hold.plan == ("web 1.0.0 is to become 2.0.0",)
    assert hold.subject == "1:d1>2.0.0>values"
    assert hold.declaration_digest == "declared"


def test_what_a_rendering_would_change_is_held_with_the_plan_that_it_found() -> None:
    tried = done(Adopt(ONE, target(), only_if_same=True), succeeded=False, plan=("changes x",))
    assert hold_of(next_after(desired(), IN_SYNC, record(), tried)).plan == ("changes x",)


def test_what_could_not_be_compared_is_held_with_the_reason() -> None:
    tried = done(Adopt(ONE, target(), only_if_same=True), succeeded=False, message="no template")
    hold = hold_of(next_after(desired(), IN_SYNC, record(), tried))
    assert hold.message.endswith("was not made by helmops; no template")
    assert hold.plan == ()


def test_a_hold_is_not_made_anew_while_it_is_about_the_same() -> None:
    hold = hold_of(next_after(desired("2.0.0"), IN_SYNC, record()))
    assert hold_of(next_after(desired("2.0.0"), IN_SYNC, record(hold=hold))) is hold


@pytest.mark.parametrize(
    ("wanted", "seen"),
    [
        (desired("2.0.0"), observed(ONE, revision(2))),
        (desired("3.0.0"), IN_SYNC),
        (desired(target("2.0.0", config_digest="others")), IN_SYNC),
    ],
    ids=["another revision by hand", "another version declared", "other values declared"],
)
def test_anything_new_makes_a_new_hold_of_an_unmanaged_release(wanted: Any, seen: Any) -> None:
    hold = hold_of(next_after(desired("2.0.0"), IN_SYNC, record()))
    assert hold_of(next_after(wanted, seen, record(hold=hold))) is not hold


def test_a_hold_of_a_revision_made_by_hand_is_about_that_revision_only() -> None:
    """Another version in the repository is no reason to say it again."""
    seen = observed(ONE, revision(2, version="1.5.0"))
    hold = hold_of(next_after(desired("2.0.0"), seen, WELL))
    assert hold.reason is HoldReason.DIVERGED
    assert hold_of(next_after(desired("2.0.1"), seen, WELL.evolve(hold=hold))) is hold


def test_an_accepted_revision_is_taken_over_without_a_look() -> None:
    seen = observed(ONE, revision(2, version="1.5.0"))
    hold = hold_of(next_after(desired("2.0.0"), seen, WELL))
    accepted = WELL.evolve(accepted=f"{hold.reason.value}:{hold.subject}")
    assert action(next_after(desired("2.0.0"), seen, accepted)) == Adopt(
        seen.revisions[-1], target("2.0.0"), only_if_same=False
    )


def test_what_was_accepted_does_not_cover_the_next_revision_by_hand() -> None:
    first = revision(2, version="1.5.0")
    hold = hold_of(next_after(desired("2.0.0"), observed(ONE, first), WELL))
    accepted = WELL.evolve(accepted=f"{hold.reason.value}:{hold.subject}")
    again = observed(ONE, first, revision(3, version="1.5.0", digest="d2"))
    assert hold_of(next_after(desired("2.0.0"), again, accepted))


def test_flux_takes_over_without_a_look() -> None:
    decision = next_after(desired("2.0.0", **FLUX), IN_SYNC, record())
    assert action(decision) == Adopt(ONE, target("2.0.0"), only_if_same=False)


def test_flux_takes_over_even_while_its_source_fails() -> None:
    decision = next_after(desired(SOURCE_FAILS, **FLUX), IN_SYNC, record())
    assert action(decision) == Adopt(ONE, None, only_if_same=False)


def test_without_a_target_an_unmanaged_release_cannot_be_judged() -> None:
    assert retry(next_after(desired(SOURCE_FAILS), IN_SYNC, record())).reason == "SourceNotReady"


def test_without_a_target_a_revision_by_hand_is_held_all_the_same() -> None:
    hold = hold_of(next_after(desired(SOURCE_FAILS), observed(ONE, TWO), WELL))
    assert (hold.reason, hold.plan) == (HoldReason.DIVERGED, ())


# Failed

REMEDIATED_ONCE = {
    "attempt": attempt(version="2.0.0", error="it broke", reason="UpgradeFailed"),
    "failures": 1,
    "upgrade_failures": 1,
}
FAILED_UPGRADE = record(failed(TWO_FAILED), snapshot(ONE), **REMEDIATED_ONCE)
AFTER_UPGRADE = observed(ONE, TWO_FAILED)
UPGRADED = done(Upgrade(target("2.0.0")), succeeded=False)


def test_a_failed_upgrade_is_rolled_back() -> None:
    decision = next_after(desired("2.0.0"), AFTER_UPGRADE, FAILED_UPGRADE, UPGRADED)
    assert action(decision) == Rollback(1, "d1", is_remediation=True)
    assert isinstance(decision, Run)
    assert "revision 1 (web@1.0.0) is the last one seen healthy" in decision.why


def test_without_a_healthy_revision_nothing_is_touched() -> None:
    unproven = FAILED_UPGRADE.evolve(history=(failed(TWO_FAILED), snapshot(health=Proof.SKIPPED)))
    decision = stalled(next_after(desired("2.0.0"), AFTER_UPGRADE, unproven, UPGRADED))
    assert decision.reason == "MissingRollbackTarget"


def test_a_failed_upgrade_is_left_where_the_last_failure_is_not_remediated() -> None:
    wanted = desired("2.0.0", upgrade={"remediation": {"remediateLastFailure": False}})
    decision = stalled(next_after(wanted, AFTER_UPGRADE, FAILED_UPGRADE, UPGRADED))
    assert decision.reason == "RetriesExceeded"


def test_with_retries_left_even_then_it_is_remediated() -> None:
    remediation = {"retries": 1, "remediateLastFailure": False}
    wanted = desired("2.0.0", upgrade={"remediation": remediation})
    decision = next_after(wanted, AFTER_UPGRADE, FAILED_UPGRADE, UPGRADED)
    assert isinstance(action(decision), Rollback)


def test_by_uninstall_where_that_is_said() -> None:
    wanted = desired("2.0.0", upgrade={"remediation": {"strategy": "uninstall", "retries": 1}})
    decision = next_after(wanted, AFTER_UPGRADE, FAILED_UPGRADE, UPGRADED)
    assert isinstance(action(decision), Uninstall)


def test_by_uninstall_never_by_default_after_the_last_failure() -> None:
    """`safe` rolls back by default; an uninstall takes somebody who says so."""
    wanted = desired("2.0.0", upgrade={"remediation": {"strategy": "uninstall"}})
    assert stalled(next_after(wanted, AFTER_UPGRADE, FAILED_UPGRADE, UPGRADED))


FAILED_INSTALL = record(
    failed(ONE_FAILED, Origin.INSTALL),
    attempt=attempt(Origin.INSTALL, error="it broke", reason="InstallFailed"),
    failures=1,
    install_failures=1,
)


def test_a_failed_install_is_kept() -> None:
    decision = stalled(next_after(desired(), observed(ONE_FAILED), FAILED_INSTALL))
    assert decision.reason == "RetriesExceeded"


@pytest.mark.parametrize("remediation", [{"retries": 1}, {"remediateLastFailure": True}], ids=str)
def test_a_failed_install_is_uninstalled_where_it_is_remediated(
    remediation: dict[str, Any],
) -> None:
    wanted = desired(install={"remediation": remediation})
    assert action(next_after(wanted, observed(ONE_FAILED), FAILED_INSTALL)) == Uninstall(
        RELEASE, "revision 1 failed: it broke", is_remediation=True
    )


def test_a_failed_install_of_another_target_is_upgraded() -> None:
    changed = FAILED_INSTALL.evolve(failures=0, install_failures=0)
    decision = next_after(desired("2.0.0"), observed(ONE_FAILED), changed)
    assert action(decision) == Upgrade(target("2.0.0"), "1.0.0")


def test_a_broken_off_upgrade_is_simply_done_again() -> None:
    broken_off = FAILED_UPGRADE.evolve(failures=0, upgrade_failures=0, interruptions=1)
    decision = next_after(desired("2.0.0"), AFTER_UPGRADE, broken_off)
    assert isinstance(action(decision), Upgrade)
    again = next_after(desired("2.0.0"), AFTER_UPGRADE, broken_off, UPGRADED)
    assert retry(again).at == NOW, "but not twice in a pass"


def test_what_follows_a_failed_install_and_stores_nothing_waits_its_back_off() -> None:
    """A chart that does not render must not be tried again and again."""
    tried = attempt(version="2.0.0", error="no answer", at=NOW, changed_storage=False)
    left = record(failed(ONE_FAILED, Origin.INSTALL), attempt=tried, failures=2)
    wanted = desired("2.0.0")
    assert retry(next_after(wanted, observed(ONE_FAILED), left)).at == NOW + 2 * SECOND
    stalls = left.evolve(attempt=attempt(version="2.0.0", error="x", stalled=True))
    assert stalled(next_after(wanted, observed(ONE_FAILED), stalls))


def test_force_upgrades_a_failed_release_once() -> None:
    asked = Request(force="t")
    decision = next_after(desired("2.0.0"), AFTER_UPGRADE, FAILED_UPGRADE, request=asked)
    assert isinstance(action(decision), Upgrade)
    after = next_after(desired("2.0.0"), AFTER_UPGRADE, FAILED_UPGRADE, UPGRADED, request=asked)
    assert isinstance(action(after), Rollback)


@pytest.mark.parametrize("defaults", list(Defaults))
def test_flux_rolls_back_only_where_retries_say_so(defaults: Defaults) -> None:
    decision = next_after(desired("2.0.0", defaults=defaults), AFTER_UPGRADE, FAILED_UPGRADE)
    assert isinstance(decision, Stalled) is (defaults is Defaults.FLUX)


# RetryOnFailure

ON_FAILURE = {"strategy": {"name": "RetryOnFailure", "retryInterval": "2m"}}


def test_retry_on_failure_waits_its_interval_from_the_failure() -> None:
    wanted = desired("2.0.0", upgrade=ON_FAILURE)
    broken = record(failed(TWO_FAILED, judged_at=NOW - MINUTE), snapshot(ONE), **REMEDIATED_ONCE)
    decision = retry(next_after(wanted, AFTER_UPGRADE, broken))
    assert (decision.at, decision.reason) == (NOW + MINUTE, "UpgradeFailed")


def test_retry_on_failure_then_upgrades_again_without_remediation() -> None:
    wanted = desired("2.0.0", upgrade=ON_FAILURE)
    broken = FAILED_UPGRADE.with_head(judged_at=NOW - 2 * MINUTE)
    assert isinstance(action(next_after(wanted, AFTER_UPGRADE, broken)), Upgrade)


def test_retry_on_failure_does_not_upgrade_twice_in_a_pass() -> None:
    wanted = desired("2.0.0", upgrade=ON_FAILURE)
    broken = FAILED_UPGRADE.with_head(judged_at=NOW - 2 * MINUTE)
    decision = retry(next_after(wanted, AFTER_UPGRADE, broken, UPGRADED))
    assert decision.at == NOW


def test_retry_on_failure_upgrades_a_failed_install() -> None:
    wanted = desired(install=ON_FAILURE)
    broken = FAILED_INSTALL.with_head(judged_at=NOW - 2 * MINUTE)
    assert isinstance(action(next_after(wanted, observed(ONE_FAILED), broken)), Upgrade)


def test_retry_on_failure_does_not_wait_for_a_changed_target() -> None:
    wanted = desired("2.0.0", upgrade=ON_FAILURE)
    changed = FAILED_UPGRADE.evolve(failures=0, upgrade_failures=0).with_head(judged_at=NOW)
    assert isinstance(action(next_after(wanted, AFTER_UPGRADE, changed)), Upgrade)


def test_retry_on_failure_waits_as_well_after_a_try_that_stored_nothing() -> None:
    wanted = desired("2.0.0", upgrade=ON_FAILURE)
    tried = attempt(version="2.0.0", error="no answer", at=NOW - MINUTE, changed_storage=False)
    broken = FAILED_UPGRADE.evolve(attempt=tried).with_head(judged_at=NOW - 9 * MINUTE)
    assert retry(next_after(wanted, AFTER_UPGRADE, broken)).at == NOW + MINUTE


def test_the_strategy_is_that_of_the_action_that_failed() -> None:
    wanted = desired("2.0.0", install=ON_FAILURE)
    assert isinstance(action(next_after(wanted, AFTER_UPGRADE, FAILED_UPGRADE)), Rollback)


# Rollbacks that go wrong

ROLLED_BACK = done(Rollback(1, "d1"), succeeded=False)
AFTER_ROLLBACK = observed(ONE, TWO_FAILED, FAILED_THREE)


def test_a_rollback_that_helm_refused_is_not_repeated_in_the_same_pass() -> None:
    refused = FAILED_UPGRADE.evolve(rollback_failures=3)
    decision = retry(next_after(desired("2.0.0"), AFTER_UPGRADE, refused, UPGRADED, ROLLED_BACK))
    assert (decision.at, decision.reason) == (NOW + 4 * SECOND, "RollbackFailed")
    assert decision.why.endswith("the rollback failed: it broke")


def test_a_rollback_that_helm_refused_is_tried_again_in_the_next_pass() -> None:
    refused = FAILED_UPGRADE.evolve(rollback_failures=4)
    assert isinstance(action(next_after(desired("2.0.0"), AFTER_UPGRADE, refused)), Rollback)


@pytest.mark.parametrize("so_far", [(), (UPGRADED, ROLLED_BACK)], ids=["later", "at once"])
def test_a_rollback_that_helm_refused_five_times_is_not_tried_again(so_far: Any) -> None:
    refused = FAILED_UPGRADE.evolve(rollback_failures=5)
    decision = stalled(next_after(desired("2.0.0"), AFTER_UPGRADE, refused, *so_far))
    assert decision.reason == "RollbackFailed"


def restoring(failures: int = 1, **head: Any) -> Record:
    """A rollback to revision 1 failed in helm."""
    restored = failed(FAILED_THREE, Origin.ROLLBACK, **{"judged_at": NOW, **head})
    history = (restored, failed(TWO_FAILED), snapshot(ONE))
    return record(*history, rollback_failures=failures, **REMEDIATED_ONCE)


def test_a_failed_rollback_is_tried_again_after_a_back_off() -> None:
    waiting = retry(next_after(desired("2.0.0"), AFTER_ROLLBACK, restoring(2)))
    assert (waiting.at, waiting.reason) == (NOW + 4 * SECOND, "RollbackFailed")
    due = next_after(desired("2.0.0"), AFTER_ROLLBACK, restoring(2, judged_at=NOW - 4 * SECOND))
    assert action(due) == Rollback(1, "d1")


def test_a_broken_off_rollback_is_done_again_at_once() -> None:
    assert action(next_after(desired("2.0.0"), AFTER_ROLLBACK, restoring(0))) == Rollback(1, "d1")


def test_a_failed_rollback_stops_after_five() -> None:
    decision = stalled(next_after(desired("2.0.0"), AFTER_ROLLBACK, restoring(5)))
    assert decision.why == "rollback failed 5 times: it broke"


def test_what_was_restored_and_is_not_well_stops_everything() -> None:
    restored = revision(3, digest="d1")
    sick = snapshot(restored, Origin.ROLLBACK, health=Proof.FAILED, message="503", evidence=SEEN)
    remembered = record(sick, failed(TWO_FAILED), snapshot(ONE), **REMEDIATED_ONCE)
    decision = stalled(
        next_after(desired("2.0.0"), observed(ONE, TWO_FAILED, restored), remembered)
    )
    assert decision.reason == "RollbackFailed"
    assert decision.why.endswith("revision 3, which was rolled back to, is not healthy: 503")


def test_a_changed_target_goes_forward_from_what_was_restored_and_is_not_well() -> None:
    restored = revision(3, digest="d1")
    sick = snapshot(restored, Origin.ROLLBACK, health=Proof.FAILED)
    remembered = record(sick, failed(TWO_FAILED), snapshot(ONE))
    decision = next_after(desired("2.1.0"), observed(ONE, TWO_FAILED, restored), remembered)
    assert isinstance(action(decision), Upgrade)


def test_force_goes_forward_from_a_failed_rollback() -> None:
    asked = Request(force="t")
    decision = next_after(desired("2.0.0"), AFTER_ROLLBACK, restoring(5), request=asked)
    assert isinstance(action(decision), Upgrade)


# Taken over and not well


def adopted(**other: Any) -> Record:
    return record(snapshot(ONE, Origin.ADOPT, health=Proof.FAILED, **other))


def test_what_was_taken_over_and_is_not_well_is_looked_at_again_at_the_interval() -> None:
    waiting = retry(next_after(desired(), IN_SYNC, adopted(judged_at=NOW - MINUTE)))
    assert waiting.at == NOW + 59 * MINUTE
    due = next_after(desired(), IN_SYNC, adopted(judged_at=NOW - timedelta(hours=1)))
    assert isinstance(action(due), CheckHealth)
    looked = done(CheckHealth(1, (), True), succeeded=False)
    assert retry(next_after(desired(), IN_SYNC, adopted(judged_at=None), looked))


def test_what_was_taken_over_and_is_not_well_is_upgraded_where_it_is_to_change() -> None:
    assert isinstance(action(next_after(desired("2.0.0"), IN_SYNC, adopted())), Upgrade)


# Out of sync


def test_a_new_target_is_an_upgrade() -> None:
    assert action(next_after(desired("2.0.0"), IN_SYNC, WELL)) == Upgrade(target("2.0.0"), "1.0.0")


def test_an_upgrade_that_stored_nothing_is_tried_again_later_or_not_at_all() -> None:
    tried = attempt(version="2.0.0", error="no answer", at=NOW, changed_storage=False)
    left = WELL.evolve(attempt=tried, failures=3)
    assert retry(next_after(desired("2.0.0"), IN_SYNC, left)).at == NOW + 4 * SECOND
    never = attempt(version="2.0.0", error="does not render", reason="X", stalled=True)
    decision = stalled(next_after(desired("2.0.0"), IN_SYNC, left.evolve(attempt=never)))
    assert (decision.reason, decision.why) == ("X", "does not render")


def test_an_upgrade_waits_for_dependencies() -> None:
    wanted = desired("2.0.0", given={"waiting_for": ("apps/db",)})
    assert retry(next_after(wanted, IN_SYNC, WELL)).reason == "DependencyNotReady"


def test_a_release_as_declared_waits_for_nobody() -> None:
    wanted = desired(given={"waiting_for": ("apps/db",)})
    assert isinstance(next_after(wanted, IN_SYNC, WELL), Settled)


@pytest.mark.parametrize(
    "so_far", [Upgrade(target("2.0.0")), Rollback(1, "d1"), Uninstall(RELEASE, "why")]
)
def test_no_second_release_in_a_pass(so_far: Action) -> None:
    assert retry(next_after(desired("2.0.0"), IN_SYNC, WELL, done(so_far))).at == NOW


def test_after_a_rollback_the_retries_that_are_left_come_later() -> None:
    restored = snapshot(revision(3, digest="d1"), Origin.ROLLBACK)
    left = record(restored, failed(TWO_FAILED), snapshot(ONE), **REMEDIATED_ONCE)
    seen = observed(ONE, TWO_FAILED, revision(3, digest="d1"))
    once = desired("2.0.0", upgrade={"remediation": {"retries": 1}})
    assert isinstance(action(next_after(once, seen, left)), Upgrade)
    assert stalled(next_after(desired("2.0.0"), seen, left)).reason == "RetriesExceeded"
    endless = desired("2.0.0", upgrade=ON_FAILURE)
    assert isinstance(action(next_after(endless, seen, left)), Upgrade)


# Downgrades and other charts

LOWER = target("0.9.0", downgrade_from="1.0.0")


def test_a_downgrade_is_held() -> None:
    hold = hold_of(next_after(desired(LOWER), IN_SYNC, WELL))
    assert (hold.reason, hold.subject) == (HoldReason.DOWNGRADE, "0.9.0")
    assert hold.plan == ("downgrade web from 1.0.0 to 0.9.0",)


def test_a_downgrade_that_was_accepted_or_is_followed_is_an_upgrade() -> None:
    accepted = WELL.evolve(accepted="DowngradeHeld:0.9.0")
    followed = desired(LOWER, policy={"upgrade": {"downgrade": "follow"}})
    assert isinstance(action(next_after(desired(LOWER), IN_SYNC, accepted)), Upgrade)
    assert isinstance(action(next_after(followed, IN_SYNC, WELL)), Upgrade)


def test_an_accepted_downgrade_covers_no_other_version() -> None:
    accepted = WELL.evolve(accepted="DowngradeHeld:0.9.1")
    assert hold_of(next_after(desired(LOWER), IN_SYNC, accepted))


YANKED = target("0.9.0", downgrade_from="1.0.0", yanked="1.0.0")


def test_a_version_that_is_gone_from_its_source_is_held_and_not_gone_below() -> None:
    hold = hold_of(next_after(desired(YANKED), IN_SYNC, WELL))
    assert (hold.reason, hold.subject) == (HoldReason.YANKED, "1.0.0>0.9.0")
    assert "the deployed web 1.0.0 is gone from its source" in hold.message
    assert hold.plan == ("downgrade web from 1.0.0 to 0.9.0",)
    downgrades = desired(YANKED, policy={"upgrade": {"downgrade": "follow"}})
    assert hold_of(next_after(downgrades, IN_SYNC, WELL)).reason is HoldReason.YANKED


def test_a_yank_that_was_accepted_or_is_followed_goes_to_what_is_left() -> None:
    accepted = WELL.evolve(accepted="VersionYanked:1.0.0>0.9.0")
    followed = desired(YANKED, policy={"upgrade": {"yank": "follow"}})
    assert isinstance(action(next_after(desired(YANKED), IN_SYNC, accepted)), Upgrade)
    assert isinstance(action(next_after(followed, IN_SYNC, WELL)), Upgrade)
    other = WELL.evolve(accepted="VersionYanked:1.0.0>0.8.0")
    assert hold_of(next_after(desired(YANKED), IN_SYNC, other))


def test_a_newer_version_than_one_that_is_gone_is_an_upgrade_as_any_other() -> None:
    newer = target("1.1.0", yanked="1.0.0")
    assert isinstance(action(next_after(desired(newer), IN_SYNC, WELL)), Upgrade)


RETAGGED = target(digest="b" * 64, retagged_from="a" * 64)


def test_other_content_under_the_same_version_is_held() -> None:
    hold = hold_of(next_after(desired(RETAGGED), IN_SYNC, WELL))
    assert (hold.reason, hold.subject) == (HoldReason.RETAGGED, "b" * 64)
    assert "other content as web 1.0.0 than was released: sha256:bbbbbbbbbbbb" in hold.message
    assert "it was sha256:aaaaaaaaaaaa" in hold.message


def test_other_values_do_not_take_other_content_in_with_them() -> None:
    changed = replace(RETAGGED, config_digest="other values")
    assert hold_of(next_after(desired(changed), IN_SYNC, WELL)).reason is HoldReason.RETAGGED


def test_other_content_that_was_accepted_or_is_followed_is_an_upgrade() -> None:
    accepted = WELL.evolve(accepted=f"VersionRetagged:{'b' * 64}")
    followed = desired(RETAGGED, policy={"upgrade": {"retag": "follow"}})
    flux = desired(RETAGGED, defaults=Defaults.FLUX)
    assert isinstance(action(next_after(desired(RETAGGED), IN_SYNC, accepted)), Upgrade)
    assert isinstance(action(next_after(followed, IN_SYNC, WELL)), Upgrade)
    assert isinstance(action(next_after(flux, IN_SYNC, WELL)), Upgrade)
    said = desired(RETAGGED, defaults=Defaults.FLUX, policy={"upgrade": {"retag": "hold"}})
    assert hold_of(next_after(said, IN_SYNC, WELL))


def test_once_more_other_content_is_held_again() -> None:
    accepted = WELL.evolve(accepted=f"VersionRetagged:{'c' * 64}")
    assert hold_of(next_after(desired(RETAGGED), IN_SYNC, accepted))


def test_repacked_content_is_known_by_what_its_source_has() -> None:
    chart = replace(RETAGGED.chart, upstream_digest="d" * 64)
    repacked = desired(replace(RETAGGED, chart=chart, follows_content=True))
    assert hold_of(next_after(repacked, IN_SYNC, WELL)).subject == "d" * 64


OTHER_CHART = target(chart="other")


def test_another_chart_name_is_held_with_what_it_would_do() -> None:
    hold = hold_of(next_after(desired(OTHER_CHART), IN_SYNC, WELL))
    assert (hold.reason, hold.subject) == (HoldReason.CHART_NAME, "other")
    assert hold.plan == ("uninstall apps/web", "install other 1.0.0")


def test_another_chart_name_reinstalls_where_that_is_said_or_accepted() -> None:
    said = desired(OTHER_CHART, upgrade={"chartNameChangeStrategy": "Reinstall"})
    accepted = WELL.evolve(accepted="ChartNameChanged:other")
    assert isinstance(action(next_after(said, IN_SYNC, WELL)), Uninstall)
    assert isinstance(action(next_after(desired(OTHER_CHART), IN_SYNC, accepted)), Uninstall)


def test_another_chart_name_is_upgraded_in_place_where_that_is_said() -> None:
    said = desired(OTHER_CHART, upgrade={"chartNameChangeStrategy": "InPlaceUpdate"})
    assert action(next_after(said, IN_SYNC, WELL)) == Upgrade(OTHER_CHART, "1.0.0")


@pytest.mark.parametrize(
    ("seen", "remembered", "version"),
    [
        (IN_SYNC, WELL, "1.0.0"),
        (AFTER_UPGRADE, FAILED_UPGRADE, "1.0.0"),
        (observed(ONE, TWO), record(snapshot(TWO, health=Proof.PENDING), snapshot(ONE)), "2.0.0"),
        (
            observed(revision(1, HelmStatus.SUPERSEDED), TWO, revision(3, HelmStatus.FAILED)),
            record(failed(revision(3, HelmStatus.FAILED)), snapshot(ONE)),
            "1.0.0",
        ),
        (observed(ONE, TWO_FAILED), record(failed(TWO_FAILED)), "1.0.0"),
        (observed(TWO_FAILED), record(failed(TWO_FAILED)), ""),
        (IN_SYNC, record(), "1.0.0"),
        (ABSENT, record(), ""),
    ],
    ids=[
        "what is known to be well",
        "what a failed upgrade will go back to",
        "what is not checked yet",
        "what was proven, whatever helm calls deployed",
        "what helm calls deployed, where nothing is proven",
        "nothing behind a failed install",
        "what somebody released",
        "nothing where nothing is",
    ],
)
def test_the_deployed_version_is_the_one_that_runs(
    seen: Observation, remembered: Record, version: str
) -> None:
    assert deployed_version(seen, remembered) == version


# Unchecked, untested, watched


def test_an_unchecked_revision_is_checked_with_the_checks_of_its_policy() -> None:
    policy = {"verify": {"checks": [{"name": "smoke", "http": {"url": "http://app/"}}]}}
    wanted = desired(policy=policy)
    decision = next_after(wanted, IN_SYNC, record(snapshot(ONE, health=Proof.PENDING)))
    assert action(decision) == CheckHealth(1, wanted.policy.verify.checks, waits=True)


def test_an_untested_revision_is_tested() -> None:
    remembered = record(snapshot(ONE, tests=Proof.PENDING))
    assert action(next_after(desired(test={"enable": True}), IN_SYNC, remembered)) == RunTests(1)


WATCH = {"verify": {"watch": "5m"}}


def watching(until: timedelta) -> Record:
    return record(snapshot(ONE, watched=Proof.PENDING, watched_until=NOW + until))


def test_a_watched_release_is_looked_at_in_every_pass() -> None:
    decision = next_after(desired(policy=WATCH), IN_SYNC, watching(MINUTE))
    assert action(decision) == CheckHealth(1, (), waits=True, is_rewatch=True)


@pytest.mark.parametrize(
    ("until", "again"), [(MINUTE, 10 * SECOND), (4 * SECOND, 4 * SECOND), (-SECOND, SECOND)]
)
def test_the_next_look_is_soon_and_at_the_end_of_the_window(
    until: timedelta, again: timedelta
) -> None:
    looked = done(CheckHealth(1, (), True, is_rewatch=True))
    decision = retry(next_after(desired(policy=WATCH), IN_SYNC, watching(until), looked))
    assert decision.at == NOW + again


def test_waking_a_watched_release_early_is_no_reason_to_look_earlier() -> None:
    """Its own record wakes it, each time that a look is written down."""
    wanted = desired(policy=WATCH)
    said = watching(MINUTE).evolve(state="Watching", next_try=NOW + 7 * SECOND)
    assert retry(next_after(wanted, IN_SYNC, said)).at == NOW + 7 * SECOND
    due = said.evolve(next_try=NOW)
    assert isinstance(action(next_after(wanted, IN_SYNC, due)), CheckHealth)
    before = said.evolve(state="Failed")
    assert isinstance(action(next_after(wanted, IN_SYNC, before)), CheckHealth)


# Requests


def test_a_rollback_by_hand_goes_to_the_revision_that_was_asked_for() -> None:
    remembered = record(snapshot(TWO, Origin.UPGRADE), snapshot(ONE))
    asked = Request(rollback_to=1, by="ada")
    decision = next_after(desired("2.0.0"), observed(ONE, TWO), remembered, request=asked)
    assert action(decision) == Rollback(1, "d1", is_remediation=False)
    assert isinstance(decision, Run)
    assert decision.why == "asked for by ada"


@pytest.mark.parametrize(
    ("number", "why"),
    [(7, "revision 7 is not stored"), (1, "revision 1 was not seen healthy")],
)
def test_a_rollback_by_hand_to_what_was_not_seen_healthy_is_refused(number: int, why: str) -> None:
    remembered = record(snapshot(TWO, Origin.UPGRADE), snapshot(ONE, health=Proof.SKIPPED))
    decision = next_after(
        desired("2.0.0"), observed(ONE, TWO), remembered, request=Request(rollback_to=number)
    )
    assert stalled(decision).why == why


def test_a_rollback_by_hand_without_a_healthy_revision_is_refused() -> None:
    decision = next_after(desired(), IN_SYNC, WELL, request=Request(rollback_to=0))
    assert stalled(decision).why == "no earlier revision was seen healthy"


BY_HAND = Rollback(1, "d1", is_remediation=False)
TWO_HEALTHY = record(snapshot(TWO, Origin.UPGRADE), snapshot(ONE))


def rolled_back_hold(at: Any = NOW) -> Hold:
    return Hold(HoldReason.ROLLED_BACK, "by hand", at, "declared", subject="d1")


def test_a_rollback_by_hand_that_helm_refused_is_said_and_not_held() -> None:
    asked = Request(rollback_to=0)
    refused = done(BY_HAND, succeeded=False)
    seen = observed(ONE, TWO)
    for before in (TWO_HEALTHY, TWO_HEALTHY.evolve(hold=rolled_back_hold(NOW - MINUTE))):
        decision = stalled(next_after(desired("2.0.0"), seen, before, refused, request=asked))
        assert (decision.reason, decision.why) == (
            "RollbackFailed",
            "the rollback failed: it broke",
        )


def test_a_rollback_by_hand_is_held_where_it_is() -> None:
    restored = revision(3, digest="d1")
    remembered = record(
        snapshot(restored, Origin.ROLLBACK), *TWO_HEALTHY.history, hold=rolled_back_hold()
    )
    seen = observed(ONE, TWO, restored)
    decision = next_after(desired("2.0.0"), seen, remembered, request=Request(force="t"))
    assert hold_of(decision).reason is HoldReason.ROLLED_BACK


def test_what_a_person_rolled_back_to_is_left_there_though_it_is_not_well() -> None:
    restored = revision(3, digest="d1")
    sick = snapshot(restored, Origin.ROLLBACK, health=Proof.FAILED)
    remembered = record(sick, *TWO_HEALTHY.history, hold=rolled_back_hold())
    assert hold_of(next_after(desired("2.0.0"), observed(ONE, TWO, restored), remembered))


def test_a_rollback_by_hand_that_was_broken_off_is_finished_to_where_the_person_wished() -> None:
    broken = failed(FAILED_THREE, Origin.ROLLBACK)
    older, newer = snapshot(ONE), snapshot(TWO, Origin.UPGRADE)
    remembered = record(broken, newer, older, hold=rolled_back_hold())
    seen = observed(ONE, TWO, FAILED_THREE)
    assert action(next_after(desired("2.0.0"), seen, remembered)) == Rollback(1, "d1")
    counted = remembered.evolve(rollback_failures=1)
    assert hold_of(next_after(desired("2.0.0"), seen, counted)), "helm's own failure stays"


@pytest.mark.parametrize("suspended", [None, Suspension(NOW)])
def test_tests_and_checks_run_when_they_are_asked_for(suspended: Any) -> None:
    remembered = WELL.evolve(suspended=suspended)
    tests = next_after(desired(), IN_SYNC, remembered, request=Request(test=True))
    assert action(tests) == RunTests(1)
    checks = next_after(desired(), IN_SYNC, remembered, request=Request(check=True))
    assert action(checks) == CheckHealth(1, (), waits=True)


def test_they_run_once() -> None:
    so_far = (done(CheckHealth(1, (), True)), done(RunTests(1)))
    asked = Request(test=True, check=True)
    assert isinstance(next_after(desired(), IN_SYNC, WELL, *so_far, request=asked), Settled)


def test_somebodys_revision_is_not_checked_by_the_objects_of_ours() -> None:
    decision = next_after(desired(), observed(ONE, TWO), WELL, request=Request(check=True))
    assert not isinstance(decision, Run) or not isinstance(decision.action, CheckHealth)


@pytest.mark.parametrize("seen", [ABSENT, observed(revision(1, HelmStatus.UNINSTALLED))])
def test_what_is_not_there_is_not_tested_or_rolled_back(seen: Observation) -> None:
    asked = Request(rollback_to=0, test=True, check=True)
    assert isinstance(action(next_after(desired(), seen, WELL, request=asked)), Install)


def test_force_upgrades_what_is_in_sync_once() -> None:
    asked = Request(force="t")
    assert isinstance(action(next_after(desired(), IN_SYNC, WELL, request=asked)), Upgrade)
    ran = done(Upgrade(target()))
    assert isinstance(next_after(desired(), IN_SYNC, WELL, ran, request=asked), Settled)


def test_force_cannot_upgrade_to_what_is_not_known() -> None:
    decision = next_after(desired(SOURCE_FAILS), IN_SYNC, WELL, request=Request(force="t"))
    assert retry(decision).reason == "SourceNotReady"


# Hooks


def test_hooks_run_before_an_upgrade_once_in_a_pass() -> None:
    wanted = desired("2.0.0", policy=hook_policy("beforeUpgrade"))
    hooks = wanted.policy.remediation.hooks
    first = action(next_after(wanted, IN_SYNC, WELL))
    assert first == RunHooks(HookPoint.BEFORE_UPGRADE, hooks, None)
    ran = done(first, hooks=(hook_outcome(),))
    assert isinstance(action(next_after(wanted, IN_SYNC, WELL, ran)), Upgrade)


@pytest.mark.parametrize("stops", [True, False])
def test_a_failed_hook_stops_only_where_it_says_so(stops: bool) -> None:
    wanted = desired("2.0.0", policy=hook_policy("beforeUpgrade"))
    hook = hook_outcome("gate", succeeded=False, stops=stops)
    ran = done(RunHooks(HookPoint.BEFORE_UPGRADE, (), None), succeeded=False, hooks=(hook,))
    decision = next_after(wanted, IN_SYNC, WELL, ran)
    if stops:
        assert stalled(decision).why == "hook gate at beforeUpgrade failed: exit 1"
    else:
        assert isinstance(action(decision), Upgrade)


@pytest.mark.parametrize(
    ("at", "wanted_hook"),
    [("failed", True), ("beforeRollback", True), ("afterRollback", False), ("afterSuccess", False)],
)
def test_a_failed_upgrade_runs_its_hooks_before_the_way_back(at: str, wanted_hook: bool) -> None:
    wanted = desired("2.0.0", policy=hook_policy(at))
    found = action(next_after(wanted, AFTER_UPGRADE, FAILED_UPGRADE, UPGRADED))
    assert isinstance(found, RunHooks if wanted_hook else Rollback)
    ran = FAILED_UPGRADE.with_head(hooks_run=(at,))
    assert isinstance(action(next_after(wanted, AFTER_UPGRADE, ran, UPGRADED)), Rollback)


@pytest.mark.parametrize(
    ("at", "origin", "runs"),
    [
        ("afterSuccess", Origin.INSTALL, True),
        ("afterSuccess", Origin.UPGRADE, True),
        ("afterSuccess", Origin.ROLLBACK, False),
        ("afterSuccess", Origin.ADOPT, False),
        ("afterRollback", Origin.ROLLBACK, True),
        ("afterRollback", Origin.UPGRADE, False),
    ],
)
def test_success_and_rollback_have_hooks_of_their_own(at: str, origin: Origin, runs: bool) -> None:
    wanted = desired(policy=hook_policy(at))
    decision = next_after(wanted, IN_SYNC, record(snapshot(ONE, origin)))
    assert isinstance(decision, Run) is runs
    ran = record(snapshot(ONE, origin, hooks_run=(at,)))
    assert isinstance(next_after(wanted, IN_SYNC, ran), Settled)


def test_a_broken_off_upgrade_is_no_failure_to_tell_hooks_of() -> None:
    wanted = desired("2.0.0", policy=hook_policy("failed"))
    broken_off = FAILED_UPGRADE.evolve(failures=0, upgrade_failures=0)
    assert isinstance(action(next_after(wanted, AFTER_UPGRADE, broken_off)), Upgrade)


# Moved

OLD = ReleaseId("apps", "old")
MOVED = WELL.evolve(release=OLD)


def test_a_moved_release_is_held_while_the_old_one_runs() -> None:
    hold = hold_of(next_after(desired(), observed(elsewhere=(ONE,)), MOVED))
    assert (hold.reason, hold.subject) == (HoldReason.MOVED, "apps/web")
    assert hold.plan == ("uninstall apps/old", "install apps/web")


@pytest.mark.parametrize(
    ("wanted", "seen", "remembered"),
    [
        (desired(**FLUX), observed(elsewhere=(ONE,)), MOVED),
        (desired(), observed(elsewhere=(ONE,)), MOVED.evolve(accepted="ReleaseMoved:apps/web")),
        (desired(), observed(), MOVED),
    ],
    ids=["flux", "accepted", "gone already"],
)
def test_else_the_old_place_is_cleared_and_a_next_pass_installs(
    wanted: Desired, seen: Observation, remembered: Record
) -> None:
    first = action(next_after(wanted, seen, remembered))
    assert first == Uninstall(OLD, "moved to apps/web")
    assert retry(next_after(wanted, seen, remembered, done(first))).reason == "Progressing"


def test_a_suspended_release_does_not_move() -> None:
    moved = observed(elsewhere=(ONE,))
    assert isinstance(next_after(desired(suspend=True, **FLUX), moved, MOVED), Settled)


# History

MANY = tuple(revision(n, HelmStatus.SUPERSEDED) for n in range(1, 8))


def test_too_many_revisions_are_pruned_at_the_end_of_a_pass() -> None:
    remembered = record(snapshot(MANY[-1]))
    assert action(next_after(desired(), observed(*MANY), remembered)) == Prune((1, 2))
    ran = done(Prune((1, 2)))
    assert isinstance(next_after(desired(), observed(*MANY), remembered, ran), Settled)


def test_max_history_is_what_the_declaration_says() -> None:
    remembered = record(snapshot(MANY[-1]))
    kept = desired(maxHistory=0)
    assert isinstance(next_after(kept, observed(*MANY), remembered), Settled)
    assert action(next_after(desired(maxHistory=6), observed(*MANY), remembered)) == Prune((1,))


@pytest.mark.parametrize(
    ("wanted", "remembered"),
    [
        (desired(suspend=True), record(snapshot(MANY[-1]))),
        (desired("2.0.0"), record()),
        (desired("2.0.0"), record(snapshot(MANY[0]))),
        (desired(given={"is_observed_only": True}), record(snapshot(MANY[-1]))),
    ],
    ids=["suspended", "unmanaged", "diverged", "observed only"],
)
def test_what_is_not_ours_to_change_is_not_pruned(wanted: Desired, remembered: Record) -> None:
    assert not isinstance(next_after(wanted, observed(*MANY), remembered), Run)


def test_a_stalled_release_is_pruned_too() -> None:
    broken = revision(8, HelmStatus.FAILED, version="2.0.0")
    remembered = record(failed(broken), snapshot(MANY[-1]), **REMEDIATED_ONCE)
    wanted = desired("2.0.0", upgrade={"remediation": {"remediateLastFailure": False}})
    assert action(next_after(wanted, observed(*MANY, broken), remembered)) == Prune((1, 2, 3))


@pytest.mark.parametrize(
    "behind_ones_back",
    [{"retagged_from": "abc"}, {"downgrade_from": "3.0.0"}, {"downgrade_from": "3", "yanked": "3"}],
    ids=["retagged", "lower", "yanked"],
)
def test_versions_of_another_chart_are_not_compared(behind_ones_back: dict[str, str]) -> None:
    wanted = desired(
        target("2.0.0", chart="other", **behind_ones_back),
        upgrade={"chartNameChangeStrategy": "InPlaceUpdate"},
    )
    decision = next_after(wanted, observed(ONE), WELL)
    assert isinstance(decision, Run)
    assert isinstance(decision.action, Upgrade)
