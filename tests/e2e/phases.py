"""Where helmops is when something is done to it: in the middle of each operation of helm."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.e2e.helmops_process import Helmops, Process, policy, release, until

DEPLOYED = {1: "deployed"}


@dataclass(frozen=True)
class Phase:
    """What helmops is at when it is disturbed, and what must come of it.

    `good` is released before, `then` is declared afterwards; None: nothing is declared. `whole` is
    what Helm has at the end where nothing was broken off in the middle. `content` is the data of
    the release's ConfigMap at the end; None: there is none.
    """

    operation: str
    chart: str
    good: dict[str, Any] | None
    then: dict[str, Any] | None
    pending: str
    hook: str
    whole: dict[int, str]
    content: dict[str, str] | None
    ends_ready: bool = True
    spec: dict[str, Any] = field(default_factory=dict)

    @property
    def broken_off(self) -> dict[int, str]:
        """Helm's revisions at the end, when one was broken off in the middle and is done again."""
        if self.operation in ("test", "uninstall"):
            return self.whole
        last = max(self.whole)
        # helm calls a failed first install superseded after the next success
        status = "superseded" if last == 1 else "failed"
        return {**self.whole, last: status, last + 1: "deployed"}


PHASES = {
    "install": Phase(
        operation="install",
        chart="hooks",
        good=None,
        then={"slow": "pre-install"},
        pending="pending-install",
        hook="batch/v1/jobs/app-pre-install",
        whole=DEPLOYED,
        content={"message": "hello"},
    ),
    "upgrade": Phase(
        operation="upgrade",
        chart="hooks",
        good={},
        then={"message": "new", "slow": "pre-upgrade"},
        pending="pending-upgrade",
        hook="batch/v1/jobs/app-pre-upgrade",
        whole={1: "superseded", 2: "deployed"},
        content={"message": "new"},
    ),
    "test": Phase(
        operation="test",
        chart="failing-test",
        good=None,
        then={"fail": False, "slow": True},
        pending="deployed",
        hook="pods/app-test",
        whole=DEPLOYED,
        content={"fail": "false"},
        spec={"test": {"enable": True}},
    ),
    "rollback": Phase(
        operation="rollback",
        chart="hooks",
        good={"slow": "pre-rollback"},
        then={"message": "bad", "fail": "post-upgrade"},
        pending="pending-rollback",
        hook="batch/v1/jobs/app-pre-rollback",
        whole={1: "superseded", 2: "failed", 3: "deployed"},
        content={"message": "hello"},
        ends_ready=False,
    ),
    "uninstall": Phase(
        operation="uninstall",
        chart="hooks",
        good={"slow": "pre-delete"},
        then=None,
        pending="uninstalling",
        hook="batch/v1/jobs/app-pre-delete",
        whole={},
        content=None,
    ),
}


def declare(helmops: Helmops, charts: Mapping[str, Any], phase: Phase, values: Any) -> None:
    """The release with these values, or, for None, no release any more."""
    # The charts' hooks are Jobs, and what a Job did no rollback undoes: nothing at all, here.
    rules = policy(prune=True, remediation={"irreversible": "rollback"})
    if values is None:
        helmops.declare(charts, rules)
        return
    # Long enough for a control plane that takes its time over coming back.
    spec = {"timeout": "90s", **phase.spec}
    helmops.declare(charts, rules, release("app", phase.chart, values=values, **spec))


def begin(helmops: Helmops, charts: Mapping[str, Any], phase: Phase) -> None:
    """Get to where the phase begins, and declare what makes helmops go into it."""
    if phase.good is not None:
        declare(helmops, charts, phase, phase.good)
        helmops.reconcile()
    declare(helmops, charts, phase, phase.then)


def is_in_the_middle(helmops: Helmops, phase: Phase) -> bool:
    """Whether helm waits for a hook or a test."""
    newest = list(helmops.revisions().values())[-1:]
    return newest == [phase.pending] and helmops.get(phase.hook) is not None


def until_in_the_middle(helmops: Helmops, phase: Phase) -> None:
    """Until helm waits for a hook or a test."""
    until(
        f"helm is in the middle of {phase.operation}",
        lambda: is_in_the_middle(helmops, phase),
    )


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


def kill_helm(process: Process) -> None:
    """`kill -9` of the helm that a helmops has started."""
    for child in children(process):
        os.kill(child, signal.SIGKILL)


def kill_both(process: Process) -> None:
    """`kill -9` of a helmops and of its helm, at one instant, as by a power loss."""
    os.kill(process.process.pid, signal.SIGSTOP)
    kill_helm(process)
    process.kill()
