"""What is asked of an OCI registry: digests of tags, manifests, lists of tags, blobs.

The protocol is the distribution specification 1.1, as Docker's registry, Harbor, GHCR, Quay and
others speak it. Nothing that a registry says is believed where it can be checked: the digest of a
manifest and of a blob, and their sizes. What is read is bounded, and pages of tags that lead in
circles or to another host end in an error.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final
from urllib.parse import urljoin

import msgspec

from helmops.errors import (
    ChartRefused,
    SourceDenied,
    SourceInvalid,
    SourceMissing,
    SourceUnavailable,
)
from helmops.http import Http, Response, Sink, raise_for_status, same_origin, shown_url
from helmops.model.credentials import HttpCredentials
from helmops.sources.oci_reference import (
    OciRepository,
    digest_with,
    is_oci_digest,
    is_tag,
)
from helmops.sources.registry_auth import RegistryLogins

#: Bytes that a manifest may have (the specification's advice to registries).
MANIFEST_LIMIT: Final = 4 * 1024 * 1024

#: Tags that a repository may have, and those that are asked for at once.
MOST_TAGS: Final = 200_000
PAGE: Final = 1000

_MOST_LAYERS: Final = 256
_SLACK: Final = 1024 * 1024
_PAGE_LIMIT: Final = 16 * 1024 * 1024

_OCI_MANIFEST: Final = "application/vnd.oci.image.manifest.v1+json"
_OCI_INDEX: Final = "application/vnd.oci.image.index.v1+json"
_DOCKER_MANIFEST: Final = "application/vnd.docker.distribution.manifest.v2+json"
_DOCKER_LIST: Final = "application/vnd.docker.distribution.manifest.list.v2+json"
_ACCEPT: Final = ", ".join((_OCI_MANIFEST, _DOCKER_MANIFEST, _OCI_INDEX, _DOCKER_LIST))


@dataclass(frozen=True, slots=True)
class Access:
    """How a repository is asked: with which credentials, and for how long at most."""

    credentials: HttpCredentials = field(default_factory=HttpCredentials, repr=False)
    timeout: timedelta = timedelta(seconds=60)


class Descriptor(msgspec.Struct, frozen=True, rename="camel"):
    """A piece of content: its media type, digest and size in bytes."""

    digest: str
    size: int
    media_type: str = ""
    artifact_type: str = ""
    annotations: dict[str, str] = {}


class _Document(msgspec.Struct, rename="camel"):
    """A manifest as registries send it, as far as it is read."""

    media_type: str = ""
    artifact_type: str = ""
    config: Descriptor | None = None
    layers: list[Descriptor] | None = None
    manifests: list[Descriptor] | None = None


@dataclass(frozen=True, slots=True)
class Manifest:
    """A manifest whose digest was checked. `is_index` has `manifests` in place of layers; `body` is
    what it was read from.
    """

    digest: str
    config_type: str = ""
    layers: tuple[Descriptor, ...] = ()
    is_index: bool = False
    manifests: tuple[Descriptor, ...] = ()
    body: bytes = field(default=b"", repr=False)


class _TagPage(msgspec.Struct):
    tags: list[str] | None = None


class OciRegistry:
    """Asks registries. Every method raises SourceError and its subclasses."""

    def __init__(self, http: Http, logins: RegistryLogins | None = None) -> None:
        self._http = http
        self._logins = logins or RegistryLogins(http)

    async def digest_of(self, repository: OciRepository, tag: str, access: Access) -> str:
        """The digest that a tag names now, by one HEAD; by a GET where the registry does not tell
        it otherwise. Raises SourceMissing where there is no such tag.
        """
        url = repository.url("manifests", tag)
        response = await self._ask("HEAD", repository, url, access, accept=_ACCEPT)
        told = response.headers.get("docker-content-digest", "")
        if response.status == 200 and is_oci_digest(told):
            return told
        if response.status == 404:
            raise _no_such_tag(repository, tag)
        if response.status in (200, 400, 405, 501):
            return (await self.manifest(repository, tag, access)).digest
        _refuse(response, repository)
        raise _unexpected(response)

    async def manifest(self, repository: OciRepository, reference: str, access: Access) -> Manifest:
        """A manifest by tag or digest. Raises SourceMissing; ChartRefused where the registry sends
        another one than was asked for.
        """
        url = repository.url("manifests", reference)
        response = await self._ask(
            "GET", repository, url, access, accept=_ACCEPT, limit=MANIFEST_LIMIT
        )
        if response.status == 404:
            raise _no_such_tag(repository, reference)
        _refuse(response, repository)
        if response.status != 200:
            raise _unexpected(response)
        told = response.headers.get("docker-content-digest", "")
        wanted = reference if is_oci_digest(reference) else told
        digest = digest_with(wanted if is_oci_digest(wanted) else "sha256:", response.body)
        if is_oci_digest(wanted) and digest != wanted:
            raise ChartRefused(
                f"the registry sends another manifest than it says: its digest is {digest}, not"
                f" {wanted}",
                where=f"{repository}",
                next_step="something between here and the registry changes what it sends",
            )
        return read_manifest(
            response.body,
            digest,
            f"{repository}@{digest}",
            response.headers.get("content-type", ""),
        )

    async def referrers(
        self, repository: OciRepository, digest: str, access: Access
    ) -> Manifest | None:
        """The list of manifests that refer to a digest, None where the registry cannot tell. Its
        own digest says nothing; those that it lists are checked when they are read.
        """
        url = repository.url("referrers", digest)
        response = await self._ask(
            "GET", repository, url, access, accept=_OCI_INDEX, limit=MANIFEST_LIMIT
        )
        if response.status in (400, 404, 405, 501):
            return None
        _refuse(response, repository)
        if response.headers.get("content-type", "").partition(";")[0] != _OCI_INDEX:
            return None
        return read_manifest(response.body, "", f"{repository}@{digest}", _OCI_INDEX)

    async def tags(self, repository: OciRepository, access: Access) -> tuple[str, ...]:
        """Every tag, in the registry's order. The whole list is one operation, and has to come
        within the timeout. Raises SourceMissing where there is no such repository.
        """
        ends_at = time.monotonic() + access.timeout.total_seconds()
        url = repository.url("tags", f"list?n={PAGE}")
        found: dict[str, None] = {}
        seen: set[str] = set()
        while url:
            if url in seen:
                raise SourceInvalid("its list of tags leads in circles", where=str(repository))
            seen.add(url)
            left = ends_at - time.monotonic()
            if left <= 0:
                raise SourceUnavailable(
                    f"no complete list of tags within {access.timeout.total_seconds():g} s",
                    where=str(repository),
                )
            page = Access(access.credentials, timedelta(seconds=left))
            response = await self._ask("GET", repository, url, page, limit=_PAGE_LIMIT)
            if response.status == 404:
                raise SourceMissing(
                    "the registry has no such repository",
                    where=str(repository),
                    next_step="check the URL, and that the login may read it",
                )
            _refuse(response, repository)
            before = len(found)
            found.update(dict.fromkeys(filter(is_tag, _read_tags(response, repository))))
            if len(found) > MOST_TAGS:
                raise _too_many_tags(repository)
            url = _next_page(response.headers.get("link", ""), url, repository)
            if url and len(found) == before and len(seen) > 2:
                raise SourceInvalid(
                    "its list of tags goes on without any new one", where=str(repository)
                )
        return tuple(found)

    async def blob(
        self, repository: OciRepository, wanted: Descriptor, access: Access, take: Sink
    ) -> None:
        """Send a blob to `take`, piece by piece, in a worker thread. Raises ChartRefused where it
        is not what the descriptor says; what was taken then must be thrown away.
        """
        counted = _Counted(wanted, repository, take)
        response = await self._ask(
            "GET",
            repository,
            repository.url("blobs", wanted.digest),
            access,
            # Not to be unpacked on the way: it is what was packed that has the digest.
            encoding="identity",
            limit=wanted.size + _SLACK,  # it is counted here, and said in better words
            sink=counted.take,
        )
        if response.status == 404:
            raise SourceMissing(
                f"the registry has no blob {wanted.digest}, which the manifest names",
                where=str(repository),
            )
        _refuse(response, repository)
        counted.finish()

    async def small_blob(
        self, repository: OciRepository, wanted: Descriptor, access: Access, limit: int
    ) -> bytes:
        """A blob of at most `limit` bytes, in memory. Raises ChartRefused."""
        if not 0 <= wanted.size <= limit:
            raise ChartRefused(f"a blob is larger than {limit} bytes", where=str(repository))
        pieces: list[bytes] = []
        await self.blob(repository, wanted, access, pieces.append)
        return b"".join(pieces)

    async def _ask(
        self,
        method: str,
        repository: OciRepository,
        url: str,
        access: Access,
        *,
        accept: str = "",
        encoding: str = "",
        limit: int = 64 * 1024,
        sink: Sink | None = None,
    ) -> Response:
        """One request, logged in where the registry wants that."""
        base, name, mine = repository.base, repository.name, access.credentials
        headers = {"Accept": accept} if accept else {}
        if encoding:
            headers["Accept-Encoding"] = encoding
        sent = await self._logins.credentials(base, name, mine, access.timeout)
        for attempt in (1, 2):
            response = await self._http.request(
                method,
                url,
                credentials=sent,
                credentials_for=base,
                headers=headers,
                timeout=access.timeout,
                limit=limit,
                sink=sink,
            )
            if response.status != 401 or attempt == 2 or not same_origin(response.url, base):
                break
            header = response.headers.get("www-authenticate", "")
            better = await self._logins.answer(
                header, base, name, mine, access.timeout, refused=sent
            )
            if better is None:
                break
            sent = better
        return response


class _Counted:
    """Counts and digests a blob on its way."""

    def __init__(self, wanted: Descriptor, repository: OciRepository, take: Sink) -> None:
        self._wanted = wanted
        self._repository = repository
        self._take = take
        self._size = 0
        self._hash = hashlib.new(wanted.digest.partition(":")[0], usedforsecurity=False)

    def take(self, piece: bytes) -> None:
        self._size += len(piece)
        if self._size > self._wanted.size:
            raise self._refused(f"more than the {self._wanted.size} bytes that the manifest says")
        self._hash.update(piece)
        self._take(piece)

    def finish(self) -> None:
        if self._size != self._wanted.size:
            raise self._refused(f"{self._size} bytes, where the manifest says {self._wanted.size}")
        algorithm = self._wanted.digest.partition(":")[0]
        if (digest := f"{algorithm}:{self._hash.hexdigest()}") != self._wanted.digest:
            raise self._refused(f"content of the digest {digest}")

    def _refused(self, what: str) -> ChartRefused:
        return ChartRefused(
            f"the registry sends {what} for the blob {self._wanted.digest}",
            where=str(self._repository),
            next_step="something between here and the registry changes what it sends",
        )


def read_manifest(body: bytes, digest: str, where: str, content_type: str = "") -> Manifest:
    """Read a manifest whose digest the caller has checked. Raises SourceInvalid, ChartRefused."""
    try:
        document = msgspec.json.decode(body, type=_Document)
    except (msgspec.DecodeError, RecursionError):
        raise SourceInvalid(
            "the registry's manifest cannot be read",
            where=where,
            next_step="is this the address of a registry?",
        ) from None
    kind = document.media_type or content_type.partition(";")[0]
    is_index = document.manifests is not None or kind in (_OCI_INDEX, _DOCKER_LIST)
    if is_index and document.layers is not None:
        raise ChartRefused("its manifest has both layers and manifests", where=where)
    layers, manifests = tuple(document.layers or ()), tuple(document.manifests or ())
    listed = (*layers, *manifests, *((document.config,) if document.config else ()))
    if len(listed) > _MOST_LAYERS:
        raise ChartRefused(f"its manifest has more than {_MOST_LAYERS} layers", where=where)
    if any(not is_oci_digest(one.digest) or one.size < 0 for one in listed):
        raise ChartRefused("its manifest names digests or sizes that are none", where=where)
    return Manifest(
        digest=digest,
        config_type=document.artifact_type
        or (document.config.media_type if document.config else ""),
        layers=layers,
        is_index=is_index,
        manifests=manifests,
        body=body,
    )


def _read_tags(response: Response, repository: OciRepository) -> list[str]:
    # Before they are read: a page of many megabytes can hold millions of tiny ones.
    if response.body.count(b'"') > 2 * MOST_TAGS + 100:
        raise _too_many_tags(repository)
    try:
        return msgspec.json.decode(response.body, type=_TagPage).tags or []
    except (msgspec.DecodeError, RecursionError):
        raise SourceInvalid(
            "the registry's list of tags cannot be read",
            where=str(repository),
            next_step="is this the address of a registry?",
        ) from None


def _too_many_tags(repository: OciRepository) -> SourceInvalid:
    return SourceInvalid(
        f"more than {MOST_TAGS} tags",
        where=str(repository),
        next_step="name a tag in place of a range",
    )


def _next_page(header: str, url: str, repository: OciRepository) -> str:
    """Where the next page of a list is, empty for the last one."""
    for target, parameters in _links(header):
        if 'rel="next"' not in parameters and "rel=next" not in parameters:
            continue
        try:
            following = urljoin(url, target)
            stays = same_origin(following, url)
        except ValueError:
            following, stays = "", False
        if not stays:
            raise SourceDenied(
                "its list of tags goes on at another host, which is not asked",
                where=str(repository),
            )
        return following
    return ""


def _links(header: str) -> Iterator[tuple[str, str]]:
    """Targets of a Link header and what is said of them (RFC 8288)."""
    rest = header
    while (begin := rest.find("<")) >= 0 and (end := rest.find(">", begin)) >= 0:
        target, rest = rest[begin + 1 : end], rest[end + 1 :]
        parameters = rest.partition("<")[0]
        yield target, parameters.replace(" ", "").lower()


def _refuse(response: Response, repository: OciRepository) -> None:
    """Raise what an answer other than 2xx means, in a registry's terms."""
    if response.status in (401, 403) and same_origin(response.url, repository.base):
        raise SourceDenied(
            f"the registry answered {response.status} {response.reason}{_code(response)}".rstrip(),
            where=str(repository),
            next_step="check the Secret of secretRef, and that there is such a repository",
        )
    if response.status in (401, 403):
        raise SourceDenied(
            f"the registry sends us to {shown_url(response.url)}, which answered {response.status}",
            where=str(repository),
        )
    raise_for_status(response)


#: What registries give as the reason, as far as the specification has it.
_CODES: Final = frozenset(
    {
        "BLOB_UNKNOWN",
        "DENIED",
        "MANIFEST_UNKNOWN",
        "NAME_INVALID",
        "NAME_UNKNOWN",
        "TOOMANYREQUESTS",
        "UNAUTHORIZED",
        "UNSUPPORTED",
    }
)


def _code(response: Response) -> str:
    try:
        code: Any = msgspec.json.decode(response.body)["errors"][0]["code"]
    except (msgspec.DecodeError, RecursionError, KeyError, IndexError, TypeError):
        return ""
    return f" ({code})" if code in _CODES else ""


def _no_such_tag(repository: OciRepository, reference: str) -> SourceMissing:
    kind = "manifest" if is_oci_digest(reference) else "tag"
    return SourceMissing(
        f"the registry has no {kind} {reference} in {repository.name}",
        where=str(repository),
        next_step="check the URL and the reference, and that the login may read it",
    )


def _unexpected(response: Response) -> SourceUnavailable:
    return SourceUnavailable(f"the registry answered {response.status}", where=response.url)
