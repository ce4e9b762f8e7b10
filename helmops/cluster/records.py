"""The record Secret: what helmops remembers of a release, beside the release.

`helmops.<release>`, of type `helmops.dev/record`, in the namespace of Helm's own Secrets, labelled
`owner=helmops` (so that helm overlooks it) and `name=<release>`. Its one key holds the record as
gzipped JSON. Losing it loses verdicts; nothing else that safety depends on is anywhere else.
`helmops.<release>.healthy` is reserved for a copy of the last healthy release Secret.
"""

from __future__ import annotations

import base64
import binascii
import gzip
import logging
import zlib
from collections.abc import Iterable
from typing import Any

from helmops.cluster.api import Api
from helmops.cluster.watches import SecretIndex
from helmops.errors import (
    AccessDenied,
    ClusterError,
    ObjectConflict,
    ObjectNotFound,
)
from helmops.model.records import Record, healthy_secret_name
from helmops.model.releases import ReleaseId

log = logging.getLogger(__name__)

SECRET_TYPE = "helmops.dev/record"  # noqa: S105
DATA_KEY = "record"
LABEL_SELECTOR = "owner=helmops"
DECLARATION_ANNOTATION = "helmops.dev/declaration"

#: etcd takes requests up to 1.5 MiB, and the API server Secrets up to 1 MiB of data.
_LARGEST_CONTENT = 1024 * 1024
#: A record beyond this is none of ours, or a bomb.
_LARGEST_RECORD = 64 * 1024 * 1024
_OBSERVED = "v1", "Secret"


def secret_name(release: ReleaseId) -> str:
    """The name of the release's record Secret."""
    return f"helmops.{release.name}"


class SecretRecords:
    """The `Records` port on record Secrets.

    `namespaces` limits what `load_all` looks at; without it, all namespaces are asked at once and,
    where that is denied, those that this adapter was asked about before. With an `index` a record
    is read again only when its Secret has changed.
    """

    def __init__(
        self, api: Api, *, namespaces: Iterable[str] = (), index: SecretIndex | None = None
    ) -> None:
        self._api = api
        self._index = index
        self._namespaces = set(namespaces)
        self._is_limited = bool(self._namespaces)
        self._cache: dict[ReleaseId, Record] = {}

    def see(self, namespace: str) -> None:
        """Look into this namespace too, where not all may be listed at once."""
        self._namespaces.add(namespace)

    async def load(self, release: ReleaseId) -> Record | None:
        """The record of a release, or None; from memory where the index knows it unchanged."""
        self._namespaces.add(release.namespace)
        known = self._index.record_version(release) if self._index is not None else None
        if known == "":
            self._cache.pop(release, None)
            return None
        cached = self._cache.get(release)
        if cached is not None and known == cached.version:
            return cached
        secret = await self._api.get(*_OBSERVED, secret_name(release), release.namespace)
        if secret is None:
            self._cache.pop(release, None)
            return None
        return self._remember(_record_in(secret))

    async def load_all(self) -> tuple[Record, ...]:
        """Every readable record, by namespace and name; a broken one is logged and left out."""
        records = []
        for secret in await self._list_all():
            metadata = secret["metadata"]
            release = ReleaseId(metadata["namespace"], metadata["labels"].get("name", ""))
            cached = self._cache.get(release)
            if cached is not None and cached.version == metadata["resourceVersion"]:
                records.append(cached)
                continue
            try:
                records.append(self._remember(_record_in(secret)))
            except ClusterError as error:
                log.error("%s", error, extra={"action": "load", "release": str(release)})
        return tuple(sorted(records, key=lambda record: record.release))

    async def save(self, record: Record) -> Record:
        """Write, if nobody wrote since the record's version; returns it with its new version."""
        release = record.release
        self._namespaces.add(release.namespace)
        manifest = _manifest(record)
        try:
            if record.version:
                manifest["metadata"]["resourceVersion"] = record.version
                secret = await self._api.patch(
                    *_OBSERVED, secret_name(release), release.namespace, manifest
                )
            else:
                secret = await self._api.create(manifest)
        except ObjectNotFound as error:
            if record.version:
                raise _conflict(release, "somebody deleted the record") from error
            raise ObjectNotFound(
                f"the namespace {release.namespace} does not exist",
                where=str(release),
                next_step="create it, or set install.createNamespace with targetNamespace",
            ) from None
        except ObjectConflict as error:
            self._cache.pop(release, None)
            raise _conflict(release, "somebody else wrote the record in between") from error
        saved = record.evolve(version=str(secret["metadata"]["resourceVersion"]))
        if self._index is not None:
            self._index.wrote_record(release, saved.version)
        return self._remember(saved)

    async def delete(self, record: Record) -> None:
        """Forget a release; a record that is gone already is no error.

        Raises ObjectConflict where somebody wrote since the record's version.
        """
        release = record.release
        try:
            await self._api.delete(
                *_OBSERVED,
                secret_name(release),
                release.namespace,
                resource_version=record.version,
            )
        except ObjectConflict as error:
            raise _conflict(release, "somebody else wrote the record in between") from error
        finally:
            self._cache.pop(release, None)
        if record.kept is not None:
            await self._api.delete(*_OBSERVED, healthy_secret_name(release), release.namespace)
        if self._index is not None:
            self._index.deleted_record(release)

    async def ensure_namespace(self, namespace: str) -> None:
        """Create the namespace where it does not exist."""
        manifest = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}
        try:
            if await self._api.get("v1", "Namespace", namespace) is not None:
                return
        except AccessDenied:
            log.debug("may not look at namespace %s, trying to create it", namespace)
        try:
            await self._api.create(manifest)
        except ObjectConflict:
            return  # somebody was faster

    async def _list_all(self) -> list[dict[str, Any]]:
        if not self._is_limited:
            try:
                return await self._list("")
            except AccessDenied:
                if not self._namespaces:
                    raise
        secrets: list[dict[str, Any]] = []
        for namespace in sorted(self._namespaces):
            secrets.extend(await self._list(namespace))
        return secrets

    async def _list(self, namespace: str) -> list[dict[str, Any]]:
        listing = await self._api.list(
            *_OBSERVED,
            namespace,
            label_selector=LABEL_SELECTOR,
            field_selector=f"type={SECRET_TYPE}",
        )
        return list(listing.items)

    def _remember(self, record: Record) -> Record:
        self._cache[record.release] = record
        return record


