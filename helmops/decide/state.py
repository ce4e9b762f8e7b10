"""In which state a release is: the first rule that applies."""

from __future__ import annotations

from helmops.model.actions import (
    Classified,
    Desired,
    Observation,
    ReleaseState,
    Target,
)
from helmops.model.records import Origin, Proof, Record, Snapshot, Verdict
from helmops.model.releases import Revision


def classify(desired: Desired, observed: Observation, record: Record) -> Classified:
    """Compare what is wanted with what is stored and remembered.

    Computational only. Each rule has its reason above it; the order is the design's, with one
    addition: what a rollback restored, or what was taken over, is checked before it is compared
    with the declaration.
    """
    # Nothing else matters for a release that somebody asked to leave alone.
    if desired.spec.suspend:
        return Classified(ReleaseState.SUSPENDED, "spec.suspend is true")
    if record.suspended is not None:
        by = f" by {record.suspended.by}" if record.suspended.by else ""
        return Classified(ReleaseState.SUSPENDED, f"suspended{by}")

    head = observed.head
    if head is None:
        return Classified(ReleaseState.ABSENT, f"there is no release {desired.release}")
    if observed.is_absent:
        return Classified(ReleaseState.ABSENT, f"revision {head.number} is uninstalled")

    # While an operation is under way, nothing that is stored is final.
    if head.status.is_pending:
        return Classified(
            ReleaseState.LOCKED,
            f"revision {head.number} is {head.status.value} since {head.last_deployed:%H:%M:%S}",
        )

    # Without a snapshot nothing tells that helmops made this release.
    known = record.head
    if known is None:
        return Classified(
            ReleaseState.UNMANAGED,
            f"revision {head.number} ({head.chart_name}@{head.chart_version}) was not made by "
            "helmops",
        )
    if not known.is_of(head):
        return Classified(
            ReleaseState.DIVERGED,
            f"revision {head.number} ({head.chart_name}@{head.chart_version}, "
            f"{head.status.value}) was not made by helmops, which knows revision {known.revision}",
        )

    if known.verdict is Verdict.FAILED:
        return Classified(
            ReleaseState.FAILED, f"revision {head.number} failed: {known.message or 'no reason'}"
        )

    # What was restored or taken over is looked at before it is changed: it may be what the next
    # failure goes back to.
    is_baseline = known.origin in (Origin.ROLLBACK, Origin.ADOPT)
    difference = difference_to_target(desired, head, known)
    if is_absorbed(desired, head, record):
        difference = ""
    if difference and not is_baseline:
        return Classified(ReleaseState.OUT_OF_SYNC, difference)
    if known.health is Proof.PENDING:
        return Classified(ReleaseState.UNCHECKED, f"revision {head.number} was not checked yet")
    if is_untested(desired, known):
        return Classified(ReleaseState.UNTESTED, f"revision {head.number} was not tested yet")
    # What was restored is watched, but who mends the declaration meanwhile does not wait for that.
    is_mended = bool(difference) and not record.failures
    if known.watched is Proof.PENDING and not is_mended:
        until = f" until {known.watched_until:%H:%M:%S}" if known.watched_until else ""
        return Classified(ReleaseState.WATCHING, f"revision {head.number} is watched{until}")
    if difference:
        return Classified(ReleaseState.OUT_OF_SYNC, difference)
    return Classified(
        ReleaseState.IN_SYNC, f"revision {head.number} ({known.versioned_chart}) is as declared"
    )


def is_absorbed(desired: Desired, head: Revision, record: Record) -> bool:
    """Whether the newest revision was made by hand and taken as it is, and the declaration means
    what it meant then.
    """
    absorbed, target = record.absorbed, desired.target
    return (
        absorbed is not None
        and absorbed.digest == head.digest
        and isinstance(target, Target)
        and (absorbed.chart_version, absorbed.config_digest)
        == (target.chart.version, target.config_digest)
    )


def is_untested(desired: Desired, known: Snapshot) -> bool:
    """Whether tests are asked for that never ran on this revision.

    An adopted revision is not tested: tests are hooks, and adopting runs none.
    """
    if not desired.spec.test.enable or known.origin is Origin.ADOPT:
        return False
    return known.tests in (Proof.PENDING, Proof.SKIPPED)


def difference_to_target(desired: Desired, head: Revision, known: Snapshot | None) -> str:
    """What the target has other than the stored revision, readable; empty when nothing, or when
    there is no target to compare with.

    As Flux does, the chart's name and version and the digest of the values are compared, and the
    chart's content only where `reconcileStrategy: Revision` asks for it, or where what is published
    under one version was changed.
    """
    target = desired.target
    if not isinstance(target, Target):
        return ""
    chart = target.chart
    if head.chart_name != chart.name:
        return f"chart {head.chart_name} is to become {chart.name}"
    if head.chart_version != chart.version:
        return f"{chart.name} {head.chart_version} is to become {chart.version}"
    if head.config_digest != target.config_digest:
        return "values changed"
    if known is not None and known.post_render_digest != target.post_render_digest:
        return "postRenderers or commonMetadata changed"
    if target.retagged_from:
        return f"content of {chart.name} {chart.version} changed in its source"
    if (
        target.follows_content
        and known is not None
        and known.artifact_digest
        and known.artifact_digest != chart.digest
    ):
        return f"content of {chart.name} {chart.version} changed"
    return ""
