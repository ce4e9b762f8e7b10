"""`helmops demo`."""

from __future__ import annotations

import click


@click.command()
def demo() -> None:
    """Being written."""
    raise click.exceptions.Exit(1)
