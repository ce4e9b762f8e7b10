"""What is gathered of a failure. Pods are as a kubelet reports them."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from helmops.checks.evidence import ReleaseEvidence
from helmops.errors import AccessDenied, ClusterUnreachable, HelmError, ObjectNotFound
from helmops.model.evidence import Evidence, EvidenceKind
from helmops.model.hooks import ChartHook
from helmops.model.releases import ReleaseId
from tests.fakes.clock import START, FakeClock
from tests.fakes.objects import FakeObjects

WEB = ReleaseId("shop", "web")
Object = dict[str, Any]
LOOPING = {
    "name": "main",
    "ready": False,
    "restartCount": 4,
    "state": {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 40s restarting"}},
    "lastState": {"terminated": {"exitCode": 1, "reason": "Error"}},
}
RUNNING = {"name": "main", "ready": True, "restartCount": 0, "state": {"running": {}}}


def deployment(name: str = "web") -> Object:
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": "shop", "uid": f"d-{name}"},
        "spec": {"selector": {"matchLabels": {"app": name}}},
    }


def replica_set(revision: int, name: str = "web") -> Object:
    return {
        "apiVersion": "apps/v1",
        "kind": "ReplicaSet",
        "metadata": {
            "name": f"{name}-{revision}",
            "namespace": "shop",
            "uid": f"r-{name}-{revision}",
            "labels": {"app": name, "revision": str(revision)},
            "annotations": {"deployment.kubernetes.io/revision": str(revision)},
            "ownerReferences": [{"uid": f"d-{name}", "kind": "Deployment", "name": name}],
        },
        "spec": {"selector": {"matchLabels": {"app": name, "revision": str(revision)}}},
    }


def pod(name: str, *containers: Object, revision: int = 2, **more: Any) -> Object:
    ready = all(one["ready"] for one in containers)
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "namespace": "shop",
            "uid": f"p-{name}",
            "creationTimestamp": "2026-01-01T00:00:05Z",
            "labels": {"app": "web", "revision": str(revision)},
            "ownerReferences": [
                {"uid": f"r-web-{revision}", "kind": "ReplicaSet", "name": f"web-{revision}"}
            ],
        },
        "spec": {"nodeName": "node-0", "containers": [{"name": "main", "image": "web:2"}]},
        "status": {
            "phase": "Running",
            "containerStatuses": list(containers),
            "conditions": [{"type": "Ready", "status": str(ready)}],
            **more,
        },
    }


def event(kind: str, name: str, reason: str, message: str, **more: Any) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": f"{name}.{reason}", "namespace": "shop"},
        "involvedObject": {"kind": kind, "name": name},
        "type": "Warning",
        "reason": reason,
        "message": message,
        "lastTimestamp": "2026-01-01T00:00:10Z",
        **more,
    }


def hook(
    name: str = "migrate",
    kind: str = "Job",
    events: Sequence[str] = ("pre-upgrade",),
    phase: str = "Succeeded",
    policies: Sequence[str] = ("hook-succeeded",),
    manifest: Object | None = None,
) -> ChartHook:
    return ChartHook(
        kind, name, "shop", tuple(events), tuple(policies), phase, manifest=manifest or {}
    )


class World:
    def __init__(self) -> None:
        self.clock = FakeClock()
        self.cluster = FakeObjects(self.clock)
        self.hooks: dict[int, list[ChartHook]] = {}
        self.secrets: list[str] = []
        self.gatherer = ReleaseEvidence(
            self.cluster, self.clock, self.read_hooks, secrets=lambda: self.secrets, budget=5
        )

    async def read_hooks(self, release: ReleaseId, revision: int) -> Sequence[ChartHook]:
        return self.hooks.get(revision, [])

    def deploy(self, *pods: Object) -> None:
        self.cluster.put(deployment(), replica_set(1), replica_set(2), *pods)

    async def gather(self, *objects: Object, **more: Any) -> Evidence:
        return await self.gatherer.gather(WEB, 2, objects or (deployment(),), **more)

    def store(
        self, revision: int, *hooks: ChartHook, created: str = "2026-01-01T00:00:01Z"
    ) -> None:
        """What helm does first: a release Secret."""
        self.hooks[revision] = list(hooks)
        self.cluster.put(
            {
                "apiVersion": "v1",
                "kind": "Secret",
                "metadata": {
                    "name": f"sh.helm.release.v1.web.v{revision}",
                    "namespace": "shop",
                    "creationTimestamp": created,
                    "labels": {"owner": "helm", "name": "web"},
                },
            }
        )

    def run_hook(self, name: str, job: str = "migrate", **status: Any) -> Object:
        made = pod(name, RUNNING | status)
        made["metadata"]["labels"] = {"job-name": job}
        self.cluster.put(made)
        return made


@pytest.fixture
def world() -> World:
    return World()


def titles(evidence: Evidence) -> list[str]:
    return [section.title for section in evidence.sections]


def section(evidence: Evidence, begins: str) -> str:
    [found] = [s.text for s in evidence.sections if s.title.startswith(begins)]
    return found


# Pods and their logs


async def test_a_crash_loop_is_told_with_what_it_said_last(world: World) -> None:
    world.deploy(pod("web-2-a", LOOPING))
    world.cluster.previous_logs["web-2-a", "main"] = "starting\npanic: no config\n"
    world.cluster.container_logs["web-2-a", "main"] = "starting\npanic: no config\n"

    evidence = await world.gather()

    assert evidence.summary == (
        'pod web-2-a container main: CrashLoopBackOff (exit code 1, Error): "panic: no config"'
    )
    assert (evidence.release, evidence.revision, evidence.at) == (WEB, 2, START)
    assert titles(evidence) == [
        "pods",
        "log of pod web-2-a, container main, before its restart",
        "log of pod web-2-a, container main",
    ]
    assert section(evidence, "pods") == (
        "pod web-2-a of Deployment/shop/web: Running, on node-0, created 2026-01-01T00:00:05Z\n"
        "  Ready is False\n"
        "  container main (web:2): CrashLoopBackOff (exit code 1, Error), 4 restarts: "
        "back-off 40s restarting"
    )
    assert evidence.missing == ()


async def test_pods_of_the_revision_before_are_left_out(world: World) -> None:
    world.deploy(pod("web-1-a", RUNNING, revision=1), pod("web-2-a", LOOPING))
    world.cluster.previous_logs["web-2-a", "main"] = world.cluster.container_logs[
        "web-2-a", "main"
    ] = "x"

    assert "web-1-a" not in (await world.gather()).to_text()


async def test_the_worst_pods_come_first_and_logs_of_the_well_ones_last(world: World) -> None:
    unready = RUNNING | {"ready": False}
    world.deploy(pod("web-2-a", RUNNING), pod("web-2-b", unready), pod("web-2-c", LOOPING))
    for name in "abc":
        world.cluster.container_logs[f"web-2-{name}", "main"] = f"log of {name}"
    world.cluster.previous_logs["web-2-c", "main"] = "log before"

    evidence = await world.gather(helm_output="helm says")

    assert titles(evidence) == [
        "pods",
        "log of pod web-2-c, container main, before its restart",
        "log of pod web-2-c, container main",
        "log of pod web-2-b, container main",
        "helm",
    ]
    assert [line[:11] for line in section(evidence, "pods").split("\n") if line[0] == "p"] == [
        "pod web-2-c",
        "pod web-2-b",
        "pod web-2-a",
    ]


async def test_of_many_pods_that_fail_alike_two_are_read(world: World) -> None:
    pods = [pod(f"web-2-{n:02}", LOOPING) for n in range(30)]
    world.deploy(*pods)
    for one in pods:
        world.cluster.container_logs[one["metadata"]["name"], "main"] = "panic"
        world.cluster.previous_logs[one["metadata"]["name"], "main"] = "panic"

    evidence = await world.gather()

    assert sum(asked.startswith("logs") for asked in world.cluster.asked) == 4
    assert section(evidence, "pods").endswith("and 20 more pods")
    assert world.cluster.busiest <= 6


async def test_of_a_long_log_the_end_is_kept(world: World) -> None:
    world.deploy(pod("web-2-a", RUNNING | {"ready": False}))
    world.cluster.container_logs["web-2-a", "main"] = "".join(f"line {n}\n" for n in range(500))

    evidence = await world.gather()

    [log] = [s for s in evidence.sections if s.kind is EvidenceKind.LOG]
    assert log.cut
    assert log.text.startswith("[…]\nline 400\n")
    assert log.text.endswith("line 499")


async def test_all_of_it_is_bounded_and_what_is_left_out_is_named(world: World) -> None:
    objects = [deployment(f"app{n}") for n in range(20)]
    for n, one in enumerate(objects):
        name = f"app{n}"
        broken = pod(f"{name}-2-a", LOOPING)
        broken["metadata"]["labels"] = {"app": name, "revision": "2"}
        broken["metadata"]["ownerReferences"] = [{"uid": f"r-{name}-2"}]
        world.cluster.put(one, replica_set(2, name), broken)
        for logs in (world.cluster.container_logs, world.cluster.previous_logs):
            logs[f"{name}-2-a", "main"] = "x" * 150 + "\n" + ("y" * 150 + "\n") * 99

    evidence = await world.gather(*objects, helm_output="h" * 60_000)

    assert evidence.size < 260 * 1024
    assert evidence.missing[-1].startswith("left out, because the evidence would be larger than")


async def test_a_pod_that_fits_nowhere_is_told(world: World) -> None:
    homeless = pod("web-2-a", phase="Pending")
    homeless["status"]["conditions"] = [
        {
            "type": "PodScheduled",
            "status": "False",
            "reason": "Unschedulable",
            "message": "0/2 nodes are available",
        }
    ]
    world.deploy(homeless)

    assert (await world.gather()).summary == (
        "pod web-2-a: Pending; PodScheduled is False: Unschedulable: 0/2 nodes are available"
    )


async def test_an_image_that_cannot_be_pulled_is_told(world: World) -> None:
    waiting = {"reason": "ImagePullBackOff", "message": 'Back-off pulling image "web:3"'}
    world.deploy(pod("web-2-a", {"name": "main", "ready": False, "state": {"waiting": waiting}}))

    evidence = await world.gather()

    assert evidence.summary == (
        'pod web-2-a container main: ImagePullBackOff: Back-off pulling image "web:3"'
    )
    assert not any(asked.startswith("logs") for asked in world.cluster.asked)


async def test_a_release_that_is_well_has_no_summary(world: World) -> None:
    world.deploy(pod("web-2-a", RUNNING))
    world.cluster.container_logs["web-2-a", "main"] = "all well"

    evidence = await world.gather()

    assert evidence.summary == ""
    assert titles(evidence) == ["pods", "log of pod web-2-a, container main"]


# Events, helm, hooks of ours, the diff


async def test_events_of_the_release_are_kept_in_order(world: World) -> None:
    world.deploy(pod("web-2-a", RUNNING))
    world.cluster.put(
        event("Pod", "web-2-a", "BackOff", "Back-off restarting", count=7),
        event("Pod", "other", "BackOff", "not ours"),
        event("ReplicaSet", "web-2", "FailedCreate", "quota", lastTimestamp="2026-01-01T00:00:02Z"),
        event("Deployment", "web", "Scaled", "up", type="Normal"),
        event("ConfigMap", "web", "Odd", "not ours either"),
    )

    evidence = await world.gather()

    assert section(evidence, "events") == (
        "2026-01-01T00:00:02 Warning FailedCreate ReplicaSet/web-2: quota\n"
        "2026-01-01T00:00:10 Warning BackOff Pod/web-2-a: Back-off restarting (7 times)\n"
        "2026-01-01T00:00:10 Normal Scaled Deployment/web: up"
    )


async def test_where_no_pod_tells_a_warning_is_the_summary(world: World) -> None:
    world.cluster.put(deployment(), event("Deployment", "web", "FailedCreate", "exceeded quota"))

    assert (await world.gather()).summary == "Deployment/web: FailedCreate: exceeded quota"


async def test_of_many_events_warnings_go_first(world: World) -> None:
    world.cluster.put(
        deployment(),
        *(event("Deployment", "web", f"N{n}", "normal", type="Normal") for n in range(100)),
        *(event("Deployment", "web", f"W{n}", "warning") for n in range(50)),
    )

    lines = section(await world.gather(), "events").split("\n")

    assert len(lines) == 60
    assert sum(" Warning " in line for line in lines) == 50


async def test_helm_hooks_and_the_diff_are_there(world: World) -> None:
    before = deployment() | {"spec": {"replicas": 1}}
    after = deployment() | {"spec": {"replicas": 2}}

    evidence = await world.gather(
        after, before=[before], helm_output="Error: boom", hooks=["saved 3 tables", " "]
    )

    assert section(evidence, "helm") == "Error: boom"
    assert section(evidence, "remediation hook") == "saved 3 tables"
    assert "-  replicas: 1\n+  replicas: 2" in section(evidence, "what changed")


# Secrets


async def test_nothing_secret_is_in_it(world: World) -> None:
    world.secrets = ["from-values"]
    env = [{"name": "DB_PASSWORD", "value": "from-env-1"}]
    after = deployment()
    after["spec"]["template"] = {"spec": {"containers": [{"name": "main", "env": env}]}}
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "s"},
        "data": {"pin": base64.b64encode(b"from-data-1").decode()},
    }
    old = secret | {"data": {"pin": base64.b64encode(b"from-data-0").decode()}}
    hooked = {"kind": "Secret", "stringData": {"a": "from-hook-1"}}
    world.hooks[2] = [hook("h", "Secret", manifest=hooked)]
    world.deploy(pod("web-2-a", LOOPING))
    said = (
        "from-values from-env-1 from-data-1 from-data-0 from-hook-1 token=abc\n"
        "\x1b[31mpanic: cannot log in with from-data-1\x1b[0m\n"
    )
    world.cluster.container_logs["web-2-a", "main"] = said
    world.cluster.previous_logs["web-2-a", "main"] = said
    world.cluster.put(event("Pod", "web-2-a", "Failed", "env from-env-1"))
    world.cluster.fails_on["list", "ReplicaSet"] = AccessDenied("from-values")

    evidence = await world.gather(after, secret, before=[old], helm_output=said, hooks=[said])

    shown = evidence.to_json().decode()
    assert "from-" not in shown
    assert "abc" not in shown
    assert "\\u001b" not in shown
    assert "panic: cannot log in with ***" in shown


# What cannot be had


async def test_a_log_that_cannot_be_had_is_named(world: World) -> None:
    world.deploy(pod("web-2-a", LOOPING))
    world.cluster.container_logs["web-2-a", "main"] = "panic"

    evidence = await world.gather()

    assert evidence.missing == (
        "the log before the restart of main in pod web-2-a: no log of web-2-a/main",
    )
    assert section(evidence, "log of pod") == "panic"


async def test_a_cluster_that_is_away_leaves_what_is_known_without_it(world: World) -> None:
    world.cluster.fails_with = ClusterUnreachable("no answer")

    evidence = await world.gather(before=[deployment("old")], helm_output="Error: boom")

    assert titles(evidence) == ["helm", "what changed since the healthy revision"]
    assert evidence.missing == (
        "the pods of Deployment/shop/web: no answer",
        "the events: no answer",
    )


async def test_a_workload_that_is_gone_is_named(world: World) -> None:
    evidence = await world.gather()

    assert evidence.missing == ("the pods of Deployment/shop/web: it does not exist",)


async def test_a_cluster_that_hangs_takes_only_its_time(world: World) -> None:
    world.gatherer = ReleaseEvidence(world.cluster, world.clock, world.read_hooks, budget=0.05)

    async def hang(*args: Any, **kwargs: Any) -> None:
        await asyncio.Event().wait()

    world.cluster.get = hang  # type: ignore[method-assign]

    evidence = await world.gather(helm_output="Error: boom")

    assert titles(evidence) == ["helm"]
    assert evidence.missing == ("the pods: not all, after 0.05 s of asking",)


async def test_a_release_secret_that_cannot_be_read_is_named(world: World) -> None:
    async def damaged(release: ReleaseId, revision: int) -> Sequence[ChartHook]:
        raise HelmError("the release Secret is damaged")

    world.gatherer = ReleaseEvidence(world.cluster, world.clock, damaged)

    assert "the hooks: the release Secret is damaged" in (await world.gather()).missing


# Hooks and tests


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not true():  # noqa: ASYNC110 - what is waited for is what other tasks did
            await asyncio.sleep(0)


def asked(world: World, begins: str) -> Callable[[], bool]:
    return lambda: any(one.startswith(begins) for one in world.cluster.asked)


async def test_a_hook_that_helm_deletes_leaves_its_log(world: World) -> None:
    world.store(1)
    stream: asyncio.Queue[bytes | None] = asyncio.Queue()
    world.cluster.streams["migrate-x", "main"] = stream
    async with world.gatherer.recording(WEB):
        await until(asked(world, "watch Secret"))
        world.store(2, hook())
        await until(asked(world, "watch Pod"))
        running = world.run_hook("migrate-x")
        await until(asked(world, "follow"))
        stream.put_nowait(b"table 1\ntab")
        stream.put_nowait(b"le 2\n")
        stream.put_nowait(None)
        world.cluster.drop(running)

    evidence = await world.gather(*(), helm_output="")

    title = "log of pre-upgrade hook Job/migrate, pod migrate-x, container main"
    assert section(evidence, title) == "table 1\ntable 2"
    assert evidence.missing == ("the pods of Deployment/shop/web: it does not exist",)


async def test_a_hook_that_failed_is_the_first_of_the_summary(world: World) -> None:
    world.store(1)
    world.cluster.container_logs["migrate-x", "main"] = "connecting\nfatal: no database\nbye"
    async with world.gatherer.recording(WEB):
        await until(asked(world, "watch Secret"))
        world.store(2, hook(phase="Running"))
        await until(asked(world, "watch Pod"))
        world.run_hook("migrate-x")
        await until(asked(world, "follow"))
    world.hooks[2] = [hook(phase="Failed")]

    evidence = await world.gather()

    assert evidence.summary.split("\n")[0] == (
        'pre-upgrade hook Job/migrate failed: "fatal: no database"'
    )


async def test_a_hook_that_was_gone_too_soon_is_named(world: World) -> None:
    world.hooks[2] = [hook(policies=["before-hook-creation", "hook-succeeded"])]

    evidence = await world.gather()

    assert (
        "the log of pre-upgrade hook Job/migrate: it was gone before anybody listened "
        "(hook-delete-policy: before-hook-creation, hook-succeeded)"
    ) in evidence.missing


async def test_a_pod_that_was_deleted_before_its_log_was_read_is_named(world: World) -> None:
    world.store(1)
    async with world.gatherer.recording(WEB):
        await until(asked(world, "watch Secret"))
        world.store(2, hook())
        await until(asked(world, "watch Pod"))
        world.cluster.drop(world.run_hook("migrate-x"))
        await until(asked(world, "follow"))

    evidence = await world.gather()

    assert (
        "the log of pre-upgrade hook Job/migrate, pod migrate-x, container main: "
        "it was deleted before its log could be read"
    ) in evidence.missing


async def test_hooks_that_are_still_there_are_read_then(world: World) -> None:
    world.hooks[2] = [
        hook(),
        hook("web-test", "Pod", ["test"], "Failed"),
        hook("never-ran", phase=""),
        hook("config", "ConfigMap"),
    ]
    world.run_hook("migrate-x")
    tested = pod("web-test", RUNNING)
    world.cluster.put(tested)
    world.cluster.container_logs["migrate-x", "main"] = "migrated"
    world.cluster.container_logs["web-test", "main"] = "assertion failed"

    evidence = await world.gather()

    assert section(evidence, "log of pre-upgrade hook") == "migrated"
    assert section(evidence, "log of test Pod/web-test") == "assertion failed"
    assert [s.kind for s in evidence.sections] == [EvidenceKind.TEST_LOG, EvidenceKind.HOOK_LOG]
    assert evidence.summary == 'test Pod/web-test failed: "assertion failed"'
    assert not any("never-ran" in line or "config" in line for line in evidence.missing)


async def test_a_test_of_an_earlier_run_is_not_taken_for_this_one(world: World) -> None:
    old = pod("web-test", RUNNING, phase="Failed")
    world.cluster.put(old)
    world.cluster.container_logs["web-test", "main"] = "this time"
    world.store(2, hook("web-test", "Pod", ["test"]))
    async with world.gatherer.recording(WEB):
        await until(asked(world, "watch Pod"))
        world.cluster.drop(old)
        again = pod("web-test", RUNNING)
        again["metadata"]["uid"] = "another"
        world.cluster.put(again)
        await until(asked(world, "follow"))
        world.cluster.drop(again)

    evidence = await world.gather()

    assert section(evidence, "log of test Pod/web-test") == "this time"
    assert not any("web-test" in line for line in evidence.missing)


async def test_an_older_pod_of_a_hook_of_the_same_name_is_left_out(world: World) -> None:
    world.store(1)
    async with world.gatherer.recording(WEB):
        await until(asked(world, "watch Secret"))
        world.run_hook("migrate-old")
        world.store(2, hook(), created="2026-01-01T00:01:00Z")
        await until(asked(world, "watch Pod"))
        for _ in range(20):
            await asyncio.sleep(0)

    assert not asked(world, "follow")()


async def test_without_hooks_no_pod_is_watched(world: World) -> None:
    world.store(1)
    async with world.gatherer.recording(WEB):
        await until(asked(world, "watch Secret"))
        world.store(2, hook("config", "ConfigMap"))
        for _ in range(20):
            await asyncio.sleep(0)

    assert world.cluster.asked == ["watch Secret/shop/owner=helm,name=web"]


async def test_logs_of_another_revision_are_not_in_it(world: World) -> None:
    world.store(6)
    world.cluster.container_logs["migrate-x", "main"] = "of revision 7"
    async with world.gatherer.recording(WEB):
        await until(asked(world, "watch Secret"))
        world.store(7, hook())
        await until(asked(world, "watch Pod"))
        world.run_hook("migrate-x")
        await until(asked(world, "follow"))

    assert "of revision 7" not in (await world.gather()).to_text()


async def test_what_may_not_be_watched_is_named_and_stops_nobody(world: World) -> None:
    world.cluster.fails_on["watch", "Pod"] = AccessDenied("may not watch pods")
    world.store(2, hook())
    async with world.gatherer.recording(WEB):
        await until(asked(world, "watch Pod"))
        for _ in range(20):
            await asyncio.sleep(0)

    told = "the logs of hooks while they ran: may not watch pods"
    assert told in (await world.gather()).missing


@pytest.mark.parametrize("error", [AccessDenied("no"), ObjectNotFound("no"), ValueError("a bug")])
async def test_a_recording_that_cannot_be_made_stops_nobody(world: World, error: Exception) -> None:
    async def broken(release: ReleaseId, revision: int) -> Sequence[ChartHook]:
        raise error

    world.store(2)
    gatherer = ReleaseEvidence(world.cluster, world.clock, broken)
    async with gatherer.recording(WEB):
        await until(asked(world, "watch Secret"))
        for _ in range(20):
            await asyncio.sleep(0)


async def test_what_helm_raises_passes_through_and_nothing_is_left_running(world: World) -> None:
    before = asyncio.all_tasks()
    with pytest.raises(HelmError):
        async with world.gatherer.recording(WEB):
            raise HelmError("boom")

    assert asyncio.all_tasks() == before


async def test_a_cancelled_run_of_helm_is_left_at_once(world: World) -> None:
    world.store(2, hook())
    world.cluster.streams["migrate-x", "main"] = asyncio.Queue()
    before = asyncio.all_tasks()
    begun = asyncio.Event()

    async def run() -> None:
        async with world.gatherer.recording(WEB):
            begun.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(run())
    await begun.wait()
    await until(asked(world, "watch Pod"))
    world.run_hook("migrate-x")
    await until(asked(world, "follow"))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert asyncio.all_tasks() == before
