"""One holder per release: a coordination.k8s.io Lease beside it, `helmops.<release>`.

The holder renews it every few seconds and stops its work when it could not for two thirds of the
lease's duration, so that it has stopped before anybody else may begin. Others take it over

- at once, where the holder is a process of this machine that is dead: the identity names host,
  boot, process namespace, process and its start time, so a new process with an old number is
  another one, and a process in another container is never taken for a dead one of ours;
- once they have seen it unchanged for its whole duration by their own clock, as client-go does:
  the clocks of two machines need not agree;
- at first sight, where by the clocks it has been over for ten minutes besides: clocks that are
  further apart break other things first (certificates, tokens).

Of two that try at the same time one wins: every write names the resourceVersion that it read.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from helmops.cluster.api import Api
from helmops.errors import (
    AccessDenied,
    ClusterError,
    LeaseHeld,
    ObjectConflict,
    ObjectNotFound,
)
from helmops.model.releases import ReleaseId

log = logging.getLogger(__name__)

#: Seconds that a lease is good for after its last renewal.
DURATION = 15.0
#: Seconds between renewals.
RENEW_EVERY = 5.0

_LEASE = "coordination.k8s.io/v1", "Lease"
#: How far two machines' clocks may be apart for a lease to be taken at first sight.
_CLOCK_SKEW = 600.0
#: Seconds that giving a lease back may take; it runs out by itself anyway.
_RELEASE_TIMEOUT = 5.0


@dataclass(frozen=True, slots=True)
class Holder:
    """One process, told apart from every other one that there ever was."""

    host: str
    boot: str
    process_namespace: str
    pid: int
    started: str

    @classmethod
    def this_process(cls) -> Self:
        """Who we are. Where there is no /proc, nobody is ever found to be dead."""
        pid = os.getpid()
        return cls(
            host=socket.gethostname().replace("/", "-"),
            boot=_boot() or f"unknown-{uuid.uuid4()}",
            process_namespace=_process_namespace(),
            pid=pid,
            started=_started(pid) or "0",
        )

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """Read what `str` wrote; None for another program's identity."""
        parts = text.split("/")
        if len(parts) != 5 or not parts[3].isdecimal():
            return None
        return cls(parts[0], parts[1], parts[2], int(parts[3]), parts[4])

    def __str__(self) -> str:
        return f"{self.host}/{self.boot}/{self.process_namespace}/{self.pid}/{self.started}"

    def is_dead(self) -> bool:
        """Whether it surely does not run any more; False for any other machine or container."""
        if self.boot != _boot() or self.host != socket.gethostname().replace("/", "-"):
            return False
        if self.process_namespace != _process_namespace():
            return False
        return _started(self.pid) != self.started


def _boot() -> str:
    with contextlib.suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return ""


def _process_namespace() -> str:
    with contextlib.suppress(OSError):
        return str(Path("/proc/self/ns/pid").stat().st_ino)
    return "0"


