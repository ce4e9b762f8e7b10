from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from helmops.cli.app import status_of
from helmops.cli.why import explain, lines
from helmops.model.records import Hold, HoldReason
from tests.fakes.installation import Machine
from tests.unit.decide.samples import NOW, record, snapshot


def entry(version: int, verdict: str, message: str = "", **ours: Any) -> dict[str, Any]:
    return {
        "version": version,
        "chartName": "web",
        "chartVersion": f"1.{version}.0",
        "helmops": {"verdict": verdict, "message": message, "health": "passed", **ours},
    }


def told_of(manifest: dict[str, Any]) -> dict[str, Any]:
    """What people are told, by label."""
    return dict(lines(explain(manifest)))


def why(
    *history: dict[str, Any],
    ready: tuple[str, str, str] = ("True", "UpgradeSucceeded", "Upgrade succeeded"),
    conditions: tuple[dict[str, str], ...] = (),
    **ours: Any,
) -> dict[str, Any]:
    healthy = next((e for e in history if e["helmops"]["verdict"] == "healthy"), None)
    status, reason, message = ready
    condition = {"type": "Ready", "status": status, "reason": reason, "message": message}
    return told_of(
        {
            "metadata": {"namespace": "apps", "name": "shop"},
            "status": {
                "conditions": [condition, *conditions],
                "history": list(history),
                "helmops": {
                    "state": "InSync",
                    "lastHealthy": healthy
                    and {"revision": healthy["version"], "chartVersion": healthy["chartVersion"]},
                    **ours,
                },
            },
        }
    )


HOLD = {"message": "revision 2 was not made by helmops", "plan": ["values changed"]}
STALLED = {"type": "Stalled", "message": ""}


def test_a_healthy_release_waits_for_changes_and_would_go_back_to_itself() -> None:
    told = why(entry(1, "healthy"))
    assert told["release"] == "apps/shop"
    assert told["runs"] == "revision 1, web@1.1.0, healthy"
    assert told["rollback goes to"] == "revision 1 (1.1.0), seen healthy"
    assert told["next"].startswith("an upgrade when")
    assert "last failure" not in told


def test_a_failure_that_is_the_reason_is_not_told_twice() -> None:
    history = (entry(3, "healthy"), entry(2, "failed", "it crashed"), entry(1, "healthy"))
    told = why(*history, ready=("False", "RetriesExceeded", "upgrade failed once: it crashed"))
    assert told["last failure"] == "revision 2, web@1.2.0"
    told = why(*history)
    assert told["last failure"] == "revision 2, web@1.2.0: it crashed"


def test_a_held_release_says_what_going_on_would_do() -> None:
    told = why(entry(1, "healthy"), hold=HOLD)
    assert told["because"] == "held: revision 2 was not made by helmops"
    assert told["going on would"] == ["values changed"]
    assert told["next"] == "nothing before `helmops resume` or a changed declaration"


def test_a_suspended_release_is_not_woken_by_a_changed_declaration() -> None:
    told = why(entry(1, "healthy"), suspended=True, hold=HOLD)
    assert told["next"] == "nothing before `helmops resume`"
    told = why(entry(1, "healthy"), state="Suspended")
    assert told["next"] == "nothing before spec.suspend is false"


@pytest.mark.parametrize(
    ("health", "reason"),
    [
        ("passed", "nothing: no revision was seen healthy, so"),
        ("skipped", "nothing: no revision was seen healthy (disableWait is set), so"),
    ],
)
def test_without_a_healthy_revision_there_is_nowhere_to_go(health: str, reason: str) -> None:
    told = why(entry(1, "unknown", health=health))
    assert told["rollback goes to"].startswith(reason)


def test_next_comes_another_look_an_end_or_what_is_under_way() -> None:
    assert why(nextTry="2026-01-01T00:00:00Z")["next"] == "another look at 2026-01-01T00:00:00Z"
    assert why(conditions=(STALLED,))["next"].startswith("nothing before the declaration")
    assert why(conditions=({"type": "Reconciling"},))["next"].startswith("under way")


