"""Carry out one action. Every failure becomes an `Outcome`; nothing is decided here."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, AsyncExitStack, nullcontext, suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Any, assert_never

from helmops.errors import (
    ClusterError,
    DeclarationError,
    Follows,
    HelmCancelled,
    HelmError,
    HelmopsError,
    HelmUnavailable,
    HelmUnreachable,
    HelmWaitTimeout,
    LeaseHeld,
    ReleaseLocked,
    ReleaseNotFound,
    RolloutStuck,
    SourceError,
    StoreError,
    ValuesError,
)
from helmops.model.actions import (
    Action,
    Adopt,
    CheckHealth,
    Desired,
    GatherEvidence,
    HookOutcome,
    Inspect,
    Install,
    KeepCopy,
    Observation,
    Outcome,
    Prune,
    PutBack,
    Rollback,
    RunHooks,
    RunTests,
    Uninstall,
    Unlock,
    Upgrade,
)
from helmops.model.declarations import (
    Defaults,
    InstallSpec,
    PolicyCheck,
    RollbackSpec,
    UpgradeSpec,
)
from helmops.model.health import CheckResult
from helmops.model.hooks import HookResult
from helmops.model.records import EvidenceNote, Origin, Record
from helmops.model.releases import HelmRun, Progress, ReleaseId
from helmops.reconcile.adoption import differences
from helmops.reconcile.credentials import CredentialReader
from helmops.reconcile.irreversible import irreversible_steps
from helmops.reconcile.ports import (
    Checks,
    Clock,
    EvidenceGatherer,
    EvidenceStore,
    Helm,
    Hooks,
    ReleaseStorage,
    RolloutWatcher,
)

#: While a release is watched, readiness that is lost so long counts as lost.
_REWATCH_TIMEOUT = timedelta(seconds=10)
_OUTPUT_LENGTH = 16 * 1024
#: Nothing waits longer for evidence: what is to be rolled back is rolled back without it.
_EVIDENCE_SECONDS = 20.0
#: Absent, the hard timeout is so many times the timeout (`safe` defaults).
_HARD_FACTOR = 4
#: Of what a helm said that we stopped.
_LINES_KEPT = 200
#: Errors that say nothing of the release: of the way there, or of a helm that somebody killed.
_TELLS_NOTHING = (
    ClusterError,
    LeaseHeld,
    SourceError,
    ReleaseLocked,
    HelmUnavailable,
    HelmUnreachable,
    HelmCancelled,
)
#: A check that cannot be asked as it is declared says nothing of what it was to check.
_ASKS_NOTHING = (DeclarationError, ValuesError)
#: Of those that tell nothing, the ones that helm (or nobody at all) says before it stores anything.
_NEVER_BEGAN = (ReleaseLocked, HelmUnavailable)


@dataclass(frozen=True, slots=True)
class Performer:
    """Performs actions through the ports."""

    clock: Clock
    helm: Helm
    storage: ReleaseStorage
    checks: Checks
    hooks: Hooks
    credentials: CredentialReader
    #: Where failures leave their traces; without it there is no evidence.
    evidence: EvidenceGatherer | None = None
    evidence_store: EvidenceStore | None = None
    #: Watches what helm waits for; without it helm's own timeout is all there is.
    rollouts: RolloutWatcher | None = None
    #: Entered around all that changes a release in Helm's storage, for whoever caches it.
    changing: Callable[[ReleaseId], AbstractContextManager[None]] = lambda _: nullcontext()

    async def perform(
        self,
        action: Action,
        desired: Desired,
        observed: Observation,
        record: Record,
        progress: Progress | None = None,
    ) -> Outcome:
        """Do it, to its end. Raises nothing but `asyncio.CancelledError`.

        An error that says nothing of the release (no API server, somebody's lock, no helm, a check
        that cannot be asked as it is declared) makes the outcome `undetermined`.
        """
        started = self.clock.now()
        try:
            async with AsyncExitStack() as stack:
                if _uses_helm(action):
                    stack.enter_context(self.changing(desired.release))
                    if self.evidence is not None and not isinstance(action, Uninstall):
                        recording = self.evidence.recording(desired.release)
                        await stack.enter_async_context(recording)
                return await self._perform(action, desired, observed, record, started, progress)
        except RolloutStuck as error:
            return self._failed(action, error, started)
        except HelmWaitTimeout as error:
            return await self._not_ready(action, error, desired, started)
        except HelmopsError as error:
            return self._failed(action, error, started)

    async def _not_ready(
        self, action: Action, error: HelmWaitTimeout, desired: Desired, started: datetime
    ) -> Outcome:
        """Helm says that its wait ran out; the pods say why."""
        outcome = self._failed(action, error, started)
        try:
            stored = await self.storage.read(desired.release)
            objects = await self.storage.objects(desired.release, stored.revisions[-1].number)
            seen = await self.checks.readiness(
                desired.release, objects, desired.spec.health_check_exprs, timeout=timedelta(0)
            )
        except (HelmopsError, IndexError):
            return outcome
        if seen.passed or not seen.message:
            return outcome
        return replace(outcome, message=f"{error.what}: {seen.message}")

    def _failed(self, action: Action, error: HelmopsError, started: datetime) -> Outcome:
        tells_nothing = isinstance(error, _TELLS_NOTHING) or (
            isinstance(action, CheckHealth) and isinstance(error, _ASKS_NOTHING)
        )
        output = error.output if isinstance(error, HelmError) else ""
        return Outcome(
            succeeded=False,
            started=started,
            finished=self.clock.now(),
            reason=error.reason if tells_nothing else _reason(action, succeeded=False),
            message=str(error),
            stalled=error.follows is Follows.STALLED,
            output=output[-_OUTPUT_LENGTH:],
            undetermined=tells_nothing,
            untouched=isinstance(error, _NEVER_BEGAN),
        )

    async def _perform(
        self,
        action: Action,
        desired: Desired,
        observed: Observation,
        record: Record,
        started: datetime,
        progress: Progress | None,
    ) -> Outcome:
        spec, release = desired.spec, desired.release
        strategy = spec.wait_strategy.name if spec.wait_strategy else "poller"
        output = ""
        message = ""
        match action:
            case Install(target=target):
                run = await self._rolled_out(
                    desired,
                    spec.install,
                    lambda timeout, tell: self.helm.install(
                        release,
                        target.chart,
                        target.values,
                        spec.install,
                        timeout=timeout,
                        description=f"helmops: install {target.chart.name} {target.chart.version}",
                        wait_strategy=strategy,
                        progress=tell,
                    ),
                    progress,
                )
                output = run.output
            case Upgrade(target=target):
                chart = f"{target.chart.name} {target.chart.version}"
                run = await self._rolled_out(
                    desired,
                    spec.upgrade,
                    lambda timeout, tell: self.helm.upgrade(
                        release,
                        target.chart,
                        target.values,
                        spec.upgrade,
                        timeout=timeout,
                        description=f"helmops: upgrade to {chart}",
                        wait_strategy=strategy,
                        progress=tell,
                    ),
                    progress,
                )
                output = run.output
            case Rollback(to=revision):
                run = await self._rolled_out(
                    desired,
                    spec.rollback,
                    lambda timeout, tell: self.helm.rollback(
                        release,
                        revision,
                        spec.rollback,
                        timeout=timeout,
                        description=f"helmops: rollback to {revision}, seen healthy",
                        wait_strategy=strategy,
                        progress=tell,
                    ),
                    progress,
                )
                output = run.output
                message = f"rolled back to revision {revision}"
            case Uninstall(release=doomed, why=why):
                try:
                    run = await self.helm.uninstall(
                        doomed,
                        spec.uninstall,
                        timeout=spec.uninstall.timeout or spec.timeout,
                        description=f"helmops: {why}"[:250],
                        progress=progress,
                    )
                    output = run.output
                except ReleaseNotFound:
                    message = "it was gone already"
            case RunTests(revision=revision):
                stored = observed.revision(revision)
                if stored is not None and not stored.test_hooks:
                    message = "the chart has no tests"
                else:
                    run = await self.helm.test(
                        release,
                        spec.test,
                        timeout=spec.test.timeout or spec.timeout,
                        progress=progress,
                    )
                    output = run.output
            case CheckHealth():
                return await self._check(action, desired, record, started, progress)
            case Adopt():
                return await self._adopt(action, desired, started)
            case Unlock(is_foreign=True):
                return await self._unlock_foreign(action, release, started)
            case Unlock(revision=revision):
                await self.storage.mark_failed(
                    release, revision, "helmops: broken off by the end of its process, unlocked"
                )
            case Prune(revisions=revisions):
                await self.storage.prune(release, revisions)
            case KeepCopy(revision=revision, digest=digest):
                await self.storage.keep(release, revision, digest)
            case PutBack(revision=revision, digest=digest):
                await self.storage.put_back(release, revision, digest)
                message = f"revision {revision}, which somebody pruned, was put back"
            case Inspect():
                return await self._inspect(action, desired, started)
            case GatherEvidence():
                return await self._gather_evidence(action, desired, record, started)
            case RunHooks():
                return await self._run_hooks(action, desired, observed, record, started, progress)
            case _:
                assert_never(action)
        return Outcome(
            succeeded=True,
            started=started,
            finished=self.clock.now(),
            reason=_reason(action, succeeded=True),
            message=message,
            output=output[-_OUTPUT_LENGTH:],
        )

    async def _rolled_out(
        self,
        desired: Desired,
        spec: InstallSpec | UpgradeSpec | RollbackSpec,
        start: Callable[[timedelta, Progress | None], Awaitable[HelmRun]],
        progress: Progress | None,
    ) -> HelmRun:
        """Run helm with the hard timeout, and cut it off where its rollout stands still. Where
        nothing is waited for, or nothing can be watched, with the plain one.
        """
        timeout, release = spec.timeout or desired.spec.timeout, desired.release
        if self.rollouts is None or spec.disable_wait:
            return await start(timeout, progress)
        if not self.rollouts.may_watch(release.namespace):
            return await start(timeout, progress)
        said: deque[str] = deque(maxlen=_LINES_KEPT)

        def tell(line: str) -> None:
            said.append(line)
            if progress is not None:
                progress(line)

        hard = hard_timeout(desired, timeout)
        try:
            return await self.rollouts.run(
                release,
                start(hard, tell),
                # With one timeout alone, helm counts it, for each of its waits anew.
                patience=timeout if hard > timeout else None,
                max_restarts=desired.policy.verify.max_restarts,
                progress=progress,
            )
        except HelmWaitTimeout as error:
            # helm was stopped by us, so what it said until then is all that there is of it.
            error.output = error.output or "\n".join(said)
            raise

    async def _check(
        self,
        action: CheckHealth,
        desired: Desired,
        record: Record,
        started: datetime,
        progress: Progress | None,
    ) -> Outcome:
        """Readiness first, then the policy's checks side by side."""
        if action.is_final:
            result = CheckResult("watch", passed=False, message=action.reported)
            return Outcome(
                succeeded=False,
                started=started,
                finished=self.clock.now(),
                reason=_reason(action, succeeded=False),
                message=f"{result.name}: {result.message}",
                checks=(result,),
            )
        objects = await self.storage.objects(desired.release, action.revision)
        results: list[CheckResult] = []
        if action.waits:
            timeout = _REWATCH_TIMEOUT if action.is_rewatch else _wait_timeout(desired, record)
            hard = timeout if action.is_rewatch else hard_timeout(desired, timeout)
            results.append(
                await self.checks.readiness(
                    desired.release,
                    objects,
                    desired.spec.health_check_exprs,
                    timeout=timeout,
                    hard_timeout=hard,
                    progress=progress,
                )
            )
        if all(result.passed for result in results):
            results += await _all_to_their_end(
                self._policy_check(check, desired, objects, progress) for check in action.checks
            )
        failures = [f"{r.name}: {r.message}" for r in results if not r.passed]
        return Outcome(
            succeeded=not failures,
            started=started,
            finished=self.clock.now(),
            reason=_reason(action, succeeded=not failures),
            message="; ".join(failures),
            checks=tuple(results),
        )

    async def _policy_check(
        self,
        check: PolicyCheck,
        desired: Desired,
        objects: Sequence[Mapping[str, Any]],
        progress: Progress | None,
    ) -> CheckResult:
        credentials = await self.credentials.for_http(desired.key.namespace, check.secret_ref)
        return await self.checks.policy_check(
            check, desired.release, objects, credentials, progress=progress
        )

    async def _unlock_foreign(
        self, action: Unlock, release: ReleaseId, started: datetime
    ) -> Outcome:
        """Break somebody else's lock, unless the release's objects show that it is at work."""
        objects = await self.storage.objects(release, action.revision)
        changed = await self.checks.last_change(release, objects)
        if changed is not None and started - changed < action.quiet:
            return Outcome(
                succeeded=False,
                started=started,
                finished=self.clock.now(),
                reason="PendingRelease",
                message=f"its objects still change, last at {changed:%H:%M:%S}; left alone",
                undetermined=True,
                untouched=True,
            )
        await self.storage.mark_failed(
            release, action.revision, "helmops: left behind by a helm that is gone, unlocked"
        )
        return Outcome(
            succeeded=True,
            started=started,
            finished=self.clock.now(),
            reason=_reason(action, succeeded=True),
            message=f"the lock on revision {action.revision}, which somebody left, was broken",
        )

    async def _inspect(self, action: Inspect, desired: Desired, started: datetime) -> Outcome:
        target, release = action.target, desired.release
        before = await self.storage.objects(release, action.base.number)
        after = await self.helm.render(
            release,
            target.chart,
            target.values,
            is_upgrade=True,
            skip_schema_validation=bool(desired.spec.upgrade.disable_schema_validation),
            with_hooks=True,
        )
        found = irreversible_steps(
            before,
            after,
            from_version=action.base.chart_version,
            to_version=target.chart.version,
            annotations=dict(target.chart.annotations),
            barriers=desired.policy.upgrade.barriers,
            namespace=release.namespace,
        )
        return Outcome(
            succeeded=True,
            started=started,
            finished=self.clock.now(),
            reason=_reason(action, succeeded=True),
            message="; ".join(found),
            plan=found,
        )

    async def _gather_evidence(
        self, action: GatherEvidence, desired: Desired, record: Record, started: datetime
    ) -> Outcome:
        """Gather and store. What cannot be had is said, and never keeps a rollback from coming."""
        try:
            async with asyncio.timeout(_EVIDENCE_SECONDS):
                note = await self._evidence_of(action, desired, record)
        except (HelmopsError, TimeoutError) as error:
            why = str(error) or f"it took longer than {_EVIDENCE_SECONDS:.0f} s"
            note = EvidenceNote(0, f"no evidence could be gathered: {why}")
        return Outcome(
            succeeded=True,
            started=started,
            finished=self.clock.now(),
            reason=_reason(action, succeeded=True),
            message=note.summary,
            evidence=note,
        )

    async def _evidence_of(
        self, action: GatherEvidence, desired: Desired, record: Record
    ) -> EvidenceNote:
        if self.evidence is None:
            return EvidenceNote(0, "")
        release = desired.release
        before: tuple[dict[str, Any], ...] = ()
        if action.healthy is not None:
            before = await self.storage.objects(release, action.healthy)
        objects = await self.storage.objects(release, action.revision)
        evidence = await self.evidence.gather(
            release,
            action.revision,
            objects,
            before=before,
            helm_output=action.output,
            hooks=_said_by_hooks(record),
        )
        number = 0
        if self.evidence_store is not None:
            with suppress(StoreError):
                number = await self.evidence_store.keep_evidence(desired.key, evidence)
        digest = sha256(evidence.to_json()).hexdigest()
        return EvidenceNote(number, evidence.summary, digest)

    async def _adopt(self, action: Adopt, desired: Desired, started: datetime) -> Outcome:
        plan: tuple[str, ...] = ()
        if action.only_if_same and action.target is not None:
            plan = await self._plan_of_adoption(action, desired)
        return Outcome(
            succeeded=not plan,
            started=started,
            finished=self.clock.now(),
            reason=_reason(action, succeeded=not plan),
            message="; ".join(plan),
            plan=plan,
        )

    async def _plan_of_adoption(self, action: Adopt, desired: Desired) -> tuple[str, ...]:
        target, release = action.target, desired.release
        if target is None:
            return ()
        stored = await self.storage.objects(release, action.revision.number)
        skip = bool(desired.spec.upgrade.disable_schema_validation)

        async def render() -> tuple[dict[str, Any], ...]:
            return await self.helm.render(
                release, target.chart, target.values, is_upgrade=True, skip_schema_validation=skip
            )

        rendered = await render()
        if not differences(stored, rendered, rendered, namespace=release.namespace):
            return ()
        return differences(stored, rendered, await render(), namespace=release.namespace)

    async def _run_hooks(
        self,
        action: RunHooks,
        desired: Desired,
        observed: Observation,
        record: Record,
        started: datetime,
        progress: Progress | None,
    ) -> Outcome:
        """In order; after one that fails and says `stop`, the rest do not run."""
        context = _hook_context(action, desired, observed, record)
        outcomes: list[HookOutcome] = []
        for hook in action.hooks:
            try:
                credentials = await self.credentials.for_http(
                    desired.key.namespace, hook.webhook.secret_ref if hook.webhook else None
                )
                result = await self.hooks.run(
                    hook, desired.release, context, credentials, progress=progress
                )
            except _ASKS_NOTHING as error:
                # One that cannot be run as it is declared has failed: it may be there to stop us.
                result = HookResult(hook.name, False, str(error))
            outcome = HookOutcome(
                name=hook.name,
                succeeded=result.succeeded,
                message=result.message,
                output=result.output[-_OUTPUT_LENGTH:],
                stops=hook.on_error == "stop",
            )
            outcomes.append(outcome)
            if outcome.stops and not outcome.succeeded:
                break
        failures = [f"{o.name}: {o.message}" for o in outcomes if not o.succeeded]
        return Outcome(
            succeeded=not failures,
            started=started,
            finished=self.clock.now(),
            reason=_reason(action, succeeded=not failures),
            message="; ".join(failures),
            hooks=tuple(outcomes),
        )


