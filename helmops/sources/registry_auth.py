"""How a registry is logged in to: challenges, tokens, and Docker's file of logins.

A registry that wants to know who asks answers 401 and says how: `Basic`, or `Bearer` with the
address of a token server. The token server is given user and password (or an identity token), and
gives a token for one repository, which is kept in memory until shortly before it ends.

The rules that keep credentials where they belong:

- A challenge counts only where the registry itself answered, never what a redirect led to.
- The token server gets them over https, unless the registry is asked over plain HTTP anyway, and
  never at a link-local address, where clouds keep their own secrets.
- A token goes to the registry that it is for, and nowhere else (`helmops.http` sees to that).
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import json
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, Final
from urllib.parse import urlencode, urlsplit, urlunsplit
from weakref import WeakValueDictionary

from helmops.errors import SourceDenied, SourceInvalid, ValuesError
from helmops.http import Http, raise_for_status, shown_url
from helmops.model.credentials import HttpCredentials
from helmops.sources.oci_reference import DOCKER_HUB_NAMES

#: Bytes that an answer of a token server may have.
_TOKEN_LIMIT: Final = 256 * 1024

#: Seconds that a token is good for where nothing is said (the specification's), and those before
#: its end at which it is not used any more.
_TOKEN_LIFE: Final = 60.0
_MARGIN: Final = 10.0
_LONGEST_LIFE: Final = 3600.0

_MOST_TOKENS: Final = 4096
_LONGEST_CHALLENGE: Final = 8192


@dataclass(frozen=True, slots=True)
class Challenge:
    """What a registry wants: `scheme` is `basic` or `bearer`, in lower case."""

    scheme: str
    realm: str = ""
    service: str = ""
    scope: str = ""


def read_challenge(header: str) -> Challenge | None:
    """The first challenge of a `WWW-Authenticate` header that can be met; Bearer before Basic."""
    found = [
        Challenge(
            scheme,
            realm=parameters.get("realm", ""),
            service=parameters.get("service", ""),
            scope=parameters.get("scope", ""),
        )
        for scheme, parameters in _challenges(header[:_LONGEST_CHALLENGE])
        if scheme == "basic" or (scheme == "bearer" and parameters.get("realm"))
    ]
    return min(found, key=lambda one: one.scheme != "bearer", default=None)


def _challenges(header: str) -> list[tuple[str, dict[str, str]]]:
    """Schemes and their parameters (RFC 9110, 11.6.1), read leniently, in one go."""
    found: list[tuple[str, dict[str, str]]] = []
    rest = header.strip()
    while rest:
        word, rest = _word(rest)
        if not word:
            rest = rest[1:].lstrip(" ,\t")
            continue
        if not rest.lstrip().startswith("="):
            found.append((word.lower(), {}))
            rest = rest.lstrip(" ,\t")
            continue
        value, rest = _value(rest.lstrip()[1:].lstrip())
        if found:
            found[-1][1].setdefault(word.lower(), value)
        rest = rest.lstrip(" ,\t")
    return found


def _word(text: str) -> tuple[str, str]:
    end = next((at for at, char in enumerate(text) if char in ' \t,="'), len(text))
    return text[:end], text[end:]


def _value(text: str) -> tuple[str, str]:
    if not text.startswith('"'):
        end = next((at for at, char in enumerate(text) if char in " \t,"), len(text))
        return text[:end], text[end:]
    value: list[str] = []
    at = 1
    while at < len(text) and text[at] != '"':
        at += text[at] == "\\" and at + 1 < len(text)
        value.append(text[at])
        at += 1
    return "".join(value), text[at + 1 :]


@dataclass(frozen=True, slots=True)
class _Token:
    text: str
    ends_at: float


class RegistryLogins:
    """Knows how each registry wants to be asked, and keeps tokens. Times are monotonic."""

    def __init__(self, http: Http, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._http = http
        self._monotonic = monotonic
        self._challenges: OrderedDict[str, Challenge] = OrderedDict()
        self._tokens: OrderedDict[str, _Token] = OrderedDict()
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def credentials(
        self, base: str, name: str, credentials: HttpCredentials, timeout: timedelta
    ) -> HttpCredentials:
        """What to ask a repository with, as far as the registry is known; before it said what it
        wants, nothing is sent but the client certificate. Raises SourceError.
        """
        challenge = self._challenges.get(_key(base, credentials))
        if challenge is None:
            return _anonymous(credentials)
        return await self._met(challenge, base, name, credentials, timeout)

    async def answer(
        self,
        header: str,
        base: str,
        name: str,
        credentials: HttpCredentials,
        timeout: timedelta,
        *,
        refused: HttpCredentials,
    ) -> HttpCredentials | None:
        """What to ask with after a 401 with this challenge, None where there is nothing better than
        what was `refused`. Raises SourceError.
        """
        challenge = read_challenge(header)
        if challenge is None:
            return None
        self._challenges[_key(base, credentials)] = replace(challenge, scope="")
        while len(self._challenges) > _MOST_TOKENS:
            self._challenges.popitem(last=False)
        if challenge.scheme == "bearer":
            key = self._token_key(challenge, base, name, credentials)
            kept = self._tokens.get(key)
            if kept is not None and kept.text == refused.bearer_token:
                del self._tokens[key]
        found = await self._met(challenge, base, name, credentials, timeout)
        return None if found == refused else found

    async def _met(
        self,
        challenge: Challenge,
        base: str,
        name: str,
        credentials: HttpCredentials,
        timeout: timedelta,
    ) -> HttpCredentials:
        if challenge.scheme == "basic":
            return replace(credentials, bearer_token="", identity_token="")
        if credentials.bearer_token:
            return credentials  # a registry token of one's own: nobody needs to be asked for one
        key = self._token_key(challenge, base, name, credentials)
        lock = self._locks.setdefault(key, asyncio.Lock())
        async with lock:
            token = self._tokens.get(key)
            if token is None or self._monotonic() >= token.ends_at:
                token = await self._fetch(challenge, base, name, credentials, timeout)
                self._tokens[key] = token
                while len(self._tokens) > _MOST_TOKENS:
                    self._tokens.popitem(last=False)
        return replace(_anonymous(credentials), bearer_token=token.text)

    @staticmethod
    def _token_key(challenge: Challenge, base: str, name: str, credentials: HttpCredentials) -> str:
        return f"{_key(base, credentials)} {challenge.realm} {challenge.service} {name}"

    async def _fetch(
        self,
        challenge: Challenge,
        base: str,
        name: str,
        credentials: HttpCredentials,
        timeout: timedelta,
    ) -> _Token:
        realm = _realm(challenge.realm, base)
        asked_for = {"service": challenge.service, "scope": f"repository:{name}:pull"}
        headers: dict[str, str] = {}
        body = b""
        if credentials.identity_token:
            form = {
                **asked_for,
                "grant_type": "refresh_token",
                "client_id": "helmops",
                "refresh_token": credentials.identity_token,
            }
            body = urlencode(form).encode()
            headers["Content-Type"] = "application/x-www-form-urlencoded"
            login = _anonymous(credentials)
        else:
            asked = urlencode({key: value for key, value in asked_for.items() if value})
            parts = urlsplit(realm)
            query = "&".join(part for part in (parts.query, asked) if part)
            realm = urlunsplit((parts.scheme, parts.netloc, parts.path, query, ""))
            login = credentials
        response = await self._http.request(
            "POST" if body else "GET",
            realm,
            credentials=login,
            headers=headers,
            body=body,
            timeout=timeout,
            limit=_TOKEN_LIMIT,
            named_by_server=True,
        )
        if response.status == 400:
            raise SourceDenied(
                "the token server answered 400",
                where=response.url,
                next_step="check the user, password or identity token of the source",
            )
        raise_for_status(response)
        return self._read_token(response.body, shown_url(challenge.realm))

    def _read_token(self, body: bytes, where: str) -> _Token:
        try:
            answer = json.loads(body)
            text = answer.get("token") or answer.get("access_token")
            life = answer.get("expires_in") or _TOKEN_LIFE
            if not isinstance(text, str) or not text.isascii() or not text.isprintable():
                raise ValueError
            life = min(max(float(life), _TOKEN_LIFE), _LONGEST_LIFE)
        except (ValueError, TypeError, AttributeError, OverflowError, RecursionError):
            raise SourceInvalid("the token server gave no token", where=where) from None
        return _Token(text, self._monotonic() + life - _MARGIN)


def _realm(realm: str, base: str) -> str:
    """The token server's address. Raises SourceDenied where it must not be given a password."""
    try:
        parts = urlsplit(realm)
        is_url = bool(parts.hostname) and parts.scheme in ("http", "https")
        has_user = parts.username is not None
    except ValueError:
        is_url = has_user = False
    if not is_url or has_user:
        raise SourceInvalid("the registry names a token server that is no URL", where=base)
    if parts.scheme != "https" and urlsplit(base).scheme == "https":
        raise SourceDenied(
            "the registry names a token server over plain HTTP, which is given no password",
            where=shown_url(realm),
            next_step="the registry's realm must begin with https://",
        )
    return realm


