"""`make chaos` has the cases that it promises; running them takes it a quarter of an hour."""

from __future__ import annotations

from tests.chaos import report
from tests.chaos.cases import HELMS, all_cases
from tests.chaos.judge import Kind, Problem
from tests.e2e.phases import PHASES


def test_there_are_more_than_sixty_and_each_has_a_name() -> None:
    names = [case.name for case in all_cases()]
    assert len(names) == len(set(names)) >= 60


def test_each_phase_is_killed_in_with_either_helm() -> None:
    for what in ("helmops killed", "helm killed", "helmops and helm killed"):
        found = {
            (case.phase, case.helm) for case in all_cases() if case.what == f"{what} in the middle"
        }
        assert found == {(phase, helm) for phase in PHASES for helm in HELMS}


def test_the_table_counts_what_ended_well() -> None:
    case = next(case for case in all_cases() if case.phase == "upgrade")
    good = report.Result(case, [], 1.0)
    bad = report.Result(case, [Problem(Kind.STUCK, "it is"), Problem(Kind.STUCK, "still")], 1.0)
    assert "1/2" in report.table([good, bad])
    assert "2 cases in 1.0 minutes: 1 stuck releases, 0 wrong" in report.summary([good, bad], 60)
