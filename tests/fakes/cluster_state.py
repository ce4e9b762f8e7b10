"""Helm's storage and what is applied, in memory: the world that FakeHelm acts in.

One `FakeCluster` is shared by `FakeHelm`, `FakeReleaseStorage` and whoever else fakes a view on the
same cluster. Charts are described by what they do (`FakeChart`), people's own `helm` commands are
another `FakeHelm` on the same cluster, and trouble is planted with `kill`, `hang`, `fail` and
`unreachable`.

    cluster = FakeCluster()
    good = cluster.publish(FakeChart("app", "1.0.0"))
    bad = cluster.publish(FakeChart("app", "1.1.0", never_ready=True))
    helm, storage = FakeHelm(cluster), FakeReleaseStorage(cluster)
    cluster.kill("upgrade", Point.APPLIED)       # the next upgrade dies there, like `kill -9`
"""

from __future__ import annotations

import asyncio
import copy
import hashlib
import json
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from helmops.errors import ClusterUnreachable
from helmops.model.charts import ChartArtifact
from helmops.model.releases import HelmStatus, ReleaseId, Revision, TestHook, TestPhase
from helmops.resolve.digest import config_digest, revision_digest
from tests.fakes.clock import FakeClock

#: Whether a chart does something; with a function, depending on the values it is given.
Outcome = bool | Callable[[Mapping[str, Any]], bool]


class Killed(BaseException):
    """The process died at this very instant; nothing after it was done."""


class Point(StrEnum):
    """Where in an operation something can happen."""

    STARTED = "started"  #: helm runs and has changed nothing
    STORED = "stored"  #: the revision is in storage, locked; no object was touched
    APPLIED = "applied"  #: the objects are applied, the revision is still locked
    FINISHED = "finished"  #: all is done and stored, the caller has not been told


@dataclass(frozen=True)
class Moment:
    """An operation has come to a point. `revision` is the one it makes, 0 before it is stored."""

    operation: str
    point: Point
    release: ReleaseId
    revision: int = 0


