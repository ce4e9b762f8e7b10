from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from helmops.decide.state import classify, difference_to_target, is_untested
from helmops.model.actions import Desired, Observation, ReleaseState, Unresolved
from helmops.model.post_rendering import PostRendering
from helmops.model.records import Origin, Proof, Record, Suspension
from helmops.model.releases import HelmStatus
from tests.unit.decide.samples import (
    NOW,
    desired,
    failed,
    observed,
    record,
    revision,
    snapshot,
    target,
)

R = revision()
PENDING = revision(2, HelmStatus.PENDING_UPGRADE)
WATCHED = {"watched": Proof.PENDING, "watched_until": NOW}
TESTED = {"test": {"enable": True}}


def of(wanted: Desired, seen: Observation, remembered: Record) -> ReleaseState:
    return classify(wanted, seen, remembered).state


ROWS: dict[str, tuple[ReleaseState, Desired, Observation, Record]] = {
    "spec.suspend goes before everything": (
        ReleaseState.SUSPENDED,
        desired(suspend=True),
        observed(PENDING),
        record(),
    ),
    "so does helmops suspend": (
        ReleaseState.SUSPENDED,
        desired(),
        observed(),
        record(suspended=Suspension(NOW)),
    ),
    "nothing stored is absent": (ReleaseState.ABSENT, desired(), observed(), record(snapshot(R))),
    "uninstalled with its history kept is absent": (
        ReleaseState.ABSENT,
        desired(),
        observed(R, revision(2, HelmStatus.UNINSTALLED)),
        record(snapshot(R)),
    ),
    "a lock goes before the question whose it is": (
        ReleaseState.LOCKED,
        desired(),
        observed(R, PENDING),
        record(),
    ),
    "half uninstalled is locked": (
        ReleaseState.LOCKED,
        desired(),
        observed(revision(1, HelmStatus.UNINSTALLING)),
        record(snapshot(R)),
    ),
    "stored and never remembered is unmanaged": (
        ReleaseState.UNMANAGED,
        desired(),
        observed(R),
        record(),
    ),
    "a newer revision than the one remembered is somebody's": (
        ReleaseState.DIVERGED,
        desired(),
        observed(R, revision(2)),
        record(snapshot(R)),
    ),
    "the same number with other content is somebody's": (
        ReleaseState.DIVERGED,
        desired(),
        observed(revision(digest="other")),
        record(snapshot(R)),
    ),
    "an older revision than the one remembered is somebody's": (
        ReleaseState.DIVERGED,
        desired(),
        observed(R),
        record(snapshot(revision(2)), snapshot(R)),
    ),
    "somebody's revision goes before our failure": (
        ReleaseState.DIVERGED,
        desired(),
        observed(R, revision(2)),
        record(failed(R)),
    ),
    "failed goes before out of sync": (
        ReleaseState.FAILED,
        desired("2.0.0"),
        observed(R),
        record(failed(R)),
    ),
    "what failed in its watch window is failed": (
        ReleaseState.FAILED,
        desired(),
        observed(R),
        record(snapshot(R, health=Proof.FAILED, **WATCHED)),
    ),
    "another version is out of sync, unchecked as it may be": (
        ReleaseState.OUT_OF_SYNC,
        desired("2.0.0"),
        observed(R),
        record(snapshot(R, health=Proof.PENDING)),
    ),
    "out of sync goes before the watch window": (
        ReleaseState.OUT_OF_SYNC,
        desired("2.0.0"),
        observed(R),
        record(snapshot(R, **WATCHED)),
    ),
    "what was restored is checked before it is compared": (
        ReleaseState.UNCHECKED,
        desired("2.0.0"),
        observed(R),
        record(snapshot(R, Origin.ROLLBACK, health=Proof.PENDING)),
    ),
    "what was taken over is checked before it is compared": (
        ReleaseState.UNCHECKED,
        desired("2.0.0"),
        observed(R),
        record(snapshot(R, Origin.ADOPT, health=Proof.PENDING)),
    ),
    "what was restored is tested before it is compared": (
        ReleaseState.UNTESTED,
        desired("2.0.0", **TESTED),
        observed(R),
        record(snapshot(R, Origin.ROLLBACK, tests=Proof.PENDING)),
    ),
    "what was restored and is well is compared": (
        ReleaseState.OUT_OF_SYNC,
        desired("2.0.0"),
        observed(R),
        record(snapshot(R, Origin.ROLLBACK)),
    ),
    "checks come before tests": (
        ReleaseState.UNCHECKED,
        desired(**TESTED),
        observed(R),
        record(snapshot(R, health=Proof.PENDING, tests=Proof.PENDING)),
    ),
    "tests come before watching": (
        ReleaseState.UNTESTED,
        desired(**TESTED),
        observed(R),
        record(snapshot(R, tests=Proof.PENDING, **WATCHED)),
    ),
    "tests that were enabled later are run": (
        ReleaseState.UNTESTED,
        desired(**TESTED),
        observed(R),
        record(snapshot(R, tests=Proof.SKIPPED)),
    ),
    "inside the window it is watched": (
        ReleaseState.WATCHING,
        desired(),
        observed(R),
        record(snapshot(R, **WATCHED)),
    ),
    "all proven and equal is in sync": (
        ReleaseState.IN_SYNC,
        desired(),
        observed(R),
        record(snapshot(R)),
    ),
    "unchecked on purpose is in sync": (
        ReleaseState.IN_SYNC,
        desired(),
        observed(R),
        record(snapshot(R, health=Proof.SKIPPED)),
    ),
    "without a target nothing is out of sync": (
        ReleaseState.IN_SYNC,
        desired(Unresolved("SourceNotReady", "no answer")),
        observed(R),
        record(snapshot(R)),
    ),
}


