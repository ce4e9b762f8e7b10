from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helmops.service.polling import LONGEST_RETRY_AFTER, Failing, Polls, after_failure
from tests.fakes.clock import FakeClock

NOW = datetime(2026, 1, 5, 12, 0, tzinfo=UTC)
CAP = timedelta(minutes=5)


def waits(times: int, random: float) -> list[float]:
    state, found = None, []
    for _ in range(times):
        state = after_failure(state, now=NOW, random=random, cap=CAP)
        found.append((state.not_before - NOW).total_seconds())
    return found


def test_each_failure_doubles_the_wait_up_to_the_cap() -> None:
    assert waits(11, 1.0) == [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]


def test_the_jitter_is_full() -> None:
    assert waits(3, 0.0) == [0, 0, 0]
    assert waits(3, 0.5) == [0.5, 1, 2]


def test_a_server_is_not_asked_before_it_said_so() -> None:
    state = after_failure(None, now=NOW, random=0.0, cap=CAP, retry_after=120.0)
    assert state == Failing(1, NOW + timedelta(seconds=120))


def test_the_back_off_counts_where_it_is_longer_than_what_the_server_said() -> None:
    state = after_failure(Failing(8, NOW), now=NOW, random=1.0, cap=CAP, retry_after=1.0)
    assert state.not_before == NOW + timedelta(seconds=256)


@pytest.mark.parametrize("nonsense", [float("inf"), float("nan"), -5.0, 0.0])
def test_nonsense_of_a_server_is_ignored(nonsense: float) -> None:
    state = after_failure(None, now=NOW, random=1.0, cap=CAP, retry_after=nonsense)
    assert state.not_before == NOW + timedelta(seconds=1)


@given(
    failures=st.integers(0, 10_000),
    random=st.floats(0, 1),
    retry_after=st.none() | st.floats(),
)
def test_the_wait_is_never_negative_and_always_bounded(
    failures: int, random: float, retry_after: float | None
) -> None:
    before = Failing(failures, NOW) if failures else None
    state = after_failure(before, now=NOW, random=random, cap=CAP, retry_after=retry_after)
    assert timedelta() <= state.not_before - NOW <= LONGEST_RETRY_AFTER * 1.1
    assert state.failures == failures + 1


def test_a_failing_source_is_due_again_when_its_wait_is_over() -> None:
    clock = FakeClock()
    polls: Polls[str] = Polls(clock=clock, random=lambda: 1.0)
    assert polls.is_due("charts")
    polls.failed("charts", retry_after=10.0)
    assert not polls.is_due("charts")
    assert polls.is_due("other")
    clock.advance(11)
    assert polls.is_due("charts")


def test_an_answer_ends_the_back_off_and_tells_that_there_was_one() -> None:
    polls: Polls[str] = Polls(clock=FakeClock(), random=lambda: 1.0)
    for _ in range(3):
        polls.failed("charts")
    assert polls.succeeded("charts")
    assert not polls.succeeded("charts")
    assert polls.failed("charts").failures == 1


def test_a_forgotten_source_starts_afresh() -> None:
    polls: Polls[str] = Polls(clock=FakeClock(), random=lambda: 1.0)
    polls.failed("charts")
    assert polls.failing("charts") is not None
    polls.forget("charts")
    assert polls.failing("charts") is None
