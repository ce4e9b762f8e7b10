"""The HTTP check: a request that a healthy release answers as expected.

`{release}` and `{namespace}` in the URL stand for the release's. Redirects are followed, unless an
expected status is itself a redirect. Of a body the first megabyte is looked at.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from typing import Any

from helmops.checks.runner import Outcome
from helmops.errors import SourceError
from helmops.http import Http, Response
from helmops.model.credentials import HttpCredentials
from helmops.model.declarations import HttpCheck, HttpExpectation
from helmops.model.json_path import JsonPath, equal
from helmops.model.redaction import secrets_of
from helmops.model.releases import ReleaseId

_LOOKED_AT = 1024 * 1024
_LARGEST_BODY = 64 * 1024 * 1024
_SHOWN_OF_BODY = 200
_SHOWN_OF_VALUE = 80


class HttpProbe:
    """One HTTP check of one release. Raises DeclarationError for a JSON path that is none."""

    def __init__(
        self, http: Http, check: HttpCheck, release: ReleaseId, credentials: HttpCredentials
    ) -> None:
        self._http = http
        self._check = check
        self._credentials = credentials
        self._url = check.url.replace("{release}", release.name).replace(
            "{namespace}", release.namespace
        )
        self._paths = [(JsonPath.parse(e.path), e.equals) for e in check.expect.json_path]
        self._secrets = secrets_of(credentials, *check.headers.values(), check.body or "")

    async def __call__(self) -> Outcome:
        """Ask once; whatever goes wrong is an outcome."""
        check = self._check
        body = _Head(_LOOKED_AT)
        expects_redirect = any(300 <= status < 400 for status in check.expect.status)
        try:
            response = await self._http.request(
                check.method,
                self._url,
                credentials=self._credentials,
                headers=check.headers,
                body=(check.body or "").encode(),
                timeout=check.timeout,
                limit=_LARGEST_BODY,
                sink=body.take,
                redirects=0 if expects_redirect else 10,
                verify=not check.tls.insecure_skip_verify,
                server_name=check.tls.server_name,
            )
        except SourceError as error:
            where = f"{check.method} {error.where}".rstrip()
            return Outcome(False, f"{where}: {error.what}")
        told = f"{check.method} {response.url}: {response.status} {response.reason}".rstrip()
        head = body.content or response.body[:_LOOKED_AT]
        problems = list(self._problems(response, head))
        if not problems:
            return Outcome(True, told)
        return Outcome(False, f"{told}, {'; '.join(problems)}{self._shown(head)}")

    def _problems(self, response: Response, body: bytes) -> Iterator[str]:
        expect = self._check.expect
        if response.status not in expect.status:
            yield f"expected {_any_of(expect.status)}"
        yield from _header_problems(response, expect)
        if expect.body is not None and not re.search(expect.body, _text(body)):
            yield f"the body does not match /{expect.body}/"
        if self._paths:
            yield from self._json_problems(body)

    def _json_problems(self, body: bytes) -> Iterator[str]:
        try:
            document = json.loads(body)
        except (ValueError, RecursionError):
            yield "the body is not JSON"
            return
        for path, wanted in self._paths:
            try:
                found = path.find(document)
            except LookupError as error:
                yield f"the body has {error}"
                continue
            if not equal(found, wanted):
                yield f"{path.text} is {self._value(found)}, expected {_json(wanted)}"

    def _value(self, found: Any) -> str:
        shown = _json(found)
        return "another value" if self._is_secret(shown) else shown

    def _shown(self, body: bytes) -> str:
        line = " ".join(_text(body).split())
        if not line:
            return ""
        if self._is_secret(line):
            return " (the body is not shown, it repeats a credential)"
        return f" (body: {line if len(line) <= _SHOWN_OF_BODY else line[:_SHOWN_OF_BODY] + '…'})"

    def _is_secret(self, text: str) -> bool:
        return any(secret in text for secret in self._secrets)


class _Head:
    """Keeps the first bytes of a body and lets the rest go by."""

    def __init__(self, size: int) -> None:
        self._size = size
        self.content = b""

    def take(self, piece: bytes) -> None:
        self.content += piece[: self._size - len(self.content)]


def _header_problems(response: Response, expect: HttpExpectation) -> Iterator[str]:
    for name, pattern in expect.headers.items():
        value = response.headers.get(name.lower())
        if value is None:
            yield f"the header {name} is missing"
        elif not re.search(pattern, value):
            yield f"the header {name} does not match /{pattern}/"


def _text(body: bytes) -> str:
    return body.decode("utf-8", "replace")


def _json(value: Any) -> str:
    shown = json.dumps(value, ensure_ascii=False)
    return shown if len(shown) <= _SHOWN_OF_VALUE else shown[:_SHOWN_OF_VALUE] + "…"


def _any_of(statuses: Sequence[int]) -> str:
    return " or ".join(str(status) for status in statuses)
