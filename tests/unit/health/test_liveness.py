from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest

from helmops.health import CustomRules
from helmops.health.liveness import LiveFold
from helmops.model.declarations import HealthCheckExpr
from helmops.model.health import LiveHealth, ObjectRef
from tests.fakes.clock import START

Object = dict[str, Any]
WEB = ObjectRef("apps/v1", "Deployment", "web", "apps")


def deployment(ready: int = 2, *, wanted: int = 2, generation: int = 1, **metadata: Any) -> Object:
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "web", "namespace": "apps", "generation": generation, **metadata},
        "spec": {"replicas": wanted},
        "status": {
            "observedGeneration": generation,
            "replicas": wanted,
            "updatedReplicas": wanted,
            "readyReplicas": ready,
            "availableReplicas": ready,
            "conditions": [
                {"type": "Available", "status": "True"},
                {"type": "Progressing", "status": "True", "reason": "NewReplicaSetAvailable"},
            ],
        },
    }


def late() -> Object:
    """A Deployment past its progress deadline."""
    found = deployment(0)
    found["status"]["conditions"][1] |= {"reason": "ProgressDeadlineExceeded"}
    return found


def pod(restarts: int = 0, waiting: str = "", *, made: float = 1, name: str = "web-1-a") -> Object:
    created = START + timedelta(seconds=made)
    return {
        "kind": "Pod",
        "metadata": {"name": name, "uid": name, "creationTimestamp": created.isoformat()},
        "status": {
            "phase": "Running",
            "containerStatuses": [
                {
                    "name": "web",
                    "restartCount": restarts,
                    "state": {"waiting": {"reason": waiting}} if waiting else {},
                    "lastState": {"terminated": {"exitCode": 137, "reason": "OOMKilled"}},
                }
            ],
        },
    }


class Look:
    """Looks at a release as time goes by."""

    def __init__(self, *expressions: HealthCheckExpr, max_restarts: int = 3) -> None:
        self.fold = LiveFold(CustomRules(expressions), max_restarts, START)
        self.now = START

    def __call__(
        self, live: Object | None, *pods: Object, after: float = 0, ref: ObjectRef = WEB
    ) -> LiveHealth:
        self.now += timedelta(seconds=after)
        return self.fold.look([(ref, live)], pods, self.now)

    def many(self, *objects: tuple[ObjectRef, Object | None], after: float = 0) -> LiveHealth:
        self.now += timedelta(seconds=after)
        return self.fold.look(objects, (), self.now)


def settled(look: Look, live: Object | None, *pods: Object) -> LiveHealth:
    """How it is when it has been like that for long enough."""
    look(live, *pods)
    return look(live, *pods, after=20)


def test_before_the_first_look_nothing_is_known() -> None:
    assert Look().fold.health == LiveHealth(is_live=False)


def test_a_ready_release_is_well() -> None:
    look = Look()
    assert look(deployment()) == LiveHealth(is_live=True)
    assert look.fold.look_again is None


def test_readiness_that_is_lost_counts_after_a_while() -> None:
    look = Look()
    look(deployment())
    assert look(deployment(1), after=5).bad == ""
    assert look.fold.look_again == START + timedelta(seconds=8)
    found = look(deployment(1), after=3)
    assert found.bad == "Deployment/apps/web is not ready any more: available: 1/2"
    assert (found.is_final, found.version) == (False, 1)
    assert found.since == START + timedelta(seconds=5)


def test_readiness_that_comes_back_at_once_was_never_lost() -> None:
    look = Look()
    look(deployment())
    for _ in range(5):
        assert look(deployment(1), after=2).bad == ""
        assert look(deployment(), after=0.5).bad == ""
    assert look.fold.health.version == 0


def test_what_was_bad_and_is_well_again_is_told() -> None:
    look = Look()
    look(deployment())
    settled(look, deployment(0))
    assert look(deployment()) == LiveHealth(is_live=True, version=2)


def test_trouble_that_changes_its_numbers_is_the_same_trouble() -> None:
    look = Look()
    look(deployment(5, wanted=5))
    first = settled(look, deployment(3, wanted=5))
    assert look(deployment(1, wanted=5), after=9) == first


@pytest.mark.parametrize(
    "now",
    [
        pytest.param(deployment(2, wanted=6, generation=2), id="scaled up"),
        pytest.param(deployment(1, wanted=2, generation=2), id="restarted by hand"),
        pytest.param(deployment(2, wanted=3), id="one more is wanted, none is lost"),
    ],
)
def test_a_change_that_somebody_asked_for_is_no_loss(now: Object) -> None:
    look = Look()
    look(deployment())
    assert settled(look, now).bad == ""


def test_a_node_that_joins_is_no_loss_and_one_that_goes_is() -> None:
    ref = ObjectRef("apps/v1", "DaemonSet", "agent", "apps")

    def agent(ready: int, wanted: int) -> Object:
        counts = ("currentNumberScheduled", "updatedNumberScheduled")
        return {
            "apiVersion": "apps/v1",
            "kind": "DaemonSet",
            "metadata": {"name": "agent", "generation": 1},
            "status": {
                "observedGeneration": 1,
                "desiredNumberScheduled": wanted,
                **dict.fromkeys(counts, wanted),
                "numberReady": ready,
                "numberAvailable": ready,
            },
        }

    look = Look()
    look(agent(3, 3), ref=ref)
    look(agent(3, 4), ref=ref)
    assert look(agent(3, 4), ref=ref, after=60).bad == ""
    look(agent(2, 4), ref=ref)
    assert "ready" in look(agent(2, 4), ref=ref, after=60).bad


