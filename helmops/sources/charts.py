"""Charts from directories: made into archives that helm, and a digest, can be sure of.

The same files give the same archive, byte by byte: sorted, without times and owners. That is what
tells a chart that changed from one that did not, whatever its version says.

Dependencies that are in `charts/` already are used; those with a `file://` are packaged from the
same tree, and theirs before them; all others are fetched as charts of releases are, with the same
cache, credentials and limits. `Chart.lock` says which version where it is there. Everything happens
on a copy: the tree itself is never written to. Conditions, tags, aliases and imported values are
Chart.yaml's, and helm's to follow.

`valuesFiles` replace values.yaml, in order one over another, as in Flux; for that an archive out of
a repository is packaged anew.
"""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import os
import posixpath
import re
import shutil
import stat
import tarfile
import tempfile
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final
from weakref import WeakValueDictionary

from helmops.errors import (
    ChartRefused,
    ConstraintError,
    SourceMissing,
    SourceUnavailable,
    ValuesError,
    VersionError,
)
from helmops.model.charts import ChartArtifact, Tree
from helmops.resolve.constraint import Constraint
from helmops.resolve.values import merge_values, parse_values, values_for_helm
from helmops.resolve.version import Version
from helmops.sources.archive import (
    ArchiveLimits,
    ChartFacts,
    inspect_archive,
    plain_text,
    read_chart_yaml,
)
from helmops.sources.artifact_cache import ArtifactCache, digest_of
from helmops.sources.helmignore import BadPatternError, IgnoreRules
from helmops.sources.tree_files import signature

#: Fetches a dependency by name, version (or range) and repository. Raises SourceError, ChartError.
DependencyFetch = Callable[[str, str, str], Awaitable[ChartArtifact]]

#: Builds that are kept in mind.
MOST_BUILDS: Final = 2000

#: Dependencies of one chart that are fetched or packaged for it.
MOST_DEPENDENCIES: Final = 200

_LOCKS: Final = ("Chart.lock", "requirements.lock")
_VERSION_LINE: Final = re.compile(rb"^version[ \t]*:[^\n]*$", re.MULTILINE)

#: What a directory looked like: (path, what `signature` said).
_Seen = tuple[str, tuple[tuple[str, int, int], ...]]


@dataclass(frozen=True, slots=True)
class _Request:
    """What was asked for; equal requests of an unchanged tree have one answer."""

    tree: Tree
    path: str
    values_files: tuple[str, ...]
    ignore_missing_values_files: bool
    version_suffix: str

    @property
    def where(self) -> str:
        return f"{self.path} in {self.tree.name}"


@dataclass(frozen=True, slots=True)
class _Repacking:
    """An archive, by its digest, and the values files that it is to get."""

    digest: str
    values_files: tuple[str, ...]
    ignore_missing_values_files: bool


