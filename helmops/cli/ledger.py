"""`helmops ledger`: what was decided and done, and whether it still stands as it was written."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from helmops.cli import options
from helmops.cli.options import Format
from helmops.cli.session import key_of, run_async, settings_of

if TYPE_CHECKING:
    from datetime import datetime

    from helmops.decide.audit import Anchor, Audit
    from helmops.model.ledger import KeptEntry
    from helmops.model.releases import DeclarationKey
    from helmops.service.settings import Settings

#: A service that writes meanwhile is a step ahead of whoever reads two places one after the other.
_LOOKS = 3
_SECONDS_BETWEEN = 1.0

_maybe_name = click.argument("name", metavar="[[NAMESPACE/]NAME]", required=False)


@click.group()
def ledger() -> None:
    """Look at the ledger: every decision, every action and how it ended, never changed."""


@ledger.command()
@_maybe_name
@options.lookup
@options.everywhere
@click.option(
    "--file",
    "file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="EXPORT",
    help="Verify what `helmops ledger export` printed, in place of the state database.",
)
@click.option(
    "--since",
    metavar="TIME",
    help="Only what was written from then on (as 2026-01-31T12:00Z, or 36h for 36 hours ago): "
    "after a state database was lost.",
)
@options.output
def verify(
    name: str | None,
    everywhere: bool,
    file: Path | None,
    since: str | None,
    output: Format,
    **given: Any,
) -> None:
    """Say whether entries were changed, taken away or added since they were written.

    Without a name, all ledgers in the state database, or those of the namespace that -n names.
    Whether the newest entries are missing, the record Secrets tell; without the cluster that stays
    unsaid.

    Status 0: all is as it was written. 1: something is not.
    """
    from helmops.cli.output import as_text

    settings, key, namespace = _chosen(name, everywhere, given)
    start = _moment(since) if since else None
    audits, unasked = run_async(_judged(settings, key, namespace, file, start))
    if key is not None and not audits:
        raise _nothing_of(key)
    if output in (Format.JSON, Format.YAML):
        click.echo(as_text(_report(audits, unasked), output))
    else:
        _tell(audits, unasked, is_wide=output is Format.WIDE or key is not None)
    raise click.exceptions.Exit(0 if all(each.is_intact for each in audits) else 1)


@ledger.command()
@_maybe_name
@options.namespace
@options.everywhere
@options.state
@click.option(
    "--since",
    metavar="TIME",
    help="Only entries from then on: 2026-01-31T12:00Z, or 36h for 36 hours ago.",
)
def export(name: str | None, everywhere: bool, since: str | None, **given: Any) -> None:
    """Print entries as JSON, one a line, oldest first, always in the same form."""
    settings, key, namespace = _chosen(name, everywhere, given)
    start = _moment(since) if since else None
    for entry in _entries(settings, key, namespace):
        if start is not None and entry.at < start:
            continue
        try:
            sys.stdout.write(f"{entry.to_line()}\n")
        except ValueError:
            where = f"number {entry.number} of chain {entry.chain}"
            click.echo(f"helmops: {where} is damaged and left out", err=True)


@ledger.command()
@options.name
@options.namespace
@options.state
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    default=50,
    show_default=True,
    help="At most so many, the newest.",
)
@options.output
def show(name: str, limit: int, output: Format, **given: Any) -> None:
    """Print what was decided and done about a release, oldest first."""
    from helmops.cli.output import as_text

    settings = settings_of(**given)
    key = key_of(name, settings.namespace)
    found = list(_entries(settings, key, None))
    if not found:
        raise _nothing_of(key)
    entries = [_readable(each) for each in found[-limit:]]
    if output in (Format.JSON, Format.YAML):
        click.echo(as_text(entries, output))
        return
    for entry in entries:
        click.echo(_line_of(entry))


def _chosen(
    name: str | None, everywhere: bool, given: dict[str, Any]
) -> tuple[Settings, DeclarationKey | None, str | None]:
    settings = settings_of(**given)
    if name is not None:
        return settings, key_of(name, settings.namespace), None
    is_limited = given.get("namespace") is not None and not everywhere
    return settings, None, settings.namespace if is_limited else None


def _entries(
    settings: Settings, key: DeclarationKey | None, namespace: str | None, **more: Any
) -> Iterable[KeptEntry]:
    from helmops.store.ledger import kept_entries

    return kept_entries(settings.state, key=key, namespace=namespace, **more)


def _nothing_of(key: DeclarationKey) -> Exception:
    from helmops.errors import ObjectNotFound

    return ObjectNotFound(
        f"there is no ledger of {key}",
        next_step="helmops ledger verify -o wide lists all; --state names the state database",
    )


def _moment(text: str) -> datetime:
    """A moment as people write it. Raises UsageError."""
    from datetime import UTC, datetime

    from helmops.errors import UsageError
    from helmops.model.declarations import parse_duration
    from helmops.service.clock import SystemClock

    with contextlib.suppress(ValueError):
        return SystemClock().now() - parse_duration(text)
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise UsageError(
            f"{text!r} is no time",
            where="--since",
            next_step="write 2026-01-31, 2026-01-31T12:00Z, or 36h for 36 hours ago",
        ) from None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


# Verifying --------------------------------------------------------------------------------------


async def _judged(
    settings: Settings,
    key: DeclarationKey | None,
    namespace: str | None,
    file: Path | None,
    since: datetime | None,
) -> tuple[tuple[Audit, ...], str]:
    """All audits, and why the records were not asked, where they were not."""
    import asyncio

    from helmops.decide.audit import Harm, audit

    if file is not None:
        entries = _exported(file, key, namespace)
        firsts = [entry for entry in entries if entry.number == 1]
        return audit(entries, (), firsts, since), "an export was verified"
    for look in range(_LOOKS):
        anchors, unasked = await _anchors(settings, key, namespace)
        audits = audit(
            _entries(settings, key, namespace),
            anchors,
            _entries(settings, key, namespace, only_first=True),
            since,
        )
        harms = {each.finding.harm for each in audits if each.finding is not None}
        if not anchors or not harms & {Harm.MISSING, Harm.ADDED} or look == _LOOKS - 1:
            break
        await asyncio.sleep(_SECONDS_BETWEEN)
    return audits, unasked


async def _anchors(
    settings: Settings, key: DeclarationKey | None, namespace: str | None
) -> tuple[list[Anchor], str]:
    from helmops.decide.audit import Anchor
    from helmops.errors import HelmopsError, UsageError
    from helmops.service.lookup import records

    try:
        found = await records(settings)
    except HelmopsError as error:
        if isinstance(error, UsageError) and settings.context:
            raise
        return [], str(error)
    return [
        Anchor(record.key, record.release, record.ledger)
        for record in found
        if record.ledger is not None
        and (key is None or record.key == key)
        and (namespace is None or record.key.namespace == namespace)
    ], ""


def _exported(file: Path, key: DeclarationKey | None, namespace: str | None) -> list[KeptEntry]:
    from helmops.errors import UsageError
    from helmops.model.ledger import KeptEntry

    found = []
    for number, line in enumerate(file.read_text(errors="surrogateescape").splitlines(), 1):
        try:
            found.append(KeptEntry.from_line(line))
        except ValueError as error:
            raise UsageError(
                f"this is no line of an exported ledger: {error}",
                where=f"{file}:{number}",
                next_step="helmops ledger export writes one",
            ) from error
    chains = {
        entry.chain
        for entry in found
        if (key is None or entry.declaration == key)
        and (namespace is None or entry.declaration.namespace == namespace)
    }
    kept = [entry for entry in found if entry.chain in chains]
    return sorted(kept, key=lambda entry: (entry.chain, entry.number))


def _report(audits: tuple[Audit, ...], unasked: str) -> dict[str, Any]:
    from helmops.decide.audit import first_harm

    harmed = first_harm(audits)
    return {
        "ok": harmed is None,
        "endsJudged": not unasked,
        "why": unasked,
        "first": _summary(harmed) if harmed else None,
        "chains": [_summary(each) for each in audits],
    }


def _summary(audit: Audit) -> dict[str, Any]:
    finding = audit.finding
    return {
        "chain": audit.chain,
        "declaration": str(audit.declaration),
        "release": str(audit.release),
        "entries": audit.entries,
        "first": audit.first,
        "last": audit.last,
        "end": audit.end.value,
        "finding": {
            "harm": finding.harm.value,
            "number": finding.number,
            "last": finding.last,
            "what": finding.what,
            "nextStep": finding.next_step,
        }
        if finding
        else None,
    }


def _tell(audits: tuple[Audit, ...], unasked: str, *, is_wide: bool) -> None:
    from helmops.cli.output import table
    from helmops.decide.audit import End

    if is_wide and audits:
        header = ["declaration", "chain", "entries", "end known by", "result"]
        rows = [
            [
                str(each.declaration),
                each.chain,
                str(each.entries),
                each.end.value,
                each.finding.harm.value if each.finding else "intact",
            ]
            for each in audits
        ]
        click.echo(table(header, rows))
    for each in audits:
        if each.finding is not None:
            click.echo(
                f"helmops: {each.declaration}: chain {each.chain}: {each.finding.what}; "
                f"{each.finding.next_step}",
                err=True,
            )
    open_ends = [each for each in audits if each.end is End.UNKNOWN]
    if unasked:
        click.echo(
            f"helmops: whether the newest entries are there was not judged: {unasked}", err=True
        )
    elif open_ends:
        names = ", ".join(f"{each.declaration} ({each.chain})" for each in open_ends[:5])
        more = f" and {len(open_ends) - 5} more" if len(open_ends) > 5 else ""
        click.echo(
            f"helmops: the record Secret is gone, so that nobody knows whether the newest entries "
            f"are there: {names}{more}",
            err=True,
        )
    harmed = sum(1 for each in audits if not each.is_intact)
    entries = _counted(sum(each.entries for each in audits), "entry", "entries")
    result = f"{harmed} not as written" if harmed else "intact"
    click.echo(f"{entries} in {_counted(len(audits), 'chain', 'chains')}: {result}")


def _counted(count: int, one: str, more: str) -> str:
    return f"{count} {one if count == 1 else more}"


# Showing ----------------------------------------------------------------------------------------


def _readable(kept: KeptEntry) -> dict[str, Any]:
    try:
        return {**kept.entry, "hash": kept.hash}
    except ValueError:
        return {"chain": kept.chain, "number": kept.number, "kind": "damaged", "hash": kept.hash}


def _line_of(entry: dict[str, Any]) -> str:
    """Moment, number, what, how, who: what a person wants of an entry on one line."""
    moment = str(entry.get("at", ""))[:19].replace("T", " ")
    action = entry.get("action") or {}
    what = str(entry.get("kind", ""))
    told = str(entry.get("message", ""))
    if what == "action":
        what = str(action.get("name", what))
        seconds = action.get("milliseconds", 0) / 1000
        ended = "done" if action.get("succeeded") else "failed"
        chart = f" {entry['chart']}" if entry.get("chart") else ""
        told = f"{ended} in {seconds:.1f} s{chart}" + (f": {told}" if told else "")
    rule = entry.get("rule")
    because = f" (because {rule})" if rule else ""
    by = entry.get("by", "")
    return f"{moment}  {entry['number']:>4}  {what:<17}  {told}{because}, asked by {by}"
