"""What a pass does next. Retrying, stopping and stalling are decided here and nowhere else."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import assert_never

from helmops.decide.backoff import backoff
from helmops.decide.recovery import is_our_lock
from helmops.decide.remember import (
    acceptance,
    is_flux,
    is_moved,
    stopping_hook,
    waits,
)
from helmops.decide.rollback_target import (
    earlier_target,
    is_rollback_target,
    prunable,
    rollback_target,
    to_put_back,
)
from helmops.decide.state import classify, difference_to_target, is_absorbed
from helmops.model.actions import (
    Adopt,
    CheckHealth,
    Classified,
    Decision,
    Desired,
    Done,
    GatherEvidence,
    Held,
    HookPoint,
    Inspect,
    Install,
    KeepCopy,
    Observation,
    Prune,
    PutBack,
    ReleaseState,
    Request,
    RetryAfter,
    Rollback,
    Run,
    RunHooks,
    RunTests,
    Settled,
    Stalled,
    Target,
    Uninstall,
    Unlock,
    Unresolved,
    Upgrade,
)
from helmops.model.declarations import RemediationHook
from helmops.model.records import (
    Hold,
    HoldReason,
    KeptCopy,
    Origin,
    Proof,
    Record,
    Snapshot,
    Verdict,
)
from helmops.model.releases import HelmStatus, Revision

#: How soon to look again at a lock that is somebody else's, or while our own helm still runs. Both
#: are also seen by the watch of Helm's Secrets; this is for when there is none.
_LOCK_INTERVAL = timedelta(seconds=10)
_HELM_INTERVAL = timedelta(seconds=1)
#: How much older than its timeout somebody's lock must be, and how long nothing of the release may
#: have changed, before it is broken.
_LOCK_GRACE = timedelta(minutes=1)
_QUIET = timedelta(minutes=2)
#: Inside the watch window.
_WATCH_INTERVAL = timedelta(seconds=10)
#: A rollback that helm refuses so often is refused for a reason.
_MAX_ROLLBACKS = 5


def decide(
    desired: Desired,
    observed: Observation,
    record: Record,
    done: Sequence[Done],
    request: Request,
    now: datetime,
) -> Decision:
    """The next action, or why there is none.

    Computational only: `desired`, `observed` and `record` are values, `done` has what this pass did
    so far, `request` what somebody asked for and was not handled before.

    >>> # the pass: while (decision := decide(...)) is a Run: perform, remember, observe
    """
    decision = _decide(desired, observed, record, done, request, now)
    if isinstance(decision, Run) and isinstance(decision.action, Inspect | Upgrade):
        return _keep_first(decision, desired, observed, record, done)
    if isinstance(decision, Run) or not _is_ours_and_still(decision, desired, observed, record):
        return decision
    kept = _keep_first(decision, desired, observed, record, done)
    if kept is not decision:
        return kept
    surplus = prunable(observed, record, desired.spec.max_history)
    if not surplus or _ran(done, Prune):
        return decision
    return Run(Prune(surplus), decision.state, f"maxHistory is {desired.spec.max_history}")


def _keep_first(
    decision: Decision,
    desired: Desired,
    observed: Observation,
    record: Record,
    done: Sequence[Done],
) -> Decision:
    """The copy of what was seen healthy, before anything is pruned or upgraded over it."""
    head, known = observed.head, record.head
    if desired.is_observed_only or head is None or known is None or not known.is_of(head):
        return decision
    is_kept = record.kept is not None and record.kept.digest == known.digest
    if known.verdict is not Verdict.HEALTHY or is_kept or _ran(done, KeepCopy):
        return decision
    why = f"revision {known.revision} was seen healthy"
    return Run(KeepCopy(known.revision, known.digest), decision.state, why)


def _is_ours_and_still(
    decision: Decision, desired: Desired, observed: Observation, record: Record
) -> bool:
    """Whether housekeeping may be done: nothing is under way, and the newest revision is known."""
    if desired.is_observed_only:
        return False
    if decision.state in (
        ReleaseState.SUSPENDED,
        ReleaseState.ABSENT,
        ReleaseState.LOCKED,
        ReleaseState.UNMANAGED,
        ReleaseState.DIVERGED,
    ):
        return False
    head, known = observed.head, record.head
    return head is not None and known is not None and known.is_of(head)


def _decide(
    desired: Desired,
    observed: Observation,
    record: Record,
    done: Sequence[Done],
    request: Request,
    now: datetime,
) -> Decision:
    found = classify(desired, observed, record)
    pending = _unfinished(found, done, record, now, desired)
    if pending is not None:
        return pending
    if found.state is ReleaseState.LOCKED:
        return _locked(found, desired, observed, record, now)
    asked = _asked_for(found, desired, observed, record, done, request)
    if asked is not None:
        return asked
    if found.state is ReleaseState.SUSPENDED:
        return Settled(found.state, found.why, "Suspended")
    if is_moved(record, desired.release):
        return _moved(found, desired, observed, record, done, now)

    match found.state:
        case ReleaseState.ABSENT:
            return _absent(found, desired, observed, record, done, request, now)
        case ReleaseState.UNMANAGED | ReleaseState.DIVERGED:
            return _not_ours(found, desired, observed, record, done, now)
        case ReleaseState.FAILED:
            return _failed(found, desired, observed, record, done, request, now)
        case ReleaseState.UNCHECKED:
            return _check(found, desired, record)
        case ReleaseState.UNTESTED:
            return Run(RunTests(_head(observed).number), found.state, found.why)
        case ReleaseState.OUT_OF_SYNC | ReleaseState.WATCHING | ReleaseState.IN_SYNC:
            pass
        case ReleaseState.SUSPENDED | ReleaseState.LOCKED:
            raise AssertionError("handled above")
        case _:
            assert_never(found.state)

    # The revision at hand is released and proven as far as it can be now: tell its hooks.
    due = _hooks_after(desired, record, found)
    if due is not None:
        return due
    held = _held_by_hand(found, desired, record)
    if held is not None:
        return held
    if request.force and not _ran(done, Upgrade) and isinstance(desired.target, Target):
        return _upgrade(
            found, desired, desired.target, observed, record, done, now, "asked for by force"
        )
    match found.state:
        case ReleaseState.OUT_OF_SYNC:
            return _out_of_sync(found, desired, observed, record, done, request, now)
        case ReleaseState.WATCHING:
            return _watching(found, desired, observed, record, done, now)
        case _:
            return _in_sync(found, desired, now)


# Requests and interruptions ---------------------------------------------------------------------


def _unfinished(
    found: Classified, done: Sequence[Done], record: Record, now: datetime, desired: Desired
) -> Decision | None:
    """The last action could not be carried through: come again instead of repeating it here."""
    if not done:
        return None
    last = done[-1]
    if isinstance(last.action, KeepCopy):
        return None  # the next pass tries again; nothing else depends on it
    if last.outcome.undetermined and last.outcome.stalled:
        # A check that cannot be asked, no right to do it, no helm: no verdict, and none before
        # somebody changes something.
        return Stalled(found.state, last.outcome.message, last.outcome.reason or "ReconcileError")
    if last.outcome.undetermined:
        return RetryAfter(
            now + backoff(2, cap=desired.spec.interval),
            found.state,
            last.outcome.message,
            last.outcome.reason or "ReconcileError",
        )
    if isinstance(last.action, Unlock | Uninstall | Prune) and not last.outcome.succeeded:
        return RetryAfter(
            now + backoff(4, cap=desired.spec.interval),
            found.state,
            last.outcome.message,
            last.outcome.reason or "ReconcileError",
        )
    if isinstance(last.action, Rollback) and _left_no_trace(last, record):
        why = f"the rollback failed: {last.outcome.message}"
        return Stalled(found.state, why, "RollbackFailed")
    if isinstance(last.action, RunHooks):
        stop = stopping_hook(last.outcome)
        if stop is not None:
            why = f"hook {stop.name} at {last.action.point.value} failed: {stop.message}"
            return Stalled(found.state, why, "HookFailed")
    return None


def _left_no_trace(last: Done, record: Record) -> bool:
    """Whether a rollback that a person asked for failed before helm stored a revision."""
    is_by_hand = isinstance(last.action, Rollback) and not last.action.is_remediation
    is_held = (
        record.hold is not None
        and record.hold.reason is HoldReason.ROLLED_BACK
        and record.hold.at >= last.outcome.started
    )
    return is_by_hand and not last.outcome.succeeded and not is_held


def _asked_for(
    found: Classified,
    desired: Desired,
    observed: Observation,
    record: Record,
    done: Sequence[Done],
    request: Request,
) -> Decision | None:
    """`helmops rollback`, `test` and `check`: once, also for a suspended or held release."""
    head = observed.head
    if head is None or observed.is_absent or found.state is ReleaseState.UNMANAGED:
        return None
    if request.rollback_to is not None and not _ran(done, Rollback):
        if request.rollback_to:
            wanted = observed.revision(request.rollback_to)
            if wanted is None or not is_rollback_target(wanted, record):
                seen = "is not stored" if wanted is None else "was not seen healthy"
                return _refused(found, f"revision {request.rollback_to} {seen}")
        else:
            wanted = earlier_target(observed, record)
            kept = to_put_back(observed, record)
            if wanted is None and kept is not None and not _ran(done, PutBack):
                why = f"revision {kept.revision} was pruned, and a copy was kept"
                return Run(PutBack(kept.revision, kept.digest), found.state, why)
            if wanted is None:
                return _refused(found, "no earlier revision was seen healthy")
        by = f" by {request.by}" if request.by else ""
        return Run(
            Rollback(wanted.number, wanted.digest, is_remediation=False),
            found.state,
            f"asked for{by}",
        )
    known = record.head
    if request.check and not _ran(done, CheckHealth) and known is not None and known.is_of(head):
        return _check(found, desired, record)
    if request.test and not _ran(done, RunTests) and known is not None:
        return Run(RunTests(head.number), found.state, "asked for")
    return None


def _refused(found: Classified, why: str) -> Stalled:
    return Stalled(found.state, why, "MissingRollbackTarget", is_refusal=True)


def _locked(
    found: Classified, desired: Desired, observed: Observation, record: Record, now: datetime
) -> Decision:
    head = _head(observed)
    if observed.our_helm_runs:
        return RetryAfter(
            now + _HELM_INTERVAL,
            found.state,
            f"{found.why}; a helm that helmops started is still at work",
            "Progressing",
        )
    if is_our_lock(record, head):
        return Run(Unlock(head.number), found.state, f"{found.why}; broken off by our own end")
    if head.status is HelmStatus.UNINSTALLING:
        why = f"{found.why}, by somebody else; `helm uninstall` finishes it"
        return RetryAfter(now + _LOCK_INTERVAL, found.state, why, "PendingRelease")
    breaks_at = head.last_deployed + _longest_timeout(desired) + _LOCK_GRACE
    if now >= breaks_at:
        return Run(
            Unlock(head.number, is_foreign=True, quiet=_QUIET),
            found.state,
            f"{found.why}, by somebody whose helm is gone: it is older than any timeout",
        )
    return RetryAfter(
        min(now + _LOCK_INTERVAL, breaks_at),
        found.state,
        f"{found.why}, by somebody else; left alone",
        "PendingRelease",
    )


def _longest_timeout(desired: Desired) -> timedelta:
    """No helm of anybody's should still be at work after that: people use Helm's default of five
    minutes, or what the declaration says.
    """
    spec = desired.spec
    said = (spec.timeout, spec.install.timeout, spec.upgrade.timeout, spec.rollback.timeout)
    return max(timedelta(minutes=5), *(t for t in said if t is not None))


# Not there, not ours ----------------------------------------------------------------------------


def _moved(
    found: Classified,
    desired: Desired,
    observed: Observation,
    record: Record,
    done: Sequence[Done],
    now: datetime,
) -> Decision:
    """Name or namespace of the release changed: the old one has to go before the new one comes."""
    old = record.release
    if _ran(done, Uninstall):
        return RetryAfter(now + _HELM_INTERVAL, found.state, f"{old} is going", "Progressing")
    exists = bool(observed.elsewhere)
    subject = str(desired.release)
    plan = (f"uninstall {old}", f"install {desired.release}")
    agreed = record.accepted == acceptance(HoldReason.MOVED, subject)
    if exists and not (is_flux(desired) or agreed):
        return _hold(
            found,
            desired,
            HoldReason.MOVED,
            subject,
            f"the declaration names {desired.release}, but {old} is running; going on would "
            "uninstall it",
            now,
            plan,
        )
    return Run(Uninstall(old, f"moved to {desired.release}"), found.state, "; ".join(plan))


def _absent(
    found: Classified,
    desired: Desired,
    observed: Observation,
    record: Record,
    done: Sequence[Done],
    request: Request,
    now: datetime,
) -> Decision:
    remediation = desired.spec.install.remediation
    if _ran(done, Uninstall) or _ran(done, Install):
        # An install was tried in this pass, and there is nothing of it (any more).
        if _is_exhausted(remediation.retries, record.install_failures):
            return _exhausted(found, record, "install")
        return _try_again_later(found, desired, record, now) or _come_back(found, desired, now)
    if not request.force:
        if record.install_failures and _is_exhausted(remediation.retries, record.install_failures):
            return _exhausted(found, record, "install")
        later = _try_again_later(found, desired, record, now)
        if later is not None:
            return later
    gate = _gate(found, desired, now, is_forced=_is_again(request))
    if gate is not None:
        return gate
    target = desired.target
    assert isinstance(target, Target)  # noqa: S101 - _gate answered for all else
    return Run(
        Install(target), found.state, f"{found.why}; {target.chart.name} {target.chart.version}"
    )


def _not_ours(
    found: Classified,
    desired: Desired,
    observed: Observation,
    record: Record,
    done: Sequence[Done],
    now: datetime,
) -> Decision:
    """Somebody else's revision: the same plan is taken over, another one is held.

    Taking over means remembering the revision as it is, healthy or not, before anything else, so
    that the first upgrade already has somewhere to go back to.
    """
    head = _head(observed)
    reason = HoldReason.UNMANAGED if found.state is ReleaseState.UNMANAGED else HoldReason.DIVERGED
    # The same revision under the same declaration was looked at before: say it once.
    present = record.hold
    target = desired.target
    # The same content released again by hand is another word of that person.
    subject = f"{head.number}:{head.digest}"
    if reason is HoldReason.UNMANAGED and isinstance(target, Target):
        subject = f"{subject}>{target.chart.version}>{target.config_digest}"
    if present is not None and present.reason is reason and present.subject == subject:
        return Held(found.state, present)
    agreed = record.accepted == acceptance(reason, subject) or is_flux(desired)
    if agreed:
        return Run(
            Adopt(head, target if isinstance(target, Target) else None, only_if_same=False),
            found.state,
            f"{found.why}; taken over as it is before it is changed",
        )
    if isinstance(target, Unresolved):
        if reason is HoldReason.DIVERGED:
            return _hold(found, desired, reason, subject, found.why, now, ())
        return _unresolved(found, target, desired, now)
    difference = difference_to_target(desired, head, None)
    if difference and reason is HoldReason.DIVERGED:
        handled = _out_of_band(found, desired, target, observed, record, done, now)
        if handled is not None:
            return handled
    if difference:
        offer = (f"`helmops absorb {desired.key.name}` prints the values that would absorb it",)
        plan = (difference, *(offer if reason is HoldReason.DIVERGED else ()))
        return _hold(found, desired, reason, subject, found.why, now, plan)
    if head.status is not HelmStatus.DEPLOYED:
        # Its objects may be ready, and still a hook failed, or an object was never made.
        why = f"{found.why}; helm calls it {head.status.value}"
        again = (f"upgrade to {target.chart.name} {target.chart.version} once more",)
        return _hold(found, desired, reason, subject, why, now, again)
    tried = next((d for d in done if isinstance(d.action, Adopt)), None)
    if tried is not None:
        plan = tried.outcome.plan
        why = found.why if plan else f"{found.why}; {tried.outcome.message}"
        return _hold(found, desired, reason, subject, why, now, plan)
    return Run(
        Adopt(head, target, only_if_same=True), found.state, f"{found.why}; it looks as declared"
    )


def _out_of_band(
    found: Classified,
    desired: Desired,
    target: Target,
    observed: Observation,
    record: Record,
    done: Sequence[Done],
    now: datetime,
) -> Decision | None:
    """What `outOfBand` says of a revision made by hand; None for a hold."""
    head = _head(observed)
    match desired.policy.out_of_band:
        case "absorb" if head.status is HelmStatus.DEPLOYED and not _ran(done, Adopt):
            why = f"{found.why}; outOfBand is absorb"
            return Run(Adopt(head, target, only_if_same=False, is_absorbed=True), found.state, why)
        case "revert" if record.rollback_failures < _MAX_ROLLBACKS:
            if _ran(done, Rollback):
                at = now + backoff(record.rollback_failures, cap=desired.spec.interval)
                return RetryAfter(at, found.state, found.why, "RollbackFailed")
            kept = to_put_back(observed, record)
            if kept is not None and not _ran(done, PutBack):
                return _put_back(found, kept)
            back = rollback_target(observed, record)
            if back is None:
                return None
            why = f"{found.why}; outOfBand is revert, and revision {back.number} was seen healthy"
            return Run(Rollback(back.number, back.digest), found.state, why)
        case _:
            return None


# Ours, and failed -------------------------------------------------------------------------------


def _failed(
    found: Classified,
    desired: Desired,
    observed: Observation,
    record: Record,
    done: Sequence[Done],
    request: Request,
    now: datetime,
) -> Decision:
    known = _known(record)
    # What a person rolled back to by hand is left there, whatever comes of it; only a rollback
    # that was broken off is finished.
    held = _held_by_hand(found, desired, record)
    if held is not None:
        if _is_broken_off_rollback(record) and not _ran(done, Rollback):
            return _roll_back(found, desired, observed, record, done, now)
        return held
    if known.origin is Origin.ADOPT:
        return _adopted_unhealthy(found, desired, observed, record, done, request, now)
    evidence = _evidence(found, observed, record, done)
    if evidence is not None:
        return evidence
    if known.origin is Origin.ROLLBACK:
        return _restored_unhealthy(found, desired, observed, record, done, request, now)

    due = _hooks(desired, record, HookPoint.FAILED, found)
    if due is not None and _failure_count(record) > 0:
        return due
    if request.force and not _ran(done, Install, Upgrade):
        return _try_upgrade(
            found, desired, observed, record, done, now, "asked for by force", is_forced=True
        )

    is_install = _active_action(record) is Origin.INSTALL
    strategy = desired.spec.install.strategy if is_install else desired.spec.upgrade.strategy
    if strategy is not None and strategy.name == "RetryOnFailure":
        interval = strategy.retry_interval or timedelta(minutes=5)
        since = known.judged_at or now
        attempt = record.attempt
        if attempt is not None and attempt.error and not attempt.changed_storage:
            since = max(since, attempt.at)
        at = since + interval
        has_failed = record.failures > 0 or _failure_count(record) > 0
        if _ran(done, Install, Upgrade) or (now < at and has_failed):
            return RetryAfter(max(at, now), found.state, found.why, _failure_reason(record))
        return _try_upgrade(
            found, desired, observed, record, done, now, "another try", is_forced=_is_again(request)
        )

    # Nothing counts against the target as it is now: it changed since, or the attempt was broken
    # off before it could fail.
    if _failure_count(record) <= 0:
        later = _try_again_later(found, desired, record, now)
        if later is not None:
            return later
        if _ran(done, Install, Upgrade):
            return _come_back(found, desired, now)
        return _try_upgrade(
            found, desired, observed, record, done, now, found.why, is_forced=_is_again(request)
        )

    if is_install:
        retries = desired.spec.install.remediation.retries
        remediates_last = bool(desired.spec.install.remediation.remediate_last_failure)
        by_uninstall = True
    else:
        remediation = desired.spec.upgrade.remediation
        retries = remediation.retries
        remediates_last = bool(remediation.remediate_last_failure)
        by_uninstall = remediation.strategy == "uninstall"
    if _is_exhausted(retries, _failure_count(record)) and not remediates_last:
        return _exhausted(found, record, "install" if is_install else "upgrade")
    stopped = _past_a_barrier(found, desired, record, now)
    if stopped is not None:
        return stopped
    if by_uninstall:
        return Run(
            Uninstall(desired.release, found.why, is_remediation=True), found.state, found.why
        )
    return _roll_back(found, desired, observed, record, done, now)


def _evidence(
    found: Classified, observed: Observation, record: Record, done: Sequence[Done]
) -> Decision | None:
    """Before a failure is mended its traces are kept; once for each revision."""
    known = _known(record)
    counts = record.failures > 0 or record.rollback_failures > 0
    if known.evidence is not None or not counts or _ran(done, GatherEvidence):
        return None
    healthy = rollback_target(observed, record)
    helm = [d for d in done if isinstance(d.action, Install | Upgrade | Rollback | RunTests)]
    return Run(
        GatherEvidence(
            known.revision,
            healthy.number if healthy is not None else None,
            helm[-1].outcome.output if helm else "",
        ),
        found.state,
        found.why,
    )


def _past_a_barrier(
    found: Classified, desired: Desired, record: Record, now: datetime
) -> Decision | None:
    """A failure after a step that a rollback cannot undo is a person's to judge."""
    known = _known(record)
    if not known.barriers or not holds_irreversible(desired):
        return None
    barriers = "; ".join(known.barriers)
    return _hold(
        found,
        desired,
        HoldReason.IRREVERSIBLE,
        known.digest,
        f"{found.why}. A rollback cannot undo: {barriers}. `helmops rollback` goes back all the "
        "same, `helmops resume` tries again",
        now,
        (f"try {known.versioned_chart} again",),
    )


