"""Commands that act on one release, by what helmops remembers of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from helmops.cli.options import Format
from helmops.cli.session import key_of, opened, run_async, settings_of

if TYPE_CHECKING:
    from helmops.model.actions import Request
    from helmops.reconcile.reconciler import Passed


def act_on_one(
    name: str,
    request: Request,
    *,
    succeeded: Callable[[Passed], bool],
    timeout: str,
    output: Format,
    **options: Any,
) -> None:
    """One pass with a request, printed; ends the command with 0 where it `succeeded`, else 1."""
    from helmops.cli.get import render_releases
    from helmops.cli.output import teller

    settings = settings_of(**options)
    key = key_of(name, settings.namespace)

    async def act() -> bool:
        async with opened(settings, tell=teller()) as installation:
            passed = await installation.act(key, request, timeout)
            now = installation.clock.now()
            click.echo(render_releases([passed.record.to_manifest()], output, now, everywhere=True))
            if not succeeded(passed):
                decision = passed.decision
                why = getattr(decision, "why", "") or getattr(
                    getattr(decision, "hold", None), "message", ""
                )
                click.echo(f"helmops: {key}: {why}", err=True)
                return False
            return True

    raise click.exceptions.Exit(0 if run_async(act()) else 1)
