from __future__ import annotations

from typing import Any

import pytest

from helmops.health import assess
from helmops.health.pod import pod_trouble
from helmops.health.slimmed import slimmed

MANAGED = [{"manager": "kubelet", "fieldsV1": {"f:status": {}}}]


def pod(**status: Any) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": "web-1-a",
            "namespace": "apps",
            "uid": "u1",
            "managedFields": MANAGED,
            "labels": {"pod-template-hash": "1", "team": "blue"},
            "annotations": {"checksum": "abc"},
            "ownerReferences": [
                {"kind": "Node", "name": "not-me"},
                {"kind": "ReplicaSet", "name": "web-1", "controller": True, "uid": "r1"},
            ],
        },
        "spec": {"containers": [{"name": "web", "env": [{"name": "PASSWORD", "value": "s3cret"}]}]},
        "status": {
            "phase": "Running",
            "conditions": [
                {"type": "Ready", "status": "False", "lastProbeTime": "t", "reason": "Unready"}
            ],
            "containerStatuses": [
                {
                    "name": "web",
                    "ready": False,
                    "restartCount": 3,
                    "imageID": "sha256:0",
                    "state": {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off"}},
                    "lastState": {
                        "terminated": {
                            "exitCode": 1,
                            "reason": "Error",
                            "message": "s3cret",
                            "finishedAt": "t",
                        }
                    },
                }
            ],
            **status,
        },
    }


def workload(kind: str, **status: Any) -> dict[str, Any]:
    return {
        "apiVersion": "apps/v1",
        "kind": kind,
        "metadata": {
            "name": "web",
            "namespace": "apps",
            "generation": 3,
            "managedFields": MANAGED,
            "annotations": {
                "meta.helm.sh/release-name": "web",
                "kubectl.kubernetes.io/last-applied-configuration": "{}",
            },
        },
        "spec": {"replicas": 2, "template": {"spec": {"containers": []}}},
        "status": {
            "observedGeneration": 3,
            "conditions": [
                {"type": "Available", "status": "True", "lastUpdateTime": "t"},
                {
                    "type": "Progressing",
                    "status": "True",
                    "reason": "NewReplicaSetAvailable",
                    "message": "done",
                },
            ],
            **status,
        },
    }


@pytest.mark.parametrize(
    "object_",
    [
        pytest.param(pod(), id="a pod in a crash loop"),
        pytest.param(pod(phase="Pending", containerStatuses=[]), id="a pending pod"),
        pytest.param(pod(phase="Failed", reason="Evicted", message="no memory"), id="evicted"),
        pytest.param(
            workload(
                "Deployment", replicas=2, updatedReplicas=2, readyReplicas=2, availableReplicas=2
            ),
            id="ready",
        ),
        pytest.param(
            workload(
                "Deployment", replicas=2, updatedReplicas=2, readyReplicas=1, availableReplicas=1
            ),
            id="not ready",
        ),
        pytest.param(workload("StatefulSet", replicas=2, readyReplicas=2), id="a stateful set"),
        pytest.param(
            workload("DaemonSet", desiredNumberScheduled=2, numberReady=1), id="a daemon set"
        ),
        pytest.param(workload("ReplicaSet", readyReplicas=2, replicas=2), id="a replica set"),
        pytest.param(
            {
                "apiVersion": "batch/v1",
                "kind": "Job",
                "metadata": {"name": "j"},
                "spec": {"completions": 3},
                "status": {
                    "conditions": [{"type": "Failed", "status": "True", "reason": "Deadline"}]
                },
            },
            id="a job",
        ),
        pytest.param(
            {
                "apiVersion": "v1",
                "kind": "PersistentVolumeClaim",
                "metadata": {"name": "c"},
                "status": {"phase": "Bound"},
            },
            id="a claim",
        ),
    ],
)
def test_a_slimmed_object_is_as_healthy_as_it_was(object_: dict[str, Any]) -> None:
    slim = slimmed(object_)
    assert slim is not None
    assert assess(slim) == assess(object_)
    if object_["kind"] == "Pod":
        assert pod_trouble(slim) == pod_trouble(object_)


def test_what_nobody_looks_at_is_left_out() -> None:
    slim = str(slimmed(pod())) + str(slimmed(workload("Deployment")))
    for gone in ("managedFields", "s3cret", "lastProbeTime", "lastUpdateTime", "imageID", "team"):
        assert gone not in slim
    assert "last-applied" not in slim


def test_only_the_controller_of_its_owners_is_kept() -> None:
    slim = slimmed(pod())
    assert slim is not None
    assert [owner["name"] for owner in slim["metadata"]["ownerReferences"]] == ["web-1"]


def test_a_heartbeat_changes_nothing() -> None:
    later = pod()
    later["metadata"]["resourceVersion"] = "99"
    later["status"]["conditions"][0]["lastProbeTime"] = "later"
    assert slimmed(later) == slimmed(pod())


def test_kinds_without_rules_keep_everything_but_managed_fields() -> None:
    gadget = {
        "apiVersion": "example.test/v1",
        "kind": "Gadget",
        "metadata": {"name": "g", "managedFields": MANAGED},
        "spec": {"any": 1},
        "status": {"conditions": [{"type": "Ready", "status": "True", "since": "t"}]},
    }
    slim = slimmed(gadget)
    assert slim == {**gadget, "metadata": {"name": "g"}}


@pytest.mark.parametrize(("reason", "is_kept"), [("Pulling", True), ("Unhealthy", False)])
def test_of_events_those_that_tell_of_movement_are_kept(reason: str, is_kept: bool) -> None:
    event = {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": "e", "namespace": "apps"},
        "reason": reason,
        "message": "s3cret",
        "involvedObject": {"kind": "Pod", "uid": "u1", "resourceVersion": "7"},
    }
    slim = slimmed(event)
    assert (slim is not None) is is_kept
    assert "s3cret" not in str(slim)
