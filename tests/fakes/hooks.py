"""The `Hooks` port over a `FakeCluster`: hooks that do what a test says."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta

from helmops.model.credentials import HttpCredentials
from helmops.model.declarations import RemediationHook
from helmops.model.hooks import HookResult
from helmops.model.releases import Progress, ReleaseId
from tests.fakes.cluster_state import FakeCluster, Moment, Point


@dataclass(frozen=True)
class HookCall:
    """One hook that was run."""

    name: str
    at: str
    release: ReleaseId
    context: Mapping[str, str]


class FakeHooks:
    """- a hook succeeds, unless its name is in `failing`;
    - `when_run[name]` is called as the hook's work;
    - `calls` lists what was run, also what was broken off. `cluster.kill`, `hang` and `fail` work
      on the operation `hook`, at STARTED and FINISHED.
    """

    def __init__(self, cluster: FakeCluster) -> None:
        self.cluster = cluster
        self.failing: set[str] = set()
        self.when_run: dict[str, Callable[[HookCall], None]] = {}
        self.output: dict[str, str] = {}
        self.calls: list[HookCall] = []

    def names(self) -> list[str]:
        """What was run, in order."""
        return [call.name for call in self.calls]

    async def run(
        self,
        hook: RemediationHook,
        release: ReleaseId,
        context: Mapping[str, str],
        credentials: HttpCredentials,
        *,
        progress: Progress | None = None,
    ) -> HookResult:
        call = HookCall(hook.name, hook.at, release, dict(context))
        self.calls.append(call)
        await asyncio.sleep(0)
        await self.cluster.reach(Moment("hook", Point.STARTED, release))
        self.cluster.check_reachable()
        if progress:
            progress(f"hook {hook.name}: running")
        if hook.name in self.when_run:
            self.when_run[hook.name](call)
        self.cluster.clock.advance(timedelta(seconds=1))
        await self.cluster.reach(Moment("hook", Point.FINISHED, release))
        succeeded = hook.name not in self.failing
        said = "completed" if succeeded else "failed"
        return HookResult(hook.name, succeeded, said, self.output.get(hook.name, ""))
