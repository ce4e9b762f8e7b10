from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from devcluster.loopback import Fault
from devcluster.oci_server import HELM_CONFIG, HELM_CONTENT, INDEX, MANIFEST, OciServer
from helmops.errors import (
    ChartNotFound,
    ChartRefused,
    ConstraintError,
    HelmopsError,
    SignatureRefused,
    SourceDenied,
    SourceInvalid,
    SourceMissing,
    SourceUnavailable,
)
from helmops.http import Http
from helmops.model.charts import ChartArtifact, ChartVersion
from helmops.model.credentials import HttpCredentials
from helmops.model.declarations import HelmRepositorySpec, OCIRepositorySpec
from helmops.sources.archive import ArchiveLimits
from helmops.sources.oci_artifacts import OciArtifacts
from tests.fakes.chart_archives import archive_of, chart_archive, member
from tests.fakes.signatures import new_key, public_key, sign_simply

NONE = HttpCredentials()
APP = "charts/app"


class Room:
    """Artifacts of one registry, over a clock of the test's own."""

    def __init__(self, server: OciServer, http: Http, cache: Path, **options: Any) -> None:
        self.server, self._http, self.cache, self._options = server, http, cache, options
        self.now = 0.0
        self.restart()

    def restart(self) -> None:
        """A new process on the same cache."""
        self.artifacts = OciArtifacts(
            self._http, self.cache, monotonic=lambda: self.now, **self._options
        )

    def spec(self, name: str = APP, **more: Any) -> OCIRepositorySpec:
        ref = {key: more.pop(key) for key in ("tag", "semver", "digest") if key in more}
        ref |= {"semverFilter": more.pop("only")} if "only" in more else {}
        given = {"url": f"{self.server.url}/{name}", "interval": "5m", "insecure": True, **more}
        return OCIRepositorySpec.model_validate({**given, "ref": ref})

    def charts(self, **more: Any) -> HelmRepositorySpec:
        given = {"url": f"{self.server.url}/charts", "interval": "5m", "insecure": True, **more}
        return HelmRepositorySpec.model_validate(given)

    def push(self, tag: str, version: str = "", name: str = "app", **files: str) -> str:
        archive = chart_archive(name, version or tag.replace("_", "+"), **files)
        return self.server.push(f"charts/{name}", tag, archive)

    async def versions(self, spec: OCIRepositorySpec) -> list[str]:
        return [one.version for one in await self.artifacts.versions(spec, NONE)]

    async def pull(
        self, spec: OCIRepositorySpec, keys: tuple[bytes, ...] = (), which: int = 0
    ) -> ChartArtifact:
        versions = await self.artifacts.versions(spec, NONE)
        return await self.artifacts.pull(spec, versions[which], NONE, keys)

    def asked(self) -> list[str]:
        """What the server was asked since the last time: method and the end of the path."""
        asked = [
            f"{seen.request.method} {'/'.join(seen.request.path.split('/')[-2:])}"
            for seen in self.server.server.requests
        ]
        self.server.server.requests.clear()
        return asked


@pytest.fixture
def server() -> Iterator[OciServer]:
    with OciServer() as one:
        yield one


@pytest.fixture
async def http() -> AsyncIterator[Http]:
    async with Http() as one:
        yield one


@pytest.fixture
def room(server: OciServer, http: Http, tmp_path: Path) -> Room:
    return Room(server, http, tmp_path)


# References.


async def test_a_digest_goes_before_a_range_and_that_before_a_tag(room: Room) -> None:
    digest = room.push("1.0.0")
    room.push("2.0.0")
    room.push("3.0.0")
    spec = room.spec(digest=digest, semver="2.x", tag="3.0.0")
    assert (await room.pull(spec)).version == "1.0.0"
    spec = room.spec(semver="2.x", tag="3.0.0")
    assert await room.versions(spec) == ["3.0.0", "2.0.0", "1.0.0"]
    assert await room.versions(room.spec(tag="3.0.0")) == ["3.0.0"]


