"""The same play on two stages: helm and its storage in memory, and the real ones on a cluster.

A contract test describes its charts as `FakeChart`s. The real stage makes charts of them that do
the same to a real helm: it refuses an object, never becomes ready, fails a test.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Coroutine
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Protocol

from helmops.model.charts import ChartArtifact
from helmops.model.declarations import (
    InstallSpec,
    RollbackSpec,
    TestSpec,
    UninstallSpec,
    UpgradeSpec,
)
from helmops.model.releases import HelmRun, HelmStatus, ReleaseId, Revision
from helmops.reconcile.ports import Helm, ReleaseStorage
from tests.fakes.cluster_state import FakeChart, FakeCluster, Point

#: What a wait that cannot succeed may take on a real cluster.
SHORT = timedelta(seconds=4)
LONG = timedelta(seconds=60)


class Stage(Protocol):
    """Where a contract test plays."""

    release: ReleaseId
    helm: Helm
    storage: ReleaseStorage

    def publish(self, chart: FakeChart) -> ChartArtifact:
        """Make a chart that does what the description says."""

    async def stuck(
        self, operation: str, work: Coroutine[Any, Any, HelmRun]
    ) -> asyncio.Task[HelmRun]:
        """Begin an operation on a chart that is never ready, and wait until helm waits for it."""


@dataclass
class Play:
    """The commands of one release on a stage, with what most tests do not care about filled in."""

    stage: Stage

    async def install(
        self,
        chart: FakeChart,
        values: dict[str, Any] | None = None,
        *,
        timeout: timedelta = SHORT,
        description: str = "",
        **spec: Any,
    ) -> HelmRun:
        return await self.stage.helm.install(
            self.stage.release,
            self.stage.publish(chart),
            values or {},
            InstallSpec(**spec),
            timeout=timeout,
            description=description,
        )

    async def upgrade(
        self,
        chart: FakeChart,
        values: dict[str, Any] | None = None,
        *,
        timeout: timedelta = SHORT,
        description: str = "",
        **spec: Any,
    ) -> HelmRun:
        return await self.stage.helm.upgrade(
            self.stage.release,
            self.stage.publish(chart),
            values or {},
            UpgradeSpec(**spec),
            timeout=timeout,
            description=description,
        )

    async def rollback(
        self, to: int, *, timeout: timedelta = SHORT, description: str = "", **spec: Any
    ) -> HelmRun:
        return await self.stage.helm.rollback(
            self.stage.release,
            to,
            RollbackSpec(**spec),
            timeout=timeout,
            description=description,
        )

    async def uninstall(self, *, description: str = "", **spec: Any) -> HelmRun:
        return await self.stage.helm.uninstall(
            self.stage.release, UninstallSpec(**spec), timeout=LONG, description=description
        )

    async def test(self, **spec: Any) -> HelmRun:
        return await self.stage.helm.test(self.stage.release, TestSpec(**spec), timeout=LONG)

    async def render(
        self, chart: FakeChart, values: dict[str, Any] | None = None, *, is_upgrade: bool = False
    ) -> tuple[dict[str, Any], ...]:
        return await self.stage.helm.render(
            self.stage.release, self.stage.publish(chart), values or {}, is_upgrade=is_upgrade
        )

    async def revisions(self) -> dict[int, Revision]:
        stored = await self.stage.storage.read(self.stage.release)
        return {revision.number: revision for revision in stored.revisions}

    async def statuses(self) -> dict[int, str]:
        return {number: each.status.value for number, each in (await self.revisions()).items()}

    async def phases(self, number: int) -> dict[str, str]:
        revision = (await self.revisions())[number]
        return {hook.name: hook.phase.value for hook in revision.test_hooks}

    async def cancelled(self, operation: str, work: Coroutine[Any, Any, HelmRun]) -> None:
        """Begin something that gets stuck, and cancel it there."""
        task = await self.stage.stuck(operation, work)
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


class FakeStage:
    """In memory."""

    def __init__(self, cluster: FakeCluster, helm: Helm, storage: ReleaseStorage) -> None:
        self.release = ReleaseId("default", "app")
        self.cluster, self.helm, self.storage = cluster, helm, storage

    def publish(self, chart: FakeChart) -> ChartArtifact:
        return self.cluster.publish(chart)

    async def stuck(
        self, operation: str, work: Coroutine[Any, Any, HelmRun]
    ) -> asyncio.Task[HelmRun]:
        self.cluster.hang(operation, Point.APPLIED)
        task = asyncio.create_task(work)
        while not any(  # noqa: ASYNC110 (in the same loop, at once)
            moment.operation == operation and moment.point is Point.APPLIED
            for moment in self.cluster.moments[-1:]
        ):
            await asyncio.sleep(0)
        return task


class RealStage:
    """A namespace of a real cluster, and a real helm. `folder` is for the charts."""

    def __init__(
        self, namespace: str, helm: Helm, storage: ReleaseStorage, folder: Path, name: str = "app"
    ) -> None:
        self.release = ReleaseId(namespace, name)
        self.helm, self.storage, self._folder = helm, storage, folder

    def publish(self, chart: FakeChart) -> ChartArtifact:
        path = self._folder / f"{id(chart)}-{chart.name}-{chart.version}" / chart.name
        if not path.exists():
            write_chart(chart, path)
        artifact = chart.artifact
        return ChartArtifact(
            artifact.name, artifact.version, str(path), artifact.digest, artifact.source
        )

    async def stuck(
        self, operation: str, work: Coroutine[Any, Any, HelmRun]
    ) -> asyncio.Task[HelmRun]:
        status = {
            "install": HelmStatus.PENDING_INSTALL,
            "upgrade": HelmStatus.PENDING_UPGRADE,
            "rollback": HelmStatus.PENDING_ROLLBACK,
        }[operation]
        task = asyncio.create_task(work)
        async with asyncio.timeout(30):
            while not task.done():
                stored = (await self.storage.read(self.release)).revisions
                if stored and stored[-1].status is status:
                    break
                await asyncio.sleep(0.05)
        await asyncio.sleep(0.3)  # from the stored revision to the wait
        return task


def write_chart(chart: FakeChart, path: Path) -> None:
    """A chart in a directory that does to a real helm what the description says."""
    templates = path / "templates"
    templates.mkdir(parents=True)
    metadata = {"apiVersion": "v2", "name": chart.name, "version": chart.version}
    if chart.app_version:
        metadata["appVersion"] = chart.app_version
    (path / "Chart.yaml").write_text(json.dumps(metadata))
    (path / "values.yaml").write_text(json.dumps(dict(chart.values)))
    shown = "{{ toJson .Values | quote }}"
    (templates / "config.yaml").write_text(
        "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: {{ .Release.Name }}\n"
        f"data:\n  version: {json.dumps(chart.version)}\n"
        f"  content: {json.dumps(chart.content)}\n  values: {shown}\n"
    )
    when = [
        f".Release.{is_what}"
        for is_what, fails in (
            ("IsInstall", chart.fails_install),
            ("IsUpgrade", chart.fails_upgrade),
        )
        if fails
    ]
    if when:
        (templates / "service.yaml").write_text(_REFUSED % " ".join(when))
    if chart.never_ready:
        (templates / "deployment.yaml").write_text(_DEPLOYMENT)
    if chart.fails_render:
        (templates / "fail.yaml").write_text('{{ fail "on purpose" }}\n')
    if chart.refuses_values:
        schema = {"type": "object", "required": ["nobodyGivesThis"]}
        (path / "values.schema.json").write_text(json.dumps(schema))
    if chart.takes_foreign_objects:
        (templates / "shared.yaml").write_text(
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: shared}\n"
        )
    for name in chart.failing_hooks:
        (templates / f"hook-{name}.yaml").write_text(_HOOK % (name, name))
    for name in chart.test_names:
        command = "false" if chart.fails_test(name, {}) else "true"
        (templates / f"test-{name}.yaml").write_text(_TEST % {"name": name, "command": command})


# No cluster has its services in this range, so the API server refuses the object.
_REFUSED = """\
{{ if or %s false }}
apiVersion: v1
kind: Service
metadata:
  name: {{ .Release.Name }}
spec:
  clusterIP: 192.0.2.1
  ports: [{port: 80}]
{{ end }}
"""

_DEPLOYMENT = """\
apiVersion: apps/v1
kind: Deployment
metadata:
  name: {{ .Release.Name }}
spec:
  selector: {matchLabels: {app: "{{ .Release.Name }}"}}
  template:
    metadata:
      labels: {app: "{{ .Release.Name }}"}
      annotations: {helmops.dev/simulate: never-ready}
    spec:
      terminationGracePeriodSeconds: 0
      containers: [{name: main, image: "example.test/main:1"}]
"""

_HOOK = """\
apiVersion: batch/v1
kind: Job
metadata:
  name: "{{ .Release.Name }}-%s"
  annotations: {helm.sh/hook: %s}
spec:
  backoffLimit: 0
  template:
    spec:
      restartPolicy: Never
      containers: [{name: main, image: "example.test/hook:1", command: ["false"]}]
"""

_TEST = """\
apiVersion: v1
kind: Pod
metadata:
  name: %(name)s
  annotations: {helm.sh/hook: test}
spec:
  restartPolicy: Never
  terminationGracePeriodSeconds: 0
  containers: [{name: main, image: "example.test/test:1", command: ["%(command)s"]}]
"""
