"""`helmops rollback`."""

from __future__ import annotations

from typing import Any

import click

from helmops.cli import options
from helmops.cli.options import Format
from helmops.cli.single import act_on_one


@click.command()
@options.name
@click.option(
    "--to",
    type=click.IntRange(min=0),
    default=0,
    metavar="REVISION",
    help="Revision; absent: the last one seen healthy.",
)
@options.acting
@options.timeout
@options.output
def rollback(name: str, to: int, timeout: str, output: Format, **given: Any) -> None:
    """Put a release back to a revision that was seen healthy, and hold it there.

    It stays until `helmops resume` or a changed declaration. Works from what helmops remembers,
    so that no declarations are needed.
    """
    from helmops.model.actions import Request
    from helmops.service.identity import who

    act_on_one(
        name,
        Request(rollback_to=to, by=who()),
        succeeded=lambda passed: passed.record.hold is not None and _is_healthy(passed.record),
        timeout=timeout,
        output=output,
        **given,
    )


def _is_healthy(record: object) -> bool:
    from helmops.model.records import Record, Verdict

    return (
        isinstance(record, Record)
        and record.head is not None
        and record.head.verdict is not Verdict.FAILED
    )