def holds_irreversible(desired: Desired) -> bool:
    """Whether a failure after an irreversible step holds the release."""
    said = desired.policy.remediation.irreversible
    return said == "hold" if said is not None else not is_flux(desired)


def _put_back(found: Classified, kept: KeptCopy) -> Run:
    return Run(
        PutBack(kept.revision, kept.digest),
        found.state,
        f"{found.why}; revision {kept.revision}, the last one seen healthy, was pruned by somebody",
    )


def _roll_back(
    found: Classified,
    desired: Desired,
    observed: Observation,
    record: Record,
    done: Sequence[Done],
    now: datetime,
) -> Decision:
    count = record.rollback_failures
    if count >= _MAX_ROLLBACKS:
        why = f"{found.why}; the rollback failed {count} times"
        return Stalled(found.state, why, "RollbackFailed")
    tried = next((d for d in done if isinstance(d.action, Rollback)), None)
    if tried is not None:
        # helm gave up before it stored a revision.
        return RetryAfter(
            now + backoff(count, cap=desired.spec.interval),
            found.state,
            f"{found.why}; the rollback failed: {tried.outcome.message}",
            "RollbackFailed",
        )
    target = rollback_target(observed, record)
    if record.hold is not None and record.hold.reason is HoldReason.ROLLED_BACK:
        wanted = [r for r in observed.revisions if r.digest == record.hold.subject]
        target = next((r for r in wanted if is_rollback_target(r, record)), None)
    else:
        kept = to_put_back(observed, record)
        if kept is not None and not _ran(done, PutBack):
            return _put_back(found, kept)
    if target is None:
        lost = next((d.outcome for d in done if isinstance(d.action, PutBack)), None)
        why = f", and the copy of one could not be put back: {lost.message}" if lost else ""
        return Stalled(
            found.state,
            f"{found.why}; no stored revision was seen healthy{why}, so nothing is touched",
            "MissingRollbackTarget",
        )
    due = _hooks(desired, record, HookPoint.BEFORE_ROLLBACK, found)
    if due is not None:
        return due
    return Run(
        Rollback(target.number, target.digest),
        found.state,
        f"{found.why}; revision {target.number} ({target.chart_name}@{target.chart_version}) is "
        "the last one seen healthy",
    )


