"""Release Secrets, read and mended over an API server in memory."""

from __future__ import annotations

import base64
import contextlib
import gzip
import json
import random
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

import pytest

from helmops.errors import HelmError, ObjectConflict, ReleaseNotFound
from helmops.helm.storage import HelmStorage, secret_name
from helmops.model.releases import HelmStatus, ReleaseId, TestPhase
from tests.fakes.kubernetes_api import FakeKubernetes

APP = ReleaseId("apps", "app")
HUGE = 123456789012345678901234567890


def body(number: int = 1, status: str = "deployed", **changes: Any) -> dict[str, Any]:
    """A release as helm 4.3.1 wrote one, shortened."""
    return {
        "name": "app",
        "info": {
            "first_deployed": "2026-11-23T03:46:40.371064126Z",
            "last_deployed": f"2026-11-23T04:0{number}:00.5+01:00",
            "description": "Install complete",
            "status": status,
        },
        "chart": {
            "metadata": {"name": "web", "version": "1.2.3", "appVersion": "7", "apiVersion": "v2"},
            "templates": [{"name": "templates/all.yaml", "data": "YQ=="}],
            "values": {"replicas": 1},
        },
        "config": {"replicas": 2, "huge": HUGE},
        "manifest": "---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: app}\n",
        "version": number,
        "namespace": "apps",
        "apply_method": "ssa",
        "from_the_future": {"kept": HUGE},
        **changes,
    }


def secret(content: dict[str, Any] | bytes, number: int = 1, **labels: str) -> dict[str, Any]:
    """The Secret of a body, or of bytes that should have been one."""
    if isinstance(content, dict):
        packed = base64.b64encode(gzip.compress(json.dumps(content).encode()))
        status = content.get("info", {}).get("status", "")
    else:
        packed, status = content, "deployed"
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "type": "helm.sh/release.v1",
        "metadata": {
            "name": secret_name(APP, number),
            "namespace": "apps",
            "labels": {
                "owner": "helm",
                "name": "app",
                "status": status,
                "version": str(number),
                **labels,
            },
        },
        "data": {"release": base64.b64encode(packed).decode()},
    }


def unpacked(found: dict[str, Any] | None) -> dict[str, Any]:
    assert found is not None
    text = gzip.decompress(base64.b64decode(base64.b64decode(found["data"]["release"])))
    loaded: dict[str, Any] = json.loads(text)
    return loaded


class Index:
    """A watch that is told what it saw."""

    def __init__(self) -> None:
        self.seen: dict[str, str] | None = None
        self.changes: list[ReleaseId] = []
        self.reads: list[tuple[Any, Mapping[str, str], str]] = []

    def versions(self, release: ReleaseId) -> Mapping[str, str] | None:
        return self.seen

    @contextlib.contextmanager
    def changing(self, release: ReleaseId) -> Iterator[None]:
        yield
        self.changes.append(release)

    def begin_read(self, release: ReleaseId) -> Any:
        return "mark"

    def finish_read(self, mark: Any, versions: Mapping[str, str], resource_version: str) -> None:
        self.reads.append((mark, dict(versions), resource_version))


@pytest.fixture
def server() -> FakeKubernetes:
    return FakeKubernetes("apps")


@pytest.fixture
def storage(server: FakeKubernetes) -> HelmStorage:
    return HelmStorage(server.api())


async def test_a_revision_is_what_helm_stored(server: FakeKubernetes, storage: HelmStorage) -> None:
    server.put(secret(body(status="pending-upgrade")))

    (revision,) = (await storage.read(APP)).revisions

    assert revision.number == 1
    assert revision.status is HelmStatus.PENDING_UPGRADE
    assert (revision.chart_name, revision.chart_version, revision.app_version) == (
        "web",
        "1.2.3",
        "7",
    )
    assert revision.description == "Install complete"
    assert revision.first_deployed == datetime(2026, 11, 23, 3, 46, 40, 371064, UTC)
    assert revision.last_deployed == datetime(2026, 11, 23, 3, 1, 0, 500000, UTC)
    assert len(revision.digest) == len(revision.config_digest) == 64


