from __future__ import annotations

import pytest

from helmops.errors import SourceInvalid
from helmops.sources.oci_reference import (
    OciRepository,
    digest_with,
    is_oci_digest,
    is_tag,
    tag_of_version,
    version_of_tag,
)


@pytest.mark.parametrize(
    ("url", "host", "name"),
    [
        ("oci://ghcr.io/stefanprodan/charts/podinfo", "ghcr.io", "stefanprodan/charts/podinfo"),
        ("oci://registry.test:5000/app/", "registry.test:5000", "app"),
        ("oci://[::1]:5000/a/b", "[::1]:5000", "a/b"),
        ("oci://r.test/a--b/c_d/e__f/g.h", "r.test", "a--b/c_d/e__f/g.h"),
        ("OCI://R.test/app", "r.test", "app"),
        ("oci://docker.io/bitnamicharts/redis", "registry-1.docker.io", "bitnamicharts/redis"),
        ("oci://index.docker.io/a/b", "registry-1.docker.io", "a/b"),
    ],
)
def test_a_repository_is_a_host_and_a_name(url: str, host: str, name: str) -> None:
    repository = OciRepository.parse(url)
    assert (repository.host, repository.name) == (host, name)
    assert repository.url("manifests", "1.0") == f"https://{host}/v2/{name}/manifests/1.0"
    assert OciRepository.parse(url, insecure=True).base == f"http://{host}"
    assert OciRepository.parse(str(repository)) == repository


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("https://r.test/app", "must begin with oci://"),
        ("oci:///app", "name a host"),
        ("oci://r.test:notaport/app", "cannot be read"),
        ("oci://r.test", "no name of a repository"),
        ("oci://r.test/App", "lower-case only"),
        ("oci://r.test/../etc", "no name of a repository"),
        ("oci://r.test/a//b", "no name of a repository"),
        ("oci://r.test/a_-b", "no name of a repository"),
        ("oci://r.test/" + "a" * 256, "no name of a repository"),
        ("oci://r.test/app:1.0.0", "belong into `ref`"),
        ("oci://r.test/app@sha256:0", "belong into `ref`"),
        ("oci://r.test/app?x=1", "neither query nor fragment"),
    ],
)
def test_what_is_no_repository_is_refused_with_why(url: str, why: str) -> None:
    with pytest.raises(SourceInvalid, match=why):
        OciRepository.parse(url)


def test_a_user_in_the_address_is_refused_and_not_repeated() -> None:
    with pytest.raises(SourceInvalid) as raised:
        OciRepository.parse("oci://ada:hunter2@r.test/app")
    assert "hunter2" not in str(raised.value)
    assert "ada" not in str(raised.value)


def test_a_name_that_is_made_to_be_slow_is_refused_at_once() -> None:
    with pytest.raises(SourceInvalid):
        OciRepository.parse("oci://r.test/" + "a-" * 50_000 + "!")


@pytest.mark.parametrize(
    ("text", "good"),
    [
        ("1.2.3_b4", True),
        ("_a", True),
        ("a" * 128, True),
        ("a" * 129, False),
        ("", False),
        (".a", False),
        ("-a", False),
        ("a/b", False),
        ("a\n", False),
        ("1+2", False),
    ],
)
def test_tags_are_those_of_the_specification(text: str, good: bool) -> None:
    assert is_tag(text) is good


@pytest.mark.parametrize(
    ("text", "good"),
    [
        (f"sha256:{'0' * 64}", True),
        (f"sha512:{'f' * 128}", True),
        (f"sha256:{'0' * 63}", False),
        (f"sha256:{'G' * 64}", False),
        (f"md5:{'0' * 32}", False),
        ("../../etc/passwd", False),
    ],
)
def test_digests_are_sha256_or_sha512_in_lower_case_hex(text: str, good: bool) -> None:
    assert is_oci_digest(text) is good


def test_a_digest_is_made_with_the_algorithm_of_another() -> None:
    assert digest_with(f"sha256:{'0' * 64}", b"")[:14] == "sha256:e3b0c44"
    assert digest_with("sha512:", b"")[:14] == "sha512:cf83e13"


@pytest.mark.parametrize(
    ("tag", "version"),
    [
        ("1.2.3", "1.2.3"),
        ("1.2.3_b4", "1.2.3+b4"),
        ("1.2.3-rc.1", "1.2.3-rc.1"),
        ("1.2", None),
        ("latest", None),
        ("v1.2.3", None),
        ("sha256-aaa.sig", None),
    ],
)
def test_only_whole_versions_are_versions(tag: str, version: str | None) -> None:
    assert version_of_tag(tag) == version
    if version is not None:
        assert tag_of_version(version) == tag


def test_a_leading_v_passes_where_flux_lets_it_pass() -> None:
    assert version_of_tag("v1.2.3", leading_v=True) == "v1.2.3"
    assert version_of_tag("vv1.2.3", leading_v=True) is None
