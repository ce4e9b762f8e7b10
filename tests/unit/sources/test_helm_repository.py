"""helmops/sources/helm_repository.py, against a repository on loopback."""

from __future__ import annotations

import asyncio
import json
import os
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import responses

from helmops.errors import (
    ChartNotFound,
    ChartRefused,
    SignatureRefused,
    SourceDenied,
    SourceInvalid,
    SourceMissing,
    SourceUnavailable,
)
from helmops.http import Http
from helmops.model.charts import ChartVersion
from helmops.model.credentials import HttpCredentials
from helmops.model.declarations import HelmRepositorySpec
from helmops.sources.archive import ArchiveLimits
from helmops.sources.artifact_cache import digest_of
from helmops.sources.helm_repository import HelmRepositories
from tests.fakes.chart_archives import archive_of, chart_archive, member, sha256
from tests.fakes.signing import OpenPgpSigner
from tests.fakes.web_server import Answer, Asked, WebServer, web_server

NONE = HttpCredentials()
LOGIN = HttpCredentials(username="ann", password="s3cret")
BASIC = "Basic YW5uOnMzY3JldA=="


class Repository:
    """A chart repository on loopback, with ETags."""

    def __init__(self, server: WebServer) -> None:
        self.server = server
        self.entries: dict[str, list[dict[str, Any]]] = {}
        self.conditional = 0
        server.routes["/charts/index.yaml"] = self._index

    def add(self, chart: str, version: str, archive: bytes | None = None, **more: Any) -> None:
        archive = archive or chart_archive(chart, version)
        path = f"/charts/{chart}-{version}.tgz"
        self.server.routes[path] = Answer(body=archive)
        entry = {
            "name": chart,
            "version": version,
            "digest": sha256(archive),
            "urls": [f"{chart}-{version}.tgz"],
            **more,
        }
        self.entries.setdefault(chart, []).append(entry)

    def _index(self, asked: Asked) -> Answer:
        body = json.dumps({"apiVersion": "v1", "entries": self.entries}).encode()
        etag = f'"{sha256(body)[:8]}"'
        if asked.headers.get("if-none-match") == etag:
            self.conditional += 1
            return Answer(304, headers={"ETag": etag})
        return Answer(body=body, headers={"ETag": etag})

    @property
    def polls(self) -> int:
        return self.server.paths.count("/charts/index.yaml")

    @property
    def url(self) -> str:
        return f"{self.server.url}/charts"


@pytest.fixture
def server() -> Iterator[WebServer]:
    with web_server() as one:
        yield one


@pytest.fixture
def repository(server: WebServer) -> Repository:
    one = Repository(server)
    one.add("app", "1.0.0")
    one.add("web", "0.1.0")
    return one


@pytest.fixture
async def http() -> AsyncIterator[Http]:
    async with Http() as one:
        yield one


class Time:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
def make(http: Http, tmp_path: Path, time: Time) -> Callable[..., HelmRepositories]:
    def made(**options: Any) -> HelmRepositories:
        return HelmRepositories(http, tmp_path / "cache", monotonic=time, **options)

    return made


def spec_of(url: str, **more: Any) -> HelmRepositorySpec:
    return HelmRepositorySpec(url=url, interval=timedelta(seconds=60), **more)


async def pulled(
    repositories: HelmRepositories,
    spec: HelmRepositorySpec,
    chart: str = "app",
    credentials: HttpCredentials = NONE,
) -> str:
    (version, *_) = await repositories.versions(spec, chart, credentials)
    return (await repositories.pull(spec, version, credentials)).digest


Make = Callable[..., HelmRepositories]


# Polling.


async def test_many_that_ask_at_once_share_one_poll(repository: Repository, make: Make) -> None:
    repositories, spec = make(), spec_of(repository.url)
    asked = [
        repositories.versions(spec, chart, NONE) for chart in ("app", "web") for _ in range(20)
    ]
    await asyncio.gather(*asked)
    assert repository.polls == 1


async def test_a_poll_is_conditional_and_an_unchanged_index_is_not_read_again(
    repository: Repository, make: Make, time: Time, monkeypatch: pytest.MonkeyPatch
) -> None:
    repositories, spec = make(), spec_of(repository.url)
    first = await repositories.versions(spec, "app", NONE)
    time.now += 61
    monkeypatch.setattr("helmops.sources.index.Index.versions", None)
    assert await repositories.versions(spec, "app", NONE) is first
    assert (repository.polls, repository.conditional) == (2, 1)


