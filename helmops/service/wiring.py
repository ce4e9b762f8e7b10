"""Puts an installation together. The only place that names concrete adapters."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import AbstractContextManager, asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from helmops.checks.evidence import ReleaseEvidence
from helmops.checks.hooks import ReleaseHooks
from helmops.checks.liveness import LiveReleases
from helmops.checks.release_checks import ReleaseChecks
from helmops.checks.rollout import Rollouts
from helmops.cluster.api import Api
from helmops.cluster.leases import ClusterLeases
from helmops.cluster.object_watches import ObjectWatches
from helmops.cluster.records import SecretRecords
from helmops.cluster.reference_watches import ReferenceIndex
from helmops.cluster.references import ClusterReferences
from helmops.cluster.watches import SecretIndex
from helmops.errors import HelmopsError, ObjectNotFound, StoreError, UsageError
from helmops.health.slimmed import slimmed
from helmops.helm.client import HelmClient
from helmops.helm.storage import HelmStorage
from helmops.http import Http
from helmops.model.actions import Done, Request
from helmops.model.declarations import (
    Alert,
    Defaults,
    HelmRelease,
    Provider,
    ReleasePolicy,
    parse_duration,
)
from helmops.model.declared import DeclarationSet, Declared, KindKey, SourceFile
from helmops.model.documents import read_documents
from helmops.model.records import Record
from helmops.model.releases import DeclarationKey, ReleaseId
from helmops.notify.webhooks import WebhookNotifier
from helmops.reconcile.credentials import CredentialReader
from helmops.reconcile.performing import Performer
from helmops.reconcile.reconciler import Passed, Reconciler
from helmops.reconcile.resolving import Resolver
from helmops.reconcile.secrets import DeclaredSecrets
from helmops.service import identity
from helmops.service.clock import SystemClock
from helmops.service.declarations import Declarations
from helmops.service.metrics import Metrics
from helmops.service.once import Once
from helmops.service.reading import builder_of, declarations_of
from helmops.service.removal import is_removed, last_spec
from helmops.service.settings import Settings
from helmops.service.waking import references_of
from helmops.sources.artifact_cache import ArtifactCache
from helmops.sources.chart_repositories import AnyRepositories
from helmops.sources.charts import ChartPackager
from helmops.sources.git import GitMirrors
from helmops.sources.helm_repository import HelmRepositories
from helmops.sources.oci_artifacts import OciArtifacts
from helmops.sources.oci_trees import OciTrees
from helmops.sources.sops import Sops
from helmops.sources.tree_files import TreeFiles
from helmops.store.journal import SqlJournal

log = logging.getLogger(__name__)

#: Seconds that a command waits at its end for notifications to be taken.
_DRAIN_SECONDS = 10.0
_STORE_TROUBLE_EVERY = timedelta(minutes=5)


@dataclass(slots=True)
class Installation:
    """All parts of one helmops, ready to work. Open it with `open`."""

    settings: Settings
    clock: SystemClock
    api: Api
    helm: HelmClient
    http: Http
    journal: SqlJournal
    notifier: WebhookNotifier
    declarations: Declarations
    resolver: Resolver
    reconciler: Reconciler
    records: SecretRecords
    index: SecretIndex | None
    liveness: LiveReleases | None
    metrics: Metrics
    secrets: DeclaredSecrets
    references: ReferenceIndex | None
    who: str = field(default_factory=identity.who)

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        settings: Settings,
        *,
        read_only: bool = False,
        tell: Callable[[DeclarationKey, str], None] | None = None,
        on_cluster_change: Callable[[str, ReleaseId], None] | None = None,
        on_reference_change: Callable[[str, DeclarationKey], None] | None = None,
        on_live_change: Callable[[ReleaseId, str], None] | None = None,
        on_done: Callable[[DeclarationKey, Done], None] | None = None,
        hide: Callable[..., None] = lambda *_: None,
    ) -> AsyncIterator[Installation]:
        """Everything wired up; with `on_cluster_change`, Secrets are watched, and with
        `on_live_change` the objects of releases that are followed. `hide` is told the
        texts of Secrets that were read, for a log to leave them out.

        `read_only` (and `settings.observe`) refuse every write to the cluster before it leaves.
        Raises UsageError, StoreError, HelmUnavailable, ClusterError.
        """
        clock = SystemClock()
        observe_only = read_only or settings.observe
        defaults = Defaults(settings.defaults)
        async with contextlib.AsyncExitStack() as stack:
            api = await stack.enter_async_context(
                await Api.connect(
                    kubeconfig=settings.kubeconfig or None,
                    context=settings.context or None,
                    read_only=observe_only,
                    # A pass that is asked for once may have nothing to watch.
                    light=on_cluster_change is None,
                )
            )
            http = await stack.enter_async_context(Http())
            index = None
            if on_cluster_change is not None:
                index = SecretIndex(api, on_cluster_change, settings.watch_namespaces)
                watching = asyncio.create_task(index.run())
                stack.push_async_callback(_cancelled, watching)
            watches = ObjectWatches(api, slimmed)
            stack.push_async_callback(watches.close)
            storage = HelmStorage(api, index)
            liveness = None
            if on_live_change is not None:
                liveness = LiveReleases(
                    watches,
                    api,
                    storage,
                    clock,
                    on_live_change,
                    is_everywhere=lambda: index is not None and index.is_cluster_wide,
                )
                looking = asyncio.create_task(liveness.run())
                stack.push_async_callback(_cancelled, looking)
            followed = None
            if on_reference_change is not None:
                followed = ReferenceIndex(api, on_reference_change)
                following = asyncio.create_task(followed.run())
                stack.push_async_callback(_cancelled, following)
            references = ClusterReferences(api, followed)
            secrets = DeclaredSecrets(references, hide)
            helm = HelmClient(
                runtime_dir=settings.cache_dir / "helm",
                executable=settings.helm,
                kubeconfig=settings.kubeconfig or None,
                context=settings.context or None,
                apply_method=storage.apply_method,
                secrets=secrets.seen,
                kubectl=settings.kubectl,
            )
            await helm.prepare()
            records = SecretRecords(api, namespaces=settings.watch_namespaces, index=index)
            journal = SqlJournal(settings.state, now=clock.now)
            tell_trouble = _teller_of_store_trouble(clock.now)
            stack.push_async_callback(_closed, journal, tell_trouble)
            try:
                await journal.open()
            except StoreError as error:
                # What safety depends on is in the cluster; the database is for looking back.
                tell_trouble(error)
            git = GitMirrors(settings.cache_dir / "git")
            stack.callback(git.close)
            sops = Sops(settings.sops)
            builder = builder_of(settings)
            stack.callback(builder.close)
            artifacts = ArtifactCache(settings.cache_dir / "charts", limit=settings.cache_size)
            registries = OciArtifacts(http, settings.cache_dir, artifacts=artifacts)
            declarations = declarations_of(
                settings,
                clock,
                git,
                sops,
                builder,
                artifacts=OciTrees(registries.knowledge, settings.cache_dir / "artifacts"),
                cluster=references,
                see=secrets.see,
            )
            resolver = Resolver(
                clock=clock,
                helm=helm,
                repositories=AnyRepositories(
                    HelmRepositories(http, settings.cache_dir, artifacts=artifacts), registries
                ),
                artifacts=registries,
                git=git,
                builder=ChartPackager(artifacts),
                files=TreeFiles(),
                references=secrets,
                defaults=defaults,
                decrypt=sops.decrypted,
                location_of=declarations.location_of,
                observe_only=observe_only,
                allow_commands=settings.allow_commands,
            )
            notifier = _notifier(http, declarations, secrets)
            stack.push_async_callback(notifier.drain, _DRAIN_SECONDS)
            performer = Performer(
                clock=clock,
                helm=helm,
                storage=storage,
                checks=ReleaseChecks(api, http, clock),
                hooks=ReleaseHooks(
                    api,
                    http,
                    clock,
                    allow_commands=settings.allow_commands,
                    secrets=lambda: tuple(secrets.seen),
                ),
                credentials=CredentialReader(secrets),
                evidence=ReleaseEvidence(
                    api, clock, storage.hooks, secrets=lambda: tuple(secrets.seen)
                ),
                evidence_store=journal if not read_only else None,
                rollouts=Rollouts(watches, api, clock),
                changing=_changing(index, liveness),
            )
            reconciler = Reconciler(
                clock=clock,
                helm=helm,
                storage=storage,
                performer=performer,
                records=records,
                leases=ClusterLeases(api, clock.now),
                journal=journal if not read_only else _Silence(),
                notifier=notifier if not read_only else _Silence(),
                holder=identity.process(),
                liveness=liveness,
                observe_only=observe_only,
                tell=tell,
                on_done=on_done,
                on_journal_error=tell_trouble,
            )
            yield cls(
                settings=settings,
                clock=clock,
                api=api,
                helm=helm,
                http=http,
                journal=journal,
                notifier=notifier,
                declarations=declarations,
                resolver=resolver,
                reconciler=reconciler,
                records=records,
                index=index,
                liveness=liveness,
                metrics=Metrics(),
                secrets=secrets,
                references=followed,
            )

    async def read_declarations(self) -> DeclarationSet:
        """Read all `-f` now, and the records. Raises UsageError, ClusterError."""
        if not self.settings.filenames:
            raise UsageError(
                "there are no declarations", next_step="name them: -f DIR or -f git+https://…"
            )
        declared = await self.declarations.read()
        self.secrets.declarations = declared
        await self.reconciler.load()
        return declared

    def follow_references(self, wanted: Iterable[KindKey]) -> None:
        """Watch these ConfigMaps and Secrets, where anything is watched at all."""
        if self.references is not None:
            self.references.follow(wanted)

    async def refresh_sources(self, keys: Iterable[DeclarationKey]) -> None:
        """Ask the sources of these releases now. What fails is told by the passes."""
        declared = self.declarations.current
        wanted = {ref for key in keys for ref in references_of(declared, declared.releases[key])}
        for kind, key in sorted(wanted):
            source = declared.sources.get((kind, key))
            if source is None:
                continue
            with contextlib.suppress(HelmopsError):
                await self.resolver.poll(source)

    async def remove_undeclared(self) -> bool:
        """Uninstall, or leave running, each release whose declaration is surely gone, as its policy
        said. Whether all went well; what did not is logged.
        """
        went_well = True
        known, defaults = self.reconciler.known, Defaults(self.settings.defaults)
        for record in tuple(known.values()):
            locations = self.declarations.locations
            if not is_removed(record, self.declarations.current, known, locations):
                continue
            try:
                left = await self.reconciler.remove(record, last_spec(record, defaults))
                if left is None:
                    self.reconciler.forget(record.key)
                    await self.journal.withdraw(record.key)
            except StoreError as error:
                log.error("%s", error, extra={"action": "store"})
            except HelmopsError as error:
                went_well = False
                log.error("%s is not uninstalled yet: %s", record.key, error)
        return went_well

    def once(self) -> Once:
        """Runs passes until settled."""
        return Once(
            clock=self.clock,
            reconciler=self.reconciler,
            wanted=lambda key: self.resolver.wanted(self.declarations.current, key),
            concurrency=self.settings.concurrency,
        )

    async def look(self, key: DeclarationKey) -> Passed:
        """What a pass would do. The installation must be read-only."""
        return await self.reconciler.reconcile(self.resolver.wanted(self.declarations.current, key))

    async def act(self, key: DeclarationKey, request: Request, timeout: str) -> Passed:
        """One request to one release, by what is declared now or by what the record remembers.

        The declarations are read where `-f` names some; without them the record has the last one.
        Raises ObjectNotFound, UsageError.
        """
        try:
            limit = parse_duration(timeout)
        except ValueError as error:
            raise UsageError(str(error), where="--timeout") from error
        if self.settings.filenames:
            await self.read_declarations()
        else:
            self._declare_again(await self.reconciler.load(), key)
        if key not in self.declarations.current.releases:
            raise ObjectNotFound(
                f"there is no release {key}", next_step="helmops get releases -A lists all"
            )
        results = await self.once().settle([key], {key: request}, timeout=limit)
        return results[key]

    def _declare_again(self, records: Iterable[Record], key: DeclarationKey) -> None:
        """What the record remembers of a declaration, in place of the declaration."""
        for record in records:
            if record.key == key and record.manifest:
                self.declarations.current = remembered(record)
                self.secrets.declarations = self.declarations.current


def remembered(record: Record) -> DeclarationSet:
    """What a record remembers of its declaration, in place of the declaration."""
    file = SourceFile(path=record.origin or "record", root=record.location)
    release = HelmRelease.model_validate(record.manifest)
    document = read_documents(file.path, "kind: HelmRelease\n").documents[0]
    declared = _DeclaredBefore(release, document, file, record.manifest, record.declaration_digest)
    policy = ReleasePolicy.model_validate(
        {
            "apiVersion": "helmops.dev/v1alpha1",
            "kind": "ReleasePolicy",
            "metadata": {"name": record.key.name, "namespace": record.key.namespace},
            "spec": {**record.policy, "selector": {"names": [record.key.name]}},
        }
    )
    return DeclarationSet(
        releases={record.key: declared},
        policies={record.key: Declared(policy, document, file)},
        is_remembered=True,
    )


@dataclass(frozen=True)
class _DeclaredBefore(Declared[HelmRelease]):
    """A declaration as the record remembers it: the same digest, so that nothing looks changed."""

    remembered: dict[str, Any] = field(default_factory=dict, repr=False)
    remembered_digest: str = ""

    @property
    def where(self) -> str:
        return self.file.path

    @property
    def manifest(self) -> dict[str, Any]:
        return self.remembered

    @property
    def digest(self) -> str:
        return self.remembered_digest


class _Silence:
    """For commands that only look: nothing is written down, nobody is told."""

    async def append(self, events: object) -> None:
        return None

    async def publish(self, record: Record) -> None:
        return None

    async def chronicle(self, records: object) -> None:
        return None

    async def send(self, event: object, record: Record) -> None:
        return None


def _changing(
    index: SecretIndex | None, liveness: LiveReleases | None
) -> Callable[[ReleaseId], AbstractContextManager[None]]:
    """What is entered around helm's actions: for the one what is stored, for the other what runs is
    not what it was.
    """

    @contextlib.contextmanager
    def changing(release: ReleaseId) -> Iterator[None]:
        with contextlib.ExitStack() as stack:
            if index is not None:
                stack.enter_context(index.changing(release))
            if liveness is not None:
                stack.enter_context(liveness.changing(release))
            yield

    return changing


def _notifier(http: Http, declarations: Declarations, secrets: DeclaredSecrets) -> WebhookNotifier:
    def alerts() -> Iterable[Alert]:
        return [each.resource for each in declarations.current.alerts.values()]

    def provider(key: DeclarationKey) -> Provider | None:
        found = declarations.current.providers.get(key)
        return found.resource if found is not None else None

    return WebhookNotifier(http, alerts=alerts, provider=provider, read_secret=secrets.secret)


def _teller_of_store_trouble(now: Callable[[], datetime]) -> Callable[[StoreError], None]:
    """Logs that the database cannot be written: now and then, not at each event."""
    told: dict[str, datetime] = {}

    def tell(error: StoreError) -> None:
        text, moment = str(error), now()
        if text not in told or moment - told[text] >= _STORE_TROUBLE_EVERY:
            told[text] = moment
            log.error("%s", text, extra={"action": "store"})

    return tell


async def _closed(journal: SqlJournal, tell: Callable[[StoreError], None]) -> None:
    """A database that cannot be written at the end makes nothing fail that was done."""
    try:
        await journal.close()
    except StoreError as error:
        tell(error)


async def _cancelled(task: asyncio.Task[None]) -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
