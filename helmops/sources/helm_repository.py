"""Helm repositories over HTTP: what they offer, and the archives.

One poll serves everybody. A repository is known by its URL and what it is opened with; its index is
asked for at most once per interval, by a conditional request, however many releases use it and
however many ask at the same moment. The index itself stays on disk, under its digest; in memory are
only the versions of the charts that somebody asked for. A poll that failed is remembered for a few
seconds (or for as long as the server asked us to wait), so that a hundred releases do not each wait
for the same dead server.

Archives are checked against the index's digest, looked through (`archive`) and kept by digest; what
is at hand needs no network.
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
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Final, Protocol
from urllib.parse import urljoin, urlsplit, urlunsplit
from weakref import WeakValueDictionary

from helmops.errors import (
    ChartError,
    ChartNotFound,
    ChartRefused,
    SignatureRefused,
    SourceError,
    SourceInvalid,
    SourceMissing,
    SourceUnavailable,
    VersionError,
)
from helmops.http import Http, credentials_in, shown_url, without_user
from helmops.model.charts import ChartArtifact, ChartVersion
from helmops.model.credentials import HttpCredentials
from helmops.resolve.version import Version
from helmops.sources.archive import ArchiveLimits, ChartFacts, inspect_archive
from helmops.sources.artifact_cache import ArtifactCache, digest_of, is_digest
from helmops.sources.cache_files import disk_errors, salt_in
from helmops.sources.index import Index
from helmops.sources.provenance import PROVENANCE_LIMIT, verify_provenance

#: Bytes that an index may have, unpacked. (Flux: 50 MiB; the largest known public one has 30.)
INDEX_LIMIT: Final = 200 * 1024 * 1024

#: Seconds in which a failed poll is not tried again for somebody else.
FAILURE_KEPT: Final = 5.0

#: Repositories that are kept in mind.
MOST_REPOSITORIES: Final = 2000


class Repository(Protocol):
    """What is asked of a repository's declaration. A HelmRepositorySpec has it; so has `Address`,
    for who has no declaration, and no time to load the models of all declarations.
    """

    @property
    def url(self) -> str: ...
    @property
    def interval(self) -> timedelta: ...
    @property
    def timeout(self) -> timedelta: ...
    @property
    def pass_credentials(self) -> bool: ...


@dataclass(frozen=True, slots=True)
class Address:
    """A repository by its URL alone, with the defaults of a HelmRepository."""

    url: str
    interval: timedelta = timedelta(minutes=1)
    timeout: timedelta = timedelta(minutes=1)
    pass_credentials: bool = False


@dataclass(slots=True)
class _Repository:
    """What is known of one repository, opened with one set of credentials.

    Times are of the monotonic clock. The lock is held while it is polled or its index read.
    """

    key: str
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    remembered: bool = False
    index: Index | None = None
    digest: str = ""
    etag: str = ""
    last_modified: str = ""
    polled_at: float | None = None
    failure: SourceError | None = None
    failed_until: float = 0.0
    charts: dict[str, tuple[ChartVersion, ...] | ChartError | SourceError] = field(
        default_factory=dict
    )
    #: Digests of archives that the index gives none for, by the entry.
    undigested: dict[ChartVersion, str] = field(default_factory=dict)


class HelmRepositories:
    """The `ChartRepositories` of the real world."""

    def __init__(
        self,
        http: Http,
        cache: Path,
        *,
        artifacts: ArtifactCache | None = None,
        limits: ArchiveLimits | None = None,
        index_limit: int = INDEX_LIMIT,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """`cache` is a directory of our own, which other processes may share; it is made where it
        is missing. `artifacts` defaults to a part of it. `index_limit` is in bytes.
        """
        self._http = http
        self._indexes = cache / "indexes"
        self._artifacts = artifacts or ArtifactCache(cache / "charts")
        self._limits = limits or ArchiveLimits()
        self._index_limit = index_limit
        self._monotonic = monotonic
        self._repositories: OrderedDict[str, _Repository] = OrderedDict()
        self._pulls: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._facts: OrderedDict[str, ChartFacts] = OrderedDict()
        self._salt = b""

    # The port.

    async def versions(
        self, repository: Repository, chart: str, credentials: HttpCredentials
    ) -> tuple[ChartVersion, ...]:
        """All entries of one chart, in the index's order. Raises SourceError, ChartNotFound."""
        opened = _Opened.of(repository, credentials)
        known = await self._known(opened)
        async with known.lock:
            await self._poll_when_due(known, opened)
            if chart not in known.charts:
                await self._read_chart(known, opened, chart)
            found = known.charts[chart]
        if isinstance(found, tuple):
            return found
        raise found.anew()

    async def trouble(self, repository: Repository, credentials: HttpCredentials) -> str:
        """What went wrong at the last poll, where what was offered before stands; else empty."""
        try:
            known = await self._known(_Opened.of(repository, credentials))
        except SourceError as error:
            return str(error)
        return str(known.failure) if known.failure is not None else ""

    async def pull(
        self, repository: Repository, version: ChartVersion, credentials: HttpCredentials
    ) -> ChartArtifact:
        """The archive, checked and at hand. Raises SourceError, ChartRefused.

        Of several URLs each is tried, in order, until one gives the right archive; when none does,
        what was wrong with the first is raised.
        """
        opened = _Opened.of(repository, credentials)
        known = await self._known(opened)
        if version.digest and not is_digest(version.digest):
            raise ChartRefused(
                f"the index's digest of {version.name} {version.version} is no SHA-256",
                where=opened.shown,
            )
        key = version.digest or f"{known.key} {version!r}"
        lock = self._pulls.setdefault(key, asyncio.Lock())
        async with lock:
            digest = version.digest or known.undigested.get(version, "")
            artifact = await self._at_hand(opened, version, digest) if digest else None
            if artifact is None:
                artifact = await self._fetch_archive(opened, version)
            if not version.digest:
                known.undigested[version] = artifact.digest
            return artifact

    async def signer(
        self,
        repository: Repository,
        version: ChartVersion,
        artifact: ChartArtifact,
        credentials: HttpCredentials,
        keys: Mapping[str, bytes],
    ) -> str:
        """Who signed a pulled archive, by the `.prov` beside it, one of the keys' owners. Raises
        SourceError, SignatureRefused, ValuesError.
        """
        opened = _Opened.of(repository, credentials)
        provenance = await self._provenance(opened, version)
        if provenance is None:
            raise SignatureRefused(
                f"{version.name} {version.version} is not signed: there is no .prov beside it",
                where=opened.shown,
                next_step="publish what helm package --sign makes",
            )
        return await asyncio.to_thread(verify_provenance, provenance, artifact, keys, opened.shown)

    async def _provenance(self, opened: _Opened, version: ChartVersion) -> bytes | None:
        """The `.prov` beside an archive, None where there is none."""
        failure: SourceError | None = None
        for url in version.urls:
            parts = urlsplit(opened.chart_url(url))
            try:
                response = await self._http.get(
                    urlunsplit(parts._replace(path=f"{parts.path}.prov")),
                    credentials=opened.credentials,
                    credentials_for=opened.url,
                    pass_credentials=opened.spec.pass_credentials,
                    timeout=opened.spec.timeout,
                    limit=PROVENANCE_LIMIT,
                )
                return response.body
            except SourceMissing:
                continue
            except SourceError as error:
                failure = failure or error
        if failure is not None:
            raise failure
        return None

    async def refresh(self, repository: Repository, credentials: HttpCredentials) -> bool:
        """Poll now; whether the index is another one. Raises SourceError."""
        opened = _Opened.of(repository, credentials)
        known = await self._known(opened)
        async with known.lock:
            return await self._poll(known, opened)

    # The index.

    async def _known(self, opened: _Opened) -> _Repository:
        if not self._salt:
            with disk_errors(self._indexes):
                self._salt = await asyncio.to_thread(salt_in, self._indexes)
        key = opened.key(self._salt)
        known = self._repositories.setdefault(key, _Repository(key))
        self._repositories.move_to_end(key)
        for old in list(self._repositories)[: len(self._repositories) - MOST_REPOSITORIES]:
            if not self._repositories[old].lock.locked():
                del self._repositories[old]
        return known

    async def _poll_when_due(self, known: _Repository, opened: _Opened) -> None:
        now = self._monotonic()
        interval = opened.spec.interval.total_seconds()
        polled_at = known.polled_at if known.index is not None else None
        if polled_at is not None and now - polled_at < interval:
            return
        try:
            if known.failure is not None and now < known.failed_until:
                raise known.failure.anew()
            await self._poll(known, opened)
        except SourceUnavailable:
            # What was there last stands, also over a restart; its polls tell that it is down.
            if known.index is None:
                raise

    async def _poll(self, known: _Repository, opened: _Opened) -> bool:
        """Ask for the index. Raises SourceError, and remembers that it did."""
        if not known.remembered:
            known.remembered = True
            await asyncio.to_thread(self._remember, known, opened)
        try:
            changed = await self._fetch_index(known, opened)
        except SourceError as error:
            known.failure = error
            known.failed_until = self._monotonic() + (error.retry_after or FAILURE_KEPT)
            raise
        known.failure = None
        known.polled_at = self._monotonic()
        return changed

    async def _fetch_index(self, known: _Repository, opened: _Opened) -> bool:
        headers: dict[str, str] = {}
        if known.index is not None and known.etag:
            headers["If-None-Match"] = known.etag
        if known.index is not None and known.last_modified:
            headers["If-Modified-Since"] = known.last_modified
        with disk_errors(self._indexes), _Receiving(self._indexes) as incoming:
            response = await self._http.get(
                opened.index_url,
                credentials=opened.credentials,
                pass_credentials=opened.spec.pass_credentials,
                headers=headers,
                timeout=opened.spec.timeout,
                limit=self._index_limit,
                sink=incoming.take,
            )
            if response.status == 304 and known.index is not None:
                return False
            if response.status != 200:
                raise SourceUnavailable(
                    f"the server answered {response.status} in place of the index",
                    where=response.url,
                )
            digest = incoming.finish()
            changed = digest != known.digest or known.index is None
            if changed:
                index = Index(incoming.path, opened.index_shown)
                await asyncio.to_thread(index.check)
                index.move(self._indexes / f"{digest}.yaml")
                known.index = index
                if known.digest != digest:
                    self._forget_index(known.digest, known)
                known.digest = digest
                known.charts.clear()
                known.undigested.clear()
            known.etag = response.headers.get("etag", "")
            known.last_modified = response.headers.get("last-modified", "")
            self._keep_in_mind(known)
        return changed

    async def _read_chart(self, known: _Repository, opened: _Opened, chart: str) -> None:
        """Put a chart's versions, or what is wrong with them, in memory."""
        for _ in range(2):
            if known.index is None:
                await self._poll(known, opened)
            try:
                with disk_errors(self._indexes), contextlib.suppress(FileNotFoundError):
                    index = known.index
                    if index is not None:
                        known.charts[chart] = await asyncio.to_thread(index.versions, chart)
                        return
            except (ChartNotFound, SourceInvalid) as error:
                known.charts[chart] = error
                return
            known.index = None  # somebody cleared the cache: ask for all of it
        raise SourceUnavailable(
            "the index vanished from the cache twice while it was read", where=str(self._indexes)
        )

    # The index on disk, over restarts.

    def _remember(self, known: _Repository, opened: _Opened) -> None:
        """Take up what an earlier process fetched, where it is whole."""
        try:
            facts = json.loads((self._indexes / f"{known.key}.json").read_bytes())
            digest, etag, modified = (
                str(facts[name]) for name in ("digest", "etag", "last_modified")
            )
            path = self._indexes / f"{digest}.yaml"
            if is_digest(digest) and digest_of(path) == digest:
                known.index = Index(path, opened.index_shown)
                known.digest, known.etag, known.last_modified = digest, etag, modified
        except (OSError, ValueError, KeyError, TypeError):
            return  # as if it had never been there

    def _keep_in_mind(self, known: _Repository) -> None:
        facts = {
            "digest": known.digest,
            "etag": known.etag,
            "last_modified": known.last_modified,
        }
        handle, name = tempfile.mkstemp(dir=self._indexes)
        with os.fdopen(handle, "w") as file:
            json.dump(facts, file)
        Path(name).replace(self._indexes / f"{known.key}.json")

    def _forget_index(self, digest: str, except_for: _Repository) -> None:
        """Remove an index that no repository of this process uses any more. Another process that
        does finds it gone, and fetches it.
        """
        used = any(
            one.digest == digest for one in self._repositories.values() if one is not except_for
        )
        if digest and not used:
            (self._indexes / f"{digest}.yaml").unlink(missing_ok=True)

    # Archives.

    async def _at_hand(
        self, opened: _Opened, version: ChartVersion, digest: str
    ) -> ChartArtifact | None:
        with disk_errors(self._indexes), contextlib.suppress(FileNotFoundError):
            path = await asyncio.to_thread(self._artifacts.find, digest)
            if path is not None:
                return await self._artifact(opened, version, path, digest)
        return None

    async def _fetch_archive(self, opened: _Opened, version: ChartVersion) -> ChartArtifact:
        failures: list[SourceError | ChartRefused] = []
        for url in version.urls:
            try:
                return await self._fetch_from(opened, version, opened.chart_url(url))
            except (SourceError, ChartRefused) as error:
                failures.append(error)
        if failures:
            raise failures[0]
        raise SourceInvalid(
            f"the index gives no URL for {version.name} {version.version}", where=opened.index_shown
        )

    async def _fetch_from(self, opened: _Opened, version: ChartVersion, url: str) -> ChartArtifact:
        shown = shown_url(url)
        if urlsplit(url).scheme.lower() == "oci":
            raise SourceInvalid(
                f"{version.name} {version.version} is in an OCI registry, not in this repository",
                where=shown,
                next_step="registries are not supported yet; use a repository that has archives",
            )
        hasher = hashlib.sha256()
        with disk_errors(self._indexes), self._artifacts.incoming() as incoming:
            with incoming.open("wb") as file:

                def take(piece: bytes) -> None:
                    hasher.update(piece)
                    file.write(piece)

                await self._http.get(
                    url,
                    credentials=opened.credentials,
                    credentials_for=opened.url,
                    pass_credentials=opened.spec.pass_credentials,
                    # Not to be unpacked on the way: it is what was packed that has the digest.
                    headers={"Accept-Encoding": "identity"},
                    timeout=opened.spec.timeout,
                    limit=self._limits.packed,
                    sink=take,
                )
            digest = hasher.hexdigest()
            if version.digest and digest != version.digest:
                raise ChartRefused(
                    f"the archive is not the one that the index describes: its SHA-256 is {digest},"
                    f" the index says {version.digest}",
                    where=shown,
                    next_step="the repository must publish an index that fits its archives",
                )
            await self._artifact(opened, version, incoming, digest)
            path = await asyncio.to_thread(self._artifacts.add, incoming, digest)
            return await self._artifact(opened, version, path, digest)

    async def _artifact(
        self, opened: _Opened, version: ChartVersion, path: Path, digest: str
    ) -> ChartArtifact:
        """What is in an archive, and that it is what the index says. Raises ChartRefused."""
        where = f"{version.name}-{version.version} of {opened.shown}"
        facts = self._facts.get(digest)
        if facts is None:
            facts = await asyncio.to_thread(inspect_archive, path, where, self._limits)
            self._facts[digest] = facts
            if len(self._facts) > 4096:
                self._facts.popitem(last=False)
        if facts.name != version.name or not _same_version(facts.version, version.version):
            raise ChartRefused(
                f"the archive holds {facts.name} {facts.version}, the index says"
                f" {version.name} {version.version}",
                where=opened.shown,
                next_step="the repository must publish an index that fits its archives",
            )
        return ChartArtifact(
            name=facts.name,
            version=facts.version,
            path=str(path),
            digest=digest,
            source=opened.shown,
            revision=facts.version,
            app_version=facts.app_version,
            deprecated=facts.deprecated or version.deprecated,
            annotations=facts.annotations,
            is_library=facts.is_library,
        )