async def test_a_digest_is_never_asked_for_again(room: Room) -> None:
    digest = room.push("1.0.0")
    spec = room.spec(digest=digest)
    artifact = await room.pull(spec)
    assert artifact.revision == digest
    room.asked()
    room.now += 10_000
    assert await room.pull(spec) == artifact
    assert await room.artifacts.refresh(spec, NONE) is False
    assert room.asked() == []


@pytest.mark.parametrize(
    ("ref", "why"),
    [
        ({"digest": "sha256:abc"}, "is no digest"),
        ({"tag": "no tag"}, "is no tag"),
        ({"tag": "../../x"}, "is no tag"),
    ],
)
async def test_references_that_can_be_none_are_refused_unasked(
    room: Room, ref: dict[str, str], why: str
) -> None:
    with pytest.raises(SourceInvalid, match=why):
        await room.versions(room.spec(**ref))
    assert room.asked() == []


async def test_a_filter_leaves_out_tags(room: Room) -> None:
    for tag in ("1.0.0", "1.1.0-alpine", "1.2.0-debian", "v1.3.0-alpine"):
        room.push(tag)
    spec = room.spec(semver="*-0", only=r"-alpine$")
    assert await room.versions(spec) == ["v1.3.0-alpine", "1.1.0-alpine"]


async def test_a_filter_that_is_made_to_be_slow_is_not(room: Room) -> None:
    room.push("1.0.0-" + "a" * 100)
    started = time.monotonic()
    assert await room.versions(room.spec(semver="*", only=r"(a|a)*(a|aa)+b$")) == []
    assert time.monotonic() - started < 5


@pytest.mark.parametrize("pattern", ["(", "a{2000}{2000}", r"(?<=a)b"])
async def test_a_filter_that_is_no_expression_is_said(room: Room, pattern: str) -> None:
    room.push("1.0.0")
    with pytest.raises(ConstraintError, match="semverFilter is no regular expression"):
        await room.versions(room.spec(semver="*", only=pattern))


# What it costs.


async def test_a_tag_that_did_not_move_costs_one_head(room: Room) -> None:
    room.push("1.0.0")
    spec = room.spec(tag="1.0.0")
    await room.pull(spec)
    room.asked()
    assert await room.artifacts.refresh(spec, NONE) is False
    await room.pull(spec)
    assert room.asked() == ["HEAD manifests/1.0.0"]


async def test_a_poll_of_a_range_looks_at_the_list_and_at_what_is_in_use(room: Room) -> None:
    for tag in ("1.0.0", "1.1.0", "1.2.0"):
        room.push(tag)
    spec = room.spec(semver="1.x")
    await room.pull(spec)
    assert room.asked()[:2] == ["GET tags/list", "HEAD manifests/1.2.0"]
    await room.artifacts.refresh(spec, NONE)
    assert room.asked() == ["GET tags/list", "HEAD manifests/1.2.0"]


async def test_a_tag_that_nobody_pulled_since_the_list_changed_is_not_looked_at_any_more(
    room: Room,
) -> None:
    room.push("1.0.0")
    spec = room.spec(semver="1.x")
    await room.pull(spec)
    room.push("1.1.0")
    await room.artifacts.refresh(spec, NONE)
    await room.pull(spec)
    room.asked()
    await room.artifacts.refresh(spec, NONE)
    assert room.asked() == ["GET tags/list", "HEAD manifests/1.1.0"]


async def test_within_the_interval_nothing_is_asked(room: Room) -> None:
    room.push("1.0.0")
    for spec in (room.spec(tag="1.0.0"), room.spec(semver="*")):
        await room.pull(spec)
        room.asked()
        room.now += 299
        await room.pull(spec)
        assert room.asked() == []
        room.now += 2
        await room.pull(spec)
        assert room.asked() != []


