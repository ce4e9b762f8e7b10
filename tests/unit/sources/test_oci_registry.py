from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from typing import Any

import pytest

from devcluster.certificates import Authority
from devcluster.loopback import Answer, Fault
from devcluster.oci_server import HELM_CONFIG, HELM_CONTENT, INDEX, OciServer, digest_of
from helmops.errors import (
    ChartRefused,
    SourceDenied,
    SourceError,
    SourceInvalid,
    SourceMissing,
    SourceUnavailable,
)
from helmops.http import Http
from helmops.model.credentials import HttpCredentials
from helmops.sources import oci_registry
from helmops.sources.oci_reference import OciRepository
from helmops.sources.oci_registry import Access, Descriptor, OciRegistry

ANYBODY = Access(timeout=timedelta(seconds=5))


@pytest.fixture
async def http() -> AsyncIterator[Http]:
    async with Http() as one:
        yield one


@pytest.fixture
def registry(http: Http) -> OciRegistry:
    return OciRegistry(http)


@pytest.fixture
def server() -> Iterator[OciServer]:
    with OciServer() as one:
        yield one


def place(server: OciServer, name: str = "charts/app") -> OciRepository:
    return OciRepository.parse(f"{server.url}/{name}", insecure=True)


# Digests of tags.


async def test_the_digest_of_a_tag_costs_one_head(server: OciServer, registry: OciRegistry) -> None:
    digest = server.push("charts/app", "1.0.0", b"chart")
    assert await registry.digest_of(place(server), "1.0.0", ANYBODY) == digest
    assert [seen.request.method for seen in server.server.requests] == ["HEAD"]


@pytest.mark.parametrize("told", [None, "nonsense", "md5:0"])
async def test_a_registry_that_does_not_tell_the_digest_is_asked_for_the_manifest(
    server: OciServer, registry: OciRegistry, told: str | None
) -> None:
    digest = server.push("charts/app", "1.0.0", b"chart")
    server.headers["docker-content-digest"] = told
    assert await registry.digest_of(place(server), "1.0.0", ANYBODY) == digest


async def test_a_tag_that_is_not_there_is_missing(server: OciServer, registry: OciRegistry) -> None:
    server.push("charts/app", "1.0.0", b"chart")
    with pytest.raises(SourceMissing, match=r"no tag 2\.0\.0 in charts/app"):
        await registry.digest_of(place(server), "2.0.0", ANYBODY)
    with pytest.raises(SourceMissing):
        await registry.digest_of(place(server, "nothing"), "2.0.0", ANYBODY)


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (401, SourceDenied),
        (403, SourceDenied),
        (429, SourceUnavailable),
        (500, SourceUnavailable),
        (302, SourceUnavailable),
    ],
)
async def test_other_answers_are_raised_as_what_they_mean(
    server: OciServer, registry: OciRegistry, status: int, kind: type[SourceError]
) -> None:
    server.push("charts/app", "1.0.0", b"chart")
    server.server.fail(Fault(status=status, headers={"Retry-After": "7"}))
    with pytest.raises(kind) as raised:
        await registry.digest_of(place(server), "1.0.0", ANYBODY)
    if status == 429:
        assert raised.value.retry_after == 7


# Manifests.


async def test_a_manifest_has_its_config_and_layers(
    server: OciServer, registry: OciRegistry
) -> None:
    digest = server.push("charts/app", "1.0.0", b"chart")
    for reference in ("1.0.0", digest):
        manifest = await registry.manifest(place(server), reference, ANYBODY)
        assert (manifest.digest, manifest.config_type) == (digest, HELM_CONFIG)
        [layer] = manifest.layers
        assert (layer.media_type, layer.size) == (HELM_CONTENT, 5)
        assert layer.digest == digest_of(b"chart")


async def test_a_registry_that_sends_another_manifest_than_was_asked_for_is_refused(
    server: OciServer, registry: OciRegistry
) -> None:
    good = server.push("charts/app", "1.0.0", b"chart")
    evil = server.push("charts/app", "6.6.6", b"evil")
    stored = server.repository("charts/app")
    stored.manifests[good] = stored.manifests[evil]
    with pytest.raises(ChartRefused, match="another manifest than it says"):
        await registry.manifest(place(server), good, ANYBODY)


