from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from helmops.cli import demo
from helmops.errors import UsageError


def test_an_installed_package_says_where_the_demo_is_to_be_had(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo, "__file__", str(tmp_path / "helmops" / "cli" / "demo.py"))
    result = CliRunner().invoke(demo.demo, [])
    assert isinstance(result.exception, UsageError)
    assert "run `make demo` there" in str(result.exception)
