"""Fetches one commit into a bare mirror, and puts its files where they stay.

A checkout is made beside its place, moved there when it is whole, and never changed again. Objects
come shallowly, and where only some directories are wanted, without the files of others. Processes
that share the directory take turns at a mirror; a lock of git's own that is found then is one that
a killed git left.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import posixpath
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from helmops.errors import SourceError, SourceInvalid, SourceMissing, SourceUnavailable
from helmops.model.charts import IncludedTree
from helmops.model.credentials import GitCredentials
from helmops.model.declarations import GitRepositorySpec
from helmops.sources.cache_files import drop_old_trees
from helmops.sources.git_process import (
    SHA,
    CorruptError,
    Running,
    Session,
    check_url,
    open_session,
    place_of,
    shown_url,
)
from helmops.sources.git_signatures import verify_object

#: Submodules within submodules, and all of them together.
_MOST_LEVELS: Final = 8
_MOST_SUBMODULES: Final = 100
#: Patterns that `ignore` may have, and bytes of them: they are arguments of git.
_MOST_PATTERNS: Final = 1000
_LONGEST_IGNORE: Final = 64 * 1024


@dataclass(frozen=True, slots=True)
class Checkout:
    """What is wanted of a repository; `keys` are those that `verify` names, by file name."""

    repository: GitRepositorySpec
    credentials: GitCredentials
    revision: str
    keys: Mapping[str, bytes]
    included: tuple[IncludedTree, ...] = ()

    @property
    def commit(self) -> str:
        """The full hash. Raises SourceMissing."""
        return commit_of(self.revision)

    @property
    def name(self) -> str:
        """Its directory's name: the commit, and what tells it from other checkouts of that."""
        spec = self.repository
        verified = [spec.verify.mode] if spec.verify is not None else []
        apart = [
            sorted(spec.sparse_checkout),
            spec.recurse_submodules,
            spec.ignore,
            [*verified, *((name, key.hex()) for name, key in sorted(self.keys.items()))],
            [(one.tree.path, one.from_path, one.to_path) for one in self.included],
            # Which tag was verified is in the revision's name.
            self.revision.rpartition("@")[0] if verified else "",
        ]
        if not any(apart):
            return self.commit
        text = json.dumps(apart, separators=(",", ":"))
        return f"{self.commit}.{hashlib.sha256(text.encode()).hexdigest()[:16]}"


def commit_of(revision: str) -> str:
    """The commit that a revision ends with. Raises SourceMissing."""
    commit = revision.rpartition(":")[2]
    if not SHA.fullmatch(commit):
        raise SourceMissing(f"{revision} is no revision of a Git repository")
    return commit


