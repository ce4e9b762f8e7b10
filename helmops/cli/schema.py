"""`helmops schema`."""

from __future__ import annotations

import json

import click

from helmops.errors import UsageError


@click.command()
@click.argument("kind", required=False)
def schema(kind: str | None) -> None:
    """Print JSON Schemas of the declarations, for editors and CI."""
    from helmops.model.declarations import json_schemas

    schemas = json_schemas()
    if kind is None:
        click.echo(json.dumps(schemas, indent=2))
        return
    found = next((name for name in schemas if name.lower() == kind.lower()), None)
    if found is None:
        raise UsageError(
            f"there is no kind {kind}", next_step=f"known are {', '.join(sorted(schemas))}"
        )
    click.echo(json.dumps(schemas[found], indent=2))
