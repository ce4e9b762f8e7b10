"""`helmops absorb`: what somebody changed by hand, as values for the declaration."""

from __future__ import annotations

from typing import Any

import click

from helmops.cli import options
from helmops.cli.session import key_of, run_async, settings_of


@click.command()
@options.name
@options.namespace
@options.cluster
def absorb(name: str, **given: Any) -> None:
    """Print the values that would absorb a revision that somebody made by hand.

    Merged into `spec.values`, less the keys that are to be removed, they make the declaration mean
    what runs; the revision is then taken over as it is. Prints what was changed by hand, secret
    values too.
    """
    settings = settings_of(**given)
    key = key_of(name, settings.namespace)

    async def show() -> None:
        from helmops.service.absorbing import absorbing_values

        click.echo(await absorbing_values(settings, key), nl=False)

    run_async(show())