def check_out(running: Running, directory: Path, wanted: Checkout, target: Path) -> None:
    """Put the files of a commit at `target`. Blocks. Raises SourceError, SignatureRefused."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".checkout-") as name:
        scratch = Path(name)
        files = scratch / "files"
        files.mkdir()
        export = _Export(running, directory, wanted, scratch)
        export.files_of_commit(wanted.repository.url, wanted.commit, files, is_own=True)
        if wanted.repository.recurse_submodules:
            export.submodules(wanted.repository.url, wanted.commit, files)
        _include(wanted, files)
        with contextlib.suppress(OSError):  # another process was faster
            files.rename(target)
    if not target.is_dir():
        raise SourceUnavailable("the checkout cannot be moved to its place", where=str(target))
    mirror = directory / "mirrors" / place_of(wanted.repository.url)
    with (
        _locked(mirror.with_suffix(".lock")),
        open_session(running, wanted.repository.url, wanted.credentials) as session,
    ):
        drop_old_trees(target, _is_checkout)
        _drop_old_commits(session, mirror, target, wanted.repository.timeout)


@dataclass(slots=True)
class _Export:
    """One checkout that is being made, in a scratch directory of its own."""

    running: Running
    directory: Path
    wanted: Checkout
    scratch: Path
    submodules_found: int = 0

    @property
    def timeout(self) -> timedelta:
        return self.wanted.repository.timeout

    def files_of_commit(self, url: str, commit: str, files: Path, *, is_own: bool) -> None:
        """Fetch a commit where it is not at hand, and write its files.

        `is_own`: of the repository itself, for which the declaration's fields count; of a submodule
        everything is taken.
        """
        mirror = self.directory / "mirrors" / place_of(url)
        mirror.parent.mkdir(parents=True, exist_ok=True)
        with (
            _locked(mirror.with_suffix(".lock")),
            open_session(self.running, url, self._credentials_for(url)) as session,
        ):
            for attempt in (1, 2):
                try:
                    self._fetch(session, mirror, commit, is_own=is_own)
                    if is_own:
                        self._verify(session, mirror)
                    self._write(session, mirror, commit, files, is_own=is_own)
                    return
                except CorruptError as error:
                    # The mirror is only a copy: once more, from the beginning.
                    shutil.rmtree(mirror, ignore_errors=True)
                    for leftover in files.iterdir():
                        if leftover.is_dir() and not leftover.is_symlink():
                            shutil.rmtree(leftover)
                        else:
                            leftover.unlink()
                    if attempt == 2:
                        raise SourceInvalid(
                            f"the repository is damaged: {error}", where=shown_url(url)
                        ) from error

    def _credentials_for(self, url: str) -> GitCredentials:
        """Submodules of the same server are opened like the repository, others with nothing."""
        own, other = urlsplit(self.wanted.repository.url), urlsplit(url)
        same = (own.scheme, own.hostname, own.port) == (other.scheme, other.hostname, other.port)
        return self.wanted.credentials if same else GitCredentials()

    def _fetch(self, session: Session, mirror: Path, commit: str, *, is_own: bool) -> None:
        if not (mirror / "HEAD").exists():
            shutil.rmtree(mirror, ignore_errors=True)
            session.run(self.timeout, "init", "--quiet", "--bare", "--", str(mirror))
            # For `helmops cache ls`; nothing else tells whose mirror it is.
            (mirror / "description").write_text(shown_url(session.url))
        for stale in mirror.glob("*.lock"):  # of a git that was killed; we hold the lock of all
            stale.unlink(missing_ok=True)
        at = ("--git-dir", str(mirror))
        if session.succeeds(self.timeout, *at, "cat-file", "-e", f"{commit}^{{tree}}"):
            return
        is_partial = is_own and bool(self.wanted.repository.sparse_checkout)
        fetch = (
            *at,
            "fetch",
            "--quiet",
            "--no-tags",
            "--no-write-fetch-head",
            "--depth=1",
            "--filter=blob:none" if is_partial else "--no-filter",
            "--",
            "origin",
        )
        kept = f"refs/helmops/{commit}"
        try:
            session.run(self.timeout, *fetch, f"+{commit}:{kept}")
        except SourceMissing:
            # A server of protocol v0 gives out the tips of references only.
            name = self.wanted.revision.rpartition("@")[0] if is_own else "HEAD"
            if not name:
                raise
            session.run(self.timeout, *fetch, f"+{name}:{kept}")
            if not session.succeeds(self.timeout, *at, "cat-file", "-e", f"{commit}^{{tree}}"):
                raise SourceUnavailable(
                    f"{name} moved on while it was fetched", where=shown_url(session.url)
                ) from None

    def _write(
        self, session: Session, mirror: Path, commit: str, files: Path, *, is_own: bool
    ) -> None:
        spec = self.wanted.repository
        at: tuple[str, ...] = ("--git-dir", str(mirror), "--work-tree", str(files))
        index = {"GIT_INDEX_FILE": str(self.scratch / f"index-{self.submodules_found}")}
        sparse = _sparse_patterns(spec.sparse_checkout) if is_own else ""
        pattern_file = mirror / "info" / "sparse-checkout"
        if sparse:
            pattern_file.parent.mkdir(exist_ok=True)
            pattern_file.write_text(sparse)
            at = ("-c", "core.sparseCheckout=true", "-c", "core.sparseCheckoutCone=false", *at)
        try:
            session.run(self.timeout, *at, "read-tree", "--reset", "-u", commit, environment=index)
        finally:
            pattern_file.unlink(missing_ok=True)
        for directory in spec.sparse_checkout if is_own else ():
            if not (files / directory.strip("/")).exists():
                raise SourceMissing(
                    f"sparseCheckout names {directory}, which the repository does not have",
                    where=shown_url(session.url),
                    next_step="name directories from the repository's root",
                )
        if is_own:
            excludes = [f"--exclude={pattern}" for pattern in _ignore_patterns(spec.ignore)]
            excludes.append("--exclude-per-directory=.sourceignore")
            listed = session.output(
                self.timeout,
                *("-C", str(files)),
                *at,
                *("ls-files", "-z", "--cached", "--ignored"),
                *excludes,
                environment=index,
            )
            _remove(files, listed)

    def _verify(self, session: Session, mirror: Path) -> None:
        spec = self.wanted.repository
        if spec.verify is None:
            return
        where, commit = shown_url(session.url), self.wanted.commit
        at = ("--git-dir", str(mirror))
        mode = spec.verify.mode
        if mode in ("head", "HEAD", "TagAndHEAD"):
            content = session.output(self.timeout, *at, "cat-file", "commit", commit)
            verify_object(content, self.wanted.keys, f"commit {commit[:12]}", where)
        if mode in ("Tag", "TagAndHEAD"):
            tag = self.wanted.revision.rpartition("@")[0].removeprefix("refs/tags/")
            reference = f"refs/helmops-tags/{commit}"
            fetch = ("fetch", "--quiet", "--no-tags", "--no-write-fetch-head", "--depth=1", "--")
            session.run(self.timeout, *at, *fetch, "origin", f"+refs/tags/{tag}:{reference}")
            if session.run(self.timeout, *at, "cat-file", "-t", reference) != "tag":
                content = b""  # a light one: a name for a commit, which cannot be signed
            else:
                content = session.output(self.timeout, *at, "cat-file", "tag", reference)
            verify_object(content, self.wanted.keys, f"tag {tag}", where)
            named = session.run(self.timeout, *at, "rev-parse", f"{reference}^{{commit}}")
            if named != commit:
                raise SourceUnavailable(f"the tag {tag} moved while it was fetched", where=where)

    # Submodules.

    def submodules(self, url: str, commit: str, files: Path, level: int = 1) -> None:
        """Write the files of submodules into the places that a commit has for them."""
        mirror = self.directory / "mirrors" / place_of(url)
        with open_session(self.running, url, GitCredentials()) as session:
            places = _gitlinks(session, mirror, commit, self.timeout)
            urls = _submodule_urls(session, mirror, commit, self.timeout) if places else {}
        for path, linked in sorted(places.items()):
            folder = files / path
            if not folder.is_dir():  # left out by `sparseCheckout` or `ignore`
                continue
            self.submodules_found += 1
            if self.submodules_found > _MOST_SUBMODULES or level > _MOST_LEVELS:
                raise SourceInvalid(
                    f"more than {_MOST_SUBMODULES} submodules, or {_MOST_LEVELS} within each other",
                    where=shown_url(self.wanted.repository.url),
                )
            found = urls.get(path)
            if not found:
                raise SourceInvalid(f".gitmodules has no URL for {path}", where=shown_url(url))
            if not folder.resolve().is_relative_to(files.resolve()):
                raise SourceInvalid(f"the submodule {path} leads out", where=shown_url(url))
            submodule = _submodule_url(url, found)
            self.files_of_commit(submodule, linked, folder, is_own=False)
            self.submodules(submodule, linked, folder, level + 1)


def _gitlinks(session: Session, mirror: Path, commit: str, timeout: timedelta) -> dict[str, str]:
    """Paths of a commit that stand for commits of other repositories."""
    listed = session.output(timeout, "--git-dir", str(mirror), "ls-tree", "-r", "-z", commit)
    places: dict[str, str] = {}
    for entry in listed.split(b"\0"):
        facts, _, path = entry.partition(b"\t")
        mode, _, rest = facts.partition(b" ")
        linked = rest.rpartition(b" ")[2].decode("ascii", "replace")
        if mode == b"160000" and SHA.fullmatch(linked):
            places[path.decode("utf-8", "surrogateescape")] = linked
    return places


def _submodule_urls(
    session: Session, mirror: Path, commit: str, timeout: timedelta
) -> dict[str, str]:
    """URLs by path, out of a commit's .gitmodules."""
    try:
        listed = session.output(
            timeout,
            *("--git-dir", str(mirror), "config", "--blob", f"{commit}:.gitmodules"),
            *("-z", "--get-regexp", r"^submodule\..*\.(path|url)$"),
        )
    except (SourceError, CorruptError):
        return {}
    paths: dict[str, str] = {}
    urls: dict[str, str] = {}
    for entry in listed.decode("utf-8", "surrogateescape").split("\0"):
        key, _, value = entry.partition("\n")
        name, _, field = key.rpartition(".")
        (paths if field == "path" else urls)[name] = value
    return {path: urls[name] for name, path in paths.items() if name in urls}


