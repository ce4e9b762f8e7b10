from __future__ import annotations

import json

import pytest

from helmops.errors import ClusterUnreachable, SourceMissing, ValuesError
from helmops.model.credentials import GitCredentials, HttpCredentials
from helmops.model.declarations import LocalRef
from helmops.reconcile.credentials import CredentialReader
from tests.fakes.references import FakeReferences

PASSWORD = "correct-horse-battery-staple"


@pytest.fixture
def secrets() -> FakeReferences:
    return FakeReferences()


async def http(
    secrets: FakeReferences, secret: str = "token", certificates: str = ""
) -> HttpCredentials:
    return await CredentialReader(secrets).for_http(
        "apps",
        LocalRef(name=secret) if secret else None,
        LocalRef(name=certificates) if certificates else None,
    )


async def git(secrets: FakeReferences) -> GitCredentials:
    return await CredentialReader(secrets).for_git("apps", LocalRef(name="token"))


async def test_without_a_secret_nothing_is_read(secrets: FakeReferences) -> None:
    assert await http(secrets, "") == HttpCredentials()
    assert await CredentialReader(secrets).for_git("apps", None) == GitCredentials()
    assert secrets.reads == []


async def test_user_and_password(secrets: FakeReferences) -> None:
    secrets.put_secret("apps", "token", username="ada", password=PASSWORD)
    assert await http(secrets) == HttpCredentials(username="ada", password=PASSWORD)


@pytest.mark.parametrize("key", ["bearerToken", "token"])
async def test_a_token(secrets: FakeReferences, key: str) -> None:
    secrets.put_secret("apps", "token", **{key: PASSWORD})
    assert await http(secrets) == HttpCredentials(bearer_token=PASSWORD)


@pytest.mark.parametrize(
    "keys", [("ca__crt", "tls__crt", "tls__key"), ("caFile", "certFile", "keyFile")]
)
async def test_certificates_by_both_of_fluxs_names(
    secrets: FakeReferences, keys: tuple[str, str, str]
) -> None:
    secrets.put_secret("apps", "token", **dict(zip(keys, ("CA", "CERT", "KEY"), strict=True)))
    assert await http(secrets) == HttpCredentials(ca="CA", certificate="CERT", key="KEY")


async def test_the_newer_names_go_first(secrets: FakeReferences) -> None:
    secrets.put_secret("apps", "token", ca__crt="new", caFile="old")
    assert (await http(secrets)).ca == "new"


async def test_certificates_from_their_own_secret_go_first(secrets: FakeReferences) -> None:
    secrets.put_secret("apps", "token", username="ada", password=PASSWORD, ca__crt="old")
    secrets.put_secret("apps", "tls", ca__crt="new", username="ignored", password="ignored")
    assert await http(secrets, "token", "tls") == HttpCredentials(
        username="ada", password=PASSWORD, ca="new"
    )


async def test_a_secret_of_certificates_alone_is_enough(secrets: FakeReferences) -> None:
    secrets.put_secret("apps", "tls", ca__crt="CA")
    assert await http(secrets, "", "tls") == HttpCredentials(ca="CA")


async def test_a_line_end_that_an_editor_left_is_no_part_of_a_password(
    secrets: FakeReferences,
) -> None:
    secrets.put_secret("apps", "token", username="ada\n", password=f" {PASSWORD}\n")
    assert await http(secrets) == HttpCredentials(username="ada", password=f" {PASSWORD}")


@pytest.mark.parametrize(
    ("given", "missing"),
    [
        ("username", "password"),
        ("password", "username"),
        ("tls__crt", "tls.key"),
        ("keyFile", "tls.crt"),
    ],
)
async def test_half_a_pair_is_said_without_the_half_that_is_there(
    secrets: FakeReferences, given: str, missing: str
) -> None:
    secrets.put_secret("apps", "token", **{given: PASSWORD})
    with pytest.raises(ValuesError, match=f"Secret apps/token has no `{missing}`") as raised:
        await http(secrets)
    assert PASSWORD not in str(raised.value)


async def test_a_missing_secret_is_named(secrets: FakeReferences) -> None:
    secrets.put_secret("other", "token", username="ada", password=PASSWORD)
    with pytest.raises(SourceMissing, match="Secret apps/token does not exist"):
        await http(secrets)
    with pytest.raises(SourceMissing, match="Secret apps/tls does not exist"):
        await http(secrets, "", "tls")
    with pytest.raises(SourceMissing, match="Secret apps/token does not exist"):
        await git(secrets)


async def test_an_api_server_that_is_gone_is_said_as_such(secrets: FakeReferences) -> None:
    secrets.is_unreachable = True
    with pytest.raises(ClusterUnreachable):
        await http(secrets)


async def test_what_git_over_http_takes(secrets: FakeReferences) -> None:
    secrets.put_secret(
        "apps", "token", username="ada", password=PASSWORD, bearerToken="t", caFile="CA"
    )
    assert await git(secrets) == GitCredentials(
        username="ada", password=PASSWORD, bearer_token="t", ca="CA"
    )


