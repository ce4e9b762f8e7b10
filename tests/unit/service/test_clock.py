import asyncio
from datetime import UTC, timedelta

from helmops.service.clock import SystemClock


def test_now_is_aware_and_in_utc() -> None:
    assert SystemClock().now().tzinfo is UTC


async def test_sleeping_less_than_nothing_lets_others_have_their_turn() -> None:
    clock, turns = SystemClock(), []
    other = asyncio.create_task(asyncio.sleep(0))
    other.add_done_callback(lambda _: turns.append("other"))
    before = clock.now()
    await clock.sleep(-3600)
    await clock.sleep(0)
    await clock.sleep(0)
    assert turns == ["other"]
    assert clock.now() - before < timedelta(seconds=3600)
