"""One policy for everything that speaks HTTP: limits, redirects, credentials, error words.

The transport is `requests`, in a bounded pool of threads; callers await. What it adds:

- *Deadlines.* Connecting and each read have their own, and the whole exchange has one: a
  server that drips a byte now and then is cut off at it, by shutting its socket down from outside.
- *Sizes.* A body is counted while it arrives, unpacked, and cut at the caller's limit.
- *Credentials.* Helm's rule: they go to the scheme, host and port that they are for and nowhere
  else, unless `pass_credentials` says so; never from https to http; never to a link-local address
  (where clouds keep their own secrets) that a redirect or an index led to. A client certificate is
  a credential; a CA is not, and counts beside the system's.
- *Errors.* Whatever goes wrong is a SourceError whose text names the URL without user, password
  and query values. Texts of the libraries below are not passed on, for they may hold those.
- *Isolation.* A host that hangs takes a few threads at most, never all.

Nothing is retried here, except once where a kept-alive connection turned out to be dropped: that
says nothing about the server. `~/.netrc` and cookies are not used; proxies come from the
environment, as everywhere.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import http.client
import http.cookiejar
import ipaddress
import os
import socket
import ssl
import tempfile
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import timedelta
from email.utils import parsedate_to_datetime
from functools import cached_property
from pathlib import Path
from typing import Any, Final
from urllib.parse import SplitResult, parse_qsl, quote, unquote, urljoin, urlsplit, urlunsplit

import certifi
import requests
import requests.adapters
import requests.structures
import requests.utils
import urllib3
import urllib3.connection
import urllib3.connectionpool
import urllib3.exceptions

from helmops import __version__
from helmops.errors import (
    SourceDenied,
    SourceError,
    SourceInvalid,
    SourceMissing,
    SourceUnavailable,
)
from helmops.model.credentials import HttpCredentials

#: The longest wait that a server may ask of us with Retry-After, in seconds.
LONGEST_RETRY_AFTER: Final = 3600.0

#: What is kept of a body where the caller sets no limit, in bytes.
DEFAULT_LIMIT: Final = 8 * 1024 * 1024

_CHUNK: Final = 128 * 1024
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_NO_CREDENTIALS: Final = HttpCredentials()

#: Takes a piece of a body, in a worker thread.
Sink = Callable[[bytes], object]


@dataclass(frozen=True, slots=True)
class Response:
    """An answer. Header names are in lower case; `url` is where the answer came from after
    redirects, fit to be shown; `body` is empty where a sink took it.
    """

    status: int
    reason: str
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)
    url: str
    #: Whether a redirect led to another origin, which was not given the credentials.
    credentials_withheld: bool = False

    @property
    def text(self) -> str:
        """The body as UTF-8, with replacement characters for what is not."""
        return self.body.decode("utf-8", "replace")


def shown_url(url: str) -> str:
    """The URL as it may be shown: without user and password, values of its query and fragment."""
    try:
        parts = urlsplit(url)
        host = _netloc(parts)
    except ValueError:
        return "(an URL that cannot be read)"
    query = "&".join(
        f"{quote(name)}=***" for name, _ in parse_qsl(parts.query, keep_blank_values=True)
    )
    if parts.query and not query:
        query = "***"
    return urlunsplit((parts.scheme, host, parts.path, query, ""))


def same_origin(one: str, other: str) -> bool:
    """Whether two URLs have the same scheme, host and port (default ports filled in)."""
    return _origin(urlsplit(one)) == _origin(urlsplit(other))


def raise_for_status(response: Response) -> None:
    """Raise what an answer other than 2xx or 304 means.

    401, 403, 407 are SourceDenied; 404 and 410 SourceMissing; all others SourceUnavailable, with
    `retry_after` where the server gave one.
    """
    status = response.status
    if 200 <= status < 300 or status == 304:
        return
    said = f"the server answered {status} {response.reason}".rstrip()
    if status in (401, 403, 407):
        if response.credentials_withheld:
            step = "credentials are not sent to another host; passCredentials: true would"
        elif status == 407:
            step = "check the proxy's user and password in the environment"
        else:
            step = "check the user, password or token of the source"
        raise SourceDenied(said, where=response.url, next_step=step)
    if status in (404, 410):
        raise SourceMissing(said, where=response.url, next_step="check the URL")
    raise SourceUnavailable(said, where=response.url, retry_after=_retry_after(response.headers))


class Http:
    """The one way out. Close it, or use it as an async context manager."""

    def __init__(
        self,
        *,
        workers: int = 32,
        per_origin: int = 8,
        connect_timeout: timedelta = timedelta(seconds=10),
        read_timeout: timedelta = timedelta(seconds=30),
        user_agent: str = f"helmops/{__version__}",
    ) -> None:
        """`workers` exchanges run at once, `per_origin` of them with one scheme, host and port.

        `connect_timeout` bounds the making of a connection, `read_timeout` the silence between two
        pieces of an answer; both only ever shorten an exchange's own deadline.
        """
        self._workers = workers
        self._per_origin = per_origin
        self._connect_timeout = connect_timeout.total_seconds()
        self._read_timeout = read_timeout.total_seconds()
        self._user_agent = user_agent
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="http")
        self._slots = asyncio.Semaphore(workers)
        self._origins: dict[str, _OriginSlots] = {}
        self._running: set[_Exchange] = set()
        self._sessions: OrderedDict[str, requests.Session] = OrderedDict()
        self._sessions_lock = threading.Lock()

    async def __aenter__(self) -> Http:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close idle connections and end exchanges that still run: their threads would otherwise
        keep the process from ending until their deadlines.
        """
        self._pool.shutdown(wait=False, cancel_futures=True)
        for exchange in list(self._running):
            exchange.abort()
        with self._sessions_lock:
            sessions = list(self._sessions.values())
            self._sessions.clear()
        for session in sessions:
            session.close()

    async def get(
        self,
        url: str,
        *,
        credentials: HttpCredentials = _NO_CREDENTIALS,
        credentials_for: str = "",
        pass_credentials: bool = False,
        headers: Mapping[str, str] | None = None,
        timeout: timedelta = timedelta(seconds=60),
        limit: int = DEFAULT_LIMIT,
        sink: Sink | None = None,
    ) -> Response:
        """GET, with every answer but 2xx and 304 raised as the SourceError that it means."""
        response = await self.request(
            "GET",
            url,
            credentials=credentials,
            credentials_for=credentials_for,
            pass_credentials=pass_credentials,
            headers=headers,
            timeout=timeout,
            limit=limit,
            sink=sink,
        )
        raise_for_status(response)
        return response

    async def request(
        self,
        method: str,
        url: str,
        *,
        credentials: HttpCredentials = _NO_CREDENTIALS,
        credentials_for: str = "",
        pass_credentials: bool = False,
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
        timeout: timedelta = timedelta(seconds=60),
        limit: int = DEFAULT_LIMIT,
        sink: Sink | None = None,
        redirects: int = 10,
        verify: bool = True,
        server_name: str = "",
        named_by_server: bool = False,
    ) -> Response:
        """One exchange, whatever its status; only what is no answer at all is raised.

        `credentials_for` is the URL whose origin the credentials are for (`url` itself by default).
        `timeout` is over everything, from connecting to the last byte. `limit` is in bytes of the
        unpacked body; a larger one is SourceInvalid. `sink` takes the body of a 2xx answer piece by
        piece. Redirects of GET and HEAD are followed, of other methods only 307 and 308; with
        `redirects=0` they are answers. `verify=False` accepts any certificate (for checks that were
        told so); `server_name` is who the certificate must be for in place of the URL's host.
        `named_by_server` tells that a server named `url`, which must then be no link-local address.

        Raises SourceUnavailable, SourceDenied (a refused certificate or redirect), SourceInvalid.
        """
        try:
            parts = urlsplit(url)
            _ = parts.port
        except ValueError:
            parts = SplitResult("", "", "", "", "")
        if parts.scheme.lower() not in ("http", "https") or not parts.hostname:
            raise SourceInvalid(
                "not a URL that can be asked",
                where=shown_url(url),
                next_step="it must begin with http:// or https:// and name a host",
            )
        exchange = _Exchange(
            session=self._session,
            method=method.upper(),
            url=url,
            credentials=credentials,
            credentials_for=credentials_for or url,
            pass_credentials=pass_credentials,
            headers={"User-Agent": self._user_agent, "Accept": "*/*", **(headers or {})},
            body=body,
            timeout=timeout.total_seconds(),
            connect_timeout=self._connect_timeout,
            read_timeout=self._read_timeout,
            limit=limit,
            sink=sink,
            redirects=redirects,
            verify=verify,
            server_name=server_name,
            named_by_server=named_by_server,
        )
        origin = _origin(parts)
        await self._take_slot(origin)
        return await self._run(exchange, origin)

    async def _run(self, exchange: _Exchange, origin: str) -> Response:
        """Wait for the exchange, at most until its deadline; its thread keeps its slots until it
        has really ended, so that there are never more hanging threads than slots.
        """
        try:
            future = asyncio.get_running_loop().run_in_executor(self._pool, exchange.perform)
        except RuntimeError:  # the pool was closed
            self._give_slot(origin)
            raise SourceUnavailable("helmops is stopping", where=exchange.shown) from None
        self._running.add(exchange)

        def ended(done: asyncio.Future[Response]) -> None:
            self._running.discard(exchange)
            self._give_slot(origin)
            if not done.cancelled():
                done.exception()  # seen: an abandoned exchange is nobody's news

        future.add_done_callback(ended)
        try:
            await asyncio.wait({future}, timeout=exchange.timeout)
        except asyncio.CancelledError:
            exchange.abort()
            raise
        if not future.done():
            exchange.abort()
            raise exchange.too_slow()
        return future.result()

    async def _take_slot(self, origin: str) -> None:
        slots = self._origins.setdefault(origin, _OriginSlots(asyncio.Semaphore(self._per_origin)))
        slots.users += 1
        try:
            await slots.free.acquire()
            try:
                await self._slots.acquire()
            except BaseException:
                slots.free.release()
                raise
        except BaseException:
            self._forget_user(origin)
            raise

    def _give_slot(self, origin: str) -> None:
        self._slots.release()
        self._origins[origin].free.release()
        self._forget_user(origin)

    def _forget_user(self, origin: str) -> None:
        slots = self._origins[origin]
        slots.users -= 1
        if not slots.users:
            del self._origins[origin]

    def _session(self, identity: _TlsIdentity) -> requests.Session:
        """The session for one set of CA, client certificate and key; the newest 64 are kept."""
        key = identity.digest()
        with self._sessions_lock:
            session = self._sessions.get(key)
            if session is not None:
                self._sessions.move_to_end(key)
                return session
        made = _new_session(identity, self._workers)
        with self._sessions_lock:
            session = self._sessions.setdefault(key, made)
            dropped = self._sessions.popitem(last=False)[1] if len(self._sessions) > 64 else None
        if dropped is not None:
            dropped.close()
        return session


