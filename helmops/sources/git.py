"""Git repositories: one bare mirror each, fetched shallowly, checked out read-only by commit.

GitPython's `Git` command object runs git, never its long-lived `Repo` objects (twenty of these held
forty `git cat-file` children, seen with GitPython 3.2.1). That object checks nothing itself, so it
is done here: the URL's scheme, `--` before arguments, GIT_ALLOW_PROTOCOL for the one transport that
is meant. Credentials reach git through its environment and files that only we can read, never
through arguments. git runs in a process group of its own, which is killed when time is over, when
the caller is cancelled and when we close.

A user and password are given by a credential helper that answers for the URL's own host only, and
with a token no redirect is followed: a header that is set with `http.<url>.extraHeader` goes along
when git, redirected, posts to another host (seen with git 2.39.5).
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import hashlib
import os
import re
import shlex
import shutil
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from subprocess import Popen, TimeoutExpired
from typing import Any, Final, TypeVar
from urllib.parse import parse_qsl, unquote, urlsplit, urlunsplit

# Without git, GitPython refuses to be imported unless it is asked not to; most releases need none.
os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")

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
#: Checkouts that are kept of each repository, beside those that were used within the last hour.
_KEPT_TREES: Final = 4
_TREE_GRACE: Final = 3600.0
_DEFAULT_INTERVAL: Final = "30s"
_SHA: Final = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")
#: What in our environment would make git work on something else (as when run from a Git hook).
_FOREIGN: Final = (
    "GIT_DIR",
    "GIT_WORK_TREE",
    "GIT_INDEX_FILE",
    "GIT_OBJECT_DIRECTORY",
    "GIT_ALTERNATE_OBJECT_DIRECTORIES",
    "GIT_COMMON_DIR",
    "GIT_NAMESPACE",
    "GIT_PREFIX",
    "GIT_CONFIG",
    "GIT_CONFIG_PARAMETERS",
    "GIT_TRACE",
    "GIT_TRACE_CURL",
    "GIT_CURL_VERBOSE",
)

#: The first that is found in git's words tells what it was about.
_FAILURES: Final[tuple[tuple[re.Pattern[str], type[SourceError], str], ...]] = (
    (
        re.compile(r"Host key verification failed|REMOTE HOST IDENTIFICATION", re.I),
        SourceDenied,
        "put the host's key into `known_hosts` of the Secret",
    ),
    (
        re.compile(
            r"SSL certificate|certificate verif|unable to get local issuer|SSL connect|gnutls"
            r"|TLS connect|tls alert",
            re.I,
        ),
        SourceDenied,
        "put the CA into `ca.crt` of the Secret",
    ),
    (
        re.compile(
            r"Authentication failed|could not read (Username|Password)|Permission denied"
            r"|error: 40[137]|terminal prompts disabled|access denied|dubious ownership",
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
_REDIRECTED: Final = re.compile(r"error: 30[12378]")
_CORRUPT: Final = re.compile(
    r"corrupt|bad object|loose object|unable to read (tree|sha1)|not a git repository: '|inflate"
    r"|object file .* is empty|pack has bad|invalid index-pack|bad config|not a valid object"
    r"|packfile .* (is far too short|cannot be|does not match)|missing (blob|tree|commit)",
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
    try:
        parts = urlsplit(text[4:])
        _ = parts.port
    except ValueError:
        raise UsageError("a Git location's URL cannot be read") from None
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
        self._running: set[_Running] = set()

    def close(self) -> None:
        """Start nothing more, and end the gits that run."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        for running in list(self._running):
            running.stop()

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
        if _is_used(target):
            return tree
        async with self._locks.setdefault(name, asyncio.Lock()):
            if not target.is_dir():
                await self._in_thread(
                    _check_out, self._directory, repository, credentials, revision, target
                )
        return tree

    async def _in_thread(self, work: Callable[..., T], *arguments: Any) -> T:
        running = _Running()
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


