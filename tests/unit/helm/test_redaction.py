"""Nothing that is secret, or looks like it, survives."""

from __future__ import annotations

import pytest

from helmops.helm.redaction import redactor, secret_values


def test_a_known_secret_is_masked_wherever_it_stands() -> None:
    redact = redactor({"hunter22"})
    assert redact("a hunter22, and again:hunter22.") == "a ***, and again:***."


def test_a_longer_secret_is_masked_before_the_one_inside_it() -> None:
    assert redactor({"secret", "secret-and-more"})("x secret-and-more y") == "x *** y"


def test_a_secret_of_several_lines_is_masked_line_by_line() -> None:
    assert redactor({"first-line\nsecond-line"})("got second-line") == "got ***"


def test_a_short_word_is_not_masked_for_being_a_secret_somewhere() -> None:
    assert redactor({"a", "no"})("a node says no") == "a node says no"


@pytest.mark.parametrize(
    "text",
    [
        "https://user:hunter22@charts.example.test/index.yaml",
        "Get https://:hunter22@charts.example.test: EOF",
        "https://x.test/?token=hunter22&page=1",
        'password: "hunter22"',
        '{"apiKey":"hunter22"}',
        "Authorization: Bearer hunter22hunter22",
        "basic aHVudGVyMjI6aHVudGVyMjI=",
        "-----BEGIN RSA PRIVATE KEY-----\nhunter22\n-----END RSA PRIVATE KEY-----",
        "-----BEGIN PRIVATE KEY-----\nhunter22 cut off",
        "eyJhbGciOiJSUzI1NiJ9.eyJodW50ZXIyMiI6MX0.hunter22",
        "- at '/login': 'hunter22' does not match pattern '^[0-9]+$'",
    ],
)
def test_what_looks_like_a_credential_is_masked(text: str) -> None:
    redacted = redactor(())(text)
    assert "hunter22" not in redacted
    assert "aHVudGVyMjI" not in redacted


@pytest.mark.parametrize(
    "text",
    [
        "https://charts.example.test:8443/index.yaml",
        'secrets "app" is forbidden: User "me" cannot list resource "secrets"',
        "Deployment/apps/app was not ready in time: Available: 0/1",
        "- at '/replicas': got string, want integer",
        "see `kubectl -n apps logs app-test`",
    ],
)
def test_an_ordinary_text_stays_as_it_is(text: str) -> None:
    assert redactor({"hunter22"})(text) == text


def test_secrets_among_values_are_found_by_the_name_of_a_key_above_them() -> None:
    values = {
        "replicas": 3,
        "image": {"tag": "1.2.3"},
        "auth": {"users": [{"name": "ann", "pin": 12345678}]},
        "db": {"adminPassword": "hunter22", "host": "db.example.test", "tls": True},
        "apiKey": None,
    }
    assert secret_values(values) == {"ann", "12345678", "hunter22"}
