"""What there is to tell, out of an old and a new record. Nothing else makes events."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from helmops.model.events import Event, EventKind, Severity
from helmops.model.records import ConditionStatus, Origin, Proof, Record, Snapshot, Verdict

_NAMES = {
    Origin.INSTALL: "Install",
    Origin.UPGRADE: "Upgrade",
    Origin.ROLLBACK: "Rollback",
    Origin.ADOPT: "Adopt",
}


def events_between(old: Record | None, new: Record, at: datetime) -> tuple[Event, ...]:
    """Events for all that changed between two records of one release, in the order of happening."""
    before = old if old is not None else Record(key=new.key, release=new.release)
    events: list[Event] = []
    events += _of_hooks(before, new, at)
    events += _of_attempt(before, new, at)
    events += _of_head(before, new, at)
    events += _of_evidence(before, new, at)
    events += _of_health(before, new, at)
    events += _of_quarantine(before, new, at)
    events += _of_hold(before, new, at)
    events += _of_suspension(before, new, at)
    events += _of_conditions(before, new, at)
    if new.removed and not before.removed:
        events.append(
            _event(
                new,
                at,
                EventKind.INFO,
                Severity.INFO,
                "DeclarationRemoved",
                f"the declaration is gone; the release is left running ({_why_left(new)})",
            )
        )
    return tuple(events)


def _why_left(record: Record) -> str:
    if not record.prune:
        return "its policy did not say `prune` when it was last applied"
    if record.suspended is not None:
        return "it is suspended"
    return "its newest revision was not made by helmops"


def _event(
    record: Record,
    at: datetime,
    kind: EventKind,
    severity: Severity,
    reason: str,
    message: str,
    snapshot: Snapshot | None = None,
) -> Event:
    metadata = {"release": str(record.release)}
    if snapshot is not None:
        metadata |= {
            "revision": snapshot.chart_version,
            "chart": snapshot.chart_name,
            "app-version": snapshot.app_version,
            "digest": snapshot.digest,
        }
    return Event(
        at=at,
        key=record.key,
        kind=kind,
        severity=severity,
        reason=reason,
        message=message,
        revision=snapshot.revision if snapshot else None,
        metadata=metadata,
    )


def _of_attempt(old: Record, new: Record, at: datetime) -> list[Event]:
    """An attempt that helm gave up before it stored a revision."""
    attempt = new.attempt
    if attempt is None or attempt == old.attempt or not attempt.error or attempt.changed_storage:
        return []
    reason = f"{_NAMES[attempt.action]}Failed"
    message = f"{attempt.action.value} to {attempt.chart_version} failed: {attempt.error}"
    return [_event(new, at, EventKind.FAILURE, Severity.ERROR, reason, message)]


def _of_head(old: Record, new: Record, at: datetime) -> list[Event]:
    head = new.head
    if head is None:
        if old.head is not None and new.release == old.release:
            message = f"{old.release} was uninstalled"
            return [_event(new, at, EventKind.INFO, Severity.INFO, "UninstallSucceeded", message)]
        return []
    before = next((s for s in old.history if _is_same(s, head)), None)
    if before == head:
        return []
    name = _NAMES[head.origin]
    what = f"revision {head.revision} ({head.versioned_chart})"
    events: list[Event] = []
    if before is None:
        if head.released is Proof.FAILED:
            events.append(
                _event(
                    new,
                    at,
                    EventKind.FAILURE,
                    Severity.ERROR,
                    f"{name}Failed",
                    f"{head.origin.value} of {what} failed: {head.message}",
                    head,
                )
            )
            return events
        kind = EventKind.ROLLBACK if head.origin is Origin.ROLLBACK else EventKind.INFO
        done = {
            Origin.INSTALL: "installed",
            Origin.UPGRADE: "upgraded to",
            Origin.ROLLBACK: "rolled back:",
            Origin.ADOPT: "taken over:",
        }[head.origin]
        events.append(
            _event(new, at, kind, Severity.INFO, f"{name}Succeeded", f"{done} {what}", head)
        )
    if (before is None or before.verdict is not head.verdict) and head.verdict is Verdict.FAILED:
        reason = "TestFailed" if head.tests is Proof.FAILED else "HealthCheckFailed"
        events.append(
            _event(
                new,
                at,
                EventKind.FAILURE,
                Severity.ERROR,
                reason,
                f"{what} failed: {head.message}",
                head,
            )
        )
    if (before is None or before.verdict is not head.verdict) and head.verdict is Verdict.HEALTHY:
        events.append(
            _event(
                new,
                at,
                EventKind.SUCCESS,
                Severity.INFO,
                "SeenHealthy",
                f"{what} was seen healthy",
                head,
            )
        )
    return events


def _is_same(one: Snapshot, other: Snapshot) -> bool:
    """Whether both are about one revision. Reinstalling makes another one of the same number."""
    return (one.revision, one.digest, one.last_deployed) == (
        other.revision,
        other.digest,
        other.last_deployed,
    )


def _of_evidence(old: Record, new: Record, at: datetime) -> list[Event]:
    """What a failure left behind, with its number for `helmops events NAME --evidence`."""
    head = new.head
    if head is None or head.evidence is None:
        return []
    before = next((s for s in old.history if _is_same(s, head)), None)
    if before is None or before.evidence == head.evidence:
        return []
    number, summary = head.evidence.number, head.evidence.summary
    if not number and not summary:
        return []
    what = f"revision {head.revision} ({head.versioned_chart})"
    message = f"evidence of the failure of {what}: {summary or 'nothing that tells'}"
    failure = EventKind.FAILURE, Severity.ERROR
    event = _event(new, at, *failure, "EvidenceGathered", message, head)
    told = {"evidence": str(number) if number else "", "evidenceSummary": summary}
    metadata = event.metadata | {name: text for name, text in told.items() if text}
    return [replace(event, metadata=metadata)]


def _of_health(old: Record, new: Record, at: datetime) -> list[Event]:
    """Health that is lost after the watch window, and that comes back; each once."""
    if (old.lost is None) == (new.lost is None):
        return []
    if new.lost is not None:
        message = f"no longer healthy, and left as it is: {new.lost.message}"
        failure = EventKind.FAILURE, Severity.ERROR
        return [_event(new, at, *failure, "HealthLost", message, new.head)]
    if new.head is None or old.head is None or new.head.revision != old.head.revision:
        return []
    again = EventKind.INFO, Severity.INFO
    return [_event(new, at, *again, "HealthRegained", "healthy again", new.head)]


def _of_quarantine(old: Record, new: Record, at: datetime) -> list[Event]:
    events = []
    for entry in new.quarantine:
        if entry not in old.quarantine:
            until = f" until {entry.until:%Y-%m-%dT%H:%M:%SZ}" if entry.until else ""
            message = f"{entry.chart} {entry.version} is in quarantine{until}: {entry.why}"
            events.append(_event(new, at, EventKind.INFO, Severity.INFO, "Quarantined", message))
    for entry in old.quarantine:
        if entry not in new.quarantine:
            message = f"{entry.chart} {entry.version} is no longer in quarantine"
            events.append(
                _event(new, at, EventKind.INFO, Severity.INFO, "QuarantineLifted", message)
            )
    return events


def _of_hold(old: Record, new: Record, at: datetime) -> list[Event]:
    hold = new.hold
    if hold is None:
        if old.hold is None:
            return []
        message = f"no longer held ({old.hold.reason.value})"
        return [_event(new, at, EventKind.INFO, Severity.INFO, "HoldLifted", message)]
    if old.hold is not None and (old.hold.reason, old.hold.subject) == (hold.reason, hold.subject):
        return []
    plan = f"; would: {'; '.join(hold.plan)}" if hold.plan else ""
    message = f"held: {hold.message}{plan}"
    return [_event(new, at, EventKind.HOLD, Severity.ERROR, hold.reason.value, message)]


def _of_suspension(old: Record, new: Record, at: datetime) -> list[Event]:
    if (old.suspended is None) == (new.suspended is None):
        return []
    suspension = new.suspended or old.suspended
    by = f" by {suspension.by}" if suspension and suspension.by else ""
    if new.suspended is not None:
        return [_event(new, at, EventKind.INFO, Severity.INFO, "Suspended", f"suspended{by}")]
    return [_event(new, at, EventKind.INFO, Severity.INFO, "Resumed", "resumed")]


def _of_conditions(old: Record, new: Record, at: datetime) -> list[Event]:
    """Standing still, a source that fails, and waiting; each once, until it changes."""
    events = []
    told_by_hold = new.hold.reason.value if new.hold else ""
    for kind in ("Stalled", "FetchFailed"):
        condition, before = new.condition(kind), old.condition(kind)
        if condition is None or condition.status is not ConditionStatus.TRUE:
            continue
        if before is not None and before.reason == condition.reason:
            continue
        if condition.reason == told_by_hold:
            continue
        events.append(
            _event(
                new,
                at,
                EventKind.FAILURE,
                Severity.ERROR,
                condition.reason,
                condition.message,
                new.head,
            )
        )
    ready, before = new.condition("Ready"), old.condition("Ready")
    if (
        ready is not None
        and ready.reason in ("DependencyNotReady", "PendingRelease")
        and (before is None or before.reason != ready.reason)
    ):
        events.append(
            _event(new, at, EventKind.INFO, Severity.INFO, ready.reason, ready.message, new.head)
        )
    return events


def _of_hooks(old: Record, new: Record, at: datetime) -> list[Event]:
    fresh = [h for h in new.hooks if h not in old.hooks]
    return [
        _event(
            new,
            at,
            EventKind.INFO if h.succeeded else EventKind.FAILURE,
            Severity.INFO if h.succeeded else Severity.ERROR,
            "HookSucceeded" if h.succeeded else "HookFailed",
            f"hook {h.name} at {h.point}: {h.message}",
            new.head,
        )
        for h in reversed(fresh)
    ]
