"""Reads and mends Helm's release Secrets: the `ReleaseStorage` port over the Kubernetes API.

A Secret `sh.helm.release.v1.NAME.vN` of type `helm.sh/release.v1` holds one revision: JSON,
gzipped, in base64, and that in base64 again, because Kubernetes encodes Secrets. Helm 3 and 4 write
the same (seen with 3.19.0 and 4.3.1): 4 adds `apply_method` and leaves out empty fields.

A Secret's body is read when its resourceVersion is new, and only what a pass needs of it is kept.
With a live index of the Secrets' versions an idle release costs no request at all.

What is written back goes through the standard library's json, whole: helm keeps fields that we do
not know, and faster decoders lose integers beyond 64 bits.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import gzip
import json
import zlib
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol, TypeVar

import msgspec

from helmops.errors import HelmError, ObjectConflict, ReleaseNotFound
from helmops.helm.documents import parse_manifest
from helmops.model.hooks import ChartHook
from helmops.model.records import healthy_secret_name
from helmops.model.releases import (
    HelmStatus,
    ReleaseId,
    Revision,
    StoredRelease,
    TestHook,
    TestPhase,
)
from helmops.resolve.digest import config_digest, revision_digest

SECRET_TYPE = "helm.sh/release.v1"  # noqa: S105 (a type, not a password)
COPY_TYPE = "helmops.dev/healthy"
_COPIED_REVISION = "helmops.dev/revision"
_COPIED_DIGEST = "helmops.dev/digest"

#: Encoded bodies above this size are decoded in a thread: a chart at Helm's limit takes 40 ms.
_LARGE = 64_000
#: No release is larger: Helm's limit is 1 MiB compressed, and text shrinks by 20 at most.
_LARGEST = 1 << 28
_GZIP = b"\x1f\x8b\x08"
_TEST_EVENTS = frozenset({"test", "test-success"})
_LONG_AGO = datetime.fromtimestamp(0, UTC)

T = TypeVar("T")
Object = dict[str, Any]


#: Secrets that are kept whole for a moment; one can have 1 MiB.
_KEPT_SECRETS = 16


class Page(Protocol):
    """A list as the API gave it."""

    @property
    def items(self) -> tuple[Object, ...]: ...

    @property
    def resource_version(self) -> str: ...


class SecretApi(Protocol):
    """What is asked of the Kubernetes API; `helmops.cluster.api.Api` has it."""

    async def get(
        self, api_version: str, kind: str, name: str, namespace: str = ""
    ) -> Object | None: ...

    async def list(
        self,
        api_version: str,
        kind: str,
        namespace: str = "",
        *,
        label_selector: str = "",
        metadata_only: bool = False,
    ) -> Page: ...

    async def create(self, manifest: Mapping[str, Any]) -> Object: ...

    async def replace(self, manifest: Mapping[str, Any]) -> Object: ...

    async def delete(self, api_version: str, kind: str, name: str, namespace: str = "") -> bool: ...


class SecretIndex(Protocol):
    """What a watch knows of release Secrets; `helmops.cluster.watches.SecretIndex` has it."""

    def versions(self, release: ReleaseId) -> Mapping[str, str] | None:
        """ResourceVersion by name of all Secrets of a release; None where it cannot be sure."""

    def changing(self, release: ReleaseId) -> AbstractContextManager[None]:
        """Around changes of ours: what the watch knew before is not to be believed after."""

    def begin_read(self, release: ReleaseId) -> Any:
        """Call before a list; gives a mark for `finish_read`."""

    def finish_read(self, mark: Any, versions: Mapping[str, str], resource_version: str) -> None:
        """Say what the list showed."""


class NoIndex:
    """Where nothing watches: every read asks the API."""

    def versions(self, release: ReleaseId) -> Mapping[str, str] | None:
        return None

    def changing(self, release: ReleaseId) -> AbstractContextManager[None]:
        return nullcontext()

    def begin_read(self, release: ReleaseId) -> Any:
        return None

    def finish_read(self, mark: Any, versions: Mapping[str, str], resource_version: str) -> None:
        return None


@dataclass(frozen=True, slots=True)
class _Entry:
    """One Secret as last read; `revision` is None where it is not Helm's."""

    version: str
    revision: Revision | None
    apply_method: str = ""


