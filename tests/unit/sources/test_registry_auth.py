from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from typing import Any

import pytest

from devcluster.loopback import Answer
from devcluster.oci_server import OciServer
from helmops.errors import SourceDenied, SourceError, SourceInvalid, ValuesError
from helmops.http import Http
from helmops.model.credentials import HttpCredentials
from helmops.sources.oci_reference import OciRepository
from helmops.sources.oci_registry import Access, OciRegistry
from helmops.sources.registry_auth import Challenge, RegistryLogins, login_in, read_challenge

ADA = HttpCredentials(username="ada", password="s3cret")
SECOND = timedelta(seconds=5)


@pytest.fixture
async def http() -> AsyncIterator[Http]:
    async with Http() as one:
        yield one


@pytest.fixture
def server() -> Iterator[OciServer]:
    """A registry that gives Ada tokens."""
    with OciServer(user="ada", password="s3cret", tokens=True) as one:
        one.push("a", "1.0.0", b"chart")
        one.push("b", "1.0.0", b"chart")
        yield one


def place(server: OciServer, name: str = "a") -> OciRepository:
    return OciRepository.parse(f"{server.url}/{name}", insecure=True)


def paths(server: OciServer) -> list[tuple[str, str, int]]:
    """Method, path and status of what the server was asked, the repository left out."""
    return [
        (seen.request.method, seen.request.path.rpartition("/")[2], seen.status)
        for seen in server.server.requests
    ]


# Challenges.


@pytest.mark.parametrize(
    ("header", "challenge"),
    [
        ('Basic realm="registry"', Challenge("basic", "registry")),
        (
            'Bearer realm="https://auth.test/token",service="r.test",scope="repository:a:pull"',
            Challenge("bearer", "https://auth.test/token", "r.test", "repository:a:pull"),
        ),
        (
            'bearer Realm = "https://a.test/t?x=\\"1,2\\"" , SERVICE=plain',
            Challenge("bearer", 'https://a.test/t?x="1,2"', "plain"),
        ),
        (
            'Negotiate, Basic realm="b", Bearer realm="https://t.test"',
            Challenge("bearer", "https://t.test"),
        ),
        ("Bearer", None),
        ('Digest realm="x"', None),
        ("", None),
        ('=,"=', None),
        ('Bearer realm="unended', Challenge("bearer", "unended")),
        ("," * 100_000, None),
    ],
)
def test_challenges_are_read_as_registries_write_them(
    header: str, challenge: Challenge | None
) -> None:
    assert read_challenge(header) == challenge


# Tokens.


async def test_a_token_is_fetched_once_for_each_repository(http: Http, server: OciServer) -> None:
    registry = OciRegistry(http)
    for _ in range(2):
        await registry.digest_of(place(server), "1.0.0", Access(ADA))
    assert paths(server) == [
        ("HEAD", "1.0.0", 401),
        ("GET", "token", 200),
        ("HEAD", "1.0.0", 200),
        ("HEAD", "1.0.0", 200),
    ]
    server.server.requests.clear()
    await registry.digest_of(place(server, "b"), "1.0.0", Access(ADA))
    # What the registry wants is known by now.
    assert paths(server) == [("GET", "token", 200), ("HEAD", "1.0.0", 200)]


async def test_a_token_that_ended_is_fetched_anew(http: Http, server: OciServer) -> None:
    now = 0.0
    registry = OciRegistry(http, RegistryLogins(http, monotonic=lambda: now))
    await registry.digest_of(place(server), "1.0.0", Access(ADA))
    server.server.requests.clear()
    now = 289.0
    await registry.digest_of(place(server), "1.0.0", Access(ADA))
    assert paths(server) == [("HEAD", "1.0.0", 200)]
    now = 291.0
    await registry.digest_of(place(server), "1.0.0", Access(ADA))
    assert paths(server)[1:] == [("GET", "token", 200), ("HEAD", "1.0.0", 200)]


