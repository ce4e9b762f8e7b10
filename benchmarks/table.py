"""One row per figure: ours, the peer's, their ratio, and what was set as the goal."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """One figure. `peer` None where there is none in this run; `goal` is for people."""

    what: str
    ours: float
    unit: str
    peer: float | None = None
    peer_is: str = ""
    goal: str = ""

    def cells(self) -> list[str]:
        ratio = f"{self.ours / self.peer:.2f}" if self.peer else ""
        peer = f"{_number(self.peer)} {self.unit} ({self.peer_is})" if self.peer else "-"
        return [self.what, f"{_number(self.ours)} {self.unit}", peer, ratio, self.goal]


def render(rows: Iterable[Row]) -> str:
    lines = [["what", "helmops", "peer", "ratio", "goal"], *[row.cells() for row in rows]]
    widths = [max(len(line[column]) for line in lines) for column in range(5)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.0f}" if value >= 100 else f"{value:.2f}" if value >= 0.1 else f"{value:.4f}"
