"""The nouns of a Helm release: what it is called, and what Helm has stored of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum


@dataclass(frozen=True, slots=True, order=True)
class DeclarationKey:
    """Namespace and name of a declaration (a HelmRelease unless said otherwise)."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True, order=True)
class ReleaseId:
    """Namespace and name of a release as helm knows it; storage is in the same namespace."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


class HelmStatus(StrEnum):
    """The status that Helm writes to a revision. It is not health (docs/concepts.md)."""

    DEPLOYED = "deployed"
    SUPERSEDED = "superseded"
    FAILED = "failed"
    UNINSTALLED = "uninstalled"
    UNINSTALLING = "uninstalling"
    PENDING_INSTALL = "pending-install"
    PENDING_UPGRADE = "pending-upgrade"
    PENDING_ROLLBACK = "pending-rollback"
    UNKNOWN = "unknown"

    @property
    def is_pending(self) -> bool:
        """Whether helm takes the release as locked, or as half removed."""
        return self in _PENDING


_PENDING = frozenset(
    {
        HelmStatus.PENDING_INSTALL,
        HelmStatus.PENDING_UPGRADE,
        HelmStatus.PENDING_ROLLBACK,
        HelmStatus.UNINSTALLING,
    }
)


class TestPhase(StrEnum):
    """How a test hook's last run ended; empty when it never ran for this revision."""

    __test__ = False

    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    RUNNING = "Running"
    UNKNOWN = "Unknown"
    NEVER = ""


@dataclass(frozen=True, slots=True)
class TestHook:
    """One test of a chart and its last run on this revision."""

    __test__ = False

    name: str
    phase: TestPhase = TestPhase.NEVER
    last_started: datetime | None = None
    last_completed: datetime | None = None


@dataclass(frozen=True, slots=True)
class Revision:
    """One revision in Helm's storage.

    `digest` identifies its content: chart, values, manifest and hooks as templates, without
    status, labels and the hooks' last runs, which helm rewrites. `config_digest` is over the
    user-supplied values only. Numbers restart after an uninstall, so a number alone identifies
    nothing. Times are aware, in UTC.
    """

    number: int
    status: HelmStatus
    digest: str
    chart_name: str
    chart_version: str
    app_version: str
    config_digest: str
    first_deployed: datetime
    last_deployed: datetime
    description: str = ""
    test_hooks: tuple[TestHook, ...] = ()


@dataclass(frozen=True, slots=True)
class StoredRelease:
    """What Helm's storage holds of one release, oldest revision first."""

    revisions: tuple[Revision, ...]
    #: What the observation was made of; equal versions mean an equal storage.
    version: str = ""


@dataclass(frozen=True, slots=True)
class HelmRun:
    """How one helm command went. `output` is redacted and bounded."""

    output: str
    duration: timedelta


#: Called with each readable line that a long action prints, already redacted.
Progress = Callable[[str], None]
