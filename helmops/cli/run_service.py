"""`helmops run`."""

from __future__ import annotations

from typing import Any

import click

from helmops.cli import options
from helmops.cli.session import run_async, settings_of


@click.command()
@options.filename
@options.acting
@options.concurrency
@click.option(
    "--listen",
    metavar="HOST:PORT",
    help="For health, metrics and a page. [env: HELMOPS_LISTEN; default: 127.0.0.1:9640]",
)
@click.option("--observe", is_flag=True, help="Look and say what would be done; write nothing.")
@click.option(
    "--grace-period",
    metavar="DURATION",
    help="Time to end after SIGTERM. [env: HELMOPS_GRACE_PERIOD; default: 30s]",
)
@click.option(
    "--log-format",
    metavar="text|json",
    help="How to write logs. [env: HELMOPS_LOG_FORMAT; default: text]",
)
@click.option(
    "--log-level",
    metavar="LEVEL",
    help="debug, info, warning or error. [env: HELMOPS_LOG_LEVEL; default: info]",
)
def run(observe: bool, **given: Any) -> None:
    """Run the service: watch declarations and sources, and keep the releases as declared."""
    from helmops.errors import UsageError
    from helmops.service.serve import serve

    settings = settings_of(observe=observe or None, **given)
    if not settings.filenames:
        raise UsageError(
            "there are no declarations to run with",
            next_step="name them: -f DIR or -f git+https://…",
        )
    run_async(serve(settings))