async def test_revisions_come_by_number_not_by_name(
    server: FakeKubernetes, storage: HelmStorage
) -> None:
    for number in (2, 10, 9, 1):
        server.put(secret(body(number), number))

    stored = await storage.read(APP)

    assert [revision.number for revision in stored.revisions] == [1, 2, 9, 10]


async def test_a_release_without_secrets_is_empty(storage: HelmStorage) -> None:
    assert (await storage.read(APP)).revisions == ()


async def test_tests_are_the_hooks_with_a_test_event(
    server: FakeKubernetes, storage: HelmStorage
) -> None:
    ran = {"started_at": "2026-11-23T03:00:00Z", "completed_at": "2026-11-23T03:00:01Z"}
    hooks = [
        {"name": "migrate", "events": ["pre-upgrade"], "last_run": {"phase": "Succeeded"}},
        {"name": "a", "events": ["test"], "last_run": {**ran, "phase": "Failed"}},
        {"name": "b", "events": ["test"], "last_run": {"phase": ""}},
        {"name": "c", "events": ["test-success"], "last_run": {"phase": "Odd", "started_at": ""}},
        {"name": "d", "events": ["test"], "last_run": {"started_at": "0001-01-01T00:00:00Z"}},
    ]
    server.put(secret(body(hooks=hooks)))

    (revision,) = (await storage.read(APP)).revisions

    assert [(hook.name, hook.phase) for hook in revision.test_hooks] == [
        ("a", TestPhase.FAILED),
        ("b", TestPhase.NEVER),
        ("c", TestPhase.UNKNOWN),
        ("d", TestPhase.NEVER),
    ]
    assert revision.test_hooks[0].last_started == datetime(2026, 11, 23, 3, tzinfo=UTC)
    assert revision.test_hooks[3].last_started is None


async def test_what_became_of_a_revision_is_not_in_its_digest(
    server: FakeKubernetes, storage: HelmStorage
) -> None:
    hook = {"name": "t", "kind": "Pod", "manifest": "x", "events": ["test"]}
    server.put(secret(body(hooks=[hook | {"last_run": {"phase": ""}}])))
    before = (await storage.read(APP)).revisions[0]
    ran = hook | {
        "last_run": {"phase": "Failed", "started_at": "2026-11-23T03:00:00Z"},
        "delete_policies": ["before-hook-creation"],
    }
    server.put(secret(body(status="superseded", hooks=[ran])))

    after = (await storage.read(APP)).revisions[0]

    assert before.digest == after.digest
    assert after.status is HelmStatus.SUPERSEDED


async def test_a_small_change_of_content_changes_the_digest(
    server: FakeKubernetes, storage: HelmStorage
) -> None:
    server.put(secret(body(1)))
    server.put(secret(body(2, manifest="---\nkind: ConfigMap\n"), 2))

    one, two = (await storage.read(APP)).revisions

    assert one.digest != two.digest
    assert one.config_digest == two.config_digest


async def test_a_live_index_without_news_costs_no_request(server: FakeKubernetes) -> None:
    index = Index()
    storage = HelmStorage(server.api(), index)
    made = server.put(secret(body()))
    index.seen = {made["metadata"]["name"]: made["metadata"]["resourceVersion"]}
    first = await storage.read(APP)
    server.asked.clear()

    again = await storage.read(APP)

    assert again is first
    assert server.asked == []


async def test_a_live_index_with_news_costs_one_request_for_each_new_secret(
    server: FakeKubernetes,
) -> None:
    index = Index()
    storage = HelmStorage(server.api(), index)
    seen = {}
    for number in (1, 2):
        made = server.put(secret(body(number), number))
        seen[made["metadata"]["name"]] = made["metadata"]["resourceVersion"]
    index.seen = dict(seen)
    await storage.read(APP)
    server.asked.clear()
    made = server.put(secret(body(3), 3))
    index.seen = seen | {made["metadata"]["name"]: made["metadata"]["resourceVersion"]}

    stored = await storage.read(APP)

    assert [revision.number for revision in stored.revisions] == [1, 2, 3]
    assert len(server.asked) == 1