def _submodule_url(parent: str, url: str) -> str:
    """A submodule's URL, made whole where it is relative. Raises SourceInvalid for one that git
    must not be given, and for a file of this machine that a repository elsewhere names.
    """
    if url.startswith(("./", "../")):
        parts = urlsplit(parent)
        path = posixpath.normpath(posixpath.join(parts.path, url))
        url = parts._replace(path=path, query="", fragment="").geturl()
    scheme = check_url(url)
    if scheme == "file" and urlsplit(parent).scheme != "file":
        raise SourceInvalid(
            "a submodule names a file of this machine; refused", where=shown_url(parent)
        )
    return url


# What is left out, and what is put in -------------------------------------------------------------


def _sparse_patterns(directories: tuple[str, ...]) -> str:
    """What git's sparse checkout is told: these directories and nothing else."""
    lines: list[str] = []
    for directory in directories:
        path = posixpath.normpath(directory.strip("/") or ".")
        if path in (".", "..") or path.startswith("../") or not path.isprintable():
            raise SourceInvalid(
                f"sparseCheckout names {directory!r}, which is no directory of a repository",
                next_step="leave sparseCheckout out to check out everything",
            )
        escaped = "".join(f"\\{c}" if c in "*?[]\\!#" else c for c in path)
        lines.append(f"/{escaped}/")
    return "".join(f"{line}\n" for line in lines)


