from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
import yaml

from helmops.cli.app import status_of
from helmops.cli.reconcile import source_troubles
from helmops.errors import SourceUnavailable
from tests.fakes.cluster_state import FakeChart
from tests.fakes.installation import URL, Machine
from tests.unit.reconcile.samples import chart, release, repository

CHARTS = repository("charts", url=URL)
Capture = pytest.CaptureFixture[str]


def web(version: str = "*", name: str = "web", **spec: Any) -> dict[str, Any]:
    return release(name, **{"chart": chart(chart="app", version=version), **spec})


@pytest.fixture(autouse=True)
def _charts(machine: Machine) -> None:
    machine.offer(FakeChart("app", "1.0.0"), FakeChart("app", "2.0.0-bad", fails_install=True))


def test_all_that_is_declared_is_brought_about(machine: Machine, capsys: Capture) -> None:
    machine.declare(CHARTS, web(), web(name="db"))

    assert status_of(["reconcile"]) == 0

    assert machine.cluster.runs == {"install": 2}
    told = capsys.readouterr()
    header, *rows = told.out.splitlines()
    assert header.split() == [
        "NAMESPACE", "NAME", "READY", "STATE", "REVISION", "CHART", "VERDICT", "AGE", "MESSAGE",
    ]  # fmt: skip
    assert [row.split()[:7] for row in rows] == [
        ["apps", name, "True", "InSync", "1", "app@1.0.0", "healthy"] for name in ("web", "db")
    ]
    assert "apps/web  Install: there is no release apps/web; app 1.0.0" in told.err


def test_a_second_time_there_is_nothing_to_do_or_to_tell(machine: Machine, capsys: Capture) -> None:
    machine.declare(CHARTS, web())
    status_of(["reconcile"])
    capsys.readouterr()
    assert status_of(["reconcile"]) == 0
    assert capsys.readouterr().err == ""
    assert machine.cluster.runs == {"install": 1}


def test_names_choose_among_what_is_declared(machine: Machine) -> None:
    machine.declare(CHARTS, web(), web(name="db"), web(name="mq"))
    assert status_of(["reconcile", "db", "apps/mq"]) == 0
    assert {release.name for release in machine.cluster.live} == {"db", "mq"}


def test_a_name_that_is_not_declared_is_a_mistake_of_usage(
    machine: Machine, capsys: Capture
) -> None:
    machine.declare(CHARTS, web())
    assert status_of(["reconcile", "none"]) == 2
    assert capsys.readouterr().err == (
        "helmops: apps/none is not declared (declared are apps/web)\n"
    )
    assert not machine.cluster.runs


def test_one_that_is_not_ready_is_a_failure(machine: Machine, capsys: Capture) -> None:
    machine.declare(CHARTS, web("2.0.0-bad"), web(name="db"))
    assert status_of(["reconcile", "-q"]) == 1
    told = capsys.readouterr()
    assert told.err == ""
    assert "RetriesExceeded" not in told.out
    assert "install failed once" in told.out


def test_a_declaration_that_cannot_be_used_hurts_no_other(
    machine: Machine, capsys: Capture
) -> None:
    file = machine.declare(CHARTS, web())
    file.with_name("bad.yaml").write_text(yaml.safe_dump(web(name="db", noSuchField=1)))
    assert status_of(["reconcile", "-q"]) == 2
    told = capsys.readouterr()
    assert "noSuchField" in told.err
    assert told.err.count("noSuchField") == 1
    assert {release.name for release in machine.cluster.live} == {"web"}


def test_naming_one_that_cannot_be_used_tells_why(machine: Machine, capsys: Capture) -> None:
    machine.declare(CHARTS, web(noSuchField=1))
    assert status_of(["reconcile", "web"]) == 2
    assert "noSuchField" in capsys.readouterr().err


