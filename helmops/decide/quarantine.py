"""Chart versions that are not tried again: put in by a failed upgrade, lifted by a person, by time,
or by new content.

A version is at fault only where a step to it failed: one that this release was seen healthy with
before is not put in quarantine by values that do not suit it. Nor is what a first install failed
with: nothing was ever seen to work with those values (docs/decisions/).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime

from helmops.model.actions import Desired
from helmops.model.declarations import Defaults
from helmops.model.records import Origin, Quarantined, Record, Snapshot, Verdict
from helmops.model.releases import DeclarationKey

_WHY_LENGTH = 300


def is_enabled(desired: Desired) -> bool:
    """Whether failed versions of this release are put in quarantine."""
    said = desired.policy.quarantine.enabled
    return desired.defaults is Defaults.SAFE if said is None else said


def quarantined_after_failure(record: Record, desired: Desired, now: datetime) -> Record:
    """The record with what its newest revision failed with in quarantine, where it belongs there:
    the upgrade is out of retries, and it was the version that changed.
    """
    known = record.head
    if known is None or not _is_at_fault(known, record, desired):
        return record
    entry = Quarantined(
        chart=known.chart_name,
        version=known.chart_version,
        digest=known.artifact_digest,
        scope=desired.policy.quarantine.scope,
        at=now,
        why=(known.message or "it failed")[:_WHY_LENGTH],
        until=now + desired.policy.quarantine.ttl if desired.policy.quarantine.ttl else None,
        by="helmops",
    )
    return put(record, entry)


def _is_at_fault(known: Snapshot, record: Record, desired: Desired) -> bool:
    if not is_enabled(desired) or known.verdict is not Verdict.FAILED:
        return False
    if known.origin is not Origin.UPGRADE:
        return False
    upgrade = desired.spec.upgrade
    retries = upgrade.remediation.retries
    if upgrade.strategy is not None and upgrade.strategy.name == "RetryOnFailure":
        return False
    if retries < 0 or record.upgrade_failures <= retries:
        return False
    return not any(
        s.verdict is Verdict.HEALTHY
        and s.chart_name == known.chart_name
        and s.chart_version == known.chart_version
        and (not s.artifact_digest or s.artifact_digest == known.artifact_digest)
        for s in record.history
    )


def put(record: Record, entry: Quarantined) -> Record:
    """Put a version in quarantine, in the place of an older entry about the same content."""
    others = tuple(
        q
        for q in record.quarantine
        if (q.chart, q.version, q.digest) != (entry.chart, entry.version, entry.digest)
    )
    return record.evolve(quarantine=(entry, *others))


def lift(record: Record, version: str = "") -> Record:
    """Lift the quarantine of a version, or of all."""
    left = tuple(q for q in record.quarantine if version and q.version != version)
    return record if left == record.quarantine else record.evolve(quarantine=left)


def without_past(record: Record, now: datetime) -> Record:
    """Without the entries whose time is up."""
    left = tuple(q for q in record.quarantine if not q.is_over(now))
    return record if len(left) == len(record.quarantine) else record.evolve(quarantine=left)


def in_force(
    key: DeclarationKey, records: Mapping[DeclarationKey, Record], now: datetime
) -> tuple[Quarantined, ...]:
    """All entries that bind a release: its own, and others' whose scope reaches it."""
    return tuple(_in_force(key, records.values(), now))


def _in_force(
    key: DeclarationKey, records: Iterable[Record], now: datetime
) -> Iterable[Quarantined]:
    for record in records:
        for entry in record.quarantine:
            if entry.is_over(now):
                continue
            reaches = (
                record.key == key
                or entry.scope == "all"
                or (entry.scope == "chart" and record.key.namespace == key.namespace)
            )
            if reaches:
                yield entry


def said_of(entry: Quarantined) -> str:
    """Why a version is held back, readable."""
    until = f" until {entry.until:%Y-%m-%d %H:%M}" if entry.until else ""
    return f"in quarantine since {entry.at:%Y-%m-%d %H:%M}{until}: {entry.why}"
