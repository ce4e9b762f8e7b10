import sys
from pathlib import Path

import pytest

from scripts import reference


def _row(page: str, field: str, under: str) -> list[str]:
    section = reference.pages()[page].split(f"## {under}\n")[1].split("\n## ")[0]
    row = next(line for line in section.splitlines() if line.startswith(f"| `{field}` |"))
    return [cell.strip() for cell in row.strip("|").split(" | ")][1:]


def test_a_field_is_told_with_type_default_and_meaning() -> None:
    kind, default, meaning = _row("helmrelease.md", "suspend", "spec")
    assert (kind, default) == ("boolean", "`false`")
    assert meaning


def test_durations_are_written_as_in_declarations() -> None:
    assert _row("helmrelease.md", "interval", "spec")[:2] == ["duration", "required"]
    assert _row("helmrelease.md", "timeout", "spec")[:2] == ["duration", "`5m0s`"]


def test_objects_in_lists_have_a_section_of_their_own() -> None:
    assert "\n## spec.valuesFrom[]\n" in reference.pages()["helmrelease.md"]


def test_every_deliberate_error_is_listed_with_what_follows() -> None:
    page = reference.pages()["errors.md"]
    assert "| — — `NotSupported` | `NotSupported` | stalled |" in page


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(reference, "FOLDER", tmp_path / "reference")
    return tmp_path / "reference"


def _run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["reference", *arguments])
    return reference.main()


def test_what_was_just_written_is_found_to_be_right(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert _run(monkeypatch) == 0
    assert _run(monkeypatch, "--check") == 0


def test_missing_changed_and_left_over_pages_are_named_and_then_mended(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _run(monkeypatch)
    (folder / "secret.md").unlink()
    (folder / "alert.md").write_text("by hand")
    (folder / "gone.md").write_text("of a kind that is no more")
    assert _run(monkeypatch, "--check") == 1
    said = capsys.readouterr().err
    assert [line.split()[0] for line in said.splitlines()] == [
        f"docs/reference/{name}.md" for name in ("alert", "gone", "secret")
    ]
    _run(monkeypatch)
    assert _run(monkeypatch, "--check") == 0
