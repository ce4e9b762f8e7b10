"""What a pass wants, sees, decides and gets: the values that go into and out of the decider."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, TypeAlias

from helmops.model.charts import ChartArtifact
from helmops.model.declarations import (
    Defaults,
    HelmReleaseSpec,
    PolicyCheck,
    ReleasePolicySpec,
    RemediationHook,
)
from helmops.model.health import CheckResult, LiveHealth
from helmops.model.records import EvidenceNote, Hold
from helmops.model.releases import DeclarationKey, HelmStatus, ReleaseId, Revision

# What is wanted ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Target:
    """What the release should run: a chart at hand and its merged values."""

    chart: ChartArtifact
    values: Mapping[str, Any] = field(repr=False)
    config_digest: str
    #: Why this version was chosen, one sentence.
    choice: str = ""
    #: Versions that a rule holds back, readable: "2.0.0: upgrade.allow is minor".
    held_back: tuple[str, ...] = ()
    #: The deployed version, where the chosen one is lower; else empty.
    downgrade_from: str = ""
    #: Why its source could not be asked, where this is of what it offered last; else empty.
    fetch_failed: str = ""
    #: The deployed version, where its source does not have it any more; else empty.
    yanked: str = ""
    #: The digest that the deployed version had, where its source has other content under that
    #: version now; else empty.
    retagged_from: str = ""
    #: `reconcileStrategy: Revision`: other content under the same version is a change as well.
    follows_content: bool = False
    #: Why it is in quarantine, where nothing else is in range; else empty.
    quarantined: str = ""

    @property
    def post_render_digest(self) -> str:
        """Of what becomes of the chart's objects after rendering; empty for nothing."""
        rendering = self.chart.post_rendering
        return rendering.digest if rendering is not None else ""


@dataclass(frozen=True, slots=True)
class Unresolved:
    """Why there is no target just now."""

    reason: str
    message: str
    #: Trying again is of no use before something changes.
    stalled: bool = False
    retry_at: datetime | None = None
    #: Nobody asked: a command works from the record alone, and nothing is wrong with the source.
    is_unasked: bool = False


@dataclass(frozen=True, slots=True)
class Desired:
    """One declared release, its defaults filled in, and what was resolved for it.

    `waiting_for` names dependencies that are not ready, readable.
    """

    key: DeclarationKey
    release: ReleaseId
    spec: HelmReleaseSpec
    policy: ReleasePolicySpec
    defaults: Defaults
    declaration_digest: str
    target: Target | Unresolved
    origin: str = ""
    #: The `-f` that the declaration came from, in full; what another one declares is not ours.
    location: str = ""
    #: The Git revision that the declaration was read at; empty where it is not from Git.
    commit: str = ""
    manifest: Mapping[str, Any] = field(default_factory=dict, repr=False)
    waiting_for: tuple[str, ...] = ()
    is_observed_only: bool = False


# What is seen -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Observation:
    """One immutable look at a release: its stored revisions, oldest first.

    `our_helm_runs` tells that a helm which a dead helmops on this machine left is still at work.
    `elsewhere` has the revisions under the name and namespace that the record knows, where the
    declaration names another place now. `live` is what watches of the release's objects show, None
    where nobody watches.
    """

    revisions: tuple[Revision, ...] = ()
    our_helm_runs: bool = False
    elsewhere: tuple[Revision, ...] = ()
    live: LiveHealth | None = None

    @property
    def head(self) -> Revision | None:
        """The newest stored revision, or None."""
        return self.revisions[-1] if self.revisions else None

    def revision(self, number: int) -> Revision | None:
        """The stored revision of that number, or None."""
        return next((r for r in self.revisions if r.number == number), None)

    @property
    def is_absent(self) -> bool:
        """Whether nothing is released: no revision, or the newest says that it was uninstalled."""
        head = self.head
        return head is None or head.status is HelmStatus.UNINSTALLED


class ReleaseState(StrEnum):
    """Flux's words; Suspended, Diverged, Unchecked and Watching are ours."""

    SUSPENDED = "Suspended"
    ABSENT = "Absent"
    LOCKED = "Locked"
    UNMANAGED = "Unmanaged"
    DIVERGED = "Diverged"
    FAILED = "Failed"
    OUT_OF_SYNC = "OutOfSync"
    UNCHECKED = "Unchecked"
    UNTESTED = "Untested"
    WATCHING = "Watching"
    IN_SYNC = "InSync"


@dataclass(frozen=True, slots=True)
class Classified:
    """A state and what tells it, in one sentence."""

    state: ReleaseState
    why: str


# What can be done -------------------------------------------------------------------------------


class HookPoint(StrEnum):
    """When remediation hooks run."""

    BEFORE_UPGRADE = "beforeUpgrade"
    FAILED = "failed"
    BEFORE_ROLLBACK = "beforeRollback"
    AFTER_ROLLBACK = "afterRollback"
    AFTER_SUCCESS = "afterSuccess"


@dataclass(frozen=True, slots=True)
class Install:
    """`helm install` of the target."""

    target: Target


@dataclass(frozen=True, slots=True)
class Upgrade:
    """`helm upgrade` to the target."""

    target: Target
    from_version: str = ""


@dataclass(frozen=True, slots=True)
class Adopt:
    """Take the newest stored revision into the record as it is; helm is not run.

    With `only_if_same` the target is rendered first, and anything that it would change makes the
    adoption fail with the plan, so that the release is held. `is_absorbed`: it is left as it is,
    other than declared, until the declaration changes.
    """

    revision: Revision
    target: Target | None
    only_if_same: bool
    is_absorbed: bool = False


