"""The time of the machine. Nothing else in helmops asks for it."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime


class SystemClock:
    """The Clock of the service and the command line."""

    def now(self) -> datetime:
        """The time, aware, in UTC."""
        return datetime.now(UTC)  # noqa: TID251 - this is the place

    async def sleep(self, seconds: float) -> None:
        """Wait; less than nothing is nothing, but others get their turn."""
        await asyncio.sleep(max(0.0, seconds))
