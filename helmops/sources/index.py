"""One chart's versions out of an index.yaml, however large, without reading the rest.

Parsing 20 MB of YAML takes seconds and hundreds of megabytes (helm: 3 to 9 s, 560 MB). But an index
as Helm writes it is so regular that the lines of one chart can be cut out by looking for their key.
What makes that safe is checked once for each new index, by regular expressions over its bytes
(`_Layout`): only plain keys at the root and among the charts, one document, nothing out of place.
Whatever is not that regular (quoted keys, flow style, anchors, tabs, CRLF, an end that is broken
off) is read as a whole, as a stream of events of which only the wanted chart is kept. Both ways
give the same answer; of errors in *other* charts' lines the first way does not know, which is as it
should be: a bad chart hurts its own releases only.

Events and not `yaml.load`, because that is recursive and ends the process on `[[[[…` (seen with
PyYAML 6.0.3: a segmentation fault at a depth of 100,000).

As in Helm 4.3.1: a key given twice is an error, entries that are null or without a version are
passed over, an index without `apiVersion` is none. Scalars are text: an unquoted `appVersion: 1.10`
stays 1.10 (Helm makes it 1.1).
"""

from __future__ import annotations

import difflib
import mmap
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import msgspec
import yaml

from helmops.errors import ChartNotFound, SourceInvalid
from helmops.model.charts import ChartVersion

#: Mappings and sequences within each other, in what is kept.
MAX_DEPTH: Final = 100

#: Bytes of a regular index that are in memory at once while it is looked through.
_WINDOW: Final = 4 * 1024 * 1024

#: Bytes of an index that has to be read as a whole; 10 MB take a second.
MAX_IRREGULAR: Final = 64 * 1024 * 1024

_LOADER: Final = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_BOM: Final = b"\xef\xbb\xbf"
_NULLS: Final = frozenset({"", "~", "null", "Null", "NULL"})
_TRUE: Final = frozenset({"true", "yes", "on", "y"})

Body = bytes | mmap.mmap


class Index:
    """An index file on disk. Only what is asked for is read, and nothing is kept in memory but
    where the charts begin and end. The methods read files and take time: call them in a thread.
    """

    def __init__(self, path: Path, where: str) -> None:
        """`where` is what people are told: the index's URL, fit to be shown."""
        self.path = path
        self.where = where
        self._layout: _Layout | None = None
        self._has_layout = False

    def check(self) -> None:
        """Whether this is an index at all. Raises SourceInvalid, FileNotFoundError."""
        with _mapped(self.path) as body:
            _refuse_foreign(body, self.where)
            if self._layout_of(body) is None:
                _read_irregular(body, None, self.where)

    def versions(self, chart: str) -> tuple[ChartVersion, ...]:
        """All entries of one chart, in the index's order.

        Raises SourceInvalid, ChartNotFound, FileNotFoundError.
        """
        with _mapped(self.path) as body:
            _refuse_foreign(body, self.where)
            return _versions(body, chart, self.where, self._layout_of(body))

    def _layout_of(self, body: Body) -> _Layout | None:
        if not self._has_layout:
            self._layout = _Layout.of(body)
            self._has_layout = True
        return self._layout


def read_versions(body: bytes, chart: str, where: str = "") -> tuple[ChartVersion, ...]:
    """All entries of one chart of an index in memory. Raises SourceInvalid, ChartNotFound."""
    _refuse_foreign(body, where)
    return _versions(body, chart, where, _Layout.of(body))


def _versions(
    body: Body, chart: str, where: str, layout: _Layout | None
) -> tuple[ChartVersion, ...]:
    cut = layout.cut(body, chart, where) if layout is not None else None
    listed, names = cut if cut is not None else _read_irregular(body, chart, where)
    if listed is _ABSENT:
        raise _no_such_chart(chart, names, where)
    if listed is not None and not isinstance(listed, list):
        raise SourceInvalid(f"the index has no list of versions for {chart}", where=where)
    entries = [entry for entry in listed or () if entry is not None]
    if not all(isinstance(entry, dict) for entry in entries):
        raise SourceInvalid(f"the index has a version of {chart} that is no mapping", where=where)
    found = (_version(entry, chart) for entry in entries)
    versions = tuple(version for version in found if version is not None)
    if not versions:
        raise ChartNotFound(f"the index has no version of chart {chart}", where=where)
    return versions


#: Stands for a chart that is not listed; None is one whose list is null.
_ABSENT: Final = object()


def _no_such_chart(chart: str, names: list[str], where: str) -> ChartNotFound:
    near = difflib.get_close_matches(chart, names, 3)
    if near:
        step = f"did you mean {' or '.join(near)}?"
    elif names:
        shown = ", ".join(sorted(names)[:8])
        step = f"it has {len(names)}: {shown}{', …' if len(names) > 8 else ''}"
    else:
        step = "its index is empty"
    return ChartNotFound(f"no chart {chart} in the repository", where=where, next_step=step)


