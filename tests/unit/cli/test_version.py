from __future__ import annotations

import json

import pytest

from helmops import __version__
from helmops.cli.app import status_of


def test_the_version_for_people_and_for_programs(capsys: pytest.CaptureFixture[str]) -> None:
    assert status_of(["version"]) == 0
    assert capsys.readouterr().out == f"helmops {__version__}\n"
    assert status_of(["version", "-o", "json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"version": __version__}
