"""Git repositories: one bare mirror each, fetched shallowly, checked out read-only by commit.

GitPython's `Git` command object runs git, never its long-lived `Repo` objects (twenty of these held
forty `git cat-file` children, seen with GitPython 3.2.1). That object checks nothing itself, so it
is done here: the URL's scheme, `--` before arguments, GIT_ALLOW_PROTOCOL for the one transport that
is meant. Credentials reach git through its environment and files that only we can read, never
through arguments. `timeout` of coreutils ends git and its children when time is over.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import fcntl
import hashlib
import os
import re
import shlex
import shutil
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any, Final, TypeVar
from urllib.parse import parse_qsl, unquote, urlsplit, urlunsplit

import git

from helmops.errors import (
    ConstraintError,
    SourceDenied,
    SourceError,
    SourceInvalid,
    SourceMissing,
    SourceUnavailable,
    UsageError,
    VersionError,
)
from helmops.model.charts import Tree
from helmops.model.credentials import GitCredentials
from helmops.model.declarations import GitRepositorySpec
from helmops.resolve.constraint import Constraint
from helmops.resolve.version import Version

T = TypeVar("T")

_TRANSPORTS: Final = ("https", "http", "ssh", "file")
#: Checkouts of earlier commits that are kept of each repository.
_KEPT_TREES: Final = 4
_DEFAULT_INTERVAL: Final = "30s"
_SHA: Final = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")
_TIMED_OUT: Final = (124, 137)

#: The first that is found in git's words tells what it was about.
_FAILURES: Final[tuple[tuple[re.Pattern[str], type[SourceError], str], ...]] = (
    (
        re.compile(r"Host key verification failed|REMOTE HOST IDENTIFICATION", re.I),
        SourceDenied,
        "put the host's key into `known_hosts` of the Secret",
    ),
    (
        re.compile(r"SSL certificate|certificate verif|unable to get local issuer|TLS", re.I),
        SourceDenied,
        "put the CA into `ca.crt` of the Secret",
    ),
    (
        re.compile(
            r"Authentication failed|could not read (Username|Password)|Permission denied"
            r"|error: 40[13]|terminal prompts disabled|access denied",
            re.I,
        ),
        SourceDenied,
        "look at the credentials in the source's secretRef",
    ),
    (
        re.compile(
            r"Repository not found|not found|does not exist|not appear to be a git repo"
            r"|error: 404|couldn't find remote ref|not our ref|No such (file|remote)",
            re.I,
        ),
        SourceMissing,
        "look at the URL and the reference",
    ),
)
_CORRUPT: Final = re.compile(
    r"corrupt|bad object|loose object|unable to read tree|not a git repository: '|inflate"
    r"|object file .* is empty|pack has bad|invalid index-pack",
    re.I,
)


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
    parts = urlsplit(text[4:])
    if parts.scheme not in _TRANSPORTS or (parts.scheme != "file" and not parts.hostname):
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
    url, credentials = _without_userinfo(urlunsplit(parts._replace(query="", fragment="")))
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

    def close(self) -> None:
        """Start nothing more."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def resolve(self, repository: GitRepositorySpec, credentials: GitCredentials) -> str:
        """The revision that the reference names now; see the port. A full commit asks nobody."""
        return await self._in_thread(_resolve, repository, credentials)

    async def checkout(
        self, repository: GitRepositorySpec, credentials: GitCredentials, revision: str
    ) -> Tree:
        """The files of that revision; see the port. No request where they are at hand."""
        name = _place(repository.url)
        target = self._directory / "trees" / name / _commit_of(revision)
        tree = Tree(name=shown_url(repository.url), revision=revision, path=str(target))
        if target.is_dir():
            return tree
        async with self._locks.setdefault(name, asyncio.Lock()):
            if not target.is_dir():
                await self._in_thread(
                    _check_out, self._directory, repository, credentials, revision, target
                )
        return tree

    async def _in_thread(self, work: Callable[..., T], *arguments: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work, *arguments)


# What is asked for ------------------------------------------------------------------------------


