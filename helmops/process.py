"""One run of one program: no shell, its own process group, a hard end, bounded output.

The child ends with us: the kernel sends it SIGTERM when the thread that started it is gone
(`PR_SET_PDEATHSIG`; so the event loop must run in a thread that lasts, as the main thread does).
helm marks an install or upgrade `failed` on SIGTERM, as long as there is somebody to tell: without
its helmops it writes into a closed pipe and may die of SIGPIPE before. `helm rollback`, `uninstall`
and `test` have no handler at all (seen with Helm 3.19.0 and 4.3.1). So what a killed helmops leaves
may be locked, and is for the next pass to mend.

Who asks the kernel for that is `setpriv` of util-linux where there is one: a function in the forked
child does it too, but then Python cannot use vfork, and copying a service's page tables costs
12 ms of CPU a start instead of 2 (150 MB resident, 2 cores).
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True)
_SETPRIV = ("--pdeathsig", "TERM", "--")
_CHUNK = 1 << 16
_LONGEST_LINE = 2_000


@dataclass(frozen=True, slots=True)
class Finished:
    """How a program ended. `status` is negative for a signal; `duration` is in seconds.

    `is_overdue`: it was still running at its deadline and was stopped. `is_cut`: it said more than
    was kept.
    """

    status: int
    stdout: bytes
    stderr: bytes
    duration: float
    is_overdue: bool = False
    is_cut: bool = False


@dataclass(frozen=True, slots=True)
class Grace:
    """Seconds between SIGTERM and SIGKILL: for a cancelled run, and for one at its deadline."""

    after_cancel: float = 0.8
    after_deadline: float = 10.0


DEFAULT_GRACE = Grace()


@dataclass(slots=True)
class Kept:
    """The beginning and the end of a stream, `limit` bytes in all."""

    limit: int
    head: bytearray = field(default_factory=bytearray)
    tail: bytearray = field(default_factory=bytearray)
    is_cut: bool = False

    def add(self, chunk: bytes) -> None:
        room = self.limit // 2 - len(self.head)
        if room > 0:
            self.head += chunk[:room]
            chunk = chunk[room:]
        self.tail += chunk
        excess = len(self.tail) - self.limit // 2
        if excess > 0:
            del self.tail[:excess]
            self.is_cut = True

    def __bytes__(self) -> bytes:
        gap = b"\n[...]\n" if self.is_cut else b""
        return bytes(self.head + gap + self.tail)


async def run(
    command: Sequence[str],
    *,
    environment: Mapping[str, str],
    directory: str | None = None,
    stdin: bytes = b"",
    deadline: float | None = None,
    inherited: Sequence[int] = (),
    grace: Grace = DEFAULT_GRACE,
    setpriv: str = "",
    stdout_limit: int = 1 << 18,
    stderr_limit: int = 1 << 17,
    on_start: Callable[[int], None] | None = None,
    on_line: Callable[[str], None] | None = None,
) -> Finished:
    """Run a program to its end, and leave nothing of it behind.

    `directory` is ours where it is None. `deadline` is in seconds from now. `inherited` are open
    files that the child gets. `on_start` is called with the process id, `on_line` with each line of
    either stream as it comes. `setpriv` is the path of a setpriv that knows `--pdeathsig`.
    Cancelled, the run ends the child and its group within `grace.after_cancel`. Raises OSError
    where the program cannot be started.
    """
    started = time.monotonic()
    starting = asyncio.create_subprocess_exec(
        *((setpriv, *_SETPRIV) if setpriv else ()),
        *command,
        stdin=asyncio.subprocess.PIPE if stdin else asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=dict(environment),
        cwd=directory,
        start_new_session=True,
        pass_fds=tuple(inherited),
        preexec_fn=None if setpriv else _dies_with(os.getpid()),
        limit=_CHUNK,
    )
    process = await _started(asyncio.ensure_future(starting))
    stdout, stderr = Kept(stdout_limit), Kept(stderr_limit)
    work = asyncio.gather(
        _feed(process.stdin, stdin),
        _read(process.stdout, stdout, on_line),
        _read(process.stderr, stderr, on_line),
        process.wait(),
    )
    is_overdue = False
    try:
        if on_start is not None:
            on_start(process.pid)
        async with asyncio.timeout(deadline):
            await asyncio.shield(work)
    except TimeoutError:
        is_overdue = True
        await _end(process, work, grace.after_deadline)
    except BaseException:
        await _end(process, work, grace.after_cancel)
        raise
    return Finished(
        status=process.returncode or 0,
        stdout=bytes(stdout),
        stderr=bytes(stderr),
        duration=time.monotonic() - started,
        is_overdue=is_overdue,
        is_cut=stdout.is_cut or stderr.is_cut,
    )


async def _started(
    starting: asyncio.Future[asyncio.subprocess.Process],
) -> asyncio.subprocess.Process:
    """The process, or its end where we are cancelled while it starts: asyncio alone would kill only
    the program, and wait for whatever that has started itself.
    """
    try:
        return await asyncio.shield(starting)
    except asyncio.CancelledError:
        await asyncio.wait({starting})
        if not starting.cancelled() and starting.exception() is None:
            process = starting.result()
            _signal(process.pid, signal.SIGKILL)
            await process.wait()
        raise


async def _end(
    process: asyncio.subprocess.Process, work: asyncio.Future[Any], grace: float
) -> None:
    """SIGTERM, some time, SIGKILL to the whole group. A second cancellation kills at once."""
    _signal(process.pid, signal.SIGTERM)
    try:
        with suppress(TimeoutError):
            async with asyncio.timeout(grace):
                await asyncio.shield(work)
    finally:
        # Whatever the child started goes too, also where the child itself went in time.
        _signal(process.pid, signal.SIGKILL)
        work.cancel()
        with suppress(asyncio.CancelledError):
            await work
        await process.wait()


def _signal(group: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)


def _dies_with(parent: int) -> Callable[[], None]:
    """What the child does before it becomes the program: as little as can be."""

    def prepare() -> None:
        if hasattr(_libc, "prctl"):  # Linux
            _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:  # the parent went before the kernel knew
            os._exit(127)

    return prepare


async def _feed(stream: asyncio.StreamWriter | None, data: bytes) -> None:
    if stream is None:
        return
    with suppress(BrokenPipeError, ConnectionResetError):  # it ended without reading
        stream.write(data)
        await stream.drain()
    stream.close()
    with suppress(BrokenPipeError, ConnectionResetError):
        await stream.wait_closed()


async def _read(
    stream: asyncio.StreamReader | None, kept: Kept, on_line: Callable[[str], None] | None
) -> None:
    assert stream is not None  # noqa: S101 (always piped)
    rest = b""
    while chunk := await stream.read(_CHUNK):
        kept.add(chunk)
        if on_line is None:
            continue
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            _tell(on_line, line)
        rest = rest[-_LONGEST_LINE:]
    if on_line is not None:
        _tell(on_line, rest)


def _tell(on_line: Callable[[str], None], line: bytes) -> None:
    text = line[:_LONGEST_LINE].decode(errors="replace").rstrip()
    if text:
        on_line(text)
