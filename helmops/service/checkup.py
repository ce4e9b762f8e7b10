"""Whether helmops can work here, part by part."""

from __future__ import annotations

import asyncio
import shutil
from dataclasses import dataclass

from helmops.cluster.api import Api
from helmops.errors import HelmopsError
from helmops.helm.client import HelmClient
from helmops.service.clock import SystemClock
from helmops.service.reading import declared_only
from helmops.service.settings import Settings
from helmops.store.journal import SqlJournal

#: What helmops itself does in a release's namespace; helm needs rights on the chart's objects, too.
_RIGHTS = (
    ("get", "v1", "Secret"),
    ("list", "v1", "Secret"),
    ("watch", "v1", "Secret"),
    ("create", "v1", "Secret"),
    ("update", "v1", "Secret"),
    ("delete", "v1", "Secret"),
    ("get", "coordination.k8s.io/v1", "Lease"),
    ("create", "coordination.k8s.io/v1", "Lease"),
    ("update", "coordination.k8s.io/v1", "Lease"),
)


@dataclass(frozen=True, slots=True)
class Finding:
    """One part that was looked at."""

    name: str
    is_good: bool
    message: str


async def checkup(settings: Settings) -> tuple[Finding, ...]:
    """Look at all parts; one that fails hides no other. Raises nothing of HelmopsError."""
    findings = [
        await _helm(settings),
        Finding("git", bool(git := shutil.which("git")), git or "there is no git on PATH"),
        await _state(settings),
        *await _cluster(settings),
    ]
    if settings.filenames:
        findings.append(await _declarations(settings))
    return tuple(findings)


async def _helm(settings: Settings) -> Finding:
    helm = HelmClient(runtime_dir=settings.cache_dir / "helm", executable=settings.helm)
    try:
        await helm.prepare()
        return Finding("helm", True, await helm.version())
    except HelmopsError as error:
        return Finding("helm", False, str(error))


async def _state(settings: Settings) -> Finding:
    journal = SqlJournal(settings.state, now=SystemClock().now)
    try:
        await journal.open()
        return Finding("state", True, settings.state.shown)
    except HelmopsError as error:
        return Finding("state", False, str(error))
    finally:
        await journal.close()


async def _cluster(settings: Settings) -> list[Finding]:
    try:
        async with await Api.connect(
            kubeconfig=settings.kubeconfig or None, context=settings.context or None
        ) as api:
            version = await api.server_version()
            findings = [Finding("cluster", True, f"{api.context}, Kubernetes {version}")]
            namespaces = settings.watch_namespaces or (settings.namespace,)
            return findings + [await _rights(api, namespace) for namespace in namespaces]
    except HelmopsError as error:
        return [Finding("cluster", False, str(error))]


async def _rights(api: Api, namespace: str) -> Finding:
    answers = await asyncio.gather(
        *(api.can_i(verb, api_version, kind, namespace) for verb, api_version, kind in _RIGHTS)
    )
    lacking = [
        f"{verb} {kind}"
        for (verb, _, kind), allowed in zip(_RIGHTS, answers, strict=True)
        if not allowed
    ]
    name = f"rights in {namespace}"
    if lacking:
        return Finding(name, False, f"not allowed: {', '.join(lacking)}; see config/kubernetes")
    return Finding(name, True, "records, leases and Helm's storage")


async def _declarations(settings: Settings) -> Finding:
    try:
        declared = await declared_only(settings)
    except HelmopsError as error:
        return Finding("declarations", False, str(error))
    if declared.errors:
        return Finding("declarations", False, "; ".join(str(error) for error in declared.errors))
    return Finding("declarations", True, f"{len(declared.releases)} releases")