@dataclass(frozen=True, slots=True)
class _Known:
    """All Secrets of one release, and what was made of them."""

    entries: Mapping[str, _Entry]
    versions: Mapping[str, str]
    stored: StoredRelease


class HelmStorage:
    """Helm's storage of all releases of one cluster. Remembers what it read, by version."""

    def __init__(self, api: SecretApi, index: SecretIndex | None = None) -> None:
        self._api = api
        self._index: SecretIndex = index or NoIndex()
        self._known: dict[ReleaseId, _Known] = {}
        #: Secrets as they were read last: what is read after a release is mostly its manifest.
        self._recent: OrderedDict[tuple[ReleaseId, str], Object] = OrderedDict()

    async def read(self, release: ReleaseId) -> StoredRelease:
        """All stored revisions, oldest first; without a request where the index has no news.

        Raises ClusterError, and HelmError naming a Secret that cannot be read.
        """
        return (await self._read(release)).stored

    async def objects(self, release: ReleaseId, revision: int) -> tuple[Object, ...]:
        """The manifest of one revision, parsed, without hooks. Namespaces are as the chart has
        them, absent ones too. Raises ReleaseNotFound, HelmError, ClusterError.
        """
        body = await self._body(release, revision)
        return parse_manifest(body.get("manifest") or "", f"{release}.v{revision}")

    async def hooks(self, release: ReleaseId, revision: int) -> tuple[ChartHook, ...]:
        """The hooks and tests of one revision, and how each ran. Raises ReleaseNotFound, HelmError,
        ClusterError.
        """
        body = await self._body(release, revision)
        return tuple(
            _chart_hook(hook, release) for hook in body.get("hooks") or () if hook.get("manifest")
        )

    async def chart_and_values(self, release: ReleaseId, revision: int) -> tuple[Object, Object]:
        """The chart as Helm keeps it (`metadata`, `templates`, `values`, `files`…, contents in
        base64), and the user's values. Raises ReleaseNotFound, HelmError, ClusterError.
        """
        body = await self._body(release, revision)
        return body.get("chart") or {}, body.get("config") or {}

    async def apply_method(self, release: ReleaseId, revision: int | None) -> str:
        """How the objects of a revision (None: the last) were applied: `ssa` or `csa`; empty where
        helm 3 wrote it. Raises ClusterError, HelmError.
        """
        known = await self._read(release)
        by_number = {
            entry.revision.number: entry.apply_method
            for entry in known.entries.values()
            if entry.revision is not None
        }
        number = max(by_number, default=0) if revision is None else revision
        return by_number.get(number, "")

    async def mark_failed(self, release: ReleaseId, revision: int, description: str) -> None:
        """Break a lock: a pending revision becomes `failed`, in the body and in the label.

        Nothing else changes, and one that is failed already is left alone. Raises ReleaseNotFound,
        ObjectConflict where somebody wrote in between or finished it, HelmError, ClusterError.
        """
        name = secret_name(release, revision)
        secret = await self._api.get("v1", "Secret", name, release.namespace)
        if secret is None:
            raise _no_revision(release, revision)
        body = json.loads(_unpack(secret, release))
        info = body.get("info") or {}
        status = _status(info.get("status"))
        if status is HelmStatus.FAILED:
            return
        if not status.is_pending:
            raise ObjectConflict(
                f"revision {revision} is {status.value} by now, so its lock is not broken",
                where=str(release),
                next_step="helmops looks again",
            )
        body["info"] = info | {"status": HelmStatus.FAILED.value, "description": description}
        secret["data"]["release"] = _pack(body)
        labels = secret["metadata"].setdefault("labels", {})
        labels["status"] = HelmStatus.FAILED.value
        with self._index.changing(release):
            await self._api.replace({"apiVersion": "v1", "kind": "Secret"} | secret)

    async def prune(self, release: ReleaseId, revisions: Sequence[int]) -> None:
        """Delete these revisions; one that is gone already is no error. Raises ClusterError."""
        if not revisions:
            return
        with self._index.changing(release):
            for number in sorted(revisions):
                name = secret_name(release, number)
                await self._api.delete("v1", "Secret", name, release.namespace)

    async def values(self, release: ReleaseId, revision: int) -> Object:
        """The values that a revision was released with, secret ones among them. Raises
        ReleaseNotFound, HelmError, ClusterError.
        """
        return (await self.chart_and_values(release, revision))[1]

    async def keep(self, release: ReleaseId, revision: int, digest: str) -> None:
        """Copy a revision to where nobody prunes it, over the copy that is there.

        The copy has the data of Helm's Secret and none of its labels, so that no helm takes it for
        a revision. Raises ReleaseNotFound where the revision is gone or is another one by now,
        HelmError, ClusterError.
        """
        secret = await self._secret(release, revision)
        entry = await _entry(secret, release)
        if entry.revision is None or entry.revision.digest != digest:
            raise _no_revision(release, revision)
        copy: Object = {
            "apiVersion": "v1",
            "kind": "Secret",
            "type": COPY_TYPE,
            "metadata": {
                "name": healthy_secret_name(release),
                "namespace": release.namespace,
                "labels": {"app.kubernetes.io/managed-by": "helmops"},
                "annotations": {_COPIED_REVISION: str(revision), _COPIED_DIGEST: digest},
            },
            "data": {"release": secret["data"]["release"]},
        }
        try:
            await self._api.create(copy)
        except ObjectConflict:
            await self._api.replace(copy)

    async def put_back(self, release: ReleaseId, revision: int, digest: str) -> None:
        """Store the kept copy as `superseded` under its own number.

        Raises ReleaseNotFound where there is no copy of that digest, ObjectConflict where another
        revision has the number, HelmError, ClusterError.
        """
        copy = await self._api.get("v1", "Secret", healthy_secret_name(release), release.namespace)
        said = ((copy or {}).get("metadata") or {}).get("annotations") or {}
        if copy is None or said.get(_COPIED_DIGEST) != digest:
            raise ReleaseNotFound(
                f"no copy of revision {revision} was kept",
                where=str(release),
                next_step="upgrade to a version that works; there is nothing to go back to",
            )
        body = json.loads(_unpack(copy, release))
        if revision_of(body).digest != digest:
            raise _unreadable(copy, release, "it is another revision than it says")
        status = HelmStatus.SUPERSEDED.value
        body["info"] = body["info"] | {"status": status}
        labels = {"name": release.name, "owner": "helm", "status": status, "version": str(revision)}
        secret: Object = {
            "apiVersion": "v1",
            "kind": "Secret",
            "type": SECRET_TYPE,
            "metadata": {
                "name": secret_name(release, revision),
                "namespace": release.namespace,
                "labels": labels,
            },
            "data": {"release": _pack(body)},
        }
        with self._index.changing(release):
            try:
                await self._api.create(secret)
            except ObjectConflict:
                # Asked anew: what is remembered of the number may be of an earlier life.
                name = secret_name(release, revision)
                found = await self._api.get("v1", "Secret", name, release.namespace)
                there = await _entry(found, release) if found is not None else None
                if there is None or there.revision is None or there.revision.digest != digest:
                    raise

    # ------------------------------------------------------------------ reading

    async def _read(self, release: ReleaseId) -> _Known:
        known = self._known.get(release)
        versions = self._index.versions(release)
        if versions is not None:
            if known is not None and versions == known.versions:
                return known
            entries = await self._entries(release, known, versions)
        elif known is not None and known.entries:
            mark = self._index.begin_read(release)
            page = await self._list(release, metadata_only=True)
            versions = _versions(page.items)
            entries = await self._entries(release, known, versions)
            self._index.finish_read(mark, versions, page.resource_version)
        else:
            mark = self._index.begin_read(release)
            page = await self._list(release)
            entries = {
                str(secret["metadata"]["name"]): await self._entry(secret, release)
                for secret in page.items
            }
            self._index.finish_read(mark, _versions(page.items), page.resource_version)
        if known is not None and entries == known.entries:
            return known
        return self._remember(release, entries)

    async def _entries(
        self, release: ReleaseId, known: _Known | None, versions: Mapping[str, str]
    ) -> dict[str, _Entry]:
        """An entry for each version: what is known already, else a body that is read."""
        before = known.entries if known is not None else {}
        entries: dict[str, _Entry] = {}
        for name, version in versions.items():
            entry = before.get(name)
            if entry is None or entry.version != version:
                secret = await self._api.get("v1", "Secret", name, release.namespace)
                if secret is None:
                    continue  # deleted since the list
                entry = await self._entry(secret, release)
            entries[name] = entry
        return entries

    async def _entry(self, secret: Object, release: ReleaseId) -> _Entry:
        key = release, str(secret["metadata"]["name"])
        self._recent[key] = secret
        self._recent.move_to_end(key)
        while len(self._recent) > _KEPT_SECRETS:
            self._recent.popitem(last=False)
        return await _entry(secret, release)

    async def _list(self, release: ReleaseId, *, metadata_only: bool = False) -> Page:
        return await self._api.list(
            "v1",
            "Secret",
            release.namespace,
            label_selector=f"owner=helm,name={release.name}",
            metadata_only=metadata_only,
        )

    def _remember(self, release: ReleaseId, entries: Mapping[str, _Entry]) -> _Known:
        versions = {name: entry.version for name, entry in entries.items()}
        revisions = sorted(
            (entry.revision for entry in entries.values() if entry.revision is not None),
            key=lambda revision: revision.number,
        )
        version = ",".join(f"{name}@{versions[name]}" for name in sorted(versions))
        known = _Known(entries, versions, StoredRelease(tuple(revisions), version))
        if entries:
            self._known[release] = known
        else:
            self._known.pop(release, None)
        return known

    async def _body(self, release: ReleaseId, revision: int) -> Object:
        secret = await self._secret(release, revision)
        return await _off_the_loop(secret, lambda: _decode(secret, release))

    async def _secret(self, release: ReleaseId, revision: int) -> Object:
        name = secret_name(release, revision)
        known = self._known.get(release)
        entry = known.entries.get(name) if known is not None else None
        secret = self._recent.get((release, name))
        # A status that helm rewrote since is another version; what is asked for here does not
        # change, but a name can come again after an uninstall.
        is_same = (
            entry is not None
            and secret is not None
            and secret["metadata"].get("resourceVersion") == entry.version
        )
        if secret is None or not is_same:
            secret = await self._api.get("v1", "Secret", name, release.namespace)
        if secret is None:
            raise _no_revision(release, revision)
        return secret


