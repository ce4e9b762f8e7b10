"""What sources, checks and webhooks are opened with, out of the Secrets that declarations name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Protocol
from urllib.parse import quote, urlsplit, urlunsplit

from helmops.errors import SourceMissing, ValuesError
from helmops.model.credentials import GitCredentials, HttpCredentials
from helmops.model.declarations import LocalRef
from helmops.model.releases import DeclarationKey
from helmops.sources.oci_reference import OciRepository
from helmops.sources.registry_auth import login_in


class Secrets(Protocol):
    """Where Secrets are looked up: the declared ones first, then the cluster."""

    async def secret(self, key: DeclarationKey) -> Mapping[str, bytes] | None:
        """Its data, decoded, or None where there is none. Raises ClusterError."""


class CredentialReader:
    """Reads credentials by Flux's keys: `username`, `password`, `bearerToken`, `identity`,
    `known_hosts`, `ca.crt` (or `caFile`), `tls.crt` (`certFile`), `tls.key` (`keyFile`).
    """

    def __init__(self, secrets: Secrets) -> None:
        self._secrets = secrets

    async def for_http(
        self, namespace: str, secret: LocalRef | None, certificates: LocalRef | None = None
    ) -> HttpCredentials:
        """Credentials for HTTP; `certificates` is `certSecretRef`, which goes before `secret`.

        Raises SourceMissing for a Secret that is not there, ValuesError for one that makes no
        sense, ClusterError.
        """
        if secret is None and certificates is None:
            return HttpCredentials()
        data = await self._read(namespace, secret)
        tls = {**data, **await self._read(namespace, certificates)}
        credentials = HttpCredentials(
            username=_text(data, "username"),
            password=_text(data, "password"),
            bearer_token=_text(data, "bearerToken") or _text(data, "token"),
            ca=_text(tls, "ca.crt") or _text(tls, "caFile"),
            certificate=_text(tls, "tls.crt") or _text(tls, "certFile"),
            key=_text(tls, "tls.key") or _text(tls, "keyFile"),
        )
        name = (secret or certificates or LocalRef(name="")).name
        _both(namespace, name, "username", credentials.username, "password", credentials.password)
        _both(namespace, name, "tls.crt", credentials.certificate, "tls.key", credentials.key)
        return credentials

    async def for_registry(
        self,
        namespace: str,
        url: str,
        secret: LocalRef | None,
        certificates: LocalRef | None = None,
        proxy: LocalRef | None = None,
    ) -> HttpCredentials:
        """Credentials for an OCI registry, whose Secret may be one of Docker's logins; of these the
        one for `url` (`oci://host/name`) counts. Raises as `for_http`, and SourceInvalid for a URL
        that is none.
        """
        credentials = await self.for_http(namespace, secret, certificates)
        if secret is not None:
            data = await self._read(namespace, secret)
            logins = data.get(".dockerconfigjson") or data.get(".dockercfg")
            if logins is not None:
                place = OciRepository.parse(url)
                where = f"Secret {namespace}/{secret.name}"
                login = login_in(logins, place.host, place.name, where=where)
                tls = {n: getattr(credentials, n) for n in ("ca", "certificate", "key")}
                credentials = replace(login, **tls)
        if proxy is not None:
            credentials = replace(credentials, proxy=await self._proxy(namespace, proxy))
        return credentials

    async def _proxy(self, namespace: str, ref: LocalRef) -> str:
        """The URL of a proxy, with user and password in it."""
        data = await self._read(namespace, ref)
        where = f"Secret {namespace}/{ref.name}"
        try:
            parts = urlsplit(_text(data, "address").strip())
            if parts.scheme not in ("http", "https") or not parts.hostname:
                raise ValueError
            _ = parts.port
        except ValueError:
            raise ValuesError(
                "`address` is no URL of a proxy", where=where, next_step="as http://proxy:3128"
            ) from None
        user, password = _text(data, "username"), _text(data, "password")
        login = f"{quote(user, safe='')}:{quote(password, safe='')}@" if user else ""
        host = parts.netloc.rpartition("@")[2]
        return urlunsplit((parts.scheme, login + host, parts.path, "", ""))

    async def public_keys(self, namespace: str, ref: LocalRef) -> tuple[bytes, ...]:
        """The keys (PEM) of a Secret, whose names end in `.pub`. Raises as `for_http`."""
        data = await self._read(namespace, ref)
        keys = tuple(data[name] for name in sorted(data) if name.endswith(".pub"))
        if not keys:
            raise ValuesError(
                f"Secret {namespace}/{ref.name} has no public key",
                next_step="its keys must end in .pub, as cosign.pub",
            )
        return keys

    async def files(self, namespace: str, ref: LocalRef) -> Mapping[str, bytes]:
        """All of a Secret, by key: public keys by their files' names. Raises SourceMissing,
        ClusterError.
        """
        return await self._read(namespace, ref)

    async def for_git(
        self, namespace: str, secret: LocalRef | None, proxy: LocalRef | None = None
    ) -> GitCredentials:
        """Credentials for Git. Raises SourceMissing, ValuesError, ClusterError."""
        through = await self._proxy(namespace, proxy) if proxy is not None else ""
        if secret is None:
            return GitCredentials(proxy=through)
        data = await self._read(namespace, secret)
        return GitCredentials(
            proxy=through,
            username=_text(data, "username"),
            password=_text(data, "password"),
            bearer_token=_text(data, "bearerToken"),
            identity=data.get("identity", b"").decode("utf-8", "replace"),
            known_hosts=_text(data, "known_hosts"),
            ca=_text(data, "ca.crt") or _text(data, "caFile"),
        )

    async def _read(self, namespace: str, ref: LocalRef | None) -> Mapping[str, bytes]:
        if ref is None:
            return {}
        data = await self._secrets.secret(DeclarationKey(namespace, ref.name))
        if data is None:
            raise SourceMissing(
                f"Secret {namespace}/{ref.name} does not exist",
                next_step="create it in the cluster, or declare it beside the source",
            )
        return data


def _text(data: Mapping[str, bytes], key: str) -> str:
    raw = data.get(key)
    return raw.decode("utf-8", "replace").strip("\n") if raw is not None else ""


def _both(namespace: str, name: str, one: str, first: str, other: str, second: str) -> None:
    if bool(first) != bool(second):
        missing = other if first else one
        raise ValuesError(
            f"Secret {namespace}/{name} has no `{missing}`",
            next_step=f"`{one}` and `{other}` go together",
        )
