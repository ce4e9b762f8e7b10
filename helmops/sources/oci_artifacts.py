"""Artifacts in OCI registries: which versions there are, and the archives, most of them charts.

One poll serves everybody. What a tag names and which tags there are is asked at most once per
interval, however many releases use it; a tag that did not move costs one HEAD. What was seen is
kept on disk as well, and the archives by their digests: while a registry does not answer, what it
said last counts on, so that an upgrade of what is at hand needs no registry. A registry that
answers "no" (denied, gone) is believed.

Archives are checked against the digests of manifest and layer, looked through (`archive`), and
where keys are given their cosign signatures are checked before anything else.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import json
import os
import tempfile
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import astuple, dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Final
from weakref import WeakValueDictionary

import msgspec
import re2

from helmops.errors import (
    ChartNotFound,
    ChartRefused,
    ConstraintError,
    SignatureRefused,
    SourceError,
    SourceInvalid,
    SourceMissing,
    SourceUnavailable,
    VersionError,
)
from helmops.http import Http
from helmops.model.charts import ChartArtifact, ChartVersion
from helmops.model.credentials import HttpCredentials
from helmops.model.declarations import HelmRepositorySpec, OCIRepositorySpec
from helmops.resolve.constraint import Constraint
from helmops.resolve.version import Version
from helmops.sources.archive import ArchiveLimits, ChartFacts, inspect_archive
from helmops.sources.artifact_cache import ArtifactCache
from helmops.sources.cache_files import disk_errors, salt_in
from helmops.sources.oci_reference import (
    OciRepository,
    digest_with,
    is_oci_digest,
    is_tag,
    tag_of_version,
    version_of_tag,
)
from helmops.sources.oci_registry import (
    Access,
    Descriptor,
    Manifest,
    OciRegistry,
    read_manifest,
)
from helmops.sources.signatures import Signature, check_signatures, fetch_signatures

#: Media types of Helm's artifacts.
HELM_CONFIG: Final = "application/vnd.cncf.helm.config.v1+json"
HELM_CONTENT: Final = "application/vnd.cncf.helm.chart.content.v1.tar+gzip"
_OLD_HELM_CONTENT: Final = "application/tar+gzip"
_IMAGE_CONFIGS: Final = frozenset(
    {
        "application/vnd.oci.image.config.v1+json",
        "application/vnd.docker.container.image.v1+json",
    }
)

#: Seconds in which a failed poll is not tried again for somebody else.
FAILURE_KEPT: Final = 5.0

#: Seconds that a chart of a repository is polled after somebody asked for it.
_ASKED_KEPT: Final = 24 * 3600.0

_MOST_REPOSITORIES: Final = 2000
_MOST_MANIFESTS: Final = 16
_MOST_PINS: Final = 64
#: Bytes of a manifest that is kept on disk; larger ones are fetched anew by the next process.
_KEPT_MANIFEST: Final = 64 * 1024
_MOST_FACTS: Final = 4096


@dataclass(frozen=True, slots=True)
class _Ref:
    """What is wanted of a repository: one digest, one tag, or the tags that are versions."""

    digest: str = ""
    tag: str = ""
    #: Regular expression that tags have to match.
    only: str = ""
    leading_v: bool = False


@dataclass(frozen=True, slots=True)
class _Wanted:
    """A repository, what it is opened with, and what is wanted of it."""

    repository: OciRepository
    credentials: HttpCredentials = field(repr=False)
    ref: _Ref
    interval: timedelta
    timeout: timedelta
    #: The chart as it is asked for, whose last part is the name that it must have; empty for any.
    chart: str = ""
    #: Media type of the layer; empty for Helm's, or else the first.
    layer: str = ""
    #: Whether it is to be any files, and no chart.
    is_files: bool = False

    @property
    def access(self) -> Access:
        return Access(self.credentials, self.timeout)

    def key(self, salt: bytes) -> str:
        """Tells repositories apart, on disk as well; says nothing of the credentials."""
        said = (self.repository.base, self.repository.name, *astuple(self.credentials))
        return hmac.new(salt, json.dumps(said).encode(), hashlib.sha256).hexdigest()


@dataclass(slots=True)
class _Pin:
    """What a tag named when it was asked last."""

    digest: str
    #: By the monotonic clock; None for what an earlier process asked.
    checked_at: float | None = None


@dataclass(slots=True)
class _Known:
    """What is known of one repository, opened with one set of credentials.

    The lock is held while it is polled. `in_use` are tags that were pulled since the list of
    versions changed last: those are looked at when the list is.
    """

    key: str
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    remembered: bool = False
    #: Whether the same is on disk.
    is_kept: bool = False
    tags: tuple[str, ...] | None = None
    listed_at: float | None = None
    pins: OrderedDict[str, _Pin] = field(default_factory=OrderedDict)
    in_use: set[str] = field(default_factory=set)
    manifests: OrderedDict[str, Manifest] = field(default_factory=OrderedDict)
    signatures: OrderedDict[str, tuple[Signature, ...]] = field(default_factory=OrderedDict)
    offered: dict[_Ref, tuple[ChartVersion, ...]] = field(default_factory=dict)
    #: By tag, empty for the list of tags: what went wrong, and until when that counts.
    failures: dict[str, tuple[SourceError, float]] = field(default_factory=dict)


class OciArtifacts:
    """The `OciArtifacts` port of the real world, and what is in registries of `ChartRepositories`
    (`OciChartRepositories`).
    """

    def __init__(
        self,
        http: Http,
        cache: Path,
        *,
        artifacts: ArtifactCache | None = None,
        limits: ArchiveLimits | None = None,
        registry: OciRegistry | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """`cache` is a directory of our own, which other processes may share; it is made where it
        is missing. `artifacts` defaults to a part of it.
        """
        self._registry = registry or OciRegistry(http)
        self._directory = cache / "oci"
        self._artifacts = artifacts or ArtifactCache(cache / "charts")
        self._limits = limits or ArchiveLimits()
        self._monotonic = monotonic
        self._repositories: OrderedDict[str, _Known] = OrderedDict()
        self._pulls: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._facts: OrderedDict[str, ChartFacts] = OrderedDict()
        #: SHA-256 of layers that a registry knows by another digest.
        self._other_digests: dict[str, str] = {}
        #: By repository of charts: what was asked of it, and when.
        self._charts: dict[tuple[str, bool, HttpCredentials], OrderedDict[_Wanted, float]] = {}
        self._salt = b""

    # The port.

    async def versions(
        self, repository: OCIRepositorySpec, credentials: HttpCredentials
    ) -> tuple[ChartVersion, ...]:
        """What `ref` names: one entry for a digest or a tag, for a range one for each tag that is a
        version. The very same tuple as long as nothing changed. Raises SourceError,
        ConstraintError for a `semverFilter` that is no regular expression.
        """
        return await self._versions(_of_artifact(repository, credentials))

    async def pull(
        self,
        repository: OCIRepositorySpec,
        version: ChartVersion,
        credentials: HttpCredentials,
        keys: Sequence[bytes] = (),
    ) -> ChartArtifact:
        """The archive of one of these versions, checked and at hand; its `revision` is Flux's
        (`1.2.3@sha256:…`). `keys` are PEM texts, of which one must have signed it where there are
        any. Raises SourceError, ChartRefused, SignatureRefused.
        """
        asked = _of_artifact(repository, credentials)
        _refuse_want_of_key(repository, asked, keys)
        return await self._pull(asked, version, keys)

    async def refresh(self, repository: OCIRepositorySpec, credentials: HttpCredentials) -> bool:
        """Ask now; whether anything changed. Raises SourceError."""
        return await self._refresh(_of_artifact(repository, credentials))

    async def trouble(self, repository: OCIRepositorySpec, credentials: HttpCredentials) -> str:
        """What went wrong at the last poll, where what was there before stands; else empty."""
        return await self._trouble(_of_artifact(repository, credentials))

    # Charts of a HelmRepository whose URL begins with oci://.

    async def chart_versions(
        self,
        repository: HelmRepositorySpec,
        chart: str,
        credentials: HttpCredentials,
        wanted: str = "",
    ) -> tuple[ChartVersion, ...]:
        """The versions of a chart in a registry; only the `wanted` one where that is a version and
        no range. Raises SourceError, ChartNotFound.
        """
        asked = _of_chart(repository, chart, credentials, wanted)
        self._note(repository, credentials, asked)
        versions = await self._versions(asked)
        if not versions:
            raise ChartNotFound(
                f"no tag of {asked.repository.name} is a version", where=str(asked.repository)
            )
        return versions

    async def pull_chart(
        self,
        repository: HelmRepositorySpec,
        version: ChartVersion,
        credentials: HttpCredentials,
        keys: Sequence[bytes] = (),
    ) -> ChartArtifact:
        """As `pull`; the artifact's `revision` is its version."""
        asked = _of_chart(repository, version.name, credentials, version.version)
        return await self._pull(asked, version, keys)

    async def refresh_charts(
        self, repository: HelmRepositorySpec, credentials: HttpCredentials
    ) -> bool:
        """Ask for all charts of this repository that somebody asked for; whether anything changed.

        One that fails does not keep the others from being asked. Raises SourceError where all do.
        """
        noted = self._charts.get((repository.url, repository.insecure, credentials))
        asked = list(noted or ())
        changed, failures = False, []
        for one in asked:
            try:
                changed = await self._refresh(one) or changed
            except SourceError as error:
                failures.append(error)
        if failures and len(failures) == len(asked):
            raise failures[0]
        return changed

    async def trouble_of_charts(
        self, repository: HelmRepositorySpec, credentials: HttpCredentials
    ) -> str:
        """As `trouble`, of the charts of this repository that somebody asked for."""
        asked = self._charts.get((repository.url, repository.insecure, credentials))
        told = [await self._trouble(one) for one in list(asked or ())]
        return next(filter(None, told), "")

    # Artifacts that are no charts but files, of which one revision is wanted.

    async def revision(self, repository: OCIRepositorySpec, credentials: HttpCredentials) -> str:
        """What `ref` names now, as Flux writes it: `1.2.3@sha256:…`, or the digest alone. Raises
        SourceError, ConstraintError.
        """
        asked = _of_files(repository, credentials)
        if asked.ref.digest:
            return asked.ref.digest
        known = await self._known(asked)
        async with known.lock:
            await self._poll(known, asked)
        tag = _newest_tag(known, asked, repository)
        known.in_use.add(tag)
        return f"{tag}@{await self._pinned(known, replace(asked, ref=_Ref(tag=tag)))}"

    async def last_revision(
        self, repository: OCIRepositorySpec, credentials: HttpCredentials
    ) -> str:
        """What `ref` named when it was asked last, also by an earlier process; empty where that is
        not known. Raises SourceError, ConstraintError.
        """
        asked = _of_files(repository, credentials)
        if asked.ref.digest:
            return asked.ref.digest
        known = await self._known(asked)
        try:
            tag = _newest_tag(known, asked, repository)
        except SourceMissing:
            return ""
        return f"{tag}@{known.pins[tag].digest}" if tag in known.pins else ""

    async def check_files(
        self,
        repository: OCIRepositorySpec,
        revision: str,
        credentials: HttpCredentials,
        keys: Sequence[bytes],
    ) -> None:
        """See that the owner of one of these keys (PEM) signed the revision, where the repository
        says that somebody must have. Raises SourceError, ChartRefused, SignatureRefused.
        """
        if repository.verify is None:
            return
        asked = _of_files(repository, credentials)
        _refuse_want_of_key(repository, asked, keys)
        digest = revision.rpartition("@")[2]
        where = f"{asked.repository}@{digest}"
        await self._check_signature(await self._known(asked), asked, digest, keys, where)

    async def fetch_files(
        self,
        repository: OCIRepositorySpec,
        revision: str,
        credentials: HttpCredentials,
        target: Path,
        *,
        limit: int,
    ) -> None:
        """Write the layer with the files, of at most `limit` bytes, to `target`. Raises
        SourceError, ChartRefused.
        """
        asked = _of_files(repository, credentials)
        digest = revision.rpartition("@")[2]
        where = f"{asked.repository}@{digest}"
        layer = _layer_of(
            await self._manifest(await self._known(asked), asked, digest), asked, where
        )
        if layer.size > limit:
            raise SourceInvalid(f"the layer is larger than {limit >> 20} MiB", where=where)
        with disk_errors(target.parent):
            await self._download(asked, layer, target)

    async def _trouble(self, asked: _Wanted) -> str:
        failed = (await self._known(asked)).failures.get(asked.ref.tag)
        return str(failed[0]) if failed is not None else ""

    def _note(
        self, repository: HelmRepositorySpec, credentials: HttpCredentials, asked: _Wanted
    ) -> None:
        """What polls of the repository ask for: all that was asked within a day."""
        now = self._monotonic()
        noted = self._charts.setdefault(
            (repository.url, repository.insecure, credentials), OrderedDict()
        )
        while len(self._charts) > _MOST_REPOSITORIES:
            del self._charts[next(iter(self._charts))]
        noted[asked] = now
        noted.move_to_end(asked)
        while noted and next(iter(noted.values())) < now - _ASKED_KEPT:
            noted.popitem(last=False)

    # What is known.

    async def _versions(self, asked: _Wanted) -> tuple[ChartVersion, ...]:
        known = await self._known(asked)
        if self._is_fresh(known, asked):  # also while a poll waits for a registry that hangs
            return _offer(known, asked)
        async with known.lock:
            if not self._is_fresh(known, asked):
                try:
                    await self._poll(known, asked)
                except SourceUnavailable:
                    if not _has_something(known, asked.ref):
                        raise
            return _offer(known, asked)

    async def _refresh(self, asked: _Wanted) -> bool:
        known = await self._known(asked)
        async with known.lock:
            before = known.offered.get(asked.ref)
            await self._poll(known, asked, is_urgent=True)
            return _offer(known, asked) is not before

    async def _known(self, asked: _Wanted) -> _Known:
        if not self._salt:
            with disk_errors(self._directory):
                self._salt = await asyncio.to_thread(self._read_salt)
        key = asked.key(self._salt)
        known = self._repositories.setdefault(key, _Known(key))
        self._repositories.move_to_end(key)
        for old in list(self._repositories)[: len(self._repositories) - _MOST_REPOSITORIES]:
            if not self._repositories[old].lock.locked():
                del self._repositories[old]
        if not known.remembered:
            async with known.lock:
                if not known.remembered:
                    await asyncio.to_thread(self._remember, known)
                    known.remembered = True
        return known

    def _is_fresh(self, known: _Known, asked: _Wanted) -> bool:
        """Whether what is known was asked less than an interval ago."""
        if asked.ref.digest:
            return True
        if asked.ref.tag:
            pin = known.pins.get(asked.ref.tag)
            at = pin.checked_at if pin is not None else None
        else:
            at = known.listed_at
        return at is not None and self._monotonic() - at < asked.interval.total_seconds()

    async def _poll(self, known: _Known, asked: _Wanted, *, is_urgent: bool = False) -> None:
        """Ask the registry. Raises SourceError, and remembers for a while that it did."""
        what = asked.ref.tag
        failed = known.failures.get(what)
        if failed is not None and not is_urgent and self._monotonic() < failed[1]:
            raise failed[0].anew()
        try:
            has_news = await self._ask(known, asked)
        except SourceError as error:
            until = self._monotonic() + (error.retry_after or FAILURE_KEPT)
            known.failures[what] = error, until
            raise
        known.failures.pop(what, None)
        if has_news:
            known.offered.clear()
            known.in_use.clear()
        await self._keep(known)

    async def _ask(self, known: _Known, asked: _Wanted) -> bool:
        """Put in memory what the registry says; whether it is other than before."""
        if asked.ref.digest:
            return False
        if asked.ref.tag:
            return await self._ask_tag(known, asked, asked.ref.tag)
        tags = await self._registry.tags(asked.repository, asked.access)
        has_news = known.tags is not None and tags != known.tags
        for tag in sorted(known.in_use & set(tags)):
            has_news = await self._ask_tag(known, asked, tag) or has_news
        known.is_kept = known.is_kept and tags == known.tags
        known.tags = tags
        known.listed_at = self._monotonic()
        return has_news

    async def _ask_tag(self, known: _Known, asked: _Wanted, tag: str) -> bool:
        """What a tag names; whether it named something else before."""
        digest = await self._registry.digest_of(asked.repository, tag, asked.access)
        before = known.pins.get(tag)
        known.pins[tag] = _Pin(digest, self._monotonic())
        known.pins.move_to_end(tag)
        while len(known.pins) > _MOST_PINS:
            known.pins.popitem(last=False)
        known.is_kept = known.is_kept and before is not None and before.digest == digest
        return before is not None and before.digest != digest

    # Pulling.

    async def _pull(
        self, asked: _Wanted, version: ChartVersion, keys: Sequence[bytes]
    ) -> ChartArtifact:
        known = await self._known(asked)
        tag, digest = "", asked.ref.digest
        if not digest:
            tag = asked.ref.tag or _tag_in(version, asked.repository)
            digest = await self._pinned(known, replace(asked, ref=_Ref(tag=tag)))
            known.in_use.add(tag)
        lock = self._pulls.setdefault(digest, asyncio.Lock())
        async with lock:
            return await self._artifact(known, asked, tag, digest, keys)

    async def _pinned(self, known: _Known, asked: _Wanted) -> str:
        """The digest of a tag, asked for where that is due."""
        tag = asked.ref.tag
        if not self._is_fresh(known, asked):
            async with known.lock:
                try:
                    if not self._is_fresh(known, asked):
                        await self._poll(known, asked)
                except SourceUnavailable:
                    if tag not in known.pins:
                        raise
        return known.pins[tag].digest

    async def _artifact(
        self, known: _Known, asked: _Wanted, tag: str, digest: str, keys: Sequence[bytes]
    ) -> ChartArtifact:
        where = f"{asked.repository}:{tag}" if tag else f"{asked.repository}@{digest}"
        if keys:
            await self._check_signature(known, asked, digest, keys, where)
        layer = _layer_of(await self._manifest(known, asked, digest), asked, where)
        if layer.size > self._limits.packed:
            raise ChartRefused(
                f"the chart is larger than {self._limits.packed >> 20} MiB", where=where
            )
        path, sha256 = await self._at_hand(layer) or await self._fetch(asked, layer, where)
        facts = await self._facts_of(path, sha256, where)
        _check_facts(facts, asked, tag, where)
        return ChartArtifact(
            name=facts.name,
            version=facts.version,
            path=str(path),
            digest=sha256,
            source=str(asked.repository),
            revision=facts.version if asked.chart else f"{tag}@{digest}".removeprefix("@"),
            app_version=facts.app_version,
            deprecated=facts.deprecated,
            annotations=facts.annotations,
            is_library=facts.is_library,
        )

    async def _manifest(self, known: _Known, asked: _Wanted, digest: str) -> Manifest:
        manifest = known.manifests.get(digest)
        if manifest is None:
            manifest = await self._registry.manifest(asked.repository, digest, asked.access)
            known.manifests[digest] = manifest
            while len(known.manifests) > _MOST_MANIFESTS:
                known.manifests.popitem(last=False)
            known.is_kept = False
            await self._keep(known)
        return manifest

    async def _check_signature(
        self, known: _Known, asked: _Wanted, digest: str, keys: Sequence[bytes], where: str
    ) -> None:
        """Signatures that were seen are kept, and checked anew each time: the cache vouches for
        nothing, and the registry need not be there.
        """
        with contextlib.suppress(SignatureRefused):
            check_signatures(known.signatures.get(digest, ()), digest, keys, where)
            return
        found = await fetch_signatures(self._registry, asked.repository, digest, asked.access)
        check_signatures(found, digest, keys, where)
        known.signatures[digest] = found
        while len(known.signatures) > _MOST_MANIFESTS:
            known.signatures.popitem(last=False)
        known.is_kept = False
        await self._keep(known)

    async def _at_hand(self, layer: Descriptor) -> tuple[Path, str] | None:
        algorithm, _, value = layer.digest.partition(":")
        sha256 = value if algorithm == "sha256" else self._other_digests.get(layer.digest, "")
        if not sha256:
            return None
        with disk_errors(self._directory), contextlib.suppress(FileNotFoundError):
            path = await asyncio.to_thread(self._artifacts.find, sha256)
            return (path, sha256) if path is not None else None
        return None

    async def _fetch(self, asked: _Wanted, layer: Descriptor, where: str) -> tuple[Path, str]:
        """Stream the layer to the cache; it is looked through before it gets its name there."""
        with disk_errors(self._directory), self._artifacts.incoming() as incoming:
            sha256 = await self._download(asked, layer, incoming)
            await self._facts_of(incoming, sha256, where)
            path = await asyncio.to_thread(self._artifacts.add, incoming, sha256)
        if not layer.digest.startswith("sha256:"):
            self._other_digests[layer.digest] = sha256
        return path, sha256

    async def _download(self, asked: _Wanted, layer: Descriptor, target: Path) -> str:
        """Stream the layer to a file; gives back its SHA-256."""
        hasher = hashlib.sha256()
        with target.open("wb") as file:

            def take(piece: bytes) -> None:
                hasher.update(piece)
                file.write(piece)

            await self._registry.blob(asked.repository, layer, asked.access, take)
        return hasher.hexdigest()

    async def _facts_of(self, path: Path, sha256: str, where: str) -> ChartFacts:
        facts = self._facts.get(sha256)
        if facts is None:
            facts = await asyncio.to_thread(inspect_archive, path, where, self._limits)
            self._facts[sha256] = facts
            while len(self._facts) > _MOST_FACTS:
                self._facts.popitem(last=False)
        return facts

    # On disk, over restarts.

    def _read_salt(self) -> bytes:
        salt = salt_in(self._directory)
        self._trim()
        return salt

    def _trim(self) -> None:
        """Throw away what is known of repositories that nobody asked for longest, of very many."""
        with contextlib.suppress(FileNotFoundError):  # another process does the same
            kept = [(path.stat().st_mtime, path) for path in self._directory.glob("*.json")]
            for _, old in sorted(kept)[: max(0, len(kept) - 2 * _MOST_REPOSITORIES)]:
                old.unlink()

    def _remember(self, known: _Known) -> None:
        """Take up what an earlier process saw, where it is whole. It counts as not asked for."""
        try:
            content = (self._directory / f"{known.key}.json").read_bytes()
            kept = msgspec.json.decode(content, type=_Kept)
        except (OSError, msgspec.DecodeError, RecursionError):
            return  # as if it had never been there
        if kept.tags is not None:
            known.tags = tuple(filter(is_tag, kept.tags))
        for tag, digest in kept.pins.items():
            if is_tag(tag) and is_oci_digest(digest):
                known.pins[tag] = _Pin(digest)
        for digest, body in kept.manifests.items():
            # The cache vouches for nothing: it is checked like one that a registry sends.
            if is_oci_digest(digest) and digest_with(digest, body) == digest:
                with contextlib.suppress(SourceError, ChartRefused):
                    known.manifests[digest] = read_manifest(body, digest, known.key)
        for digest, signatures in kept.signatures.items():
            known.signatures[digest] = tuple(Signature(*one) for one in signatures)
        known.is_kept = True

    async def _keep(self, known: _Known) -> None:
        """Write down what is known, where that is not what is on disk."""
        if known.is_kept:
            return
        kept = _Kept(
            tags=list(known.tags) if known.tags is not None else None,
            pins={tag: pin.digest for tag, pin in known.pins.items()},
            manifests={
                digest: one.body
                for digest, one in known.manifests.items()
                if len(one.body) <= _KEPT_MANIFEST
            },
            signatures={
                digest: [(one.form, one.payload, one.signature) for one in signatures]
                for digest, signatures in known.signatures.items()
            },
        )
        with disk_errors(self._directory):
            await asyncio.to_thread(self._write, known.key, msgspec.json.encode(kept))
        known.is_kept = True

    def _write(self, key: str, content: bytes) -> None:
        handle, name = tempfile.mkstemp(dir=self._directory)
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        Path(name).replace(self._directory / f"{key}.json")


