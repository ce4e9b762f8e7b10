"""Expressions: what they can say, and what is said of those that cannot be used."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from helmops.errors import ExpressionError, Follows
from helmops.model.expression import MAX_SIZE, compile_expression

READY = {
    "conditions": [
        {"type": "Synced", "status": "False"},
        {"type": "Ready", "status": "True"},
    ],
    "replicas": 3,
    "ratio": 0.5,
    "note": None,
}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("status.conditions.filter(e, e.type == 'Ready').all(e, e.status == 'True')", True),
        ("status.conditions.exists(e, e.type == 'Ready' && e.status == 'True')", True),
        ("status.replicas == 3", True),
        ("status.replicas == 3.0", True),
        ("status.replicas > 2.5", True),
        ("status.ratio < 1", True),
        ("status.?phase.orValue('none') == 'none'", True),
        ("has(status.phase)", False),
        ("has(status.phase) && status.phase == 'x'", False),
        ("status.note == null", True),
        ("'READY'.lowerAscii() == 'ready'", True),
        ("cel.bind(n, status.replicas, n * 2 == 6)", True),
        ("sets.contains([1, 2, 3], [status.replicas])", True),
        ("'%s has %d'.format(['it', status.replicas]) == 'it has 3'", True),
        ("base64.decode('aGk=') == b'hi'", True),
        ("timestamp('2026-01-01T00:00:00Z') < timestamp('2026-01-02T00:00:00Z')", True),
        ("status.conditions.map(c, c.type).join(',') == 'Synced,Ready'", True),
    ],
)
def test_an_expression_says(text: str, expected: bool) -> None:
    for variables in (None, {"status": "dyn"}):
        expression = compile_expression(text, variables)

        assert expression.evaluate_bool(status=READY) is expected


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("status.replicas", 3),
        ("status", READY),
        ("status.note", None),
        ("[1, 2].map(n, n + 1)", [2, 3]),
        ("timestamp('2026-01-02T03:04:05Z')", datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)),
    ],
)
def test_a_value_comes_as_json_would_have_it(text: str, value: object) -> None:
    assert compile_expression(text).evaluate(status=READY) == value


def test_a_variable_may_be_called_self() -> None:
    expression = compile_expression(
        "dep.metadata.name == self.spec.name", {"dep": "dyn", "self": "dyn"}
    )

    assert expression.evaluate_bool(dep={"metadata": {"name": "a"}}, self={"spec": {"name": "a"}})


def test_fields_that_are_no_names_do_not_disturb() -> None:
    assert compile_expression("kind == 'X'").evaluate_bool(**{"kind": "X", "a-b": 1, "$ref": {}})


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("foo == 5", "undeclared reference to 'foo' (line 1, column 1)"),
        ("status.replicas ==", "ends too early (line 1, column 19)"),
        ("status.a ==\n  nobody", "undeclared reference to 'nobody' (line 2, column 3)"),
        ("1 + 'a'", "no matching overload for '_+_' applied to '(int, string)' (line 1, column 3)"),
        ("", "is empty"),
        (" \n", "is empty"),
        ("(" * 40 + "1" + ")" * 40, "recursion limit"),
        ("+".join("1" * 100), "recursion depth"),
        ("'" + "x" * MAX_SIZE + "' == ''", f"more than {MAX_SIZE}"),
        ("'ü' == '\ud800'", "not valid Unicode"),
    ],
)
def test_what_does_not_compile_is_refused_with_its_place(text: str, problem: str) -> None:
    with pytest.raises(ExpressionError) as caught:
        compile_expression(text, {"status": "dyn"})

    assert problem in str(caught.value)
    assert caught.value.follows is Follows.STALLED
    assert len(str(caught.value)) < 600


def test_the_text_of_what_does_not_compile_is_shown_on_one_line() -> None:
    with pytest.raises(ExpressionError, match=r"`status\.a == nobody`"):
        compile_expression("status.a ==\n  nobody", {"status": "dyn"})


def test_a_limit_that_was_hit_has_no_position() -> None:
    with pytest.raises(ExpressionError) as caught:
        compile_expression("+".join("1" * 100))

    assert "line" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "bindings", "problem"),
    [
        ("status.phase == 'x'", {"status": {}}, "there is no field `phase`"),
        ("status.phase == 'x'", {}, "there is no `status`"),
        ("status.phase.now == 'x'", {"status": {"phase": None}}, "status.phase.now"),
        ("1 / status.n == 0", {"status": {"n": 0}}, "divide by zero"),
        ("nonsense(status)", {"status": {}}, "nonsense(map)"),
        ("status.all(a, status.all(b, a + b >= 0))", {"status": list(range(200))}, "budget"),
        ("status.?phase", {"status": {}}, "orValue"),
        ("status == 1", {"status": -(2**70)}, "out of range"),
    ],
)
def test_what_has_no_value_is_an_error(text: str, bindings: dict[str, Any], problem: str) -> None:
    expression = compile_expression(text)

    with pytest.raises(ExpressionError) as caught:
        expression.evaluate(**bindings)

    assert problem in str(caught.value)
    assert "INVALID_ARGUMENT" not in str(caught.value)


@pytest.mark.parametrize(
    ("value", "named"),
    [
        (None, "null"),
        ("True", "a string"),
        (1, "a number"),
        (0.5, "a number"),
        ([], "a list"),
        ({}, "a map"),
    ],
)
def test_only_true_and_false_answer_a_question(value: object, named: str) -> None:
    with pytest.raises(ExpressionError, match=f"gives {named}, not true or false"):
        compile_expression("x").evaluate_bool(x=value)


def test_the_same_text_is_compiled_once() -> None:
    one = compile_expression("x == 1", {"x": "dyn"})

    assert compile_expression("x == 1", {"x": "dyn"}) is one
    assert compile_expression("x == 1") is not one
    assert "x == 1" in repr(one)
