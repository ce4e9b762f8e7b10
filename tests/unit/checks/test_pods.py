"""Which pods a workload has."""

from __future__ import annotations

from typing import Any

import pytest

from helmops.checks.pods import label_selector, pods_of
from tests.fakes.clock import FakeClock
from tests.fakes.objects import FakeObjects


@pytest.mark.parametrize(
    ("selector", "text"),
    [
        ({"matchLabels": {"app": "web", "tier": "front"}}, "app=web,tier=front"),
        (
            {
                "matchLabels": {"app": "web"},
                "matchExpressions": [
                    {"key": "a", "operator": "In", "values": ["1", "2"]},
                    {"key": "b", "operator": "NotIn", "values": ["3"]},
                    {"key": "c", "operator": "Exists"},
                    {"key": "d", "operator": "DoesNotExist"},
                ],
            },
            "app=web,a in (1,2),b notin (3),c,!d",
        ),
        ({"app": "old"}, "app=old"),
        ({"matchLabels": None}, ""),
        ({}, ""),
        (None, ""),
    ],
)
def test_a_selector_as_a_query(selector: Any, text: str) -> None:
    assert label_selector(selector) == text


def owned(kind: str, name: str, owner: str, revision: str = "") -> dict[str, Any]:
    """An object that `owner` owns and finds by the label `of`."""
    return {
        "apiVersion": "v1" if kind == "Pod" else "apps/v1",
        "kind": kind,
        "metadata": {
            "name": name,
            "namespace": "shop",
            "uid": name,
            "labels": {"of": owner},
            "annotations": {"deployment.kubernetes.io/revision": revision},
            "ownerReferences": [{"uid": owner}],
        },
        "spec": {"selector": {"matchLabels": {"of": name}}},
    }


@pytest.fixture
def cluster() -> FakeObjects:
    return FakeObjects(FakeClock())


async def names(cluster: FakeObjects, live: dict[str, Any]) -> list[str]:
    return [pod["metadata"]["name"] for pod in await pods_of(cluster, live)]


async def test_the_pods_of_a_deployment_are_those_that_it_rolls_out(cluster: FakeObjects) -> None:
    deployment = owned("Deployment", "web", "nobody")
    cluster.put(
        owned("ReplicaSet", "web-9", "web", "9"),
        owned("ReplicaSet", "web-10", "web", "10"),
        owned("Pod", "old", "web-9"),
        owned("Pod", "new", "web-10"),
    )

    assert await names(cluster, deployment) == ["new"]


async def test_a_deployment_without_replica_sets_has_none(cluster: FakeObjects) -> None:
    assert await names(cluster, owned("Deployment", "web", "nobody")) == []


async def test_pods_that_only_look_alike_are_left_out(cluster: FakeObjects) -> None:
    stranger = owned("Pod", "stranger", "db")
    stranger["metadata"]["ownerReferences"] = []
    cluster.put(owned("Pod", "db-0", "db"), stranger)

    assert await names(cluster, owned("StatefulSet", "db", "nobody")) == ["db-0"]


async def test_a_pod_is_its_own(cluster: FakeObjects) -> None:
    assert await names(cluster, owned("Pod", "alone", "nobody")) == ["alone"]


async def test_what_has_no_pods_costs_no_request(cluster: FakeObjects) -> None:
    assert await names(cluster, owned("ControllerRevision", "web", "nobody")) == []
    assert cluster.asked == []