class _Kept(msgspec.Struct):
    """What is on disk of one repository."""

    tags: list[str] | None = None
    pins: dict[str, str] = {}
    manifests: dict[str, bytes] = {}
    signatures: dict[str, list[tuple[str, bytes, bytes]]] = {}


# From declarations to what is asked.


def _of_artifact(spec: OCIRepositorySpec, credentials: HttpCredentials) -> _Wanted:
    """What an OCIRepository wants. Raises SourceInvalid."""
    repository = OciRepository.parse(spec.url, insecure=spec.insecure)
    ref = spec.ref
    if ref.digest:
        if not is_oci_digest(ref.digest):
            raise SourceInvalid(
                "ref.digest is no digest",
                where=str(repository),
                next_step="it looks like sha256: and 64 hexadecimal digits",
            )
        wanted = _Ref(digest=ref.digest)
    elif ref.semver:
        wanted = _Ref(only=ref.semver_filter, leading_v=True)
    else:
        wanted = _Ref(tag=_checked_tag(ref.tag or "latest", repository))
    return _Wanted(
        repository,
        credentials,
        wanted,
        spec.interval,
        spec.timeout,
        layer=spec.layer_selector.media_type if spec.layer_selector else "",
    )


def _of_files(spec: OCIRepositorySpec, credentials: HttpCredentials) -> _Wanted:
    return replace(_of_artifact(spec, credentials), is_files=True)


