"""An index, or a piece of one, read as a stream of YAML events: of any form, without recursion.

Events and not `yaml.load`, because that is recursive and ends the process on `[[[[…` (seen with
PyYAML 6.0.3: a segmentation fault at a depth of 100,000). Scalars are text: an unquoted
`appVersion: 1.10` stays 1.10 (Helm makes it 1.1).
"""

from __future__ import annotations

from typing import Any, Final

import yaml

from helmops.errors import SourceInvalid

#: Mappings and sequences within each other, in what is kept.
MAX_DEPTH: Final = 100

#: Plain texts that are null in YAML.
NULLS: Final = frozenset({"", "~", "null", "Null", "NULL"})

#: Stands for a chart that is not listed; None is one whose list is null.
ABSENT: Final = object()

_LOADER: Final = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def no_index(keys: list[str], where: str) -> SourceInvalid:
    shown = ", ".join(key[:40] for key in keys[:6])
    return SourceInvalid(
        "not a chart index: it has no apiVersion",
        where=where,
        next_step=f"its keys are {shown}" if shown else "it has no keys at all",
    )


def too_deep(where: str) -> SourceInvalid:
    return SourceInvalid(f"more than {MAX_DEPTH} levels within each other", where=where)


class IrregularError(Exception):
    """The events are not those of an index; the text says why, in YAML's words."""


#: A collection that is being built, the key that waits for its value, and its anchor.
class _Frame:
    __slots__ = ("anchor", "key", "merged", "node")

    def __init__(self, node: dict[str, Any] | list[Any], anchor: str | None) -> None:
        self.node = node
        self.anchor = anchor
        self.key: str | None = None
        self.merged: list[Any] = []


