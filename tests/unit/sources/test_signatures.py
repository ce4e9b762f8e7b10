from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import dsa, ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from devcluster.loopback import Fault
from devcluster.oci_server import OciServer
from helmops.errors import SignatureRefused, SourceUnavailable, ValuesError
from helmops.http import Http
from helmops.sources.oci_reference import OciRepository
from helmops.sources.oci_registry import Access, OciRegistry
from helmops.sources.signatures import Signature, check_signatures, fetch_signatures
from tests.fakes.signatures import (
    dsse_message,
    new_key,
    public_key,
    sign_by_bundle,
    sign_simply,
    signature_of,
    simple_payload,
    statement,
)

DIGEST = f"sha256:{'a' * 64}"
OTHER = f"sha256:{'b' * 64}"
BY_COSIGN = json.loads(Path(__file__).with_name("cosign_signatures.json").read_text())


def simple(key: Any, digest: str = DIGEST, **critical: Any) -> Signature:
    payload = simple_payload(digest, **critical)
    return Signature("simple", payload, signature_of(key, payload))


def bundled(key: Any, digest: str = DIGEST, **more: Any) -> Signature:
    payload = statement(digest, **more)
    return Signature("dsse", payload, signature_of(key, dsse_message(payload)))


# Checking.


@pytest.mark.parametrize("signed", BY_COSIGN["signatures"], ids=lambda one: one["form"])
def test_what_the_real_cosign_signed_is_verified(signed: dict[str, str]) -> None:
    """Recorded from cosign 2.6.5: `sign --key`, and with `--new-bundle-format`."""
    payload, signature = (base64.b64decode(signed[name]) for name in ("payload", "signature"))
    one = Signature(signed["form"], payload, signature)
    check_signatures([one], signed["digest"], [BY_COSIGN["key"].encode()], "app")
    with pytest.raises(SignatureRefused, match="none of its signatures"):
        check_signatures([one], signed["digest"], [public_key(new_key())], "app")
    broken = Signature(one.form, payload.replace(b"sha256", b"sha512"), signature)
    with pytest.raises(SignatureRefused, match="none of its signatures"):
        check_signatures([broken], signed["digest"], [BY_COSIGN["key"].encode()], "app")


@pytest.mark.parametrize("form", [simple, bundled])
@pytest.mark.parametrize(
    "make",
    [
        lambda: ec.generate_private_key(ec.SECP256R1()),
        lambda: ec.generate_private_key(ec.SECP384R1()),
        lambda: ec.generate_private_key(ec.SECP521R1()),
        lambda: rsa.generate_private_key(65537, 2048),
        Ed25519PrivateKey.generate,
    ],
    ids=["P-256", "P-384", "P-521", "RSA", "Ed25519"],
)
def test_every_kind_of_key_verifies_its_own_signatures_and_no_others(form: Any, make: Any) -> None:
    key = make()
    check_signatures([form(key)], DIGEST, [public_key(key)], "app")
    with pytest.raises(SignatureRefused):
        check_signatures([form(new_key())], DIGEST, [public_key(key)], "app")


@pytest.mark.parametrize("form", [simple, bundled])
def test_a_signature_of_another_artifact_is_refused(form: Any) -> None:
    key = new_key()
    with pytest.raises(SignatureRefused, match="for other artifacts"):
        check_signatures([form(key, OTHER)], DIGEST, [public_key(key)], "app")


def test_one_good_signature_among_others_is_enough() -> None:
    ours, theirs = new_key(), new_key()
    signatures = [simple(theirs), bundled(ours, OTHER), simple(ours)]
    check_signatures(signatures, DIGEST, [public_key(ours)], "app")
    check_signatures([simple(ours)], DIGEST, [public_key(theirs), public_key(ours)], "app")


def test_an_artifact_that_is_not_signed_is_refused() -> None:
    with pytest.raises(SignatureRefused) as raised:
        check_signatures([], DIGEST, [public_key(new_key())], "oci://r.test/app:1.0.0")
    assert str(raised.value).startswith(
        "oci://r.test/app:1.0.0: the signature cannot be verified: it is not signed"
    )


@pytest.mark.parametrize(
    "one",
    [
        lambda key: simple(key, type="something else"),
        lambda key: simple(key, image={}),
        lambda key: simple(key, image=[DIGEST]),
        lambda key: bundled(key, predicateType="https://slsa.dev/provenance/v1"),
        lambda key: bundled(key, subject=[]),
        lambda key: bundled(key, subject=[{"digest": "a" * 64}]),
        lambda key: Signature("simple", b"[", signature_of(key, b"[")),
        lambda key: Signature("simple", b"[" * 9999, signature_of(key, b"[" * 9999)),
        lambda key: Signature("dsse", b"{}", signature_of(key, dsse_message(b"{}"))),
    ],
)
def test_what_was_signed_but_says_something_else_is_refused(one: Any) -> None:
    key = new_key()
    with pytest.raises(SignatureRefused, match="for other artifacts"):
        check_signatures([one(key)], DIGEST, [public_key(key)], "app")


