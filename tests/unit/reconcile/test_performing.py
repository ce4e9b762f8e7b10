from __future__ import annotations

import asyncio
import contextlib
import inspect
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import pytest

from helmops import errors
from helmops.errors import (
    ClusterUnreachable,
    DeclarationError,
    Follows,
    HelmError,
    HelmopsError,
    HelmWaitTimeout,
    HookFailed,
    RolloutStuck,
    SourceDenied,
    ValuesError,
)
from helmops.model.actions import (
    Action,
    Adopt,
    CheckHealth,
    Desired,
    HookPoint,
    Install,
    Outcome,
    Prune,
    Rollback,
    RunHooks,
    RunTests,
    Target,
    Uninstall,
    Unlock,
    Upgrade,
)
from helmops.model.declarations import Defaults
from helmops.model.records import Origin, Record
from helmops.model.releases import HelmStatus, ReleaseId
from helmops.reconcile.credentials import CredentialReader
from helmops.reconcile.performing import Performer
from helmops.resolve.digest import config_digest
from tests.fakes.checks import FakeChecks
from tests.fakes.cluster_state import FakeChart, FakeCluster, HelmCall, Point
from tests.fakes.helm import FakeHelm
from tests.fakes.hooks import FakeHooks
from tests.fakes.references import FakeReferences
from tests.fakes.release_storage import FakeReleaseStorage
from tests.fakes.rollouts import FakeRollouts, RolloutCall
from tests.unit.decide.samples import RELEASE, desired, observed, record, snapshot

CHART = FakeChart("web", "1.0.0")
OLD = ReleaseId("apps", "old")


@dataclass
class Room:
    """Everything that an action is performed with."""

    def __post_init__(self) -> None:
        self.cluster = FakeCluster()
        self.storage = FakeReleaseStorage(self.cluster)
        self.checks = FakeChecks(self.cluster)
        self.hooks = FakeHooks(self.cluster)
        self.references = FakeReferences()
        self.changed: list[tuple[str, ReleaseId]] = []
        self.lines: list[str] = []
        self.performer = Performer(
            clock=self.cluster.clock,
            helm=FakeHelm(self.cluster),
            storage=self.storage,
            checks=self.checks,
            hooks=self.hooks,
            credentials=CredentialReader(self.references),
            changing=self._changing,
        )

    @contextlib.contextmanager
    def _changing(self, release: ReleaseId) -> Iterator[None]:
        self.changed.append(("begins", release))
        yield
        self.changed.append(("ends", release))

    @property
    def call(self) -> HelmCall:
        return self.cluster.calls[-1]

    async def perform(
        self, action: Action, wanted: Desired | None = None, remembered: Record | None = None
    ) -> Outcome:
        seen = observed(*(r.as_revision() for r in self.cluster.revisions(RELEASE)))
        return await self.performer.perform(
            action, wanted or desired(), seen, remembered or record(), progress=self.lines.append
        )


@pytest.fixture
def room() -> Room:
    return Room()


@pytest.fixture
def deployed(room: Room) -> Room:
    """Revision 1 of the chart is there, and well."""
    room.cluster.add(RELEASE, CHART)
    return room


def target(chart: FakeChart = CHART, **values: Any) -> Target:
    return Target(chart.artifact, values, config_digest(values))


def checks(*names: str) -> dict[str, Any]:
    return {"verify": {"checks": [{"name": n, "http": {"url": "http://app/"}} for n in names]}}


# helm's commands


async def test_an_install(room: Room) -> None:
    outcome = await room.perform(Install(target(replicas=2)))
    assert (outcome.succeeded, outcome.reason) == (True, "InstallSucceeded")
    assert outcome.output == "install of apps/web done\n"
    assert outcome.duration == timedelta(seconds=1)
    assert (room.call.operation, room.call.chart) == ("install", "web@1.0.0")
    assert room.call.values == {"replicas": 2}
    assert room.call.description == "helmops: install web 1.0.0"


async def test_an_upgrade(deployed: Room) -> None:
    outcome = await deployed.perform(Upgrade(target(FakeChart("web", "1.1.0"))))
    assert (outcome.succeeded, outcome.reason) == (True, "UpgradeSucceeded")
    assert deployed.call.description == "helmops: upgrade to web 1.1.0"


