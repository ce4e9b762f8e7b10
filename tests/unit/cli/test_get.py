from __future__ import annotations

import asyncio
import json
from datetime import timedelta
from typing import Any

import pytest
import yaml

from helmops.cli.app import status_of
from helmops.cli.get import render_releases
from helmops.cli.options import Format
from helmops.model.records import Condition, ConditionStatus, HealthLost, Quarantined, Record
from helmops.model.releases import DeclarationKey, ReleaseId
from tests.fakes.installation import Machine
from tests.unit.decide.samples import NOW, record, revision, snapshot
from tests.unit.reconcile.samples import (
    REGISTRY,
    artifact,
    policy,
    release,
    release_of_artifact,
    repository,
)

Capture = pytest.CaptureFixture[str]


def known(name: str = "web", namespace: str = "apps", **other: Any) -> Record:
    fields: dict[str, Any] = {
        "state": "InSync",
        "origin": "web.yaml:3",
        "updated_at": NOW - timedelta(minutes=5),
        "conditions": (
            Condition("Ready", ConditionStatus.TRUE, "InstallSucceeded", "all is\nwell", NOW),
        ),
        **other,
    }
    return record(snapshot(revision(3, version="1.2.0"))).evolve(
        key=DeclarationKey(namespace, name), release=ReleaseId(namespace, name), **fields
    )


def shown(*records: Record, output: Format = Format.TEXT, everywhere: bool = False) -> str:
    manifests = [each.to_manifest() for each in records]
    return render_releases(manifests, output, NOW, everywhere=everywhere)


# How releases are shown


def test_a_table_has_what_one_looks_for_first() -> None:
    assert shown(known(), known("db", state="")) == (
        "NAME   READY   STATE    REVISION   CHART       VERDICT   AGE   MESSAGE\n"
        "web    True    InSync   3          web@1.2.0   healthy   5m    all is well\n"
        "db     True    -        3          web@1.2.0   healthy   5m    all is well"
    )


def test_what_is_urgent_comes_before_the_message() -> None:
    barred = Quarantined("web", "1.3.0", "", "release", NOW, "it crashed")
    table = shown(known(lost=HealthLost("not ready", NOW), quarantine=(barred,)))
    assert table.endswith("health lost: not ready; 1.3.0 in quarantine; all is well")


def test_everywhere_has_namespaces() -> None:
    header, row = shown(known(namespace="other"), everywhere=True).splitlines()
    assert header.split()[:2] == ["NAMESPACE", "NAME"]
    assert row.split()[:2] == ["other", "web"]


def test_wide_has_more_columns_and_whole_messages() -> None:
    long = known(conditions=(Condition("Ready", ConditionStatus.FALSE, "r", "x" * 300, NOW),))
    header, row = shown(long, output=Format.WIDE).splitlines()
    assert "LAST HEALTHY   FAILURES   DECLARED AT" in header
    assert "v3 (1.2.0)     0          web.yaml:3" in row
    assert row.endswith("x" * 300)


def test_long_messages_are_cut_in_a_plain_table() -> None:
    long = known(conditions=(Condition("Ready", ConditionStatus.FALSE, "r", "x" * 300, NOW),))
    assert shown(long).endswith(" " + "x" * 99 + "…")


def test_a_release_of_which_nothing_is_known_yet_has_dashes() -> None:
    bare = {"metadata": {"namespace": "apps", "name": "new"}}
    text = render_releases([bare], Format.WIDE, NOW, everywhere=False)
    assert text.splitlines()[1].split() == [
        "new", "Unknown", "-", "-", "-", "-", "-", "0", "-",
    ]  # fmt: skip


def test_nothing_is_said_as_such() -> None:
    assert shown() == "No releases found."
    assert shown(output=Format.NAME) == ""
    assert json.loads(shown(output=Format.JSON))["items"] == []


def test_programs_get_a_list_of_manifests() -> None:
    for output, read in ((Format.JSON, json.loads), (Format.YAML, yaml.safe_load)):
        found = read(shown(known(), output=output))
        assert (found["kind"], found["items"][0]["metadata"]["name"]) == ("List", "web")


# get releases


@pytest.fixture
def filled(machine: Machine) -> Machine:
    """Releases in two namespaces."""
    asyncio.run(machine.keep(known("web"), known("db"), known("web", "default")))
    return machine


def names(capsys: Capture) -> list[str]:
    return [" ".join(row.split()[:2]) for row in capsys.readouterr().out.splitlines()[1:]]


def test_the_releases_of_one_namespace(filled: Machine, capsys: Capture) -> None:
    assert status_of(["get", "releases", "-o", "name"]) == 0
    assert capsys.readouterr().out.split() == ["helmrelease/db", "helmrelease/web"]
    assert status_of(["get", "releases", "-n", "default", "-o", "name"]) == 0
    assert capsys.readouterr().out.split() == ["helmrelease/web"]