def test_a_signature_of_one_form_does_not_pass_for_the_other() -> None:
    key = new_key()
    good = simple(key)
    with pytest.raises(SignatureRefused):
        check_signatures(
            [Signature("dsse", good.payload, good.signature)], DIGEST, [public_key(key)], "app"
        )


@pytest.mark.parametrize(
    "key",
    [
        b"",
        b"cosign.pub",
        b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n",
        public_key(dsa.generate_private_key(1024)),
    ],
    ids=["empty", "no PEM", "broken", "DSA"],
)
def test_a_key_that_cannot_be_read_is_said(key: bytes) -> None:
    with pytest.raises(ValuesError, match=r"public key of verify\.secretRef cannot be read"):
        check_signatures([], DIGEST, [key], "app")


# Finding.


@pytest.fixture
def server() -> Iterator[OciServer]:
    with OciServer() as one:
        one.push("app", "1.0.0", b"chart")
        yield one


@pytest.fixture
async def registry() -> AsyncIterator[OciRegistry]:
    async with Http() as http:
        yield OciRegistry(http)


async def found(server: OciServer, registry: OciRegistry) -> tuple[Signature, ...]:
    place = OciRepository.parse(f"{server.url}/app", insecure=True)
    digest = server.repository("app").tags["1.0.0"]
    return await fetch_signatures(registry, place, digest, Access(timeout=timedelta(seconds=5)))


async def test_an_artifact_without_signatures_has_none(
    server: OciServer, registry: OciRegistry
) -> None:
    assert await found(server, registry) == ()


async def test_signatures_of_every_form_and_place_are_found(
    server: OciServer, registry: OciRegistry
) -> None:
    keys = [new_key() for _ in range(3)]
    sign_simply(server, "app", "1.0.0", keys[0])
    sign_simply(server, "app", "1.0.0", keys[1])
    sign_by_bundle(server, "app", "1.0.0", keys[2])
    signatures = await found(server, registry)
    assert [one.form for one in signatures] == ["simple", "simple", "dsse"]
    digest = server.repository("app").tags["1.0.0"]
    for key in keys:
        check_signatures(signatures, digest, [public_key(key)], "app")


async def test_a_bundle_is_found_by_the_referrers_api(
    server: OciServer, registry: OciRegistry
) -> None:
    key = new_key()
    sign_by_bundle(server, "app", "1.0.0", key, by_referrers=True)
    digest = server.repository("app").tags["1.0.0"]
    check_signatures(await found(server, registry), digest, [public_key(key)], "app")


async def test_signatures_of_somebody_s_making_do_not_hide_the_good_one(
    server: OciServer, registry: OciRegistry
) -> None:
    """Who may push to the registry may put anything beside an artifact."""
    key = new_key()
    sign_simply(server, "app", "1.0.0", new_key(), b"x" * 400_000)
    sign_simply(server, "app", "1.0.0", new_key(), b"[")
    sign_simply(server, "app", "1.0.0", key)
    signatures = await found(server, registry)
    assert len(signatures) == 2  # the large one is not read
    digest = server.repository("app").tags["1.0.0"]
    check_signatures(signatures, digest, [public_key(key)], "app")


async def test_no_more_signatures_are_read_than_anybody_makes(
    server: OciServer, registry: OciRegistry
) -> None:
    key = new_key()
    for _ in range(40):
        sign_simply(server, "app", "1.0.0", key)
    assert len(await found(server, registry)) == 32


@pytest.mark.parametrize("path", ["*.sig", "*/referrers/*"])
async def test_an_outage_is_not_a_missing_signature(
    server: OciServer, registry: OciRegistry, path: str
) -> None:
    server.server.fail(Fault(path=path, status=503))
    with pytest.raises(SourceUnavailable):
        await found(server, registry)


@pytest.mark.parametrize(
    "bundle",
    [
        b"<html>",
        b"{}",
        b'{"dsseEnvelope": 7}',
        b'{"dsseEnvelope": {"payloadType": "text/plain", "payload": "", "signatures": []}}',
        b'{"dsseEnvelope": {"payloadType": "application/vnd.in-toto+json", "payload": "!",'
        b' "signatures": [{"sig": "!"}]}}',
        b"[" * 100_000,
    ],
)
async def test_bundles_that_make_no_sense_are_passed_over(
    server: OciServer, registry: OciRegistry, bundle: bytes
) -> None:
    manifest = {
        "schemaVersion": 2,
        "layers": [
            {
                "mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json",
                **server.put_blob("app", bundle),
            }
        ],
    }
    made = server.put_manifest("app", "", manifest)
    stored = server.repository("app")
    stored.referrers[stored.tags["1.0.0"]] = [{"digest": made, "size": 1}]
    assert await found(server, registry) == ()
