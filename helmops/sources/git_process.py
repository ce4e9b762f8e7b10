"""git itself: run with what one repository is opened with, understood when it fails.

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

import contextlib
import hashlib
import os
import re
import shlex
import shutil
import signal
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from subprocess import Popen, TimeoutExpired
from typing import Any, Final
from urllib.parse import unquote, urlsplit, urlunsplit

from helmops.errors import (
    SourceDenied,
    SourceError,
    SourceInvalid,
    SourceMissing,
    SourceUnavailable,
)
from helmops.model.credentials import GitCredentials

SHA: Final = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")
#: Schemes of URLs that git is given.
TRANSPORTS: Final = ("https", "http", "ssh", "file")

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


class CorruptError(Exception):
    """The mirror, or what came, is damaged."""


class Running:
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


def _git_python() -> Any:
    """GitPython, for which only those wait that use Git. Without git it refuses to be imported
    unless it is asked not to.
    """
    os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
    import git

    return git


@dataclass(slots=True)
class Session:
    """git with the environment that one repository's credentials need."""

    running: Running
    url: str
    environment: dict[str, str]
    secrets: tuple[str, ...]

    def run(
        self, timeout: timedelta, *arguments: str, environment: dict[str, str] | None = None
    ) -> str:
        """What git prints, stripped. Raises SourceError, CorruptError."""
        written = self.output(timeout, *arguments, environment=environment)
        return written.decode("utf-8", "replace").strip()

    def output(
        self, timeout: timedelta, *arguments: str, environment: dict[str, str] | None = None
    ) -> bytes:
        """What git prints, byte by byte. Raises SourceError, CorruptError."""
        seconds = timeout.total_seconds()
        # GitPython passes our environment on, and can only add to it.
        foreign = [part for name in _FOREIGN if name in os.environ for part in ("-u", name)]
        if shutil.which("git") is None:
            raise SourceUnavailable(
                "there is no git on PATH", where=shown_url(self.url), next_step="install git"
            )
        git = _git_python().Git()
        process = git.execute(
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
            return written[0]
        raise self._error(written[1].decode("utf-8", "replace"))

    def succeeds(self, timeout: timedelta, *arguments: str) -> bool:
        """Whether git ends well."""
        try:
            self.run(timeout, *arguments)
        except (SourceError, CorruptError):
            return False
        return True

    def _error(self, words: str) -> Exception:
        where = shown_url(self.url)
        told = _first_cause(words, self.secrets)
        # What a URL is made of says nothing about what went wrong.
        words = words.replace(self.url.rstrip("/"), "")
        if _CORRUPT.search(words):
            return CorruptError(told)
        for pattern, kind, advice in _FAILURES:
            if pattern.search(words):
                return kind(told, where=where, next_step=advice)
        advice = ""
        if _REDIRECTED.search(words):
            advice = "with a token no redirect is followed: name the URL that it leads to"
        return SourceUnavailable(told, where=where, next_step=advice)


@contextlib.contextmanager
def open_session(running: Running, url: str, credentials: GitCredentials) -> Iterator[Session]:
    """Git for one repository; what it is opened with is gone afterwards. Raises SourceInvalid."""
    url, embedded = without_userinfo(url)
    if embedded.username and not credentials.username and not credentials.bearer_token:
        credentials = replace(credentials, username=embedded.username, password=embedded.password)
    scheme = check_url(url)
    with tempfile.TemporaryDirectory(prefix="helmops-git-") as scratch:
        config: dict[str, str] = {
            "http.lowSpeedLimit": "100",
            "http.lowSpeedTime": "30",
            "core.hooksPath": "/dev/null",
            "protocol.version": "2",
            # By this name, so that objects left out of a fetch can be had later.
            "remote.origin.url": url,
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
        elif credentials.proxy:
            raise SourceInvalid(
                "proxySecretRef is for http:// and https:// only", where=shown_url(url)
            )
        elif scheme == "ssh":
            environment["GIT_SSH_COMMAND"] = _ssh_command(credentials, Path(scratch))
        for number, (key, value) in enumerate(config.items()):
            environment[f"GIT_CONFIG_KEY_{number}"] = key
            environment[f"GIT_CONFIG_VALUE_{number}"] = value
        environment["GIT_CONFIG_COUNT"] = str(len(config))
        proxy = unquote(urlsplit(credentials.proxy).password or "")
        known = (credentials.password, credentials.bearer_token, proxy)
        secrets = tuple(secret for secret in known if secret)
        yield Session(running, url, environment, secrets)


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
    if credentials.proxy:
        config["http.proxy"] = credentials.proxy
    if credentials.ca:
        # Not by http.sslCAInfo: a variable of that name in our own environment would win.
        environment["GIT_SSL_CAINFO"] = private_file(scratch / "ca.crt", credentials.ca)
    return config


def _ssh_command(credentials: GitCredentials, scratch: Path) -> str:
    command = ["ssh", "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=yes"]
    command += ["-o", "ConnectTimeout=15"]
    if credentials.known_hosts:
        path = private_file(scratch / "known_hosts", credentials.known_hosts)
        command += ["-o", f"UserKnownHostsFile={path}", "-o", "GlobalKnownHostsFile=/dev/null"]
    if credentials.identity:
        path = private_file(scratch / "identity", credentials.identity)
        command += ["-i", path, "-o", "IdentitiesOnly=yes"]
    return shlex.join(command)


def private_file(path: Path, text: str) -> str:
    """Write a file that only we can read; gives back its path."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text if text.endswith("\n") else text + "\n")
    return str(path)


# URLs -------------------------------------------------------------------------------------------


def check_url(url: str) -> str:
    """The scheme of a URL that git may be given. Raises SourceInvalid for any other: git takes
    options and whole commands (`ext::`) for URLs.
    """
    parts = urlsplit(url)
    is_odd = any(character.isspace() or not character.isprintable() for character in url)
    if parts.scheme not in TRANSPORTS or is_odd or (parts.hostname or "").startswith("-"):
        raise SourceInvalid(
            f"{url.split('?')[0][:100]!r} is no URL of a Git repository",
            next_step=f"schemes are {', '.join(TRANSPORTS)}",
        )
    return parts.scheme


def without_userinfo(url: str) -> tuple[str, GitCredentials]:
    """An http(s) URL without the user that it names, and that user."""
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


def place_of(url: str) -> str:
    """The name under which a repository is kept on disk; says nothing of credentials."""
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
