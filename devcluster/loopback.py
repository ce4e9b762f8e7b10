"""An HTTP server on loopback whose faults can be switched, for tests and the demo.

Everything it was asked is kept in `requests`. A fault stays until `heal`, or for so many `times`.
"""

import base64
import fnmatch
import gzip
import hashlib
import hmac
import http.server
import socket
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from devcluster.certificates import KeyPair
from devcluster.closing import Closing

_LOGIN_PAGE = b"<!DOCTYPE html><html><title>Sign in</title><body>Please sign in</body></html>\n"


@dataclass(frozen=True)
class Request:
    """One request as it came in. Header names are in lower case."""

    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    body: bytes = field(default=b"", repr=False)


@dataclass(frozen=True)
class Answer:
    """One answer as the server means it, before faults."""

    status: int = 200
    body: bytes = field(default=b"", repr=False)
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Seen:
    """One request and the status that it was answered with; 0: none, the connection was dropped."""

    request: Request
    status: int


@dataclass
class Fault:
    """Something that goes wrong, on paths that match the shell pattern `path`.

    Several together make one fault: slow and truncated, say.
    """

    path: str = "*"
    times: int | None = None
    """How many requests it spoils; None: every one until `heal`."""
    status: int | None = None
    """Answer with this status and a short text."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """More headers, as Retry-After or Location."""
    slow: float = 0.0
    """Seconds before anything is answered."""
    trickle: float = 0.0
    """Seconds before each further byte of the body."""
    drop: bool = False
    """Close the connection without an answer."""
    truncate: bool = False
    """Close it in the middle of the body, whose length had been promised."""
    html: bool = False
    """Answer 200 with a page to sign in, as captive portals and proxies do."""
    garbage: bool = False
    """Answer bytes that are no HTTP."""
    endless: bool = False
    """A body that never ends, without a length."""


class LoopbackServer(Closing):
    """An HTTP or HTTPS server on a free port of 127.0.0.1, running until `close`.

    `respond` says what it means to answer; credentials, ETags, compression and faults are the
    server's. With `client_ca`, only clients with a certificate of that authority are served.
    """

    def __init__(
        self,
        respond: Callable[[Request], Answer],
        *,
        user: str = "",
        password: str = "",
        token: str = "",
        tls: KeyPair | None = None,
        client_ca: Path | None = None,
        etags: bool = True,
        compress: bool = False,
        port: int = 0,
    ) -> None:
        self.requests: list[Seen] = []
        self.user, self.password, self.token = user, password, token
        self.etags, self.compress = etags, compress
        self._respond = respond
        self._faults: list[Fault] = []
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._http = _Server(self, port, _tls_context(tls, client_ca))
        self._scheme = "https" if tls else "http"
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    @property
    def port(self) -> int:
        return int(self._http.server_address[1])

    @property
    def url(self) -> str:
        """Its address, without a slash at the end."""
        return f"{self._scheme}://127.0.0.1:{self.port}"

    def fail(self, fault: Fault) -> None:
        """From now on `fault`, before those that were there already."""
        with self._lock:
            self._faults.insert(0, fault)

    @contextmanager
    def failing(self, fault: Fault) -> Iterator[None]:
        """`fault` for as long as the block runs."""
        self.fail(fault)
        try:
            yield
        finally:
            with self._lock:
                self._faults = [other for other in self._faults if other is not fault]

    def heal(self) -> None:
        """No faults any more."""
        with self._lock:
            self._faults.clear()

    def count(self, path: str = "*", *, status: int | None = None) -> int:
        """How many requests came for paths like `path`, of those answered with `status`."""
        with self._lock:
            return sum(
                fnmatch.fnmatchcase(seen.request.path, path) and status in (None, seen.status)
                for seen in self.requests
            )

    def close(self) -> None:
        """Stop serving and let the port go; requests that a fault holds are dropped."""
        self._closing.set()
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()

    # What the handler asks.

    def _answer(self, request: Request) -> tuple[Answer, Fault]:
        """What to answer, and the fault to spoil it with."""
        fault = self._fault_for(request.path)
        if self._closing.wait(fault.slow):
            return Answer(503), Fault(drop=True)
        if fault.status is not None:
            text = f"{fault.status} as asked for by the test\n".encode()
            answer = Answer(fault.status, text, {"Content-Type": "text/plain"})
        elif fault.html:
            answer = Answer(200, _LOGIN_PAGE, {"Content-Type": "text/html; charset=utf-8"})
        elif not self._authorized(request):
            scheme = "Bearer" if self.token else "Basic"
            answer = Answer(401, b"who are you?\n", {"WWW-Authenticate": f'{scheme} realm="test"'})
        else:
            answer = self._negotiated(request, self._respond(request))
        if fault.headers:
            answer = Answer(answer.status, answer.body, {**answer.headers, **fault.headers})
        return answer, fault

    def _fault_for(self, path: str) -> Fault:
        with self._lock:
            for fault in self._faults:
                if fnmatch.fnmatchcase(path, fault.path) and fault.times != 0:
                    if fault.times is not None:
                        fault.times -= 1
                    return fault
        return Fault()

    def _authorized(self, request: Request) -> bool:
        sent = request.headers.get("authorization", "")
        if self.token:
            return hmac.compare_digest(sent, f"Bearer {self.token}")
        if self.user:
            pair = base64.b64encode(f"{self.user}:{self.password}".encode()).decode()
            return hmac.compare_digest(sent, f"Basic {pair}")
        return True

    def _negotiated(self, request: Request, answer: Answer) -> Answer:
        """The answer with its ETag, as 304 if the client has it, compressed if both want that."""
        if answer.status != 200 or request.method not in ("GET", "HEAD"):
            return answer
        headers = dict(answer.headers)
        if self.etags and "ETag" not in headers:
            headers["ETag"] = f'"{hashlib.sha256(answer.body).hexdigest()[:32]}"'
        if headers.get("ETag") and request.headers.get("if-none-match") == headers["ETag"]:
            return Answer(304, b"", headers)
        body = answer.body
        if self.compress and "gzip" in request.headers.get("accept-encoding", ""):
            body = gzip.compress(body, mtime=0)
            headers["Content-Encoding"] = "gzip"
        return Answer(200, body, headers)

    def _record(self, request: Request, status: int) -> None:
        with self._lock:
            self.requests.append(Seen(request, status))


def _tls_context(tls: KeyPair | None, client_ca: Path | None) -> ssl.SSLContext | None:
    if tls is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tls.certificate, tls.key)
    if client_ca is not None:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(client_ca)
    return context


class _Server(http.server.ThreadingHTTPServer):
    """Hands TLS to each connection's own thread, so that one bad handshake holds up nobody."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, owner: LoopbackServer, port: int, context: ssl.SSLContext | None) -> None:
        self.owner = owner
        self._context = context
        self._open: set[socket.socket] = set()
        super().__init__(("127.0.0.1", port), _Handler)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """In the connection's own thread: TLS first, then requests until the client leaves."""
        try:
            if self._context is not None:
                request = self._context.wrap_socket(request, server_side=True)
        except OSError:
            self.shutdown_request(request)
            return
        self._open.add(request)
        super().process_request_thread(request, client_address)
        self._open.discard(request)

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that went away is no news."""

    def server_close(self) -> None:
        """Also end the connections that clients keep open for their next request."""
        super().server_close()
        for connection in list(self._open):
            _end(connection)


def _end(connection: socket.socket) -> None:
    """End a connection that may have ended already; its own thread then closes it."""
    try:
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:
        return


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # Head and body are written apart: without this each answer waits 40 ms for the client's ACK.
    disable_nagle_algorithm = True
    server: _Server

    def _serve(self) -> None:
        owner = self.server.owner
        path, query = urlsplit(self.path)[2:4]
        headers = {name.lower(): value for name, value in self.headers.items()}
        request = Request(self.command, path, query, headers, self._read_body(headers))
        answer, fault = owner._answer(request)
        dropped = fault.drop or fault.garbage
        owner._record(request, 0 if dropped else answer.status)
        if fault.garbage:
            self.wfile.write(b"\x00\x01 this is no HTTP\r\n\r\n")
        if dropped:
            self.close_connection = True
            return
        self._send_head(answer, fault)
        if self.command != "HEAD":
            self._send_body(answer, fault)

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = _serve  # noqa: N815

    def _read_body(self, headers: Mapping[str, str]) -> bytes:
        if headers.get("transfer-encoding", "").lower() != "chunked":
            return self.rfile.read(int(headers.get("content-length") or 0))
        chunks = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            chunks.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(chunks)

    def _send_head(self, answer: Answer, fault: Fault) -> None:
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        if fault.endless:
            self.close_connection = True
        elif answer.status not in (204, 304):
            self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()

    def _send_body(self, answer: Answer, fault: Fault) -> None:
        body = answer.body
        if fault.truncate:
            body = body[: len(body) // 2]
            self.close_connection = True
        if fault.trickle:
            for byte in body:
                self.wfile.write(bytes([byte]))
                if self.server.owner._closing.wait(fault.trickle):
                    return
        else:
            self.wfile.write(body)
        while fault.endless and not self.server.owner._closing.is_set():
            self.wfile.write(b"# and so on\n" * 4096)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """`requests` has them all."""
