"""Values files as Helm reads them: YAML 1.1 by go-yaml 2, then through JSON.

Helm 4.3.1 reads a values file with sigs.k8s.io/yaml 1.6.0, document by document, and merges the
documents. What that means, where PyYAML or YAML 1.2 would give something else:

- `y`, `yes`, `on` and their opposites are booleans, also as keys: `y: 1` is the key `true`.
- `0755` is 493 and so is `0o755`; `08` is 8; `0b11`, `0x1f` and `1_000` are numbers; `1:30` and
  timestamps are text; `1e400` is text.
- Keys become text: `1: a` is the key `"1"`, `1.10: a` is the key `"1.1"`. A null key is an error.
- A key given twice is no error, the later one wins; a merge key (`<<`) counts at its own place,
  so it overrides keys before it.
- `.nan` and `.inf` are errors, as JSON has neither. (Here also where a later key overrides them,
  as are null keys.)

Read off the sources named above and compared with `helm template` (tests/property/test_values.py).
Values may be secret, so no error says anything of the content, only where it is.
"""

from __future__ import annotations

import base64
import binascii
import math
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NoReturn

import yaml

from helmops.errors import ValuesError

#: How deep values may nest. Helm stops at 10,000; no chart comes near this.
MAX_DEPTH = 200

_TAG = "tag:yaml.org,2002:"
_STR, _BOOL, _INT, _FLOAT, _NULL, _BINARY, _MERGE, _TIMESTAMP = (
    _TAG + name for name in ("str", "bool", "int", "float", "null", "binary", "merge", "timestamp")
)
_RESOLVED_TAGS = frozenset({_STR, _BOOL, _INT, _FLOAT, _NULL, _TIMESTAMP})

_WORDS: dict[str, tuple[str, Any]] = {
    word: (tag, value)
    for tag, value, stems in (
        (_BOOL, True, ("yes", "true", "on")),
        (_BOOL, False, ("no", "false", "off")),
        (_NULL, None, ("null",)),
    )
    for stem in stems
    for word in (stem, stem.capitalize(), stem.upper())
}
_WORDS |= dict.fromkeys(("y", "Y"), (_BOOL, True))
_WORDS |= dict.fromkeys(("n", "N"), (_BOOL, False))
_WORDS |= dict.fromkeys(("", "~"), (_NULL, None))
_WORDS |= dict.fromkeys((".nan", ".NaN", ".NAN"), (_FLOAT, math.nan))
_WORDS |= {
    sign + word: (_FLOAT, value)
    for sign, value in (("", math.inf), ("+", math.inf), ("-", -math.inf))
    for word in (".inf", ".Inf", ".INF")
}
_WORDS["<<"] = (_MERGE, "<<")

_INTEGER = re.compile(
    r"(?P<sign>[-+]?+)(?:0[xX](?P<hex>[0-9a-fA-F]++)|0[bB](?P<binary>[01]++)"
    r"|0[oO]?+(?P<octal>[0-7]++)|(?P<decimal>0|[1-9][0-9]*+))"
)
_BASES = {"hex": 16, "binary": 2, "octal": 8, "decimal": 10}
_SIGNED_BINARY = re.compile(r"0b([-+][01]++)")
_DECIMAL = re.compile(r"[-+]?+(?:\.[0-9]++|[0-9]++(?:\.[0-9]*+)?+)(?:[eE][-+]?+[0-9]++)?+")
_POINT_FIRST = re.compile(r"\.[0-9](?:_?+[0-9])*+(?:[eE][-+]?+[0-9](?:_?+[0-9])*+)?+")
_DATE = re.compile(
    r"[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}"
    r"(?:[Tt][0-9]{1,2}:[0-9]{1,2}:[0-9]{1,2}(?:\.[0-9]++)?+(?:Z|[-+][0-9]{2}:[0-9]{2})"
    r"| ++[0-9]{1,2}:[0-9]{1,2}:[0-9]{1,2}(?:\.[0-9]++)?+)?+"
)