def _started(pid: int) -> str:
    """Start time in clock ticks since boot; empty for a process that has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    state, started = fields[0], fields[19]
    return "" if state in "ZX" else started


@dataclass(frozen=True, slots=True)
class _Sight:
    """A foreign lease as first seen at this version."""

    version: str
    at: float


class ClusterLeases:
    """The `Leases` port. `now` is the wall clock, for what is written; waiting goes by
    `monotonic`.
    """

    def __init__(
        self,
        api: Api,
        now: Callable[[], datetime],
        *,
        holder: Holder | None = None,
        duration: float = DURATION,
        renew_every: float = RENEW_EVERY,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._api = api
        self._now = now
        self._holder = holder or Holder.this_process()
        self._duration = duration
        self._renew_every = renew_every
        self._monotonic = monotonic
        self._sleep = sleep
        self._held: set[ReleaseId] = set()
        self._sights: dict[ReleaseId, _Sight] = {}

    @contextlib.asynccontextmanager
    async def hold(self, release: ReleaseId) -> AsyncIterator[None]:
        """Hold the release's lease inside; see the port."""
        if release in self._held:
            raise LeaseHeld("this helmops already acts on the release", where=str(release))
        self._held.add(release)
        try:
            since = self._monotonic()
            lease = await self._acquire(release)
            async with _Tenure(self, release, lease, since):
                yield
        finally:
            self._held.discard(release)

    async def _acquire(self, release: ReleaseId) -> dict[str, Any]:
        """Create it, for there is none mostly; take over the one that there is, if it is free."""
        try:
            return await self._api.create(self._manifest(release))
        except ObjectConflict:
            pass
        except ObjectNotFound:
            raise ObjectNotFound(
                f"the namespace {release.namespace} does not exist", where=str(release)
            ) from None
        try:
            lease = await self._api.get(*_LEASE, lease_name(release), release.namespace)
            if lease is None:
                return await self._api.create(self._manifest(release))
            self._check_free(release, lease)
            return await self._api.replace(self._renewed(lease, is_taken=True))
        except ObjectConflict:
            raise LeaseHeld(
                "another helmops was faster and acts on the release now", where=str(release)
            ) from None
        except ObjectNotFound:
            raise LeaseHeld("the lease changes hands just now", where=str(release)) from None

    def _check_free(self, release: ReleaseId, lease: dict[str, Any]) -> None:
        """Raises LeaseHeld unless the lease may be taken."""
        spec = lease.get("spec") or {}
        identity = str(spec.get("holderIdentity") or "")
        if not identity or identity == str(self._holder):
            return
        holder = Holder.parse(identity)
        if holder is not None and holder.is_dead():
            log.info("took over the lease of a dead process", extra={"release": str(release)})
            return
        duration = float(spec.get("leaseDurationSeconds") or self._duration)
        version = _version(lease)
        sight = self._sights.get(release)
        if sight is None or sight.version != version:
            sight = self._sights[release] = _Sight(version, self._monotonic())
        renewed = _moment(spec.get("renewTime"))
        age = (self._now() - renewed).total_seconds() if renewed is not None else 0.0
        if self._monotonic() - sight.at >= duration or age >= duration + _CLOCK_SKEW:
            log.info("took over a lease that ran out", extra={"release": str(release)})
            return
        who = f"process {holder.pid} on {holder.host}" if holder is not None else identity
        raise LeaseHeld(
            f"another helmops acts on the release: {who}",
            where=str(release),
            next_step=f"it is free {duration:.0f} s after its holder has gone",
        )

    def _manifest(self, release: ReleaseId) -> dict[str, Any]:
        now = _micro_time(self._now())
        return {
            "apiVersion": _LEASE[0],
            "kind": _LEASE[1],
            "metadata": {
                "name": lease_name(release),
                "namespace": release.namespace,
                "labels": {"app.kubernetes.io/managed-by": "helmops"},
            },
            "spec": {
                "holderIdentity": str(self._holder),
                "leaseDurationSeconds": max(1, round(self._duration)),
                "acquireTime": now,
                "renewTime": now,
                "leaseTransitions": 0,
            },
        }

    def _renewed(self, lease: dict[str, Any], *, is_taken: bool) -> dict[str, Any]:
        """The lease as ours, from now on; its resourceVersion stays in, to be checked."""
        now = _micro_time(self._now())
        spec = dict(lease.get("spec") or {})
        if is_taken:
            spec["acquireTime"] = now
            spec["leaseTransitions"] = int(spec.get("leaseTransitions") or 0) + 1
        spec |= {
            "holderIdentity": str(self._holder),
            "leaseDurationSeconds": max(1, round(self._duration)),
            "renewTime": now,
        }
        return {**lease, "spec": spec}

    async def _renew(self, release: ReleaseId, lease: dict[str, Any]) -> dict[str, Any]:
        """Renew once. Raises LeaseHeld where it is another's now, ClusterError where it could not
        be done.
        """
        timeout = self._renew_every
        try:
            return await self._api.replace(self._renewed(lease, is_taken=False), timeout=timeout)
        except ObjectNotFound:
            # Somebody deleted it by hand: it is ours as long as nobody else makes one.
            try:
                return await self._api.create(self._manifest(release), timeout=timeout)
            except ObjectConflict:
                raise _lost(release) from None
        except ObjectConflict:
            found = await self._api.get(
                *_LEASE, lease_name(release), release.namespace, timeout=timeout
            )
            if found is None or not self._is_ours(found):
                raise _lost(release) from None
            return await self._api.replace(self._renewed(found, is_taken=False), timeout=timeout)

    def _is_ours(self, lease: dict[str, Any]) -> bool:
        return bool((lease.get("spec") or {}).get("holderIdentity") == str(self._holder))

    async def _give_back(self, release: ReleaseId, lease: dict[str, Any]) -> None:
        """Delete the lease, unless it is another's by now."""
        try:
            async with asyncio.timeout(_RELEASE_TIMEOUT):
                try:
                    await self._delete(lease)
                except ObjectConflict:
                    # Also after a renewal that was broken off when it had been done already.
                    found = await self._api.get(*_LEASE, lease_name(release), release.namespace)
                    if found is None or not self._is_ours(found):
                        return
                    await self._delete(found)
        except (ClusterError, TimeoutError) as error:
            log.warning(
                "could not give the lease back, it runs out by itself: %s",
                error,
                extra={"release": str(release)},
            )

    async def _delete(self, lease: dict[str, Any]) -> None:
        metadata = lease["metadata"]
        await self._api.delete(
            *_LEASE, metadata["name"], metadata["namespace"], resource_version=_version(lease)
        )


