"""One object, one answer.

Generic properties decide first (deletion, generation, Stalled and Reconciling), then the rules of
the kind, then the Ready condition. Kinds without rules of their own are Current once they exist and
have no Ready condition that says otherwise: Ingress, HorizontalPodAutoscaler,
ReplicationController, Namespace, ServiceAccount, Role, and every other one.

The differences from kstatus: a Pod that completed without success is Failed, an unknown Pod phase
is Unknown instead of an error, and messages carry the reason of a condition with its text.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from helmops.health.custom_resource_definition import assess_custom_resource_definition
from helmops.health.daemon_set import assess_daemon_set
from helmops.health.deployment import assess_deployment
from helmops.health.fields import Object, current, group_of, text
from helmops.health.generic import assess_first, assess_last
from helmops.health.job import assess_job
from helmops.health.persistent_volume_claim import assess_persistent_volume_claim
from helmops.health.pod import assess_pod
from helmops.health.replica_set import assess_replica_set
from helmops.health.service import assess_service
from helmops.health.stateful_set import assess_stateful_set
from helmops.model.health import Health


def _assess_existing(_: Object) -> Health:
    return current("exists")


_RULES: dict[tuple[str, str], Callable[[Object], Health]] = {
    ("", "ConfigMap"): _assess_existing,
    ("", "PersistentVolumeClaim"): assess_persistent_volume_claim,
    ("", "Secret"): _assess_existing,
    ("", "Service"): assess_service,
    ("apiextensions.k8s.io", "CustomResourceDefinition"): assess_custom_resource_definition,
    ("apps", "DaemonSet"): assess_daemon_set,
    ("apps", "Deployment"): assess_deployment,
    ("apps", "ReplicaSet"): assess_replica_set,
    ("apps", "StatefulSet"): assess_stateful_set,
    ("batch", "CronJob"): _assess_existing,
    ("batch", "Job"): assess_job,
    # Its controller sets observedGeneration, which the generic rules have compared.
    ("policy", "PodDisruptionBudget"): _assess_existing,
}


def assess(object_: Object, now: datetime | None = None) -> Health:
    """The health of one object as the cluster has it.

    `now` (aware) serves one rule: a pod may be unschedulable for 15 s after it was made. Without it
    that patience has run out.
    """
    if decided := assess_first(object_):
        return decided
    group, kind = group_of(text(object_, "apiVersion")), text(object_, "kind")
    if (group, kind) == ("", "Pod"):
        return assess_pod(object_, now)
    return _RULES.get((group, kind), assess_last)(object_)
