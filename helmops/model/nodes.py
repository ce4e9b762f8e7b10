"""Text of YAML and JSON to trees of nodes that know their lines, within bounds."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from json import JSONDecodeError
from json.decoder import scanstring  # type: ignore[attr-defined]
from typing import Any, Final

import yaml

from helmops.errors import DeclarationError
from helmops.model.scalars import json_value, key_text, resolve, resolve_plain

#: Mappings and sequences within each other.
MAX_DEPTH: Final = 100
#: Nodes and characters that the aliases of one file may unfold to.
MAX_ALIASED: Final = 1024 * 1024

#: A place in a document: keys of mappings, positions in sequences.
Path = Sequence[str | int]

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def dotted(path: Path) -> str:
    """A path for people: `spec.valuesFrom[0].name`, a key with dots in quotes."""
    text = ""
    for step in path:
        if isinstance(step, int):
            text += f"[{step}]"
        elif re.fullmatch(r"[A-Za-z0-9_-]+", step):
            text += f".{step}" if text else step
        else:
            text += f'["{step}"]'
    return text


@dataclass(slots=True, eq=False)
class Node:
    """A value and the line that it begins on (1 for the first).

    `value` is a plain value, or a list of nodes, or a dict of entries; `weight` counts nodes and
    characters with all aliases unfolded, `height` the levels beneath.
    """

    line: int
    value: Any
    weight: int = 1
    height: int = 0


@dataclass(slots=True)
class Entry:
    """A value in a mapping, and the line of its key; `merged` when `<<` put it there."""

    line: int
    node: Node
    merged: bool = False


class TextError(Exception):
    """Ends the reading of a file."""

    def __init__(self, error: DeclarationError) -> None:
        super().__init__(str(error))
        self.error = error


#: In place of a key: `<<`, and a key that was wrong.
_MERGE: Final = object()
_WRONG: Final = object()


@dataclass(slots=True)
class _Frame:
    """A mapping or sequence that is being read; `key` waits for its value."""

    node: Node
    anchor: str | None
    key: object = None
    key_line: int = 0


class YamlReader:
    """Builds nodes from the events of the YAML parser, without recursion."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.errors: list[DeclarationError] = []
        self._stack: list[_Frame] = []
        self._anchors: dict[str, Node | None] = {}
        self._aliased = 0

    def read(self, text: str) -> Iterator[Node]:
        """The root of each document, as soon as it is read."""
        try:
            for event in yaml.parse(text, Loader=_LOADER):
                root = self._take(event)
                if root is not None:
                    yield root
        except yaml.MarkedYAMLError as error:
            raise self._unreadable_yaml(error, text) from None
        except (yaml.reader.ReaderError, UnicodeEncodeError):
            raise self._unreadable_character(text) from None

    def _take(self, event: Any) -> Node | None:
        line = event.start_mark.line + 1
        match event:
            case yaml.DocumentStartEvent():
                self._anchors.clear()
            case yaml.ScalarEvent():
                return self._scalar(event, line)
            case yaml.AliasEvent():
                return self._add(self._alias(event.anchor, line), line)
            case yaml.MappingStartEvent() | yaml.SequenceStartEvent():
                self._open(event, line)
            case yaml.MappingEndEvent() | yaml.SequenceEndEvent():
                frame = self._stack.pop()
                if frame.anchor:
                    self._anchors[frame.anchor] = frame.node
                return self._add(frame.node, frame.node.line)
            case _:
                pass
        return None

    def _scalar(self, event: Any, line: int) -> Node | None:
        if (
            self._wants_key()
            and event.value == "<<"
            and not event.style
            and event.tag in (None, "tag:yaml.org,2002:merge")
        ):
            self._stack[-1].key, self._stack[-1].key_line = _MERGE, line
            return None
        try:
            value = resolve(event.tag, event.value, plain=not event.style)
            value = value if self._wants_key() else json_value(value)
        except ValueError as error:
            self._complain(str(error), line)
            value = None
        node = Node(line, value, 1 + len(event.value))
        if event.anchor:
            self._anchors[event.anchor] = node
        return self._add(node, line)

    def _alias(self, anchor: str | None, line: int) -> Node:
        if anchor is None or anchor not in self._anchors:
            raise self._unreadable(f"the alias `*{anchor}` has no anchor before it", line)
        node = self._anchors[anchor]
        if node is None:
            raise self._unreadable(f"the alias `*{anchor}` stands within its own anchor", line)
        self._aliased += node.weight
        if self._aliased > MAX_ALIASED:
            raise self._unreadable("the aliases unfold to more than a declaration can hold", line)
        if len(self._stack) + node.height > MAX_DEPTH:
            raise self.too_deep(line)
        return node

    def _open(self, event: Any, line: int) -> None:
        if self._wants_key():
            raise self._unreadable(
                "a key must be a plain value, not a mapping or a list",
                line,
                "`{{ … }}` of templates means nothing here",
            )
        if len(self._stack) >= MAX_DEPTH:
            raise self.too_deep(line)
        is_mapping = isinstance(event, yaml.MappingStartEvent)
        if event.anchor:
            self._anchors[event.anchor] = None
        self._stack.append(_Frame(Node(line, {} if is_mapping else []), event.anchor))

    def _wants_key(self) -> bool:
        frame = self._stack[-1] if self._stack else None
        return frame is not None and isinstance(frame.node.value, dict) and frame.key is None

    def _add(self, node: Node, line: int) -> Node | None:
        """Put a finished node where it belongs; a document's root is given back."""
        if not self._stack:
            return node
        frame = self._stack[-1]
        parent = frame.node
        parent.weight += node.weight
        if isinstance(parent.value, list):
            parent.value.append(node)
        elif frame.key is None:
            frame.key, frame.key_line = self._key(node, line), line
            return None
        else:
            self._put(frame, node)
            frame.key = None
        parent.height = max(parent.height, node.height + 1)
        return None

    def _key(self, node: Node, line: int) -> object:
        try:
            return key_text(node.value)
        except ValueError as error:
            self._complain(str(error), line)
            return _WRONG

    def _put(self, frame: _Frame, node: Node) -> None:
        entries = frame.node.value
        if frame.key is _MERGE:
            self._merge(entries, node, frame.key_line)
        elif isinstance(frame.key, str):
            first = entries.get(frame.key)
            if first is not None and not first.merged:
                self._complain_twice(frame.key, first.line, frame.key_line)
            entries[frame.key] = Entry(frame.key_line, node)

    def _merge(self, entries: dict[str, Entry], node: Node, line: int) -> None:
        """`<<` puts in entries where it stands; in a list of mappings the first one wins."""
        sources = node.value if isinstance(node.value, list) else [node]
        if not all(isinstance(source.value, dict) for source in sources):
            self._complain("`<<` takes a mapping or a list of mappings", line)
            return
        for source in reversed(sources):
            for key, entry in source.value.items():
                entries[key] = Entry(entry.line, entry.node, merged=True)

    def _here(self) -> str:
        path: list[str | int] = []
        for frame in self._stack:
            if isinstance(frame.node.value, list):
                path.append(len(frame.node.value))
            elif isinstance(frame.key, str):
                path.append(frame.key)
        return dotted(path)

    def _complain(self, what: str, line: int) -> None:
        self.errors.append(DeclarationError(what, where=f"{self.file}:{line}", field=self._here()))

    def _complain_twice(self, key: str, first: int, line: int) -> None:
        self.errors.append(
            DeclarationError(
                f"the key is given twice, first in line {first}",
                where=f"{self.file}:{line}",
                field=self._here(),
                next_step="remove one of the two",
            )
        )

    def _unreadable(self, what: str, line: int, next_step: str = "") -> TextError:
        return TextError(
            DeclarationError(
                what, where=f"{self.file}:{line}", field=self._here(), next_step=next_step
            )
        )

    def too_deep(self, line: int) -> TextError:
        return self._unreadable(f"more than {MAX_DEPTH} levels within each other", line)

    def _unreadable_yaml(self, error: yaml.MarkedYAMLError, text: str) -> TextError:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 1
        what = f"not YAML: {error.problem or 'cannot be parsed'}"
        if error.context:
            what += f" ({error.context})"
        lines = text.splitlines()
        nearby = lines[max(0, line - 2) : line]
        next_step = ""
        if any("{{" in near for near in nearby):
            next_step = "this looks like a template; declarations are read as they are"
        elif any("\t" in near for near in nearby):
            next_step = "YAML is indented with spaces, not with tabs"
        self._stack.clear()
        return self._unreadable(what, min(line, max(len(lines), 1)), next_step)

    def _unreadable_character(self, text: str) -> TextError:
        found = _NO_YAML.search(text)
        line = text.count("\n", 0, found.start()) + 1 if found else 1
        code = f"U+{ord(found.group()):04X}" if found else "of another encoding"
        self._stack.clear()
        return self._unreadable(
            f"not YAML: the character {code} is not allowed",
            line,
            "is this a text file in UTF-8?",
        )


