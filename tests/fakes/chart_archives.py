"""Chart archives for tests, made of plain values."""

from __future__ import annotations

import gzip
import hashlib
import io
import tarfile
from collections.abc import Iterable


def chart_yaml(name: str, version: str, more: str = "") -> str:
    return f"apiVersion: v2\nname: {name}\nversion: {version}\n{more}"


def member(
    name: str, content: bytes = b"", *, kind: bytes = tarfile.REGTYPE, link: str = ""
) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.type = kind
    info.linkname = link
    info.size = len(content)
    return info, content


def archive_of(members: Iterable[tuple[tarfile.TarInfo, bytes]]) -> bytes:
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as archive:
        for info, content in members:
            archive.addfile(info, io.BytesIO(content))
    return gzip.compress(raw.getvalue(), mtime=0)


def chart_archive(name: str, version: str, more: str = "", **files: str) -> bytes:
    """A small chart; `more` goes into its Chart.yaml."""
    contents = {"Chart.yaml": chart_yaml(name, version, more), "values.yaml": "{}\n", **files}
    return archive_of(
        member(f"{name}/{path}", content.encode()) for path, content in contents.items()
    )


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
