"""OpenPGP signatures, checked by gpgv against given public keys and nothing else.

gpgv trusts every key of the keyring that it is given; so that keyring has the given keys only, and
no other key of this machine is looked at.
"""

from __future__ import annotations

import base64
import binascii
import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from helmops.errors import SignatureRefused, SourceUnavailable, ValuesError

_ARMOUR: Final = re.compile(
    rb"-----BEGIN PGP PUBLIC KEY BLOCK-----\s*?\n(.*?)-----END PGP PUBLIC KEY BLOCK-----", re.DOTALL
)
#: Seconds that a check may take; it is some milliseconds of work.
_TIMEOUT: Final = 30.0
#: Bytes of public keys, and of what is signed.
_LARGEST: Final = 16 * 1024 * 1024


def verify_detached(
    payload: bytes, signature: bytes, keys: Sequence[bytes], what: str, where: str
) -> str:
    """Check a signature that stands apart from what it signs; gives back the signer's name.

    Blocks. Raises SignatureRefused, ValuesError for keys that are none, SourceUnavailable where
    there is no gpgv.
    """
    with tempfile.TemporaryDirectory(prefix="helmops-gpgv-") as name:
        directory = Path(name)
        (directory / "payload").write_bytes(payload)
        (directory / "signature").write_bytes(signature)
        return _signer(
            directory, keys, [str(directory / "signature"), str(directory / "payload")], what, where
        )


def verify_clear(text: bytes, keys: Sequence[bytes], what: str, where: str) -> tuple[bytes, str]:
    """Check a text that is signed within itself (`gpg --clearsign`): gives back what was signed,
    and the signer's name. Raises as `verify_detached`.
    """
    with tempfile.TemporaryDirectory(prefix="helmops-gpgv-") as name:
        directory = Path(name)
        (directory / "text").write_bytes(text)
        signed = directory / "signed"
        arguments = ["--output", str(signed), str(directory / "text")]
        signer = _signer(directory, keys, arguments, what, where)
        return signed.read_bytes(), signer


def _signer(
    directory: Path, keys: Sequence[bytes], arguments: list[str], what: str, where: str
) -> str:
    gpgv = shutil.which("gpgv")
    if gpgv is None:
        raise SourceUnavailable(
            "there is no gpgv on PATH to check a signature with",
            where=where,
            next_step="install it",
        )
    keyring = directory / "keyring"
    keyring.write_bytes(b"".join(binary_key(key, where) for key in keys))
    options = ["--homedir", str(directory), "--status-fd", "1", "--keyring", str(keyring)]
    try:
        done = subprocess.run(
            [gpgv, *options, *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_TIMEOUT,
            env={"LC_ALL": "C", "PATH": "/usr/bin:/bin"},
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise SourceUnavailable(f"gpgv did not end within {_TIMEOUT:g} s", where=where) from None
    said = [
        line.removeprefix("[GNUPG:] ").split(" ", 2)
        for line in done.stdout.decode("utf-8", "replace").splitlines()
        if line.startswith("[GNUPG:] ")
    ]
    words = {line[0]: line[1:] for line in said}
    if done.returncode == 0 and "GOODSIG" in words and "VALIDSIG" in words:
        return words["GOODSIG"][-1]
    raise SignatureRefused(
        f"the signature of {what} {_reason(words)}",
        where=where,
        next_step="look who signed it, and at the keys that are trusted",
    )


def _reason(words: dict[str, list[str]]) -> str:
    """Out of gpgv's status lines, why a signature does not count."""
    for word, meaning in (
        ("BADSIG", "does not fit its content"),
        ("EXPKEYSIG", "is by a key that has expired"),
        ("REVKEYSIG", "is by a key that was revoked"),
        ("EXPSIG", "has expired"),
    ):
        if word in words:
            return meaning
    if "NO_PUBKEY" in words:
        return f"is by the key {words['NO_PUBKEY'][0]}, which is not trusted"
    return "cannot be read"


def binary_key(key: bytes, where: str) -> bytes:
    """A public key as gpgv wants it: without armour. Raises ValuesError."""
    if not key or len(key) > _LARGEST:
        raise ValuesError("a public key is empty or far too large", where=where)
    if b"PRIVATE KEY BLOCK" in key:
        raise ValuesError(
            "a private key is where a public one belongs",
            where=where,
            next_step="replace it by the output of gpg --export, and make a new key",
        )
    blocks = _ARMOUR.findall(key)
    if not blocks:
        if key[0] & 0x80:  # every OpenPGP packet begins so
            return key
        raise ValuesError(
            "a key is no OpenPGP public key",
            where=where,
            next_step="give what gpg --export --armor prints",
        )
    try:
        return b"".join(base64.b64decode(_body(block), validate=True) for block in blocks)
    except binascii.Error:
        raise ValuesError("an OpenPGP public key is damaged", where=where) from None


def _body(block: bytes) -> bytes:
    """The base64 of an armoured block: without its headers and its checksum."""
    lines = [line.strip() for line in block.splitlines()]
    if b"" in lines and any(b":" in line for line in lines):
        lines = lines[lines.index(b"") + 1 :]
    return b"".join(line for line in lines if line and not line.startswith(b"="))
