from __future__ import annotations

import asyncio
import os
import signal
from typing import NoReturn

import click
import pytest

from helmops.cli import app
from helmops.cli.session import run_async


def command(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    """Put a command in place of all others, which raises this."""

    @click.command()
    def one() -> NoReturn:
        raise error

    monkeypatch.setattr(app, "main", one)


def test_what_nobody_thought_of_is_one_line_without_its_text(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("HELMOPS_LOG_LEVEL", raising=False)
    command(monkeypatch, RuntimeError("password=hunter2"))
    assert app.status_of([]) == 1
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert "a defect of helmops: RuntimeError at test_app.py:" in told
    assert "hunter2" not in told


def test_a_defect_is_shown_whole_to_who_asks_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HELMOPS_LOG_LEVEL", "debug")
    command(monkeypatch, RuntimeError("why"))
    with pytest.raises(RuntimeError, match="why"):
        app.status_of([])


def test_what_the_system_refused_is_told_in_its_words(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("HELMOPS_LOG_LEVEL", raising=False)
    command(monkeypatch, PermissionError(13, "Permission denied", "/x"))
    assert app.status_of([]) == 1
    assert capsys.readouterr().err.startswith("helmops: /x: Permission denied (")


def test_sigterm_lets_a_command_clean_up_and_ends_it_with_143(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cleaned: list[str] = []

    async def work() -> None:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            await asyncio.Event().wait()
        finally:
            cleaned.append("lease")

    @click.command()
    def one() -> None:
        run_async(work())

    monkeypatch.setattr(app, "main", one)
    assert app.status_of([]) == 143
    assert cleaned == ["lease"]
    assert capsys.readouterr().err == "helmops: terminated; the next pass goes on from here\n"
