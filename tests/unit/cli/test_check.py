from __future__ import annotations

import json

import pytest

from helmops.cli.app import status_of
from helmops.service import checkup
from helmops.service.checkup import Finding
from helmops.service.settings import Settings

Capture = pytest.CaptureFixture[str]
GOOD, BAD = Finding("helm", True, "4.3.1"), Finding("cluster", False, "no answer")


def finds(monkeypatch: pytest.MonkeyPatch, *findings: Finding) -> list[Settings]:
    given: list[Settings] = []

    async def looked(settings: Settings) -> tuple[Finding, ...]:
        given.append(settings)
        return findings

    monkeypatch.setattr(checkup, "checkup", looked)
    return given


def test_where_all_is_well_it_ends_with_0(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    finds(monkeypatch, GOOD)
    assert status_of(["check"]) == 0
    assert capsys.readouterr().out == "✔ helm: 4.3.1\n"


def test_where_something_is_missing_it_ends_with_1_and_shows_the_rest(
    monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    finds(monkeypatch, GOOD, BAD)
    assert status_of(["check"]) == 1
    assert capsys.readouterr().out == "✔ helm: 4.3.1\n✗ cluster: no answer\n"


def test_programs_get_a_list(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    finds(monkeypatch, GOOD, BAD)
    assert status_of(["check", "-o", "json"]) == 1
    assert json.loads(capsys.readouterr().out) == [
        {"name": "helm", "ok": True, "message": "4.3.1"},
        {"name": "cluster", "ok": False, "message": "no answer"},
    ]


def test_it_looks_with_what_the_other_commands_would_use(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (settings,) = _given(monkeypatch)
    assert (settings.helm, settings.namespace, settings.filenames) == ("/bin/helm", "apps", ("d",))


def _given(monkeypatch: pytest.MonkeyPatch) -> list[Settings]:
    given = finds(monkeypatch, GOOD)
    status_of(["check", "--helm", "/bin/helm", "-n", "apps", "-f", "d"])
    return given
