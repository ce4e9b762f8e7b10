"""`helmops cache ls|prune`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from helmops.cli import options
from helmops.cli.options import Format
from helmops.cli.session import settings_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from helmops.sources.cache_content import CacheEntry


@click.group()
def cache() -> None:
    """Look at what was fetched, and throw some of it away."""


@cache.command("ls")
@options.output
def ls(output: Format) -> None:
    """List charts, indexes, artifacts of registries, Git mirrors and checkouts, last used first."""
    from helmops.cli.output import as_text
    from helmops.sources.cache_content import cache_entries

    settings = settings_of()
    entries = cache_entries(settings.cache_dir)
    total = sum(entry.size for entry in entries)
    if output in (Format.JSON, Format.YAML):
        told = {
            "directory": str(settings.cache_dir),
            "size": total,
            "maxSize": settings.cache_size,
            "entries": [_as_json(entry) for entry in entries],
        }
        click.echo(as_text(told, output))
    elif output is Format.NAME:
        click.echo("\n".join(str(entry.path) for entry in entries))
    else:
        click.echo(_table(entries))
        of = f"charts are kept up to {_bytes(settings.cache_size)}"
        click.echo(f"{_bytes(total)} in {settings.cache_dir}; {of}", err=True)


@cache.command("prune")
@click.option(
    "--max-size",
    default="0",
    metavar="SIZE",
    help="What may stay, as 500MiB; absent: nothing that was not used just now.",
)
@click.option("--dry-run", is_flag=True, help="Only say what would go.")
@options.output
def prune(max_size: str, dry_run: bool, output: Format) -> None:
    """Remove what was not used for longest; it is fetched again where it is needed."""
    from helmops.cli.output import as_text
    from helmops.errors import UsageError
    from helmops.service.settings import parse_size
    from helmops.sources.cache_content import prune as prune_cache

    settings = settings_of()
    try:
        limit = parse_size(max_size)
    except ValueError as error:
        raise UsageError(str(error), where="--max-size") from error
    removed, left = prune_cache(settings.cache_dir, limit, dry_run=dry_run)
    freed = sum(entry.size for entry in removed)
    if output in (Format.JSON, Format.YAML):
        told = {
            "dryRun": dry_run,
            "removed": [_as_json(entry) for entry in removed],
            "freed": freed,
            "left": left,
        }
        click.echo(as_text(told, output))
    elif output is Format.NAME:
        click.echo("\n".join(str(entry.path) for entry in removed))
    else:
        if removed:
            click.echo(_table(removed))
        done = "would free" if dry_run else "freed"
        click.echo(f"{done} {_bytes(freed)}; {_bytes(left)} left", err=True)


def _as_json(entry: CacheEntry) -> dict[str, Any]:
    return {
        "kind": entry.kind,
        "name": entry.name,
        "path": str(entry.path),
        "size": entry.size,
        "lastUsed": entry.used.strftime("%Y-%m-%dT%H:%M:%SZ"),
    }


def _table(entries: Iterable[CacheEntry]) -> str:
    from helmops.cli.output import table

    rows = [
        [entry.kind, entry.name, _bytes(entry.size), f"{entry.used:%Y-%m-%d %H:%M}"]
        for entry in entries
    ]
    return table(["kind", "name", "size", "last used"], rows)


def _bytes(size: int) -> str:
    shown = float(size)
    for unit in ("B", "KiB", "MiB"):
        if shown < 1024:
            return f"{shown:.{0 if unit == 'B' else 1}f} {unit}"
        shown /= 1024
    return f"{shown:.1f} GiB"
