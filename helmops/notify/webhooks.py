"""Tells receivers of what happened: Alerts say of what, Providers say whom.

`generic` and `generic-hmac` so far. Each Provider has a queue and a sender of its own: its events
go out one after the other, in order, and a receiver that hangs holds up nobody else. A failure is
tried again with growing delays where that may help, and logged; nobody waits for it.
"""

from __future__ import annotations

import asyncio
import logging
import random
import socket
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from helmops.errors import HelmopsError, NotificationFailed, NotSupported, SourceError
from helmops.http import Http, shown_url
from helmops.model.credentials import HttpCredentials
from helmops.model.declarations.notification import Alert, Provider
from helmops.model.events import Event
from helmops.model.records import Record
from helmops.model.releases import DeclarationKey
from helmops.notify.payload import (
    COMPONENT_HEADER,
    CONTROLLER,
    SIGNATURE_HEADER,
    payload,
    signature,
)
from helmops.notify.routing import wanted_by

log = logging.getLogger(__name__)

#: Reads a Secret's data; None where there is none. May raise HelmopsError.
ReadSecret = Callable[[DeclarationKey], Awaitable[Mapping[str, bytes] | None]]

#: Events that wait for one Provider; beyond it the oldest is dropped.
QUEUE_SIZE = 200
#: How often one event is tried, and the seconds before the second time.
ATTEMPTS = 6
FIRST_DELAY = 2.0
LONGEST_DELAY = 120.0

_SUPPORTED = frozenset({"generic", "generic-hmac"})
#: Answers after which the same request may be taken a moment later.
_PASSING = frozenset({408, 425, 429})


@dataclass(frozen=True, slots=True)
class _Letter:
    """One event on its way to one Provider."""

    event: Event
    body: bytes


@dataclass(frozen=True, slots=True)
class _Receiver:
    """Where a Provider points to, and with what."""

    url: str
    headers: Mapping[str, str]
    credentials: HttpCredentials
    signing_key: bytes | None

    def __repr__(self) -> str:
        return f"<receiver {shown_url(self.url)}>"


class _PassingFailure(NotificationFailed):
    """May go well in a moment; `retry_after` in seconds where the receiver said so."""

    retry_after: float | None = None