_NO_YAML = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f\ud800-\udfff\ufffe\uffff]")

_JSON_SPACE = re.compile(r"[ \t\r\n]*")
_JSON_NUMBER = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][-+]?[0-9]+)?")
_JSON_WORDS: Final[dict[str, object]] = {"true": True, "false": False, "null": None}


def json_roots(reader: YamlReader, text: str) -> Iterator[Node]:
    """The values of a JSON text, one after another. Raises JSONDecodeError, TextError."""
    scan = _JsonScan(reader, text)
    scan.skip()
    while scan.at < len(text):
        yield scan.value([])
        scan.skip()


class _JsonScan:
    """Reads JSON to nodes. YAML's parser would refuse JSON's tabs and surrogate pairs."""

    def __init__(self, reader: YamlReader, text: str) -> None:
        self._reader = reader
        self._text = text
        self.at = 0
        self._line = 1
        self._counted = 0

    def skip(self) -> None:
        """To the next character that is no space."""
        found = _JSON_SPACE.match(self._text, self.at)
        self.at = found.end() if found else self.at

    def value(self, path: list[str | int]) -> Node:
        """The value here, and on behind it."""
        if len(path) > MAX_DEPTH:
            raise self._reader.too_deep(self._here())
        self.skip()
        line = self._here()
        match self._text[self.at : self.at + 1]:
            case "{":
                return self._object(line, path)
            case "[":
                return self._array(line, path)
            case '"':
                text, self.at = scanstring(self._text, self.at + 1, True)
                return Node(line, text, 1 + len(text))
        for word, value in _JSON_WORDS.items():
            if self._text.startswith(word, self.at):
                self.at += len(word)
                return Node(line, value)
        number = _JSON_NUMBER.match(self._text, self.at)
        if not number:
            raise JSONDecodeError("Expecting value", self._text, self.at)
        self.at = number.end()
        return Node(line, json_value(resolve_plain(number.group())))

    def _object(self, line: int, path: list[str | int]) -> Node:
        entries: dict[str, Entry] = {}
        self.at += 1
        while self._goes_on("}", first=not entries):
            self.skip()
            key_line = self._here()
            self._expect('"')
            key, self.at = scanstring(self._text, self.at, True)
            self.skip()
            self._expect(":")
            inner = [*path, key]
            if key in entries:
                self._reader.errors.append(
                    DeclarationError(
                        f"the key is given twice, first in line {entries[key].line}",
                        where=f"{self._reader.file}:{key_line}",
                        field=dotted(inner),
                        next_step="remove one of the two",
                    )
                )
            entries[key] = Entry(key_line, self.value(inner))
        return Node(line, entries)

    def _array(self, line: int, path: list[str | int]) -> Node:
        items: list[Node] = []
        self.at += 1
        while self._goes_on("]", first=not items):
            items.append(self.value([*path, len(items)]))
        return Node(line, items)

    def _goes_on(self, end: str, *, first: bool) -> bool:
        self.skip()
        if self._text.startswith(end, self.at):
            self.at += 1
            return False
        if not first:
            self._expect(",")
        return True

    def _expect(self, character: str) -> None:
        if not self._text.startswith(character, self.at):
            raise JSONDecodeError(f"Expecting {character}", self._text, self.at)
        self.at += 1

    def _here(self) -> int:
        self._line += self._text.count("\n", self._counted, self.at)
        self._counted = self.at
        return self._line
