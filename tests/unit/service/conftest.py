"""A clock whose sleepers wait until the test lets time pass."""

from __future__ import annotations

import pytest

from tests.fakes.stepped_clock import SteppedClock


@pytest.fixture
def clock() -> SteppedClock:
    return SteppedClock()


@pytest.fixture(scope="session")
def clock_class() -> type[SteppedClock]:
    """For tests that need a clock per example."""
    return SteppedClock
