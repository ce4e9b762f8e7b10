from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from helmops.service import serve as module
from helmops.service.logs import Redactor
from helmops.service.metrics import Metrics
from helmops.service.settings import Settings
from tests.fakes.service import Service, until
from tests.unit.reconcile.samples import declare, key, release, repository, secret

SECRET = "correct-horse-battery-staple"


class Room:
    """A service whose adapters are fakes, and which is run as `helmops run` runs it."""

    def __init__(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        path.joinpath("apps").mkdir()
        self.service = Service(path / "apps")
        self.seen: list[str] = []
        self.followed: list[Any] = []
        self.hooks: dict[str, Any] = {}
        self.is_closed = False
        self.settings = Settings.load(
            {"listen": "127.0.0.1:0", "grace_period": "1s"},
            {"HOME": str(path)},
        )
        monkeypatch.setattr(module.logs, "configure", lambda *_, **__: Redactor())
        monkeypatch.setattr(module.Installation, "open", self._open)

    @contextlib.asynccontextmanager
    async def _open(self, settings: Settings, **hooks: Any) -> AsyncIterator[Any]:
        self.hooks = hooks
        service = self.service
        installation = SimpleNamespace(
            clock=service.clock,
            declarations=service.declarations,
            reconciler=service.reconciler,
            resolver=service.resolver,
            metrics=Metrics(),
            journal=service.journal,
            api=SimpleNamespace(context="fake"),
            helm=SimpleNamespace(version=self._version),
            records=SimpleNamespace(see=self.seen.append),
            index=SimpleNamespace(add_namespace=self.seen.append),
            liveness=None,
            follow_references=lambda wanted: self.followed.append(dict(wanted)),
        )
        try:
            yield installation
        finally:
            self.is_closed = True

    async def _version(self) -> str:
        return "4.3.1"


@pytest.fixture
def room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Room:
    return Room(tmp_path, monkeypatch)


async def test_it_runs_until_it_is_asked_to_stop(
    room: Room, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    room.service.write("all.yaml", *_yaml(repository(url="https://charts.example.com"), _release()))
    running = asyncio.create_task(module.serve(room.settings))
    await until(lambda: room.service.is_ready(key()))

    os.kill(os.getpid(), signal.SIGTERM)
    await asyncio.wait_for(running, 20)

    assert room.is_closed
    told = [one.getMessage() for one in caplog.records if one.name == "helmops.service.serve"]
    assert told[0].startswith("helmops runs: cluster fake, helm 4.3.1, http://127.0.0.1:")
    assert told[1:] == ["stopping: SIGTERM", "stopped"]
    assert set(room.seen) == {"apps"}, "namespaces of releases are told to those who watch"


async def test_what_the_adapters_tell_reaches_the_engine(room: Room) -> None:
    room.service.write("all.yaml", *_yaml(repository(url="https://charts.example.com"), _release()))
    running = asyncio.create_task(module.serve(room.settings))
    await until(lambda: room.service.is_ready(key()))
    looks = len(room.service.repositories.asked)

    room.hooks["on_cluster_change"]("release", room.service.reconciler.known[key()].release)
    await until(lambda: len(room.service.repositories.asked) > looks)

    # Of what is referred to in the cluster, the index is told what to watch.
    assert room.followed == [{}]

    os.kill(os.getpid(), signal.SIGINT)
    await asyncio.wait_for(running, 20)


async def test_an_engine_that_breaks_down_ends_the_service_with_its_error(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def breaks() -> Any:
        raise ZeroDivisionError("a mistake of ours")

    monkeypatch.setattr(room.service.declarations, "read", breaks)
    with pytest.raises(ZeroDivisionError):
        await asyncio.wait_for(module.serve(room.settings), 20)
    assert room.is_closed


async def test_what_is_told_before_there_is_an_engine_does_no_harm(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The watch of Secrets begins while the rest is still being put together."""
    opened = room._open

    @contextlib.asynccontextmanager
    async def early(settings: Settings, **hooks: Any) -> AsyncIterator[Any]:
        hooks["on_cluster_change"]("release", "anything")
        hooks["on_reference_change"]("ConfigMap", key())
        hooks["on_done"](key(), None)
        async with opened(settings, **hooks) as installation:
            yield installation

    monkeypatch.setattr(module.Installation, "open", early)
    running = asyncio.create_task(module.serve(room.settings))
    await until(lambda: room.hooks)
    os.kill(os.getpid(), signal.SIGTERM)
    await asyncio.wait_for(running, 20)


def test_values_of_declared_secrets_are_hidden_however_they_end() -> None:
    redactor = Redactor()
    declared = declare(
        secret("one", password=SECRET),
        secret("two", password=f"{SECRET}-two\n"),
        secret("three", values__yaml=f"db:\n  password: {SECRET}-three\n"),
        secret("four", short="on"),
    )
    module._hide_secrets(redactor, declared)
    text = redactor.text(f"{SECRET} {SECRET}-two {SECRET}-three; it is on")
    assert SECRET not in text
    assert text.endswith("it is on"), "short texts would hide half of every log"


def _release() -> dict[str, Any]:
    chart = {
        "spec": {"chart": "app", "sourceRef": {"kind": "HelmRepository", "name": "charts"}},
    }
    return release(chart=chart)


def _yaml(*documents: dict[str, Any]) -> tuple[str, ...]:
    return tuple(yaml.safe_dump(document) for document in documents)
