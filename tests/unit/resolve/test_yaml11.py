import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from helmops.errors import ValuesError
from helmops.resolve.yaml11 import MAX_DEPTH, parse_values

VECTORS: dict[str, Any] = json.loads(
    gzip.decompress(Path(__file__).with_name("values-vectors.json.gz").read_bytes())
)


def as_helm_holds(value: Any) -> Any:
    """Every number a 64-bit float, as in Helm."""
    if isinstance(value, dict):
        return {key: as_helm_holds(item) for key, item in value.items()}
    if isinstance(value, list):
        return [as_helm_holds(item) for item in value]
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_number else value


def test_every_vector_of_the_go_libraries_agrees() -> None:
    """Generated files, read with the YAML libraries that Helm 4.3.1 reads values with."""
    assert len(VECTORS["cases"]) > 1000
    for text, values in VECTORS["cases"]:
        if values is None:
            with pytest.raises(ValuesError):
                parse_values(text, "values.yaml")
        else:
            assert as_helm_holds(parse_values(text, "values.yaml")) == as_helm_holds(values), text


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("yes", True),
        ("y", True),
        ("Off", False),
        ("yEs", "yEs"),
        ("~", None),
        ("", None),
        ("0755", 493),
        ("0o755", 493),
        ("08", 8),
        ("0x1F", 31),
        ("-0b11", -3),
        ("1_000", 1000),
        ("1e3", 1000),
        ("1e400", "1e400"),
        ("1:30", "1:30"),
        ("2001-01-01", "2001-01-01"),
        ("2001-12-14T21:59:43Z", "2001-12-14T21:59:43Z"),
        ("18446744073709551615", 2**64 - 1),
        ("18446744073709551616", 2.0**64),
        ("!!str 0755", "0755"),
        ("!!int '7'", 7),
        ("!!float 7", 7.0),
        ("!!binary aGk=", "hi"),
        ("!mine 7", "7"),
        ("=", "="),
        ("'y'", "y"),
    ],
)
def test_a_value_is_what_yaml_1_1_in_go_makes_of_it(text: str, value: object) -> None:
    read = parse_values(f"a: {text}\n", "f")["a"]
    assert read == value
    assert type(read) is type(value) or isinstance(value, int | float)


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("y", "true"),
        ("no", "false"),
        ("1", "1"),
        ("0x10", "16"),
        ("1.10", "1.1"),
        ("1e6", "1e+06"),
        (".inf", ".inf"),
        ("'1'", "1"),
        ("2001-01-01", "2001-01-01"),
    ],
)
def test_a_key_becomes_text(text: str, key: str) -> None:
    assert parse_values(f"{text}: 0\n", "f") == {key: 0}


def test_the_later_of_two_equal_keys_wins_as_in_helm() -> None:
    assert parse_values("a: 1\na: 2\n", "f") == {"a": 2}


def test_a_merge_key_counts_at_its_own_place() -> None:
    assert parse_values("a: 1\n<<: {a: 2}\n", "f") == {"a": 2}
    assert parse_values("<<: {a: 2}\na: 1\n", "f") == {"a": 1}
    assert parse_values("<<: [{a: 1}, {a: 2, b: 3}]\n", "f") == {"a": 1, "b": 3}


def test_documents_of_a_file_are_merged() -> None:
    assert parse_values("a: {b: 1}\n---\na: {c: 2}\n---\n", "f") == {"a": {"b": 1, "c": 2}}


@pytest.mark.parametrize("text", ["", "\n", "# nothing\n", "---\n", "null\n", "---\n---\n"])
def test_an_empty_file_has_no_values(text: str) -> None:
    assert parse_values(text.encode(), "f") == {}


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a: 1\nb: [\n", 3),
        ("a: 1\n\tb: 2\n", 2),
        ("- a\n", 1),
        ("a\n", 1),
        ("a: 1\n---\n- b\n", 3),
        ("a: 1\n--- b\n", 2),
        ("a: *b\n", 1),
        ("a: 1\n<<: 2\n", 2),
        ("a:\n  ? [1]\n  : 2\n", 2),
        ("~: 1\n", 1),
        ("a: .nan\n", 1),
        ("a: !!int x\n", 1),
        ("a: !!binary '*'\n", 1),
        ("1: a\n'1': b\n", 2),
        ("a: &a [*a]\n", 1),
    ],
)
def test_an_error_names_file_and_line(text: str, line: int) -> None:
    with pytest.raises(ValuesError) as caught:
        parse_values(text, "secret/values.yaml")
    assert caught.value.where == f"secret/values.yaml:{line}"


@pytest.mark.parametrize(
    "text",
    [
        "password: *hunter2\n",
        "password: !!int hunter2\n",
        "password: @hunter2\n",
        "password: hunter2: x\n",
        "password: [hunter2\n",
        'password: "hunter2\n',
        "hunter2\n",
        "--- hunter2\n",
        "? [hunter2]\n: 1\n",
        "password: !!binary hunter2*\n",
        "password: %hunter2\n",
        "password: &hunter2 [*hunter2]\n",
        "password: hunter2\x00\n",
    ],
)
def test_an_error_never_shows_what_the_file_holds(text: str) -> None:
    with pytest.raises(ValuesError) as caught:
        parse_values(text, "f")
    assert "hunter2" not in str(caught.value)
    assert "hunter2" not in repr(caught.value)
    assert caught.value.__cause__ is None


def test_bytes_that_are_no_text_are_an_error() -> None:
    for data in (b"\xff\xfea", b"a: \xff\xff", b"a: \x01", b"\xc3"):
        with pytest.raises(ValuesError):
            parse_values(data, "f")


def test_a_bomb_of_aliases_is_refused() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 10)]
    with pytest.raises(ValuesError, match="by its aliases"):
        parse_values("\n".join(lines), "f")
    merges = ["a0: &a0 {x: 1}"]
    merges += [f"a{i}: &a{i} {{<<: [{', '.join([f'*a{i - 1}'] * 10)}]}}" for i in range(1, 10)]
    with pytest.raises(ValuesError, match="by its aliases"):
        parse_values("\n".join(merges), "f")


def test_values_that_nest_without_end_are_refused() -> None:
    for opening in ("[", "{a: "):
        with pytest.raises(ValuesError):
            parse_values("a: " + opening * 100_000, "f")
    chain = [f"a{i}: &a{i} [*a{i - 1}]" for i in range(1, MAX_DEPTH + 2)]
    with pytest.raises(ValuesError, match="nest deeper"):
        parse_values("\n".join(["a0: &a0 x", *chain]), "f")


def test_an_alias_may_be_used_often_in_a_file_that_is_no_bomb() -> None:
    text = "a: &a {b: 1}\n" + "".join(f"k{i}: *a\n" for i in range(90))
    values = parse_values(text, "f")
    assert values["k89"] == {"b": 1}
    assert values["k1"] is not values["k2"]
