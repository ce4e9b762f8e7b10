"""`helmops plan`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from helmops.cli import options
from helmops.cli.options import Format
from helmops.cli.session import opened, run_async, settings_of

if TYPE_CHECKING:
    from helmops.model.actions import Decision
    from helmops.reconcile.reconciler import Passed
    from helmops.service.settings import Settings


@click.command()
@options.names
@options.filename
@options.acting
@options.output
def plan(names: tuple[str, ...], output: Format, **settings: Any) -> None:
    """Say what the next pass would do to each release, and why. Writes nothing.

    Status 0: nothing to do. 2: changes. 1: any error.
    """
    found = settings_of(observe=True, **settings)
    raise click.exceptions.Exit(run_async(_plan(found, names, output)))


async def _plan(settings: Settings, names: tuple[str, ...], output: Format) -> int:
    from helmops.cli.output import as_text, table
    from helmops.cli.reconcile import chosen
    from helmops.errors import DeclarationError

    async with opened(settings, read_only=True) as installation:
        declared = await installation.read_declarations()
        try:
            keys = chosen(installation, names, settings.namespace)
        except DeclarationError as error:
            click.echo(f"helmops: {error}", err=True)
            return 1
        entries = [_entry(await installation.look(key)) for key in keys]
        for refused in declared.errors:
            click.echo(f"helmops: {refused}", err=True)
    if output in (Format.JSON, Format.YAML):
        click.echo(as_text({"releases": entries}, output))
    elif output is Format.NAME:
        click.echo("\n".join(e["name"] for e in entries if e["action"] != "-"))
    elif entries or not declared.errors:
        header = ["namespace", "name", "state", "action", "from", "to", "why"]
        click.echo(table(header, [[str(e[h]) for h in header] for e in entries]))
        for entry in entries:
            for line in entry["plan"]:
                click.echo(f"  {entry['namespace']}/{entry['name']}: {line}")
    if declared.errors or any(e["failed"] for e in entries):
        return 1
    return 2 if any(e["action"] != "-" for e in entries) else 0


def _entry(passed: Passed) -> dict[str, Any]:
    """One release: where it is, what would be done, between which versions, and why."""
    from helmops.model.actions import Held, Install, Rollback, Run, Upgrade

    record, decision = passed.record, passed.decision
    head = record.head
    action, to, why = "-", "-", ""
    plan: tuple[str, ...] = ()
    match decision:
        case Run(action=wanted, why=reason):
            action, why = type(wanted).__name__, reason
            if isinstance(wanted, Install | Upgrade):
                to = f"{wanted.target.chart.name}@{wanted.target.chart.version}"
                why = f"{reason}; {wanted.target.choice}" if wanted.target.choice else reason
            elif isinstance(wanted, Rollback):
                to = f"revision {wanted.to}"
        case Held(hold=hold):
            why, plan = f"held: {hold.message}", hold.plan
        case _:
            why = decision.why
    return {
        "namespace": record.key.namespace,
        "name": record.key.name,
        "state": decision.state.value,
        "action": action,
        "from": f"{head.chart_name}@{head.chart_version}" if head else "-",
        "to": to,
        "why": why,
        "plan": list(plan),
        "heldBack": list(record.held_back),
        "failed": is_error(decision),
    }


def is_error(decision: Decision) -> bool:
    """Whether the plan is not to be had. A failure that was told once is no error of the plan."""
    from helmops.model.actions import RetryAfter, Stalled

    if isinstance(decision, RetryAfter):
        return decision.is_blind
    return isinstance(decision, Stalled) and decision.reason != "RetriesExceeded"
