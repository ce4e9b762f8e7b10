from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from helmops.decide.ledger import NOTHING_SAID, SCHEDULE, Said, entered, entries_between
from helmops.model.actions import (
    Action,
    Adopt,
    CheckHealth,
    Done,
    GatherEvidence,
    HookOutcome,
    HookPoint,
    Inspect,
    Install,
    KeepCopy,
    Outcome,
    Prune,
    PutBack,
    ReleaseState,
    Rollback,
    Run,
    RunHooks,
    RunTests,
    Uninstall,
    Unlock,
    Upgrade,
)
from helmops.model.health import CheckResult
from helmops.model.ledger import Draft, EntryKind, KeptEntry
from helmops.model.records import (
    EvidenceNote,
    Handled,
    HealthLost,
    Hold,
    HoldReason,
    InFlight,
    Proof,
    Quarantined,
    Record,
    Snapshot,
    Suspension,
)
from helmops.model.releases import DeclarationKey, ReleaseId, TestHook, TestPhase
from tests.unit.decide.samples import KEY, MINUTE, NOW, RELEASE, SECOND, revision, snapshot
from tests.unit.decide.samples import record as a_record
from tests.unit.decide.samples import target as a_target

TARGET = a_target()
DOOMED = "swordfish-9000"


def record(history: tuple[Snapshot, ...] | None = None, **more: Any) -> Record:
    return a_record(*((snapshot(),) if history is None else history), **more)


def outcome(succeeded: bool = True, **more: Any) -> Outcome:
    fields: dict[str, Any] = {"started": NOW, "finished": NOW + 3 * SECOND, "reason": "Tested"}
    return Outcome(succeeded, **fields | more)


def said(action: Action | None = None, *, by: str = "", **more: Any) -> Said:
    step = Done(action, outcome(**more)) if action is not None else None
    why = Run(action or Prune(()), ReleaseState.OUT_OF_SYNC, "app 1.0.0 is to become 1.1.0")
    return Said(step, why, by)


def told(old: Record | None, new: Record, what: Said = NOTHING_SAID) -> list[tuple[str, str]]:
    return [(d.kind.value, d.reason) for d in entries_between(old, new, what, NOW)]


def only(old: Record | None, new: Record, what: Said = NOTHING_SAID) -> Draft:
    (draft,) = entries_between(old, new, what, NOW)
    return draft


def entries(of: Record) -> tuple[KeptEntry, ...]:
    assert of.ledger is not None
    return of.ledger.entries()


# What makes an entry, and what does not


def test_what_is_the_same_has_no_entry() -> None:
    known = record()
    assert told(known, known) == []
    assert entered(known, known, said(), NOW) is known


@pytest.mark.parametrize(
    "changes",
    [
        {"updated_at": NOW},
        {"next_try": NOW},
        {"in_flight": InFlight("upgrade", 1, NOW)},
        {"held_back": ("2.0.0: too new",)},
        {"handled": Handled(reconcile="now")},
        {"state": "InSync"},
        {"origin": "elsewhere.yaml:7"},
    ],
)
def test_what_is_only_bookkeeping_has_no_entry(changes: dict[str, Any]) -> None:
    assert told(record(), record().evolve(**changes)) == []


def test_a_first_sight_is_declared() -> None:
    draft = only(None, record(history=(), declaration_digest="d" * 64, generation=1))
    assert (draft.kind, draft.reason) == (EntryKind.DECLARED, "Declared")
    assert draft.details["declared"]["digest"] == "sha256:" + "d" * 64
    assert (draft.declaration, draft.release, draft.at) == (KEY, RELEASE, NOW)


def test_another_content_of_the_declaration_is_told_with_both_digests() -> None:
    old = record(declaration_digest="a" * 64, generation=1)
    draft = only(old, old.evolve(declaration_digest="b" * 64, generation=2, origin="app.yaml:3"))
    assert draft.reason == "DeclarationChanged"
    assert draft.details["declared"] == {
        "digest": "sha256:" + "b" * 64,
        "before": "sha256:" + "a" * 64,
        "generation": 2,
    }
    assert draft.origin == "app.yaml:3"


def test_another_name_of_the_declaration_is_told() -> None:
    draft = only(record(), record().evolve(key=DeclarationKey("apps", "shop")))
    assert draft.message == "the declaration is apps/shop now, it was apps/web"


