from __future__ import annotations

import json
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from devcluster.oci_server import OciServer
from helmops.cli import versions as module
from helmops.cli.app import status_of
from helmops.errors import SourceUnavailable
from helmops.model.charts import ChartVersion

Capture = pytest.CaptureFixture[str]
REPO = ["--repo", "https://charts.example.com"]
ENTRIES = (
    ChartVersion("web", "1.9.0", app_version="9"),
    ChartVersion("web", "1.10.0", created=datetime(2026, 1, 5, tzinfo=UTC), deprecated=True),
    ChartVersion("web", "2.0.0-rc.1"),
    ChartVersion("web", "odd"),
)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """A repository with these entries; what it was asked with."""
    asked: list[tuple[Any, ...]] = []

    async def entries(_: Any, *arguments: Any) -> tuple[ChartVersion, ...]:
        asked.append(arguments)
        return ENTRIES

    monkeypatch.setattr(module, "_entries", entries)
    return asked


def test_versions_come_newest_first_and_the_chosen_one_is_marked(
    asked: list[Any], capsys: Capture
) -> None:
    assert status_of(["versions", "web", *REPO]) == 0
    told = capsys.readouterr()
    assert [line.split() for line in told.out.splitlines()] == [
        ["VERSION", "APP", "VERSION", "CREATED", "NOTE"],
        ["2.0.0-rc.1"],
        ["*", "1.10.0", "2026-01-05", "deprecated"],
        ["1.9.0", "9"],
    ]
    assert told.err == "1.10.0 is the newest release; the chart is deprecated\n"


@pytest.mark.parametrize(
    ("wanted", "chosen"), [("1.9.x", "1.9.0"), (">=1.0.0-0", "2.0.0-rc.1"), ("1.9.0", "1.9.0")]
)
def test_a_range_says_which_one_it_means(
    asked: list[Any], capsys: Capture, wanted: str, chosen: str
) -> None:
    assert status_of(["versions", "web", *REPO, "--version", wanted, "-o", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["selected"] == chosen


def test_a_range_that_nothing_is_in_is_a_failure_with_the_list(
    asked: list[Any], capsys: Capture
) -> None:
    assert status_of(["versions", "web", *REPO, "--version", ">=3"]) == 1
    told = capsys.readouterr()
    assert "no version of web is in '>=3'" in told.err
    assert "1.10.0" in told.out
    assert status_of(["versions", "web", *REPO, "--version", ">=3", "-o", "json"]) == 1
    assert json.loads(capsys.readouterr().out)["selected"] is None


def test_names_are_the_versions_alone(asked: list[Any], capsys: Capture) -> None:
    status_of(["versions", "web", *REPO, "-o", "name"])
    assert capsys.readouterr().out.split() == ["2.0.0-rc.1", "1.10.0", "1.9.0"]


def test_credentials_come_from_the_environment(
    asked: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A password in an argument could be seen by everybody on the machine."""
    monkeypatch.setenv("HELMOPS_REPO_USERNAME", "ada")
    monkeypatch.setenv("HELMOPS_REPO_PASSWORD", "s3cret")
    ca = tmp_path / "ca.pem"
    ca.write_text("CA")
    assert status_of(["versions", "web", *REPO, "--ca-file", str(ca)]) == 0
    assert asked == [("https://charts.example.com", "web", "ada", "s3cret", "CA", False)]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["web"], "--repo"),
        (["web", *REPO, "--version", "newest"], "newest"),
        (["web", *REPO, "--ca-file", "/nonexistent"], "--ca-file: /nonexistent"),
    ],
    ids=["no repository", "no range", "no file"],
)
def test_mistakes_of_usage(
    asked: list[Any], capsys: Capture, arguments: list[str], says: str
) -> None:
    assert status_of(["versions", *arguments]) in (1, 2)
    assert says in capsys.readouterr().err


def test_what_is_no_repository_is_said(capsys: Capture) -> None:
    assert status_of(["versions", "web", "--repo", "charts"]) == 2
    assert "no URL of a chart repository" in capsys.readouterr().err
    assert status_of(["versions", "web", "--repo", "oci://registry.example.com/UPPER"]) == 1
    assert "lower-case only" in capsys.readouterr().err


def test_a_registry_is_asked_for_its_tags(
    capsys: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HELMOPS_CACHE_DIR", str(tmp_path))
    with OciServer() as server:
        for version in ("1.0.0", "1.1.0_b1", "latest"):
            server.push("charts/web", version, b"")
        asked = ["--repo", f"{server.url}/charts", "--plain-http"]
        assert status_of(["versions", "web", *asked, "-o", "name"]) == 0
    assert capsys.readouterr().out.split() == ["1.1.0+b1", "1.0.0"]


def test_a_repository_that_does_not_answer_is_a_failure(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def entries(*_: Any) -> Any:
        raise SourceUnavailable("no answer", where="https://charts.example.com")

    monkeypatch.setattr(module, "_entries", entries)
    assert status_of(["versions", "web", *REPO]) == 1
    assert capsys.readouterr().err == "helmops: https://charts.example.com: no answer\n"


def test_for_a_repository_over_http_no_model_of_a_declaration_is_loaded() -> None:
    """It would take longer than all the rest."""
    needed = "helmops.cli.versions, helmops.http, helmops.sources.helm_repository, "
    needed += "helmops.resolve.selection, helmops.cli.output, helmops.service.settings"
    program = f"import sys, {needed}; sys.exit('pydantic' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