async def test_a_registry_that_tells_another_digest_than_its_manifest_has_is_refused(
    server: OciServer, registry: OciRegistry
) -> None:
    server.push("charts/app", "1.0.0", b"chart")
    server.headers["docker-content-digest"] = f"sha256:{'0' * 64}"
    with pytest.raises(ChartRefused, match="another manifest than it says"):
        await registry.manifest(place(server), "1.0.0", ANYBODY)


async def test_a_list_of_manifests_is_told_from_a_manifest(
    server: OciServer, registry: OciRegistry
) -> None:
    child = server.push("charts/app", "", b"chart")
    listed = {"schemaVersion": 2, "manifests": [{"digest": child, "size": 1}]}
    server.put_manifest("charts/app", "1.0.0", listed, INDEX)
    manifest = await registry.manifest(place(server), "1.0.0", ANYBODY)
    assert manifest.is_index
    assert [one.digest for one in manifest.manifests] == [child]


LAYER = {"mediaType": HELM_CONTENT, "digest": digest_of(b""), "size": 0}


@pytest.mark.parametrize(
    ("manifest", "kind", "why"),
    [
        ([], SourceInvalid, "cannot be read"),
        ({"layers": "many"}, SourceInvalid, "cannot be read"),
        ({"layers": [{"digest": 7, "size": 1}]}, SourceInvalid, "cannot be read"),
        ({"layers": [LAYER], "manifests": []}, ChartRefused, "both layers and manifests"),
        ({"layers": [LAYER] * 300}, ChartRefused, "more than 256"),
        ({"layers": [{**LAYER, "digest": "../x"}]}, ChartRefused, "digests or sizes"),
        ({"layers": [{**LAYER, "size": -1}]}, ChartRefused, "digests or sizes"),
    ],
)
async def test_manifests_that_make_no_sense_are_refused(
    server: OciServer, registry: OciRegistry, manifest: Any, kind: type[Exception], why: str
) -> None:
    server.put_manifest("charts/app", "1.0.0", manifest)
    with pytest.raises(kind, match=why):
        await registry.manifest(place(server), "1.0.0", ANYBODY)


async def test_a_manifest_that_never_ends_is_cut_off(
    server: OciServer, registry: OciRegistry
) -> None:
    server.push("charts/app", "1.0.0", b"chart")
    server.server.fail(Fault(endless=True))
    with pytest.raises(SourceInvalid, match="larger than the limit of 4 MiB"):
        await registry.manifest(place(server), "1.0.0", ANYBODY)


async def test_a_page_to_sign_in_is_no_manifest(server: OciServer, registry: OciRegistry) -> None:
    server.push("charts/app", "1.0.0", b"chart")
    server.server.fail(Fault(html=True))
    with pytest.raises(SourceInvalid, match="cannot be read"):
        await registry.manifest(place(server), "1.0.0", ANYBODY)


# Lists of tags.


async def test_tags_come_from_all_pages_in_their_order(
    server: OciServer, registry: OciRegistry
) -> None:
    digest = server.push("charts/app", "latest", b"chart")
    tags = [f"1.{number}.0" for number in range(25)]
    server.repository("charts/app").tags.update(dict.fromkeys(tags, digest))
    server.page = 7
    assert await registry.tags(place(server), ANYBODY) == ("latest", *tags)
    assert server.server.count("*/tags/list") == 4


def page(*tags: object, link: str = "") -> Answer:
    headers = {"Link": link} if link else {}
    return Answer(200, json.dumps({"name": "charts/app", "tags": list(tags)}).encode(), headers)


@pytest.mark.parametrize(
    ("answer", "tags"),
    [
        (page("1.0.0", "1.0.0"), ("1.0.0",)),
        (page("1.0.0", "no tag", "../../x", "a" * 200), ("1.0.0",)),
        (Answer(200, b'{"name": "charts/app", "tags": null}'), ()),
        (Answer(200, b"{}"), ()),
        (page("1.0.0", link='<https://elsewhere.test/docs>; rel="describedby"'), ("1.0.0",)),
    ],
)
async def test_odd_lists_are_read_as_far_as_they_make_sense(
    server: OciServer, registry: OciRegistry, answer: Answer, tags: tuple[str, ...]
) -> None:
    server.instead["/v2/charts/app/tags/list"] = answer
    assert await registry.tags(place(server), ANYBODY) == tags


