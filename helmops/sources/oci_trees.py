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
from dataclasses import replace
from pathlib import Path
from typing import Final
from weakref import WeakValueDictionary

from helmops.errors import SourceInvalid, SourceMissing, SourceUnavailable
from helmops.model.charts import Tree
from helmops.model.credentials import HttpCredentials
from helmops.model.declarations import OCIRepositorySpec
from helmops.resolve.constraint import Constraint
from helmops.resolve.version import Version
from helmops.sources.archive import ArchiveLimits
from helmops.sources.cache_files import disk_errors, drop_old_trees, is_used
from helmops.sources.oci_knowledge import (
    Known,
    OciKnowledge,
    Ref,
    Wanted,
    layer_of_type,
    of_artifact,
    offer,
    refuse_want_of_key,
    tag_in,
)
from helmops.sources.oci_registry import Descriptor, Manifest
from helmops.sources.unpacking import TREE_LIMITS, unpack

_NAME: Final = re.compile(r"[0-9a-f]{64,128}(\.[0-9a-f]{16})?")


class OciTrees:
    """The `ArtifactTrees` port. `directory` is one of our own, which other processes may share."""

    def __init__(
        self, knowledge: OciKnowledge, directory: Path, *, limits: ArchiveLimits = TREE_LIMITS
    ) -> None:
        self._knowledge = knowledge
        self._directory = directory
        self._limits = limits
        self._locks: WeakValueDictionary[Path, asyncio.Lock] = WeakValueDictionary()

    async def resolve(self, repository: OCIRepositorySpec, credentials: HttpCredentials) -> str:
        """The revision that `ref` names now; see the port. A digest asks nobody."""
        asked = of_artifact(repository, credentials)
        if asked.ref.digest:
            return asked.ref.digest
        known = await self._knowledge.known(asked)
        async with known.lock:
            await self._knowledge.poll(known, asked)
        tag = _newest_tag(known, asked, repository)
        known.in_use.add(tag)
        return f"{tag}@{await self._knowledge.pinned(known, replace(asked, ref=Ref(tag=tag)))}"

    async def seen(self, repository: OCIRepositorySpec, credentials: HttpCredentials) -> str:
        """The revision that it named when it was asked last; see the port."""
        asked = of_artifact(repository, credentials)
        if asked.ref.digest:
            return asked.ref.digest
        known = await self._knowledge.known(asked)
        try:
            tag = _newest_tag(known, asked, repository)
        except SourceMissing:
            return ""
        return f"{tag}@{known.pins[tag].digest}" if tag in known.pins else ""

    async def checkout(
        self,
        repository: OCIRepositorySpec,
        credentials: HttpCredentials,
        revision: str,
        *,
        keys: Sequence[bytes] = (),
    ) -> Tree:
        """The files of that revision; see the port. No request where they are at hand."""
        asked = of_artifact(repository, credentials)
        digest = revision.rpartition("@")[2]
        if repository.verify is not None:
            refuse_want_of_key(repository, asked, keys)
            known = await self._knowledge.known(asked)
            where = f"{asked.repository}@{digest}"
            await self._knowledge.check_signature(known, asked, digest, keys, where)
        name = str(asked.repository)
        place = hashlib.sha256(name.encode()).hexdigest()[:32]
        target = self._directory / place / _name_of(repository, digest)
        tree = Tree(name=name, revision=revision, path=str(target))
        async with self._locks.setdefault(target, asyncio.Lock()):
            with disk_errors(self._directory):
                if not is_used(target):
                    await self._unpack(repository, asked, digest, target)
        return tree

    async def _unpack(
        self, repository: OCIRepositorySpec, asked: Wanted, digest: str, target: Path
    ) -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        where = f"{asked.repository}@{digest}"
        known = await self._knowledge.known(asked)
        layer = _layer_of(await self._knowledge.manifest(known, asked, digest), asked, where)
        if layer.size > self._limits.packed:
            raise SourceInvalid(
                f"the layer is larger than {self._limits.packed >> 20} MiB", where=where
            )
        ignore = None if _is_taken_as_it_is(repository) else repository.ignore or ""
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=".checkout-") as name:
            scratch = Path(name)
            archive = scratch / "layer"
            await self._knowledge.download(asked, layer, archive)
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


def _newest_tag(known: Known, asked: Wanted, spec: OCIRepositorySpec) -> str:
    """The tag that is wanted. Raises SourceMissing where none is in the range, ConstraintError."""
    if asked.ref.tag:
        return asked.ref.tag
    wanted = Constraint.parse(spec.ref.semver)
    newest: tuple[Version, str] | None = None
    for offered in offer(known, asked):
        version = Version.parse(offered.version)
        if wanted.matches(version) and (newest is None or version > newest[0]):
            newest = version, tag_in(offered, asked.repository)
    if newest is None:
        raise SourceMissing(f"no tag is in {spec.ref.semver!r}", where=str(asked.repository))
    return newest[1]


def _layer_of(manifest: Manifest, asked: Wanted, where: str) -> Descriptor:
    """The layer with the files. Raises SourceInvalid, ChartRefused."""
    if manifest.is_index:
        raise SourceInvalid("it is an index of several manifests, not one artifact", where=where)
    if asked.layer:
        return layer_of_type(manifest, asked.layer, where)
    if not manifest.layers:
        raise SourceInvalid("the artifact has no layers", where=where)
    return manifest.layers[0]


def _is_taken_as_it_is(repository: OCIRepositorySpec) -> bool:
    """Whether nothing of the layer is left out: `ignore` rules are for what is packed anew."""
    selector = repository.layer_selector
    return selector is not None and selector.operation == "copy"


def _name_of(repository: OCIRepositorySpec, digest: str) -> str:
    """Its directory's name: the digest, and what tells it from others of the same artifact."""
    value = digest.rpartition(":")[2]
    selector = repository.layer_selector
    apart = [
        selector.media_type if selector is not None else "",
        _is_taken_as_it_is(repository),
        repository.ignore or "",
    ]
    if not any(apart):
        return value
    return f"{value}.{hashlib.sha256(json.dumps(apart).encode()).hexdigest()[:16]}"


def _is_checkout(path: Path) -> bool:
    return _NAME.fullmatch(path.name) is not None