async def test_many_who_ask_at_once_cost_one_poll_and_one_download(room: Room) -> None:
    room.push("1.0.0")
    spec = room.spec(tag="1.0.0")
    await asyncio.gather(*(room.pull(spec) for _ in range(20)))
    asked = room.asked()
    assert len(asked) == 3
    assert [one.split("/")[0] for one in asked] == ["HEAD manifests", "GET manifests", "GET blobs"]


async def test_what_is_known_is_given_while_a_poll_waits_for_a_registry_that_hangs(
    room: Room,
) -> None:
    room.push("1.0.0")
    specs = room.spec(tag="1.0.0"), room.spec(semver="*")
    before = [await room.pull(spec) for spec in specs]
    room.server.server.fail(Fault(slow=30))
    polls = [asyncio.create_task(room.artifacts.refresh(spec, NONE)) for spec in specs]
    await asyncio.sleep(0.05)
    async with asyncio.timeout(5):
        assert [await room.pull(spec) for spec in specs] == before
    for poll in polls:
        poll.cancel()
    await asyncio.gather(*polls, return_exceptions=True)


async def test_a_registry_that_failed_is_left_alone_for_a_while(room: Room) -> None:
    room.server.server.fail(Fault(status=503))
    for _ in range(3):
        with pytest.raises(SourceUnavailable):
            await room.versions(room.spec(tag="1.0.0"))
    assert len(room.asked()) == 1
    room.now += 6
    with pytest.raises(SourceUnavailable):
        await room.versions(room.spec(tag="1.0.0"))
    assert len(room.asked()) == 1


async def test_a_registry_that_asks_to_wait_is_waited_for(room: Room) -> None:
    room.server.server.fail(Fault(status=429, headers={"Retry-After": "60"}))
    for later in (0, 59):
        room.now = later
        with pytest.raises(SourceUnavailable):
            await room.versions(room.spec(tag="1.0.0"))
    assert len(room.asked()) == 1


async def test_one_tag_that_is_gone_does_not_keep_others_from_being_asked(room: Room) -> None:
    room.push("1.0.0")
    with pytest.raises(SourceMissing):
        await room.versions(room.spec(tag="2.0.0"))
    assert await room.versions(room.spec(tag="1.0.0")) == ["1.0.0"]


# Without a registry.


@pytest.mark.parametrize("kind", ["tag", "semver", "digest"])
async def test_what_is_at_hand_needs_no_registry_even_after_a_restart(
    room: Room, kind: str
) -> None:
    digest = room.push("1.0.0")
    spec = room.spec(**{kind: {"tag": "1.0.0", "semver": "1.x", "digest": digest}[kind]})
    before = await room.pull(spec)
    room.server.server.fail(Fault(drop=True))
    room.restart()
    assert await room.pull(spec) == before


async def test_a_signature_that_is_asked_for_is_never_left_out_for_want_of_a_key(
    room: Room,
) -> None:
    room.push("1.0.0")
    with pytest.raises(SignatureRefused, match="no key is given"):
        await room.pull(room.spec(tag="1.0.0", verify={"provider": "cosign"}))


async def test_a_signature_that_was_seen_is_checked_anew_without_a_registry(room: Room) -> None:
    key = new_key()
    room.push("1.0.0")
    sign_simply(room.server, APP, "1.0.0", key)
    spec = room.spec(tag="1.0.0")
    before = await room.pull(spec, (public_key(key),))
    room.server.server.fail(Fault(drop=True))
    room.restart()
    assert await room.pull(spec, (public_key(key),)) == before
    with pytest.raises(SourceUnavailable):  # nobody can tell whether others signed it by now
        await room.pull(spec, (public_key(new_key()),))


async def test_a_cache_that_was_tampered_with_vouches_for_no_signature(room: Room) -> None:
    key = new_key()
    room.push("1.0.0")
    sign_simply(room.server, APP, "1.0.0", key)
    evil = room.push("6.6.6", "1.0.0", values="evil: yes")
    spec = room.spec(tag="1.0.0")
    await room.pull(spec, (public_key(key),))
    [state] = (room.cache / "oci").glob("*.json")
    good = room.server.repository(APP).tags["1.0.0"]
    state.write_text(state.read_text().replace(good, evil))
    room.server.server.fail(Fault(path="*.sig", status=404))
    room.server.server.fail(Fault(path="*manifests/1.0.0", drop=True))
    room.restart()
    with pytest.raises(SignatureRefused):
        await room.pull(spec, (public_key(key),))


