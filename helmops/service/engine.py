"""The service: what wakes releases, and the queue that runs their passes.

The engine is the watches and polls; the interval is only a safety net. Jobs of the scheduler, the
watch of Helm's Secrets and the reading of declarations do nothing but enqueue keys.
"""

from __future__ import annotations

import asyncio
import logging
import posixpath
import random
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Protocol

from helmops.errors import HelmopsError, SourceError, StoreError
from helmops.model.actions import (
    NO_REQUEST,
    Done,
    Held,
    Install,
    Request,
    RetryAfter,
    Rollback,
    RunTests,
    Stalled,
    Uninstall,
    Upgrade,
)
from helmops.model.declarations import (
    Defaults,
    HealthCheckExpr,
    HelmRelease,
)
from helmops.model.declared import DeclarationSet, Declared, KindKey
from helmops.model.globs import fixed_part, has_wildcards
from helmops.model.records import Record, Snapshot, Verdict
from helmops.model.releases import DeclarationKey, ReleaseId
from helmops.reconcile.ports import Clock
from helmops.reconcile.reconciler import Passed, Reconciler
from helmops.reconcile.resolving import Resolver
from helmops.service.declarations import Declarations
from helmops.service.logs import about_release
from helmops.service.metrics import Metrics
from helmops.service.polling import Polls
from helmops.service.queue import ComeBack, WorkQueue
from helmops.service.removal import is_removed, last_spec
from helmops.service.scheduler import Scheduler
from helmops.service.waking import (
    changed_releases,
    dependents_of,
    needs_in_cluster,
    opened_with,
    references_of,
    users_of,
)
from helmops.sources.file_watch import FileWatch
from helmops.sources.tree_files import signature

log = logging.getLogger(__name__)

#: Declarations in directories are looked at this often even when nothing tells of a change (not
#: every file system does): a `stat` a file.
POLL_SECONDS = 1.0
_LOAD_RETRY_SECONDS = 5.0

#: Flux's annotations that ask for something once.
RECONCILE_AT = "reconcile.fluxcd.io/requestedAt"
FORCE_AT = "reconcile.fluxcd.io/forceAt"
RESET_AT = "reconcile.fluxcd.io/resetAt"


class Liveness(Protocol):
    """Looks after releases between passes; `helmops.checks.liveness.LiveReleases` does."""

    async def follow(
        self,
        release: ReleaseId,
        snapshot: Snapshot,
        *,
        expressions: Sequence[HealthCheckExpr] = (),
        max_restarts: int,
    ) -> None: ...

    def unfollow(self, release: ReleaseId) -> None: ...


