from __future__ import annotations

import itertools
import json
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from helmops.model.records import (
    Absorbed,
    CheckRecord,
    Condition,
    ConditionStatus,
    EvidenceNote,
    Handled,
    HealthLost,
    Hold,
    HoldReason,
    HookRecord,
    Inspected,
    KeptCopy,
    Origin,
    Proof,
    Quarantined,
    Record,
    Suspension,
    Verdict,
)
from helmops.model.releases import HelmStatus, TestHook, TestPhase
from tests.unit.decide.samples import (
    KEY,
    NOW,
    RELEASE,
    attempt,
    failed,
    in_flight,
    record,
    revision,
    snapshot,
)

ONE = revision(1)
SECRET = "correct-horse-battery-staple"

# Verdicts


def test_healthy_takes_all_the_proof_that_was_asked_for_and_readiness_in_any_case() -> None:
    for released, health, tests, watched in itertools.product(Proof, repeat=4):
        proven = (
            released is Proof.PASSED
            and health is Proof.PASSED
            and tests in (Proof.PASSED, Proof.SKIPPED)
            and watched is not Proof.PENDING
        )
        has_failed = Proof.FAILED in (released, health, tests, watched)
        expected = Verdict.HEALTHY if proven else Verdict.UNKNOWN
        known = snapshot(released=released, health=health, tests=tests, watched=watched)
        assert known.verdict is (Verdict.FAILED if has_failed else expected), known


def test_a_snapshot_is_of_a_revision_with_its_content_number_and_moment() -> None:
    known = snapshot(ONE)
    assert known.is_of(ONE)
    assert known.is_of(replace(ONE, status=HelmStatus.SUPERSEDED, description="rewritten"))
    assert not known.is_of(replace(ONE, number=2))
    assert not known.is_of(replace(ONE, digest="other"))
    assert not known.is_of(replace(ONE, last_deployed=NOW))


def test_the_chart_is_named_as_flux_does() -> None:
    assert snapshot(ONE).versioned_chart == "web@1.0.0"


# What a record knows


HISTORY = (
    failed(revision(4)),
    snapshot(revision(3), health=Proof.SKIPPED),
    snapshot(revision(2), Origin.UPGRADE),
    snapshot(ONE),
)


def test_the_last_healthy_revision_is_the_newest_that_was_seen_healthy() -> None:
    known = record(*HISTORY)
    assert known.head == HISTORY[0]
    assert known.last_healthy == HISTORY[2]
    assert known.healthy_digests == {"d1", "d2"}


def test_without_history_there_is_neither() -> None:
    assert (record().head, record().last_healthy) == (None, None)
    assert record().healthy_digests == frozenset()


def with_ready(status: ConditionStatus, **other: Any) -> Record:
    return record(conditions=(Condition("Ready", status, "r", "m", NOW),), **other)


def test_ready_is_about_the_declaration_as_it_is_now() -> None:
    assert with_ready(ConditionStatus.TRUE).is_ready()
    assert not with_ready(ConditionStatus.TRUE, generation=2).is_ready()
    assert not with_ready(ConditionStatus.FALSE).is_ready()
    assert not with_ready(ConditionStatus.UNKNOWN).is_ready()
    assert not record().is_ready()


def test_a_change_of_the_newest_revision_leaves_the_others_alone() -> None:
    changed = record(*HISTORY).with_head(message="other")
    assert changed.history[0].message == "other"
    assert changed.history[1:] == HISTORY[1:]


# As JSON