async def _all_to_their_end(
    checks: Iterable[Coroutine[Any, Any, CheckResult]],
) -> list[CheckResult]:
    """What checks found that ran side by side; raises the first error when none runs any more."""
    results = []
    for found in await asyncio.gather(*checks, return_exceptions=True):
        if isinstance(found, BaseException):
            raise found
        results.append(found)
    return results


def _said_by_hooks(record: Record) -> tuple[str, ...]:
    """What the policy's hooks printed since the revision before, the newest first."""
    earlier = record.history[1].judged_at if len(record.history) > 1 else None
    return tuple(
        f"{hook.name} at {hook.point}: {hook.message}\n{hook.output}"
        for hook in record.hooks
        if earlier is None or hook.at > earlier
    )


def _uses_helm(action: Action) -> bool:
    """Whether helm itself writes its storage meanwhile."""
    return isinstance(action, Install | Upgrade | Rollback | Uninstall | RunTests)


def _hook_context(
    action: RunHooks, desired: Desired, observed: Observation, record: Record
) -> Mapping[str, str]:
    head, known = observed.head, record.head
    return {
        "declaration": str(desired.key),
        "release": desired.release.name,
        "namespace": desired.release.namespace,
        "revision": str(head.number) if head else "",
        "chart": head.chart_name if head else "",
        "version": head.chart_version if head else "",
        "status": head.status.value if head else "",
        "verdict": known.verdict.value if known else "",
        "at": action.point.value,
        "message": known.message if known else "",
    }


