"""Any history of failures, crashes and people's commands: what helmops promises holds.

A history is a list of steps against the fakes. `Truth` sees what happens from outside: which
contents were running and well when somebody looked, which revisions a person made. What helmops
remembers is not asked; it is what is under test.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from helmops.decide.quarantine import lift
from helmops.decide.remember import resume
from helmops.errors import HelmError
from helmops.model.actions import RetryAfter
from helmops.model.declarations import Defaults, RollbackSpec, UninstallSpec, UpgradeSpec
from helmops.model.health import LiveHealth
from helmops.model.records import Record
from tests.fakes.cluster_state import FakeChart, Killed, Moment, Point
from tests.fakes.world import World

#: `make test-long` asks for many more.
EXAMPLES = int(os.environ.get("PROPERTY_EXAMPLES", "500"))

CHARTS = (
    FakeChart(version="1.0.0"),
    FakeChart(version="1.1.0", tests=("t",)),
    FakeChart(version="1.2.0", fails_upgrade=True, fails_install=True),
    FakeChart(version="1.3.0", unhealthy=True),
    FakeChart(version="1.4.0", failing_tests=("t",)),
    FakeChart(version="1.5.0", fails_render=True),
    FakeChart(version="1.6.0", never_ready=True),
    FakeChart(version="1.7.0", fails_rollback=True),
    FakeChart(version="1.8.0", unhealthy=True, migrates=True),
    FakeChart(version="1.3.0", content="mended"),
)
SPECS: tuple[dict[str, Any], ...] = (
    {},
    {"test": {"enable": True}},
    {"upgrade": {"remediation": {"retries": 1}}, "install": {"remediation": {"retries": 1}}},
    {"maxHistory": 2, "test": {"enable": True}},
    {"upgrade": {"remediation": {"remediateLastFailure": False}}},
    {"upgrade": {"disableWait": True}},
    {"policy": {"verify": {"watch": "15m"}}},
    {"policy": {"verify": {"watch": "15m"}, "outOfBand": "revert"}, "maxHistory": 2},
    {"policy": {"outOfBand": "absorb"}},
    {"policy": {"quarantine": {"ttl": "1h"}}},
)


@dataclass(frozen=True)
class Step:
    """One thing that happens; `number` chooses among what it can happen to."""

    what: str
    number: int = 0
    other: int = 0


def steps() -> st.SearchStrategy[list[Step]]:
    def step(what: str, most: int = 0, other: int = 0) -> st.SearchStrategy[Step]:
        return st.builds(
            Step,
            st.just(what),
            st.integers(0, most),
            st.integers(0, other) if other else st.just(0),
        )

    return st.lists(
        st.one_of(
            step("declare", len(CHARTS) - 1, len(SPECS) - 1),
            step("declare", len(CHARTS) - 1, len(SPECS) - 1),
            step("pass"),
            step("settle"),
            step("crash", 40),
            step("person upgrades", len(CHARTS) - 1),
            step("person rolls back", 3),
            step("person uninstalls"),
            step("person prunes", 3),
            step("sicken"),
            step("heal"),
            step("outage"),
            step("later", 3),
            step("resume"),
            step("lose state"),
            step("watches", 2),
            step("clock goes back"),
            step("lift"),
        ),
        max_size=14,
    )


@dataclass
class Truth:
    """What an onlooker knows."""

    world: World
    seen_well: set[str] = field(default_factory=set)
    made_by_hand: set[tuple[int, str]] = field(default_factory=set)
    #: Of those, what helmops took for its own because the policy says so: it stays until the
    #: declaration changes.
    absorbed: set[tuple[int, str]] = field(default_factory=set)
    problems: list[str] = field(default_factory=list)
    agreed: bool = False
    is_by_hand: bool = False
    #: (version, artifact digest) that was said to be in quarantine, until when.
    quarantined: dict[tuple[str, str], datetime | None] = field(default_factory=dict)
    upgraded_by_helmops: set[tuple[int, str]] = field(default_factory=set)

    def watch(self) -> None:
        world = self.world
        readiness = world.checks.readiness

        async def looked(*arguments: Any, **named: Any) -> Any:
            result = await readiness(*arguments, **named)
            last = world.cluster.last(world.release)
            if result.passed and last is not None:
                self.seen_well.add(last.as_revision().digest)
            return result

        world.checks.readiness = looked  # type: ignore[method-assign]
        world.cluster.watchers.append(self._onlooker)
        world.records.reach = world.cluster.reach

    def note_quarantine(self) -> None:
        """What helmops says to be in quarantine, once saved, is never tried while that holds."""
        for saved in self.world.records.saves[-1:]:
            for entry in saved.quarantine:
                self.quarantined[entry.version, entry.digest] = entry.until

    def _is_barred(self) -> bool:
        declared = self.world.declared
        assert declared is not None
        artifact = declared.chart.artifact
        key = (artifact.version, artifact.digest)
        if key not in self.quarantined:
            return False
        until = self.quarantined[key]
        return until is None or self.world.clock.now() < until

    def is_as_declared(self) -> bool:
        """Whether the newest revision is what the declaration says."""
        head, declared = self.world.cluster.last(self.world.release), self.world.declared
        return (
            head is not None
            and declared is not None
            and head.chart is declared.chart
            and dict(head.values) == dict(declared.values)
        )

    def reverts(self, operation: str) -> bool:
        """Whether the policy says to go back from what people make."""
        declared = self.world.declared
        out_of_band = declared.template.policy.out_of_band if declared else "hold"
        return operation == "rollback" and out_of_band == "revert"

    def take_over(self) -> None:
        """A revision made by hand that is as declared when helmops looks is as good as its own."""
        head, declared = self.world.cluster.last(self.world.release), self.world.declared
        if head is None:
            return
        made = (head.number, head.as_revision().digest)
        if self.is_as_declared():
            self.made_by_hand.discard(made)
        if declared is not None and declared.template.policy.out_of_band == "absorb":
            history = self.world.record.history if known(self.world) else ()
            if history and history[0].revision == head.number:
                self.absorbed.add(made)

    def has_absorbed_the_last(self) -> bool:
        """Whether the newest revision was taken over from people."""
        head = self.world.cluster.last(self.world.release)
        return head is not None and (head.number, head.as_revision().digest) in self.absorbed

    def _onlooker(self, moment: Moment) -> None:
        acts = moment.operation in ("install", "upgrade", "rollback", "uninstall")
        self.note_quarantine()
        if not acts or self.is_by_hand:
            return
        world = self.world
        if moment.operation == "upgrade" and moment.revision:
            made = world.cluster.last(world.release)
            if made is not None:
                self.upgraded_by_helmops.add((made.number, made.as_revision().digest))
        if moment.point is not Point.STARTED:
            return
        if moment.operation == "upgrade" and self._is_barred():
            self.problems.append(f"tried {world.cluster.calls[-1].chart} again in quarantine")
        call = world.cluster.calls[-1]
        if call.operation == "rollback":
            target = next(
                r for r in world.cluster.revisions(world.release) if r.number == call.revision
            )
            if target.as_revision().digest not in self.seen_well:
                self.problems.append(f"rolled back to {call.revision}, never seen well")
            head = world.cluster.last(world.release)
            if (
                head is not None
                and head.chart.migrates
                and (head.number, head.as_revision().digest) in self.upgraded_by_helmops
            ):
                self.problems.append(f"rolled back {head.number}, past its migration")
        if call.operation == "uninstall" and not call.description.startswith("helmops: revision"):
            self.problems.append(f"uninstalled: {call.description}")
        if call.operation in ("upgrade", "rollback"):
            head = world.cluster.last(world.release)
            assert head is not None
            made = (head.number, head.as_revision().digest)
            allowed = self.agreed or self.is_as_declared() or self.reverts(call.operation)
            if made in self.made_by_hand and not allowed:
                self.problems.append(f"went over revision {head.number}, made by hand")


async def live(history: Sequence[Step], defaults: Defaults) -> Truth:
    world = World(defaults)
    truth = Truth(world)
    truth.watch()
    world.declare(CHARTS[0])
    for step in history:
        await happen(step, world, truth)
        assert not truth.problems, truth.problems
    await calm_down(world, truth)
    return truth


async def happen(step: Step, world: World, truth: Truth) -> None:
    cluster = world.cluster
    match step.what:
        case "declare":
            before = world.declared
            world.declare(CHARTS[step.number], **SPECS[step.other])
            if before is None or before.template != world.declared.template:  # type: ignore[union-attr]
                fresh = await world.records.load(world.release)
                is_held = fresh is not None and fresh.hold is not None
                # Once agreed to, it is until a person does something anew.
                truth.agreed |= is_held or truth.has_absorbed_the_last()
        case "pass":
            await one_pass(world)
            truth.take_over()
        case "settle":
            await settle(world)
            truth.take_over()
        case "crash":
            onlookers = list(cluster.watchers)
            cluster.kill_at_moment(step.number)
            await one_pass(world)
            cluster.watchers[:] = onlookers
            truth.take_over()
        case "person upgrades":
            await by_hand(world, truth, "upgrade", step)
        case "person rolls back":
            await by_hand(world, truth, "rollback", step)
        case "person uninstalls":
            await by_hand(world, truth, "uninstall", step)
        case "person prunes":
            numbers = [r.number for r in cluster.revisions(world.release)][:-1]
            for number in numbers[: step.number]:
                cluster.forget(world.release, number)
        case "sicken":
            cluster.sicken(world.release)
        case "heal":
            cluster.heal(world.release)
        case "outage":
            cluster.unreachable = world.records.is_unreachable = True
            await one_pass(world)
            cluster.unreachable = world.records.is_unreachable = False
        case "later":
            world.clock.advance(timedelta(minutes=(1, 30, 120, 60 * 24)[step.number]))
        case "resume":
            fresh = await world.records.load(world.record.release) if known(world) else None
            if fresh is not None:
                truth.agreed = True
                resumed = resume(fresh)
                if resumed.quarantine != fresh.quarantine:
                    truth.quarantined.clear()
                save_by_command(world, resumed)
        case "watches":
            world.live.tells_truth = step.number == 1
            world.live.health = LiveHealth(is_live=False) if step.number == 2 else None
        case "clock goes back":
            world.clock.advance(timedelta(minutes=-30))
        case "lift":
            fresh = await world.records.load(world.record.release) if known(world) else None
            if fresh is not None:
                truth.quarantined.clear()
                save_by_command(world, lift(fresh))
        case "lose state":
            world.journal = type(world.journal)()
            world.restart()
        case _:
            raise AssertionError(step.what)


def save_by_command(world: World, record: Record) -> None:
    """What a person's command saves is what was saved last."""
    world.records.saves.append(world.records.write_by_other(record))


