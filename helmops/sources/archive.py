"""Chart archives, looked through before anything else may read them.

A chart comes from outside, and helm unpacks what it is given. Here every entry of the archive is
looked at first, as a stream, counted as it unpacks, nothing written. Limits and rules are Helm's
(4.3.1) and Flux's (source-controller 1.9.1) where they have them: 10 MiB packed, 100 MiB unpacked,
5 MiB a file, no absolute paths, no `..`, no drive letters. Ours on top: one directory that
everything is in, no file twice (helm would take the last one, a check the first), no links that
lead out, no devices, no gaps, a bound on the number of entries.
"""

from __future__ import annotations

import gzip
import posixpath
import re
import tarfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

from helmops.errors import ChartRefused, ValuesError, VersionError
from helmops.resolve.values import parse_values
from helmops.resolve.version import Version

_MIB: Final = 1024 * 1024
_DRIVE: Final = re.compile(r"[A-Za-z]:/")


@dataclass(frozen=True, slots=True)
class ArchiveLimits:
    """What a chart may be at most: sizes in bytes."""

    packed: int = 10 * _MIB
    unpacked: int = 100 * _MIB
    file: int = 5 * _MIB
    entries: int = 20_000


@dataclass(frozen=True, slots=True)
class ChartFacts:
    """What a Chart.yaml says, as far as helmops asks; `dependencies` are as they are declared."""

    name: str
    version: str
    app_version: str = ""
    deprecated: bool = False
    is_library: bool = False
    dependencies: tuple[Mapping[str, Any], ...] = ()
    annotations: tuple[tuple[str, str], ...] = ()


def inspect_archive(path: Path, where: str, limits: ArchiveLimits) -> ChartFacts:
    """Look through a `.tgz`, and read its Chart.yaml. Raises ChartRefused, OSError.

    `where` is what people are told: the chart and where it came from.
    """
    size = path.stat().st_size
    if size > limits.packed:
        raise _refused(f"it is larger than {_shown(limits.packed)}", where)
    with path.open("rb") as packed, gzip.GzipFile(fileobj=packed, mode="rb") as plain:
        counted: Any = _Counted(plain, limits.unpacked, where)
        try:
            with tarfile.open(fileobj=counted, mode="r|") as archive:
                chart_yaml = _look_through(archive, where, limits)
            while counted.read(64 * 1024):
                pass  # what follows the archive's end counts, and has to be whole
        except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile, RecursionError):
            raise _refused("it is no gzip-packed tar archive, or broken off", where) from None
        except (ValueError, OverflowError):
            raise _refused("its headers hold what no archive does", where) from None
    return read_chart_yaml(chart_yaml, where)


def read_chart_yaml(text: bytes, where: str) -> ChartFacts:
    """Read a Chart.yaml. Raises ChartRefused."""
    try:
        chart = parse_values(text, where)
    except ValuesError as error:
        raise _refused(f"its Chart.yaml cannot be read: {error.what}", where) from None
    name, version = plain_text(chart.get("name")), plain_text(chart.get("version"))
    if not name or name in (".", "..") or "/" in name or "\\" in name:
        raise _refused("its Chart.yaml gives no usable name", where)
    try:
        Version.parse(version)
    except VersionError as error:
        raise _refused(f"its Chart.yaml's version: {error.what}", where) from None
    dependencies = chart.get("dependencies")
    annotations = chart.get("annotations")
    return ChartFacts(
        name=name,
        version=version,
        app_version=plain_text(chart.get("appVersion")),
        deprecated=chart.get("deprecated") is True,
        is_library=chart.get("type") == "library",
        dependencies=tuple(one for one in dependencies if isinstance(one, Mapping))
        if isinstance(dependencies, list)
        else (),
        annotations=tuple(sorted((str(k), str(v)) for k, v in annotations.items()))
        if isinstance(annotations, Mapping)
        else (),
    )


def _look_through(archive: tarfile.TarFile, where: str, limits: ArchiveLimits) -> bytes:
    """Every entry; gives back the Chart.yaml."""
    top = ""
    files: set[str] = set()
    chart_yaml: bytes | None = None
    for count, member in enumerate(archive, 1):
        if count > limits.entries:
            raise _refused(f"it has more than {limits.entries} entries", where)
        path = _safe_path(member.name, where)
        top = top or path.split("/")[0]
        if path.split("/")[0] != top or (path == top and not member.isdir()):
            raise _refused(
                f"not all of it is in one directory: {_named(member.name)} is not in {_named(top)}",
                where,
            )
        _refuse_kind(member, path, top, where)
        if not member.isdir():
            if path in files:
                raise _refused(f"it has {_named(path)} twice", where)
            files.add(path)
        if not 0 <= member.size <= limits.file:
            raise _refused(f"{_named(path)} is larger than {_shown(limits.file)}", where)
        if path == f"{top}/Chart.yaml" and member.isreg():
            content = archive.extractfile(member)
            chart_yaml = content.read() if content is not None else b""
    if chart_yaml is None:
        raise _refused("it is no chart: it has no Chart.yaml", where)
    return chart_yaml


def _safe_path(name: str, where: str) -> str:
    """The path in the archive, as helm reads it: a backslash separates, too."""
    path = name.replace("\\", "/")
    if path.startswith("/") or _DRIVE.match(path) or ".." in path.split("/") or "\0" in path:
        raise _refused(f"an entry leads out of it: {_named(name)}", where)
    cleaned = posixpath.normpath(path) if path else ""
    if not cleaned or cleaned == ".":
        raise _refused("it has an entry without a name, or for the directory itself", where)
    return cleaned


def _refuse_kind(member: tarfile.TarInfo, path: str, top: str, where: str) -> None:
    """Links that stay inside are nothing to helm (empty files), and are let pass."""
    if member.issym() or member.islnk():
        base = posixpath.dirname(path) if member.issym() else ""
        target = posixpath.normpath(posixpath.join(base, member.linkname.replace("\\", "/")))
        if target != top and not target.startswith(f"{top}/"):
            raise _refused(f"a link leads out of it: {_named(path)}", where)
    elif member.sparse is not None or not (member.isreg() or member.isdir()):
        raise _refused(f"{_named(path)} is neither a file nor a directory", where)


class _Counted:
    """A stream that ends with ChartRefused where it gets too long."""

    def __init__(self, stream: IO[bytes] | gzip.GzipFile, limit: int, where: str) -> None:
        self._stream = stream
        self._left = limit
        self._limit = limit
        self._where = where

    def read(self, size: int) -> bytes:
        data = self._stream.read(min(size, self._left + 1))
        self._left -= len(data)
        if self._left < 0:
            raise _refused(f"it unpacks to more than {_shown(self._limit)}", self._where)
        return data


def plain_text(value: object) -> str:
    """As helm reads a plain value where text is wanted: `version: 1.0` is the text 1."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return repr(int(value)) if value.is_integer() else repr(value)
    return str(value).strip() if isinstance(value, str | int) else ""


def _refused(why: str, where: str) -> ChartRefused:
    return ChartRefused(
        f"the chart archive is refused: {why}",
        where=where,
        next_step="package it anew with helm package",
    )


def _named(path: str) -> str:
    """A name from an archive, fit to be shown."""
    return repr(path if len(path) <= 80 else f"{path[:77]}...")


def _shown(size: int) -> str:
    return f"{size / _MIB:g} MiB" if size >= _MIB else f"{size} bytes"
