"""`helmops version`."""

from __future__ import annotations

import json

import click

from helmops import __version__
from helmops.cli import options
from helmops.cli.options import Format


@click.command()
@options.output
def version(output: Format) -> None:
    """Print the version of helmops."""
    if output is Format.JSON:
        click.echo(json.dumps({"version": __version__}))
    else:
        click.echo(f"helmops {__version__}")
