"""Jobs as checks."""

from __future__ import annotations

from typing import Any

import pytest

from helmops.checks.job_check import JobProbe
from helmops.checks.job_run import GRACE_SECONDS
from helmops.checks.runner import run_check
from helmops.errors import AccessDenied, ClusterError, ClusterUnreachable, DeclarationError
from helmops.model.declarations import PolicyCheck
from helmops.model.health import CheckResult
from helmops.model.releases import ReleaseId
from tests.fakes.clock import START, FakeClock
from tests.fakes.objects import FakeObjects

WEB = ReleaseId("shop", "web")
POD: dict[str, Any] = {"spec": {"containers": [{"name": "main", "image": "smoke:1"}]}}
OBJECTS = [{"kind": "ConfigMap", "metadata": {"name": "a"}}]


class World:
    """A cluster in which Jobs end as they are told to, one after the other."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.cluster = FakeObjects(self.clock)
        self.made: list[dict[str, Any]] = []
        self.lines: list[str] = []

    def jobs_end(self, *kinds: str, after: float = 2, said: str = "") -> None:
        ends = iter(kinds)

        def made(job: dict[str, Any]) -> None:
            name, kind = job["metadata"]["name"], next(ends, kinds[-1])
            self.made.append(job)
            done = job | {"status": {"conditions": [{"type": kind, "status": "True"}]}}
            self.cluster.after(after, lambda: self.cluster.put(done))
            metadata = {"name": f"{name}-a", "namespace": "shop", "labels": {"job-name": name}}
            containers = {"containers": [{"name": "main"}]}
            pod = {"kind": "Pod", "metadata": metadata, "spec": containers}
            self.cluster.put(pod)
            self.cluster.container_logs[f"{name}-a", "main"] = said

        self.cluster.on_create = made

    async def check(
        self, objects: list[dict[str, Any]] | None = None, **fields: Any
    ) -> CheckResult:
        declared = {"name": "smoke", "job": {"template": POD}, "timeout": "90s"} | fields
        check = PolicyCheck.model_validate(declared)
        probe = JobProbe(
            self.cluster, self.clock, check, WEB, objects or OBJECTS, self.lines.append
        )
        return await run_check(check, probe, self.clock, grace=2 * GRACE_SECONDS)

    @property
    def seconds(self) -> float:
        return (self.clock.now() - START).total_seconds()


@pytest.fixture
def world() -> World:
    return World()


async def test_a_job_that_completes_passes_and_is_deleted(world: World) -> None:
    world.jobs_end("Complete")

    result = await world.check()

    assert result == CheckResult("smoke", True, "Job helmops-check-1 completed")
    assert world.cluster.of_kind("Job") == []
    assert world.lines == ["check smoke: waiting for Job shop/helmops-check-1"]


async def test_a_job_that_fails_is_run_again_and_then_fails_with_what_it_said(
    world: World,
) -> None:
    world.jobs_end("Failed", said="GET /\n\n500 password: abc\n")

    result = await world.check(failureThreshold=2)

    assert not result.passed
    assert result.attempts == 2
    assert result.message == (
        "Job helmops-check-2 failed: Failed is True; it said: GET / | 500 password: *** "
        "(2 times in a row)"
    )
    assert world.cluster.of_kind("Job") == []


async def test_a_job_that_succeeds_the_second_time_passes(world: World) -> None:
    world.jobs_end("Failed", "Complete")

    assert (await world.check()).passed


async def test_a_job_that_does_not_end_fails_at_the_timeout_and_is_deleted(world: World) -> None:
    result = await world.check(timeout="30s")

    assert not result.passed
    assert "is not done within 30s" in result.message
    assert 30 <= world.seconds <= 36
    assert world.cluster.of_kind("Job") == []


async def test_a_job_has_the_time_that_is_left_to_the_check(world: World) -> None:
    world.jobs_end("Failed", "Complete", after=20)

    await world.check()

    first, second = (job["spec"]["activeDeadlineSeconds"] for job in world.made)
    assert first == 90
    assert 55 <= second <= 65


async def test_the_job_knows_what_it_is_for(world: World) -> None:
    world.jobs_end("Complete")

    await world.check()

    [job] = world.made
    [container] = job["spec"]["template"]["spec"]["containers"]
    assert {one["name"]: one["value"] for one in container["env"]} == {
        "HELMOPS_RELEASE": "web",
        "HELMOPS_NAMESPACE": "shop",
        "HELMOPS_CHECK": "smoke",
    }
    assert job["metadata"]["labels"]["helmops.dev/check"] == "smoke"


@pytest.mark.parametrize("is_same", [True, False])
async def test_a_job_that_a_dead_helmops_left_is_taken_up_for_the_same_revision_only(
    world: World, is_same: bool
) -> None:
    world.jobs_end("Complete")
    await world.check()
    left = world.made[0] | {"status": {}}
    world.cluster.put(left)
    done = left | {"status": {"conditions": [{"type": "Complete", "status": "True"}]}}
    world.cluster.after(1, lambda: world.cluster.put(done))

    await world.check(OBJECTS if is_same else [{"kind": "ConfigMap", "metadata": {"name": "b"}}])

    assert len(world.made) == (1 if is_same else 2)


@pytest.mark.parametrize("template", [{"image": "x"}, {"template": {}}])
async def test_what_is_no_job_is_no_verdict(world: World, template: dict[str, Any]) -> None:
    with pytest.raises(DeclarationError) as caught:
        await world.check(job={"template": template})

    assert caught.value.field == "spec.verify.checks.job.template"
    assert "no containers" in caught.value.what


async def test_a_job_that_the_server_refuses_is_no_verdict(world: World) -> None:
    world.cluster.fails_on["create", "Job"] = ClusterError("spec is wrong")

    with pytest.raises(DeclarationError, match="the Job cannot be created: spec is wrong"):
        await world.check()


@pytest.mark.parametrize("error", [AccessDenied("may not"), ClusterUnreachable("no answer")])
async def test_an_error_of_the_cluster_is_no_verdict(world: World, error: ClusterError) -> None:
    world.cluster.fails_on["create", "Job"] = error

    with pytest.raises(type(error)):
        await world.check()
