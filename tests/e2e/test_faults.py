"""Whatever breaks, and whenever: nothing is lost, and the next pass finishes."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from devcluster.chart_server import ChartRepository
from tests.e2e.helmops_process import Helmops, Process, release, repository, until

# Our process is killed ------------------------------------------------------------------------


@dataclass(frozen=True)
class Phase:
    """What helmops is at when it is killed, and what must come of it.

    `good` is released before, `then` is declared afterwards. `whole` is what Helm has at the end
    where nothing was broken off in the middle.
    """

    operation: str
    chart: str
    good: dict[str, Any] | None
    then: dict[str, Any]
    pending: str
    hook: str
    whole: dict[int, str]
    ends_ready: bool = True
    spec: dict[str, Any] = field(default_factory=dict)


DEPLOYED = {1: "deployed"}
PHASES = {
    "install": Phase(
        operation="install",
        chart="hooks",
        good=None,
        then={"slow": "pre-install"},
        pending="pending-install",
        hook="batch/v1/jobs/app-pre-install",
        whole=DEPLOYED,
    ),
    "upgrade": Phase(
        operation="upgrade",
        chart="hooks",
        good={},
        then={"message": "new", "slow": "pre-upgrade"},
        pending="pending-upgrade",
        hook="batch/v1/jobs/app-pre-upgrade",
        whole={1: "superseded", 2: "deployed"},
    ),
    "test": Phase(
        operation="test",
        chart="failing-test",
        good=None,
        then={"fail": False, "slow": True},
        pending="deployed",
        hook="pods/app-test",
        whole=DEPLOYED,
        spec={"test": {"enable": True}},
    ),
    "rollback": Phase(
        operation="rollback",
        chart="hooks",
        good={"slow": "pre-rollback"},
        then={"fail": "post-upgrade"},
        pending="pending-rollback",
        hook="batch/v1/jobs/app-pre-rollback",
        whole={1: "superseded", 2: "failed", 3: "deployed"},
        ends_ready=False,
    ),
}


@pytest.fixture(params=PHASES)
def phase(request: pytest.FixtureRequest) -> Phase:
    return PHASES[request.param]


@pytest.fixture
def charts(chart_repository: ChartRepository) -> dict[str, Any]:
    return repository(chart_repository.url)


def begin(helmops: Helmops, charts: dict[str, Any], phase: Phase) -> None:
    """Get to where the phase begins, and declare what makes helmops go into it."""
    for values in (phase.good, phase.then):
        if values is None:
            continue
        helmops.declare(charts, release("app", phase.chart, values=values, **phase.spec))
        if values is phase.good:
            helmops.reconcile()


def until_in_the_middle(helmops: Helmops, phase: Phase) -> None:
    """Until helm waits for a hook or a test."""

    def is_there() -> bool:
        newest = list(helmops.revisions().values())[-1:]
        return newest == [phase.pending] and helmops.get(phase.hook) is not None

    until(f"helm is in the middle of {phase.operation}", is_there)


def assert_finished(helmops: Helmops, phase: Phase, revisions: dict[int, str]) -> None:
    """The next pass brings it to its end, without a lock that a person had to clear."""
    helmops.reconcile(status=0 if phase.ends_ready else 1)
    seen = helmops.see()
    assert helmops.revisions() == revisions
    assert seen.ours["verdict"] == "healthy"
    assert seen.healthy_revision == max(revisions)
    if not phase.ends_ready:
        assert seen.reason == "RetriesExceeded"
        assert seen.history[0]["action"] == "rollback"
    helmops.reconcile(status=0 if phase.ends_ready else 1)
    assert helmops.revisions() == revisions


def standing_still(folder: Path, helm: Path, operation: str, moment: str) -> Path:
    """A helm that stands still `before` or `after` an operation, and then is `halted`."""
    folder.mkdir(exist_ok=True)
    program = folder / "helm"
    halt = f"touch {folder}/halted; exec sleep 600"
    after = f'"{helm}" "$@"; {halt}'
    program.write_text(
        f'#!/bin/sh\nif [ "$1" = {operation} ]; then {halt if moment == "before" else after}; fi\n'
        f'exec "{helm}" "$@"\n'
    )
    program.chmod(0o755)
    return program


@pytest.mark.parametrize("moment", ["before", "after"])
def test_killed_before_or_after_helm_worked_nothing_is_done_twice(
    helmops: Helmops, charts: dict[str, Any], phase: Phase, moment: str
) -> None:
    begin(helmops, charts, phase)
    folder = helmops.directory / "still"
    still = standing_still(folder, helmops.helm, phase.operation, moment)
    with helmops.with_helm(still).start("reconcile") as killed:
        until("helm was called", (folder / "halted").exists)
        killed.kill()
    assert_finished(helmops, phase, phase.whole)


def broken_off(phase: Phase) -> dict[int, str]:
    """Helm's revisions at the end, when one was broken off in the middle and is done again."""
    if phase.operation == "test":
        return phase.whole
    last = max(phase.whole)
    # helm calls a failed first install superseded after the next success
    status = "superseded" if last == 1 else "failed"
    return {**phase.whole, last: status, last + 1: "deployed"}


def test_killed_while_helm_works_the_next_pass_finishes(
    helmops: Helmops, charts: dict[str, Any], phase: Phase
) -> None:
    begin(helmops, charts, phase)
    with helmops.start("reconcile") as killed:
        until_in_the_middle(helmops, phase)
        killed.kill()
    assert_finished(helmops, phase, broken_off(phase))


def children(process: Process) -> list[int]:
    """The processes that a process has started and that still run."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
        except (OSError, IndexError):
            continue
        if parent == process.process.pid:
            found.append(int(stat.parent.name))
    return found


def test_killed_with_its_helm_as_by_a_power_loss_the_lock_is_mended(
    helmops: Helmops, charts: dict[str, Any], phase: Phase
) -> None:
    begin(helmops, charts, phase)
    with helmops.start("reconcile") as killed:
        until_in_the_middle(helmops, phase)
        os.kill(killed.process.pid, signal.SIGSTOP)
        for child in children(killed):
            os.kill(child, signal.SIGKILL)
        killed.kill()
    assert list(helmops.revisions().values())[-1] == phase.pending
    assert_finished(helmops, phase, broken_off(phase))


def test_a_killed_helm_alone_is_a_failure_that_the_same_helmops_mends(
    helmops: Helmops, charts: dict[str, Any], phase: Phase
) -> None:
    begin(helmops, charts, phase)
    with helmops.start("reconcile") as running:
        until_in_the_middle(helmops, phase)
        for child in children(running):
            os.kill(child, signal.SIGKILL)
        running.wait()
    statuses = helmops.revisions()
    assert not [each for each in statuses.values() if each.startswith("pending")]
