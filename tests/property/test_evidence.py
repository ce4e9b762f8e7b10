"""Whatever a cluster says of pods and events: evidence is had, bounded, and can be kept."""

from __future__ import annotations

import asyncio
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from helmops.model.evidence import LARGEST_EVIDENCE, Evidence
from tests.unit.checks.test_evidence import World, deployment, event, hook, pod

LEAVES = st.none() | st.booleans() | st.integers() | st.text(max_size=20)
WORDS = st.sampled_from(["Running", "Failed", "True", "False", "CrashLoopBackOff", "Warning"])
FIELDS = st.sampled_from(
    [
        "state",
        "waiting",
        "running",
        "terminated",
        "reason",
        "message",
        "exitCode",
        "name",
        "restartCount",
        "lastState",
        "ready",
        "type",
        "status",
        "count",
        "series",
        "involvedObject",
        "kind",
    ]
)
TREES: st.SearchStrategy[Any] = st.recursive(
    LEAVES | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(FIELDS, inner, max_size=4),
    max_leaves=12,
)


@given(containers=TREES, conditions=TREES, phase=LEAVES | WORDS, odd=TREES, said=st.text())
def test_no_status_of_a_pod_and_no_event_spoils_the_evidence(
    containers: Any, conditions: Any, phase: Any, odd: Any, said: str
) -> None:
    async def gathered() -> Evidence:
        world = World()
        status = {"phase": phase, "containerStatuses": containers, "conditions": conditions}
        world.deploy(pod("web-2-a") | {"status": status})
        told = event("Pod", "web-2-a", "Odd", "odd")
        if isinstance(odd, dict):
            told = odd | {name: told[name] for name in ("apiVersion", "kind", "metadata")}
        world.cluster.put(told)
        world.hooks[2] = [hook(phase="Failed")]
        after = deployment() | {"odd": odd}
        return await world.gather(after, before=[deployment()], helm_output=said, hooks=[said])

    evidence = asyncio.run(gathered())

    assert Evidence.from_json(evidence.to_json()) == evidence
    assert evidence.within(LARGEST_EVIDENCE) == evidence
    assert not any("failed to gather" in line for line in evidence.missing)
    assert evidence.to_text()
