"""helmops/sources/openpgp.py, with keys and signatures that gpg makes."""

from __future__ import annotations

from pathlib import Path

import pytest

from helmops.errors import SignatureRefused, SourceUnavailable, ValuesError
from helmops.sources.openpgp import binary_key, verify_clear, verify_detached
from tests.fakes.signing import OpenPgpSigner

TEXT = b"version: 1.0.0\n"


@pytest.fixture(scope="module")
def ann(tmp_path_factory: pytest.TempPathFactory) -> OpenPgpSigner:
    return OpenPgpSigner(tmp_path_factory.mktemp("keys") / "ann", "Ann")


@pytest.fixture(scope="module")
def mallory(tmp_path_factory: pytest.TempPathFactory) -> OpenPgpSigner:
    return OpenPgpSigner(tmp_path_factory.mktemp("keys") / "mallory", "Mallory")


@pytest.mark.parametrize("armour", [True, False])
def test_a_signature_tells_who_signed(ann: OpenPgpSigner, armour: bool) -> None:
    key = ann.public if armour else ann.binary
    signer = verify_detached(TEXT, ann.detached(TEXT), [key], "it", "here")
    assert signer == "Ann <ann@example.invalid>"


def test_one_of_several_keys_is_enough(ann: OpenPgpSigner, mallory: OpenPgpSigner) -> None:
    for keys in ([mallory.public, ann.binary], [mallory.public + b"\n" + ann.public]):
        assert verify_detached(TEXT, ann.detached(TEXT), keys, "it", "here").startswith("Ann")


def test_a_signed_text_gives_what_was_signed(ann: OpenPgpSigner) -> None:
    text = b"a: 1\n- - dashed\n"
    signed, signer = verify_clear(ann.clear_sign(text), [ann.public], "it", "here")
    assert (signed, signer) == (text, "Ann <ann@example.invalid>")


def test_what_stands_around_a_signed_text_is_not_signed(ann: OpenPgpSigner) -> None:
    forged = b"version: 9.9.9\n" + ann.clear_sign(TEXT) + b"\nversion: 9.9.9\n"
    try:
        signed, _ = verify_clear(forged, [ann.public], "it", "here")
    except SignatureRefused:
        return
    assert signed == TEXT


def test_a_changed_text_is_refused(ann: OpenPgpSigner) -> None:
    with pytest.raises(SignatureRefused, match="of the chart does not fit its content"):
        verify_detached(TEXT + b"x", ann.detached(TEXT), [ann.public], "the chart", "here")
    changed = ann.clear_sign(TEXT).replace(b"1.0.0", b"1.0.1")
    with pytest.raises(SignatureRefused, match="does not fit its content"):
        verify_clear(changed, [ann.public], "the chart", "here")


def test_a_stranger_s_signature_is_refused_with_the_key_s_name(
    ann: OpenPgpSigner, mallory: OpenPgpSigner
) -> None:
    with pytest.raises(SignatureRefused, match=r"by the key [0-9A-F]{16}, which is not trusted"):
        verify_detached(TEXT, mallory.detached(TEXT), [ann.public], "it", "here")


@pytest.mark.parametrize("signature", [b"", b"no signature", b"-----BEGIN PGP SIGNATURE-----\n\n"])
def test_what_is_no_signature_is_refused(ann: OpenPgpSigner, signature: bytes) -> None:
    with pytest.raises(SignatureRefused, match="cannot be read"):
        verify_detached(TEXT, signature, [ann.public], "it", "here")
    with pytest.raises(SignatureRefused):
        verify_clear(signature, [ann.public], "it", "here")


@pytest.mark.parametrize(
    ("key", "says"),
    [
        (b"", "empty"),
        (b"ssh-ed25519 AAAA", "no OpenPGP public key"),
        (b"-----BEGIN PGP PRIVATE KEY BLOCK-----\n", "private key is where a public one belongs"),
        (
            b"-----BEGIN PGP PUBLIC KEY BLOCK-----\n\n$$$$\n-----END PGP PUBLIC KEY BLOCK-----\n",
            "damaged",
        ),
    ],
)
def test_what_is_no_public_key_is_said_so(key: bytes, says: str) -> None:
    with pytest.raises(ValuesError, match=says):
        binary_key(key, "Secret apps/keys")


def test_the_headers_of_armour_are_not_the_key(ann: OpenPgpSigner) -> None:
    begin = b"-----BEGIN PGP PUBLIC KEY BLOCK-----\n"
    with_header = ann.public.replace(begin, begin + b"Version: GnuPG v2\nComment: mine\n")
    assert binary_key(with_header, "here") == ann.binary
    assert binary_key(ann.public.replace(b"\n", b"\r\n"), "here") == ann.binary


def test_without_gpgv_it_is_said_what_to_install(
    ann: OpenPgpSigner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    signature = ann.detached(TEXT)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SourceUnavailable, match="there is no gpgv"):
        verify_detached(TEXT, signature, [ann.public], "it", "here")
