from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from helmops.cli.app import status_of
from helmops.sources.artifact_cache import ArtifactCache
from tests.fakes.chart_archives import chart_archive, sha256

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def charts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Two charts in the cache, the newer one first."""
    monkeypatch.setenv("HELMOPS_CACHE_DIR", str(tmp_path))
    cache = ArtifactCache(tmp_path / "charts")
    paths = []
    for hours, version in ((1, "1.1.0"), (2, "1.0.0")):
        content = chart_archive("web", version)
        with cache.incoming() as incoming:
            incoming.write_bytes(content)
            path = cache.add(incoming, sha256(content))
        then = path.stat().st_mtime - 3600 * hours
        os.utime(path, (then, then))
        paths.append(path)
    return paths


def test_what_is_there_is_listed(charts: list[Path], tmp_path: Path, capsys: Capture) -> None:
    assert status_of(["cache", "ls"]) == 0
    told = capsys.readouterr()
    lines = told.out.splitlines()
    assert lines[0].split() == ["KIND", "NAME", "SIZE", "LAST", "USED"]
    assert [line.split()[:2] for line in lines[1:]] == [
        ["chart", "web-1.1.0"],
        ["chart", "web-1.0.0"],
    ]
    assert told.err.endswith(f"B in {tmp_path}; charts are kept up to 2.0 GiB\n")


def test_a_program_can_read_it(charts: list[Path], tmp_path: Path, capsys: Capture) -> None:
    assert status_of(["cache", "ls", "-o", "json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["directory"] == str(tmp_path)
    assert told["maxSize"] == 2 * 1024**3
    assert told["size"] == sum(path.stat().st_size for path in charts)
    assert [entry["path"] for entry in told["entries"]] == [str(path) for path in charts]
    assert set(told["entries"][0]) == {"kind", "name", "path", "size", "lastUsed"}
    assert status_of(["cache", "ls", "-o", "name"]) == 0
    assert capsys.readouterr().out.split() == [str(path) for path in charts]


def test_an_empty_cache_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.setenv("HELMOPS_CACHE_DIR", str(tmp_path / "none"))
    assert status_of(["cache", "ls"]) == 0
    assert status_of(["cache", "prune"]) == 0
    assert capsys.readouterr().err.endswith("freed 0 B; 0 B left\n")


def test_the_oldest_goes_until_the_size_is_met(charts: list[Path], capsys: Capture) -> None:
    new, old = charts
    size = new.stat().st_size
    wanted = ["cache", "prune", "--max-size", str(size), "-o", "json"]
    assert status_of([*wanted, "--dry-run"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["dryRun"], [entry["path"] for entry in told["removed"]]) == (True, [str(old)])
    assert old.exists()
    assert status_of(wanted) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["dryRun"], told["left"]) == (False, size)
    assert [path.exists() for path in charts] == [True, False]


def test_without_a_size_everything_goes(charts: list[Path], capsys: Capture) -> None:
    assert status_of(["cache", "prune"]) == 0
    told = capsys.readouterr()
    assert "web-1.0.0" in told.out
    assert told.err.endswith("; 0 B left\n")
    assert not any(path.exists() for path in charts)


def test_what_is_no_size_is_a_usage_error(charts: list[Path], capsys: Capture) -> None:
    assert status_of(["cache", "prune", "--max-size", "much"]) == 2
    assert "--max-size: 'much' is no size, as 500MiB or 2GiB is" in capsys.readouterr().err