def _ignore_patterns(ignore: str | None) -> list[str]:
    """The lines of `ignore` that are patterns. Raises SourceInvalid for too many."""
    text = ignore or ""
    lines = [line.strip() for line in text.splitlines()]
    patterns = [line for line in lines if line and not line.startswith("#")]
    if len(patterns) > _MOST_PATTERNS or len(text) > _LONGEST_IGNORE or "\0" in text:
        raise SourceInvalid(f"`ignore` has more than {_MOST_PATTERNS} patterns")
    return patterns


def _remove(files: Path, listed: bytes) -> None:
    """Remove files that git listed, and the directories that are empty then."""
    for name in filter(None, listed.split(b"\0")):
        path = files / os.fsdecode(name)
        if path.is_dir() and not path.is_symlink():  # a submodule's place
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
        for parent in path.parents:
            if parent == files or any(parent.iterdir()):
                break
            parent.rmdir()


def _include(wanted: Checkout, files: Path) -> None:
    """Copy other repositories' files in, as `include` says."""
    where = shown_url(wanted.repository.url)
    for one in wanted.included:
        root = Path(one.tree.path).resolve()
        source = (root / one.from_path.strip("/")).resolve()
        target = files / posixpath.normpath(one.to_path.strip("/") or ".")
        if not source.is_relative_to(root) or not _stays_in(target, files):
            raise SourceInvalid(f"`include` of {one.tree.name} leads out", where=where)
        if not source.is_dir():
            raise SourceMissing(
                f"`include`: {one.tree.name} has no directory {one.from_path}", where=where
            )
        if target != files and target.exists():
            raise SourceInvalid(
                f"`include`: there is something at {one.to_path} already", where=where
            )
        shutil.copytree(source, target, symlinks=True, dirs_exist_ok=target == files)


def _stays_in(target: Path, files: Path) -> bool:
    inside = Path(os.path.realpath(target))
    return inside.is_relative_to(files.resolve())


# Old checkouts ------------------------------------------------------------------------------------


def _drop_old_commits(session: Session, mirror: Path, newest: Path, timeout: timedelta) -> None:
    """Let git forget the commits whose checkouts went, so that the mirror does not grow for ever.

    It is no failure of the checkout when that does not work.
    """
    at = ("--git-dir", str(mirror))
    kept = {_commit_in(path) for path in newest.parent.iterdir() if _is_checkout(path)}
    try:
        names = session.run(
            timeout, *at, "for-each-ref", "--format=%(refname)", "refs/helmops", "refs/helmops-tags"
        )
        old = [name for name in names.split() if name.rpartition("/")[2] not in kept]
        for name in old:
            session.run(timeout, *at, "update-ref", "-d", name)
        if old:
            session.run(timeout, *at, "gc", "--auto", "--quiet")
    except (SourceError, CorruptError):
        return


def _commit_in(path: Path) -> str:
    return path.name.partition(".")[0]


def _is_checkout(path: Path) -> bool:
    return SHA.fullmatch(_commit_in(path)) is not None


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Held by one process at a time; the system frees it when the process dies."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
