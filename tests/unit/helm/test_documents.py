"""Values on their way into helm, manifests on their way out."""

from __future__ import annotations

import datetime
import math

import pytest
import yaml

from helmops.errors import HelmError, TemplateFailed
from helmops.helm.documents import encode_values, parse_manifest
from helmops.resolve.yaml11 import parse_values


def parse(text: str) -> tuple[dict[str, object], ...]:
    return parse_manifest(text, "apps/app.v1")


@pytest.mark.parametrize(
    "text",
    [
        "plain",
        "two\nlines\r\n\ttabbed",
        'quotes " and \\ backslash',
        "emoji \U0001f600 and ü",
        "yes",
        "0755",
        "1:30",
        "2026-01-01",
        "control \x01\x07\x1b",
        "delete \x7f, c1 \x85\x9f, separators \u2028\u2029",
        "byte order mark \ufeff, non-characters \ufffe\uffff",
        " leading and trailing ",
        "",
        "x" * 5_000,
    ],
)
def test_every_text_comes_back_as_go_yaml_reads_it(text: str) -> None:
    assert parse_values(encode_values({"key": text, "list": [text]}), "x") == {
        "key": text,
        "list": [text],
    }
    # and by the parser of the same family, raw characters and all
    assert yaml.load(encode_values({"key": text}), Loader=yaml.CSafeLoader) == {"key": text}


def test_numbers_null_and_nesting_stay_what_they_are() -> None:
    values = {"a": 1, "b": 1.5, "c": None, "d": True, "e": [], "f": {}, "g": 2**60, "h": -0.25}
    assert parse_values(encode_values(values), "x") == values


@pytest.mark.parametrize(
    "value", [math.nan, math.inf, datetime.date(2026, 1, 1), "\ud83d", {1, 2}, b"bytes"]
)
def test_what_json_has_not_is_refused_without_showing_it(value: object) -> None:
    with pytest.raises(TemplateFailed) as caught:
        encode_values({"key": value})
    assert "2026" not in str(caught.value)


def test_documents_without_a_kind_are_no_objects() -> None:
    assert parse("---\n# only a comment\n---\n---\nfoo: bar\n---\n- 1\n") == ()


def test_a_list_is_the_objects_in_it() -> None:
    text = "kind: ConfigMapList\nitems:\n- {kind: ConfigMap, metadata: {name: a}}\n- null\n"
    assert parse(text) == ({"kind": "ConfigMap", "metadata": {"name": "a"}},)


def test_a_kind_that_only_ends_in_list_stays_an_object() -> None:
    assert parse("kind: IPAllowList\nspec: {}\n") == ({"kind": "IPAllowList", "spec": {}},)


@pytest.mark.parametrize(
    ("scalar", "value"),
    [
        ("y", True),
        ("Off", False),
        ("~", None),
        ("", None),
        ("0o755", 493),
        ("0755", 493),
        ("08", 8),
        ("-0x1F", -31),
        ("0b11", 3),
        ("1_000", 1000),
        ("1e3", 1000.0),
        (".5", 0.5),
        ("1:30", "1:30"),
        ("2026-01-01T00:00:00Z", "2026-01-01T00:00:00Z"),
        ("=", "="),
        ("1.2.3", "1.2.3"),
    ],
)
def test_plain_scalars_are_what_go_yaml_makes_of_them(scalar: str, value: object) -> None:
    assert parse(f"kind: X\ndata: {scalar}\n") == ({"kind": "X", "data": value},)


def test_keys_are_text() -> None:
    (found,) = parse("kind: X\ndata: {y: 1, 2: b, null: c}\n")
    assert found["data"] == {"true": 1, "2": "b", "null": "c"}


def test_anchors_and_merge_keys_work() -> None:
    (found,) = parse("kind: X\na: &a {b: 1}\nc: {<<: *a, d: 2}\n")
    assert found["c"] == {"b": 1, "d": 2}


def test_what_is_not_yaml_is_named_and_not_shown() -> None:
    with pytest.raises(HelmError) as caught:
        parse("kind: X\nsecret: {hunter22\n")
    assert caught.value.where == "apps/app.v1"
    assert "hunter22" not in str(caught.value)
