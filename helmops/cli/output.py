"""How commands print: tables for people, JSON and YAML for programs."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

from helmops.cli.options import Format

if TYPE_CHECKING:
    from helmops.model.releases import DeclarationKey


def as_text(value: Any, output: Format) -> str:
    """A JSON-like value as JSON or YAML."""
    if output is Format.YAML:
        import yaml

        return str(yaml.safe_dump(value, sort_keys=False, allow_unicode=True)).rstrip("\n")
    return json.dumps(value, indent=2, ensure_ascii=False, default=str)


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns as kubectl prints them: upper-case header, three spaces between."""
    lines = [[cell.upper() for cell in header], *[list(row) for row in rows]]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    return "\n".join(
        "   ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def age(moment: datetime | str | None, now: datetime) -> str:
    """How long ago, in one unit: 12s, 5m, 3h, 8d."""
    if moment is None or moment == "":
        return ""
    if isinstance(moment, str):
        moment = datetime.fromisoformat(moment.replace("Z", "+00:00"))
    seconds = max(int((now - moment).total_seconds()), 0)
    for size, unit in ((86400, "d"), (3600, "h"), (60, "m")):
        if seconds >= size:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"


def teller(*, quiet: bool = False) -> Any:
    """Prints each step of a pass as one line on standard error: time, release, what."""
    from helmops.service.clock import SystemClock

    clock = SystemClock()

    def tell(key: DeclarationKey, line: str) -> None:
        if not quiet:
            click.echo(f"{clock.now():%H:%M:%S} {key}  {line}", err=True)
            sys.stderr.flush()

    return tell
