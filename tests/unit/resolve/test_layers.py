from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from helmops.errors import ValuesError
from helmops.model.documents import read_documents
from helmops.resolve.layers import HIDDEN, InlineLayer, Layer, composed, origins, shown
from helmops.resolve.values import TargetValue, merge_values


def layer(name: str, values: dict[str, Any] | None = None, **rest: Any) -> Layer:
    return Layer(f"spec.{name}", name, values=values or {}, **rest)


def target(name: str, path: str, value: str, *, is_secret: bool = False) -> Layer:
    return Layer(f"spec.{name}", name, target=TargetValue(path, value), is_secret=is_secret)


def told(*layers: Layer) -> dict[str, tuple[Any, str, list[str]]]:
    """By dotted path: the value, its layer, and those that it replaced."""
    return {
        ".".join(origin.path): (
            origin.value,
            origin.layer.where,
            [each.where for each, _ in origin.over],
        )
        for origin in origins(layers)
    }


def test_each_value_is_of_the_last_layer_that_has_it() -> None:
    assert told(
        layer("a", {"x": 1, "y": {"z": 1, "w": 1}}),
        layer("b", {"y": {"z": 2}}),
        layer("c", {"y": {"z": 3}, "n": None}),
    ) == {
        "x": (1, "a", []),
        "y.z": (3, "c", ["b", "a"]),
        "y.w": (1, "a", []),
        "n": (None, "c", []),
    }


def test_what_takes_the_place_of_a_mapping_replaced_all_of_it() -> None:
    assert told(
        layer("a", {"x": {"p": 1, "q": 2}}), layer("b", {"x": {"q": 3}}), layer("c", {"x": 0})
    ) == {"x": (0, "c", ["a", "b"])}


def test_a_mapping_that_takes_the_place_of_a_value_replaced_it_in_each_part() -> None:
    assert told(layer("a", {"x": 0}), layer("b", {"x": {"p": 1, "q": {"r": 2}}})) == {
        "x.p": (1, "b", ["a"]),
        "x.q.r": (2, "b", ["a"]),
    }


def test_an_empty_mapping_changes_nothing_of_another() -> None:
    assert told(layer("a", {"x": {"p": 1}}), layer("b", {"x": {}})) == {"x.p": (1, "a", [])}
    assert told(layer("a", {"x": {}}), layer("b", {"x": {"p": 1}})) == {"x.p": (1, "b", ["a"])}
    assert told(layer("a", {"x": {}})) == {"x": ({}, "a", [])}


def test_targets_are_over_all_others_in_their_order() -> None:
    assert told(
        target("t", "x.y", "7"), layer("inline", {"x": {"y": 1, "z": 1}}), target("u", "x.y", "8")
    ) == {"x.y": (8, "u", ["t", "inline"]), "x.z": (1, "inline", [])}


def test_a_target_within_a_list_makes_the_list_its_own() -> None:
    assert told(layer("a", {"x": ["p", "q"]}), target("t", "x[1]", "r")) == {
        "x": (["p", "r"], "t", ["a"])
    }


@pytest.mark.parametrize("is_secret", [True, False])
def test_a_list_is_hidden_where_anything_in_it_is_secret(is_secret: bool) -> None:
    layers = (
        layer("a", {"x": ["s3cret", "q"]}, is_secret=is_secret),
        target("t", "x[1]", "s3cret", is_secret=not is_secret),
    )
    assert shown(origins(layers)) == {"x": HIDDEN}


def test_secret_values_are_hidden_unless_asked_for() -> None:
    found = origins(
        (
            layer("a", {"x": {"p": 1, "q": None}, "y": 2}, is_secret=True),
            layer("b", {"y": 3}),
        )
    )
    assert shown(found) == {"x": {"p": HIDDEN, "q": None}, "y": 3}
    assert shown(found, with_secrets=True) == {"x": {"p": 1, "q": None}, "y": 3}
    assert "'p': 1" not in repr(found)


def test_a_value_knows_its_line_in_the_text_that_has_it() -> None:
    text = b"# a comment\nx:\n  k: 1\n---\nx:\n  z: 2\n"
    found = layer("values.yaml", {"x": {"k": 1, "z": 2}}, text=text)
    assert found.place_of(("x", "k")) == "values.yaml:3"
    assert found.place_of(("x", "z")) == "values.yaml:6"
    assert found.place_of(("nowhere",)) == "values.yaml"


def test_values_of_the_declaration_have_its_lines() -> None:
    text = "kind: HelmRelease\nspec:\n  values:\n    x:\n      k: 1\n"
    document = read_documents("apps/web.yaml", text).documents[0]
    inline = InlineLayer("spec.values", "apps/web.yaml:3", values={}, document=document)
    assert inline.place_of(("x", "k")) == "apps/web.yaml:5"
    assert InlineLayer("spec.values", "apps/web.yaml:3").place_of(("x",)) == "apps/web.yaml:3"


def test_a_target_that_does_not_fit_is_an_error() -> None:
    with pytest.raises(ValuesError):
        origins((layer("a", {"x": 1}), target("t", "x.y", "1")))


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3) | st.lists(st.integers()),
    lambda inner: st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=8,
)
_LAYERS = st.lists(st.dictionaries(st.sampled_from("abc"), _VALUES, max_size=3), max_size=4)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(_LAYERS)
def test_the_account_comes_to_what_is_merged(values: list[dict[str, Any]]) -> None:
    layers = [layer(str(number), each) for number, each in enumerate(values)]
    assert shown(origins(layers)) == merge_values(values) == composed(layers)
