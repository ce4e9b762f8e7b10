"""One state database: opened, migrated, and opened again when its file vanished.

Everything here blocks and belongs into one thread. What differs between SQLite and PostgreSQL is
here and nowhere else.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.exc import (
    ArgumentError,
    DBAPIError,
    NoSuchModuleError,
    OperationalError,
    SQLAlchemyError,
)

from helmops.errors import StoreError, UsageError
from helmops.store import schema
from helmops.store.address import StateAddress

#: How long to wait for another process that writes, or that migrates, in seconds.
_BUSY_SECONDS = 10.0

#: PostgreSQL's advisory lock of all who write ("helmops" as a number). Numbers of events are taken
#: before a transaction commits; one writer at a time makes them visible in their order, which
#: whoever follows the events relies on.
_WRITER_LOCK = 0x68656C6D6F7073


class Database:
    """A state database. Raises StoreError and, for an unusable URL, UsageError."""

    def __init__(self, address: StateAddress) -> None:
        self.address = address
        #: Grows each time that the file is found to be another one than before.
        self.incarnation = 0
        self._engine: Engine | None = None
        self._identity: tuple[int, int] | None = None

    def open(self) -> None:
        """Make the file and its directory where they are missing, migrate, connect."""
        with self._explained():
            self._opened()

    def close(self) -> None:
        """Close all connections; the database may be used again afterwards."""
        if self._engine is not None:
            self._engine.dispose()
            self._engine = None

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A transaction that sees one state of all tables."""
        with self._transaction(writes=False) as connection:
            yield connection

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """A transaction, committed at the end; others that write wait meanwhile."""
        with self._transaction(writes=True) as connection:
            yield connection

    @contextmanager
    def _transaction(self, *, writes: bool) -> Iterator[Connection]:
        with self._explained():
            engine = self._opened()
            connecting = engine.connect().execution_options(helmops_writes=writes)
            with connecting as connection, connection.begin():
                yield connection

    def _opened(self) -> Engine:
        if self._engine is not None and self._identity != _identity(self.address.path):
            self.close()  # the file was deleted or replaced while we had it open
            self._identity = None
        if self._engine is None:
            self._engine = self._connect()
            found = _identity(self.address.path)
            if found != self._identity:
                self.incarnation += 1
            self._identity = found
        return self._engine

    def _connect(self) -> Engine:
        path = self.address.path
        engine = _server(self.address) if path is None else _file(path)
        try:
            if path is None:
                self._migrate(engine)
            elif not (path.exists() and self._is_current(engine)):
                path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                with _lock(path.with_name(f"{path.name}.lock"), self.address.shown):
                    if _create(path):
                        self._identity = None  # a new file may have got the old one's number
                    self._migrate(engine)
        except BaseException:
            engine.dispose()
            raise
        return engine

    def _is_current(self, engine: Engine) -> bool:
        with engine.connect() as connection:
            return schema.is_current(connection, self.address.shown)

    def _migrate(self, engine: Engine) -> None:
        if self.address.path is None and self._is_current(engine):
            return
        if self.address.path is not None:
            # Readers and a writer at once; it is a property of the file, so once is enough.
            with engine.connect() as connection:
                _outside_transaction(connection, "PRAGMA journal_mode=WAL")
        connecting = engine.connect().execution_options(helmops_writes=True)
        with connecting as connection, connection.begin():
            if not schema.is_current(connection, self.address.shown):
                schema.migrate(connection)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Turn what the database and the file system raise into our errors.

        After a failure everything is closed, so that the next use starts afresh.
        """
        try:
            yield
        except (StoreError, UsageError):
            self.close()
            raise
        except OSError as error:
            self.close()
            raise _of_file_system(error, self.address) from error
        except (SQLAlchemyError, sqlite3.Error) as error:
            self.close()
            raise _of_database(error, self.address) from error


def _file(path: Path) -> Engine:
    # mode=rw: only `_create` makes the file, under the lock and with its permissions.
    uri = f"file:{quote(str(path))}?mode=rw"

    def connect() -> sqlite3.Connection:
        connection = sqlite3.connect(
            uri, uri=True, timeout=_BUSY_SECONDS, check_same_thread=False, isolation_level=None
        )
        connection.execute("PRAGMA foreign_keys=ON")
        # In WAL mode a power loss may cost the last transactions, never the file.
        connection.execute("PRAGMA synchronous=NORMAL")
        return connection

    engine = create_engine("sqlite://", creator=connect, json_serializer=_to_json)

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        # The driver's own BEGIN comes late and without IMMEDIATE: a transaction that reads first
        # and then writes would fail at once when somebody else wrote in between.
        writes = connection.get_execution_options().get("helmops_writes")
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine


def _server(address: StateAddress) -> Engine:
    try:
        engine = create_engine(
            address.url,
            pool_pre_ping=True,
            pool_size=1,
            max_overflow=1,
            json_serializer=_to_json,
            hide_parameters=True,
            connect_args={"connect_timeout": 5, "application_name": "helmops"},
        )
    except (ImportError, NoSuchModuleError, ArgumentError) as error:
        missing = getattr(error, "name", None) or address.url.partition(":")[0]
        raise UsageError(
            f"there is no driver for this state: {missing}",
            where=address.shown,
            next_step="install it with: pip install 'psycopg[binary]'",
        ) from None

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        connection.exec_driver_sql("SET LOCAL statement_timeout = '30s'")
        if connection.get_execution_options().get("helmops_writes"):
            connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_WRITER_LOCK})")

    return engine


def _outside_transaction(connection: Connection, statement: str) -> None:
    driver = connection.connection.driver_connection
    if driver is not None:
        driver.execute(statement).close()


def _to_json(value: Any) -> str:
    return json.dumps(value, default=str, separators=(",", ":"))


def _identity(path: Path | None) -> tuple[int, int] | None:
    """Which file the name means just now; None for no file, and for a server."""
    if path is None:
        return None
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _create(path: Path) -> bool:
    """Make the empty file, for its owner only; whether there was none. Called under the lock."""
    if path.exists():
        return False
    # What a deleted file has left beside it (-wal, -shm) SQLite itself throws away when it finds
    # the file empty.
    os.close(os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600))
    return True


@contextmanager
def _lock(path: Path, shown: str) -> Iterator[None]:
    """Keep other processes from making or migrating the same file."""
    descriptor = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        deadline = time.monotonic() + 3 * _BUSY_SECONDS
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise StoreError(
                        "another process has been preparing the state for too long",
                        where=shown,
                        next_step=f"find who holds {path} (fuser {path}) and stop it",
                    ) from None
                time.sleep(0.05)
        yield
    finally:
        os.close(descriptor)  # which lets go of the lock


def _of_file_system(error: OSError, address: StateAddress) -> StoreError:
    place = f" ({error.filename})" if error.filename else ""
    advice = "name another place with --state, or HELMOPS_STATE"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        advice = "make room on that disk; what is to be written is kept in memory meanwhile"
    elif error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        advice = "make the directory writable for the user that helmops runs as, or " + advice
    return StoreError(
        f"the state cannot be written: {(error.strerror or str(error)).lower()}{place}",
        where=address.shown,
        next_step=advice,
    )


_ELSEWHERE = "name another place with --state, or HELMOPS_STATE"
_START_AFRESH = (
    "move the file away and helmops starts a new one; releases and their verdicts are kept in the "
    "cluster, only the history of events is lost"
)

#: SQLite's primary result codes: what to say, and what to do.
_SQLITE_FAILURES = {
    sqlite3.SQLITE_FULL: (
        "the disk under the state file is full",
        "make room on it; what is to be written is kept in memory meanwhile",
    ),
    sqlite3.SQLITE_IOERR: (
        "the state file cannot be read or written, the disk reports an error",
        "look at the disk (and at quotas); what is to be written is kept in memory meanwhile",
    ),
    sqlite3.SQLITE_READONLY: (
        "the state file is read-only",
        f"make it and its directory writable for the user that helmops runs as, or {_ELSEWHERE}",
    ),
    sqlite3.SQLITE_CANTOPEN: (
        "the state file cannot be opened",
        f"make it and its directory writable for the user that helmops runs as, or {_ELSEWHERE}",
    ),
    sqlite3.SQLITE_PERM: (
        "the state file may not be opened",
        f"make it and its directory writable for the user that helmops runs as, or {_ELSEWHERE}",
    ),
    sqlite3.SQLITE_BUSY: (
        f"another process has kept the state file locked for {_BUSY_SECONDS:.0f} s",
        "find it (fuser FILE); it is tried again with the next event",
    ),
    sqlite3.SQLITE_LOCKED: (
        "the state file is locked",
        "it is tried again with the next event",
    ),
    sqlite3.SQLITE_CORRUPT: ("the state file is damaged", _START_AFRESH),
    sqlite3.SQLITE_NOTADB: ("this file is not a state database", _START_AFRESH),
}


def _of_database(error: SQLAlchemyError | sqlite3.Error, address: StateAddress) -> StoreError:
    # The driver's own text: SQLAlchemy's has the statement and its parameters too.
    cause = error.orig if isinstance(error, DBAPIError) else error
    if isinstance(cause, sqlite3.Error):
        code = getattr(cause, "sqlite_errorcode", 0) & 0xFF
        what, advice = _SQLITE_FAILURES.get(
            code, (f"the state database failed: {cause}", _START_AFRESH)
        )
        return StoreError(what, where=address.shown, next_step=advice)
    if isinstance(error, OperationalError):
        return StoreError(
            f"the state database does not answer: {_first_line(cause)}",
            where=address.shown,
            next_step="check that the server runs and lets this user in (PGPASSWORD, ~/.pgpass); "
            "what is to be written is kept in memory meanwhile",
        )
    return StoreError(
        f"the state database failed: {_first_line(cause)}",
        where=address.shown,
        next_step="check the user's rights on the database",
    )


def _first_line(error: BaseException | None) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