def test_a_declaration_that_goes_and_comes_back_is_told() -> None:
    known = record()
    gone = known.evolve(removed=True)
    assert told(known, gone) == [("undeclared", "DeclarationRemoved")]
    assert told(gone, gone) == []
    assert told(gone, known) == [("declared", "DeclarationChanged")]


ACTIONS: list[tuple[Action, dict[str, Any]]] = [
    (Install(TARGET), {}),
    (Upgrade(TARGET, "1.0.0"), {"from": "1.0.0"}),
    (Upgrade(TARGET), {}),
    (Adopt(revision(3), TARGET, True), {"revision": 3, "onlyIfSame": True}),
    (RunTests(4), {"revision": 4}),
    (CheckHealth(4, (), True), {"revision": 4}),
    (Rollback(2, "d2"), {"to": 2, "digest": "sha256:d2", "isRemediation": True}),
    (Uninstall(RELEASE, "gone"), {"release": "apps/web", "why": "gone"}),
    (Unlock(5, is_foreign=True), {"revision": 5, "isForeign": True}),
    (RunHooks(HookPoint.FAILED, (), 5), {"point": "failed"}),
    (Prune((1, 2)), {"revisions": [1, 2]}),
    (Inspect(TARGET, revision(2)), {"revision": 2}),
    (GatherEvidence(6, None), {"revision": 6}),
    (KeepCopy(6, "d6"), {"revision": 6, "digest": "sha256:d6"}),
    (PutBack(6, "d6"), {"revision": 6, "digest": "sha256:d6"}),
]


@pytest.mark.parametrize(("action", "arguments"), ACTIONS, ids=lambda each: type(each).__name__)
@pytest.mark.parametrize("succeeded", [True, False])
def test_every_action_has_an_entry_whatever_came_of_it(
    action: Action, arguments: dict[str, Any], succeeded: bool
) -> None:
    known = record()
    draft = only(known, known, said(action, succeeded=succeeded, message="so it went"))
    assert draft.kind is EntryKind.ACTION
    assert draft.message == "so it went"
    assert draft.rule == "app 1.0.0 is to become 1.1.0"
    assert draft.details["action"] == {
        "name": type(action).__name__,
        "succeeded": succeeded,
        "milliseconds": 3000,
        **arguments,
    }


def test_an_upgrade_tells_the_version_the_choice_and_all_digests() -> None:
    chosen = replace(TARGET, choice="the newest in ~1.0", held_back=("2.0.0: a new major",))
    new = record().evolve(declaration_digest="dd")
    draft = only(new, new, said(Upgrade(chosen)))
    assert draft.details["chart"] == f"{TARGET.chart.name}@{TARGET.chart.version}"
    assert draft.details["versions"] == {
        "chosen": TARGET.chart.version,
        "choice": "the newest in ~1.0",
        "heldBack": ["2.0.0: a new major"],
    }
    digests = draft.details["digests"]
    assert digests["config"] == f"sha256:{TARGET.config_digest}"
    assert digests["artifact"] == f"sha256:{TARGET.chart.digest}"
    assert digests["declaration"] == "sha256:dd"
    assert len(digests["plan"]) == 71


def test_the_digest_of_a_plan_is_another_for_other_values_charts_and_places() -> None:
    def plan(action: Action, known: Record) -> str:
        digest: str = only(known, known, said(action)).details["digests"]["plan"]
        return digest

    known = record()
    other = replace(TARGET, config_digest="other")
    elsewhere = known.evolve(history=(snapshot(revision(9)),))
    plans = [
        plan(Upgrade(TARGET), known),
        plan(Upgrade(other), known),
        plan(Install(TARGET), known),
        plan(Upgrade(TARGET), elsewhere),
    ]
    assert len(set(plans)) == 4
    assert plan(Upgrade(TARGET), known) == plans[0]


def test_output_is_told_by_its_digest_alone() -> None:
    draft = only(record(), record(), said(RunTests(1), output=f"all about {DOOMED}"))
    assert draft.details["action"]["output"].startswith("sha256:")
    assert DOOMED not in draft.content("c", 1, "")


