from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from typing import Any

import pytest

from helmops.health.progress import Rollout, RolloutProgress
from helmops.model.releases import ReleaseId
from tests.fakes.clock import START

WEB = ReleaseId("apps", "web")
NOT_FOUND = 'failed to resolve reference "example.test/web:nope": example.test/web:nope: not found'
Object = dict[str, Any]


def of_release(name: str = "web") -> dict[str, str]:
    return {"meta.helm.sh/release-name": name, "meta.helm.sh/release-namespace": "apps"}


def deployment(name: str = "web", *, release: str = "web", **status: Any) -> Object:
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "generation": 1, "annotations": of_release(release)},
        "spec": {"replicas": 3},
        "status": status,
    }


def replica_set(name: str, revision: int, owner: str = "web") -> Object:
    return {
        "apiVersion": "apps/v1",
        "kind": "ReplicaSet",
        "metadata": {
            "name": name,
            "annotations": {"deployment.kubernetes.io/revision": str(revision)},
            "ownerReferences": [{"kind": "Deployment", "name": owner, "controller": True}],
        },
    }


def pod(
    name: str = "web-1-a",
    owner: str = "ReplicaSet/web-1",
    *,
    waiting: tuple[str, str] = ("", ""),
    conditions: Iterable[str] = (),
    restarts: int = 0,
    ready: bool = False,
    unschedulable: str = "",
    **metadata: Any,
) -> Object:
    kind, _, maker = owner.partition("/")
    reason, message = waiting
    found = [{"type": each, "status": "True"} for each in conditions]
    if unschedulable:
        found.append(
            {
                "type": "PodScheduled",
                "status": "False",
                "reason": "Unschedulable",
                "message": unschedulable,
            }
        )
    owners = [{"kind": kind, "name": maker, "controller": True}] if owner else []
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "uid": f"uid-{name}", "ownerReferences": owners, **metadata},
        "status": {
            "phase": "Pending",
            "conditions": found,
            "containerStatuses": [
                {
                    "name": "web",
                    "ready": ready,
                    "restartCount": restarts,
                    "state": {"waiting": {"reason": reason, "message": message}} if reason else {},
                }
            ],
        },
    }


def event(reason: str, about: str = "web-1-a", container: str = "web") -> Object:
    return {
        "kind": "Event",
        "metadata": {"name": f"{about}.{reason}"},
        "reason": reason,
        "involvedObject": {"uid": f"uid-{about}", "fieldPath": f"spec.containers{{{container}}}"},
    }


def job(name: str = "migrate", **status: Any) -> Object:
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name, "uid": f"uid-{name}", "annotations": of_release()},
        "status": status,
    }


class Look:
    """Looks at objects as time goes by."""

    def __init__(self, *before: str, max_restarts: int = 5) -> None:
        self.fold = RolloutProgress(WEB, [f"uid-{name}" for name in before], max_restarts)

    def __call__(self, *objects: Object, after: float = 0) -> Rollout:
        return self.fold.look(objects, START + timedelta(seconds=after))


def rolling(*pods: Object, **status: Any) -> tuple[Object, ...]:
    return (deployment(**status), replica_set("web-1", 1), *pods)


# What moves


def test_the_first_look_moves_and_the_same_look_again_does_not() -> None:
    look = Look()
    assert look(*rolling(pod())).moved
    assert not look(*rolling(pod())).moved


@pytest.mark.parametrize(
    "further",
    [
        pytest.param(rolling(pod(), pod("web-1-b")), id="another pod"),
        pytest.param(rolling(pod(conditions=["PodScheduled"])), id="a pod has a node"),
        pytest.param(rolling(pod(ready=True)), id="a container is ready"),
        pytest.param(rolling(pod(), updatedReplicas=1), id="another replica is of the new one"),
        pytest.param(rolling(pod(), readyReplicas=1), id="another replica is ready"),
        pytest.param((*rolling(pod()), job(succeeded=1)), id="a job has completed"),
        pytest.param((*rolling(pod()), event("SuccessfulAttachVolume")), id="a volume is there"),
    ],
)
def test_a_step_forward_moves(further: tuple[Object, ...]) -> None:
    look = Look()
    look(*rolling(pod()))
    assert look(*further).moved
    assert not look(*further).moved


def test_fewer_old_replicas_move() -> None:
    look = Look()
    look(*rolling(replicas=5, updatedReplicas=2))
    assert look(*rolling(replicas=4, updatedReplicas=2)).moved


def test_a_claim_that_is_bound_moves() -> None:
    claim = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": "data", "annotations": of_release()},
        "status": {"phase": "Pending"},
    }
    look = Look()
    look(claim)
    assert look({**claim, "status": {"phase": "Bound"}}).moved


def test_every_pod_of_a_daemon_set_that_is_ready_moves() -> None:
    def ready(count: int) -> Object:
        return {**deployment(numberReady=count), "apiVersion": "apps/v1", "kind": "DaemonSet"}

    look = Look()
    look(ready(1))
    assert look(ready(2)).moved
    assert not look(ready(1)).moved


