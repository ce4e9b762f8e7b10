"""Signatures of Git's commits and tags, by OpenPGP or SSH keys.

git itself is not asked (`git verify-commit`): it would look into the keyrings and settings of
whoever runs us. The signed content is taken apart here, and verified against the given keys only.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from helmops.errors import SignatureRefused
from helmops.sources.openpgp import verify_detached
from helmops.sources.ssh_signatures import verify_ssh

_HEADERS: Final = (b"gpgsig ", b"gpgsig-sha256 ")
_BEGINS: Final = re.compile(rb"^-----BEGIN (?:PGP|SSH) SIGNATURE-----$", re.MULTILINE)
_NEXT: Final = "sign it, or put the signer's public key into the Secret that `verify` names"


def verify_object(content: bytes, keys: Mapping[str, bytes], what: str, where: str) -> str:
    """Check a commit or tag, given as git stores it; gives back who signed it.

    `keys` are public keys by file name: `*.sshpub` are SSH's, all others OpenPGP's. Raises
    SignatureRefused.
    """
    payload, signature = split_object(content)
    if not signature:
        raise SignatureRefused(f"{what} is not signed", where=where, next_step=_NEXT)
    is_ssh = b"BEGIN SSH SIGNATURE" in signature
    kind, suffix = ("SSH", "*.sshpub") if is_ssh else ("OpenPGP", "*.asc")
    trusted = [key for name, key in sorted(keys.items()) if name.endswith(".sshpub") == is_ssh]
    if not trusted:
        raise SignatureRefused(
            f"{what} is signed with an {kind} key, and none is trusted",
            where=where,
            next_step=f"put the signer's public key into `verify`'s Secret, as {suffix}",
        )
    verify = verify_ssh if is_ssh else verify_detached
    return verify(payload, signature, trusted, what, where)


def split_object(content: bytes) -> tuple[bytes, bytes]:
    """What was signed and the signature (empty where there is none) of a commit or a tag."""
    head, blank, message = content.partition(b"\n\n")
    lines = head.split(b"\n")
    kept: list[bytes] = []
    signature: list[bytes] = []
    inside = False
    for line in lines:
        if inside and line.startswith(b" "):
            signature.append(line[1:])
            continue
        inside = line.startswith(_HEADERS)
        if inside:
            signature.append(line.partition(b" ")[2])
        else:
            kept.append(line)
    if signature:
        return b"\n".join(kept) + blank + message, b"\n".join(signature) + b"\n"
    # A tag has it at its end.
    if content.startswith(b"object ") and (begins := _BEGINS.search(content)):
        return content[: begins.start()], content[begins.start() :]
    return content, b""
