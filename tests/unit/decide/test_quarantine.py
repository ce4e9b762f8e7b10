from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from helmops.decide.quarantine import (
    in_force,
    lift,
    put,
    quarantined_after_failure,
    said_of,
    without_past,
)
from helmops.model.declarations import Defaults
from helmops.model.records import Origin, Proof, Quarantined, Record
from helmops.model.releases import DeclarationKey, HelmStatus
from tests.unit.decide.samples import KEY, NOW, desired, failed, record, revision, snapshot

ONE = revision(1)
TWO = revision(2, HelmStatus.FAILED, version="2.0.0")
FAILED_ONCE = record(failed(TWO), snapshot(ONE), upgrade_failures=1)


def entry(version: str = "2.0.0", **other: Any) -> Quarantined:
    fields = {"digest": "abc", "scope": "release", "at": NOW, "why": "it broke", **other}
    return Quarantined(chart="web", version=version, **fields)


def versions(of: Record) -> list[str]:
    return [q.version for q in of.quarantine]


def test_the_version_of_a_failed_upgrade_goes_there_with_content_and_reason() -> None:
    after = quarantined_after_failure(FAILED_ONCE, desired("2.0.0"), NOW)
    assert after.quarantine == (
        Quarantined(
            chart="web",
            version="2.0.0",
            digest="artifact 2.0.0",
            scope="release",
            at=NOW,
            why="it broke",
            until=None,
            by="helmops",
        ),
    )


@pytest.mark.parametrize(
    ("before", "wanted"),
    [
        (record(snapshot(TWO), upgrade_failures=1), desired("2.0.0")),
        (record(), desired("2.0.0")),
        (record(failed(TWO, Origin.INSTALL), install_failures=1), desired("2.0.0")),
        (record(failed(TWO, Origin.ROLLBACK), upgrade_failures=1), desired("2.0.0")),
        (
            FAILED_ONCE,
            desired("2.0.0", upgrade={"remediation": {"retries": 1}}),
        ),
        (FAILED_ONCE, desired("2.0.0", upgrade={"remediation": {"retries": -1}})),
        (FAILED_ONCE, desired("2.0.0", upgrade={"strategy": {"name": "RetryOnFailure"}})),
        (FAILED_ONCE, desired("2.0.0", policy={"quarantine": {"enabled": False}})),
        (FAILED_ONCE, desired("2.0.0", defaults=Defaults.FLUX)),
        (
            record(
                failed(TWO),
                snapshot(replace(ONE, chart_version="2.0.0"), artifact_digest="artifact 2.0.0"),
                upgrade_failures=1,
            ),
            desired("2.0.0"),
        ),
    ],
    ids=[
        "it is well",
        "nothing is there",
        "an install",
        "a rollback",
        "retries are left",
        "retries have no end",
        "it is retried in place",
        "not wanted",
        "not in the flux set",
        "seen healthy with it before",
    ],
)
def test_nothing_else_does(before: Record, wanted: Any) -> None:
    assert quarantined_after_failure(before, wanted, NOW) is before


def test_a_watch_window_that_failed_counts_as_much() -> None:
    sick = snapshot(TWO, Origin.UPGRADE, watched=Proof.FAILED, message="crashed")
    after = quarantined_after_failure(
        record(sick, snapshot(ONE), upgrade_failures=1), desired("2.0.0"), NOW
    )
    assert versions(after) == ["2.0.0"]


def test_the_policy_says_for_whom_and_how_long() -> None:
    wanted = desired("2.0.0", policy={"quarantine": {"scope": "all", "ttl": "24h"}})
    (put_there,) = quarantined_after_failure(FAILED_ONCE, wanted, NOW).quarantine
    assert put_there.scope == "all"
    assert put_there.until == NOW + timedelta(hours=24)


def test_the_same_content_is_there_once() -> None:
    known = put(put(record(), entry()), entry(why="again"))
    assert [q.why for q in known.quarantine] == ["again"]
    assert len(put(known, entry(digest="other")).quarantine) == 2


def test_one_is_lifted_or_all() -> None:
    known = put(put(record(), entry("1.0.0")), entry("2.0.0"))
    assert versions(lift(known, "1.0.0")) == ["2.0.0"]
    assert versions(lift(known)) == []
    assert lift(known, "3.0.0") is known


def test_one_whose_time_is_up_is_gone() -> None:
    known = put(put(record(), entry("1.0.0", until=NOW)), entry("2.0.0"))
    assert versions(without_past(known, NOW)) == ["2.0.0"]
    assert without_past(known, NOW - timedelta(seconds=1)) is known


@pytest.mark.parametrize(
    ("scope", "near", "far"),
    [("release", False, False), ("chart", True, False), ("all", True, True)],
)
def test_a_scope_reaches_other_releases(scope: str, near: bool, far: bool) -> None:
    mine = put(record(), entry(scope=scope))
    records = {KEY: mine}
    assert in_force(KEY, records, NOW) == mine.quarantine
    assert bool(in_force(DeclarationKey("apps", "other"), records, NOW)) is near
    assert bool(in_force(DeclarationKey("else", "other"), records, NOW)) is far


def test_what_is_over_binds_nobody() -> None:
    records = {KEY: put(record(), entry(until=NOW))}
    assert in_force(KEY, records, NOW) == ()


@pytest.mark.parametrize(
    ("digest", "given", "is_meant"),
    [("abc", "abc", True), ("abc", "new", False), ("", "new", True), ("abc", "", True)],
)
def test_new_content_is_another_version(digest: str, given: str, is_meant: bool) -> None:
    assert entry(digest=digest).means("web", "2.0.0", given) is is_meant
    assert not entry(digest=digest).means("api", "2.0.0", given)


def test_it_is_said_since_when_and_why() -> None:
    assert said_of(entry()) == "in quarantine since 2026-01-05 12:00: it broke"
    assert " until 2026-01-05 12:00: it broke" in said_of(entry(until=NOW))
