"""The CEL check on a live object."""

from __future__ import annotations

from typing import Any

import pytest

from helmops.checks.cel import CelProbe
from helmops.checks.runner import Outcome
from helmops.errors import AccessDenied
from helmops.model.declarations import CelCheck
from helmops.model.releases import ReleaseId
from tests.fakes.clock import FakeClock
from tests.fakes.objects import FakeObjects

WEB = ReleaseId("shop", "web")
READY = "object.status.readyReplicas >= 2"


def check(expr: str = READY, **where: str) -> CelCheck:
    named = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}
    return CelCheck.model_validate({"object": named | where, "expr": expr})


def deployment(namespace: str = "shop", **status: Any) -> dict[str, Any]:
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "web", "namespace": namespace},
        "status": status,
    }


@pytest.fixture
def cluster() -> FakeObjects:
    return FakeObjects(FakeClock())


@pytest.mark.parametrize(
    ("status", "outcome"),
    [
        (
            {"readyReplicas": 2},
            Outcome(True, f"Deployment/shop/web: `{READY}` is true"),
        ),
        (
            {"readyReplicas": 1},
            Outcome(False, f"Deployment/shop/web: `{READY}` is false"),
        ),
        (
            {},
            Outcome(False, f"Deployment/shop/web: `{READY}`: there is no field `readyReplicas`"),
        ),
    ],
)
async def test_an_expression_decides(
    cluster: FakeObjects, status: dict[str, Any], outcome: Outcome
) -> None:
    cluster.put(deployment(**status))

    assert await CelProbe(cluster, check(), WEB)() == outcome


async def test_an_object_that_is_not_there_is_a_failure(cluster: FakeObjects) -> None:
    assert await CelProbe(cluster, check(), WEB)() == Outcome(
        False, "Deployment/shop/web does not exist"
    )


async def test_a_kind_that_the_cluster_does_not_know_is_a_failure(cluster: FakeObjects) -> None:
    outcome = await CelProbe(cluster, check(apiVersion="x.io/v1", kind="W"), WEB)()

    assert outcome == Outcome(False, "the API server has no kind W in x.io/v1")


async def test_an_object_of_another_namespace_can_be_named(cluster: FakeObjects) -> None:
    cluster.put(deployment("elsewhere", readyReplicas=2))

    assert (await CelProbe(cluster, check(namespace="elsewhere"), WEB)()).passed


async def test_an_answer_that_is_neither_true_nor_false_is_a_failure(cluster: FakeObjects) -> None:
    cluster.put(deployment())

    outcome = await CelProbe(cluster, check("object.kind"), WEB)()

    assert not outcome.passed
    assert "gives a string" in outcome.message


async def test_an_error_of_the_cluster_is_no_verdict(cluster: FakeObjects) -> None:
    cluster.fails_with = AccessDenied("may not")

    with pytest.raises(AccessDenied):
        await CelProbe(cluster, check(), WEB)()