def _refuse_want_of_key(spec: OCIRepositorySpec, asked: _Wanted, keys: Sequence[bytes]) -> None:
    """Never is a signature not looked at for want of a key."""
    if spec.verify is not None and not keys:
        raise SignatureRefused(
            "a signature is asked for, and no key is given",
            where=str(asked.repository),
            next_step="set verify.secretRef",
        )


def _of_chart(
    spec: HelmRepositorySpec, chart: str, credentials: HttpCredentials, wanted: str
) -> _Wanted:
    """What a chart of a HelmRepository in a registry wants. Raises SourceInvalid."""
    repository = OciRepository.parse(f"{spec.url.rstrip('/')}/{chart}", insecure=spec.insecure)
    is_version = version_of_tag(tag_of_version(wanted), leading_v=True) is not None
    ref = _Ref(tag=_checked_tag(tag_of_version(wanted), repository)) if is_version else _Ref()
    return _Wanted(
        repository,
        credentials,
        ref,
        spec.interval,
        spec.timeout,
        chart=chart,
    )


def _checked_tag(tag: str, repository: OciRepository) -> str:
    if is_tag(tag):
        return tag
    raise SourceInvalid(
        f"{tag[:140]!r} is no tag",
        where=str(repository),
        next_step="letters, digits, `_`, `.` and `-`, at most 128",
    )


