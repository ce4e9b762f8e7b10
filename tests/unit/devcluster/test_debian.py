from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from devcluster import debian
from devcluster.errors import ToolMissing


def nobody(text: str) -> None:
    raise AssertionError(text)


def program(folder: Path, name: str, text: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def test_a_program_on_the_path_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    there = program(tmp_path, "something", "")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert debian.find("package", "something", nobody) == there


def test_what_was_unpacked_before_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("PATH", "")
    kept = tmp_path / "helmops" / "devcluster" / "package-debian" / "usr" / "bin"
    there = program(kept, "something", "")
    assert debian.find("package", "something", nobody) == there


def test_without_debian_there_is_nothing_to_take_it_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ToolMissing, match="something is not on PATH"):
        debian.find("package", "something", nobody)


def test_a_package_that_cannot_be_fetched_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tools = tmp_path / "bin"
    program(tools, "apt-cache", "echo Package: package")
    program(tools, "apt-get", "echo no such package >&2; exit 100")
    program(tools, "dpkg-deb", "")
    shell = shutil.which("sh")
    assert shell is not None
    (tools / "sh").symlink_to(shell)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", str(tools))
    said: list[str] = []
    with pytest.raises(ToolMissing, match="package cannot be fetched: no such package"):
        debian.find("package", "something", said.append)
    assert said == ["fetching Debian's package"]
    assert list((tmp_path / "cache" / "helmops" / "devcluster").iterdir()) == []
