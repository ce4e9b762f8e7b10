"""`helmops completion`."""

from __future__ import annotations

import click


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print a script for the shell's completion, as in: source <(helmops completion bash)."""
    from click.shell_completion import get_completion_class

    from helmops.cli.app import main

    kind = get_completion_class(shell)
    assert kind is not None  # noqa: S101 - the choices above
    click.echo(kind(main, {}, "helmops", "_HELMOPS_COMPLETE").source())