async def test_a_token_that_is_refused_before_its_time_is_fetched_anew_once(
    http: Http, server: OciServer
) -> None:
    registry = OciRegistry(http)
    await registry.digest_of(place(server), "1.0.0", Access(ADA))
    server._issued.clear()
    server.server.requests.clear()
    await registry.digest_of(place(server), "1.0.0", Access(ADA))
    assert [status for _, _, status in paths(server)] == [401, 200, 200]


async def test_a_wrong_password_is_denied_and_not_repeated(http: Http, server: OciServer) -> None:
    wrong = HttpCredentials(username="ada", password="hunter2")
    with pytest.raises(SourceDenied) as raised:
        await OciRegistry(http).digest_of(place(server), "1.0.0", Access(wrong))
    assert "hunter2" not in str(raised.value)
    assert "401" in str(raised.value)


async def test_one_person_s_token_is_not_another_s(http: Http, server: OciServer) -> None:
    registry = OciRegistry(http)
    await registry.digest_of(place(server), "1.0.0", Access(ADA))
    with pytest.raises(SourceDenied):
        await registry.digest_of(place(server), "1.0.0", Access())


async def test_an_identity_token_is_sent_in_the_body(http: Http, server: OciServer) -> None:
    server.identity_token = "long-lived"
    mine = HttpCredentials(identity_token="long-lived")
    await OciRegistry(http).digest_of(place(server), "1.0.0", Access(mine))
    asked = next(s.request for s in server.server.requests if s.request.path == "/token")
    assert asked.method == "POST"
    assert b"refresh_token=long-lived" in asked.body
    assert "authorization" not in asked.headers
    assert asked.query == ""


async def test_a_registry_token_of_one_s_own_is_used_as_it_is(
    http: Http, server: OciServer
) -> None:
    server._issued["a"] = "mine"
    mine = HttpCredentials(bearer_token="mine")
    await OciRegistry(http).digest_of(place(server), "1.0.0", Access(mine))
    assert server.server.count("/token") == 0


async def test_a_registry_that_wants_basic_gets_it_when_it_asked(http: Http) -> None:
    with OciServer(user="ada", password="s3cret") as server:
        server.push("a", "1.0.0", b"chart")
        registry = OciRegistry(http)
        for _ in range(2):
            await registry.digest_of(place(server), "1.0.0", Access(ADA))
        assert [status for _, _, status in paths(server)] == [401, 200, 200]


async def test_a_registry_that_asks_for_nothing_is_told_nothing(http: Http) -> None:
    with OciServer() as server:
        server.push("a", "1.0.0", b"chart")
        await OciRegistry(http).digest_of(place(server), "1.0.0", Access(ADA))
        assert "authorization" not in server.server.requests[0].request.headers


# Where credentials must not go.


async def test_a_token_server_at_a_link_local_address_is_not_asked(
    http: Http, server: OciServer
) -> None:
    server.realm = "http://169.254.169.254/latest/meta-data"
    with pytest.raises(SourceDenied, match="link-local"):
        await OciRegistry(http).digest_of(place(server), "1.0.0", Access(ADA))


@pytest.mark.parametrize(
    "realm", ["ftp://a.test", "/token", "https://", "https://u:p@a.test/", "https://[::1"]
)
async def test_a_token_server_that_is_no_url_is_refused(
    http: Http, server: OciServer, realm: str
) -> None:
    server.realm = realm
    with pytest.raises(SourceInvalid, match="token server"):
        await OciRegistry(http).digest_of(place(server), "1.0.0", Access(ADA))


async def test_a_token_server_over_plain_http_gets_no_password_where_the_registry_has_tls(
    http: Http,
) -> None:
    logins = RegistryLogins(http)
    header = 'Bearer realm="http://auth.test/token"'
    with pytest.raises(SourceDenied, match="plain HTTP"):
        await logins.answer(header, "https://r.test", "a", ADA, SECOND, refused=HttpCredentials())


async def test_a_challenge_of_where_a_redirect_led_is_not_met(
    http: Http, server: OciServer
) -> None:
    """Else any store of blobs could ask for the password."""
    with OciServer(user="x", password="y") as elsewhere:
        server.blobs_at = f"{elsewhere.server.url}/v2/a/blobs"
        registry = OciRegistry(http)
        manifest = await registry.manifest(place(server), "1.0.0", Access(ADA))
        with pytest.raises(SourceDenied, match="which answered 401"):
            await registry.blob(place(server), manifest.layers[0], Access(ADA), bytes)
        [seen] = elsewhere.server.requests
        assert "authorization" not in seen.request.headers


