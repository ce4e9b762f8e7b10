"""Nothing that is secret, or looks like it, survives."""

from __future__ import annotations

import pytest

from helmops.model.credentials import HttpCredentials
from helmops.model.redaction import redact, redactor, secret_values, secrets_in_objects, secrets_of

KEY = "-----BEGIN EC PRIVATE KEY-----\nMHcCAQ\n-----END EC PRIVATE KEY-----"


@pytest.mark.parametrize(
    ("text", "redacted"),
    [
        ("password=hunter2 and more", "password=*** and more"),
        ("DB_PASSWORD: hunter2", "DB_PASSWORD: ***"),
        ('{"api_key": "abc def", "n": 1}', '{"api_key": "***", "n": 1}'),
        ("token: 'a b'; next", "token: '***'; next"),
        ("--client-secret=xyz&a=b", "--client-secret=***&a=b"),
        ("Authorization: Bearer abcdefghij", "Authorization: *** ***"),
        ("sent bearer abcdefghij to it", "sent bearer *** to it"),
        ("postgres://me:pa55@db/x", "postgres://***@db/x"),
        ("a eyJhbGciOi.eyJzdWIi.c2ln b", "a *** b"),
        (f"key:\n{KEY}\nend", "key:\n***\nend"),
        ("-----BEGIN PRIVATE KEY-----\nMHcC", "***"),
        ("a\n" + "MIIEvQIBADANBgkqhkiG9w0\n" * 3 + "-----END PRIVATE KEY-----\nb", "a\n***\nb"),
        ("the password is wrong", "the password is wrong"),
        ("3 tokens left; see https://host/path", "3 tokens left; see https://host/path"),
        ("", ""),
    ],
)
def test_what_looks_like_a_secret_is_taken_out(text: str, redacted: str) -> None:
    assert redact(text) == redacted


@pytest.mark.parametrize(
    "piece",
    [
        "a",
        "a.",
        "password",
        "token=",
        'token="',
        "aaaaaaaaaaaaaaaaaa\n",
        "eyJ",
        "eyJ-",
        "eyJaaaaaa.",
        "://",
        "://a",
    ],
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


def test_a_known_secret_is_masked_wherever_it_stands() -> None:
    redact = redactor({"hunter22"})
    assert redact("a hunter22, and again:hunter22.") == "a ***, and again:***."


def test_a_longer_secret_is_masked_before_the_one_inside_it() -> None:
    assert redactor({"secret", "secret-and-more"})("x secret-and-more y") == "x *** y"


def test_a_secret_of_several_lines_is_masked_line_by_line() -> None:
    assert redactor({"first-line\nsecond-line"})("got second-line") == "got ***"


def test_a_short_word_is_not_masked_for_being_a_secret_somewhere() -> None:
    assert redactor({"admin", "no"}, shortest=6)("admin says no") == "admin says no"


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


@pytest.mark.parametrize(
    "text",
    [
        "secretName: web-tls",
        "secretKeyRef:\n  name: db\n  key: password",
        "automountServiceAccountToken: false",
        '"passwordRef": "db"',
    ],
)
def test_names_of_secrets_and_truth_values_stay(text: str) -> None:
    assert redact(text) == text


def test_what_only_begins_as_a_truth_value_is_masked() -> None:
    assert redact("password=true-love") == "password=***"


@pytest.mark.parametrize(
    "form",
    ["p@ss/w=rd ü", "cEBzcy93PXJkIMO8", "p%40ss%2Fw%3Drd%20%C3%BC", "p%40ss%2Fw%3Drd+%C3%BC"],
)
def test_a_secret_is_masked_in_every_form(form: str) -> None:
    assert redact(f"x {form} y", ["p@ss/w=rd ü"]) == "x *** y"


def test_a_secret_with_quotes_is_masked_in_json() -> None:
    assert redact(r'{"a": "one\"two"}', ['one"two']) == '{"a": "***"}'


def test_contents_of_secrets_in_a_manifest_are_found() -> None:
    secret = {
        "kind": "Secret",
        "data": {"pin": "aHVudGVyMjI=", "bytes": "/////w==", "short": "YQ=="},
        "stringData": {"user": "somebody", "number": 5},
    }

    assert secrets_in_objects([secret, {"kind": "Secret", "data": None}]) == {
        "aHVudGVyMjI=",
        "hunter22",
        "/////w==",
        "YQ==",
        "somebody",
    }


def test_variables_whose_name_sounds_secret_are_found() -> None:
    environment = [
        {"name": "DB_PASSWORD", "value": "hunter22"},
        {"name": "LEVEL", "value": "debug"},
        {"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "a", "key": "b"}}},
    ]
    pod = {"kind": "Pod", "spec": {"containers": [{"name": "main", "env": environment}]}}

    assert secrets_in_objects([pod]) == {"hunter22"}