async def test_a_manifest_in_the_cache_is_checked_by_its_digest(room: Room) -> None:
    room.push("1.0.0")
    before = await room.pull(room.spec(tag="1.0.0"))
    [state] = (room.cache / "oci").glob("*.json")
    kept = json.loads(state.read_text())
    [digest] = kept["manifests"]
    kept["manifests"][digest] = base64.b64encode(b'{"layers": []}').decode()
    state.write_text(json.dumps(kept))
    room.restart()
    assert await room.pull(room.spec(tag="1.0.0")) == before


@pytest.mark.parametrize("content", [b"", b"[]", b'{"tags": 7}', b'{"pins": {"a": "b"}}', b"\xff"])
async def test_a_state_that_cannot_be_read_is_as_none(room: Room, content: bytes) -> None:
    room.push("1.0.0")
    await room.pull(room.spec(tag="1.0.0"))
    [state] = (room.cache / "oci").glob("*.json")
    state.write_bytes(content)
    room.restart()
    assert (await room.pull(room.spec(tag="1.0.0"))).version == "1.0.0"


async def test_nothing_on_disk_tells_of_credentials(room: Room) -> None:
    room.push("1.0.0")
    mine = HttpCredentials(username="ada", password="s3cret")
    await room.artifacts.versions(room.spec(tag="1.0.0"), mine)
    for path in (room.cache / "oci").iterdir():
        assert b"s3cret" not in path.read_bytes()
        assert hashlib.sha256(b"s3cret").hexdigest() not in path.name


async def test_what_one_login_saw_is_not_given_to_another(room: Room) -> None:
    room.push("1.0.0")
    room.server.user, room.server.password = "ada", "s3cret"
    spec = room.spec(tag="1.0.0")
    mine = HttpCredentials(username="ada", password="s3cret")
    [version] = await room.artifacts.versions(spec, mine)
    await room.artifacts.pull(spec, version, mine)
    with pytest.raises(SourceDenied):
        await room.artifacts.versions(spec, NONE)
    with pytest.raises(SourceDenied):
        await room.artifacts.pull(spec, version, NONE)


async def test_a_cache_that_cannot_be_written_is_said(
    server: OciServer, http: Http, tmp_path: Path
) -> None:
    (tmp_path / "oci").write_text("a file where a directory should be")
    room = Room(server, http, tmp_path)
    room.push("1.0.0")
    with pytest.raises(SourceUnavailable, match="cache directory cannot be used"):
        await room.pull(room.spec(tag="1.0.0"))


# What is in an artifact.


