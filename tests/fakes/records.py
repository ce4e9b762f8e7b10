"""Records in memory, with what a cluster does to them: conflicts, outages, missing namespaces."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection

from helmops.errors import ClusterUnreachable, HelmopsError, ObjectConflict, ObjectNotFound
from helmops.model.records import Record
from helmops.model.releases import ReleaseId
from tests.fakes.cluster_state import Moment, Point


class FakeRecords:
    """The `Records` port. What is kept is what was written as JSON, as in a Secret.

    `is_unreachable` makes every call fail; `fail_next` scripts the errors of the next calls;
    `write_by_other` does what another helmops would. `namespaces` None means that all exist.
    `reach`, where it is set, is told of the moments before and after each write, and may die there.
    """

    def __init__(self, namespaces: Collection[str] | None = None) -> None:
        self.is_unreachable = False
        self.saves: list[Record] = []
        self.reach: Callable[[Moment], Awaitable[None]] | None = None
        self.created_namespaces: list[str] = []
        self._namespaces = None if namespaces is None else set(namespaces)
        self._kept: dict[ReleaseId, tuple[bytes, str]] = {}
        self._version = 0
        self._errors: list[HelmopsError] = []

    def fail_next(self, *errors: HelmopsError) -> None:
        """The next calls raise these, one each."""
        self._errors.extend(errors)

    def write_by_other(self, record: Record) -> Record:
        """Somebody else writes, whatever the version."""
        return self._keep(record)

    def lose(self, release: ReleaseId) -> None:
        """Somebody deletes the record Secret."""
        self._kept.pop(release, None)

    async def load(self, release: ReleaseId) -> Record | None:
        self._meet_fate()
        kept = self._kept.get(release)
        return None if kept is None else Record.from_json(kept[0], version=kept[1])

    async def load_all(self) -> tuple[Record, ...]:
        self._meet_fate()
        return tuple(
            Record.from_json(data, version=version)
            for _, (data, version) in sorted(self._kept.items())
        )

    async def save(self, record: Record) -> Record:
        self._meet_fate()
        namespace = record.release.namespace
        if self._namespaces is not None and namespace not in self._namespaces:
            raise ObjectNotFound(f"the namespace {namespace} does not exist")
        _, version = self._kept.get(record.release, (b"", ""))
        if version != record.version:
            raise ObjectConflict("somebody else wrote the record in between")
        if self.reach is not None:
            await self.reach(Moment("record", Point.STARTED, record.release))
        saved = self._keep(record)
        self.saves.append(saved)
        if self.reach is not None:
            await self.reach(Moment("record", Point.FINISHED, record.release))
        return saved

    async def delete(self, record: Record) -> None:
        self._meet_fate()
        kept = self._kept.get(record.release)
        if kept is None:
            return
        if record.version and kept[1] != record.version:
            raise ObjectConflict("somebody else wrote the record in between")
        del self._kept[record.release]

    async def ensure_namespace(self, namespace: str) -> None:
        self._meet_fate()
        if self._namespaces is not None and namespace not in self._namespaces:
            self._namespaces.add(namespace)
            self.created_namespaces.append(namespace)

    def _keep(self, record: Record) -> Record:
        data = record.to_json()
        kept = self._kept.get(record.release)
        if kept is not None and kept[0] == data:
            return Record.from_json(kept[0], version=kept[1])  # nothing changed, no new version
        self._version += 1
        self._kept[record.release] = (data, str(self._version))
        return Record.from_json(data, version=str(self._version))

    def _meet_fate(self) -> None:
        if self._errors:
            raise self._errors.pop(0)
        if self.is_unreachable:
            raise ClusterUnreachable("no answer from the API server", where="https://fake")
