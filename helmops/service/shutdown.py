"""SIGTERM and Ctrl-C: the first asks to stop, the second insists, the third is the system's."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Coroutine
from types import TracebackType
from typing import Any

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Shutdown:
    """Listens to signals while inside; the event loop must run in the main thread.

        with Shutdown() as shutdown:
            await shutdown.requested()
            ended = await shutdown.unless_forced(stop_everything())

    After the second signal the handlers are gone: a third one ends the process at once.
    """

    def __init__(self) -> None:
        self._asked = asyncio.Event()
        self._insisted = asyncio.Event()
        #: Name of the first signal (`SIGTERM`), empty before it.
        self.reason = ""

    def __enter__(self) -> Shutdown:
        loop = asyncio.get_running_loop()
        for number in _SIGNALS:
            loop.add_signal_handler(number, self.ask, signal.Signals(number).name)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._let_go()

    @property
    def is_requested(self) -> bool:
        """Whether somebody asked to stop."""
        return self._asked.is_set()

    @property
    def is_forced(self) -> bool:
        """Whether somebody insisted."""
        return self._insisted.is_set()

    def ask(self, reason: str) -> None:
        """Ask to stop, as a signal does; asked again, insist."""
        if not self._asked.is_set():
            self.reason = reason
            self._asked.set()
        else:
            self._insisted.set()
            self._let_go()

    async def requested(self) -> str:
        """Wait until somebody asks to stop; says what asked."""
        await self._asked.wait()
        return self.reason

    async def unless_forced(self, stopping: Coroutine[Any, Any, Any]) -> bool:
        """Run a graceful stop to its end, or cancel it when somebody insists.

        Whether it came to its end. What it raises is raised.
        """
        task = asyncio.create_task(stopping)
        insisted = asyncio.create_task(self._insisted.wait())
        try:
            await asyncio.wait({task, insisted}, return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                task.result()
                return True
            return False
        finally:
            insisted.cancel()
            if not task.done():
                task.cancel()
                await asyncio.wait({task})

    def _let_go(self) -> None:
        loop = asyncio.get_running_loop()
        for number in _SIGNALS:
            loop.remove_signal_handler(number)