class Events:
    """Reads an index, or a block of it, event by event."""

    def __init__(self, text: bytes, where: str, levels: int = 0) -> None:
        """`levels` are the mappings and sequences that are around a piece."""
        self._where = where
        self._levels = levels
        self._parser = _LOADER(text)
        self._anchors: dict[str, Any] = {}
        self._line = 0

    def value_of(self, only: str) -> Any:
        """The value in a block that is one key and its value.

        Raises IrregularError, SourceInvalid.
        """
        try:
            self._begin()
            self._expect(yaml.MappingStartEvent)
            if self._key() != only:
                raise IrregularError("another key")
            value = self._build(self._next())
            self._expect(yaml.MappingEndEvent)
            self._end()
        except (yaml.YAMLError, UnicodeError) as error:
            raise IrregularError(str(error)) from None
        finally:
            self._parser.dispose()
        return value

    def chart_of_index(self, chart: str | None) -> tuple[Any, list[str]]:
        """The list of a chart, and the names of all. Raises SourceInvalid."""
        try:
            return self._chart_of_index(chart)
        except (yaml.YAMLError, UnicodeError) as error:
            raise SourceInvalid(
                f"the index cannot be read: {_problem(error)}", where=self._where
            ) from None
        finally:
            self._parser.dispose()

    def _chart_of_index(self, chart: str | None) -> tuple[Any, list[str]]:
        listed: Any = ABSENT
        names: list[str] = []
        keys: list[str] = []
        api_version: Any = None
        self._begin()
        root = self._next()
        if not isinstance(root, yaml.MappingStartEvent):
            raise SourceInvalid(
                "not a chart index: it is no mapping of keys to values", where=self._where
            )
        while (key := self._key()) is not None:
            if key in keys:
                raise self._twice(key)
            keys.append(key)
            value = self._next()
            if key == "entries" and isinstance(value, yaml.MappingStartEvent):
                listed, names = self._entries(chart, value.anchor)
            elif key == "entries" and not _is_null(value):
                raise SourceInvalid("the index's entries are not a mapping", where=self._where)
            elif key == "apiVersion":
                api_version = self._build(value)
            else:
                self._skip(value)
        self._end()
        if not isinstance(api_version, str) or not api_version:
            raise no_index(keys, self._where)
        return listed, names

    def _entries(self, chart: str | None, anchor: str | None) -> tuple[Any, list[str]]:
        if anchor is not None:
            self._anchors[anchor] = ABSENT
        listed: Any = ABSENT
        names: dict[str, None] = {}
        merged = _Frame({}, None)
        while (name := self._key()) is not None:
            if name == "<<":
                value = self._build(self._next())
                merged.merged.extend(value if isinstance(value, list) else [value])
                continue
            if name in names:
                raise self._twice(name)
            names[name] = None
            if name == chart:
                listed = self._build(self._next())
            else:
                self._skip(self._next())
        under = _with_merged(merged)
        names |= dict.fromkeys(under)
        return under.get(chart, ABSENT) if listed is ABSENT else listed, list(names)

    # Single events.

    def _next(self) -> Any:
        event = self._parser.get_event()
        self._line = event.start_mark.line + 1
        return event

    def _expect(self, kind: type[yaml.Event]) -> None:
        if not isinstance(self._next(), kind):
            raise IrregularError(f"something else than expected in line {self._line}")

    def _begin(self) -> None:
        self._expect(yaml.StreamStartEvent)
        if isinstance(self._next(), yaml.StreamEndEvent):
            raise SourceInvalid("not a chart index: it is empty", where=self._where)

    def _end(self) -> None:
        self._expect(yaml.DocumentEndEvent)
        if not isinstance(self._next(), yaml.StreamEndEvent):
            raise SourceInvalid("the index holds more than one document", where=self._where)

    def _key(self) -> str | None:
        """The next key of a mapping, None at its end."""
        event = self._next()
        if isinstance(event, yaml.MappingEndEvent):
            return None
        key = self._build(event) if isinstance(event, yaml.AliasEvent) else None
        if isinstance(event, yaml.ScalarEvent):
            if event.anchor is not None:
                self._anchors[event.anchor] = event.value
            key = event.value
        if not isinstance(key, str):
            raise self._invalid("a key is no plain text")
        return key

    def _skip(self, event: Any) -> None:
        """Pass over a value; what has an anchor in it is kept, for its aliases."""
        depth = 0
        while True:
            if getattr(event, "anchor", None) is not None:
                self._build(event)
            elif isinstance(event, yaml.CollectionStartEvent):
                depth += 1
            elif isinstance(event, yaml.CollectionEndEvent):
                depth -= 1
            if depth == 0:
                return
            event = self._next()

    def _build(self, event: Any) -> Any:
        """A value as text, lists and dicts, without recursion. Aliases share what they name."""
        stack: list[_Frame] = []
        while True:
            value: Any = None
            if isinstance(event, yaml.ScalarEvent):
                value = None if _is_null(event) else event.value
                if event.anchor is not None:
                    self._anchors[event.anchor] = value
            elif isinstance(event, yaml.AliasEvent):
                value = self._anchors.get(str(event.anchor), ABSENT)
                if value is ABSENT:
                    raise self._invalid(f"the alias *{event.anchor!s:.40} has no anchor before it")
            elif isinstance(event, yaml.CollectionStartEvent):
                if self._levels + len(stack) >= MAX_DEPTH:
                    raise too_deep(f"{self._where}: line {self._line}")
                node: Any = {} if isinstance(event, yaml.MappingStartEvent) else []
                if event.anchor is not None:
                    self._anchors[event.anchor] = ABSENT
                stack.append(_Frame(node, event.anchor))
                event = self._next()
                continue
            else:
                frame = stack.pop()
                value = _with_merged(frame)
                if frame.anchor is not None:
                    self._anchors[frame.anchor] = value
            if not stack:
                return value
            self._put(stack[-1], value, event)
            event = self._next()

    def _put(self, frame: _Frame, value: Any, event: Any) -> None:
        if isinstance(frame.node, list):
            frame.node.append(value)
        elif frame.key is None:
            key = event.value if isinstance(event, yaml.ScalarEvent) else value
            if not isinstance(key, str):
                raise self._invalid("a key is no plain text")
            frame.key = key
            if key in frame.node:
                raise self._twice(key)
        elif frame.key == "<<":
            frame.merged.extend(value if isinstance(value, list) else [value])
            frame.key = None
        else:
            frame.node[frame.key] = value
            frame.key = None

    def _twice(self, key: str) -> SourceInvalid:
        return self._invalid(f"the key {key[:80]!r} is given twice")

    def _invalid(self, what: str) -> SourceInvalid:
        return SourceInvalid(f"the index, line {self._line}: {what}", where=self._where)


def _with_merged(frame: _Frame) -> Any:
    """The collection with what `<<` puts under it: own keys win, then the first that is named."""
    for merged in frame.merged:
        if isinstance(merged, dict) and isinstance(frame.node, dict):
            for key, value in merged.items():
                frame.node.setdefault(key, value)
    return frame.node


def _is_null(event: Any) -> bool:
    return isinstance(event, yaml.ScalarEvent) and not event.style and event.value in NULLS


def _problem(error: Exception) -> str:
    """What YAML's parser says, with its line, and without the text of the file."""
    mark = getattr(error, "problem_mark", None)
    said = getattr(error, "problem", None) or getattr(error, "reason", None) or "not YAML"
    return f"line {mark.line + 1}: {said}" if mark is not None else str(said)
