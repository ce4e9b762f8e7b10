"""Reading the ledger back: without SQLAlchemy where the state is a file, as importing that costs
more than verifying a thousand entries.

What is read is not believed: a row that somebody changed comes out as it stands there, for whoever
verifies it to say so.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from helmops.errors import StoreError
from helmops.model.ledger import KeptEntry
from helmops.model.releases import DeclarationKey, ReleaseId
from helmops.store.address import StateAddress

#: Chain by chain in the order in which they began. What is asked for is whole chains: the links of
#: one tell of every entry, whatever name it is kept under.
_QUERY = """
SELECT ledger.chain, ledger.number, ledger.hash, ledger.content, ledger.at,
       ledger.namespace, ledger.name, ledger.release_namespace, ledger.release_name
FROM ledger
JOIN (SELECT chain, MIN(at) AS began FROM ledger GROUP BY chain) AS chains
  ON chains.chain = ledger.chain
WHERE {condition}
ORDER BY chains.began, ledger.chain, ledger.number
"""
_OF_CHAINS = "ledger.chain IN (SELECT chain FROM ledger WHERE {condition})"
#: A moment that no entry has, for one that cannot be read.
_NEVER = datetime.min.replace(tzinfo=UTC)


def kept_entries(
    address: StateAddress,
    *,
    key: DeclarationKey | None = None,
    namespace: str | None = None,
    only_first: bool = False,
) -> Iterator[KeptEntry]:
    """The entries of all ledgers, or of the chains that a declaration or a namespace has a part in,
    by chain and number. `only_first` leaves out all but number 1.

    Raises StoreError where there is no state, no ledger in it, or it cannot be read; and UsageError
    for an unusable address.
    """
    conditions, values = ["1 = 1"], {}
    if key is not None:
        conditions.append(_OF_CHAINS.format(condition="namespace = :namespace AND name = :name"))
        values = {"namespace": key.namespace, "name": key.name}
    elif namespace is not None:
        conditions.append(_OF_CHAINS.format(condition="namespace = :namespace"))
        values = {"namespace": namespace}
    if only_first:
        conditions.append("ledger.number = 1")
    query = _QUERY.format(condition=" AND ".join(conditions))
    rows = (
        _in_database(address, query, values)
        if address.path is None
        else _in_file(address.path, address.shown, query, values)
    )
    return map(_entry, rows)


def _in_file(path: Path, shown: str, query: str, values: dict[str, str]) -> Iterator[Any]:
    if not path.exists():
        raise StoreError(
            "there is no state database",
            where=shown,
            next_step="name the one that the service writes with --state, or HELMOPS_STATE",
        )
    try:
        with contextlib.closing(
            sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=10)
        ) as connection:
            connection.text_factory = lambda data: data.decode(errors="surrogateescape")
            yield from connection.execute(query, values)
    except sqlite3.Error as error:
        has_no_ledger = "no such table" in str(error)
        raise StoreError(
            "the state database has no ledger"
            if has_no_ledger
            else f"the state database cannot be read: {error}",
            where=shown,
            next_step="an older helmops wrote it; `helmops reconcile` brings it up to date"
            if has_no_ledger
            else "put it back from a backup; where there is none, move it away, and helmops starts "
            "a new one with the newest entries out of the records",
        ) from error


def _in_database(address: StateAddress, query: str, values: dict[str, str]) -> Iterator[Any]:
    from sqlalchemy import text

    from helmops.store.database import Database

    database = Database(address)
    try:
        with database.reading() as connection:
            yield from connection.execution_options(yield_per=1000).execute(text(query), values)
    finally:
        database.close()


def _entry(row: Any) -> KeptEntry:
    chain, number, digest, content, at, *names = row
    namespace, name, release_namespace, release_name = map(_text, names)
    return KeptEntry(
        chain=_text(chain),
        number=number if isinstance(number, int) else 0,
        hash=_text(digest),
        content=_text(content),
        at=_moment(at),
        declaration=DeclarationKey(namespace, name),
        release=ReleaseId(release_namespace, release_name),
    )


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _moment(value: Any) -> datetime:
    if isinstance(value, datetime):
        return value.replace(tzinfo=UTC)
    try:
        return datetime.fromisoformat(value).replace(tzinfo=UTC)
    except (TypeError, ValueError):
        return _NEVER
