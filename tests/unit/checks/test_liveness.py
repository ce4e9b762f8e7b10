from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest

from helmops.checks.liveness import LiveReleases
from helmops.cluster.object_watches import ObjectWatches
from helmops.errors import ClusterUnreachable, ReleaseNotFound
from helmops.health.liveness import LiveFold
from helmops.health.slimmed import slimmed
from helmops.model.declarations import HealthCheckExpr
from helmops.model.health import LiveHealth
from helmops.model.records import Origin, Proof, Snapshot
from helmops.model.releases import HelmStatus, ReleaseId
from tests.fakes.clock import START
from tests.fakes.kubernetes_api import FakeKubernetes
from tests.fakes.stepped_clock import SteppedClock

WEB, DB = ReleaseId("apps", "web"), ReleaseId("apps", "db")
Object = dict[str, Any]


def manifest(kind: str = "Deployment", name: str = "web", api: str = "apps/v1") -> Object:
    return {"apiVersion": api, "kind": kind, "metadata": {"name": name}}


def deployment(ready: int = 2, *, name: str = "web", release: str = "", **spec: Any) -> Object:
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {
            "name": name,
            "namespace": "apps",
            "generation": 1,
            "labels": {"app.kubernetes.io/managed-by": "Helm"},
            "annotations": {
                "meta.helm.sh/release-name": release or name,
                "meta.helm.sh/release-namespace": "apps",
            },
        },
        "spec": {"replicas": 2, **spec},
        "status": {
            "observedGeneration": 1,
            "replicas": 2,
            "updatedReplicas": 2,
            "readyReplicas": ready,
            "availableReplicas": ready,
            "conditions": [
                {"type": "Available", "status": "True"},
                {"type": "Progressing", "status": "True", "reason": "NewReplicaSetAvailable"},
            ],
        },
    }


def pod(waiting: str = "", *, owner: str = "web", name: str = "") -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name or f"{owner}-77-a",
            "namespace": "apps",
            "labels": {"pod-template-hash": "77"},
            "ownerReferences": [{"kind": "ReplicaSet", "name": f"{owner}-77", "controller": True}],
        },
        "status": {
            "phase": "Running",
            "containerStatuses": [
                {"name": "web", "state": {"waiting": {"reason": waiting}} if waiting else {}}
            ],
        },
    }


def snapshot(revision: int = 1, *, in_window: bool = True) -> Snapshot:
    return Snapshot(
        revision=revision,
        digest=f"digest-{revision}",
        origin=Origin.UPGRADE,
        status=HelmStatus.DEPLOYED,
        chart_name="web",
        chart_version="1.0.0",
        app_version="",
        config_digest="",
        first_deployed=START,
        last_deployed=START,
        watched=Proof.PENDING if in_window else Proof.PASSED,
    )


class Manifests:
    """What revisions are made of; `asked` counts."""

    def __init__(self) -> None:
        self.by_release: dict[ReleaseId, tuple[Object, ...]] = {WEB: (manifest(),)}
        self.fails_with: Exception | None = None
        self.asked: list[tuple[ReleaseId, int]] = []

    async def objects(self, release: ReleaseId, revision: int) -> tuple[Object, ...]:
        self.asked.append((release, revision))
        if self.fails_with is not None:
            raise self.fails_with
        return self.by_release[release]


class Room:
    """Releases that are looked after, in a cluster of their own."""

    def __init__(self) -> None:
        self.server = FakeKubernetes("apps")
        self.clock = SteppedClock()
        self.manifests = Manifests()
        self.told: list[tuple[ReleaseId, str]] = []
        self.is_everywhere = False
        api = self.server.api()
        self.watches = ObjectWatches(api, slimmed, sleep=self.clock.sleep)
        self.releases = LiveReleases(
            self.watches,
            api,
            self.manifests,
            self.clock,
            lambda release, why: self.told.append((release, why)),
            is_everywhere=lambda: self.is_everywhere,
        )
        self.running = asyncio.ensure_future(self.releases.run())

    async def follow(
        self, release: ReleaseId = WEB, known: Snapshot | None = None, **options: Any
    ) -> None:
        """Follow, and let the watches list."""
        options.setdefault("max_restarts", 3)
        await self.releases.follow(release, known or snapshot(), **options)
        await self.clock.step(2)
        await self.clock.step(1)

    async def see(self, *objects: Object, after: float = 0) -> None:
        for each in objects:
            self.server.put(each)
        await self.clock.step(1)
        await self.clock.step(after)

    def of(self, release: ReleaseId = WEB) -> LiveHealth:
        found = self.releases.of(release)
        assert found is not None
        return found

    @property
    def watched(self) -> set[str]:
        return {f"{scope.kind}/{scope.namespace}" for scope in self.watches.scopes}

    @property
    def news(self) -> list[str]:
        """What was told, but for the first sight."""
        return [why for _, why in self.told if why != "is watched"]


