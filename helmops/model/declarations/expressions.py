"""Texts of our own kinds that are a language: refused where they are declared, not when they are
needed, which may be in the middle of an upgrade.

Flux's kinds accept any text here, as their CRDs do: a HelmRelease with a wrong expression is
Stalled, and this is said when it is resolved.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

from pydantic import AfterValidator, Strict
from pydantic_core import PydanticCustomError

from helmops.errors import DeclarationError
from helmops.model.expression import compile_expression
from helmops.model.json_path import JsonPath


def _is_about(variable: str) -> Callable[[str], str]:
    def check(text: str) -> str:
        try:
            compile_expression(text, {variable: "dyn"})
        except DeclarationError as error:
            raise PydanticCustomError("cel", "{why}", {"why": error.what}) from None
        return text

    return check


def _is_one_place(text: str) -> str:
    try:
        JsonPath.parse(text)
    except DeclarationError as error:
        raise PydanticCustomError("json_path", "{why}", {"why": error.what}) from None
    return text


#: CEL over the variable `object`.
ObjectExpression = Annotated[str, Strict(), AfterValidator(_is_about("object"))]
#: CEL over the variable `result`.
ResultExpression = Annotated[str, Strict(), AfterValidator(_is_about("result"))]
#: A path to one place of a JSON document.
JsonPlace = Annotated[str, Strict(), AfterValidator(_is_one_place)]
