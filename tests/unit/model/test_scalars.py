"""Recorded with kubectl 1.37 (`kubectl annotate --local -f … -o json`), but for the marked ones."""

import pytest

from helmops.model.scalars import json_value, key_text, resolve, resolve_plain


def plain(text: str) -> object:
    return json_value(resolve_plain(text))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("y", True),
        ("Yes", True),
        ("on", True),
        ("TRUE", True),
        ("n", False),
        ("NO", False),
        ("Off", False),
        ("tRUE", "tRUE"),
        ("yES", "yES"),
        ("~", None),
        ("Null", None),
        ("", None),
        ("nUll", "nUll"),
        ("0755", 493),
        ("-010", -8),
        ("089", 89),
        ("0o17", 15),
        ("0o8", "0o8"),
        ("0x1F", 31),
        ("-0x10", -16),
        ("0x", "0x"),
        ("0xFFFFFFFFFFFFFFFFF", "0xFFFFFFFFFFFFFFFFF"),
        ("0b101", 5),
        ("+0b11", 3),
        ("0b2", "0b2"),
        ("1_000", 1000),
        ("1__0", 10),
        ("0_x10", 16),
        ("_1", "_1"),
        ("+_5", 5),
        ("+5", 5),
        ("1e3", 1000),
        ("1.", 1),
        ("1.0", 1),
        ("1.10", 1.1),
        ("1_0.5", 10.5),
        (".5", 0.5),
        (".42_4", 0.424),
        (".5__5", ".5__5"),
        (".5_e5", ".5_e5"),
        ("._5", "._5"),
        ("-._5", -0.5),
        (".e5", ".e5"),
        (".", "."),
        ("1.e2", 100),
        ("-0.0", 0),
        ("0.1e-7", 1e-8),
        ("1e400", "1e400"),
        ("123e4567", "123e4567"),
        ("1.5e20", 1.5e20),
        ("9223372036854775807", 9223372036854775807),
        ("18446744073709551615", 18446744073709551615.0),
        ("-9223372036854775809", -9223372036854775809.0),
        ("0777777777777777777777777", 7.777777777777778e23),
        ("123456789012345678901234567890", 1.2345678901234568e29),
        ("9007199254740993.0", 9007199254740992),
        ("1,000", "1,000"),
        ("12:30:45", "12:30:45"),
        ("190:20:30.15", "190:20:30.15"),
        ("2001-12-14", "2001-12-14"),
        ("2001-12-14T21:59:43Z", "2001-12-14T21:59:43Z"),
        ("=", "="),
        ("1" * 5000, "1" * 5000),
    ],
)
def test_a_plain_scalar_means_what_kubectl_takes_it_for(text: str, value: object) -> None:
    assert plain(text) == value
    assert type(plain(text)) is type(value)


@pytest.mark.parametrize("text", [".inf", "-.Inf", "+.INF", ".nan", ".NaN"])
def test_what_json_cannot_hold_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="put it in quotes"):
        resolve_plain(text)


@pytest.mark.parametrize("text", ["yes", "1.0", "~", ""])
def test_a_quoted_scalar_is_a_string(text: str) -> None:
    assert resolve(None, text, plain=False) == text


@pytest.mark.parametrize(
    ("tag", "text", "value"),
    [
        ("tag:yaml.org,2002:str", "1", "1"),
        ("tag:yaml.org,2002:int", "5", 5),
        ("tag:yaml.org,2002:float", "1", 1),
        ("tag:yaml.org,2002:float", "1.5", 1.5),
        ("tag:yaml.org,2002:bool", "yes", True),
        ("tag:yaml.org,2002:null", "~", None),
        ("tag:yaml.org,2002:binary", "aGVs\n bG8=", "hello"),
        ("tag:yaml.org,2002:binary", "/w==", "\ufffd"),
        ("tag:yaml.org,2002:timestamp", "2001-12-14", "2001-12-14"),
        ("tag:yaml.org,2002:python/object:os.system", "x", "x"),
        ("!foo", "5", "5"),
        ("!", "5", "5"),
    ],
)
def test_a_tag_says_what_a_scalar_is(tag: str, text: str, value: object) -> None:
    assert json_value(resolve(tag, text, plain=True)) == value


@pytest.mark.parametrize(
    ("tag", "text"),
    [("int", "1.5"), ("int", "yes"), ("float", "x"), ("null", "x"), ("bool", "1"), ("binary", "?")],
)
def test_a_tag_that_does_not_fit_is_refused(tag: str, text: str) -> None:
    with pytest.raises(ValueError, match=f"!!{tag}"):
        resolve(f"tag:yaml.org,2002:{tag}", text, plain=True)


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("on", "true"),
        ("n", "false"),
        ("0x10", "16"),
        ("1.0", "1"),
        ("1.10", "1.1"),
        (".5", "0.5"),
        ("1e2", "100"),
        ("100000.5", "100000.5"),
        ("123456.0", "123456"),
        ("1234567.0", "1.234567e+06"),
        ("1000000.0", "1e+06"),
        ("16777217.5", "1.6777218e+07"),
        ("0.0001", "0.0001"),
        ("0.00001", "1e-05"),
        ("-0.0", "-0"),
        ("1e30", "1e+30"),
        ("12345678901", "12345678901"),
        ("123456789012345678901", "1.2345679e+20"),
        ("2001-12-14", "2001-12-14"),
        # Not recorded: kubectl refuses an infinity, too, but a float64 one only.
        ("1e300", "+Inf"),
    ],
)
def test_a_key_is_a_string_as_kubectl_writes_it(text: str, key: str) -> None:
    assert key_text(resolve_plain(text)) == key


@pytest.mark.parametrize("value", [None, [], {}])
def test_a_key_that_is_no_plain_value_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match="key"):
        key_text(value)
