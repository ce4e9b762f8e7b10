"""Which check is run for what a policy declares."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest

from helmops.checks.release_checks import ReleaseChecks
from helmops.http import Http
from helmops.model.credentials import HttpCredentials
from helmops.model.declarations import PolicyCheck
from helmops.model.health import CheckResult
from helmops.model.releases import ReleaseId
from tests.fakes.clock import FakeClock
from tests.fakes.objects import FakeObjects
from tests.fakes.web_server import Answer, web_server

WEB = ReleaseId("shop", "web")
CONFIG = {
    "apiVersion": "v1",
    "kind": "ConfigMap",
    "metadata": {"name": "c", "namespace": "shop"},
    "data": {"a": "b"},
}


@pytest.fixture
def cluster() -> FakeObjects:
    return FakeObjects(FakeClock())


@pytest.fixture
async def checks(cluster: FakeObjects) -> AsyncIterator[ReleaseChecks]:
    async with Http(workers=1) as http:
        yield ReleaseChecks(cluster, http, cluster.clock)


async def run(checks: ReleaseChecks, **kind: Any) -> CheckResult:
    check = PolicyCheck.model_validate({"name": "mine"} | kind)
    return await checks.policy_check(check, WEB, (), HttpCredentials())


async def test_readiness(checks: ReleaseChecks, cluster: FakeObjects) -> None:
    cluster.put(CONFIG)

    assert (await checks.readiness(WEB, [CONFIG], (), timeout=timedelta(0))).passed


async def test_an_http_check(checks: ReleaseChecks) -> None:
    with web_server() as server:
        server.routes["/"] = Answer()

        assert (await run(checks, http={"url": f"{server.url}/"})).passed


async def test_a_cel_check(checks: ReleaseChecks, cluster: FakeObjects) -> None:
    cluster.put(CONFIG)
    named = {"apiVersion": "v1", "kind": "ConfigMap", "name": "c"}

    result = await run(checks, cel={"object": named, "expr": "object.data.a == 'b'"})

    assert result == CheckResult("mine", True, "ConfigMap/shop/c: `object.data.a == 'b'` is true")


async def test_a_prometheus_check(checks: ReleaseChecks) -> None:
    with web_server() as server:
        answer = b'{"data": {"resultType": "scalar", "result": [1.5, "1"]}}'
        server.routes["/api/v1/query"] = Answer(body=answer)

        result = await run(checks, prometheus={"address": server.url, "query": "1"})

    assert result == CheckResult("mine", True, "`1` gives 1: above 0")


async def test_a_job_check(checks: ReleaseChecks, cluster: FakeObjects) -> None:
    def complete(job: dict[str, Any]) -> None:
        job["status"] = {"conditions": [{"type": "Complete", "status": "True"}]}

    cluster.on_create = complete
    template = {"spec": {"containers": [{"name": "main", "image": "smoke:1"}]}}

    result = await run(checks, job={"template": template})

    assert result == CheckResult("mine", True, "Job helmops-check-1 completed")
