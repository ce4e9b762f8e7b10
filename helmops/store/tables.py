"""The tables, as the code of today sees them; `migrations/` brings a database there."""

from __future__ import annotations

from datetime import UTC, datetime

from sqlalchemy import (
    JSON,
    BigInteger,
    Column,
    DateTime,
    Dialect,
    Index,
    Integer,
    MetaData,
    Table,
    Text,
    TypeDecorator,
)


class UtcTime(TypeDecorator[datetime]):
    """A moment: aware in Python, kept as UTC without a zone, as SQLite has no zones."""

    impl = DateTime
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return None if value is None else value.astimezone(UTC).replace(tzinfo=None)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return None if value is None else value.replace(tzinfo=UTC)


#: SQLite only numbers rows by itself where the column is exactly INTEGER.
RowNumber = BigInteger().with_variant(Integer(), "sqlite")

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)

events = Table(
    "events",
    metadata,
    Column("id", RowNumber, primary_key=True, autoincrement=True),
    Column("at", UtcTime, nullable=False),
    Column("namespace", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("severity", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("message", Text, nullable=False),
    Column("revision", BigInteger, nullable=True),
    Column("metadata", JSON, nullable=False),
    Index(None, "namespace", "name", "id"),
    Index(None, "at"),
    # Without it SQLite gives the number of a pruned row to a new one, and whoever follows the
    # events by number would miss that.
    sqlite_autoincrement=True,
)

releases = Table(
    "releases",
    metadata,
    Column("namespace", Text, primary_key=True),
    Column("name", Text, primary_key=True),
    Column("release_namespace", Text, nullable=False),
    Column("release_name", Text, nullable=False),
    Column("status", JSON, nullable=False),
    Column("updated_at", UtcTime, nullable=False),
)

#: `content` is the very text of an entry, and never parsed by the database: its hash counts. The
#: other columns say what stands in it, for looking it up.
ledger = Table(
    "ledger",
    metadata,
    Column("chain", Text, primary_key=True),
    Column("number", BigInteger, primary_key=True, autoincrement=False),
    Column("at", UtcTime, nullable=False),
    Column("namespace", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("release_namespace", Text, nullable=False),
    Column("release_name", Text, nullable=False),
    Column("hash", Text, nullable=False),
    Column("content", Text, nullable=False),
    Index(None, "namespace", "name", "chain"),
    Index(None, "at"),
)

#: Numbers count from 1 for each release, and the newest is never thrown away, so that none is used
#: again.
evidence = Table(
    "evidence",
    metadata,
    Column("namespace", Text, primary_key=True),
    Column("name", Text, primary_key=True),
    Column("number", BigInteger, primary_key=True, autoincrement=False),
    Column("at", UtcTime, nullable=False),
    Column("revision", BigInteger, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("content", Text, nullable=False),
)
