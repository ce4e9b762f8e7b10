import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from helmops.errors import ValuesError
from helmops.resolve.strvals import parse_set, set_value

VECTORS: dict[str, Any] = json.loads(
    gzip.decompress(Path(__file__).with_name("set-vectors.json.gz").read_bytes())
)


def test_every_vector_of_helms_own_parser_agrees() -> None:
    """Generated lines of --set and --set-string, put into values by Helm 4.3.1's package."""
    assert len(VECTORS["cases"]) > 1000
    for line, values, as_text, expected in VECTORS["cases"]:
        if expected is None:
            with pytest.raises(ValuesError):
                parse_set(line, values, as_text=as_text)
        else:
            assert parse_set(line, values, as_text=as_text) == expected, line


@pytest.mark.parametrize(
    ("line", "values"),
    [
        ("a.b=1", {"a": {"b": 1}}),
        (r"a\.b=1", {"a.b": 1}),
        ("a[1].b=x", {"a": [None, {"b": "x"}]}),
        ("a[0][1]=x", {"a": [[None, "x"]]}),
        ("a={1,x,true}", {"a": [1, "x", True]}),
        ("a={}", {"a": [""]}),
        ("a=1,b=2", {"a": 1, "b": 2}),
        (r"a=1\,b", {"a": "1,b"}),
        ("a=null", {"a": None}),
        ("a=TRUE", {"a": True}),
        ("a=007", {"a": "007"}),
        ("a=0", {"a": 0}),
        ("a=-5", {"a": -5}),
        ("a=1.5", {"a": "1.5"}),
        ("a=9223372036854775808", {"a": "9223372036854775808"}),
        ("a=", {"a": ""}),
        ("a[0].b=", {"a": [{"b": ""}]}),
        ("=1", {}),
        ("", {}),
    ],
)
def test_reads_the_syntax_of_set(line: str, values: dict[str, object]) -> None:
    assert parse_set(line) == values


@pytest.mark.parametrize(
    "line",
    [
        "a",
        "a=1,b",
        "a.b.",
        "a.=",
        "a[0",
        "a[0]",
        "a[x]=1",
        "a[-1]=1",
        "a[65537]=1",
        "a[" + "9" * 5000 + "]=1",
        "a[0]b=1",
        "a={1",
        ".".join("a" * 32) + "=1",
    ],
)
def test_refuses_what_says_nothing(line: str) -> None:
    with pytest.raises(ValuesError):
        parse_set(line)


def test_a_path_through_what_is_no_mapping_or_list_is_refused() -> None:
    for line in ("a.b=1", "a[0]=1"):
        with pytest.raises(ValuesError):
            parse_set(line, {"a": 1})


def test_the_values_given_stay_as_they_are() -> None:
    values = {"a": {"b": [1]}}
    assert set_value(values, "a.b[0]", "2") == {"a": {"b": [2]}}
    assert values == {"a": {"b": [1]}}


@pytest.mark.parametrize(
    ("value", "literal", "expected"),
    [
        ("1", False, 1),
        ("'1'", False, "1"),
        ('"true"', False, "true"),
        ("1", True, "1"),
        ('{"a": [1, 2], "b": "c\\d=e"}', True, '{"a": [1, 2], "b": "c\\d=e"}'),
        ("'1'", True, "'1'"),
        ("line\nline\n", True, "line\nline\n"),
        ("{1,2}", False, [1, 2]),
        ("a=b", False, "a=b"),
        ("", False, ""),
        ("'", False, ""),
    ],
)
def test_a_target_takes_values_as_flux_does(value: str, literal: bool, expected: object) -> None:
    assert set_value({}, r"a.b\.c", value, literal=literal) == {"a": {"b.c": expected}}


def test_a_literal_value_keeps_its_text_at_an_index_too() -> None:
    assert set_value({}, "a[0].b", "x[0],{y}", literal=True) == {"a": [{"b": "x[0],{y}"}]}


def test_an_error_names_the_path_and_the_reference_but_not_the_value() -> None:
    with pytest.raises(ValuesError) as caught:
        set_value({}, "db.password", "hunter2,swordfish", where="Secret/db")
    text = str(caught.value)
    assert text.startswith("Secret/db: ")
    assert "'db.password'" in text
    assert "literal: true" in text
    assert "hunter2" not in text
    assert "swordfish" not in text