def _adopted_unhealthy(
    found: Classified,
    desired: Desired,
    observed: Observation,
    record: Record,
    done: Sequence[Done],
    request: Request,
    now: datetime,
) -> Decision:
    """It was not well when it was taken over: nothing to go back to, but it may get better, unless
    helm itself had failed.
    """
    known = _known(record)
    head = _head(observed)
    differs = difference_to_target(desired, head, known) and not is_absorbed(desired, head, record)
    if known.released is Proof.FAILED or differs:
        return _out_of_sync(found, desired, observed, record, done, request, now)
    at = (known.judged_at or now) + desired.spec.interval
    if now >= at and not _ran(done, CheckHealth):
        return _check(found, desired, record)
    return RetryAfter(max(at, now), found.state, found.why, "HealthCheckFailed")


def _restored_unhealthy(
    found: Classified,
    desired: Desired,
    observed: Observation,
    record: Record,
    done: Sequence[Done],
    request: Request,
    now: datetime,
) -> Decision:
    """The way back failed. helm's own failures are tried again, within limits; a restored revision
    that is not healthy tells of trouble that no other revision mends.
    """
    known = _known(record)
    if request.force and not _ran(done, Upgrade):
        return _try_upgrade(
            found, desired, observed, record, done, now, "asked for by force", is_forced=True
        )
    # The target changed since: go forward.
    goes_forward = (
        _failure_count(record) <= 0
        and not record.rollback_failures
        and not _ran(done, Rollback)
        and difference_to_target(desired, _head(observed), known)
    )
    if goes_forward:
        return _out_of_sync(found, desired, observed, record, done, request, now)
    if known.released is not Proof.FAILED:
        return Stalled(
            found.state,
            f"revision {known.revision}, which was rolled back to, is not healthy: {known.message}",
            "RollbackFailed",
        )
    if record.rollback_failures >= _MAX_ROLLBACKS:
        return Stalled(
            found.state,
            f"rollback failed {record.rollback_failures} times: {known.message}",
            "RollbackFailed",
        )
    at = (known.judged_at or now) + backoff(record.rollback_failures + 1, cap=desired.spec.interval)
    # One that was broken off is simply done again.
    if record.rollback_failures and (now < at or _ran(done, Rollback)):
        return RetryAfter(max(at, now), found.state, found.why, "RollbackFailed")
    return _roll_back(found, desired, observed, record, done, now)