class ChartPackager:
    """The `ChartBuilder` of the real world."""

    def __init__(
        self,
        artifacts: ArtifactCache,
        *,
        scratch: Path | None = None,
        limits: ArchiveLimits | None = None,
    ) -> None:
        """`scratch` is where copies are made (the system's directory for such by default)."""
        self._artifacts = artifacts
        self._scratch = scratch
        self._limits = limits or ArchiveLimits()
        self._built: OrderedDict[_Request, tuple[ChartArtifact, tuple[_Seen, ...]]] = OrderedDict()
        self._repacked: OrderedDict[_Repacking, ChartArtifact] = OrderedDict()
        self._locks: WeakValueDictionary[_Request | _Repacking, asyncio.Lock] = (
            WeakValueDictionary()
        )

    async def build(
        self,
        tree: Tree,
        path: str,
        *,
        values_files: Sequence[str] = (),
        ignore_missing_values_files: bool = False,
        version_suffix: str = "",
        fetch: DependencyFetch | None = None,
    ) -> ChartArtifact:
        """Package the chart at `path`, its dependencies built, fetched with `fetch`.

        `values_files` are relative to the tree. `version_suffix` takes the place of the version's
        build metadata. A build of an unchanged tree is answered from memory.

        Raises SourceMissing, SourceUnavailable (our own disk), ChartRefused, and what `fetch` does.
        """
        request = _Request(
            tree, path, tuple(values_files), ignore_missing_values_files, version_suffix
        )
        lock = self._locks.setdefault(request, asyncio.Lock())
        async with lock:
            with _disk(request.where):
                artifact = await asyncio.to_thread(self._at_hand, request)
                if artifact is None:
                    artifact = await self._make(request, fetch)
            return artifact

    async def with_values_files(
        self,
        artifact: ChartArtifact,
        values_files: Sequence[str],
        *,
        ignore_missing_values_files: bool = False,
    ) -> ChartArtifact:
        """An archive with its values.yaml replaced by these files of it, merged in order.

        The same archive and files give the same archive, answered from memory where it is at hand;
        the artifact itself where all of the files are missing, and may be. Raises SourceMissing,
        SourceUnavailable (our own disk), ChartRefused.
        """
        request = _Repacking(artifact.digest, tuple(values_files), ignore_missing_values_files)
        where = f"{artifact.name} {artifact.version} of {artifact.source}"
        lock = self._locks.setdefault(request, asyncio.Lock())
        async with lock:
            with _disk(where):
                made = self._repacked.get(request)
                if made is None or not await asyncio.to_thread(self._artifacts.find, made.digest):
                    made = await asyncio.to_thread(self._repack, artifact, request, where)
                self._repacked[request] = made
                self._repacked.move_to_end(request)
                while len(self._repacked) > MOST_BUILDS:
                    self._repacked.popitem(last=False)
        # Where it came from is the asker's: another repository may serve the same archive.
        return replace(
            artifact, path=made.path, digest=made.digest, upstream_digest=made.upstream_digest
        )

    def _repack(self, artifact: ChartArtifact, request: _Repacking, where: str) -> ChartArtifact:
        scratch = self._new_scratch()
        try:
            inspect_archive(Path(artifact.path), where, self._limits)
            chart = scratch / "chart"
            chart.mkdir()
            _unpack(Path(artifact.path), chart)

            def read(name: str) -> bytes | None:
                file = chart / _within(name, where)
                return file.read_bytes() if file.is_file() else None

            values = _merged_values(
                read,
                request.values_files,
                request.ignore_missing_values_files,
                where,
                "valuesFiles are relative to the chart",
            )
            if values is None:
                return artifact
            (chart / "values.yaml").write_bytes(values)
            path, digest = self._keep(chart, artifact.name, where)
            upstream = artifact.upstream_digest or artifact.digest
            return replace(artifact, path=str(path), digest=digest, upstream_digest=upstream)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)

    def _keep(self, directory: Path, name: str, where: str) -> tuple[Path, str]:
        """Pack a chart's directory into the cache; gives back the archive and its digest."""
        with self._artifacts.incoming() as incoming:
            _pack(directory, name, incoming)
            inspect_archive(incoming, where, self._limits)
            digest = digest_of(incoming)
            return self._artifacts.add(incoming, digest), digest

    def _at_hand(self, request: _Request) -> ChartArtifact | None:
        found = self._built.get(request)
        if found is None:
            return None
        artifact, seen = found
        # The files of a revision never change; those of a directory may.
        changed = not request.tree.revision and any(
            signature([path]) != before for path, before in seen
        )
        if changed or self._artifacts.find(artifact.digest) is None:
            return None
        self._built.move_to_end(request)
        return artifact

    async def _make(self, request: _Request, fetch: DependencyFetch | None) -> ChartArtifact:
        scratch = await asyncio.to_thread(self._new_scratch)
        try:
            staging = _Staging(
                root=Path(request.tree.path),
                copy=scratch,
                where=request.where,
                limits=self._limits,
                fetch=fetch,
            )
            chart = await staging.prepare(request.path)
            artifact = await asyncio.to_thread(self._finish, request, staging, chart)
        finally:
            await asyncio.to_thread(shutil.rmtree, scratch, ignore_errors=True)
        self._built[request] = artifact, tuple(staging.seen)
        while len(self._built) > MOST_BUILDS:
            self._built.popitem(last=False)
        return artifact

    def _new_scratch(self) -> Path:
        if self._scratch is not None:
            self._scratch.mkdir(parents=True, exist_ok=True)
        return Path(tempfile.mkdtemp(prefix="helmops-chart-", dir=self._scratch))

    def _finish(self, request: _Request, staging: _Staging, chart: _Chart) -> ChartArtifact:
        """Values, version, archive, cache."""
        if chart.facts.is_library:
            raise ChartRefused(
                f"{chart.facts.name} is a library chart: it has nothing to install",
                where=request.where,
                next_step="name the chart that uses it",
            )
        staging.put_values(chart, request.values_files, request.ignore_missing_values_files)
        facts = chart.facts
        if request.version_suffix:
            facts = _with_suffix(chart, request.version_suffix, request.where)
        path, digest = self._keep(chart.directory, facts.name, request.where)
        tree = request.tree
        return ChartArtifact(
            name=facts.name,
            version=facts.version,
            path=str(path),
            digest=digest,
            source=f"{tree.name}@{tree.revision}" if tree.revision else tree.name,
            revision=facts.version,
            app_version=facts.app_version,
            deprecated=facts.deprecated,
            annotations=facts.annotations,
        )