def hard_timeout(desired: Desired, timeout: timedelta) -> timedelta:
    """How long an action may take in all while its rollout still moves."""
    said = desired.policy.verify.hard_timeout
    if said is None:
        said = timeout * (1 if desired.defaults is Defaults.FLUX else _HARD_FACTOR)
    return max(said, timeout)


def _wait_timeout(desired: Desired, record: Record) -> timedelta:
    spec = desired.spec
    origin = record.head.origin if record.head else Origin.ADOPT
    own = {
        Origin.INSTALL: spec.install.timeout,
        Origin.UPGRADE: spec.upgrade.timeout,
        Origin.ROLLBACK: spec.rollback.timeout,
    }.get(origin)
    return own or spec.timeout


_NAMES: dict[type, str] = {
    Install: "Install",
    Upgrade: "Upgrade",
    Rollback: "Rollback",
    Uninstall: "Uninstall",
    RunTests: "Test",
    CheckHealth: "HealthCheck",
    Adopt: "Adopt",
    Unlock: "Unlock",
    Prune: "Prune",
    RunHooks: "Hook",
    Inspect: "Inspect",
    GatherEvidence: "GatherEvidence",
    KeepCopy: "KeepCopy",
    PutBack: "PutBack",
}


def _reason(action: Action, *, succeeded: bool) -> str:
    """Flux's reasons: the action's name and how it ended."""
    return f"{_NAMES[type(action)]}{'Succeeded' if succeeded else 'Failed'}"
