"""ConfigMaps, Secrets and ownership in memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from helmops.errors import ClusterUnreachable
from helmops.model.releases import DeclarationKey, ReleaseId


class FakeReferences:
    """The `References` port. `owners` maps (kind, namespace, name) of existing objects to theirs;
    `reads` counts what was asked for."""

    def __init__(self) -> None:
        self.config_maps: dict[DeclarationKey, dict[str, bytes]] = {}
        self.secrets: dict[DeclarationKey, dict[str, bytes]] = {}
        self.owners: dict[tuple[str, str, str], ReleaseId] = {}
        self.is_unreachable = False
        self.reads: list[str] = []

    def put_config_map(self, namespace: str, name: str, **data: str) -> None:
        """Data by key; a dot in a key is written as two underscores."""
        self.config_maps[DeclarationKey(namespace, name)] = _encoded(data)

    def put_secret(self, namespace: str, name: str, **data: str) -> None:
        """Data by key; a dot in a key is written as two underscores."""
        self.secrets[DeclarationKey(namespace, name)] = _encoded(data)

    async def config_map(self, key: DeclarationKey) -> Mapping[str, bytes] | None:
        self._reach(f"ConfigMap {key}")
        return self.config_maps.get(key)

    async def secret(self, key: DeclarationKey) -> Mapping[str, bytes] | None:
        self._reach(f"Secret {key}")
        return self.secrets.get(key)

    async def owned_by_other(
        self, release: ReleaseId, objects: Sequence[Mapping[str, Any]]
    ) -> tuple[str, ...]:
        self._reach(f"objects of {release}")
        told = []
        for manifest in objects:
            metadata = manifest.get("metadata") or {}
            namespace = str(metadata.get("namespace") or release.namespace)
            name = str(metadata.get("name") or "")
            owner = self.owners.get((manifest["kind"], namespace, name))
            if owner is not None and owner != release:
                told.append(f"{manifest['kind']} {namespace}/{name} belongs to release {owner}")
        return tuple(told)

    def _reach(self, what: str) -> None:
        self.reads.append(what)
        if self.is_unreachable:
            raise ClusterUnreachable("no answer from the API server", where="https://fake")


def _encoded(data: Mapping[str, str]) -> dict[str, bytes]:
    return {key.replace("__", "."): text.encode() for key, text in data.items()}
