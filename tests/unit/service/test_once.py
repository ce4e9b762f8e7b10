from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, cast

import pytest

from helmops.model.actions import (
    NO_REQUEST,
    Decision,
    Held,
    Install,
    ReleaseState,
    Request,
    RetryAfter,
    Run,
    Settled,
    Stalled,
)
from helmops.model.records import Condition, ConditionStatus, Hold, HoldReason, Record
from helmops.model.releases import DeclarationKey, ReleaseId
from helmops.reconcile.reconciler import Passed, Reconciler
from helmops.service.once import Once, is_at_rest
from tests.fakes.clock import START, FakeClock
from tests.unit.decide.samples import target
from tests.unit.reconcile.samples import key

WEB, API, DB = key("web"), key("api"), key("db")
SETTLED = Settled(ReleaseState.IN_SYNC, "as declared")
MINUTES = timedelta(minutes=5)

#: What a pass decides, by the pass's number and those that are ready.
Script = Callable[[int, set[DeclarationKey]], Decision]


@dataclass
class Passes:
    """Stands for the reconciler: decides as the tests say, and notes who was passed over."""

    clock: FakeClock
    scripts: Mapping[DeclarationKey, Script]
    log: list[tuple[str, Request]] = field(default_factory=list)
    ready: set[DeclarationKey] = field(default_factory=set)
    running: int = 0
    most: int = 0

    async def reconcile(self, wanted: Any, request: Request) -> Passed:
        of = cast(DeclarationKey, wanted)
        self.running += 1
        self.most = max(self.most, self.running)
        await asyncio.sleep(0)
        number = [name for name, _ in self.log].count(of.name)
        self.log.append((of.name, request))
        decision = self.scripts[of](number, self.ready)
        if isinstance(decision, Settled):
            self.ready.add(of)
        status = ConditionStatus.TRUE if of in self.ready else ConditionStatus.FALSE
        why = getattr(decision, "why", "")
        conditions = (Condition("Ready", status, "r", why, START),)
        self.running -= 1
        return Passed(Record(of, ReleaseId("apps", of.name), conditions=conditions), decision)

    @property
    def names(self) -> list[str]:
        return [name for name, _ in self.log]


def always(decision: Decision) -> Script:
    return lambda *_: decision


def once(passes: Passes, concurrency: int = 4) -> Once:
    return Once(
        clock=passes.clock,
        reconciler=cast(Reconciler, passes),
        wanted=lambda of: cast(Any, of),
        concurrency=concurrency,
    )


def passes(**scripts: Script) -> Passes:
    return Passes(FakeClock(), {key(name): script for name, script in scripts.items()})


def retry(after: float, state: ReleaseState = ReleaseState.FAILED, reason: str = "R") -> RetryAfter:
    return RetryAfter(START + timedelta(seconds=after), state, "later", reason)


def waits_for(*others: DeclarationKey) -> Script:
    def script(_: int, ready: set[DeclarationKey]) -> Decision:
        missing = [str(other) for other in others if other not in ready]
        if not missing:
            return SETTLED
        why = f"waits for {', '.join(missing)}"
        return RetryAfter(START + MINUTES, ReleaseState.ABSENT, why, "DependencyNotReady")

    return script


async def test_each_release_is_passed_over_until_it_is_settled() -> None:
    found = passes(web=lambda number, _: SETTLED if number == 2 else retry(number + 1))
    results = await once(found).settle([WEB], timeout=MINUTES)
    assert results[WEB].decision == SETTLED
    assert found.names == ["web"] * 3
    assert found.clock.slept == [1.0, 1.0]


async def test_nothing_to_do_takes_no_pass() -> None:
    assert await once(passes()).settle([], timeout=MINUTES) == {}


async def test_a_key_that_is_named_twice_is_passed_over_once() -> None:
    found = passes(web=always(SETTLED))
    await once(found).settle([WEB, WEB], timeout=MINUTES)
    assert found.names == ["web"]


async def test_a_request_is_made_once() -> None:
    found = passes(web=lambda number, _: SETTLED if number else retry(1))
    asked = Request(force="token")
    await once(found).settle([WEB], {WEB: asked}, timeout=MINUTES)
    assert found.log == [("web", asked), ("web", NO_REQUEST)]


