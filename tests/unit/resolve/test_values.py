import json

import pytest

from helmops.errors import ValuesError
from helmops.resolve.values import (
    TargetValue,
    coalesce_values,
    compose_values,
    merge_values,
    parse_values,
    values_for_helm,
)


def test_mappings_merge_and_all_else_replaces() -> None:
    assert merge_values(
        [
            {"a": {"b": 1, "c": [1, 2]}, "d": {"e": 1}, "f": 1},
            {"a": {"c": [3]}, "d": 2, "f": {"g": 1}},
        ]
    ) == {"a": {"b": 1, "c": [3]}, "d": 2, "f": {"g": 1}}


def test_a_null_replaces_and_stays_until_it_meets_the_charts_defaults() -> None:
    merged = merge_values([{"a": {"b": 1}, "c": 1}, {"a": None}, {"c": None}])
    assert merged == {"a": None, "c": None}
    assert merge_values([merged, {"a": {"d": 1}}]) == {"a": {"d": 1}, "c": None}
    assert coalesce_values({"a": {"b": 1}, "c": 1}, merged) == {}


def test_no_layers_are_no_values_and_layers_stay_as_they_are() -> None:
    assert merge_values([]) == {}
    below, above = {"a": {"b": 1}}, {"a": {"c": 1}}
    merge_values([below, above])
    assert below == {"a": {"b": 1}}
    assert above == {"a": {"c": 1}}


def test_values_over_references_and_targets_over_everything() -> None:
    values = compose_values(
        [{"a": 1, "b": {"c": 1, "d": 1}}, {"a": 2}],
        {"b": {"c": 2}, "e": 1},
        [TargetValue("b.c", "3"), TargetValue("e", "x"), TargetValue("e", "y", literal=True)],
    )
    assert values == {"a": 2, "b": {"c": 3, "d": 1}, "e": "y"}


def test_a_target_value_is_not_shown() -> None:
    assert "hunter2" not in repr(TargetValue("a", "hunter2"))


@pytest.mark.parametrize(
    ("defaults", "values", "seen"),
    [
        ({"a": 1}, {}, {"a": 1}),
        ({"a": 1}, {"a": None}, {}),
        ({"a": {"b": 1, "c": 2}}, {"a": {"b": None}}, {"a": {"c": 2}}),
        ({}, {"a": None, "b": {"c": None}}, {"a": None, "b": {"c": None}}),
        ({"a": None, "b": {"c": None, "d": 1}}, {}, {"b": {"d": 1}}),
        ({"a": None, "b": {"c": None}}, {"a": None, "b": {"c": None}}, {"b": {"c": None}}),
        ({"a": {"b": 1}}, {"a": 2}, {"a": 2}),
        ({"a": 2}, {"a": {"b": 1}}, {"a": {"b": 1}}),
        ({"a": [1, 2]}, {"a": [3]}, {"a": [3]}),
    ],
)
def test_defaults_lie_under_the_users_values(
    defaults: dict[str, object], values: dict[str, object], seen: dict[str, object]
) -> None:
    assert coalesce_values(defaults, values) == seen


def test_a_values_file_for_helm_holds_exactly_the_values() -> None:
    values = {
        "y": "yes",
        "mode": "0755",
        "time": "1:30",
        "date": "2001-01-01",
        "none": None,
        "text": "a\u2028b\x85c\ufeffd\x7fe\uffff\U0001f600\n---\n",
        "numbers": [1, 1.5, 2**64, 1e22, -1e-7],
        "<<": {"a": 1},
    }
    data = values_for_helm(values)
    assert parse_values(data, "f") == values
    assert json.loads(data) == values


@pytest.mark.parametrize("value", [float("nan"), float("inf"), object(), {1, 2}, b"x"])
def test_what_json_does_not_have_is_no_value(value: object) -> None:
    with pytest.raises(ValuesError):
        values_for_helm({"a": value})
