from collections.abc import Iterator
from pathlib import Path

import pytest

from devcluster import processes
from devcluster.processes import Process

SH = "/bin/sh"


@pytest.fixture
def sleeping(tmp_path: Path) -> Iterator[Process]:
    process = processes.start(["/bin/sleep", "60"], log=tmp_path / "log")
    yield process
    processes.stop([process], grace=0)


def test_a_started_process_is_alive_until_it_is_stopped(sleeping: Process) -> None:
    assert sleeping.alive()
    processes.stop([sleeping])
    assert not sleeping.alive()


def test_a_record_is_read_back_as_it_was_saved(sleeping: Process, tmp_path: Path) -> None:
    sleeping.save(tmp_path / "it.json")
    assert processes.load(tmp_path / "it.json") == sleeping


@pytest.mark.parametrize("text", ["", "{", "[]", '{"pid": 1}', '{"pid": "x", "started": "1"}'])
def test_half_a_record_that_a_crash_left_counts_as_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "it.json").write_text(text)
    assert processes.load(tmp_path / "it.json") is None


def test_there_is_no_record_where_there_is_no_file(tmp_path: Path) -> None:
    assert processes.load(tmp_path / "none.json") is None


def test_whoever_took_over_the_pid_is_neither_ours_nor_stopped(sleeping: Process) -> None:
    stranger = Process(pid=sleeping.pid, started="another time")
    assert not stranger.alive()
    processes.stop([stranger], grace=0)
    assert sleeping.alive()


def test_one_that_ignores_the_polite_request_is_killed(tmp_path: Path) -> None:
    script = "trap '' TERM; echo ready; while :; do sleep 0.1; done"
    stubborn = processes.start([SH, "-c", script], log=tmp_path / "log")
    while (tmp_path / "log").read_text() != "ready\n":
        assert stubborn.alive()
    processes.stop([stubborn], grace=0.2)
    assert not stubborn.alive()


def test_one_that_ended_by_itself_is_not_alive(tmp_path: Path) -> None:
    process = processes.start([SH, "-c", "exit 3"], log=tmp_path / "log")
    while process.alive():
        pass
    processes.stop([process])


def test_both_outputs_are_appended_to_the_log_which_is_for_the_owner_only(tmp_path: Path) -> None:
    log = tmp_path / "log"
    for _ in range(2):
        process = processes.start([SH, "-c", "echo out; echo err >&2"], log=log)
        while process.alive():
            pass
    assert log.read_text() == "out\nerr\n" * 2
    assert log.stat().st_mode & 0o777 == 0o600