# One entry.


def _version(entry: dict[str, Any], chart: str) -> ChartVersion | None:
    """An entry as a ChartVersion; None where it has no version."""
    version = _text(entry.get("version"))
    if not version:
        return None
    urls = entry.get("urls")
    return ChartVersion(
        name=_text(entry.get("name")) or chart,
        version=version,
        urls=tuple(filter(None, map(_text, urls))) if isinstance(urls, list) else (),
        digest=_digest(_text(entry.get("digest"))),
        app_version=_text(entry.get("appVersion")),
        created=_time(_text(entry.get("created"))),
        deprecated=_text(entry.get("deprecated")).lower() in _TRUE,
        description=_text(entry.get("description")),
    )


def _text(value: object) -> str:
    if isinstance(value, str):
        return value.strip()
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, int | float) else ""


def _digest(text: str) -> str:
    """Lower-case hex without `sha256:`."""
    return text.lower().removeprefix("sha256:")


def _time(text: str) -> datetime | None:
    """RFC 3339, to microseconds; None for what is none, and for Go's zero time."""
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        return None
    if time.year <= 1:
        return None
    return time.astimezone(UTC) if time.tzinfo else time.replace(tzinfo=UTC)


# What is no index.


def _mapped(path: Path) -> mmap.mmap | _Whole:
    """The file in memory as far as it is looked at; closes as a context manager."""
    with path.open("rb") as file:
        if not file.seek(0, 2):
            return _Whole(b"")
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


class _Whole(bytes):
    """Bytes where a mapping is expected: an empty file cannot be mapped."""

    def __enter__(self) -> _Whole:
        return self

    def __exit__(self, *exc_info: object) -> None:
        """Nothing to close."""


def _refuse_foreign(body: Body, where: str) -> None:
    """Raise SourceInvalid, naming what was found, for what cannot be an index."""
    head = bytes(body[:4096])
    start = head.removeprefix(_BOM).lstrip()[:512]
    found = ""
    if not start:
        found = "it is empty"
    elif start[:1] == b"<":
        title = re.search(rb"<title[^>]*>([^<]{1,80})", head, re.IGNORECASE)
        name = f" titled {title[1].decode('utf-8', 'replace').strip()!r}" if title else ""
        found = f"it is a web page{name}"
    elif start[:2] == b"\x1f\x8b":
        found = "it is gzip data"
    elif b"\0" in start and not head.startswith((b"\xff\xfe", b"\xfe\xff")):
        found = "it is binary data"
    if found:
        raise SourceInvalid(
            f"not a chart index: {found}",
            where=where,
            next_step="the source's url must be the directory that index.yaml is in",
        )


# The regular way.

_ROOT_LINE = re.compile(rb"\n([^ \n#][^\n]*)")
# A key and what stands behind it on its line: a text that is quoted or needs no quotes, or nothing.
_ROOT_VALUE = rb"""(?:"[^"\\]*"|'[^']*'|[^"' |>&*!%@`\[\]{}#][^"'&*]*)"""
_ROOT_KEY = re.compile(rb"([A-Za-z][\w.-]*):(?: +%s)?(?: +#.*)?" % _ROOT_VALUE)
_FIRST_CHILD = re.compile(rb"(?: *(?:#[^\n]*)?\n)*( +)[^ \n#]")
_PLAIN_NAME = re.compile(r"[A-Za-z0-9_.][\w.-]*", re.ASCII)