# Ours, and to be changed ------------------------------------------------------------------------


def _out_of_sync(
    found: Classified,
    desired: Desired,
    observed: Observation,
    record: Record,
    done: Sequence[Done],
    request: Request,
    now: datetime,
) -> Decision:
    remediation = desired.spec.upgrade.remediation
    count = record.upgrade_failures
    retries_forever = (
        desired.spec.upgrade.strategy is not None
        and desired.spec.upgrade.strategy.name == "RetryOnFailure"
    )
    if count and not retries_forever and _is_exhausted(remediation.retries, count):
        if _is_newly_quarantined(desired, record):
            # Another version may be in range: resolve once more.
            return _come_back(found, desired, now)
        return _exhausted(found, record, "upgrade")
    if _ran(done, Upgrade, Rollback, Uninstall):
        return _try_again_later(found, desired, record, now) or _come_back(found, desired, now)
    known = _known(record)
    is_over = known.watched_until is not None and now >= known.watched_until
    if known.watched is Proof.PENDING and is_over and not _ran(done, CheckHealth):
        # Its window went by and nobody looked: what is proven now is somewhere to go back to.
        return _look_again(found, desired, known)
    later = _try_again_later(found, desired, record, now)
    if later is not None:
        return later
    return _try_upgrade(
        found, desired, observed, record, done, now, found.why, is_forced=_is_again(request)
    )


