"""Commands as remediation hooks: real programs."""

from __future__ import annotations

import asyncio
import contextlib
import os
from pathlib import Path
from typing import Any

import pytest

from helmops.checks.command_hook import run_command
from helmops.model.declarations import RemediationHook
from helmops.model.hooks import HookResult

FACTS = {"release": "web", "namespace": "shop", "revision": "7", "at": "beforeRollback"}


def hook(*command: str, timeout: str = "30s") -> RemediationHook:
    return RemediationHook.model_validate(
        {"name": "backup", "at": "beforeRollback", "command": command, "timeout": timeout}
    )


async def run(*command: str, timeout: str = "30s", **more: Any) -> HookResult:
    declared = hook(*command, timeout=timeout)
    return await run_command(declared, command, FACTS, more.pop("secrets", ()), **more)


async def sh(script: str, **more: Any) -> HookResult:
    return await run("/bin/sh", "-c", script, **more)


async def test_a_command_that_ends_with_0_succeeds() -> None:
    result = await sh("echo saved; echo really >&2")

    assert result.succeeded
    assert result.message == "command sh succeeded"
    assert sorted(result.output.split("\n")) == ["really", "saved"]


async def test_another_status_is_a_failure() -> None:
    assert await sh("echo disk full; exit 3") == HookResult(
        "backup", False, "command sh ended with status 3", "disk full"
    )


async def test_a_signal_is_a_failure() -> None:
    assert (await sh("kill -9 $$")).message == "command sh was ended by signal 9"


async def test_it_gets_the_facts_and_no_credentials_of_ours(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HELMOPS_STATE", "postgresql://me:hunter2@db/x")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hunter2")
    monkeypatch.setenv("LC_ALL", "C")

    result = await run("/usr/bin/env", secrets=[])

    lines = dict(line.split("=", 1) for line in result.output.split("\n"))
    assert lines["HELMOPS_RELEASE"] == "web"
    assert lines["HELMOPS_REVISION"] == "7"
    assert lines["HELMOPS_AT"] == "beforeRollback"
    assert lines["PATH"] == os.environ["PATH"]
    assert lines["LC_ALL"] == "C"
    assert lines.keys().isdisjoint({"HELMOPS_STATE", "AWS_SECRET_ACCESS_KEY"})


async def test_no_shell_looks_at_it(tmp_path: Path) -> None:
    result = await run("echo", f"$HOME; touch {tmp_path}/made", "*")

    assert result.output == f"$HOME; touch {tmp_path}/made *"
    assert not (tmp_path / "made").exists()


async def test_its_arguments_are_not_shown() -> None:
    result = await run("/bin/false", "--password", "hunter2")

    assert result.message == "command false ended with status 1"


async def test_a_command_that_takes_too_long_is_stopped_with_all_it_started(
    tmp_path: Path,
) -> None:
    pid = tmp_path / "pid"

    result = await sh(f"echo begun; sleep 60 & echo $! > {pid}; wait", timeout="300ms")

    assert not result.succeeded
    assert (result.message, result.output) == ("command sh was stopped after 300ms", "begun")
    assert not is_running(int(pid.read_text()))


async def test_one_that_ends_well_when_it_is_stopped_has_failed() -> None:
    result = await sh("trap 'exit 0' TERM; while :; do sleep 0.05; done", timeout="300ms")

    assert not result.succeeded


async def test_a_cancelled_command_is_stopped(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    lines: list[str] = []
    begun = asyncio.Event()

    def hear(line: str) -> None:
        lines.append(line)
        begun.set()

    task = asyncio.create_task(sh(f"echo $$ > {pid}; echo begun; sleep 60", progress=hear))
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert not is_running(int(pid.read_text()))


@pytest.mark.parametrize(
    ("command", "why"),
    [
        (["/nowhere/backup"], "No such file or directory"),
        (["/dev/null"], "Permission denied"),
        (["echo", "a\0b"], "its arguments cannot be passed on"),
    ],
)
async def test_what_cannot_be_started_is_a_failed_hook(command: list[str], why: str) -> None:
    result = await run(*command)

    assert not result.succeeded
    assert result.message == f"command {Path(command[0]).name} cannot be started: {why}"


async def test_of_a_long_output_the_end_is_kept() -> None:
    result = await sh("i=0; while [ $i -lt 5000 ]; do echo line $i; i=$((i+1)); done")

    assert result.output.endswith("line 4999")
    assert result.output.count("\n") <= 100
    assert result.output.startswith("[…]\n")


async def test_secrets_are_neither_kept_nor_told() -> None:
    lines: list[str] = []

    result = await sh("echo hunter22; echo token=abc", secrets=["hunter22"], progress=lines.append)

    assert result.output == "***\ntoken=***"
    assert lines == ["hook backup: ***", "hook backup: token=***"]


async def test_it_has_no_input_and_works_where_nothing_of_ours_is() -> None:
    assert (await sh("cat; pwd")).output == "/"


def is_running(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    return False