async def test_last_modified_is_used_too(server: WebServer, make: Make, time: Time) -> None:
    date = "Wed, 01 Jul 2026 00:00:00 GMT"
    body = b"apiVersion: v1\nentries:\n  app:\n  - version: 1.0.0\n    name: app\n"
    server.routes["/index.yaml"] = Answer(body=body, headers={"Last-Modified": date})
    repositories, spec = make(), spec_of(server.url)
    await repositories.refresh(spec, NONE)
    server.routes["/index.yaml"] = Answer(304)
    assert await repositories.refresh(spec, NONE) is False
    assert server.asked[1].headers["if-modified-since"] == date


async def test_the_same_bytes_under_another_etag_are_no_news(server: WebServer, make: Make) -> None:
    body = b"apiVersion: v1\nentries:\n  app:\n  - version: 1.0.0\n    name: app\n"
    repositories, spec = make(), spec_of(server.url)
    changes = []
    for etag in ('"1"', '"2"'):
        server.routes["/index.yaml"] = Answer(body=body, headers={"ETag": etag})
        changes.append(await repositories.refresh(spec, NONE))
    assert changes == [True, False]


async def test_a_restart_asks_conditionally_and_reads_what_is_on_disk(
    repository: Repository, make: Make
) -> None:
    spec = spec_of(repository.url)
    before = await make().versions(spec, "app", NONE)
    assert await make().versions(spec, "app", NONE) == before
    assert (repository.polls, repository.conditional) == (2, 1)


@pytest.mark.parametrize("damage", ["index", "facts", "both"])
async def test_a_damaged_cache_is_as_none_at_all(
    repository: Repository, make: Make, tmp_path: Path, damage: str
) -> None:
    spec = spec_of(repository.url)
    before = await make().versions(spec, "app", NONE)
    suffixes = {"index": (".yaml",), "facts": (".json",), "both": (".yaml", ".json")}[damage]
    for path in (tmp_path / "cache" / "indexes").iterdir():
        if path.suffix in suffixes:
            path.write_bytes(b"damaged")
    assert await make().versions(spec, "app", NONE) == before
    assert repository.conditional == 0


async def test_a_cache_that_is_cleared_while_running_is_filled_again(
    repository: Repository, make: Make, tmp_path: Path
) -> None:
    repositories, spec = make(), spec_of(repository.url)
    await repositories.versions(spec, "app", NONE)
    for path in (tmp_path / "cache" / "indexes").iterdir():
        path.unlink()
    assert len(await repositories.versions(spec, "web", NONE)) == 1
    assert (repository.polls, repository.conditional) == (2, 0)


async def test_an_index_that_nobody_uses_any_more_is_removed(
    repository: Repository, make: Make, tmp_path: Path
) -> None:
    repositories, spec = make(), spec_of(repository.url)
    for version in ("2.0.0", "3.0.0"):
        repository.add("app", version)
        await repositories.refresh(spec, NONE)
    assert len(list((tmp_path / "cache" / "indexes").glob("*.yaml"))) == 1


async def test_other_credentials_are_another_repository(
    repository: Repository, make: Make, tmp_path: Path
) -> None:
    repositories, spec = make(), spec_of(repository.url)
    await repositories.versions(spec, "app", LOGIN)
    await repositories.versions(spec, "app", NONE)
    assert repository.polls == 2
    assert [asked.headers.get("authorization") for asked in repository.server.asked] == [
        BASIC,
        None,
    ]
    stored = b"".join(
        str(path).encode() + path.read_bytes() for path in (tmp_path / "cache").rglob("*.json")
    )
    assert b"s3cret" not in stored


async def test_a_failed_poll_is_shared_for_a_few_seconds_and_then_tried_again(
    server: WebServer, make: Make, time: Time
) -> None:
    server.routes["/index.yaml"] = Answer(503)
    repositories, spec = make(), spec_of(server.url)
    for _ in range(3):
        with pytest.raises(SourceUnavailable, match="503"):
            await repositories.versions(spec, "app", NONE)
    assert len(server.asked) == 1
    time.now += 6
    with pytest.raises(SourceUnavailable):
        await repositories.versions(spec, "app", NONE)
    assert len(server.asked) == 2


