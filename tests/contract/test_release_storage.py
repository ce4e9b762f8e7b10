"""Helm's storage by the port: in memory, and the Secrets that real helms wrote."""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from helmops.cluster.api import Api
from helmops.errors import ObjectConflict, ReleaseNotFound
from helmops.helm.client import HelmClient
from helmops.helm.storage import HelmStorage
from helmops.model.releases import ReleaseId
from tests.fakes.cluster_state import FakeChart, FakeCluster
from tests.fakes.helm import FakeHelm
from tests.fakes.helm_stages import LONG, FakeStage, Play, RealStage
from tests.fakes.release_storage import FakeReleaseStorage

GOOD = FakeChart(version="1.0.0")
BETTER = FakeChart(version="1.1.0")
STUCK = FakeChart(version="1.3.0", never_ready=True)

real = pytest.mark.e2e


@pytest.fixture(
    params=["memory", pytest.param("helm4", marks=real), pytest.param("helm3", marks=real)]
)
async def play(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Play]:
    """One release, whose storage is looked at."""
    if request.param == "memory":
        cluster = FakeCluster()
        yield Play(FakeStage(cluster, FakeHelm(cluster), FakeReleaseStorage(cluster)))
        return
    kubeconfig = request.getfixturevalue("kubeconfig")
    namespace = request.getfixturevalue("namespace")
    executable = str(request.getfixturevalue(request.param))
    async with await Api.connect(kubeconfig=str(kubeconfig)) as api:
        client = HelmClient(
            runtime_dir=tmp_path / "runtime", executable=executable, kubeconfig=kubeconfig
        )
        await client.prepare()
        yield Play(RealStage(namespace, client, HelmStorage(api), tmp_path / "charts"))


async def test_a_release_that_is_not_there_has_no_revisions(play: Play) -> None:
    stored = await play.stage.storage.read(play.stage.release)
    assert stored.revisions == ()


async def test_reading_twice_gives_the_same_and_every_change_is_seen(play: Play) -> None:
    storage, release = play.stage.storage, play.stage.release
    await play.install(GOOD)
    first = await storage.read(release)
    assert await storage.read(release) == first
    await play.upgrade(BETTER)
    second = await storage.read(release)
    assert second.version != first.version
    assert [each.status.value for each in second.revisions] == ["superseded", "deployed"]
    assert first.revisions[0].digest == second.revisions[0].digest


async def test_times_are_aware_and_in_order(play: Play) -> None:
    await play.install(GOOD)
    await play.upgrade(BETTER)
    one, two = (await play.revisions()).values()
    assert one.first_deployed.utcoffset() is not None
    assert one.last_deployed <= two.last_deployed
    assert one.first_deployed == two.first_deployed


async def test_the_same_chart_and_values_are_the_same_revision_by_digest(play: Play) -> None:
    await play.install(GOOD, {"a": 1})
    await play.upgrade(GOOD, {"a": 2})
    await play.upgrade(GOOD, {"a": 1})
    one, two, three = (await play.revisions()).values()
    assert one.digest == three.digest != two.digest
    assert one.config_digest == three.config_digest != two.config_digest


async def test_objects_are_what_the_chart_rendered(play: Play) -> None:
    await play.install(GOOD, {"size": 3})
    objects = await play.stage.storage.objects(play.stage.release, 1)
    (config,) = [each for each in objects if each["kind"] == "ConfigMap"]
    assert config["metadata"]["name"] == "app"
    assert json.loads(config["data"]["values"]) == {"size": 3}
    with pytest.raises(ReleaseNotFound):
        await play.stage.storage.objects(play.stage.release, 2)


async def test_pruned_revisions_are_gone_and_cannot_be_gone_back_to(play: Play) -> None:
    storage, release = play.stage.storage, play.stage.release
    await play.install(GOOD)
    await play.upgrade(BETTER)
    await play.upgrade(GOOD)
    await storage.prune(release, [1])
    await storage.prune(release, [1, 17])
    assert await play.statuses() == {2: "superseded", 3: "deployed"}
    with pytest.raises(ReleaseNotFound):
        await play.rollback(1)
    await play.rollback(2)
    assert await play.statuses() == {2: "superseded", 3: "superseded", 4: "deployed"}


async def test_a_kept_revision_is_put_back_and_helm_goes_back_to_it(play: Play) -> None:
    storage, release = play.stage.storage, play.stage.release
    await play.install(GOOD, {"size": 1})
    await play.upgrade(BETTER)
    kept = (await play.revisions())[1]
    await storage.keep(release, 1, kept.digest)
    await play.upgrade(GOOD, {"size": 3})
    await storage.prune(release, [1])

    await storage.put_back(release, 1, kept.digest)
    await storage.put_back(release, 1, kept.digest)

    assert (await play.revisions())[1].digest == kept.digest
    assert await play.statuses() == {1: "superseded", 2: "superseded", 3: "deployed"}
    await play.rollback(1)
    assert (await play.revisions())[4].digest == kept.digest
    assert await storage.values(release, 4) == {"size": 1}