@dataclass(frozen=True, slots=True)
class _Layout:
    """Where the charts of a regular index begin and end, in bytes, and how far they are indented.

    `start` is at the line break before the first chart.
    """

    start: int
    end: int
    indent: int

    @classmethod
    def of(cls, body: Body) -> _Layout | None:
        """The layout, or None where the index is not as regular as this way of reading needs."""
        size = len(body)
        if not size or body[size - 1] != 0x0A:
            return None
        if any(body.find(b"\r", *window) >= 0 for window in _windows(body, 0, size)):
            return None
        keys: dict[bytes, int] = {}
        end = size - 1
        for at, line in _root_lines(body):
            if line == b"---" and at == 0:
                continue
            key = _ROOT_KEY.fullmatch(line)
            if key is None or key[1] in keys:
                return None
            if len(keys) and list(keys)[-1] == b"entries":
                end = at - 1
            keys[key[1]] = at
        if b"entries" not in keys or b"apiVersion" not in keys:
            return None
        heading = body.find(b"\n", keys[b"entries"])
        if _without_comment(body[keys[b"entries"] : heading]) != b"entries:":
            return None
        api = body[keys[b"apiVersion"] : body.find(b"\n", keys[b"apiVersion"])]
        if _without_comment(api).partition(b":")[2].strip(b" \"'").decode() in _NULLS:
            return None
        first = _FIRST_CHILD.match(body, heading + 1, end + 1)
        if first is None:
            return None
        indent = len(first[1])
        irregular = _irregular(indent)
        if any(irregular.search(body, *window) for window in _windows(body, heading, end + 1)):
            return None
        return cls(heading, end, indent)

    def cut(self, body: Body, chart: str, where: str) -> tuple[Any, list[str]] | None:
        """What the index lists for a chart (_ABSENT where nothing) and, where it is absent, the
        names of all charts; None where only reading the whole can tell.
        """
        if not _PLAIN_NAME.fullmatch(chart):
            return None
        key = b"\n" + b" " * self.indent + chart.encode() + b":"
        at = _find(body, key, self.start, self.end)
        if at < 0:
            names = re.compile(rb"\n {%d}([\w.][\w.-]*):" % self.indent)
            return _ABSENT, [
                found[1].decode()
                for window in _windows(body, self.start, self.end)
                for found in names.finditer(body, *window)
            ]
        if _find(body, key, at + 1, self.end) >= 0:
            raise SourceInvalid(f"the index lists {chart} twice", where=where)
        following = re.compile(rb"\n {%d}[\w.]" % self.indent)
        until = following.search(body, at + 1, self.end)
        block = body[at + 1 : until.start() + 1 if until else self.end + 1]
        try:
            listed = _Events(block, where).chart_of_block(chart)
        except (_IrregularError, SourceInvalid):
            return None  # the whole will tell, with the right line
        if not _named(listed, chart):
            return None
        return listed, []


def _root_lines(body: Body) -> Iterator[tuple[int, bytes]]:
    """Lines that begin in the first column, with where they begin; comments are left out."""
    start = len(_BOM) if body[:3] == _BOM else 0
    first = body[start : body.find(b"\n", start)]
    if first and first[:1] not in b" #":
        yield 0, bytes(first).rstrip()
    for window in _windows(body, start, len(body)):
        for line in _ROOT_LINE.finditer(body, *window):
            yield line.start(1), line[1].rstrip()


def _windows(body: Body, start: int, end: int) -> Iterator[tuple[int, int]]:
    """A stretch of the index piece by piece, so that not all of a file that is mapped has to be in
    memory at once. Each piece ends behind a line break, with which the next one begins.
    """
    while start < end:
        until = end
        if start + _WINDOW < end:
            until = body.find(b"\n", start + _WINDOW, end) + 1 or end
        yield start, until
        if isinstance(body, mmap.mmap):
            page = start - start % mmap.PAGESIZE
            body.madvise(mmap.MADV_DONTNEED, page, until - page)
        start = until if until == end else until - 1


def _find(body: Body, key: bytes, start: int, end: int) -> int:
    """Where a key that begins with a line break, and has no other, stands; negative for nowhere."""
    found = (body.find(key, *window) for window in _windows(body, start, end))
    return next((at for at in found if at >= 0), -1)


def _irregular(indent: int) -> re.Pattern[bytes]:
    """A line among the charts that is neither a plain key with nothing behind it (`[]` at most),
    nor an item of a list, nor deeper than the charts' keys.
    """
    shallow = rb" {1,%d}[^ \n#]|" % (indent - 1) if indent > 1 else b""
    return re.compile(
        rb"\n(?:%s {%d}(?![ \n#]|-[ \n]|[A-Za-z0-9_.][\w.-]*:(?: \[\])? *\n))" % (shallow, indent)
    )


def _without_comment(line: bytes) -> bytes:
    return re.sub(rb"\s+#.*", b"", line).rstrip()


def _named(listed: object, chart: str) -> bool:
    """Whether every entry says that it is of this chart."""
    return isinstance(listed, list) and all(
        isinstance(entry, dict) and entry.get("name") == chart for entry in listed
    )


# The way for everything else.


def _read_irregular(body: Body, chart: str | None, where: str) -> tuple[Any, list[str]]:
    """As `_Layout.cut`, of an index of any form. Raises SourceInvalid."""
    if len(body) > MAX_IRREGULAR:
        raise SourceInvalid(
            f"the index is larger than {MAX_IRREGULAR >> 20} MiB and not written as helm writes it",
            where=where,
            next_step="make it anew with helm repo index",
        )
    start = bytes(body[:64]).removeprefix(_BOM).lstrip()
    if start[:1] == b"{":
        try:
            return _read_json(bytes(body), chart, where)
        except msgspec.DecodeError as error:
            broken = error
        try:
            return _Events(bytes(body), where).chart_of_index(chart)
        except (_IrregularError, SourceInvalid):
            raise SourceInvalid(f"the index is broken JSON: {broken}", where=where) from None
    try:
        return _Events(bytes(body), where).chart_of_index(chart)
    except _IrregularError as error:
        raise SourceInvalid(f"the index cannot be read: {error}", where=where) from None