class WebhookNotifier:
    """The `Notifier` port. Alerts and Providers are asked for at each event, for they change."""

    def __init__(
        self,
        http: Http,
        *,
        alerts: Callable[[], Iterable[Alert]],
        provider: Callable[[DeclarationKey], Provider | None],
        read_secret: ReadSecret,
        instance: str = "",
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._http = http
        self._alerts = alerts
        self._provider = provider
        self._read_secret = read_secret
        self._instance = instance or socket.gethostname()
        self._sleep = sleep
        self._waiting: dict[DeclarationKey, deque[_Letter]] = {}
        self._senders: dict[DeclarationKey, asyncio.Task[None]] = {}

    @property
    def pending(self) -> int:
        """Notifications that have not been taken yet."""
        return sum(len(letters) for letters in self._waiting.values())

    async def send(self, event: Event, record: Record) -> None:
        """Queue the event for everybody who asked for it; see the port."""
        manifest = record.manifest
        labels = (manifest.get("metadata") or {}).get("labels") or {}
        for alert in self._alerts():
            if wanted_by(alert, event, labels):
                key = DeclarationKey(alert.metadata.namespace, alert.spec.provider_ref.name)
                self._post(key, _Letter(event, payload(event, alert, manifest, self._instance)))

    async def drain(self, timeout: float) -> None:
        """At the end: wait at most this many seconds for what is queued, then give up the rest."""
        senders = list(self._senders.values())
        if senders:
            _, late = await asyncio.wait(senders, timeout=timeout)
            for sender in late:
                sender.cancel()
            if late:
                log.warning(
                    "%d notifications were not sent before the end",
                    self.pending,
                    extra={"action": "notify"},
                )
                await asyncio.wait(late)
        self._waiting.clear()

    def _post(self, key: DeclarationKey, letter: _Letter) -> None:
        letters = self._waiting.setdefault(key, deque())
        letters.append(letter)
        if len(letters) > QUEUE_SIZE:
            del letters[1]  # the first is being sent
            log.warning(
                "too many notifications wait for Provider %s, the oldest is dropped",
                key,
                extra={"action": "notify", "provider": str(key)},
            )
        if key not in self._senders:
            self._senders[key] = asyncio.create_task(
                self._send_all(key, letters), name=f"notify {key}"
            )

    async def _send_all(self, key: DeclarationKey, letters: deque[_Letter]) -> None:
        """Send until nothing waits; a letter stays in the queue until it was taken or given up."""
        try:
            while letters:
                await self._send_one(key, letters[0])
                letters.popleft()
        finally:
            # At once with the last look at the queue, so that no letter comes in between.
            del self._senders[key]

    async def _send_one(self, key: DeclarationKey, letter: _Letter) -> None:
        try:
            await self._deliver(key, letter)
        except HelmopsError as error:
            log.error(
                "a notification was not taken: %s",
                error,
                extra={
                    "action": "notify",
                    "provider": str(key),
                    "release": str(letter.event.key),
                    "reason": letter.event.reason,
                },
            )
        except Exception:
            log.exception("a notification failed", extra={"provider": str(key)})

    async def _deliver(self, key: DeclarationKey, letter: _Letter) -> None:
        """Send one letter, trying again while that may help."""
        delay = FIRST_DELAY
        for attempt in range(1, ATTEMPTS + 1):
            try:
                await self._try(key, letter)
                return
            except _PassingFailure as error:
                if attempt == ATTEMPTS:
                    raise
                log.warning(
                    "a notification was not taken, it is tried again: %s",
                    error,
                    extra={"action": "notify", "provider": str(key), "attempt": attempt},
                )
                asked = error.retry_after or 0.0
                await self._sleep(
                    min(max(asked, delay * random.uniform(0.8, 1.2)), LONGEST_DELAY)  # noqa: S311
                )
                delay *= 3

    async def _try(self, key: DeclarationKey, letter: _Letter) -> None:
        provider = self._provider(key)
        if provider is None:
            raise NotificationFailed("there is no such Provider", where=f"Provider {key}")
        if provider.spec.suspend:
            return
        receiver = await self._receiver(provider)
        headers = {
            "Content-Type": "application/json",
            COMPONENT_HEADER: CONTROLLER,
            **receiver.headers,
        }
        if receiver.signing_key is not None:
            headers[SIGNATURE_HEADER] = signature(letter.body, receiver.signing_key)
        where = f"Provider {key}"
        try:
            response = await self._http.request(
                "POST",
                receiver.url,
                headers=headers,
                body=letter.body,
                credentials=receiver.credentials,
                timeout=provider.spec.timeout,
                limit=1 << 20,
                redirects=0,  # a signed body is for the receiver that was named
            )
        except SourceError as error:
            # Its text names the address without query, where webhooks keep their secrets.
            raise _PassingFailure(error.what, where=where, next_step=error.next_step) from error
        if 200 <= response.status < 300:
            return
        said = f"the receiver answered {response.status} {response.reason}".rstrip()
        if response.status in _PASSING or response.status >= 500:
            failure = _PassingFailure(said, where=where)
            failure.retry_after = _seconds(response.headers.get("retry-after", ""))
            raise failure
        raise NotificationFailed(said, where=where, next_step="check its address and secret")

    async def _receiver(self, provider: Provider) -> _Receiver:
        """Read what the Provider refers to, at each event, so that a new token counts at once."""
        where = f"Provider {provider.key}"
        missing = unsupported(provider)
        if missing:
            raise NotSupported(f"`{missing}` is not acted on yet", where=where, field=missing)
        secret: Mapping[str, bytes] = {}
        if provider.spec.secret_ref is not None:
            secret = await self._secret(provider, provider.spec.secret_ref.name)
            if "proxy" in secret:
                raise NotSupported("`proxy` in its Secret is not acted on yet", where=where)
        url = secret.get("address", b"").decode(errors="replace").strip() or provider.spec.address
        if not url:
            raise NotificationFailed("it has no address", where=where)
        signing_key = None
        if provider.spec.type == "generic-hmac":
            signing_key = secret.get("token", b"")
            if not signing_key:
                raise NotificationFailed("generic-hmac needs a Secret with `token`", where=where)
        credentials = HttpCredentials()
        if provider.spec.cert_secret_ref is not None:
            pems = await self._secret(provider, provider.spec.cert_secret_ref.name)
            credentials = HttpCredentials(
                ca=pems.get("ca.crt", b"").decode(errors="replace"),
                certificate=pems.get("tls.crt", b"").decode(errors="replace"),
                key=pems.get("tls.key", b"").decode(errors="replace"),
            )
        headers = _headers(secret.get("headers", b""), where)
        return _Receiver(url, headers, credentials, signing_key)

    async def _secret(self, provider: Provider, name: str) -> Mapping[str, bytes]:
        key = DeclarationKey(provider.metadata.namespace, name)
        where = f"Provider {provider.key}"
        try:
            data = await self._read_secret(key)
        except HelmopsError as error:
            raise _PassingFailure(f"Secret {key} cannot be read: {error}", where=where) from error
        if data is None:
            raise _PassingFailure(f"there is no Secret {key}", where=where)
        return data


def unsupported(provider: Provider) -> str:
    """The field of a Provider that is understood and not acted on yet; empty where all are."""
    spec = provider.spec
    if spec.type not in _SUPPORTED:
        return "spec.type"
    if spec.proxy_secret_ref is not None:
        return "spec.proxySecretRef"
    return "spec.proxy" if spec.proxy else ""


def _headers(text: bytes, where: str) -> dict[str, str]:
    """The `headers` key of a Secret: a YAML map of names to values."""
    if not text.strip():
        return {}
    import yaml

    try:
        found: Any = yaml.safe_load(text)
    except (yaml.YAMLError, UnicodeDecodeError):
        found = None
    if not isinstance(found, dict) or not all(isinstance(v, str) for v in found.values()):
        raise NotificationFailed("`headers` in its Secret is no map of strings", where=where)
    if any("\n" in f"{name}{value}" or "\r" in f"{name}{value}" for name, value in found.items()):
        raise NotificationFailed("`headers` in its Secret has a line break", where=where)
    return {str(name): value for name, value in found.items()}


def _seconds(text: str) -> float | None:
    try:
        return max(0.0, float(text))
    except ValueError:
        return None
