"""`helmops version`."""

from __future__ import annotations

import json

import typer

from helmops import __version__
from helmops.cli.options import Format, Output


def version(output: Output = Format.TEXT) -> None:
    """Print the version of helmops."""
    if output is Format.JSON:
        typer.echo(json.dumps({"version": __version__}))
    else:
        typer.echo(f"helmops {__version__}")