@dataclass(slots=True)
class _OriginSlots:
    """How many more exchanges one origin may have, and who wants one."""

    free: asyncio.Semaphore
    users: int = 0


@dataclass(frozen=True, slots=True)
class _TlsIdentity:
    """What a TLS connection is made with."""

    ca: str = field(default="", repr=False)
    certificate: str = field(default="", repr=False)
    key: str = field(default="", repr=False)
    verify: bool = True
    #: Asked for and looked for in the certificate, where it is not the URL's host.
    server_name: str = ""

    def digest(self) -> str:
        parts = (self.ca, self.certificate, self.key, str(self.verify), self.server_name)
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()

    def context(self) -> ssl.SSLContext:
        """Raises SourceDenied where the texts are no PEM or do not belong together."""
        context = ssl.create_default_context()
        bundle = _ca_bundle_of_environment()
        # A slim image may have no authorities of its own. To read both is 50 ms lost.
        if not bundle and not context.cert_store_stats()["x509_ca"]:
            bundle = certifi.where()
        if bundle:
            context.load_verify_locations(cafile=bundle)
        if not self.verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        if self.ca:
            try:
                context.load_verify_locations(cadata=self.ca)
            except (ssl.SSLError, ValueError):
                raise SourceDenied(
                    "the CA certificate cannot be read",
                    next_step="ca.crt must hold PEM certificates",
                ) from None
        if self.certificate or self.key:
            self._load_client_certificate(context)
        return context

    def _load_client_certificate(self, context: ssl.SSLContext) -> None:
        """The ssl module reads keys from files only: they live in a private directory as long as
        that takes.
        """
        with tempfile.TemporaryDirectory(prefix="helmops-tls-") as directory:
            certificate = Path(directory, "tls.crt")
            key = Path(directory, "tls.key")
            for path, text in ((certificate, self.certificate), (key, self.key)):
                path.touch(mode=0o600)
                path.write_text(text)
            try:
                # An encrypted key would otherwise be asked for on the terminal.
                context.load_cert_chain(certificate, key, password=lambda: "")
            except (ssl.SSLError, ValueError, OSError):
                raise SourceDenied(
                    "the client certificate and its key cannot be used",
                    next_step="tls.crt and tls.key must be PEM, not encrypted, and belong together",
                ) from None


