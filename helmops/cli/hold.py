"""`helmops suspend` and `helmops resume`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from helmops.cli import options
from helmops.cli.changing import change_records

if TYPE_CHECKING:
    from helmops.model.records import Record


@click.command()
@options.required_names
@options.namespace
@options.cluster
def suspend(names: tuple[str, ...], **given: Any) -> None:
    """Leave releases alone until `helmops resume`, whatever is declared."""

    def change(record: Record) -> Record:
        from helmops.model.records import Suspension
        from helmops.service.clock import SystemClock
        from helmops.service.identity import who

        if record.suspended is not None:
            return record
        return record.evolve(suspended=Suspension(SystemClock().now(), who()))

    change_records(names, given, change, "suspended")


@click.command()
@options.required_names
@options.namespace
@options.cluster
def resume(names: tuple[str, ...], **given: Any) -> None:
    """Go on with suspended or held releases; what they were held for is accepted."""

    def change(record: Record) -> Record:
        from helmops.decide.remember import resume as resumed

        return resumed(record)

    change_records(names, given, change, "resumed")
