from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from helmops.cluster.api import Api
from helmops.errors import UsageError
from helmops.service.checkup import Finding, checkup
from helmops.service.settings import Settings
from tests.fakes.kubernetes_api import FakeKubernetes
from tests.unit.reconcile.samples import release, repository

HELM = "#!/bin/sh\necho 'v4.3.1+g0000000'\n"


class Room:
    """A machine with helm and git, a cluster that allows everything, and a place for state."""

    def __init__(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.path = path
        self.server = FakeKubernetes("apps")
        self.options: dict[str, object] = {"helm": str(self.program("helm", HELM))}
        self.program("git", "#!/bin/sh\n")
        monkeypatch.setenv("PATH", f"{path / 'bin'}:/usr/bin:/bin")
        monkeypatch.setattr(Api, "connect", self._connect)

    def program(self, name: str, text: str) -> Path:
        file = self.path / "bin" / name
        file.parent.mkdir(exist_ok=True)
        file.write_text(text)
        file.chmod(0o755)
        return file

    async def _connect(self, **_: object) -> Api:
        return self.server.api()

    async def findings(self, **options: object) -> dict[str, Finding]:
        environment = {
            "HOME": str(self.path),
            "XDG_STATE_HOME": str(self.path / "state"),
            "XDG_CACHE_HOME": str(self.path / "cache"),
        }
        settings = Settings.load({**self.options, **options}, environment)
        return {finding.name: finding for finding in await checkup(settings)}


@pytest.fixture
def room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Room:
    return Room(tmp_path, monkeypatch)


async def test_where_all_is_well_each_part_says_what_it_is(room: Room) -> None:
    found = await room.findings()
    assert {name: (f.is_good, f.message) for name, f in found.items()} == {
        "helm": (True, "4.3.1+g0000000"),
        "git": (True, str(room.path / "bin" / "git")),
        "state": (True, f"sqlite:///{room.path}/state/helmops/state.db"),
        "cluster": (True, "fake, Kubernetes v1.37.2"),
        "rights in default": (True, "records, leases and Helm's storage"),
    }


async def test_a_helm_that_is_not_there_hides_nothing_else(room: Room) -> None:
    found = await room.findings(helm=str(room.path / "none"))
    assert not found["helm"].is_good
    assert "none" in found["helm"].message
    assert found["cluster"].is_good


async def test_without_git_that_is_said(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    found = await room.findings()
    assert found["git"] == Finding("git", False, "there is no git on PATH")


async def test_a_state_that_cannot_be_opened_is_said(room: Room) -> None:
    (room.path / "state").write_text("in the way")
    found = await room.findings()
    assert not found["state"].is_good
    assert found["cluster"].is_good


async def test_an_api_server_that_does_not_answer_is_said(room: Room) -> None:
    room.server.is_unreachable = True
    found = await room.findings()
    assert "no answer from the API server" in found["cluster"].message
    assert not any(name.startswith("rights") for name in found)


async def test_a_kubeconfig_that_cannot_be_used_is_said(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def connect(**_: object) -> Api:
        raise UsageError("there is no context prod", where="--context")

    monkeypatch.setattr(Api, "connect", connect)
    assert (await room.findings())["cluster"].message == "--context: there is no context prod"


async def test_every_right_that_is_lacking_is_named(room: Room) -> None:
    room.server.denied = {
        ("watch", "secrets", "default"),
        ("create", "leases", "default"),
        ("get", "secrets", "apps"),
    }
    found = await room.findings()
    rights = found["rights in default"]
    assert not rights.is_good
    assert rights.message == "not allowed: watch Secret, create Lease; see config/kubernetes"


async def test_rights_are_looked_at_in_every_namespace_that_is_watched(room: Room) -> None:
    room.server.denied = {("delete", "secrets", "apps")}
    found = await room.findings(watch_namespaces=["default", "apps"])
    assert found["rights in default"].is_good
    assert not found["rights in apps"].is_good


def declare(room: Room, *documents: object) -> str:
    file = room.path / "apps.yaml"
    file.write_text(yaml.safe_dump_all(documents))
    return str(file)


async def test_declarations_are_counted_where_some_are_named(room: Room) -> None:
    filename = declare(room, repository(), release("web"), release("db"))
    found = (await room.findings(filenames=(filename,)))["declarations"]
    assert (found.is_good, found.message) == (True, "2 releases")
    assert "declarations" not in await room.findings()


async def test_all_mistakes_in_declarations_are_told(room: Room) -> None:
    filename = declare(room, release("web", noSuchField=1), release("db", other=1))
    found = (await room.findings(filenames=(filename,)))["declarations"]
    assert not found.is_good
    assert "noSuchField" in found.message
    assert "other" in found.message


async def test_a_place_that_is_not_there_is_said(room: Room) -> None:
    found = (await room.findings(filenames=(str(room.path / "none"),)))["declarations"]
    assert not found.is_good
    assert "does not exist" in found.message