FULL = record(
    *HISTORY,
    snapshot(
        revision(tests=(TestHook("t", TestPhase.FAILED, NOW, NOW), TestHook("never"))),
        tests=Proof.FAILED,
        watched_until=NOW,
        hooks_run=("failed",),
        evidence=EvidenceNote(3, "it crashed"),
        barriers=("a job ran",),
    ),
    version="7",
    manifest={"spec": {"values": {"password": SECRET}}},
    origin="web.yaml:3",
    location="/declarations",
    failures=3,
    install_failures=1,
    upgrade_failures=2,
    rollback_failures=1,
    interruptions=1,
    attempt=attempt(version="2.0.0", error="it broke", reason="UpgradeFailed", seconds=1.5),
    in_flight=in_flight(),
    suspended=Suspension(NOW, "ada"),
    hold=Hold(HoldReason.DIVERGED, "by hand", NOW, "declared", "2:d2", ("a", "b")),
    accepted="x:y",
    handled=Handled("r1", "f1", "s1"),
    prune=True,
    removed=True,
    state="Failed",
    conditions=(Condition("Ready", ConditionStatus.FALSE, "r", "m", NOW, 1),),
    checks=(CheckRecord("smoke", False, "503", NOW),),
    hooks=(HookRecord("dump", "failed", NOW, True, "done", "a line\n"),),
    next_try=NOW,
    held_back=("3.0.0: too far",),
    quarantine=(Quarantined("web", "2.0.0", "abc", "chart", NOW, "it broke", None, "ada"),),
    kept=KeptCopy(2, "d2"),
    lost=HealthLost("not ready", NOW),
    inspected=Inspected("d2", "abc", "values", ("a job runs",)),
    absorbed=Absorbed("d2", "1.0.0", "values"),
    updated_at=NOW + timedelta(microseconds=123456),
)


def test_a_record_comes_back_whole_but_for_its_version() -> None:
    assert Record.from_json(FULL.to_json(), version="8") == FULL.evolve(version="8")


def test_the_version_is_not_part_of_what_is_kept() -> None:
    assert FULL.to_json() == FULL.evolve(version="9").to_json()


def test_a_field_of_a_later_helmops_is_passed_over() -> None:
    later = {**json.loads(FULL.to_json()), "invented_later": {"a": 1}}
    assert Record.from_json(json.dumps(later).encode()) == FULL.evolve(version="")


def test_a_record_of_an_earlier_helmops_lacks_what_has_a_default() -> None:
    early = {
        "key": {"namespace": "apps", "name": "web"},
        "release": json.loads(FULL.to_json())["release"],
    }
    assert Record.from_json(json.dumps(early).encode()) == Record(key=KEY, release=RELEASE)


