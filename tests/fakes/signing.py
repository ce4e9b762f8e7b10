"""People who sign: with keys that gpg and ssh-keygen make for one test."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import weakref
from pathlib import Path

import pytest

from tests.fakes.git_server import GitRepository


class OpenPgpSigner:
    """Somebody with an OpenPGP key; skips the test where there is no gpg."""

    def __init__(self, directory: Path, name: str, *, algorithm: str = "ed25519") -> None:
        if shutil.which("gpg") is None or shutil.which("gpgv") is None:
            pytest.skip("gpg and gpgv are not installed")
        directory.mkdir()
        # The path of a socket may have some hundred characters only.
        self._home = tempfile.mkdtemp(prefix="gpg-")
        weakref.finalize(self, _forget, self._home)
        self._environment = {**os.environ, "GNUPGHOME": self._home}
        self.name = name
        address = f"{name} <{name.lower()}@example.invalid>"
        self._gpg("--passphrase", "", "--quick-gen-key", address, algorithm, "sign", "never")
        self.public = self._gpg("--export", "--armor")
        self.binary = self._gpg("--export")

    @property
    def keys(self) -> dict[str, bytes]:
        return {f"{self.name}.asc": self.public}

    @property
    def secret(self) -> bytes:
        """The private key, for a helm that signs."""
        return self._gpg("--export-secret-keys")

    def clear_sign(self, text: bytes) -> bytes:
        return self._gpg("--clearsign", "--armor", "--output", "-", input_=text)

    def detached(self, text: bytes) -> bytes:
        return self._gpg("--detach-sign", "--armor", "--output", "-", input_=text)

    def commit(self, repository: GitRepository) -> None:
        repository.git(*self._configuration(), "commit", "--quiet", "--allow-empty", "-S", "-mx")

    def tag(self, repository: GitRepository, name: str) -> None:
        repository.git(*self._configuration(), "tag", "--sign", "-mx", name)

    def _configuration(self) -> list[str]:
        program = Path(self._home) / "gpg-program"
        program.write_text(f'#!/bin/sh\nexec gpg --homedir "{self._home}" --batch "$@"\n')
        program.chmod(0o755)
        address = f"{self.name.lower()}@example.invalid"
        return ["-c", f"gpg.program={program}", "-c", f"user.signingKey={address}"]

    def _gpg(self, *arguments: str, input_: bytes = b"") -> bytes:
        return subprocess.run(
            ["gpg", "--batch", "--pinentry-mode", "loopback", *arguments],
            input=input_,
            env=self._environment,
            capture_output=True,
            check=True,
        ).stdout


def _forget(home: str) -> None:
    subprocess.run(["gpgconf", "--homedir", home, "--kill", "all"], check=False)
    shutil.rmtree(home, ignore_errors=True)


class SshSigner:
    """Somebody with an SSH key; skips the test where there is no ssh-keygen."""

    def __init__(self, directory: Path, name: str) -> None:
        if shutil.which("ssh-keygen") is None:
            pytest.skip("ssh-keygen is not installed")
        directory.mkdir()
        self.name = name
        self._key = directory / "id"
        subprocess.run(
            ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", str(self._key)],
            check=True,
        )
        self.public = self._key.with_suffix(".pub").read_bytes()

    @property
    def keys(self) -> dict[str, bytes]:
        return {f"{self.name}.sshpub": self.public}

    def sign(self, text: bytes, namespace: str = "git") -> bytes:
        return subprocess.run(
            ["ssh-keygen", "-Y", "sign", "-n", namespace, "-f", str(self._key)],
            input=text,
            capture_output=True,
            check=True,
        ).stdout

    def commit(self, repository: GitRepository) -> None:
        repository.git(*self._configuration(), "commit", "--quiet", "--allow-empty", "-S", "-mx")

    def tag(self, repository: GitRepository, name: str) -> None:
        repository.git(*self._configuration(), "tag", "--sign", "-mx", name)

    def _configuration(self) -> list[str]:
        return ["-c", "gpg.format=ssh", "-c", f"user.signingKey={self._key}"]
