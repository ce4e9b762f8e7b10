import fcntl
import sqlite3
import stat
from functools import partial
from pathlib import Path

import pytest

from helmops.errors import StoreError, UsageError
from helmops.store.address import StateAddress
from helmops.store.database import Database


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "deep" / "er" / "state.db"


def opened(path: Path) -> Database:
    database = Database(StateAddress.of_file(path))
    database.open()
    return database


def count(database: Database) -> int:
    with database.reading() as connection:
        found: int = connection.exec_driver_sql("SELECT count(*) FROM releases").scalar_one()
    return found


def add(database: Database, name: str) -> None:
    with database.writing() as connection:
        connection.exec_driver_sql(
            "INSERT INTO releases VALUES ('ns', ?, 'ns', 'r', '{}', '2026-01-05 12:00:00')", (name,)
        )


def test_file_and_directory_are_made_for_their_owner_only(path: Path) -> None:
    database = opened(path)
    add(database, "a")
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    files = sorted(path.parent.iterdir())
    assert {file.name for file in files} >= {"state.db", "state.db-wal"}
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}
    database.close()


def test_a_path_with_odd_characters_is_that_file(tmp_path: Path) -> None:
    path = tmp_path / "50% #1 & ü" / "state?.db"
    database = opened(path)
    add(database, "a")
    database.close()
    assert path.is_file()


def test_readers_go_on_while_somebody_writes(path: Path) -> None:
    writer, reader = opened(path), opened(path)
    with writer.writing() as connection:
        connection.exec_driver_sql("DELETE FROM releases")
        assert count(reader) == 0
    writer.close()
    reader.close()


def test_foreign_keys_are_enforced(path: Path) -> None:
    database = opened(path)
    with database.reading() as connection:
        assert connection.exec_driver_sql("PRAGMA foreign_keys").scalar() == 1
    database.close()


def test_what_fails_is_not_written_in_part(path: Path) -> None:
    database = opened(path)

    def write_in_part() -> None:
        with database.writing() as connection:
            connection.exec_driver_sql("INSERT INTO releases VALUES ('a','b','c','d','{}','x')")
            connection.exec_driver_sql("INSERT INTO nowhere VALUES (1)")

    with pytest.raises(StoreError, match="no such table"):
        write_in_part()
    assert count(database) == 0
    database.close()


def test_a_deleted_file_is_made_again(path: Path) -> None:
    database = opened(path)
    add(database, "a")
    path.unlink()
    assert count(database) == 0
    add(database, "b")
    assert count(database) == 1
    assert database.incarnation == 2
    database.close()
    assert count(opened(path)) == 1


def test_a_deleted_directory_is_made_again(path: Path) -> None:
    database = opened(path)
    for file in path.parent.iterdir():
        file.unlink()
    path.parent.rmdir()
    add(database, "b")
    assert path.is_file()
    database.close()


def test_leftovers_of_a_deleted_file_do_not_get_into_the_new_one(path: Path) -> None:
    database = opened(path)
    add(database, "a")
    wal = path.with_name("state.db-wal")
    leftovers = wal.read_bytes()
    assert leftovers
    database.close()
    path.unlink()
    wal.write_bytes(leftovers)  # as a killed process leaves it
    again = opened(path)
    assert count(again) == 0
    again.close()


def test_two_that_find_the_file_deleted_share_the_new_one(path: Path) -> None:
    first, second = opened(path), opened(path)
    add(first, "a")
    path.unlink()
    add(first, "b")
    add(second, "c")
    assert count(first) == count(second) == 2
    first.close()
    second.close()


def test_what_is_no_database_is_not_touched(path: Path) -> None:
    path.parent.mkdir(parents=True)
    path.write_text("somebody's notes, more than a hundred bytes of them: " + "x" * 1000)
    before = path.read_bytes()
    with pytest.raises(StoreError, match=r"not a state database .*move the file away"):
        opened(path)
    assert path.read_bytes() == before


def test_a_damaged_file_is_said_with_a_way_out(path: Path) -> None:
    database = opened(path)
    database.close()
    data = bytearray(path.read_bytes())
    data[100:] = b"\xff" * (len(data) - 100)
    path.write_bytes(data)
    with pytest.raises(StoreError, match="move the file away"):
        opened(path)


def test_a_file_in_the_place_of_the_directory_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(
        StoreError, match=r"cannot be written: not a directory|file exists"
    ) as error:
        opened(tmp_path / "file" / "state.db")
    assert str(tmp_path / "file") in str(error.value)
    assert "--state" in error.value.next_step


def test_a_directory_in_the_place_of_the_file_is_said(path: Path) -> None:
    path.mkdir(parents=True)
    with pytest.raises(StoreError, match="cannot be opened"):
        opened(path)


def test_a_full_disk_is_said_and_the_database_works_on_when_there_is_room(path: Path) -> None:
    database = opened(path)

    with database.writing() as connection:
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar()
        connection.exec_driver_sql(f"PRAGMA max_page_count={pages}")  # of this connection only
    with pytest.raises(StoreError, match="disk under the state file is full") as error:
        add(database, "x" * 100_000)
    assert str(path) in str(error.value)
    add(database, "x" * 100_000)
    assert count(database) == 1
    database.close()


def test_a_disk_that_is_full_from_the_start_is_said(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Full(sqlite3.Connection):
        def execute(self, statement: str, *parameters: object) -> sqlite3.Cursor:  # type: ignore[override]
            if "journal_mode" in statement:
                super().execute("PRAGMA max_page_count=1")
                return super().execute("CREATE TABLE too_much (a TEXT)")
            return super().execute(statement, *parameters)

    with monkeypatch.context() as patch:
        patch.setattr(sqlite3, "connect", partial(sqlite3.connect, factory=Full))
        with pytest.raises(StoreError, match="disk under the state file is full"):
            opened(path)
    opened(path).close()


def test_a_file_that_another_process_keeps_locked_is_said(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("helmops.store.database._BUSY_SECONDS", 0.05)
    database = opened(path)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreError, match="locked"):
        add(database, "a")
    other.execute("ROLLBACK")
    other.close()
    add(database, "a")
    database.close()


def test_who_writes_keeps_other_writers_out_from_the_beginning(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("helmops.store.database._BUSY_SECONDS", 0.05)
    first, second = opened(path), opened(path)
    with first.writing() as connection:
        connection.exec_driver_sql("SELECT count(*) FROM releases").scalar()
        with pytest.raises(StoreError, match="locked"):
            add(second, "b")
        connection.exec_driver_sql("DELETE FROM releases")
    add(second, "b")
    first.close()
    second.close()


def test_only_one_process_at_a_time_prepares_a_file(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("helmops.store.database._BUSY_SECONDS", 0.05)
    path.parent.mkdir(parents=True)
    with path.with_name("state.db.lock").open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(StoreError, match=r"another process has been preparing .*fuser"):
            opened(path)
        assert not path.exists()
    opened(path).close()


def test_a_server_without_a_driver_is_a_matter_of_usage() -> None:
    address = StateAddress.parse("postgresql+nosuchdriver://ops:hunter2@127.0.0.1/state")
    with pytest.raises(UsageError, match="pip install") as error:
        Database(address).open()
    assert "hunter2" not in str(error.value)


def test_a_server_that_is_not_there_is_said_without_its_password() -> None:
    pytest.importorskip("psycopg", reason="psycopg is optional")
    address = StateAddress.parse("postgresql://ops:hunter2@127.0.0.1:1/state")
    with pytest.raises(StoreError, match="does not answer") as error:
        Database(address).open()
    assert "hunter2" not in str(error.value)
