from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helmops.decide.backoff import backoff

HOUR = timedelta(hours=1)


@pytest.mark.parametrize(
    ("failures", "seconds"), [(0, 1), (1, 1), (2, 2), (3, 4), (4, 8), (11, 1024), (12, 2048)]
)
def test_it_begins_with_a_second_and_doubles(failures: int, seconds: int) -> None:
    assert backoff(failures, cap=HOUR) == timedelta(seconds=seconds)


@pytest.mark.parametrize("failures", [13, 21, 22, 23, 1_000_000])
def test_it_never_goes_beyond_the_cap(failures: int) -> None:
    assert backoff(failures, cap=HOUR) == HOUR


def test_a_cap_below_a_second_counts_from_the_first_failure() -> None:
    assert backoff(1, cap=timedelta(milliseconds=100)) == timedelta(milliseconds=100)


@given(st.integers(0, 60), st.integers(1, 10**6))
def test_one_more_failure_never_waits_less(failures: int, cap: int) -> None:
    limit = timedelta(seconds=cap)
    assert backoff(failures, cap=limit) <= backoff(failures + 1, cap=limit) <= limit
