"""Signatures of artifacts in registries, as cosign makes them with a key.

Two forms are read:

- *Simple signing* (cosign 1 and 2): beside an artifact of the digest `sha256:ab…` stands the tag
  `sha256-ab….sig`, whose layers are payloads that name the digest; an annotation has the signature
  over the payload's bytes.
- *Bundles* (cosign 3, and 2 when told so): a manifest that refers to the artifact (found by the
  referrers API, or by the tag `sha256-ab…`) has a Sigstore bundle: a DSSE envelope around an
  in-toto statement that names the digest.

Keys are PEM: ECDSA (P-256, P-384, P-521), RSA (PKCS#1 v1.5) and Ed25519.
Transparency logs and certificates are not looked at: a given key says who signed, no more is asked.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from helmops.errors import (
    ChartRefused,
    SignatureRefused,
    SourceMissing,
    SourceUnavailable,
    ValuesError,
)
from helmops.sources.oci_reference import OciRepository
from helmops.sources.oci_registry import Access, Descriptor, Manifest, OciRegistry

_SIMPLE: Final = "application/vnd.dev.cosign.simplesigning.v1+json"
_SIGNATURE: Final = "dev.cosignproject.cosign/signature"
_BUNDLE: Final = "application/vnd.dev.sigstore.bundle"
_STATEMENT: Final = "application/vnd.in-toto+json"
_SIMPLE_TYPES: Final = frozenset({"cosign container image signature", "atomic container signature"})
_SIGN_PREDICATE: Final = "https://sigstore.dev/cosign/sign/v1"

#: Bytes of one payload or bundle, and signatures that are looked at.
_PAYLOAD_LIMIT: Final = 256 * 1024
_MOST: Final = 32


@dataclass(frozen=True, slots=True)
class Signature:
    """One signature: over `payload` itself (`simple`), or over its DSSE encoding (`dsse`)."""

    form: str
    payload: bytes = field(repr=False)
    signature: bytes = field(repr=False)


async def fetch_signatures(
    registry: OciRegistry, repository: OciRepository, digest: str, access: Access
) -> tuple[Signature, ...]:
    """Every signature that a registry has for a digest, whoever made it. All of it is one
    operation, and has to end within the timeout. Raises SourceError.
    """
    try:
        async with asyncio.timeout(access.timeout.total_seconds()):
            return await _fetch(registry, repository, digest, access)
    except TimeoutError:
        raise SourceUnavailable(
            f"the signatures did not come within {access.timeout.total_seconds():g} s",
            where=f"{repository}@{digest}",
        ) from None


async def _fetch(
    registry: OciRegistry, repository: OciRepository, digest: str, access: Access
) -> tuple[Signature, ...]:
    found: list[Signature] = []
    stem = digest.replace(":", "-")
    simple = await _manifest_if_there(registry, repository, f"{stem}.sig", access)
    for layer in simple.layers if simple is not None else ():
        text = layer.annotations.get(_SIGNATURE, "")
        if layer.media_type == _SIMPLE and text and len(found) < _MOST:
            payload = await _payload(registry, repository, layer, access)
            if payload is not None and (signature := _unpacked(text)) is not None:
                found.append(Signature("simple", payload, signature))
    for reference in await _referrers(registry, repository, digest, access):
        manifest = await _manifest_if_there(registry, repository, reference.digest, access)
        for layer in manifest.layers if manifest is not None else ():
            if layer.media_type.startswith(_BUNDLE) and len(found) < _MOST:
                bundle = await _payload(registry, repository, layer, access)
                found += _of_bundle(bundle) if bundle is not None else ()
    return tuple(found)


async def _referrers(
    registry: OciRegistry, repository: OciRepository, digest: str, access: Access
) -> Sequence[Descriptor]:
    """Manifests that refer to a digest; those first that are said to be bundles. cosign 2.6.5 does
    not say so in the list that it keeps itself.
    """
    index = await registry.referrers(repository, digest, access)
    if index is None:
        index = await _manifest_if_there(registry, repository, digest.replace(":", "-"), access)
    listed = index.manifests if index is not None else ()
    ordered = sorted(listed, key=lambda one: not one.artifact_type.startswith(_BUNDLE))
    return ordered[:_MOST]


async def _manifest_if_there(
    registry: OciRegistry, repository: OciRepository, reference: str, access: Access
) -> Manifest | None:
    try:
        return await registry.manifest(repository, reference, access)
    except SourceMissing:
        return None


async def _payload(
    registry: OciRegistry, repository: OciRepository, layer: Descriptor, access: Access
) -> bytes | None:
    """A small blob, None for one that cannot be what it should be: another may be good."""
    try:
        return await registry.small_blob(repository, layer, access, _PAYLOAD_LIMIT)
    except (ChartRefused, SourceMissing):
        return None


def _of_bundle(bundle: bytes) -> list[Signature]:
    try:
        envelope: Any = msgspec.json.decode(bundle)["dsseEnvelope"]
        payload = _unpacked(envelope["payload"]) if envelope["payloadType"] == _STATEMENT else None
        signatures = [_unpacked(one["sig"]) for one in envelope["signatures"][:_MOST]]
    except (msgspec.DecodeError, KeyError, TypeError, IndexError, RecursionError):
        return []
    if payload is None:
        return []
    return [Signature("dsse", payload, one) for one in signatures if one is not None]


def _unpacked(text: object) -> bytes | None:
    try:
        return base64.b64decode(text, validate=True) if isinstance(text, str) else None
    except (binascii.Error, ValueError):
        return None


# Checking: no network, no disk.


def check_signatures(
    signatures: Iterable[Signature], digest: str, keys: Sequence[bytes], where: str
) -> None:
    """Return where one of the signatures is for this digest and by one of these keys (PEM).

    Raises SignatureRefused where none is, ValuesError where a key cannot be read.
    """
    verifiers = [_read_key(key, where) for key in keys]
    signed_by_key = 0
    total = 0
    for one in signatures:
        total += 1
        message = one.payload if one.form == "simple" else _dsse_message(one.payload)
        if not any(_verifies(key, message, one.signature) for key in verifiers):
            continue
        signed_by_key += 1
        if _names(one, digest):
            return
    if signed_by_key:
        what = "the signatures by the given key are for other artifacts"
    elif total:
        what = "none of its signatures was made with a given key"
    else:
        what = "it is not signed"
    raise SignatureRefused(
        f"the signature cannot be verified: {what}",
        where=where,
        next_step="sign it with cosign, or correct the Secret of verify.secretRef",
    )


def _names(one: Signature, digest: str) -> bool:
    """Whether what was signed says this digest."""
    try:
        said: Any = msgspec.json.decode(one.payload)
        if one.form == "simple":
            critical = said["critical"]
            return bool(
                critical["image"]["docker-manifest-digest"] == digest
                and critical["type"] in _SIMPLE_TYPES
            )
        algorithm, _, value = digest.partition(":")
        return said["predicateType"] == _SIGN_PREDICATE and any(
            subject["digest"].get(algorithm) == value for subject in said["subject"]
        )
    except (msgspec.DecodeError, KeyError, TypeError, AttributeError, RecursionError):
        return False


def _dsse_message(payload: bytes) -> bytes:
    """What a DSSE signature is over (its "pre-authentication encoding")."""
    return b"DSSEv1 %d %s %d %s" % (len(_STATEMENT), _STATEMENT.encode(), len(payload), payload)


def _read_key(pem: bytes, where: str) -> Any:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    try:
        key = load_pem_public_key(pem)
    except (ValueError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, EllipticCurvePublicKey | Ed25519PublicKey | RSAPublicKey):
        raise ValuesError(
            "a public key of verify.secretRef cannot be read",
            where=where,
            next_step="keys end in .pub and are PEM, as cosign generate-key-pair makes them",
        )
    return key


def _verifies(key: Any, message: bytes, signature: bytes) -> bool:
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric import ec, padding
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
    from cryptography.hazmat.primitives.hashes import SHA256, SHA384, SHA512

    def passes(*algorithms: Any) -> bool:
        try:
            key.verify(signature, message, *algorithms)
        except InvalidSignature:
            return False
        return True

    if isinstance(key, ec.EllipticCurvePublicKey):
        # cosign 2 takes SHA-256 with every curve, cosign 3 the one of the curve's size.
        own = {384: SHA384(), 521: SHA512()}.get(key.curve.key_size, SHA256())
        return passes(ec.ECDSA(SHA256())) or passes(ec.ECDSA(own))
    if isinstance(key, RSAPublicKey):
        return passes(padding.PKCS1v15(), SHA256())
    return passes()
