"""The nouns of remediation hooks."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class HookResult:
    """How a remediation hook ended; `output` is redacted and bounded."""

    name: str
    succeeded: bool
    message: str
    output: str = ""
