"""A notifier that remembers what it was told."""

from __future__ import annotations

from helmops.model.events import Event
from helmops.model.records import Record


class FakeNotifier:
    """The `Notifier` port; never raises, as the real one."""

    def __init__(self) -> None:
        self.sent: list[tuple[Event, Record]] = []

    @property
    def reasons(self) -> list[str]:
        """The reasons of all events, in order."""
        return [event.reason for event, _ in self.sent]

    async def send(self, event: Event, record: Record) -> None:
        self.sent.append((event, record))
