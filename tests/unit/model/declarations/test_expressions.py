"""Languages in our own kinds."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from helmops.model.declarations import CelCheck, JsonPathExpectation


def cel(expr: str) -> CelCheck:
    named: dict[str, Any] = {"apiVersion": "v1", "kind": "Pod", "name": "a"}
    return CelCheck.model_validate({"object": named, "expr": expr})


def test_what_compiles_is_taken_as_it_is() -> None:
    assert cel("object.status.phase == 'Up'").expr == "object.status.phase == 'Up'"
    assert JsonPathExpectation(path="{.a[0]}", equals=1).path == "{.a[0]}"


@pytest.mark.parametrize(
    ("expr", "problem"),
    [
        ("object.status &&", "ends too early (line 1, column 17)"),
        ("status.phase == 'Up'", "undeclared reference to 'status"),
        (" ", "the expression is empty"),
    ],
)
def test_an_expression_that_does_not_compile_is_refused(expr: str, problem: str) -> None:
    with pytest.raises(ValidationError) as caught:
        cel(expr)

    [error] = caught.value.errors()
    assert error["loc"] == ("expr",)
    assert problem in error["msg"]


def test_a_path_to_many_places_is_refused() -> None:
    with pytest.raises(ValidationError, match="no path to one place"):
        JsonPathExpectation(path=".items[*]", equals=1)