def _is_again(request: Request) -> bool:
    """Whether somebody asked for another try at what failed."""
    return bool(request.force or request.reset)


def _is_newly_quarantined(desired: Desired, record: Record) -> bool:
    """Whether the target went into quarantine after it was chosen."""
    target = desired.target
    if not isinstance(target, Target) or target.quarantined:
        return False
    chart = target.chart
    return any(q.means(chart.name, chart.version, chart.digest) for q in record.quarantine)


def _try_upgrade(
    found: Classified,
    desired: Desired,
    observed: Observation,
    record: Record,
    done: Sequence[Done],
    now: datetime,
    why: str,
    *,
    is_forced: bool = False,
) -> Decision:
    gate = _gate(found, desired, now, is_forced=is_forced)
    if gate is not None:
        return gate
    target = desired.target
    assert isinstance(target, Target)  # noqa: S101 - _gate answered for all else
    head = _head(observed)
    renamed = _chart_renamed(found, desired, target, head, record, done, now)
    if renamed is not None:
        return renamed
    guarded = _guarded(found, desired, target, head, record, now)
    if guarded is not None:
        return guarded
    return _upgrade(found, desired, target, observed, record, done, now, why)


def _guarded(
    found: Classified,
    desired: Desired,
    target: Target,
    head: Revision,
    record: Record,
    now: datetime,
) -> Decision | None:
    """What a source did behind one's back. Versions of two charts cannot be compared."""
    if head.chart_name != target.chart.name:
        return None
    downgrade = _downgrade(found, desired, target, record, now)
    return downgrade or _retag(found, desired, target, record, now)


