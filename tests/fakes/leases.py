"""Leases in memory, held by one of several fake processes."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Collection

from helmops.errors import ClusterUnreachable, LeaseHeld, ObjectNotFound
from helmops.model.releases import ReleaseId


class FakeLeases:
    """The `Leases` port of one process; give two of them one `table` to make them meet.

    `holds` keeps who was ever let in. `lose` takes a lease away from whoever holds it, as a
    partition of the network does.
    """

    def __init__(
        self,
        table: dict[ReleaseId, str] | None = None,
        *,
        holder: str = "us",
        namespaces: Collection[str] | None = None,
    ) -> None:
        self.table = {} if table is None else table
        self.holder = holder
        self.is_unreachable = False
        self.holds: list[ReleaseId] = []
        self._namespaces = namespaces
        self._bodies: dict[ReleaseId, asyncio.Task[object]] = {}
        self._lost: set[ReleaseId] = set()

    def hold_by_other(self, release: ReleaseId, holder: str = "another helmops") -> None:
        """Another process holds it from now on."""
        self.table[release] = holder

    def free(self, release: ReleaseId) -> None:
        """The other process gives it back."""
        self.table.pop(release, None)

    def lose(self, release: ReleaseId) -> None:
        """The lease cannot be renewed in time."""
        self._lost.add(release)
        self.table[release] = "another helmops"
        self._bodies[release].cancel()

    @contextlib.asynccontextmanager
    async def hold(self, release: ReleaseId) -> AsyncIterator[None]:
        if self.is_unreachable:
            raise ClusterUnreachable("no answer from the API server", where="https://fake")
        if self._namespaces is not None and release.namespace not in self._namespaces:
            raise ObjectNotFound(f"the namespace {release.namespace} does not exist")
        if release in self.table:
            raise LeaseHeld(
                f"another helmops acts on the release: {self.table[release]}", where=str(release)
            )
        body = asyncio.current_task()
        assert body is not None
        self.table[release] = self.holder
        self.holds.append(release)
        self._bodies[release] = body
        try:
            yield
        except asyncio.CancelledError:
            if release not in self._lost:
                raise
            body.uncancel()
            raise LeaseHeld("the lease could not be renewed in time", where=str(release)) from None
        finally:
            del self._bodies[release]
            if release in self._lost:
                self._lost.discard(release)
            elif self.table.get(release) == self.holder:
                del self.table[release]
