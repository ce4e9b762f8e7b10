"""JSON Schemas of the kinds, for editors and `helmops schema`."""

from __future__ import annotations

from typing import Any

from helmops.model.declarations.kinds import KINDS

_DIALECT = "https://json-schema.org/draft/2020-12/schema"


def json_schemas() -> dict[str, dict[str, Any]]:
    """A schema of a whole document for each kind that is read, by kind.

    Rules over several fields, such as either `chart` or `chartRef`, are not in them.
    """
    schemas = {}
    for kind, model in KINDS.items():
        schema = model.model_json_schema(by_alias=True)
        group = f"{model.api_group}/" if model.api_group else ""
        properties = schema["properties"]
        properties["apiVersion"]["enum"] = [f"{group}{version}" for version in model.versions]
        properties["kind"]["const"] = kind
        schemas[kind] = {"$schema": _DIALECT, **schema}
    return schemas