def _tag_in(version: ChartVersion, repository: OciRepository) -> str:
    """The tag of a version that was offered. Raises SourceInvalid."""
    named = version.urls[0].partition("@")[0] if version.urls else ""
    return _checked_tag(named.rpartition(":")[2] or tag_of_version(version.version), repository)


def _has_something(known: _Known, ref: _Ref) -> bool:
    """Whether there is something to go on with while the registry does not answer."""
    if ref.digest:
        return True
    return ref.tag in known.pins if ref.tag else known.tags is not None


def _offer(known: _Known, asked: _Wanted) -> tuple[ChartVersion, ...]:
    """The versions that a reference means; the same tuple as long as nothing changed."""
    ref = asked.ref
    offered = known.offered.get(ref)
    if offered is None:
        if ref.digest or ref.tag:
            offered = (_single(known, asked),)
        else:
            offered = tuple(_ranged(known.tags or (), asked))
        known.offered[ref] = offered
        while len(known.offered) > _MOST_PINS:
            del known.offered[next(iter(known.offered))]
    return offered


def _single(known: _Known, asked: _Wanted) -> ChartVersion:
    repository, ref = asked.repository, asked.ref
    digest = ref.digest or known.pins[ref.tag].digest
    tagged = f"{repository}:{ref.tag}" if ref.tag else f"{repository}"
    version = version_of_tag(ref.tag, leading_v=True) or ref.tag or digest
    return ChartVersion(_named(asked), version, urls=(f"{tagged}@{digest}",))