def known(world: World) -> bool:
    """Whether helmops has a record of the release that is saved."""
    return world.reconciler.known.get(world.key) is not None and bool(world.record.version)


async def by_hand(world: World, truth: Truth, what: str, step: Step) -> None:
    last = world.cluster.last(world.release)
    if last is None:
        return
    minute = timedelta(minutes=1)
    truth.agreed = False
    truth.is_by_hand = True
    with contextlib.suppress(HelmError):
        if what == "upgrade":
            artifact = world.cluster.publish(CHARTS[step.number])
            await world.person.upgrade(
                world.release, artifact, {}, UpgradeSpec(), timeout=minute, description="by hand"
            )
        elif what == "rollback":
            numbers = [r.number for r in world.cluster.revisions(world.release)]
            await world.person.rollback(
                world.release,
                numbers[step.number % len(numbers)],
                RollbackSpec(),
                timeout=minute,
                description="by hand",
            )
        else:
            await world.person.uninstall(
                world.release, UninstallSpec(), timeout=minute, description="by hand"
            )
    truth.is_by_hand = False
    head = world.cluster.last(world.release)
    if head is not None and head.number > last.number:
        truth.made_by_hand.add((head.number, head.as_revision().digest))


async def one_pass(world: World) -> None:
    try:
        await world.run_pass()
    except Killed:
        world.restart()


