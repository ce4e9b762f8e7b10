"""A TCP proxy on loopback that cuts or stalls what goes through it: a network that fails.

It passes bytes on and understands none of them, so TLS goes through as it is.
"""

import contextlib
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Self

_CHUNK = 1 << 16
#: Closing with a lingering time of zero sends a reset instead of a goodbye.
_RESET = struct.pack("ii", 1, 0)


class TcpProxy:
    """Passes connections to a port of 127.0.0.1 on to `target`, until `close`.

    `cut` resets what is open and refuses what comes; `stall` keeps all of it open and passes
    nothing on, and `heal` ends either: what was held back is then passed on.
    """

    def __init__(self, target: int) -> None:
        self._target = target
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._is_cut = False
        self._flows = threading.Event()
        self._flows.set()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    @property
    def port(self) -> int:
        """The port that it listens on."""
        return int(self._listener.getsockname()[1])

    def cut(self) -> None:
        """Reset all connections, and every new one."""
        with self._lock:
            self._is_cut = True
        self.reset()

    def reset(self) -> None:
        """Reset the connections that are open now; new ones are served."""
        with self._lock:
            doomed, self._open = self._open, set()
        for connection in doomed:
            _reset(connection)

    def stall(self) -> None:
        """Pass nothing on; whoever waits for an answer waits."""
        self._flows.clear()

    def heal(self) -> None:
        """Pass everything on again."""
        with self._lock:
            self._is_cut = False
        self._flows.set()

    @contextmanager
    def cutting(self) -> Iterator[None]:
        """Cut for as long as the block runs."""
        self.cut()
        try:
            yield
        finally:
            self.heal()

    @contextmanager
    def stalling(self) -> Iterator[None]:
        """Stalled for as long as the block runs."""
        self.stall()
        try:
            yield
        finally:
            self.heal()

    def close(self) -> None:
        """Stop, and reset what is open."""
        # Closing alone does not wake the thread that waits for a connection.
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()
        self.cut()
        self._flows.set()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        self._flows.wait()
        try:
            server = socket.create_connection(("127.0.0.1", self._target), timeout=5)
        except OSError:
            _reset(client)
            return
        server.settimeout(None)
        with self._lock:
            is_cut = self._is_cut
            if not is_cut:
                self._open |= {client, server}
        if is_cut:
            _reset(client)
            _reset(server)
            return
        back = threading.Thread(target=self._pump, args=(server, client), daemon=True)
        back.start()
        self._pump(client, server)
        back.join()
        with self._lock:
            self._open -= {client, server}
        client.close()
        server.close()

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        """Pass on until the source ends or either breaks; then tell the sink that it ended."""
        with contextlib.suppress(OSError):
            while chunk := source.recv(_CHUNK):
                self._flows.wait()
                sink.sendall(chunk)
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_WR)


def _reset(connection: socket.socket) -> None:
    """Break a connection off; a thread that reads from it wakes up."""
    with contextlib.suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        connection.shutdown(socket.SHUT_RD)
    connection.close()