def _conflict(release: ReleaseId, what: str) -> ObjectConflict:
    return ObjectConflict(what, where=f"record of {release}", next_step="the next pass reads it")


def _manifest(record: Record) -> dict[str, Any]:
    release = record.release
    # Without a time in its header, equal records are equal bytes, and writing one changes nothing.
    content = base64.b64encode(gzip.compress(record.to_json(), compresslevel=6, mtime=0))
    if len(content) > _LARGEST_CONTENT:
        raise ClusterError(
            f"the record has {len(content)} bytes, more than a Secret can hold",
            where=str(release),
            next_step="move large values into a ConfigMap or Secret and name it in valuesFrom",
        )
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "type": SECRET_TYPE,
        "metadata": {
            "name": secret_name(release),
            "namespace": release.namespace,
            "labels": {
                "owner": "helmops",
                "name": release.name,
                "app.kubernetes.io/managed-by": "helmops",
            },
            "annotations": {DECLARATION_ANNOTATION: str(record.key)},
        },
        "data": {DATA_KEY: content.decode()},
    }


def _record_in(secret: dict[str, Any]) -> Record:
    """Read a record Secret. Raises ClusterError where it is none of ours."""
    metadata = secret["metadata"]
    where = f"Secret {metadata['namespace']}/{metadata['name']}"
    try:
        packed = base64.b64decode((secret.get("data") or {})[DATA_KEY], validate=True)
        unpacker = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
        content = unpacker.decompress(packed, _LARGEST_RECORD)
        if not unpacker.eof:
            raise ValueError("not the whole of a record")
        record = Record.from_json(content, version=metadata["resourceVersion"])
    except (KeyError, ValueError, binascii.Error, zlib.error) as error:
        raise ClusterError(
            f"the record cannot be read ({type(error).__name__})",
            where=where,
            next_step="restore it from a backup; deleting it makes helmops forget its verdicts, "
            "and then it takes the release over anew",
        ) from None
    if (record.release.namespace, secret_name(record.release)) != (
        metadata["namespace"],
        metadata["name"],
    ):
        raise ClusterError(
            f"the record is of {record.release}, not of this place: was it copied?", where=where
        )
    return record