def _ca_bundle_of_environment() -> str:
    """The bundle that counts beside the system's, named as requests and curl have it named."""
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        path = os.environ.get(name, "")
        if path and Path(path).is_file():
            return path
    return ""


class _Exchange:
    """One request with its redirects, in one worker thread; `abort` may come from any other."""

    def __init__(
        self,
        *,
        session: Callable[[_TlsIdentity], requests.Session],
        method: str,
        url: str,
        credentials: HttpCredentials,
        credentials_for: str,
        pass_credentials: bool,
        headers: Mapping[str, str],
        body: bytes,
        timeout: float,
        connect_timeout: float,
        read_timeout: float,
        limit: int,
        sink: Sink | None,
        redirects: int,
        verify: bool,
        server_name: str,
        named_by_server: bool,
    ) -> None:
        self._session = session
        self._method = method
        self._url = url
        self._credentials = credentials
        self._credentials_for = credentials_for
        self._pass_credentials = pass_credentials
        #: Whether what is asked now was named by a server or an index, not by a person.
        self.led_on = named_by_server or not same_origin(url, credentials_for)
        own = credentials_in(url)
        if own and (not same_origin(url, credentials_for) or not _has_login(credentials)):
            self._credentials = replace(
                credentials, username=own[0], password=own[1], bearer_token=""
            )
            self._credentials_for, self._pass_credentials = url, False
        self._headers = headers
        self._body = body
        self.timeout = timeout
        self._connect_timeout = connect_timeout
        self._read_timeout = read_timeout
        self._limit = limit
        self._sink = sink
        self._redirects = redirects
        self._verify = verify
        self._server_name = server_name

        self._ends_at = 0.0
        self._lock = threading.Lock()
        self._aborted = False
        self._socket: socket.socket | None = None
        #: Whether a new connection was made for the present request.
        self.connected = False

    # What the connection classes below tell.

    def took(self, sock: socket.socket, *, new: bool) -> None:
        """A connection is in our hands: keep a way to shut it down from another thread.

        A duplicate of its descriptor, because wrapping a socket in TLS invalidates the first
        object, and an SSLSocket must not be touched by two threads.
        """
        self.connected = self.connected or new
        twin = socket.socket(fileno=os.dup(sock.fileno()))
        with self._lock:
            self._drop_socket()
            self._socket = twin
            aborted = self._aborted
        if aborted:
            self.abort()
        if new and self.led_on and _is_link_local(sock.getpeername()[0]):
            raise _LinkLocalError

    def abort(self) -> None:
        """End the exchange now, whatever it waits for (a name server excepted)."""
        with self._lock:
            self._aborted = True
            if self._socket is not None:
                with contextlib.suppress(OSError):
                    self._socket.shutdown(socket.SHUT_RDWR)

    @property
    def shown(self) -> str:
        return shown_url(self._url)

    def too_slow(self) -> SourceUnavailable:
        return SourceUnavailable(
            f"no complete answer within {self.timeout:g} s", where=shown_url(self._url)
        )

    def perform(self) -> Response:
        """Do it. Raises SourceError and nothing else of its own."""
        _in_hand.exchange = self
        self._ends_at = time.monotonic() + self.timeout
        try:
            return self._follow()
        finally:
            _in_hand.exchange = None
            with self._lock:
                self._drop_socket()

    def _drop_socket(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _follow(self) -> Response:
        url, redirects = self._url, self._redirects
        withheld = False
        secure = urlsplit(self._credentials_for).scheme == "https"
        downgraded = False
        if self.led_on and _is_link_local(urlsplit(url).hostname or ""):
            raise self._refused_link_local(url)
        while True:
            downgraded = downgraded or (secure and urlsplit(url).scheme != "https")
            trusted = not downgraded and (
                self._pass_credentials or same_origin(url, self._credentials_for)
            )
            withheld = withheld or (not trusted and _has_secrets(self._credentials))
            answer = self._ask(url, trusted=trusted)
            try:
                location = answer.headers.get("Location", "")
                if (
                    self._redirects == 0
                    or answer.status_code not in _REDIRECTS
                    or not location
                    or not (self._method in ("GET", "HEAD") or answer.status_code in (307, 308))
                ):
                    return self._read(answer, url, withheld=withheld)
            finally:
                answer.close()
            if not redirects:
                raise SourceUnavailable(
                    f"more than {self._redirects} redirects", where=shown_url(self._url)
                )
            redirects -= 1
            url = self._next(url, location)

    def _next(self, url: str, location: str) -> str:
        """Where a redirect leads, without the user and password that it may have named."""
        try:
            parts = urlsplit(urljoin(url, location))
            target = urlunsplit((parts.scheme, _netloc(parts), parts.path, parts.query, ""))
            host = parts.hostname or ""
        except ValueError:
            parts, target, host = SplitResult("", "", "", "", ""), "", ""
        if parts.scheme not in ("http", "https") or not host:
            raise SourceInvalid("redirects to what is no URL of the web", where=shown_url(url))
        if not same_origin(url, target):
            self.led_on = True
        if self.led_on and _is_link_local(host):
            raise self._refused_link_local(url)
        return target

    def _refused_link_local(self, url: str) -> SourceDenied:
        return SourceDenied(
            "leads to a link-local address, where clouds keep credentials; refused",
            where=shown_url(url),
            next_step="if that is meant, name the address itself as the source's URL",
        )

    def _ask(self, url: str, *, trusted: bool) -> requests.Response:
        """Send one request and read the head of its answer."""
        credentials = self._credentials if trusted else _NO_CREDENTIALS
        identity = _TlsIdentity(
            ca=self._credentials.ca,
            certificate=credentials.certificate,
            key=credentials.key,
            verify=self._verify,
            server_name=self._server_name if same_origin(url, self._url) else "",
        )
        headers = dict(self._headers)
        authorization = _authorization(credentials)
        if authorization:
            headers["Authorization"] = authorization
        bare = without_user(url)
        proxy = self._credentials.proxy
        for attempt in (1, 2):
            self.connected = False
            left = self._left()
            try:
                return self._session(identity).request(
                    self._method,
                    bare,
                    headers=headers,
                    data=self._body or None,
                    timeout=(min(self._connect_timeout, left), min(self._read_timeout, left)),
                    proxies={"http": proxy, "https": proxy}
                    if proxy
                    else requests.utils.get_environ_proxies(bare, no_proxy=None),
                    allow_redirects=False,
                    stream=True,
                )
            except SourceError:
                raise
            except Exception as error:
                dropped = not self.connected and _is_dropped(error) and not self._aborted
                if attempt == 1 and dropped and self._method in ("GET", "HEAD"):
                    continue
                raise self._explain(error, url) from None
        raise AssertionError  # the second attempt returns or raises

    def _read(self, answer: requests.Response, url: str, *, withheld: bool) -> Response:
        """Take the body in, piece by piece, within time and size."""
        sink = self._sink if 200 <= answer.status_code < 300 else None
        kept: list[bytes] = []
        size = 0
        while self._method != "HEAD" and (piece := self._piece(answer, url)):
            size += len(piece)
            if size > self._limit:
                raise SourceInvalid(
                    f"larger than the limit of {_shown_size(self._limit)}", where=shown_url(url)
                )
            if sink is None:
                kept.append(piece)
            else:
                sink(piece)
        return Response(
            status=answer.status_code,
            reason=answer.reason or "",
            headers={name.lower(): value for name, value in answer.headers.items()},
            body=b"".join(kept),
            url=shown_url(url),
            credentials_withheld=withheld,
        )

    def _piece(self, answer: requests.Response, url: str) -> bytes:
        """What has arrived, at least a byte unless it was all: `read` would wait for a full
        buffer, and so never look at the clock while a server drips.
        """
        self._left()
        try:
            piece: bytes = answer.raw.read1(_CHUNK, decode_content=True)
        except Exception as error:
            raise self._explain(error, url) from None
        self._left()
        return piece

    def _left(self) -> float:
        """Seconds until the deadline, never 0. Raises SourceUnavailable past it."""
        left = self._ends_at - time.monotonic()
        if left <= 0 or self._aborted:
            raise self.too_slow()
        return left

    def _explain(self, error: Exception, url: str) -> SourceError:
        """The one table from what libraries raise to what we say."""
        if self._aborted or time.monotonic() >= self._ends_at:
            return self.too_slow()
        where = shown_url(url)
        host = urlsplit(url).hostname or ""
        chain = list(_chain(error))

        def find(*kinds: type[BaseException]) -> BaseException | None:
            return next((one for one in chain if isinstance(one, kinds)), None)

        if find(_LinkLocalError):
            return self._refused_link_local(url)
        if refused := find(ssl.SSLCertVerificationError):
            return SourceDenied(
                f"the server's certificate is refused: {_verify_message(refused)}",
                where=where,
                next_step="give the CA that signed it as ca.crt, or correct the host name",
            )
        if refused := find(ssl.SSLError):
            alert = (getattr(refused, "reason", "") or "").replace("_", " ").lower()
            if "alert" in alert:
                return SourceDenied(
                    f"the server refuses our client certificate or TLS settings: {alert}",
                    where=where,
                    next_step="check tls.crt and tls.key of the source",
                )
            hint = "does the server speak https on this port?" if "wrong version" in alert else ""
            return SourceUnavailable(
                f"the TLS connection failed: {alert or 'broken off'}", where=where, next_step=hint
            )
        if find(requests.exceptions.ProxyError, urllib3.exceptions.ProxyError):
            return SourceUnavailable(
                "the proxy cannot be used",
                where=where,
                next_step="check the Secret of proxySecretRef"
                if self._credentials.proxy
                else "check HTTP_PROXY, HTTPS_PROXY and NO_PROXY",
            )
        if find(socket.gaierror, urllib3.exceptions.NameResolutionError):
            return SourceUnavailable(f"the host name {host} is not known", where=where)
        if find(ConnectionRefusedError):
            return SourceUnavailable("the connection is refused", where=where)
        # Before the timeouts: urllib3 has this one as a kind of ConnectTimeoutError.
        unmade = find(urllib3.exceptions.NewConnectionError)
        system = find(OSError)
        if unmade is not None and (said := getattr(system, "strerror", "")):
            return SourceUnavailable(f"no connection: {said}", where=where)
        if find(urllib3.exceptions.ConnectTimeoutError, requests.exceptions.ConnectTimeout):
            return SourceUnavailable(
                f"no connection within {self._connect_timeout:g} s", where=where
            )
        if find(urllib3.exceptions.ReadTimeoutError, requests.exceptions.ReadTimeout, TimeoutError):
            return SourceUnavailable(f"silent for {self._read_timeout:g} s", where=where)
        if find(urllib3.exceptions.IncompleteRead, http.client.IncompleteRead):
            return SourceUnavailable("broken off in the middle of the answer", where=where)
        if find(urllib3.exceptions.DecodeError, requests.exceptions.ContentDecodingError):
            return SourceInvalid("the answer's Content-Encoding cannot be unpacked", where=where)
        if _is_dropped(error):
            return SourceUnavailable("the connection was dropped", where=where)
        if find(
            requests.exceptions.InvalidURL,
            requests.exceptions.InvalidSchema,
            requests.exceptions.MissingSchema,
            urllib3.exceptions.LocationValueError,
            UnicodeError,
        ):
            return SourceInvalid("not a URL that can be asked", where=where)
        if find(requests.exceptions.InvalidHeader):
            return SourceDenied(
                "the user, password or token holds characters that no header may", where=where
            )
        if find(http.client.HTTPException):
            return SourceUnavailable("the answer is not HTTP", where=where)
        said = getattr(system, "strerror", "")
        return SourceUnavailable(
            f"the exchange failed: {said or type(error).__name__}", where=where
        )


# Connections that tell the exchange of their thread what it has in hand.


class _InHand(threading.local):
    exchange: _Exchange | None = None


_in_hand = _InHand()


class _LinkLocalError(Exception):
    """A connection that a server led us to ended at a link-local address."""


class _PlainConnection(urllib3.connection.HTTPConnection):
    def _new_conn(self) -> socket.socket:
        return _noticed(super()._new_conn(), new=True)

    def request(self, *args: Any, **kwargs: Any) -> None:
        if self.sock is not None:
            _noticed(self.sock, new=False)
        super().request(*args, **kwargs)


class _TlsConnection(urllib3.connection.HTTPSConnection):
    def _new_conn(self) -> socket.socket:
        return _noticed(super()._new_conn(), new=True)

    def request(self, *args: Any, **kwargs: Any) -> None:
        if self.sock is not None:
            _noticed(self.sock, new=False)
        super().request(*args, **kwargs)


def _noticed(sock: socket.socket, *, new: bool) -> socket.socket:
    exchange = _in_hand.exchange
    if exchange is not None:
        try:
            exchange.took(sock, new=new)
        except _LinkLocalError:
            sock.close()
            raise
    return sock


class _PlainPool(urllib3.connectionpool.HTTPConnectionPool):
    ConnectionCls = _PlainConnection


class _TlsPool(urllib3.connectionpool.HTTPSConnectionPool):
    ConnectionCls = _TlsConnection

    def _validate_conn(self, conn: Any) -> None:
        """As urllib3's, without its warning: who asks with `verify=False` was told to."""
        if conn.is_closed:
            conn.connect()


_POOLS: Final = {"http": _PlainPool, "https": _TlsPool}


class _Adapter(requests.adapters.HTTPAdapter):
    """Connections with our own TLS context, made once, instead of files named per request. It is
    made for the first connection that needs one: to read the authorities takes 50 ms.
    """

    def __init__(self, identity: _TlsIdentity, connections: int) -> None:
        self._identity = identity
        super().__init__(pool_connections=64, pool_maxsize=connections, max_retries=0)

    @cached_property
    def context(self) -> ssl.SSLContext:
        return self._identity.context()

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = _POOLS

    def proxy_manager_for(self, proxy: str, **kwargs: Any) -> Any:
        manager = super().proxy_manager_for(proxy, ssl_context=self.context, **kwargs)
        manager.pool_classes_by_scheme = _POOLS
        return manager

    def build_connection_pool_key_attributes(
        self, request: requests.PreparedRequest, verify: Any, cert: Any = None
    ) -> tuple[Any, Any]:
        host, _ = super().build_connection_pool_key_attributes(request, verify, cert)
        if host["scheme"] != "https":
            return host, {}
        name = self._identity.server_name or None
        return host, {"ssl_context": self.context, "server_hostname": name}

    def cert_verify(self, conn: Any, url: str, verify: Any, cert: Any) -> None:
        """All of that is in the context."""


def _new_session(identity: _TlsIdentity, connections: int) -> requests.Session:
    session = requests.Session()
    session.trust_env = False  # no netrc; proxies are looked up for each request
    session.headers = requests.structures.CaseInsensitiveDict({"Accept-Encoding": "gzip"})
    session.cookies.set_policy(http.cookiejar.DefaultCookiePolicy(allowed_domains=[]))
    adapter = _Adapter(identity, connections)
    if identity.ca or identity.certificate or identity.key:
        _ = adapter.context  # refused at once where it is no PEM, also for plain http
    for prefix in ("https://", "http://"):
        session.mount(prefix, adapter)
    return session


# Small facts about URLs, headers and errors.


def _netloc(parts: SplitResult) -> str:
    """Host and port, without user and password. Raises ValueError for a port that is none."""
    host = parts.hostname or ""
    if ":" in host:
        host = f"[{host}]"
    return f"{host}:{parts.port}" if parts.port is not None else host


def without_user(url: str) -> str:
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, _netloc(parts), parts.path, parts.query, ""))


