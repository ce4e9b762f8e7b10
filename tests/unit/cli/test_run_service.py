from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from helmops.cli.app import status_of
from helmops.errors import UsageError
from helmops.service import serve
from helmops.service.settings import Settings

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[Settings]:
    """What the service was run with."""
    served: list[Settings] = []

    async def run(settings: Settings) -> None:
        served.append(settings)

    monkeypatch.setattr(serve, "serve", run)
    return served


def test_the_service_is_run_with_what_was_said(served: list[Settings]) -> None:
    arguments = [
        "-f", "one", "-f", "two", "--listen", "127.0.0.1:0", "--grace-period", "5s",
        "--log-format", "json", "--log-level", "debug", "--observe", "--concurrency", "2",
    ]  # fmt: skip
    assert status_of(["run", *arguments]) == 0
    (settings,) = served
    assert settings.filenames == ("one", "two")
    assert (str(settings.listen), settings.grace_period) == ("127.0.0.1:0", timedelta(seconds=5))
    assert (settings.log_format, settings.log_level, settings.observe) == ("json", "debug", True)


def test_to_observe_may_be_said_by_the_environment(
    served: list[Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HELMOPS_OBSERVE", "true")
    monkeypatch.setenv("HELMOPS_FILENAME", "apps")
    assert status_of(["run"]) == 0
    assert served[0].observe


def test_without_declarations_there_is_nothing_to_run_with(
    served: list[Settings], capsys: Capture
) -> None:
    assert status_of(["run"]) == 2
    assert "there are no declarations to run with" in capsys.readouterr().err
    assert served == []


def test_all_mistakes_in_the_settings_are_told_at_once(
    served: list[Settings], capsys: Capture
) -> None:
    assert status_of(["run", "-f", "a", "--listen", "here", "--grace-period", "soon"]) == 2
    told = capsys.readouterr().err
    assert "--listen" in told
    assert "--grace-period" in told
    assert served == []


def test_what_ends_the_service_ends_the_command(
    monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    async def taken(_: Any) -> None:
        raise UsageError("127.0.0.1:9640 is taken", where="--listen")

    monkeypatch.setattr(serve, "serve", taken)
    assert status_of(["run", "-f", "a"]) == 2
    assert "127.0.0.1:9640 is taken" in capsys.readouterr().err
