import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

from helmops.errors import StoreError
from helmops.store import migrations, tables
from helmops.store.address import StateAddress
from helmops.store.database import Database


@pytest.fixture
def address(tmp_path: Path) -> StateAddress:
    return StateAddress.of_file(tmp_path / "state.db")


def test_the_list_of_revisions_is_the_chain_of_the_files() -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(migrations.__file__).parent))
    config.set_main_option("path_separator", "os")
    scripts = ScriptDirectory.from_config(config)
    chain = [script.revision for script in scripts.walk_revisions("base", "heads")]
    assert tuple(reversed(chain)) == migrations.REVISIONS


def test_the_migrations_make_the_tables_that_the_code_knows(address: StateAddress) -> None:
    database = Database(address)
    with database.writing() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, tables.metadata) == []
    database.close()


def test_a_newer_schema_is_left_alone_and_said(address: StateAddress) -> None:
    Database(address).open()
    assert address.path is not None
    with sqlite3.connect(address.path) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.close()
    before = address.path.read_bytes()
    with pytest.raises(StoreError, match=r"newer helmops .*9999.*--state"):
        Database(address).open()
    assert address.path.read_bytes() == before


def test_a_migration_that_fails_leaves_nothing_behind(
    address: StateAddress, monkeypatch: pytest.MonkeyPatch
) -> None:
    from alembic import op

    def fail(*_: object, **__: object) -> None:
        raise StoreError("broken off")

    with monkeypatch.context() as patch:
        patch.setattr(op, "create_index", fail)
        with pytest.raises(StoreError, match="broken off"):
            Database(address).open()
    database = Database(address)
    database.open()
    with database.writing() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM events").scalar() == 0
    database.close()


OPEN_AND_WRITE = """
import sys
from pathlib import Path
from helmops.store.address import StateAddress
from helmops.store.database import Database

print("ready", flush=True)
sys.stdin.readline()
database = Database(StateAddress.of_file(Path(sys.argv[1])))
with database.writing() as connection:
    connection.exec_driver_sql("DELETE FROM events")
database.close()
"""


def test_processes_that_start_at_once_migrate_once(address: StateAddress) -> None:
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", OPEN_AND_WRITE, str(address.path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(3)
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    said = [process.communicate(timeout=60)[1] for process in processes]
    assert said == ["", "", ""]
    assert [process.returncode for process in processes] == [0, 0, 0]
