"""One pass over one release, from top to bottom.

A pass that finds nothing to do reads what is in memory and writes nothing. One that acts holds the
release's Lease, looks again, and then loops: decide, note, perform, observe, remember.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Protocol

from helmops.decide.conditions import conclude, conclude_blind
from helmops.decide.events import events_between
from helmops.decide.ledger import NOTHING_SAID, Said, entered
from helmops.decide.next_action import decide, deployed_version
from helmops.decide.recovery import is_our_lock, recover
from helmops.decide.remember import (
    hold,
    intend,
    note_declaration,
    note_liveness,
    note_request,
    remember,
)
from helmops.decide.state import classify
from helmops.errors import (
    DeclarationError,
    Follows,
    HelmError,
    HelmopsError,
    LeaseHeld,
    NamespaceMissing,
    ObjectConflict,
    ObjectNotFound,
    ReleaseLocked,
    StoreError,
)
from helmops.model.actions import (
    NO_REQUEST,
    Decision,
    Desired,
    Done,
    Held,
    Install,
    Observation,
    ReleaseState,
    Request,
    RetryAfter,
    Run,
    Stalled,
    Uninstall,
    Unresolved,
)
from helmops.model.declarations import Defaults, HelmReleaseSpec, ReleasePolicySpec
from helmops.model.events import Event
from helmops.model.records import Record
from helmops.model.releases import DeclarationKey, ReleaseId, Revision
from helmops.reconcile.performing import Performer
from helmops.reconcile.ports import (
    Clock,
    Helm,
    Journal,
    Leases,
    Liveness,
    Notifier,
    Records,
    ReleaseStorage,
)

#: No pass does more than this; a decider that would go on for ever is stopped here.
_MAX_ACTIONS = 40
_LEASE_RETRY = timedelta(seconds=2)
_CLUSTER_RETRY = timedelta(seconds=5)


class Wanted(Protocol):
    """What a release should be; asked once it is known which version is deployed."""

    @property
    def key(self) -> DeclarationKey:
        """Namespace and name of the declaration."""

    @property
    def release(self) -> ReleaseId:
        """What helm is to call it."""

    def is_beside(self, other: DeclarationKey) -> bool:
        """Whether this other release is declared too, in what was read together with this one."""

    async def desired(self, deployed: str, records: Mapping[DeclarationKey, Record]) -> Desired:
        """Fetch, resolve and compose. What fails becomes `Unresolved`, not an exception."""


@dataclass(frozen=True, slots=True)
class Passed:
    """How a pass ended."""

    record: Record
    decision: Decision
    done: tuple[Done, ...] = ()

    @property
    def is_ready(self) -> bool:
        """Whether the release is ready as declared."""
        return self.record.is_ready()


#: Told of each step: (declaration, line).
Tell = Callable[[DeclarationKey, str], None]


class Reconciler:
    """Runs passes. One instance serves all releases; one pass per release at a time is the
    caller's business within a process, the Lease's between processes.
    """

    def __init__(
        self,
        *,
        clock: Clock,
        helm: Helm,
        storage: ReleaseStorage,
        performer: Performer,
        records: Records,
        leases: Leases,
        journal: Journal,
        notifier: Notifier,
        holder: str,
        liveness: Liveness | None = None,
        observe_only: bool = False,
        tell: Tell | None = None,
        on_done: Callable[[DeclarationKey, Done], None] | None = None,
        on_journal_error: Callable[[StoreError], None] | None = None,
    ) -> None:
        self._clock = clock
        self._helm = helm
        self._storage = storage
        self._performer = performer
        self._records = records
        self._leases = leases
        self._journal = journal
        self._notifier = notifier
        self._holder = holder
        self._liveness = liveness
        self._observe_only = observe_only
        self._tell = tell
        self._on_done = on_done
        self._on_journal_error = on_journal_error
        #: The latest record of each declaration, and where it is kept.
        self.known: dict[DeclarationKey, Record] = {}
        #: What was told of releases that could not be looked at, and stands in no record Secret.
        self._told_blind: dict[DeclarationKey, Record] = {}

    async def load(self) -> tuple[Record, ...]:
        """Read all records; needed once, before the first pass. Raises ClusterError."""
        records = await self._records.load_all()
        for record in records:
            self.known.setdefault(record.key, record)
        await self._chronicle(*records)
        return records

    async def reconcile(self, wanted: Wanted, request: Request = NO_REQUEST) -> Passed:
        """One pass. Raises nothing but `asyncio.CancelledError`: what goes wrong is a decision."""
        try:
            return await self._reconcile(wanted, request)
        except LeaseHeld as error:
            at = self._clock.now() + _LEASE_RETRY
            held = RetryAfter(at, self._state_of(wanted.key), str(error), error.reason)
            return await self._given_up(wanted.key, wanted.release, held)
        except HelmopsError as error:
            if error.follows is Follows.STALLED:
                decision: Decision = Stalled(self._state_of(wanted.key), str(error), error.reason)
            else:
                at = self._clock.now() + _CLUSTER_RETRY
                state = self._state_of(wanted.key)
                decision = RetryAfter(at, state, str(error), error.reason, is_blind=True)
            return await self._given_up(wanted.key, wanted.release, decision)

    async def _reconcile(self, wanted: Wanted, request: Request) -> Passed:
        now = self._clock.now()
        saved = await self._load(wanted)
        base = _base(saved, wanted)
        observed = await self._observe(wanted.release, base)
        desired = await self._desired(wanted, observed, base)
        record, request = note_request(note_declaration(base, desired, now), request)
        record = note_liveness(recover(desired, observed, record, now), observed, now)
        decision = self._decide(desired, observed, record, (), request)
        if isinstance(decision, Run) and not desired.is_observed_only:
            return await self._act(wanted, desired, request, decision)
        if isinstance(decision, Stalled) and decision.is_refusal:
            return Passed(base, decision)
        record = self._concluded(record, desired, decision)
        said = Said(decision=decision, by=request.by, commit=desired.commit)
        record = await self._keep(saved, record, said)
        return Passed(record, decision)

    async def _act(self, wanted: Wanted, desired: Desired, request: Request, first: Run) -> Passed:
        """Under the Lease: look again, then one action after the other until there is none."""
        release = desired.release
        action = first.action
        is_coming = isinstance(action, Install) or (
            isinstance(action, Uninstall) and action.release != release  # it moves here
        )
        if is_coming and desired.spec.install.create_namespace:
            await self._records.ensure_namespace(release.namespace)
        try:
            async with self._leases.hold(release):
                return await self._act_under_lease(wanted, desired, request)
        except ObjectNotFound as error:
            raise NamespaceMissing(
                f"namespace {release.namespace} does not exist",
                where=str(wanted.key),
                next_step="create it, or set install.createNamespace with a targetNamespace",
            ) from error

    async def _act_under_lease(self, wanted: Wanted, desired: Desired, request: Request) -> Passed:
        saved = await self._load(wanted)
        base = _base(saved, wanted)
        observed = await self._observe(desired.release, base)
        now = self._clock.now()
        record, request = note_request(note_declaration(base, desired, now), request)
        record = note_liveness(recover(desired, observed, record, now), observed, now)
        done: list[Done] = []
        while True:
            decision = self._decide(desired, observed, record, done, request)
            if len(done) >= _MAX_ACTIONS and isinstance(decision, Run):
                at = self._clock.now() + _CLUSTER_RETRY
                decision = RetryAfter(at, decision.state, "too many actions", "ReconcileError")
            record = self._concluded(record, desired, decision)
            said = Said(decision=decision, by=request.by, commit=desired.commit)
            if not isinstance(decision, Run):
                record = await self._keep(saved, record, said)
                return Passed(record, decision, tuple(done))
            action = decision.action
            intent = intend(record, action, observed, self._clock.now(), self._holder)
            if intent is not None:
                # Written before helm starts: after a crash its traces are known as ours.
                record = await self._keep(saved, intent, said)
                saved = record
            self._say(wanted.key, f"{type(action).__name__}: {decision.why}")
            outcome = await self._performer.perform(
                action,
                desired,
                observed,
                record,
                progress=lambda line: self._say(wanted.key, line),
            )
            step = Done(action, outcome)
            done.append(step)
            if self._on_done is not None:
                self._on_done(wanted.key, step)
            said, moved_from = replace(said, step=step), None
            is_elsewhere = isinstance(action, Uninstall) and action.release != desired.release
            if is_elsewhere and outcome.succeeded:
                end = replace(said, end=f"the release is {desired.release} now")
                moved_from = await self._forget_old_place(saved, end)
                saved, said = None, replace(said, step=None)
            observed = await self._observe(desired.release, record)
            record = remember(record, step, desired, observed)
            record = recover(desired, observed, record, self._clock.now())
            if moved_from is not None:
                record = record.evolve(ledger=moved_from.ledger)  # which the new one follows
            self._say(wanted.key, _ending(step))
            after = self._decide(desired, observed, record, done, request)
            record = self._concluded(record, desired, after)
            record = await self._keep(saved, record, said)
            saved = record

    def forget(self, key: DeclarationKey) -> None:
        """Know a declaration no more; its release and record Secret stay as they are."""
        self.known.pop(key, None)
        self._told_blind.pop(key, None)

    async def refuse(self, key: DeclarationKey, release: ReleaseId, error: HelmopsError) -> Passed:
        """Say of a release that its declaration cannot be used. Nothing is touched for it."""
        decision = Stalled(self._state_of(key), str(error), error.reason)
        return await self._given_up(key, release, decision)

    async def remove(self, record: Record, spec: HelmReleaseSpec) -> Record | None:
        """The declaration of a release is gone, and surely so.

        Uninstalled only where its policy said `prune` when it was last applied, it is not
        suspended, and its newest revision is one that helmops made or took over; else it is left
        running, and that is said once. Returns the record that is left, None where nothing is.
        Raises LeaseHeld, HelmError and ClusterError for what has to be tried again.
        """
        saved = await self._records.load(record.release)
        if saved is not None and saved.key != record.key:
            # Another declaration has the release now, and says what becomes of it.
            self.forget(record.key)
            return None
        record = saved or record
        observed = await self._observe(record.release, record)
        if observed.is_absent and saved is None:
            await self._forget(record, record)
            return None
        if not record.prune or record.suspended is not None:
            return await self._leave(record)
        if self._observe_only:
            return record
        async with self._leases.hold(record.release):
            return await self._prune(record, spec)

    async def _prune(self, record: Record, spec: HelmReleaseSpec) -> Record | None:
        """Uninstall what is ours; under the Lease."""
        desired = Desired(
            key=record.key,
            release=record.release,
            spec=spec,
            policy=ReleasePolicySpec(prune=True),
            defaults=Defaults.SAFE,
            declaration_digest=record.declaration_digest,
            target=Unresolved("DeclarationRemoved", "the declaration is gone"),
        )
        observed = await self._observe(record.release, record)
        head, known = observed.head, recover(desired, observed, record, self._clock.now()).head
        if head is None or observed.is_absent:
            gone = record.evolve(in_flight=None, history=())
            await self._end(record, gone, Said(end="nothing is left of the release"))
            await self._forget(record, record)
            return None
        if head.status.is_pending and (observed.our_helm_runs or not is_our_lock(record, head)):
            raise ReleaseLocked(
                f"revision {head.number} is {head.status.value}, so it cannot be uninstalled now",
                where=str(record.release),
            )
        if not head.status.is_pending and (known is None or not known.is_of(head)):
            return await self._leave(record)
        action = Uninstall(record.release, "its declaration was removed, and its policy prunes")
        self._say(record.key, f"Uninstall: {action.why}")
        noted = intend(record, action, observed, self._clock.now(), self._holder)
        before = await self._save(record, noted or record)
        outcome = await self._performer.perform(action, desired, observed, before)
        step = Done(action, outcome)
        self._say(record.key, _ending(step))
        if self._on_done is not None:
            self._on_done(record.key, step)
        observed = await self._observe(record.release, before)
        after = remember(before, step, desired, observed)
        said = Said(step=step)
        if not outcome.succeeded:
            await self._keep(before, after, said)
            raise HelmError(outcome.message, where=str(record.release))
        await self._end(before, after, replace(said, end=action.why))
        await self._forget(before, after)
        return None

    async def _leave(self, record: Record) -> Record:
        """Say once that a release without a declaration is left running."""
        if record.removed:
            return record
        return await self._keep(record, record.evolve(removed=True, in_flight=None))

    async def _forget(self, before: Record, after: Record) -> None:
        """Nothing is left of a release: tell it, and know it no more."""
        self.forget(before.key)
        await self._publish(before, after.evolve(history=()), self._clock.now())

    def _decide(
        self,
        desired: Desired,
        observed: Observation,
        record: Record,
        done: list[Done] | tuple[Done, ...],
        request: Request,
    ) -> Decision:
        now = self._clock.now()
        if isinstance(desired.target, Unresolved) and desired.target.reason == "NotSupported":
            # A field that is not acted on could mean another cluster: nothing at all is done.
            found = classify(desired, observed, record)
            return Stalled(found.state, desired.target.message, "NotSupported")
        return decide(desired, observed, record, done, request, now)

    def _concluded(self, record: Record, desired: Desired, decision: Decision) -> Record:
        now = self._clock.now()
        if isinstance(decision, Held):
            record = hold(record, decision.hold)
        return conclude(record, desired, decision, now)

    async def _desired(self, wanted: Wanted, observed: Observation, record: Record) -> Desired:
        # Of this release the record at hand is newer: somebody may have lifted a quarantine.
        known = self.known | {record.key: record}
        desired = await wanted.desired(deployed_version(observed, record), known)
        if self._observe_only and not desired.is_observed_only:
            return replace(desired, is_observed_only=True)
        return desired

    async def _observe(self, release: ReleaseId, record: Record) -> Observation:
        stored = await self._storage.read(release)
        elsewhere: tuple[Revision, ...] = ()
        if record.release != release:
            elsewhere = (await self._storage.read(record.release)).revisions
        return Observation(
            revisions=stored.revisions,
            our_helm_runs=self._helm.is_running(release),
            elsewhere=elsewhere,
            live=self._liveness.of(release) if self._liveness is not None else None,
        )

    async def _load(self, wanted: Wanted) -> Record | None:
        """The record of a declaration, wherever its release was when it was last seen."""
        known = self.known.get(wanted.key)
        place = known.release if known is not None and known.version else wanted.release
        there = await self._records.load(wanted.release)
        if there is not None and there.key != wanted.key and wanted.is_beside(there.key):
            raise DeclarationError(
                f"the release {wanted.release} is that of the declaration {there.key}",
                where=str(wanted.key),
                next_step="give one of them another releaseName; two that swap theirs go by way of "
                "a third",
            )
        if self._observe_only:
            return known or there
        record = await self._records.load(place) if place != wanted.release else None
        if record is None:
            record = there
        if record is None:
            # Never saved (the namespace is not there yet), or somebody deleted it.
            return known if known is not None and not known.version else None
        return record

    async def _keep(
        self, saved: Record | None, record: Record, said: Said = NOTHING_SAID
    ) -> Record:
        """Save a changed record, and tell of the change. What is saved is told, in that order."""
        at = self._clock.now()
        told = self._told_blind.pop(record.key, None)
        news = record if self._observe_only else entered(saved, record, said, at)
        if saved is not None and news.evolve(version=saved.version) == saved:
            before = self.known.get(record.key)
            if before is None or before.ledger != saved.ledger:
                await self._chronicle(saved)  # somebody else wrote entries
            self.known[record.key] = saved
            if told is not None:
                await self._publish(told, saved, at)
            return saved
        record = record.evolve(updated_at=at)
        if not self._observe_only:
            record = await self._save(saved, record, said)
        if saved is not None and saved.key != record.key:
            self.forget(saved.key)
        self.known[record.key] = record
        await self._publish(saved, record, at)
        return record

    async def _save(
        self, saved: Record | None, record: Record, said: Said = NOTHING_SAID
    ) -> Record:
        at, base = self._clock.now(), saved
        for _ in range(5):
            # The ledger goes on from what is there, and tells what changes of that.
            news = entered(base, record, said, at)
            try:
                return await self._records.save(news)
            except ObjectNotFound:
                return news.evolve(version="")
            except ObjectConflict:
                fresh = await self._records.load(record.release)
                record = _with_what_others_said(saved, fresh, record)
                base = fresh or base
        raise ObjectConflict(
            "the record changes faster than it can be written",
            where=str(record.release),
            next_step="look for another helmops on this release",
        )

    async def _publish(self, saved: Record | None, record: Record, at: datetime) -> None:
        events: tuple[Event, ...] = events_between(saved, record, at)
        try:
            await self._journal.publish(record)
            if events:
                await self._journal.append(events)
        except StoreError as error:
            if self._on_journal_error is not None:
                self._on_journal_error(error)
        for event in events:
            await self._notifier.send(event, record)

    async def _forget_old_place(self, saved: Record | None, said: Said) -> Record | None:
        if saved is None:
            return None
        return await self._end(saved, saved.evolve(in_flight=None, history=()), said)

    async def _end(self, saved: Record, record: Record, said: Said) -> Record:
        """Delete a record; before that, the last entries of its ledger go the way of all others."""
        if record.version:
            record = await self._save(saved, record, said)
            await self._chronicle(record)
        await self._records.delete(record)
        return record

    async def _chronicle(self, *records: Record) -> None:
        """Have the store keep what it does not keep yet of these ledgers."""
        try:
            await self._journal.chronicle(records)
        except StoreError as error:
            if self._on_journal_error is not None:
                self._on_journal_error(error)

    async def _given_up(
        self, key: DeclarationKey, release: ReleaseId, decision: Decision
    ) -> Passed:
        """A pass that could not even look: keep what is known, say why there is no more."""
        known = self.known.get(key) or Record(key=key, release=release)
        told = conclude_blind(known, decision, self._clock.now())
        if told != known:
            told = told.evolve(updated_at=self._clock.now())
            self.known[key] = self._told_blind[key] = told
            await self._publish(known, told, self._clock.now())
        return Passed(told, decision)

    def _state_of(self, key: DeclarationKey) -> ReleaseState:
        known = self.known.get(key)
        if known is None or not known.state:
            return ReleaseState.ABSENT
        return ReleaseState(known.state)

    def _say(self, key: DeclarationKey, line: str) -> None:
        if self._tell is not None and line:
            self._tell(key, line)


def _base(saved: Record | None, wanted: Wanted) -> Record:
    """What a pass begins with. Where the declaration itself got another name or namespace, the
    release and all that is known of it are the same.
    """
    if saved is None:
        return Record(key=wanted.key, release=wanted.release)
    return saved if saved.key == wanted.key else saved.evolve(key=wanted.key)


def _with_what_others_said(saved: Record | None, fresh: Record | None, ours: Record) -> Record:
    """Our record, with what a person said on the command line in the meantime.

    Suspending, resuming and requests are all that others write while a pass holds the Lease.
    """
    if fresh is None:
        return ours.evolve(version="")
    merged = ours.evolve(version=fresh.version, suspended=fresh.suspended)
    if saved is not None and fresh.accepted != saved.accepted:
        merged = merged.evolve(accepted=fresh.accepted)
    if saved is not None and saved.hold is not None and fresh.hold is None:
        merged = merged.evolve(hold=None)
    return merged


def _ending(step: Done) -> str:
    outcome = step.outcome
    name = type(step.action).__name__
    seconds = outcome.duration.total_seconds()
    if outcome.succeeded:
        return f"{name} done in {seconds:.1f} s" + (
            f": {outcome.message}" if outcome.message else ""
        )
    return f"{name} failed after {seconds:.1f} s: {outcome.message}"