@dataclass(frozen=True, eq=False)
class FakeChart:
    """A chart, described by what happens to it.

    - `fails_install`, `fails_upgrade`, `fails_rollback`: the API server refuses an object, after
      others were applied. `fails_rollback` is about a rollback to a revision of this chart, which
      fails where an upgrade to it does unless said otherwise.
    - `never_ready`: helm's own wait runs out (where helm waits).
    - `unhealthy`: helm is content, whoever looks at the objects is not.
    - `fails_render`, `refuses_values`: the chart does not get as far as the storage.
    - `takes_foreign_objects`: an object exists and belongs to another release.
    - `failing_hooks`: hooks that fail, by Helm's names (`pre-upgrade`, `post-rollback`…).
    - `fails_uninstall`: helm gives up half way, the release stays `uninstalling`.
    - `content` tells apart charts of one version with different content.
    """

    name: str = "app"
    version: str = "1.0.0"
    app_version: str = ""
    values: Mapping[str, Any] = field(default_factory=dict)
    tests: Sequence[str] = ()
    failing_tests: Collection[str] | Callable[[Mapping[str, Any]], Collection[str]] = ()
    failing_hooks: Collection[str] = ()
    fails_install: Outcome = False
    fails_upgrade: Outcome = False
    fails_rollback: Outcome | None = None
    fails_uninstall: Outcome = False
    never_ready: Outcome = False
    unhealthy: Outcome = False
    fails_render: Outcome = False
    refuses_values: Outcome = False
    takes_foreign_objects: Outcome = False
    deprecated: bool = False
    #: A Job migrates something before each upgrade to it, which no rollback undoes.
    migrates: bool = False
    content: str = ""

    @property
    def artifact(self) -> ChartArtifact:
        """The archive, as a source would hand it over."""
        text = f"{self.name}\n{self.version}\n{self.content}"
        return ChartArtifact(
            name=self.name,
            version=self.version,
            path=f"/charts/{self.name}-{self.version}.tgz",
            digest=hashlib.sha256(text.encode()).hexdigest(),
            source="HelmRepository/fake",
            revision=self.version,
            app_version=self.app_version,
            deprecated=self.deprecated,
        )

    @property
    def test_names(self) -> tuple[str, ...]:
        """All tests; a failing one needs not be named twice."""
        failing = () if callable(self.failing_tests) else self.failing_tests
        return tuple(dict.fromkeys((*self.tests, *failing)))

    def does(self, outcome: Outcome, values: Mapping[str, Any]) -> bool:
        return outcome(values) if callable(outcome) else outcome

    def fails_going_back(self, values: Mapping[str, Any]) -> bool:
        outcome = self.fails_upgrade if self.fails_rollback is None else self.fails_rollback
        return self.does(outcome, values)

    def fails_test(self, name: str, values: Mapping[str, Any]) -> bool:
        failing = self.failing_tests
        return name in (failing(values) if callable(failing) else failing)

    def hooks(self, release: ReleaseId) -> tuple[dict[str, Any], ...]:
        """Hooks that run on an upgrade."""
        if not self.migrates:
            return ()
        metadata = {"name": "migrate", "annotations": {"helm.sh/hook": "pre-upgrade"}}
        return ({"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata},)

    def objects(self, release: ReleaseId, values: Mapping[str, Any]) -> tuple[dict[str, Any], ...]:
        """What the chart renders: a ConfigMap that shows version and values, and a Deployment."""
        labels = {"app.kubernetes.io/instance": release.name}
        shown = json.dumps(merge(self.values, values), sort_keys=True)
        return (
            {
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": {
                    "name": release.name,
                    "namespace": release.namespace,
                    "labels": labels,
                },
                "data": {"version": self.version, "content": self.content, "values": shown},
            },
            {
                "apiVersion": "apps/v1",
                "kind": "Deployment",
                "metadata": {
                    "name": release.name,
                    "namespace": release.namespace,
                    "labels": labels,
                },
                "spec": {"replicas": 1, "image": f"{self.name}:{self.version}"},
            },
        )


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Values merged as helm does: maps deeply, None deletes, everything else replaces."""
    merged = {key: copy.deepcopy(value) for key, value in base.items()}
    for key, value in over.items():
        if value is None:
            merged.pop(key, None)
        elif isinstance(value, Mapping) and isinstance(merged.get(key), Mapping):
            merged[key] = merge(merged[key], value)
        else:
            merged[key] = copy.deepcopy(value)
    return merged


@dataclass
class StoredTest:
    """A test hook of one stored revision."""

    name: str
    phase: TestPhase = TestPhase.NEVER
    started: datetime | None = None
    completed: datetime | None = None
    delete_policies: tuple[str, ...] = ()


@dataclass
class StoredRevision:
    """One release Secret."""

    release: ReleaseId
    number: int
    status: HelmStatus
    chart: FakeChart
    values: Mapping[str, Any]
    description: str
    first_deployed: datetime
    last_deployed: datetime
    tests: list[StoredTest]
    rollback_to: int = 0

    @property
    def objects(self) -> tuple[dict[str, Any], ...]:
        return self.chart.objects(self.release, self.values)

    def body(self) -> dict[str, Any]:
        """What helm would have stored, as far as anybody looks at it."""
        hooks = []
        for test in self.tests:
            manifest = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": test.name}}
            hook: dict[str, Any] = {
                "name": test.name,
                "kind": "Pod",
                "path": f"{self.chart.name}/templates/tests/{test.name}.yaml",
                "manifest": json.dumps(manifest),
                "events": ["test"],
                "last_run": {
                    "started_at": test.started.isoformat() if test.started else "",
                    "completed_at": test.completed.isoformat() if test.completed else "",
                    "phase": test.phase.value,
                },
            }
            if test.delete_policies:
                hook["delete_policies"] = list(test.delete_policies)
            hooks.append(hook)
        hooks += [
            {"name": each, "kind": "Job", "manifest": each, "events": [each]}
            for each in self.chart.failing_hooks
        ]
        return {
            "name": self.release.name,
            "namespace": self.release.namespace,
            "version": self.number,
            "info": {
                "first_deployed": self.first_deployed.isoformat(),
                "last_deployed": self.last_deployed.isoformat(),
                "deleted": "",
                "description": self.description,
                "status": self.status.value,
            },
            "chart": {
                "metadata": {
                    "name": self.chart.name,
                    "version": self.chart.version,
                    "appVersion": self.chart.app_version,
                    "apiVersion": "v2",
                },
                "lock": None,
                "templates": [{"name": "templates/all.yaml", "data": self.chart.content}],
                "values": dict(self.chart.values),
                "schema": None,
                "files": None,
            },
            "config": dict(self.values),
            "manifest": "".join(f"---\n{json.dumps(each)}\n" for each in self.objects),
            "hooks": hooks,
        }

    def as_revision(self) -> Revision:
        body = self.body()
        return Revision(
            number=self.number,
            status=self.status,
            digest=revision_digest(body["chart"], body["config"], body["manifest"], body["hooks"]),
            chart_name=self.chart.name,
            chart_version=self.chart.version,
            app_version=self.chart.app_version,
            config_digest=config_digest(self.values),
            first_deployed=self.first_deployed,
            last_deployed=self.last_deployed,
            description=self.description,
            test_hooks=tuple(
                TestHook(test.name, test.phase, test.started, test.completed) for test in self.tests
            ),
        )


@dataclass(frozen=True)
class Live:
    """What of a release is in the cluster now. `complete` is False when helm broke off while it
    applied the objects, or one was refused."""

    chart: FakeChart
    values: Mapping[str, Any]
    objects: tuple[dict[str, Any], ...]
    complete: bool = True


@dataclass(frozen=True)
class HelmCall:
    """One run of helm. `chart` and `values` are empty where the command takes none."""

    operation: str
    release: ReleaseId
    chart: str = ""
    values: Mapping[str, Any] = field(default_factory=dict)
    revision: int = 0
    spec: Any = None
    timeout: timedelta = timedelta()
    description: str = ""
    wait_strategy: str = ""

    def __str__(self) -> str:
        what = self.chart or (f"to {self.revision}" if self.revision else "")
        return " ".join(part for part in (self.operation, str(self.release), what) if part)


#: Looks at each moment; what it raises happens there, what it returns is awaited there.
Watcher = Callable[[Moment], Awaitable[None] | None]


class FakeCluster:
    """Helm's storage of all releases, what is applied, and the trouble a test planted.

    - `runs` counts helm processes by operation, `calls` lists them, `writes` counts changes of the
      storage by whoever made them (helm's included).
    - `unreachable` makes helm and the storage fail as without an API server.
    - `orphans` are releases that a helm of a dead helmops still works on.
    - every helm command takes `duration` of the clock's time.
    """

    def __init__(self, clock: FakeClock | None = None) -> None:
        self.clock = clock or FakeClock()
        self.duration = timedelta(seconds=1)
        self.history: dict[ReleaseId, dict[int, StoredRevision]] = {}
        self.live: dict[ReleaseId, Live] = {}
        #: The kept copies of healthy revisions.
        self.copies: dict[ReleaseId, StoredRevision] = {}
        self.charts: dict[str, FakeChart] = {}
        self.namespaces: set[str] = {"default"}
        self.runs: Counter[str] = Counter()
        self.calls: list[HelmCall] = []
        self.writes = 0
        self.unreachable = False
        self.orphans: set[ReleaseId] = set()
        self.moments: list[Moment] = []
        self.watchers: list[Watcher] = []
        self._versions: Counter[ReleaseId] = Counter()
        self._sick: set[ReleaseId] = set()

    # Charts and what is applied

    def publish(self, chart: FakeChart) -> ChartArtifact:
        """Make a chart known, so that helm can be given its artifact."""
        self.charts[chart.artifact.digest] = chart
        return chart.artifact

    def chart_of(self, artifact: ChartArtifact) -> FakeChart:
        """The chart behind an artifact; one that nobody published does nothing special."""
        return self.charts.get(artifact.digest) or FakeChart(
            artifact.name, artifact.version, app_version=artifact.app_version
        )

    def is_healthy(self, release: ReleaseId) -> bool:
        """Whether the release's objects are all there and ready."""
        live = self.live.get(release)
        if live is None or not live.complete or release in self._sick:
            return False
        chart, values = live.chart, live.values
        return not (chart.does(chart.unhealthy, values) or chart.does(chart.never_ready, values))

    def sicken(self, release: ReleaseId) -> None:
        """Something breaks in the cluster, whatever is deployed; until `heal` or a new apply."""
        self._sick.add(release)

    def heal(self, release: ReleaseId) -> None:
        self._sick.discard(release)

    def apply(self, revision: StoredRevision, *, complete: bool = True) -> None:
        """Put a revision's objects into the cluster."""
        self._sick.discard(revision.release)
        self.live[revision.release] = Live(
            revision.chart, revision.values, revision.objects, complete
        )

    # Helm's storage

    def revisions(self, release: ReleaseId) -> list[StoredRevision]:
        """All stored revisions, oldest first."""
        stored = self.history.get(release, {})
        return [stored[number] for number in sorted(stored)]

    def last(self, release: ReleaseId) -> StoredRevision | None:
        revisions = self.revisions(release)
        return revisions[-1] if revisions else None

    def statuses(self, release: ReleaseId) -> dict[int, str]:
        """Status by revision number, for comparing with what helm leaves behind."""
        return {each.number: each.status.value for each in self.revisions(release)}

    def deployed(self, release: ReleaseId) -> list[StoredRevision]:
        return [r for r in self.revisions(release) if r.status is HelmStatus.DEPLOYED]

    def store(self, revision: StoredRevision) -> StoredRevision:
        """Create or rewrite a release Secret."""
        self.history.setdefault(revision.release, {})[revision.number] = revision
        self.touch(revision.release)
        return revision

    def forget(self, release: ReleaseId, number: int) -> bool:
        """Delete a release Secret; whether there was one."""
        stored = self.history.get(release, {})
        gone = stored.pop(number, None)
        if not stored:
            self.history.pop(release, None)
        if gone:
            self.touch(release)
        return gone is not None

    def touch(self, release: ReleaseId) -> None:
        self.writes += 1
        self._versions[release] += 1

    def version(self, release: ReleaseId) -> str:
        """Changes whenever the storage of this release does."""
        return str(self._versions[release])

    def new_revision(
        self,
        release: ReleaseId,
        chart: FakeChart,
        values: Mapping[str, Any],
        *,
        status: HelmStatus,
        description: str,
        number: int | None = None,
        first_deployed: datetime | None = None,
    ) -> StoredRevision:
        """A revision behind the last one, not yet stored."""
        last = self.last(release)
        now = self.clock.now()
        return StoredRevision(
            release=release,
            number=number or (last.number + 1 if last else 1),
            status=status,
            chart=chart,
            values=copy.deepcopy(dict(values)),
            description=description,
            first_deployed=first_deployed or (last.first_deployed if last else now),
            last_deployed=now,
            tests=[StoredTest(name) for name in chart.test_names],
        )

    def add(
        self,
        release: ReleaseId,
        chart: FakeChart,
        values: Mapping[str, Any] | None = None,
        *,
        status: HelmStatus = HelmStatus.DEPLOYED,
        description: str = "",
        number: int | None = None,
    ) -> StoredRevision:
        """Seed the storage with a revision as it lies, without running helm's rules.

        A deployed one is applied as well.
        """
        revision = self.new_revision(
            release, chart, values or {}, status=status, description=description, number=number
        )
        self.publish(chart)
        if status is HelmStatus.DEPLOYED:
            self.apply(revision)
        return self.store(revision)

    # Trouble

    async def reach(self, moment: Moment) -> None:
        """An operation comes to a point; planted trouble happens here."""
        self.moments.append(moment)
        for watcher in tuple(self.watchers):
            result = watcher(moment)
            if result is not None:
                await result

    def check_reachable(self) -> None:
        if self.unreachable:
            raise ClusterUnreachable(
                "the API server does not answer", next_step="helmops tries again by itself"
            )

    def at(
        self,
        operation: str,
        point: Point,
        what: BaseException | Callable[[], Awaitable[None]],
        *,
        times: int = 1,
        release: ReleaseId | None = None,
    ) -> None:
        """Plant trouble at the next `times` fitting moments: an exception, or something awaited."""
        left = times

        def watcher(moment: Moment) -> Awaitable[None] | None:
            nonlocal left
            fits = moment.operation == operation and moment.point == point
            if not fits or left <= 0 or (release is not None and moment.release != release):
                return None
            left -= 1
            if isinstance(what, BaseException):
                raise copy.copy(what)
            return what()

        self.watchers.append(watcher)

    def kill(self, operation: str, point: Point, *, times: int = 1) -> None:
        """The process dies there: `Killed` comes out of the operation, nothing is tidied up."""
        self.at(operation, point, Killed(f"{operation} {point}"), times=times)

    def fail(self, operation: str, point: Point, error: Exception, *, times: int = 1) -> None:
        """The operation fails there with this error, and helm marks what it marks then."""
        self.at(operation, point, error, times=times)

    def hang(self, operation: str, point: Point, *, times: int = 1) -> asyncio.Event:
        """The operation stays there until the returned event is set, or it is cancelled."""
        release = asyncio.Event()

        async def wait() -> None:
            await release.wait()

        self.at(operation, point, wait, times=times)
        return release

    def kill_at_moment(self, count: int) -> None:
        """Die at the `count`-th moment from now (0 is the next one), whatever it is.

        With this a property test walks through every instant of a pass.
        """
        left = count

        def watcher(moment: Moment) -> None:
            nonlocal left
            left -= 1
            if left == -1:
                raise Killed(f"{moment.operation} {moment.point}")

        self.watchers.append(watcher)

    def no_more_trouble(self) -> None:
        """Take back everything that was planted and has not happened."""
        self.watchers.clear()
        self.unreachable = False

    def copy_revision(self, revision: StoredRevision) -> StoredRevision:
        """An independent copy, as reading the Secret twice would give."""
        return replace(revision, tests=[replace(test) for test in revision.tests])
