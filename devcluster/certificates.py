"""Certificate authorities of our own, for servers on loopback. Made by openssl."""

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from devcluster.errors import DevclusterError

_NEW_KEY = ("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "3650")
LOOPBACK = ("IP:127.0.0.1", "DNS:localhost")


@dataclass(frozen=True)
class KeyPair:
    """A certificate and its private key, both as PEM files."""

    certificate: Path
    key: Path


@dataclass(frozen=True)
class Authority:
    """A certificate authority in `folder`; its own certificate is what clients have to trust."""

    folder: Path

    @property
    def certificate(self) -> Path:
        return self.folder / "ca.crt"

    @classmethod
    def create(cls, folder: Path, name: str) -> "Authority":
        """A new authority called `name`; `folder` is made if need be, for its owner only."""
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        usage = ("-addext", "keyUsage=critical,keyCertSign,cRLSign")
        files = ("-keyout", "ca.key", "-out", "ca.crt")
        openssl((*_NEW_KEY, "-subj", f"/CN={name}", *usage, *files), folder)
        return cls(folder)

    def issue(self, name: str, *, also: Sequence[str] = LOOPBACK, file: str = "") -> KeyPair:
        """A certificate for `name`, valid for the `also` names too; a client's needs none of them.

        The files are called after `file`, or after `name`.
        """
        stem = file or name
        extensions = ["-addext", "basicConstraints=critical,CA:FALSE"]
        if also:
            extensions += ["-addext", f"subjectAltName={','.join(also)}"]
        signer = ("-CA", "ca.crt", "-CAkey", "ca.key", "-subj", f"/CN={name}")
        files = ("-keyout", f"{stem}.key", "-out", f"{stem}.crt")
        openssl((*_NEW_KEY, *signer, *extensions, *files), self.folder)
        return KeyPair(self.folder / f"{stem}.crt", self.folder / f"{stem}.key")


def openssl(arguments: Sequence[str], folder: Path) -> None:
    """Run openssl in `folder`. Raises DevclusterError where it is missing or fails."""
    try:
        subprocess.run(
            ["openssl", *arguments], cwd=folder, check=True, capture_output=True, text=True
        )
    except FileNotFoundError:
        raise DevclusterError(
            "openssl is not on PATH; install it (on Debian: apt-get install openssl)"
        ) from None
    except subprocess.CalledProcessError as failure:
        raise DevclusterError(f"openssl {arguments[0]} failed:\n{failure.stderr}") from failure
