"""Signatures as cosign makes them, by keys of the tests' own."""

from __future__ import annotations

import base64
import json
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec, padding
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from devcluster.oci_server import INDEX, MANIFEST, OciServer

SIMPLE = "application/vnd.dev.cosign.simplesigning.v1+json"
BUNDLE = "application/vnd.dev.sigstore.bundle.v0.3+json"
STATEMENT = "application/vnd.in-toto+json"
PREDICATE = "https://sigstore.dev/cosign/sign/v1"


def new_key() -> Any:
    """A private key as cosign makes them."""
    return ec.generate_private_key(ec.SECP256R1())


def public_key(key: Any) -> bytes:
    """The public half, as in `cosign.pub`."""
    packed: bytes = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return packed


def signature_of(key: Any, message: bytes) -> bytes:
    """A signature over a message, as cosign makes it with a key of that kind."""
    if isinstance(key, RSAPrivateKey):
        return key.sign(message, padding.PKCS1v15(), SHA256())
    if isinstance(key, Ed25519PrivateKey):
        return key.sign(message)
    signed: bytes = key.sign(message, ec.ECDSA(SHA256()))
    return signed


def simple_payload(digest: str, **critical: Any) -> bytes:
    """What cosign signs for a digest."""
    said = {
        "identity": {"docker-reference": "registry.test/charts/app"},
        "image": {"docker-manifest-digest": digest},
        "type": "cosign container image signature",
        **critical,
    }
    return json.dumps({"critical": said, "optional": None}).encode()


def statement(digest: str, **more: Any) -> bytes:
    """What a bundle of cosign's is about."""
    algorithm, _, value = digest.partition(":")
    said = {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"digest": {algorithm: value}}],
        "predicateType": PREDICATE,
        **more,
    }
    return json.dumps(said).encode()


def dsse_message(payload: bytes) -> bytes:
    """What is signed for a payload in a DSSE envelope."""
    kind = STATEMENT.encode()
    return b" ".join(
        [b"DSSEv1", str(len(kind)).encode(), kind, str(len(payload)).encode(), payload]
    )


def sign_simply(
    server: OciServer, name: str, tag: str, key: Any, payload: bytes | None = None
) -> None:
    """Put a signature of what a tag names beside it, after those that are there."""
    stored = server.repository(name)
    digest = stored.tags.get(tag, tag)
    if payload is None:
        payload = simple_payload(digest)
    signature = base64.b64encode(signature_of(key, payload)).decode()
    layer = {
        "mediaType": SIMPLE,
        **server.put_blob(name, payload),
        "annotations": {"dev.cosignproject.cosign/signature": signature},
    }
    at = f"{digest.replace(':', '-')}.sig"
    layers = []
    if at in stored.tags:
        layers = json.loads(stored.manifests[stored.tags[at]][1])["layers"]
    config = {"mediaType": "application/vnd.oci.image.config.v1+json"}
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": {**config, **server.put_blob(name, b"{}")},
        "layers": [*layers, layer],
    }
    server.put_manifest(name, at, manifest)


def sign_by_bundle(
    server: OciServer, name: str, tag: str, key: Any, *, by_referrers: bool = False
) -> None:
    """Put a bundle that signs what a tag names where it is found by the referrers API, or by the
    tag for registries without that."""
    stored = server.repository(name)
    digest = stored.tags[tag]
    payload = statement(digest)
    signature = signature_of(key, dsse_message(payload))
    envelope = {
        "payload": base64.b64encode(payload).decode(),
        "payloadType": STATEMENT,
        "signatures": [{"sig": base64.b64encode(signature).decode()}],
    }
    bundle = json.dumps({"mediaType": BUNDLE, "dsseEnvelope": envelope}).encode()
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "artifactType": BUNDLE,
        "config": {
            "mediaType": "application/vnd.oci.empty.v1+json",
            **server.put_blob(name, b"{}"),
        },
        "layers": [{"mediaType": BUNDLE, **server.put_blob(name, bundle)}],
    }
    made = server.put_manifest(name, "", manifest)
    listed = {"mediaType": MANIFEST, "digest": made, "size": 1, "artifactType": BUNDLE}
    if by_referrers:
        stored.referrers.setdefault(digest, []).append(listed)
    else:
        server.put_manifest(
            name,
            digest.replace(":", "-"),
            {"schemaVersion": 2, "mediaType": INDEX, "manifests": [listed]},
            INDEX,
        )
