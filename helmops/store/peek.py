"""A quick look at what is published, without SQLAlchemy: importing that costs more than all else
that `helmops get releases` does.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from helmops.model.releases import DeclarationKey


def published(path: Path) -> list[tuple[DeclarationKey, dict[str, Any], datetime]]:
    """The latest state of each release in a SQLite state file: key, status, when it was written.

    Empty where there is no such file, where it is of another version, or cannot be read: what
    safety depends on is in the records, and those tell the same.
    """
    if not path.exists():
        return []
    query = "SELECT namespace, name, status, updated_at FROM releases"
    try:
        with contextlib.closing(
            sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=2)
        ) as connection:
            rows = connection.execute(query).fetchall()
    except sqlite3.Error:
        return []
    found = []
    for namespace, name, status, updated_at in rows:
        with contextlib.suppress(ValueError, TypeError):  # a damaged row
            moment = datetime.fromisoformat(updated_at).replace(tzinfo=UTC)
            found.append((DeclarationKey(namespace, name), json.loads(status), moment))
    return found
