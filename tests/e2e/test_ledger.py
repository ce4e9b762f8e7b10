"""The ledger on a real cluster: whole after `kill -9`, and telling of whoever meddles with it."""

from __future__ import annotations

import base64
import contextlib
import gzip
import json
import sqlite3
from collections.abc import Iterator
from typing import Any

import pytest

from devcluster.chart_server import ChartRepository
from tests.e2e.helmops_process import Ended, Helmops, release, repository, until
from tests.e2e.phases import PHASES, begin, until_in_the_middle


@pytest.fixture
def charts(chart_repository: ChartRepository) -> dict[str, Any]:
    return repository(chart_repository.url)


def kinds(helmops: Helmops) -> list[str]:
    """Of each entry of the release its kind, of actions their names."""
    lines = helmops.run("ledger", "export", "app").stdout.splitlines()
    entries = [json.loads(line) for line in lines]
    return [e["action"]["name"] if e["kind"] == "action" else e["kind"] for e in entries]


def verify(helmops: Helmops, *arguments: str, status: int = 0) -> Ended:
    return helmops.run("ledger", "verify", "app", *arguments, status=status)


@contextlib.contextmanager
def written_by_somebody_else(helmops: Helmops) -> Iterator[None]:
    """Another process is at the state database, so that nothing can be written there."""
    with contextlib.closing(sqlite3.connect(helmops.state, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield
        other.execute("ROLLBACK")


def test_killed_in_the_middle_of_an_upgrade_its_ledger_is_whole_and_says_so(
    helmops: Helmops, charts: dict[str, Any]
) -> None:
    phase = PHASES["upgrade"]
    begin(helmops, charts, phase)
    with helmops.start("reconcile") as killed:
        until_in_the_middle(helmops, phase)
        killed.kill()
    helmops.reconcile()
    told = kinds(helmops)
    assert told[:2] == ["declared", "Install"]
    assert told.count("interrupted") == 1
    assert told.index("interrupted") < len(told) - told[::-1].index("Upgrade")
    assert "intact" in verify(helmops).stdout


def test_killed_between_record_and_store_nothing_is_lost_and_meddling_is_named(
    helmops: Helmops, charts: dict[str, Any]
) -> None:
    helmops.declare(charts, release("app", "config", "1.0.0"))
    helmops.reconcile()
    before = kinds(helmops)
    helmops.declare(charts, release("app", "config", "1.0.0", values={"message": "new"}))
    with written_by_somebody_else(helmops), helmops.start("reconcile") as killed:
        until("the record knows of it", lambda: _remembered(helmops) > len(before))
        killed.kill()
    assert kinds(helmops) == before
    missing = verify(helmops, status=1)
    assert f"{len(before) + 1}" in missing.stderr
    assert "record Secret still has them" in missing.stderr

    helmops.reconcile()
    assert "Upgrade" in kinds(helmops)
    assert "intact" in verify(helmops).stdout

    with contextlib.closing(sqlite3.connect(helmops.state)) as somebody:
        somebody.execute("UPDATE ledger SET content = replace(content, '1.0.0', '9.9.9')")
        somebody.commit()
    found = verify(helmops, "-o", "json", status=1).json
    assert found["first"]["finding"]["harm"] == "changed"
    assert found["endsJudged"] is True


def _remembered(helmops: Helmops) -> int:
    """The number of the newest entry in the record Secret."""
    secret = helmops.get("secrets/helmops.app")
    record = json.loads(gzip.decompress(base64.b64decode(secret["data"]["record"])))
    return int((record["ledger"] or {}).get("number", 0))
