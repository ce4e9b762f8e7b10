"""What every EvidenceGatherer does: the one of scenarios, and the one that reads a cluster."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Protocol

import pytest

from helmops.checks.evidence import ReleaseEvidence
from helmops.errors import ClusterUnreachable, HelmError
from helmops.model.evidence import LARGEST_EVIDENCE, Evidence, EvidenceKind
from helmops.model.hooks import ChartHook
from helmops.model.releases import ReleaseId
from helmops.reconcile.ports import EvidenceGatherer
from tests.fakes.clock import START, FakeClock
from tests.fakes.cluster_state import FakeCluster, Point
from tests.fakes.evidence import FakeEvidence
from tests.fakes.objects import FakeObjects

WEB = ReleaseId("shop", "web")
POD: dict[str, Any] = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "web-1", "namespace": "shop", "uid": "u"},
    "status": {
        "phase": "Failed",
        "containerStatuses": [{"name": "main", "state": {"terminated": {"exitCode": 1}}}],
    },
}


class World(Protocol):
    """A cluster with a pod that crashed, and somebody who looks into it."""

    gatherer: EvidenceGatherer

    def break_api(self) -> None: ...

    def hang(self) -> None: ...


class Fake:
    def __init__(self) -> None:
        self.cluster = FakeCluster()
        self.gatherer: EvidenceGatherer = FakeEvidence(self.cluster)

    def break_api(self) -> None:
        self.cluster.unreachable = True

    def hang(self) -> None:
        self.cluster.hang("evidence", Point.STARTED)


class Real:
    def __init__(self) -> None:
        clock = FakeClock()
        self.api = FakeObjects(clock)
        self.api.put(POD)
        self.api.container_logs["web-1", "main"] = "panic: no config"
        self.gatherer: EvidenceGatherer = ReleaseEvidence(self.api, clock, self.hooks)

    async def hooks(self, release: ReleaseId, revision: int) -> Sequence[ChartHook]:
        return ()

    def break_api(self) -> None:
        self.api.fails_with = ClusterUnreachable("no answer")

    def hang(self) -> None:
        async def hang(*args: Any, **kwargs: Any) -> None:
            await asyncio.Event().wait()

        self.api.get = hang  # type: ignore[method-assign]


@pytest.fixture(params=[Fake, Real], ids=["fake", "real"])
def world(request: pytest.FixtureRequest) -> World:
    made: World = request.param()
    return made


async def gather(world: World, **more: Any) -> Evidence:
    return await world.gatherer.gather(WEB, 3, [POD], **more)


def section(evidence: Evidence, kind: EvidenceKind) -> str:
    [found] = [one.text for one in evidence.sections if one.kind is kind]
    return found


async def test_evidence_is_of_a_revision_and_a_moment(world: World) -> None:
    evidence = await gather(world)

    assert (evidence.release, evidence.revision) == (WEB, 3)
    assert evidence.at >= START
    assert 1 <= len(evidence.summary.splitlines()) <= 3
    assert Evidence.from_json(evidence.to_json()) == evidence


async def test_what_helm_and_hooks_said_is_in_it(world: World) -> None:
    evidence = await gather(world, helm_output="Error: boom", hooks=["saved"])

    assert section(evidence, EvidenceKind.HELM) == "Error: boom"
    assert section(evidence, EvidenceKind.HOOK_OUTPUT) == "saved"


async def test_it_is_bounded(world: World) -> None:
    evidence = await gather(world, helm_output="x" * 1024)

    assert evidence.within(LARGEST_EVIDENCE) == evidence


async def test_without_a_cluster_the_rest_is_there_and_nothing_is_raised(world: World) -> None:
    world.break_api()

    async with world.gatherer.recording(WEB):
        pass
    evidence = await gather(world, helm_output="Error: boom")

    assert section(evidence, EvidenceKind.HELM) == "Error: boom"
    assert evidence.missing


async def test_a_recording_changes_nothing_of_what_happens_in_it(world: World) -> None:
    with pytest.raises(HelmError, match="boom"):
        async with world.gatherer.recording(WEB):
            raise HelmError("boom")


async def test_gathering_can_be_cancelled(world: World) -> None:
    world.hang()
    task = asyncio.create_task(gather(world))
    await asyncio.wait({task}, timeout=0.1)
    assert not task.done()

    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task
