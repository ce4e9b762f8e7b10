"""`helmops run`: the installation, the engine and the HTTP server, until SIGTERM."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack

from helmops.model.actions import Done
from helmops.model.declarations import Defaults
from helmops.model.declared import DeclarationSet
from helmops.model.releases import DeclarationKey, ReleaseId
from helmops.reconcile.secrets import texts_of
from helmops.service import logs
from helmops.service.engine import Engine
from helmops.service.http_server import HttpServer, application
from helmops.service.logs import Redactor, about_release
from helmops.service.settings import Settings
from helmops.service.shutdown import Shutdown
from helmops.service.wiring import Installation
from helmops.store.entries import PublishedRelease

log = logging.getLogger(__name__)


async def serve(settings: Settings) -> None:
    """Run until somebody asks to stop. Raises UsageError, HelmUnavailable."""
    redactor = logs.configure(settings.log_format, level=settings.log_level.upper())
    engine: Engine | None = None

    def on_change(kind: str, release: ReleaseId) -> None:
        if engine is not None:
            engine.on_cluster_change(kind, release)

    def on_live_change(release: ReleaseId, why: str) -> None:
        if engine is not None:
            engine.on_live_change(release, why)

    def on_reference_change(kind: str, key: DeclarationKey) -> None:
        if engine is not None:
            engine.on_reference_change(kind, key)

    def on_done(key: DeclarationKey, done: Done) -> None:
        if engine is not None:
            engine.count_action(key, done)

    async with AsyncExitStack() as stack:
        shutdown = stack.enter_context(Shutdown())
        installation = await stack.enter_async_context(
            Installation.open(
                settings,
                tell=_tell,
                on_cluster_change=on_change,
                on_reference_change=on_reference_change,
                on_live_change=on_live_change,
                on_done=on_done,
                hide=redactor.add,
            )
        )
        engine = Engine(
            clock=installation.clock,
            declarations=installation.declarations,
            reconciler=installation.reconciler,
            resolver=installation.resolver,
            metrics=installation.metrics,
            defaults=Defaults(settings.defaults),
            concurrency=settings.concurrency,
            liveness=installation.liveness,
            on_namespace=_namespace_seer(installation),
            on_secrets=lambda declared: _hide_secrets(redactor, declared),
            on_needs=installation.follow_references,
            on_removed=installation.journal.withdraw,
        )
        installation.metrics.watch_journal(
            backlog=lambda: installation.journal.backlog,
            dropped=lambda: installation.journal.dropped,
        )

        async def releases() -> Sequence[PublishedRelease]:
            return await installation.journal.releases()

        def missing() -> Mapping[str, str]:
            return engine.missing() if engine is not None else {}

        server = HttpServer(
            settings.listen,
            application(missing=missing, registry=installation.metrics.registry, releases=releases),
        )
        await server.start()
        stack.push_async_callback(server.stop)
        log.info(
            "helmops runs: cluster %s, helm %s, http://%s",
            installation.api.context,
            await installation.helm.version(),
            server.address,
            extra={"action": "start", "observe": settings.observe},
        )
        running = asyncio.create_task(engine.run())
        asking = asyncio.create_task(shutdown.requested())
        await asyncio.wait({running, asking}, return_when=asyncio.FIRST_COMPLETED)
        asking.cancel()
        if not running.done():
            log.info("stopping: %s", shutdown.reason, extra={"action": "stop"})
        running.cancel()
        ended = await shutdown.unless_forced(engine.stop(settings.grace_period))
        log.info("stopped" if ended else "stopped by force", extra={"action": "stop"})
        if running.done() and not running.cancelled():
            error = running.exception()
            if error is not None:
                raise error


def _tell(key: DeclarationKey, line: str) -> None:
    with about_release(key):
        log.info("%s", line, extra={"action": "pass"})


def _namespace_seer(installation: Installation) -> Callable[[str], None]:
    def see(namespace: str) -> None:
        installation.records.see(namespace)
        if installation.index is not None:
            installation.index.add_namespace(namespace)

    return see


def _hide_secrets(redactor: Redactor, declared: DeclarationSet) -> None:
    """Values of declared Secrets never get into a log, whoever prints them."""
    for secret in declared.secrets.values():
        redactor.add(*texts_of(secret.resource.content))
