"""Real Git repositories, to clone from a folder, over HTTP, or over SSH, all on loopback."""

import contextlib
import getpass
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from devcluster import processes
from devcluster.closing import Closing
from devcluster.errors import DevclusterError, StartFailed, ToolMissing
from devcluster.loopback import Answer, LoopbackServer, Request

# Neither this person's Git configuration nor the machine's has a say.
_ENVIRONMENT = {
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_AUTHOR_NAME": "A Developer",
    "GIT_AUTHOR_EMAIL": "developer@example.test",
    "GIT_COMMITTER_NAME": "A Developer",
    "GIT_COMMITTER_EMAIL": "developer@example.test",
}


def git(*arguments: str, folder: Path, **environment: str) -> str:
    """Run git in `folder`; what it printed. Raises DevclusterError with what it said."""
    answer = subprocess.run(
        ["git", *arguments],
        cwd=folder,
        env={**os.environ, **_ENVIRONMENT, **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if answer.returncode != 0:
        raise DevclusterError(f"git {' '.join(arguments)} in {folder}: {answer.stderr.strip()}")
    return answer.stdout.strip()


class GitRepository:
    """A bare repository in `folder`, and a work tree beside it in which commits are made."""

    def __init__(self, folder: Path, name: str = "repository") -> None:
        self.bare = folder / f"{name}.git"
        self.work = folder / f"{name}.work"
        folder.mkdir(parents=True, exist_ok=True)
        git("init", "--quiet", "--bare", "--initial-branch=main", str(self.bare), folder=folder)
        git("init", "--quiet", "--initial-branch=main", str(self.work), folder=folder)
        git("remote", "add", "origin", str(self.bare), folder=self.work)
        # As hosting services do: any commit may be asked for, a filtered clone too, and pushed to.
        for option in (
            "uploadpack.allowAnySHA1InWant",
            "uploadpack.allowFilter",
            "http.receivepack",
        ):
            git("config", option, "true", folder=self.bare)

    @property
    def name(self) -> str:
        """Its folder's name, which ends in `.git`."""
        return self.bare.name

    @property
    def file_url(self) -> str:
        return self.bare.as_uri()

    def commit(
        self,
        files: Mapping[str, str | bytes | None],
        message: str = "Change",
        *,
        branch: str = "main",
        tag: str = "",
        date: str = "",
    ) -> str:
        """Write `files` (None deletes one), commit and push them; the commit's id.

        A `branch` that does not exist begins where the work tree is. `date` is any date git reads.
        """
        self._switch(branch)
        for path, contents in files.items():
            target = self.work / path
            if contents is None:
                target.unlink()
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(contents.encode() if isinstance(contents, str) else contents)
        return self._record(message, branch, tag, date)

    def commit_folder(self, source: Path, target: str = ".", message: str = "Add a folder") -> str:
        """Copy a whole folder into the repository as `target`, on main; the commit's id."""
        self._switch("main")
        shutil.copytree(source, self.work / target, dirs_exist_ok=True)
        return self._record(message, "main", "", "")

    def tag(self, name: str, commit: str = "HEAD") -> None:
        """Put a tag on `commit`, moving it if it exists, as some people do."""
        git("tag", "--force", name, commit, folder=self.work)
        git("push", "--quiet", "--force", "origin", f"refs/tags/{name}", folder=self.work)

    def rewrite(self, branch: str, commit: str) -> None:
        """Force-push `branch` back to `commit`: what came after it is gone from the branch."""
        self._switch(branch)
        git("reset", "--quiet", "--hard", commit, folder=self.work)
        git("push", "--quiet", "--force", "origin", branch, folder=self.work)

    def head(self, branch: str = "main") -> str:
        """The id of the branch's newest commit."""
        return git("rev-parse", branch, folder=self.bare)

    def _switch(self, branch: str) -> None:
        exists = git("branch", "--list", branch, folder=self.work)
        if exists:
            git("switch", "--quiet", branch, folder=self.work)
        elif git("symbolic-ref", "--short", "HEAD", folder=self.work) != branch:
            git("switch", "--quiet", "--create", branch, folder=self.work)

    def _record(self, message: str, branch: str, tag: str, date: str) -> str:
        dates = {"GIT_AUTHOR_DATE": date, "GIT_COMMITTER_DATE": date} if date else {}
        git("add", "--all", folder=self.work)
        git("commit", "--quiet", "--allow-empty", "-m", message, folder=self.work, **dates)
        git("push", "--quiet", "origin", branch, folder=self.work)
        if tag:
            self.tag(tag)
        return git("rev-parse", "HEAD", folder=self.work)


class GitHttpServer(Closing):
    """Serves all repositories in `folder` by `git http-backend`; options as LoopbackServer's."""

    def __init__(self, folder: Path, **server: Any) -> None:
        self._folder = folder
        # Git answers are never cached, so that no ETag is made of them.
        self.server = LoopbackServer(self._respond, etags=False, **server)

    def url(self, repository: GitRepository) -> str:
        return f"{self.server.url}/{repository.name}"

    def close(self) -> None:
        self.server.close()

    def _respond(self, request: Request) -> Answer:
        """One CGI call, as a web server makes it."""
        headers = request.headers
        environment = {
            **os.environ,
            **_ENVIRONMENT,
            "GIT_PROJECT_ROOT": str(self._folder),
            "GIT_HTTP_EXPORT_ALL": "1",
            "PATH_INFO": request.path,
            "QUERY_STRING": request.query,
            "REQUEST_METHOD": request.method,
            "REMOTE_ADDR": "127.0.0.1",
            "CONTENT_TYPE": headers.get("content-type", ""),
            "CONTENT_LENGTH": str(len(request.body)),
            "HTTP_CONTENT_ENCODING": headers.get("content-encoding", ""),
            "GIT_PROTOCOL": headers.get("git-protocol", ""),
        }
        answer = subprocess.run(
            ["git", "http-backend"],
            input=request.body,
            env=environment,
            capture_output=True,
            check=False,
        )
        head, _, body = answer.stdout.partition(b"\r\n\r\n")
        lines = head.decode().split("\r\n")
        fields = dict(line.split(": ", 1) for line in lines if ": " in line)
        status = int(fields.pop("Status", "200").split()[0]) if fields else 500
        return Answer(status, body or answer.stderr, fields)


class GitSshServer(Closing):
    """Serves every repository in `folder` by OpenSSH's own server, to one key, Git commands only.

    Raises ToolMissing where `sshd` or `ssh-keygen` is not installed.
    """

    def __init__(self, folder: Path, state: Path) -> None:
        sshd = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
        if sshd is None or shutil.which("ssh-keygen") is None:
            raise ToolMissing("sshd is not installed (on Debian: apt-get install openssh-server)")
        self._folder = folder
        state.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.client_key = _ssh_key(state / "client")
        self._host_key = _ssh_key(state / "host")
        self.port = _free_port()
        self._process = processes.start(
            [sshd, "-D", "-e", "-f", str(self._write_configuration(state))], log=state / "sshd.log"
        )
        self._await(state / "sshd.log")

    @property
    def known_hosts(self) -> str:
        """The line of a known_hosts file for this server."""
        kind, key = self._host_key.with_suffix(".pub").read_text().split()[:2]
        return f"[127.0.0.1]:{self.port} {kind} {key}\n"

    def url(self, repository: GitRepository) -> str:
        return f"ssh://{getpass.getuser()}@127.0.0.1:{self.port}{repository.bare}"

    def close(self) -> None:
        processes.stop([self._process], grace=5)

    def _write_configuration(self, state: Path) -> Path:
        public = self.client_key.with_suffix(".pub").read_text()
        command = 'git shell -c "$SSH_ORIGINAL_COMMAND"'.replace('"', '\\"')
        (state / "authorized_keys").write_text(f'restrict,command="{command}" {public}')
        options = {
            "Port": self.port,
            "ListenAddress": "127.0.0.1",
            "HostKey": self._host_key,
            "PidFile": "none",
            "AuthorizedKeysFile": state / "authorized_keys",
            "StrictModes": "no",
            "UsePAM": "no",
            "PasswordAuthentication": "no",
            "KbdInteractiveAuthentication": "no",
            "PermitRootLogin": "prohibit-password",
        }
        configuration = state / "sshd_config"
        configuration.write_text("".join(f"{name} {value}\n" for name, value in options.items()))
        if os.geteuid() == 0:
            # Debian's sshd wants this folder, which its service would have made.
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        return configuration

    def _await(self, log: Path) -> None:
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
                return
            if not self._process.alive():
                break
            time.sleep(0.05)
        self.close()
        raise StartFailed(f"sshd did not start:\n{log.read_text()}")


def _ssh_key(path: Path) -> Path:
    subprocess.run(
        ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "devcluster", "-f", str(path)],
        check=True,
        stdin=subprocess.DEVNULL,
    )
    return path


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])
