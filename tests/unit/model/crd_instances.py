"""Instances of a custom resource's structural schema, made by Hypothesis."""

from collections.abc import Mapping
from typing import Any

from hypothesis import strategies as st

_TEXT = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=12)
_ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-1000, 1000) | _TEXT,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(_TEXT, inner, max_size=2),
    max_leaves=4,
)


def instances(schema: Mapping[str, Any]) -> st.SearchStrategy[Any]:
    """Everything that the schema accepts, small; its CEL rules are not looked at."""
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    match schema.get("type"):
        case "object":
            return _objects(schema)
        case "array":
            return st.lists(
                instances(schema["items"]), min_size=schema.get("minItems", 0), max_size=2
            )
        case "string":
            return _strings(schema)
        case "integer":
            return st.integers(-3, 10)
        case "boolean":
            return st.booleans()
    # `values`: any object, though the schema would take a string, too, which Flux then refuses.
    return st.dictionaries(_TEXT, _ANY_JSON, max_size=3)


def _objects(schema: Mapping[str, Any]) -> st.SearchStrategy[Any]:
    if "additionalProperties" in schema:
        return st.dictionaries(_TEXT, instances(schema["additionalProperties"]), max_size=2)
    properties = {name: instances(inner) for name, inner in schema.get("properties", {}).items()}
    required = schema.get("required", [])
    return st.fixed_dictionaries(
        {name: properties[name] for name in required},
        optional={name: inner for name, inner in properties.items() if name not in required},
    )


def _strings(schema: Mapping[str, Any]) -> st.SearchStrategy[str]:
    shortest, longest = schema.get("minLength", 0), min(schema.get("maxLength", 20), 20)
    if "pattern" not in schema:
        return st.text(
            st.characters(min_codepoint=32, max_codepoint=126),
            min_size=shortest,
            max_size=longest,
        )
    pattern = schema["pattern"].removeprefix("^").removesuffix("$")
    if "(ms|s|m" in pattern:
        # Numbers of any length match, but Go's durations end after 292 years.
        units = ["ms", "s", "m", "h"] if "|h" in pattern else ["ms", "s", "m"]
        number = st.integers(0, 9999).map(str) | st.from_regex(r"\A[0-9]{1,3}\.[0-9]{1,3}\Z")
        part = st.tuples(number, st.sampled_from(units)).map("".join)
        return st.lists(part, min_size=1, max_size=3).map("".join)
    return st.from_regex(rf"\A(?:{pattern})\Z").filter(
        lambda text: (
            shortest <= len(text) <= schema.get("maxLength", 10_000)
            and text.isprintable()
            and text.isascii()
        )
    )