def test_what_comes_and_goes_moves_only_once() -> None:
    look = Look()
    up, down = rolling(pod(ready=True), readyReplicas=1), rolling(pod(), readyReplicas=0)
    assert [look(*each).moved for each in (down, up, down, up, down, up)] == [
        True,
        True,
        False,
        False,
        False,
        False,
    ]


def test_a_pod_that_is_replaced_again_and_again_does_not_move_for_ever() -> None:
    look = Look()
    look(*rolling(pod("web-1-a")))
    assert not any(look(*rolling(pod(f"web-1-{name}"))).moved for name in "bcdef")


def test_what_is_of_another_release_does_not_move_ours() -> None:
    look = Look()
    look(*rolling(pod()))
    other = (
        deployment("db", release="db", readyReplicas=7),
        replica_set("db-1", 1, owner="db"),
        pod("db-1-a", "ReplicaSet/db-1"),
        pod("stray", ""),
    )
    assert not look(*rolling(pod()), *other).moved


def test_hooks_move_by_what_the_chart_says_of_them() -> None:
    hook = job("web-migrate", succeeded=0)
    hook["metadata"]["annotations"] = {"helm.sh/hook": "pre-upgrade"}
    look = Look()
    assert look(hook).moved
    assert look(hook, pod("web-migrate-x", "Job/web-migrate")).moved


@pytest.mark.parametrize(
    ("name", "labels"),
    [
        ("web-db-migrate", {}),
        ("migrate", {}),
        ("web-migrate", {"app.kubernetes.io/instance": "web-db"}),
    ],
)
def test_hooks_of_others_do_not(name: str, labels: dict[str, str]) -> None:
    hook = job(name)
    hook["metadata"] |= {"annotations": {"helm.sh/hook": "pre-upgrade"}, "labels": labels}
    look = Look()
    assert not look(hook, deployment("web-db", release="web-db")).moved


# Images


def pulling(*events: Object) -> tuple[Object, ...]:
    return (*rolling(pod(waiting=("ContainerCreating", ""))), *events)


def test_an_image_that_is_being_pulled_is_told() -> None:
    assert Look()(*pulling(event("Pulling"))).pulling == "web-1-a"


def test_an_event_that_names_no_container_is_about_all_of_them() -> None:
    about_all = event("Pulling")
    del about_all["involvedObject"]["fieldPath"]
    assert Look()(*pulling(about_all)).pulling == "web-1-a"


@pytest.mark.parametrize(
    "objects",
    [
        pytest.param(pulling(), id="no event"),
        pytest.param(pulling(event("Pulling"), event("Pulled")), id="it is pulled"),
        pytest.param(pulling(event("Pulling", container="other")), id="of another container"),
        pytest.param((*rolling(pod()), event("Pulling")), id="it runs by now"),
        pytest.param(
            (*rolling(pod(waiting=("ImagePullBackOff", ""))), event("Pulling")), id="it failed"
        ),
    ],
)
def test_no_image_is_being_pulled(objects: tuple[Object, ...]) -> None:
    assert Look()(*objects).pulling == ""


# What is stuck


@pytest.mark.parametrize("reason", ["ErrImagePull", "ImagePullBackOff"])
@pytest.mark.parametrize(
    "message", [NOT_FOUND, "manifest unknown: manifest unknown", "manifest for a:b unknown"]
)
def test_an_image_that_does_not_exist_is_final_after_a_moment(reason: str, message: str) -> None:
    look = Look()
    stuck = rolling(pod(waiting=(reason, message)))
    first = look(*stuck)
    assert (first.stuck, first.look_again) == ("", START + timedelta(seconds=2))
    assert look(*stuck, after=2).stuck == f"pod web-1-a: {reason}: {message}"


def test_the_moment_begins_anew_when_it_passed() -> None:
    look = Look()
    stuck = rolling(pod(waiting=("ErrImagePull", NOT_FOUND)))
    look(*stuck)
    look(*rolling(pod()), after=1)
    assert look(*stuck, after=3).stuck == ""


def test_back_off_in_between_is_the_same_trouble() -> None:
    look = Look()
    look(*rolling(pod(waiting=("ErrImagePull", NOT_FOUND))))
    again = rolling(pod(waiting=("ImagePullBackOff", f"Back-off pulling image: {NOT_FOUND}")))
    assert look(*again, after=2).stuck


@pytest.mark.parametrize(
    "message",
    [
        "Back-off pulling image",
        "dial tcp: i/o timeout",
        "401 Unauthorized",
        "pull access denied, repository does not exist or may require authorization",
        "429 Too Many Requests",
    ],
)
def test_a_pull_that_may_yet_work_is_not_final(message: str) -> None:
    look = Look()
    stuck = rolling(pod(waiting=("ImagePullBackOff", message)))
    look(*stuck)
    assert look(*stuck, after=3600).stuck == ""


