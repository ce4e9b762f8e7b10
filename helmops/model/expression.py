"""CEL (https://cel.dev), the language of `healthCheckExprs`, `readyExpr` and policy checks.

The only place that knows the CEL library, whose version is an alpha's: everything else calls
`compile_expression`. Its language is Flux's and a little more: optionals (`status.?ready`),
strings, sets and encoders as Flux has them, lists, math and `cel.bind` beside them. Numbers of
different types compare, as JSON asks for.

Bounds: an expression has at most 10 KiB, nests at most 32 deep, and its comprehensions make at most
10,000 steps together (the last two are the library's, seen with cel-expr-python 0.1.3). Memory is
not bounded: `replace` can be chained to grow a string.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from cel_expr_python import cel

from helmops.errors import ExpressionError

#: Longest expression, in bytes of UTF-8.
MAX_SIZE = 10 * 1024

_EXTENSIONS = ("optional", "strings", "sets", "encoders", "bindings", "lists", "math")
_LONGEST_QUOTE = 200
_PROBLEM = re.compile(r"^ERROR: <input>:(-?\d+):(-?\d+): (.*)$", re.MULTILINE)
_EXPECTED_TOKENS = re.compile(r" expecting (\{.*\}|\S+)$")
#: The commonest problems, for people who do not know the library.
_WORDS = (
    (re.compile(r'^No value with name "(.*)" found in Activation$'), r"there is no `\1`"),
    (re.compile(r'^Key not found in map : "?(.*?)"?$'), r"there is no field `\1`"),
)
_STATUS_PREFIX = re.compile(r"^[A-Z][A-Z_]+: ")
_STATUS_SUFFIX = re.compile(r" \[[A-Z][A-Z_]+\]$")


@dataclass(frozen=True, slots=True, eq=False)
class Expression:
    """A compiled expression. Immutable, and safe to be kept for the life of the process."""

    text: str
    _program: Any = field(repr=False)

    def evaluate(self, /, **bindings: Any) -> Any:
        """The value, as JSON would have it, with these variables.

        Timestamps and durations come as datetime and timedelta. Raises ExpressionError when it has
        no value: a missing field, no such overload, too many steps, a variable not given.
        """
        try:
            value = self._program.eval(data=bindings)
            plain = value.plain_value()
        except (RuntimeError, TypeError) as error:
            raise self._unevaluated(str(error)) from None
        # Errors are values in CEL, and this library hands them out as such.
        if value.type() == cel.Type.ERROR:
            raise self._unevaluated(str(plain))
        return plain

    def evaluate_bool(self, /, **bindings: Any) -> bool:
        """As `evaluate`; raises ExpressionError also for a value that is not true or false."""
        value = self.evaluate(**bindings)
        if not isinstance(value, bool):
            raise ExpressionError(
                f"{_quoted(self.text)} gives {_kind_of(value)}, not true or false",
                next_step="compare it with something, as in `… == 'x'`",
            )
        return value

    def _unevaluated(self, problem: str) -> ExpressionError:
        if "return value to a Python type" in problem:
            problem = "its value is an optional; end it with orValue(…)"
        problem = _plain(problem)
        for pattern, words in _WORDS:
            problem = pattern.sub(words, problem)
        return ExpressionError(f"{_quoted(self.text)}: {problem}")


def compile_expression(text: str, variables: Mapping[str, str] | None = None) -> Expression:
    """Compile `text`; equal calls give the same expression.

    `variables` maps each variable to its CEL type (`dyn`, `string`, `int`, `map<string, dyn>`…),
    and the expression is type-checked against them. None leaves variables open and unchecked, which
    is what `healthCheckExprs` need: their variables are the fields of any object. Raises
    ExpressionError with the position and the text.
    """
    return _compile(text, None if variables is None else tuple(sorted(variables.items())))


@lru_cache(maxsize=1024)
def _compile(text: str, variables: tuple[tuple[str, str], ...] | None) -> Expression:
    if not text.strip():
        raise ExpressionError("the expression is empty")
    if not text.isascii() and any(0xD800 <= ord(character) <= 0xDFFF for character in text):
        raise ExpressionError("the expression is not valid Unicode")
    size = len(text.encode())
    if size > MAX_SIZE:
        raise ExpressionError(f"the expression has {size} bytes, more than {MAX_SIZE}")
    try:
        program = _environment(variables or ()).compile(text, disable_check=variables is None)
    except RuntimeError as error:
        raise ExpressionError(_compile_problem(text, str(error))) from None
    return Expression(text, program)


@lru_cache(maxsize=64)
def _environment(variables: tuple[tuple[str, str], ...]) -> Any:
    config = "extensions:\n" + "".join(f"- name: {name}\n" for name in _EXTENSIONS)
    return cel.NewEnv(
        config=cel.NewEnvConfigFromYaml(config),
        variables={name: cel.Type(signature) for name, signature in variables},
    )


def _compile_problem(text: str, report: str) -> str:
    """The library's report as one sentence: the first problems, with line and column."""
    problems: list[str] = []
    for line, column, problem in _PROBLEM.findall(_STATUS_PREFIX.sub("", report)):
        said = _EXPECTED_TOKENS.sub("", _plain(problem)).removesuffix(" (in container '')")
        said = said.replace("mismatched input '<EOF>'", "it ends too early")
        # A limit that was hit has no position: 0 or below, or the same as an unsigned number.
        has_position = 0 < int(line) <= MAX_SIZE
        told = f"{said} (line {line}, column {column})" if has_position else said
        if told not in problems:
            problems.append(told)
    return f"{_quoted(text)}: {'; '.join(problems[:3]) or _plain(report)}"


def _plain(problem: str) -> str:
    """Without the names of gRPC's status codes around it."""
    return _STATUS_SUFFIX.sub("", _STATUS_PREFIX.sub("", problem.strip()))


def _quoted(text: str) -> str:
    line = " ".join(text.split())
    return f"`{line}`" if len(line) <= _LONGEST_QUOTE else f"`{line[: _LONGEST_QUOTE - 1]}…`"


def _kind_of(value: object) -> str:
    match value:
        case None:
            return "null"
        case str():
            return "a string"
        case int() | float():
            return "a number"
        case list():
            return "a list"
        case dict():
            return "a map"
        case _:
            return f"a {type(value).__name__}"