def test_checks_hooks_tests_and_evidence_are_told() -> None:
    head = snapshot(revision(tests=(TestHook("smoke", TestPhase.FAILED),)), tests=Proof.FAILED)
    known = record(history=(replace(head, tests=Proof.FAILED),))
    draft = only(
        known,
        known,
        said(
            RunTests(1),
            checks=(CheckResult("readiness", True, ""), CheckResult("http", False, "answered 500")),
            hooks=(HookOutcome("backup", True, "done", output=DOOMED),),
            evidence=EvidenceNote(7, "it crashed", "ee"),
        ),
    )
    assert draft.details["checks"] == [
        {"name": "readiness", "passed": True, "message": ""},
        {"name": "http", "passed": False, "message": "answered 500"},
    ]
    assert draft.details["hooks"] == [{"name": "backup", "succeeded": True, "message": "done"}]
    assert draft.details["tests"] == [{"name": "smoke", "phase": "Failed"}]
    assert draft.details["evidence"] == {"number": 7, "digest": "sha256:ee"}
    assert DOOMED not in draft.content("c", 1, "")


def test_the_revision_that_an_action_made_is_in_its_entry() -> None:
    old = record(history=())
    new = old.evolve(history=(snapshot(revision(1), health=Proof.PENDING),))
    action, *rest = entries_between(old, new, said(Install(TARGET)), NOW)
    assert action.details["revision"]["number"] == 1
    assert action.details["revision"]["verdict"] == "unknown"
    assert rest == []


def test_another_look_inside_the_window_has_an_entry_only_when_it_finds_something() -> None:
    known = record()
    look = CheckHealth(1, (), True, is_rewatch=True)
    assert told(known, known, said(look)) == []
    assert told(known, known, said(look, succeeded=False)) == [("action", "Tested")]


# Verdicts


@pytest.mark.parametrize(
    ("before", "after", "reason"),
    [
        (Proof.PENDING, Proof.PASSED, "SeenHealthy"),
        (Proof.PENDING, Proof.FAILED, "SeenFailed"),
        (Proof.PASSED, Proof.FAILED, "SeenFailed"),
        (Proof.PASSED, Proof.PENDING, "SeenUnknown"),
    ],
)
def test_a_verdict_that_changes_is_told_with_the_digest_and_what_it_was(
    before: Proof, after: Proof, reason: str
) -> None:
    old = record(history=(snapshot(health=before),))
    new = old.with_head(health=after)
    draft = only(old, new)
    assert (draft.kind, draft.reason) == (EntryKind.VERDICT, reason)
    assert old.head is not None
    assert draft.details["revision"]["was"] == old.head.verdict.value
    assert draft.details["revision"]["digest"] == f"sha256:{old.head.digest}"


def test_each_revision_is_judged_by_itself_and_told_oldest_first() -> None:
    first, second = snapshot(revision(1)), snapshot(revision(2))
    old = record(history=())
    drafts = entries_between(old, old.evolve(history=(second, first)), NOTHING_SAID, NOW)
    assert [d.details["revision"]["number"] for d in drafts] == [1, 2]


def test_a_reinstalled_revision_of_the_same_number_is_another_one() -> None:
    old = record(history=(snapshot(revision(1)),))
    again = snapshot(replace(revision(1), last_deployed=NOW))
    assert told(old, old.evolve(history=(again,))) == [("verdict", "SeenHealthy")]


def test_health_that_is_lost_and_comes_back_is_told() -> None:
    known = record()
    lost = known.evolve(lost=HealthLost("Deployment/web: 0 of 1 ready", NOW))
    assert told(known, lost) == [("health-lost", "HealthLost")]
    assert (
        told(lost, lost.evolve(lost=HealthLost("Deployment/web: 0 of 1 ready", NOW + SECOND))) == []
    )
    assert told(lost, known) == [("health-back", "HealthBack")]


# What follows


def hold(reason: HoldReason = HoldReason.DIVERGED, subject: str = "2:d2", **more: Any) -> Hold:
    return Hold(reason, "made by hand", NOW, "declared", subject, **more)


def test_holds_are_told_once_with_their_plan() -> None:
    known = record()
    held = known.evolve(hold=hold(plan=("change Deployment/web",)))
    draft = only(known, held)
    assert (draft.kind, draft.reason) == (EntryKind.HELD, "RevisionMadeByHand")
    assert draft.details["plan"] == ["change Deployment/web"]
    assert draft.details["digests"]["plan"].startswith("sha256:")
    assert told(held, held.evolve(hold=hold())) == []
    other = held.evolve(hold=hold(subject="3:d3"))
    assert told(held, other) == [("held", "RevisionMadeByHand")]