def test_a_name_that_is_no_image_is_final_at_once() -> None:
    found = Look()(*rolling(pod(waiting=("InvalidImageName", "couldn't parse image name"))))
    assert "InvalidImageName" in found.stuck


def test_a_missing_secret_is_final_only_when_it_does_not_come() -> None:
    look = Look()
    stuck = rolling(pod(waiting=("CreateContainerConfigError", 'secret "web" not found')))
    assert look(*stuck).look_again == START + timedelta(seconds=30)
    assert look(*stuck, after=29).stuck == ""
    assert 'secret "web" not found' in look(*stuck, after=30).stuck


NO_NODE = "0/3 nodes are available: 3 node(s) didn't match Pod's node affinity/selector. preemption"


def test_a_pod_that_fits_no_node_is_final_when_that_stays_so() -> None:
    look = Look()
    stuck = rolling(pod(unschedulable=NO_NODE))
    assert look(*stuck).stuck == ""
    assert "Unschedulable: 0/3 nodes" in look(*stuck, after=60).stuck


@pytest.mark.parametrize(
    "message",
    [
        "0/3 nodes are available: 1 Insufficient cpu, 2 node(s) didn't match Pod's node affinity",
        "0/3 nodes are available: 2 node(s) didn't match Pod's node affinity/selector, 1 Insuff",
        "0/3 nodes are available: 3 Insufficient memory.",
        "no nodes available to schedule pods",
    ],
)
def test_nodes_that_are_full_may_get_room(message: str) -> None:
    look = Look()
    stuck = rolling(pod(unschedulable=message))
    look(*stuck)
    assert look(*stuck, after=3600).stuck == ""


def test_restarts_above_the_limit_are_final() -> None:
    look = Look(max_restarts=3)
    assert look(*rolling(pod(waiting=("CrashLoopBackOff", "b"), restarts=3))).stuck == ""
    found = look(*rolling(pod(waiting=("CrashLoopBackOff", "b"), restarts=4)))
    assert "restarted 4 times" in found.stuck


def test_one_that_is_ready_in_the_end_was_not_stuck() -> None:
    assert Look(max_restarts=3)(*rolling(pod(restarts=9, ready=True))).stuck == ""


def test_a_failed_job_is_final() -> None:
    failed = job(
        conditions=[{"type": "Failed", "status": "True", "reason": "BackoffLimitExceeded"}]
    )
    assert Look()(failed).stuck == "Job migrate failed: BackoffLimitExceeded"


BROKEN = {"waiting": ("InvalidImageName", "bad")}


def test_pods_of_before_are_not_what_is_rolled_out() -> None:
    assert Look("web-1-a")(*rolling(pod(**BROKEN))).stuck == ""


def test_a_job_that_failed_before_is_not_what_is_waited_for() -> None:
    failed = job(conditions=[{"type": "Failed", "status": "True", "message": "it did"}])
    assert Look("migrate")(failed).stuck == ""
    assert Look()(failed).stuck


def test_new_pods_of_an_old_replica_set_are_not_either() -> None:
    objects = (deployment(), replica_set("web-1", 1), replica_set("web-2", 2))
    assert Look()(*objects, pod(**BROKEN)).stuck == ""
    assert Look()(*objects, pod("web-2-a", "ReplicaSet/web-2", **BROKEN)).stuck


def test_pods_that_go_are_not_either() -> None:
    assert Look()(*rolling(pod(**BROKEN, deletionTimestamp="2026-01-05T12:00:00Z"))).stuck == ""


def test_pods_of_other_releases_are_not_either() -> None:
    other = (deployment("db", release="db"), replica_set("db-1", 1, owner="db"))
    assert Look()(*other, pod("db-1-a", "ReplicaSet/db-1", **BROKEN)).stuck == ""
    elsewhere = deployment()
    elsewhere["metadata"]["annotations"]["meta.helm.sh/release-namespace"] = "other"
    assert Look()(elsewhere, replica_set("web-1", 1), pod(**BROKEN)).stuck == ""


def test_a_bare_pod_of_the_chart_is() -> None:
    assert Look()(pod("web", "", **BROKEN, annotations=of_release())).stuck


def test_what_is_final_goes_before_what_may_become_so() -> None:
    look = Look()
    both = rolling(
        pod("web-1-a", waiting=("CreateContainerConfigError", "no secret")),
        pod("web-1-b", **BROKEN),
    )
    found = look(*both)
    assert "web-1-b" in found.stuck


def test_objects_of_any_shape_are_looked_at() -> None:
    odd: list[Object] = [
        {"kind": "Pod", "metadata": {"name": "x"}, "status": None},
        {"kind": "Deployment", "metadata": {"name": "y", "annotations": of_release()}},
        {"kind": "Job", "metadata": {"name": "z", "annotations": None}, "status": []},
        {"kind": "Event", "metadata": {}},
    ]
    assert Look()(*odd).stuck == ""