async def test_a_rollback_says_what_it_went_back_to(deployed: Room) -> None:
    deployed.cluster.add(RELEASE, FakeChart("web", "1.1.0"))
    outcome = await deployed.perform(Rollback(1, "d1"))
    assert (outcome.succeeded, outcome.reason) == (True, "RollbackSucceeded")
    assert outcome.message == "rolled back to revision 1"
    assert (deployed.call.revision, deployed.call.description) == (
        1,
        "helmops: rollback to 1, seen healthy",
    )


async def test_an_uninstall_is_of_the_release_that_the_action_names(deployed: Room) -> None:
    deployed.cluster.add(OLD, CHART)
    outcome = await deployed.perform(Uninstall(OLD, "moved to apps/web"))
    assert (outcome.succeeded, outcome.reason) == (True, "UninstallSucceeded")
    assert (deployed.call.release, deployed.call.description) == (OLD, "helmops: moved to apps/web")
    assert deployed.cluster.statuses(RELEASE) == {1: "deployed"}


async def test_what_is_gone_already_is_uninstalled(room: Room) -> None:
    outcome = await room.perform(Uninstall(OLD, "why"))
    assert (outcome.succeeded, outcome.message) == (True, "it was gone already")


async def test_a_long_reason_is_cut_to_what_helm_takes(deployed: Room) -> None:
    await deployed.perform(Uninstall(RELEASE, "x" * 1000))
    assert len(deployed.call.description) == 250


