"""`helmops demo`."""

from __future__ import annotations

import typer


def demo() -> None:
    """Being written."""
    raise typer.Exit(1)
