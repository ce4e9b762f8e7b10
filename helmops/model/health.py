"""The nouns of health: of one object, of one check, and of a whole release."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum


class HealthStatus(StrEnum):
    """What kstatus calls an object's status (sigs.k8s.io/cli-utils, `pkg/kstatus`)."""

    CURRENT = "Current"
    IN_PROGRESS = "InProgress"
    FAILED = "Failed"
    TERMINATING = "Terminating"
    NOT_FOUND = "NotFound"
    UNKNOWN = "Unknown"


@dataclass(frozen=True, slots=True)
class Health:
    """Status of one object and why, in one sentence."""

    status: HealthStatus
    message: str = ""


@dataclass(frozen=True, slots=True, order=True)
class ObjectRef:
    """One object in a cluster; `namespace` is empty for objects that have none."""

    api_version: str
    kind: str
    name: str
    namespace: str = ""

    def __str__(self) -> str:
        place = f"{self.namespace}/{self.name}" if self.namespace else self.name
        return f"{self.kind}/{place}"


@dataclass(frozen=True, slots=True)
class CheckResult:
    """How one check ended: helm's objects together count as the check named `readiness`."""

    name: str
    passed: bool
    message: str = ""
    attempts: int = 1


@dataclass(frozen=True, slots=True)
class HealthReport:
    """All that a run of checks found. Empty results mean that nothing was to be checked."""

    results: tuple[CheckResult, ...]
    finished_at: datetime

    @property
    def passed(self) -> bool:
        """Whether every check passed."""
        return all(result.passed for result in self.results)

    @property
    def message(self) -> str:
        """One sentence for a condition: the failures, or how many checks passed."""
        failures = [f"{r.name}: {r.message}" for r in self.results if not r.passed]
        if failures:
            return "; ".join(failures)
        return f"{len(self.results)} checks passed"