def _resolve(running: _Running, repository: GitRepositorySpec, credentials: GitCredentials) -> str:
    reference = repository.ref
    if reference.commit:
        if not _SHA.fullmatch(reference.commit):
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
    with _session(running, repository.url, credentials) as session:
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
    running: _Running,
    directory: Path,
    repository: GitRepositorySpec,
    credentials: GitCredentials,
    revision: str,
    target: Path,
) -> None:
    mirror = directory / "mirrors" / _place(repository.url)
    mirror.parent.mkdir(parents=True, exist_ok=True)
    target.parent.mkdir(parents=True, exist_ok=True)
    with (
        _locked(mirror.with_suffix(".lock")),
        _session(running, repository.url, credentials) as session,
    ):
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
        _drop_old_commits(session, mirror, target, repository.timeout)


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
            name = revision.rpartition("@")[0]
            if not name:
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


def _is_used(target: Path) -> bool:
    """Whether there is a checkout; from now on it is a recently used one."""
    try:
        os.utime(target)
    except FileNotFoundError:
        return False
    return True


def _drop_old_trees(newest: Path) -> None:
    """Remove what has not been used for long, by the clock of the file system."""
    used = {path: path.stat().st_mtime for path in newest.parent.iterdir() if _is_commit(path)}
    by_age = sorted(used, key=lambda path: used[path], reverse=True)
    for old in by_age[_KEPT_TREES + 1 :]:
        if used[old] < used[newest] - _TREE_GRACE:
            # Renamed first: nobody may take half of it for all.
            half = old.with_name(f".checkout-old-{old.name}")
            shutil.rmtree(half, ignore_errors=True)
            old.rename(half)
            shutil.rmtree(half, ignore_errors=True)


def _drop_old_commits(session: _Session, mirror: Path, newest: Path, timeout: timedelta) -> None:
    """Let git forget the commits whose checkouts went, so that the mirror does not grow for ever.

    It is no failure of the checkout when that does not work.
    """
    at = ("--git-dir", str(mirror))
    kept = {path.name for path in newest.parent.iterdir() if _is_commit(path)}
    try:
        names = session.run(timeout, *at, "for-each-ref", "--format=%(refname)", "refs/helmops")
        old = [name for name in names.split() if name.rpartition("/")[2] not in kept]
        for name in old:
            session.run(timeout, *at, "update-ref", "-d", name)
        if old:
            session.run(timeout, *at, "gc", "--auto", "--quiet")
    except (SourceError, _CorruptError):
        return


def _is_commit(path: Path) -> bool:
    return _SHA.fullmatch(path.name) is not None


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Held by one process at a time; the system frees it when the process dies."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


# git itself -------------------------------------------------------------------------------------


class _Running:
    """The git that one call runs just now, if any; `stop` may come from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: Popen[bytes] | None = None
        self._stopped = False

    def communicate(self, process: Popen[bytes], seconds: float) -> tuple[bytes, bytes] | None:
        """What it wrote, in the end; None where it was too slow, and killed with its children."""
        with self._lock:
            self._process = process
            if self._stopped:
                _kill_group(process)
        try:
            return process.communicate(timeout=seconds)
        except TimeoutExpired:
            _kill_group(process)
            process.communicate()
            return None
        finally:
            with self._lock:
                self._process = None

    def stop(self) -> None:
        """Kill it, and every further one as soon as it starts."""
        with self._lock:
            self._stopped = True
            if self._process is not None:
                _kill_group(self._process)


def _kill_group(process: Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


@dataclass(slots=True)
class _Session:
    """git with the environment that one repository's credentials need."""

    running: _Running
    url: str
    environment: dict[str, str]
    secrets: tuple[str, ...]

    def run(
        self, timeout: timedelta, *arguments: str, environment: dict[str, str] | None = None
    ) -> str:
        seconds = timeout.total_seconds()
        # GitPython passes our environment on, and can only add to it.
        foreign = [part for name in _FOREIGN if name in os.environ for part in ("-u", name)]
        if shutil.which("git") is None:
            raise SourceUnavailable(
                "there is no git on PATH", where=shown_url(self.url), next_step="install git"
            )
        process = git.Git().execute(
            ["env", *foreign, "git", *arguments] if foreign else ["git", *arguments],
            as_process=True,
            env={**self.environment, **(environment or {})},
            start_new_session=True,
        )
        written = self.running.communicate(process.proc, seconds)
        if written is None:
            raise SourceUnavailable(
                f"git did not end within {seconds:g} s", where=shown_url(self.url)
            )
        if process.proc.returncode == 0:
            return written[0].decode("utf-8", "replace").strip()
        raise self._error(written[1].decode("utf-8", "replace"))

    def succeeds(self, timeout: timedelta, *arguments: str) -> bool:
        try:
            self.run(timeout, *arguments)
        except (SourceError, _CorruptError):
            return False
        return True

    def _error(self, words: str) -> Exception:
        where = shown_url(self.url)
        told = _first_cause(words, self.secrets)
        # What a URL is made of says nothing about what went wrong.
        words = words.replace(self.url.rstrip("/"), "")
        if _CORRUPT.search(words):
            return _CorruptError(told)
        for pattern, kind, advice in _FAILURES:
            if pattern.search(words):
                return kind(told, where=where, next_step=advice)
        advice = ""
        if _REDIRECTED.search(words):
            advice = "with a token no redirect is followed: name the URL that it leads to"
        return SourceUnavailable(told, where=where, next_step=advice)


