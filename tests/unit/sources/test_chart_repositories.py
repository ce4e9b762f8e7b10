from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from devcluster.certificates import Authority
from devcluster.oci_server import OciServer
from helmops.errors import ChartRefused, SignatureRefused, SourceDenied, SourceInvalid
from helmops.http import Http
from helmops.model.credentials import HttpCredentials
from helmops.model.declarations import HelmRepositorySpec
from helmops.sources.chart_repositories import AnyRepositories
from helmops.sources.helm_repository import HelmRepositories
from helmops.sources.oci_artifacts import OciArtifacts
from tests.fakes.chart_archives import chart_archive, sha256
from tests.fakes.web_server import Answer, WebServer, web_server

NONE = HttpCredentials()


@pytest.fixture
def web() -> Iterator[WebServer]:
    with web_server() as one:
        yield one


@pytest.fixture
def registry(authority: Authority) -> Iterator[OciServer]:
    """With TLS, as every registry that an index names."""
    with OciServer(tls=authority.issue("indexed")) as one:
        yield one


@pytest.fixture
async def repositories(tmp_path: Path) -> AsyncIterator[AnyRepositories]:
    async with Http() as http:
        yield AnyRepositories(HelmRepositories(http, tmp_path), OciArtifacts(http, tmp_path))


def index(web: WebServer, url: str, **more: Any) -> HelmRepositorySpec:
    """A repository whose index has one version of `app`, at that URL."""
    entry = {"name": "app", "version": "1.0.0", "urls": [url], **more}
    text = json.dumps({"apiVersion": "v1", "entries": {"app": [entry]}})
    web.routes["/index.yaml"] = Answer(body=text.encode())
    return HelmRepositorySpec(url=web.url)


async def test_the_scheme_says_which_sort_it_is(
    web: WebServer, repositories: AnyRepositories
) -> None:
    archive = chart_archive("app", "1.0.0")
    web.routes["/app-1.0.0.tgz"] = Answer(body=archive)
    with OciServer() as server:
        server.push("charts/app", "1.0.0", archive)
        for spec in (
            index(web, "app-1.0.0.tgz", digest=sha256(archive)),
            HelmRepositorySpec(url=f"{server.url}/charts", insecure=True),
            HelmRepositorySpec(url=f"{server.url}/charts", insecure=True, type="oci"),
        ):
            [version] = await repositories.versions(spec, "app", NONE, "1.0.0")
            artifact = await repositories.pull(spec, version, NONE)
            assert artifact.digest == sha256(archive)
            assert await repositories.refresh(spec, NONE) is False


async def test_a_registry_by_another_scheme_is_refused(repositories: AnyRepositories) -> None:
    spec = HelmRepositorySpec(url="https://r.test/charts", type="oci")
    with pytest.raises(SourceInvalid, match="begins with oci://"):
        await repositories.versions(spec, "app", NONE)


async def test_a_signature_of_a_chart_over_http_is_not_there_to_be_verified(
    web: WebServer, repositories: AnyRepositories
) -> None:
    spec = index(web, "app-1.0.0.tgz")
    [version] = await repositories.versions(spec, "app", NONE)
    with pytest.raises(SignatureRefused, match="only charts in registries"):
        await repositories.pull(spec, version, NONE, [b"key"])


# An index that names registries, as Bitnami's does.


async def test_an_index_may_have_its_charts_in_a_registry(
    web: WebServer, registry: OciServer, repositories: AnyRepositories, authority: Authority
) -> None:
    archive = chart_archive("app", "1.0.0")
    registry.push("charts/app", "1.0.0", archive)
    spec = index(web, f"{registry.url}/charts/app:1.0.0", digest=sha256(archive))
    mine = HttpCredentials(ca=authority.certificate.read_text())
    [version] = await repositories.versions(spec, "app", mine)
    assert (await repositories.pull(spec, version, mine)).digest == sha256(archive)


@pytest.mark.parametrize("tag", ["v1.0.0", "stable"])
async def test_the_tag_of_the_index_s_url_counts(
    web: WebServer,
    registry: OciServer,
    repositories: AnyRepositories,
    authority: Authority,
    tag: str,
) -> None:
    registry.push("charts/app", tag, chart_archive("app", tag if tag[0] == "v" else "1.0.0"))
    spec = index(web, f"{registry.url}/charts/app:{tag}")
    mine = HttpCredentials(ca=authority.certificate.read_text())
    [version] = await repositories.versions(spec, "app", mine)
    assert (await repositories.pull(spec, version, mine)).name == "app"


async def test_the_index_s_digest_counts_there_too(
    web: WebServer, registry: OciServer, repositories: AnyRepositories, authority: Authority
) -> None:
    registry.push("charts/app", "1.0.0", chart_archive("app", "1.0.0"))
    spec = index(web, f"{registry.url}/charts/app:1.0.0", digest="0" * 64)
    mine = HttpCredentials(ca=authority.certificate.read_text())
    [version] = await repositories.versions(spec, "app", mine)
    with pytest.raises(ChartRefused, match="not the one that the index describes"):
        await repositories.pull(spec, version, mine)


async def test_a_registry_that_an_index_names_gets_the_login_only_where_that_is_said(
    web: WebServer, registry: OciServer, repositories: AnyRepositories, authority: Authority
) -> None:
    registry.user, registry.password = "ada", "s3cret"
    registry.push("charts/app", "1.0.0", chart_archive("app", "1.0.0"))
    spec = index(web, f"{registry.url}/charts/app:1.0.0")
    mine = HttpCredentials("ada", "s3cret", ca=authority.certificate.read_text())
    [version] = await repositories.versions(spec, "app", mine)
    with pytest.raises(SourceDenied):
        await repositories.pull(spec, version, mine)
    assert not any("authorization" in s.request.headers for s in registry.server.requests)
    passing = spec.model_copy(update={"pass_credentials": True})
    assert (await repositories.pull(passing, version, mine)).version == "1.0.0"


async def test_a_registry_that_an_index_names_is_never_asked_over_plain_http(
    web: WebServer, repositories: AnyRepositories
) -> None:
    with OciServer() as plain:
        plain.push("charts/app", "1.0.0", chart_archive("app", "1.0.0"))
        spec = index(web, f"{plain.url}/charts/app:1.0.0").model_copy(update={"insecure": True})
        [version] = await repositories.versions(spec, "app", NONE)
        with pytest.raises(Exception, match="speak https"):
            await repositories.pull(spec, version, NONE)
        assert plain.server.requests == []
