"""What helmops remembers of one release: the record, and the snapshots of the revisions it made.

A record is a value. `helmops.decide` makes new ones out of old ones; the record Secret in the
cluster is only where the newest is kept.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from typing import Any

import msgspec

from helmops.model.ledger import Ledger
from helmops.model.releases import (
    DeclarationKey,
    HelmStatus,
    ReleaseId,
    Revision,
    TestHook,
)


class Verdict(StrEnum):
    """What is known of a revision: only a healthy one is ever rolled back to."""

    HEALTHY = "healthy"
    FAILED = "failed"
    UNKNOWN = "unknown"


class Proof(StrEnum):
    """How far one kind of evidence about a revision has come."""

    PENDING = "pending"
    PASSED = "passed"
    FAILED = "failed"
    #: Not asked for: waiting is disabled, or tests are not enabled.
    SKIPPED = "skipped"
    #: A test failed and the declaration says to go on all the same.
    IGNORED = "ignored"


class Origin(StrEnum):
    """The action that brought a revision about."""

    INSTALL = "install"
    UPGRADE = "upgrade"
    ROLLBACK = "rollback"
    ADOPT = "adopt"


@dataclass(frozen=True, slots=True)
class EvidenceNote:
    """Where the evidence of a failure is: its number in the store (0 where it could not be stored),
    and the most telling of it.
    """

    number: int
    summary: str
    digest: str = ""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One revision as helmops knows it, and what it has seen of it.

    `released` is how helm's own action ended, `health` what readiness and the policy's checks
    found, `tests` what the chart's tests found. `watched_until` is the end of its watch window.
    """

    revision: int
    digest: str
    origin: Origin
    status: HelmStatus
    chart_name: str
    chart_version: str
    app_version: str
    config_digest: str
    first_deployed: datetime
    last_deployed: datetime
    artifact_digest: str = ""
    #: Of `postRenderers` and `commonMetadata`; empty where there were none.
    post_render_digest: str = ""
    released: Proof = Proof.PENDING
    health: Proof = Proof.PENDING
    tests: Proof = Proof.PENDING
    watched_until: datetime | None = None
    watched: Proof = Proof.SKIPPED
    judged_at: datetime | None = None
    message: str = ""
    test_hooks: tuple[TestHook, ...] = ()
    #: The hook points that have run for this revision.
    hooks_run: tuple[str, ...] = ()
    #: The number of the revision that a rollback put back; 0 for other revisions.
    restores: int = 0
    #: What was gathered after it failed; None before that.
    evidence: EvidenceNote | None = None
    #: Of the archive as its source gave it; empty where nobody knows.
    upstream_digest: str = ""
    #: What the step to this revision did that a rollback cannot undo.
    barriers: tuple[str, ...] = ()

    @property
    def verdict(self) -> Verdict:
        """Healthy takes all the proof that was asked for, and readiness in any case."""
        proofs = (self.released, self.health, self.tests, self.watched)
        if Proof.FAILED in proofs:
            return Verdict.FAILED
        if self.released is not Proof.PASSED or self.health is not Proof.PASSED:
            return Verdict.UNKNOWN
        if self.tests not in (Proof.PASSED, Proof.SKIPPED):
            return Verdict.UNKNOWN
        if self.watched is Proof.PENDING:
            return Verdict.UNKNOWN
        return Verdict.HEALTHY

    @property
    def versioned_chart(self) -> str:
        """Flux's `app@1.2.0`."""
        return f"{self.chart_name}@{self.chart_version}"

    def is_of(self, revision: Revision) -> bool:
        """Whether this is the snapshot of that stored revision: same content, same moment."""
        return (
            self.digest == revision.digest
            and self.revision == revision.number
            and self.last_deployed == revision.last_deployed
        )


class ConditionStatus(StrEnum):
    """Kubernetes' three truth values."""

    TRUE = "True"
    FALSE = "False"
    UNKNOWN = "Unknown"


@dataclass(frozen=True, slots=True)
class Condition:
    """A Kubernetes condition."""

    type: str
    status: ConditionStatus
    reason: str
    message: str
    last_transition_time: datetime
    observed_generation: int = 0


@dataclass(frozen=True, slots=True)
class Attempt:
    """The last install or upgrade that was tried, and with what.

    `error` and `reason` are empty when it succeeded. `stalled` says that trying again is of no use
    before something changes; `changed_storage` whether helm got as far as storing a revision.
    """

    action: Origin
    generation: int
    chart_version: str
    artifact_digest: str
    artifact_revision: str
    config_digest: str
    at: datetime
    seconds: float = 0.0
    reason: str = ""
    error: str = ""
    stalled: bool = False
    changed_storage: bool = False