def _resolve(repository: GitRepositorySpec, credentials: GitCredentials) -> str:
    reference = repository.ref
    if reference.commit:
        if not _SHA.fullmatch(reference.commit):
            raise SourceMissing(
                f"{reference.commit} is no full commit hash", where=shown_url(repository.url)
            )
        branch = f"{reference.branch}@" if reference.branch else ""
        return f"{branch}sha1:{reference.commit}"
    if reference.name:
        shown, wanted = reference.name, [reference.name]
    elif reference.semver:
        shown, wanted = reference.semver, ["refs/tags/*"]
    elif reference.tag:
        shown, wanted = reference.tag, [f"refs/tags/{reference.tag}"]
        wanted.append(f"{wanted[0]}^{{}}")
    else:
        shown = reference.branch or "master"
        wanted = [f"refs/heads/{shown}"]
    with _session(repository.url, credentials) as session:
        output = session.run(repository.timeout, "ls-remote", "--", session.url, *wanted)
    found = {
        name: commit
        for commit, _, name in (line.partition("\t") for line in output.splitlines())
        if _SHA.fullmatch(commit)
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


def _commit_of(revision: str) -> str:
    commit = revision.rpartition(":")[2]
    if not _SHA.fullmatch(commit):
        raise SourceMissing(f"{revision} is no revision of a Git repository")
    return commit


# Fetching and checking out ----------------------------------------------------------------------


def _check_out(
    directory: Path,
    repository: GitRepositorySpec,
    credentials: GitCredentials,
    revision: str,
    target: Path,
) -> None:
    mirror = directory / "mirrors" / _place(repository.url)
    mirror.parent.mkdir(parents=True, exist_ok=True)
    target.parent.mkdir(parents=True, exist_ok=True)
    with _locked(mirror.with_suffix(".lock")), _session(repository.url, credentials) as session:
        if target.is_dir():  # another process was faster
            return
        try:
            _fetch_and_export(session, mirror, repository, revision, target)
        except _CorruptError:
            shutil.rmtree(mirror, ignore_errors=True)
            try:
                _fetch_and_export(session, mirror, repository, revision, target)
            except _CorruptError as error:
                raise SourceInvalid(
                    f"the repository is damaged: {error}", where=shown_url(repository.url)
                ) from error
    _drop_old_trees(target)


class _CorruptError(Exception):
    """The mirror, or what came, is damaged."""


def _fetch_and_export(
    session: _Session,
    mirror: Path,
    repository: GitRepositorySpec,
    revision: str,
    target: Path,
) -> None:
    commit = _commit_of(revision)
    timeout = repository.timeout
    if not (mirror / "HEAD").exists():
        shutil.rmtree(mirror, ignore_errors=True)
        session.run(timeout, "init", "--quiet", "--bare", "--", str(mirror))
    for stale in mirror.glob("*.lock"):  # of a git that was killed; we hold the lock of all
        stale.unlink(missing_ok=True)
    at = ("--git-dir", str(mirror))
    if not session.succeeds(timeout, *at, "cat-file", "-e", f"{commit}^{{tree}}"):
        fetch = (*at, "fetch", "--quiet", "--no-tags", "--no-write-fetch-head", "--depth=1", "--")
        kept = f"refs/helmops/{commit}"
        try:
            session.run(timeout, *fetch, session.url, f"+{commit}:{kept}")
        except SourceMissing:
            # A server of protocol v0 gives out the tips of references only.
            name = revision.partition("@")[0]
            if not name or "@" not in revision:
                raise
            session.run(timeout, *fetch, session.url, f"+{name}:{kept}")
            if not session.succeeds(timeout, *at, "cat-file", "-e", f"{commit}^{{tree}}"):
                raise SourceUnavailable(
                    f"{name} moved on while it was fetched", where=shown_url(repository.url)
                ) from None
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".checkout-") as scratch:
        files = Path(scratch) / "files"
        files.mkdir()
        index = str(Path(scratch) / "index")
        session.run(
            timeout,
            *at,
            "--work-tree",
            str(files),
            "read-tree",
            "--reset",
            "-u",
            commit,
            environment={"GIT_INDEX_FILE": index},
        )
        files.rename(target)


def _drop_old_trees(newest: Path) -> None:
    trees = sorted(
        (path for path in newest.parent.iterdir() if _SHA.fullmatch(path.name)),
        key=lambda path: path.stat().st_mtime_ns,
        reverse=True,
    )
    for old in [path for path in trees if path != newest][_KEPT_TREES:]:
        shutil.rmtree(old, ignore_errors=True)


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Held by one process at a time; the system frees it when the process dies."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


# git itself -------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Session:
    """git with the environment that one repository's credentials need."""

    url: str
    environment: dict[str, str]
    secrets: tuple[str, ...]

    def run(
        self, timeout: timedelta, *arguments: str, environment: dict[str, str] | None = None
    ) -> str:
        seconds = max(timeout.total_seconds(), 1.0)
        command = ["timeout", "--kill-after=2", f"{seconds:.0f}", "git", *arguments]
        status, output, words = git.Git().execute(
            command,
            with_extended_output=True,
            with_exceptions=False,
            env={**self.environment, **(environment or {})},
        )
        if status == 0:
            return str(output)
        raise self._error(status, str(words), seconds)

    def succeeds(self, timeout: timedelta, *arguments: str) -> bool:
        try:
            self.run(timeout, *arguments)
        except (SourceError, _CorruptError):
            return False
        return True

    def _error(self, status: int, words: str, seconds: float) -> Exception:
        where = shown_url(self.url)
        if status in _TIMED_OUT:
            return SourceUnavailable(f"git did not end within {seconds:.0f} s", where=where)
        told = _first_cause(words, self.secrets)
        if _CORRUPT.search(words):
            return _CorruptError(told)
        for pattern, kind, advice in _FAILURES:
            if pattern.search(words):
                return kind(told, where=where, next_step=advice)
        return SourceUnavailable(told, where=where)


