"""The nouns of charts: a version that a source offers, and a chart archive at hand."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from helmops.model.post_rendering import PostRendering


@dataclass(frozen=True, slots=True)
class ChartVersion:
    """One entry of a repository's index.

    `digest` is lower-case hex SHA-256 of the archive, empty where the index has none. `urls` are as
    the index gives them, absolute or relative to the repository.
    """

    name: str
    version: str
    urls: tuple[str, ...] = ()
    digest: str = ""
    app_version: str = ""
    created: datetime | None = None
    deprecated: bool = False
    description: str = ""


@dataclass(frozen=True, slots=True)
class ChartArtifact:
    """A chart archive in the local cache.

    `path` names a `.tgz` that helm can read, `digest` is its lower-case hex SHA-256, `source` tells
    a person where it came from (`HelmRepository/podinfo`, `GitRepository/apps@main@sha1:…`).
    `revision` is what Flux calls the artifact's revision: the chart version, or for
    `reconcileStrategy: Revision` the version with the source's revision behind a `+`.
    `annotations` are those of Chart.yaml, sorted.
    """

    name: str
    version: str
    path: str
    digest: str
    source: str
    revision: str = ""
    app_version: str = ""
    #: What the release makes of the chart's objects before they are applied: whoever renders or
    #: releases the chart does it.
    post_rendering: PostRendering | None = field(default=None, kw_only=True)
    deprecated: bool = False
    #: Hex SHA-256 of the archive as its source gave it; empty where that is `digest`, and where
    #: helmops packed a directory.
    upstream_digest: str = ""
    #: A chart that only others use: there is nothing in it to install.
    is_library: bool = False
    annotations: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Tree:
    """Files of one revision of a Git repository, or of a directory.

    `revision` is Flux's (`main@sha1:0123…`) for Git, a digest of the content for a directory.
    """

    name: str
    revision: str
    path: str


@dataclass(frozen=True, slots=True)
class IncludedTree:
    """Files of another tree that are to be within one: those below `from_path`, at `to_path`."""

    tree: Tree
    from_path: str
    to_path: str