def test_what_was_never_seen_ready_gets_more_time() -> None:
    look = Look()
    look(deployment(0))
    assert look(deployment(0), after=14).bad == ""
    assert look(deployment(0), after=1).bad == "Deployment/apps/web: available: 0/2"


def test_a_failure_is_final_when_it_stays() -> None:
    look = Look()
    look(late())
    assert look(late(), after=1).bad == ""  # a rollback shows the old one for a moment
    assert look(late(), after=2).is_final


def test_an_object_that_is_gone_is_missed_and_one_that_never_was_is_not() -> None:
    assert settled(Look(), None).bad == ""
    look = Look()
    look(deployment())
    assert settled(look, None).bad == "Deployment/apps/web does not exist"


def test_an_object_that_is_being_deleted_is_told() -> None:
    look = Look()
    look(deployment())
    found = settled(look, deployment(deletionTimestamp="2026-01-05T12:00:00Z"))
    assert found.bad == "Deployment/apps/web: is being deleted"


def test_a_crash_loop_counts_at_once_and_is_final() -> None:
    found = Look()(deployment(), pod(1, "CrashLoopBackOff"))
    assert found.is_final
    assert "pod web-1-a: CrashLoopBackOff" in found.bad
    assert "137 (OOMKilled)" in found.bad


def test_restarts_up_to_the_limit_are_let_pass() -> None:
    look = Look(max_restarts=3)
    assert look(deployment(), pod(3)).bad == ""
    found = look(deployment(), pod(4))
    assert found.bad == (
        "pod web-1-a: container web restarted 4 times, last with exit code 137 (OOMKilled)"
    )
    assert found.is_final


def test_restarts_of_before_the_release_are_not_counted() -> None:
    look = Look(max_restarts=1)
    assert look(deployment(), pod(7, made=-60)).bad == ""
    assert look(deployment(), pod(8, made=-60)).bad == ""
    assert "restarted 2 times" in look(deployment(), pod(9, made=-60)).bad


def test_pods_that_go_do_not_count() -> None:
    going = pod(9, "CrashLoopBackOff")
    going["metadata"]["deletionTimestamp"] = "2026-01-05T12:00:00Z"
    assert Look()(deployment(), going).bad == ""


def test_what_is_final_takes_the_place_of_what_is_not_and_not_the_other_way() -> None:
    look = Look()
    look(deployment())
    lost = settled(look, deployment(1))
    crash = look(deployment(1), pod(1, "CrashLoopBackOff"))
    assert crash.is_final
    assert crash.version == lost.version + 1
    assert look(deployment(0), pod(1, "CrashLoopBackOff"), after=9) == crash
    # The loop is over, and readiness is still lost.
    back = look(deployment(1), pod(1))
    assert (back.bad, back.version) == (lost.bad, crash.version + 1)


def test_of_two_troubles_the_one_that_is_told_stays_told() -> None:
    other = ObjectRef("apps/v1", "Deployment", "api", "apps")
    look = Look()
    look.many((WEB, deployment()), (other, deployment()))
    look.many((WEB, deployment()), (other, deployment(0)))
    first = look.many((WEB, deployment()), (other, deployment(0)), after=5)
    both = [(WEB, deployment(0)), (other, deployment(0))]
    look.many(*both)
    assert look.many(*both, after=5) == first
    after = look.many((WEB, deployment(0)), (other, deployment()), after=5)
    assert "web" in after.bad
    assert after.version == first.version + 1


RULE = HealthCheckExpr.model_validate(
    {
        "apiVersion": "example.test/v1",
        "kind": "Gadget",
        "current": "status.phase == 'Up'",
        "failed": "status.phase == 'Broken'",
    }
)
GADGET = ObjectRef("example.test/v1", "Gadget", "g", "apps")


def gadget(phase: str) -> Object:
    return {
        "apiVersion": "example.test/v1",
        "kind": "Gadget",
        "metadata": {"name": "g", "generation": 1},
        "status": {"phase": phase},
    }


@pytest.mark.parametrize(
    ("phases", "bad"),
    [(["Up", "Up"], False), (["Up", "Down", "Down"], True), (["Up", "Broken", "Broken"], True)],
)
def test_rules_of_the_declaration_go_before_ours(phases: Sequence[str], bad: bool) -> None:
    look = Look(RULE)
    for phase in phases:
        found = look(gadget(phase), ref=GADGET, after=5)
    assert bool(found.bad) is bad
    assert found.is_final is (phases[-1] == "Broken")


def test_when_nothing_is_seen_any_more_nothing_is_bad_and_the_version_stays() -> None:
    look = Look()
    look(deployment())
    bad = settled(look, deployment(0))
    assert look.fold.is_blind() == LiveHealth(is_live=False, version=bad.version)
    # Back again, the same trouble is no news.
    assert look(deployment(0), after=60) == bad
