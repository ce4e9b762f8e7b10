"""All cases: what is done, at which moment, in which phase, with which helm."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from tests.chaos import disturbances
from tests.chaos.bench import Expected
from tests.chaos.disturbances import AFTER, BEFORE, BOTH, HELM, HELMOPS, MIDDLE, Disturbance
from tests.e2e.phases import PHASES, Phase

HELMS = ("helm 4", "helm 3")
#: So many broken-off attempts in a row count as a failure of the release.
_ENOUGH = 3


@dataclass(frozen=True)
class Case:
    """One case; `what` and `phase` are its row and its column in the table."""

    what: str
    phase: str
    helm: str
    expected: Expected
    disturb: Disturbance = field(repr=False)

    @property
    def name(self) -> str:
        return f"{self.phase}: {self.what} ({self.helm})"


def all_cases() -> tuple[Case, ...]:
    """Every case, in the order of the table."""
    return (
        *_kills_in_the_middle(),
        *_kills_at_the_edges(),
        *_kills_of_a_service(),
        *_kills_again_and_again(),
        *_kills_at_any_time(),
        *_troubles_of_the_way(),
    )


_VICTIMS = {HELMOPS: "helmops killed", HELM: "helm killed", BOTH: "helmops and helm killed"}


def _kills_in_the_middle() -> Iterator[Case]:
    for victim, what in _VICTIMS.items():
        for name, phase in PHASES.items():
            for helm in HELMS:
                yield Case(
                    f"{what} in the middle",
                    name,
                    helm,
                    _after(phase, phase.broken_off, begins=2),
                    disturbances.killed(victim, MIDDLE),
                )


def _kills_at_the_edges() -> Iterator[Case]:
    for moment, when in ((BEFORE, "before helm begins"), (AFTER, "after helm has ended")):
        for victim, helm in ((HELMOPS, "helm 4"), (HELM, "helm 3")):
            for name, phase in PHASES.items():
                # A test that nobody saw the end of is run again.
                begins = 2 if (name, moment) == ("test", AFTER) else 1
                yield Case(
                    f"{_VICTIMS[victim]} {when}",
                    name,
                    helm,
                    _after(phase, phase.whole, begins=begins),
                    disturbances.killed(victim, moment),
                )


def _kills_of_a_service() -> Iterator[Case]:
    for number, (name, phase) in enumerate(PHASES.items()):
        yield Case(
            "the service killed, and started again",
            name,
            HELMS[number % 2],
            _after(phase, phase.broken_off, begins=2),
            disturbances.service_killed((HELMOPS, BOTH)[number % 2]),
        )


def _kills_again_and_again() -> Iterator[Case]:
    """One kill less than counts as a failure, so the operation comes to its end."""
    for number, (name, phase) in enumerate(PHASES.items()):
        if name == "install":
            continue  # what comes after a broken-off install is an upgrade
        times = _ENOUGH - 1
        revisions = dict(phase.broken_off)
        if revisions not in (phase.whole, {}):
            last = max(revisions)
            revisions |= {last: "failed", last + 1: "deployed"}
        yield Case(
            f"both killed {times} times",
            name,
            HELMS[number % 2],
            _after(phase, revisions, begins=times + 1),
            disturbances.killed_again_and_again(times),
        )


def _kills_at_any_time() -> Iterator[Case]:
    for number, tenths in enumerate((10, 15, 20, 30)):
        for name in ("upgrade", "rollback"):
            yield Case(
                f"helmops killed {tenths / 10:.1f} s after its start",
                name,
                HELMS[number % 2],
                replace(_after(PHASES[name], None), begins=None),
                disturbances.killed_at(tenths / 10),
            )


def _troubles_of_the_way() -> Iterator[Case]:
    troubles = {
        "API server away for 2 s": disturbances.api_server_away(2),
        "API server away for 12 s": disturbances.api_server_away(12),
        "connections cut for 3 s": disturbances.connections_cut(3),
        "connections stalled for 8 s": disturbances.connections_stalled(8),
        "connections reset every second": disturbances.connections_flaky(6),
    }
    for row, (what, disturbance) in enumerate(troubles.items()):
        for column, (name, phase) in enumerate(PHASES.items()):
            # helm may come through, or break off, as it likes: that much is not ours to say.
            yield Case(what, name, HELMS[(row + column) % 2], _after(phase, None), disturbance)


def _after(phase: Phase, revisions: dict[int, str] | None, begins: int | None = None) -> Expected:
    if phase.content is None:
        revisions = {}
    return Expected(revisions, phase.content, phase.ends_ready, begins)