def test_a_hold_that_is_lifted_says_what_was_accepted() -> None:
    held = record(hold=hold())
    draft = only(held, held.evolve(hold=None, accepted="RevisionMadeByHand:2:d2"))
    assert draft.kind is EntryKind.HOLD_LIFTED
    assert draft.details["accepted"] == "RevisionMadeByHand:2:d2"


def test_suspension_names_the_person_who_said_so() -> None:
    known = record()
    suspended = known.evolve(suspended=Suspension(NOW, "ada@laptop"))
    assert only(known, suspended).by == "ada@laptop"
    assert told(suspended, known) == [("resumed", "Resumed")]


def test_forgetting_failures_is_told() -> None:
    known = record()
    assert told(known, known.evolve(handled=Handled(reset="t1"))) == [
        ("reset", "FailuresForgotten")
    ]


def quarantined(version: str = "1.1.0", **more: Any) -> Quarantined:
    return Quarantined("web", version, "aa", "release", NOW, "it failed", **more)


def test_quarantine_put_on_lifted_and_over_is_told() -> None:
    known = record()
    put = known.evolve(quarantine=(quarantined(until=NOW + MINUTE),))
    draft = only(known, put)
    assert (draft.kind, draft.reason) == (EntryKind.QUARANTINED, "Quarantined")
    assert draft.details["quarantine"]["chart"] == "web@1.1.0"
    assert told(put, put) == []
    assert told(put, known) == [("quarantine-lifted", "QuarantineLifted")]
    (over,) = entries_between(put, known, NOTHING_SAID, NOW + 2 * MINUTE)
    assert over.reason == "QuarantineOver"
    more = put.evolve(quarantine=(*put.quarantine, quarantined("1.2.0")))
    assert told(put, more) == [("quarantined", "Quarantined")]


@pytest.mark.parametrize("by", ["", "ada@laptop", "annotation"])
def test_every_entry_says_who_asked(by: str) -> None:
    old, new = record(), record(hold=hold())
    assert only(old, new, said(by=by)).by == (by or SCHEDULE)


def test_a_change_of_state_is_told_with_what_came_of_it() -> None:
    old = record(state="OutOfSync")
    draft = only(old, old.evolve(state="InSync", hold=hold()))
    assert draft.details["state"] == {"from": "OutOfSync", "to": "InSync"}


def test_what_happened_together_is_told_in_its_order() -> None:
    old = record(history=(), declaration_digest="a")
    new = old.evolve(
        declaration_digest="b", history=(snapshot(),), hold=hold(), quarantine=(quarantined(),)
    )
    kinds = [kind for kind, _ in told(old, new, said(Install(TARGET)))]
    assert kinds == ["declared", "action", "verdict", "quarantined", "held"]


# After a crash


def in_flight(**more: Any) -> InFlight:
    return InFlight("upgrade", 1, NOW, chart_name="web", chart_version="1.1.0", **more)


def test_an_action_whose_end_nobody_saw_is_told_by_what_it_left() -> None:
    old = record(in_flight=in_flight(config_digest="cc", holder="node/7"))
    made = snapshot(revision(2, version="1.1.0"), health=Proof.PENDING)
    draft = only(old, old.evolve(in_flight=None, history=(made, *old.history)))
    assert draft.kind is EntryKind.INTERRUPTED
    assert draft.message == "the upgrade was not seen to end; revision 2 is deployed"
    assert draft.details["chart"] == "web@1.1.0"
    assert draft.details["digests"] == {"config": "sha256:cc"}
    assert draft.details["action"]["by"] == "node/7"


def test_one_that_left_nothing_is_told_too() -> None:
    old = record(in_flight=in_flight())
    assert "it left no revision" in only(old, old.evolve(in_flight=None)).message
    again = old.evolve(in_flight=replace(in_flight(), at=NOW + MINUTE))
    assert told(old, again) == [("interrupted", "Interrupted")]


def test_an_action_that_was_seen_to_end_is_not_told_twice() -> None:
    old = record(in_flight=in_flight())
    new = old.evolve(in_flight=None)
    assert told(old, new, said(Upgrade(TARGET))) == [("action", "Tested")]
    assert told(old, new, said(Unlock(2))) == [("interrupted", "Interrupted"), ("action", "Tested")]


# The chain


