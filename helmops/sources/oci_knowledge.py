"""What is known of repositories in OCI registries: their tags, and what these name.

One poll serves everybody. What a tag names and which tags there are is asked at most once per
interval, however many releases use it; a tag that did not move costs one HEAD. What was seen is
kept on disk as well: while a registry does not answer, what it said last counts on. A registry that
answers "no" (denied, gone) is believed. Manifests are checked against their digests, and where keys
are given, cosign signatures are checked before anything else.
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
from dataclasses import astuple, dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Final

import msgspec
import re2

from helmops.errors import (
    ChartRefused,
    ConstraintError,
    SignatureRefused,
    SourceError,
    SourceInvalid,
    SourceUnavailable,
)
from helmops.http import Http
from helmops.model.charts import ChartVersion
from helmops.model.credentials import HttpCredentials
from helmops.model.declarations import OCIRepositorySpec
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

#: Seconds in which a failed poll is not tried again for somebody else.
FAILURE_KEPT: Final = 5.0

MOST_REPOSITORIES: Final = 2000
_MOST_MANIFESTS: Final = 16
_MOST_PINS: Final = 64
#: Bytes of a manifest that is kept on disk; larger ones are fetched anew by the next process.
_KEPT_MANIFEST: Final = 64 * 1024


@dataclass(frozen=True, slots=True)
class Ref:
    """What is wanted of a repository: one digest, one tag, or the tags that are versions."""

    digest: str = ""
    tag: str = ""
    #: Regular expression that tags have to match.
    only: str = ""
    leading_v: bool = False


@dataclass(frozen=True, slots=True)
class Wanted:
    """A repository, what it is opened with, and what is wanted of it."""

    repository: OciRepository
    credentials: HttpCredentials = field(repr=False)
    ref: Ref
    interval: timedelta
    timeout: timedelta
    #: The chart as it is asked for, whose last part is the name that it must have; empty for any.
    chart: str = ""
    #: Media type of the layer; empty for Helm's, or else the first.
    layer: str = ""

    @property
    def access(self) -> Access:
        """How it is asked."""
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
class Known:
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
    offered: dict[Ref, tuple[ChartVersion, ...]] = field(default_factory=dict)
    #: By tag, empty for the list of tags: what went wrong, and until when that counts.
    failures: dict[str, tuple[SourceError, float]] = field(default_factory=dict)


class OciKnowledge:
    """What registries said, for all that take something out of them."""

    def __init__(
        self,
        http: Http,
        cache: Path,
        *,
        registry: OciRegistry | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """`cache` is a directory of our own, which other processes may share; it is made where it
        is missing.
        """
        self._registry = registry or OciRegistry(http)
        self.directory = cache / "oci"
        self._monotonic = monotonic
        self._repositories: OrderedDict[str, Known] = OrderedDict()
        self._salt = b""

    async def versions(self, asked: Wanted) -> tuple[ChartVersion, ...]:
        """What is offered; asked for where that is due. Raises SourceError, ConstraintError."""
        known = await self.known(asked)
        if self._is_fresh(known, asked):  # also while a poll waits for a registry that hangs
            return offer(known, asked)
        async with known.lock:
            if not self._is_fresh(known, asked):
                try:
                    await self.poll(known, asked)
                except SourceUnavailable:
                    if not _has_something(known, asked.ref):
                        raise
            return offer(known, asked)

    async def refresh(self, asked: Wanted) -> bool:
        """Ask now; whether anything changed. Raises SourceError, ConstraintError."""
        known = await self.known(asked)
        async with known.lock:
            before = known.offered.get(asked.ref)
            await self.poll(known, asked, is_urgent=True)
            return offer(known, asked) is not before

    async def trouble(self, asked: Wanted) -> str:
        """What went wrong at the last poll; else empty."""
        failed = (await self.known(asked)).failures.get(asked.ref.tag)
        return str(failed[0]) if failed is not None else ""

    async def known(self, asked: Wanted) -> Known:
        """What is known of a repository now, by this or an earlier process. Raises SourceError for
        the disk.
        """
        if not self._salt:
            with disk_errors(self.directory):
                self._salt = await asyncio.to_thread(self._read_salt)
        key = asked.key(self._salt)
        known = self._repositories.setdefault(key, Known(key))
        self._repositories.move_to_end(key)
        for old in list(self._repositories)[: len(self._repositories) - MOST_REPOSITORIES]:
            if not self._repositories[old].lock.locked():
                del self._repositories[old]
        if not known.remembered:
            async with known.lock:
                if not known.remembered:
                    await asyncio.to_thread(self._remember, known)
                    known.remembered = True
        return known

    def _is_fresh(self, known: Known, asked: Wanted) -> bool:
        """Whether what is known was asked less than an interval ago."""
        if asked.ref.digest:
            return True
        if asked.ref.tag:
            pin = known.pins.get(asked.ref.tag)
            at = pin.checked_at if pin is not None else None
        else:
            at = known.listed_at
        return at is not None and self._monotonic() - at < asked.interval.total_seconds()

    async def poll(self, known: Known, asked: Wanted, *, is_urgent: bool = False) -> None:
        """Ask the registry, the lock held. Raises SourceError, and remembers for a while that it
        did.
        """
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

    async def _ask(self, known: Known, asked: Wanted) -> bool:
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

    async def _ask_tag(self, known: Known, asked: Wanted, tag: str) -> bool:
        """What a tag names; whether it named something else before."""
        digest = await self._registry.digest_of(asked.repository, tag, asked.access)
        before = known.pins.get(tag)
        known.pins[tag] = _Pin(digest, self._monotonic())
        known.pins.move_to_end(tag)
        while len(known.pins) > _MOST_PINS:
            known.pins.popitem(last=False)
        known.is_kept = known.is_kept and before is not None and before.digest == digest
        return before is not None and before.digest != digest

    async def pinned(self, known: Known, asked: Wanted) -> str:
        """The digest of a tag, asked for where that is due. Raises SourceError."""
        tag = asked.ref.tag
        if not self._is_fresh(known, asked):
            async with known.lock:
                try:
                    if not self._is_fresh(known, asked):
                        await self.poll(known, asked)
                except SourceUnavailable:
                    if tag not in known.pins:
                        raise
        return known.pins[tag].digest

    async def manifest(self, known: Known, asked: Wanted, digest: str) -> Manifest:
        """A manifest, fetched where it is not at hand. Raises SourceError, ChartRefused."""
        manifest = known.manifests.get(digest)
        if manifest is None:
            manifest = await self._registry.manifest(asked.repository, digest, asked.access)
            known.manifests[digest] = manifest
            while len(known.manifests) > _MOST_MANIFESTS:
                known.manifests.popitem(last=False)
            known.is_kept = False
            await self._keep(known)
        return manifest

    async def check_signature(
        self, known: Known, asked: Wanted, digest: str, keys: Sequence[bytes], where: str
    ) -> None:
        """Signatures that were seen are kept, and checked anew each time: the cache vouches for
        nothing, and the registry need not be there. Raises SourceError, SignatureRefused.
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

    async def download(self, asked: Wanted, layer: Descriptor, target: Path) -> str:
        """Stream a layer to a file; gives back its SHA-256. Raises SourceError, ChartRefused."""
        hasher = hashlib.sha256()
        with target.open("wb") as file:

            def take(piece: bytes) -> None:
                hasher.update(piece)
                file.write(piece)

            await self._registry.blob(asked.repository, layer, asked.access, take)
        return hasher.hexdigest()

    # On disk, over restarts.

    def _read_salt(self) -> bytes:
        salt = salt_in(self.directory)
        self._trim()
        return salt

    def _trim(self) -> None:
        """Throw away what is known of repositories that nobody asked for longest, of very many."""
        with contextlib.suppress(FileNotFoundError):  # another process does the same
            kept = [(path.stat().st_mtime, path) for path in self.directory.glob("*.json")]
            for _, old in sorted(kept)[: max(0, len(kept) - 2 * MOST_REPOSITORIES)]:
                old.unlink()

    def _remember(self, known: Known) -> None:
        """Take up what an earlier process saw, where it is whole. It counts as not asked for."""
        try:
            content = (self.directory / f"{known.key}.json").read_bytes()
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

    async def _keep(self, known: Known) -> None:
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
        with disk_errors(self.directory):
            await asyncio.to_thread(self._write, known.key, msgspec.json.encode(kept))
        known.is_kept = True

    def _write(self, key: str, content: bytes) -> None:
        handle, name = tempfile.mkstemp(dir=self.directory)
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        Path(name).replace(self.directory / f"{key}.json")


