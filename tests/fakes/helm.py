"""The `Helm` port over a `FakeCluster`, with the rules of helm 4.3.1 (3.19 differs where said).

The rules come from helm's own behaviour and are held to it by tests/contract/test_helm.py:

- An upgrade that succeeds supersedes the newest `deployed` revision, or the last one where none is
  deployed; one that fails leaves it alone.
- A rollback whose objects are refused turns the *last* revision, whatever it was, into
  `superseded` and leaves the rest; one whose wait runs out turns nothing.
- SIGTERM (a cancelled call, a deadline) makes install and upgrade mark their revision `failed`;
  rollback leaves `pending-rollback`, uninstall `uninstalling`. A failed hook of a rollback leaves
  `pending-rollback` too.
- `pending-*` refuses an upgrade; a rollback and an uninstall go through.
- Tests run one after the other and stop at the first that fails; a filter moves the hooks that
  were not chosen to the front of the stored list.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping
from datetime import timedelta
from typing import Any

from semver import Version

from helmops.errors import (
    HelmCancelled,
    HelmError,
    HelmTimeout,
    HelmWaitTimeout,
    HookFailed,
    ObjectRefused,
    OwnershipConflict,
    ReleaseExists,
    ReleaseLocked,
    ReleaseNotFound,
    TemplateFailed,
    TestFailed,
    ValuesSchemaFailed,
)
from helmops.helm.flags import HelmVersion, is_unsupported
from helmops.model.charts import ChartArtifact
from helmops.model.declarations import (
    InstallSpec,
    RollbackSpec,
    TestSpec,
    UninstallSpec,
    UpgradeSpec,
)
from helmops.model.releases import HelmRun, HelmStatus, Progress, ReleaseId, TestPhase
from tests.fakes.cluster_state import (
    FakeChart,
    FakeCluster,
    HelmCall,
    Moment,
    Point,
    StoredRevision,
    StoredTest,
    merge,
)

#: How a caller learns that helm was stopped by SIGTERM.
STOPPED = (asyncio.CancelledError, HelmTimeout, HelmCancelled)


class FakeHelm:
    """Runs helm's commands on a `FakeCluster`.

    A second one on the same cluster plays a person with `helm`; with `counted=False` its runs are
    not counted. `unsupported_fields` are dotted names that this helm has no flag for, beside those
    that no real helm of this version has one for.
    """

    def __init__(
        self,
        cluster: FakeCluster,
        *,
        major: int = 4,
        unsupported_fields: Collection[str] = (),
        counted: bool = True,
    ) -> None:
        self.cluster = cluster
        self._major = major
        self._unsupported = frozenset(unsupported_fields)
        self._counted = counted

    @property
    def major(self) -> int:
        return self._major

    def unsupported(self, field: str, value: object) -> bool:
        helm = HelmVersion(Version(self._major, 19))
        return field in self._unsupported or is_unsupported(helm, field, value)

    def is_running(self, release: ReleaseId) -> bool:
        return release in self.cluster.orphans

    async def install(
        self,
        release: ReleaseId,
        chart: ChartArtifact,
        values: Mapping[str, Any],
        spec: InstallSpec,
        *,
        timeout: timedelta,
        description: str,
        wait_strategy: str = "poller",
        progress: Progress | None = None,
    ) -> HelmRun:
        described = f"{chart.name}@{chart.version}"
        await self._begin(
            HelmCall(
                "install", release, described, values, 0, spec, timeout, description, wait_strategy
            )
        )
        what = self.cluster.chart_of(chart)
        last = self.cluster.last(release)
        replaceable = last is not None and last.status in (
            HelmStatus.UNINSTALLED,
            HelmStatus.FAILED,
        )
        if last and not (spec.replace and replaceable):
            raise ReleaseExists("cannot reuse a name that is still in use", where=str(release))
        self._check_chart(what, values, skip_schema=bool(spec.disable_schema_validation))
        self._check_ownership(what, values, may_take=not spec.disable_take_ownership)
        if spec.create_namespace:
            self.cluster.namespaces.add(release.namespace)
        if last and last.status is not HelmStatus.FAILED:
            last.status = HelmStatus.SUPERSEDED
            self.cluster.touch(release)
        revision = self.cluster.new_revision(
            release,
            what,
            values,
            status=HelmStatus.PENDING_INSTALL,
            description="Initial install underway",
            first_deployed=self.cluster.clock.now(),
        )
        self.cluster.store(revision)
        try:
            await self._reach("install", Point.STORED, revision)
            self._hook("pre-install", revision, spec)
            if what.does(what.fails_install, values):
                self.cluster.apply(revision, complete=False)
                await self._reach("install", Point.APPLIED, revision)
                raise _refused(revision)
            self.cluster.apply(revision)
            await self._reach("install", Point.APPLIED, revision)
            await self._wait(revision, bool(spec.disable_wait), timeout)
            self._hook("post-install", revision, spec)
        except STOPPED:
            self._mark_failed(revision, f'Release "{release.name}" failed: context canceled')
            raise
        except HelmError as error:
            self._mark_failed(revision, f'Release "{release.name}" failed: {error.what}')
            raise
        self._mark_deployed(revision, description or "Install complete")
        return await self._end("install", revision)

    async def upgrade(
        self,
        release: ReleaseId,
        chart: ChartArtifact,
        values: Mapping[str, Any],
        spec: UpgradeSpec,
        *,
        timeout: timedelta,
        description: str,
        wait_strategy: str = "poller",
        progress: Progress | None = None,
    ) -> HelmRun:
        described = f"{chart.name}@{chart.version}"
        await self._begin(
            HelmCall(
                "upgrade", release, described, values, 0, spec, timeout, description, wait_strategy
            )
        )
        what = self.cluster.chart_of(chart)
        last = self.cluster.last(release)
        if last is None:
            raise ReleaseNotFound(f'"{release.name}" has no deployed releases', where=str(release))
        if last.status.is_pending and last.status is not HelmStatus.UNINSTALLING:
            raise ReleaseLocked(
                "another operation (install/upgrade/rollback) is in progress", where=str(release)
            )
        deployed = self.cluster.deployed(release)
        if not deployed and last.status not in (HelmStatus.FAILED, HelmStatus.SUPERSEDED):
            raise ReleaseNotFound(f'"{release.name}" has no deployed releases', where=str(release))
        current = deployed[-1] if deployed else last
        if spec.preserve_values:
            values = merge(current.values, values)
        self._check_chart(what, values, skip_schema=bool(spec.disable_schema_validation))
        self._check_ownership(what, values, may_take=not spec.disable_take_ownership)
        revision = self.cluster.new_revision(
            release,
            what,
            values,
            status=HelmStatus.PENDING_UPGRADE,
            description="Preparing upgrade",
            first_deployed=current.first_deployed,
        )
        self.cluster.store(revision)
        try:
            await self._reach("upgrade", Point.STORED, revision)
            self._hook("pre-upgrade", revision, spec)
            if what.does(what.fails_upgrade, values):
                self.cluster.apply(revision, complete=False)
                await self._reach("upgrade", Point.APPLIED, revision)
                raise _refused(revision)
            self.cluster.apply(revision)
            await self._reach("upgrade", Point.APPLIED, revision)
            await self._wait(revision, bool(spec.disable_wait), timeout)
            self._hook("post-upgrade", revision, spec)
        except STOPPED:
            self._mark_failed(revision, f'Upgrade "{release.name}" failed: context canceled')
            raise
        except HelmError as error:
            self._mark_failed(revision, f'Upgrade "{release.name}" failed: {error.what}')
            raise
        current.status = HelmStatus.SUPERSEDED
        self.cluster.touch(release)
        self._mark_deployed(revision, description or "Upgrade complete")
        return await self._end("upgrade", revision)

    async def rollback(
        self,
        release: ReleaseId,
        revision: int,
        spec: RollbackSpec,
        *,
        timeout: timedelta,
        description: str,
        wait_strategy: str = "poller",
        progress: Progress | None = None,
    ) -> HelmRun:
        await self._begin(
            HelmCall(
                "rollback",
                release,
                revision=revision,
                spec=spec,
                timeout=timeout,
                description=description,
                wait_strategy=wait_strategy,
            )
        )
        last = self.cluster.last(release)
        if last is None:
            raise ReleaseNotFound("release: not found", where=str(release))
        number = revision or last.number - 1
        source = self.cluster.history[release].get(number)
        if source is None:
            raise ReleaseNotFound(f"release has no {number} version", where=str(release))
        target = self.cluster.copy_revision(source)
        target.number = last.number + 1
        target.status = HelmStatus.PENDING_ROLLBACK
        target.first_deployed = last.first_deployed
        target.last_deployed = self.cluster.clock.now()
        target.rollback_to = number
        says = f"Rollback to {number}"
        target.description = description[:256] or says if self._major >= 4 else says
        self.cluster.store(target)
        what = target.chart
        try:
            await self._reach("rollback", Point.STORED, target)
            self._hook("pre-rollback", target, spec)
            if what.fails_going_back(target.values):
                self.cluster.apply(target, complete=False)
                await self._reach("rollback", Point.APPLIED, target)
                raise _refused(target)
        except (*STOPPED, HookFailed):
            raise  # helm marks nothing then: the lock stays
        except HelmError as error:
            last.status = HelmStatus.SUPERSEDED
            self._mark_failed(target, f'Rollback "{release.name}" failed: {error.what}')
            raise
        self.cluster.apply(target)
        try:
            await self._reach("rollback", Point.APPLIED, target)
            await self._wait(target, bool(spec.disable_wait), timeout)
            self._hook("post-rollback", target, spec)
        except (*STOPPED, HookFailed):
            raise
        except HelmError as error:
            self._mark_failed(target, f'Release "{release.name}" failed: {error.what}')
            raise
        for deployed in self.cluster.deployed(release):
            deployed.status = HelmStatus.SUPERSEDED
        self._mark_deployed(target, target.description)
        return await self._end("rollback", target)

    async def uninstall(
        self,
        release: ReleaseId,
        spec: UninstallSpec,
        *,
        timeout: timedelta,
        description: str,
        progress: Progress | None = None,
    ) -> HelmRun:
        await self._begin(
            HelmCall("uninstall", release, spec=spec, timeout=timeout, description=description)
        )
        revisions = self.cluster.revisions(release)
        if not revisions:
            raise ReleaseNotFound("release: not found", where=str(release))
        last = revisions[-1]
        if last.status is HelmStatus.UNINSTALLED:
            if spec.keep_history:
                raise HelmError(f'the release named "{release.name}" is already deleted')
            self._purge(release)
            return await self._end("uninstall", last)
        last.status = HelmStatus.UNINSTALLING
        last.description = "Deletion in progress (or silently failed)"
        self.cluster.touch(release)
        await self._reach("uninstall", Point.STORED, last)
        self._hook("pre-delete", last, spec)
        if last.chart.does(last.chart.fails_uninstall, last.values):
            raise HelmError(f"failed to delete release: {release.name}", where=str(release))
        self.cluster.live.pop(release, None)
        await self._reach("uninstall", Point.APPLIED, last)
        if spec.keep_history:
            last.status = HelmStatus.UNINSTALLED
            last.description = description or "Uninstallation complete"
            if self._major >= 4:  # helm 3 leaves a deployed revision before the last as it is
                for deployed in self.cluster.deployed(release):
                    deployed.status = HelmStatus.SUPERSEDED
            self.cluster.touch(release)
        else:
            self._purge(release)
        run = await self._end("uninstall", last)
        self._hook("post-delete", last, spec)  # helm finishes first and tells of it then
        return run

    async def test(
        self,
        release: ReleaseId,
        spec: TestSpec,
        *,
        timeout: timedelta,
        progress: Progress | None = None,
    ) -> HelmRun:
        await self._begin(HelmCall("test", release, spec=spec, timeout=timeout))
        revision = self.cluster.last(release)
        if revision is None:
            raise ReleaseNotFound("release: not found", where=str(release))
        chosen, skipped = _chosen(revision.tests, spec)
        for test in sorted(chosen, key=lambda each: each.name):
            test.delete_policies = ("before-hook-creation",)
            test.started, test.completed = self.cluster.clock.now(), None
            test.phase = TestPhase.RUNNING
            self.cluster.touch(release)
            await self._reach("test", Point.STORED, revision)
            self.cluster.clock.advance(self.cluster.duration)
            test.completed = self.cluster.clock.now()
            if revision.chart.fails_test(test.name, revision.values):
                test.phase = TestPhase.FAILED
                break
            test.phase = TestPhase.SUCCEEDED
        revision.tests = [*skipped, *chosen]
        self.cluster.touch(release)
        failed = [test.name for test in chosen if test.phase is TestPhase.FAILED]
        run = await self._end("test", revision)
        if failed:
            raise TestFailed(
                f"the test {failed[0]} failed",
                where=f"{release}.v{revision.number}",
                output=f"POD LOGS: {failed[0]}\nnot what was expected\n",
            )
        return run

    async def render(
        self,
        release: ReleaseId,
        chart: ChartArtifact,
        values: Mapping[str, Any],
        *,
        is_upgrade: bool,
        skip_schema_validation: bool = False,
        with_hooks: bool = False,
    ) -> tuple[dict[str, Any], ...]:
        call = HelmCall("template", release, f"{chart.name}@{chart.version}", values)
        await self._begin(call, counted=not with_hooks)
        what = self.cluster.chart_of(chart)
        self._check_chart(what, values, skip_schema=skip_schema_validation)
        return what.objects(release, values) + (what.hooks(release) if with_hooks else ())

    # What the commands share

    async def _begin(self, call: HelmCall, *, counted: bool = True) -> None:
        if self._counted and counted:
            self.cluster.runs[call.operation] += 1
            self.cluster.calls.append(call)
        if self.cluster.unreachable:
            raise HelmError("the API server does not answer", where=str(call.release))
        await self.cluster.reach(Moment(call.operation, Point.STARTED, call.release))
        if counted:
            self.cluster.clock.advance(self.cluster.duration)

    async def _reach(self, operation: str, point: Point, revision: StoredRevision) -> None:
        await self.cluster.reach(Moment(operation, point, revision.release, revision.number))

    async def _end(self, operation: str, revision: StoredRevision) -> HelmRun:
        await self._reach(operation, Point.FINISHED, revision)
        return HelmRun(f"{operation} of {revision.release} done\n", self.cluster.duration)

    def _hook(
        self,
        event: str,
        revision: StoredRevision,
        spec: InstallSpec | UpgradeSpec | RollbackSpec | UninstallSpec,
    ) -> None:
        if event in revision.chart.failing_hooks and not spec.disable_hooks:
            raise HookFailed(
                f"a {event} hook failed: Job/{revision.release.name}-{event}",
                where=f"{revision.release}.v{revision.number}",
            )

    async def _wait(self, revision: StoredRevision, skip: bool, timeout: timedelta) -> None:
        chart = revision.chart
        if not skip and chart.does(chart.never_ready, revision.values):
            self.cluster.clock.advance(timeout)
            raise HelmWaitTimeout(
                f"Deployment/{revision.release.name} was not ready in time",
                where=f"{revision.release}.v{revision.number}",
            )

    def _mark_deployed(self, revision: StoredRevision, description: str) -> None:
        revision.status, revision.description = HelmStatus.DEPLOYED, description
        self.cluster.store(revision)

    def _mark_failed(self, revision: StoredRevision, description: str) -> None:
        revision.status, revision.description = HelmStatus.FAILED, description
        self.cluster.store(revision)

    def _purge(self, release: ReleaseId) -> None:
        for revision in self.cluster.revisions(release):
            self.cluster.forget(release, revision.number)

    def _check_chart(
        self, chart: FakeChart, values: Mapping[str, Any], *, skip_schema: bool
    ) -> None:
        where = f"{chart.name}@{chart.version}"
        if not skip_schema and chart.does(chart.refuses_values, values):
            raise ValuesSchemaFailed("values.schema.json refuses the values", where=where)
        if chart.does(chart.fails_render, values):
            raise TemplateFailed("the chart does not render", where=where)

    def _check_ownership(
        self, chart: FakeChart, values: Mapping[str, Any], *, may_take: bool
    ) -> None:
        if not may_take and chart.does(chart.takes_foreign_objects, values):
            raise OwnershipConflict("ConfigMap/shared belongs to the release other/other")


def _refused(revision: StoredRevision) -> ObjectRefused:
    return ObjectRefused(
        f'Service "{revision.release.name}" is invalid: spec.clusterIPs: Invalid value',
        where=f"{revision.release}.v{revision.number}",
    )


def _chosen(tests: list[StoredTest], spec: TestSpec) -> tuple[list[StoredTest], list[StoredTest]]:
    """Which tests the filters choose, and which they leave out."""
    excluded = {each.name for each in spec.filters or () if each.exclude}
    included = {each.name for each in spec.filters or () if not each.exclude}
    chosen = [
        test
        for test in tests
        if test.name not in excluded and (not included or test.name in included)
    ]
    return chosen, [test for test in tests if test not in chosen]
