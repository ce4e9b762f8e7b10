"""Interval, timeout and thresholds."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from helmops.checks.runner import Outcome, run_check
from helmops.errors import ClusterUnreachable
from helmops.model.declarations import PolicyCheck
from helmops.model.health import CheckResult
from tests.fakes.clock import FakeClock


def check(**fields: Any) -> PolicyCheck:
    return PolicyCheck.model_validate(
        {"name": "front", "http": {"url": "http://web/"}, "interval": "5s"} | fields
    )


class Probe:
    """Answers as written: `+` passed, `-` failed; the last answer stays."""

    def __init__(self, answers: str, clock: FakeClock, takes: float = 0) -> None:
        self.answers = answers
        self.clock = clock
        self.takes = takes

    async def __call__(self) -> Outcome:
        self.clock.advance(self.takes)
        answer, self.answers = self.answers[0], self.answers[1:] or self.answers
        return Outcome(answer == "+", "fine" if answer == "+" else "503")


ROWS = [
    pytest.param("+", {}, True, "fine", 1, [], id="one success is enough"),
    pytest.param("-+", {}, True, "fine", 2, [5], id="a failure before it does no harm"),
    pytest.param(
        "---", {}, False, "503 (3 times in a row)", 3, [5, 5], id="three failures in a row"
    ),
    pytest.param("--+", {}, True, "fine", 3, [5, 5], id="success before the third failure"),
    pytest.param("-", {"failureThreshold": 1}, False, "503", 1, [], id="one failure is enough"),
    pytest.param(
        "+-++", {"successThreshold": 2}, True, "fine", 4, [5, 5, 5], id="two successes in a row"
    ),
    pytest.param(
        "-+-+--",
        {"successThreshold": 2, "failureThreshold": 2},
        False,
        "503 (2 times in a row)",
        6,
        [5, 5, 5, 5, 5],
        id="neither row is long enough until one is",
    ),
    pytest.param(
        "-",
        {"failureThreshold": 100, "timeout": "12s"},
        False,
        "503 (not healthy within 12s)",
        3,
        [5, 5],
        id="the time is up before the threshold, and a try that comes too late is not waited for",
    ),
    pytest.param(
        "+",
        {"successThreshold": 4, "timeout": "12s"},
        False,
        "passed only 3 of 4 times within 12s",
        3,
        [5, 5],
        id="too few successes in the time",
    ),
    pytest.param(
        "-",
        {"interval": "2m", "timeout": "1m"},
        False,
        "503 (not healthy within 1m0s)",
        1,
        [],
        id="an interval beyond the timeout leaves one try",
    ),
]


@pytest.mark.parametrize(("answers", "fields", "passed", "message", "attempts", "slept"), ROWS)
async def test_a_check(
    answers: str,
    fields: dict[str, Any],
    passed: bool,
    message: str,
    attempts: int,
    slept: list[float],
) -> None:
    clock = FakeClock()

    result = await run_check(check(**fields), Probe(answers, clock), clock)

    assert result == CheckResult("front", passed, message, attempts)
    assert clock.slept == slept


async def test_the_time_that_tries_take_counts() -> None:
    clock = FakeClock()

    result = await run_check(
        check(timeout="60s", failureThreshold=99), Probe("-", clock, takes=20), clock
    )

    assert result.attempts == 3


async def test_a_try_without_an_answer_is_cut_off_with_the_check() -> None:
    async def hang() -> Outcome:
        await asyncio.Event().wait()
        raise AssertionError

    result = await run_check(check(timeout="20ms"), hang, FakeClock())

    assert not result.passed
    assert result.message.startswith("no answer within 0.02 s")


async def test_what_a_probe_raises_passes_through() -> None:
    async def unreachable() -> Outcome:
        raise ClusterUnreachable("no answer")

    with pytest.raises(ClusterUnreachable):
        await run_check(check(), unreachable, FakeClock())


async def test_it_tells_how_it_goes() -> None:
    clock = FakeClock()
    lines: list[str] = []

    await run_check(check(successThreshold=2), Probe("-+-++", clock), clock, lines.append)

    assert lines == [
        "check front failed 1 of 3 times: 503",
        "check front passed 1 of 2 times",
        "check front failed 1 of 3 times: 503",
        "check front passed 1 of 2 times",
    ]