async def test_only_what_is_meant_is_kept_and_put_back(play: Play) -> None:
    storage, release = play.stage.storage, play.stage.release
    await play.install(GOOD)
    digest = (await play.revisions())[1].digest
    with pytest.raises(ReleaseNotFound):
        await storage.keep(release, 1, "another")
    with pytest.raises(ReleaseNotFound):
        await storage.keep(release, 2, digest)
    with pytest.raises(ReleaseNotFound):
        await storage.put_back(release, 1, digest)
    await storage.keep(release, 1, digest)
    with pytest.raises(ReleaseNotFound):
        await storage.put_back(release, 1, "another")


async def test_the_copy_is_the_newest_and_takes_no_number_that_is_taken(play: Play) -> None:
    storage, release = play.stage.storage, play.stage.release
    await play.install(GOOD)
    await play.upgrade(BETTER)
    one, two = (await play.revisions()).values()
    await storage.keep(release, 1, one.digest)
    await storage.keep(release, 2, two.digest)
    with pytest.raises(ReleaseNotFound):
        await storage.put_back(release, 1, one.digest)
    await play.uninstall()
    await play.install(GOOD)
    await play.upgrade(GOOD, {"a": 1})
    with pytest.raises(ObjectConflict):
        await storage.put_back(release, 2, two.digest)


async def test_only_a_pending_revision_is_marked(play: Play) -> None:
    storage, release = play.stage.storage, play.stage.release
    await play.install(GOOD)
    with pytest.raises(ObjectConflict):
        await storage.mark_failed(release, 1, "no")
    with pytest.raises(ReleaseNotFound):
        await storage.mark_failed(release, 2, "no")
    assert await play.statuses() == {1: "deployed"}


async def test_marking_twice_is_no_error_and_keeps_the_first_reason(play: Play) -> None:
    storage, release = play.stage.storage, play.stage.release
    await play.install(STUCK, disable_wait=True)
    await play.upgrade(GOOD)
    await play.cancelled("rollback", play.rollback(1, timeout=LONG))
    before = (await play.revisions())[3]
    await storage.mark_failed(release, 3, "first")
    await storage.mark_failed(release, 3, "second")
    after = (await play.revisions())[3]
    assert after.description == "first"
    assert after.digest == before.digest


# Only where there are real Secrets


def _unpacked(secret: dict[str, Any]) -> dict[str, Any]:
    text = gzip.decompress(base64.b64decode(base64.b64decode(secret["data"]["release"])))
    body: dict[str, Any] = json.loads(text)
    return body


@pytest.mark.e2e
async def test_helm_reads_what_was_written_back_whole(
    kubeconfig: Path, namespace: str, helm: Path, tmp_path: Path
) -> None:
    async with await Api.connect(kubeconfig=str(kubeconfig)) as api:
        storage = HelmStorage(api)
        client = HelmClient(
            runtime_dir=tmp_path / "runtime", executable=str(helm), kubeconfig=kubeconfig
        )
        play = Play(RealStage(namespace, client, storage, tmp_path / "charts"))
        await play.install(STUCK, {"size": 3, "text": "ünï\u2028"}, disable_wait=True)
        await play.upgrade(GOOD)
        await play.cancelled("rollback", play.rollback(1, timeout=LONG))
        name = "sh.helm.release.v1.app.v3"
        before = await api.get("v1", "Secret", name, namespace)
        assert before is not None

        await storage.mark_failed(ReleaseId(namespace, "app"), 3, "broken off")

        after = await api.get("v1", "Secret", name, namespace)
        assert after is not None
        was, now = _unpacked(before), _unpacked(after)
        assert now["info"] == was["info"] | {"status": "failed", "description": "broken off"}
        assert now | {"info": 0} == was | {"info": 0}
        labels = before["metadata"]["labels"] | {"status": "failed"}
        assert after["metadata"]["labels"] == labels
        history = await client.history("app", namespace=namespace)
        assert [(each["revision"], each["status"]) for each in history] == [
            (1, "superseded"),
            (2, "deployed"),
            (3, "failed"),
        ]
        assert (await client.get_values("app", namespace=namespace, revision=3)) == {
            "size": 3,
            "text": "ünï\u2028",
        }


@pytest.mark.e2e
async def test_chart_and_values_of_a_real_release_can_be_had(
    kubeconfig: Path, namespace: str, helm: Path, tmp_path: Path
) -> None:
    async with await Api.connect(kubeconfig=str(kubeconfig)) as api:
        storage = HelmStorage(api)
        client = HelmClient(
            runtime_dir=tmp_path / "runtime", executable=str(helm), kubeconfig=kubeconfig
        )
        await Play(RealStage(namespace, client, storage, tmp_path / "charts")).install(
            GOOD, {"a": 1}
        )
        chart, values = await storage.chart_and_values(ReleaseId(namespace, "app"), 1)
        assert values == {"a": 1}
        assert chart["metadata"]["version"] == "1.0.0"
        names = {template["name"] for template in chart["templates"]}
        assert names == {"templates/config.yaml"}
