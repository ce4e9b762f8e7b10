"""How long to wait after failures. Without jitter: the queue adds it where many wait together."""

from __future__ import annotations

from datetime import timedelta

_FIRST = timedelta(seconds=1)


def backoff(failures: int, *, cap: timedelta) -> timedelta:
    """1 s after the first failure, doubled with each further one, at most `cap`."""
    doublings = max(failures - 1, 0)
    if doublings > 20:  # 12 days; a larger shift only makes large numbers
        return cap
    return min(_FIRST * (1 << doublings), cap)
