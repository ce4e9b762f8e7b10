"""Files out of OCI registries: artifacts as `flux push artifact` makes them, unpacked.

Each lies unpacked in a directory of its own, by repository and digest, and by whatever of the
declaration makes other files of the same artifact (`layerSelector`, `ignore`). It is made beside
its place, moved there when it is whole, and never changed again.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final
from weakref import WeakValueDictionary

from helmops.errors import SourceUnavailable
from helmops.model.charts import Tree
from helmops.model.credentials import HttpCredentials
from helmops.model.declarations import OCIRepositorySpec
from helmops.sources.archive import ArchiveLimits
from helmops.sources.cache_files import disk_errors, drop_old_trees, is_used
from helmops.sources.oci_artifacts import OciArtifacts
from helmops.sources.oci_reference import OciRepository
from helmops.sources.unpacking import TREE_LIMITS, unpack

_NAME: Final = re.compile(r"[0-9a-f]{64,128}(\.[0-9a-f]{16})?")


class OciTrees:
    """The `ArtifactTrees` port. `directory` is one of our own, which other processes may share."""

    def __init__(
        self, artifacts: OciArtifacts, directory: Path, *, limits: ArchiveLimits = TREE_LIMITS
    ) -> None:
        self._artifacts = artifacts
        self._directory = directory
        self._limits = limits
        self._locks: WeakValueDictionary[Path, asyncio.Lock] = WeakValueDictionary()

    async def resolve(self, repository: OCIRepositorySpec, credentials: HttpCredentials) -> str:
        """The revision that `ref` names now; see the port. A digest asks nobody."""
        return await self._artifacts.revision(repository, credentials)

    async def seen(self, repository: OCIRepositorySpec, credentials: HttpCredentials) -> str:
        """The revision that it named when it was asked last; see the port."""
        return await self._artifacts.last_revision(repository, credentials)

    async def checkout(
        self,
        repository: OCIRepositorySpec,
        credentials: HttpCredentials,
        revision: str,
        *,
        keys: Sequence[bytes] = (),
    ) -> Tree:
        """The files of that revision; see the port. No request where they are at hand."""
        await self._artifacts.check_files(repository, revision, credentials, keys)
        name = str(OciRepository.parse(repository.url))
        place = hashlib.sha256(name.encode()).hexdigest()[:32]
        target = self._directory / place / _name_of(repository, revision)
        tree = Tree(name=name, revision=revision, path=str(target))
        async with self._locks.setdefault(target, asyncio.Lock()):
            with disk_errors(self._directory):
                if not is_used(target):
                    await self._unpack(repository, credentials, revision, target)
        return tree

    async def _unpack(
        self,
        repository: OCIRepositorySpec,
        credentials: HttpCredentials,
        revision: str,
        target: Path,
    ) -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        where = f"{OciRepository.parse(repository.url)}@{revision.rpartition('@')[2]}"
        ignore = None if _is_taken_as_it_is(repository) else repository.ignore or ""
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=".checkout-") as name:
            scratch = Path(name)
            archive = scratch / "layer"
            await self._artifacts.fetch_files(
                repository, revision, credentials, archive, limit=self._limits.packed
            )
            await asyncio.to_thread(
                _put, archive, scratch / "files", target, where, ignore, self._limits
            )


def _put(
    archive: Path, files: Path, target: Path, where: str, ignore: str | None, limits: ArchiveLimits
) -> None:
    """Unpack to `files`, and move these to their place when they are whole."""
    files.mkdir()
    unpack(archive, files, where, ignore=ignore, limits=limits)
    with contextlib.suppress(OSError):  # another process was faster
        files.rename(target)
    if not target.is_dir():
        raise SourceUnavailable("the files cannot be moved to their place", where=str(target))
    drop_old_trees(target, _is_checkout)


def _is_taken_as_it_is(repository: OCIRepositorySpec) -> bool:
    """Whether nothing of the layer is left out: `ignore` rules are for what is packed anew."""
    selector = repository.layer_selector
    return selector is not None and selector.operation == "copy"


def _name_of(repository: OCIRepositorySpec, revision: str) -> str:
    """Its directory's name: the digest, and what tells it from others of the same artifact."""
    digest = revision.rpartition(":")[2]
    selector = repository.layer_selector
    apart = [
        selector.media_type if selector is not None else "",
        _is_taken_as_it_is(repository),
        repository.ignore or "",
    ]
    if not any(apart):
        return digest
    return f"{digest}.{hashlib.sha256(json.dumps(apart).encode()).hexdigest()[:16]}"


def _is_checkout(path: Path) -> bool:
    return _NAME.fullmatch(path.name) is not None
