"""Checks of a policy that cannot be asked: no verdict, and nothing left running."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from helmops.errors import ClusterUnreachable, ExpressionError, HelmopsError, ValuesError
from helmops.model.actions import RetryAfter, Stalled
from helmops.model.health import CheckResult
from tests.fakes.cluster_state import FakeChart
from tests.fakes.world import ClusterChecks, World

GOOD = FakeChart(version="1.0.0")
BETTER = FakeChart(version="1.1.0")
CHECKS = [
    {"name": "first", "http": {"url": "http://app/"}},
    {"name": "second", "http": {"url": "http://app/"}},
]
POLICY = {"verify": {"checks": CHECKS}}


class Asked(ClusterChecks):
    """`first` raises, `second` takes its time."""

    error: HelmopsError | None = None
    second_ended = False

    async def policy_check(
        self,
        check: Any,
        release: Any,
        objects: Any,
        *args: Any,
        **more: Any,
    ) -> CheckResult:
        if self.error is not None and check.name == "first":
            raise self.error
        for _ in range(10):
            await asyncio.sleep(0)
        self.second_ended = True
        return CheckResult(check.name, True, "")


@pytest.fixture
def world() -> World:
    world = World()
    world.checks = Asked(world.cluster)
    world.restart()
    return world


@pytest.mark.parametrize("error", [ExpressionError("no such variable"), ValuesError("no password")])
async def test_a_check_that_is_declared_wrongly_is_no_reason_to_roll_back(
    world: World, error: HelmopsError
) -> None:
    world.declare(GOOD, policy=POLICY)
    await world.settle()
    world.checks.error = error
    world.declare(BETTER, policy=POLICY)

    passed = await world.settle()

    assert isinstance(passed.decision, Stalled)
    assert error.what in passed.decision.why
    assert world.running() == "1.1.0"
    assert world.cluster.runs["rollback"] == 0

    world.checks.error = None
    await world.settle()
    assert world.ready()


async def test_no_check_goes_on_after_the_pass_that_asked(world: World) -> None:
    world.declare(GOOD, policy=POLICY)
    world.checks.error = ClusterUnreachable("no answer")

    passed = await world.run_pass()

    assert isinstance(passed.decision, RetryAfter)
    assert world.checks.second_ended
