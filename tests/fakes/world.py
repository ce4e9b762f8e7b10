"""A release, a cluster and a helmops in memory: what scenario and property tests run passes in.

world = World()
world.declare(FakeChart(version="1.0.0"))
await world.settle()
assert world.ready()
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from helmops.decide.quarantine import in_force, said_of
from helmops.errors import StoreError
from helmops.model.actions import (
    NO_REQUEST,
    Desired,
    Request,
    RetryAfter,
    Run,
    Target,
    Unresolved,
)
from helmops.model.credentials import HttpCredentials
from helmops.model.declarations import (
    Defaults,
    HealthCheckExpr,
    HelmReleaseSpec,
    PolicyCheck,
    ReleasePolicySpec,
    RemediationHook,
    with_defaults,
)
from helmops.model.health import CheckResult, LiveHealth
from helmops.model.hooks import HookResult
from helmops.model.records import Record
from helmops.model.releases import DeclarationKey, Progress, ReleaseId
from helmops.reconcile.credentials import CredentialReader
from helmops.reconcile.performing import Performer
from helmops.reconcile.reconciler import Passed, Reconciler
from helmops.resolve.digest import config_digest, declaration_digest
from helmops.resolve.version import Version
from tests.fakes.clock import FakeClock
from tests.fakes.cluster_state import FakeChart, FakeCluster
from tests.fakes.helm import FakeHelm
from tests.fakes.journal import FakeJournal
from tests.fakes.leases import FakeLeases
from tests.fakes.notifier import FakeNotifier
from tests.fakes.records import FakeRecords
from tests.fakes.references import FakeReferences
from tests.fakes.release_storage import FakeReleaseStorage

#: Actions of which a release sees nothing.
_QUIET = ("Inspect", "GatherEvidence", "KeepCopy")


class ClusterChecks:
    """The `Checks` port over a `FakeCluster`: readiness is what the cluster says.

    `failing_checks` names policy checks that fail, `last_changed` when an object was written last.
    """

    def __init__(self, cluster: FakeCluster) -> None:
        self._cluster = cluster
        self.failing_checks: set[str] = set()
        self.last_changed: datetime | None = None
        self.readings = 0

    async def readiness(
        self,
        release: ReleaseId,
        objects: Sequence[Mapping[str, Any]],
        expressions: Sequence[HealthCheckExpr],
        *,
        timeout: timedelta,
        hard_timeout: timedelta | None = None,
        progress: Progress | None = None,
    ) -> CheckResult:
        self._cluster.check_reachable()
        self.readings += 1
        healthy = self._cluster.is_healthy(release)
        return CheckResult("readiness", healthy, "" if healthy else "Deployment/app is not ready")

    async def policy_check(
        self,
        check: PolicyCheck,
        release: ReleaseId,
        objects: Sequence[Mapping[str, Any]],
        credentials: HttpCredentials,
        *,
        progress: Progress | None = None,
    ) -> CheckResult:
        failed = check.name in self.failing_checks
        return CheckResult(check.name, not failed, "answered 500" if failed else "")

    async def last_change(
        self, release: ReleaseId, objects: Sequence[Mapping[str, Any]]
    ) -> datetime | None:
        self._cluster.check_reachable()
        return self.last_changed


class LiveView:
    """The `Liveness` port: what the watches would show, set by tests; None where nobody watches.
    While it `tells_truth`, that is what the cluster says.
    """

    def __init__(self, cluster: FakeCluster) -> None:
        self._cluster = cluster
        self.health: LiveHealth | None = None
        self.tells_truth = False

    def of(self, release: ReleaseId) -> LiveHealth | None:
        if not self.tells_truth:
            return self.health
        well = self._cluster.is_healthy(release)
        return LiveHealth(is_live=True, bad="" if well else "Deployment/app is not ready")


class NotedHooks:
    """The `Hooks` port: keeps which hooks ran, fails those that `failing` names."""

    def __init__(self) -> None:
        self.ran: list[str] = []
        self.failing: set[str] = set()

    async def run(
        self,
        hook: RemediationHook,
        release: ReleaseId,
        context: Mapping[str, str],
        credentials: HttpCredentials,
        *,
        progress: Progress | None = None,
    ) -> HookResult:
        self.ran.append(hook.name)
        failed = hook.name in self.failing
        return HookResult(hook.name, not failed, "exit 1" if failed else "done", "line one\n")


@dataclass(frozen=True)
class Declared:
    """A declaration that is already resolved, as the pass wants it.

    `beside` are the other declarations that there are.
    """

    template: Desired
    chart: FakeChart
    values: Mapping[str, Any]
    unresolved: Unresolved | None = None
    beside: frozenset[DeclarationKey] = frozenset()
    clock: FakeClock = field(default_factory=FakeClock)
    #: The deployed version is gone from its source.
    is_yanked: bool = False

    @property
    def key(self) -> DeclarationKey:
        return self.template.key

    @property
    def release(self) -> ReleaseId:
        return self.template.release

    def is_beside(self, other: DeclarationKey) -> bool:
        return other in self.beside

    async def desired(self, deployed: str, records: Mapping[DeclarationKey, Record]) -> Desired:
        artifact = self.chart.artifact
        barred = [
            said_of(entry)
            for entry in in_force(self.key, records, self.clock.now())
            if entry.means(artifact.name, artifact.version, artifact.digest)
        ]
        target: Target | Unresolved = self.unresolved or Target(
            chart=artifact,
            quarantined=barred[0] if barred else "",
            values=dict(self.values),
            config_digest=config_digest(self.values),
            yanked=deployed if self.is_yanked else "",
            retagged_from=self._retagged_from(records, deployed),
            downgrade_from=deployed
            if deployed and Version.parse(self.chart.version) < Version.parse(deployed)
            else "",
        )
        return replace(self.template, target=target)

    def _retagged_from(self, records: Mapping[DeclarationKey, Record], deployed: str) -> str:
        record = records.get(self.key)
        known = [s for s in record.history if s.chart_version == deployed] if record else []
        before = known[0].upstream_digest if known and self.chart.version == deployed else ""
        return before if before != self.chart.artifact.digest else ""


class World:
    """One release `default/app` and everything around it; `restart` makes a new helmops."""

    key = DeclarationKey("default", "app")
    release = ReleaseId("default", "app")

    def __init__(self, defaults: Defaults = Defaults.SAFE) -> None:
        self.defaults = defaults
        self.clock = FakeClock()
        self.cluster = FakeCluster(self.clock)
        self.helm = FakeHelm(self.cluster)
        self.person = FakeHelm(self.cluster, counted=False)
        self.storage = FakeReleaseStorage(self.cluster)
        self.checks = ClusterChecks(self.cluster)
        self.hooks = NotedHooks()
        self.live = LiveView(self.cluster)
        self.records = FakeRecords()
        self.leases = FakeLeases()
        self.journal = FakeJournal()
        self.notifier = FakeNotifier()
        self.references = FakeReferences()
        self.declared: Declared | None = None
        self.observe_only = False
        self.namespaces: Collection[str] | None = None
        self.lines: list[str] = []
        self.counted: list[str] = []
        self.journal_errors: list[StoreError] = []
        self.last: Passed | None = None
        self.last_acting: Passed | None = None
        self.restart()

    def restart(self) -> None:
        """A new process: nothing in memory survives, leases of the dead one are free."""
        self.leases = FakeLeases(namespaces=self.namespaces)
        performer = Performer(
            clock=self.clock,
            helm=self.helm,
            storage=self.storage,
            checks=self.checks,
            hooks=self.hooks,
            credentials=CredentialReader(self.references),
        )
        self.reconciler = Reconciler(
            clock=self.clock,
            helm=self.helm,
            storage=self.storage,
            performer=performer,
            records=self.records,
            leases=self.leases,
            journal=self.journal,
            notifier=self.notifier,
            holder="test",
            liveness=self.live,
            observe_only=self.observe_only,
            tell=lambda _, line: self.lines.append(line),
            on_done=lambda _, done: self.counted.append(type(done.action).__name__),
            on_journal_error=self.journal_errors.append,
        )

    def declare(
        self,
        chart: FakeChart,
        values: Mapping[str, Any] | None = None,
        *,
        policy: Mapping[str, Any] | None = None,
        unresolved: Unresolved | None = None,
        is_yanked: bool = False,
        waiting_for: tuple[str, ...] = (),
        release: ReleaseId | None = None,
        **spec: Any,
    ) -> None:
        """Write the declaration. `spec` are fields of `HelmRelease.spec`, in camelCase."""
        self.cluster.publish(chart)
        written = {
            "interval": "1h",
            "chart": {
                "spec": {
                    "chart": chart.name,
                    "version": chart.version,
                    "sourceRef": {"kind": "HelmRepository", "name": "fake"},
                }
            },
            "values": dict(values or {}),
            **spec,
        }
        policy_spec = ReleasePolicySpec.model_validate(policy or {})
        template = Desired(
            key=self.key,
            release=release or self.release,
            spec=with_defaults(HelmReleaseSpec.model_validate(written), self.defaults),
            policy=policy_spec,
            defaults=self.defaults,
            declaration_digest=declaration_digest(written),
            target=Unresolved("Pending", "not asked yet"),
            manifest={"kind": "HelmRelease", "spec": written},
            waiting_for=waiting_for,
            is_observed_only=policy_spec.mode == "observe",
        )
        self.declared = Declared(
            template,
            chart,
            dict(values or {}),
            unresolved,
            clock=self.clock,
            is_yanked=is_yanked,
        )

    async def run_pass(self, request: Request = NO_REQUEST) -> Passed:
        """One pass, now."""
        assert self.declared is not None
        passed = await self.reconciler.reconcile(self.declared, request)
        if passed.done or self.last is None:
            self.last_acting = passed
        self.last = passed
        return passed

    async def settle(self, request: Request = NO_REQUEST, *, within: float = 3600) -> Passed:
        """Passes until there is nothing to do for `within` seconds; the clock goes on as needed."""
        end = self.clock.now() + timedelta(seconds=within)
        for _ in range(200):
            passed = await self.run_pass(request)
            request = NO_REQUEST
            decision = passed.decision
            if isinstance(decision, Run) or not isinstance(decision, RetryAfter):
                return passed
            if decision.at > end:
                return passed
            self.clock.set(max(decision.at, self.clock.now()))
        raise AssertionError(f"never settled: {self.record.conditions}")

    @property
    def record(self) -> Record:
        record = self.reconciler.known.get(self.key)
        assert record is not None
        return record

    def ready(self) -> bool:
        return self.record.is_ready()

    def reason(self, kind: str = "Ready") -> str:
        condition = self.record.condition(kind)
        return condition.reason if condition else ""

    def statuses(self) -> dict[int, str]:
        return self.cluster.statuses(self.release)

    def running(self) -> str:
        """The chart version that is applied."""
        live = self.cluster.live.get(self.release)
        return live.chart.version if live else ""

    def actions(self) -> list[str]:
        """Kinds of the actions of the last pass that did anything, but those that only look or keep
        something.
        """
        return [name for name in self.all_actions() if name not in _QUIET]

    def all_actions(self) -> list[str]:
        """Kinds of the actions of the last pass that did anything."""
        return [type(d.action).__name__ for d in self.last_acting.done] if self.last_acting else []
