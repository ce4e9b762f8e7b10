"""`helmops test`."""

from __future__ import annotations

from typing import Any

import click

from helmops.cli import options
from helmops.cli.options import Format
from helmops.cli.single import act_on_one


@click.command()
@options.name
@options.acting
@options.timeout
@options.output
def test(name: str, timeout: str, output: Format, **given: Any) -> None:
    """Run the chart's tests on what is released. A failure counts as a failed release."""
    from helmops.model.actions import Request, RunTests
    from helmops.service.identity import who

    act_on_one(
        name,
        Request(test=True, by=who()),
        succeeded=lambda passed: any(
            isinstance(done.action, RunTests) and done.outcome.succeeded for done in passed.done
        ),
        timeout=timeout,
        output=output,
        **given,
    )
