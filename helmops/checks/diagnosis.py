"""Why a workload is not ready, from its pods: what a person would look up next.

Only asked when a check has failed, so it may cost a few requests. It never makes matters worse:
where the pods cannot be read, there is nothing to say.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from helmops.checks.surroundings import Cluster, Object
from helmops.errors import ClusterError
from helmops.health.fields import condition, dig, is_true, items, text
from helmops.health.pod import pod_trouble

_OWNERS_OF_PODS = frozenset(
    {
        ("apps/v1", "DaemonSet"),
        ("apps/v1", "ReplicaSet"),
        ("apps/v1", "StatefulSet"),
        ("batch/v1", "Job"),
        ("v1", "ReplicationController"),
    }
)
_REVISION = "deployment.kubernetes.io/revision"


async def diagnose(cluster: Cluster, live: Object) -> str:
    """The trouble below one object as `pod web-1: ImagePullBackOff: …`; empty where none shows."""
    try:
        return await _trouble_of(cluster, live)
    except ClusterError:
        return ""


async def _trouble_of(cluster: Cluster, live: Object) -> str:
    kind = (text(live, "apiVersion"), text(live, "kind"))
    if kind == ("v1", "Pod"):
        return pod_trouble(live)
    if kind == ("apps/v1", "Deployment"):
        newest = await _newest_replica_set(cluster, live)
        return await _trouble_of(cluster, newest) if newest else ""
    if kind not in _OWNERS_OF_PODS:
        return ""
    failure = condition(live, "ReplicaFailure")
    if failure is not None and is_true(failure):
        return f"{text(live, 'metadata', 'name')}: {text(failure, 'message')}"
    return _worst_of(await _owned(cluster, live, "v1", "Pod"))


async def _newest_replica_set(cluster: Cluster, deployment: Object) -> Object | None:
    """The one that the Deployment is rolling out; old ones say nothing about now."""
    owned = await _owned(cluster, deployment, "apps/v1", "ReplicaSet")
    return max(owned, key=_revision_of, default=None)


def _revision_of(replica_set: Object) -> int:
    number = text(dig(replica_set, "metadata", "annotations"), _REVISION)
    return int(number) if number.isdecimal() else 0


async def _owned(cluster: Cluster, owner: Object, api_version: str, kind: str) -> list[Object]:
    selector = label_selector(dig(owner, "spec", "selector"))
    if not selector:
        return []
    listing = await cluster.list(
        api_version, kind, text(owner, "metadata", "namespace"), label_selector=selector
    )
    uid = text(owner, "metadata", "uid")
    return [
        item
        for item in listing.items
        if any(text(o, "uid") == uid for o in items(item, "metadata", "ownerReferences"))
    ]


def _worst_of(pods: list[Object]) -> str:
    """The pod that tells most, and how many more are in trouble."""
    troubles = [(pod, trouble) for pod in pods if (trouble := pod_trouble(pod))]
    if not troubles:
        return ""
    pod, trouble = max(troubles, key=lambda pair: _tells(pair[1]))
    told = f"pod {text(pod, 'metadata', 'name')}: {trouble}"
    more = len(troubles) - 1
    return f"{told}, and {more} more pods" if more else told


def _tells(trouble: str) -> int:
    """0 for what only says that a pod is not there yet, more for a reason."""
    if trouble in ("Pending", "not observed yet"):
        return 0
    return 1 if trouble.startswith("runs, but not ready") else 2


def label_selector(selector: Mapping[str, Any] | None) -> str:
    """A selector object as the API takes it in a query; empty where it selects nothing.

    A ReplicationController's is a plain map of labels.
    """
    if not isinstance(selector, Mapping):
        return ""
    if not selector.keys() & {"matchLabels", "matchExpressions"}:
        return ",".join(f"{key}={value}" for key, value in selector.items())
    parts = [f"{key}={value}" for key, value in (selector.get("matchLabels") or {}).items()]
    for expression in items(selector, "matchExpressions"):
        key, values = text(expression, "key"), ",".join(dig(expression, "values") or [])
        match text(expression, "operator"):
            case "In":
                parts.append(f"{key} in ({values})")
            case "NotIn":
                parts.append(f"{key} notin ({values})")
            case "Exists":
                parts.append(key)
            case "DoesNotExist":
                parts.append(f"!{key}")
    return ",".join(parts)
