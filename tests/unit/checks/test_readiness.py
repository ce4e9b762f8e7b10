"""Readiness: all objects of a release, together, as the cluster has them now."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest

from helmops.checks.readiness import Readiness
from helmops.errors import AccessDenied, ClusterUnreachable, ExpressionError
from helmops.model.declarations import HealthCheckExpr
from helmops.model.health import CheckResult
from helmops.model.releases import ReleaseId
from tests.fakes.clock import START, FakeClock
from tests.fakes.objects import FakeObjects

WEB = ReleaseId("shop", "web")
FIVE_MINUTES = timedelta(minutes=5)


class World:
    def __init__(self) -> None:
        self.clock = FakeClock()
        self.cluster = FakeObjects(self.clock)
        self.lines: list[str] = []

    async def wait(
        self,
        *objects: dict[str, Any],
        expressions: Sequence[HealthCheckExpr] = (),
        timeout: timedelta = FIVE_MINUTES,
        hard_timeout: timedelta | None = None,
        at_once: int = 8,
    ) -> CheckResult:
        readiness = Readiness(self.cluster, self.clock, at_once=at_once)
        return await readiness.wait(
            WEB,
            objects,
            expressions,
            timeout=timeout,
            hard_timeout=hard_timeout,
            progress=self.lines.append,
        )

    @property
    def seconds(self) -> float:
        return (self.clock.now() - START).total_seconds()


@pytest.fixture
def world() -> World:
    return World()


def config_map(name: str = "settings", namespace: str = "shop") -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": namespace},
        "data": {"a": "b"},
    }


def deployment(ready: int = 1, name: str = "web", **condition: str) -> dict[str, Any]:
    counts = dict.fromkeys(("replicas", "updatedReplicas"), 1)
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": "shop", "uid": f"uid-{name}"},
        "spec": {"selector": {"matchLabels": {"app": name}}},
        "status": {
            **counts,
            "availableReplicas": ready,
            "readyReplicas": ready,
            "conditions": [
                {"type": "Available", "status": "True" if ready else "False"},
                {"type": "Progressing", "status": "True", **condition},
            ],
        },
    }


STUCK = {"reason": "ProgressDeadlineExceeded", "status": "False"}


def replica_set(revision: int, **status: Any) -> dict[str, Any]:
    return {
        "apiVersion": "apps/v1",
        "kind": "ReplicaSet",
        "metadata": {
            "name": f"web-{revision}",
            "namespace": "shop",
            "uid": f"uid-web-{revision}",
            "labels": {"app": "web"},
            "annotations": {"deployment.kubernetes.io/revision": str(revision)},
            "ownerReferences": [{"uid": "uid-web"}],
        },
        "spec": {"selector": {"matchLabels": {"app": "web", "hash": str(revision)}}},
        "status": status,
    }


def pod(name: str, revision: int, reason: str, message: str) -> dict[str, Any]:
    waiting = {"waiting": {"reason": reason, "message": message}}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "namespace": "shop",
            "labels": {"app": "web", "hash": str(revision)},
            "ownerReferences": [{"uid": f"uid-web-{revision}"}],
        },
        "status": {
            "phase": "Pending",
            "containerStatuses": [{"name": "app", "ready": False, "state": waiting}],
        },
    }


async def test_objects_that_are_all_ready_pass_at_the_first_look(world: World) -> None:
    objects = (config_map(), deployment())
    world.cluster.put(*objects)

    result = await world.wait(*objects)

    assert result == CheckResult("readiness", True, "2 objects are ready", attempts=1)
    assert world.cluster.asked == ["get ConfigMap/shop/settings", "get Deployment/shop/web"]
    assert world.seconds == 0


async def test_a_release_without_objects_is_ready(world: World) -> None:
    assert (await world.wait()).passed
    assert world.cluster.asked == []


async def test_what_is_not_ready_is_looked_at_again_until_it_is(world: World) -> None:
    world.cluster.put(config_map(), deployment(ready=0))
    world.cluster.after(10, lambda: world.cluster.put(deployment()))

    result = await world.wait(config_map(), deployment())

    assert result.passed
    assert 10 <= world.seconds <= 12
    assert world.clock.slept[0] == 0.25
    assert max(world.clock.slept) == 2.0
    assert world.cluster.asked.count("get ConfigMap/shop/settings") == 1


async def test_it_says_what_it_waits_for_once(world: World) -> None:
    world.cluster.put(deployment(ready=0))
    world.cluster.after(10, lambda: world.cluster.put(deployment()))

    await world.wait(deployment())

    assert world.lines == [
        "waiting for 1 of 1 objects: Deployment/shop/web: available: 0/1",
    ]


async def test_all_must_be_ready_together(world: World) -> None:
    """The first turns bad while the second is waited for."""
    one, two = deployment(name="one"), deployment(name="two")
    world.cluster.put(one, deployment(ready=0, name="two"))
    world.cluster.after(3, lambda: world.cluster.put(deployment(ready=0, name="one")))
    world.cluster.after(6, lambda: world.cluster.put(two))

    result = await world.wait(one, two, timeout=timedelta(seconds=30))

    assert not result.passed
    assert "Deployment/shop/one" in result.message


async def test_at_the_timeout_it_names_what_is_not_ready(world: World) -> None:
    world.cluster.put(config_map(), deployment(ready=0))

    result = await world.wait(config_map(), deployment())

    assert not result.passed
    assert result.message == (
        "1 of 2 objects are not ready after 5m0s: Deployment/shop/web: available: 0/1"
    )
    assert world.seconds == 300


async def test_at_most_five_objects_are_named(world: World) -> None:
    objects = [deployment(ready=0, name=f"d{number}") for number in range(8)]
    world.cluster.put(*objects)

    result = await world.wait(*objects)

    assert result.message.count("Deployment/shop/") == 5
    assert result.message.startswith("8 of 8 objects are not ready")
    assert result.message.endswith("; and 3 more")


async def test_no_time_means_one_look(world: World) -> None:
    world.cluster.put(deployment(ready=0))

    result = await world.wait(deployment(), timeout=timedelta(0))

    assert not result.passed
    assert result.message == "1 of 1 objects are not ready: Deployment/shop/web: available: 0/1"
    assert world.clock.slept == []


async def test_a_failure_that_stays_ends_the_wait(world: World) -> None:
    world.cluster.put(deployment(ready=0, **STUCK), config_map())

    result = await world.wait(deployment(), config_map())

    assert not result.passed
    assert result.message == "Deployment/shop/web: progress deadline exceeded"
    assert 1 <= world.seconds <= 2


async def test_a_failure_of_the_revision_before_may_pass(world: World) -> None:
    world.cluster.put(deployment(ready=0, **STUCK))
    world.cluster.after(0.5, lambda: world.cluster.put(deployment(ready=0)))
    world.cluster.after(5, lambda: world.cluster.put(deployment()))

    assert (await world.wait(deployment())).passed


async def test_a_failed_job_ends_the_wait_at_once(world: World) -> None:
    job = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": "migrate", "namespace": "shop"},
        "status": {
            "failed": 1,
            "conditions": [{"type": "Failed", "status": "True", "reason": "BackoffLimitExceeded"}],
        },
    }
    world.cluster.put(job)

    result = await world.wait(job)

    assert result.message == "Job/shop/migrate: failed, 1 pods failed: BackoffLimitExceeded"
    assert world.seconds == 0


async def test_what_is_missing_is_waited_for_ten_seconds(world: World) -> None:
    result = await world.wait(config_map())

    assert not result.passed
    assert result.message == "ConfigMap/shop/settings: does not exist"
    assert 10 <= world.seconds <= 12


async def test_what_was_missing_may_come_back(world: World) -> None:
    world.cluster.after(5, lambda: world.cluster.put(config_map()))

    assert (await world.wait(config_map())).passed


async def test_a_kind_that_the_cluster_does_not_know_is_missing(world: World) -> None:
    widget = {"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": "w"}}

    result = await world.wait(widget)

    assert not result.passed
    assert "the API server has no kind Widget in example.com/v1" in result.message


async def test_a_finished_job_that_the_cluster_removed_is_not_missed(world: World) -> None:
    job = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": "migrate"},
        "spec": {"ttlSecondsAfterFinished": 60},
    }

    assert (await world.wait(job)).passed


async def test_what_is_being_deleted_is_not_ready(world: World) -> None:
    gone = config_map()
    gone["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    world.cluster.put(gone)

    result = await world.wait(config_map(), timeout=timedelta(seconds=20))

    assert "ConfigMap/shop/settings: is being deleted" in result.message


async def test_namespaces_are_filled_in_where_the_kind_has_one(world: World) -> None:
    role = {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole"}
    named = role | {"metadata": {"name": "reader"}}
    bare = config_map()
    del bare["metadata"]["namespace"]
    world.cluster.put(config_map(), named, config_map("other", "elsewhere"))

    result = await world.wait(bare, named, config_map("other", "elsewhere"))

    assert result.passed
    assert world.cluster.asked == [
        "get ConfigMap/shop/settings",
        "get ClusterRole//reader",
        "get ConfigMap/elsewhere/other",
    ]


async def test_what_has_no_namespace_is_named_without_one(world: World) -> None:
    role = {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole"}

    result = await world.wait(role | {"metadata": {"name": "reader"}}, timeout=timedelta(0))

    assert result.message.endswith(": ClusterRole/reader: does not exist")


async def test_objects_in_a_list_count_each(world: World) -> None:
    world.cluster.put(config_map("a"), config_map("b"))
    inner = {"kind": "List", "apiVersion": "v1", "items": [config_map("a"), config_map("b")]}

    result = await world.wait(inner, config_map("a"))

    assert result.message == "2 objects are ready"


async def test_an_object_without_a_name_cannot_be_looked_for(world: World) -> None:
    job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"generateName": "j-"}}

    assert (await world.wait(job)).passed


async def test_the_content_of_secrets_is_not_read(world: World) -> None:
    secret = config_map() | {"kind": "Secret", "data": {"password": "aHVudGVyMg=="}}
    world.cluster.put(secret)
    read: list[object] = []
    get = world.cluster.get

    async def noticed(*args: Any, **kwargs: Any) -> dict[str, Any] | None:
        read.append(await get(*args, **kwargs))
        return None if not isinstance(read[-1], dict) else read[-1]

    world.cluster.get = noticed  # type: ignore[method-assign]

    assert (await world.wait(secret)).passed
    assert "aHVudGVyMg" not in str(read)


async def test_requests_are_made_a_few_at_once(world: World) -> None:
    objects = [config_map(f"c{number}") for number in range(40)]
    world.cluster.put(*objects)

    await world.wait(*objects)

    assert world.cluster.busiest == 8


async def test_releases_share_the_bound(world: World) -> None:
    objects = [config_map(f"c{number}") for number in range(10)]
    world.cluster.put(*objects)
    readiness = Readiness(world.cluster, world.clock, at_once=4)

    await asyncio.gather(
        *(readiness.wait(WEB, objects, (), timeout=FIVE_MINUTES) for _ in range(3))
    )

    assert world.cluster.busiest == 4


@pytest.mark.parametrize("error", [ClusterUnreachable("no answer"), AccessDenied("may not")])
async def test_an_error_of_the_cluster_is_no_verdict(world: World, error: Any) -> None:
    objects = [config_map(f"c{number}") for number in range(20)]
    world.cluster.put(*objects)
    world.cluster.fails_with = error

    with pytest.raises(type(error)):
        await world.wait(*objects)


# Expressions

RULE = HealthCheckExpr.model_validate(
    {
        "apiVersion": "example.com/v1",
        "kind": "Widget",
        "current": "status.up",
        "failed": "status.broken",
    }
)


def widget(**status: Any) -> dict[str, Any]:
    return {
        "apiVersion": "example.com/v1",
        "kind": "Widget",
        "metadata": {"name": "w", "namespace": "shop"},
        "status": status,
    }


@pytest.mark.parametrize(
    ("status", "passed", "message"),
    [
        ({"up": True, "broken": False}, True, "1 object is ready"),
        ({"up": False, "broken": True}, False, "Widget/shop/w: failed: status.broken"),
        ({"up": False, "broken": False}, False, "Widget/shop/w: not yet: status.up"),
        ({}, False, "Widget/shop/w: `status.broken`: there is no field `broken`"),
    ],
)
async def test_a_declarations_own_rules_decide(
    world: World, status: dict[str, Any], passed: bool, message: str
) -> None:
    world.cluster.know("example.com/v1", "Widget", "widgets")
    world.cluster.put(widget(**status))

    result = await world.wait(widget(), expressions=[RULE], timeout=timedelta(seconds=10))

    assert result.passed is passed
    assert result.message.endswith(message)


async def test_a_rule_for_a_kind_that_only_has_to_exist_sees_its_content(world: World) -> None:
    rule = HealthCheckExpr.model_validate(
        {"apiVersion": "v1", "kind": "ConfigMap", "current": "data.a == 'b'"}
    )
    world.cluster.put(config_map())

    assert (await world.wait(config_map(), expressions=[rule])).passed


async def test_a_rule_that_does_not_compile_is_no_verdict(world: World) -> None:
    broken = HealthCheckExpr.model_validate({"apiVersion": "x/v1", "current": "status &&"})

    with pytest.raises(ExpressionError):
        await world.wait(config_map(), expressions=[broken])


# What lies below


async def test_the_trouble_of_the_newest_pods_is_told(world: World) -> None:
    world.cluster.put(
        deployment(ready=0, **STUCK),
        replica_set(9),
        pod("web-9-a", 9, "ErrImagePull", "of the old revision"),
        replica_set(10),
        pod("web-10-a", 10, "ImagePullBackOff", 'Back-off pulling image "web:none"'),
    )

    result = await world.wait(deployment())

    assert result.message == (
        "Deployment/shop/web: progress deadline exceeded "
        '(pod web-10-a: ImagePullBackOff: Back-off pulling image "web:none")'
    )


async def test_what_says_most_of_several_pods_is_told(world: World) -> None:
    quiet = pod("web-1-a", 1, "ContainerCreating", "")
    world.cluster.put(
        deployment(ready=0),
        replica_set(1),
        quiet,
        pod("web-1-b", 1, "CrashLoopBackOff", "back-off 10s"),
        pod("web-1-c", 1, "CrashLoopBackOff", "back-off 10s"),
    )

    result = await world.wait(deployment())

    assert result.message.endswith("(pod web-1-b: CrashLoopBackOff: back-off 10s, and 2 more pods)")


async def test_a_replica_set_that_cannot_make_pods_is_told(world: World) -> None:
    refusal = {"type": "ReplicaFailure", "status": "True", "message": 'pods "web" is forbidden'}
    world.cluster.put(deployment(ready=0), replica_set(1, conditions=[refusal]))

    result = await world.wait(deployment())

    assert result.message.endswith('(web-1: pods "web" is forbidden)')


async def test_pods_of_somebody_else_are_not_told(world: World) -> None:
    foreign = pod("web-1-a", 1, "ErrImagePull", "not ours")
    foreign["metadata"]["ownerReferences"] = [{"uid": "somebody"}]
    world.cluster.put(deployment(ready=0), replica_set(1), foreign)

    result = await world.wait(deployment())

    assert result.message.endswith("available: 0/1")


async def test_pods_that_may_not_be_read_are_left_out(world: World) -> None:
    world.cluster.put(deployment(ready=0), replica_set(1))
    world.cluster.fails_on["list", "Pod"] = AccessDenied("may not list pods")

    result = await world.wait(deployment())

    assert result.message.endswith("available: 0/1")


# What moves, and what never will


def one_more_every_minute(world: World) -> dict[str, Any]:
    """A Deployment of eight replicas of which one more is ready after each minute."""

    def with_ready(ready: int) -> dict[str, Any]:
        found = deployment(ready)
        found["spec"]["replicas"] = 8
        found["status"] |= {"replicas": 8, "updatedReplicas": 8}
        return found

    world.cluster.put(with_ready(0))
    for minute in range(1, 9):
        now = with_ready(minute)
        world.cluster.after(60 * minute, lambda now=now: world.cluster.put(now))
    return with_ready(0)


async def test_what_moves_may_take_longer_than_the_timeout(world: World) -> None:
    moving = one_more_every_minute(world)
    found = await world.wait(
        moving, timeout=timedelta(minutes=2), hard_timeout=timedelta(minutes=20)
    )
    assert found.passed
    assert 480 <= world.seconds < 490


async def test_but_not_longer_than_the_hard_one(world: World) -> None:
    moving = one_more_every_minute(world)
    found = await world.wait(
        moving, timeout=timedelta(minutes=2), hard_timeout=timedelta(minutes=4)
    )
    assert not found.passed
    assert 240 <= world.seconds < 245


async def test_what_stands_still_fails_after_the_timeout(world: World) -> None:
    world.cluster.put(deployment(0))
    found = await world.wait(
        deployment(0), timeout=timedelta(minutes=2), hard_timeout=timedelta(hours=1)
    )
    assert not found.passed
    assert 120 <= world.seconds < 125


def with_broken_pod(world: World, **waiting: str) -> dict[str, Any]:
    live = deployment(0)
    owned = {"namespace": "shop", "labels": {"app": "web"}}
    replica_set = {
        "apiVersion": "apps/v1",
        "kind": "ReplicaSet",
        "metadata": {
            "name": "web-1",
            "uid": "uid-web-1",
            "ownerReferences": [{"uid": "uid-web"}],
            **owned,
        },
        "spec": {"selector": {"matchLabels": {"app": "web"}}},
    }
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": "web-1-a",
            "uid": "uid-a",
            "ownerReferences": [{"uid": "uid-web-1"}],
            **owned,
        },
        "status": {"containerStatuses": [{"name": "web", "state": {"waiting": waiting}}]},
    }
    world.cluster.put(live, replica_set, pod)
    return live


async def test_a_pod_that_can_never_be_ready_is_not_waited_for(world: World) -> None:
    live = with_broken_pod(world, reason="ErrImagePull", message="web:nope: not found")
    found = await world.wait(live)
    assert not found.passed
    assert "pod web-1-a: ErrImagePull: web:nope: not found" in found.message
    assert world.seconds < 15


async def test_one_that_may_yet_be_is(world: World) -> None:
    live = with_broken_pod(world, reason="ErrImagePull", message="i/o timeout")
    found = await world.wait(live, timeout=timedelta(minutes=1))
    assert not found.passed
    assert world.seconds >= 60


async def test_where_pods_cannot_be_read_they_are_not_asked_about(world: World) -> None:
    live = with_broken_pod(world, reason="ErrImagePull", message="web:nope: not found")
    world.cluster.fails_on["list", "ReplicaSet"] = AccessDenied("no")
    found = await world.wait(live, timeout=timedelta(minutes=1))
    assert not found.passed
    assert world.seconds >= 60
