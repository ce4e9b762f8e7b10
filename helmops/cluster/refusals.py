"""What the API server's refusals mean to helmops: one table from HTTP status to error."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import msgspec

from helmops.cluster.resources import Resource
from helmops.errors import (
    AccessDenied,
    ClusterError,
    ClusterUnreachable,
    ObjectConflict,
    ObjectNotFound,
)

_USER = re.compile(r'User "([^"]*)"')
#: How RBAC words its refusal; admission plugins use 403 for other things too.
_BY_AUTHORIZATION = re.compile(r"\bcannot \S+ (?:resource|path) ")
_LONGEST_MESSAGE = 600


@dataclass(frozen=True, slots=True)
class Target:
    """What a request was about, as messages name it. `verb` is the one that RBAC rules use."""

    verb: str
    resource: str
    group: str = ""
    kind: str = ""
    namespace: str = ""
    name: str = ""

    @classmethod
    def of(
        cls, verb: str, resource: Resource, namespace: str = "", name: str = "", sub: str = ""
    ) -> Target:
        """The target of a request to a resource or one of its subresources."""
        plural = f"{resource.plural}/{sub}" if sub else resource.plural
        scope = namespace if resource.is_namespaced else ""
        return cls(verb, plural, resource.group, resource.kind, scope, name)

    def __str__(self) -> str:
        place = f"{self.namespace}/{self.name}" if self.namespace and self.name else self.name
        place = place or self.namespace
        return f"{self.kind or self.resource} {place}".strip()


def read_status(body: bytes) -> dict[str, Any]:
    """The Status object of a refusal; empty where the body is none (a proxy's page, for one)."""
    try:
        status = msgspec.json.decode(body)
    except msgspec.DecodeError:
        return {}
    return status if isinstance(status, dict) and status.get("kind") == "Status" else {}


def error_of(code: int, status: dict[str, Any], target: Target, server: str) -> ClusterError:
    """The error that a refusal stands for.

    The server's message is kept, bounded, but for an invalid Secret, whose content it may quote.
    """
    message = str(status.get("message") or f"HTTP {code}")[:_LONGEST_MESSAGE]
    if target.resource == "secrets" and code in (400, 422):
        causes = (status.get("details") or {}).get("causes") or []
        fields = ", ".join(sorted({str(cause.get("field", "")) for cause in causes} - {""}))
        message = f"the Secret is not valid{f' at {fields}' if fields else ''}"
    where = str(target)
    if code == 401:
        return AccessDenied(
            "the API server does not accept our credentials",
            where=f"{server}: {where}",
            next_step="the token or certificate has expired or is another cluster's; "
            "compare with `kubectl auth whoami`",
        )
    if code == 403:
        return _forbidden(status, message, target)
    if code == 404 and not status:
        return ClusterUnreachable(
            "what answered is no Kubernetes API server, or knows no such resource (HTTP 404)",
            where=f"{server}: {where}",
        )
    if code == 404:
        return ObjectNotFound(message, where=where)
    if code == 409:
        return ObjectConflict(message, where=where)
    if code == 429 or code >= 500:
        return ClusterUnreachable(
            f"the API server cannot answer now (HTTP {code}): {message}",
            where=f"{server}: {where}",
        )
    return ClusterError(f"cannot {target.verb}: {message}", where=where)


def _forbidden(status: dict[str, Any], message: str, target: Target) -> ClusterError:
    causes = (status.get("details") or {}).get("causes") or []
    if any(cause.get("reason") == "NamespaceTerminating" for cause in causes):
        return ClusterError(f"the namespace {target.namespace} is being deleted", where=str(target))
    if "exceeded quota" in message:
        return ClusterError(message, where=str(target), next_step="see the ResourceQuota there")
    if status and not _BY_AUTHORIZATION.search(message):
        return AccessDenied(message, where=str(target))  # an admission plugin's own words
    found = _USER.search(message)
    identity = found.group(1) if found else ""
    where = f"in namespace {target.namespace}" if target.namespace else "in the whole cluster"
    holder = "Role" if target.namespace else "ClusterRole"
    subject = f" bound to {identity}" if identity else ""
    return AccessDenied(
        f"{identity or 'this identity'} may not {target.verb} {target.resource} {where}",
        where=str(target),
        next_step=f"add to a {holder}{subject}: "
        f'apiGroups ["{target.group}"], resources ["{target.resource}"], verbs ["{target.verb}"]',
    )
