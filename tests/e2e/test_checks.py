"""Checks and hooks against a real API server, its controllers and simulated nodes."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import pytest

from helmops.checks.hooks import ReleaseHooks
from helmops.checks.release_checks import ReleaseChecks
from helmops.cluster.api import Api, Changed, Listed
from helmops.errors import ObjectNotFound
from helmops.health import assess
from helmops.http import Http
from helmops.model.credentials import HttpCredentials
from helmops.model.declarations import HealthCheckExpr, PolicyCheck, RemediationHook
from helmops.model.health import CheckResult, HealthStatus
from helmops.model.hooks import HookResult
from helmops.model.releases import ReleaseId
from helmops.reconcile.ports import Checks, Clock, Hooks
from helmops.service.clock import SystemClock

T = TypeVar("T")
MINUTE = timedelta(minutes=1)
NOBODY = HttpCredentials()


@pytest.fixture
async def api(kubeconfig: Path) -> AsyncIterator[Api]:
    async with await Api.connect(kubeconfig=str(kubeconfig)) as one:
        yield one


@pytest.fixture
async def http() -> AsyncIterator[Http]:
    async with Http(workers=2) as one:
        yield one


@pytest.fixture
def clock() -> Clock:
    return SystemClock()


@pytest.fixture
def checks(api: Api, http: Http, clock: Clock) -> Checks:
    return ReleaseChecks(api, http, clock)


@pytest.fixture
def hooks(api: Api, http: Http, clock: Clock) -> Hooks:
    return ReleaseHooks(api, http, clock)


@pytest.fixture
def release(namespace: str) -> ReleaseId:
    return ReleaseId(namespace, "web")


def pod_template(simulate: str, restart: str = "Always") -> dict[str, Any]:
    return {
        "metadata": {
            "labels": {"app": "web"},
            "annotations": {"helmops.dev/simulate": simulate},
        },
        "spec": {
            "restartPolicy": restart,
            "containers": [{"name": "main", "image": "example.com/web:1"}],
        },
    }


def workload(kind: str, simulate: str = "run", **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "apps/v1",
        "kind": kind,
        "metadata": {"name": "web"},
        "spec": {
            "selector": {"matchLabels": {"app": "web"}},
            "template": pod_template(simulate),
            **spec,
        },
    }


def job(simulate: str) -> dict[str, Any]:
    template = pod_template(simulate, restart="Never")
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": "migrate"},
        "spec": {"backoffLimit": 0, "template": template},
    }


def simple(api_version: str, kind: str, **more: Any) -> dict[str, Any]:
    return {"apiVersion": api_version, "kind": kind, "metadata": {"name": "web"}, **more}


SERVICE = simple(
    "v1", "Service", spec={"selector": {"app": "web"}, "ports": [{"name": "http", "port": 80}]}
)
EVERYTHING = [
    workload("Deployment", replicas=2),
    workload("StatefulSet", serviceName="web"),
    workload("DaemonSet"),
    workload("ReplicaSet"),
    job("complete"),
    SERVICE,
    simple("v1", "ConfigMap", data={"a": "b"}),
    simple("v1", "Secret", stringData={"a": "b"}),
    simple("v1", "ServiceAccount"),
    simple("rbac.authorization.k8s.io/v1", "Role", rules=[]),
    simple(
        "networking.k8s.io/v1",
        "Ingress",
        spec={"defaultBackend": {"service": {"name": "web", "port": {"number": 80}}}},
    ),
    simple("policy/v1", "PodDisruptionBudget", spec={"minAvailable": 1}),
    simple(
        "autoscaling/v2",
        "HorizontalPodAutoscaler",
        spec={
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"},
            "maxReplicas": 3,
            "minReplicas": 2,
        },
    ),
    simple(
        "batch/v1",
        "CronJob",
        spec={
            "schedule": "0 0 1 1 *",
            "jobTemplate": {"spec": {"template": pod_template("complete", "Never")}},
        },
    ),
]


async def create(api: Api, release: ReleaseId, *manifests: dict[str, Any]) -> None:
    for manifest in manifests:
        placed = copy.deepcopy(manifest)
        placed["metadata"]["namespace"] = release.namespace
        await api.create(placed)


async def readiness(
    checks: Checks, release: ReleaseId, *objects: dict[str, Any], **more: Any
) -> CheckResult:
    arguments: dict[str, Any] = {"expressions": (), "timeout": MINUTE} | more
    return await checks.readiness(release, objects, **arguments)


async def test_everything_that_a_chart_may_have_becomes_ready(
    api: Api, checks: Checks, release: ReleaseId
) -> None:
    lines: list[str] = []
    await create(api, release, *EVERYTHING)

    result = await readiness(checks, release, *EVERYTHING, progress=lines.append)

    assert result.passed, result.message
    assert result.message == f"{len(EVERYTHING)} objects are ready"


@pytest.mark.parametrize("kind", ["Deployment", "StatefulSet", "DaemonSet", "ReplicaSet"])
@pytest.mark.parametrize(
    ("simulate", "told"),
    [("image-pull", "ImagePullBackOff"), ("crash", "CrashLoopBackOff")],
)
async def test_the_trouble_of_pods_is_told(
    api: Api, checks: Checks, release: ReleaseId, kind: str, simulate: str, told: str
) -> None:
    broken = workload(kind, simulate)
    await create(api, release, broken)
    await until_told(api, release, told)

    result = await readiness(checks, release, broken, timeout=timedelta(0))

    assert not result.passed
    assert f"{kind}/{release.namespace}/web" in result.message
    assert "(pod web-" in result.message
    assert told in result.message


async def until(ask: Callable[[], Awaitable[T]]) -> T:
    """Ask until the answer is true."""
    async with asyncio.timeout(60):
        while True:
            if answer := await ask():
                return answer
            await asyncio.sleep(0.1)


async def until_told(api: Api, release: ReleaseId, reason: str) -> None:
    """The pods of the namespace say it."""

    async def is_told() -> bool:
        pods = await api.list("v1", "Pod", release.namespace)
        return any(reason in str(pod.get("status")) for pod in pods.items)

    await until(is_told)


async def test_a_pod_that_fits_nowhere_is_told(
    api: Api, checks: Checks, release: ReleaseId
) -> None:
    homeless = workload("Deployment")
    homeless["spec"]["template"]["spec"]["nodeSelector"] = {"planet": "mars"}
    await create(api, release, homeless)
    await until_told(api, release, "Unschedulable")

    result = await readiness(checks, release, homeless, timeout=timedelta(0))

    assert "Unschedulable: 0/" in result.message


async def test_a_deployment_past_its_deadline_fails_before_the_timeout(
    api: Api, checks: Checks, release: ReleaseId
) -> None:
    stuck = workload("Deployment", "never-ready", progressDeadlineSeconds=1)
    await create(api, release, stuck)

    result = await readiness(checks, release, stuck, timeout=timedelta(minutes=5))

    assert not result.passed
    assert "progress deadline exceeded" in result.message


async def test_a_deployment_that_goes_back_is_ready_again(
    api: Api, checks: Checks, release: ReleaseId
) -> None:
    """The failure of the revision before must not be taken for its own."""
    good = workload("Deployment", progressDeadlineSeconds=1)
    await create(api, release, good)
    assert (await readiness(checks, release, good)).passed
    bad = {"template": pod_template("never-ready")}
    await patch(api, release, bad)
    assert not (await readiness(checks, release, good)).passed

    await patch(api, release, {"template": pod_template("run")})
    result = await readiness(checks, release, good)

    assert result.passed, result.message


async def test_a_deployment_that_goes_back_shows_the_old_failure_for_a_moment(
    api: Api, checks: Checks, release: ReleaseId
) -> None:
    """Why a failure must stay for a second before it counts."""
    good = workload("Deployment", progressDeadlineSeconds=1)
    await create(api, release, good)
    assert (await readiness(checks, release, good)).passed
    await patch(api, release, {"template": pod_template("never-ready")})
    assert not (await readiness(checks, release, good)).passed

    seen: list[HealthStatus] = []
    async with asyncio.timeout(60), aclosing(watch_deployments(api, release)) as changes:
        async for live in changes:
            if live is None:
                await patch(api, release, {"template": pod_template("run")})
            else:
                seen.append(assess(live).status)
            if seen and seen[-1] is HealthStatus.CURRENT:
                break

    assert HealthStatus.FAILED in seen


async def watch_deployments(
    api: Api, release: ReleaseId
) -> AsyncGenerator[dict[str, Any] | None, None]:
    """Every change; None first, when the watch has begun."""
    events = api.watch("apps/v1", "Deployment", release.namespace)
    assert isinstance(events, AsyncGenerator)
    async with aclosing(events):
        async for event in events:
            if isinstance(event, Listed):
                yield None
            elif isinstance(event, Changed):
                yield event.object


async def patch(api: Api, release: ReleaseId, spec: dict[str, Any]) -> None:
    await api.patch("apps/v1", "Deployment", "web", release.namespace, {"spec": spec})


async def test_a_failed_job_is_a_failure(api: Api, checks: Checks, release: ReleaseId) -> None:
    failing = job("fail")
    await create(api, release, failing)

    async def has_failed() -> bool:
        live = await api.get("batch/v1", "Job", "migrate", release.namespace)
        return assess(live or {}).status is HealthStatus.FAILED

    await until(has_failed)

    result = await readiness(checks, release, failing)

    assert not result.passed
    assert "BackoffLimitExceeded" in result.message


async def test_an_object_that_somebody_deleted_is_missed(
    checks: Checks, release: ReleaseId
) -> None:
    gone = simple("v1", "ConfigMap")

    result = await readiness(checks, release, gone, timeout=timedelta(0))

    assert result.message.endswith("web: does not exist")


async def test_a_kind_without_a_definition_is_missed(checks: Checks, release: ReleaseId) -> None:
    unknown = simple("nobody.example.com/v1", "Widget")

    result = await readiness(checks, release, unknown, timeout=timedelta(0))

    assert not result.passed
    assert "no kind Widget" in result.message


@pytest.fixture
async def widget(api: Api, namespace: str) -> AsyncIterator[dict[str, Any]]:
    """An object of a kind that this test brings."""
    plural, group = "widgets", f"{namespace}.example.com"
    definition = {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{group}"},
        "spec": {
            "group": group,
            "names": {"kind": "Widget", "plural": plural},
            "scope": "Namespaced",
            "versions": [
                {
                    "name": "v1",
                    "served": True,
                    "storage": True,
                    "schema": {
                        "openAPIV3Schema": {
                            "type": "object",
                            "x-kubernetes-preserve-unknown-fields": True,
                        }
                    },
                }
            ],
        },
    }
    await api.create(definition)
    kind, name = definition["kind"], f"{plural}.{group}"

    async def is_served() -> bool:
        live = await api.get("apiextensions.k8s.io/v1", str(kind), name)
        return assess(live or {}).status is HealthStatus.CURRENT and bool(live)

    await until(is_served)
    yield simple(f"{group}/v1", "Widget")
    await api.delete("apiextensions.k8s.io/v1", str(kind), name)


async def test_an_object_of_a_custom_kind_is_judged_by_expressions(
    api: Api, checks: Checks, release: ReleaseId, widget: dict[str, Any]
) -> None:
    rule = HealthCheckExpr.model_validate(
        {
            "apiVersion": widget["apiVersion"],
            "kind": "Widget",
            "failed": "has(status.phase) && status.phase == 'Broken'",
            "current": "status.phase == 'Up'",
        }
    )
    await create_soon(api, release, widget)
    where = (widget["apiVersion"], "Widget", "web", release.namespace)

    async def look() -> CheckResult:
        return await readiness(
            checks, release, widget, expressions=[rule], timeout=timedelta(seconds=3)
        )

    assert "there is no `status`" in (await look()).message
    await api.patch(*where, {"status": {"phase": "Broken"}})
    assert "failed: has(status.phase)" in (await look()).message
    await api.patch(*where, {"status": {"phase": "Up"}})
    assert (await look()).passed


async def create_soon(api: Api, release: ReleaseId, manifest: dict[str, Any]) -> None:
    """A definition that is established is served a moment later."""

    async def is_created() -> bool:
        try:
            await create(api, release, manifest)
        except ObjectNotFound:
            return False
        return True

    await until(is_created)


async def test_a_cel_check_looks_at_a_live_object(
    api: Api, checks: Checks, release: ReleaseId
) -> None:
    await create(api, release, workload("Deployment", replicas=2))
    check = PolicyCheck.model_validate(
        {
            "name": "two",
            "cel": {
                "object": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"},
                "expr": "object.status.readyReplicas >= 2",
            },
            "interval": "300ms",
            "failureThreshold": 1000,
        }
    )

    result = await checks.policy_check(check, release, (), NOBODY)

    assert result.passed, result.message


@pytest.mark.parametrize(("simulate", "passed"), [("complete", True), ("fail", False)])
async def test_a_job_check_runs_its_job_and_deletes_it(
    api: Api, checks: Checks, release: ReleaseId, simulate: str, passed: bool
) -> None:
    template = {"template": pod_template(simulate, "Never")}
    check = PolicyCheck.model_validate(
        {"name": "smoke", "job": {"template": template}, "failureThreshold": 1}
    )

    result = await checks.policy_check(check, release, (), NOBODY)

    assert result.passed is passed, result.message
    assert await jobs(api, release) == []


async def test_a_job_check_that_hangs_is_stopped_at_its_timeout(
    api: Api, checks: Checks, release: ReleaseId
) -> None:
    template = {"template": pod_template("hang", "Never")}
    check = PolicyCheck.model_validate(
        {"name": "smoke", "job": {"template": template}, "timeout": "2s"}
    )

    result = await checks.policy_check(check, release, (), NOBODY)

    assert not result.passed
    assert "2s" in result.message
    assert await jobs(api, release) == []


# Hooks


def hook(simulate: str, timeout: str = "1m") -> RemediationHook:
    template = {"template": pod_template(simulate, "Never")}
    return RemediationHook.model_validate(
        {
            "name": "backup",
            "at": "beforeRollback",
            "job": {"template": template},
            "timeout": timeout,
        }
    )


async def run(hooks: Hooks, release: ReleaseId, declared: RemediationHook) -> HookResult:
    return await hooks.run(declared, release, {"revision": "3"}, NOBODY)


async def jobs(api: Api, release: ReleaseId) -> list[dict[str, Any]]:
    listing = await api.list("batch/v1", "Job", release.namespace)
    return [one for one in listing.items if not one["metadata"].get("deletionTimestamp")]


async def test_a_job_hook_completes_and_is_tidied_up(
    api: Api, hooks: Hooks, release: ReleaseId
) -> None:
    result = await run(hooks, release, hook("complete"))

    assert result.succeeded, result.message
    assert await jobs(api, release) == []


async def test_a_job_hook_that_fails_is_kept(api: Api, hooks: Hooks, release: ReleaseId) -> None:
    result = await run(hooks, release, hook("fail"))

    assert not result.succeeded
    assert "BackoffLimitExceeded" in result.message
    [kept] = await jobs(api, release)
    assert kept["metadata"]["annotations"]["helmops.dev/owner"] == str(release)


async def test_a_job_hook_is_stopped_at_its_timeout(
    api: Api, hooks: Hooks, release: ReleaseId
) -> None:
    result = await run(hooks, release, hook("hang", timeout="2s"))

    assert not result.succeeded
    assert "2s" in result.message

    async def has_stopped() -> bool:
        [stopped] = await jobs(api, release)
        return not stopped["status"].get("active")

    await until(has_stopped)


async def test_a_job_hook_that_was_left_running_is_taken_up(
    api: Api, hooks: Hooks, release: ReleaseId
) -> None:
    left = asyncio.create_task(run(hooks, release, hook("hang")))
    await until(lambda: jobs(api, release))
    left.cancel()
    await asyncio.gather(left, return_exceptions=True)

    again = asyncio.create_task(run(hooks, release, hook("hang")))
    await finish_pods(api, release)
    result = await again

    assert result.succeeded, result.message


async def finish_pods(api: Api, release: ReleaseId) -> None:
    """What hangs completes now."""

    async def pods() -> tuple[dict[str, Any], ...]:
        return (await api.list("v1", "Pod", release.namespace)).items

    complete = {"metadata": {"annotations": {"helmops.dev/simulate": "complete"}}}
    for pod in await until(pods):
        await api.patch("v1", "Pod", pod["metadata"]["name"], release.namespace, complete)


async def test_a_job_that_the_api_server_refuses_is_a_failed_hook(
    hooks: Hooks, release: ReleaseId
) -> None:
    bad = {"spec": {"containers": [{"name": "Not A Name", "image": "x"}]}}
    declared = RemediationHook.model_validate(
        {"name": "backup", "at": "failed", "job": {"template": bad}}
    )

    result = await run(hooks, release, declared)

    assert not result.succeeded
    assert "cannot be created" in result.message
