from __future__ import annotations

import pytest

from helmops.decide.rollback_target import (
    earlier_target,
    is_rollback_target,
    prunable,
    rollback_target,
    to_put_back,
)
from helmops.model.records import KeptCopy, Origin, Proof
from helmops.model.releases import HelmStatus, Revision
from tests.unit.decide.samples import failed, observed, record, revision, snapshot

SUPERSEDED, FAILED, DEPLOYED = HelmStatus.SUPERSEDED, HelmStatus.FAILED, HelmStatus.DEPLOYED


def stored(*statuses: HelmStatus) -> tuple[Revision, ...]:
    return tuple(revision(number, status) for number, status in enumerate(statuses, start=1))


# Where a rollback goes


def test_it_goes_to_the_newest_healthy_revision_before_the_head() -> None:
    one, two, three = stored(SUPERSEDED, SUPERSEDED, FAILED)
    remembered = record(failed(three), snapshot(two), snapshot(one))
    assert rollback_target(observed(one, two, three), remembered) == two


def test_a_healthy_head_is_no_way_back_from_itself() -> None:
    (one,) = stored(DEPLOYED)
    assert rollback_target(observed(one), record(snapshot(one))) is None


@pytest.mark.parametrize(
    "proofs",
    [
        {"health": Proof.PENDING},
        {"health": Proof.SKIPPED},
        {"health": Proof.FAILED},
        {"released": Proof.FAILED},
        {"released": Proof.PENDING},
        {"tests": Proof.FAILED},
        {"tests": Proof.IGNORED},
        {"tests": Proof.PENDING},
        {"watched": Proof.PENDING},
        {"watched": Proof.FAILED},
    ],
    ids=str,
)
def test_a_revision_without_all_its_proof_is_passed_over(proofs: dict[str, Proof]) -> None:
    one, two, three = stored(SUPERSEDED, SUPERSEDED, FAILED)
    remembered = record(failed(three), snapshot(two, **proofs), snapshot(one))
    assert rollback_target(observed(one, two, three), remembered) == one


def test_what_helm_calls_superseded_is_not_healthy_for_that() -> None:
    """A failed `helm rollback` makes `superseded` of the failed revision before it."""
    one, two, three = stored(SUPERSEDED, SUPERSEDED, FAILED)
    remembered = record(failed(three, Origin.ROLLBACK), failed(two), snapshot(one))
    assert rollback_target(observed(one, two, three), remembered) == one


@pytest.mark.parametrize(
    "status", [s for s in HelmStatus if s not in (HelmStatus.DEPLOYED, HelmStatus.SUPERSEDED)]
)
def test_a_revision_that_helm_never_finished_is_passed_over(status: HelmStatus) -> None:
    one, two, three = stored(SUPERSEDED, status, FAILED)
    remembered = record(failed(three), snapshot(two), snapshot(one))
    assert rollback_target(observed(one, two, three), remembered) == one
    assert not is_rollback_target(two, remembered)


def test_the_same_number_with_other_content_is_another_revision() -> None:
    one, two = stored(SUPERSEDED, FAILED)
    tampered = revision(1, SUPERSEDED, digest="other")
    remembered = record(failed(two), snapshot(one))
    assert rollback_target(observed(tampered, two), remembered) is None


def test_the_same_content_under_another_number_was_seen_healthy() -> None:
    """Numbers restart after an uninstall; what was proven was the content."""
    one, two = revision(1, SUPERSEDED, digest="good"), revision(2, FAILED)
    remembered = record(failed(two), snapshot(revision(7, digest="good")))
    assert rollback_target(observed(one, two), remembered) == one


def test_a_pruned_healthy_revision_cannot_be_gone_to() -> None:
    one, two = stored(SUPERSEDED, FAILED)
    assert rollback_target(observed(two), record(failed(two), snapshot(one))) is None


def test_without_any_revision_there_is_nowhere_to_go() -> None:
    assert rollback_target(observed(), record()) is None


def test_a_person_may_choose_the_head_when_it_was_seen_healthy() -> None:
    one, two = stored(SUPERSEDED, DEPLOYED)
    remembered = record(snapshot(two), snapshot(one, health=Proof.SKIPPED))
    assert is_rollback_target(two, remembered)
    assert not is_rollback_target(one, remembered)


# What maxHistory leaves no room for


def test_the_oldest_go_first() -> None:
    revisions = stored(SUPERSEDED, SUPERSEDED, SUPERSEDED, SUPERSEDED, DEPLOYED)
    remembered = record(*(snapshot(r) for r in reversed(revisions)))
    assert prunable(observed(*revisions), remembered, 3) == (1, 2)