async def test_a_request_to_one_that_waits_is_made_in_its_first_pass_only() -> None:
    found = passes(web=waits_for(DB), db=always(SETTLED))
    asked = Request(force="token")
    await once(found).settle([WEB, DB], {WEB: asked}, timeout=MINUTES)
    assert [request for name, request in found.log if name == "web"] == [asked, NO_REQUEST]


@pytest.mark.parametrize("order", [[WEB, API, DB], [DB, API, WEB], [API, WEB, DB]], ids=str)
async def test_who_waits_for_whom_is_found_out_in_any_order(order: list[DeclarationKey]) -> None:
    found = passes(web=waits_for(API), api=waits_for(DB), db=always(SETTLED))
    results = await once(found).settle(order, timeout=MINUTES)
    assert {name: result.decision for name, result in results.items()} == {
        WEB: SETTLED,
        API: SETTLED,
        DB: SETTLED,
    }
    assert found.clock.slept == [], "nobody sleeps over it"


async def test_those_that_wait_for_nobody_here_stay_as_they_are() -> None:
    found = passes(web=waits_for(DB), api=waits_for(WEB))
    results = await once(found).settle([WEB, API], timeout=MINUTES)
    assert all(isinstance(result.decision, RetryAfter) for result in results.values())
    assert len(found.names) == 4, "once, and once more to see that nothing moved"


async def test_what_never_settles_ends_with_the_time() -> None:
    found = passes(web=lambda number, _: retry(100 * (number + 1)))
    results = await once(found).settle([WEB], timeout=MINUTES)
    assert isinstance(results[WEB].decision, RetryAfter)
    assert found.clock.now() - START == timedelta(seconds=300)
    assert len(found.names) == 4


async def test_what_comes_after_the_time_is_not_waited_for() -> None:
    found = passes(web=always(retry(301)))
    await once(found).settle([WEB], timeout=MINUTES)
    assert found.clock.slept == []


async def test_no_more_are_acted_on_at_once_than_was_said() -> None:
    scripts = {f"r{number}": always(SETTLED) for number in range(10)}
    found = passes(**scripts)
    await once(found, concurrency=3).settle([key(name) for name in scripts], timeout=MINUTES)
    assert found.most == 3


# At rest

HOLD = Hold(HoldReason.DIVERGED, "by hand", START, "d")


@pytest.mark.parametrize(
    ("decision", "rests"),
    [
        (SETTLED, True),
        (Stalled(ReleaseState.FAILED, "x", "RetriesExceeded"), True),
        (Held(ReleaseState.DIVERGED, HOLD), True),
        (Run(Install(target()), ReleaseState.ABSENT, "looking only"), True),
        (retry(1), False),
        (retry(1, ReleaseState.LOCKED, "Progressing"), False),
        (retry(1, ReleaseState.WATCHING, "Watching"), True),
        (retry(1, ReleaseState.IN_SYNC, "SourceNotReady"), True),
        (retry(1, ReleaseState.LOCKED, "PendingRelease"), True),
        (retry(1, ReleaseState.ABSENT, "LeaseHeld"), True),
        (retry(1, ReleaseState.ABSENT, "DependencyNotReady"), True),
        (retry(1, ReleaseState.ABSENT, "ClusterUnreachable"), False),
    ],
    ids=lambda value: getattr(value, "reason", "") or type(value).__name__,
)
def test_at_rest_is_what_another_pass_would_not_get_further(
    decision: Decision, rests: bool
) -> None:
    assert is_at_rest(Passed(Record(WEB, ReleaseId("apps", "web")), decision)) is rests


def test_a_source_that_fails_is_not_waited_for() -> None:
    failing = (Condition("FetchFailed", ConditionStatus.TRUE, "SourceNotReady", "no", START),)
    record = Record(WEB, ReleaseId("apps", "web"), conditions=failing)
    assert is_at_rest(Passed(record, retry(1, ReleaseState.ABSENT, "SourceNotReady")))
