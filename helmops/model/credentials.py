"""What a source is opened with. None of these may be printed; their repr hides the values."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class HttpCredentials:
    """For chart repositories, registries, webhooks and checks; PEM texts in `ca`, `certificate`,
    `key`. `identity_token` is what a registry's token server takes in place of a password; `proxy`
    is the URL of the proxy to go through, with user and password, in place of the environment's.
    """

    username: str = field(default="", repr=False)
    password: str = field(default="", repr=False)
    bearer_token: str = field(default="", repr=False)
    ca: str = field(default="", repr=False)
    certificate: str = field(default="", repr=False)
    key: str = field(default="", repr=False)
    identity_token: str = field(default="", repr=False)
    proxy: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class GitCredentials:
    """For Git: user and password or a bearer token over http(s), a key and known_hosts over ssh.

    `proxy` is the URL of an HTTP proxy to go through, with user and password.
    """

    username: str = field(default="", repr=False)
    password: str = field(default="", repr=False)
    bearer_token: str = field(default="", repr=False)
    identity: str = field(default="", repr=False)
    known_hosts: str = field(default="", repr=False)
    ca: str = field(default="", repr=False)
    proxy: str = field(default="", repr=False)
