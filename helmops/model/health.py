"""The nouns of health: of one object, and of one check."""

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
class LiveHealth:
    """What watches of a release's objects show, folded into one fact.

    `is_live` says that the watches are connected and have listed; else nothing is known. `bad` is
    what is wrong, one sentence, empty when all is well; `is_final` that it cannot recover by
    itself. `since` is when it began, and `version` grows with each change of `bad`.
    """

    is_live: bool
    bad: str = ""
    is_final: bool = False
    since: datetime | None = None
    version: int = 0