@dataclass(slots=True)
class _Chart:
    """A chart in the copy."""

    directory: Path
    facts: ChartFacts


@dataclass(slots=True)
class _Staging:
    """A copy of the charts that one build needs, at the same places relative to one another as in
    the tree, so that `file://../other` means the same.
    """

    root: Path
    copy: Path
    where: str
    limits: ArchiveLimits
    fetch: DependencyFetch | None
    seen: list[_Seen] = field(default_factory=list)
    _ready: dict[str, _Chart] = field(default_factory=dict)
    _files: int = 0
    _bytes: int = 0

    async def prepare(self, path: str, above: tuple[str, ...] = ()) -> _Chart:
        """The chart at a path of the tree, copied, with all of its dependencies in `charts/`."""
        place = _within(path, self.where)
        if place in above:
            circle = " -> ".join((*above, place))
            raise ChartRefused(f"the chart depends on itself: {circle}", where=self.where)
        if place not in self._ready:
            chart = await asyncio.to_thread(self._take, place)
            await self._build_dependencies(chart, place, (*above, place))
            self._ready[place] = chart
        return self._ready[place]

    def _take(self, place: str) -> _Chart:
        """Copy one chart, or unpack it where the tree has it as an archive."""
        source = self._real(self.root / place)
        self.seen.append((str(source), signature([str(source)])))
        target = self.copy / "tree" / place
        if source.is_file() and source.suffix == ".tgz":
            inspect_archive(source, self.where, self.limits)
            target = target.with_name(f"{target.name}.unpacked")
            _unpack(source, target)
        elif source.is_dir():
            if not (source / "Chart.yaml").is_file():
                raise SourceMissing(
                    f"no chart at {place}: it has no Chart.yaml",
                    where=self.where,
                    next_step="chart must be the path of a chart's directory",
                )
            self._copy_directory(source, target)
        else:
            raise SourceMissing(
                f"no directory {place}", where=self.where, next_step="look at the chart's path"
            )
        text = _read_if_there(target / "Chart.yaml")
        if text is None:
            raise ChartRefused(".helmignore leaves out Chart.yaml", where=self.where)
        return _Chart(target, read_chart_yaml(text, self.where))

    def _copy_directory(self, source: Path, target: Path) -> None:
        """Everything that .helmignore lets through. Links are followed as helm does it, but never
        out of the tree.
        """
        rules = self._rules(source)
        waiting: list[tuple[Path, str, tuple[Path, ...]]] = [(source, "", (source,))]
        target.mkdir(parents=True, exist_ok=True)
        while waiting:
            directory, inside, ancestors = waiting.pop()
            for entry in sorted(os.scandir(directory), key=lambda entry: entry.name):
                path = posixpath.join(inside, entry.name)
                real = self._real(Path(entry.path)) if entry.is_symlink() else Path(entry.path)
                mode = real.stat().st_mode
                if rules.ignores(path, is_directory=stat.S_ISDIR(mode)):
                    continue
                if stat.S_ISDIR(mode):
                    if real in ancestors:
                        raise ChartRefused(f"the link {path} leads in circles", where=self.where)
                    (target / path).mkdir(exist_ok=True)
                    waiting.append((real, path, (*ancestors, real)))
                elif stat.S_ISREG(mode):
                    self._count(path, real.stat().st_size)
                    shutil.copyfile(real, target / path)
                else:
                    raise ChartRefused(
                        f"{path} is neither a file nor a directory", where=self.where
                    )

    def _rules(self, source: Path) -> IgnoreRules:
        try:
            return IgnoreRules(self._real(source / ".helmignore").read_text("utf-8", "replace"))
        except SourceMissing:
            return IgnoreRules()
        except BadPatternError as error:
            raise ChartRefused(f".helmignore: {error}", where=self.where) from None

    def _count(self, path: str, size: int) -> None:
        self._files += 1
        self._bytes += size
        if size > self.limits.file:
            raise ChartRefused(
                f"{path} is larger than {self.limits.file >> 20} MiB",
                where=self.where,
                next_step="list it in .helmignore",
            )
        if self._files > self.limits.entries or self._bytes > self.limits.unpacked:
            raise ChartRefused(
                f"more than {self.limits.entries} files or {self.limits.unpacked >> 20} MiB",
                where=self.where,
                next_step="list in .helmignore what the chart does not need",
            )

    def _real(self, path: Path) -> Path:
        """Where a path of the tree really is. Raises ChartRefused for a link out of it."""
        root = self.root.resolve()
        try:
            real = path.resolve(strict=True)
        except FileNotFoundError:
            raise SourceMissing(f"no {self._named(path)}", where=self.where) from None
        except (OSError, RuntimeError):
            raise ChartRefused(
                f"the link {self._named(path)} leads in circles", where=self.where
            ) from None
        if not real.is_relative_to(root):
            raise ChartRefused(
                f"the link {self._named(path)} leads out of the source", where=self.where
            )
        return real

    def _named(self, path: Path) -> str:
        return str(path.relative_to(self.root)) if path.is_relative_to(self.root) else path.name

    # Dependencies.

    async def _build_dependencies(self, chart: _Chart, place: str, above: tuple[str, ...]) -> None:
        wanted = await asyncio.to_thread(_dependencies, chart, self.where)
        missing = await asyncio.to_thread(self._missing, chart, wanted)
        if not missing:
            return
        if len(missing) > MOST_DEPENDENCIES:
            raise ChartRefused(
                f"{chart.facts.name} has more than {MOST_DEPENDENCIES} dependencies to fetch",
                where=self.where,
            )
        locked = await asyncio.to_thread(_locked, chart, missing, self.where)
        for dependency in locked:
            if dependency.repository.startswith("file://"):
                found = await self.prepare(
                    posixpath.join(place, dependency.repository.removeprefix("file://")), above
                )
                if not dependency.is_met_by(found.facts):
                    raise ChartRefused(
                        f"{chart.facts.name} depends on {dependency}, but {dependency.repository}"
                        f" has {found.facts.name} {found.facts.version}",
                        where=self.where,
                    )
                await asyncio.to_thread(_put_chart, found, chart)
            elif dependency.repository and self.fetch is not None:
                artifact = await self.fetch(
                    dependency.name, dependency.version, dependency.repository
                )
                await asyncio.to_thread(_put_archive, artifact, chart)
        left = await asyncio.to_thread(self._missing, chart, wanted)
        if left:
            raise ChartRefused(
                f"the dependency {left[0]} of {chart.facts.name} is not in charts/, and names no"
                " repository to fetch it from",
                where=self.where,
                next_step="look at the dependencies in Chart.yaml",
            )

    def _missing(self, chart: _Chart, wanted: Sequence[_Dependency]) -> list[_Dependency]:
        there = list(self._vendored(chart)) if wanted else []
        return [one for one in wanted if not any(one.is_met_by(facts) for facts in there)]

    def _vendored(self, chart: _Chart) -> Iterator[ChartFacts]:
        directory = chart.directory / "charts"
        for path in sorted(directory.iterdir()) if directory.is_dir() else ():
            where = f"charts/{path.name} of {self.where}"
            if path.suffix == ".tgz":
                yield inspect_archive(path, where, self.limits)
            elif (path / "Chart.yaml").is_file():
                yield read_chart_yaml((path / "Chart.yaml").read_bytes(), where)

    # Values.

    def put_values(self, chart: _Chart, files: Sequence[str], ignore_missing: bool) -> None:
        """Replace values.yaml."""

        def read(name: str) -> bytes | None:
            try:
                real = self._real(self.root / _within(name, self.where))
                text = real.read_bytes()
            except (SourceMissing, IsADirectoryError):
                return None
            self.seen.append((str(real), signature([str(real)])))
            return text

        advice = "valuesFiles are relative to the source, not to the chart"
        merged = _merged_values(read, files, ignore_missing, self.where, advice)
        if merged is not None:
            (chart.directory / "values.yaml").write_bytes(merged)


