from __future__ import annotations

import asyncio
import os
import signal

import pytest

from helmops.service.shutdown import Shutdown


def send(number: signal.Signals) -> None:
    os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_the_first_signal_asks_to_stop(number: signal.Signals) -> None:
    with Shutdown() as shutdown:
        send(number)
        assert await asyncio.wait_for(shutdown.requested(), 30) == number.name
        assert shutdown.is_requested
        assert not shutdown.is_forced


async def test_the_second_signal_breaks_off_a_graceful_stop() -> None:
    cleaned = []

    async def stop_slowly() -> None:
        try:
            send(signal.SIGINT)
            await asyncio.Event().wait()
        finally:
            cleaned.append("up")

    with Shutdown() as shutdown:
        send(signal.SIGTERM)
        assert await shutdown.requested() == "SIGTERM"
        assert not await asyncio.wait_for(shutdown.unless_forced(stop_slowly()), 30)
        assert shutdown.is_forced
        assert cleaned == ["up"]
        # The third one is the system's: it would end this very process.
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


async def test_a_graceful_stop_that_ends_by_itself_is_said_to() -> None:
    with Shutdown() as shutdown:
        shutdown.ask("test")
        assert await shutdown.requested() == "test"
        assert await shutdown.unless_forced(asyncio.sleep(0))


async def test_what_goes_wrong_while_stopping_is_not_swallowed() -> None:
    async def fail() -> None:
        raise RuntimeError("no")

    with Shutdown() as shutdown, pytest.raises(RuntimeError, match="no"):
        await shutdown.unless_forced(fail())


async def test_a_cancelled_stop_takes_its_work_along() -> None:
    started, ended = asyncio.Event(), asyncio.Event()

    async def stop_slowly() -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    with Shutdown() as shutdown:
        stopping = asyncio.create_task(shutdown.unless_forced(stop_slowly()))
        await started.wait()
        stopping.cancel()
        with pytest.raises(asyncio.CancelledError):
            await stopping
    assert ended.is_set()


async def test_the_handlers_are_gone_afterwards() -> None:
    with Shutdown():
        assert signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