@contextlib.contextmanager
def _session(url: str, credentials: GitCredentials) -> Iterator[_Session]:
    url, embedded = _without_userinfo(url)
    if embedded.username and not credentials.username and not credentials.bearer_token:
        credentials = replace(credentials, username=embedded.username, password=embedded.password)
    scheme = _check_url(url)
    with tempfile.TemporaryDirectory(prefix="helmops-git-") as scratch:
        config: dict[str, str] = {
            "http.lowSpeedLimit": "100",
            "http.lowSpeedTime": "30",
            "core.hooksPath": "/dev/null",
            "protocol.version": "2",
        }
        environment = {
            "GIT_TERMINAL_PROMPT": "0",
            "GIT_ALLOW_PROTOCOL": scheme,
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_ASKPASS": "true",
            "LC_ALL": "C",
            "LANGUAGE": "C",
        }
        if scheme in ("http", "https"):
            config |= _http_config(url, credentials, Path(scratch))
        elif scheme == "ssh":
            environment["GIT_SSH_COMMAND"] = _ssh_command(credentials, Path(scratch))
        for number, (key, value) in enumerate(config.items()):
            environment[f"GIT_CONFIG_KEY_{number}"] = key
            environment[f"GIT_CONFIG_VALUE_{number}"] = value
        environment["GIT_CONFIG_COUNT"] = str(len(config))
        secrets = tuple(s for s in (credentials.password, credentials.bearer_token) if s)
        yield _Session(url, environment, secrets)


def _http_config(url: str, credentials: GitCredentials, scratch: Path) -> dict[str, str]:
    """Credentials go to the very host of the URL, and to no other that it may redirect to."""
    parts = urlsplit(url)
    base = f"http.{parts.scheme}://{parts.netloc}/"
    config = {}
    if credentials.bearer_token:
        config[f"{base}.extraHeader"] = f"Authorization: Bearer {credentials.bearer_token}"
    elif credentials.username or credentials.password:
        pair = f"{credentials.username}:{credentials.password}".encode()
        config[f"{base}.extraHeader"] = f"Authorization: Basic {base64.b64encode(pair).decode()}"
    if credentials.ca:
        config["http.sslCAInfo"] = _private_file(scratch / "ca.crt", credentials.ca)
    return config


def _ssh_command(credentials: GitCredentials, scratch: Path) -> str:
    command = ["ssh", "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=yes"]
    command += ["-o", "ConnectTimeout=15"]
    if credentials.known_hosts:
        path = _private_file(scratch / "known_hosts", credentials.known_hosts)
        command += ["-o", f"UserKnownHostsFile={path}", "-o", "GlobalKnownHostsFile=/dev/null"]
    if credentials.identity:
        path = _private_file(scratch / "identity", credentials.identity)
        command += ["-i", path, "-o", "IdentitiesOnly=yes"]
    return shlex.join(command)


def _private_file(path: Path, text: str) -> str:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text if text.endswith("\n") else text + "\n")
    return str(path)


# URLs -------------------------------------------------------------------------------------------


def _check_url(url: str) -> str:
    """The scheme of a URL that git may be given. Raises SourceInvalid for any other: git takes
    options and whole commands (`ext::`) for URLs.
    """
    parts = urlsplit(url)
    is_odd = any(character.isspace() or not character.isprintable() for character in url)
    if parts.scheme not in _TRANSPORTS or is_odd or (parts.hostname or "").startswith("-"):
        raise SourceInvalid(
            f"{url.split('?')[0][:100]!r} is no URL of a Git repository",
            next_step=f"schemes are {', '.join(_TRANSPORTS)}",
        )
    return parts.scheme


def _without_userinfo(url: str) -> tuple[str, GitCredentials]:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or "@" not in parts.netloc:
        return url, GitCredentials()
    host = parts.netloc.rpartition("@")[2]
    credentials = GitCredentials(
        username=unquote(parts.username or ""), password=unquote(parts.password or "")
    )
    return urlunsplit(parts._replace(netloc=host)), credentials


def shown_url(url: str) -> str:
    """A repository's URL as it may be shown: without user, password and query."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2], query=""))


def _place(url: str) -> str:
    return hashlib.sha256(shown_url(url).encode()).hexdigest()[:32]


def _first_cause(words: str, secrets: tuple[str, ...]) -> str:
    """The line of git's words that tells a person most, without secrets."""
    lines = [line.strip() for line in words.splitlines() if line.strip()]
    told = next((line for line in lines if re.match(r"(remote: )?(fatal|ERROR)", line)), "")
    text = told or (lines[-1] if lines else "git failed and said nothing")
    text = re.sub(r"^(remote:\s*)?(fatal|error):\s*", "", text, flags=re.I)
    text = re.sub(r"//[^/@\s]+@", "//", text)
    for secret in secrets:
        text = text.replace(secret, "***")
    return text[:300]