@pytest.mark.parametrize("text", [b"", b"{}", b"[]", b'{"key": 1}', b"\xff"])
def test_what_is_no_record_is_a_value_error(text: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        Record.from_json(text)


# As status


def test_the_status_has_fluxs_fields() -> None:
    status = FULL.public_status()
    assert status["observedGeneration"] == 1
    assert status["storageNamespace"] == "apps"
    assert status["conditions"] == [
        {
            "type": "Ready",
            "status": "False",
            "reason": "r",
            "message": "m",
            "lastTransitionTime": "2026-01-05T12:00:00Z",
            "observedGeneration": 1,
        }
    ]
    assert (status["failures"], status["installFailures"], status["upgradeFailures"]) == (3, 1, 2)
    assert {key: value for key, value in status.items() if key.startswith("last")} == {
        "lastAttemptedGeneration": 1,
        "lastAttemptedReleaseAction": "upgrade",
        "lastAttemptedReleaseActionDuration": "1.500s",
        "lastAttemptedRevision": "2.0.0",
        "lastAttemptedRevisionDigest": "sha256:artifact 2.0.0",
        "lastAttemptedConfigDigest": "sha256:values",
        "lastHandledReconcileAt": "r1",
        "lastHandledForceAt": "f1",
        "lastHandledResetAt": "s1",
    }


def test_its_history_is_fluxs_with_what_was_seen() -> None:
    entry = FULL.public_status()["history"][-1]
    assert entry["testHooks"] == {
        "t": {
            "phase": "Failed",
            "lastStarted": "2026-01-05T12:00:00Z",
            "lastCompleted": "2026-01-05T12:00:00Z",
        },
        "never": {"phase": ""},
    }
    assert entry["helmops"] == {
        "verdict": "failed",
        "released": "passed",
        "health": "passed",
        "tests": "failed",
        "watched": "skipped",
        "message": "",
        "watchedUntil": "2026-01-05T12:00:00Z",
        "barriers": ["a job ran"],
        "evidence": {"number": 3, "summary": "it crashed"},
    }
    first = FULL.public_status()["history"][2]
    assert (first["name"], first["namespace"], first["version"]) == ("web", "apps", 2)
    assert (first["action"], first["status"], first["digest"]) == (
        "upgrade",
        "deployed",
        "sha256:d2",
    )


def test_what_is_ours_is_under_helmops() -> None:
    ours = FULL.public_status()["helmops"]
    assert ours == {
        "state": "Failed",
        "origin": "web.yaml:3",
        "release": {"namespace": "apps", "name": "web"},
        "verdict": "failed",
        "lastHealthy": {"revision": 2, "digest": "sha256:d2", "chartVersion": "1.0.0"},
        "suspended": True,
        "removed": True,
        "hold": {
            "reason": "RevisionMadeByHand",
            "message": "by hand",
            "at": "2026-01-05T12:00:00Z",
            "plan": ["a", "b"],
        },
        "heldBack": ["3.0.0: too far"],
        "quarantine": [
            {
                "chart": "web",
                "version": "2.0.0",
                "digest": "sha256:abc",
                "scope": "chart",
                "at": "2026-01-05T12:00:00Z",
                "until": None,
                "why": "it broke",
                "by": "ada",
            }
        ],
        "healthLost": {"message": "not ready", "at": "2026-01-05T12:00:00Z"},
        "checks": [
            {"name": "smoke", "passed": False, "message": "503", "at": "2026-01-05T12:00:00Z"}
        ],
        "hooks": [
            {
                "name": "dump",
                "at": "failed",
                "time": "2026-01-05T12:00:00Z",
                "succeeded": True,
                "message": "done",
                "output": "a line\n",
            }
        ],
        "rollbackFailures": 1,
        "nextTry": "2026-01-05T12:00:00Z",
        "updatedAt": "2026-01-05T12:00:00Z",
    }


def test_the_status_of_an_empty_record_says_that_nothing_is_known() -> None:
    status = Record(key=KEY, release=RELEASE).public_status()
    assert not any(key.startswith("last") for key in status)
    assert status["helmops"]["verdict"] == "unknown"
    assert status["helmops"]["lastHealthy"] is None
    assert status["helmops"]["hold"] is None
    assert json.loads(json.dumps(status)) == status


def test_an_artifact_without_a_revision_is_named_by_its_chart_version() -> None:
    tried = replace(attempt(version="2.0.0"), artifact_revision="")
    assert record(attempt=tried).public_status()["lastAttemptedRevision"] == "2.0.0"


# Secrets


def test_no_value_of_the_declaration_is_in_status_or_repr() -> None:
    assert SECRET in FULL.to_json().decode()
    assert SECRET not in json.dumps(FULL.public_status())
    assert SECRET not in repr(FULL)


def test_the_manifest_is_the_declaration_with_generation_and_status() -> None:
    declared = {
        "apiVersion": "helm.toolkit.fluxcd.io/v2",
        "kind": "HelmRelease",
        "metadata": {"name": "web", "labels": {"team": "a"}},
        "spec": {"interval": "1h"},
    }
    known = record(manifest=declared, generation=4)
    manifest = known.to_manifest()
    assert manifest["metadata"] == {
        "name": "web",
        "namespace": "apps",
        "labels": {"team": "a"},
        "generation": 4,
    }
    assert manifest["spec"] == {"interval": "1h"}
    assert manifest["status"] == known.public_status()
    assert "status" not in declared
    assert "generation" not in declared["metadata"]


def test_a_record_without_a_declaration_is_a_helm_release_all_the_same() -> None:
    manifest = record().to_manifest()
    assert (manifest["apiVersion"], manifest["kind"]) == (
        "helm.toolkit.fluxcd.io/v2",
        "HelmRelease",
    )