async def settle(world: World) -> None:
    try:
        await world.settle()
    except Killed:
        world.restart()


async def calm_down(world: World, truth: Truth) -> None:
    """Once nothing goes wrong any more, helmops comes to rest, and leaves no lock behind."""
    world.cluster.unreachable = world.records.is_unreachable = False
    passed = await world.settle()
    assert not truth.problems, truth.problems
    again = await world.settle()
    runs = world.cluster.runs.copy()
    await world.run_pass()
    assert world.cluster.runs - runs == {} or isinstance(again.decision, RetryAfter)
    head = world.cluster.last(world.release)
    if head is not None and head.status.is_pending:
        # A person's helm can leave a lock, too (its hooks failed); that is left alone, and said.
        assert world.reason() == "PendingRelease", passed.decision
    assert world.record.in_flight is None or world.reason() == "PendingRelease"


#: What a person made is absorbed, and then another chart is declared.
_ABSORBED = [
    Step("pass"),
    Step("person upgrades"),
    Step("declare", 2, 8),
    Step("pass"),
    Step("declare", 1),
    Step("pass"),
]
#: What failed past a step that cannot be undone is tried again because a person says so.
_TRIED_AGAIN = [Step("pass"), Step("declare", 8), Step("pass"), Step("resume"), Step("pass")]
#: What a person made was held, and accepted; then the declaration changes once more.
_AGREED_TO = [
    Step("pass"),
    Step("person upgrades", 1),
    Step("pass"),
    Step("declare", 1),
    Step("resume"),
    Step("declare", 0),
]


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(steps())
@example(_ABSORBED)
@example(_TRIED_AGAIN)
@example(_AGREED_TO)
def test_whatever_happens_the_promises_hold_with_safe_defaults(history: list[Step]) -> None:
    asyncio.run(live(history, Defaults.SAFE))


@settings(max_examples=EXAMPLES // 2, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(steps())
def test_whatever_happens_the_rollback_target_was_seen_well_with_flux_defaults(
    history: list[Step],
) -> None:
    async def run() -> None:
        world = World(Defaults.FLUX)
        truth = Truth(world, agreed=True)
        truth.watch()
        world.declare(CHARTS[0])
        for step in history:
            await happen(step, world, truth)
            rolled = [p for p in truth.problems if p.endswith("never seen well")]
            assert not rolled, rolled
        truth.problems.clear()
        world.cluster.unreachable = world.records.is_unreachable = False
        await world.settle()

    asyncio.run(run())
