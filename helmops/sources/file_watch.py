"""Tells at once that something under some paths changed, without looking at it all the time.

The operating system's notifications (inotify) come within milliseconds, but not from every file
system: whoever uses this looks by itself as well, now and then.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Iterable

from watchfiles import awatch

log = logging.getLogger(__name__)

#: Milliseconds: an editor or a checkout writes several files at once.
_SETTLING = 60
_STEP = 20
_AGAIN_SECONDS = 30.0


class FileWatch:
    """Notifications of changes, from `run` until it is cancelled."""

    def __init__(self, paths: Iterable[str]) -> None:
        self._paths = tuple(paths)
        self._changed = asyncio.Event()

    async def wait(self, seconds: float) -> bool:
        """Wait for a change, at most so long; whether there was one since the last call."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._changed.wait(), seconds)
        was_changed = self._changed.is_set()
        self._changed.clear()
        return was_changed

    async def run(self) -> None:
        """Listen until cancelled. What cannot be watched is left to whoever looks by itself."""
        while self._paths:
            try:
                async for _ in awatch(
                    *self._paths, debounce=_SETTLING, step=_STEP, ignore_permission_denied=True
                ):
                    self._changed.set()
            except (OSError, RuntimeError) as error:
                log.debug("cannot watch files: %s", error, extra={"action": "watch"})
            await asyncio.sleep(_AGAIN_SECONDS)
