"""Whatever a registry or a person writes: it is read, or refused in our words, and in no time."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from helmops.errors import ChartRefused, SourceError, SourceInvalid, ValuesError
from helmops.sources.oci_reference import (
    OciRepository,
    is_tag,
    tag_of_version,
    version_of_tag,
)
from helmops.sources.oci_registry import _links, read_manifest
from helmops.sources.registry_auth import login_in, read_challenge
from helmops.sources.signatures import Signature, _names, _of_bundle

DIGEST = f"sha256:{'a' * 64}"
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner),
    max_leaves=12,
)
#: Documents that look like what is expected, with anything in the places of it.
MANIFESTS = st.fixed_dictionaries(
    {},
    optional={
        "mediaType": JSON,
        "artifactType": JSON,
        "config": JSON | st.fixed_dictionaries({"digest": st.just(DIGEST), "size": JSON}),
        "layers": JSON | st.lists(st.fixed_dictionaries({"digest": JSON, "size": JSON})),
        "manifests": JSON,
    },
)


@given(st.text() | st.from_regex(r"oci://[a-z0-9.:/_@?#%\[\]-]*"))
def test_an_address_is_read_and_written_the_same_or_refused(url: str) -> None:
    try:
        repository = OciRepository.parse(url)
    except SourceInvalid:
        return
    assert OciRepository.parse(str(repository)) == repository
    assert repository.url("manifests", "a").startswith("https://")
    assert ".." not in repository.name.split("/")


@given(st.text(max_size=140) | st.from_regex(r"v?[0-9]+\.[0-9]+\.[0-9]+([-_+][0-9A-Za-z.-]+)?"))
def test_a_tag_that_spells_a_version_is_spelt_by_it(tag: str) -> None:
    version = version_of_tag(tag)
    if version is not None and is_tag(tag):
        assert tag_of_version(version) == tag


WORDS = st.sampled_from(["Bearer", "Basic", "realm", "=", '"', ",", "\\", "x", "scope"])


@given(st.text() | st.lists(WORDS))
def test_a_challenge_is_read_or_passed_over(header: str | list[str]) -> None:
    found = read_challenge(header if isinstance(header, str) else " ".join(header))
    assert found is None or found.scheme in ("basic", "bearer")


@given(st.text())
def test_links_are_read_or_passed_over(header: str) -> None:
    assert len(list(_links(header))) <= header.count("<")


@given(JSON | st.fixed_dictionaries({"auths": JSON | st.dictionaries(st.just("r.test"), JSON)}))
def test_logins_are_read_or_refused(document: Any) -> None:
    try:
        login_in(json.dumps(document).encode(), "r.test", "app")
    except ValuesError:
        return


@given(st.binary() | (JSON | MANIFESTS).map(lambda one: json.dumps(one).encode()))
def test_manifests_are_read_or_refused(body: bytes) -> None:
    try:
        manifest = read_manifest(body, DIGEST, "app")
    except (SourceError, ChartRefused):
        return
    assert all(layer.size >= 0 for layer in manifest.layers)
    assert not (manifest.is_index and manifest.layers)


@given(
    st.binary() | JSON.map(lambda one: json.dumps(one).encode()),
    st.sampled_from(["simple", "dsse"]),
)
def test_what_was_signed_is_read_or_names_nothing(payload: bytes, form: str) -> None:
    assert not _names(Signature(form, payload, b""), DIGEST)
    assert all(one.form == "dsse" for one in _of_bundle(payload))
