"""The headers that say who we are, and how they are renewed."""

from __future__ import annotations

import base64
import dataclasses
import time
from pathlib import Path

from helmops.cluster.kubeconfig import Connection
from helmops.errors import AccessDenied

#: Seconds after which a token file is read again; a projected token is renewed every 48 minutes.
_TOKEN_FILE_AGE = 60.0


class Credentials:
    """Makes `Authorization` (and impersonation) headers of a connection. Its repr shows nothing."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._token = connection.token
        self._read_at: float | None = None

    async def headers(self, *, was_refused: bool = False) -> tuple[tuple[str, str], ...]:
        """The headers; after a 401, with `was_refused`, from a fresh token where there is one.

        Raises AccessDenied where a token file or plugin gives nothing.
        """
        connection = self._connection
        if connection.token_file:
            age = None if self._read_at is None else time.monotonic() - self._read_at
            if was_refused or age is None or age > _TOKEN_FILE_AGE:
                self._token = _read_token(connection.token_file)
                self._read_at = time.monotonic()
        elif connection.plugin is not None and was_refused:
            self._token = (await run_plugin(connection)).token
        token = self._token
        named: tuple[tuple[str, str], ...] = ()
        if token:
            named = (("Authorization", f"Bearer {token}"),)
        elif connection.username:
            pair = f"{connection.username}:{connection.password}".encode()
            named = (("Authorization", f"Basic {base64.b64encode(pair).decode()}"),)
        return named + connection.impersonate


def _read_token(path: str) -> str:
    try:
        token = Path(path).read_text().strip()
    except OSError as error:
        raise AccessDenied(f"the token file cannot be read: {error.strerror}", where=path) from None
    if not token:
        raise AccessDenied("the token file is empty", where=path)
    return token


async def run_plugin(connection: Connection) -> Connection:
    """The connection with the credentials that its plugin gives, by the Python client.

    Raises AccessDenied where the plugin fails or gives none.
    """
    from kubernetes.aio.client.configuration import Configuration
    from kubernetes.aio.config import ConfigException, load_kube_config_from_dict

    filled = Configuration()
    where = f"kubeconfig context {connection.context}"
    next_step = "run the plugin's command by hand, or `kubectl get ns` with the same context"
    try:
        await load_kube_config_from_dict(
            config_dict=connection.plugin,
            context=connection.context,
            client_configuration=filled,
        )
    except (ConfigException, ValueError, KeyError, OSError) as error:
        raise AccessDenied(
            f"the credential plugin failed ({type(error).__name__})",
            where=where,
            next_step=next_step,
        ) from None
    bearer = str(filled.api_key.get("BearerToken") or "")
    token = bearer.partition(" ")[2] if bearer[:7].lower() == "bearer " else bearer
    if not token and not filled.cert_file:
        raise AccessDenied(
            "the credential plugin gave no credentials", where=where, next_step=next_step
        )
    return dataclasses.replace(
        connection,
        token=token,
        certificate_file=filled.cert_file or connection.certificate_file,
        key_file=filled.key_file or connection.key_file,
    )