class _Kept(msgspec.Struct):
    """What is on disk of one repository."""

    tags: list[str] | None = None
    pins: dict[str, str] = {}
    manifests: dict[str, bytes] = {}
    signatures: dict[str, list[tuple[str, bytes, bytes]]] = {}


# From declarations to what is asked.


def of_artifact(spec: OCIRepositorySpec, credentials: HttpCredentials) -> Wanted:
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
        wanted = Ref(digest=ref.digest)
    elif ref.semver:
        wanted = Ref(only=ref.semver_filter, leading_v=True)
    else:
        wanted = Ref(tag=checked_tag(ref.tag or "latest", repository))
    return Wanted(
        repository,
        credentials,
        wanted,
        spec.interval,
        spec.timeout,
        layer=spec.layer_selector.media_type if spec.layer_selector else "",
    )


def layer_of_type(manifest: Manifest, media_type: str, where: str) -> Descriptor:
    """The first layer of a media type. Raises ChartRefused."""
    for layer in manifest.layers:
        if layer.media_type == media_type:
            return layer
    types = sorted({layer.media_type for layer in manifest.layers})
    raise ChartRefused(
        f"the artifact has no layer of the media type {media_type}",
        where=where,
        next_step=f"it has: {', '.join(types[:5]) or 'none'}",
    )


