"""`helmops quarantine`: chart versions that are not tried again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from helmops.cli import options
from helmops.cli.changing import change_records
from helmops.cli.options import Format
from helmops.cli.session import run_async, settings_of
from helmops.errors import UsageError

if TYPE_CHECKING:
    from helmops.model.records import Record


@click.group()
def quarantine() -> None:
    """List, put and lift chart versions that are not tried again."""


@quarantine.command("ls")
@options.lookup
@options.everywhere
@options.output
def list_all(output: Format, everywhere: bool, **given: Any) -> None:
    """List what is in quarantine, and why."""
    settings = settings_of(**given)

    async def show() -> None:
        from helmops.cli.output import as_text, table
        from helmops.service.lookup import manifests

        found = [
            {"release": f"{m['metadata']['namespace']}/{m['metadata']['name']}", **entry}
            for m in await manifests(settings, namespace=None if everywhere else settings.namespace)
            for entry in (m["status"].get("helmops") or {}).get("quarantine") or ()
        ]
        if output in (Format.JSON, Format.YAML):
            click.echo(as_text({"kind": "List", "items": found}, output))
            return
        if output is Format.NAME:
            for entry in found:
                click.echo(f"{entry['release']} {entry['chart']}@{entry['version']}")
            return
        if not found:
            click.echo("nothing is in quarantine")
            return
        columns = ["RELEASE", "CHART", "SCOPE", "SINCE", "UNTIL", "WHY"]
        rows = [
            [
                entry["release"],
                f"{entry['chart']}@{entry['version']}",
                entry["scope"],
                entry["at"],
                entry["until"] or "lifted",
                entry["why"],
            ]
            for entry in found
        ]
        click.echo(table(columns, rows))

    run_async(show())


@quarantine.command()
@options.name
@click.argument("version", default="", metavar="[VERSION]")
@options.namespace
@options.cluster
def lift(name: str, version: str, **given: Any) -> None:
    """Let versions be tried again: all of a release, or one."""

    def change(record: Record) -> Record:
        from helmops.decide.quarantine import lift as lifted

        if version and all(q.version != version for q in record.quarantine):
            has = ", ".join(q.version for q in record.quarantine) or "nothing"
            raise UsageError(
                f"{record.key}: {version} is not in quarantine, {has} is",
                next_step="helmops quarantine ls -A shows what other releases put there",
            )
        return lifted(record, version)

    def said(before: Record, after: Record) -> str:
        gone = [q for q in before.quarantine if q not in after.quarantine]
        if not gone:
            return "has nothing in quarantine"
        return f"may try {', '.join(f'{q.chart} {q.version}' for q in gone)} again"

    change_records((name,), given, change, said)


@quarantine.command()
@options.name
@click.argument("version")
@click.option("--reason", default="", metavar="TEXT", help="Why; for those who ask later.")
@click.option(
    "--scope",
    type=click.Choice(["release", "chart", "all"]),
    default="release",
    help="For this release, for all of its chart in its namespace, or for all of its chart.",
)
@click.option("--ttl", default="", metavar="DURATION", help="Time after which it is lifted.")
@options.namespace
@options.cluster
def add(name: str, version: str, reason: str, scope: str, ttl: str, **given: Any) -> None:
    """Put a version in quarantine before it does harm."""

    def change(record: Record) -> Record:
        from helmops.decide.quarantine import put
        from helmops.model.declarations import parse_duration
        from helmops.model.records import Quarantined
        from helmops.service.clock import SystemClock
        from helmops.service.identity import who

        if record.head is None:
            raise UsageError(f"{record.key} has no revision, so its chart is not known")
        now = SystemClock().now()
        try:
            until = now + parse_duration(ttl) if ttl else None
        except ValueError as error:
            raise UsageError(
                f"--ttl {ttl}: {error}", next_step="a duration is 30m or 24h"
            ) from None
        return put(
            record,
            Quarantined(
                chart=record.head.chart_name,
                version=version,
                digest="",
                scope=scope,
                at=now,
                why=reason or f"put there by {who()}",
                until=until,
                by=who(),
            ),
        )

    change_records((name,), given, change, f"no longer tries {version}")