@dataclass(frozen=True, slots=True)
class Suspension:
    """Somebody said `helmops suspend`."""

    at: datetime
    by: str = ""


class HoldReason(StrEnum):
    """Why a release is left as it is although the declaration says otherwise."""

    #: Exists, was not made by helmops, and the declaration would change it.
    UNMANAGED = "ReleaseNotManaged"
    #: Somebody made a revision with helm.
    DIVERGED = "RevisionMadeByHand"
    #: `helmops rollback` put it where it is.
    ROLLED_BACK = "RolledBackByHand"
    #: The version that was resolved is lower than the deployed one.
    DOWNGRADE = "DowngradeHeld"
    #: The deployed version is gone from its source, and only older ones are left.
    YANKED = "VersionYanked"
    #: The source has other content under the deployed version.
    RETAGGED = "VersionRetagged"
    #: Release name or namespace changed; going on would uninstall the old one.
    MOVED = "ReleaseMoved"
    #: The chart's name changed; going on would uninstall and install.
    CHART_NAME = "ChartNameChanged"
    #: It failed past a step that a rollback cannot undo.
    IRREVERSIBLE = "IrreversibleStep"


@dataclass(frozen=True, slots=True)
class Hold:
    """A release that is held until `resume` or a changed declaration.

    `subject` is what it is about: a held revision's digest, a version; another subject is another
    hold. `plan` tells a person what going on would do.
    """

    reason: HoldReason
    message: str
    at: datetime
    declaration_digest: str
    subject: str = ""
    plan: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class InFlight:
    """Written before helm is started, so that after a crash its traces are known as ours.

    `base` is the number of the newest revision before the action (0 for none); `target_digest` is
    the digest of the revision that is rolled back to.
    """

    action: str
    base: int
    at: datetime
    chart_name: str = ""
    chart_version: str = ""
    config_digest: str = ""
    artifact_digest: str = ""
    upstream_digest: str = ""
    post_render_digest: str = ""
    target_digest: str = ""
    target_revision: int = 0
    #: A rollback that a person asked for: it ends in a hold.
    by_hand: bool = False
    holder: str = ""


@dataclass(frozen=True, slots=True)
class Quarantined:
    """A chart version that is not tried again. `digest` is that of the chart's content, so that new
    content under the same version is another one; empty means any content.

    `scope` says for whom: `release`, `chart` (all releases of it in the namespace) or `all`.
    `until` is when it is lifted by itself.
    """

    chart: str
    version: str
    digest: str
    scope: str
    at: datetime
    why: str
    until: datetime | None = None
    by: str = ""

    def is_over(self, now: datetime) -> bool:
        """Whether its time is up."""
        return self.until is not None and now >= self.until

    def means(self, chart: str, version: str, digest: str) -> bool:
        """Whether it is about that chart version; an unknown digest (empty) may be any."""
        return (self.chart, self.version) == (chart, version) and (
            not self.digest or not digest or self.digest == digest
        )


@dataclass(frozen=True, slots=True)
class KeptCopy:
    """The healthy revision of which a copy is kept beside the record."""

    revision: int
    digest: str


@dataclass(frozen=True, slots=True)
class HealthLost:
    """A revision that was proven healthy, and is not well any more."""

    message: str
    at: datetime


@dataclass(frozen=True, slots=True)
class Inspected:
    """What was found of a step before it is made: from the revision `base` (its digest) to a chart
    and values. `barriers` are what a rollback could not undo of it.
    """

    base: str
    artifact_digest: str
    config_digest: str
    barriers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Absorbed:
    """A revision made by hand that was taken as it is (`outOfBand: absorb`), until the declaration
    means another chart or other values than it did then.
    """

    digest: str
    chart_version: str
    config_digest: str


@dataclass(frozen=True, slots=True)
class Handled:
    """The tokens of the requests that were handled last (Flux's annotations)."""

    reconcile: str = ""
    force: str = ""
    reset: str = ""


@dataclass(frozen=True, slots=True)
class HookRecord:
    """The last run of one remediation hook."""

    name: str
    point: str
    at: datetime
    succeeded: bool
    message: str
    output: str = ""


@dataclass(frozen=True, slots=True)
class CheckRecord:
    """The last result of one health check."""

    name: str
    passed: bool
    message: str
    at: datetime


