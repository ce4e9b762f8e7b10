"""`substitution_vectors.json` was made with fluxcd/pkg/envsubst 1.9.0; null means an error."""

import contextlib
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helmops.resolve.substitution import SubstitutionError, check_names, substitute

_MADE = json.loads(
    (Path(__file__).parent / "substitution_vectors.json").read_text(encoding="utf-8")
)
VARIABLES: dict[str, str] = _MADE["variables"]
VECTORS: list[tuple[str, str | None]] = [(text, meant) for text, meant in _MADE["vectors"]]


@pytest.mark.parametrize(("text", "meant"), VECTORS)
def test_a_text_means_what_it_means_to_flux(text: str, meant: str | None) -> None:
    if meant is None:
        with pytest.raises(SubstitutionError):
            substitute(text, VARIABLES)
    else:
        assert substitute(text, VARIABLES) == meant


def test_an_error_says_the_line_and_not_the_value() -> None:
    with pytest.raises(SubstitutionError) as refused:
        substitute("a: ${SECRET}\nb: ${SECRET\nc: 1\n", {"SECRET": "hunter2hunter2"})
    assert refused.value.line == 2
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize("name", ["1a", "a-b", "", "a b", "ä"])
def test_a_name_that_is_none_is_refused(name: str) -> None:
    with pytest.raises(SubstitutionError, match="no name of a variable"):
        check_names({"GOOD": "", name: ""})


def test_a_variable_holds_no_variables() -> None:
    assert substitute("${A}", {"A": "${B}", "B": "x"}) == "${B}"


def test_a_text_that_grows_without_end_is_refused() -> None:
    with pytest.raises(SubstitutionError, match="grows beyond"):
        substitute("${A}" * 20_000, {"A": "x" * 1000})


def test_variables_within_each_other_are_bounded() -> None:
    with pytest.raises(SubstitutionError, match="within each other"):
        substitute("${A:=" * 1000 + "}" * 1000, {})


def test_a_pattern_cannot_take_forever() -> None:
    with pytest.raises(SubstitutionError, match="too long"):
        substitute("${A#*a*a*a*b}", {"A": "a" * 100_000})


@given(st.text(st.sampled_from("${}AB:=-/#%,^\\*[]1 \n"), max_size=40))
def test_nothing_but_the_one_error_comes_out(text: str) -> None:
    with contextlib.suppress(SubstitutionError):
        substitute(text, {"A": "some/value", "B": ""})
