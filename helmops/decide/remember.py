"""How a record changes: by a new declaration, before an action, after it, by a request."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import assert_never

from helmops.decide.quarantine import lift, quarantined_after_failure, without_past
from helmops.model.actions import (
    Action,
    Adopt,
    CheckHealth,
    Desired,
    Done,
    GatherEvidence,
    HookOutcome,
    Inspect,
    Install,
    KeepCopy,
    Observation,
    Outcome,
    Prune,
    PutBack,
    Request,
    Rollback,
    RunHooks,
    RunTests,
    Target,
    Uninstall,
    Unlock,
    Upgrade,
)
from helmops.model.declarations import Defaults
from helmops.model.records import (
    Absorbed,
    Attempt,
    CheckRecord,
    HealthLost,
    Hold,
    HoldReason,
    HookRecord,
    InFlight,
    Inspected,
    KeptCopy,
    Origin,
    Proof,
    Record,
    Snapshot,
    Verdict,
)
from helmops.model.releases import HelmStatus, ReleaseId, Revision, TestPhase

#: Snapshots beyond those whose revisions Helm still stores.
_KEPT_SNAPSHOTS = 20
_KEPT_HOOKS = 20
_MESSAGE_LENGTH = 1024


def new_record(desired: Desired) -> Record:
    """The record of a release that helmops sees for the first time."""
    return Record(key=desired.key, release=desired.release)


def note_declaration(record: Record, desired: Desired, now: datetime) -> Record:
    """Take in the declaration as it is now.

    A changed declaration gets a new generation, lifts every hold, and accepts what a person did by
    hand before: from here on the declaration is the newer word.
    """
    changed = record.declaration_digest != desired.declaration_digest
    noted = record
    if changed:
        accepted = ""
        if record.hold is not None and record.hold.reason is HoldReason.DIVERGED:
            accepted = acceptance(record.hold.reason, record.hold.subject)
        noted = record.evolve(
            declaration_digest=desired.declaration_digest,
            manifest=dict(desired.manifest),
            generation=record.generation + 1,
            hold=None,
            accepted=accepted,
        )
    told = {
        "origin": desired.origin,
        "location": desired.location,
        "prune": desired.policy.prune,
        "policy": desired.policy.model_dump(mode="json", by_alias=True, exclude_unset=True),
        "removed": False,
    }
    if any(getattr(noted, name) != value for name, value in told.items()):
        noted = noted.evolve(**told)
    noted = without_past(noted, now)
    if isinstance(desired.target, Target):
        if noted.held_back != desired.target.held_back:
            noted = noted.evolve(held_back=desired.target.held_back)
        noted = _forget_failures_of_another_target(noted, desired.target)
    return noted


def _forget_failures_of_another_target(record: Record, target: Target) -> Record:
    """Failures count against one generation, chart and set of values, as in Flux."""
    attempt = record.attempt
    if attempt is None:
        return record
    same = (
        attempt.generation == record.generation
        and attempt.chart_version == target.chart.version
        and attempt.config_digest == target.config_digest
        # What failed may be mended under the same version.
        and attempt.artifact_digest in ("", target.chart.digest)
    )
    return record if same else without_failures(record)


def without_failures(record: Record) -> Record:
    """All failure counters at zero."""
    if not any(
        (
            record.failures,
            record.install_failures,
            record.upgrade_failures,
            record.rollback_failures,
            record.interruptions,
            record.attempt is not None and record.attempt.error,
        )
    ):
        return record
    attempt = record.attempt
    return record.evolve(
        failures=0,
        install_failures=0,
        upgrade_failures=0,
        rollback_failures=0,
        interruptions=0,
        attempt=replace(attempt, error="", reason="", stalled=False) if attempt else None,
    )


def note_request(record: Record, request: Request) -> tuple[Record, Request]:
    """Take in a request; returns what of it was not handled before (Flux's tokens)."""
    handled = record.handled
    force = request.force if request.force != handled.force else ""
    reset = request.reset if request.reset != handled.reset else ""
    noted = record
    if reset:
        # Who asks for another try means the version that failed, too.
        noted = lift(without_failures(noted))
    handled = replace(
        handled,
        reconcile=request.reconcile or handled.reconcile,
        force=request.force or handled.force,
        reset=request.reset or handled.reset,
    )
    if handled != record.handled:
        noted = noted.evolve(handled=handled)
    return noted, replace(request, force=force, reset=reset)


def resume(record: Record) -> Record:
    """Lift suspension and hold; what the hold was about is accepted."""
    accepted = record.accepted
    if record.hold is not None:
        accepted = acceptance(record.hold.reason, record.hold.subject)
        if record.hold.reason is HoldReason.IRREVERSIBLE and record.head is not None:
            record = lift(record, record.head.chart_version)
    return without_failures(record.evolve(suspended=None, hold=None, accepted=accepted))


def acceptance(reason: HoldReason, subject: str) -> str:
    """What `resume` leaves in the record, so that the same hold is not put on again."""
    return f"{reason.value}:{subject}"


def hold(record: Record, held: Hold) -> Record:
    """Put a hold on; the same one twice changes nothing, not even its time."""
    present = record.hold
    if present is not None and (present.reason, present.subject, present.plan) == (
        held.reason,
        held.subject,
        held.plan,
    ):
        return record
    return record.evolve(hold=held)


def intend(
    record: Record, action: Action, observed: Observation, now: datetime, holder: str
) -> Record | None:
    """The record to be saved before the action starts; None for actions that leave no trace in
    Helm's storage, or whose repetition does no harm.
    """
    base = observed.head.number if observed.head else 0
    match action:
        case Install(target=target) | Upgrade(target=target):
            name = "install" if isinstance(action, Install) else "upgrade"
            note = InFlight(
                action=name,
                base=base,
                at=now,
                chart_name=target.chart.name,
                chart_version=target.chart.version,
                config_digest=target.config_digest,
                artifact_digest=target.chart.digest,
                upstream_digest=target.chart.upstream_digest or target.chart.digest,
                post_render_digest=target.post_render_digest,
                holder=holder,
            )
        case Rollback(to=to, digest=digest, is_remediation=is_remediation):
            note = InFlight(
                "rollback",
                base,
                now,
                post_render_digest=_post_rendered(record, digest),
                target_digest=digest,
                target_revision=to,
                by_hand=not is_remediation,
                holder=holder,
            )
        case Uninstall():
            note = InFlight("uninstall", base, now, holder=holder)
        case Adopt() | RunTests() | CheckHealth() | Unlock() | RunHooks() | Prune():
            return None
        case Inspect() | GatherEvidence() | KeepCopy() | PutBack():
            return None
        case _:
            assert_never(action)
    return record.evolve(in_flight=note)


def remember(record: Record, done: Done, desired: Desired, observed: Observation) -> Record:
    """The record after an action; `observed` was made after it."""
    action, outcome = done.action, done.outcome
    if outcome.undetermined:
        return record.evolve(in_flight=None) if outcome.untouched else record
    match action:
        case Install() | Upgrade():
            return _released(record, action, outcome, desired, observed)
        case Rollback():
            return _rolled_back(record, action, outcome, desired, observed)
        case Adopt(revision=revision):
            return _adopted(record, action, revision, outcome, desired)
        case CheckHealth() | RunTests() if not _is_newest(record, observed):
            # Somebody released over it: what was found is about what is live, which is not ours.
            return record
        case CheckHealth():
            return _checked(record, action, outcome, desired)
        case RunTests():
            return _tested(record, outcome, desired, observed)
        case Uninstall():
            return _uninstalled(record, action, outcome, desired, observed)
        case RunHooks():
            return _hooks_run(record, action, outcome)
        case Unlock() | Prune() | PutBack():
            return without_vanished(record, observed)
        case Inspect(target=target, base=base):
            # One that could not be rendered has no barriers; the upgrade will say what is wrong.
            found = Inspected(base.digest, target.chart.digest, target.config_digest, outcome.plan)
            return record.evolve(inspected=found)
        case GatherEvidence():
            if not _is_newest(record, observed) or outcome.evidence is None:
                return record
            return record.with_head(evidence=outcome.evidence)
        case KeepCopy(revision=revision_number, digest=digest):
            if not outcome.succeeded:
                return record
            return record.evolve(kept=KeptCopy(revision_number, digest))
        case _:
            assert_never(action)


def snapshot_of(
    revision: Revision,
    origin: Origin,
    desired: Desired,
    *,
    artifact_digest: str,
    upstream_digest: str = "",
    released: Proof,
    at: datetime,
    message: str = "",
    post_render_digest: str = "",
) -> Snapshot:
    """A stored revision as a snapshot, nothing but helm's own result proven yet."""
    health, tests, watched = Proof.PENDING, Proof.PENDING, Proof.PENDING
    if not desired.spec.test.enable or origin is Origin.ADOPT:
        tests = Proof.SKIPPED
    if not desired.policy.verify.watch or origin is Origin.ADOPT:
        watched = Proof.SKIPPED
    if not waits(desired, origin) and not has_checks(desired):
        health = Proof.SKIPPED
    return Snapshot(
        revision=revision.number,
        digest=revision.digest,
        origin=origin,
        status=revision.status,
        chart_name=revision.chart_name,
        chart_version=revision.chart_version,
        app_version=revision.app_version,
        config_digest=revision.config_digest,
        first_deployed=revision.first_deployed,
        last_deployed=revision.last_deployed,
        artifact_digest=artifact_digest,
        upstream_digest=upstream_digest,
        post_render_digest=post_render_digest,
        released=released,
        health=health,
        tests=tests,
        watched=watched,
        judged_at=at,
        message=message[:_MESSAGE_LENGTH],
        test_hooks=revision.test_hooks,
    )


def waits(desired: Desired, origin: Origin) -> bool:
    """Whether readiness is waited for after an action of this kind."""
    spec = desired.spec
    match origin:
        case Origin.INSTALL:
            return not spec.install.disable_wait
        case Origin.UPGRADE:
            return not spec.upgrade.disable_wait
        case Origin.ROLLBACK:
            return not spec.rollback.disable_wait
        case Origin.ADOPT:
            return True
        case _:
            assert_never(origin)


def has_checks(desired: Desired) -> bool:
    """Whether the policy names health checks of its own."""
    return bool(desired.policy.verify.checks)


def ignores_test_failures(desired: Desired, origin: Origin) -> bool:
    """Whether a failed test lets the release pass; the action's own setting goes first."""
    spec = desired.spec
    own: bool | None = None
    if origin is Origin.INSTALL:
        own = spec.install.remediation.ignore_test_failures
    elif origin is Origin.UPGRADE:
        own = spec.upgrade.remediation.ignore_test_failures
    return bool(spec.test.ignore_failures if own is None else own)


def _released(
    record: Record,
    action: Install | Upgrade,
    outcome: Outcome,
    desired: Desired,
    observed: Observation,
) -> Record:
    origin = Origin.INSTALL if isinstance(action, Install) else Origin.UPGRADE
    head = observed.head
    stored = head is not None and head.number > _base(record)
    target = action.target
    history = record.history
    if head is not None and stored:
        snapshot = snapshot_of(
            head,
            origin,
            desired,
            artifact_digest=target.chart.digest,
            upstream_digest=target.chart.upstream_digest or target.chart.digest,
            released=Proof.PASSED if outcome.succeeded else Proof.FAILED,
            at=outcome.finished,
            message=outcome.message,
            post_render_digest=target.post_render_digest,
        )
        history = (replace(snapshot, barriers=barriers_to(record, snapshot)), *history)
    failed = not outcome.succeeded
    counts = failed and stored
    attempt = Attempt(
        action=origin,
        generation=record.generation,
        chart_version=target.chart.version,
        artifact_digest=target.chart.digest,
        artifact_revision=target.chart.revision,
        config_digest=target.config_digest,
        at=outcome.finished,
        seconds=outcome.duration.total_seconds(),
        reason=outcome.reason if failed else "",
        error=outcome.message[:_MESSAGE_LENGTH] if failed else "",
        stalled=failed and outcome.stalled and not stored,
        changed_storage=stored,
    )
    changed = record.evolve(
        history=history,
        attempt=attempt,
        in_flight=None,
        accepted="",
        hold=None,
        interruptions=0,
        rollback_failures=0,
        failures=record.failures + failed,
        install_failures=record.install_failures + (counts and origin is Origin.INSTALL),
        upgrade_failures=record.upgrade_failures + (counts and origin is Origin.UPGRADE),
        inspected=None,
        absorbed=None,
        lost=None,
    )
    if counts:
        changed = quarantined_after_failure(changed, desired, outcome.finished)
    return without_vanished(changed, observed)


def barriers_to(record: Record, snapshot: Snapshot) -> tuple[str, ...]:
    """What was found irreversible of the step to a revision before it was made."""
    found, base = record.inspected, record.head
    if found is None or base is None:
        return ()
    step = (found.base, found.artifact_digest, found.config_digest)
    made = (base.digest, snapshot.artifact_digest, snapshot.config_digest)
    return found.barriers if step == made else ()


def _post_rendered(record: Record, digest: str) -> str:
    """How the objects of the revision with this digest were post-rendered."""
    known = next((each for each in record.history if each.digest == digest), None)
    return known.post_render_digest if known is not None else ""


def _base(record: Record) -> int:
    """Number of the newest revision before the action that has just ended."""
    if record.in_flight is not None:
        return record.in_flight.base
    return record.head.revision if record.head else 0


def _rolled_back(
    record: Record, action: Rollback, outcome: Outcome, desired: Desired, observed: Observation
) -> Record:
    head = observed.head
    stored = head is not None and head.number > _base(record)
    history = record.history
    if head is not None and stored:
        target = next((s for s in record.history if s.digest == action.digest), None)
        snapshot = snapshot_of(
            head,
            Origin.ROLLBACK,
            desired,
            artifact_digest=target.artifact_digest if target else "",
            upstream_digest=target.upstream_digest if target else "",
            released=Proof.PASSED if outcome.succeeded else Proof.FAILED,
            at=outcome.finished,
            message=outcome.message or f"rolled back to revision {action.to}",
            post_render_digest=_post_rendered(record, action.digest),
        )
        history = (replace(snapshot, restores=action.to), *history)
    # Where a person's wish left no trace, everything is as it was: nothing counts, nothing holds.
    counts = not outcome.succeeded and (stored or action.is_remediation)
    changed = record.evolve(
        history=history,
        in_flight=None,
        rollback_failures=0 if outcome.succeeded else record.rollback_failures + counts,
    )
    if stored and not action.is_remediation:
        changed = changed.evolve(hold=rolled_back_by_hand(record, action.digest, outcome.finished))
    return without_vanished(changed, observed)


def rolled_back_by_hand(record: Record, digest: str, now: datetime) -> Hold:
    """The hold that `helmops rollback` ends in."""
    return Hold(
        reason=HoldReason.ROLLED_BACK,
        message="rolled back by hand; `helmops resume` or a changed declaration goes on",
        at=now,
        declaration_digest=record.declaration_digest,
        subject=digest,
    )


def _adopted(
    record: Record, action: Adopt, revision: Revision, outcome: Outcome, desired: Desired
) -> Record:
    if not outcome.succeeded:
        return record
    was_released = revision.status is HelmStatus.DEPLOYED
    snapshot = snapshot_of(
        revision,
        Origin.ADOPT,
        desired,
        artifact_digest="",
        released=Proof.PASSED if was_released else Proof.FAILED,
        at=outcome.finished,
        message="taken over as it was"
        + ("" if was_released else f", which helm calls {revision.status.value}"),
    )
    if action.only_if_same and action.target is not None:
        snapshot = replace(
            snapshot,
            artifact_digest=action.target.chart.digest,
            post_render_digest=action.target.post_render_digest,
        )
    absorbed = None
    if action.is_absorbed and action.target is not None:
        target = action.target
        absorbed = Absorbed(revision.digest, target.chart.version, target.config_digest)
    return record.evolve(
        history=(snapshot, *record.history),
        hold=None,
        in_flight=None,
        absorbed=absorbed,
        lost=None,
    )


def _is_newest(record: Record, observed: Observation) -> bool:
    known, head = record.head, observed.head
    return known is not None and head is not None and known.is_of(head)


def _checked(record: Record, action: CheckHealth, outcome: Outcome, desired: Desired) -> Record:
    head = record.head
    if head is None:
        return record
    checks = tuple(
        CheckRecord(r.name, r.passed, r.message[:_MESSAGE_LENGTH], outcome.finished)
        for r in outcome.checks
    )
    record = record.evolve(checks=checks or record.checks)
    if not outcome.succeeded:
        return _judged_failed(record, outcome, desired, health=Proof.FAILED)
    if action.is_rewatch:
        over = head.watched_until is not None and outcome.finished >= head.watched_until
        if not over:
            return record.evolve(seen_bad=action.reported)
        return _settled(record.with_head(watched=Proof.PASSED, judged_at=outcome.finished))
    health = Proof.PASSED if action.waits else Proof.SKIPPED
    changed = record.with_head(health=health, judged_at=outcome.finished, message=outcome.message)
    return _start_watch(changed, outcome.finished, desired)


def _tested(record: Record, outcome: Outcome, desired: Desired, observed: Observation) -> Record:
    head = record.head
    if head is None:
        return record
    stored = observed.revision(head.revision)
    hooks = stored.test_hooks if stored else head.test_hooks
    record = record.with_head(test_hooks=hooks)
    if outcome.succeeded:
        changed = record.with_head(
            tests=Proof.PASSED, judged_at=outcome.finished, message=outcome.message
        )
        return _start_watch(changed, outcome.finished, desired)
    if ignores_test_failures(desired, head.origin):
        changed = record.with_head(
            tests=Proof.IGNORED, judged_at=outcome.finished, message=outcome.message
        )
        return _start_watch(changed, outcome.finished, desired)
    return _judged_failed(record, outcome, desired, tests=Proof.FAILED)


def _start_watch(record: Record, now: datetime, desired: Desired) -> Record:
    """The watch window begins when all the rest is proven."""
    head = record.head
    if head is None or head.health is Proof.PENDING or head.tests is Proof.PENDING:
        return record
    if head.watched is not Proof.PENDING or head.watched_until is not None:
        return _settled(record)
    return record.with_head(watched_until=now + desired.policy.verify.watch)


def _settled(record: Record) -> Record:
    """All that was asked for is proven of an install or upgrade: its failures are history.

    After a rollback they still count, against the target that failed.
    """
    head = record.head
    if head is None or head.origin in (Origin.ROLLBACK, Origin.ADOPT):
        return record
    return without_failures(record)


def _judged_failed(record: Record, outcome: Outcome, desired: Desired, **proof: Proof) -> Record:
    """A revision that helm released, and that then failed: counted once, against its action."""
    head = record.head
    if head is None:
        return record
    counts_against = head.origin if record.attempt is None else record.attempt.action
    counts = head.origin in (Origin.INSTALL, Origin.UPGRADE)
    changed = record.with_head(
        judged_at=outcome.finished, message=outcome.message[:_MESSAGE_LENGTH], **proof
    )
    changed = changed.evolve(
        failures=record.failures + counts,
        install_failures=record.install_failures + (counts and counts_against is Origin.INSTALL),
        upgrade_failures=record.upgrade_failures + (counts and counts_against is Origin.UPGRADE),
    )
    return quarantined_after_failure(changed, desired, outcome.finished)


def _uninstalled(
    record: Record, action: Uninstall, outcome: Outcome, desired: Desired, observed: Observation
) -> Record:
    if not outcome.succeeded:
        if observed.head is not None and observed.head.status is HelmStatus.UNINSTALLING:
            return record  # locked by helm until another uninstall; the note proves that it is ours
        return record.evolve(in_flight=None)
    if action.release != desired.release:
        return replace(
            new_record(desired),
            declaration_digest=record.declaration_digest,
            manifest=record.manifest,
            generation=record.generation,
            observed_generation=record.observed_generation,
            origin=record.origin,
            location=record.location,
            prune=record.prune,
            policy=record.policy,
            quarantine=record.quarantine,
        )
    return record.evolve(
        in_flight=None,
        history=(),
        accepted="",
        hold=None,
        inspected=None,
        absorbed=None,
        lost=None,
    )


def _hooks_run(record: Record, action: RunHooks, outcome: Outcome) -> Record:
    runs = tuple(
        HookRecord(
            name=h.name,
            point=action.point.value,
            at=outcome.finished,
            succeeded=h.succeeded,
            message=h.message[:_MESSAGE_LENGTH],
            output=h.output,
        )
        for h in outcome.hooks
    )
    changed = record.evolve(hooks=(*runs, *record.hooks)[:_KEPT_HOOKS])
    if action.revision is not None and changed.head is not None:
        points = (*changed.head.hooks_run, action.point.value)
        changed = changed.with_head(hooks_run=points)
    return changed


def note_liveness(record: Record, observed: Observation, now: datetime) -> Record:
    """Take in how the release is doing after it was proven healthy: what is lost is told, and
    nothing is rolled back for it. Before that, the watch window judges.
    """
    known, live = record.head, observed.live
    if live is None or not live.is_live or known is None or not _is_newest(record, observed):
        return record
    if known.verdict is not Verdict.HEALTHY:
        return record if record.lost is None else record.evolve(lost=None)
    if not live.bad:
        return record if record.lost is None else record.evolve(lost=None)
    if record.lost is not None and record.lost.message == live.bad:
        return record
    at = record.lost.at if record.lost is not None else live.since or now
    return record.evolve(lost=HealthLost(live.bad[:_MESSAGE_LENGTH], at))


def stopping_hook(outcome: Outcome) -> HookOutcome | None:
    """The failed hook that must stop what comes next, or None."""
    return next((h for h in outcome.hooks if h.stops and not h.succeeded), None)


def without_vanished(record: Record, observed: Observation) -> Record:
    """Take over statuses that helm rewrote, and drop snapshots that are of no use any more.

    Kept are those that Helm still stores, and the last healthy one even when somebody pruned it.
    """
    stored = {(r.number, r.digest, r.last_deployed): r for r in observed.revisions}
    healthy = record.last_healthy
    history: list[Snapshot] = []
    for snapshot in record.history:
        revision = stored.get((snapshot.revision, snapshot.digest, snapshot.last_deployed))
        if revision is not None:
            history.append(
                snapshot
                if snapshot.status is revision.status
                else replace(snapshot, status=revision.status)
            )
        elif snapshot is healthy or len(history) < 1:
            history.append(snapshot)
    if len(history) > _KEPT_SNAPSHOTS:
        tail = [s for s in history[_KEPT_SNAPSHOTS:] if s.digest in record.healthy_digests]
        history = history[:_KEPT_SNAPSHOTS] + tail
    return record if tuple(history) == record.history else record.evolve(history=tuple(history))


def failed_tests(snapshot: Snapshot) -> tuple[str, ...]:
    """Names of the tests whose last run failed."""
    return tuple(h.name for h in snapshot.test_hooks if h.phase is TestPhase.FAILED)


def is_moved(record: Record, release: ReleaseId) -> bool:
    """Whether the record is about a release of another name or namespace."""
    return record.release != release


def is_flux(desired: Desired) -> bool:
    """Whether Flux's behaviour is wanted where the two sets of defaults differ."""
    return desired.defaults is Defaults.FLUX
