"""YAML text to documents that know their lines.

Read as kubectl reads it (seen with kubectl 1.37): YAML 1.1, so that `yes` and `on` are booleans and
`0755` is 493; but timestamps and `12:30:45` stay strings, `1e3` is a number, and all is what JSON
can hold. Other than kubectl, a key that is given twice is an error, and a text that unfolds beyond
bounds (size, depth, aliases of aliases) is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from json import JSONDecodeError
from typing import Any, Final

from helmops.errors import DeclarationError
from helmops.model.nodes import Node, Path, TextError, YamlReader, dotted, json_roots

__all__ = [
    "MAX_SIZE",
    "Document",
    "Documents",
    "Path",
    "dotted",
    "read_documents",
    "rebuilt_document",
]

#: Characters in one file.
MAX_SIZE: Final = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Document:
    """One document: plain data (dict, list, str, int, float, bool, None), and where it stands.

    `line` counts from 1. Data are not shared: two places never hold the same dict or list.
    """

    data: Any = field(repr=False)
    file: str
    line: int
    _root: Node | Callable[[], Node] = field(repr=False, compare=False)

    @property
    def where(self) -> str:
        """`file:line` of its beginning."""
        return f"{self.file}:{self.line}"

    def line_of(self, path: Path) -> int:
        """Line of the key or item at a path; of the nearest thing above where there is none."""
        node, line = self._root if isinstance(self._root, Node) else self._root(), self.line
        for step in path:
            if isinstance(node.value, dict) and isinstance(step, str) and step in node.value:
                entry = node.value[step]
                node, line = entry.node, entry.line
            elif (
                isinstance(node.value, list)
                and isinstance(step, int)
                and 0 <= step < len(node.value)
            ):
                node = node.value[step]
                line = node.line
            else:
                break
        return line

    def where_is(self, path: Path) -> str:
        """`file:line` of the key or item at a path."""
        return f"{self.file}:{self.line_of(path)}"


@dataclass(frozen=True, slots=True)
class Documents:
    """What a file holds. Where `complete` is false it could not be read to its end: documents may
    be missing. All that is wrong is in `errors`.
    """

    documents: tuple[Document, ...] = ()
    errors: tuple[DeclarationError, ...] = ()
    complete: bool = True


def read_documents(file: str, text: str) -> Documents:
    """Read the YAML or JSON documents of a file; a `kind: List` gives its items.

    Raises nothing: all errors are in what is returned. `file` is what people are told.
    """
    text = text.removeprefix("\ufeff")
    if len(text) > MAX_SIZE:
        error = DeclarationError(
            f"the file is larger than {MAX_SIZE // 1024 // 1024} MiB",
            where=f"{file}:1",
            next_step="declarations of this size do not fit into a cluster either; split it",
        )
        return Documents(errors=(error,), complete=False)
    reader = YamlReader(file)
    documents: list[Document] = []
    complete = True
    try:
        for root in _roots(reader, text):
            documents += _documents(file, root)
    except TextError as unreadable:
        reader.errors.append(unreadable.error)
        complete = False
    return Documents(tuple(documents), tuple(reader.errors), complete)


def rebuilt_document(data: Any, file: str, line: int, text: Callable[[], str]) -> Document:
    """A document that something else made of the one on `line` of a file: its own data, the other's
    places. `text` gives the file's text, and is asked only when a place is wanted.
    """

    def root() -> Node:
        for document in read_documents(file, text()).documents:
            if document.line == line and isinstance(document._root, Node):
                return document._root
        return Node(line, None)

    return Document(data, file, line, root)


def _roots(reader: YamlReader, text: str) -> Iterator[Node]:
    if text.lstrip()[:1] == "{":
        try:
            yield from list(json_roots(reader, text))
        except JSONDecodeError:
            # A flow mapping of YAML begins like this, too.
            reader.errors.clear()
        else:
            return
    yield from reader.read(text)


def _documents(file: str, root: Node) -> Iterator[Document]:
    if root.value is None:
        return
    entries = root.value if isinstance(root.value, dict) else {}
    kind, items = entries.get("kind"), entries.get("items")
    if (
        kind
        and items
        and isinstance(kind.node.value, str)
        and kind.node.value.endswith("List")
        and isinstance(items.node.value, list)
    ):
        for item in items.node.value:
            yield from _documents(file, item)
        return
    yield Document(_plain(root), file, root.line, root)


def _plain(node: Node) -> Any:
    """Unfold to plain data; the bounds on weight and height hold already."""
    if isinstance(node.value, dict):
        return {key: _plain(entry.node) for key, entry in node.value.items()}
    if isinstance(node.value, list):
        return [_plain(item) for item in node.value]
    return node.value
