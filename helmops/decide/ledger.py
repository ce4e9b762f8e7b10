"""What goes into the ledger, and whether it is still what went in. Computational only.

Entries come out of an old and a new record and the action between them, as events do, but stricter:
every action has one, whatever came of it, and a pass without news has none.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, assert_never

from helmops.model.actions import (
    Adopt,
    CheckHealth,
    Decision,
    Done,
    GatherEvidence,
    Held,
    Inspect,
    Install,
    KeepCopy,
    Prune,
    PutBack,
    Rollback,
    RunHooks,
    RunTests,
    Target,
    Uninstall,
    Unlock,
    Upgrade,
)
from helmops.model.ledger import Draft, EntryKind, Ledger, canonical, hash_of, in_utc, new_ledger
from helmops.model.records import Hold, Quarantined, Record, Snapshot, Verdict
from helmops.model.releases import ReleaseId

#: Who asked, where nobody did.
SCHEDULE = "schedule"
#: Of a list, an entry has so many at most.
_LISTED = 10
_LINE = 200


@dataclass(frozen=True, slots=True)
class Said:
    """What the records alone do not tell of a change: the action that was done, the decision that
    led to it, who asked (empty: nobody), the Git commit of the declaration, and, where the record
    is about to be deleted, why.
    """

    step: Done | None = None
    decision: Decision | None = None
    by: str = ""
    commit: str = ""
    end: str = ""


NOTHING_SAID = Said()


def entered(old: Record | None, new: Record, said: Said, at: datetime) -> Record:
    """The new record with an entry in its ledger for all that happened since the old one.

    `old` is what the record Secret holds: the chain goes on from there, whatever the new record
    says of it. Unchanged where there is nothing to tell.
    """
    before = new.ledger if old is None or old.release != new.release else old.ledger
    ledger = before
    for draft in entries_between(old, new, said, at):
        ledger = _extended(ledger, draft)
    return new if ledger == new.ledger else new.evolve(ledger=ledger)


def _extended(ledger: Ledger | None, draft: Draft) -> Ledger:
    if ledger is None:
        return new_ledger(draft)
    if ledger.is_ended:
        follows = {"follows": {"chain": ledger.chain, "hash": ledger.hash, "number": ledger.number}}
        return new_ledger(_with(draft, follows))
    return ledger if _is_repeated(ledger, draft) else ledger.extended(draft)


def _is_repeated(ledger: Ledger, draft: Draft) -> bool:
    """An action that could not be carried through, again and again, is told once."""
    action = draft.details.get("action")
    if not isinstance(action, Mapping) or not action.get("undetermined"):
        return False
    newest = ledger.newest
    before = newest.get("action")
    return (
        isinstance(before, Mapping)
        and bool(before.get("undetermined"))
        and before.get("name") == action.get("name")
        and newest.get("reason") == draft.reason
    )


def entries_between(old: Record | None, new: Record, said: Said, at: datetime) -> tuple[Draft, ...]:
    """Entries for all that changed between two records of one release, in the order of happening:
    what was declared, what was done, what it was found to be, and what follows from it.
    """
    before = old if old is not None else Record(key=new.key, release=new.release)
    write = _Writer(before, new, said, at)
    drafts = [
        *_of_declaration(before, new, write, is_first=old is None),
        *_of_handled(before, new, write),
        *_of_interruption(before, new, write),
        *_of_step(before, new, write),
        *_of_verdicts(before, new, write),
        *_of_health(before, new, write),
        *_of_quarantine(before, new, write),
        *_of_hold(before, new, write),
        *_of_suspension(before, new, write),
        *_of_end(before, write),
    ]
    return tuple(drafts)


@dataclass(frozen=True, slots=True)
class _Writer:
    """Fills in what all entries of one change have in common."""

    old: Record
    new: Record
    said: Said
    at: datetime

    def __call__(
        self, kind: EntryKind, reason: str, message: str, *, by: str = "", **details: Any
    ) -> Draft:
        if self.old.state != self.new.state:
            details["state"] = {"from": self.old.state, "to": self.new.state}
        return Draft(
            kind,
            self.at,
            self.new.key,
            self.new.release,
            reason=reason,
            message=message,
            by=by or self.said.by or SCHEDULE,
            origin=self.new.origin,
            commit=self.said.commit,
            rule=_why(self.said.decision),
            details={name: value for name, value in details.items() if value not in (None, [], {})},
        )


def _with(draft: Draft, details: Mapping[str, Any]) -> Draft:
    return Draft(
        draft.kind,
        draft.at,
        draft.declaration,
        draft.release,
        draft.reason,
        draft.message,
        draft.by,
        draft.origin,
        draft.commit,
        draft.rule,
        {**draft.details, **details},
    )


def _why(decision: Decision | None) -> str:
    if decision is None:
        return ""
    return decision.hold.message if isinstance(decision, Held) else decision.why


# What was said ----------------------------------------------------------------------------------


def _of_declaration(old: Record, new: Record, write: _Writer, *, is_first: bool) -> Iterable[Draft]:
    if new.removed and not old.removed:
        how = "it is left running"
        yield write(EntryKind.UNDECLARED, "DeclarationRemoved", f"the declaration is gone; {how}")
        return
    is_changed = new.declaration_digest != old.declaration_digest
    is_renamed = new.key != old.key
    is_back = old.removed and not new.removed
    if not (is_changed or is_renamed or is_back):
        return
    what = "declared" if is_first else "the declaration was changed"
    if is_renamed:
        what = f"the declaration is {new.key} now, it was {old.key}"
    elif is_back and not is_changed:
        what = "declared again"
    yield write(
        EntryKind.DECLARED,
        "Declared" if is_first else "DeclarationChanged",
        what,
        declared={
            "digest": _digest(new.declaration_digest),
            "before": _digest(old.declaration_digest),
            "generation": new.generation,
        },
    )


def _of_handled(old: Record, new: Record, write: _Writer) -> Iterable[Draft]:
    if new.handled.reset != old.handled.reset and new.handled.reset:
        token = _line(new.handled.reset)
        yield write(EntryKind.RESET, "FailuresForgotten", "failures are forgotten", token=token)


# What was done ----------------------------------------------------------------------------------


def _of_interruption(old: Record, new: Record, write: _Writer) -> Iterable[Draft]:
    """The note of an action whose end nobody saw was replaced by what storage says of it."""
    note = old.in_flight
    if note is None or new.in_flight == note:
        return
    step = write.said.step
    if step is not None and type(step.action).__name__.lower() == note.action:
        return  # seen to end
    made = _made(old, new)
    found = f"revision {made.revision} is {made.status.value}" if made else "it left no revision"
    yield write(
        EntryKind.INTERRUPTED,
        "Interrupted",
        f"the {note.action} was not seen to end; {found}",
        action={"name": note.action.capitalize(), "began": in_utc(note.at), "by": note.holder},
        chart=_chart(note.chart_name, note.chart_version),
        digests=_digests(config=note.config_digest, artifact=note.artifact_digest),
        revision=_revision(made),
    )


def _of_step(old: Record, new: Record, write: _Writer) -> Iterable[Draft]:
    step = write.said.step
    if step is None or _is_routine(step):
        return
    action, outcome = step.action, step.outcome
    name = type(action).__name__
    milliseconds = round(outcome.duration.total_seconds() * 1000)
    done: dict[str, Any] = {
        "name": name,
        "succeeded": outcome.succeeded,
        "milliseconds": milliseconds,
        **_arguments(step),
    }
    if outcome.undetermined:
        done["undetermined"] = True
    if outcome.output:
        done["output"] = f"sha256:{hash_of(outcome.output)}"
    target = getattr(action, "target", None)
    details: dict[str, Any] = {"action": done}
    if isinstance(target, Target):
        base = old.head.digest if old.head else ""
        details |= {
            "chart": _chart(target.chart.name, target.chart.version),
            "versions": _versions(target, new),
            "digests": _digests(
                config=target.config_digest,
                artifact=target.chart.digest,
                declaration=new.declaration_digest,
                plan=_plan_digest(name, new.release, target, base),
            ),
        }
    elif outcome.plan:
        details["digests"] = _digests(plan=hash_of(canonical(list(outcome.plan))))
    if outcome.plan:
        details["plan"] = _lines(outcome.plan)
    if outcome.checks:
        details["checks"] = [
            {"name": _line(c.name), "passed": c.passed, "message": _line(c.message)}
            for c in outcome.checks[:_LISTED]
        ]
    if outcome.hooks:
        details["hooks"] = [
            {"name": _line(h.name), "succeeded": h.succeeded, "message": _line(h.message)}
            for h in outcome.hooks[:_LISTED]
        ]
    if outcome.evidence is not None:
        details["evidence"] = {
            "number": outcome.evidence.number,
            "digest": _digest(outcome.evidence.digest),
        }
    head = new.head
    if isinstance(action, RunTests) and head is not None:
        details["tests"] = [
            {"name": _line(t.name), "phase": t.phase.value} for t in head.test_hooks[: 2 * _LISTED]
        ]
    about = _made(old, new)
    if about is None and isinstance(action, RunTests | CheckHealth | Adopt):
        about = head
    details["revision"] = _revision(about)
    reason = outcome.reason or f"{name}{'Succeeded' if outcome.succeeded else 'Failed'}"
    yield write(EntryKind.ACTION, reason, outcome.message, **details)


def _is_routine(step: Done) -> bool:
    """Another look inside the watch window, which found what the one before it found."""
    action, outcome = step.action, step.outcome
    return isinstance(action, CheckHealth) and action.is_rewatch and outcome.succeeded


def _arguments(step: Done) -> dict[str, Any]:
    """What an action was told to do, beside its target."""
    match step.action:
        case Install():
            return {}
        case Upgrade(from_version=version):
            return {"from": version} if version else {}
        case Adopt(revision=revision, only_if_same=only_if_same):
            return {"revision": revision.number, "onlyIfSame": only_if_same}
        case RunTests(revision=number) | CheckHealth(revision=number):
            return {"revision": number}
        case Unlock(revision=number, is_foreign=is_foreign):
            return {"revision": number, "isForeign": is_foreign}
        case Rollback(to=to, digest=digest, is_remediation=is_remediation):
            return {"to": to, "digest": _digest(digest), "isRemediation": is_remediation}
        case Uninstall(release=release, why=why):
            return {"release": str(release), "why": _line(why)}
        case RunHooks(point=point):
            return {"point": point.value}
        case Prune(revisions=revisions):
            return {"revisions": list(revisions[:100])}
        case Inspect(base=base):
            return {"revision": base.number}
        case GatherEvidence(revision=number):
            return {"revision": number}
        case KeepCopy(revision=number, digest=digest) | PutBack(revision=number, digest=digest):
            return {"revision": number, "digest": _digest(digest)}
        case _:
            assert_never(step.action)


def _versions(target: Target, record: Record) -> dict[str, Any]:
    """Which versions were seen, and why this one was chosen."""
    seen: dict[str, Any] = {"chosen": target.chart.version}
    if target.choice:
        seen["choice"] = _line(target.choice)
    held_back = target.held_back or record.held_back
    if held_back:
        seen["heldBack"] = _lines(held_back)
    return seen


def _plan_digest(name: str, release: ReleaseId, target: Target, base: str) -> str:
    """Of what was to be done: the action, the chart and the values, and what it was done to."""
    plan = [name, str(release), target.chart.name, target.chart.version]
    return hash_of(canonical([*plan, target.chart.digest, target.config_digest, base]))


# What was found ---------------------------------------------------------------------------------


def _of_verdicts(old: Record, new: Record, write: _Writer) -> Iterable[Draft]:
    for snapshot in reversed(new.history):
        before = _same_in(old, snapshot)
        was = before.verdict if before is not None else Verdict.UNKNOWN
        if snapshot.verdict is was:
            continue
        what = {
            Verdict.HEALTHY: "was seen healthy",
            Verdict.FAILED: "failed",
            Verdict.UNKNOWN: "is not known to be healthy any more",
        }[snapshot.verdict]
        message = f"revision {snapshot.revision} ({snapshot.versioned_chart}) {what}"
        if snapshot.message and snapshot.verdict is Verdict.FAILED:
            message += f": {snapshot.message}"
        yield write(
            EntryKind.VERDICT,
            f"Seen{snapshot.verdict.value.capitalize()}",
            message,
            revision=_revision(snapshot) | {"was": was.value},
        )


def _made(old: Record, new: Record) -> Snapshot | None:
    """The revision that is new in the record."""
    head = new.head
    return head if head is not None and _same_in(old, head) is None else None


def _same_in(record: Record, snapshot: Snapshot) -> Snapshot | None:
    return next(
        (
            s
            for s in record.history
            if (s.revision, s.digest, s.last_deployed)
            == (snapshot.revision, snapshot.digest, snapshot.last_deployed)
        ),
        None,
    )


def _of_health(old: Record, new: Record, write: _Writer) -> Iterable[Draft]:
    """After the watch window: told, and nothing is rolled back for it."""
    if new.lost is not None and (old.lost is None or new.lost.message != old.lost.message):
        yield write(
            EntryKind.HEALTH_LOST, "HealthLost", new.lost.message, revision=_revision(new.head)
        )
    elif old.lost is not None and new.lost is None:
        yield write(EntryKind.HEALTH_BACK, "HealthBack", "well again", revision=_revision(new.head))


# What follows -----------------------------------------------------------------------------------


def _of_quarantine(old: Record, new: Record, write: _Writer) -> Iterable[Draft]:
    for entry in old.quarantine:
        if not any(_is_same_quarantine(entry, other) for other in new.quarantine):
            is_over = entry.is_over(write.at)
            yield write(
                EntryKind.QUARANTINE_LIFTED,
                "QuarantineOver" if is_over else "QuarantineLifted",
                f"{entry.chart} {entry.version} may be tried again",
                quarantine=_quarantine(entry),
            )
    for entry in new.quarantine:
        if not any(_is_same_quarantine(entry, other) for other in old.quarantine):
            yield write(
                EntryKind.QUARANTINED,
                "Quarantined",
                f"{entry.chart} {entry.version} is not tried again: {entry.why}",
                quarantine=_quarantine(entry),
            )


def _is_same_quarantine(one: Quarantined, other: Quarantined) -> bool:
    return (one.chart, one.version, one.digest, one.scope) == (
        other.chart,
        other.version,
        other.digest,
        other.scope,
    )


def _quarantine(entry: Quarantined) -> dict[str, Any]:
    return {
        "chart": _chart(entry.chart, entry.version),
        "digest": _digest(entry.digest),
        "scope": entry.scope,
        "until": in_utc(entry.until) if entry.until else "",
        "by": _line(entry.by),
    }


def _of_hold(old: Record, new: Record, write: _Writer) -> Iterable[Draft]:
    was, hold = old.hold, new.hold
    if _subject(was) == _subject(hold):
        return
    if was is not None and hold is None:
        yield write(
            EntryKind.HOLD_LIFTED,
            "HoldLifted",
            f"no longer held ({was.reason.value})",
            hold={"reason": was.reason.value, "subject": _line(was.subject)},
            accepted=_line(new.accepted) if new.accepted != old.accepted else None,
        )
    if hold is not None:
        yield write(
            EntryKind.HELD,
            hold.reason.value,
            hold.message,
            hold={"reason": hold.reason.value, "subject": _line(hold.subject)},
            plan=_lines(hold.plan),
            digests=_digests(plan=hash_of(canonical(list(hold.plan))) if hold.plan else ""),
        )


def _subject(hold: Hold | None) -> tuple[str, str] | None:
    return None if hold is None else (hold.reason.value, hold.subject)


def _of_suspension(old: Record, new: Record, write: _Writer) -> Iterable[Draft]:
    if (old.suspended is None) == (new.suspended is None):
        return
    if new.suspended is not None:
        by = new.suspended.by
        yield write(EntryKind.SUSPENDED, "Suspended", "left alone until resumed", by=by)
    else:
        yield write(EntryKind.RESUMED, "Resumed", "no longer suspended")


def _of_end(old: Record, write: _Writer) -> Iterable[Draft]:
    """Once: after a crash before the record was deleted, its chain is at its end already."""
    if write.said.end and not (old.ledger is not None and old.ledger.is_ended):
        yield write(EntryKind.ENDED, "RecordDeleted", write.said.end)


# Words ------------------------------------------------------------------------------------------


def _revision(snapshot: Snapshot | None) -> dict[str, Any]:
    if snapshot is None:
        return {}
    return {
        "number": snapshot.revision,
        "digest": _digest(snapshot.digest),
        "chart": snapshot.versioned_chart,
        "origin": snapshot.origin.value,
        "helmStatus": snapshot.status.value,
        "verdict": snapshot.verdict.value,
        "released": snapshot.released.value,
        "health": snapshot.health.value,
        "tests": snapshot.tests.value,
        "watched": snapshot.watched.value,
    }


def _chart(name: str, version: str) -> str | None:
    return f"{name}@{version}" if name else None


def _digests(**digests: str) -> dict[str, str]:
    return {name: _digest(digest) for name, digest in digests.items() if digest}


def _digest(digest: str) -> str:
    return f"sha256:{digest}" if digest else ""


def _line(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _LINE else f"{line[: _LINE - 1]}…"


def _lines(texts: Sequence[str]) -> list[str]:
    shown = [_line(text) for text in texts[:_LISTED]]
    more = len(texts) - len(shown)
    return [*shown, f"… and {more} more"] if more else shown
