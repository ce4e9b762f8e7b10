"""What every `ChartRepositories` does: the fake of the scenarios, and the real one."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, Protocol

import pytest

from helmops.errors import (
    ChartNotFound,
    ChartRefused,
    SourceDenied,
    SourceError,
    SourceMissing,
    SourceUnavailable,
)
from helmops.http import Http
from helmops.model.charts import ChartVersion
from helmops.model.credentials import HttpCredentials
from helmops.model.declarations import HelmRepositorySpec
from helmops.reconcile.ports import ChartRepositories
from helmops.sources.helm_repository import HelmRepositories
from tests.fakes.chart_archives import chart_archive, sha256
from tests.fakes.chart_repositories import FakeChartRepositories
from tests.fakes.web_server import Answer, WebServer, web_server

NONE = HttpCredentials()


class World(Protocol):
    """A repository that tests can fill and break."""

    repositories: ChartRepositories
    spec: HelmRepositorySpec

    def offer(self, chart: str, *versions: str) -> None: ...

    def withdraw(self, chart: str, version: str) -> None: ...

    def fail(self, status: int) -> None: ...

    def lie_about(self, chart: str, version: str) -> None: ...

    def pass_time(self) -> None:
        """Until the interval is over."""


class FakeWorld:
    def __init__(self) -> None:
        self.repositories = self._fake = FakeChartRepositories(polls=False)
        self.spec = HelmRepositorySpec(url="https://charts.example", interval=timedelta(minutes=5))

    def offer(self, chart: str, *versions: str) -> None:
        self._fake.offer(self.spec.url, chart, *versions)

    def withdraw(self, chart: str, version: str) -> None:
        self._fake.withdraw(self.spec.url, chart, version)

    def fail(self, status: int) -> None:
        kinds: dict[int, type[SourceError]] = {401: SourceDenied, 404: SourceMissing}
        error = kinds.get(status, SourceUnavailable)(f"the server answered {status}")
        self._fake.fail(self.spec.url, error)

    def lie_about(self, chart: str, version: str) -> None:
        self._fake.refused[f"{chart}-{version}"] = ChartRefused("not the one that is described")

    def pass_time(self) -> None:
        self._fake.polls = True


class RealWorld:
    def __init__(self, server: WebServer, http: Http, cache: Path) -> None:
        self._server = server
        self._now = 0.0
        self._entries: dict[str, list[dict[str, Any]]] = {}
        self._publish()
        self.repositories = HelmRepositories(http, cache, monotonic=lambda: self._now)
        self.spec = HelmRepositorySpec(url=server.url, interval=timedelta(minutes=5))

    def offer(self, chart: str, *versions: str) -> None:
        for version in versions:
            archive = chart_archive(chart, version)
            self._server.routes[f"/{chart}-{version}.tgz"] = Answer(body=archive)
            self._entries.setdefault(chart, []).append(
                {
                    "name": chart,
                    "version": version,
                    "digest": sha256(archive),
                    "urls": [f"{chart}-{version}.tgz"],
                }
            )
        self._publish()

    def withdraw(self, chart: str, version: str) -> None:
        self._entries[chart] = [one for one in self._entries[chart] if one["version"] != version]
        self._publish()

    def fail(self, status: int) -> None:
        self._server.routes["/index.yaml"] = Answer(status)

    def lie_about(self, chart: str, version: str) -> None:
        self._server.routes[f"/{chart}-{version}.tgz"] = Answer(body=chart_archive(chart, "6.6.6"))

    def pass_time(self) -> None:
        self._now += 301

    def _publish(self) -> None:
        index = json.dumps({"apiVersion": "v1", "entries": self._entries}).encode()
        self._server.routes["/index.yaml"] = Answer(body=index)


@pytest.fixture
def server() -> Iterator[WebServer]:
    with web_server() as one:
        yield one


@pytest.fixture(params=["fake", "real"])
async def world(
    request: pytest.FixtureRequest, server: WebServer, tmp_path: Path
) -> AsyncIterator[World]:
    async with Http() as http:
        yield FakeWorld() if request.param == "fake" else RealWorld(server, http, tmp_path)


async def versions(world: World, chart: str) -> list[str]:
    found = await world.repositories.versions(world.spec, chart, NONE)
    return [one.version for one in found]


async def entry(world: World, chart: str, version: str) -> ChartVersion:
    found = await world.repositories.versions(world.spec, chart, NONE)
    return next(one for one in found if one.version == version)


async def test_versions_come_in_the_index_s_order(world: World) -> None:
    world.offer("app", "1.0.0", "3.0.0", "2.0.0-rc.1")
    assert await versions(world, "app") == ["1.0.0", "3.0.0", "2.0.0-rc.1"]


async def test_a_chart_that_is_not_listed_is_not_found(world: World) -> None:
    world.offer("app", "1.0.0")
    with pytest.raises(ChartNotFound, match="web"):
        await versions(world, "web")


async def test_a_chart_whose_last_version_went_is_not_found(world: World) -> None:
    world.offer("app", "1.0.0")
    world.withdraw("app", "1.0.0")
    with pytest.raises(ChartNotFound):
        await versions(world, "app")


async def test_news_are_seen_when_the_interval_is_over_and_not_before(world: World) -> None:
    world.offer("app", "1.0.0")
    assert await versions(world, "app") == ["1.0.0"]
    world.offer("app", "2.0.0")
    assert await versions(world, "app") == ["1.0.0"]
    world.pass_time()
    assert await versions(world, "app") == ["1.0.0", "2.0.0"]


async def test_a_refresh_sees_news_at_once_and_says_whether_there_were_any(world: World) -> None:
    world.offer("app", "1.0.0")
    assert await world.repositories.refresh(world.spec, NONE) is True
    assert await world.repositories.refresh(world.spec, NONE) is False
    world.offer("app", "2.0.0")
    assert await world.repositories.refresh(world.spec, NONE) is True
    assert await versions(world, "app") == ["1.0.0", "2.0.0"]


@pytest.mark.parametrize(
    ("status", "kind"),
    [(401, SourceDenied), (404, SourceMissing), (429, SourceUnavailable), (503, SourceUnavailable)],
)
async def test_a_failing_repository_raises_what_it_means(
    world: World, status: int, kind: type[SourceError]
) -> None:
    world.offer("app", "1.0.0")
    world.fail(status)
    with pytest.raises(kind):
        await versions(world, "app")
    with pytest.raises(kind):
        await world.repositories.refresh(world.spec, NONE)


async def test_within_the_interval_a_failing_repository_is_not_noticed(world: World) -> None:
    world.offer("app", "1.0.0")
    await versions(world, "app")
    world.fail(503)
    assert await versions(world, "app") == ["1.0.0"]
    world.pass_time()
    assert await versions(world, "app") == ["1.0.0"]  # as it was, while it does not answer
    with pytest.raises(SourceUnavailable):
        await world.repositories.refresh(world.spec, NONE)


async def test_a_pulled_archive_is_the_one_that_the_index_describes(world: World) -> None:
    world.offer("app", "1.0.0", "2.0.0")
    wanted = await entry(world, "app", "2.0.0")
    artifact = await world.repositories.pull(world.spec, wanted, NONE)
    assert (artifact.name, artifact.version, artifact.digest, artifact.revision) == (
        "app",
        "2.0.0",
        wanted.digest,
        "2.0.0",
    )
    assert artifact.source == world.spec.url


async def test_an_archive_that_the_index_does_not_describe_is_refused(world: World) -> None:
    world.offer("app", "1.0.0")
    world.lie_about("app", "1.0.0")
    wanted = await entry(world, "app", "1.0.0")
    with pytest.raises(ChartRefused):
        await world.repositories.pull(world.spec, wanted, NONE)
