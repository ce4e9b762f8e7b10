"""What is known of releases, for commands that only look: quickly, and without helm.

The record Secrets are the truth. What never got one (its namespace does not exist, helmops only
observes, its declaration cannot be used) is in the state database alone.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from helmops.errors import ClusterError, ObjectNotFound, StoreError

if TYPE_CHECKING:
    from helmops.model.records import Record
    from helmops.model.releases import DeclarationKey
    from helmops.service.settings import Settings

_LONG_AGO = datetime.min.replace(tzinfo=UTC)


async def records(settings: Settings, *, namespace: str | None = None) -> tuple[Record, ...]:
    """Records in one namespace, or in all. Raises ClusterError."""
    from helmops.cluster.api import Api
    from helmops.cluster.records import SecretRecords

    namespaces = (namespace,) if namespace else settings.watch_namespaces
    async with await Api.connect(
        kubeconfig=settings.kubeconfig or None, context=settings.context or None, light=True
    ) as api:
        return await SecretRecords(api, namespaces=namespaces).load_all()


async def manifests(settings: Settings, *, namespace: str | None = None) -> list[dict[str, Any]]:
    """Releases as HelmRelease manifests with `status`, by namespace and name.

    Of a record and what the state database has of the same release, the newer says how it is.
    Raises ClusterError where the cluster cannot be asked and the database knows nothing.
    """
    # A release may live in another namespace than its declaration, so all records are asked.
    failure: ClusterError | None = None
    found: dict[DeclarationKey, dict[str, Any]] = {}
    written: dict[DeclarationKey, datetime] = {}
    try:
        for record in await records(settings):
            found[record.key] = record.to_manifest()
            written[record.key] = record.updated_at or _LONG_AGO
    except ClusterError as error:
        failure = error
    for key, status, updated_at in await _published(settings):
        known = found.get(key)
        if known is None:
            found[key] = _bare(key, status)
        elif written[key] < updated_at:
            known["status"] = status
    if failure is not None and not found:
        raise failure
    return [
        manifest
        for key, manifest in sorted(found.items())
        if namespace is None or key.namespace == namespace
    ]


async def _published(
    settings: Settings,
) -> list[tuple[DeclarationKey, dict[str, Any], datetime]]:
    if settings.state.path is not None:
        from helmops.store.peek import published

        return published(settings.state.path)
    from helmops.service.clock import SystemClock
    from helmops.store.journal import SqlJournal

    journal = SqlJournal(settings.state, now=SystemClock().now)
    try:
        await journal.open()
        return [(e.key, dict(e.status), e.updated_at) for e in await journal.releases()]
    except StoreError:
        return []  # the records tell the same, where there are any
    finally:
        await journal.close()


def _bare(key: DeclarationKey, status: dict[str, Any]) -> dict[str, Any]:
    return {
        "apiVersion": "helm.toolkit.fluxcd.io/v2",
        "kind": "HelmRelease",
        "metadata": {"namespace": key.namespace, "name": key.name},
        "status": status,
    }


async def one(settings: Settings, key: DeclarationKey) -> dict[str, Any]:
    """The manifest of one release. Raises ObjectNotFound where nothing is known of it."""
    for manifest in await manifests(settings):
        metadata = manifest["metadata"]
        if (metadata["namespace"], metadata["name"]) == (key.namespace, key.name):
            return manifest
    raise ObjectNotFound(
        f"there is no release {key}",
        next_step="helmops get releases -A lists all; a declared one shows up after its first pass",
    )
