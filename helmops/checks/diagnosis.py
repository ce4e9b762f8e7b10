"""Why a workload is not ready, from its pods: what a person would look up next.

Only asked when a check has failed, so it may cost a few requests. It never makes matters worse:
where the pods cannot be read, there is nothing to say.
"""

from __future__ import annotations

from helmops.checks.pods import OWNERS_OF_PODS, newest_replica_set, owned_by
from helmops.checks.surroundings import Cluster, Object
from helmops.errors import ClusterError
from helmops.health.fields import condition, is_true, text
from helmops.health.pod import pod_trouble


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
        newest = await newest_replica_set(cluster, live)
        return await _trouble_of(cluster, newest) if newest else ""
    if kind not in OWNERS_OF_PODS:
        return ""
    failure = condition(live, "ReplicaFailure")
    if failure is not None and is_true(failure):
        return f"{text(live, 'metadata', 'name')}: {text(failure, 'message')}"
    return _worst_of(await owned_by(cluster, live, "v1", "Pod"))


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