def _upgrade(
    found: Classified,
    desired: Desired,
    target: Target,
    observed: Observation,
    record: Record,
    done: Sequence[Done],
    now: datetime,
    why: str,
) -> Decision:
    head = _head(observed)
    if holds_irreversible(desired) and not desired.is_observed_only and not _ran(done, Inspect):
        seen = record.inspected
        step = (head.digest, target.chart.digest, target.config_digest)
        if seen is None or (seen.base, seen.artifact_digest, seen.config_digest) != step:
            return Run(Inspect(target, head), found.state, why)
    hooks = _hooks_at(desired, HookPoint.BEFORE_UPGRADE)
    ran = any(
        isinstance(d.action, RunHooks) and d.action.point is HookPoint.BEFORE_UPGRADE for d in done
    )
    if hooks and not ran:
        point = HookPoint.BEFORE_UPGRADE
        return Run(RunHooks(point, hooks, None), found.state, f"{why}: {point.value}")
    return Run(Upgrade(target, head.chart_version), found.state, why)


def _chart_renamed(
    found: Classified,
    desired: Desired,
    target: Target,
    head: Revision,
    record: Record,
    done: Sequence[Done],
    now: datetime,
) -> Decision | None:
    if head.chart_name == target.chart.name:
        return None
    strategy = desired.spec.upgrade.chart_name_change_strategy
    if strategy == "InPlaceUpdate":
        return None
    subject = target.chart.name
    agreed = record.accepted == acceptance(HoldReason.CHART_NAME, subject)
    if strategy == "Reinstall" or agreed:
        return Run(Uninstall(desired.release, found.why), found.state, f"{found.why}: reinstalled")
    return _hold(
        found,
        desired,
        HoldReason.CHART_NAME,
        subject,
        f"{found.why}; going on would uninstall {desired.release} and install it anew. Say "
        "upgrade.chartNameChangeStrategy: InPlaceUpdate to upgrade it in place",
        now,
        (f"uninstall {desired.release}", f"install {target.chart.name} {target.chart.version}"),
    )


def _downgrade(
    found: Classified, desired: Desired, target: Target, record: Record, now: datetime
) -> Decision | None:
    """A lower version than the deployed one is not gone to by itself."""
    deployed, version = target.downgrade_from, target.chart.version
    if deployed and target.yanked:
        return _yank(found, desired, target, record, now)
    if not deployed or desired.policy.upgrade.downgrade == "follow":
        return None
    return _hold_unless_agreed(
        found,
        desired,
        record,
        HoldReason.DOWNGRADE,
        version,
        f"{target.chart.name} {version} is lower than the deployed {deployed}. `helmops resume` "
        "goes there once, upgrade.downgrade: follow in a ReleasePolicy always",
        now,
        (f"downgrade {target.chart.name} from {deployed} to {version}",),
    )


