"""Which pods a workload has."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from helmops.checks.surroundings import Cluster, Object
from helmops.health.fields import dig, items, text

#: Workloads whose pods are theirs without anything in between.
OWNERS_OF_PODS = frozenset(
    {
        ("apps/v1", "DaemonSet"),
        ("apps/v1", "ReplicaSet"),
        ("apps/v1", "StatefulSet"),
        ("batch/v1", "Job"),
        ("v1", "ReplicationController"),
    }
)
_REVISION = "deployment.kubernetes.io/revision"


async def newest_replica_set(cluster: Cluster, deployment: Object) -> Object | None:
    """The one that the Deployment is rolling out; old ones say nothing about now."""
    owned = await owned_by(cluster, deployment, "apps/v1", "ReplicaSet")
    return max(owned, key=_revision_of, default=None)


async def owned_by(cluster: Cluster, owner: Object, api_version: str, kind: str) -> list[Object]:
    """Objects of a kind that the owner's selector finds, and that are its own."""
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


async def pods_of(cluster: Cluster, live: Object) -> list[Object]:
    """The pods of a live workload; of a Deployment those that it is rolling out. Raises
    ClusterError.
    """
    kind = (text(live, "apiVersion"), text(live, "kind"))
    if kind == ("v1", "Pod"):
        return [live]
    if kind == ("apps/v1", "Deployment"):
        newest = await newest_replica_set(cluster, live)
        return await owned_by(cluster, newest, "v1", "Pod") if newest else []
    if kind not in OWNERS_OF_PODS:
        return []
    return await owned_by(cluster, live, "v1", "Pod")


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


def _revision_of(replica_set: Object) -> int:
    number = text(dig(replica_set, "metadata", "annotations"), _REVISION)
    return int(number) if number.isdecimal() else 0
