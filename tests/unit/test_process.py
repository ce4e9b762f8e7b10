"""One run of one program, with everything that can happen to it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from helmops import process
from helmops.process import DEFAULT_GRACE, Grace, Kept

HERE = str(Path(__file__).resolve().parents[2])
#: Both ways of asking the kernel to end the child with its parent.
WAYS = ["", shutil.which("setpriv") or ""]


async def sh(script: str, **options: object) -> process.Finished:
    settings: dict[str, object] = {"environment": {"PATH": os.environ["PATH"]}, "directory": "/"}
    return await process.run(["/bin/sh", "-c", script], **{**settings, **options})  # type: ignore[arg-type]


def is_alive(pid: int) -> bool:
    with contextlib.suppress(OSError):
        # A zombie that nobody has waited for yet is as good as gone.
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    return False


def started(command: list[str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(command, env={"PYTHONPATH": HERE})


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 (another process does it)
            await asyncio.sleep(0.01)


async def gone(pid: int) -> None:
    await until(lambda: not is_alive(pid))


def content(path: Path) -> str:
    return path.read_text().strip() if path.exists() else ""


async def appears(path: Path) -> str:
    await until(lambda: content(path))
    return content(path)


async def test_output_status_and_input_are_carried() -> None:
    finished = await sh("cat; echo err >&2; exit 3", stdin=b"in")
    assert (finished.status, finished.stdout, finished.stderr) == (3, b"in", b"err\n")
    assert not finished.is_overdue
    assert not finished.is_cut
    assert finished.duration > 0


async def test_a_signal_is_a_negative_status() -> None:
    assert (await sh("kill -9 $$")).status == -9


async def test_the_environment_is_what_is_given_and_nothing_else() -> None:
    finished = await sh("env", environment={"ONLY": "this"})
    names = {line.partition("=")[0] for line in finished.stdout.decode().splitlines()}
    assert "ONLY" in names
    assert names <= {"ONLY", "PWD", "SHLVL", "_"}


async def test_input_that_nobody_reads_is_no_failure() -> None:
    assert (await sh("exit 0", stdin=b"x" * 1_000_000)).status == 0


async def test_without_input_the_program_reads_nothing() -> None:
    assert (await sh("cat")).stdout == b""


async def test_output_is_bounded_to_its_beginning_and_its_end() -> None:
    finished = await sh("echo first; head -c 1000000 /dev/zero; echo last", stdout_limit=1000)
    assert finished.is_cut
    assert len(finished.stdout) < 1_100
    assert finished.stdout.startswith(b"first")
    assert finished.stdout.endswith(b"last\n")


def test_what_fits_is_kept_whole_however_it_comes() -> None:
    kept = Kept(10)
    for chunk in (b"0123", b"456", b"789"):
        kept.add(chunk)
    assert bytes(kept) == b"0123456789"
    assert not kept.is_cut
    kept.add(b"x")
    assert bytes(kept) == b"01234\n[...]\n6789x"


async def test_lines_are_told_as_they_come() -> None:
    lines: list[str] = []
    await sh("echo one; echo two >&2; printf three; echo; echo; printf end", on_line=lines.append)
    assert sorted(lines) == ["end", "one", "three", "two"]


async def test_the_process_id_is_told_at_the_start() -> None:
    pids: list[int] = []
    finished = await sh("echo $$", on_start=pids.append)
    assert int(finished.stdout) == pids[0]


async def test_a_program_that_is_not_there_cannot_be_started() -> None:
    with pytest.raises(FileNotFoundError):
        await process.run(["/no/such/program"], environment={}, directory="/")


async def test_at_its_deadline_a_program_is_asked_to_end() -> None:
    script = "trap 'echo asked; exit 5' TERM; while :; do sleep 0.02; done"
    finished = await sh(script, deadline=0.3)
    assert finished.is_overdue
    assert finished.stdout == b"asked\n"
    assert finished.status == 5


async def test_a_program_that_ignores_its_deadline_is_killed() -> None:
    script = "trap '' TERM; while :; do sleep 0.02; done"
    finished = await sh(script, deadline=0.2, grace=Grace(after_deadline=0.1))
    assert finished.is_overdue
    assert finished.status == -signal.SIGKILL


@pytest.mark.parametrize("trap", ["", "trap '' TERM;"], ids=["willing", "stubborn"])
async def test_a_cancelled_run_leaves_nothing_behind(tmp_path: Path, trap: str) -> None:
    pids = tmp_path / "pids"
    script = f"{trap} sleep 60 & echo $$ $! > {pids}; wait; sleep 60"
    task = asyncio.create_task(sh(script, grace=Grace(after_cancel=0.2)))
    leader, child = map(int, (await appears(pids)).split())

    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    await gone(leader)
    await gone(child)


async def test_a_run_that_is_cancelled_while_it_starts_leaves_nothing_behind(
    tmp_path: Path,
) -> None:
    pids = tmp_path / "pids"
    for turns in range(6):
        task = asyncio.create_task(sh(f"sleep 60 & echo $$ $! >> {pids}; wait"))
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    for pid in content(pids).split():
        await gone(int(pid))


def test_a_cancelled_run_has_less_than_a_second() -> None:
    assert DEFAULT_GRACE.after_cancel < 1


async def test_a_second_cancellation_kills_at_once(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    script = f"trap '' TERM; echo $$ > {pid}; while :; do sleep 0.1; done"
    task = asyncio.create_task(sh(script, grace=Grace(after_cancel=60)))
    leader = int(await appears(pid))
    task.cancel()
    await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await gone(leader)


async def test_a_child_that_keeps_the_pipes_open_does_not_hold_up_an_overdue_run() -> None:
    finished = await sh("sleep 60 & exec sleep 60", deadline=0.2, grace=Grace(after_deadline=0.2))
    assert finished.is_overdue


@pytest.mark.parametrize("setpriv", WAYS, ids=["own", "setpriv"])
async def test_killing_the_parent_takes_the_child_with_it(tmp_path: Path, setpriv: str) -> None:
    pid = tmp_path / "pid"
    program = f"""
import asyncio
from helmops import process
asyncio.run(process.run(
    ["/bin/sh", "-c", "echo $$ > {pid}; exec sleep 60"],
    environment={{"PATH": "/usr/bin:/bin"}}, directory="/", setpriv={setpriv!r},
))
"""
    parent = started([sys.executable, "-c", program])
    child = int(await appears(pid))
    assert is_alive(child)

    parent.kill()
    parent.wait()

    await gone(child)


async def test_an_inherited_file_is_open_in_the_child_and_no_other_is(tmp_path: Path) -> None:
    wanted, other = (os.open(tmp_path / name, os.O_CREAT | os.O_RDWR) for name in "ab")
    try:
        finished = await sh("ls /proc/$$/fd", inherited=[wanted])
    finally:
        os.close(wanted)
        os.close(other)
    files = set(map(int, finished.stdout.split()))
    assert wanted in files
    assert other not in files