@pytest.mark.parametrize(
    ("state", "wanted", "seen", "remembered"), list(ROWS.values()), ids=list(ROWS)
)
def test_the_first_rule_that_applies_says_the_state(
    state: ReleaseState, wanted: Desired, seen: Observation, remembered: Record
) -> None:
    found = classify(wanted, seen, remembered)
    assert found.state is state
    assert found.why


def test_every_state_has_a_row() -> None:
    assert {row[0] for row in ROWS.values()} == set(ReleaseState)


def test_the_same_content_released_again_by_hand_is_somebodys() -> None:
    """`helm upgrade` with the same chart and values restarts hooks and may change objects."""
    again = revision(2, digest=R.digest)
    assert of(desired(), observed(R, again), record(snapshot(R))) is ReleaseState.DIVERGED


def test_a_reinstalled_release_with_the_same_number_and_content_is_somebodys() -> None:
    earlier = record(snapshot(R)).with_head(last_deployed=R.last_deployed - timedelta(days=3))
    assert of(desired(), observed(R), earlier) is ReleaseState.DIVERGED


def test_helm_rewriting_a_status_makes_nobody_elses_revision() -> None:
    rewritten = revision(1, HelmStatus.SUPERSEDED)
    assert of(desired(), observed(rewritten), record(snapshot(R))) is ReleaseState.IN_SYNC


def test_who_suspended_it_is_said() -> None:
    found = classify(desired(), observed(R), record(suspended=Suspension(NOW, "ada@laptop")))
    assert found.why == "suspended by ada@laptop"


# Tests and differences


@pytest.mark.parametrize(
    ("proof", "untested"),
    [
        (Proof.PENDING, True),
        (Proof.SKIPPED, True),
        (Proof.PASSED, False),
        (Proof.IGNORED, False),
        (Proof.FAILED, False),
    ],
)
def test_tests_run_once_for_a_revision(proof: Proof, untested: bool) -> None:
    assert is_untested(desired(**TESTED), snapshot(R, tests=proof)) is untested


def test_an_adopted_revision_is_never_tested_by_itself() -> None:
    adopted = snapshot(R, Origin.ADOPT, tests=Proof.PENDING)
    assert not is_untested(desired(**TESTED), adopted)


def test_without_test_enable_nothing_is_untested() -> None:
    assert not is_untested(desired(), snapshot(R, tests=Proof.PENDING))


@pytest.mark.parametrize(
    ("to", "says"),
    [
        (target(), ""),
        (target(chart="other"), "chart web is to become other"),
        (target("1.0.1"), "web 1.0.0 is to become 1.0.1"),
        (target(config_digest="others"), "values changed"),
        (target(digest="rebuilt"), ""),
        (target(digest="rebuilt", follows_content=True), "content of web 1.0.0 changed"),
        (target(follows_content=True), ""),
    ],
    ids=["nothing", "name", "version", "values", "content ignored", "content followed", "same"],
)
def test_what_is_to_change_is_said(to: Any, says: str) -> None:
    assert difference_to_target(desired(to), R, snapshot(R)) == says


LABELLED = PostRendering((), "combined", "labels")


@pytest.mark.parametrize(
    ("rendering", "known", "says"),
    [
        (None, "", ""),
        (LABELLED, "labels", ""),
        (LABELLED, "", "postRenderers or commonMetadata changed"),
        (LABELLED, "others", "postRenderers or commonMetadata changed"),
        (None, "labels", "postRenderers or commonMetadata changed"),
    ],
)
def test_what_becomes_of_the_charts_objects_is_part_of_the_release(
    rendering: PostRendering | None, known: str, says: str
) -> None:
    to = target()
    to = replace(to, chart=replace(to.chart, post_rendering=rendering))
    seen = snapshot(R, post_render_digest=known)
    assert difference_to_target(desired(to), R, seen) == says


@pytest.mark.parametrize("known", [None, snapshot(R, artifact_digest="")])
def test_content_is_not_compared_with_what_nobody_remembers(known: Any) -> None:
    to = target(digest="rebuilt", follows_content=True)
    assert difference_to_target(desired(to), R, known) == ""