@dataclass(frozen=True, slots=True)
class Record:
    """All that helmops remembers of one release. `history` has the newest snapshot first.

    `version` is the record Secret's resourceVersion, empty for a record that was never saved.
    `manifest` is the HelmRelease as declared: it may hold secret values, so it goes nowhere but
    into the record Secret and to the person who may read that.
    """

    key: DeclarationKey
    release: ReleaseId
    version: str = ""
    manifest: dict[str, Any] = field(default_factory=dict, repr=False)
    #: `file:line` of the declaration, and the `-f` that it came from, in full.
    origin: str = ""
    location: str = ""
    #: What its policies say, for commands that have no declarations at hand. May hold secrets.
    policy: dict[str, Any] = field(default_factory=dict, repr=False)
    declaration_digest: str = ""
    generation: int = 0
    observed_generation: int = 0
    history: tuple[Snapshot, ...] = ()
    failures: int = 0
    install_failures: int = 0
    upgrade_failures: int = 0
    rollback_failures: int = 0
    interruptions: int = 0
    attempt: Attempt | None = None
    in_flight: InFlight | None = None
    suspended: Suspension | None = None
    hold: Hold | None = None
    #: What a person accepted with `resume`: the reason and subject of the hold that it lifted.
    accepted: str = ""
    handled: Handled = Handled()
    prune: bool = False
    removed: bool = False
    state: str = ""
    conditions: tuple[Condition, ...] = ()
    checks: tuple[CheckRecord, ...] = ()
    hooks: tuple[HookRecord, ...] = ()
    next_try: datetime | None = None
    held_back: tuple[str, ...] = ()
    quarantine: tuple[Quarantined, ...] = ()
    kept: KeptCopy | None = None
    lost: HealthLost | None = None
    #: What watches reported in the watch window when the release was last looked at and was well.
    seen_bad: str = ""
    inspected: Inspected | None = None
    absorbed: Absorbed | None = None
    updated_at: datetime | None = None
    #: How far its ledger has come, with the newest entries.
    ledger: Ledger | None = None

    @property
    def head(self) -> Snapshot | None:
        """The newest revision that helmops knows, or None."""
        return self.history[0] if self.history else None

    @property
    def last_healthy(self) -> Snapshot | None:
        """The newest snapshot that was seen healthy, or None."""
        return next((s for s in self.history if s.verdict is Verdict.HEALTHY), None)

    @property
    def healthy_digests(self) -> frozenset[str]:
        """Digests of all revisions that were seen healthy."""
        return frozenset(s.digest for s in self.history if s.verdict is Verdict.HEALTHY)

    def condition(self, kind: str) -> Condition | None:
        """The condition of that type, or None."""
        return next((c for c in self.conditions if c.type == kind), None)

    def is_ready(self) -> bool:
        """Whether Ready is True for the declaration as it is now."""
        ready = self.condition("Ready")
        return (
            ready is not None
            and ready.status is ConditionStatus.TRUE
            and self.observed_generation == self.generation
        )

    def evolve(self, **changes: Any) -> Record:
        """A copy with these fields changed."""
        return replace(self, **changes)

    def with_head(self, **changes: Any) -> Record:
        """A copy with the newest snapshot changed. There must be one."""
        return replace(self, history=(replace(self.history[0], **changes), *self.history[1:]))

    def to_json(self) -> bytes:
        """The record as JSON, `version` left out. May hold secret values."""
        return _encoder.encode(replace(self, version=""))

    @classmethod
    def from_json(cls, data: bytes, *, version: str = "") -> Record:
        """Read what `to_json` wrote. Raises ValueError (msgspec's) for anything else."""
        return replace(_decoder.decode(data), version=version)

    def public_status(self) -> dict[str, Any]:
        """Flux's v2 `status`, with ours under `helmops`. Holds no secret values."""
        head, healthy = self.head, self.last_healthy
        status: dict[str, Any] = {
            "observedGeneration": self.observed_generation,
            "conditions": [_condition(c) for c in self.conditions],
            "storageNamespace": self.release.namespace,
            "history": [_snapshot(s, self.release) for s in self.history],
            "failures": self.failures,
            "installFailures": self.install_failures,
            "upgradeFailures": self.upgrade_failures,
        }
        if self.attempt is not None:
            status |= {
                "lastAttemptedGeneration": self.attempt.generation,
                "lastAttemptedReleaseAction": self.attempt.action.value,
                "lastAttemptedReleaseActionDuration": f"{self.attempt.seconds:.3f}s",
                "lastAttemptedRevision": self.attempt.artifact_revision
                or self.attempt.chart_version,
                "lastAttemptedRevisionDigest": f"sha256:{self.attempt.artifact_digest}",
                "lastAttemptedConfigDigest": f"sha256:{self.attempt.config_digest}",
            }
        for name, token in (
            ("lastHandledReconcileAt", self.handled.reconcile),
            ("lastHandledForceAt", self.handled.force),
            ("lastHandledResetAt", self.handled.reset),
        ):
            if token:
                status[name] = token
        if head is not None and head.post_render_digest:
            status["observedPostRenderersDigest"] = f"sha256:{head.post_render_digest}"
        ours: dict[str, Any] = {
            "state": self.state,
            "origin": self.origin,
            "release": {"namespace": self.release.namespace, "name": self.release.name},
            "verdict": head.verdict.value if head else Verdict.UNKNOWN.value,
            "lastHealthy": {
                "revision": healthy.revision,
                "digest": f"sha256:{healthy.digest}",
                "chartVersion": healthy.chart_version,
            }
            if healthy
            else None,
            "suspended": self.suspended is not None,
            "removed": self.removed,
            "hold": {
                "reason": self.hold.reason.value,
                "message": self.hold.message,
                "at": _time(self.hold.at),
                "plan": list(self.hold.plan),
            }
            if self.hold
            else None,
            "heldBack": list(self.held_back),
            "quarantine": [
                {
                    "chart": q.chart,
                    "version": q.version,
                    "digest": f"sha256:{q.digest}" if q.digest else "",
                    "scope": q.scope,
                    "at": _time(q.at),
                    "until": _time(q.until) if q.until else None,
                    "why": q.why,
                    "by": q.by,
                }
                for q in self.quarantine
            ],
            "healthLost": {"message": self.lost.message, "at": _time(self.lost.at)}
            if self.lost
            else None,
            "checks": [
                {"name": c.name, "passed": c.passed, "message": c.message, "at": _time(c.at)}
                for c in self.checks
            ],
            "hooks": [
                {
                    "name": h.name,
                    "at": h.point,
                    "time": _time(h.at),
                    "succeeded": h.succeeded,
                    "message": h.message,
                    "output": h.output,
                }
                for h in self.hooks
            ],
            "rollbackFailures": self.rollback_failures,
            "nextTry": _time(self.next_try) if self.next_try else None,
            "updatedAt": _time(self.updated_at) if self.updated_at else None,
        }
        status["helmops"] = ours
        return status

    def to_manifest(self) -> dict[str, Any]:
        """The HelmRelease as declared, with generation and `status`. May hold secrets."""
        manifest = dict(self.manifest) or {
            "apiVersion": "helm.toolkit.fluxcd.io/v2",
            "kind": "HelmRelease",
        }
        metadata = dict(manifest.get("metadata") or {})
        metadata |= {
            "name": self.key.name,
            "namespace": self.key.namespace,
            "generation": self.generation,
        }
        manifest["metadata"] = metadata
        manifest["status"] = self.public_status()
        return manifest