@dataclass(frozen=True, slots=True)
class RunTests:
    """`helm test` of the newest revision."""

    revision: int


@dataclass(frozen=True, slots=True)
class CheckHealth:
    """Wait for readiness and run the policy's checks; `is_rewatch` inside the watch window.

    `reported` is what watches say is wrong; with `is_final` it is a failure by itself, as a
    container that crashes again and again is ready now and then.
    """

    revision: int
    checks: tuple[PolicyCheck, ...]
    waits: bool
    is_rewatch: bool = False
    reported: str = ""
    is_final: bool = False


@dataclass(frozen=True, slots=True)
class Rollback:
    """`helm rollback` to a revision that was seen healthy."""

    to: int
    digest: str
    is_remediation: bool = True


@dataclass(frozen=True, slots=True)
class Uninstall:
    """`helm uninstall`: as remediation, because the declaration went, or because it moved."""

    release: ReleaseId
    why: str
    is_remediation: bool = False


@dataclass(frozen=True, slots=True)
class Unlock:
    """Break a lock that our own dead process left, or, `is_foreign`, one that somebody else left:
    only where nothing of the release changed for `quiet`.
    """

    revision: int
    is_foreign: bool = False
    quiet: timedelta = timedelta(0)


@dataclass(frozen=True, slots=True)
class Inspect:
    """Render what an upgrade would apply, and find in it what a rollback could not undo."""

    target: Target
    base: Revision


@dataclass(frozen=True, slots=True)
class GatherEvidence:
    """Keep what tells of a failure, before anything is rolled back or removed. `healthy` is the
    revision to compare with, None where there is none.
    """

    revision: int
    healthy: int | None
    #: What helm said, redacted and bounded.
    output: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class KeepCopy:
    """Copy the newest healthy revision, so that it can be put back when somebody prunes it."""

    revision: int
    digest: str


@dataclass(frozen=True, slots=True)
class PutBack:
    """Put the kept copy of a healthy revision back into Helm's storage."""

    revision: int
    digest: str


@dataclass(frozen=True, slots=True)
class RunHooks:
    """Run the remediation hooks of one point, in order."""

    point: HookPoint
    hooks: tuple[RemediationHook, ...]
    revision: int | None


@dataclass(frozen=True, slots=True)
class Prune:
    """Delete old revisions from Helm's storage, as `maxHistory` asks."""

    revisions: tuple[int, ...]


Action: TypeAlias = (
    Install
    | Upgrade
    | Adopt
    | RunTests
    | CheckHealth
    | Rollback
    | Uninstall
    | Unlock
    | RunHooks
    | Prune
    | Inspect
    | GatherEvidence
    | KeepCopy
    | PutBack
)


@dataclass(frozen=True, slots=True)
class Outcome:
    """How an action ended. Failures are values; `message` and `output` are redacted and bounded.

    `stalled` says that trying again is of no use before something changes. `plan` is what an
    adoption would change, or what an inspection found irreversible. `hooks` and `checks` have what
    these actions found. `output` is helm's.
    """

    succeeded: bool
    started: datetime
    finished: datetime
    reason: str = ""
    message: str = ""
    stalled: bool = False
    output: str = ""
    plan: tuple[str, ...] = ()
    checks: tuple[CheckResult, ...] = ()
    hooks: tuple[HookOutcome, ...] = ()
    evidence: EvidenceNote | None = None
    #: It could not be carried through, so nothing was learnt of the release.
    undetermined: bool = False
    #: It did not even begin: a trace of it in storage would be somebody else's.
    untouched: bool = False

    @property
    def duration(self) -> timedelta:
        """From start to end."""
        return self.finished - self.started


@dataclass(frozen=True, slots=True)
class HookOutcome:
    """How one remediation hook ended; `stops` when its failure must stop what comes next."""

    name: str
    succeeded: bool
    message: str
    output: str = ""
    stops: bool = False


@dataclass(frozen=True, slots=True)
class Done:
    """An action of this pass and how it ended."""

    action: Action
    outcome: Outcome


# What is decided --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Run:
    """Do this, then look again."""

    action: Action
    state: ReleaseState
    why: str


@dataclass(frozen=True, slots=True)
class Settled:
    """Nothing to do before something changes. `reason` becomes Ready's."""

    state: ReleaseState
    why: str
    reason: str = ""


@dataclass(frozen=True, slots=True)
class RetryAfter:
    """Nothing to do before `at`, unless something changes earlier."""

    at: datetime
    state: ReleaseState
    why: str
    reason: str
    #: What is wanted, or what is there, could not be found out: nobody knows what is to be done.
    is_blind: bool = False


@dataclass(frozen=True, slots=True)
class Stalled:
    """A person, the declaration or the source must change something first.

    A `is_refusal` answers a request that cannot be met; of the release it says nothing.
    """

    state: ReleaseState
    why: str
    reason: str
    is_refusal: bool = False


@dataclass(frozen=True, slots=True)
class Held:
    """Left as it is until `resume` or a changed declaration."""

    state: ReleaseState
    hold: Hold


Decision: TypeAlias = Run | Settled | RetryAfter | Stalled | Held


@dataclass(frozen=True, slots=True)
class Request:
    """What a person or a trigger asked for, once.

    `rollback_to` is a revision number, 0 for the last one seen healthy, None for no rollback.
    """

    force: str = ""
    reset: str = ""
    reconcile: str = ""
    rollback_to: int | None = None
    test: bool = False
    check: bool = False
    by: str = ""


NO_REQUEST = Request()