def _merged_values(
    read: Callable[[str], bytes | None],
    files: Sequence[str],
    ignore_missing: bool,
    where: str,
    advice: str,
) -> bytes | None:
    """What values files say together; a single one stays as it is, byte by byte. None for none."""
    texts: dict[str, bytes] = {}
    for name in files:
        text = read(name)
        if text is None and not ignore_missing:
            raise SourceMissing(f"no values file {name}", where=where, next_step=advice)
        if text is not None:
            texts[_within(name, where)] = text
    if not texts:
        return None
    try:
        layers = [parse_values(text, path) for path, text in texts.items()]
        if len(layers) > 1:
            return values_for_helm(merge_values(layers))
    except ValuesError as error:
        raise ChartRefused(f"a values file cannot be read: {error}", where=where) from None
    return next(iter(texts.values()))


@dataclass(frozen=True, slots=True)
class _Dependency:
    """One entry of a chart's dependencies."""

    name: str
    version: str
    repository: str

    def is_met_by(self, facts: ChartFacts) -> bool:
        """Whether a chart is the one that is meant; a range that is none fits nothing."""
        return facts.name == self.name and self.takes(facts.version)

    def takes(self, version: str) -> bool:
        """Whether a version is in its range."""
        try:
            return self.version == version or (
                Constraint.parse(self.version or "*").matches(version)
            )
        except (ConstraintError, VersionError):
            return False

    def __str__(self) -> str:
        return f"{self.name} {self.version}".rstrip()