def secret_name(release: ReleaseId, revision: int) -> str:
    """Helm's name for the Secret of a revision."""
    return f"sh.helm.release.v1.{release.name}.v{revision}"


def revision_of(body: Mapping[str, Any]) -> Revision:
    """The noun of a decoded release; only fields that Helm always writes must be there."""
    info, chart = body["info"], body.get("chart") or {}
    metadata = chart.get("metadata") or {}
    hooks = body.get("hooks") or []
    return Revision(
        number=int(body["version"]),
        status=_status(info.get("status")),
        digest=revision_digest(chart, body.get("config"), body.get("manifest") or "", hooks),
        chart_name=str(metadata.get("name") or ""),
        chart_version=str(metadata.get("version") or ""),
        app_version=str(metadata.get("appVersion") or ""),
        config_digest=config_digest(body.get("config")),
        first_deployed=_time(info.get("first_deployed")) or _LONG_AGO,
        last_deployed=_time(info.get("last_deployed")) or _LONG_AGO,
        description=str(info.get("description") or ""),
        test_hooks=tuple(
            _test_hook(hook) for hook in hooks if _TEST_EVENTS & set(hook.get("events") or ())
        ),
    )


def _test_hook(hook: Mapping[str, Any]) -> TestHook:
    last_run = hook.get("last_run") or {}
    phase = str(last_run.get("phase") or "")
    return TestHook(
        name=str(hook.get("name") or ""),
        phase=TestPhase(phase) if phase in set(TestPhase) else TestPhase.UNKNOWN,
        last_started=_time(last_run.get("started_at")),
        last_completed=_time(last_run.get("completed_at")),
    )