@pytest.mark.parametrize(
    "answer",
    [
        Answer(200, b"<html>"),
        Answer(200, b"[]"),
        Answer(200, b'{"token": ""}'),
        Answer(200, b'{"token": 7}'),
        Answer(200, b'{"token": "a\\nb"}'),
        Answer(200, b'{"token": "a", "expires_in": "soon"}'),
        Answer(200, b"[" * 200_000),
        Answer(503, b""),
        Answer(400, b""),
    ],
)
async def test_a_token_server_that_answers_nonsense_is_an_error(
    http: Http, server: OciServer, answer: Answer
) -> None:
    server._token = lambda _: answer  # type: ignore[method-assign]
    with pytest.raises(SourceError):
        await OciRegistry(http).digest_of(place(server), "1.0.0", Access(ADA))


# Docker's file of logins.


def config(**auths: Any) -> bytes:
    return json.dumps({"auths": auths}).encode()


def packed(user: str, password: str) -> str:
    return base64.b64encode(f"{user}:{password}".encode()).decode()


@pytest.mark.parametrize(
    ("key", "host", "name", "fits"),
    [
        ("r.test", "r.test", "a/b", True),
        ("https://r.test", "r.test", "a/b", True),
        ("https://r.test/v2/", "r.test", "a/b", True),
        ("r.test/a", "r.test", "a/b", True),
        ("r.test/a", "r.test", "ab", False),
        ("r.test:5000", "r.test", "a", False),
        ("*.test", "r.test", "a", True),
        ("*.test", "a.r.test", "a", False),
        ("https://index.docker.io/v1/", "registry-1.docker.io", "library/a", True),
        ("docker.io", "registry-1.docker.io", "library/a", True),
        ("r.test.evil.test", "r.test", "a", False),
    ],
)
def test_a_login_is_found_by_its_host_and_path(key: str, host: str, name: str, fits: bool) -> None:
    found = login_in(config(**{key: {"auth": packed("ada", "pa:ss")}}), host, name)
    assert (found.username, found.password) == (("ada", "pa:ss") if fits else ("", ""))


def test_of_several_logins_the_longest_path_counts() -> None:
    logins = config(
        **{
            "r.test": {"username": "all", "password": "1"},
            "r.test/a/b": {"username": "deep", "password": "3"},
            "r.test/a": {"username": "some", "password": "2"},
        }
    )
    assert login_in(logins, "r.test", "a/b/c").username == "deep"
    assert login_in(logins, "r.test", "a/c").username == "some"
    assert login_in(logins, "r.test", "b").username == "all"


def test_tokens_in_a_login_are_read() -> None:
    entry = {"identitytoken": "long", "registrytoken": "short"}
    found = login_in(config(**{"r.test": entry}), "r.test")
    assert (found.identity_token, found.bearer_token) == ("long", "short")


def test_the_older_form_without_auths_is_read_too() -> None:
    logins = json.dumps({"r.test": {"auth": packed("ada", "x")}}).encode()
    assert login_in(logins, "r.test").username == "ada"


@pytest.mark.parametrize(
    "logins",
    [
        b"",
        b"[]",
        b'{"auths": []}',
        b'{"auths": {"r.test": 1}}',
        b'{"auths": {"r.test": {"auth": "\xff"}}}',
        b'{"auths": {"r.test": {"auth": "/w=="}}}',
        b'{"auths": {"r.test": {"username": ["s3cret"]}}}',
        b"[" * 100_000,
    ],
)
def test_logins_that_cannot_be_read_are_said_without_repeating_them(logins: bytes) -> None:
    with pytest.raises(ValuesError) as raised:
        login_in(logins, "r.test", where="Secret apps/login")
    assert str(raised.value).startswith("Secret apps/login: its .dockerconfigjson cannot be read")
    assert "s3cret" not in str(raised.value)