def parse_values(text: bytes | str, where: str) -> dict[str, Any]:
    """The values of a file, as Helm would see them; empty for an empty file.

    `where` names the file in errors. Raises ValuesError with `file:line`, never with content.
    """
    data = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
    merged: dict[str, Any] = {}
    for line, document in _documents(data, where):
        merged = _merged(merged, _Reader(where, line).read(document))
    return merged


def _merged(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        present = merged.get(key)
        if isinstance(value, dict) and isinstance(present, dict):
            merged[key] = _merged(present, value)
        else:
            merged[key] = value
    return merged


def _documents(data: bytes, where: str) -> Iterator[tuple[int, bytes]]:
    """Documents with the number of lines before them. Helm cuts at lines that begin with `---`,
    whatever they are in, and lets nothing but a comment follow.
    """
    document: list[bytes] = []
    start = 0
    for number, line in enumerate(data.removesuffix(b"\n").split(b"\n")):
        if line.startswith(b"---"):
            rest = line[3:].strip()
            if rest and not rest.startswith(b"#"):
                raise ValuesError(
                    "something follows a document separator",
                    where=f"{where}:{number + 1}",
                    next_step="put what follows `---` on a line of its own",
                )
            if document:
                yield start, b"\n".join([*document, b""])
                document = []
                start = number + 1
                continue
        document.append(line.removesuffix(b"\r"))
    yield start, b"\n".join([*document, b""])


@dataclass(slots=True, eq=False)
class _Node:
    """A piece of a document, before aliases and tags are looked at."""

    kind: str
    line: int
    tag: str | None = None
    text: str = ""
    is_plain: bool = False
    children: list[_Node] = field(default_factory=list)
    target: _Node | None = None


class _Reader:
    """Reads one document."""

    def __init__(self, where: str, first_line: int) -> None:
        self._where = where
        self._first_line = first_line
        self._anchors: dict[str, _Node] = {}
        self._open_aliases: set[int] = set()
        self._decoded = 0
        self._decoded_in_aliases = 0

    def read(self, document: bytes) -> dict[str, Any]:
        try:
            events = yaml.parse(document, Loader=yaml.CSafeLoader)
            root = self._compose(events)
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            self._refuse(f"not YAML: {error.problem}", mark.line if mark else 0)
        except yaml.YAMLError as error:
            reason = getattr(error, "reason", "it cannot be read")
            self._refuse(f"not YAML: {reason}", 0)
        except UnicodeDecodeError:
            self._refuse("not YAML: it is not UTF-8", 0)
        if root is None:
            return {}
        values = self._decode(root, depth=0)
        if values is None:
            return {}
        if not isinstance(values, dict):
            kind = "a list" if isinstance(values, list) else "a single value"
            self._refuse(f"values have to be a mapping, and this is {kind}", root.line)
        return values

    def _refuse(self, what: str, line: int) -> NoReturn:
        raise ValuesError(what, where=f"{self._where}:{self._first_line + line + 1}")

    # ------------------------------------------------------------------ events to nodes

    def _compose(self, events: Iterator[Any]) -> _Node | None:
        """The first document's root. Ends with it, as Helm does; the rest of the stream stays
        unread.
        """
        stack: list[_Node] = []
        for event in events:
            line = event.start_mark.line
            match event:
                case yaml.DocumentEndEvent() | yaml.StreamEndEvent():
                    return None
                case yaml.SequenceEndEvent() | yaml.MappingEndEvent():
                    node = stack.pop()
                    if not stack:
                        return self._finished(node, events)
                    continue
                case yaml.ScalarEvent():
                    node = _Node("scalar", line, event.tag, event.value, event.implicit[0])
                case yaml.AliasEvent():
                    target = self._anchors.get(event.anchor or "")
                    if target is None:
                        self._refuse("an alias (`*`) for which there is no anchor", line)
                    node = _Node("alias", line, target=target)
                case yaml.SequenceStartEvent():
                    node = _Node("list", line, event.tag)
                case yaml.MappingStartEvent():
                    node = _Node("mapping", line, event.tag)
                case _:
                    continue
            if node.kind != "alias" and event.anchor:
                self._anchors[event.anchor] = node
            if stack:
                stack[-1].children.append(node)
            if node.kind in ("list", "mapping"):
                stack.append(node)
                if len(stack) > MAX_DEPTH:
                    self._refuse(f"values nest deeper than {MAX_DEPTH} levels", line)
            elif not stack:
                return self._finished(node, events)
        return None

    @staticmethod
    def _finished(root: _Node, events: Iterator[Any]) -> _Node:
        # The end of the document is read too: an error there is an error for Helm.
        next(events, None)
        return root

    # ------------------------------------------------------------------ nodes to values

    def _decode(self, node: _Node, depth: int, *, is_key: bool = False) -> Any:
        self._count(node)
        if depth > MAX_DEPTH:
            self._refuse(f"values nest deeper than {MAX_DEPTH} levels", node.line)
        match node.kind:
            case "alias":
                return self._decode_alias(node, depth, is_key)
            case "list":
                return [self._decode(child, depth + 1) for child in node.children]
            case "mapping":
                values: dict[str, Any] = {}
                self._decode_mapping(node, values, {}, depth)
                return values
            case _:
                value = self._decode_scalar(node)
                if isinstance(value, float) and not math.isfinite(value) and not is_key:
                    self._refuse("a number that is not finite; JSON has none", node.line)
                return value

    def _count(self, node: _Node) -> None:
        """Stop a document that is mostly aliases, by go-yaml's own measure."""
        self._decoded += 1
        if not self._open_aliases:
            return
        self._decoded_in_aliases += 1
        if self._decoded_in_aliases <= 100 or self._decoded <= 1000:
            return
        low, high = 400_000, 4_000_000
        share = min(max((self._decoded - low) / (high - low), 0.0), 1.0)
        if self._decoded_in_aliases / self._decoded > 0.99 - 0.89 * share:
            self._refuse("the document expands to too much by its aliases", node.line)

    def _decode_alias(self, node: _Node, depth: int, is_key: bool) -> Any:
        if id(node) in self._open_aliases or node.target is None:
            self._refuse("an anchor's value contains itself", node.line)
        self._open_aliases.add(id(node))
        try:
            return self._decode(node.target, depth + 1, is_key=is_key)
        finally:
            self._open_aliases.discard(id(node))

    def _decode_mapping(
        self, node: _Node, values: dict[str, Any], keys: dict[str, Any], depth: int
    ) -> None:
        """Put the entries of a mapping into `values`; `keys` has each key as YAML had it."""
        pairs = zip(node.children[::2], node.children[1::2], strict=True)
        for key_node, value_node in pairs:
            if _is_merge(key_node):
                self._merge(value_node, values, keys, depth)
                continue
            key = self._decode(key_node, depth + 1, is_key=True)
            name = self._name(key, key_node)
            present = keys.get(name, key)
            if present != key or type(present) is not type(key):
                # `1` beside `"1"`: Helm takes one of the two, now this and now that.
                self._refuse("two keys that are the same as text", key_node.line)
            keys[name] = key
            values[name] = self._decode(value_node, depth + 1)

    def _merge(self, node: _Node, values: dict[str, Any], keys: dict[str, Any], depth: int) -> None:
        """A merge key's value: a mapping, or a list of them, of which the first wins."""
        sources = reversed(node.children) if node.kind == "list" else iter((node,))
        for source in sources:
            mapping = source.target if source.kind == "alias" else source
            if mapping is None or mapping.kind != "mapping":
                self._refuse("a merge key (`<<`) wants a mapping or a list of them", source.line)
            if depth > MAX_DEPTH:
                self._refuse(f"values nest deeper than {MAX_DEPTH} levels", source.line)
            if source.kind == "alias":
                self._count(source)
                if id(source) in self._open_aliases:
                    self._refuse("an anchor's value contains itself", source.line)
                self._open_aliases.add(id(source))
            try:
                self._count(mapping)
                self._decode_mapping(mapping, values, keys, depth + 1)
            finally:
                self._open_aliases.discard(id(source))

    def _name(self, key: Any, node: _Node) -> str:
        if isinstance(key, str):
            return key
        if isinstance(key, bool):
            return "true" if key else "false"
        if isinstance(key, int) and key < 2**63:
            return str(key)
        if not isinstance(key, float):
            self._refuse("a key has to be text, a number or a boolean", node.line)
        return _float_name(key)

    def _decode_scalar(self, node: _Node) -> Any:
        if node.tag is None and not node.is_plain:
            return node.text
        tag = node.tag or ""
        if tag == _BINARY:
            try:
                raw = base64.b64decode(re.sub(r"[\r\n]", "", node.text), validate=True)
            except (binascii.Error, ValueError):
                self._refuse("a !!binary value is not base64", node.line)
            return raw.decode("utf-8", "replace")
        if tag and tag not in _RESOLVED_TAGS:
            return node.text
        found: str = _STR
        value: Any = node.text
        if tag != _STR:
            found, value = _resolve(node.text)
        if tag == _FLOAT and found == _INT and value < 2**63:
            found, value = _FLOAT, float(value)
        if tag == _TIMESTAMP and _DATE.fullmatch(node.text):
            found = _TIMESTAMP
        if tag not in ("", found):
            self._refuse("a value does not fit its explicit tag (`!!`)", node.line)
        return value


def _is_merge(node: _Node) -> bool:
    return node.kind == "scalar" and node.text == "<<" and (node.is_plain or node.tag == _MERGE)


def _resolve(text: str) -> tuple[str, Any]:
    """Tag and value of a plain scalar."""
    known = _WORDS.get(text)
    if known is not None:
        return known
    if text[0] == ".":
        return _as_float(text, text) if _POINT_FIRST.fullmatch(text) else (_STR, text)
    if text[0] in "+-0123456789":
        return _as_number(text)
    return _STR, text


def _as_number(text: str) -> tuple[str, Any]:
    digits = text.replace("_", "")
    found = _INTEGER.fullmatch(digits)
    if found and found.lastgroup:
        magnitude = int(found[found.lastgroup], _BASES[found.lastgroup])
        number = -magnitude if found["sign"] == "-" else magnitude
        # Without a sign up to 64 bits unsigned; else one bit less.
        if -(2**63) <= number < 2**63 or (number < 2**64 and not found["sign"]):
            return _INT, number
    signed = _SIGNED_BINARY.fullmatch(digits)
    if signed and abs(int(signed[1], 2)) < 2**63:
        return _INT, int(signed[1], 2)
    return _as_float(digits, text)


def _as_float(digits: str, text: str) -> tuple[str, Any]:
    if text[0] != "." and not _DECIMAL.fullmatch(digits):
        return _STR, text
    number = float(digits)
    return (_FLOAT, number) if math.isfinite(number) else (_STR, text)


def _float_name(key: float) -> str:
    """A float as a key: the shortest decimal that is the same 32-bit float, as Go writes it."""
    if math.isnan(key):
        return ".nan"
    short = _as_32_bits(key)
    if math.isinf(short):
        return "-.inf" if short < 0 else ".inf"
    shown = next(
        text
        for text in (f"{short:.{precision}e}" for precision in range(17))
        if _as_32_bits(float(text)) == short
    )
    mantissa, exponent = shown.split("e")
    power = int(exponent)
    if power < -4 or power >= 6:
        return f"{mantissa}e{'-' if power < 0 else '+'}{abs(power):02d}"
    digits = len(mantissa.lstrip("-").replace(".", ""))
    return f"{float(shown):.{max(digits - 1 - power, 0)}f}"


def _as_32_bits(number: float) -> float:
    (short,) = struct.unpack("f", struct.pack("f", number))
    return float(short)