def _origin(parts: SplitResult) -> str:
    scheme = parts.scheme.lower()
    port = parts.port or {"http": 80, "https": 443}.get(scheme, 0)
    return f"{scheme}://{(parts.hostname or '').lower().rstrip('.')}:{port}"


def _is_link_local(host: str) -> bool:
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_link_local


def _has_login(credentials: HttpCredentials) -> bool:
    return bool(credentials.username or credentials.password or credentials.bearer_token)


def _has_secrets(credentials: HttpCredentials) -> bool:
    return _has_login(credentials) or bool(credentials.certificate)


def credentials_in(url: str) -> tuple[str, str] | None:
    """User and password that a URL itself names."""
    parts = urlsplit(url)
    if not parts.username and not parts.password:
        return None
    return unquote(parts.username or ""), unquote(parts.password or "")


def _authorization(credentials: HttpCredentials) -> str:
    """The header's value; a token goes before a user.

    Secrets made with `echo` end in a newline; no token does.
    """
    if token := credentials.bearer_token.strip():
        return f"Bearer {token}"
    if not credentials.username and not credentials.password:
        return ""
    login = f"{credentials.username}:{credentials.password}"
    return "Basic " + base64.b64encode(login.encode()).decode()


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that the server asks us to wait, at most an hour; a date counts from its own."""
    text = headers.get("retry-after", "").strip()
    if text.isascii() and text.isdigit():
        return min(float(text[:10]), LONGEST_RETRY_AFTER)
    try:
        wait = parsedate_to_datetime(text) - parsedate_to_datetime(headers.get("date", ""))
    except (ValueError, TypeError):
        return None
    return min(max(wait.total_seconds(), 0.0), LONGEST_RETRY_AFTER)


def _chain(error: BaseException) -> Iterator[BaseException]:
    """An error and all that it came from, in whichever of four places the libraries keep it."""
    seen: set[int] = set()
    waiting: list[object] = [error]
    while waiting:
        one = waiting.pop(0)
        if not isinstance(one, BaseException) or id(one) in seen:
            continue
        seen.add(id(one))
        yield one
        waiting += [getattr(one, "reason", None), *one.args, one.__cause__, one.__context__]


def _is_dropped(error: BaseException) -> bool:
    """Whether the other side closed the connection."""
    dropped = (ConnectionResetError, BrokenPipeError, ConnectionAbortedError)
    return any(isinstance(one, dropped) for one in _chain(error))


def _verify_message(error: BaseException) -> str:
    return getattr(error, "verify_message", "") or "not trusted"


def _shown_size(size: int) -> str:
    return f"{size / 2**20:g} MiB" if size >= 2**20 else f"{size} bytes"
