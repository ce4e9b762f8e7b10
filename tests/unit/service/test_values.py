"""Layers of values for people who ask; what is printed of them is in tests/unit/cli."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from helmops.errors import DeclarationError, ObjectNotFound, UsageError
from helmops.model.records import Record
from helmops.model.releases import ReleaseId
from helmops.resolve.layers import composed
from helmops.service.settings import Settings
from helmops.service.values import layers_of
from tests.fakes.installation import URL, Machine
from tests.unit.reconcile.samples import config_map, key, release, repository

CHARTS = repository("charts", url=URL)
BASE = {"kind": "ConfigMap", "name": "base"}


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(tmp_path, monkeypatch)


def settings(machine: Machine, *filenames: Path) -> Settings:
    given = {"filenames": [str(each) for each in filenames], "namespace": "apps"}
    return Settings.load(given, {"HOME": str(machine.home)})


def put_base(machine: Machine) -> None:
    machine.server.put(
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "base", "namespace": "apps"},
            "data": {"values.yaml": "from: the cluster"},
        }
    )


async def test_declared_values_need_no_cluster(machine: Machine) -> None:
    file = machine.declare(
        CHARTS, release(valuesFrom=[BASE]), config_map("base", values__yaml="from: beside")
    )
    assert composed(await layers_of(settings(machine, file), key())) == {"from": "beside"}
    assert machine.server.asked == []


async def test_what_is_not_declared_is_asked_of_the_cluster(machine: Machine) -> None:
    put_base(machine)
    file = machine.declare(CHARTS, release(valuesFrom=[BASE]))
    assert composed(await layers_of(settings(machine, file), key())) == {"from": "the cluster"}


async def test_a_record_remembers_what_was_declared(machine: Machine) -> None:
    put_base(machine)
    manifest = release(valuesFrom=[BASE], values={"a": 1})
    await machine.keep(
        Record(key(), ReleaseId("apps", "web"), manifest=manifest, origin="w.yaml:1")
    )
    layers = await layers_of(settings(machine), key())
    assert composed(layers) == {"from": "the cluster", "a": 1}
    assert layers[-1].place_of(("a",)) == "w.yaml:1"


@pytest.mark.parametrize(
    "reference",
    [{"kind": "File", "path": "a.yaml"}, {"kind": "GitRepository", "name": "g", "path": "a"}],
)
async def test_a_record_leads_to_no_files(machine: Machine, reference: Any) -> None:
    manifest = release(valuesFrom=[reference])
    await machine.keep(Record(key(), ReleaseId("apps", "web"), manifest=manifest))
    with pytest.raises(UsageError, match="come from files"):
        await layers_of(settings(machine), key())


async def test_a_release_that_nobody_knows_is_said_to_be_none(machine: Machine) -> None:
    with pytest.raises(ObjectNotFound, match="there is no release apps/none"):
        await layers_of(settings(machine), key("none"))
    file = machine.declare(CHARTS, release(), release("bad", noSuchField=1))
    with pytest.raises(UsageError, match="apps/none is not declared"):
        await layers_of(settings(machine, file), key("none"))
    with pytest.raises(DeclarationError, match="noSuchField"):
        await layers_of(settings(machine, file), key("bad"))