async def test_an_index_that_is_not_sure_means_a_list_and_is_told_of_it(
    server: FakeKubernetes,
) -> None:
    index = Index()
    storage = HelmStorage(server.api(), index)
    made = server.put(secret(body()))

    await storage.read(APP)

    (read,) = index.reads
    versions = {made["metadata"]["name"]: made["metadata"]["resourceVersion"]}
    assert read == ("mark", versions, made["metadata"]["resourceVersion"])
    assert len(server.asked) == 1


async def test_without_an_index_bodies_are_read_once(
    server: FakeKubernetes, storage: HelmStorage
) -> None:
    server.put(secret(body(1)))
    first = await storage.read(APP)
    server.put(secret(body(2), 2))
    server.asked.clear()

    second = await storage.read(APP)
    third = await storage.read(APP)

    assert [revision.number for revision in second.revisions] == [1, 2]
    assert second.revisions[0] is first.revisions[0]
    assert third is second
    bodies = [path for _, path in server.asked if "?" not in path]
    assert len(bodies) == 1


async def test_equal_storage_has_an_equal_version_and_changed_storage_another(
    server: FakeKubernetes, storage: HelmStorage
) -> None:
    server.put(secret(body()))
    first = await storage.read(APP)
    assert (await HelmStorage(server.api()).read(APP)).version == first.version
    server.put(secret(body(status="superseded")))

    assert (await storage.read(APP)).version != first.version


async def test_a_secret_that_vanishes_between_list_and_read_is_not_there(
    server: FakeKubernetes, storage: HelmStorage
) -> None:
    server.put(secret(body(1)))
    await storage.read(APP)
    server.put(secret(body(2), 2))

    def vanish() -> None:
        server.remove("v1", "secrets", "apps", secret_name(APP, 2))

    server.answers = [lambda: None, vanish]

    stored = await storage.read(APP)

    assert [revision.number for revision in stored.revisions] == [1]


async def test_other_secrets_with_helms_labels_are_passed_over(
    server: FakeKubernetes, storage: HelmStorage
) -> None:
    server.put(secret(body()))
    other = secret(b"whatever", 2)
    other["type"] = "Opaque"
    server.put(other)

    assert [revision.number for revision in (await storage.read(APP)).revisions] == [1]


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"%%%", "damaged"),
        (base64.b64encode(gzip.compress(b"{}", mtime=0)[:-12]), "damaged"),
        (base64.b64encode(b"\x1f\x8b\x08nonsense"), "damaged"),
        (base64.b64encode(gzip.compress(b"<html>", mtime=0)), "no JSON"),
        (base64.b64encode(gzip.compress(b"[]", mtime=0)), "no release"),
        (base64.b64encode(gzip.compress(b'{"version": 1}', mtime=0)), "no release"),
        (base64.b64encode(gzip.compress(b'{"version": "x", "info": {}}', mtime=0)), "no release"),
    ],
)
async def test_a_damaged_secret_is_named_and_spoils_no_other_release(
    server: FakeKubernetes, storage: HelmStorage, content: bytes, why: str
) -> None:
    server.put(secret(content, 3))

    with pytest.raises(HelmError, match=why) as caught:
        await storage.read(APP)

    assert secret_name(APP, 3) in caught.value.what
    assert caught.value.next_step
    assert (await storage.read(ReleaseId("apps", "other"))).revisions == ()


async def test_a_secret_without_its_key_is_named(
    server: FakeKubernetes, storage: HelmStorage
) -> None:
    made = secret(body())
    made["data"] = {}
    server.put(made)

    with pytest.raises(HelmError, match="has no key `release`"):
        await storage.read(APP)


async def test_an_uncompressed_body_is_read_too(
    server: FakeKubernetes, storage: HelmStorage
) -> None:
    server.put(secret(base64.b64encode(json.dumps(body()).encode())))

    assert (await storage.read(APP)).revisions[0].chart_name == "web"


async def test_a_large_body_is_read_as_a_small_one(
    server: FakeKubernetes, storage: HelmStorage
) -> None:
    noise = base64.b64encode(random.Random(1).randbytes(100_000)).decode()
    chart = body()["chart"] | {"files": [{"name": "noise.bin", "data": noise}]}
    noisy = secret(body(chart=chart))
    assert len(noisy["data"]["release"]) > 64_000
    server.put(noisy)

    assert (await storage.read(APP)).revisions[0].chart_version == "1.2.3"


