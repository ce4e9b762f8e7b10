"""`helmops history`."""

from __future__ import annotations

from typing import Annotated

import typer

from helmops.cli import options
from helmops.cli.options import Format
from helmops.cli.session import key_of, run_async, settings_of


def history(
    name: Annotated[str, typer.Argument(help="NAME or NAMESPACE/NAME.")],
    namespace: options.Namespace = None,
    context: options.Context = None,
    kubeconfig: options.Kubeconfig = None,
    state: options.State = None,
    output: options.Output = Format.TEXT,
) -> None:
    """List the revisions that helmops knows, newest first, and what it saw of each."""
    settings = settings_of(namespace=namespace, context=context, kubeconfig=kubeconfig, state=state)
    key = key_of(name, settings.namespace)

    async def show() -> None:
        from helmops.cli.output import age, as_text, table
        from helmops.service.clock import SystemClock
        from helmops.service.lookup import one

        manifest = await one(settings, key)
        entries = manifest["status"].get("history", [])
        if output in (Format.JSON, Format.YAML):
            typer.echo(as_text(entries, output))
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
        typer.echo(table(header, rows) if rows else f"{key} has no revisions.")

    run_async(show())
