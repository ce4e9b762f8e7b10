"""The nouns of hooks: remediation hooks, which are ours, and those of charts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class HookResult:
    """How a remediation hook ended; `output` is redacted and bounded."""

    name: str
    succeeded: bool
    message: str
    output: str = ""


@dataclass(frozen=True, slots=True)
class ChartHook:
    """A hook or test of a chart, as helm keeps it with a revision.

    `events` are when it runs (`pre-upgrade`, `test`…), `delete_policies` when helm deletes it.
    `phase` is how it last ran on this revision (`Succeeded`, `Failed`, `Running`…), empty when it
    did not. `manifest` is the object, which may hold secrets.
    """

    kind: str
    name: str
    namespace: str
    events: tuple[str, ...]
    delete_policies: tuple[str, ...] = ()
    phase: str = ""
    manifest: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @property
    def is_test(self) -> bool:
        """Whether `helm test` runs it."""
        return not {"test", "test-success"}.isdisjoint(self.events)
