"""`helmops check`."""

from __future__ import annotations

from typing import Any

import click

from helmops.cli import options
from helmops.cli.options import Format
from helmops.cli.session import run_async, settings_of


@click.command()
@options.filename
@options.acting
@options.output
def check(output: Format, **given: Any) -> None:
    """Look whether helmops can work here: helm, git, the API server, rights, state, declarations.

    Status 0: all is well. 1: something is missing.
    """
    settings = settings_of(**given)

    async def show() -> bool:
        from helmops.cli.output import as_text
        from helmops.service.checkup import checkup

        findings = await checkup(settings)
        if output in (Format.JSON, Format.YAML):
            told = [{"name": f.name, "ok": f.is_good, "message": f.message} for f in findings]
            click.echo(as_text(told, output))
        else:
            for finding in findings:
                click.echo(f"{'✔' if finding.is_good else '✗'} {finding.name}: {finding.message}")
        return all(finding.is_good for finding in findings)

    raise click.exceptions.Exit(0 if run_async(show()) else 1)
