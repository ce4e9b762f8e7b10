"""Whatever Flux's custom resource definitions accept, helmops reads; what they refuse, it refuses.

`crds/` holds the schemas of `spec` without their descriptions, from the CRDs of Flux 2.9.
"""

import copy
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from helmops.model.declarations import KINDS
from helmops.model.expression import compile_expression
from tests.unit.model.crd_instances import instances

CRDS = {
    path.stem: json.loads(path.read_text())
    for path in sorted((Path(__file__).parent / "crds").glob("*.json"))
}
#: Where helmops accepts more, on purpose: sources of its own, and values from files.
WIDER = {
    ("HelmRelease", "chart.spec.sourceRef.kind"),
    ("HelmRelease", "valuesFrom.kind"),
    ("HelmRelease", "valuesFrom.name"),
    ("GitRepository", "url"),
    ("Alert", "eventSources.kind"),
}
RELAXED = settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)


def document(kind: str, spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": CRDS[kind]["apiVersion"],
        "kind": kind,
        "metadata": {"name": "web", "namespace": "apps"},
        "spec": spec,
    }


def problems(kind: str, spec: Any) -> list[Any]:
    try:
        KINDS[kind].model_validate(document(kind, spec))
    except ValidationError as error:
        return error.errors(include_url=False)
    return []


def breaks_a_rule(schema: Mapping[str, Any], value: Any) -> bool:
    """Whether any `x-kubernetes-validations` of the schema does not hold, defaults filled in."""
    return any(
        not compile_expression(rule["rule"]).evaluate_bool(self=value)
        for inner, value in below(schema, value)
        for rule in inner.get("x-kubernetes-validations", [])
    )


def below(schema: Mapping[str, Any], value: Any) -> Iterator[tuple[Mapping[str, Any], Any]]:
    yield schema, value
    if isinstance(value, dict):
        for name, inner in schema.get("properties", {}).items():
            if name in value:
                yield from below(inner, value[name])
    if isinstance(value, list):
        for item in value:
            yield from below(schema["items"], item)


def with_schema_defaults(schema: Mapping[str, Any], value: Any) -> Any:
    """As the API server fills in `default` before it looks at the rules."""
    if isinstance(value, dict) and "properties" in schema:
        filled = {
            name: inner["default"]
            for name, inner in schema["properties"].items()
            if "default" in inner
        } | value
        return {
            name: with_schema_defaults(schema["properties"].get(name, {}), inner)
            for name, inner in filled.items()
        }
    if isinstance(value, list):
        return [with_schema_defaults(schema.get("items", {}), item) for item in value]
    return value


def repeats_a_map_key(schema: Mapping[str, Any], value: Any) -> bool:
    """Lists of type `map` must not name a key twice, which JSON Schema cannot say."""
    for inner, items in below(schema, value):
        for key in inner.get("x-kubernetes-list-map-keys", []):
            keys = [item[key] for item in items]
            if len(keys) != len(set(keys)):
                return True
    return False


@pytest.mark.parametrize("kind", sorted(CRDS))
@RELAXED
@given(data=st.data())
def test_a_spec_is_accepted_exactly_when_the_rules_of_the_crd_hold(
    kind: str, data: st.DataObject
) -> None:
    schema = CRDS[kind]["spec"]
    spec = data.draw(instances(schema))
    jsonschema.Draft202012Validator(schema).validate(spec)
    full = with_schema_defaults(schema, spec)
    wrong = breaks_a_rule(schema, full) or repeats_a_map_key(schema, full)
    assert bool(problems(kind, spec)) == wrong, problems(kind, spec)


@pytest.mark.parametrize("kind", sorted(CRDS))
@RELAXED
@given(data=st.data())
def test_what_was_accepted_is_written_back_as_something_that_the_crd_accepts(
    kind: str, data: st.DataObject
) -> None:
    schema = CRDS[kind]["spec"]
    spec = data.draw(instances(schema))
    assume(not problems(kind, spec))
    resource = KINDS[kind].model_validate(document(kind, spec))
    manifest = resource.manifest()
    jsonschema.Draft202012Validator(schema).validate(manifest["spec"])
    assert KINDS[kind].model_validate(manifest) == resource


def fields(schema: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Mapping[str, Any]]]:
    for name, inner in schema.get("properties", {}).items():
        path = f"{above}.{name}" if above else name
        yield path, inner
        yield from fields(inner, path)
        yield from fields(inner.get("items", {}), path)


def model_fields(kind: str) -> dict[str, Mapping[str, Any]]:
    """The fields of our JSON Schema, by dotted path, its references followed."""
    whole = KINDS[kind].model_json_schema(by_alias=True)

    def resolved(schema: Mapping[str, Any]) -> dict[str, Any]:
        if "$ref" in schema:
            return resolved(whole["$defs"][schema["$ref"].rpartition("/")[2]])
        if "anyOf" in schema:
            return resolved(next(s for s in schema["anyOf"] if s.get("type") != "null"))
        properties = {n: resolved(s) for n, s in schema.get("properties", {}).items()}
        items = resolved(schema["items"]) if "items" in schema else {}
        return {**schema, "properties": properties, "items": items}

    return dict(fields(resolved(whole["properties"]["spec"])))


@pytest.mark.parametrize("kind", sorted(CRDS))
def test_no_field_of_a_crd_is_unknown_and_none_is_added_but_ours(kind: str) -> None:
    theirs = {path for path, _ in fields(CRDS[kind]["spec"])}
    ours = set(model_fields(kind))
    assert theirs - ours == set()
    added = {"HelmRelease": {"valuesFrom.path"}}
    assert ours - theirs == added.get(kind, set())


@pytest.mark.parametrize("kind", sorted(CRDS))
def test_enumerations_patterns_bounds_and_required_fields_are_those_of_the_crd(kind: str) -> None:
    ours = model_fields(kind)
    for path, theirs in fields(CRDS[kind]["spec"]):
        if (kind, path) in WIDER:
            continue
        given_enum = ours[path].get("enum") or (
            [ours[path]["const"]] if "const" in ours[path] else None
        )
        assert sorted(theirs.get("enum", [])) == sorted(given_enum or []), path
        if "(ms|s|m)" not in theirs.get("pattern", ""):
            assert theirs.get("pattern") == ours[path].get("pattern"), path
        for bound in ("minLength", "maxLength", "minItems"):
            assert theirs.get(bound) == ours[path].get(bound), path
        assert set(theirs.get("required", [])) - {"provider", "mode"} <= set(
            ours[path].get("required", [])
        ), path


@pytest.mark.parametrize("kind", sorted(CRDS))
@RELAXED
@given(data=st.data())
def test_an_unknown_field_is_refused_at_every_level(kind: str, data: st.DataObject) -> None:
    schema = CRDS[kind]["spec"]
    spec = data.draw(instances(schema))
    places = [
        value
        for inner, value in below(schema, copy.deepcopy(spec))
        if isinstance(value, dict) and "properties" in inner
    ]
    whole, place = places[0], data.draw(st.sampled_from(places))
    place["helmopsUnknown"] = 1
    assert "extra_forbidden" in [problem["type"] for problem in problems(kind, whole)]