def test_the_releases_of_all(filled: Machine, capsys: Capture) -> None:
    status_of(["get", "releases", "-A"])
    assert names(capsys) == ["apps db", "apps web", "default web"]


def test_releases_by_name(filled: Machine, capsys: Capture) -> None:
    status_of(["get", "releases", "web", "none"])
    assert names(capsys) == ["web True"]


def test_a_name_with_a_namespace_is_looked_for_there(filled: Machine, capsys: Capture) -> None:
    status_of(["get", "releases", "default/web"])
    assert names(capsys) == ["default web"]


def test_watching_prints_again_when_something_changed(
    filled: Machine, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def next_second(_: float) -> None:
        kept = await filled.records()
        (present,) = [r for r in await kept.load_all() if r.key == DeclarationKey("apps", "db")]
        if present.state == "Failed":
            raise KeyboardInterrupt
        await kept.save(present.evolve(state="Failed"))

    monkeypatch.setattr("asyncio.sleep", _only_seconds(next_second))
    assert status_of(["get", "releases", "db", "--watch"]) == 130
    assert [line.split()[2] for line in capsys.readouterr().out.splitlines()] == [
        "STATE", "InSync", "STATE", "Failed",
    ]  # fmt: skip


def _only_seconds(then: Any) -> Any:
    sleep = asyncio.sleep

    async def sleeps(seconds: float, *rest: Any) -> None:
        await (then(seconds) if seconds >= 1 else sleep(seconds, *rest))

    return sleeps


def test_one_release_whole(filled: Machine, capsys: Capture) -> None:
    assert status_of(["get", "release", "web", "-o", "yaml"]) == 0
    found = yaml.safe_load(capsys.readouterr().out)
    assert (found["kind"], found["metadata"]["name"]) == ("HelmRelease", "web")
    assert found["status"]["helmops"]["state"] == "InSync"


def test_one_release_that_is_not_there(filled: Machine, capsys: Capture) -> None:
    assert status_of(["get", "release", "none"]) == 1
    assert "there is no release apps/none" in capsys.readouterr().err


def test_a_cluster_that_does_not_answer_is_said(filled: Machine, capsys: Capture) -> None:
    filled.server.is_unreachable = True
    assert status_of(["get", "releases"]) == 1
    assert "no answer from the API server" in capsys.readouterr().err


# get sources, get policies


def test_declared_sources(machine: Machine, capsys: Capture) -> None:
    machine.declare(repository("charts"), release())
    assert status_of(["get", "sources"]) == 0
    header, row = capsys.readouterr().out.splitlines()
    assert header.split() == ["NAMESPACE", "KIND", "NAME", "URL", "DECLARED", "AT"]
    assert row.split()[:4] == ["apps", "HelmRepository", "charts", "https://charts.example.com"]
    assert row.endswith("all.yaml:1")
    assert machine.server.asked == [], "no cluster is asked"


def test_declared_artifacts_in_registries_are_sources_too(
    machine: Machine, capsys: Capture
) -> None:
    machine.declare(artifact("web"), release_of_artifact())
    assert status_of(["get", "sources"]) == 0
    row = capsys.readouterr().out.splitlines()[1]
    assert row.split()[:4] == ["apps", "OCIRepository", "web", REGISTRY]


def test_declared_policies_and_whom_they_are_for(machine: Machine, capsys: Capture) -> None:
    machine.declare(
        repository(),
        release("web"),
        release("db"),
        policy("all", mode="observe"),
        policy("nobody", selector={"names": ["none"]}),
    )
    assert status_of(["get", "policies"]) == 0
    rows = [row.split()[1:-1] for row in capsys.readouterr().out.splitlines()[1:]]
    assert rows == [["all", "observe", "web,", "db"], ["nobody", "enforce", "none"]]


@pytest.mark.parametrize("what", ["sources", "policies"])
def test_mistakes_in_declarations_are_told_and_end_with_2(
    machine: Machine, capsys: Capture, what: str
) -> None:
    machine.declare(repository(), release(noSuchField=1), policy())
    assert status_of(["get", what, "-o", "name"]) == 2
    told = capsys.readouterr()
    assert "noSuchField" in told.err
    assert told.out.strip() in ("HelmRepository/charts", "ReleasePolicy/policy")


def test_secret_values_are_in_no_list_of_sources(machine: Machine, capsys: Capture) -> None:
    machine.declare(repository(secretRef={"name": "token"}))
    status_of(["get", "sources", "-o", "json"])
    (item,) = json.loads(capsys.readouterr().out)["items"]
    assert item["spec"]["secretRef"] == {"name": "token"}


def test_without_declarations_there_is_nothing_to_list(machine: Machine, capsys: Capture) -> None:
    assert status_of(["get", "sources"]) == 2
    assert "there are no declarations" in capsys.readouterr().err


def test_get_alone_shows_what_there_is(machine: Machine, capsys: Capture) -> None:
    assert status_of(["get"]) == 2
    assert "releases" in capsys.readouterr().err
