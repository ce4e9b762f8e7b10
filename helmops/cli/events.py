"""`helmops events`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from helmops.cli import options
from helmops.cli.options import Format
from helmops.cli.session import follow, key_of, run_async, settings_of

if TYPE_CHECKING:
    from helmops.store.entries import StoredEvent


def events(
    name: Annotated[
        str | None, typer.Argument(help="NAME or NAMESPACE/NAME; absent: all releases.")
    ] = None,
    namespace: options.Namespace = None,
    all_namespaces: options.AllNamespaces = False,
    state: options.State = None,
    output: options.Output = Format.TEXT,
    limit: Annotated[int, typer.Option("--limit", help="At most so many, the newest.")] = 50,
    watch: options.Watch = False,
) -> None:
    """List what happened, oldest first, out of the state database."""
    settings = settings_of(namespace=namespace, state=state)

    async def show() -> str:
        from helmops.cli.output import as_text, table
        from helmops.service.clock import SystemClock
        from helmops.store.journal import SqlJournal

        journal = SqlJournal(settings.state, now=SystemClock().now)
        await journal.open()
        try:
            found = await journal.events(
                key=key_of(name, settings.namespace) if name else None,
                namespace=None if all_namespaces or name else settings.namespace,
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
        typer.echo(await show())

    run_async(follow(1.0, show) if watch else once())


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
