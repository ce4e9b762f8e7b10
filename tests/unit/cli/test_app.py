from __future__ import annotations

import subprocess
import sys
from typing import Any

import click
import pytest

from helmops.cli import app
from helmops.cli.app import main, status_of
from helmops.cli.session import Terminated
from helmops.errors import (
    ClusterUnreachable,
    DeclarationError,
    HelmopsError,
    NotSupported,
    UsageError,
)

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def ends_with(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Lets any command end with an exception or a status."""

    def end(how: Any) -> None:
        def invoke(*_: Any, **__: Any) -> Any:
            if isinstance(how, BaseException):
                raise how
            return how

        monkeypatch.setattr(main, "main", invoke)

    return end


@pytest.mark.parametrize(
    ("how", "status"),
    [
        (0, 0),
        (1, 1),
        (2, 2),
        (None, 0),
        (UsageError("no"), 2),
        (DeclarationError("no"), 2),
        (NotSupported("no"), 2),
        (HelmopsError("no"), 1),
        (ClusterUnreachable("no"), 1),
        (click.UsageError("no"), 2),
        (click.BadParameter("no"), 2),
        (KeyboardInterrupt(), 130),
        (click.Abort(), 130),
        (Terminated(), 143),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else None,
)
def test_how_a_command_ends_is_its_status(ends_with: Any, how: Any, status: int) -> None:
    ends_with(how)
    assert status_of(["reconcile"]) == status


@pytest.mark.parametrize("how", [UsageError("no"), DeclarationError("no"), click.UsageError("no")])
def test_for_a_plan_2_means_changes_so_that_every_error_is_1(ends_with: Any, how: Any) -> None:
    ends_with(how)
    assert status_of(["plan"]) == 1
    assert status_of(["--unknown", "plan"]) == 1


def test_an_error_is_one_line_with_what_where_and_what_next(
    ends_with: Any, capsys: Capture
) -> None:
    ends_with(DeclarationError("no number", where="a.yaml:3", field="spec.n", next_step="write 1"))
    status_of(["reconcile"])
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err == "helmops: a.yaml:3: spec.n: no number (write 1)\n"


SECRET = "correct-horse-battery-staple"


def test_what_nobody_thought_of_is_told_without_its_text(ends_with: Any, capsys: Capture) -> None:
    ends_with(ValueError(f"could not convert {SECRET}"))
    assert status_of(["reconcile"]) == 1
    told = capsys.readouterr().err
    assert "a defect of helmops: ValueError at test_app.py:" in told
    assert SECRET not in told
    assert "Traceback" not in told


def test_for_who_looks_for_it_a_defect_has_its_traceback(
    ends_with: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HELMOPS_LOG_LEVEL", "debug")
    ends_with(ValueError("whole"))
    with pytest.raises(ValueError, match="whole"):
        status_of(["reconcile"])


def test_a_file_that_cannot_be_had_is_no_defect(ends_with: Any, capsys: Capture) -> None:
    ends_with(FileNotFoundError(2, "No such file or directory", "/etc/none"))
    assert status_of(["reconcile"]) == 1
    assert "/etc/none: No such file or directory" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["none"], ["reconcile", "--none"], ["get", "none"]])
def test_mistakes_of_usage_end_with_2(capsys: Capture, arguments: list[str]) -> None:
    assert status_of(arguments) == 2
    assert "none" in capsys.readouterr().err


def test_alone_it_shows_what_there_is_as_an_error(capsys: Capture) -> None:
    assert status_of([]) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert "Commands:" in told.err


@pytest.mark.parametrize("option", ["-h", "--help"])
def test_help_lists_every_command_with_its_line(capsys: Capture, option: str) -> None:
    assert status_of([option]) == 0
    text = capsys.readouterr().out
    for name in main.list_commands(click.Context(main)):
        line = next(line for line in text.splitlines() if line.split()[:1] == [name])
        assert line.rstrip().endswith(".")


def test_every_command_is_there_under_its_name() -> None:
    context = click.Context(main)
    for name in main.list_commands(context):
        command = main.get_command(context, name)
        assert command is not None
        assert command.name == name
    assert main.get_command(context, "none") is None


def test_help_of_a_command_needs_no_settings(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HELMOPS_STATE", "nonsense")
    assert status_of(["reconcile", "--help"]) == 0
    assert "--with-source" in capsys.readouterr().out


def test_a_pipe_that_nobody_reads_any_more_is_no_error() -> None:
    reader = [sys.executable, "-c", "import sys; sys.stdin.readline()"]
    code = "from helmops.cli.app import run; run()"
    with subprocess.Popen(reader, stdin=subprocess.PIPE) as other:
        done = subprocess.run(
            [sys.executable, "-c", code, "schema"],
            stdout=other.stdin,
            stderr=subprocess.PIPE,
            check=False,
        )
    assert done.returncode == 0
    assert b"Traceback" not in done.stderr


def test_starting_imports_nothing_heavy() -> None:
    heavy = "{'pydantic', 'kubernetes', 'git', 'pyhelm3', 'sqlalchemy', 'apscheduler', 'requests'}"
    code = f"import sys, helmops.cli.app; print(sorted({heavy} & set(sys.modules)))"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "[]"


def test_the_program_ends_with_the_status(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["helmops", "none"])
    with pytest.raises(SystemExit) as ended:
        app.run()
    assert ended.value.code == 2


def test_one_pass_waits_for_no_client_that_it_may_not_need() -> None:
    heavy = "{'kubernetes', 'aiohttp', 'git', 'sqlalchemy.dialects.postgresql'}"
    code = f"import sys, helmops.service.wiring; print(sorted({heavy} & set(sys.modules)))"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "[]"