def _yank(
    found: Classified, desired: Desired, target: Target, record: Record, now: datetime
) -> Decision | None:
    """Where the deployed version is gone from its source, the next older one is not gone to."""
    chart = target.chart
    subject = f"{target.yanked}>{chart.version}"
    if desired.policy.upgrade.yank == "follow":
        return None
    return _hold_unless_agreed(
        found,
        desired,
        record,
        HoldReason.YANKED,
        subject,
        f"the deployed {chart.name} {target.yanked} is gone from its source, and {chart.version} "
        "is the newest that is left. `helmops resume` goes there once, upgrade.yank: follow in a "
        "ReleasePolicy always",
        now,
        (f"downgrade {chart.name} from {target.yanked} to {chart.version}",),
    )


def _retag(
    found: Classified, desired: Desired, target: Target, record: Record, now: datetime
) -> Decision | None:
    """Other content under the deployed version is not taken in by itself."""
    chart = target.chart
    digest = chart.upstream_digest or chart.digest
    otherwise = "follow" if is_flux(desired) else "hold"
    if not target.retagged_from or (desired.policy.upgrade.retag or otherwise) == "follow":
        return None
    return _hold_unless_agreed(
        found,
        desired,
        record,
        HoldReason.RETAGGED,
        digest,
        f"the source has other content as {chart.name} {chart.version} than was released: sha256:"
        f"{digest[:12]}, it was sha256:{target.retagged_from[:12]}. `helmops resume` takes it "
        "once, upgrade.retag: follow in a ReleasePolicy always",
        now,
        (f"upgrade {chart.name} {chart.version} to other content of the same version",),
    )


def deployed_version(observed: Observation, record: Record) -> str:
    """The chart version that runs, empty where nothing does.

    A failed upgrade's version does not run: what it failed from, and will be rolled back to, does.
    """
    known = record.head
    if known is not None and known.verdict is not Verdict.FAILED:
        return known.chart_version
    target = rollback_target(observed, record)
    if target is not None:
        return target.chart_version
    if to_put_back(observed, record) is not None and record.last_healthy is not None:
        return record.last_healthy.chart_version
    deployed = [r for r in observed.revisions if r.status is HelmStatus.DEPLOYED]
    return deployed[-1].chart_version if deployed else ""


def _watching(
    found: Classified,
    desired: Desired,
    observed: Observation,
    record: Record,
    done: Sequence[Done],
    now: datetime,
) -> Decision:
    """Inside the watch window: look when the watches report something, when a policy's check is due
    and at the end; every few seconds where nobody watches.
    """
    known = _known(record)
    until = known.watched_until or now
    live = observed.live
    reported = live.bad if live is not None and live.is_live else ""
    if _ran(done, CheckHealth):
        pause = _pause_in_window(desired, observed)
        at = until if pause is None else min(now + pause, until)
        return RetryAfter(max(at, now + timedelta(seconds=1)), found.state, found.why, "Watching")
    is_news = bool(reported) and reported != record.seen_bad
    next_look = record.next_try if record.state == found.state.value else None
    if next_look is not None and now < next_look and not is_news:
        # Woken in between, by what the last look wrote for one.
        return RetryAfter(next_look, found.state, found.why, "Watching")
    is_final = bool(reported) and live is not None and live.is_final
    return _look_again(found, desired, known, reported, is_final=is_final)


def _look_again(
    found: Classified,
    desired: Desired,
    known: Snapshot,
    reported: str = "",
    *,
    is_final: bool = False,
) -> Run:
    return Run(
        CheckHealth(
            known.revision,
            desired.policy.verify.checks,
            waits(desired, known.origin),
            is_rewatch=True,
            reported=reported,
            is_final=is_final,
        ),
        found.state,
        f"{found.why}; {reported}" if reported else found.why,
    )


def _pause_in_window(desired: Desired, observed: Observation) -> timedelta | None:
    """How long until the next look; None for no look before the end of the window."""
    live = observed.live
    if live is None or not live.is_live or live.bad:
        return _WATCH_INTERVAL
    intervals = [check.interval for check in desired.policy.verify.checks]
    return max(_WATCH_INTERVAL, min(intervals)) if intervals else None


def _in_sync(found: Classified, desired: Desired, now: datetime) -> Decision:
    if isinstance(desired.target, Unresolved):
        return _unresolved(found, desired.target, desired, now)
    return Settled(found.state, found.why)


# Pieces -----------------------------------------------------------------------------------------


def _check(found: Classified, desired: Desired, record: Record) -> Run:
    known = _known(record)
    return Run(
        CheckHealth(known.revision, desired.policy.verify.checks, waits(desired, known.origin)),
        found.state,
        found.why,
    )


def _gate(
    found: Classified, desired: Desired, now: datetime, *, is_forced: bool
) -> Decision | None:
    """Why nothing new can be released now: no target, one in quarantine, or dependencies that are
    not ready.
    """
    if isinstance(desired.target, Unresolved):
        return _unresolved(found, desired.target, desired, now)
    if desired.target.quarantined and not is_forced:
        chart = desired.target.chart
        why = (
            f"{chart.name} {chart.version} is {desired.target.quarantined}. No other version is in "
            f"range; `helmops quarantine lift {desired.key.name}` lets it be tried again"
        )
        return Stalled(found.state, why, "Quarantined")
    if desired.waiting_for:
        # Woken as soon as one of them changes; the interval is a safety net.
        return RetryAfter(
            now + desired.spec.interval,
            found.state,
            "waits for " + ", ".join(desired.waiting_for),
            "DependencyNotReady",
        )
    return None