async def test_what_git_over_ssh_takes_and_its_key_keeps_its_last_line_end(
    secrets: FakeReferences,
) -> None:
    """OpenSSH refuses a key without it."""
    secrets.put_secret("apps", "token", identity="KEY\n", known_hosts="host key\n")
    assert await git(secrets) == GitCredentials(identity="KEY\n", known_hosts="host key")


async def test_git_takes_a_token_as_a_password_alone(secrets: FakeReferences) -> None:
    secrets.put_secret("apps", "token", password=PASSWORD)
    assert (await git(secrets)).password == PASSWORD


async def test_nothing_of_it_is_in_a_repr(secrets: FakeReferences) -> None:
    secrets.put_secret(
        "apps", "token", username="ada", password=PASSWORD, tls__crt="C", tls__key=PASSWORD
    )
    assert PASSWORD not in repr(await http(secrets))
    secrets.put_secret("apps", "token", identity=PASSWORD)
    assert PASSWORD not in repr(await git(secrets))


# Registries.

REGISTRY = "oci://registry.test:5000/charts/app"


async def registry(
    secrets: FakeReferences, secret: str = "token", certificates: str = "", proxy: str = ""
) -> HttpCredentials:
    return await CredentialReader(secrets).for_registry(
        "apps",
        REGISTRY,
        *(LocalRef(name=name) if name else None for name in (secret, certificates, proxy)),
    )


def logins(**auths: object) -> str:
    return json.dumps({"auths": auths})


async def test_a_registry_takes_user_and_password(secrets: FakeReferences) -> None:
    secrets.put_secret("apps", "token", username="ada", password=PASSWORD)
    assert await registry(secrets) == HttpCredentials(username="ada", password=PASSWORD)
    assert await registry(secrets, "") == HttpCredentials()


@pytest.mark.parametrize("key", ["__dockerconfigjson", "__dockercfg"])
async def test_of_docker_s_logins_the_registry_s_own_counts(
    secrets: FakeReferences, key: str
) -> None:
    auths = {
        "registry.test:5000": {"username": "ada", "password": PASSWORD},
        "registry.test": {"username": "eve", "password": "other"},
    }
    secrets.put_secret("apps", "token", **{key: logins(**auths)})
    assert await registry(secrets) == HttpCredentials(username="ada", password=PASSWORD)


async def test_docker_s_logins_and_certificates_go_together(secrets: FakeReferences) -> None:
    auths = {"registry.test:5000": {"username": "ada", "password": PASSWORD}}
    secrets.put_secret("apps", "token", __dockerconfigjson=logins(**auths))
    secrets.put_secret("apps", "tls", ca__crt="CA")
    assert await registry(secrets, certificates="tls") == HttpCredentials(
        username="ada", password=PASSWORD, ca="CA"
    )


async def test_logins_that_cannot_be_read_name_their_secret(secrets: FakeReferences) -> None:
    secrets.put_secret("apps", "token", __dockerconfigjson=f'["{PASSWORD}"')
    with pytest.raises(ValuesError, match="Secret apps/token") as raised:
        await registry(secrets)
    assert PASSWORD not in str(raised.value)


@pytest.mark.parametrize(
    ("data", "proxy"),
    [
        ({"address": "http://proxy.test:3128"}, "http://proxy.test:3128"),
        (
            {"address": "https://proxy.test", "username": "a@b", "password": "p:/w"},
            "https://a%40b:p%3A%2Fw@proxy.test",
        ),
    ],
)
async def test_a_proxy_is_an_address_with_its_user(
    secrets: FakeReferences, data: dict[str, str], proxy: str
) -> None:
    secrets.put_secret("apps", "proxy", **data)
    assert (await registry(secrets, "", proxy="proxy")).proxy == proxy


@pytest.mark.parametrize("address", ["", "proxy.test:3128", "socks5://a", "http://a:x", "http://"])
async def test_a_proxy_without_a_usable_address_is_said(
    secrets: FakeReferences, address: str
) -> None:
    secrets.put_secret("apps", "proxy", address=address, username="ada", password=PASSWORD)
    with pytest.raises(ValuesError, match="Secret apps/proxy: `address` is no URL") as raised:
        await registry(secrets, "", proxy="proxy")
    assert PASSWORD not in str(raised.value)


async def test_public_keys_are_those_that_end_in_pub(secrets: FakeReferences) -> None:
    secrets.put_secret("apps", "keys", b__pub="B", a__pub="A", cosign__key="PRIVATE")
    reader = CredentialReader(secrets)
    assert await reader.public_keys("apps", LocalRef(name="keys")) == (b"A", b"B")
    secrets.put_secret("apps", "keys", cosign__key="PRIVATE")
    with pytest.raises(ValuesError, match="Secret apps/keys has no public key") as raised:
        await reader.public_keys("apps", LocalRef(name="keys"))
    assert "PRIVATE" not in str(raised.value)