class Engine:
    """Runs passes over all declared releases, from `run` until it is cancelled or `stop`ped."""

    def __init__(
        self,
        *,
        clock: Clock,
        declarations: Declarations,
        reconciler: Reconciler,
        resolver: Resolver,
        metrics: Metrics,
        defaults: Defaults,
        concurrency: int,
        liveness: Liveness | None = None,
        on_namespace: Callable[[str], None] = lambda _: None,
        on_secrets: Callable[[DeclarationSet], None] = lambda _: None,
        on_needs: Callable[[Iterable[KindKey]], None] = lambda _: None,
        on_removed: Callable[[DeclarationKey], Awaitable[None]] | None = None,
    ) -> None:
        self._clock = clock
        self._declarations = declarations
        self._reconciler = reconciler
        self._resolver = resolver
        self._metrics = metrics
        self._defaults = defaults
        self._liveness = liveness
        self._looked_after: dict[DeclarationKey, ReleaseId] = {}
        self._on_namespace = on_namespace
        self._on_secrets = on_secrets
        self._on_needs = on_needs
        self._on_removed = on_removed
        self.declared = DeclarationSet()
        self._by_release: dict[ReleaseId, DeclarationKey] = {}
        self._dependents: dict[DeclarationKey, tuple[DeclarationKey, ...]] = {}
        self._needing: Mapping[KindKey, tuple[DeclarationKey, ...]] = {}
        self._signatures: dict[DeclarationKey, tuple[tuple[str, int, int], ...]] = {}
        self._told_errors: set[str] = set()
        self._told_others: set[str] = set()
        self._lacking: dict[str, str] = {
            "declarations": "not read yet",
            "cluster": "records not read yet",
        }
        self.passes: WorkQueue[DeclarationKey] = WorkQueue(
            self._pass,
            clock=clock,
            random=random.random,
            on_error=self._on_error,
            concurrency=concurrency,
        )
        self.polling: WorkQueue[KindKey] = WorkQueue(
            self._poll_source,
            clock=clock,
            random=random.random,
            on_error=lambda key, error: log.error("polling %s: %s", key, error, exc_info=error),
            concurrency=concurrency,
        )
        self._polls: Polls[KindKey] = Polls(clock=clock, random=random.random)
        self._release_jobs: Scheduler[DeclarationKey] = Scheduler(
            self.passes.wake, clock=clock, random=random.random
        )
        self._source_jobs: Scheduler[KindKey] = Scheduler(
            self.polling.wake, clock=clock, random=random.random
        )
        metrics.watch_queue(
            depth=lambda: self.passes.depth,
            running=lambda: len(self.passes.running),
            delayed=lambda: self.passes.delayed,
        )

    def missing(self) -> dict[str, str]:
        """What keeps the service from being ready, by name; empty when it is."""
        return dict(self._lacking)

    async def run(self) -> None:
        """Load, then follow the declarations until cancelled."""
        self._release_jobs.start()
        self._source_jobs.start()
        await self._load_records()
        self.polling.start()
        self.passes.start()
        declared = await self._declarations.read()
        await self._look_beside(declared)
        self._take_in(declared)
        async with asyncio.TaskGroup() as group:
            watch = FileWatch(self._declarations.directories)
            group.create_task(watch.run())
            await self._follow(watch)

    async def _follow(self, watch: FileWatch) -> None:
        while True:
            await watch.wait(POLL_SECONDS)
            changed = await self._declarations.poll()
            await self._look_beside(changed or self.declared)
            if changed is not None:
                self._take_in(changed)

    async def stop(self, grace: timedelta) -> None:
        """Take no more work, let what runs end within the grace period."""
        self._release_jobs.stop()
        self._source_jobs.stop()
        await asyncio.gather(self.passes.stop(grace), self.polling.stop(grace))

    def on_cluster_change(self, kind: str, release: ReleaseId) -> None:
        """A release's Secret or record changed, and not by us."""
        key = self._by_release.get(release)
        if key is not None:
            self.passes.wake(key, f"{kind} Secret changed")

    def on_live_change(self, release: ReleaseId, why: str) -> None:
        """What watches show of a release's objects changed."""
        key = self._by_release.get(release)
        if key is not None:
            self.passes.wake(key, f"its objects: {why}")

    def on_reference_change(self, kind: str, key: DeclarationKey) -> None:
        """A ConfigMap or Secret in the cluster is not as it was read."""
        for source in opened_with(self.declared, key) if kind == "Secret" else ():
            self._polls.forget(source)  # it may have failed for want of this
            self.polling.wake(source, f"Secret {key} changed")
        for release in self._needing.get((kind, key), ()):
            self.passes.wake(release, f"{kind} {key} changed")

    # Declarations

    async def _load_records(self) -> None:
        while True:
            try:
                await self._reconciler.load()
            except HelmopsError as error:
                self._lacking["cluster"] = str(error)
                log.error("cannot read records: %s", error, extra={"action": "load"})
                await self._clock.sleep(_LOAD_RETRY_SECONDS)
                continue
            self._lacking.pop("cluster", None)
            return

    def _take_in(self, declared: DeclarationSet) -> None:
        """Wake what a change of declarations concerns, and nothing else."""
        before, self.declared = self.declared, declared
        self._on_secrets(declared)
        self._by_release = {
            each.resource.release_id: key for key, each in declared.releases.items()
        }
        for record in self._reconciler.known.values():
            self._by_release.setdefault(record.release, record.key)
        self._dependents = dict(dependents_of(declared))
        self._needing = needs_in_cluster(declared)
        self._on_needs(self._needing)
        self._tell_errors(declared)
        for release in declared.releases.values():
            self._on_namespace(release.resource.release_id.namespace)
        for key, why in changed_releases(before, declared).items():
            release = declared.releases[key]
            self._release_jobs.every(key, release.resource.spec.interval)
            self.passes.wake(key, why)
        for key in (before.knows_all() | self._known_here()) - declared.knows_all():
            self.passes.wake(key, "no longer declared")
        for key in declared.untouched:
            self.passes.wake(key, "its declaration cannot be used")
        self._schedule_sources(before, declared)
        self._lacking.pop("declarations", None)

    def _known_here(self) -> set[DeclarationKey]:
        """Releases of earlier runs that came from the same places."""
        here = self._declarations.locations
        return {key for key, record in self._reconciler.known.items() if record.location in here}

    def _tell_errors(self, declared: DeclarationSet) -> None:
        told = {str(error) for error in declared.errors}
        for error in declared.errors:
            if str(error) not in self._told_errors:
                log.error("%s", error, extra={"action": "declare"})
        if self._told_errors and not told:
            log.info("all declarations can be read again", extra={"action": "declare"})
        self._told_errors = told
        if not self._told_others.issuperset(declared.ignored):
            self._told_others |= declared.ignored.keys()
            others = ", ".join(f"{count} {kind}" for kind, count in declared.ignored.items())
            log.info("left alone: %s", others, extra={"action": "declare"})

    def _schedule_sources(self, before: DeclarationSet, declared: DeclarationSet) -> None:
        used = {
            reference
            for release in declared.releases.values()
            for reference in references_of(declared, release)
        }
        for key, source in declared.sources.items():
            spec = getattr(source.resource, "spec", None)
            if key in used and key[0] != "HelmChart" and spec is not None and not spec.suspend:
                self._source_jobs.every(key, spec.interval)
            else:
                self._source_jobs.remove(key)
        for key in before.sources.keys() - declared.sources.keys():
            self._source_jobs.remove(key)
            self._polls.forget(key)

    async def _look_beside(self, declared: DeclarationSet) -> None:
        """Charts and values files in directories: they are no declarations, but change as well.

        Looked at before the passes read them, so that no change falls in between.
        """
        beside = {
            key: paths
            for key, release in declared.releases.items()
            if (paths := _paths_beside(release))
        }
        if not beside:
            self._signatures = {}
            return
        found = await asyncio.to_thread(
            lambda: {key: signature(paths) for key, paths in beside.items()}
        )
        for key, now in found.items():
            before = self._signatures.get(key)
            if before is not None and before != now:
                self.passes.wake(key, "files beside its declaration changed")
        self._signatures = found

    # Sources

    async def _poll_source(self, key: KindKey, _: tuple[str, ...]) -> ComeBack | None:
        source = self.declared.sources.get(key)
        if source is None:
            return None
        failing = self._polls.failing(key)
        if failing is not None and not self._polls.is_due(key):
            # Woken by its interval: that is no reason to forget when it is due.
            return ComeBack("the source fails", failing.not_before)
        started = self._clock.now()
        outcome = "unchanged"
        try:
            if await self._resolver.poll(source):
                outcome = "changed"
            recovered = self._polls.succeeded(key)
        except HelmopsError as error:
            retry_after = error.retry_after if isinstance(error, SourceError) else None
            failing = self._polls.failed(key, retry_after)
            if failing.failures == 1:
                log.warning("%s %s: %s", *key, error, extra={"action": "poll"})
            self._metrics.source_polled(key[0], "failed", self._clock.now() - started)
            return ComeBack("the source fails", failing.not_before)
        self._metrics.source_polled(key[0], outcome, self._clock.now() - started)
        if outcome == "changed" or recovered:
            for user in users_of(self.declared, key):
                self.passes.wake(user, f"{key[0]} {key[1]} changed")
        return None

    # Passes

    async def _pass(self, key: DeclarationKey, reasons: tuple[str, ...]) -> ComeBack | None:
        declared = self.declared.releases.get(key)
        if declared is None:
            return await self._pass_over_undeclared(key)
        head = self._reconciler.known[key].head if key in self._reconciler.known else None
        with about_release(key, head.revision if head else None):
            log.debug("woken: %s", ", ".join(reasons), extra={"action": "pass"})
            started = self._clock.now()
            before = self._reconciler.known.get(key)
            wanted = self._resolver.wanted(self.declared, key)
            request = asked_by(request_of(declared), before, reasons)
            passed = await self._reconciler.reconcile(wanted, request)
            self._count(key, passed, self._clock.now() - started)
            self._tell(key, before, passed)
            self._wake_dependents(key, before, passed.record)
            await self._look_after(declared, passed.record)
        decision = passed.decision
        if isinstance(decision, RetryAfter):
            return ComeBack(decision.why, decision.at)
        return None

    async def _look_after(self, declared: Declared[HelmRelease], record: Record) -> None:
        """Have the objects of a release watched that is ours, and not known to have failed."""
        if self._liveness is None:
            return
        key, head = declared.key, record.head
        before = self._looked_after.get(key)
        is_left_alone = declared.resource.spec.suspend or record.suspended is not None
        if head is None or head.verdict is Verdict.FAILED or is_left_alone:
            self._look_after_no_more(key)
            return
        if before is not None and before != record.release:
            self._look_after_no_more(key)  # it moved
        self._looked_after[key] = record.release
        policy = self.declared.policy_for(key)
        await self._liveness.follow(
            record.release,
            head,
            expressions=declared.resource.spec.health_check_exprs,
            max_restarts=policy.verify.max_restarts,
        )

    def _look_after_no_more(self, key: DeclarationKey) -> None:
        release = self._looked_after.pop(key, None)
        if self._liveness is not None and release is not None:
            self._liveness.unfollow(release)

    async def _pass_over_undeclared(self, key: DeclarationKey) -> ComeBack | None:
        error = self.declared.untouched.get(key)
        record = self._reconciler.known.get(key)
        if error is not None:
            release = record.release if record else ReleaseId(key.namespace, key.name)
            refused = (await self._reconciler.refuse(key, release, error)).record
            self._metrics.release_is(key, refused.state, ready=refused.is_ready())
            return None
        if not self.declared.complete:
            return None
        if record is None or not record.version:
            await self._forget(key)  # nothing was ever released for it, or it changed hands
            return None
        locations = self._declarations.locations
        heir = self._by_release.get(record.release)
        if record.location in locations and heir is not None and heir in self.declared.releases:
            # The declaration got another name: the release is not without one.
            await self._forget(key)
            self.passes.wake(heir, f"{key} is not declared any more")
            return None
        if not is_removed(record, self.declared, self._reconciler.known, locations):
            return None
        with about_release(key):
            self._release_jobs.remove(key)
            self._resolver.forget(key)
            self._look_after_no_more(key)
            try:
                left = await self._reconciler.remove(record, last_spec(record, self._defaults))
            except HelmopsError as failure:
                log.warning("removal: %s", failure, extra={"action": "remove"})
                return ComeBack(str(failure))
            if left is None:
                await self._forget(key)
        return None

    async def _forget(self, key: DeclarationKey) -> None:
        """A declaration is gone, and nothing of it is left to look after."""
        self._look_after_no_more(key)
        self._reconciler.forget(key)
        self._release_jobs.remove(key)
        self._resolver.forget(key)
        self._metrics.forget(key)
        if self._on_removed is not None:
            try:
                await self._on_removed(key)
            except StoreError as error:
                log.error("%s", error, extra={"action": "store"})

    def _count(self, key: DeclarationKey, passed: Passed, duration: timedelta) -> None:
        record = passed.record
        self._metrics.pass_ended(type(passed.decision).__name__, duration)
        self._metrics.release_is(key, record.state, ready=record.is_ready())
        head = record.head
        if head is not None and head.verdict is Verdict.HEALTHY and head.judged_at is not None:
            self._metrics.release_succeeded(key, head.judged_at)

    def count_action(self, key: DeclarationKey, done: Done) -> None:
        """For `Reconciler.on_done`."""
        kind = type(done.action).__name__
        outcome = done.outcome
        self._metrics.action_ended(kind, succeeded=outcome.succeeded, duration=outcome.duration)
        if isinstance(done.action, Install | Upgrade | Rollback | Uninstall | RunTests):
            command = "test" if isinstance(done.action, RunTests) else kind.lower()
            self._metrics.helm_ended(
                command, succeeded=outcome.succeeded, duration=outcome.duration
            )
        if isinstance(done.action, Rollback):
            self._metrics.rolled_back(key, succeeded=outcome.succeeded)

    @staticmethod
    def _tell(key: DeclarationKey, before: Record | None, passed: Passed) -> None:
        """One line when a release gets ready, and one when it stands still."""
        ready, was_ready = passed.is_ready, before is not None and before.is_ready()
        condition = passed.record.condition("Ready")
        message = condition.message if condition else ""
        if ready and not was_ready:
            log.info("ready: %s", message, extra={"action": "pass"})
        elif isinstance(passed.decision, Stalled | Held | RetryAfter) and not ready:
            old = before.condition("Ready") if before else None
            if old is None or old.reason != (condition.reason if condition else ""):
                log.warning("not ready: %s", message, extra={"action": "pass"})

    def _wake_dependents(self, key: DeclarationKey, before: Record | None, after: Record) -> None:
        """At once, not at a tick: whoever waits for this release looks again."""
        if before is not None and before.conditions == after.conditions:
            return
        for dependent in self._dependents.get(key, ()):
            self.passes.wake(dependent, f"{key} changed")

    def _on_error(self, key: DeclarationKey, error: BaseException) -> None:
        with about_release(key):
            log.error("a pass broke off: %s", error, exc_info=error, extra={"action": "pass"})


