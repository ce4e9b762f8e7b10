"""`helmops values`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from helmops.cli import options
from helmops.cli.options import Format
from helmops.cli.session import key_of, run_async, settings_of

if TYPE_CHECKING:
    from helmops.resolve.layers import Layer, Origin


@click.command()
@options.name
@click.option(
    "--explain",
    "is_explained",
    is_flag=True,
    help="Say of each value which layer it comes from, and which others it replaced.",
)
@click.option(
    "--show-secrets",
    "with_secrets",
    is_flag=True,
    help="Show values that come from Secrets or were encrypted.",
)
@options.filename
@options.lookup
@options.output
def values(
    name: str, is_explained: bool, with_secrets: bool, output: Format, **settings: Any
) -> None:
    """Show the values that helm gets for a release: its `valuesFrom` and `values`, merged.

    As -f declares it; without -f, as its record remembers it. Values from Secrets are hidden.
    """
    found = settings_of(**settings)
    key = key_of(name, found.namespace)

    async def show() -> None:
        from helmops.resolve.layers import origins, shown
        from helmops.service.values import layers_of

        told = origins(await layers_of(found, key))
        if is_explained:
            click.echo(_explained(told, output, with_secrets))
        else:
            # A values file is YAML; as text, too.
            as_yaml = Format.JSON if output is Format.JSON else Format.YAML
            click.echo(_text(shown(told, with_secrets=with_secrets), as_yaml))

    run_async(show())


def _text(value: Any, output: Format) -> str:
    from helmops.cli.output import as_text

    return as_text(value, output)


def _explained(told: Sequence[Origin], output: Format, with_secrets: bool) -> str:
    from helmops.model.documents import dotted
    from helmops.resolve.layers import shown_value

    entries = [
        {
            "key": dotted(origin.path),
            "path": list(origin.path),
            "value": shown_value(origin, with_secrets=with_secrets),
            "secret": origin.is_secret,
            "from": _place(origin.layer, origin.path),
            "over": [_place(layer, path) for layer, path in origin.over],
        }
        for origin in told
    ]
    if output in (Format.JSON, Format.YAML):
        return _text({"values": entries}, output)
    return "\n".join(_lines(entry) for entry in entries) or "there are no values"


def _place(layer: Layer, path: Sequence[str]) -> dict[str, str]:
    return {"field": layer.reference, "where": layer.place_of(path)}


def _lines(entry: dict[str, Any]) -> str:
    value = json.dumps(entry["value"], ensure_ascii=False, default=str)
    places = [("from", entry["from"]), *(("over", place) for place in entry["over"])]
    width = max(len(place["field"]) for _, place in places)
    return "\n".join(
        [
            f"{entry['key']}: {value}",
            *(f"    {how} {place['field']:<{width}}  {place['where']}" for how, place in places),
        ]
    )
