"""What a scalar of YAML is, in the words of the resolver that kubectl uses.

That is goyaml.v2 in sigs.k8s.io/yaml, followed by JSON: YAML 1.1's booleans, octal and
underscores; no timestamps, no base 60, no infinities. Seen with kubectl 1.37.
"""

from __future__ import annotations

import base64
import binascii
import math
import re
import struct
from typing import Any, Final

_TAG = "tag:yaml.org,2002:"

_WORDS: Final[dict[str, object]] = {
    "": None,
    "~": None,
    "null": None,
    "Null": None,
    "NULL": None,
    **dict.fromkeys(("y", "Y", "yes", "Yes", "YES", "on", "On", "ON"), True),
    **dict.fromkeys(("n", "N", "no", "No", "NO", "off", "Off", "OFF"), False),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_NOT_FINITE = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_INTEGER = re.compile(r"([-+]?)(?:0[xX]([0-9a-fA-F]+)|0[bB]([01]+)|0[oO]?([0-7]+)|(0|[1-9][0-9]*))")
_BETWEEN_DIGITS = re.compile(r"(?<=[0-9])_(?=[0-9])")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
#: 64 binary digits with sign and prefix; beyond, only floats can be meant.
_LONGEST_INTEGER: Final = 67
_INT64 = range(-(2**63), 2**63)


def resolve(tag: str | None, text: str, *, plain: bool) -> Any:
    """The value of a scalar. Raises ValueError with a sentence."""
    if tag is None:
        return resolve_plain(text) if plain else text
    if not tag.startswith(_TAG):
        return text
    match tag.removeprefix(_TAG):
        case "binary":
            try:
                decoded = base64.b64decode("".join(text.split()), validate=True)
            except (binascii.Error, ValueError):
                raise ValueError("a value tagged !!binary is not base64") from None
            return decoded.decode(errors="replace")
        case "int" | "float" | "bool" | "null" as wanted:
            value = resolve_plain(text)
            if not isinstance(value, _TYPES[wanted]) or (
                wanted != "bool" and isinstance(value, bool)
            ):
                raise ValueError(f"a value tagged !!{wanted} is none")
            return value
        case _:
            return text


_TYPES: Final[dict[str, tuple[type, ...]]] = {
    "int": (int,),
    "float": (int, float),
    "bool": (bool,),
    "null": (type(None),),
}


def resolve_plain(text: str) -> Any:
    """The value of a scalar without quotes or tag: str, int, float, bool or None.

    Raises ValueError for infinities and NaN, with a sentence.
    """
    if text in _WORDS:
        return _WORDS[text]
    if text[0] not in "0123456789+-.":
        return text
    if _NOT_FINITE.fullmatch(text):
        raise ValueError(f"{text} cannot be held by JSON; put it in quotes to have it as text")
    # Underscores are for reading; a number that begins with a dot has them only between digits.
    digits = _BETWEEN_DIGITS.sub("", text) if text[0] == "." else text.replace("_", "")
    integer = _INTEGER.fullmatch(digits) if len(digits) <= _LONGEST_INTEGER else None
    if integer:
        sign, hexadecimal, binary, octal, decimal = integer.groups()
        number = int(hexadecimal or binary or octal or decimal, _base(integer))
        if number < 2**64:
            return -number if sign == "-" else number
    if _FLOAT.fullmatch(digits):
        value = float(digits)
        return text if math.isinf(value) else value
    return text


def json_value(value: Any) -> Any:
    """What is left of a value on its way through JSON and the API server, as kubectl sends it.

    A whole number is an integer however it is written (`1.0`), beyond 64 bits it is a float.
    """
    if isinstance(value, float) and value.is_integer() and int(value) in _INT64:
        return int(value)
    if isinstance(value, int) and value not in _INT64:
        return float(value)
    return value


def _base(integer: re.Match[str]) -> int:
    return (16, 2, 8, 10)[next(i for i in range(4) if integer.group(i + 2) is not None)]


def key_text(value: Any) -> str:
    """A key as JSON has it. Raises ValueError with a sentence."""
    match value:
        case str():
            return value
        case bool():
            return "true" if value else "false"
        case int():
            return str(value)
        case float():
            return _float_key(value)
        case None:
            raise ValueError("a key is empty or null; put it in quotes to have it as text")
        case _:
            raise ValueError("a key must be a plain value, not a mapping or a list")


def _float_key(value: float) -> str:
    """As Go's FormatFloat(value, 'g', -1, 32) writes it, which kubectl uses for keys."""
    try:
        single = struct.unpack("<f", struct.pack("<f", value))[0]
    except OverflowError:
        return "+Inf" if value > 0 else "-Inf"
    for precision in range(9):
        text = f"{single:.{precision}e}"
        if struct.unpack("<f", struct.pack("<f", float(text)))[0] == single:
            break
    mantissa, exponent = text.split("e")
    if -4 <= int(exponent) < 6:
        return f"{float(text):.{max(precision - int(exponent), 0)}f}"
    return f"{mantissa}e{exponent[0]}{int(exponent[1:]):02d}"
