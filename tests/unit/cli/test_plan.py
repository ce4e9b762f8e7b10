from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
import yaml

from helmops.cli.app import status_of
from helmops.cli.plan import is_error
from helmops.errors import SourceUnavailable
from helmops.model.actions import Decision, ReleaseState, RetryAfter, Settled, Stalled
from tests.fakes.cluster_state import FakeChart
from tests.fakes.installation import URL, Machine
from tests.unit.reconcile.samples import chart, release, repository

Capture = pytest.CaptureFixture[str]
CHARTS = repository("charts", url=URL)
AT = datetime(2026, 1, 5, 12, 0, tzinfo=UTC)
ABSENT, IN_SYNC = ReleaseState.ABSENT, ReleaseState.IN_SYNC


@pytest.mark.parametrize(
    "decision",
    [
        RetryAfter(AT, ABSENT, "no answer", "SourceNotReady", is_blind=True),
        Stalled(ABSENT, "spec.kubeConfig", "NotSupported"),
    ],
    ids=["no-answer", "not-supported"],
)
def test_a_plan_that_is_not_to_be_had_is_an_error(decision: Decision) -> None:
    assert is_error(decision)


@pytest.mark.parametrize(
    "decision",
    [
        Settled(IN_SYNC, "as declared"),
        RetryAfter(AT, ABSENT, "waits for apps/database", "DependencyNotReady"),
        Stalled(ReleaseState.FAILED, "upgrade failed once", "RetriesExceeded"),
    ],
    ids=["settled", "waits", "failed-before"],
)
def test_waiting_or_having_failed_before_is_none(decision: Decision) -> None:
    assert not is_error(decision)


# The command


def web(version: str = "1.0.0", name: str = "web", **spec: Any) -> dict[str, Any]:
    return release(name, **{"chart": chart(chart="app", version=version), **spec})


@pytest.fixture
def offered(machine: Machine) -> Machine:
    """A repository with some charts."""
    machine.offer(
        FakeChart("app", "1.0.0"),
        FakeChart("app", "1.1.0"),
        FakeChart("app", "1.2.0", fails_upgrade=True),
    )
    return machine


def rows(capsys: Capture) -> list[list[str]]:
    return [line.split() for line in capsys.readouterr().out.splitlines()[1:]]


def test_changes_end_with_2_and_nothing_is_written(offered: Machine, capsys: Capture) -> None:
    offered.declare(CHARTS, web())
    assert status_of(["plan"]) == 2
    (row,) = rows(capsys)
    assert row[:6] == ["apps", "web", "Absent", "Install", "-", "app@1.0.0"]
    assert "there is no release apps/web; app 1.0.0; 1.0.0 is the version asked for" in " ".join(
        row
    )
    writes = {method for method, _ in offered.server.asked} - {"GET"}
    assert (writes, offered.cluster.writes) == (set(), 0)


def test_nothing_to_do_ends_with_0(offered: Machine, capsys: Capture) -> None:
    offered.declare(CHARTS, web())
    status_of(["reconcile", "-q"])
    capsys.readouterr()
    assert status_of(["plan"]) == 0
    assert rows(capsys)[0][:6] == ["apps", "web", "InSync", "-", "app@1.0.0", "-"]


def test_an_upgrade_says_from_where_to_where(offered: Machine, capsys: Capture) -> None:
    offered.declare(CHARTS, web())
    status_of(["reconcile", "-q"])
    offered.declare(CHARTS, web("1.1.0"))
    capsys.readouterr()
    assert status_of(["plan", "web"]) == 2
    assert rows(capsys)[0][3:6] == ["Upgrade", "app@1.0.0", "app@1.1.0"]


def test_a_held_release_is_no_change_and_shows_what_it_is_held_for(
    offered: Machine, capsys: Capture
) -> None:
    offered.declare(CHARTS, web("1.1.0"))
    status_of(["reconcile", "-q"])
    offered.declare(CHARTS, web("1.0.0"))
    capsys.readouterr()
    assert status_of(["plan"]) == 0
    row, line = capsys.readouterr().out.splitlines()[1:]
    assert "held: app 1.0.0 is lower than the deployed 1.1.0" in row
    assert line == "  apps/web: downgrade app from 1.1.0 to 1.0.0"


def test_what_failed_before_is_no_error_of_the_plan(offered: Machine) -> None:
    offered.declare(CHARTS, web())
    status_of(["reconcile", "-q"])
    offered.declare(CHARTS, web("1.2.0"))
    status_of(["reconcile", "-q"])
    assert status_of(["plan"]) == 0


@pytest.mark.parametrize("bad", [web(noSuchField=1), web(kubeConfig={"secretRef": {"name": "x"}})])
def test_what_cannot_be_planned_ends_with_1(offered: Machine, capsys: Capture, bad: Any) -> None:
    offered.declare(CHARTS, web(name="db"))
    assert status_of(["plan"]) == 2
    file = offered.declare(CHARTS, web(name="db"))
    file.with_name("bad.yaml").write_text(yaml.safe_dump(bad))
    capsys.readouterr()
    assert status_of(["plan"]) == 1
    assert "db" in capsys.readouterr().out, "the others are planned all the same"


@pytest.mark.parametrize("arguments", [["plan", "none"], ["plan", "-o", "none"], ["plan", "--x"]])
def test_mistakes_of_usage_end_with_1_as_well(offered: Machine, arguments: list[str]) -> None:
    offered.declare(CHARTS, web())
    assert status_of(arguments) == 1


def test_naming_one_that_cannot_be_used_tells_why(offered: Machine, capsys: Capture) -> None:
    offered.declare(CHARTS, web(noSuchField=1))
    assert status_of(["plan", "web"]) == 1
    assert "noSuchField" in capsys.readouterr().err


def test_a_source_that_fails_leaves_no_plan_for_a_new_release(
    offered: Machine, capsys: Capture
) -> None:
    offered.repositories.fail(URL, SourceUnavailable("no answer"))
    offered.declare(CHARTS, web())
    assert status_of(["plan"]) == 1
    assert "no answer" in capsys.readouterr().out


def test_programs_get_all_of_it(offered: Machine, capsys: Capture) -> None:
    offered.declare(CHARTS, release("web", chart=chart(chart="app", version="")))
    assert status_of(["plan", "-o", "json"]) == 2
    (entry,) = json.loads(capsys.readouterr().out)["releases"]
    assert entry == {
        "namespace": "apps",
        "name": "web",
        "state": "Absent",
        "action": "Install",
        "from": "-",
        "to": "app@1.2.0",
        "why": "there is no release apps/web; app 1.2.0; 1.2.0 is the newest release",
        "plan": [],
        "heldBack": [],
        "failed": False,
    }


def test_names_are_those_that_would_change(offered: Machine, capsys: Capture) -> None:
    offered.declare(CHARTS, web())
    status_of(["reconcile", "-q"])
    offered.declare(CHARTS, web(), web(name="db"))
    capsys.readouterr()
    assert status_of(["plan", "-o", "name"]) == 2
    assert capsys.readouterr().out.split() == ["db"]
