"""helmops/sources/git_signatures.py: commits and tags taken apart as git makes them."""

from __future__ import annotations

import pytest

from helmops.sources.git_signatures import split_object

BARE = b"tree 01\nauthor A <a> 1 +0000\ncommitter A <a> 1 +0000\n\nsubject\n\nbody\n"
SIGNATURE = b"-----BEGIN PGP SIGNATURE-----\n\niQ==\n-----END PGP SIGNATURE-----\n"
TAG = b"object 01\ntype commit\ntag v1\ntagger A <a> 1 +0000\n\nmessage\n"


def signed(header: bytes = b"gpgsig") -> bytes:
    head, _, message = BARE.partition(b"\n\n")
    folded = SIGNATURE.rstrip(b"\n").replace(b"\n", b"\n ")
    return head + b"\n" + header + b" " + folded + b"\n\n" + message


@pytest.mark.parametrize("header", [b"gpgsig", b"gpgsig-sha256"])
def test_a_commit_s_signature_is_in_a_header(header: bytes) -> None:
    assert split_object(signed(header)) == (BARE, SIGNATURE)


def test_headers_after_the_signature_are_signed_too() -> None:
    content = signed().replace(b"\n\nsubject", b"\nencoding latin-1\n\nsubject")
    payload, signature = split_object(content)
    assert payload == BARE.replace(b"\n\nsubject", b"\nencoding latin-1\n\nsubject")
    assert signature == SIGNATURE


def test_a_tag_s_signature_is_at_its_end() -> None:
    assert split_object(TAG + SIGNATURE) == (TAG, SIGNATURE)
    ssh = SIGNATURE.replace(b"PGP", b"SSH")
    assert split_object(TAG + ssh) == (TAG, ssh)


@pytest.mark.parametrize("content", [BARE, TAG, b"", BARE + SIGNATURE])
def test_without_a_signature_there_is_none(content: bytes) -> None:
    """Not one in a commit's message either: that is only text."""
    assert split_object(content) == (content, b"")