@pytest.fixture
async def room() -> AsyncIterator[Room]:
    made = Room()
    made.server.put(deployment())
    yield made
    made.running.cancel()
    await asyncio.wait({made.running})
    assert made.running.cancelled()
    await made.watches.close()


# What is looked after


async def test_nobody_looks_after_a_release_that_nobody_named(room: Room) -> None:
    assert room.releases.of(WEB) is None


async def test_in_the_window_the_manifest_and_its_pods_are_watched(room: Room) -> None:
    room.manifests.by_release[WEB] = (
        manifest(),
        manifest("Job", "migrate", "batch/v1"),
        *(manifest(kind, "x", "v1") for kind in ("ConfigMap", "Secret", "Service")),
        manifest("Ingress", "x", "networking.k8s.io/v1"),
        manifest("Role", "x", "rbac.authorization.k8s.io/v1"),
        manifest("HorizontalPodAutoscaler", "x", "autoscaling/v2"),
    )
    await room.follow()
    assert room.watched == {"Deployment/apps", "Job/apps", "Pod/apps"}


async def test_a_release_without_anything_that_can_be_unready_costs_no_watch(room: Room) -> None:
    room.manifests.by_release[WEB] = (manifest("ConfigMap", "x", "v1"),)
    await room.follow()
    assert room.watched == set()
    assert room.of().is_live


async def test_kinds_of_others_are_watched_where_they_are(room: Room) -> None:
    room.server.serve("example.test/v1", "Gadget", "gadgets", is_namespaced=True)
    room.server.serve("example.test/v1", "Planet", "planets", is_namespaced=False)
    room.manifests.by_release[WEB] = tuple(
        manifest(kind, "x", "example.test/v1") for kind in ("Gadget", "Planet", "Unknown")
    )
    await room.follow()
    assert room.watched == {"Gadget/apps", "Planet/", "Pod/apps"}


async def test_after_the_window_three_watches_show_the_workloads(room: Room) -> None:
    await room.follow()
    await room.follow(known=snapshot(in_window=False))
    workloads = {"Deployment/apps", "StatefulSet/apps", "DaemonSet/apps"}
    assert room.watched == workloads
    await room.follow(DB, snapshot(in_window=False))
    assert room.watched == workloads
    assert room.manifests.asked == [(WEB, 1)]


async def test_where_all_namespaces_may_be_seen_one_watch_sees_them(room: Room) -> None:
    room.is_everywhere = True
    await room.follow(known=snapshot(in_window=False))
    assert room.watched == {"Deployment/", "StatefulSet/", "DaemonSet/"}
    await room.see(deployment(0), after=5)
    assert room.of().bad


async def test_what_is_followed_already_is_not_begun_anew(room: Room) -> None:
    await room.follow()
    asked = len(room.server.asked)
    for _ in range(3):
        await room.follow()
    assert room.manifests.asked == [(WEB, 1)]
    assert len(room.server.asked) == asked


async def test_the_last_to_be_given_up_ends_the_watches(room: Room) -> None:
    await room.follow()
    room.manifests.by_release[DB] = (manifest(name="db"),)
    await room.follow(DB)
    room.releases.unfollow(WEB)
    assert room.watched == {"Deployment/apps", "Pod/apps"}
    room.releases.unfollow(DB)
    room.releases.unfollow(DB)
    assert room.watched == set()
    assert room.releases.of(WEB) is None


@pytest.mark.parametrize("error", [ReleaseNotFound("gone"), ClusterUnreachable("away")])
async def test_without_the_manifest_nothing_is_seen_until_the_next_pass(
    room: Room, error: Exception
) -> None:
    room.manifests.fails_with = error
    await room.follow()
    assert room.releases.of(WEB) is None
    room.manifests.fails_with = None
    await room.follow()
    assert room.of().is_live


# What is seen


