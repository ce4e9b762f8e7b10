"""Pods in words, as kubelets report them."""

from __future__ import annotations

from typing import Any

import pytest

from helmops.health.pod_report import ContainerReport, container_reports, pod_lines, trouble_of

ENDED = {"exitCode": 137, "reason": "OOMKilled", "message": "said  last\n"}


def pod(*containers: dict[str, Any], phase: str = "Running", **more: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": "web-1", "creationTimestamp": "2026-01-01T00:00:00Z"},
        "spec": {
            "nodeName": "node-0",
            "initContainers": [{"name": "prepare", "image": "init:1"}],
            "containers": [{"name": "main", "image": "web:2"}],
        },
        "status": {"phase": phase, "containerStatuses": list(containers), **more},
    }


def container(state: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"name": "main", "ready": False, "restartCount": 0, "state": state, **more}


def report(state: str, trouble: int, **more: Any) -> ContainerReport:
    given: dict[str, Any] = {
        "detail": "",
        "restarts": 0,
        "has_log": True,
        "has_previous": False,
    } | more
    return ContainerReport(name="main", state=state, trouble=trouble, **given)


@pytest.mark.parametrize(
    ("status", "reported"),
    [
        (container({"running": {}}, ready=True), report("running", 0)),
        (container({"running": {}}), report("running, not ready", 1)),
        (
            container({"running": {}}, restartCount=2, lastState={"terminated": ENDED}),
            report(
                "running, not ready, before that exit code 137, OOMKilled",
                2,
                restarts=2,
                has_previous=True,
            ),
        ),
        (
            container({"running": {}}, ready=True, lastState={"terminated": ENDED}),
            report("running, before that exit code 137, OOMKilled", 0, has_previous=True),
        ),
        (
            container({"terminated": ENDED}),
            report("exit code 137, OOMKilled", 2, detail="said last"),
        ),
        (container({"terminated": {"exitCode": 0, "reason": "Completed"}}), report("completed", 0)),
        (container({"terminated": {"exitCode": 3}}), report("exit code 3", 2)),
        (
            container(
                {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off"}},
                restartCount=5,
                lastState={"terminated": ENDED},
            ),
            report(
                "CrashLoopBackOff (exit code 137, OOMKilled)",
                2,
                detail="said last",
                restarts=5,
                has_previous=True,
            ),
        ),
        (
            container({"waiting": {"reason": "ErrImagePull", "message": "not found"}}),
            report("ErrImagePull", 2, detail="not found", has_log=False),
        ),
        (
            container({"waiting": {"reason": "ContainerCreating"}}),
            report("ContainerCreating", 0, has_log=False),
        ),
        (container({}), report("waiting", 0, has_log=False)),
        ({"name": "main", "state": None}, report("waiting", 0, has_log=False)),
    ],
)
def test_a_container_in_words(status: dict[str, Any], reported: ContainerReport) -> None:
    assert container_reports(pod(status)) == (reported,)


def test_containers_of_the_beginning_come_first() -> None:
    prepare = container({"terminated": {"exitCode": 1}}, name="prepare")

    reports = container_reports(pod(container({}), initContainerStatuses=[prepare]))

    assert [one.name for one in reports] == ["prepare", "main"]


def test_a_pod_in_lines() -> None:
    conditions = [
        {"type": "Ready", "status": "False", "reason": "ContainersNotReady", "message": "main"},
        {"type": "PodScheduled", "status": "True"},
    ]

    lines = list(pod_lines(pod(container({"terminated": ENDED}), conditions=conditions)))

    assert lines == [
        "Running, on node-0, created 2026-01-01T00:00:00Z",
        "  Ready is False: ContainersNotReady: main",
        "  container main (web:2): exit code 137, OOMKilled: said last",
    ]


def test_an_evicted_pod_says_why_and_one_that_goes_that_it_goes() -> None:
    evicted = pod(phase="Failed", reason="Evicted", message="The node was low on memory")
    evicted["metadata"]["deletionTimestamp"] = "2026-01-01T00:01:00Z"

    assert next(pod_lines(evicted)).startswith(
        "Failed, being deleted, Evicted: The node was low on memory, on node-0"
    )


def test_a_pod_of_which_nothing_is_known() -> None:
    assert list(pod_lines({})) == ["not observed"]


@pytest.mark.parametrize(
    ("status", "phase", "conditions", "trouble"),
    [
        (container({"running": {}}), "Running", [{"type": "Ready", "status": "True"}], 0),
        (container({"terminated": {"exitCode": 0}}), "Succeeded", [], 0),
        (container({"running": {}}), "Running", [], 1),
        (container({"waiting": {"reason": "ErrImagePull"}}), "Pending", [], 2),
        (container({}), "Pending", [{"type": "PodScheduled", "status": "False"}], 2),
        (container({}), "Failed", [], 2),
        (container({"terminated": {"exitCode": 1}}), "Failed", [], 3),
    ],
)
def test_how_much_a_pod_tells(
    status: dict[str, Any], phase: str, conditions: list[Any], trouble: int
) -> None:
    assert trouble_of(pod(status, phase=phase, conditions=conditions)) == trouble