@contextlib.contextmanager
def _session(running: _Running, url: str, credentials: GitCredentials) -> Iterator[_Session]:
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
            # In the foreground, while we hold the lock.
            "gc.autoDetach": "false",
            "maintenance.autoDetach": "false",
        }
        environment = {
            "GIT_TERMINAL_PROMPT": "0",
            "GIT_ALLOW_PROTOCOL": scheme,
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_ASKPASS": "false",
            "SSH_ASKPASS": "false",
            "LC_ALL": "C",
            "LANGUAGE": "C",
        }
        if scheme in ("http", "https"):
            config |= _http_config(url, credentials, Path(scratch), environment)
        elif scheme == "ssh":
            environment["GIT_SSH_COMMAND"] = _ssh_command(credentials, Path(scratch))
        for number, (key, value) in enumerate(config.items()):
            environment[f"GIT_CONFIG_KEY_{number}"] = key
            environment[f"GIT_CONFIG_VALUE_{number}"] = value
        environment["GIT_CONFIG_COUNT"] = str(len(config))
        secrets = tuple(s for s in (credentials.password, credentials.bearer_token) if s)
        yield _Session(running, url, environment, secrets)


#: Answers git's question for a user and password from the environment.
_HELPER: Final = (
    '!f() { test "$1" = get || exit 0; printf "username=%s\\npassword=%s\\n"'
    ' "$HELMOPS_GIT_USERNAME" "$HELMOPS_GIT_PASSWORD"; }; f'
)


def _http_config(
    url: str, credentials: GitCredentials, scratch: Path, environment: dict[str, str]
) -> dict[str, str]:
    """Credentials go to the very host of the URL, and to no other that it may redirect to."""
    parts = urlsplit(url)
    origin = f"{parts.scheme}://{parts.netloc}"
    config = {}
    if token := credentials.bearer_token.strip():
        config["credential.helper"] = ""
        config[f"http.{origin}/.extraHeader"] = f"Authorization: Bearer {token}"
        config["http.followRedirects"] = "false"
    elif credentials.username or credentials.password:
        config["credential.helper"] = ""  # those of the user's own configuration are not asked
        config[f"credential.{origin}.helper"] = _HELPER
        environment["HELMOPS_GIT_USERNAME"] = credentials.username
        environment["HELMOPS_GIT_PASSWORD"] = credentials.password
    if credentials.ca:
        # Not by http.sslCAInfo: a variable of that name in our own environment would win.
        environment["GIT_SSL_CAINFO"] = _private_file(scratch / "ca.crt", credentials.ca)
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
    if "Could not read from remote repository" in told and lines.index(told) > 0:
        told = lines[lines.index(told) - 1]  # what ssh said: that is the cause
    text = told or (lines[-1] if lines else "git failed and said nothing")
    text = re.sub(r"^(remote:\s*)?(fatal|error):\s*", "", text, flags=re.I)
    text = re.sub(r"//[^/@\s]+@", "//", text)
    for secret in secrets:
        text = text.replace(secret, "***")
    return text[:300]
