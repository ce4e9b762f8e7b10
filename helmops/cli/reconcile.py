"""`helmops reconcile`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from helmops.cli import options
from helmops.cli.options import Format
from helmops.cli.session import key_of, opened, run_async, settings_of

if TYPE_CHECKING:
    from helmops.model.actions import Request
    from helmops.model.releases import DeclarationKey
    from helmops.reconcile.reconciler import Passed
    from helmops.service.settings import Settings
    from helmops.service.wiring import Installation


@click.command()
@options.names
@options.filename
@options.acting
@options.concurrency
@click.option("--with-source", is_flag=True, help="Ask the sources first, whatever their interval.")
@click.option("--force", is_flag=True, help="Install or upgrade once, even when in sync.")
@click.option("--reset", is_flag=True, help="Forget failures, so that retries begin anew.")
@options.timeout
@options.output
@click.option("--quiet", "-q", is_flag=True, help="No progress.")
def reconcile(
    names: tuple[str, ...],
    with_source: bool,
    force: bool,
    reset: bool,
    timeout: str,
    output: Format,
    quiet: bool,
    **settings: Any,
) -> None:
    """Run passes over the declared releases until they are settled.

    Without names, releases whose declaration was removed are uninstalled where their policy said
    `prune`, and left running elsewhere.

    Status 0: all are ready. 1: some are not. 2: some declarations cannot be used.
    """
    status = run_async(
        _reconcile(
            settings_of(**settings),
            names,
            with_source=with_source,
            force=force,
            reset=reset,
            timeout=timeout,
            output=output,
            quiet=quiet,
        )
    )
    raise click.exceptions.Exit(status)


async def _reconcile(
    settings: Settings,
    names: tuple[str, ...],
    *,
    with_source: bool,
    force: bool,
    reset: bool,
    timeout: str,
    output: Format,
    quiet: bool,
) -> int:
    from helmops.cli.output import teller
    from helmops.model.actions import Request

    async with opened(settings, tell=teller(quiet=quiet)) as installation:
        declared = await installation.read_declarations()
        keys = chosen(installation, names, settings.namespace)
        token = installation.clock.now().isoformat()
        request = Request(
            # A pass that finds nothing to do writes nothing, so that this can run every minute.
            reconcile=token if force or reset else "",
            force=token if force else "",
            reset=token if reset else "",
            by=installation.who,
        )
        if with_source:
            await installation.refresh_sources(keys)
        results = await settle(installation, keys, request, timeout)
        is_tidy = bool(names) or await installation.remove_undeclared()
        print_results(installation, results, output)
        if declared.errors:
            return 2
        return 0 if is_tidy and all(passed.is_ready for passed in results.values()) else 1


def chosen(
    installation: Installation, names: tuple[str, ...], namespace: str
) -> tuple[DeclarationKey, ...]:
    """The declared releases that names mean; all when there are none. Raises UsageError."""
    from helmops.errors import UsageError

    declared = installation.declarations.current
    if not names:
        return tuple(declared.releases)
    keys = []
    for name in names:
        key = key_of(name, namespace)
        if key in declared.untouched:
            raise declared.untouched[key]
        if key not in declared.releases:
            others = ", ".join(str(k) for k in sorted(declared.releases)[:5]) or "none"
            raise UsageError(f"{key} is not declared", next_step=f"declared are {others}")
        keys.append(key)
    return tuple(keys)


async def settle(
    installation: Installation,
    keys: tuple[DeclarationKey, ...],
    request: Request,
    timeout: str,
) -> dict[DeclarationKey, Passed]:
    """Passes until settled. Raises UsageError for a timeout that is none."""
    from helmops.errors import UsageError
    from helmops.model.declarations import parse_duration

    try:
        limit = parse_duration(timeout)
    except ValueError as error:
        raise UsageError(str(error), where="--timeout") from error
    return await installation.once().settle(keys, dict.fromkeys(keys, request), timeout=limit)


def print_results(
    installation: Installation, results: dict[DeclarationKey, Passed], output: Format
) -> None:
    """What came of it, and every declaration that cannot be used."""
    from helmops.cli.get import print_releases

    for error in installation.declarations.current.errors:
        click.echo(f"helmops: {error}", err=True)
    manifests = [passed.record.to_manifest() for passed in results.values()]
    for trouble in source_troubles(manifests):
        click.echo(f"helmops: {trouble}", err=True)
    print_releases(manifests, output, installation.clock.now(), everywhere=True)


def source_troubles(manifests: list[dict[str, Any]]) -> list[str]:
    """What the table does not show: releases that are ready though their source was not read."""
    troubles = []
    for manifest in manifests:
        conditions = {c["type"]: c for c in manifest["status"].get("conditions", [])}
        failed, ready = conditions.get("FetchFailed"), conditions.get("Ready", {})
        if failed is not None and ready.get("status") == "True":
            name = f"{manifest['metadata']['namespace']}/{manifest['metadata']['name']}"
            troubles.append(f"{name}: {failed['message']}")
    return troubles