def _read_json(body: bytes, chart: str | None, where: str) -> tuple[Any, list[str]]:
    """Raises msgspec.DecodeError, SourceInvalid."""
    try:
        root = msgspec.json.decode(body.removeprefix(_BOM), type=dict[str, msgspec.Raw])
        if _empty_json(root.get("apiVersion")):
            raise _no_index(list(root), where)
        entries = msgspec.json.decode(
            root.get("entries", b"null"), type=dict[str, msgspec.Raw] | None
        )
        if chart is None or entries is None or chart not in entries:
            return _ABSENT, list(entries or ())
        return msgspec.json.decode(entries[chart]), []
    except RecursionError:
        raise _too_deep(where) from None
    except msgspec.ValidationError:
        raise SourceInvalid("the index's entries are not a mapping", where=where) from None


def _empty_json(raw: msgspec.Raw | None) -> bool:
    return raw is None or bytes(raw) in (b"null", b'""')


def _no_index(keys: list[str], where: str) -> SourceInvalid:
    shown = ", ".join(key[:40] for key in keys[:6])
    return SourceInvalid(
        "not a chart index: it has no apiVersion",
        where=where,
        next_step=f"its keys are {shown}" if shown else "it has no keys at all",
    )


def _too_deep(where: str) -> SourceInvalid:
    return SourceInvalid(f"more than {MAX_DEPTH} levels within each other", where=where)


class _IrregularError(Exception):
    """The events are not those of an index; the text says why, in YAML's words."""


#: A collection that is being built, the key that waits for its value, and its anchor.
class _Frame:
    __slots__ = ("anchor", "key", "merged", "node")

    def __init__(self, node: dict[str, Any] | list[Any], anchor: str | None) -> None:
        self.node = node
        self.anchor = anchor
        self.key: str | None = None
        self.merged: list[Any] = []


class _Events:
    """Reads an index, or a block of it, event by event."""

    def __init__(self, text: bytes, where: str) -> None:
        self._where = where
        self._parser = _LOADER(text)
        self._anchors: dict[str, Any] = {}
        self._line = 0

    def chart_of_block(self, chart: str) -> Any:
        """The list in a block that is one key and its list. Raises _IrregularError."""
        try:
            self._begin()
            self._expect(yaml.MappingStartEvent)
            if self._key() != chart:
                raise _IrregularError("another key")
            listed = self._build(self._next())
            self._expect(yaml.MappingEndEvent)
            self._end()
        except (yaml.YAMLError, UnicodeError) as error:
            raise _IrregularError(str(error)) from None
        finally:
            self._parser.dispose()
        return listed

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
        listed: Any = _ABSENT
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
            raise _no_index(keys, self._where)
        return listed, names

    def _entries(self, chart: str | None, anchor: str | None) -> tuple[Any, list[str]]:
        if anchor is not None:
            self._anchors[anchor] = _ABSENT
        listed: Any = _ABSENT
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
        return under.get(chart, _ABSENT) if listed is _ABSENT else listed, list(names)

    # Single events.

    def _next(self) -> Any:
        event = self._parser.get_event()
        self._line = event.start_mark.line + 1
        return event

    def _expect(self, kind: type[yaml.Event]) -> None:
        if not isinstance(self._next(), kind):
            raise _IrregularError(f"something else than expected in line {self._line}")

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
                value = self._anchors.get(str(event.anchor), _ABSENT)
                if value is _ABSENT:
                    raise self._invalid(f"the alias *{event.anchor!s:.40} has no anchor before it")
            elif isinstance(event, yaml.CollectionStartEvent):
                if len(stack) >= MAX_DEPTH:
                    raise _too_deep(f"{self._where}: line {self._line}")
                node: Any = {} if isinstance(event, yaml.MappingStartEvent) else []
                if event.anchor is not None:
                    self._anchors[event.anchor] = _ABSENT
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
    return isinstance(event, yaml.ScalarEvent) and not event.style and event.value in _NULLS


def _problem(error: Exception) -> str:
    """What YAML's parser says, with its line, and without the text of the file."""
    mark = getattr(error, "problem_mark", None)
    said = getattr(error, "problem", None) or getattr(error, "reason", None) or "not YAML"
    return f"line {mark.line + 1}: {said}" if mark is not None else str(said)
