"""The kinds that have nothing to wait for, and objects of any shape."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helmops.health import assess
from helmops.health.assess import _RULES
from helmops.model.health import Health, HealthStatus


@pytest.mark.parametrize(
    ("api_version", "kind", "more"),
    [
        pytest.param("v1", "ConfigMap", {"data": {}}, id="ConfigMap"),
        pytest.param("v1", "Secret", {"data": {}}, id="Secret"),
        pytest.param("v1", "ServiceAccount", {}, id="ServiceAccount"),
        pytest.param("v1", "Namespace", {"status": {"phase": "Active"}}, id="Namespace"),
        pytest.param(
            "v1", "ReplicationController", {"status": {"replicas": 0}}, id="ReplicationController"
        ),
        pytest.param("batch/v1", "CronJob", {"status": {}}, id="CronJob that never ran"),
        pytest.param("batch/v1", "CronJob", {"status": {"active": [{}]}}, id="CronJob that runs"),
        pytest.param(
            "policy/v1",
            "PodDisruptionBudget",
            {"status": {"disruptionsAllowed": 0}},
            id="PodDisruptionBudget that allows none",
        ),
        pytest.param(
            "networking.k8s.io/v1",
            "Ingress",
            {"status": {"loadBalancer": {}}},
            id="Ingress without an address",
        ),
        pytest.param(
            "autoscaling/v2",
            "HorizontalPodAutoscaler",
            {"status": {"conditions": [{"type": "ScalingActive", "status": "False"}]}},
            id="HorizontalPodAutoscaler without metrics",
        ),
        pytest.param("rbac.authorization.k8s.io/v1", "Role", {"rules": []}, id="Role"),
    ],
)
def test_it_is_current_once_it_exists(api_version: str, kind: str, more: dict[str, Any]) -> None:
    object_ = {"apiVersion": api_version, "kind": kind, "metadata": {"name": "x"}, **more}

    assert assess(object_) == Health(HealthStatus.CURRENT, "exists")


def test_a_budget_that_its_controller_has_not_seen_is_in_progress() -> None:
    object_ = {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": {"name": "x", "generation": 2},
        "status": {"observedGeneration": 1},
    }

    assert assess(object_).status is HealthStatus.IN_PROGRESS


def test_a_secret_is_not_judged_by_what_it_holds() -> None:
    object_ = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "x"},
        "status": {"conditions": [{"type": "Ready", "status": "False"}]},
    }

    assert assess(object_).status is HealthStatus.CURRENT


@pytest.mark.parametrize("kind", ["Deployment", "Pod", "Job", "Service"])
def test_a_kind_of_the_same_name_in_another_group_has_no_rules(kind: str) -> None:
    object_ = {"apiVersion": "example.com/v1", "kind": kind, "metadata": {"name": "x"}}

    assert assess(object_) == Health(HealthStatus.CURRENT, "exists")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 3) | st.sampled_from(["", "True", "Running", "x"]),
    lambda children: (
        st.lists(children, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "conditions",
                    "type",
                    "status",
                    "replicas",
                    "phase",
                    "containerStatuses",
                    "state",
                    "waiting",
                    "terminated",
                    "updateStrategy",
                    "rollingUpdate",
                    "partition",
                    "observedGeneration",
                    "generation",
                    "reason",
                    "name",
                    "deletionTimestamp",
                    "creationTimestamp",
                    "lastState",
                    "initContainerStatuses",
                ]
            ),
            children,
            max_size=5,
        )
    ),
    max_leaves=12,
)


@given(
    kind=st.sampled_from([("v1", "Pod"), *((f"{group}/v1", kind) for group, kind in _RULES)]),
    metadata=JSON,
    spec=JSON,
    status=JSON,
)
def test_no_shape_of_an_object_breaks_it(
    kind: tuple[str, str], metadata: object, spec: object, status: object
) -> None:
    api_version, name = kind

    health = assess(
        {
            "apiVersion": api_version.removeprefix("/"),
            "kind": name,
            "metadata": metadata,
            "spec": spec,
            "status": status,
        }
    )

    assert isinstance(health, Health)
    assert health.message