def _chart_hook(hook: Mapping[str, Any], release: ReleaseId) -> ChartHook:
    try:
        objects = parse_manifest(str(hook["manifest"]), f"{release}, hook {hook.get('name')}")
    except HelmError:
        objects = ()  # helm ran it, so it is YAML to helm; all else is known without it
    manifest = objects[0] if objects else {}
    return ChartHook(
        kind=str(hook.get("kind") or ""),
        name=str(hook.get("name") or ""),
        namespace=str((manifest.get("metadata") or {}).get("namespace") or release.namespace),
        events=tuple(str(event) for event in hook.get("events") or ()),
        delete_policies=tuple(str(policy) for policy in hook.get("delete_policies") or ()),
        phase=str((hook.get("last_run") or {}).get("phase") or ""),
        manifest=manifest,
    )


async def _entry(secret: Object, release: ReleaseId) -> _Entry:
    def read() -> _Entry:
        version = str(secret["metadata"].get("resourceVersion") or "")
        if secret.get("type", SECRET_TYPE) != SECRET_TYPE:
            return _Entry(version, None)  # somebody's own Secret with Helm's labels
        body = _decode(secret, release)
        try:
            revision = revision_of(body)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise _unreadable(secret, release, "it holds no release of Helm's") from error
        return _Entry(version, revision, str(body.get("apply_method") or ""))

    return await _off_the_loop(secret, read)


