"""Git repositories for tests: made with git, served on loopback by git's own http-backend."""

from __future__ import annotations

import gzip
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

from tests.fakes.web_server import Answer, Asked, WebServer

_ENVIRONMENT = {
    "GIT_AUTHOR_NAME": "test",
    "GIT_AUTHOR_EMAIL": "test@example.invalid",
    "GIT_COMMITTER_NAME": "test",
    "GIT_COMMITTER_EMAIL": "test@example.invalid",
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_CONFIG_NOSYSTEM": "1",
}


class GitRepository:
    """A repository with a work tree of its own; `main` is its first branch."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir(parents=True)
        self.git("init", "--quiet", "--initial-branch=main")
        self.git("config", "uploadpack.allowAnySHA1InWant", "true")

    @property
    def url(self) -> str:
        return f"file://{self.path}"

    def git(self, *arguments: str) -> str:
        environment = {
            name: value for name, value in os.environ.items() if not name.startswith("GIT_")
        }
        done = subprocess.run(
            ["git", *arguments],
            cwd=self.path,
            env={**environment, **_ENVIRONMENT},
            check=True,
            capture_output=True,
            text=True,
        )
        return done.stdout.strip()

    def commit(self, files: Mapping[str, str], message: str = "change") -> str:
        """Write files, commit all; the commit's hash."""
        for name, content in files.items():
            path = self.path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "--message", message)
        return self.git("rev-parse", "HEAD")


def serve_git(server: WebServer, root: Path, *, authorization: str = "") -> None:
    """Let a web server answer for all repositories under `root`, as `/NAME/.git/…`; where
    `authorization` is given, only to requests with exactly that header."""

    def answer(asked: Asked) -> Answer:
        if authorization and asked.headers.get("authorization") != authorization:
            return Answer(401, headers={"WWW-Authenticate": 'Basic realm="git"'})
        return _by_backend(root, asked)

    for repository in root.iterdir():
        for service in ("info/refs", "git-upload-pack"):
            server.routes[f"/{repository.name}/.git/{service}"] = answer


def _by_backend(root: Path, asked: Asked) -> Answer:
    path, _, query = asked.path.partition("?")
    body = asked.body
    if asked.headers.get("content-encoding") == "gzip":
        body = gzip.decompress(body)
    environment = {
        "PATH": os.environ["PATH"],
        "GIT_PROJECT_ROOT": str(root),
        "GIT_HTTP_EXPORT_ALL": "1",
        "GIT_PROTOCOL": asked.headers.get("git-protocol", ""),
        "REQUEST_METHOD": asked.method,
        "PATH_INFO": path,
        "QUERY_STRING": query,
        "CONTENT_TYPE": asked.headers.get("content-type", ""),
        "REMOTE_ADDR": "127.0.0.1",
        "GIT_CONFIG_GLOBAL": "/dev/null",
    }
    done = subprocess.run(
        ["git", "http-backend"], input=body, env=environment, capture_output=True, check=False
    )
    head, _, content = done.stdout.partition(b"\r\n\r\n")
    headers = dict(line.split(": ", 1) for line in head.decode().split("\r\n") if ": " in line)
    status = int(headers.pop("Status", "200").split()[0])
    return Answer(status, content, headers)
