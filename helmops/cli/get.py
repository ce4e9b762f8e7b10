"""`helmops get releases|release|sources|policies`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from helmops.cli import options
from helmops.cli.options import Format
from helmops.cli.session import follow, key_of, run_async, settings_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from helmops.service.settings import Settings


@click.group()
def get() -> None:
    """Look at releases, sources and policies."""


_WATCH_SECONDS = 1.0


@get.command("releases")
@options.names
@options.lookup
@options.everywhere
@options.watch
@options.output
def releases(
    names: tuple[str, ...], everywhere: bool, is_watched: bool, output: Format, **given: Any
) -> None:
    """List releases and how they are."""
    settings = settings_of(**given)

    async def show() -> str:
        from helmops.service.clock import SystemClock

        found = await _manifests(settings, everywhere=everywhere or bool(names))
        if names:
            wanted = {key_of(name, settings.namespace) for name in names}
            found = [m for m in found if _key(m) in {(k.namespace, k.name) for k in wanted}]
        elsewhere = everywhere or any(_key(m)[0] != settings.namespace for m in found)
        return render_releases(found, output, SystemClock().now(), everywhere=elsewhere)

    async def once() -> None:
        click.echo(await show())

    run_async(follow(_WATCH_SECONDS, show) if is_watched else once())


@get.command("release")
@options.name
@options.lookup
@options.watch
@options.output
def release(name: str, is_watched: bool, output: Format, **given: Any) -> None:
    """Show one release: its declaration with its status."""
    settings = settings_of(**given)
    key = key_of(name, settings.namespace)

    async def show() -> str:
        from helmops.cli.output import as_text
        from helmops.service.clock import SystemClock
        from helmops.service.lookup import one

        found = await one(settings, key)
        if output in (Format.JSON, Format.YAML):
            return as_text(found, output)
        return render_releases([found], output, SystemClock().now(), everywhere=True)

    async def once() -> None:
        click.echo(await show())

    run_async(follow(_WATCH_SECONDS, show) if is_watched else once())


@get.command("sources")
@options.filename
@options.namespace
@options.output
def sources(output: Format, **given: Any) -> None:
    """List declared sources."""
    _declared(given, output, "sources")


@get.command("policies")
@options.filename
@options.namespace
@options.output
def policies(output: Format, **given: Any) -> None:
    """List declared policies and the releases that they are for."""
    _declared(given, output, "policies")


def _declared(given: dict[str, Any], output: Format, what: str) -> None:
    from helmops.cli.output import as_text, table

    settings = settings_of(**given)

    async def show() -> None:
        from helmops.service.reading import declared_only

        found = await declared_only(settings)
        for error in found.errors:
            click.echo(f"helmops: {error}", err=True)
        if what == "sources":
            items = [(key[1], key[0], each) for key, each in sorted(found.sources.items())]
            rows = [
                [key.namespace, kind, key.name, str(getattr(each.resource, "spec").url), each.where]  # noqa: B009
                for key, kind, each in items
                if hasattr(getattr(each.resource, "spec", None), "url")
            ]
            header = ["namespace", "kind", "name", "url", "declared at"]
            manifests = [each.manifest for _, _, each in items]
        else:
            rows = [
                [
                    key.namespace,
                    key.name,
                    policy.resource.spec.mode,
                    ", ".join(str(k.name) for k in found.releases if policy in found.policies_of(k))
                    or "none",
                    policy.where,
                ]
                for key, policy in sorted(found.policies.items())
            ]
            header = ["namespace", "name", "mode", "releases", "declared at"]
            manifests = [policy.manifest for policy in found.policies.values()]
        if output in (Format.JSON, Format.YAML):
            click.echo(as_text({"apiVersion": "v1", "kind": "List", "items": manifests}, output))
        elif output is Format.NAME:
            click.echo("\n".join(f"{m['kind']}/{m['metadata']['name']}" for m in manifests))
        else:
            click.echo(table(header, rows))
        if found.errors:
            raise click.exceptions.Exit(2)

    run_async(show())


async def _manifests(settings: Settings, *, everywhere: bool) -> list[dict[str, Any]]:
    from helmops.service.lookup import manifests

    return await manifests(settings, namespace=None if everywhere else settings.namespace)


def _key(manifest: dict[str, Any]) -> tuple[str, str]:
    return manifest["metadata"]["namespace"], manifest["metadata"]["name"]


def print_releases(
    manifests: list[dict[str, Any]], output: Format, now: datetime, *, everywhere: bool
) -> None:
    """Print releases as `get releases` does."""
    click.echo(render_releases(manifests, output, now, everywhere=everywhere))


def render_releases(
    manifests: list[dict[str, Any]], output: Format, now: datetime, *, everywhere: bool
) -> str:
    """Releases as a table, a `kind: List`, or names."""
    from helmops.cli.output import age, as_text, table

    if output in (Format.JSON, Format.YAML):
        return as_text({"apiVersion": "v1", "kind": "List", "items": manifests}, output)
    if output is Format.NAME:
        return "\n".join(f"helmrelease/{m['metadata']['name']}" for m in manifests)
    if not manifests:
        return "No releases found."
    header = ["name", "ready", "state", "revision", "chart", "verdict", "age", "message"]
    if output is Format.WIDE:
        header[6:6] = ["last healthy", "failures", "declared at"]
    if everywhere:
        header.insert(0, "namespace")
    rows = []
    for manifest in manifests:
        status = manifest.get("status") or {}
        ours = status.get("helmops") or {}
        ready = _condition(status, "Ready")
        head = (status.get("history") or [{}])[0]
        chart = f"{head['chartName']}@{head['chartVersion']}" if head else "-"
        row = [
            manifest["metadata"]["name"],
            ready.get("status", "Unknown"),
            ours.get("state") or "-",
            str(head.get("version", "-")),
            chart,
            ours.get("verdict") or "-",
            age(ours.get("updatedAt"), now),
            _short("; ".join(_notes(status)), wide=output is Format.WIDE),
        ]
        if output is Format.WIDE:
            healthy = ours.get("lastHealthy")
            row[6:6] = [
                f"v{healthy['revision']} ({healthy['chartVersion']})" if healthy else "-",
                str(status.get("failures", 0)),
                ours.get("origin") or "-",
            ]
        if everywhere:
            row.insert(0, manifest["metadata"]["namespace"])
        rows.append(row)
    return table(header, rows)


def _notes(status: dict[str, Any]) -> Iterator[str]:
    """What a person should know of a release, the most urgent first, and Ready's message."""
    ours = status.get("helmops") or {}
    if ours.get("healthLost"):
        yield f"health lost: {ours['healthLost']['message']}"
    versions = [entry["version"] for entry in ours.get("quarantine") or ()]
    if versions:
        yield f"{', '.join(versions)} in quarantine"
    if message := _condition(status, "Ready").get("message"):
        yield message


def _condition(status: dict[str, Any], kind: str) -> dict[str, Any]:
    return next((c for c in status.get("conditions") or [] if c["type"] == kind), {})


def _short(message: str, *, wide: bool) -> str:
    line = " ".join(message.split())
    return line if wide or len(line) <= 100 else f"{line[:99]}…"
