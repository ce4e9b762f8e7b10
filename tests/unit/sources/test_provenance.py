"""helmops/sources/provenance.py: what `helm package --sign` writes beside an archive."""

from __future__ import annotations

from dataclasses import replace

import pytest

from helmops.errors import SignatureRefused
from helmops.model.charts import ChartArtifact
from helmops.sources.provenance import verify_provenance
from tests.fakes.signing import OpenPgpSigner

CHART = ChartArtifact("web", "1.2.3", "/cache/web.tgz", "ab" * 32, "https://charts.example.com")


def said(name: str = "web", version: str = "1.2.3", digest: str = CHART.digest) -> bytes:
    """As helm 4.3.1 writes it."""
    return (
        f"apiVersion: v2\nname: {name}\nversion: {version}\n"
        f"\n...\nfiles:\n  {name}-{version}.tgz: sha256:{digest}\n"
    ).encode()


@pytest.fixture(scope="module")
def ann(tmp_path_factory: pytest.TempPathFactory) -> OpenPgpSigner:
    return OpenPgpSigner(tmp_path_factory.mktemp("keys") / "ann", "Ann")


def test_a_signed_archive_tells_who_signed_it(ann: OpenPgpSigner) -> None:
    provenance = ann.clear_sign(said())
    assert verify_provenance(provenance, CHART, ann.keys, "here") == "Ann <ann@example.invalid>"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (said(digest="cd" * 32), "signed another archive of web 1.2.3 than this one"),
        (said(name="other"), "signed other 1.2.3, not web 1.2.3"),
        (said(version="1.2.4"), "signed web 1.2.4, not web 1.2.3"),
        (b"no: chart\n", "signed another archive"),
        (b"files: [1\n", "cannot be read"),
        (b"name: web\n\n...\nfiles: all\n", "signed another archive"),
    ],
)
def test_a_signature_of_something_else_does_not_count(
    ann: OpenPgpSigner, text: bytes, says: str
) -> None:
    with pytest.raises(SignatureRefused, match=says):
        verify_provenance(ann.clear_sign(text), CHART, ann.keys, "here")


def test_what_was_not_signed_does_not_count(ann: OpenPgpSigner) -> None:
    for provenance in (b"", said(), ann.clear_sign(said()).replace(b"1.2.3", b"1.2.4")):
        with pytest.raises(SignatureRefused):
            verify_provenance(provenance, replace(CHART, version="1.2.4"), ann.keys, "here")


def test_without_keys_nothing_is_trusted(ann: OpenPgpSigner) -> None:
    with pytest.raises(SignatureRefused, match="no key is trusted"):
        verify_provenance(ann.clear_sign(said()), CHART, {}, "here")
