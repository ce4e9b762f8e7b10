"""Git repositories: one bare mirror each, fetched shallowly, checked out read-only by commit.

One mirror serves every declaration that names the same URL; checkouts differ where declarations do
(in sparse paths, submodules, what is ignored, included or verified). `git_process` runs git,
`git_export` fetches and checks out.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar
from urllib.parse import parse_qsl, urlsplit, urlunsplit

from helmops.errors import (
    ConstraintError,
    SourceMissing,
    SourceUnavailable,
    UsageError,
    VersionError,
)
from helmops.model.charts import IncludedTree, Tree
from helmops.model.credentials import GitCredentials
from helmops.model.declarations import GitRepositorySpec
from helmops.resolve.constraint import Constraint
from helmops.resolve.version import Version
from helmops.sources.cache_files import is_used
from helmops.sources.git_export import Checkout, check_out
from helmops.sources.git_process import (
    SHA,
    TRANSPORTS,
    Running,
    open_session,
    place_of,
    shown_url,
    without_userinfo,
)

T = TypeVar("T")

_DEFAULT_INTERVAL: Final = "30s"


@dataclass(frozen=True, slots=True)
class GitLocation:
    """What a `-f git+…` means: a repository, and a path in it. `label` can be shown."""

    repository: GitRepositorySpec
    path: str
    label: str
    credentials: GitCredentials


def parse_git_filename(text: str) -> GitLocation:
    """Read `git+https://host/repo.git?ref=main&path=clusters/prod`.

    Also `git+http`, `git+ssh` and `git+file`. The query takes `ref` (a branch), `tag`, `semver`,
    `commit`, `name`, `path`, `interval` and `timeout`; without a reference it is the repository's
    HEAD. Raises UsageError.
    """
    if not text.startswith("git+"):
        raise UsageError(f"{text} is no Git location", next_step="write git+https://HOST/REPO.git")
    try:
        parts = urlsplit(text[4:])
        _ = parts.port
    except ValueError:
        raise UsageError("a Git location's URL cannot be read") from None
    if parts.scheme not in TRANSPORTS or (parts.scheme != "file" and not parts.hostname):
        raise UsageError(
            f"git+{parts.scheme}://… is no Git location",
            next_step="git+https, git+http, git+ssh and git+file are read",
        )
    query = dict(parse_qsl(parts.query, keep_blank_values=True))
    known = {"ref", "tag", "semver", "commit", "name", "path", "interval", "timeout"}
    unknown = sorted(query.keys() - known)
    if unknown:
        raise UsageError(
            f"`{unknown[0]}` is not known in a Git location",
            next_step=f"known are {', '.join(sorted(known))}",
        )
    url, credentials = without_userinfo(urlunsplit(parts._replace(query="", fragment="")))
    reference = {
        field: query[name]
        for name, field in (
            ("ref", "branch"),
            ("tag", "tag"),
            ("semver", "semver"),
            ("commit", "commit"),
            ("name", "name"),
        )
        if query.get(name)
    }
    times = {name: query[name] for name in ("interval", "timeout") if name in query}
    try:
        repository = GitRepositorySpec.model_validate(
            {
                "url": url,
                "ref": reference or {"name": "HEAD"},
                "interval": _DEFAULT_INTERVAL,
                **times,
            }
        )
    except ValueError as error:
        raise UsageError(f"the Git location {url} cannot be used: {error}") from error
    path = query.get("path", "").strip("/")
    if ".." in path.split("/"):
        raise UsageError(f"the path {path} leaves the repository")
    shown = f"git+{url}" + (f"?path={path}" if path else "")
    return GitLocation(repository, path, shown, credentials)


class GitMirrors:
    """The `GitTrees` port. `directory` holds mirrors and checkouts; processes may share it."""

    def __init__(self, directory: Path, *, threads: int = 4) -> None:
        self._directory = directory
        self._threads = ThreadPoolExecutor(max_workers=threads, thread_name_prefix="helmops-git")
        self._locks: dict[str, asyncio.Lock] = {}
        self._running: set[Running] = set()

    def close(self) -> None:
        """Start nothing more, and end the gits that run."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        for running in list(self._running):
            running.stop()

    async def resolve(self, repository: GitRepositorySpec, credentials: GitCredentials) -> str:
        """The revision that the reference names now; see the port. A full commit asks nobody."""
        return await self._in_thread(_resolve, repository, credentials)

    async def checkout(
        self,
        repository: GitRepositorySpec,
        credentials: GitCredentials,
        revision: str,
        *,
        keys: Mapping[str, bytes] | None = None,
        included: Sequence[IncludedTree] = (),
    ) -> Tree:
        """The files of that revision; see the port. No request where they are at hand."""
        place = place_of(repository.url)
        wanted = Checkout(repository, credentials, revision, dict(keys or {}), tuple(included))
        target = self._directory / "trees" / place / wanted.name
        tree = Tree(name=shown_url(repository.url), revision=revision, path=str(target))
        if is_used(target):
            return tree
        async with self._locks.setdefault(f"{place}/{wanted.name}", asyncio.Lock()):
            if not target.is_dir():
                await self._in_thread(check_out, self._directory, wanted, target)
        return tree

    async def _in_thread(self, work: Callable[..., T], *arguments: Any) -> T:
        running = Running()
        loop = asyncio.get_running_loop()
        try:
            future = loop.run_in_executor(self._threads, work, running, *arguments)
        except RuntimeError:  # we were closed
            raise SourceUnavailable("helmops is stopping") from None
        self._running.add(running)
        try:
            return await future
        except asyncio.CancelledError:
            running.stop()
            raise
        finally:
            self._running.discard(running)