@pytest.mark.parametrize(
    ("answer", "kind", "why"),
    [
        (page("a", link='</v2/charts/app/tags/list?n=1000>; rel="next"'), SourceInvalid, "circles"),
        (
            page("a", link='<http://evil.test/v2/charts/app/tags/list>; rel="next"'),
            SourceDenied,
            "another host",
        ),
        (page("a", link='<http://[::1>; rel="next"'), SourceDenied, "another host"),
        (page(7), SourceInvalid, "cannot be read"),
        (Answer(200, b"<html>"), SourceInvalid, "cannot be read"),
        (Answer(404, b""), SourceMissing, "no such repository"),
    ],
)
async def test_lists_that_lead_astray_are_refused(
    server: OciServer, registry: OciRegistry, answer: Answer, kind: type[Exception], why: str
) -> None:
    server.instead["/v2/charts/app/tags/list"] = answer
    with pytest.raises(kind, match=why):
        await registry.tags(place(server), ANYBODY)


async def test_pages_that_go_on_without_end_end(server: OciServer, registry: OciRegistry) -> None:
    """Each page has another address and the same tags."""
    count = 0

    def respond(request: Any) -> Answer:
        nonlocal count
        count += 1
        return page("1.0.0", link=f'</v2/charts/app/tags/list?last={count}>; rel="next"')

    server.server._respond = respond
    with pytest.raises(SourceInvalid, match="without any new one"):
        await registry.tags(place(server), ANYBODY)
    assert count == 3


async def test_more_tags_than_anybody_has_are_refused(
    server: OciServer, registry: OciRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(oci_registry, "MOST_TAGS", 20)
    server.repository("charts/app").tags.update((f"1.{n}.0", "") for n in range(30))
    server.page = 10
    with pytest.raises(SourceInvalid, match="more than 20 tags"):
        await registry.tags(place(server), ANYBODY)


async def test_a_page_of_millions_of_tags_is_refused_before_it_is_read(
    server: OciServer, registry: OciRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = b'{"tags": [' + b'"a",' * 500_000 + b'"a"]}'
    server.instead["/v2/charts/app/tags/list"] = Answer(200, body)

    def decode(*_: Any, **__: Any) -> Any:
        raise AssertionError("it was read")

    monkeypatch.setattr(oci_registry.msgspec.json, "decode", decode)
    with pytest.raises(SourceInvalid, match="more than 200000 tags"):
        await registry.tags(place(server), ANYBODY)


async def test_the_whole_list_has_one_deadline(server: OciServer, registry: OciRegistry) -> None:
    server.repository("charts/app").tags.update((f"1.{n}.0", "") for n in range(100))
    server.page = 1
    server.server.fail(Fault(slow=0.2))
    started = time.monotonic()
    with pytest.raises(SourceUnavailable, match="within"):
        await registry.tags(place(server), Access(timeout=timedelta(seconds=0.5)))
    assert time.monotonic() - started < 5


# Blobs.


def taken(pieces: list[bytes]) -> bytes:
    return b"".join(pieces)


async def test_a_blob_is_what_its_descriptor_says(server: OciServer, registry: OciRegistry) -> None:
    content = bytes(range(256)) * 2000
    wanted = Descriptor(**server.put_blob("charts/app", content))
    pieces: list[bytes] = []
    await registry.blob(place(server), wanted, ANYBODY, pieces.append)
    assert taken(pieces) == content


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"other", "content of the digest sha256:"),
        (b"longer than it says", "more than the 5 bytes"),
        (b"shor", "4 bytes, where the manifest says 5"),
        (b"x" * 3_000_000, "more than the 5 bytes"),
    ],
)
async def test_a_registry_that_lies_about_a_blob_is_refused(
    server: OciServer, registry: OciRegistry, content: bytes, why: str
) -> None:
    wanted = Descriptor(digest_of(b"chart"), 5)
    server.repository("charts/app").blobs[wanted.digest] = content
    with pytest.raises(ChartRefused, match=why):
        await registry.blob(place(server), wanted, ANYBODY, lambda _: None)


