"""ConfigMaps and Secrets that declarations refer to, and whose an object is."""

from __future__ import annotations

import asyncio
import base64
import binascii
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from helmops.cluster.api import Api
from helmops.cluster.reference_watches import Reference, ReferenceIndex
from helmops.errors import ClusterError, ObjectNotFound
from helmops.model.releases import DeclarationKey, ReleaseId

#: How helm marks what it applies (`pkg/action/validate.go`, the same in Helm 3 and 4).
RELEASE_NAME = "meta.helm.sh/release-name"
RELEASE_NAMESPACE = "meta.helm.sh/release-namespace"

#: Objects looked at at the same time.
_AT_ONCE = 8


@dataclass(frozen=True, slots=True)
class _Kept:
    """An object as it was read; `data` is None where there was none."""

    version: str
    data: Mapping[str, bytes] | None = field(repr=False)


class ClusterReferences:
    """The `References` port on one cluster.

    With an index that watches what is referred to, an object is read again only when it is another
    version; without one nothing is kept.
    """

    def __init__(self, api: Api, index: ReferenceIndex | None = None) -> None:
        self._api = api
        self._index = index
        self._kept: dict[Reference, _Kept] = {}

    async def config_map(self, key: DeclarationKey) -> Mapping[str, bytes] | None:
        """Its data and binaryData, or None where there is none. Raises ClusterError."""
        return await self._data("ConfigMap", key)

    async def secret(self, key: DeclarationKey) -> Mapping[str, bytes] | None:
        """Its data, decoded, or None where there is none. Raises ClusterError."""
        return await self._data("Secret", key)

    async def _data(self, kind: str, key: DeclarationKey) -> Mapping[str, bytes] | None:
        version = None if self._index is None else self._index.version(kind, key)
        kept = self._kept.get((kind, key))
        if kept is not None and kept.version == version:
            return kept.data
        found = await self._api.get("v1", kind, key.name, key.namespace)
        if self._index is None:
            return _content(kind, key, found)
        version = str(found["metadata"]["resourceVersion"]) if found is not None else ""
        kept = _Kept(version, _content(kind, key, found))
        if self._index.note(kind, key, version):
            self._kept[kind, key] = kept
        return kept.data

    async def owned_by_other(
        self, release: ReleaseId, objects: Sequence[Mapping[str, Any]]
    ) -> tuple[str, ...]:
        """Those of the objects that exist and carry another release's ownership, as
        `Deployment apps/web belongs to release other/shop`.

        An object that nobody owns is left to helm, which refuses it unless told to take it.
        """
        gate = asyncio.Semaphore(_AT_ONCE)

        async def look(manifest: Mapping[str, Any]) -> str:
            async with gate:
                return await self._owner_of(release, manifest)

        told = await asyncio.gather(*(look(manifest) for manifest in _flat(objects)))
        return tuple(text for text in told if text)

    async def _owner_of(self, release: ReleaseId, manifest: Mapping[str, Any]) -> str:
        metadata = manifest.get("metadata") or {}
        name = str(metadata.get("name") or "")
        if not name:
            return ""  # generateName: it cannot exist yet
        api_version, kind = str(manifest["apiVersion"]), str(manifest["kind"])
        try:
            resource = await self._api.resource_for(api_version, kind)
        except ObjectNotFound:
            return ""  # its CRD comes with the chart
        namespace = ""
        if resource.is_namespaced:
            namespace = str(metadata.get("namespace") or release.namespace)
        found = await self._api.get(api_version, kind, name, namespace, metadata_only=True)
        if found is None:
            return ""
        marks = found["metadata"].get("annotations") or {}
        owner = ReleaseId(marks.get(RELEASE_NAMESPACE, ""), marks.get(RELEASE_NAME, ""))
        if not owner.name or owner == release:
            return ""
        place = f"{namespace}/{name}" if namespace else name
        return f"{kind} {place} belongs to release {owner}"


def _content(
    kind: str, key: DeclarationKey, found: Mapping[str, Any] | None
) -> Mapping[str, bytes] | None:
    if found is None:
        return None
    if kind == "Secret":
        return _decoded(found.get("data"), f"Secret {key}")
    texts = {name: str(text).encode() for name, text in (found.get("data") or {}).items()}
    return texts | _decoded(found.get("binaryData"), f"ConfigMap {key}")


def _flat(objects: Sequence[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    """The objects, those inside `List`s too."""
    for manifest in objects:
        if str(manifest.get("kind", "")).endswith("List") and isinstance(
            manifest.get("items"), list
        ):
            yield from _flat(manifest["items"])
        else:
            yield manifest


def _decoded(data: Mapping[str, str] | None, where: str) -> dict[str, bytes]:
    try:
        return {name: base64.b64decode(text) for name, text in (data or {}).items()}
    except binascii.Error as error:
        raise ClusterError("its data is not base64", where=where) from error
