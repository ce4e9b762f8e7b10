"""Which revision a rollback goes to: the newest stored one that was seen healthy.

Helm's own status does not say so. A failed first install becomes `superseded` after the next
success, and a failed `helm rollback` turns the failed revision before it into `superseded` (seen
with Helm 4.3.1 and 3.19.0), so that "the last deployed or superseded revision" can be a bad one.
"""

from __future__ import annotations

from collections.abc import Sequence

from helmops.model.actions import Observation
from helmops.model.records import KeptCopy, Record
from helmops.model.releases import HelmStatus, Revision

#: A revision whose status is another one than these never finished being released.
_RELEASED = (HelmStatus.DEPLOYED, HelmStatus.SUPERSEDED)


def rollback_target(observed: Observation, record: Record) -> Revision | None:
    """The newest stored revision before the head whose digest was seen healthy, or None."""
    return _newest_proven(observed.revisions[:-1], record)


def to_put_back(observed: Observation, record: Record) -> KeptCopy | None:
    """The kept copy, where somebody pruned the revision from Helm's storage and a rollback is
    better off with it than with what is stored; else None.
    """
    kept, head = record.kept, observed.head
    if kept is None or head is None or kept.digest not in record.healthy_digests:
        return None
    if kept.revision >= head.number or observed.revision(kept.revision) is not None:
        return None
    if any(r.digest == kept.digest for r in observed.revisions):
        return None
    stored = rollback_target(observed, record)
    return kept if stored is None or stored.number < kept.revision else None


def earlier_target(observed: Observation, record: Record) -> Revision | None:
    """Where a person goes who asks to go back: to the newest proven revision of other content
    before the place in history that runs now. None where nothing proven is left there.

    A rollback goes to the place that it restored, so that asking twice goes back twice.
    """
    head = observed.head
    if head is None:
        return None
    place = _place_in_history(observed, record)
    before = [r for r in observed.revisions if r.number < place and r.digest != head.digest]
    return _newest_proven(before, record)


def _place_in_history(observed: Observation, record: Record) -> int:
    """The number of the newest revision, or, where that was a rollback, of what it restored."""
    restored = {(s.revision, s.digest): s.restores for s in record.history if s.restores}
    place = observed.revisions[-1]
    while True:
        number = restored.get((place.number, place.digest), 0)
        earlier = observed.revision(number)
        if not number or number >= place.number:
            return place.number
        if earlier is None or earlier.digest != place.digest:
            return number
        place = earlier


def _newest_proven(revisions: Sequence[Revision], record: Record) -> Revision | None:
    healthy = record.healthy_digests
    for revision in reversed(revisions):
        if revision.status in _RELEASED and revision.digest in healthy:
            return revision
    return None


def is_rollback_target(revision: Revision, record: Record) -> bool:
    """Whether a person may have this very revision put back."""
    return revision.status in _RELEASED and revision.digest in record.healthy_digests


def prunable(observed: Observation, record: Record, max_history: int) -> tuple[int, ...]:
    """Numbers of the stored revisions that `max_history` (0: keep all) does not leave room for.

    The newest revision, a deployed one and the newest healthy ones that a rollback from here or
    after the next failure would go to are kept in any case.
    """
    if max_history <= 0 or len(observed.revisions) <= max_history:
        return ()
    healthy = record.healthy_digests
    keep = {observed.revisions[-1].number}
    keep |= {r.number for r in observed.revisions if r.status is HelmStatus.DEPLOYED}
    proven = [r for r in observed.revisions if r.status in _RELEASED and r.digest in healthy]
    keep |= {r.number for r in proven[-2:]}
    surplus = len(observed.revisions) - max_history
    doomed = []
    for revision in observed.revisions:
        if surplus == 0:
            break
        if revision.number not in keep:
            doomed.append(revision.number)
            surplus -= 1
    return tuple(doomed)