def _unresolved(
    found: Classified, unresolved: Unresolved, desired: Desired, now: datetime
) -> Decision:
    """The release is fine as far as it is known; only what is wanted is not known."""
    if unresolved.stalled:
        return Stalled(found.state, unresolved.message, unresolved.reason)
    at = unresolved.retry_at or now + desired.spec.interval
    blind = not unresolved.is_unasked
    return RetryAfter(at, found.state, unresolved.message, unresolved.reason, is_blind=blind)


def _hooks_at(desired: Desired, point: HookPoint) -> tuple[RemediationHook, ...]:
    return tuple(h for h in desired.policy.remediation.hooks if h.at == point.value)


def _hooks(
    desired: Desired, record: Record, point: HookPoint, found: Classified
) -> Decision | None:
    """The hooks of a point, where there are some that did not run for this revision."""
    known = _known(record)
    hooks = _hooks_at(desired, point)
    if not hooks or point.value in known.hooks_run:
        return None
    return Run(RunHooks(point, hooks, known.revision), found.state, f"{found.why}: {point.value}")


def _hooks_after(desired: Desired, record: Record, found: Classified) -> Decision | None:
    known = _known(record)
    if known.verdict is Verdict.FAILED or known.health is Proof.PENDING:
        return None
    match known.origin:
        case Origin.INSTALL | Origin.UPGRADE:
            return _hooks(desired, record, HookPoint.AFTER_SUCCESS, found)
        case Origin.ROLLBACK:
            return _hooks(desired, record, HookPoint.AFTER_ROLLBACK, found)
        case Origin.ADOPT:
            return None
        case _:
            assert_never(known.origin)


def _held_by_hand(found: Classified, desired: Desired, record: Record) -> Decision | None:
    present = record.hold
    if present is None or present.reason is not HoldReason.ROLLED_BACK:
        return None
    return Held(found.state, present)


def _is_broken_off_rollback(record: Record) -> bool:
    known = _known(record)
    return (
        known.origin is Origin.ROLLBACK
        and known.released is Proof.FAILED
        and not record.rollback_failures
    )


def _hold(
    found: Classified,
    desired: Desired,
    reason: HoldReason,
    subject: str,
    message: str,
    now: datetime,
    plan: tuple[str, ...],
) -> Held:
    return Held(
        found.state,
        Hold(
            reason=reason,
            message=message,
            at=now,
            declaration_digest=desired.declaration_digest,
            subject=subject,
            plan=plan,
        ),
    )


def _hold_unless_agreed(
    found: Classified,
    desired: Desired,
    record: Record,
    reason: HoldReason,
    subject: str,
    message: str,
    now: datetime,
    plan: tuple[str, ...],
) -> Held | None:
    """A hold, unless `resume` accepted what it is about."""
    if record.accepted == acceptance(reason, subject):
        return None
    return _hold(found, desired, reason, subject, message, now, plan)


def _is_exhausted(retries: int, failures: int) -> bool:
    """Flux's rule: negative is endless; 0 retries are used up by the first failure."""
    return retries >= 0 and failures > retries


def _exhausted(found: Classified, record: Record, action: str) -> Stalled:
    count = record.install_failures if action == "install" else record.upgrade_failures
    last = _last_error(record)
    times = "once" if count == 1 else f"{count} times"
    why = f"{action} failed {times} and is not tried again before something changes"
    return Stalled(found.state, f"{why}: {last}" if last else why, "RetriesExceeded")


def _last_error(record: Record) -> str:
    failed = next((s for s in record.history if s.verdict is Verdict.FAILED), None)
    if failed is not None and failed.message:
        return failed.message
    return record.attempt.error if record.attempt else ""


def _try_again_later(
    found: Classified, desired: Desired, record: Record, now: datetime
) -> Decision | None:
    """After a failed attempt at this very target: later, or not at all; None when it is time."""
    attempt = record.attempt
    if attempt is None or not record.failures:
        return None
    if attempt.stalled:
        return Stalled(found.state, attempt.error, attempt.reason)
    at = attempt.at + backoff(record.failures, cap=desired.spec.interval)
    if now >= at:
        return None
    return RetryAfter(at, found.state, _last_error(record) or found.why, _failure_reason(record))


def _come_back(found: Classified, desired: Desired, now: datetime) -> RetryAfter:
    """Nothing may run twice in a pass: another pass goes on at once."""
    return RetryAfter(now, found.state, found.why, "Progressing")


def _failure_reason(record: Record) -> str:
    attempt = record.attempt
    if attempt is not None and attempt.reason:
        return attempt.reason
    is_install = _active_action(record) is Origin.INSTALL
    return "InstallFailed" if is_install else "UpgradeFailed"


def _active_action(record: Record) -> Origin:
    """Whose remediation applies: that of the last action that was tried."""
    if record.attempt is not None:
        return record.attempt.action
    known = record.head
    return known.origin if known is not None else Origin.INSTALL


def _failure_count(record: Record) -> int:
    if _active_action(record) is Origin.INSTALL:
        return record.install_failures
    return record.upgrade_failures


def _ran(done: Sequence[Done], *kinds: type) -> bool:
    return any(isinstance(d.action, kinds) for d in done)


def _head(observed: Observation) -> Revision:
    head = observed.head
    assert head is not None  # noqa: S101 - the state says that there is one
    return head


def _known(record: Record) -> Snapshot:
    known = record.head
    assert known is not None  # noqa: S101 - the state says that there is one
    return known