async def test_it_is_not_live_before_all_is_listed_and_looked_at(room: Room) -> None:
    await room.releases.follow(WEB, snapshot(), max_restarts=3)
    assert not room.of().is_live
    await room.clock.step(2)
    assert room.of() == LiveHealth(is_live=True)
    assert room.told == [(WEB, "is watched")]


async def test_a_crash_loop_below_a_workload_is_told_at_once(room: Room) -> None:
    await room.follow()
    await room.see(pod("CrashLoopBackOff"))
    assert room.of().is_final
    assert room.of().bad.startswith("pod web-77-a: CrashLoopBackOff")
    assert room.news == [room.of().bad]


async def test_a_bare_pod_of_the_manifest_is_looked_at(room: Room) -> None:
    room.manifests.by_release[WEB] = (manifest("Pod", "web", "v1"),)
    bare = pod("CrashLoopBackOff", name="web")
    del bare["metadata"]["ownerReferences"]
    await room.follow()
    await room.see(bare)
    assert "pod web: CrashLoopBackOff" in room.of().bad


async def test_pods_of_others_are_nobodys_business(room: Room) -> None:
    await room.follow()
    await room.see(pod("CrashLoopBackOff", owner="other"), after=60)
    assert room.of().bad == ""


async def test_lost_readiness_is_told_when_it_stays_and_when_it_is_back(room: Room) -> None:
    await room.follow()
    await room.see(deployment(1))
    assert room.of().bad == ""
    await room.clock.step(3)
    lost = room.of()
    assert "is not ready any more" in lost.bad
    await room.see(deployment(2))
    assert room.of() == LiveHealth(is_live=True, version=lost.version + 1)
    assert room.news == [lost.bad, "is well again"]


async def test_flapping_wakes_nobody(room: Room) -> None:
    await room.follow()
    for _ in range(5):
        await room.see(deployment(1), after=0.5)
        await room.see(deployment(2))
    assert room.news == []


async def test_an_object_that_goes_is_missed_in_the_window(room: Room) -> None:
    await room.follow()
    room.server.remove("apps/v1", "deployments", "apps", "web")
    await room.see(after=5)
    assert room.of().bad == "Deployment/apps/web does not exist"


async def test_each_release_is_judged_by_its_own_workloads(room: Room) -> None:
    room.server.put(deployment(name="db"))
    for release in (WEB, DB):
        await room.follow(release, snapshot(in_window=False))
    await room.see(deployment(0, name="db"), after=5)
    assert room.of(DB).bad
    assert room.of(WEB).bad == ""
    assert {release for release, _ in room.told} == {DB}


async def test_a_workload_that_goes_to_another_release_goes_with_it(room: Room) -> None:
    for release in (WEB, DB):
        await room.follow(release, snapshot(in_window=False))
    await room.see(deployment(0, release="db"), after=20)
    assert room.of(WEB).bad == ""
    assert room.of(DB).bad


async def test_rules_of_the_declaration_see_whole_objects(room: Room) -> None:
    room.server.serve("example.test/v1", "Gadget", "gadgets", is_namespaced=True)
    room.manifests.by_release[WEB] = (manifest("Gadget", "g", "example.test/v1"),)
    rule = HealthCheckExpr.model_validate(
        {"apiVersion": "example.test/v1", "kind": "Gadget", "current": "spec.size > 3"}
    )
    gadget = {
        "apiVersion": "example.test/v1",
        "kind": "Gadget",
        "metadata": {"name": "g", "namespace": "apps"},
        "spec": {"size": 4},
    }
    room.server.put(gadget)
    await room.follow(expressions=(rule,))
    assert room.of() == LiveHealth(is_live=True)
    await room.see({**gadget, "spec": {"size": 2}}, after=5)
    assert "Gadget/apps/g" in room.of().bad


# A new revision, an action


async def test_a_new_revision_begins_well(room: Room) -> None:
    await room.follow()
    await room.see(deployment(0), after=5)
    bad = room.of()
    await room.follow(known=snapshot(2))
    after = room.of()
    assert after.bad == ""
    assert after.version == bad.version + 1


async def test_while_helm_changes_it_nothing_is_seen(room: Room) -> None:
    await room.follow()
    with room.releases.changing(WEB):
        assert not room.of().is_live
        await room.see(deployment(0), pod("CrashLoopBackOff"), after=60)
        assert room.of().bad == ""
        assert room.news == []
        room.server.remove("v1", "pods", "apps", "web-77-a")
        await room.see(deployment(2))
    assert not room.of().is_live
    await room.clock.step(2)
    assert room.of() == LiveHealth(is_live=True, version=0)


