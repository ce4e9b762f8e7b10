"""Bring a database to the schema that this code knows."""

from __future__ import annotations

import threading
from pathlib import Path

from sqlalchemy import Connection, inspect, text

from helmops.errors import StoreError
from helmops.store.migrations import REVISIONS

_MIGRATIONS = Path(__file__).parent / "migrations"

#: Alembic keeps the running migration in a module global.
_alembic = threading.Lock()


def revision_of(connection: Connection) -> str | None:
    """The schema revision of a database, None for one that was never migrated."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    found: str | None = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
    return found


def is_current(connection: Connection, shown: str) -> bool:
    """Whether nothing is to be migrated. Raises StoreError where the schema is newer than we are.

    `shown` names the database in the error.
    """
    found = revision_of(connection)
    if found is not None and found not in REVISIONS:
        raise StoreError(
            f"the state was written by a newer helmops (its schema is {found}, this helmops knows "
            f"schemas up to {REVISIONS[-1]})",
            where=shown,
            next_step="run the newer helmops, or name another state with --state; releases and "
            "their verdicts are kept in the cluster, only the history of events stays behind",
        )
    return found == REVISIONS[-1]


def migrate(connection: Connection) -> None:
    """Run all migrations that are missing, inside the caller's transaction.

    The caller holds the lock that keeps other processes from doing the same.
    """
    # Imported here: half a second that a database which is up to date does not need.
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    with _alembic:
        command.upgrade(config, "head")
