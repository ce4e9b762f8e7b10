"""Taking secrets out of what other programs say: logs of hooks, bodies of answers.

Known values are taken out wherever they are; what only looks like a secret is taken out by the
forms that people write them in. The second can miss one, so the first comes with every credential
that is at hand.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable

from helmops.model.credentials import HttpCredentials

MASK = "***"

#: Shorter values would take half of a text with them.
_SHORTEST = 4

#: Their repetitions are bounded, or end at what begins the next match: a log can be of any shape,
#: and must not keep the process busy.
_FORMS: tuple[tuple[re.Pattern[str], str], ...] = (
    (
        re.compile(
            r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.S
        ),
        MASK,
    ),
    (re.compile(r"(?<=://)[^/\s@'\"]+@"), f"{MASK}@"),
    (re.compile(r"(?i)\b(bearer|basic)\s+[A-Za-z0-9+/=._~-]{8,}"), rf"\1 {MASK}"),
    (re.compile(r"\beyJ[A-Za-z0-9_-]{5,1000}\.[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]*)?"), MASK),
    (
        re.compile(
            r"(?i)((?:password|passwd|pwd|secret|token|credential|api[_-]?key"
            r"|access[_-]?key|private[_-]?key|authorization)[a-z0-9_.-]{0,40}"
            r"[\"']?\s{0,4}[:=]\s{0,4})(?:\"[^\"]*\"|'[^']*'|[^\s,;&}\"']+)"
        ),
        rf"\1{MASK}",
    ),
)


def redact(text: str, secrets: Iterable[str] = ()) -> str:
    """The text without these values, and without what looks like a secret."""
    for secret in sorted({s for s in secrets if len(s) >= _SHORTEST}, key=len, reverse=True):
        text = text.replace(secret, MASK)
    for form, mask in _FORMS:
        text = form.sub(mask, text)
    return text


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
    return tuple(value for value in values if len(value) >= _SHORTEST)


def last_part(text: str, *, lines: int, size: int) -> str:
    """The end of a text: at most so many lines, and bytes of UTF-8; what was cut is said."""
    kept = text.strip("\n").split("\n")
    cut = len(kept) > lines
    shown = "\n".join(kept[-lines:])
    data = shown.encode()
    if len(data) > size:
        cut = True
        shown = data[-size:].decode(errors="ignore")
    return f"[…]\n{shown}" if cut else shown
