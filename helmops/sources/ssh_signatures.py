"""SSH signatures (`ssh-keygen -Y sign -n git`), checked by ssh-keygen against given public keys."""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from helmops.errors import SignatureRefused, SourceUnavailable, ValuesError

_KEY: Final = re.compile(r"((?:sk-)?(?:ssh|ecdsa)-[a-z0-9@.-]+) ([A-Za-z0-9+/]+={0,2})(?: (.*))?")
_TIMEOUT: Final = 30.0


def verify_ssh(
    payload: bytes, signature: bytes, keys: Sequence[bytes], what: str, where: str
) -> str:
    """Check a signature over what git signs; gives back the comment of the key that made it.

    Blocks. Raises SignatureRefused, ValuesError for keys that are none, SourceUnavailable where
    there is no ssh-keygen.
    """
    program = shutil.which("ssh-keygen")
    if program is None:
        raise SourceUnavailable(
            "there is no ssh-keygen on PATH to check a signature with",
            where=where,
            next_step="install OpenSSH's client",
        )
    signers = _signers(keys, where)
    with tempfile.TemporaryDirectory(prefix="helmops-ssh-") as name:
        directory = Path(name)
        (directory / "signature").write_bytes(signature)
        for number, (kind, key, comment) in enumerate(signers):
            # One at a time, so that it is known whose it is.
            allowed = directory / f"allowed-{number}"
            allowed.write_text(f'signer namespaces="git" {kind} {key}\n')
            command = [program, "-Y", "verify", "-n", "git", "-I", "signer", "-f", str(allowed)]
            try:
                done = subprocess.run(
                    [*command, "-s", str(directory / "signature")],
                    input=payload,
                    capture_output=True,
                    timeout=_TIMEOUT,
                    env={"LC_ALL": "C", "PATH": "/usr/bin:/bin"},
                    check=False,
                )
            except subprocess.TimeoutExpired:
                raise SourceUnavailable(
                    f"ssh-keygen did not end within {_TIMEOUT:g} s", where=where
                ) from None
            if done.returncode == 0:
                return comment or kind
    raise SignatureRefused(
        f"the signature of {what} does not fit, or is by an SSH key that is not trusted",
        where=where,
        next_step="look who signed it, and at the keys that are trusted",
    )


def _signers(keys: Sequence[bytes], where: str) -> list[tuple[str, str, str]]:
    found: list[tuple[str, str, str]] = []
    for text in keys:
        for line in text.decode("utf-8", "replace").splitlines():
            line = line.strip()
            if not line or line.startswith("#"):
                continue
            key = _KEY.fullmatch(line)
            if key is None:
                raise ValuesError(
                    "a line of an SSH public key is none",
                    where=where,
                    next_step="give lines as in id_ed25519.pub",
                )
            found.append((key[1], key[2], key[3] or ""))
    return found
