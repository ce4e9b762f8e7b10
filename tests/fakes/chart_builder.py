"""A chart builder in memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from helmops.errors import ChartRefused, HelmError, SourceMissing
from helmops.model.charts import ChartArtifact, Tree
from helmops.reconcile.ports import DependencyFetch
from tests.fakes.chart_archives import sha256


@dataclass(frozen=True)
class Built:
    """One call of `build`."""

    tree: Tree
    path: str
    values_files: tuple[str, ...] = ()
    ignore_missing_values_files: bool = False
    version_suffix: str = ""


class FakeChartBuilder:
    """A `ChartBuilder` that knows the charts which tests put into trees.

    Equal calls give equal digests; a chart that was put again gives another one. `built` keeps
    every call. `fail` lets a path raise, until it is told None.
    """

    def __init__(self) -> None:
        self.built: list[Built] = []
        self._charts: dict[tuple[str, str], ChartArtifact] = {}
        self._values_files: set[tuple[str, str]] = set()
        self._failures: dict[str, ChartRefused | HelmError | SourceMissing] = {}
        self._puts = 0
        #: What the last build was given to fetch dependencies with.
        self.fetch: DependencyFetch | None = None

    def put(
        self, tree_path: str, path: str, name: str, version: str, *, deprecated: bool = False
    ) -> None:
        """Let the tree at `tree_path` have this chart at `path`."""
        self._puts += 1
        self._charts[tree_path, path] = ChartArtifact(
            name=name,
            version=version,
            path="",
            digest=str(self._puts),
            source="",
            deprecated=deprecated,
        )

    def put_values_file(self, tree_path: str, path: str) -> None:
        """Let the tree at `tree_path` have this values file."""
        self._values_files.add((tree_path, path))

    def fail(self, path: str, error: ChartRefused | HelmError | SourceMissing | None) -> None:
        """Let every build of a path raise, until it is told None."""
        if error is None:
            self._failures.pop(path, None)
        else:
            self._failures[path] = error

    async def with_values_files(
        self,
        artifact: ChartArtifact,
        values_files: Sequence[str],
        *,
        ignore_missing_values_files: bool = False,
    ) -> ChartArtifact:
        """An archive has the values files that `put_values_file("", path)` names."""
        there = [name for name in values_files if ("", name) in self._values_files]
        if len(there) < len(values_files) and not ignore_missing_values_files:
            raise SourceMissing("no values file", where=artifact.source)
        digest = sha256(f"{artifact.digest} {there}".encode())
        upstream = artifact.upstream_digest or artifact.digest
        return replace(artifact, digest=digest, upstream_digest=upstream) if there else artifact

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
        self.fetch = fetch
        call = Built(tree, path, tuple(values_files), ignore_missing_values_files, version_suffix)
        self.built.append(call)
        if path in self._failures:
            raise self._failures[path]
        chart = self._charts.get((tree.path, path))
        if chart is None:
            raise SourceMissing(f"no directory {path}", where=tree.name)
        for name in values_files:
            if (tree.path, name) not in self._values_files and not ignore_missing_values_files:
                raise SourceMissing(f"no values file {name}", where=tree.name)
        version = chart.version
        if version_suffix:
            version = f"{version.partition('+')[0]}+{version_suffix}"
        digest = sha256(f"{chart.digest} {path} {version} {call.values_files}".encode())
        return replace(
            chart,
            version=version,
            path=f"/cache/{chart.name}-{version}.tgz",
            digest=digest,
            source=f"{tree.name}@{tree.revision}" if tree.revision else tree.name,
            revision=version,
        )
