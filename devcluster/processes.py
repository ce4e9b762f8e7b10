"""Long-running programs that outlive the command that started them, known by pid and start time.

A pid alone is not an identity: after a crash or a reboot the number may belong to somebody else.
So a record also holds when the process started; one that started at another time is not ours.
"""

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

_POLL = 0.05  # seconds between two looks at a process that is ending


@dataclass(frozen=True)
class Process:
    """One program that was started: its pid, and the kernel's word for when it started."""

    pid: int
    started: str

    def alive(self) -> bool:
        """Whether it still runs; a process that took over the number does not count."""
        return _start_time(self.pid) == self.started

    def save(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self)))


def load(path: Path) -> Process | None:
    """The record at `path`, or nothing when there is none or a crash left half of one."""
    try:
        fields = json.loads(path.read_text())
        return Process(pid=int(fields["pid"]), started=str(fields["started"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def start(
    argv: Sequence[str], *, log: Path, environment: Mapping[str, str] | None = None
) -> Process:
    """Start `argv` in its own session, without input, its output appended to `log`.

    It belongs to nobody's terminal: Ctrl-C in the shell that said `up` does not end it.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    pid = os.posix_spawn(
        argv[0],
        list(argv),
        dict(os.environ if environment is None else environment),
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, str(log), flags, 0o600),
            (os.POSIX_SPAWN_DUP2, 1, 2),
        ],
        setsid=True,
    )
    return Process(pid=pid, started=_start_time(pid) or "gone")


def stop(processes: Sequence[Process], *, grace: float = 15.0) -> None:
    """Ask each to end, wait `grace` seconds for all together, then kill what is left.

    A `grace` of zero kills at once, as a power loss would.
    """
    for process in processes:
        _send(process, signal.SIGTERM if grace else signal.SIGKILL)
    deadline = time.monotonic() + grace
    for process in processes:
        while process.alive() and time.monotonic() < deadline:
            time.sleep(_POLL)
        _send(process, signal.SIGKILL)
        while process.alive():
            time.sleep(_POLL)


def _send(process: Process, number: signal.Signals) -> None:
    if process.alive():
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, number)


def _start_time(pid: int) -> str | None:
    """When the process started, in the system's own words; nothing when it has ended.

    A zombie has ended: if it is our own child it is buried here, else whoever started it will.
    """
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)
    if Path("/proc/self/stat").exists():
        try:
            # The name in parentheses may hold spaces, so count from behind it.
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return None
        return None if fields[0] in "ZX" else fields[19]
    answer = subprocess.run(
        ["ps", "-o", "stat=,lstart=", "-p", str(pid)], capture_output=True, text=True, check=False
    )
    state, _, started = answer.stdout.strip().partition(" ")
    return None if not started or state.startswith("Z") else started.strip()
