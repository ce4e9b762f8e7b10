"""Files that SOPS encrypted: told from others, and decrypted in memory by the `sops` binary.

The text goes in by standard input and comes out of a pipe; nothing is written to disk, and nothing
secret is on a command line. Keys are found by sops itself, as it documents: `SOPS_AGE_KEY_FILE`,
`SOPS_AGE_KEY`, `~/.config/sops/age/keys.txt`, GnuPG's keyring, cloud credentials. What a caller
has read itself (the Secret of a Flux Kustomization's `decryption`) is handed over in the
environment.

Exit statuses are those of sops 3.13.3: 128 where no key opens a file, 51 where its MAC is wrong.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import subprocess
import threading
import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Final

from helmops.errors import DecryptionFailed

#: Seconds that one file may take: a key service far away may be asked.
_TIMEOUT: Final = 60.0
#: Seconds for which a failure is remembered: somebody may put the key in its place meanwhile.
_FAILURE_KEPT: Final = 10.0
_FAILURES_KEPT: Final = 1_000
#: Decrypted texts that are kept, so that a file that did not change is decrypted once.
_KEPT_BYTES: Final = 16 * 1024 * 1024
_NO_KEY: Final = 128
_WRONG_MAC: Final = 51

_METADATA: Final = re.compile(rb'^sops:[ \t]*(?:#.*)?\r?$|"sops"[ \t\r\n]*:[ \t\r\n]*\{', re.M)
_MAC: Final = re.compile(rb"""["']?\bmac["']?[ \t\r\n]*:[ \t\r\n]*["']?ENC\[""")
_RECIPIENT: Final = re.compile(
    rb"""["']?\b(recipient|fp|arn|resource_id|vault_address|vault_url)["']?"""
    rb"""[ \t]*:[ \t]*["']?([^\s"',}]+)"""
)
_FORMATS: Final = {".json": "json", ".env": "dotenv", ".ini": "ini"}


def is_encrypted(text: bytes) -> bool:
    """Whether a YAML or JSON text has SOPS' metadata: a `sops` at its top with a MAC."""
    return b"sops" in text and bool(_METADATA.search(text)) and bool(_MAC.search(text))


def recipients_of(text: bytes) -> tuple[str, ...]:
    """Whom an encrypted text is for: age recipients, PGP fingerprints, names of cloud keys."""
    found = (match[2].decode("utf-8", "replace") for match in _RECIPIENT.finditer(text))
    return tuple(dict.fromkeys(found))


class Sops:
    """Decrypts what SOPS encrypted. Safe to be used from several threads; methods block.

    `executable` is a name on PATH or a path. `environment` is what sops gets, ours where it is
    None. What was decrypted is kept in memory, up to 16 MiB; a failure for ten seconds.
    """

    def __init__(
        self, executable: str = "sops", environment: Mapping[str, str] | None = None
    ) -> None:
        self._executable = executable
        self._environment = environment
        self._lock = threading.Lock()
        self._kept: OrderedDict[bytes, bytes] = OrderedDict()
        self._failed: dict[bytes, tuple[float, DecryptionFailed]] = {}

    def decrypt(
        self, text: bytes, name: str, *, age_keys: Sequence[str] = (), ignore_mac: bool = False
    ) -> bytes:
        """An encrypted text without its encryption; any other text as it is.

        `name` is what people call the file; its end (`.json`, `.env`, `.ini`, else YAML) tells the
        format. `age_keys` are texts of age identities to try besides those that sops finds.
        `ignore_mac` is for one document of several, whose MAC is over all of them. Raises
        DecryptionFailed, which names the file and whom it is for, and nothing of its content.
        """
        if not is_encrypted(text):
            return text
        key = hashlib.sha256(b"\0".join([*(k.encode() for k in age_keys), text])).digest()
        with self._lock:
            kept = self._kept.get(key)
            if kept is not None:
                self._kept.move_to_end(key)
                return kept
            failed = self._failed.get(key)
        if failed is not None and time.monotonic() - failed[0] < _FAILURE_KEPT:
            raise failed[1].with_traceback(None)
        try:
            plain = self._run(text, name, age_keys, ignore_mac=ignore_mac)
        except DecryptionFailed as error:
            with self._lock:
                if len(self._failed) >= _FAILURES_KEPT:
                    self._failed.clear()
                self._failed[key] = (time.monotonic(), error)
            raise
        with self._lock:
            self._failed.pop(key, None)
            self._kept[key] = plain
            while sum(map(len, self._kept.values())) > _KEPT_BYTES:
                self._kept.popitem(last=False)
        return plain

    async def decrypted(self, text: bytes, name: str) -> bytes:
        """`decrypt` for coroutines. Raises DecryptionFailed."""
        if not is_encrypted(text):
            return text
        return await asyncio.to_thread(self.decrypt, text, name)

    def _run(self, text: bytes, name: str, age_keys: Sequence[str], *, ignore_mac: bool) -> bytes:
        kind = _FORMATS.get(os.path.splitext(name)[1].lower(), "yaml")
        environment = dict(os.environ if self._environment is None else self._environment)
        if age_keys:
            own = environment.get("SOPS_AGE_KEY", "")
            environment["SOPS_AGE_KEY"] = "\n".join([*([own] if own else []), *age_keys])
        command = [self._executable, "decrypt", "--input-type", kind, "--output-type", kind]
        try:
            ended = subprocess.run(
                [*command, *(["--ignore-mac"] if ignore_mac else [])],
                input=text,
                capture_output=True,
                env=environment,
                timeout=_TIMEOUT,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise _failure(
                text, name, f"sops did not end within {_TIMEOUT:.0f} s", "is a key service away?"
            ) from None
        except OSError as error:
            raise _failure(
                text,
                name,
                f"it is encrypted, and sops cannot be started: {error.strerror}",
                "install sops, or name its path (HELMOPS_SOPS)",
            ) from None
        if ended.returncode == _NO_KEY:
            raise _failure(
                text, name, "no key at hand decrypts it", "set SOPS_AGE_KEY_FILE for helmops"
            )
        if ended.returncode == _WRONG_MAC:
            raise _failure(
                text,
                name,
                "its MAC is wrong: it was changed after it was encrypted",
                "restore it, or edit it with `sops edit`",
            )
        if ended.returncode != 0:
            raise _failure(text, name, f"sops failed: {_said(ended.stderr)}", "")
        return ended.stdout


def _failure(text: bytes, name: str, what: str, next_step: str) -> DecryptionFailed:
    recipients = recipients_of(text)
    whom = ", ".join(recipients[:5]) + (
        f" and {len(recipients) - 5} more" if len(recipients) > 5 else ""
    )
    return DecryptionFailed(
        f"{what}; it is for {whom}" if whom else what, where=name, next_step=next_step
    )


def _said(stderr: bytes) -> str:
    """The first words of sops."""
    lines = stderr.decode("utf-8", "replace").strip().splitlines()
    return lines[0][:200] if lines else "it says nothing"
