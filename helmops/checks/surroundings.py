"""What this room needs of others: a clock, a cluster, somebody to tell."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Protocol

from helmops.cluster.api import Listing
from helmops.cluster.resources import Resource

#: Called with each readable line, already redacted.
Progress = Callable[[str], None]

#: An object of the cluster, decoded.
Object = dict[str, Any]


class Clock(Protocol):
    """Time, the only source of it."""

    def now(self) -> datetime:
        """The time, aware, in UTC."""

    async def sleep(self, seconds: float) -> None:
        """Wait."""


class Cluster(Protocol):
    """The part of `helmops.cluster.api.Api` that checks and hooks use; see there."""

    async def get(
        self,
        api_version: str,
        kind: str,
        name: str,
        namespace: str = "",
        *,
        metadata_only: bool = False,
    ) -> Object | None: ...

    async def list(
        self, api_version: str, kind: str, namespace: str = "", *, label_selector: str = ""
    ) -> Listing: ...

    async def logs(
        self,
        pod: str,
        namespace: str,
        *,
        container: str = "",
        tail_lines: int = 200,
        limit_bytes: int = 256 * 1024,
        previous: bool = False,
    ) -> str: ...

    async def resource_for(self, api_version: str, kind: str) -> Resource: ...

    async def create(self, manifest: Mapping[str, Any]) -> Object: ...

    async def delete(self, api_version: str, kind: str, name: str, namespace: str = "") -> bool: ...
