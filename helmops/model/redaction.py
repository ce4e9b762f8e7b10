"""Taking secrets out of texts: what helm printed, logs, answers, evidence.

Charts put values into error messages, URLs carry passwords, a Go client prints headers, a program
logs what it was given. Three nets, because each has holes: values that are known to be secret,
values whose key sounds like a secret, and texts that look like credentials whoever wrote them.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any
from urllib.parse import quote, quote_plus

from helmops.model.credentials import HttpCredentials

#: What stands where a secret was.
MASK = "***"
#: Shorter values would take half of a text with them.
SHORTEST = 4
#: A value that is only thought to be secret, for the name of its key, must be longer: `no` and
#: `admin` have such keys, too.
SHORTEST_GUESS = 6
#: A line of a secret of several lines (a key, a file) counts by itself from this length on.
_SHORTEST_LINE = 8

_SECRET_KEY = re.compile(
    r"passw|secret|token|credential|api_?-?key|private_?-?key|access_?-?key|auth|dsn|pwd|cert",
    re.IGNORECASE,
)

#: Texts that look like credentials, with what is put in their place. Repetitions are bounded, or
#: end at what begins the next match: a log can be of any shape, and must not keep us busy.
_LOOKS_SECRET: tuple[tuple[re.Pattern[str], str], ...] = (
    (
        re.compile(
            r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.S
        ),
        MASK,
    ),
    # The end of a key whose beginning was cut off.
    (
        re.compile(
            r"(?m)(?:^[ \t]{0,16}[A-Za-z0-9+/=]{16,76}\r?\n){1,200}"
            r"[ \t]{0,16}-----END [A-Z ]*PRIVATE KEY-----"
        ),
        MASK,
    ),
    # https://user:password@host
    (re.compile(r"(?<=://)[^/\s@'\"]+@"), f"{MASK}@"),
    (re.compile(r"(?i)\b(bearer|basic)\s+[A-Za-z0-9+/=._~-]{8,}"), rf"\1 {MASK}"),
    # A JSON web token, as a ServiceAccount has.
    (re.compile(r"\beyJ[A-Za-z0-9_-]{5,1000}\.[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]*)?"), MASK),
    # ?token=…, password: …, "apiKey": "…"; not secretName, not secretKeyRef, and no truth values.
    (
        re.compile(
            r"(?i)((?:password|passwd|pwd|secret|token|credential|api[_-]?key"
            r"|access[_-]?key|private[_-]?key|authorization)[a-z0-9_.-]{0,40}(?<!name)(?<!ref)"
            r"[\"']?[ \t]{0,4}[:=][ \t]{0,4})(?!(?:true|false|null)(?:[\s,;&}\]]|\Z))"
            r"(?:(\")[^\"]*\"|(')[^']*'|[^\s,;&}\"']+)"
        ),
        rf"\1\2\3{MASK}\2\3",
    ),
    # Schema errors show the value that they refuse: at '/password': 'hunter22' does not match …
    (re.compile(r"(?m)(: )'[^'\n]*' (?=does not match|is not valid)"), r"\1the value "),
)


def redactor(secrets: Iterable[str] = (), *, shortest: int = SHORTEST) -> Callable[[str], str]:
    """A function that masks these secrets, in whatever form, and what looks like one.

    A secret that is shorter than `shortest` is not looked for.
    """
    known = {form for secret in secrets for form in forms_of(secret, shortest=shortest)}
    # The longest first: a secret that begins as another one is masked as a whole.
    ordered = sorted(known, key=lambda form: (-len(form), form))
    pattern = re.compile("|".join(map(re.escape, ordered))) if ordered else None

    def redact(text: str) -> str:
        if pattern is not None:
            text = pattern.sub(MASK, text)
        for looks_secret, instead in _LOOKS_SECRET:
            text = looks_secret.sub(instead, text)
        return text

    return redact


def redact(text: str, secrets: Iterable[str] = ()) -> str:
    """The text without these values, and without what looks like a secret."""
    return redactor(secrets)(text)


def forms_of(secret: str, *, shortest: int = SHORTEST) -> Iterator[str]:
    """A secret as it is, each of its lines, and how it looks escaped, percent-encoded and in
    base64. Nothing of one that is too short.
    """
    parts = {secret, secret.strip()}
    if "\n" in secret:
        lines = (line.strip() for line in secret.splitlines())
        parts |= {line for line in lines if len(line) >= _SHORTEST_LINE}
    for part in parts:
        if len(part) < shortest:
            continue
        yield part
        yield quote(part, safe="")
        yield quote_plus(part)
        yield repr(part)[1:-1]
        yield json.dumps(part, ensure_ascii=False)[1:-1]
        encoded = base64.b64encode(part.encode("utf-8", "surrogateescape")).decode()
        yield encoded
        yield encoded.rstrip("=")


def secret_values(values: Any) -> set[str]:
    """Texts among Helm values whose key, or a key above it, sounds like a secret."""
    found: set[str] = set()
    open_nodes: list[tuple[Any, bool]] = [(values, False)]
    while open_nodes:
        node, is_secret = open_nodes.pop()
        if isinstance(node, Mapping):
            for key, value in node.items():
                named = is_secret or bool(_SECRET_KEY.search(str(key)))
                open_nodes.append((value, named))
        elif isinstance(node, list | tuple):
            open_nodes.extend((item, is_secret) for item in node)
        elif is_secret and isinstance(node, str | int | float) and not isinstance(node, bool):
            found.add(str(node))
    return found


def secrets_in_objects(objects: Iterable[Mapping[str, Any]]) -> set[str]:
    """What a manifest holds in the open: contents of Secrets, and values of environment variables
    whose name sounds like a secret.
    """
    found: set[str] = set()
    for one in objects:
        if one.get("kind") == "Secret":
            found |= set(_contents(one))
        open_nodes: list[Any] = [one]
        while open_nodes:
            node = open_nodes.pop()
            if isinstance(node, Mapping):
                name, value = node.get("name"), node.get("value")
                if isinstance(name, str) and isinstance(value, str) and _SECRET_KEY.search(name):
                    found.add(value)
                open_nodes.extend(node.values())
            elif isinstance(node, list):
                open_nodes.extend(node)
    return {value for value in found if len(value.strip()) >= SHORTEST}


def secrets_of(credentials: HttpCredentials, *more: str) -> tuple[str, ...]:
    """All values that must not be shown where these credentials are used, and what they are sent
    as. `more` are others, such as the values of headers that a declaration sets.
    """
    login = f"{credentials.username}:{credentials.password}"
    values = (
        credentials.password.strip(),
        credentials.bearer_token.strip(),
        credentials.key.strip(),
        base64.b64encode(login.encode()).decode() if credentials.password else "",
        *more,
    )
    return tuple(value for value in values if len(value) >= SHORTEST)


def _contents(secret: Mapping[str, Any]) -> Iterator[str]:
    """The texts in a Secret; of what is no text, the base64."""
    for value in _texts(secret.get("stringData")):
        yield value
    for value in _texts(secret.get("data")):
        yield value
        try:
            yield base64.b64decode(value, validate=True).decode()
        except (binascii.Error, ValueError):
            continue


def _texts(data: Any) -> Iterator[str]:
    if isinstance(data, Mapping):
        yield from (value for value in data.values() if isinstance(value, str))