def request_of(declared: Declared[HelmRelease]) -> Request:
    """What the declaration's annotations ask for, in Flux's way: a token is handled once, and
    force and reset count only with the token of the request.
    """
    annotations = declared.resource.metadata.annotations
    token = annotations.get(RECONCILE_AT, "")
    if not token:
        return NO_REQUEST
    return Request(
        reconcile=token,
        force=token if annotations.get(FORCE_AT) == token else "",
        reset=token if annotations.get(RESET_AT) == token else "",
        by="annotation",
    )


def asked_by(request: Request, known: Record | None, reasons: tuple[str, ...]) -> Request:
    """The request with who asked, for the ledger: an annotation only as long as it is new, else
    what woke the release.
    """
    if request.reconcile and (known is None or known.handled.reconcile != request.reconcile):
        return request
    return replace(request, by=f"schedule ({', '.join(reasons[:3])})" if reasons else "schedule")


def _paths_beside(release: Declared[HelmRelease]) -> tuple[str, ...]:
    """Files and directories that a declaration names relative to its own file."""
    if not release.file.location:
        return ()
    base = posixpath.dirname(release.file.location)
    spec = release.resource.spec
    paths = [
        posixpath.join(base, fixed_part(value.path)[0] if has_wildcards(value.path) else value.path)
        for value in spec.values_from
        if value.kind == "File"
    ]
    if spec.chart is not None and spec.chart.spec.source_ref.kind == "Directory":
        tree = posixpath.join(base, spec.chart.spec.source_ref.name)
        paths += [posixpath.join(tree, spec.chart.spec.chart)]
        paths += [posixpath.join(tree, path) for path in spec.chart.spec.values_files]
    return tuple(paths)