def _ranged(tags: Sequence[str], asked: _Wanted) -> Iterator[ChartVersion]:
    matches = _filter(asked.ref.only, str(asked.repository))
    name, repository = _named(asked), str(asked.repository)
    for tag in sorted(tags, reverse=True):  # so that of equal versions always the same comes first
        version = version_of_tag(tag, leading_v=asked.ref.leading_v)
        if version is not None and matches(tag):
            yield ChartVersion(name, version, urls=(f"{repository}:{tag}",))


def _newest_tag(known: _Known, asked: _Wanted, spec: OCIRepositorySpec) -> str:
    """The tag that is wanted. Raises SourceMissing where none is in the range, ConstraintError."""
    if asked.ref.tag:
        return asked.ref.tag
    wanted = Constraint.parse(spec.ref.semver)
    newest: tuple[Version, str] | None = None
    for offered in _offer(known, asked):
        version = Version.parse(offered.version)
        if wanted.matches(version) and (newest is None or version > newest[0]):
            newest = version, _tag_in(offered, asked.repository)
    if newest is None:
        raise SourceMissing(f"no tag is in {spec.ref.semver!r}", where=str(asked.repository))
    return newest[1]


def _named(asked: _Wanted) -> str:
    return asked.chart or asked.repository.name.rpartition("/")[2]


