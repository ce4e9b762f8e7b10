"""JSON Schemas of the kinds, for editors and `helmops schema`."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from pydantic.json_schema import GenerateJsonSchema
from pydantic_core.core_schema import CoreSchema

from helmops.model.declarations.base import format_duration
from helmops.model.declarations.kinds import KINDS

_DIALECT = "https://json-schema.org/draft/2020-12/schema"


class _Schema(GenerateJsonSchema):
    """Pydantic's, with durations as Go writes them and without titles made of names."""

    def encode_default(self, dft: Any) -> Any:
        """A default as a document would have it."""
        return format_duration(dft) if isinstance(dft, timedelta) else super().encode_default(dft)

    def field_title_should_be_set(self, schema: CoreSchema) -> bool:
        """Never: descriptions say it better."""
        return False


def json_schemas() -> dict[str, dict[str, Any]]:
    """A schema of a whole document for each kind that is read, by kind.

    Rules over several fields, such as either `chart` or `chartRef`, are not in them.
    """
    schemas = {}
    for kind, model in KINDS.items():
        schema = model.model_json_schema(by_alias=True, schema_generator=_Schema)
        group = f"{model.api_group}/" if model.api_group else ""
        properties = schema["properties"]
        properties["apiVersion"]["enum"] = [f"{group}{version}" for version in model.versions]
        properties["kind"]["const"] = kind
        schemas[kind] = {"$schema": _DIALECT, **schema}
    return schemas
