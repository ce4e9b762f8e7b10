from __future__ import annotations

import inspect
import re

import pytest

from helmops import errors
from helmops.errors import DeclarationError, Follows, HelmError, HelmopsError, SourceError

CLASSES = [
    each
    for _, each in inspect.getmembers(errors, inspect.isclass)
    if issubclass(each, HelmopsError)
]
_LINE = re.compile(r"^ {4}(?P<tree>[│├└─ ]*)(?P<name>[A-Z]\w+)\s*(?P<what>.*)$")


def tree() -> dict[str, tuple[str, str]]:
    """Of the module's docstring: each error, its parent and the end of its line."""
    found: dict[str, tuple[str, str]] = {}
    path: list[str] = []
    for line in (errors.__doc__ or "").splitlines():
        match = _LINE.match(line)
        if match is None:
            continue
        depth = len(match["tree"]) // 4
        path[depth:] = [match["name"]]
        found[match["name"]] = (path[depth - 1] if depth else "", match["what"])
    return found


@pytest.mark.parametrize("error", CLASSES, ids=lambda error: error.__name__)
def test_every_error_has_its_place_in_the_tree(error: type[HelmopsError]) -> None:
    parent, _ = tree()[error.__name__]
    assert parent == ("" if error is HelmopsError else error.__bases__[0].__name__)


def test_the_tree_names_no_error_that_is_not_there() -> None:
    assert set(tree()) == {error.__name__ for error in CLASSES}


@pytest.mark.parametrize(
    "error",
    [error for error in CLASSES if tree()[error.__name__][1].split("  ")[-1]],
    ids=lambda error: error.__name__,
)
def test_what_follows_is_what_the_tree_says(error: type[HelmopsError]) -> None:
    told = tree()[error.__name__][1].rsplit(maxsplit=1)[-1]
    assert told == ("2" if error is errors.UsageError else error.follows.value)


def test_every_leaf_says_what_follows() -> None:
    parents = {error.__bases__[0] for error in CLASSES}
    words = {follows.value for follows in Follows} | {"2"}
    for error in CLASSES:
        if error not in parents:
            assert tree()[error.__name__][1].rsplit(maxsplit=1)[-1] in words, error


@pytest.mark.parametrize("error", CLASSES, ids=lambda error: error.__name__)
def test_every_reason_can_be_that_of_a_condition(error: type[HelmopsError]) -> None:
    assert re.fullmatch(r"[A-Z][A-Za-z]{2,40}", error.reason)


@pytest.mark.parametrize("error", CLASSES, ids=lambda error: error.__name__)
def test_every_error_has_a_sentence_of_its_own(error: type[HelmopsError]) -> None:
    assert error.__doc__
    assert error.__doc__ not in {each.__doc__ for each in CLASSES if each is not error}


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (errors.SourceUnavailable, "SourceNotReady"),
        (errors.SourceDenied, "AuthenticationFailed"),
        (errors.SourceInvalid, "IndexationFailed"),
        (errors.ChartNotFound, "ArtifactFailed"),
        (errors.ExpressionError, "InvalidCELExpression"),
        (errors.HelmUnreachable, errors.ClusterUnreachable.reason),
        (errors.HelmDenied, errors.AccessDenied.reason),
    ],
)
def test_reasons_are_fluxs_words_where_flux_has_one(error: type[HelmopsError], reason: str) -> None:
    assert error.reason == reason


def test_an_error_says_what_where_and_what_next() -> None:
    error = HelmopsError("it broke", where="a.yaml:3", next_step="mend it")
    assert str(error) == "a.yaml:3: it broke (mend it)"
    assert str(HelmopsError("it broke")) == "it broke"
    assert str(HelmopsError("it broke", next_step="mend it")) == "it broke (mend it)"
    assert error.args == ("it broke",)


def test_an_error_of_a_declaration_names_the_field_behind_the_place() -> None:
    error = DeclarationError("no number", where="a.yaml:3", field="spec.n", next_step="write 1")
    assert str(error) == "a.yaml:3: spec.n: no number (write 1)"
    assert str(DeclarationError("no number", field="spec.n")) == "spec.n: no number"


@pytest.mark.parametrize("error", [errors.ConstraintError, errors.VersionError])
def test_text_that_is_no_version_is_a_value_error_too(error: type[HelmopsError]) -> None:
    assert issubclass(error, ValueError)


def test_what_some_errors_have_besides() -> None:
    assert SourceError("busy", retry_after=30.0).retry_after == 30.0
    assert SourceError("busy").retry_after is None
    failed = HelmError("it broke", output="a long story")
    assert failed.output == "a long story"
    assert "story" not in str(failed)
