"""Values on their way into helm, and manifests on their way out.

Helm reads YAML 1.1 as go-yaml does, whatever it is given. Values are written as JSON that means the
same there; manifests are read with go-yaml's idea of what a plain scalar is, not PyYAML's.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from helmops.errors import HelmError, TemplateFailed

#: Characters that JSON may hold raw and YAML not: go-yaml refuses some and folds others (line
#: breaks to YAML) into a space.
_NOT_RAW = re.compile("[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]")


def encode_values(values: Mapping[str, Any]) -> bytes:
    """Values as one JSON document that YAML 1.1 reads as the same values.

    Raises TemplateFailed for a value that JSON has not (a NaN, a date); its text is not shown.
    """
    try:
        text = json.dumps(values, ensure_ascii=False, allow_nan=False)
        # Not `ensure_ascii`: go-yaml refuses the surrogate pairs that JSON escapes with.
        text = _NOT_RAW.sub(lambda found: f"\\u{ord(found[0]):04x}", text)
        return text.encode()
    except (TypeError, ValueError) as error:
        raise TemplateFailed(
            "the values hold something that JSON cannot: a NaN, an infinity, a date or broken text",
            next_step="quote it",
        ) from error


def parse_manifest(text: str, where: str) -> tuple[dict[str, Any], ...]:
    """The objects of a manifest, in its order; a List is the objects in it.

    An object without a namespace is left without: whether its kind has one, only the cluster knows.
    Raises HelmError naming `where`, without content.
    """
    try:
        documents = list(yaml.load_all(text, Loader=_GoYaml))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f" at line {mark.line + 1}" if mark else ""
        raise HelmError(
            f"the manifest is not YAML{line}", where=where, next_step="see `helm get manifest`"
        ) from None
    return tuple(item for document in documents for item in _flattened(document))


def _flattened(document: Any) -> Iterator[dict[str, Any]]:
    if not isinstance(document, dict) or not document.get("kind"):
        return
    items = document.get("items")
    if str(document["kind"]).endswith("List") and isinstance(items, list):
        for item in items:
            yield from _flattened(item)
    else:
        yield document


class _GoYaml(yaml.CSafeLoader):
    """What go-yaml makes of plain scalars: no timestamps, no base 60, `y` and `n` are booleans."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[str, Any]:  # type: ignore[override]
        self.flatten_mapping(node)
        pairs = (
            (self.construct_object(key, deep=True), self.construct_object(value, deep=deep))
            for key, value in node.value
        )
        return {_key(key): value for key, value in pairs}


def _key(key: Any) -> str:
    """JSON has only text for keys; `true: x` becomes the key "true"."""
    if isinstance(key, str):
        return key
    if isinstance(key, bool):
        return "true" if key else "false"
    return "null" if key is None else str(key)


_TRUE = ("y", "yes", "true", "on")
_FALSE = ("n", "no", "false", "off")
_BOOL = {
    spelling: word in _TRUE
    for word in (*_TRUE, *_FALSE)
    for spelling in (word, word.capitalize(), word.upper())
}
_INT = r"[-+]?(?:0[xX][0-9a-fA-F_]+|0[bB][01_]+|0[oO]?[0-7_]+|[0-9][0-9_]*)"
_FLOAT = (
    r"[-+]?(?:\.[0-9]+|[0-9][0-9_]*(?:\.[0-9_]*)?)(?:[eE][-+]?[0-9]+)?"
    r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)"
)


def _construct_bool(loader: _GoYaml, node: yaml.ScalarNode) -> bool:
    return _BOOL[loader.construct_scalar(node)]


def _construct_int(loader: _GoYaml, node: yaml.ScalarNode) -> int:
    text = loader.construct_scalar(node).replace("_", "").lower()
    sign = -1 if text.startswith("-") else 1
    digits = text.lstrip("+-")
    if digits.startswith("0x"):
        return sign * int(digits, 16)
    if digits.startswith("0b"):
        return sign * int(digits, 2)
    if digits.startswith("0") and len(digits) > 1 and not set(digits[1:]) & set("89"):
        return sign * int(digits.replace("o", ""), 8)
    return sign * int(digits)


def _construct_float(loader: _GoYaml, node: yaml.ScalarNode) -> float:
    text = loader.construct_scalar(node).replace("_", "").lower()
    if text.endswith(".inf"):
        return -math.inf if text.startswith("-") else math.inf
    return math.nan if text == ".nan" else float(text)


for _tag, _pattern, _first in (
    ("bool", "|".join(_BOOL), "yYnNtTfFoO"),
    ("int", _INT, "-+0123456789"),
    ("float", _FLOAT, "-+0123456789."),
    ("null", "~|null|Null|NULL|", "~nN\0"),
    ("merge", "<<", "<"),
):
    _GoYaml.add_implicit_resolver(
        f"tag:yaml.org,2002:{_tag}",
        re.compile(f"^(?:{_pattern})$"),
        ["" if c == "\0" else c for c in _first],
    )
_GoYaml.add_constructor("tag:yaml.org,2002:bool", _construct_bool)
_GoYaml.add_constructor("tag:yaml.org,2002:int", _construct_int)
_GoYaml.add_constructor("tag:yaml.org,2002:float", _construct_float)
