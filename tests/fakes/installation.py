"""What commands open, over fakes: the real `Installation`, its adapters in memory.

machine = Machine(tmp_path, monkeypatch)
machine.declare(repository(), release())
assert status_of(["reconcile"]) == 0
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, cast

import pytest
import yaml

from helmops.cluster.api import Api
from helmops.cluster.records import SecretRecords
from helmops.model.declarations import Defaults
from helmops.model.records import Record
from helmops.model.releases import DeclarationKey, ReleaseId
from helmops.reconcile.credentials import CredentialReader
from helmops.reconcile.performing import Performer
from helmops.reconcile.reconciler import Reconciler
from helmops.reconcile.resolving import Resolver
from helmops.reconcile.secrets import DeclaredSecrets
from helmops.service.declarations import Declarations
from helmops.service.metrics import Metrics
from helmops.service.settings import Settings
from helmops.service.wiring import Installation
from helmops.sources.tree_files import TreeFiles
from tests.fakes.artifact_trees import FakeArtifactTrees
from tests.fakes.chart_builder import FakeChartBuilder
from tests.fakes.chart_repositories import FakeChartRepositories
from tests.fakes.cluster_state import FakeChart, FakeCluster
from tests.fakes.git_trees import FakeGitTrees
from tests.fakes.helm import FakeHelm
from tests.fakes.journal import FakeJournal
from tests.fakes.kubernetes_api import FakeKubernetes
from tests.fakes.leases import FakeLeases
from tests.fakes.notifier import FakeNotifier
from tests.fakes.oci_repositories import FakeOciRepositories
from tests.fakes.references import FakeReferences
from tests.fakes.release_storage import FakeReleaseStorage
from tests.fakes.world import ClusterChecks, NotedHooks

URL = "https://charts.example.com"


class Machine:
    """Somebody's machine with helmops, and the cluster that its commands talk to.

    Records are in `server`, releases in `cluster`; the charts that `offer` offers are at `URL`.
    """

    def __init__(self, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.home = home
        self.server = FakeKubernetes("apps")
        self.cluster = FakeCluster()
        self.repositories = FakeChartRepositories()
        self.artifacts = FakeOciRepositories()
        self.journal = FakeJournal()
        self.opened: list[Settings] = []
        self._charts: dict[tuple[str, str], FakeChart] = {}
        for name in ("STATE", "CACHE"):
            monkeypatch.setenv(f"XDG_{name}_HOME", str(home / name.lower()))
        monkeypatch.setenv("HELMOPS_NAMESPACE", "apps")
        monkeypatch.setattr(Api, "connect", self._connect)
        monkeypatch.setattr(Installation, "open", self._open)
        self._monkeypatch = monkeypatch

    def declare(self, *documents: Any) -> Path:
        """Write declarations, which commands then take without being told."""
        file = self.home / "declarations" / "all.yaml"
        file.parent.mkdir(exist_ok=True)
        file.write_text(yaml.safe_dump_all(documents, sort_keys=False))
        self._monkeypatch.setenv("HELMOPS_FILENAME", str(file.parent))
        return file

    def undeclare(self) -> None:
        """Commands are told of no declarations any more."""
        self._monkeypatch.delenv("HELMOPS_FILENAME")

    def offer(self, *charts: FakeChart) -> None:
        """Let the repository have these charts."""
        for chart in charts:
            self.repositories.offer(URL, chart.name, chart.version)
            self._charts[chart.name, chart.version] = chart

    async def records(self) -> SecretRecords:
        """The records, for a test that writes some."""
        return SecretRecords(self.server.api())

    async def keep(self, *records: Record) -> None:
        """Write records into the cluster."""
        kept = await self.records()
        for record in records:
            await kept.save(record)

    async def record(self, name: str = "web", namespace: str = "apps") -> Record | None:
        return await (await self.records()).load(ReleaseId(namespace, name))

    async def _connect(self, **_: Any) -> Api:
        return self.server.api()

    @contextlib.asynccontextmanager
    async def _open(
        self,
        settings: Settings,
        *,
        read_only: bool = False,
        tell: Callable[[DeclarationKey, str], None] | None = None,
        **_: Any,
    ) -> AsyncIterator[Installation]:
        self.opened.append(settings)
        clock, observe_only = self.cluster.clock, read_only or settings.observe
        api = self.server.api(read_only=observe_only)
        helm, storage = _HelmByName(self.cluster, self._charts), FakeReleaseStorage(self.cluster)
        secrets = DeclaredSecrets(FakeReferences())
        declarations = Declarations(
            clock=clock,
            git=FakeGitTrees(),
            artifacts=FakeArtifactTrees(),
            default_namespace=settings.namespace,
            random=lambda: 0.0,
        )
        for filename in settings.filenames:
            declarations.add_directory(filename)
        resolver = Resolver(
            clock=clock,
            helm=helm,
            repositories=self.repositories,
            artifacts=self.artifacts,
            git=FakeGitTrees(),
            builder=FakeChartBuilder(),
            files=TreeFiles(),
            references=secrets,
            defaults=Defaults(settings.defaults),
            location_of=declarations.location_of,
            observe_only=observe_only,
        )
        records = SecretRecords(api)
        notifier = FakeNotifier()
        reconciler = Reconciler(
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
            records=records,
            leases=FakeLeases(),
            journal=self.journal,
            notifier=notifier,
            holder="test",
            observe_only=observe_only,
            tell=tell,
        )
        yield Installation(
            settings=settings,
            clock=cast(Any, clock),
            api=api,
            helm=cast(Any, helm),
            http=cast(Any, None),
            journal=cast(Any, self.journal),
            notifier=cast(Any, notifier),
            declarations=declarations,
            resolver=resolver,
            reconciler=reconciler,
            records=records,
            index=None,
            liveness=None,
            metrics=Metrics(),
            secrets=secrets,
            references=cast(Any, None),
            who="ada@laptop",
        )


class _HelmByName(FakeHelm):
    """A helm that knows what the charts of a repository do by their names and versions."""

    def __init__(self, cluster: FakeCluster, charts: dict[tuple[str, str], FakeChart]) -> None:
        super().__init__(cluster)
        self._by_name = charts

    async def install(self, release: Any, chart: Any, *arguments: Any, **options: Any) -> Any:
        return await super().install(release, self._known(chart), *arguments, **options)

    async def upgrade(self, release: Any, chart: Any, *arguments: Any, **options: Any) -> Any:
        return await super().upgrade(release, self._known(chart), *arguments, **options)

    async def render(self, release: Any, chart: Any, *arguments: Any, **options: Any) -> Any:
        return await super().render(release, self._known(chart), *arguments, **options)

    def _known(self, chart: Any) -> Any:
        known = self._by_name.get((chart.name, chart.version))
        return self.cluster.publish(known) if known else chart