def two_layers(room: Room, tag: str, **more: Any) -> None:
    """A chart behind another layer, as some tools push them."""
    other = {"mediaType": "text/plain", **room.server.put_blob(APP, b"notes")}
    chart = room.server.put_blob(APP, chart_archive("app", "1.0.0"))
    layers = [other, {"mediaType": more.pop("layer", HELM_CONTENT), **chart}]
    config = {"mediaType": more.pop("config", HELM_CONFIG), **room.server.put_blob(APP, b"{}")}
    manifest = {"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers}
    room.server.put_manifest(APP, tag, {**manifest, **more})


async def test_the_layer_with_helm_s_media_type_is_the_chart(room: Room) -> None:
    two_layers(room, "1.0.0")
    assert (await room.pull(room.spec(tag="1.0.0"))).version == "1.0.0"


async def test_a_layer_selector_says_which_one(room: Room) -> None:
    two_layers(room, "1.0.0", layer="application/x.chart")
    chosen = {"mediaType": "application/x.chart", "operation": "copy"}
    spec = room.spec(tag="1.0.0", layerSelector=chosen)
    assert (await room.pull(spec)).version == "1.0.0"
    spec = room.spec(tag="1.0.0", layerSelector={"mediaType": "application/y"})
    with pytest.raises(ChartRefused, match="no layer of the media type application/y") as raised:
        await room.pull(spec)
    assert "application/x.chart, text/plain" in str(raised.value)


async def test_without_helm_s_media_type_the_first_layer_counts_as_with_flux(room: Room) -> None:
    flux = "application/vnd.cncf.flux.content.v1.tar+gzip"
    archive = chart_archive("app", "1.0.0")
    room.server.push(APP, "1.0.0", archive, config_type="application/x", layer_type=flux)
    assert (await room.pull(room.spec(tag="1.0.0"))).version == "1.0.0"


async def test_an_image_is_no_chart(room: Room) -> None:
    room.server.push(
        APP,
        "1.0.0",
        b"root",
        config_type="application/vnd.oci.image.config.v1+json",
        layer_type="application/vnd.oci.image.layer.v1.tar+gzip",
    )
    with pytest.raises(ChartRefused, match="no Helm chart but a container image"):
        await room.pull(room.spec(tag="1.0.0"))


async def test_a_list_of_images_is_no_chart(room: Room) -> None:
    listed = {"schemaVersion": 2, "mediaType": INDEX, "manifests": []}
    room.server.put_manifest(APP, "1.0.0", listed, INDEX)
    with pytest.raises(ChartRefused, match="an index of several manifests"):
        await room.pull(room.spec(tag="1.0.0"))


async def test_an_artifact_without_layers_is_no_chart(room: Room) -> None:
    room.server.put_manifest(APP, "1.0.0", {"schemaVersion": 2, "layers": []})
    with pytest.raises(ChartRefused, match="without a layer"):
        await room.pull(room.spec(tag="1.0.0"))


async def test_a_chart_repository_wants_helm_s_own_artifacts(room: Room) -> None:
    room.server.push(APP, "1.0.0", chart_archive("app", "1.0.0"), config_type="application/x")
    spec = room.charts()
    [version] = await room.artifacts.chart_versions(spec, "app", NONE)
    with pytest.raises(ChartRefused, match="no Helm chart but of the type application/x"):
        await room.artifacts.pull_chart(spec, version, NONE)


async def test_the_media_type_of_older_helms_is_read(room: Room) -> None:
    archive = chart_archive("app", "1.0.0")
    room.server.push(APP, "1.0.0", archive, layer_type="application/tar+gzip")
    spec = room.charts()
    [version] = await room.artifacts.chart_versions(spec, "app", NONE)
    assert (await room.artifacts.pull_chart(spec, version, NONE)).version == "1.0.0"


@pytest.mark.parametrize("tag", ["1.0.0", "v1.0.0", "1.0.0_other"])
async def test_a_tag_that_is_a_version_must_be_the_chart_s(room: Room, tag: str) -> None:
    room.push(tag, "2.0.0")
    with pytest.raises(ChartRefused, match=r"holds app 2\.0\.0"):
        await room.pull(room.spec(tag=tag))


async def test_build_metadata_may_differ_as_with_flux_but_not_in_a_chart_repository(
    room: Room,
) -> None:
    room.push("1.0.0", "1.0.0+b1")
    assert (await room.pull(room.spec(tag="1.0.0"))).version == "1.0.0+b1"
    spec = room.charts()
    [version] = await room.artifacts.chart_versions(spec, "app", NONE)
    with pytest.raises(ChartRefused, match=r"holds app 1\.0\.0\+b1"):
        await room.artifacts.pull_chart(spec, version, NONE)


async def test_a_chart_repository_wants_the_chart_by_its_name(room: Room) -> None:
    room.server.push(APP, "1.0.0", chart_archive("evil", "1.0.0"))
    spec = room.charts()
    [version] = await room.artifacts.chart_versions(spec, "app", NONE)
    with pytest.raises(ChartRefused, match=r"holds evil 1\.0\.0"):
        await room.artifacts.pull_chart(spec, version, NONE)
    assert (await room.pull(room.spec(tag="1.0.0"))).name == "evil"  # here nobody said a name


async def test_a_chart_that_is_too_large_is_not_even_asked_for(
    server: OciServer, http: Http, tmp_path: Path
) -> None:
    room = Room(server, http, tmp_path, limits=ArchiveLimits(packed=1024 * 1024))
    room.server.push(APP, "1.0.0", b"x" * (1024 * 1024 + 1))
    with pytest.raises(ChartRefused, match="larger than 1 MiB"):
        await room.pull(room.spec(tag="1.0.0"))
    assert not any("blobs" in one for one in room.asked())


@pytest.mark.parametrize(
    ("archive", "why"),
    [
        (b"no archive", "no gzip-packed tar archive"),
        (archive_of([member("app/../../x", b"")]), "leads out of it"),
        (archive_of([member("app/README.md", b"")]), "no chart"),
    ],
)
async def test_archives_that_must_not_be_used_never_get_into_the_cache(
    room: Room, archive: bytes, why: str
) -> None:
    room.server.push(APP, "1.0.0", archive)
    with pytest.raises(ChartRefused, match=why):
        await room.pull(room.spec(tag="1.0.0"))
    assert list((room.cache / "charts").rglob("*.tgz")) == []
    assert list((room.cache / "charts").rglob("*.part")) == []


async def test_a_library_is_told_as_one(room: Room) -> None:
    archive = chart_archive("app", "1.0.0", "type: library\n")
    room.server.push(APP, "1.0.0", archive)
    assert (await room.pull(room.spec(tag="1.0.0"))).is_library


async def test_layers_by_sha512_are_read_and_kept(room: Room) -> None:
    archive = chart_archive("app", "1.0.0")
    digest = f"sha512:{hashlib.sha512(archive).hexdigest()}"
    room.server.repository(APP).blobs[digest] = archive
    layer = {"mediaType": HELM_CONTENT, "digest": digest, "size": len(archive)}
    room.server.put_manifest(APP, "1.0.0", {"schemaVersion": 2, "layers": [layer]})
    spec = room.spec(tag="1.0.0")
    artifact = await room.pull(spec)
    assert artifact.digest == hashlib.sha256(archive).hexdigest()
    room.asked()
    assert await room.pull(spec) == artifact
    assert room.asked() == []


async def test_an_archive_that_vanished_from_the_cache_is_fetched_anew(room: Room) -> None:
    room.push("1.0.0")
    spec = room.spec(tag="1.0.0")
    before = await room.pull(spec)
    Path(before.path).unlink()  # noqa: ASYNC240 - tests may block
    assert await room.pull(spec) == before
    assert Path(before.path).exists()  # noqa: ASYNC240


async def test_annotations_of_a_chart_come_with_it(room: Room) -> None:
    archive = chart_archive("app", "1.0.0", "annotations: {a: b}\n")
    room.server.push(APP, "1.0.0", archive)
    assert (await room.pull(room.spec(tag="1.0.0"))).annotations == (("a", "b"),)


async def test_what_is_known_of_very_many_repositories_is_forgotten(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("helmops.sources.oci_knowledge.MOST_REPOSITORIES", 2)
    for number in range(6):
        room.push("1.0.0", name=f"app{number}")
        await room.versions(room.spec(f"charts/app{number}", tag="1.0.0"))
    assert len(list((room.cache / "oci").glob("*.json"))) == 6
    room.restart()
    await room.versions(room.spec("charts/app5", tag="1.0.0"))
    assert len(list((room.cache / "oci").glob("*.json"))) == 4


# Repositories of charts.


async def test_one_version_is_asked_for_without_the_list(room: Room) -> None:
    for tag in ("1.0.0", "1.0.0_b1", "2.0.0"):
        room.push(tag)
    spec = room.charts()
    for wanted in ("1.0.0", "1.0.0+b1"):
        [version] = await room.artifacts.chart_versions(spec, "app", NONE, wanted)
        assert version.version == wanted
        assert (await room.artifacts.pull_chart(spec, version, NONE)).version == wanted
    assert not any("tags" in one for one in room.asked())


@pytest.mark.parametrize("wanted", ["", "*", "1.x", ">=1.0.0", "1.0"])
async def test_a_range_is_asked_for_by_the_list(room: Room, wanted: str) -> None:
    for tag in ("1.0.0", "latest", "v2.0.0"):
        room.push(tag, "1.0.0")
    found = await room.artifacts.chart_versions(room.charts(), "app", NONE, wanted)
    assert [one.version for one in found] == ["1.0.0"]


async def test_a_repository_without_any_version_has_no_chart(room: Room) -> None:
    room.push("latest", "1.0.0")
    with pytest.raises(ChartNotFound, match="no tag of charts/app is a version"):
        await room.artifacts.chart_versions(room.charts(), "app", NONE)


async def test_a_registry_itself_may_be_the_repository(room: Room) -> None:
    room.push("1.0.0")
    spec = room.charts(url=f"{room.server.url}/")
    [version] = await room.artifacts.chart_versions(spec, "charts/app", NONE)
    assert (await room.artifacts.pull_chart(spec, version, NONE)).name == "app"


async def test_a_refresh_asks_for_the_charts_that_somebody_uses(room: Room) -> None:
    room.push("1.0.0")
    room.push("1.0.0", name="web")
    room.push("1.0.0", name="unused")
    spec = room.charts()
    for chart in ("app", "web"):
        await room.artifacts.chart_versions(spec, chart, NONE)
    room.asked()
    assert await room.artifacts.refresh_charts(spec, NONE) is False
    assert len(room.asked()) == 2
    room.push("1.1.0", name="web")
    assert await room.artifacts.refresh_charts(spec, NONE) is True
    room.now += 25 * 3600  # by then nobody uses `app` any more
    await room.artifacts.chart_versions(spec, "web", NONE)
    room.asked()
    await room.artifacts.refresh_charts(spec, NONE)
    assert len(room.asked()) == 1


async def test_one_chart_that_fails_does_not_keep_others_from_being_asked(room: Room) -> None:
    room.push("1.0.0")
    room.push("1.0.0", name="web")
    spec = room.charts()
    for chart in ("app", "web"):
        await room.artifacts.chart_versions(spec, chart, NONE)
    room.server.server.fail(Fault(path="/v2/charts/app/*", status=503))
    room.push("1.1.0", name="web")
    assert await room.artifacts.refresh_charts(spec, NONE) is True
    assert await room.artifacts.refresh_charts(spec, NONE) is False
    room.server.server.fail(Fault(status=503))
    with pytest.raises(SourceUnavailable):
        await room.artifacts.refresh_charts(spec, NONE)


async def test_a_refresh_of_what_nobody_asked_for_asks_for_nothing(room: Room) -> None:
    assert await room.artifacts.refresh_charts(room.charts(), NONE) is False
    assert room.asked() == []


async def test_errors_are_not_shared_between_those_who_get_them(room: Room) -> None:
    room.server.server.fail(Fault(status=503))
    errors: list[HelmopsError] = []
    for _ in range(2):
        try:
            await room.versions(room.spec(tag="1.0.0"))
        except SourceUnavailable as error:
            errors.append(error)
    assert errors[0] is not errors[1]
    assert str(errors[0]) == str(errors[1])


async def test_a_version_of_another_list_is_pulled_by_its_tag(room: Room) -> None:
    room.push("1.0.0")
    spec = room.spec(semver="1.x")
    [version] = await room.artifacts.versions(spec, NONE)
    same: ChartVersion = replace(version)
    assert (await room.artifacts.pull(spec, same, NONE)).version == "1.0.0"
