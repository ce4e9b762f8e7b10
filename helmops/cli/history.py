"""`helmops history`."""

from __future__ import annotations

from typing import Any

import click

from helmops.cli import options
from helmops.cli.options import Format
from helmops.cli.session import key_of, run_async, settings_of


@click.command()
@options.name
@options.lookup
@options.output
def history(name: str, output: Format, **given: Any) -> None:
    """List the revisions that helmops knows, newest first, and what it saw of each."""
    settings = settings_of(**given)
    key = key_of(name, settings.namespace)

    async def show() -> None:
        from helmops.cli.output import age, as_text, table
        from helmops.service.clock import SystemClock
        from helmops.service.lookup import one

        manifest = await one(settings, key)
        entries = manifest["status"].get("history", [])
        if output in (Format.JSON, Format.YAML):
            click.echo(as_text(entries, output))
            return
        now = SystemClock().now()
        header = ["revision", "action", "chart", "helm status", "verdict", "age", "message"]
        rows = [
            [
                str(e["version"]),
                e["action"],
                f"{e['chartName']}@{e['chartVersion']}",
                e["status"],
                e["helmops"]["verdict"],
                age(e["lastDeployed"], now),
                " ".join(e["helmops"]["message"].split()),
            ]
            for e in entries
        ]
        click.echo(table(header, rows) if rows else f"{key} has no revisions.")

    run_async(show())