def test_without_declarations_it_says_how_to_name_them(machine: Machine, capsys: Capture) -> None:
    assert status_of(["reconcile"]) == 2
    assert "there are no declarations (name them: -f DIR" in capsys.readouterr().err


def test_a_timeout_that_is_none_is_a_mistake_of_usage(machine: Machine, capsys: Capture) -> None:
    machine.declare(CHARTS, web())
    assert status_of(["reconcile", "--timeout", "soon"]) == 2
    assert "--timeout" in capsys.readouterr().err
    assert not machine.cluster.runs


def test_force_upgrades_what_is_in_sync(machine: Machine) -> None:
    machine.declare(CHARTS, web())
    status_of(["reconcile"])
    assert status_of(["reconcile", "--force"]) == 0
    assert machine.cluster.runs == {"install": 1, "upgrade": 1}


def test_reset_tries_again_what_was_given_up(machine: Machine) -> None:
    machine.declare(CHARTS, web("2.0.0-bad"))
    status_of(["reconcile"])
    status_of(["reconcile"])
    assert machine.cluster.runs == {"install": 1}
    status_of(["reconcile", "--reset"])
    assert machine.cluster.runs == {"install": 1, "upgrade": 1}
    record = asyncio.run(machine.record())
    assert record is not None
    assert record.handled.reset


def test_the_sources_are_asked_first_where_that_is_said(machine: Machine) -> None:
    machine.declare(CHARTS, web())
    status_of(["reconcile"])
    machine.repositories.asked.clear()
    status_of(["reconcile"])
    assert "refresh" not in {call[0] for call in machine.repositories.asked}
    status_of(["reconcile", "--with-source"])
    assert "refresh" in {call[0] for call in machine.repositories.asked}


def test_a_source_that_fails_is_told_by_the_release(machine: Machine, capsys: Capture) -> None:
    machine.repositories.fail(URL, SourceUnavailable("no answer"))
    machine.declare(CHARTS, web())
    assert status_of(["reconcile", "--with-source", "-q"]) == 1
    assert "no answer" in capsys.readouterr().out


@pytest.mark.parametrize("output", ["json", "yaml"])
def test_programs_get_manifests_with_their_status(
    machine: Machine, capsys: Capture, output: str
) -> None:
    machine.declare(CHARTS, web())
    assert status_of(["reconcile", "-q", "-o", output]) == 0
    text = capsys.readouterr().out
    (item,) = (json.loads(text) if output == "json" else yaml.safe_load(text))["items"]
    assert (item["kind"], item["metadata"]["name"]) == ("HelmRelease", "web")
    assert item["status"]["helmops"]["state"] == "InSync"


def test_names_only(machine: Machine, capsys: Capture) -> None:
    machine.declare(CHARTS, web(), web(name="db"))
    status_of(["reconcile", "-q", "-o", "name"])
    assert capsys.readouterr().out.split() == ["helmrelease/web", "helmrelease/db"]


def test_settings_come_from_options_before_the_environment(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.declare(CHARTS, web())
    monkeypatch.setenv("HELMOPS_DEFAULTS", "flux")
    status_of(["reconcile", "--defaults", "safe", "--concurrency", "3"])
    (settings,) = machine.opened
    assert (settings.defaults, settings.concurrency) == ("safe", 3)


def test_a_ready_release_whose_source_was_not_to_be_read_is_named() -> None:
    def manifest(name: str, *conditions: tuple[str, str]) -> dict[str, Any]:
        told = [{"type": t, "status": s, "message": f"{t} of {name}"} for t, s in conditions]
        return {"metadata": {"namespace": "a", "name": name}, "status": {"conditions": told}}

    fetched = manifest("fetched", ("Ready", "True"))
    ready = manifest("ready", ("Ready", "True"), ("FetchFailed", "True"))
    not_ready = manifest("not-ready", ("Ready", "False"), ("FetchFailed", "True"))
    assert source_troubles([fetched, ready, not_ready]) == ["a/ready: FetchFailed of ready"]
