"""Hooks: which kind is run, and with what."""

from __future__ import annotations

import json
from typing import Any

import pytest

from helmops.checks.hooks import ReleaseHooks
from helmops.errors import NotSupported
from helmops.http import Http
from helmops.model.credentials import HttpCredentials
from helmops.model.declarations import RemediationHook
from helmops.model.releases import ReleaseId
from tests.fakes.clock import FakeClock
from tests.fakes.objects import FakeObjects
from tests.fakes.web_server import Answer, web_server

WEB = ReleaseId("shop", "web")
CONTEXT = {"revision": "7", "chart": "web", "version": "1.2.0", "reason": "UpgradeFailed"}
FACTS = {"release": "web", "namespace": "shop", "hook": "h", "at": "failed"} | CONTEXT


def hook(**kind: Any) -> RemediationHook:
    return RemediationHook.model_validate({"name": "h", "at": "failed", "timeout": "2s"} | kind)


async def test_a_command_is_run_only_where_commands_are_allowed() -> None:
    declared = RemediationHook.model_validate(
        {"name": "backup", "at": "failed", "command": ["echo", "saved hunter22"]}
    )
    clock = FakeClock()
    async with Http(workers=1) as http:
        refusing = ReleaseHooks(FakeObjects(clock), http, clock)
        allowing = ReleaseHooks(
            FakeObjects(clock), http, clock, allow_commands=True, secrets=lambda: ["hunter22"]
        )
        with pytest.raises(NotSupported, match="--allow-commands"):
            await refusing.run(declared, WEB, {}, HttpCredentials())
        result = await allowing.run(declared, WEB, {}, HttpCredentials())

    assert (result.succeeded, result.output) == (True, "saved ***")


async def test_a_webhook_is_sent_with_all_that_is_known() -> None:
    clock = FakeClock()
    async with Http(workers=1) as http:
        with web_server() as server:
            server.routes["/x"] = Answer()
            hooks = ReleaseHooks(FakeObjects(clock), http, clock)

            result = await hooks.run(
                hook(webhook={"url": f"{server.url}/x"}), WEB, CONTEXT, HttpCredentials()
            )

    assert result.succeeded
    assert json.loads(server.asked[0].body) == FACTS


async def test_a_job_is_made_with_all_that_is_known() -> None:
    clock = FakeClock()
    cluster = FakeObjects(clock)
    containers = [{"name": "main", "image": "x"}]
    job = {"template": {"spec": {"containers": containers}}}
    async with Http(workers=1) as http:
        hooks = ReleaseHooks(cluster, http, clock)

        result = await hooks.run(hook(job=job), WEB, CONTEXT, HttpCredentials())

    assert not result.succeeded
    [made] = cluster.of_kind("Job")
    [container] = made["spec"]["template"]["spec"]["containers"]
    assert {one["name"]: one["value"] for one in container["env"]} == {
        f"HELMOPS_{name.upper()}": value for name, value in FACTS.items()
    }