def healthy_secret_name(release: ReleaseId) -> str:
    """The name of the Secret with the copy of the last healthy revision (`Record.kept`)."""
    return f"helmops.{release.name}.healthy"


def _time(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def _condition(condition: Condition) -> dict[str, Any]:
    return {
        "type": condition.type,
        "status": condition.status.value,
        "reason": condition.reason,
        "message": condition.message,
        "lastTransitionTime": _time(condition.last_transition_time),
        "observedGeneration": condition.observed_generation,
    }


def _snapshot(snapshot: Snapshot, release: ReleaseId) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "name": release.name,
        "namespace": release.namespace,
        "version": snapshot.revision,
        "status": snapshot.status.value,
        "action": snapshot.origin.value,
        "digest": f"sha256:{snapshot.digest}",
        "chartName": snapshot.chart_name,
        "chartVersion": snapshot.chart_version,
        "appVersion": snapshot.app_version,
        "configDigest": f"sha256:{snapshot.config_digest}",
        "firstDeployed": _time(snapshot.first_deployed),
        "lastDeployed": _time(snapshot.last_deployed),
        "helmops": {
            "verdict": snapshot.verdict.value,
            "released": snapshot.released.value,
            "health": snapshot.health.value,
            "tests": snapshot.tests.value,
            "watched": snapshot.watched.value,
            "message": snapshot.message,
            "watchedUntil": _time(snapshot.watched_until) if snapshot.watched_until else None,
            "barriers": list(snapshot.barriers),
            "evidence": {
                "number": snapshot.evidence.number,
                "summary": snapshot.evidence.summary,
            }
            if snapshot.evidence
            else None,
        },
    }
    if snapshot.test_hooks:
        entry["testHooks"] = {
            hook.name: {
                "phase": hook.phase.value,
                **({"lastStarted": _time(hook.last_started)} if hook.last_started else {}),
                **({"lastCompleted": _time(hook.last_completed)} if hook.last_completed else {}),
            }
            for hook in snapshot.test_hooks
        }
    return entry


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Record)