async def test_what_helm_left_behind_is_seen_after_it(room: Room) -> None:
    await room.follow()
    with room.releases.changing(WEB):
        await room.follow(known=snapshot(2))
        await room.see(pod("CrashLoopBackOff"))
    await room.clock.step(2)
    assert room.of().is_final


async def test_the_watches_get_a_moment_to_catch_up_with_helm(room: Room) -> None:
    await room.follow()
    with room.releases.changing(WEB):
        await room.see(pod("CrashLoopBackOff"))
    await room.clock.step(0.5)
    room.server.remove("v1", "pods", "apps", "web-77-a")  # helm's doing, seen late
    await room.clock.step(3)
    assert room.news == []
    assert room.of() == LiveHealth(is_live=True)


async def test_a_release_that_is_not_followed_may_be_changed(room: Room) -> None:
    with room.releases.changing(WEB):
        pass
    assert room.releases.of(WEB) is None


# Broken watches


async def test_a_watch_that_breaks_never_makes_anything_bad(room: Room) -> None:
    await room.follow()
    room.server.is_unreachable = True
    room.server.drop_watches()
    await room.clock.step(0.1)
    assert not room.of().is_live
    room.server.put(deployment(0))
    room.server.put(deployment(2))
    room.server.is_unreachable = False
    await room.clock.step(5)
    assert room.of() == LiveHealth(is_live=True)
    assert room.news == []


async def test_what_was_bad_before_a_break_is_no_news_after_it(room: Room) -> None:
    await room.follow()
    await room.see(deployment(0), after=5)
    bad = room.of()
    room.server.is_unreachable = True
    room.server.drop_watches()
    await room.clock.step(0.1)
    assert room.of() == dataclasses.replace(bad, is_live=False, bad="", since=None)
    room.server.is_unreachable = False
    await room.clock.step(5)
    assert room.of() == bad
    assert room.news == [bad.bad]


async def test_an_expired_watch_is_not_worth_a_word(room: Room) -> None:
    await room.follow()
    room.server.expire_watches()
    await room.clock.step(5)
    assert room.news == []
    assert room.of().is_live


async def test_a_release_that_is_not_seen_for_long_is_told_of_in_the_window(room: Room) -> None:
    await room.follow()
    room.server.denied.add(("list", "deployments", "apps"))
    room.server.drop_watches()
    await room.clock.step(5)
    assert room.news == []
    await room.clock.step(7)
    assert room.news == ["is not seen any more"]
    room.told.clear()
    room.server.denied.clear()
    await room.clock.step(61)
    assert room.told == [(WEB, "is watched")]


async def test_outside_of_the_window_that_is_nobodys_business(room: Room) -> None:
    await room.follow(known=snapshot(in_window=False))
    room.server.denied.add(("list", "deployments", "apps"))
    room.server.drop_watches()
    await room.clock.step(30)
    assert room.told == []
    assert not room.of().is_live


async def test_what_may_not_be_watched_is_said_once(
    room: Room, caplog: pytest.LogCaptureFixture
) -> None:
    room.server.denied.add(("list", "pods", "apps"))
    await room.follow()
    await room.clock.step(200)
    assert not room.of().is_live
    assert caplog.text.count("not allowed to watch Pod in apps") == 1
    assert room.told == []


async def test_nothing_is_done_while_nothing_changes(room: Room) -> None:
    await room.follow()
    asked = len(room.server.asked)
    before = room.clock.now()
    await room.clock.step(timedelta(minutes=50).total_seconds())
    assert len(room.server.asked) == asked
    assert room.clock.now() - before == timedelta(minutes=50)


async def test_a_defect_leaves_the_release_to_be_polled_and_the_others_as_they_are(
    room: Room, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    room.server.put(deployment(name="db"))
    for release in (WEB, DB):
        await room.follow(release, snapshot(in_window=False))
    usual = LiveFold.look

    def look(fold: LiveFold, objects: Any, pods: Any, now: Any) -> LiveHealth:
        seen = list(objects)
        if "web" in str(seen):
            raise ZeroDivisionError
        return usual(fold, seen, pods, now)

    monkeypatch.setattr(LiveFold, "look", look)
    await room.see(deployment(1), deployment(1, name="db"), after=5)
    assert room.releases.of(WEB) is None
    assert room.of(DB).bad
    assert "cannot tell how apps/web is doing" in caplog.text
