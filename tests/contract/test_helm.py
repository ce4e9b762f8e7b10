"""What helm does to its storage, by the port: the fake is held to what the real helms do.

Every test plays on four stages: in memory as helm 4 and 3, and with both real helms on a cluster.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from helmops.cluster.api import Api
from helmops.errors import (
    HelmError,
    HelmWaitTimeout,
    HookFailed,
    ObjectRefused,
    OwnershipConflict,
    ReleaseExists,
    ReleaseLocked,
    ReleaseNotFound,
    TemplateFailed,
    TestFailed,
    ValuesSchemaFailed,
)
from helmops.helm.client import HelmClient
from helmops.helm.storage import HelmStorage
from tests.fakes.cluster_state import FakeChart, FakeCluster
from tests.fakes.helm import FakeHelm
from tests.fakes.helm_stages import LONG, FakeStage, Play, RealStage
from tests.fakes.release_storage import FakeReleaseStorage

GOOD = FakeChart(version="1.0.0", app_version="one", values={"color": "blue"})
BETTER = FakeChart(version="1.1.0")
BAD = FakeChart(version="1.2.0", fails_upgrade=True)
STUCK = FakeChart(version="1.3.0", never_ready=True)
TESTED = FakeChart(version="1.4.0", tests=["a", "b", "c"])
FAILING = FakeChart(version="1.5.0", tests=["a", "b", "c"], failing_tests=["b"])
REFUSED = FakeChart(version="1.6.0", fails_install=True)

real = pytest.mark.e2e


@pytest.fixture(
    params=[
        "memory 4",
        "memory 3",
        pytest.param("helm4", marks=real),
        pytest.param("helm3", marks=real),
    ]
)
async def play(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Play]:
    """One release on one of the stages."""
    if request.param.startswith("memory"):
        cluster = FakeCluster()
        helm = FakeHelm(cluster, major=int(request.param[-1]))
        yield Play(FakeStage(cluster, helm, FakeReleaseStorage(cluster)))
        return
    kubeconfig = request.getfixturevalue("kubeconfig")
    namespace = request.getfixturevalue("namespace")
    executable = request.getfixturevalue(request.param)
    async with await Api.connect(kubeconfig=str(kubeconfig)) as api:
        storage = HelmStorage(api)
        client = HelmClient(
            runtime_dir=tmp_path / "runtime",
            executable=str(executable),
            kubeconfig=kubeconfig,
            apply_method=storage.apply_method,
        )
        await client.prepare()
        yield Play(RealStage(namespace, client, storage, tmp_path / "charts"))


async def fails(error: type[HelmError], work: Any) -> HelmError:
    with pytest.raises(error) as caught:
        await work
    assert type(caught.value) is error
    return caught.value


# Install


async def test_an_install_makes_the_first_revision(play: Play) -> None:
    run = await play.install(GOOD, {"size": 2}, description="by the test")

    assert await play.statuses() == {1: "deployed"}
    revision = (await play.revisions())[1]
    assert (revision.chart_name, revision.chart_version, revision.app_version) == (
        "app",
        "1.0.0",
        "one",
    )
    assert revision.description == "by the test"
    assert revision.first_deployed == revision.last_deployed
    assert run.duration.total_seconds() > 0


async def test_a_refused_install_leaves_a_failed_revision(play: Play) -> None:
    await fails(ObjectRefused, play.install(REFUSED))
    assert await play.statuses() == {1: "failed"}


async def test_an_install_that_is_never_ready_is_failed(play: Play) -> None:
    await fails(HelmWaitTimeout, play.install(STUCK))
    assert await play.statuses() == {1: "failed"}


async def test_without_waiting_nothing_needs_to_be_ready(play: Play) -> None:
    await play.install(STUCK, disable_wait=True)
    assert await play.statuses() == {1: "deployed"}


async def test_a_name_in_use_is_not_installed_again(play: Play) -> None:
    await play.install(GOOD)
    await fails(ReleaseExists, play.install(BETTER))
    assert await play.statuses() == {1: "deployed"}


async def test_a_failed_install_is_followed_by_an_upgrade(play: Play) -> None:
    await fails(ObjectRefused, play.install(REFUSED))
    await fails(ReleaseExists, play.install(GOOD))
    await play.upgrade(GOOD)
    assert await play.statuses() == {1: "superseded", 2: "deployed"}


async def test_a_failed_install_can_be_replaced(play: Play) -> None:
    await fails(ObjectRefused, play.install(REFUSED))
    await play.install(GOOD, replace=True)
    assert await play.statuses() == {1: "failed", 2: "deployed"}


async def test_a_release_uninstalled_with_history_can_be_replaced(play: Play) -> None:
    await play.install(GOOD)
    await play.uninstall(keep_history=True)
    await fails(ReleaseExists, play.install(BETTER))
    await play.install(BETTER, replace=True)
    assert await play.statuses() == {1: "superseded", 2: "deployed"}


# Upgrade


async def test_an_upgrade_supersedes_the_deployed_revision(play: Play) -> None:
    await play.install(GOOD)
    await play.upgrade(BETTER, description="better")
    assert await play.statuses() == {1: "superseded", 2: "deployed"}
    one, two = (await play.revisions()).values()
    assert two.description == "better"
    assert two.first_deployed == one.first_deployed


async def test_a_refused_upgrade_leaves_the_deployed_revision_alone(play: Play) -> None:
    await play.install(GOOD)
    await fails(ObjectRefused, play.upgrade(BAD))
    assert await play.statuses() == {1: "deployed", 2: "failed"}


async def test_an_upgrade_after_failures_supersedes_the_deployed_one_only(play: Play) -> None:
    await play.install(GOOD)
    await fails(ObjectRefused, play.upgrade(BAD))
    await play.upgrade(BETTER)
    assert await play.statuses() == {1: "superseded", 2: "failed", 3: "deployed"}


async def test_an_upgrade_that_is_never_ready_is_failed(play: Play) -> None:
    await play.install(GOOD)
    await fails(HelmWaitTimeout, play.upgrade(STUCK))
    assert await play.statuses() == {1: "deployed", 2: "failed"}


async def test_an_upgrade_needs_a_release(play: Play) -> None:
    await fails(ReleaseNotFound, play.upgrade(GOOD))


async def test_an_upgrade_of_an_uninstalled_release_finds_none(play: Play) -> None:
    await play.install(GOOD)
    await play.uninstall(keep_history=True)
    await fails(ReleaseNotFound, play.upgrade(BETTER))


async def test_no_values_mean_the_charts_own_not_the_last_ones(play: Play) -> None:
    await play.install(GOOD, {"size": 2})
    await play.upgrade(GOOD)
    one, two = (await play.revisions()).values()
    assert two.config_digest != one.config_digest
    await play.upgrade(GOOD, {"size": 2})
    assert (await play.revisions())[3].digest == one.digest


async def test_values_can_be_kept_and_added_to(play: Play) -> None:
    await play.install(GOOD, {"size": 2, "deep": {"a": 1, "b": 2}})
    await play.upgrade(GOOD, {"deep": {"b": 3}}, preserve_values=True)
    await play.upgrade(GOOD, {"size": 2, "deep": {"a": 1, "b": 3}})
    _, kept, said = (await play.revisions()).values()
    assert kept.config_digest == said.config_digest


# What never gets as far as the storage


@pytest.mark.parametrize(
    ("chart", "error"),
    [
        (FakeChart(version="2.0.0", fails_render=True), TemplateFailed),
        (FakeChart(version="2.1.0", refuses_values=True), ValuesSchemaFailed),
    ],
    ids=["template", "schema"],
)
async def test_a_chart_that_does_not_render_changes_nothing(
    play: Play, chart: FakeChart, error: type[HelmError]
) -> None:
    await fails(error, play.install(chart))
    assert await play.statuses() == {}
    await play.install(GOOD)
    await fails(error, play.upgrade(chart))
    await fails(error, play.render(chart))
    assert await play.statuses() == {1: "deployed"}


async def test_the_schema_can_be_passed_over(play: Play) -> None:
    await play.install(FakeChart(refuses_values=True), disable_schema_validation=True)
    assert await play.statuses() == {1: "deployed"}


async def test_a_rendering_shows_the_objects_and_stores_nothing(play: Play) -> None:
    objects = await play.render(GOOD, {"size": 2})
    shown = {each["kind"]: each for each in objects}
    assert shown["ConfigMap"]["metadata"]["name"] == "app"
    assert shown["ConfigMap"]["data"]["values"].replace(" ", "") == '{"color":"blue","size":2}'
    assert await play.statuses() == {}
    await play.install(GOOD)
    await play.render(BETTER, is_upgrade=True)
    assert await play.statuses() == {1: "deployed"}


# Rollback


async def test_after_good_failed_failed_a_rollback_to_the_good_one_restores_it(play: Play) -> None:
    await play.install(GOOD)
    for _ in range(2):
        await fails(ObjectRefused, play.upgrade(BAD))

    await play.rollback(1, description="back")

    assert await play.statuses() == {1: "superseded", 2: "failed", 3: "failed", 4: "deployed"}
    revisions = await play.revisions()
    assert revisions[4].digest == revisions[1].digest
    assert revisions[4].digest != revisions[3].digest
    assert revisions[4].config_digest == revisions[1].config_digest
    assert revisions[4].first_deployed == revisions[1].first_deployed
    assert revisions[4].description in ("back", "Rollback to 1")


async def test_a_refused_rollback_calls_a_failed_revision_superseded(play: Play) -> None:
    """The lie that helmops is built around: from here on Helm's records name a bad revision as
    one to go back to.
    """
    await play.install(GOOD)
    for _ in range(2):
        await fails(ObjectRefused, play.upgrade(BAD))

    await fails(ObjectRefused, play.rollback(2))

    assert await play.statuses() == {1: "deployed", 2: "failed", 3: "superseded", 4: "failed"}


async def test_a_refused_rollback_from_the_deployed_revision_leaves_none_deployed(
    play: Play,
) -> None:
    await play.install(GOOD)
    await fails(ObjectRefused, play.upgrade(BAD))
    await play.upgrade(BETTER)

    await fails(ObjectRefused, play.rollback(2))

    assert await play.statuses() == {1: "superseded", 2: "failed", 3: "superseded", 4: "failed"}
    await play.upgrade(BETTER)
    assert (await play.statuses())[5] == "deployed"
    assert (await play.statuses())[4] == "superseded"


async def test_a_rollback_that_is_never_ready_leaves_what_was_deployed(play: Play) -> None:
    await play.install(STUCK, disable_wait=True)
    await play.upgrade(GOOD)
    await fails(HelmWaitTimeout, play.rollback(1))
    assert await play.statuses() == {1: "superseded", 2: "deployed", 3: "failed"}


async def test_a_rollback_needs_its_revision(play: Play) -> None:
    await fails(ReleaseNotFound, play.rollback(1))
    await play.install(GOOD)
    await fails(ReleaseNotFound, play.rollback(7))


# Uninstall


async def test_an_uninstall_leaves_nothing(play: Play) -> None:
    await play.install(GOOD)
    await play.upgrade(BETTER)
    await play.uninstall()
    assert await play.statuses() == {}
    await fails(ReleaseNotFound, play.uninstall())
    await play.install(GOOD)
    assert await play.statuses() == {1: "deployed"}


async def test_history_can_be_kept(play: Play) -> None:
    await play.install(GOOD)
    await play.upgrade(BETTER)
    await play.uninstall(keep_history=True, description="gone")
    assert await play.statuses() == {1: "superseded", 2: "uninstalled"}
    assert (await play.revisions())[2].description == "gone"
    await fails(HelmError, play.uninstall(keep_history=True))
    await play.uninstall()
    assert await play.statuses() == {}


async def test_helm_3_leaves_a_revision_deployed_that_is_uninstalled(play: Play) -> None:
    await play.install(GOOD)
    await fails(ObjectRefused, play.upgrade(BAD))
    await play.uninstall(keep_history=True)
    left = "superseded" if play.stage.helm.major >= 4 else "deployed"
    assert await play.statuses() == {1: left, 2: "uninstalled"}


# Tests


async def test_tests_that_pass_are_noted_and_change_no_identity(play: Play) -> None:
    await play.install(TESTED)
    before = (await play.revisions())[1]
    assert await play.phases(1) == {"a": "", "b": "", "c": ""}

    await play.test()

    after = (await play.revisions())[1]
    assert await play.phases(1) == {"a": "Succeeded", "b": "Succeeded", "c": "Succeeded"}
    assert after.digest == before.digest
    assert all(hook.last_started and hook.last_completed for hook in after.test_hooks)
    assert await play.statuses() == {1: "deployed"}


async def test_tests_stop_at_the_first_that_fails(play: Play) -> None:
    await play.install(FAILING)
    error = await fails(TestFailed, play.test())
    assert "b" in error.what
    assert await play.phases(1) == {"a": "Succeeded", "b": "Failed", "c": ""}
    assert await play.statuses() == {1: "deployed"}


async def test_tests_can_be_chosen_and_left_out(play: Play) -> None:
    await play.install(FAILING)
    before = (await play.revisions())[1]
    await play.test(filters=({"name": "c"},))
    assert await play.phases(1) == {"a": "", "b": "", "c": "Succeeded"}
    await play.test(filters=({"name": "b", "exclude": True},))
    assert await play.phases(1) == {"a": "Succeeded", "b": "", "c": "Succeeded"}
    assert (await play.revisions())[1].digest == before.digest


async def test_a_chart_without_tests_passes_them(play: Play) -> None:
    await play.install(GOOD)
    await play.test()
    assert await play.phases(1) == {}


async def test_a_rollback_brings_the_phases_of_the_tests_along(play: Play) -> None:
    await play.install(TESTED)
    await play.test()
    await play.upgrade(GOOD)
    await play.rollback(1)
    assert await play.phases(3) == {"a": "Succeeded", "b": "Succeeded", "c": "Succeeded"}


async def test_tests_need_a_release(play: Play) -> None:
    await fails(ReleaseNotFound, play.test())


# Hooks


def hooked(*events: str) -> FakeChart:
    return FakeChart(version="4.0.0", failing_hooks=events)


@pytest.mark.parametrize("event", ["pre-install", "post-install"])
async def test_a_failed_hook_fails_its_install(play: Play, event: str) -> None:
    error = await fails(HookFailed, play.install(hooked(event), timeout=LONG))
    assert event in error.what
    assert await play.statuses() == {1: "failed"}


@pytest.mark.parametrize("event", ["pre-upgrade", "post-upgrade"])
async def test_a_failed_hook_fails_its_upgrade(play: Play, event: str) -> None:
    await play.install(GOOD)
    await fails(HookFailed, play.upgrade(hooked(event), timeout=LONG))
    assert await play.statuses() == {1: "deployed", 2: "failed"}
    await play.upgrade(hooked(event), timeout=LONG, disable_hooks=True)
    assert await play.statuses() == {1: "superseded", 2: "failed", 3: "deployed"}


@pytest.mark.parametrize("event", ["pre-rollback", "post-rollback"])
async def test_a_failed_hook_of_a_rollback_leaves_a_lock(play: Play, event: str) -> None:
    await play.install(hooked(event))
    await play.upgrade(GOOD)
    await fails(HookFailed, play.rollback(1, timeout=LONG))
    assert await play.statuses() == {1: "superseded", 2: "deployed", 3: "pending-rollback"}
    await play.rollback(1, disable_hooks=True)
    assert (await play.statuses())[4] == "deployed"


async def test_a_failed_hook_stops_an_uninstall_half_way(play: Play) -> None:
    await play.install(hooked("pre-delete"))
    await fails(HookFailed, play.uninstall())
    assert await play.statuses() == {1: "uninstalling"}
    await fails(ReleaseNotFound, play.upgrade(GOOD))
    await play.uninstall(disable_hooks=True)
    assert await play.statuses() == {}


async def test_a_hook_that_fails_after_an_uninstall_undoes_nothing(play: Play) -> None:
    await play.install(hooked("post-delete"))
    await fails(HookFailed, play.uninstall())
    assert await play.statuses() == {}


# Stopped on the way


async def test_a_cancelled_upgrade_is_failed(play: Play) -> None:
    await play.install(GOOD)
    await play.cancelled("upgrade", play.upgrade(STUCK, timeout=LONG))
    assert await play.statuses() == {1: "deployed", 2: "failed"}
    await play.upgrade(BETTER)
    assert await play.statuses() == {1: "superseded", 2: "failed", 3: "deployed"}


async def test_a_cancelled_install_is_failed(play: Play) -> None:
    await play.cancelled("install", play.install(STUCK, timeout=LONG))
    assert await play.statuses() == {1: "failed"}


async def test_a_cancelled_rollback_leaves_a_lock_that_can_be_broken(play: Play) -> None:
    await play.install(STUCK, disable_wait=True)
    await play.upgrade(GOOD)
    await play.cancelled("rollback", play.rollback(1, timeout=LONG))
    assert await play.statuses() == {1: "superseded", 2: "deployed", 3: "pending-rollback"}
    await fails(ReleaseLocked, play.upgrade(BETTER))

    await play.stage.storage.mark_failed(play.stage.release, 3, "nobody is at it")

    assert (await play.revisions())[3].description == "nobody is at it"
    await play.upgrade(BETTER)
    assert await play.statuses() == {1: "superseded", 2: "superseded", 3: "failed", 4: "deployed"}


async def test_a_rollback_goes_through_a_lock(play: Play) -> None:
    await play.install(STUCK, disable_wait=True)
    await play.upgrade(GOOD)
    await play.cancelled("rollback", play.rollback(1, timeout=LONG))
    await play.rollback(2)
    assert await play.statuses() == {
        1: "superseded",
        2: "superseded",
        3: "pending-rollback",
        4: "deployed",
    }


async def test_an_uninstall_goes_through_a_lock(play: Play) -> None:
    await play.install(STUCK, disable_wait=True)
    await play.upgrade(GOOD)
    await play.cancelled("rollback", play.rollback(1, timeout=LONG))
    await play.uninstall()
    assert await play.statuses() == {}


async def test_two_operations_at_once_end_with_one_refused(play: Play) -> None:
    await play.install(GOOD)
    task = await play.stage.stuck("upgrade", play.upgrade(STUCK, timeout=LONG))
    await fails(ReleaseLocked, play.upgrade(BETTER))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


# Objects of others


async def test_objects_of_others_are_refused_or_taken(play: Play) -> None:
    chart = FakeChart(version="3.0.0", takes_foreign_objects=True)
    stage = play.stage
    if isinstance(stage, RealStage):
        other = Play(RealStage(stage.release.namespace, stage.helm, stage.storage, Path(), "other"))
        other.stage.publish = stage.publish  # type: ignore[method-assign]
        await other.install(chart)
    await play.install(GOOD)
    await fails(OwnershipConflict, play.upgrade(chart, disable_take_ownership=True))
    assert await play.statuses() == {1: "deployed"}
    await play.upgrade(chart, disable_take_ownership=False)
    assert await play.statuses() == {1: "superseded", 2: "deployed"}