async def test_a_blob_without_end_is_cut_off_at_its_size(
    server: OciServer, registry: OciRegistry
) -> None:
    wanted = Descriptor(**server.put_blob("charts/app", b"chart"))
    server.server.fail(Fault(endless=True))
    pieces: list[bytes] = []
    with pytest.raises(ChartRefused, match="more than the 5 bytes"):
        await registry.blob(place(server), wanted, ANYBODY, pieces.append)
    assert len(taken(pieces)) <= 5


async def test_a_server_that_drips_is_cut_off_in_time(
    server: OciServer, registry: OciRegistry
) -> None:
    wanted = Descriptor(**server.put_blob("charts/app", b"x" * 1000))
    server.server.fail(Fault(trickle=0.05))
    started = time.monotonic()
    with pytest.raises(SourceUnavailable, match="no complete answer within"):
        await registry.blob(
            place(server), wanted, Access(timeout=timedelta(seconds=0.5)), lambda _: None
        )
    assert time.monotonic() - started < 5


async def test_a_blob_that_is_broken_off_is_an_outage_and_no_lie(
    server: OciServer, registry: OciRegistry
) -> None:
    wanted = Descriptor(**server.put_blob("charts/app", b"x" * 1000))
    server.server.fail(Fault(truncate=True))
    with pytest.raises(SourceUnavailable, match="broken off"):
        await registry.blob(place(server), wanted, ANYBODY, lambda _: None)


async def test_a_blob_at_another_host_is_fetched_without_the_login(
    server: OciServer, registry: OciRegistry
) -> None:
    server.user, server.password = "ada", "s3cret"
    wanted = Descriptor(**server.put_blob("charts/app", b"chart"))
    ada = Access(HttpCredentials(username="ada", password="s3cret"))
    with OciServer() as elsewhere:
        elsewhere.put_blob("store", b"chart")
        server.blobs_at = f"{elsewhere.server.url}/v2/store/blobs"
        pieces: list[bytes] = []
        await registry.blob(place(server), wanted, ada, pieces.append)
        assert taken(pieces) == b"chart"
        [seen] = elsewhere.server.requests
        assert "authorization" not in seen.request.headers


async def test_a_blob_at_a_link_local_address_is_refused(
    server: OciServer, registry: OciRegistry
) -> None:
    wanted = Descriptor(**server.put_blob("charts/app", b"chart"))
    server.blobs_at = "http://169.254.169.254/latest"
    with pytest.raises(SourceDenied, match="link-local"):
        await registry.blob(place(server), wanted, ANYBODY, lambda _: None)


async def test_a_small_blob_is_not_read_where_it_says_that_it_is_large(
    server: OciServer, registry: OciRegistry
) -> None:
    wanted = Descriptor(**server.put_blob("charts/app", b"x" * 100))
    assert await registry.small_blob(place(server), wanted, ANYBODY, 100) == b"x" * 100
    server.server.requests.clear()
    with pytest.raises(ChartRefused, match="larger than 99"):
        await registry.small_blob(place(server), wanted, ANYBODY, 99)
    assert not server.server.requests


async def test_a_blob_by_sha512_is_checked_as_well(
    server: OciServer, registry: OciRegistry
) -> None:
    wanted = Descriptor(f"sha512:{'0' * 128}", 5)
    server.repository("charts/app").blobs[wanted.digest] = b"chart"
    with pytest.raises(ChartRefused, match="content of the digest sha512:"):
        await registry.blob(place(server), wanted, ANYBODY, lambda _: None)


# TLS.


async def test_a_registry_with_a_certificate_that_nobody_trusts_is_denied(
    registry: OciRegistry, authority: Authority
) -> None:
    with OciServer(tls=authority.issue("oci")) as server:
        server.push("charts/app", "1.0.0", b"chart")
        there = OciRepository.parse(f"{server.url}/charts/app")
        with pytest.raises(SourceDenied, match="certificate is refused"):
            await registry.digest_of(there, "1.0.0", ANYBODY)
        ca = HttpCredentials(ca=authority.certificate.read_text())
        assert await registry.digest_of(there, "1.0.0", Access(ca))


async def test_plain_http_where_tls_is_expected_is_an_error_that_says_so(
    server: OciServer, registry: OciRegistry
) -> None:
    there = OciRepository.parse(f"{server.url}/charts/app")
    with pytest.raises(SourceUnavailable, match="speak https"):
        await registry.digest_of(there, "1.0.0", ANYBODY)