class _Tenure:
    """The time from having acquired a lease to giving it back; renews it in the background."""

    def __init__(
        self, leases: ClusterLeases, release: ReleaseId, lease: dict[str, Any], since: float
    ) -> None:
        self._leases = leases
        self._release = release
        self._lease = lease
        self._since = since
        self._lost: LeaseHeld | None = None

    async def __aenter__(self) -> None:
        task = asyncio.current_task()
        if task is None:  # only outside of any task, which an awaited method never is
            raise RuntimeError("a lease is held by a task")
        self._body = task
        self._cancellations = task.cancelling()
        self._renewal = asyncio.create_task(self._keep())

    async def __aexit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self._renewal.cancel()
        await asyncio.wait([self._renewal])
        if self._lost is None:
            # Not to be broken off by a second cancellation: 15 s of waiting for others otherwise.
            await asyncio.shield(self._leases._give_back(self._release, self._lease))
            return
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(0)  # our own cancellation, where the body ended before it came
        if self._body.uncancel() > self._cancellations:
            if error is None:
                raise asyncio.CancelledError
            return  # somebody else cancels the body too: that is what goes on
        if error is None or isinstance(error, asyncio.CancelledError):
            raise self._lost from None

    async def _keep(self) -> None:
        leases = self._leases
        # Others may begin when the duration is over: a third of it is for stopping.
        patience = leases._duration * 2 / 3
        try:
            while True:
                await leases._sleep(leases._renew_every)
                began = leases._monotonic()
                try:
                    async with asyncio.timeout(max(0.1, self._since + patience - began)):
                        self._lease = await leases._renew(self._release, self._lease)
                    self._since = began
                except (ClusterError, TimeoutError) as error:
                    if isinstance(error, AccessDenied):
                        log.warning("may not renew the lease: %s", error)
                    if leases._monotonic() - self._since >= patience:
                        raise LeaseHeld(
                            "the lease could not be renewed in time, so the work was stopped",
                            where=str(self._release),
                            next_step="the next pass goes on where this one was",
                        ) from error
        except LeaseHeld as lost:
            self._lost = lost
            self._body.cancel()


def lease_name(release: ReleaseId) -> str:
    """The name of the release's Lease; release names have at most 53 characters."""
    return f"helmops.{release.name}"


def _version(lease: dict[str, Any]) -> str:
    return str(lease["metadata"]["resourceVersion"])


def _lost(release: ReleaseId) -> LeaseHeld:
    return LeaseHeld("another helmops has taken the lease over", where=str(release))


def _micro_time(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _moment(text: object) -> datetime | None:
    try:
        return datetime.fromisoformat(str(text))
    except ValueError:
        return None