def _filter(pattern: str, where: str) -> Callable[[str], bool]:
    """Flux's regular expressions are those of RE2, which no text makes slow."""
    if not pattern:
        return lambda _: True
    options = re2.Options()
    options.log_errors = False
    options.max_mem = 1024 * 1024
    try:
        expression = re2.compile(pattern, options)
    except re2.error:
        raise ConstraintError(
            "semverFilter is no regular expression", where=where, next_step="it is read by RE2"
        ) from None
    return lambda tag: expression.search(tag) is not None


# What is in an artifact.


def _layer_of(manifest: Manifest, asked: _Wanted, where: str) -> Descriptor:
    """The layer that is wanted: the chart, or the files. Raises ChartRefused, SourceInvalid."""
    if manifest.is_index and asked.is_files:
        raise SourceInvalid("it is an index of several manifests, not one artifact", where=where)
    if manifest.is_index:
        raise _no_chart("an index of several manifests (an image for several platforms?)", where)
    by_type: dict[str, Descriptor] = {}
    for layer in manifest.layers:
        by_type.setdefault(layer.media_type, layer)
    if asked.layer:
        if asked.layer in by_type:
            return by_type[asked.layer]
        raise ChartRefused(
            f"the artifact has no layer of the media type {asked.layer}",
            where=where,
            next_step=f"it has: {', '.join(sorted(by_type)[:5]) or 'none'}",
        )
    if asked.is_files:
        if not manifest.layers:
            raise SourceInvalid("the artifact has no layers", where=where)
        return manifest.layers[0]
    if manifest.config_type in _IMAGE_CONFIGS and HELM_CONTENT not in by_type:
        raise _no_chart("a container image", where)
    if asked.chart and manifest.config_type != HELM_CONFIG:
        raise _no_chart(f"of the type {manifest.config_type[:100] or '(none)'}", where)
    for kind in (HELM_CONTENT, _OLD_HELM_CONTENT):
        if kind in by_type:
            return by_type[kind]
    if asked.chart or not manifest.layers:
        raise _no_chart("without a layer that could be one", where)
    return manifest.layers[0]


def _no_chart(what: str, where: str) -> ChartRefused:
    return ChartRefused(
        f"the artifact is no Helm chart but {what}",
        where=where,
        next_step="charts are put into registries with helm push",
    )


def _check_facts(facts: ChartFacts, asked: _Wanted, tag: str, where: str) -> None:
    """That the archive is what its repository and tag say. Raises ChartRefused."""
    spelt = version_of_tag(tag, leading_v=True) if tag else None
    same = spelt is None or _same_version(spelt, facts.version, exactly=bool(asked.chart))
    if not same or (asked.chart and facts.name != asked.chart.rpartition("/")[2]):
        raise ChartRefused(
            f"the artifact holds {facts.name} {facts.version}, which is not what its repository"
            " and tag say",
            where=where,
            next_step="push the chart under its own name and version",
        )


def _same_version(one: str, other: str, *, exactly: bool) -> bool:
    """Whether two texts are one version; build metadata counts only where that is asked for."""
    try:
        first, second = Version.parse(one), Version.parse(other)
    except VersionError:
        return False
    return str(first) == str(second) if exactly else first == second
