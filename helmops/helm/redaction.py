"""What helm printed, without what must not be seen.

Charts put values into error messages (`fail`, schema errors), URLs carry passwords, and a Go client
prints headers. Three nets, because each has holes: values that are known to be secret, values of
keys that sound like secrets among those that this helm was given, and texts that look like
credentials whoever wrote them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

MASK = "***"

#: A shorter secret is not looked for: `no` or `admin` would mask half of every text.
SHORTEST_SECRET = 6

_SECRET_KEY = re.compile(
    r"passw|secret|token|credential|api_?-?key|private_?-?key|access_?-?key|auth|dsn|pwd|cert",
    re.IGNORECASE,
)

#: Texts that look like credentials, with what is put in their place.
_LOOKS_SECRET: tuple[tuple[re.Pattern[str], str], ...] = (
    # https://user:password@host
    (re.compile(r"(?<=://)[^/\s:@'\"]*:[^/\s@'\"]+@"), f"{MASK}@"),
    # ?token=…, password: …, "apiKey": "…"
    (
        re.compile(
            r"(?i)((?:passw(?:or)?d|secret|token|api_?-?key|private_?-?key|access_?-?key)"
            r"[\"']?\s*[=:]\s*[\"']?)([^\s\"'&,;}]{3,})"
        ),
        rf"\g<1>{MASK}",
    ),
    (re.compile(r"(?i)\b(bearer|basic)\s+[A-Za-z0-9._~+/=-]{8,}"), rf"\g<1> {MASK}"),
    (re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [^-]*-----|\Z)", re.S), MASK),
    # A JSON web token, as a ServiceAccount has.
    (re.compile(r"\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]*"), MASK),
    # Schema errors show the value that they refuse: at '/password': 'hunter22' does not match …
    (re.compile(r"(?m)(: )'[^'\n]*' (?=does not match|is not valid)"), r"\g<1>the value "),
)


def secret_values(values: Mapping[str, Any]) -> set[str]:
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


def redactor(secrets: Iterable[str]) -> Callable[[str], str]:
    """A function that masks these secrets, and whatever looks like one."""
    known = _with_lines(secrets)
    pattern = re.compile("|".join(map(re.escape, known))) if known else None

    def redact(text: str) -> str:
        if pattern is not None:
            text = pattern.sub(MASK, text)
        for looks_secret, instead in _LOOKS_SECRET:
            text = looks_secret.sub(instead, text)
        return text

    return redact


def _with_lines(secrets: Iterable[str]) -> Collection[str]:
    """Longest first; a secret of several lines is looked for line by line as well, because helm
    and its loggers break lines and escape them.
    """
    known = set()
    for secret in secrets:
        for part in (secret, *secret.splitlines()):
            if len(part.strip()) >= SHORTEST_SECRET:
                known.add(part.strip())
    return sorted(known, key=len, reverse=True)
