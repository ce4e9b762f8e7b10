import json

import jsonschema
import pytest

from helmops.model.declarations import KINDS, json_schemas
from tests.unit.model.manifests import release_document

SCHEMAS = json_schemas()


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_each_kind_has_a_schema_that_is_one_and_can_be_printed(kind: str) -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMAS[kind])
    assert json.loads(json.dumps(SCHEMAS[kind])) == SCHEMAS[kind]


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_a_schema_names_its_kind_and_version(kind: str) -> None:
    properties = SCHEMAS[kind]["properties"]
    assert properties["kind"]["const"] == kind
    assert properties["apiVersion"]["enum"]


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_every_field_of_a_schema_says_what_it_is_for(kind: str) -> None:
    schema = SCHEMAS[kind]
    for part in (schema, *schema.get("$defs", {}).values()):
        for name, field in part.get("properties", {}).items():
            # A description that is the model's own is left to the model.
            model = schema["$defs"][field["$ref"].rpartition("/")[2]] if "$ref" in field else {}
            said = field.get("description", model.get("description", ""))
            assert said.endswith("."), (part["title"], name)


def test_a_release_is_valid_by_its_schema_and_a_misspelled_one_is_not() -> None:
    validator = jsonschema.Draft202012Validator(SCHEMAS["HelmRelease"])
    validator.validate(release_document(timeout="1m"))
    assert not validator.is_valid(release_document(timeOut="1m"))
    assert not validator.is_valid(release_document(timeout="1 minute"))
    assert not validator.is_valid({**release_document(), "kind": "HelmRepository"})


def test_durations_are_written_as_in_a_document() -> None:
    fields = SCHEMAS["HelmRelease"]["$defs"]["HelmReleaseSpec"]["properties"]
    assert fields["timeout"]["default"] == "5m0s"
