"""Whether an object in the cluster is what it was asked to be. Pure: objects in, `Health` out.

The rules are those of kstatus (`pkg/kstatus/status` of sigs.k8s.io/cli-utils, read at fluxcd's fork
of it), which Flux and Helm 4's watcher go by, with the differences that `assess` names.
"""

from helmops.health.absence import assess_absence
from helmops.health.assess import assess
from helmops.health.expressions import CustomRules

__all__ = ["CustomRules", "assess", "assess_absence"]
