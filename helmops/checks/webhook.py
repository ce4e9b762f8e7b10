"""A remediation hook that is a request. Nothing is repeated: the receiver may not bear it twice."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from urllib.parse import urlsplit

from helmops.checks.output import last_part
from helmops.errors import SourceError
from helmops.http import Http
from helmops.model.credentials import HttpCredentials
from helmops.model.declarations import RemediationHook, Webhook
from helmops.model.hooks import HookResult
from helmops.model.redaction import redact, secrets_of

_PLACE = re.compile(r"\{(\w+)\}")
_JSON_BEGINS = re.compile(r"\s*(?:\{\s*[\"}]|\[\s*(?:\{\s*[\"}]|[\"\]]))")
_KEPT_LINES = 100
_KEPT_BYTES = 4 * 1024
_LARGEST_ANSWER = 1024 * 1024


async def send_webhook(
    http: Http,
    hook: RemediationHook,
    webhook: Webhook,
    facts: Mapping[str, str],
    credentials: HttpCredentials,
) -> HookResult:
    """Send it once; any 2xx is a success. The answer's body is kept, redacted and bounded.

    Of the URL only the host is shown: chats have their secret in the path.
    """
    body = "" if webhook.method == "GET" else render_body(webhook.body, facts)
    told = f"{webhook.method} to {urlsplit(webhook.url).hostname}"
    try:
        response = await http.request(
            webhook.method,
            webhook.url,
            credentials=credentials,
            headers=_headers(webhook, body),
            body=body.encode(),
            timeout=hook.timeout,
            limit=_LARGEST_ANSWER,
            redirects=0,
        )
    except SourceError as error:
        return HookResult(hook.name, False, f"{told}: {error.what}")
    secrets = secrets_of(credentials, webhook.url, *webhook.headers.values())
    output = last_part(redact(response.text, secrets), lines=_KEPT_LINES, size=_KEPT_BYTES)
    succeeded = 200 <= response.status < 300
    return HookResult(
        hook.name, succeeded, f"{told}: {response.status} {response.reason}".rstrip(), output
    )


def render_body(template: str | None, facts: Mapping[str, str]) -> str:
    """All facts as a JSON object, or a template with `{release}` and the like filled in.

    In a template that is JSON the values are escaped as JSON strings want it; braces that name no
    fact stay as they are.
    """
    if template is None:
        return json.dumps(dict(facts), ensure_ascii=False, sort_keys=True)
    is_json = _is_json(template)

    def fill_in(place: re.Match[str]) -> str:
        value = facts.get(place[1])
        if value is None:
            return place[0]
        return json.dumps(value, ensure_ascii=False)[1:-1] if is_json else value

    return _PLACE.sub(fill_in, template)


def _headers(webhook: Webhook, body: str) -> dict[str, str]:
    given = {name.lower() for name in webhook.headers}
    headers = dict(webhook.headers)
    if body and "content-type" not in given:
        plain = "text/plain; charset=utf-8"
        is_json = webhook.body is None or _is_json(webhook.body)
        headers["Content-Type"] = "application/json" if is_json else plain
    return headers


def _is_json(template: str) -> bool:
    """Whether it begins as a JSON object or list does; `{release} failed` does not."""
    return _JSON_BEGINS.match(template) is not None