def _dependencies(chart: _Chart, where: str) -> list[_Dependency]:
    """Those in Chart.yaml, and for charts of API version 1 those in requirements.yaml."""
    declared: Sequence[Any] = chart.facts.dependencies
    old = _read_if_there(chart.directory / "requirements.yaml")
    if old is not None and not declared:
        try:
            listed = parse_values(old, "requirements.yaml").get("dependencies")
        except ValuesError as error:
            raise ChartRefused(str(error), where=where) from None
        declared = listed if isinstance(listed, list) else ()
    return _read_dependencies(declared)


def _read_dependencies(listed: Sequence[Any]) -> list[_Dependency]:
    names = ("name", "version", "repository")
    return [
        _Dependency(*(plain_text(one.get(name)) for name in names))
        for one in listed
        if isinstance(one, Mapping)
    ]


def _locked(chart: _Chart, wanted: Sequence[_Dependency], where: str) -> tuple[_Dependency, ...]:
    """The dependencies with the versions that the chart's lock gives them, as they are where it has
    no lock. Raises ChartRefused where the lock does not fit what Chart.yaml says by now.
    """
    name = next((name for name in _LOCKS if (chart.directory / name).is_file()), "")
    if not name:
        return tuple(wanted)
    try:
        listed = parse_values((chart.directory / name).read_bytes(), name).get("dependencies")
    except ValuesError as error:
        raise ChartRefused(str(error), where=where) from None
    entries = _read_dependencies(listed if isinstance(listed, list) else ())
    found: list[_Dependency] = []
    for one in wanted:
        same = [entry for entry in entries if entry.name == one.name]
        fits = [
            e
            for e in same
            if e.repository.rstrip("/") == one.repository.rstrip("/") and one.takes(e.version)
        ]
        if not fits:
            has = (
                f"it has {', '.join(f'{e} of {e.repository}' for e in same)}"
                if same
                else ("it does not have it")
            )
            raise ChartRefused(
                f"{name} is out of date: {chart.facts.name} depends on {one} of"
                f" {one.repository or 'charts/'}, and {has}",
                where=where,
                next_step="run helm dependency update, and commit the lock",
            )
        found.append(fits[0])
    return tuple(found)