def test_a_release_that_no_pass_looked_at_says_so() -> None:
    told = told_of({"metadata": {"namespace": "apps", "name": "shop"}, "status": {}})
    assert told["because"] == "it was not passed over yet"
    assert told["state"] == "unknown"


def test_a_release_without_a_declaration_is_left_as_it_is() -> None:
    told = why(entry(1, "healthy"), removed=True)
    assert told["declaration"].startswith("gone")
    assert told["next"] == "nothing, as long as nothing declares it"


def test_a_failure_comes_with_its_evidence_and_what_cannot_be_undone() -> None:
    told = why(
        entry(3, "healthy"),
        entry(
            2,
            "failed",
            "it crashed",
            evidence={"number": 7, "summary": "pod web: exit 1\nno config"},
            barriers=["Job/migrate runs as a pre-upgrade hook"],
        ),
    )
    assert told["evidence"] == [
        "pod web: exit 1",
        "no config",
        "all of it: helmops events shop --evidence 7",
    ]
    assert told["cannot be undone"] == ["Job/migrate runs as a pre-upgrade hook"]


def test_what_a_rule_keeps_back_is_told_with_when_it_is_tried_next() -> None:
    entries = [
        {"version": "2.1.0", "at": "2026-01-05T12:00:00Z", "why": "it crashed", "until": None},
        {"version": "2.0.0", "at": "2026-01-05T12:00:00Z", "why": "503", "until": "tomorrow"},
    ]
    told = why(
        entry(1, "healthy"),
        quarantine=entries,
        heldBack=["3.0.0: upgrade.allow is minor", "2.1.0: in quarantine"],
    )
    first, second, third = told["kept back"]
    assert first.startswith("2.1.0: in quarantine since 2026-01-05T12:00:00Z: it crashed, next")
    assert "quarantine lift" in first
    assert second.endswith("next tried tomorrow")
    assert third == "3.0.0: upgrade.allow is minor"


def test_no_more_is_told_than_fits_on_a_screen() -> None:
    told = why(entry(1, "healthy"), heldBack=[f"2.{n}.0: too far" for n in range(40)])
    assert len(told["kept back"]) == 6
    assert told["kept back"][-1] == "and 35 more"


def test_health_that_was_lost_is_told() -> None:
    told = why(entry(1, "healthy"), healthLost={"at": "noon", "message": "not ready"})
    assert told["health"] == "lost since noon: not ready"


# The command


HELD = record(
    snapshot(),
    state="Diverged",
    hold=Hold(HoldReason.DIVERGED, "by hand", NOW, "declared", plan=("one", "two")),
)


def test_it_is_told_in_lines_with_their_labels_in_front(
    machine: Machine, capsys: pytest.CaptureFixture[str]
) -> None:
    asyncio.run(machine.keep(HELD))
    assert status_of(["why", "web"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["release", "apps/web"]
    at = next(number for number, line in enumerate(lines) if line.startswith("going on would"))
    first, second = lines[at : at + 2]
    assert first.split()[-1] == "one"
    assert second.split() == ["two"]
    assert second.index("two") == first.index("one"), "below one another"


def test_programs_get_it_by_label(machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    asyncio.run(machine.keep(HELD))
    assert status_of(["why", "apps/web", "-o", "json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["release"], told["state"]) == ("apps/web", "Diverged")
    assert told["hold"] == {"reason": "RevisionMadeByHand", "wouldDo": ["one", "two"]}
    assert told["ready"]["status"] == "Unknown"


def test_a_release_that_nobody_knows_is_said(
    machine: Machine, capsys: pytest.CaptureFixture[str]
) -> None:
    assert status_of(["why", "none"]) == 1
    assert "there is no release apps/none" in capsys.readouterr().err
