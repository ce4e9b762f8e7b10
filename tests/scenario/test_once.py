"""Commands that run passes until releases are settled, over fakes."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from helmops.model.releases import DeclarationKey, ReleaseId
from helmops.service.once import Once
from tests.fakes.cluster_state import FakeChart, Point
from tests.fakes.world import Declared, World

APP = DeclarationKey("default", "app")
OTHER = DeclarationKey("default", "other")


class Broken(Declared):
    async def desired(self, *_: Any) -> Any:
        raise KeyError("a mistake of ours")


async def test_a_pass_that_breaks_off_lets_the_others_come_to_their_end_before_it_is_told() -> None:
    world = World()
    world.declare(FakeChart())
    assert world.declared is not None
    good = world.declared
    template = replace(good.template, key=OTHER, release=ReleaseId("default", "other"))
    wanted = {APP: good, OTHER: Broken(template, good.chart, good.values)}
    started = world.cluster.hang("install", Point.STARTED)
    once = Once(
        clock=world.clock, reconciler=world.reconciler, wanted=wanted.__getitem__, concurrency=2
    )
    asyncio.get_running_loop().call_later(0.05, started.set)

    with pytest.raises(KeyError):
        await once.settle([OTHER, APP], timeout=timedelta(minutes=5))

    assert world.reconciler.known[APP].is_ready()