@dataclass(frozen=True, slots=True)
class _Opened:
    """A repository and what it is opened with; a user that the URL names is in `credentials`."""

    spec: Repository
    url: str
    credentials: HttpCredentials

    @classmethod
    def of(cls, spec: Repository, credentials: HttpCredentials) -> _Opened:
        try:
            named = credentials_in(spec.url)
            url = without_user(spec.url)
        except ValueError:
            raise SourceInvalid("not a URL that can be asked", where=shown_url(spec.url)) from None
        login = credentials.username or credentials.password or credentials.bearer_token
        if named and not login:
            credentials = replace(credentials, username=named[0], password=named[1])
        return cls(spec, url, credentials)

    @property
    def shown(self) -> str:
        return shown_url(self.url)

    @property
    def index_url(self) -> str:
        parts = urlsplit(self.url)
        path = parts.path.rstrip("/") + "/index.yaml"
        return urlunsplit((parts.scheme, parts.netloc, path, parts.query, ""))

    @property
    def index_shown(self) -> str:
        return shown_url(self.index_url)

    def chart_url(self, url: str) -> str:
        """A URL of the index, made whole as Helm does it: relative to the repository's, whose
        query it takes over.
        """
        try:
            if urlsplit(url).scheme:
                return url
            base = urlsplit(self.url)
            directory = urlunsplit((base.scheme, base.netloc, base.path.rstrip("/") + "/", "", ""))
            found = urlsplit(urljoin(directory, url))
        except ValueError:
            raise SourceInvalid(
                "the index names a URL that cannot be read", where=self.index_shown
            ) from None
        return urlunsplit((found.scheme, found.netloc, found.path, base.query, ""))

    def key(self, salt: bytes) -> str:
        """Tells repositories apart, on disk as well; says nothing of the credentials."""
        parts = [self.url, str(self.spec.pass_credentials)]
        parts += [getattr(self.credentials, name) for name in _CREDENTIALS]
        return hmac.new(salt, json.dumps(parts).encode(), hashlib.sha256).hexdigest()


_CREDENTIALS: Final = ("username", "password", "bearer_token", "ca", "certificate", "key")


class _Receiving:
    """A file that takes in an index; gone afterwards unless it was moved."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(suffix=".part", dir=directory)
        self.path = Path(name)
        self._file = os.fdopen(handle, "wb")
        self._hash = hashlib.sha256()

    def __enter__(self) -> _Receiving:
        return self

    def __exit__(self, *exc_info: object) -> None:
        with contextlib.suppress(OSError):
            self._file.close()
        self.path.unlink(missing_ok=True)

    def take(self, piece: bytes) -> None:
        self._hash.update(piece)
        self._file.write(piece)

    def finish(self) -> str:
        """Its SHA-256, when everything is written."""
        self._file.close()
        return self._hash.hexdigest()


def _same_version(one: str, other: str) -> bool:
    """Whether two texts are one version: `v1.2.3` is 1.2.3, but build metadata counts."""
    if one == other:
        return True
    try:
        return str(Version.parse(one)) == str(Version.parse(other))
    except VersionError:
        return False