def test_entries_go_on_from_what_the_record_secret_holds() -> None:
    first = entered(None, record(history=()), NOTHING_SAID, NOW)
    second = entered(first, first.evolve(suspended=Suspension(NOW, "ada")), NOTHING_SAID, NOW)
    ledger = second.ledger
    assert ledger is not None
    assert [e.number for e in ledger.entries()] == [1, 2]
    assert ledger.chain == entries(first)[0].chain


def test_whoever_lost_a_race_writes_after_the_one_who_won() -> None:
    base = entered(None, record(history=()), NOTHING_SAID, NOW)
    person = entered(base, base.evolve(suspended=Suspension(NOW, "ada")), NOTHING_SAID, NOW)
    ours = base.evolve(hold=hold())
    lost = entered(base, ours, NOTHING_SAID, NOW)
    merged = ours.evolve(suspended=person.suspended)
    won = entered(person, merged, NOTHING_SAID, NOW)
    assert [e.entry["kind"] for e in entries(lost)] == ["declared", "held"]
    assert [e.entry["kind"] for e in entries(won)] == ["declared", "suspended", "held"]
    assert entries(won)[:2] == entries(person)


def test_what_cannot_be_carried_through_again_and_again_is_told_once() -> None:
    known = entered(None, record(history=()), NOTHING_SAID, NOW)
    locked = said(Upgrade(TARGET), succeeded=False, undetermined=True, reason="PendingRelease")
    for minutes in range(5):
        known = entered(known, known, locked, NOW + minutes * MINUTE)
    assert [e.entry["kind"] for e in entries(known)] == ["declared", "action"]
    unreachable = said(Upgrade(TARGET), succeeded=False, undetermined=True, reason="Unreachable")
    known = entered(known, known, unreachable, NOW)
    known = entered(known, known, said(Upgrade(TARGET), succeeded=False), NOW)
    known = entered(known, known, said(Upgrade(TARGET), succeeded=False), NOW)
    assert len(entries(known)) == 5, "what was carried through and failed counts each time"


def test_the_last_entry_of_a_chain_is_written_once() -> None:
    known = entered(None, record(history=()), NOTHING_SAID, NOW)
    ended = entered(known, known, Said(end="uninstalled"), NOW)
    assert entries(ended)[-1].entry["kind"] == "ended"
    assert entered(ended, ended, Said(end="uninstalled"), NOW) is ended


def test_a_release_that_comes_back_begins_a_chain_that_follows_the_old_one() -> None:
    known = entered(None, record(history=()), NOTHING_SAID, NOW)
    ended = entered(known, known, Said(end="uninstalled"), NOW)
    back = entered(ended, ended.evolve(declaration_digest="new"), NOTHING_SAID, NOW)
    assert ended.ledger is not None
    assert back.ledger is not None
    (first,) = entries(back)
    assert first.number == 1
    assert first.chain != ended.ledger.chain
    assert first.entry["follows"] == {
        "chain": ended.ledger.chain,
        "number": 2,
        "hash": ended.ledger.hash,
    }


def test_a_release_that_moved_begins_a_chain_of_its_own() -> None:
    known = entered(None, record(history=()), NOTHING_SAID, NOW)
    moved = known.evolve(release=ReleaseId("other", "web"), ledger=None)
    there = entered(known, moved.evolve(key=DeclarationKey("other", "web")), NOTHING_SAID, NOW)
    assert known.ledger is not None
    assert there.ledger is not None
    assert there.ledger.chain != known.ledger.chain


def test_no_value_of_the_declaration_gets_into_an_entry() -> None:
    planted = {"spec": {"values": {"password": DOOMED}}}
    old = record(history=())
    new = record(
        manifest=planted,
        policy=planted,
        declaration_digest="d",
        location=f"https://me:{DOOMED}@git.example.com",
        history=(snapshot(),),
    )
    secret = replace(TARGET, values={"password": DOOMED})
    for action in (Install(secret), Upgrade(secret), Adopt(revision(), secret, True)):
        made = entered(old, new, said(action, output=DOOMED), NOW)
        assert made.ledger is not None
        assert DOOMED not in json.dumps(made.ledger.recent)


def test_entries_say_when_they_happened() -> None:
    made = entered(None, record(history=()), NOTHING_SAID, NOW + timedelta(microseconds=7))
    assert entries(made)[0].at == NOW + timedelta(microseconds=7)