def test_zero_and_less_keep_all() -> None:
    revisions = stored(SUPERSEDED, SUPERSEDED, DEPLOYED)
    assert prunable(observed(*revisions), record(), 0) == ()
    assert prunable(observed(*revisions), record(), -1) == ()


def test_as_many_as_are_allowed_are_not_too_many() -> None:
    revisions = stored(SUPERSEDED, DEPLOYED)
    assert prunable(observed(*revisions), record(), 2) == ()


def test_fewer_than_are_allowed_are_not_too_many() -> None:
    revisions = stored(FAILED, FAILED, DEPLOYED)
    assert prunable(observed(*revisions), record(), 5) == ()


def test_what_was_not_seen_healthy_or_never_finished_takes_no_healthy_ones_place() -> None:
    one, two, three, _, five = stored(SUPERSEDED, SUPERSEDED, SUPERSEDED, FAILED, FAILED)
    refused_rollback = revision(4, FAILED, digest="d1")
    remembered = record(failed(five), snapshot(two), snapshot(one))
    seen = observed(one, two, three, refused_rollback, five)
    assert prunable(seen, remembered, 1) == (3, 4)


def test_the_two_newest_healthy_ones_stay_however_old_they_are() -> None:
    revisions = stored(SUPERSEDED, SUPERSEDED, SUPERSEDED, FAILED, FAILED, FAILED)
    one, two, three = (snapshot(r) for r in revisions[:3])
    bad = [failed(r) for r in reversed(revisions[3:])]
    remembered = record(*bad, three, two, one)
    assert prunable(observed(*revisions), remembered, 1) == (1, 4, 5)


def test_what_helm_calls_deployed_stays_whatever_is_known_of_it() -> None:
    """An upgrade that failed leaves the revision before it deployed: it is what runs."""
    revisions = stored(DEPLOYED, FAILED, FAILED)
    assert prunable(observed(*revisions), record(), 1) == (2,)


def test_the_head_stays_even_when_it_failed() -> None:
    revisions = stored(FAILED, FAILED)
    assert prunable(observed(*revisions), record(), 1) == (1,)


def test_no_more_go_than_are_too_many() -> None:
    revisions = stored(FAILED, FAILED, FAILED, DEPLOYED)
    assert prunable(observed(*revisions), record(), 3) == (1,)


def test_who_asks_twice_goes_back_twice_and_not_in_circles() -> None:
    """1 and 3 have one content, 2 another; 4 is the rollback from 3 to 2."""
    one, two, three = revision(1), revision(2), revision(3, digest="d1")
    went = revision(4, digest="d2")
    known = [snapshot(r, Origin.UPGRADE) for r in (three, two, one)]

    assert earlier_target(observed(one, two, three), record(*known)) == two
    back = record(snapshot(went, Origin.ROLLBACK, restores=2), *known)
    assert earlier_target(observed(one, two, three, went), back) == one
    again = revision(5, digest="d1")
    twice = record(
        snapshot(again, Origin.ROLLBACK, restores=1),
        snapshot(went, Origin.ROLLBACK, restores=2),
        *known,
    )
    assert earlier_target(observed(one, two, three, went, again), twice) is None


def test_a_place_in_history_that_was_pruned_is_still_a_place() -> None:
    three, went = revision(3), revision(4, digest="d1")
    known = record(snapshot(went, Origin.ROLLBACK, restores=1), snapshot(three))
    assert earlier_target(observed(three, went), known) is None


def test_a_pruned_revision_is_put_back_where_it_is_the_better_one() -> None:
    one, two, bad = revision(1), revision(2), revision(3, HelmStatus.FAILED)
    known = record(failed(bad), snapshot(two), snapshot(one), kept=KeptCopy(2, "d2"))

    assert to_put_back(observed(one, bad), known) == KeptCopy(2, "d2")
    assert to_put_back(observed(bad), known) == KeptCopy(2, "d2")
    assert to_put_back(observed(one, two, bad), known) is None
    assert to_put_back(observed(one, bad), known.evolve(kept=KeptCopy(2, "other"))) is None
    assert to_put_back(observed(one, bad), known.evolve(kept=None)) is None


def test_a_number_that_another_revision_has_is_not_taken() -> None:
    other, bad = revision(2, digest="other"), revision(3, HelmStatus.FAILED)
    known = record(failed(bad), snapshot(revision(2)), kept=KeptCopy(2, "d2"))
    assert to_put_back(observed(other, bad), known) is None
