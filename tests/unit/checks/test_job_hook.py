"""Jobs as remediation hooks."""

from __future__ import annotations

import asyncio
import copy
from typing import Any

import pytest

from helmops.checks.job_hook import JobHook, hook_order
from helmops.checks.job_run import job_manifest
from helmops.errors import AccessDenied, ClusterError, ClusterUnreachable, ObjectNotFound
from helmops.model.credentials import HttpCredentials
from helmops.model.declarations import RemediationHook
from helmops.model.hooks import HookResult
from helmops.model.releases import ReleaseId
from tests.fakes.clock import START, FakeClock
from tests.fakes.objects import FakeObjects

WEB = ReleaseId("shop", "web")
FACTS = {"release": "web", "namespace": "shop", "revision": "7", "reason": "cost $(A)"}
POD: dict[str, Any] = {"spec": {"containers": [{"name": "main", "image": "backup:1"}]}}


def hook(template: dict[str, Any] | None = None, **fields: Any) -> RemediationHook:
    return RemediationHook.model_validate(
        {
            "name": "backup",
            "at": "beforeRollback",
            "job": {"template": template or {"template": POD}},
            "timeout": "90s",
        }
        | fields
    )


class World:
    """A cluster in which a Job ends as it is told to, some time after it was made."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.cluster = FakeObjects(self.clock)
        self.lines: list[str] = []

    def jobs_end(self, kind: str, after: float = 3, **condition: str) -> None:
        def made(job: dict[str, Any]) -> None:
            name = job["metadata"]["name"]
            done = job | {"status": {"conditions": [{"type": kind, "status": "True"} | condition]}}
            self.cluster.after(after, lambda: self.cluster.put(done))
            self.cluster.put(pod(name, f"{name}-a"))

        self.cluster.on_create = made

    async def run(
        self, declared: RemediationHook | None = None, credentials: HttpCredentials | None = None
    ) -> HookResult:
        job = JobHook(
            self.cluster,
            self.clock,
            declared or hook(),
            WEB,
            FACTS,
            credentials or HttpCredentials(),
        )
        return await job.run(self.lines.append)

    @property
    def seconds(self) -> float:
        return (self.clock.now() - START).total_seconds()


def pod(job: str, name: str, **status: Any) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "namespace": "shop",
            "labels": {"job-name": job},
            "ownerReferences": [{"uid": f"uid-{job}"}],
        },
        "spec": {"containers": [{"name": "main"}, {"name": "side"}]},
        "status": status,
    }


@pytest.fixture
def world() -> World:
    return World()


async def test_a_job_that_completes_is_a_success_and_is_deleted(world: World) -> None:
    world.jobs_end("Complete")
    world.cluster.container_logs["helmops-hook-1-a", "main"] = "saved\n"
    world.cluster.container_logs["helmops-hook-1-a", "side"] = "bye\n"

    result = await world.run()

    assert result == HookResult("backup", True, "Job helmops-hook-1 completed", "saved\nbye")
    assert world.cluster.of_kind("Job") == []
    assert 3 <= world.seconds <= 5
    assert world.lines == ["hook backup: waiting for Job shop/helmops-hook-1"]


async def test_a_job_that_fails_stays_for_a_person(world: World) -> None:
    world.jobs_end("Failed", reason="BackoffLimitExceeded", message="it gave up")

    result = await world.run()

    assert not result.succeeded
    assert result.message == "Job helmops-hook-1 failed: BackoffLimitExceeded: it gave up"
    assert len(world.cluster.of_kind("Job")) == 1


async def test_a_failure_tells_of_its_pod(world: World) -> None:
    declared = hook({"template": POD, "selector": {"matchLabels": {"job-name": "helmops-hook-1"}}})
    world.jobs_end("Failed", reason="BackoffLimitExceeded")
    ended = {"terminated": {"exitCode": 4, "reason": "Error"}}
    world.cluster.after(
        1,
        lambda: world.cluster.put(
            pod(
                "helmops-hook-1",
                "helmops-hook-1-a",
                phase="Failed",
                containerStatuses=[{"name": "main", "state": ended}],
            )
        ),
    )

    result = await world.run(declared)

    assert result.message.endswith(
        "(pod helmops-hook-1-a: container main ended with exit code 4 (Error))"
    )


async def test_the_clusters_own_deadline_is_told_as_the_hooks(world: World) -> None:
    world.jobs_end("Failed", after=90, reason="DeadlineExceeded", message="Job was active too long")

    result = await world.run()

    assert result.message == "Job helmops-hook-1 was stopped after 1m30s"


async def test_a_job_that_does_not_end_is_waited_for_until_the_timeout(world: World) -> None:
    result = await world.run()

    assert result == HookResult("backup", False, "Job helmops-hook-1 is not done within 1m30s")
    assert 90 <= world.seconds <= 96
    assert max(world.clock.slept) == 2.0


async def test_a_job_that_somebody_deletes_is_a_failure(world: World) -> None:
    world.cluster.on_create = lambda job: world.cluster.after(5, lambda: world.cluster.drop(job))

    result = await world.run()

    assert result == HookResult("backup", False, "Job helmops-hook-1 was deleted while it ran")


async def test_logs_that_cannot_be_had_are_left_out(world: World) -> None:
    world.jobs_end("Complete")

    assert await world.run() == HookResult("backup", True, "Job helmops-hook-1 completed")


async def test_pods_that_may_not_be_listed_are_left_out(world: World) -> None:
    world.jobs_end("Complete")
    world.cluster.fails_on["list", "Pod"] = AccessDenied("may not list pods")

    assert (await world.run()).succeeded


async def test_a_job_that_cannot_be_deleted_is_left_to_its_time_to_live(world: World) -> None:
    world.jobs_end("Complete")
    world.cluster.fails_on["delete", "Job"] = AccessDenied("may not delete jobs")

    assert (await world.run()).succeeded


async def test_of_a_long_log_the_end_is_kept(world: World) -> None:
    world.jobs_end("Complete")
    log = "".join(f"line {number}\n" for number in range(1000))
    world.cluster.container_logs["helmops-hook-1-a", "main"] = log

    output = (await world.run()).output

    assert output.endswith("line 999")
    assert output.count("\n") <= 100


async def test_of_a_wide_log_the_last_bytes_are_kept(world: World) -> None:
    world.jobs_end("Complete")
    world.cluster.container_logs["helmops-hook-1-a", "main"] = "x" * 60_000 + "\nend\n"

    output = (await world.run()).output

    assert output.endswith("end")
    assert len(output) < 17_000


async def test_secrets_in_logs_are_not_kept(world: World) -> None:
    world.jobs_end("Complete")
    world.cluster.container_logs["helmops-hook-1-a", "main"] = "hunter22\npassword: abc\n"

    result = await world.run(credentials=HttpCredentials(password="hunter22"))

    assert result.output == "***\npassword: ***"


async def test_a_run_that_a_dead_helmops_left_is_taken_up(world: World) -> None:
    made = asyncio.Event()
    world.cluster.on_create = lambda job: made.set()
    task = asyncio.create_task(world.run())
    await made.wait()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    [left] = world.cluster.of_kind("Job")
    done = copy.deepcopy(left) | {
        "status": {"conditions": [{"type": "Complete", "status": "True"}]}
    }
    world.cluster.after(3, lambda: world.cluster.put(done))

    result = await world.run()

    assert result.succeeded
    assert world.cluster.asked.count("create Job/shop/") == 1


async def test_a_run_that_is_over_is_not_taken_up(world: World) -> None:
    world.jobs_end("Failed")

    await world.run()
    await world.run()

    assert world.cluster.asked.count("create Job/shop/") == 2


@pytest.mark.parametrize("change", ["context", "hook"])
async def test_another_run_is_not_taken_up(world: World, change: str) -> None:
    await world.run()
    other = hook(timeout="1s") if change == "hook" else hook()
    facts = FACTS | {"revision": "8"} if change == "context" else FACTS

    await JobHook(world.cluster, world.clock, other, WEB, facts, HttpCredentials()).run()

    assert world.cluster.asked.count("create Job/shop/") == 2


@pytest.mark.parametrize(
    "error",
    [ClusterError("cannot create: spec is wrong"), ObjectNotFound('namespaces "shop" not found')],
)
async def test_a_job_that_the_server_refuses_is_a_failed_hook(
    world: World, error: ClusterError
) -> None:
    world.cluster.fails_on["create", "Job"] = error

    result = await world.run()

    assert result == HookResult("backup", False, f"the Job cannot be created: {error.what}")


@pytest.mark.parametrize("verb", ["create", "list", "get"])
@pytest.mark.parametrize("error", [AccessDenied("may not"), ClusterUnreachable("no answer")])
async def test_an_error_of_the_cluster_is_no_result(
    world: World, verb: str, error: ClusterError
) -> None:
    world.cluster.fails_on[verb, "Job"] = error

    with pytest.raises(type(error)):
        await world.run()


@pytest.mark.parametrize("template", [{"image": "x"}, {"template": {}}, {"spec": {"a": 1}}])
async def test_a_template_without_containers_is_a_failed_hook(
    world: World, template: dict[str, Any]
) -> None:
    result = await world.run(hook(template))

    assert not result.succeeded
    assert "no containers" in result.message
    assert world.cluster.of_kind("Job") == []


# The manifest


def test_a_hook_is_ordered_as_declared() -> None:
    declared = hook(name="Back up, then page! " + "x" * 80)

    made = job_manifest(hook_order(declared, WEB, FACTS))

    assert made is not None
    metadata = made["metadata"]
    assert metadata["generateName"] == "helmops-hook-"
    assert metadata["annotations"]["helmops.dev/at"] == "beforeRollback"
    assert metadata["annotations"]["helmops.dev/hook"] == declared.name
    assert metadata["labels"]["helmops.dev/hook"].startswith("Back-up--then-page--xxx")
    assert made["spec"]["activeDeadlineSeconds"] == 90
