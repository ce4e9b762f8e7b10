"""`helmops versions`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from helmops.cli import options
from helmops.cli.options import Format
from helmops.cli.session import run_async, settings_of

if TYPE_CHECKING:
    from helmops.model.charts import ChartVersion
    from helmops.service.settings import Settings


@click.command()
@click.argument("chart")
@click.option(
    "--repo",
    required=True,
    metavar="URL",
    help="URL of the chart repository, or of a registry (oci://).",
)
@click.option("--version", default="", help="Version or range; absent: the newest.")
@click.option(
    "--username",
    default="",
    envvar="HELMOPS_REPO_USERNAME",
    help="For the repository; its password comes from HELMOPS_REPO_PASSWORD.",
)
@click.option("--password", default="", envvar="HELMOPS_REPO_PASSWORD", hidden=True)
@click.option("--ca-file", default="", metavar="PATH", help="CA of the repository, PEM.")
@click.option("--plain-http", is_flag=True, help="Ask a registry over plain HTTP.")
@options.output
def versions(
    chart: str,
    repo: str,
    version: str,
    username: str,
    password: str,
    ca_file: str,
    plain_http: bool,
    output: Format,
) -> None:
    """List what a chart repository offers, newest first, and which version a range selects."""
    settings = settings_of()
    ca = _read(ca_file)

    async def show() -> None:
        from helmops.cli.output import as_text, table
        from helmops.errors import ConstraintError, NoVersionInRange, UsageError
        from helmops.resolve.constraint import Constraint
        from helmops.resolve.selection import choose, newest_first

        entries = await _entries(settings, repo, chart, username, password, ca, plain_http)
        selected, reason = None, ""
        failure: NoVersionInRange | None = None
        try:
            Constraint.parse(version or "*")
        except ConstraintError as error:
            raise UsageError(str(error), where="--version") from error
        try:
            choice = choose(entries, version, where=repo)
            selected, reason = choice.selected.version, choice.reason
        except NoVersionInRange as error:
            failure, reason = error, str(error)
        ordered = newest_first(entries)
        if output in (Format.JSON, Format.YAML):
            told = {
                "chart": chart,
                "versions": [entry.version for entry in ordered],
                "selected": selected,
                "reason": reason,
            }
            click.echo(as_text(told, output))
        elif output is Format.NAME:
            click.echo("\n".join(entry.version for entry in ordered))
        else:
            rows = [
                [
                    "*" if entry.version == selected else "",
                    entry.version,
                    entry.app_version,
                    f"{entry.created:%Y-%m-%d}" if entry.created else "",
                    "deprecated" if entry.deprecated else "",
                ]
                for entry in ordered
            ]
            click.echo(table(["", "version", "app version", "created", "note"], rows))
            click.echo(reason, err=True)
        if failure is not None:
            raise click.exceptions.Exit(1)

    run_async(show())


def _read(path: str) -> str:
    from pathlib import Path

    from helmops.errors import UsageError

    try:
        return Path(path).read_text() if path else ""
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}", where="--ca-file") from error


async def _entries(
    settings: Settings,
    repo: str,
    chart: str,
    username: str,
    password: str,
    ca: str,
    plain_http: bool,
) -> tuple[ChartVersion, ...]:
    from helmops.errors import UsageError
    from helmops.http import Http
    from helmops.model.credentials import HttpCredentials
    from helmops.sources.helm_repository import Address, HelmRepositories

    if not repo.startswith(("http://", "https://", "oci://")):
        raise UsageError(f"{repo} is no URL of a chart repository", where="--repo")
    credentials = HttpCredentials(username=username, password=password, ca=ca)
    async with Http() as http:
        if repo.startswith("oci://"):
            # Only here: it takes as long to load as all of the other way takes.
            from helmops.model.declarations import HelmRepositorySpec
            from helmops.sources.oci_artifacts import OciArtifacts

            repository = HelmRepositorySpec(url=repo, insecure=plain_http)
            registries = OciArtifacts(http, settings.cache_dir)
            return await registries.chart_versions(repository, chart, credentials)
        repositories = HelmRepositories(http, settings.cache_dir)
        return await repositories.versions(Address(repo), chart, credentials)
