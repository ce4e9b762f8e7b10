from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
import yaml

from helmops.cli.app import status_of
from helmops.model.records import Record
from helmops.model.releases import DeclarationKey, ReleaseId
from tests.fakes.installation import URL, Machine
from tests.unit.reconcile.samples import config_map, release, repository, secret

Capture = pytest.CaptureFixture[str]
CHARTS = repository("charts", url=URL)
BASE = {"kind": "ConfigMap", "name": "base"}
PASSWORD = {"kind": "Secret", "name": "db", "valuesKey": "password", "targetPath": "db.password"}


def web(*references: Any, **values: Any) -> dict[str, Any]:
    return release("web", valuesFrom=list(references), values=values)


@pytest.fixture
def declared(machine: Machine) -> Machine:
    machine.declare(
        CHARTS,
        web(BASE, PASSWORD, replicas=3),
        config_map("base", values__yaml="replicas: 1\ndb: {host: x}\n"),
        secret("db", password="s3cret-s3cret"),
    )
    return machine


def test_values_are_shown_merged_and_secret_ones_hidden(declared: Machine, capsys: Capture) -> None:
    assert status_of(["values", "web"]) == 0
    shown = capsys.readouterr().out
    assert yaml.safe_load(shown) == {
        "db": {"host": "x", "password": "(hidden)"},
        "replicas": 3,
    }
    assert status_of(["values", "apps/web", "-o", "json", "--show-secrets"]) == 0
    assert json.loads(capsys.readouterr().out)["db"]["password"] == "s3cret-s3cret"


def test_the_cluster_is_not_asked_for_what_is_declared(declared: Machine) -> None:
    assert status_of(["values", "web", "--explain"]) == 0
    assert (declared.server.asked, declared.opened) == ([], [])


def test_explained_each_value_has_its_layer_and_those_that_it_replaced(
    declared: Machine, capsys: Capture
) -> None:
    assert status_of(["values", "web", "--explain"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:4] == [
        'db.host: "x"',
        "    from spec.valuesFrom[0]  ConfigMap apps/base key values.yaml:2",
        'db.password: "(hidden)"',
        "    from spec.valuesFrom[1]  Secret apps/db key password",
    ]
    assert lines[4] == "replicas: 3"
    assert lines[5].startswith("    from spec.values         ")
    assert "all.yaml:" in lines[5]
    assert lines[6] == "    over spec.valuesFrom[0]  ConfigMap apps/base key values.yaml:1"


@pytest.mark.parametrize(("output", "read"), [("json", json.loads), ("yaml", yaml.safe_load)])
def test_explained_for_programs(declared: Machine, capsys: Capture, output: str, read: Any) -> None:
    assert status_of(["values", "web", "--explain", "-o", output]) == 0
    found = {each["key"]: each for each in read(capsys.readouterr().out)["values"]}
    assert found["db.password"] == {
        "key": "db.password",
        "path": ["db", "password"],
        "value": "(hidden)",
        "secret": True,
        "from": {"field": "spec.valuesFrom[1]", "where": "Secret apps/db key password"},
        "over": [],
    }
    assert [each["field"] for each in found["replicas"]["over"]] == ["spec.valuesFrom[0]"]


def test_a_release_without_values_has_none(machine: Machine, capsys: Capture) -> None:
    machine.declare(CHARTS, release("web"))
    assert status_of(["values", "web"]) == 0
    assert status_of(["values", "web", "--explain"]) == 0
    assert capsys.readouterr().out == "{}\nthere are no values\n"


@pytest.mark.parametrize(
    ("arguments", "status", "told"),
    [
        (["values"], 2, "Missing argument"),
        (["values", "none"], 2, "apps/none is not declared"),
        (["values", "web"], 1, "ConfigMap apps/gone does not exist"),
        (["values", "bad"], 2, "noSuchField"),
    ],
)
def test_what_cannot_be_shown_is_said(
    machine: Machine, capsys: Capture, arguments: list[str], status: int, told: str
) -> None:
    file = machine.declare(CHARTS, web({"kind": "ConfigMap", "name": "gone"}))
    file.with_name("bad.yaml").write_text(yaml.safe_dump(release("bad", noSuchField=1)))
    assert status_of(arguments) == status
    assert told in capsys.readouterr().err


# Without declarations


def remember(machine: Machine, *references: Any, **values: Any) -> None:
    record = Record(
        DeclarationKey("apps", "web"),
        ReleaseId("apps", "web"),
        manifest=web(*references, **values),
        origin="apps/web.yaml:3",
    )
    asyncio.run(machine.keep(record))


def test_a_record_and_the_cluster_know_as_well(machine: Machine, capsys: Capture) -> None:
    machine.server.put(
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "base", "namespace": "apps"},
            "data": {"values.yaml": "replicas: 1\nhost: x"},
        }
    )
    remember(machine, BASE, replicas=3)
    found = status_of(["values", "web", "--explain"])
    assert found == 0
    out = capsys.readouterr().out
    assert 'host: "x"' in out
    assert "from spec.values         apps/web.yaml:3" in out


def test_files_are_known_to_declarations_alone(machine: Machine, capsys: Capture) -> None:
    remember(machine, {"kind": "File", "path": "a.yaml"})
    assert status_of(["values", "web"]) == 2
    assert "name these: -f DIR" in capsys.readouterr().err
    assert status_of(["values", "other"]) == 1
    assert "there is no release apps/other" in capsys.readouterr().err
