"""A service over fakes: the engine on a directory, with its cluster and its chart repository."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

from helmops.model.declarations import Defaults
from helmops.model.releases import DeclarationKey
from helmops.reconcile.credentials import CredentialReader
from helmops.reconcile.performing import Performer
from helmops.reconcile.reconciler import Reconciler
from helmops.reconcile.resolving import Resolver
from helmops.reconcile.secrets import DeclaredSecrets
from helmops.service.clock import SystemClock
from helmops.service.declarations import Declarations
from helmops.service.engine import Engine
from helmops.service.metrics import Metrics
from helmops.sources.tree_files import TreeFiles
from tests.fakes.artifact_trees import FakeArtifactTrees
from tests.fakes.chart_builder import FakeChartBuilder
from tests.fakes.chart_repositories import FakeChartRepositories
from tests.fakes.cluster_state import FakeCluster
from tests.fakes.git_trees import FakeGitTrees
from tests.fakes.helm import FakeHelm
from tests.fakes.journal import FakeJournal
from tests.fakes.leases import FakeLeases
from tests.fakes.liveness import FakeLiveness
from tests.fakes.notifier import FakeNotifier
from tests.fakes.oci_repositories import FakeOciRepositories
from tests.fakes.records import FakeRecords
from tests.fakes.references import FakeReferences
from tests.fakes.release_storage import FakeReleaseStorage
from tests.fakes.world import ClusterChecks, NotedHooks

URL = "https://charts.example.com"


class Service:
    """An engine on directories, its cluster and its repository. Time is real: nothing here waits.

    `records` and `cluster` of an earlier one make it a restart.
    """

    def __init__(
        self,
        directory: Path,
        *others: Path,
        cluster: FakeCluster | None = None,
        records: FakeRecords | None = None,
    ) -> None:
        self.directory = directory
        self.cluster = cluster or FakeCluster()
        self.records = records or FakeRecords()
        self.journal = FakeJournal()
        self.repositories = FakeChartRepositories()
        self.repositories.offer(URL, "app", "1.0.0")
        self.artifacts = FakeOciRepositories()
        self.removed: list[DeclarationKey] = []
        self.references = FakeReferences()
        self.liveness = FakeLiveness()
        self.clock = clock = SystemClock()
        helm = FakeHelm(self.cluster)
        storage = FakeReleaseStorage(self.cluster)
        secrets = DeclaredSecrets(self.references)
        self.declarations = declarations = Declarations(
            clock=clock,
            git=FakeGitTrees(),
            artifacts=FakeArtifactTrees(),
            default_namespace="apps",
            random=lambda: 0.0,
        )
        for each in (directory, *others):
            declarations.add_directory(str(each))
        self.resolver = resolver = Resolver(
            clock=clock,
            helm=helm,
            repositories=self.repositories,
            artifacts=self.artifacts,
            git=FakeGitTrees(),
            builder=FakeChartBuilder(),
            files=TreeFiles(),
            references=secrets,
            defaults=Defaults.SAFE,
            location_of=declarations.location_of,
        )
        self.reconciler = Reconciler(
            clock=clock,
            helm=helm,
            storage=storage,
            performer=Performer(
                clock=clock,
                helm=helm,
                storage=storage,
                checks=ClusterChecks(self.cluster),
                hooks=NotedHooks(),
                credentials=CredentialReader(secrets),
            ),
            records=self.records,
            leases=FakeLeases(),
            journal=self.journal,
            notifier=FakeNotifier(),
            holder="test",
            liveness=self.liveness,
        )
        self.metrics = Metrics()
        self.engine = Engine(
            clock=clock,
            declarations=declarations,
            reconciler=self.reconciler,
            resolver=resolver,
            metrics=self.metrics,
            defaults=Defaults.SAFE,
            concurrency=2,
            liveness=self.liveness,
            on_removed=self._on_removed,
        )

    async def _on_removed(self, key: DeclarationKey) -> None:
        self.removed.append(key)

    def write(self, name: str, *documents: str) -> None:
        (self.directory / name).write_text("\n---\n".join(documents))

    def is_ready(self, key: DeclarationKey) -> bool:
        record = self.reconciler.known.get(key)
        return record is not None and record.is_ready()

    def sample(self, name: str, key: DeclarationKey) -> float | None:
        labels = {"namespace": key.namespace, "name": key.name}
        return self.metrics.registry.get_sample_value(name, labels)


async def until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 - nobody tells of what is waited for
            await asyncio.sleep(0.02)


@contextlib.asynccontextmanager
async def running(service: Service) -> AsyncIterator[None]:
    run = asyncio.create_task(service.engine.run())
    try:
        yield
        assert not run.done()
    finally:
        run.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await run
