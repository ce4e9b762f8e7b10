"""Secrets in what other programs say."""

from __future__ import annotations

import pytest

from helmops.checks.redaction import last_part, redact, secrets_of
from helmops.model.credentials import HttpCredentials

KEY = "-----BEGIN EC PRIVATE KEY-----\nMHcCAQ\n-----END EC PRIVATE KEY-----"


@pytest.mark.parametrize(
    ("text", "redacted"),
    [
        ("password=hunter2 and more", "password=*** and more"),
        ("DB_PASSWORD: hunter2", "DB_PASSWORD: ***"),
        ('{"api_key": "abc def", "n": 1}', '{"api_key": ***, "n": 1}'),
        ("token: 'a b'; next", "token: ***; next"),
        ("--client-secret=xyz&a=b", "--client-secret=***&a=b"),
        ("Authorization: Bearer abcdefghij", "Authorization: *** ***"),
        ("sent bearer abcdefghij to it", "sent bearer *** to it"),
        ("postgres://me:pa55@db/x", "postgres://***@db/x"),
        ("a eyJhbGciOi.eyJzdWIi.c2ln b", "a *** b"),
        (f"key:\n{KEY}\nend", "key:\n***\nend"),
        ("-----BEGIN PRIVATE KEY-----\nMHcC", "***"),
        ("the password is wrong", "the password is wrong"),
        ("3 tokens left; see https://host/path", "3 tokens left; see https://host/path"),
        ("", ""),
    ],
)
def test_what_looks_like_a_secret_is_taken_out(text: str, redacted: str) -> None:
    assert redact(text) == redacted


@pytest.mark.parametrize(
    "piece",
    ["a", "a.", "password", "token=", 'token="', "eyJ", "eyJ-", "eyJaaaaaa.", "://", "://a"],
)
def test_text_of_any_shape_is_read_in_a_moment(piece: str) -> None:
    assert redact(piece * (300_000 // len(piece))) is not None


def test_known_secrets_are_taken_out_the_longest_first() -> None:
    assert redact("hunter2 hunter22 x", ["hunter2", "hunter22", "x"]) == "*** *** x"


def test_what_credentials_are_sent_as_is_known() -> None:
    secrets = secrets_of(
        HttpCredentials(username="me", password="hunter2", bearer_token="tok-123\n"), "header-value"
    )

    assert set(secrets) == {"hunter2", "tok-123", "bWU6aHVudGVyMg==", "header-value"}


def test_no_credentials_have_no_secrets() -> None:
    assert secrets_of(HttpCredentials()) == ()


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("", ""),
        ("a\nb\n", "a\nb"),
        ("a\nb\nc\nd", "[…]\nb\nc\nd"),
        ("x" * 30, "[…]\n" + "x" * 20),
        ("ü" * 15, "[…]\n" + "ü" * 10),
    ],
)
def test_the_end_of_a_text_is_kept(text: str, kept: str) -> None:
    assert last_part(text, lines=3, size=20) == kept
