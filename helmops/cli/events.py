"""`helmops events`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from helmops.cli import options
from helmops.cli.options import Format
from helmops.cli.session import follow, key_of, run_async, settings_of
from helmops.errors import ObjectNotFound, UsageError

if TYPE_CHECKING:
    from helmops.service.settings import Settings
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
@click.option(
    "--evidence",
    type=click.IntRange(min=0),
    is_flag=False,
    flag_value=0,
    metavar="[N]",
    help="Print what a failure of that release left behind: the newest, or that of this number.",
)
@options.watch
@options.output
def events(
    name: str | None,
    everywhere: bool,
    limit: int,
    evidence: int | None,
    is_watched: bool,
    output: Format,
    **given: Any,
) -> None:
    """List what happened, oldest first, out of the state database.

    A failure that left evidence has its number: `helmops events NAME --evidence N` prints pods,
    logs, events, what helm said, and what had changed.
    """
    settings = settings_of(**given)
    if evidence is not None:
        if name is None:
            raise UsageError("evidence is of one release", next_step="name it first")
        run_async(_print_evidence(settings, name, evidence, output))
        return

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
        for entry in entries:
            entry["evidence"] = entry["metadata"].get("evidence", "")
        header = ["time", "release", "kind", "reason", "revision"]
        header += ["evidence"] if any(entry["evidence"] for entry in entries) else []
        header.append("message")
        return table(header, [[str(e[h]) for h in header] for e in entries])

    async def once() -> None:
        click.echo(await show())

    run_async(follow(1.0, show) if is_watched else once())


async def _print_evidence(settings: Settings, name: str, number: int, output: Format) -> None:
    """The evidence of that number, the newest for 0. Raises ObjectNotFound, StoreError."""
    import msgspec

    from helmops.cli.output import as_text
    from helmops.service.clock import SystemClock
    from helmops.store.journal import SqlJournal

    key = key_of(name, settings.namespace)
    journal = SqlJournal(settings.state, now=SystemClock().now)
    await journal.open()
    try:
        found = await journal.evidence(key, number)
    finally:
        await journal.close()
    if found is None:
        which = f"evidence {number}" if number else "evidence"
        raise ObjectNotFound(
            f"there is no {which} of {key}",
            next_step=f"`helmops events {name}` lists the failures that left some",
        )
    if output in (Format.JSON, Format.YAML):
        entry = {"number": found.number, **msgspec.to_builtins(found.evidence)}
        click.echo(as_text(entry, output))
    else:
        click.echo(f"evidence {found.number} of {found.evidence.to_text()}")


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
