"""One chart's versions out of an index.yaml, however large, without reading the rest.

Parsing 20 MB of YAML takes seconds and hundreds of megabytes (helm: 3 to 9 s, 560 MB). But an index
as Helm writes it is so regular that the lines of one chart can be cut out by looking for their key.
What makes that safe is checked once for each new index, by regular expressions over its bytes
(`_Layout`): only plain keys at the root and among the charts, one document, nothing out of place.
Whatever is not that regular (quoted keys, flow style, anchors, tabs, CRLF, an end that is broken
off) is read as a whole, as a stream of events of which only the wanted chart is kept. Both ways
give the same answer; of errors in *other* charts' lines the first way does not know, which is as it
should be: a bad chart hurts its own releases only.

As in Helm 4.3.1: a key given twice is an error, entries that are null or without a version are
passed over, an index without `apiVersion` is none.
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

from helmops.errors import ChartNotFound, SourceInvalid
from helmops.model.charts import ChartVersion
from helmops.sources.index_entries import regular_entries
from helmops.sources.index_events import ABSENT, NULLS, Events, IrregularError, no_index, too_deep

#: Bytes of a regular index that are in memory at once while it is looked through.
_WINDOW: Final = 4 * 1024 * 1024

#: Bytes of an index that has to be read as a whole; 10 MB take a second.
MAX_IRREGULAR: Final = 64 * 1024 * 1024

_BOM: Final = b"\xef\xbb\xbf"
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

    def move(self, path: Path) -> None:
        """Give the file another place; what is known of it stays."""
        self.path = self.path.replace(path)

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
    if listed is ABSENT:
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

# `[^ ](?<![\n#])` is `[^ \n#]`, and twice as fast where nearly every line begins with a space.
_ROOT_LINE = re.compile(rb"\n([^ ](?<![\n#])[^\n]*)")
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
        if _without_comment(api).partition(b":")[2].strip(b" \"'").decode() in NULLS:
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
        """What the index lists for a chart (ABSENT where nothing) and, where it is absent, the
        names of all charts; None where only reading the whole can tell.
        """
        if not _PLAIN_NAME.fullmatch(chart):
            return None
        key = b"\n" + b" " * self.indent + chart.encode() + b":"
        at = _find(body, key, self.start, self.end)
        if at < 0:
            names = re.compile(rb"\n {%d}([\w.][\w.-]*):" % self.indent)
            return ABSENT, [
                found[1].decode()
                for window in _windows(body, self.start, self.end)
                for found in names.finditer(body, *window)
            ]
        if _find(body, key, at + 1, self.end) >= 0:
            raise SourceInvalid(f"the index lists {chart} twice", where=where)
        following = re.compile(rb"\n {%d}[\w.]" % self.indent)
        until = following.search(body, at + 1, self.end)
        block = body[at + 1 : until.start() + 1 if until else self.end + 1]
        listed = regular_entries(block, chart)
        if listed is None:
            try:
                listed = Events(block, where).value_of(chart)
            except (IrregularError, SourceInvalid):
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
    # Most lines are deeper: to say so first makes it three times as fast.
    return re.compile(
        rb"\n(?! {%d})(?:%s {%d}(?![ \n#]|-[ \n]|[A-Za-z0-9_.][\w.-]*:(?: \[\])? *\n))"
        % (indent + 1, shallow, indent)
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
            return Events(bytes(body), where).chart_of_index(chart)
        except (IrregularError, SourceInvalid):
            raise SourceInvalid(f"the index is broken JSON: {broken}", where=where) from None
    try:
        return Events(bytes(body), where).chart_of_index(chart)
    except IrregularError as error:
        raise SourceInvalid(f"the index cannot be read: {error}", where=where) from None


def _read_json(body: bytes, chart: str | None, where: str) -> tuple[Any, list[str]]:
    """Raises msgspec.DecodeError, SourceInvalid."""
    try:
        root = msgspec.json.decode(body.removeprefix(_BOM), type=dict[str, msgspec.Raw])
        if _empty_json(root.get("apiVersion")):
            raise no_index(list(root), where)
        entries = msgspec.json.decode(
            root.get("entries", b"null"), type=dict[str, msgspec.Raw] | None
        )
        if chart is None or entries is None or chart not in entries:
            return ABSENT, list(entries or ())
        return msgspec.json.decode(entries[chart]), []
    except RecursionError:
        raise too_deep(where) from None
    except msgspec.ValidationError:
        raise SourceInvalid("the index's entries are not a mapping", where=where) from None


def _empty_json(raw: msgspec.Raw | None) -> bool:
    return raw is None or bytes(raw) in (b"null", b'""')
