"""What other programs say, in so far as it is kept."""

from __future__ import annotations

#: What a text begins with whose beginning is not kept.
CUT_MARK = "[…]\n"


def last_part(text: str, *, lines: int, size: int) -> str:
    """The end of a text: at most so many lines, and bytes of UTF-8; what was cut is said."""
    kept = text.strip("\n").split("\n")
    cut = len(kept) > lines
    shown = "\n".join(kept[-lines:])
    data = shown.encode()
    if len(data) > size:
        cut = True
        shown = data[-size:].decode(errors="ignore")
    return f"{CUT_MARK}{shown}" if cut else shown
