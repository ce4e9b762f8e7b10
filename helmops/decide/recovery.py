"""After a crash: take what our own broken-off action left for ours.

Before helm is started, the record says what is about to happen (`InFlight`). A helmops that finds
such a note did not see how the action ended. What Helm's storage shows of it is enough to go on: a
new revision with the note's content is ours, nothing new means that nothing happened, and a lock
stays for the decider to break.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from helmops.decide.quarantine import quarantined_after_failure
from helmops.decide.remember import (
    barriers_to,
    rolled_back_by_hand,
    snapshot_of,
    without_vanished,
)
from helmops.model.actions import Desired, Observation
from helmops.model.records import Attempt, InFlight, Origin, Proof, Record
from helmops.model.releases import HelmStatus, Revision

#: So many broken-off attempts in a row count as a failure of the release: something about it kills
#: whoever releases it.
MAX_INTERRUPTIONS = 3


def recover(desired: Desired, observed: Observation, record: Record, now: datetime) -> Record:
    """The record with the in-flight note replaced by what storage says of it.

    Unchanged while the action's helm still runs, while the revision is locked, or where there is no
    note.
    """
    note = record.in_flight
    if note is None or observed.our_helm_runs:
        return record
    head = observed.head
    if head is not None and head.status.is_pending:
        return record
    if note.action == "uninstall":
        if observed.is_absent:
            return record.evolve(in_flight=None, history=())
        return record.evolve(in_flight=None)
    if head is None or head.number <= note.base or not is_trace_of(note, head):
        return record.evolve(in_flight=None)
    origin = Origin(note.action)
    succeeded = head.status is HelmStatus.DEPLOYED
    interruptions = record.interruptions + (0 if succeeded else 1)
    snapshot = snapshot_of(
        head,
        origin,
        desired,
        artifact_digest=note.artifact_digest,
        upstream_digest=note.upstream_digest,
        released=Proof.PASSED if succeeded else Proof.FAILED,
        at=now,
        message="" if succeeded else f"the {note.action} was broken off",
        post_render_digest=note.post_render_digest,
    )
    if origin is Origin.ROLLBACK:
        snapshot = replace(snapshot, restores=note.target_revision)
    if origin is Origin.UPGRADE:
        snapshot = replace(snapshot, barriers=barriers_to(record, snapshot))
    recovered = record.evolve(
        in_flight=None,
        history=(snapshot, *record.history),
        interruptions=interruptions,
        accepted="",
    )
    if origin is not Origin.ROLLBACK:
        recovered = recovered.evolve(
            attempt=Attempt(
                action=origin,
                generation=record.generation,
                chart_version=note.chart_version,
                artifact_digest=note.artifact_digest,
                artifact_revision=note.chart_version,
                config_digest=note.config_digest,
                at=now,
                seconds=(now - note.at).total_seconds(),
                changed_storage=True,
            )
        )
    if note.by_hand:
        recovered = recovered.evolve(hold=rolled_back_by_hand(record, note.target_digest, now))
    if not succeeded and interruptions >= MAX_INTERRUPTIONS:
        recovered = recovered.evolve(
            failures=record.failures + 1,
            install_failures=record.install_failures + (origin is Origin.INSTALL),
            upgrade_failures=record.upgrade_failures + (origin is Origin.UPGRADE),
        )
        recovered = quarantined_after_failure(recovered, desired, now)
    # What was deployed before is superseded now.
    return without_vanished(recovered, observed)


def is_trace_of(note: InFlight, head: Revision) -> bool:
    """Whether a stored revision can only be what the noted action made."""
    if head.number != note.base + 1:
        return False
    if note.target_digest:
        return head.digest == note.target_digest
    return (
        head.chart_name == note.chart_name
        and head.chart_version == note.chart_version
        and head.config_digest == note.config_digest
    )


def is_our_lock(record: Record, head: Revision) -> bool:
    """Whether the lock on the newest revision is one that our own dead process left, or a helm of
    ours that came to a bad end (killed, stopped at our deadline, crashed).

    An uninstall locks the revision that is there; everything else locks one of its own.
    """
    note = record.in_flight
    if note is None:
        # Seen to end, and remembered: nobody's helm works on what we have a snapshot of.
        known = record.head
        return (
            known is not None
            and known.is_of(head)
            and known.released is Proof.FAILED
            and head.status is not HelmStatus.UNINSTALLING
        )
    if head.status is HelmStatus.UNINSTALLING:
        return note.action == "uninstall" and head.number == note.base
    return is_trace_of(note, head)
