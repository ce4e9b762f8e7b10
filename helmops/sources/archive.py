"""Archives, looked through before anything else may read them.

A chart comes from outside, and helm unpacks what it is given. Here every entry of the archive is
looked at first, as a stream, counted as it unpacks, nothing written. Limits and rules are Helm's
(4.3.1) and Flux's (source-controller 1.9.1) where they have them: 10 MiB packed, 100 MiB unpacked,
5 MiB a file, no absolute paths, no `..`, no drive letters. Ours on top: one directory that
everything is in, no file twice (helm would take the last one, a check the first), no links that
lead out, no devices, no gaps, a bound on the number of entries.

What counts for any archive (`opened_archive`, `safe_entries`) is there for others, too.
"""

from __future__ import annotations

import contextlib
import gzip
import posixpath
import re
import tarfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any, Final

from helmops.errors import ChartRefused, HelmopsError, ValuesError, VersionError
from helmops.resolve.values import parse_values
from helmops.resolve.version import Version

_MIB: Final = 1024 * 1024
_DRIVE: Final = re.compile(r"[A-Za-z]:/")


#: Makes the error for an archive that must not be used, of why.
Refuse = Callable[[str], HelmopsError]


@dataclass(frozen=True, slots=True)
class ArchiveLimits:
    """What an archive may be at most, a chart's where nothing else is said: sizes in bytes."""

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
    refuse = partial(_refused, where=where)
    with opened_archive(path, limits, refuse) as archive:
        chart_yaml = _look_through(archive, limits, refuse)
    return read_chart_yaml(chart_yaml, where)


@contextlib.contextmanager
def opened_archive(path: Path, limits: ArchiveLimits, refuse: Refuse) -> Iterator[tarfile.TarFile]:
    """A `.tgz` as a stream, which ends in an error where it gets too large, or is broken: here, or
    while it is read. Raises what `refuse` makes, OSError.
    """
    size = path.stat().st_size
    if size > limits.packed:
        raise refuse(f"it is larger than {_shown(limits.packed)}")
    with path.open("rb") as packed, gzip.GzipFile(fileobj=packed, mode="rb") as plain:
        counted: Any = _Counted(plain, limits.unpacked, refuse)
        try:
            with tarfile.open(fileobj=counted, mode="r|") as archive:
                yield archive
            while counted.read(64 * 1024):
                pass  # what follows the archive's end counts, and has to be whole
        except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile, RecursionError):
            raise refuse("it is no gzip-packed tar archive, or broken off") from None
        except (ValueError, OverflowError):
            raise refuse("its headers hold what no archive does") from None


def safe_entries(
    archive: tarfile.TarFile, limits: ArchiveLimits, refuse: Refuse
) -> Iterator[tuple[str, tarfile.TarInfo]]:
    """Entries with their paths, which lead nowhere else; empty for the directory itself. Raises
    what `refuse` makes.
    """
    for count, member in enumerate(archive, 1):
        if count > limits.entries:
            raise refuse(f"it has more than {limits.entries} entries")
        path = _safe_path(member.name, refuse)
        if not 0 <= member.size <= limits.file:
            raise refuse(f"{named(path)} is larger than {_shown(limits.file)}")
        yield path, member


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


def _look_through(archive: tarfile.TarFile, limits: ArchiveLimits, refuse: Refuse) -> bytes:
    """Every entry; gives back the Chart.yaml."""
    top = ""
    files: set[str] = set()
    chart_yaml: bytes | None = None
    for path, member in safe_entries(archive, limits, refuse):
        if not path:
            raise refuse("it has an entry without a name, or for the directory itself")
        top = top or path.split("/")[0]
        if path.split("/")[0] != top or (path == top and not member.isdir()):
            raise refuse(
                f"not all of it is in one directory: {named(member.name)} is not in {named(top)}"
            )
        _refuse_kind(member, path, top, refuse)
        if not member.isdir():
            if path in files:
                raise refuse(f"it has {named(path)} twice")
            files.add(path)
        if path == f"{top}/Chart.yaml" and member.isreg():
            content = archive.extractfile(member)
            chart_yaml = content.read() if content is not None else b""
    if chart_yaml is None:
        raise refuse("it is no chart: it has no Chart.yaml")
    return chart_yaml


def _safe_path(name: str, refuse: Refuse) -> str:
    """The path in the archive, as helm reads it: a backslash separates, too."""
    path = name.replace("\\", "/")
    if path.startswith("/") or _DRIVE.match(path) or ".." in path.split("/") or "\0" in path:
        raise refuse(f"an entry leads out of it: {named(name)}")
    cleaned = posixpath.normpath(path) if path else ""
    return "" if cleaned == "." else cleaned


def _refuse_kind(member: tarfile.TarInfo, path: str, top: str, refuse: Refuse) -> None:
    """Links that stay inside are nothing to helm (empty files), and are let pass."""
    if member.issym() or member.islnk():
        base = posixpath.dirname(path) if member.issym() else ""
        target = posixpath.normpath(posixpath.join(base, member.linkname.replace("\\", "/")))
        if target != top and not target.startswith(f"{top}/"):
            raise refuse(f"a link leads out of it: {named(path)}")
    elif member.sparse is not None or not (member.isreg() or member.isdir()):
        raise refuse(f"{named(path)} is neither a file nor a directory")


class _Counted:
    """A stream that ends in an error where it gets too long."""

    def __init__(self, stream: IO[bytes] | gzip.GzipFile, limit: int, refuse: Refuse) -> None:
        self._stream = stream
        self._left = limit
        self._limit = limit
        self._refuse = refuse

    def read(self, size: int) -> bytes:
        data = self._stream.read(min(size, self._left + 1))
        self._left -= len(data)
        if self._left < 0:
            raise self._refuse(f"it unpacks to more than {_shown(self._limit)}")
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


def named(path: str) -> str:
    """A name from an archive, fit to be shown."""
    return repr(path if len(path) <= 80 else f"{path[:77]}...")


def _shown(size: int) -> str:
    return f"{size / _MIB:g} MiB" if size >= _MIB else f"{size} bytes"