def refuse_want_of_key(spec: OCIRepositorySpec, asked: Wanted, keys: Sequence[bytes]) -> None:
    """Never is a signature not looked at for want of a key."""
    if spec.verify is not None and not keys:
        raise SignatureRefused(
            "a signature is asked for, and no key is given",
            where=str(asked.repository),
            next_step="set verify.secretRef",
        )


def checked_tag(tag: str, repository: OciRepository) -> str:
    if is_tag(tag):
        return tag
    raise SourceInvalid(
        f"{tag[:140]!r} is no tag",
        where=str(repository),
        next_step="letters, digits, `_`, `.` and `-`, at most 128",
    )


def tag_in(version: ChartVersion, repository: OciRepository) -> str:
    """The tag of a version that was offered. Raises SourceInvalid."""
    named = version.urls[0].partition("@")[0] if version.urls else ""
    return checked_tag(named.rpartition(":")[2] or tag_of_version(version.version), repository)


def _has_something(known: Known, ref: Ref) -> bool:
    """Whether there is something to go on with while the registry does not answer."""
    if ref.digest:
        return True
    return ref.tag in known.pins if ref.tag else known.tags is not None


def offer(known: Known, asked: Wanted) -> tuple[ChartVersion, ...]:
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


def _single(known: Known, asked: Wanted) -> ChartVersion:
    repository, ref = asked.repository, asked.ref
    digest = ref.digest or known.pins[ref.tag].digest
    tagged = f"{repository}:{ref.tag}" if ref.tag else f"{repository}"
    version = version_of_tag(ref.tag, leading_v=True) or ref.tag or digest
    return ChartVersion(_named(asked), version, urls=(f"{tagged}@{digest}",))


def _ranged(tags: Sequence[str], asked: Wanted) -> Iterator[ChartVersion]:
    matches = _filter(asked.ref.only, str(asked.repository))
    name, repository = _named(asked), str(asked.repository)
    for tag in sorted(tags, reverse=True):  # so that of equal versions always the same comes first
        version = version_of_tag(tag, leading_v=asked.ref.leading_v)
        if version is not None and matches(tag):
            yield ChartVersion(name, version, urls=(f"{repository}:{tag}",))


def _named(asked: Wanted) -> str:
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
