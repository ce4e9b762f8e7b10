"""How commands change what is remembered of releases: suspend, resume, quarantine."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from helmops.cli.session import key_of, run_async, settings_of

if TYPE_CHECKING:
    from helmops.model.records import Record
    from helmops.model.releases import DeclarationKey
    from helmops.service.settings import Settings


def change_records(
    names: tuple[str, ...],
    given: dict[str, Any],
    change: Callable[[Record], Record],
    done: str | Callable[[Record, Record], str],
) -> None:
    """Change the records of the named releases. `done` is what is said of each, or says it."""
    settings = settings_of(**given)
    run_async(_apply(settings, [key_of(n, settings.namespace) for n in names], change, done))


async def _apply(
    settings: Settings,
    keys: list[DeclarationKey],
    change: Callable[[Record], Record],
    done: str | Callable[[Record, Record], str],
) -> None:
    """Write into the records; a running service sees it at once."""
    from helmops.cluster.api import Api
    from helmops.cluster.records import SecretRecords
    from helmops.errors import ObjectConflict, ObjectNotFound

    async with await Api.connect(
        kubeconfig=settings.kubeconfig or None, context=settings.context or None, light=True
    ) as api:
        records = SecretRecords(api, namespaces=settings.watch_namespaces)
        known = {record.key: record for record in await records.load_all()}
        missing = [str(key) for key in keys if key not in known]
        if missing:
            raise ObjectNotFound(
                f"there is no release {', '.join(missing)}",
                next_step="helmops get releases -A lists all",
            )
        for key in keys:
            record = known[key]
            for attempt in range(5):
                after = change(record)
                try:
                    await records.save(_with_news(record, after))
                    break
                except ObjectConflict:
                    fresh = await records.load(record.release)
                    if fresh is None or attempt == 4:
                        raise
                    record = fresh
            click.echo(f"{key} {done if isinstance(done, str) else done(record, after)}")


def _with_news(before: Record, after: Record) -> Record:
    """A changed record says when: of it and the state database, the newer is believed. And its
    ledger says who; whoever has the state database writes it down there.
    """
    if after == before:
        return after
    from helmops.decide.ledger import Said, entered
    from helmops.service.clock import SystemClock
    from helmops.service.identity import who

    now = SystemClock().now()
    return entered(before, after.evolve(updated_at=now), Said(by=who()), now)