@pytest.mark.parametrize(
    ("action", "part"),
    [
        (Install(target()), "install"),
        (Upgrade(target()), "upgrade"),
        (Rollback(1, "d1"), "rollback"),
        (Uninstall(RELEASE, "why"), "uninstall"),
        (RunTests(1), "test"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_each_command_has_its_own_timeout_and_part_of_the_spec(
    room: Room, action: Action, part: str
) -> None:
    if part != "install":
        room.cluster.add(RELEASE, FakeChart("web", tests=("t",)))
    wanted = desired(timeout="7m", **{part: {"timeout": "90s"}})
    assert (await room.perform(action, wanted)).succeeded
    assert room.call.timeout == timedelta(seconds=90)
    assert room.call.spec == getattr(wanted.spec, part)


async def test_without_one_of_its_own_the_releases_timeout_counts(room: Room) -> None:
    await room.perform(Install(target()), desired(timeout="7m"))
    assert room.call.timeout == timedelta(minutes=7)


@pytest.mark.parametrize("name", ["poller", "legacy"])
async def test_helm_waits_as_the_declaration_says(room: Room, name: str) -> None:
    await room.perform(Install(target()), desired(waitStrategy={"name": name}))
    assert room.call.wait_strategy == name


async def test_a_chart_without_tests_has_passed_them_without_helm(deployed: Room) -> None:
    outcome = await deployed.perform(RunTests(1))
    assert (outcome.succeeded, outcome.message) == (True, "the chart has no tests")
    assert not deployed.cluster.calls


async def test_what_is_not_stored_any_more_is_helms_to_say(room: Room) -> None:
    outcome = await room.perform(RunTests(9))
    assert (outcome.succeeded, room.call.operation) == (False, "test")


async def test_a_failed_test_is_told_with_its_log(room: Room) -> None:
    room.cluster.add(RELEASE, FakeChart("web", failing_tests=("smoke",)))
    outcome = await room.perform(RunTests(1))
    assert (outcome.succeeded, outcome.reason) == (False, "TestFailed")
    assert outcome.message == "apps/web.v1: the test smoke failed"
    assert "not what was expected" in outcome.output


async def test_output_is_bounded_and_its_end_is_kept(room: Room) -> None:
    error = HelmError("it broke", output="x" * 20_000 + "the end")
    room.cluster.fail("install", Point.STARTED, error)
    outcome = await room.perform(Install(target()))
    assert len(outcome.output) == 16 * 1024
    assert outcome.output.endswith("the end")


# Errors become outcomes

TELL_NOTHING = {
    "ClusterUnreachable", "ClusterError", "AccessDenied", "ObjectNotFound", "ObjectConflict",
    "NamespaceMissing", "LeaseHeld", "SourceError", "SourceUnavailable", "SourceDenied",
    "SourceMissing", "SourceInvalid", "ReleaseLocked", "HelmUnavailable", "HelmUnreachable",
    "HelmCancelled",
}  # fmt: skip
NEVER_BEGAN = {"ReleaseLocked", "HelmUnavailable"}
#: Of a check, that it cannot be asked as it is declared.
OF_CHECKS = (DeclarationError, ValuesError)
ERRORS = [
    each
    for _, each in inspect.getmembers(errors, inspect.isclass)
    if issubclass(each, HelmopsError) and not issubclass(each, OF_CHECKS)
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: error.__name__)
async def test_every_error_becomes_an_outcome(room: Room, error: type[HelmopsError]) -> None:
    room.cluster.fail("install", Point.STARTED, error("it broke", where="here"))

    outcome = await room.perform(Install(target()))

    assert not outcome.succeeded
    assert outcome.message == "here: it broke"
    assert outcome.stalled is (error.follows is Follows.STALLED)
    assert outcome.undetermined is (error.__name__ in TELL_NOTHING)
    assert outcome.untouched is (error.__name__ in NEVER_BEGAN)
    assert outcome.reason == (error.reason if outcome.undetermined else "InstallFailed")


@pytest.mark.parametrize(
    "error", [errors.NotSupported, errors.ExpressionError, errors.ValuesReferenceMissing]
)
async def test_a_check_that_cannot_be_asked_says_nothing_of_the_release(
    deployed: Room, error: type[HelmopsError]
) -> None:
    deployed.cluster.fail("check", Point.STARTED, error("it broke"))
    wanted = desired(policy=checks("smoke"))
    outcome = await deployed.perform(CheckHealth(1, wanted.policy.verify.checks, True), wanted)
    assert (outcome.undetermined, outcome.reason) == (True, error.reason)


@pytest.mark.parametrize(
    ("action", "operation", "reason"),
    [
        (Install(target()), "install", "InstallFailed"),
        (Upgrade(target()), "upgrade", "UpgradeFailed"),
        (Rollback(1, "d1"), "rollback", "RollbackFailed"),
        (Uninstall(RELEASE, "why"), "uninstall", "UninstallFailed"),
        (RunTests(1), "test", "TestFailed"),
        (CheckHealth(1, (), True), "readiness", "HealthCheckFailed"),
        (Adopt(snapshot(), target(), True), "template", "AdoptFailed"),
        (Unlock(1), "mark_failed", "UnlockFailed"),
        (Prune((1,)), "prune", "PruneFailed"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_a_failure_has_fluxs_reason_for_its_action(
    room: Room, action: Action, operation: str, reason: str
) -> None:
    stored = room.cluster.add(RELEASE, FakeChart("web", tests=("t",)))
    if isinstance(action, Adopt):
        action = replace(action, revision=stored.as_revision())
    room.cluster.fail(operation, Point.STARTED, HookFailed("it broke"))
    assert (await room.perform(action)).reason == reason


async def test_a_cancelled_pass_is_cancelled(room: Room) -> None:
    room.cluster.hang("install", Point.STORED)
    task = asyncio.create_task(room.perform(Install(target())))
    for _ in range(5):
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_an_api_server_that_is_gone_says_nothing_of_the_release(deployed: Room) -> None:
    deployed.cluster.unreachable = True
    for action in (CheckHealth(1, (), True), Unlock(1), Prune((1,))):
        outcome = await deployed.perform(action)
        assert (outcome.undetermined, outcome.reason) == (True, "ClusterUnreachable")


async def test_whoever_remembers_the_storage_is_told_of_what_helm_changes(deployed: Room) -> None:
    await deployed.perform(Upgrade(target()))
    assert deployed.changed == [("begins", RELEASE), ("ends", RELEASE)]


async def test_when_a_wait_runs_out_it_is_said_what_was_not_ready(room: Room) -> None:
    room.cluster.publish(FakeChart("web", never_ready=True))
    outcome = await room.perform(Install(target(FakeChart("web", never_ready=True))))
    assert outcome.message.startswith("Deployment/web was not ready in time: 1 of 2 is not ready")


async def test_what_got_ready_meanwhile_is_not_blamed(room: Room) -> None:
    room.cluster.fail("install", Point.APPLIED, HelmWaitTimeout("the wait ran out"))
    outcome = await room.perform(Install(target()))
    assert (outcome.succeeded, outcome.message) == (False, "the wait ran out")


# Checks


async def test_readiness_is_waited_for_with_the_timeout_of_what_brought_the_revision(
    deployed: Room,
) -> None:
    for origin, part in [
        (Origin.INSTALL, "install"),
        (Origin.UPGRADE, "upgrade"),
        (Origin.ROLLBACK, "rollback"),
        (Origin.ADOPT, ""),
    ]:
        spec: dict[str, Any] = {"timeout": "7m"}
        if part:
            spec[part] = {"timeout": "90s"}
        remembered = record(snapshot(origin=origin))
        await deployed.perform(CheckHealth(1, (), True), desired(**spec), remembered)
        expected = timedelta(seconds=90) if part else timedelta(minutes=7)
        assert deployed.checks.calls[-1].timeout == expected, origin


async def test_inside_the_window_readiness_that_is_lost_for_ten_seconds_is_lost(
    deployed: Room,
) -> None:
    await deployed.perform(CheckHealth(1, (), True, is_rewatch=True))
    assert deployed.checks.calls[-1].timeout == timedelta(seconds=10)


async def test_the_checks_of_the_policy_come_after_readiness(deployed: Room) -> None:
    wanted = desired(policy=checks("smoke", "deep"))
    outcome = await deployed.perform(CheckHealth(1, wanted.policy.verify.checks, True), wanted)
    assert (outcome.succeeded, outcome.reason, outcome.message) == (
        True,
        "HealthCheckSucceeded",
        "",
    )
    assert deployed.checks.names() == ["readiness", "smoke", "deep"]
    assert [r.name for r in outcome.checks] == ["readiness", "smoke", "deep"]
    assert all(len(call.objects) == 2 for call in deployed.checks.calls)


async def test_what_is_not_ready_is_not_checked_any_further(deployed: Room) -> None:
    deployed.cluster.sicken(RELEASE)
    wanted = desired(policy=checks("smoke"))
    outcome = await deployed.perform(CheckHealth(1, wanted.policy.verify.checks, True), wanted)
    assert (outcome.succeeded, outcome.undetermined) == (False, False)
    assert deployed.checks.names() == ["readiness"]
    assert outcome.message.startswith("readiness: 1 of 2 is not ready")


async def test_all_checks_that_failed_are_named(deployed: Room) -> None:
    deployed.checks.answers = {"smoke": False, "deep": False}
    wanted = desired(policy=checks("smoke", "fine", "deep"))
    outcome = await deployed.perform(CheckHealth(1, wanted.policy.verify.checks, True), wanted)
    assert outcome.message == "smoke: as scripted; deep: as scripted"
    assert [r.passed for r in outcome.checks] == [True, False, True, False]


async def test_without_waiting_only_the_policys_checks_are_made(deployed: Room) -> None:
    wanted = desired(policy=checks("smoke"))
    await deployed.perform(CheckHealth(1, wanted.policy.verify.checks, False), wanted)
    assert deployed.checks.names() == ["smoke"]


async def test_a_check_whose_secret_is_not_there_says_nothing_of_the_release(
    deployed: Room,
) -> None:
    policy = checks("smoke")
    policy["verify"]["checks"][0]["http"]["secretRef"] = {"name": "token"}
    wanted = desired(policy=policy)
    outcome = await deployed.perform(CheckHealth(1, wanted.policy.verify.checks, True), wanted)
    assert outcome.undetermined
    assert "Secret apps/token does not exist" in outcome.message


async def test_a_revision_that_is_not_stored_cannot_be_checked(deployed: Room) -> None:
    assert not (await deployed.perform(CheckHealth(9, (), True))).succeeded


# Taking over


def adopt(room: Room, to: Target, *, only_if_same: bool = True) -> Adopt:
    stored = room.cluster.last(RELEASE)
    assert stored is not None
    return Adopt(stored.as_revision(), to, only_if_same)


async def test_what_renders_the_same_is_taken_over_and_nothing_is_written(deployed: Room) -> None:
    writes = deployed.cluster.writes
    outcome = await deployed.perform(adopt(deployed, target()))
    assert (outcome.succeeded, outcome.reason, outcome.plan) == (True, "AdoptSucceeded", ())
    assert [call.operation for call in deployed.cluster.calls] == ["template"]
    assert deployed.cluster.writes == writes


async def test_what_would_change_is_the_plan(deployed: Room) -> None:
    other = FakeChart("web", "1.0.0", content="other")
    deployed.cluster.publish(other)
    outcome = await deployed.perform(adopt(deployed, target(other)))
    assert not outcome.succeeded
    assert outcome.plan == ("changes ConfigMap/web data.content",)
    assert [call.operation for call in deployed.cluster.calls] == ["template", "template"]


async def test_what_is_taken_in_any_case_is_not_rendered(deployed: Room) -> None:
    other = target(FakeChart("web", "9.0.0"))
    for action in (adopt(deployed, other, only_if_same=False), Adopt(snapshot(), None, True)):
        assert (await deployed.perform(action)).succeeded
    assert not deployed.cluster.calls


async def test_a_chart_that_does_not_render_is_not_taken_over(deployed: Room) -> None:
    broken = FakeChart("web", "1.0.0", fails_render=True)
    deployed.cluster.publish(broken)
    outcome = await deployed.perform(adopt(deployed, target(broken)))
    assert (outcome.succeeded, outcome.plan) == (False, ())
    assert outcome.message == "web@1.0.0: the chart does not render"


async def test_values_are_checked_as_the_upgrade_would(deployed: Room) -> None:
    refusing = FakeChart("web", "1.0.0", refuses_values=True)
    deployed.cluster.publish(refusing)
    action = adopt(deployed, target(refusing))
    assert not (await deployed.perform(action)).succeeded
    wanted = desired(upgrade={"disableSchemaValidation": True})
    assert (await deployed.perform(action, wanted)).succeeded


# Storage


async def test_unlocking_marks_the_revision_as_failed_and_says_who_did_it(room: Room) -> None:
    room.cluster.add(RELEASE, CHART, status=HelmStatus.PENDING_INSTALL)
    assert (await room.perform(Unlock(1))).succeeded
    stored = room.cluster.last(RELEASE)
    assert stored is not None
    assert stored.status is HelmStatus.FAILED
    assert stored.description.startswith("helmops: ")


async def test_pruning_deletes_the_revisions_and_no_others(room: Room) -> None:
    for _ in range(3):
        room.cluster.add(RELEASE, CHART)
    assert (await room.perform(Prune((1, 2)))).succeeded
    assert list(room.cluster.statuses(RELEASE)) == [3]


# Remediation hooks


def hooks(**on_error: str) -> Desired:
    return desired(
        policy={
            "remediation": {
                "hooks": [
                    {"name": name, "at": "failed", "onError": way, "webhook": {"url": "http://h/"}}
                    for name, way in on_error.items()
                ]
            }
        }
    )


def run_hooks(wanted: Desired) -> RunHooks:
    return RunHooks(HookPoint.FAILED, wanted.policy.remediation.hooks, 1)


async def test_hooks_run_in_order_and_one_that_fails_stops_nothing_by_itself(
    deployed: Room,
) -> None:
    deployed.hooks.failing = {"one"}
    wanted = hooks(one="continue", two="stop")
    outcome = await deployed.perform(run_hooks(wanted), wanted)
    assert deployed.hooks.names() == ["one", "two"]
    assert (outcome.succeeded, outcome.reason) == (False, "HookFailed")
    assert outcome.message == "one: failed"
    assert [(h.name, h.succeeded, h.stops) for h in outcome.hooks] == [
        ("one", False, False),
        ("two", True, True),
    ]


async def test_one_that_succeeds_lets_the_rest_run_whatever_it_says(deployed: Room) -> None:
    wanted = hooks(one="stop", two="stop")
    outcome = await deployed.perform(run_hooks(wanted), wanted)
    assert (outcome.succeeded, outcome.reason) == (True, "HookSucceeded")
    assert deployed.hooks.names() == ["one", "two"]


async def test_after_one_that_fails_and_says_stop_the_rest_do_not_run(deployed: Room) -> None:
    deployed.hooks.failing = {"one"}
    wanted = hooks(one="stop", two="continue")
    outcome = await deployed.perform(run_hooks(wanted), wanted)
    assert deployed.hooks.names() == ["one"]
    assert len(outcome.hooks) == 1


async def test_a_hook_that_cannot_be_run_as_it_is_declared_has_failed(deployed: Room) -> None:
    """Else a gate that was to stop an upgrade would be passed over for its broken Secret."""
    deployed.references.put_secret("apps", "token", username="ada")
    policy = {
        "remediation": {
            "hooks": [
                {
                    "name": "gate",
                    "at": "failed",
                    "onError": "stop",
                    "webhook": {"url": "http://h/", "secretRef": {"name": "token"}},
                }
            ]
        }
    }
    wanted = desired(policy=policy)
    outcome = await deployed.perform(run_hooks(wanted), wanted)
    assert (outcome.succeeded, outcome.undetermined) == (False, False)
    (hook,) = outcome.hooks
    assert (hook.name, hook.succeeded, hook.stops) == ("gate", False, True)
    assert "has no `password`" in hook.message


async def test_a_hook_is_told_what_it_is_about(deployed: Room) -> None:
    wanted = hooks(one="continue")
    remembered = record(snapshot(message="503"))
    await deployed.perform(run_hooks(wanted), wanted, remembered)
    (call,) = deployed.hooks.calls
    assert call.context == {
        "declaration": "apps/web",
        "release": "web",
        "namespace": "apps",
        "revision": "1",
        "chart": "web",
        "version": "1.0.0",
        "status": "deployed",
        "verdict": "healthy",
        "at": "failed",
        "message": "503",
    }


async def test_a_hook_of_a_release_that_is_not_there_is_told_so(room: Room) -> None:
    wanted = hooks(one="continue")
    await room.perform(run_hooks(wanted), wanted)
    (call,) = room.hooks.calls
    assert (call.context["revision"], call.context["verdict"]) == ("", "")


async def test_the_output_of_a_hook_is_bounded(deployed: Room) -> None:
    deployed.hooks.output = {"one": "x" * 20_000 + "the end"}
    wanted = hooks(one="continue")
    outcome = await deployed.perform(run_hooks(wanted), wanted)
    assert len(outcome.hooks[0].output) == 16 * 1024
    assert outcome.hooks[0].output.endswith("the end")


async def test_a_hook_that_could_not_be_run_is_tried_again(deployed: Room) -> None:
    deployed.cluster.fail("hook", Point.STARTED, ClusterUnreachable("gone"))
    wanted = hooks(one="continue")
    assert (await deployed.perform(run_hooks(wanted), wanted)).undetermined


async def test_errors_of_the_way_there_keep_their_own_reason(deployed: Room) -> None:
    deployed.cluster.fail("upgrade", Point.STARTED, SourceDenied("401"))
    assert (await deployed.perform(Upgrade(target()))).reason == "AuthenticationFailed"


async def test_a_release_that_vanished_under_an_upgrade_is_a_failure(room: Room) -> None:
    outcome = await room.perform(Upgrade(target()))
    assert (outcome.undetermined, outcome.reason) == (False, "UpgradeFailed")


# Rollouts that are watched


@pytest.fixture
def rollouts(room: Room) -> FakeRollouts:
    """What helm waits for is watched."""
    made = FakeRollouts()
    room.performer = replace(room.performer, rollouts=made)
    return made


RELEASING: list[Any] = [
    pytest.param(Install(target()), id="install"),
    pytest.param(Upgrade(target(FakeChart("web", "2.0.0"))), id="upgrade"),
    pytest.param(Rollback(1, "x"), id="rollback"),
]


def prepared(room: Room, action: Action) -> None:
    if not isinstance(action, Install):
        room.cluster.add(RELEASE, CHART)


@pytest.mark.parametrize("action", RELEASING)
@pytest.mark.parametrize(
    ("policy", "defaults", "hard", "patience"),
    [
        ({}, Defaults.SAFE, 28, 7),
        ({}, Defaults.FLUX, 7, None),
        ({"hardTimeout": "10m"}, Defaults.SAFE, 10, 7),
        ({"hardTimeout": "10m"}, Defaults.FLUX, 10, 7),
        ({"hardTimeout": "1m"}, Defaults.SAFE, 7, None),
    ],
)
async def test_helm_gets_the_hard_timeout_and_its_rollout_is_watched_for_the_other(
    room: Room,
    rollouts: FakeRollouts,
    action: Action,
    policy: dict[str, Any],
    defaults: Defaults,
    hard: int,
    patience: int | None,
) -> None:
    prepared(room, action)
    wanted = desired(
        timeout="7m", policy={"verify": {**policy, "maxRestarts": 4}}, defaults=defaults
    )
    assert (await room.perform(action, wanted)).succeeded
    assert room.call.timeout == timedelta(minutes=hard)
    limit = timedelta(minutes=patience) if patience else None
    assert rollouts.calls == [RolloutCall(RELEASE, limit, 4)]


@pytest.mark.parametrize("action", RELEASING)
async def test_where_nothing_is_waited_for_nothing_is_watched(
    room: Room, rollouts: FakeRollouts, action: Action
) -> None:
    prepared(room, action)
    part = type(action).__name__.lower()
    await room.perform(action, desired(timeout="7m", **{part: {"disableWait": True}}))
    assert rollouts.calls == []
    assert room.call.timeout == timedelta(minutes=7)


async def test_where_nothing_may_be_watched_helm_gets_the_plain_timeout(
    room: Room, rollouts: FakeRollouts
) -> None:
    rollouts.is_refused = True
    await room.perform(Install(target()), desired(timeout="7m"))
    assert rollouts.calls == []
    assert room.call.timeout == timedelta(minutes=7)


async def test_what_is_stuck_is_told_as_it_is(room: Room, rollouts: FakeRollouts) -> None:
    rollouts.verdict = RolloutStuck("pod web-1: ErrImagePull: not found")
    room.cluster.hang("install", Point.APPLIED)
    outcome = await room.perform(Install(target()))
    assert not outcome.succeeded
    assert outcome.message == "pod web-1: ErrImagePull: not found"
    assert outcome.reason == "InstallFailed"
    assert not outcome.undetermined
    assert room.checks.calls == []


async def test_what_stands_still_is_told_with_what_is_not_ready(
    room: Room, rollouts: FakeRollouts
) -> None:
    rollouts.verdict = HelmWaitTimeout("nothing has moved for 7m")
    room.cluster.hang("install", Point.APPLIED)
    room.cluster.live.clear()
    outcome = await room.perform(Install(target()))
    assert outcome.message.startswith("nothing has moved for 7m")


@pytest.mark.parametrize(
    ("action", "left"),
    [
        (Install(target()), HelmStatus.FAILED),
        (Upgrade(target(FakeChart("web", "2.0.0"))), HelmStatus.FAILED),
        (Rollback(1, "x"), HelmStatus.PENDING_ROLLBACK),
    ],
)
async def test_a_helm_that_is_cut_off_leaves_what_it_leaves_on_sigterm(
    room: Room, rollouts: FakeRollouts, action: Action, left: HelmStatus
) -> None:
    prepared(room, action)
    rollouts.verdict = HelmWaitTimeout("nothing has moved for 7m")
    room.cluster.hang(type(action).__name__.lower(), Point.APPLIED)
    assert not (await room.perform(action)).succeeded
    assert room.cluster.revisions(RELEASE)[-1].status is left


async def test_the_readiness_check_gets_both_timeouts_too(deployed: Room) -> None:
    await deployed.perform(
        CheckHealth(1, (), waits=True),
        desired(timeout="2m", policy={"verify": {"hardTimeout": "9m"}}),
        record(snapshot()),
    )
    call = deployed.checks.calls[-1]
    assert (call.timeout, call.hard_timeout) == (timedelta(minutes=2), timedelta(minutes=9))
    await deployed.perform(CheckHealth(1, (), waits=True, is_rewatch=True), desired())
    call = deployed.checks.calls[-1]
    assert call.timeout == call.hard_timeout == timedelta(seconds=10)