# What is asked for ------------------------------------------------------------------------------


def _resolve(running: Running, repository: GitRepositorySpec, credentials: GitCredentials) -> str:
    reference = repository.ref
    if reference.commit:
        if not SHA.fullmatch(reference.commit):
            raise SourceMissing(
                f"{reference.commit} is no full commit hash", where=shown_url(repository.url)
            )
        branch = f"{reference.branch}@" if reference.branch else ""
        return f"{branch}sha1:{reference.commit}"
    if reference.name:
        shown, wanted = reference.name, [reference.name, f"{reference.name}^{{}}"]
    elif reference.semver:
        shown, wanted = reference.semver, ["refs/tags/*"]
    elif reference.tag:
        shown, wanted = reference.tag, [f"refs/tags/{reference.tag}"]
        wanted.append(f"{wanted[0]}^{{}}")
    else:
        shown = reference.branch or "master"
        wanted = [f"refs/heads/{shown}"]
    with open_session(running, repository.url, credentials) as session:
        output = session.run(repository.timeout, "ls-remote", "--", session.url, *wanted)
    found = {
        name: commit
        for commit, _, name in (line.partition("\t") for line in output.splitlines())
        if SHA.fullmatch(commit)
    }
    if reference.semver and not reference.name:
        shown = _newest_tag(found, reference.semver, repository.url)
        wanted = [f"refs/tags/{shown}"]
    # A peeled tag (`^{}`) is the commit behind an annotated one.
    commit = found.get(f"{wanted[0]}^{{}}") or found.get(wanted[0])
    if commit is None:
        kind = "reference" if reference.name else "tag" if reference.tag else "branch"
        raise SourceMissing(
            f"there is no {kind} {shown}",
            where=shown_url(repository.url),
            next_step="look at spec.ref; what was released stays as it is",
        )
    return f"{shown}@sha1:{commit}"


def _newest_tag(found: dict[str, str], wanted: str, url: str) -> str:
    try:
        constraint = Constraint.parse(wanted)
    except ConstraintError as error:
        raise SourceMissing(str(error), where=shown_url(url)) from error
    newest: tuple[Version, str] | None = None
    for name in found:
        tag = name.removeprefix("refs/tags/").removesuffix("^{}")
        try:
            version = Version.parse(tag)
        except VersionError:
            continue
        if constraint.matches(version) and (newest is None or version > newest[0]):
            newest = version, tag
    if newest is None:
        raise SourceMissing(f"no tag is in {wanted!r}", where=shown_url(url))
    return newest[1]
