"""Provenance files (`helm package --sign`): who packaged a chart, and what the archive was then.

A `.prov` is a text that is signed within itself: the Chart.yaml, and the SHA-256 of the archive. A
signature by a trusted key over the digest of the very archive at hand is what counts.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from helmops.errors import SignatureRefused, ValuesError
from helmops.model.charts import ChartArtifact
from helmops.resolve.values import parse_values
from helmops.sources.openpgp import verify_clear

#: Bytes that a provenance file may have: a Chart.yaml, a digest and a signature.
PROVENANCE_LIMIT: Final = 1024 * 1024

_BETWEEN: Final = b"\n...\n"


def verify_provenance(
    provenance: bytes, artifact: ChartArtifact, keys: Mapping[str, bytes], where: str
) -> str:
    """Check that one of the keys signed this archive; gives back the signer's name.

    `artifact` is as its source gave it. `keys` are OpenPGP public keys or keyrings, by file name.
    Blocks. Raises SignatureRefused, ValuesError for keys that are none, SourceUnavailable where
    there is no gpgv.
    """
    what = f"{artifact.name} {artifact.version}"
    trusted = [key for _, key in sorted(keys.items())]
    if not trusted:
        raise SignatureRefused(f"no key is trusted to sign {what}", where=where)
    signed, signer = verify_clear(provenance, trusted, what, where)
    chart_yaml, _, sums = signed.partition(_BETWEEN)
    try:
        chart, files = parse_values(chart_yaml, where), parse_values(sums, where).get("files")
    except ValuesError as error:
        raise SignatureRefused(
            f"what {signer} signed cannot be read: {error}", where=where
        ) from None
    digests: dict[str, Any] = files if isinstance(files, dict) else {}
    if f"sha256:{artifact.digest}" not in digests.values():
        raise SignatureRefused(
            f"{signer} signed another archive of {what} than this one",
            where=where,
            next_step="the repository must publish the archive that was signed",
        )
    if (chart.get("name"), str(chart.get("version"))) != (artifact.name, artifact.version):
        raise SignatureRefused(
            f"{signer} signed {chart.get('name')} {chart.get('version')}, not {what}", where=where
        )
    return signer