@pytest.mark.parametrize("restarted", [False, True])
async def test_while_a_repository_is_down_what_it_offered_last_stands(
    repository: Repository, make: Make, time: Time, restarted: bool
) -> None:
    """So an upgrade can run whose archive is in the cache, also after a restart."""
    repositories, spec = make(), spec_of(repository.url)
    digest = await pulled(repositories, spec)
    (version,) = await repositories.versions(spec, "web", NONE)
    index = repository.server.routes["/charts/index.yaml"]
    repository.server.routes = {"/charts/index.yaml": Answer(503)}
    time.now += 61
    if restarted:
        repositories = make()
    assert await pulled(repositories, spec) == digest
    asked = len(repository.server.asked)
    assert await pulled(repositories, spec) == digest  # it is left alone for some seconds
    assert len(repository.server.asked) == asked
    assert "503" in await repositories.trouble(spec, NONE)
    with pytest.raises(SourceUnavailable, match="503"):  # whoever polls is told
        await repositories.refresh(spec, NONE)
    with pytest.raises(SourceMissing):  # an archive that was never fetched is not there
        await repositories.pull(spec, version, NONE)
    repository.server.routes["/charts/index.yaml"] = index
    repository.add("app", "1.1.0")
    time.now += 61
    assert len(await repositories.versions(spec, "app", NONE)) == 2
    assert await repositories.trouble(spec, NONE) == ""


@pytest.mark.parametrize("status", [401, 404])
async def test_a_repository_that_says_no_is_not_taken_to_be_as_it_was(
    repository: Repository, make: Make, time: Time, status: int
) -> None:
    repositories, spec = make(), spec_of(repository.url)
    await repositories.versions(spec, "app", NONE)
    repository.server.routes["/charts/index.yaml"] = Answer(status)
    time.now += 61
    with pytest.raises((SourceDenied, SourceMissing)):
        await repositories.versions(spec, "app", NONE)


async def test_a_server_that_asks_us_to_wait_is_left_alone_so_long(
    server: WebServer, make: Make, time: Time
) -> None:
    server.routes["/index.yaml"] = Answer(429, headers={"Retry-After": "120"})
    repositories, spec = make(), spec_of(server.url)
    for now in (1000, 1060, 1119, 1121):
        time.now = now
        with pytest.raises(SourceUnavailable) as caught:
            await repositories.versions(spec, "app", NONE)
        assert caught.value.retry_after == 120
    assert len(server.asked) == 2


async def test_a_refresh_asks_even_after_a_failure(repository: Repository, make: Make) -> None:
    index = repository.server.routes.pop("/charts/index.yaml")
    repositories, spec = make(), spec_of(repository.url)
    with pytest.raises(SourceMissing):
        await repositories.versions(spec, "app", NONE)
    repository.server.routes["/charts/index.yaml"] = index
    assert await repositories.refresh(spec, NONE) is True
    assert len(await repositories.versions(spec, "app", NONE)) == 1


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"<html><title>Login</title>", "web page titled 'Login'"),
        (b"", "empty"),
        (b'apiVersion: v1\nentries:\n  app:\n  - version: "1.', "cannot be read"),
        (b"message: no\n", "no apiVersion"),
    ],
)
async def test_an_index_that_is_none_is_refused_and_the_next_good_one_is_taken(
    server: WebServer, make: Make, tmp_path: Path, body: bytes, says: str
) -> None:
    server.routes["/index.yaml"] = Answer(body=body)
    repositories, spec = make(), spec_of(server.url)
    with pytest.raises(SourceInvalid, match=says):
        await repositories.refresh(spec, NONE)
    good = b"apiVersion: v1\nentries:\n  app:\n  - version: 1.0.0\n    name: app\n"
    server.routes["/index.yaml"] = Answer(body=good)
    assert await repositories.refresh(spec, NONE) is True
    assert not list((tmp_path / "cache").rglob("*.part"))


async def test_an_index_over_the_limit_is_refused(server: WebServer, make: Make) -> None:
    server.routes["/index.yaml"] = Answer(body=b"#" * 5000)
    with pytest.raises(SourceInvalid, match="limit of 4096 bytes"):
        await make(index_limit=4096).refresh(spec_of(server.url), NONE)