async def _off_the_loop(secret: Object, work: Callable[[], T]) -> T:
    """Do it here, or in a thread where the body is so large that others would wait."""
    if len((secret.get("data") or {}).get("release") or "") < _LARGE:
        return work()
    return await asyncio.to_thread(work)


def _decode(secret: Object, release: ReleaseId) -> Object:
    try:
        body = msgspec.json.decode(_unpack(secret, release))
    except msgspec.MsgspecError as error:
        raise _unreadable(secret, release, "it is no JSON") from error
    if not isinstance(body, dict):
        raise _unreadable(secret, release, "it holds no release of Helm's")
    return body


def _unpack(secret: Object, release: ReleaseId) -> bytes:
    """The JSON text in a release Secret."""
    encoded = (secret.get("data") or {}).get("release")
    if not isinstance(encoded, str):
        raise _unreadable(secret, release, "it has no key `release`")
    try:
        packed = base64.b64decode(base64.b64decode(encoded, validate=True), validate=True)
        if not packed.startswith(_GZIP):
            return packed  # Helm 2 and early 3 did not compress
        unzipper = zlib.decompressobj(wbits=31)
        text = unzipper.decompress(packed, _LARGEST)
    except (binascii.Error, ValueError, zlib.error) as error:
        raise _unreadable(secret, release, f"it is damaged: {error}") from error
    if not unzipper.eof:
        raise _unreadable(secret, release, "it is damaged: its data end too early, or never")
    return text


def _pack(body: Mapping[str, Any]) -> str:
    """A release as Helm stores it."""
    text = json.dumps(body, separators=(",", ":"), ensure_ascii=False).encode()
    packed = gzip.compress(text, compresslevel=9, mtime=0)
    return base64.b64encode(base64.b64encode(packed)).decode()


def _versions(secrets: Sequence[Object]) -> dict[str, str]:
    return {
        str(secret["metadata"]["name"]): str(secret["metadata"].get("resourceVersion") or "")
        for secret in secrets
    }


def _status(text: Any) -> HelmStatus:
    return HelmStatus(text) if text in set(HelmStatus) else HelmStatus.UNKNOWN


def _time(text: Any) -> datetime | None:
    """Go's RFC 3339 with up to nine digits, in any zone; its zero time is none."""
    if not text or str(text).startswith("0001-"):
        return None
    try:
        return datetime.fromisoformat(str(text)).astimezone(UTC)
    except ValueError:
        return None


def _no_revision(release: ReleaseId, revision: int) -> ReleaseNotFound:
    return ReleaseNotFound(
        f"Helm's storage has no revision {revision}",
        where=str(release),
        next_step="see `helm history`",
    )


def _unreadable(secret: Object, release: ReleaseId, why: str) -> HelmError:
    name = (secret.get("metadata") or {}).get("name") or "?"
    return HelmError(
        f"the release Secret {name} cannot be read: {why}",
        where=str(release),
        next_step="restore it from a backup, or delete it if the revision is not needed",
    )
