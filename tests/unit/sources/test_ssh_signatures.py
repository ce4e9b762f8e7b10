"""helmops/sources/ssh_signatures.py, with keys and signatures that ssh-keygen makes."""

from __future__ import annotations

from pathlib import Path

import pytest

from helmops.errors import SignatureRefused, SourceUnavailable, ValuesError
from helmops.sources.ssh_signatures import verify_ssh
from tests.fakes.signing import SshSigner

TEXT = b"tree 0123\n"


@pytest.fixture
def ann(tmp_path: Path) -> SshSigner:
    return SshSigner(tmp_path / "ann", "ann@laptop")


@pytest.fixture
def mallory(tmp_path: Path) -> SshSigner:
    return SshSigner(tmp_path / "mallory", "mallory")


def test_a_signature_tells_which_key_made_it(ann: SshSigner, mallory: SshSigner) -> None:
    both = b"# people\n\n" + mallory.public + ann.public
    assert verify_ssh(TEXT, ann.sign(TEXT), [both], "it", "here") == "ann@laptop"
    assert verify_ssh(TEXT, ann.sign(TEXT), [mallory.public, ann.public], "it", "here")


def test_changed_content_and_strangers_are_refused(ann: SshSigner, mallory: SshSigner) -> None:
    for payload, signature in ((TEXT + b"x", ann.sign(TEXT)), (TEXT, mallory.sign(TEXT))):
        with pytest.raises(SignatureRefused, match="of it does not fit"):
            verify_ssh(payload, signature, [ann.public], "it", "here")


def test_a_signature_for_another_purpose_does_not_count(ann: SshSigner) -> None:
    with pytest.raises(SignatureRefused):
        verify_ssh(TEXT, ann.sign(TEXT, "file"), [ann.public], "it", "here")


@pytest.mark.parametrize(
    "key", [b"no key", b"cert-authority ssh-ed25519 AAAA", b"* ssh-ed25519 AAAA", b"\xff\xfe"]
)
def test_what_is_no_public_key_is_said_so(ann: SshSigner, key: bytes) -> None:
    with pytest.raises(ValuesError, match="a line of an SSH public key is none"):
        verify_ssh(TEXT, ann.sign(TEXT), [key], "it", "here")


def test_without_ssh_keygen_it_is_said_what_to_install(
    ann: SshSigner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    signature = ann.sign(TEXT)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SourceUnavailable, match="there is no ssh-keygen"):
        verify_ssh(TEXT, signature, [ann.public], "it", "here")
