"""Chart folders to chart packages, without helm: fast, and the same bytes for the same contents."""

import gzip
import hashlib
import io
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from devcluster.errors import DevclusterError


@dataclass(frozen=True)
class Package:
    """One packaged chart: its Chart.yaml as fields, and the .tgz."""

    metadata: Mapping[str, Any]
    data: bytes = field(repr=False)

    @property
    def name(self) -> str:
        return str(self.metadata["name"])

    @property
    def version(self) -> str:
        return str(self.metadata["version"])

    @property
    def filename(self) -> str:
        return f"{self.name}-{self.version}.tgz"

    @property
    def digest(self) -> str:
        """SHA-256 of the .tgz in hex, as an index.yaml gives it."""
        return hashlib.sha256(self.data).hexdigest()


def package(
    folder: Path,
    *,
    version: str | None = None,
    app_version: str | None = None,
    values: Mapping[str, Any] | None = None,
    metadata: Mapping[str, Any] | None = None,
) -> Package:
    """Package the chart in `folder`, with other defaults if `values` are given.

    `metadata` replaces fields of Chart.yaml. Dependencies that lie beside it (`file://`) are put
    inside, as `helm dependency build` does; others are refused with DevclusterError.
    """
    fields = yaml.safe_load((folder / "Chart.yaml").read_text())
    fields |= metadata or {}
    if version is not None:
        fields["version"] = version
    if app_version is not None:
        fields["appVersion"] = app_version
    files = dict(_files(folder))
    files["Chart.yaml"] = yaml.safe_dump(fields, sort_keys=False).encode()
    if values is not None:
        files["values.yaml"] = yaml.safe_dump(dict(values), sort_keys=False).encode()
    for dependency in fields.get("dependencies", ()):
        inner = _dependency(folder, dependency)
        files[f"charts/{inner.filename}"] = inner.data
    return Package(fields, _tarball(str(fields["name"]), files))


def _files(folder: Path) -> Iterator[tuple[str, bytes]]:
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            yield path.relative_to(folder).as_posix(), path.read_bytes()


def _dependency(folder: Path, dependency: Mapping[str, Any]) -> Package:
    repository = str(dependency.get("repository", ""))
    if not repository.startswith("file://"):
        raise DevclusterError(
            f"{folder}: dependency {dependency['name']} is not beside it but in {repository}"
        )
    return package((folder / repository.removeprefix("file://")).resolve())


def _tarball(name: str, files: Mapping[str, bytes]) -> bytes:
    packed = io.BytesIO()
    # Times are left out, so that a chart has the same digest whenever it is packaged.
    with (
        gzip.GzipFile(fileobj=packed, mode="wb", mtime=0) as stream,
        tarfile.open(fileobj=stream, mode="w") as archive,
    ):
        for path, contents in files.items():
            entry = tarfile.TarInfo(f"{name}/{path}")
            entry.size, entry.mode = len(contents), 0o644
            archive.addfile(entry, io.BytesIO(contents))
    return packed.getvalue()