def _anonymous(credentials: HttpCredentials) -> HttpCredentials:
    """Without anything that names somebody, but for the client certificate."""
    return replace(credentials, username="", password="", bearer_token="", identity_token="")


def _key(base: str, credentials: HttpCredentials) -> str:
    """Tells logins to registries apart, in memory."""
    said = (
        credentials.username,
        credentials.password,
        credentials.bearer_token,
        credentials.identity_token,
        credentials.certificate,
        credentials.proxy,
    )
    return f"{base} {hashlib.sha256(json.dumps(said).encode()).hexdigest()}"


# Docker's file of logins.


def login_in(config: bytes, host: str, name: str = "", *, where: str = "") -> HttpCredentials:
    """The login for a repository in a `.dockerconfigjson`; empty where it names none.

    Keys are hosts, with or without `https://` and a path; of several that fit, the longest path
    counts, as with the kubelet. `where` names the Secret in errors. Raises ValuesError.
    """
    try:
        document = json.loads(config)
        auths = document.get("auths", document)
        candidates = [
            (len(path), entry)
            for key, entry in auths.items()
            if (path := _fitting_path(key, host, name)) is not None
        ]
        if not candidates:
            return HttpCredentials()
        return _read_entry(max(candidates, key=lambda one: one[0])[1])
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise ValuesError(
            "its .dockerconfigjson cannot be read",
            where=where,
            next_step="make it with kubectl create secret docker-registry",
        ) from None


