"""`helmops events`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from helmops.cli import options
from helmops.cli.options import Format
from helmops.cli.session import follow, key_of, run_async, settings_of

if TYPE_CHECKING:
    from helmops.store.entries import StoredEvent


@click.command()
@click.argument("name", metavar="[[NAMESPACE/]NAME]", required=False)
@options.namespace
@options.everywhere
@options.state
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    default=50,
    show_default=True,
    help="At most so many, the newest.",
)
@options.watch
@options.output
def events(
    name: str | None, everywhere: bool, limit: int, is_watched: bool, output: Format, **given: Any
) -> None:
    """List what happened, oldest first, out of the state database."""
    settings = settings_of(**given)

    async def show() -> str:
        from helmops.cli.output import as_text, table
        from helmops.service.clock import SystemClock
        from helmops.store.journal import SqlJournal

        journal = SqlJournal(settings.state, now=SystemClock().now)
        await journal.open()
        try:
            found = await journal.events(
                key=key_of(name, settings.namespace) if name else None,
                namespace=None if everywhere or name else settings.namespace,
                limit=limit,
            )
        finally:
            await journal.close()
        entries = [_entry(each) for each in sorted(found, key=lambda each: each.id)]
        if output in (Format.JSON, Format.YAML):
            return as_text(entries, output)
        if not entries:
            return "No events."
        header = ["time", "release", "kind", "reason", "revision", "message"]
        return table(header, [[str(e[h]) for h in header] for e in entries])

    async def once() -> None:
        click.echo(await show())

    run_async(follow(1.0, show) if is_watched else once())


def _entry(stored: StoredEvent) -> dict[str, Any]:
    event = stored.event
    return {
        "id": stored.id,
        "time": event.at.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "release": str(event.key),
        "kind": event.kind.value,
        "severity": event.severity.value,
        "reason": event.reason,
        "revision": event.revision if event.revision is not None else "-",
        "message": " ".join(event.message.split()),
        "metadata": dict(event.metadata),
    }