async def test_a_missing_chart_is_remembered_until_the_index_changes(
    repository: Repository, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    repositories, spec = make(), spec_of(repository.url)
    for _ in range(2):
        with pytest.raises(ChartNotFound, match="ap"):
            await repositories.versions(spec, "ap", NONE)
    repository.add("ap", "1.0.0")
    await repositories.refresh(spec, NONE)
    assert len(await repositories.versions(spec, "ap", NONE)) == 1


async def test_a_cancelled_poll_leaves_the_next_one_free(
    repository: Repository, make: Make
) -> None:
    index = repository.server.routes["/charts/index.yaml"]

    def hang(out: Any, stopping: threading.Event) -> None:
        stopping.wait(20)

    repository.server.routes["/charts/index.yaml"] = Answer(raw=hang)
    repositories, spec = make(), spec_of(repository.url)
    first = asyncio.create_task(repositories.versions(spec, "app", NONE))
    async with asyncio.timeout(10):
        while not repository.polls:  # noqa: ASYNC110 - it happens in threads
            await asyncio.sleep(0.01)
    # Not before: the one that comes first is the one that polls.
    second = asyncio.create_task(repositories.versions(spec, "app", NONE))
    await asyncio.sleep(0.05)
    repository.server.routes["/charts/index.yaml"] = index
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    assert len(await second) == 1


async def test_the_timeout_of_the_declaration_counts(server: WebServer, make: Make) -> None:
    def hang(out: Any, stopping: threading.Event) -> None:
        stopping.wait(20)

    server.routes["/index.yaml"] = Answer(raw=hang)
    spec = spec_of(server.url, timeout=timedelta(seconds=0.3))
    with pytest.raises(SourceUnavailable, match=r"0\.3 s"):
        await make().refresh(spec, NONE)


# URLs.


@pytest.mark.parametrize(
    ("repository", "index"),
    [
        ("https://charts.example", "https://charts.example/index.yaml"),
        ("https://charts.example/a/", "https://charts.example/a/index.yaml"),
        ("https://charts.example/a?token=t", "https://charts.example/a/index.yaml?token=t"),
        ("https://u:p@charts.example:444/a", "https://charts.example:444/a/index.yaml"),
    ],
)
@responses.activate
async def test_the_index_is_looked_for_where_helm_looks(
    make: Make, repository: str, index: str
) -> None:
    responses.get(index, body="apiVersion: v1\nentries: {}\n")
    await make().refresh(spec_of(repository), NONE)
    assert responses.calls[0].request.url == index


@pytest.mark.parametrize(
    ("repository", "url", "asked"),
    [
        ("https://h.example/a", "app.tgz", "https://h.example/a/app.tgz"),
        ("https://h.example/a/", "./b/app.tgz", "https://h.example/a/b/app.tgz"),
        ("https://h.example/a", "../app.tgz", "https://h.example/app.tgz"),
        ("https://h.example/a", "/app.tgz", "https://h.example/app.tgz"),
        ("https://h.example/a?t=1", "app.tgz", "https://h.example/a/app.tgz?t=1"),
        ("https://h.example/a?t=1", "https://o.example/x.tgz?y=2", "https://o.example/x.tgz?y=2"),
        ("https://h.example/a", "//o.example/app.tgz", "https://o.example/app.tgz"),
        ("https://h.example/a", "app-1.0.0+b.tgz", "https://h.example/a/app-1.0.0+b.tgz"),
    ],
)
@responses.activate
async def test_a_chart_is_looked_for_where_helm_looks(
    make: Make, repository: str, url: str, asked: str
) -> None:
    archive = chart_archive("app", "1.0.0")
    responses.get(asked, body=archive)
    version = ChartVersion("app", "1.0.0", (url,), sha256(archive))
    await make().pull(spec_of(repository), version, NONE)
    assert responses.calls[0].request.url == asked


async def test_a_user_in_the_url_is_used_for_charts_too_and_never_shown(
    repository: Repository, make: Make
) -> None:
    repositories = make()
    spec = spec_of(repository.url.replace("//", "//ann:s3cret@"))
    (version,) = await repositories.versions(spec, "app", NONE)
    artifact = await repositories.pull(spec, version, NONE)
    assert [asked.headers["authorization"] for asked in repository.server.asked] == [BASIC, BASIC]
    assert "s3cret" not in repr(artifact)


async def test_credentials_stay_with_the_repository_unless_told(
    repository: Repository, make: Make
) -> None:
    archive = chart_archive("far", "1.0.0")
    with web_server() as other:
        other.routes["/far.tgz"] = Answer(body=archive)
        repository.add("far", "1.0.0", archive, urls=[f"{other.url}/far.tgz"])
        await pulled(make(), spec_of(repository.url), "far", LOGIN)
        far = spec_of(repository.url, pass_credentials=True)
        (version,) = await make().versions(far, "far", LOGIN)
        os.unlink((await make().pull(far, version, LOGIN)).path)
        await make().pull(far, version, LOGIN)
    assert [asked.headers.get("authorization") for asked in other.asked] == [None, BASIC]


# Archives.


async def test_a_pulled_archive_is_whole_and_described(repository: Repository, make: Make) -> None:
    repository.add(
        "full", "1.2.3", chart_archive("full", "1.2.3", "appVersion: '9'\n"), deprecated=True
    )
    repositories, spec = make(), spec_of(repository.url)
    (version,) = await repositories.versions(spec, "full", NONE)
    artifact = await repositories.pull(spec, version, NONE)
    assert digest_of(Path(artifact.path)) == artifact.digest == version.digest
    assert artifact.path.endswith(".tgz")
    assert (artifact.name, artifact.version, artifact.app_version) == ("full", "1.2.3", "9")
    assert artifact.deprecated
    assert artifact.source == repository.url


async def test_an_archive_at_hand_needs_no_network_also_after_a_restart(
    repository: Repository, make: Make
) -> None:
    spec = spec_of(repository.url)
    repositories = make()
    (version,) = await repositories.versions(spec, "app", NONE)
    await repositories.pull(spec, version, NONE)
    asked = len(repository.server.asked)
    for one in (repositories, make()):
        await one.pull(spec, version, NONE)
    assert len(repository.server.asked) == asked


async def test_many_pulls_of_one_archive_fetch_it_once(repository: Repository, make: Make) -> None:
    repositories, spec = make(), spec_of(repository.url)
    (version,) = await repositories.versions(spec, "app", NONE)
    await asyncio.gather(*(repositories.pull(spec, version, NONE) for _ in range(20)))
    assert repository.server.paths.count("/charts/app-1.0.0.tgz") == 1


async def test_an_archive_without_digest_is_fetched_once_per_index(
    repository: Repository, make: Make
) -> None:
    repository.add("old", "1.0.0", digest="")
    repositories, spec = make(), spec_of(repository.url)
    first = await pulled(repositories, spec, "old")
    assert await pulled(repositories, spec, "old") == first
    assert repository.server.paths.count("/charts/old-1.0.0.tgz") == 1
    repository.server.routes["/charts/old-1.0.0.tgz"] = Answer(
        body=chart_archive("old", "1.0.0", "description: new\n")
    )
    repository.add("news", "1.0.0")
    await repositories.refresh(spec, NONE)
    assert await pulled(repositories, spec, "old") != first


async def test_urls_are_tried_in_order(repository: Repository, make: Make) -> None:
    archive = chart_archive("multi", "1.0.0")
    other = chart_archive("multi", "1.0.0", "description: another\n")
    repository.add("multi", "1.0.0", archive, urls=["gone.tgz", "wrong.tgz", "multi-1.0.0.tgz"])
    repository.server.routes["/charts/wrong.tgz"] = Answer(body=other)
    assert await pulled(make(), spec_of(repository.url), "multi") == sha256(archive)


async def test_when_no_url_works_the_first_one_s_error_is_told(
    repository: Repository, make: Make
) -> None:
    repository.add("multi", "1.0.0", urls=["gone.tgz", "denied.tgz"])
    repository.server.routes["/charts/denied.tgz"] = Answer(403)
    with pytest.raises(SourceMissing, match=r"gone\.tgz"):
        await pulled(make(), spec_of(repository.url), "multi")


async def test_a_wrong_digest_is_refused_and_nothing_kept(
    repository: Repository, make: Make, tmp_path: Path
) -> None:
    repository.add("liar", "1.0.0", digest="0" * 64)
    with pytest.raises(ChartRefused, match="not the one that the index describes"):
        await pulled(make(), spec_of(repository.url), "liar")
    assert not list((tmp_path / "cache" / "charts").rglob("*.*"))


@pytest.mark.parametrize(
    ("archive", "more", "says"),
    [
        (chart_archive("other", "1.0.0"), {}, "holds other 1.0.0, the index says bad 1.0.0"),
        (chart_archive("bad", "2.0.0"), {}, r"holds bad 2\.0\.0"),
        (archive_of([member("../evil", b"x")]), {}, "leads out"),
        (b"<html>", {}, "no gzip-packed"),
        (chart_archive("bad", "1.0.0"), {"digest": "md5:abc"}, "no SHA-256"),
        (chart_archive("bad", "1.0.0"), {"digest": "../../x"}, "no SHA-256"),
    ],
)
async def test_an_archive_that_must_not_be_used_is_refused_every_time(
    repository: Repository, make: Make, archive: bytes, more: dict[str, str], says: str
) -> None:
    repository.add("bad", "1.0.0", archive, **more)
    repositories, spec = make(), spec_of(repository.url)
    for _ in range(2):
        with pytest.raises(ChartRefused, match=says):
            await pulled(repositories, spec, "bad")


async def test_a_library_chart_is_marked(repository: Repository, make: Make) -> None:
    repository.add("lib", "1.0.0", chart_archive("lib", "1.0.0", "type: library\n"))
    repositories, spec = make(), spec_of(repository.url)
    for name, is_library in (("lib", True), ("app", False)):
        (version, *_) = await repositories.versions(spec, name, NONE)
        assert (await repositories.pull(spec, version, NONE)).is_library is is_library


async def test_a_version_with_v_is_the_same_version(repository: Repository, make: Make) -> None:
    repository.add("v", "v1.0.0", chart_archive("v", "1.0.0"))
    await pulled(make(), spec_of(repository.url), "v")


async def test_an_archive_over_the_limit_is_refused(repository: Repository, make: Make) -> None:
    with pytest.raises(SourceInvalid, match="limit of 100 bytes"):
        await pulled(make(limits=ArchiveLimits(packed=100)), spec_of(repository.url))


async def test_a_chart_in_a_registry_is_said_so(repository: Repository, make: Make) -> None:
    repository.add("reg", "1.0.0", urls=["oci://registry.example/charts/reg:1.0.0"])
    with pytest.raises(SourceInvalid, match="OCI registry"):
        await pulled(make(), spec_of(repository.url), "reg")


async def test_a_version_without_url_is_said_so(repository: Repository, make: Make) -> None:
    repository.add("nowhere", "1.0.0", urls=[])
    with pytest.raises(SourceInvalid, match="no URL"):
        await pulled(make(), spec_of(repository.url), "nowhere")


async def test_a_denied_archive_is_denied(repository: Repository, make: Make) -> None:
    repository.server.routes["/charts/app-1.0.0.tgz"] = Answer(401)
    with pytest.raises(SourceDenied):
        await pulled(make(), spec_of(repository.url))


async def test_a_cache_that_cannot_be_written_is_said_so(
    repository: Repository, http: Http, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    repositories = HelmRepositories(http, tmp_path / "file")
    with pytest.raises(SourceUnavailable, match="cache directory"):
        await repositories.refresh(spec_of(repository.url), NONE)


async def test_a_full_disk_is_said_so(
    repository: Repository, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: object, piece: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("helmops.sources.helm_repository._Receiving.take", full)
    with pytest.raises(SourceUnavailable, match="No space left on device"):
        await make().refresh(spec_of(repository.url), NONE)


# Provenance.


async def signer_of(
    repositories: HelmRepositories, spec: HelmRepositorySpec, keys: dict[str, bytes]
) -> str:
    (version, *_) = await repositories.versions(spec, "app", NONE)
    artifact = await repositories.pull(spec, version, NONE)
    return await repositories.signer(spec, version, artifact, NONE, keys)


async def test_provenance_is_looked_for_beside_the_archive(
    repository: Repository, make: Make, tmp_path: Path
) -> None:
    ann = OpenPgpSigner(tmp_path / "ann", "Ann")
    spec = spec_of(repository.url)
    with pytest.raises(SignatureRefused, match=r"app 1\.0\.0 is not signed: there is no \.prov"):
        await signer_of(make(), spec, ann.keys)
    digest = repository.entries["app"][0]["digest"]
    text = f"name: app\nversion: 1.0.0\n\n...\nfiles:\n  app-1.0.0.tgz: sha256:{digest}\n"
    signed = ann.clear_sign(text.encode())
    repository.server.routes["/charts/app-1.0.0.tgz.prov"] = Answer(body=signed)
    assert await signer_of(make(), spec, ann.keys) == "Ann <ann@example.invalid>"
    repository.server.routes["/charts/app-1.0.0.tgz.prov"] = Answer(503)
    with pytest.raises(SourceUnavailable):
        await signer_of(make(), spec, ann.keys)
