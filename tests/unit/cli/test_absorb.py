"""Read from release Secrets in memory, as `helmops absorb` does."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from helmops.cli.app import status_of
from helmops.helm.storage import HelmStorage
from helmops.model.records import Record
from tests.fakes.installation import Machine
from tests.unit.decide.samples import record, snapshot
from tests.unit.helm.test_storage import body, secret

Capture = pytest.CaptureFixture[str]


def stored(machine: Machine, *configs: dict[str, Any], **changes: Any) -> Record:
    """A release whose first revision helmops made; the rest are somebody's."""
    for number, config in enumerate(configs, start=1):
        content = body(number, config=config, **(changes if number == len(configs) else {}))
        machine.server.put(secret(content, number))

    async def made() -> Record:
        base = record()
        release = replace(base.release, name="app")
        first = (await HelmStorage(machine.server.api()).read(release)).revisions[0]
        ours = replace(base, release=release, history=(snapshot(first),))
        await machine.keep(ours)
        return ours

    return asyncio.run(made())


def test_what_was_changed_by_hand_is_printed_as_values(machine: Machine, capsys: Capture) -> None:
    stored(
        machine,
        {"replicas": 1, "image": {"tag": "1", "pull": "Always"}, "debug": True},
        {"replicas": 5, "image": {"tag": "2", "pull": "Always"}},
    )
    assert status_of(["absorb", "web"]) == 0
    assert capsys.readouterr().out == (
        "# revision 2 (web@1.2.3) against revision 1 (web@1.2.3)\n"
        "# to be removed: debug\n"
        "replicas: 5\n"
        "image:\n"
        "  tag: '2'\n"
    )


def test_another_chart_version_is_told_too(machine: Machine, capsys: Capture) -> None:
    chart = body()["chart"]
    other = {**chart, "metadata": {**chart["metadata"], "version": "1.3.0"}}
    stored(machine, {"a": 1}, {"a": 1}, chart=other)
    assert status_of(["absorb", "web"]) == 0
    said = capsys.readouterr().out
    assert "# chart.spec: chart web, version 1.3.0" in said
    assert said.endswith("# nothing is to be added to the values\n")


def test_without_a_revision_by_hand_there_is_nothing_to_absorb(
    machine: Machine, capsys: Capture
) -> None:
    stored(machine, {"a": 1})
    assert status_of(["absorb", "web"]) == 2
    assert "was made by helmops: there is nothing to absorb" in capsys.readouterr().err


def test_a_release_that_nobody_knows_is_said(machine: Machine, capsys: Capture) -> None:
    assert status_of(["absorb", "none"]) == 1
    assert "there is no release apps/none" in capsys.readouterr().err
