"""What the quick look finds is what the journal has written."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from helmops.model.records import Record
from helmops.model.releases import DeclarationKey, ReleaseId
from helmops.store.address import StateAddress
from helmops.store.journal import SqlJournal
from helmops.store.peek import published

NOON = datetime(2026, 1, 5, 12, 0, 0, 123456, tzinfo=UTC)


def record(name: str = "web") -> Record:
    return Record(
        DeclarationKey("shop", name), ReleaseId("shop", name), state="InSync", updated_at=NOON
    )


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "odd name ?#%" / "state.db"


async def written(path: Path, *records: Record) -> None:
    journal = SqlJournal(StateAddress.of_file(path), now=lambda: NOON)
    await journal.open()
    for each in records:
        await journal.publish(each)
    await journal.close()


async def test_it_finds_each_release_with_its_status_and_moment(path: Path) -> None:
    await written(path, record("web"), record("db"))
    found = {key.name: (status, at) for key, status, at in published(path)}
    assert found == {
        "web": (record("web").public_status(), NOON),
        "db": (record("db").public_status(), NOON),
    }


async def test_it_finds_the_newest_only(path: Path) -> None:
    later = NOON.replace(second=1)
    await written(path, record(), record().evolve(state="Failed", updated_at=later))
    ((_, status, at),) = published(path)
    assert status["helmops"]["state"] == "Failed"
    assert at == later


async def test_it_sees_what_a_running_service_has_just_written(path: Path) -> None:
    journal = SqlJournal(StateAddress.of_file(path), now=lambda: NOON)
    await journal.open()
    await journal.publish(record())
    assert [key.name for key, _, _ in published(path)] == ["web"]
    await journal.close()


async def test_it_changes_nothing(path: Path) -> None:
    await written(path, record())
    before = _content(path)
    published(path)
    assert _content(path) == before


def test_where_there_is_no_file_nothing_is_found_and_none_is_made(path: Path) -> None:
    assert published(path) == []
    assert not path.parent.exists()


@pytest.mark.parametrize(
    "content", [b"", b"no database at all", b"SQLite format 3\0" + b"\0" * 200]
)
def test_a_file_that_cannot_be_read_holds_nothing(path: Path, content: bytes) -> None:
    path.parent.mkdir()
    path.write_bytes(content)
    assert published(path) == []


async def test_a_file_of_another_version_holds_nothing(path: Path) -> None:
    await written(path, record())
    with sqlite3.connect(path) as connection:
        connection.execute("ALTER TABLE releases RENAME COLUMN status TO status_v2")
    connection.close()
    assert published(path) == []


@pytest.mark.parametrize("column", ["status", "updated_at"])
async def test_a_damaged_row_hides_no_other(path: Path, column: str) -> None:
    await written(path, record("web"), record("db"))
    with sqlite3.connect(path) as connection:
        connection.execute(f"UPDATE releases SET {column} = '{{cut off' WHERE name = 'db'")
    connection.close()
    assert [key.name for key, _, _ in published(path)] == ["web"]


def test_a_directory_in_the_place_of_the_file_holds_nothing(path: Path) -> None:
    path.mkdir(parents=True)
    assert published(path) == []


def test_looking_imports_nothing_heavy() -> None:
    """That is what it is for: `helmops get releases` should answer at once."""
    code = (
        "import sys, helmops.store.peek; heavy = {'sqlalchemy', 'alembic', 'pydantic'}; "
        "print(sorted(heavy & set(sys.modules)))"
    )
    told = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ
    )
    assert told.stdout.strip() == "[]"


def _content(path: Path) -> tuple[bytes, int]:
    return path.read_bytes(), path.stat().st_mtime_ns
