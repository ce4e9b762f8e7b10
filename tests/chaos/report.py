"""The outcome of all cases: a line each, and one table of what was done in which phase."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from devcluster.binaries import KUBERNETES_VERSION
from tests.chaos.cases import Case
from tests.chaos.judge import Kind, Problem
from tests.e2e.phases import PHASES

_COUNTED = {
    Kind.STUCK: "stuck releases",
    Kind.WRONG_TARGET: "wrong targets",
    Kind.LOST: "lost revisions",
    Kind.TWICE: "things done twice",
    Kind.UNEXPECTED: "other failures",
}


@dataclass(frozen=True)
class Result:
    """How one case ended; no problems is what it should have."""

    case: Case
    problems: Sequence[Problem]
    seconds: float


def line(result: Result, number: int, of: int) -> str:
    """One line while the cases go on."""
    word = "FAIL" if result.problems else "ok"
    return f"[{number:3}/{of}] {word:4} {result.seconds:5.1f} s  {result.case.name}"


def table(results: Sequence[Result]) -> str:
    """What was done, by phase: how many cases passed, of how many."""
    rows = [["", *PHASES], ["---", *("---" for _ in PHASES)]]
    for what in dict.fromkeys(result.case.what for result in results):
        row = [what]
        for phase in PHASES:
            there = [r for r in results if (r.case.what, r.case.phase) == (what, phase)]
            good = sum(not result.problems for result in there)
            row.append(f"{good}/{len(there)}" if there else "")
        rows.append(row)
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "| " + " | ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) + " |"
        for row in rows
    )


def summary(results: Sequence[Result], seconds: float) -> str:
    """The counts, of releases rather than of problems."""
    counts = ", ".join(
        f"{sum(any(p.kind is kind for p in r.problems) for r in results)} {words}"
        for kind, words in _COUNTED.items()
    )
    return f"{len(results)} cases in {seconds / 60:.1f} minutes: {counts}."


def page(results: Sequence[Result], seconds: float, helms: Mapping[str, Path]) -> str:
    """docs/chaos.md."""
    versions = ", ".join(_version(helm) for helm in helms.values())
    return f"""\
<!-- Written by `make chaos CHAOS=--write`; changes belong into tests/chaos. -->

# Chaos

What `make chaos` did to helmops on a local cluster with a real API server (Kubernetes
{KUBERNETES_VERSION}) and real helm ({versions}), and how many cases of how many ended well.

{table(results)}

{summary(results, seconds)}

*Killed* is `kill -9`. *In the middle* is while helm waits for a hook or a test that takes three
seconds; *before* and *after* are while helm stands still just before its first, or just after its
last request. The kills are done to `helmops reconcile`, everything else to the service
`helmops run`, which goes on by itself. Connections go through a proxy on loopback; *stalled* ones
are open and pass nothing on, and are reset in the end.

A case ends well where, after one more pass:

- no release is **stuck**: no revision is `pending-*` or `uninstalling`, nothing is noted as under
  way, no helm is left running, and the pass ended as the declaration lets it;
- no **target** is **wrong**: what runs is what was declared or, where that failed, what had been
  seen healthy before, and so is everything that a rollback restored;
- no **revision** is **lost**: each one that was seen healthy is stored as it was, numbers have no
  gap, one revision is deployed, and the record agrees with Helm's storage;
- nothing was **done twice**: helm began no oftener, and stored no more revisions, than the one that
  was broken off makes necessary, and yet another pass writes nothing to the cluster.

`python -m tests.chaos --list` names the cases, `python -m tests.chaos 'rollback: helm killed'` runs
some of them. What a kill at any instant does is also tried some thousand times without a cluster,
in `tests/property`.
"""


def _version(helm: Path) -> str:
    answer = subprocess.run(
        [helm, "version", "--short"], capture_output=True, text=True, check=True
    )
    return answer.stdout.strip().partition("+")[0].removeprefix("v")