async def test_objects_are_the_manifest_with_lists_taken_apart(
    server: FakeKubernetes, storage: HelmStorage
) -> None:
    manifest = """\
---
# Source: web/templates/a.yaml
apiVersion: v1
kind: ConfigMap
metadata: {name: a, namespace: elsewhere}
data: {when: 2026-01-01, ratio: 1:30, mode: 0755}
---
# nothing
---
apiVersion: v1
kind: List
items:
- {apiVersion: v1, kind: Service, metadata: {name: b}}
- {apiVersion: v1, kind: Service, metadata: {name: c}}
"""
    server.put(secret(body(manifest=manifest)))

    objects = await storage.objects(APP, 1)

    assert [each["metadata"]["name"] for each in objects] == ["a", "b", "c"]
    assert objects[0]["data"] == {"when": "2026-01-01", "ratio": "1:30", "mode": 493}
    assert "namespace" not in objects[1]["metadata"]


async def test_chart_and_values_are_as_stored(server: FakeKubernetes, storage: HelmStorage) -> None:
    server.put(secret(body()))

    chart, values = await storage.chart_and_values(APP, 1)

    assert chart == body()["chart"]
    assert values == {"replicas": 2, "huge": HUGE}


async def test_how_a_revision_was_applied_is_known(
    server: FakeKubernetes, storage: HelmStorage
) -> None:
    by_helm_3 = body(2)
    del by_helm_3["apply_method"]
    server.put(secret(body(1)))
    server.put(secret(by_helm_3, 2))

    assert await storage.apply_method(APP, 1) == "ssa"
    assert await storage.apply_method(APP, 2) == ""
    assert await storage.apply_method(APP, None) == ""
    assert await storage.apply_method(APP, 9) == ""


@pytest.mark.parametrize("read", ["objects", "chart_and_values"])
async def test_a_revision_that_is_not_there_is_not_found(storage: HelmStorage, read: str) -> None:
    with pytest.raises(ReleaseNotFound, match="no revision 7"):
        await getattr(storage, read)(APP, 7)


async def test_breaking_a_lock_changes_status_and_description_and_nothing_else(
    server: FakeKubernetes,
) -> None:
    index = Index()
    storage = HelmStorage(server.api(), index)
    made = secret(body(2, "pending-upgrade"), 2, team="a")
    server.put(made)

    await storage.mark_failed(APP, 2, "helmops died here")

    found = server.find("v1", "secrets", "apps", secret_name(APP, 2))
    after = unpacked(found)
    expected = body(2, "failed")
    expected["info"]["description"] = "helmops died here"
    assert after == expected
    assert list(after) == list(expected)
    assert after["from_the_future"]["kept"] == HUGE
    assert found is not None
    assert found["metadata"]["labels"] == made["metadata"]["labels"] | {"status": "failed"}
    assert found["type"] == "helm.sh/release.v1"
    assert index.changes == [APP]
    assert (await storage.read(APP)).revisions[0].status is HelmStatus.FAILED


async def test_a_lock_is_not_broken_over_somebody_elses_write(
    server: FakeKubernetes, storage: HelmStorage
) -> None:
    server.put(secret(body(1, "pending-install")))

    def helm_finishes() -> None:
        server.put(secret(body(1, "deployed")))

    server.answers = [lambda: None, helm_finishes]

    with pytest.raises(ObjectConflict):
        await storage.mark_failed(APP, 1, "x")

    assert unpacked(server.find("v1", "secrets", "apps", secret_name(APP, 1))) == body(1)


async def test_a_revision_that_is_done_by_now_is_not_marked(
    server: FakeKubernetes, storage: HelmStorage
) -> None:
    server.put(secret(body(1, "deployed")))

    with pytest.raises(ObjectConflict, match="deployed by now"):
        await storage.mark_failed(APP, 1, "x")


async def test_a_revision_that_is_failed_already_is_left_alone(
    server: FakeKubernetes, storage: HelmStorage
) -> None:
    made = server.put(secret(body(1, "failed")))

    await storage.mark_failed(APP, 1, "x")

    assert server.find("v1", "secrets", "apps", secret_name(APP, 1)) == made