def _put_chart(dependency: _Chart, chart: _Chart) -> None:
    """Package one chart into another's `charts/`."""
    directory = chart.directory / "charts"
    directory.mkdir(exist_ok=True)
    facts = dependency.facts
    _pack(dependency.directory, facts.name, directory / f"{facts.name}-{facts.version}.tgz")


def _put_archive(artifact: ChartArtifact, chart: _Chart) -> None:
    """Put a chart that was fetched into another's `charts/`."""
    directory = chart.directory / "charts"
    directory.mkdir(exist_ok=True)
    shutil.copyfile(artifact.path, directory / f"{artifact.name}-{artifact.version}.tgz")


def _with_suffix(chart: _Chart, suffix: str, where: str) -> ChartFacts:
    """Put build metadata on the chart's version; gives back the facts as they are then."""
    path = chart.directory / "Chart.yaml"
    text = path.read_bytes()
    version = str(Version.parse(chart.facts.version)).partition("+")[0] + f"+{suffix}"
    wanted = replace(chart.facts, version=version)
    changed, count = _VERSION_LINE.subn(b'version: "' + version.encode() + b'"', text)
    if count != 1 or read_chart_yaml(changed, where) != wanted:
        # Written in some other way (flow style, quoted key): the same content anew.
        changed = json.dumps({**parse_values(text, where), "version": version}).encode()
    path.write_bytes(changed)
    return read_chart_yaml(changed, where)


def _pack(directory: Path, name: str, into: Path) -> None:
    """A .tgz of a directory, the same for the same files."""
    paths = sorted(
        path.relative_to(directory).as_posix() for path in directory.rglob("*") if path.is_file()
    )
    with (
        into.open("wb") as raw,
        gzip.GzipFile(filename="", mode="wb", fileobj=raw, mtime=0, compresslevel=6) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as archive,
    ):
        for path in paths:
            member = tarfile.TarInfo(f"{name}/{path}")
            with (directory / path).open("rb") as content:
                member.size = os.fstat(content.fileno()).st_size
                archive.addfile(member, content)


def _unpack(archive_path: Path, target: Path) -> None:
    """Write an archive that was looked through: its files, without its own directory."""
    with tarfile.open(archive_path, "r:gz") as archive:
        for member in archive:
            inside = posixpath.normpath(member.name.replace("\\", "/")).partition("/")[2]
            content = archive.extractfile(member) if member.isreg() and inside else None
            if content is not None:
                path = target / inside
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content.read())


def _within(path: str, where: str) -> str:
    """A path of the tree, normalised. Raises ChartRefused for one that leads out of it."""
    place = posixpath.normpath(path.lstrip("/") or ".")
    if place == ".." or place.startswith("../") or "\0" in place:
        raise ChartRefused(f"the path {path} leads out of the source", where=where)
    return place


def _read_if_there(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None


@contextlib.contextmanager
def _disk(where: str) -> Iterator[None]:
    """What goes wrong with files that are ours, in our words."""
    try:
        yield
    except OSError as error:
        raise SourceUnavailable(
            f"the chart cannot be packaged: {error.strerror or type(error).__name__}",
            where=where,
            next_step="see that the cache directory has space and may be written",
        ) from None