def _fitting_path(key: str, host: str, name: str) -> str | None:
    """The path of a key that is for a repository, None for a key that is not."""
    bare = key.removeprefix("https://").removeprefix("http://")
    its_host, _, path = bare.partition("/")
    path = path.strip("/")
    if path in ("v1", "v2"):
        path = ""  # `https://index.docker.io/v1/` is how Docker writes its hub
    same = its_host == host or {its_host, host} <= DOCKER_HUB_NAMES
    if not same and its_host.startswith("*."):
        same = host.partition(".")[2] == its_host[2:]
    if not same or (path and name != path and not name.startswith(f"{path}/")):
        return None
    return path


def _read_entry(entry: Mapping[str, Any]) -> HttpCredentials:
    texts = {
        name: value if isinstance(value := entry.get(name) or "", str) else _no_text()
        for name in ("username", "password", "auth", "identitytoken", "registrytoken")
    }
    username, password = texts["username"], texts["password"]
    if texts["auth"]:
        try:
            decoded = base64.b64decode(texts["auth"], validate=False).decode()
        except (binascii.Error, UnicodeDecodeError):
            raise ValueError from None
        username, _, password = decoded.partition(":")
    return HttpCredentials(
        username=username,
        # Docker pads with NUL what it decodes; no password has one.
        password=password.strip("\0"),
        bearer_token=texts["registrytoken"],
        identity_token=texts["identitytoken"],
    )


def _no_text() -> str:
    raise ValueError