async def test_marking_what_is_not_there_is_not_found(storage: HelmStorage) -> None:
    with pytest.raises(ReleaseNotFound):
        await storage.mark_failed(APP, 1, "x")


async def test_pruning_deletes_what_is_named_and_minds_nothing_that_is_gone(
    server: FakeKubernetes,
) -> None:
    index = Index()
    storage = HelmStorage(server.api(), index)
    for number in (1, 2, 3):
        server.put(secret(body(number), number))

    await storage.prune(APP, [1, 3, 8])

    assert [revision.number for revision in (await storage.read(APP)).revisions] == [2]
    assert index.changes == [APP]


async def test_pruning_nothing_asks_nothing(server: FakeKubernetes, storage: HelmStorage) -> None:
    await storage.prune(APP, [])

    assert server.asked == []


# The kept copy


async def test_a_copy_is_no_revision_for_helm(server: FakeKubernetes, storage: HelmStorage) -> None:
    server.put(secret(body()))
    digest = (await storage.read(APP)).revisions[0].digest
    await storage.keep(APP, 1, digest)

    copy = server.find("v1", "secrets", "apps", "helmops.app.healthy")
    assert copy is not None
    assert copy["type"] == "helmops.dev/healthy"
    assert "owner" not in copy["metadata"]["labels"]
    assert copy["metadata"]["annotations"]["helmops.dev/revision"] == "1"
    assert unpacked(copy)["from_the_future"] == {"kept": HUGE}
    assert len((await storage.read(APP)).revisions) == 1


async def test_what_is_put_back_is_whole_but_for_its_status(
    server: FakeKubernetes, storage: HelmStorage
) -> None:
    server.put(secret(body()))
    server.put(secret(body(2), 2))
    digest = (await storage.read(APP)).revisions[0].digest
    await storage.keep(APP, 1, digest)
    await storage.prune(APP, [1])

    await storage.put_back(APP, 1, digest)

    restored = server.find("v1", "secrets", "apps", secret_name(APP, 1))
    assert restored is not None
    assert restored["type"] == "helm.sh/release.v1"
    assert restored["metadata"]["labels"] == {
        "name": "app",
        "owner": "helm",
        "status": "superseded",
        "version": "1",
    }
    whole = body()
    whole["info"]["status"] = "superseded"
    assert unpacked(restored) == whole


async def test_a_copy_that_was_tampered_with_is_not_put_back(
    server: FakeKubernetes, storage: HelmStorage
) -> None:
    server.put(secret(body()))
    digest = (await storage.read(APP)).revisions[0].digest
    await storage.keep(APP, 1, digest)
    copy = server.find("v1", "secrets", "apps", "helmops.app.healthy")
    assert copy is not None
    copy["data"] = secret(body(1, config={"replicas": 9}))["data"]
    server.put(copy)
    await storage.prune(APP, [1])

    with pytest.raises(HelmError, match="it is another revision than it says"):
        await storage.put_back(APP, 1, digest)


async def test_hooks_are_told_with_their_last_run(
    server: FakeKubernetes, storage: HelmStorage
) -> None:
    job = "apiVersion: batch/v1\nkind: Job\nmetadata: {name: migrate, namespace: other}\n"
    hooks = [
        {
            "name": "migrate",
            "kind": "Job",
            "manifest": job,
            "events": ["pre-upgrade"],
            "delete_policies": ["hook-succeeded"],
            "last_run": {"phase": "Failed"},
        },
        {"name": "t", "kind": "Pod", "manifest": "{", "events": ["test"], "last_run": {}},
        {"name": "empty", "kind": "Pod", "manifest": "", "events": ["test"]},
    ]
    server.put(secret(body(hooks=hooks)))

    migrate, test = await storage.hooks(APP, 1)

    assert (migrate.kind, migrate.name, migrate.namespace) == ("Job", "migrate", "other")
    assert (migrate.events, migrate.delete_policies) == (("pre-upgrade",), ("hook-succeeded",))
    assert (migrate.phase, migrate.is_test) == ("Failed", False)
    assert migrate.manifest["kind"] == "Job"
    assert (test.name, test.namespace, test.phase, test.is_test) == ("t", "apps", "", True)
    assert "Job" not in repr(migrate).replace("kind='Job'", "")
