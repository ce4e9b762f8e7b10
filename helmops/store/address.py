"""Where the state is kept: what `--state` and HELMOPS_STATE may say.

    sqlite:///relative/state.db           a file, from the working directory
    sqlite:////var/lib/helmops/state.db   a file (four slashes: an absolute path)
    postgresql://USER@HOST:PORT/DATABASE  a server; the password is best left to PGPASSWORD
                                          or ~/.pgpass

Read without SQLAlchemy (its import costs a quarter of a second), so that a command line can be
checked before anything is opened.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from helmops.errors import UsageError

_SQLITE = "sqlite"
_POSTGRESQL = ("postgresql", "postgres")


@dataclass(frozen=True, slots=True)
class StateAddress:
    """A state database. `path` is the absolute path of a SQLite file, None for a server.

    `url` may hold a password and is not shown; `shown` is for people.
    """

    url: str = field(repr=False)
    path: Path | None
    shown: str

    @classmethod
    def of_file(cls, path: Path) -> StateAddress:
        """The address of a SQLite file."""
        whole = path.expanduser().absolute()
        return cls(url=f"sqlite:///{whole}", path=whole, shown=f"sqlite:///{whole}")

    @classmethod
    def parse(cls, text: str) -> StateAddress:
        """Read an address. Raises UsageError, without repeating a password."""
        scheme, separator, rest = text.strip().partition("://")
        if not separator:
            raise UsageError(
                "the state is named by a URL, not by a path alone",
                where="--state",
                next_step=f"write sqlite:///{text.strip() or 'PATH'}",
            )
        dialect, _, driver = scheme.lower().partition("+")
        if dialect == _SQLITE:
            return cls._of_sqlite(driver, rest)
        if dialect in _POSTGRESQL:
            return cls._of_postgresql(driver, rest)
        raise UsageError(
            f"no state can be kept in {scheme!r}",
            where="--state",
            next_step="use sqlite:///PATH or postgresql://USER@HOST/DATABASE",
        )

    @classmethod
    def _of_sqlite(cls, driver: str, rest: str) -> StateAddress:
        problem, advice = "", "write sqlite:///PATH, with four slashes for an absolute path"
        path = rest.removeprefix("/")
        if driver:
            problem = f"sqlite has no driver {driver!r} here"
        elif rest and not rest.startswith("/"):
            problem, advice = "a sqlite URL names no host", f"write sqlite:///{rest}"
        elif not path or path.endswith("/"):
            problem = "the sqlite URL names no file"
        elif path.startswith((":memory:", "file:")):
            problem = "state in memory would be gone with the process"
        elif "?" in path:
            problem, advice = "a sqlite URL takes no options here", "leave out all from the '?' on"
        if problem:
            raise UsageError(problem, where="--state", next_step=advice)
        return cls.of_file(Path(path))

    @classmethod
    def _of_postgresql(cls, driver: str, rest: str) -> StateAddress:
        try:
            parts = urlsplit(f"//{rest}", allow_fragments=False)
            port = parts.port
        except ValueError:
            # The error's own text may repeat the password.
            raise UsageError(
                "the PostgreSQL URL cannot be read",
                where="--state",
                next_step="write postgresql://USER@HOST:PORT/DATABASE and percent-encode what is "
                "special in user and password",
            ) from None
        if not parts.path.strip("/"):
            raise UsageError(
                "the PostgreSQL URL names no database",
                where="--state",
                next_step="write postgresql://USER@HOST:PORT/DATABASE",
            )
        host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname or ""
        shown = f"postgresql://{host}{f':{port}' if port else ''}{parts.path}"
        return cls(url=f"postgresql+{driver or 'psycopg'}://{rest}", path=None, shown=shown)
