"""The kinds that are read from files."""

from __future__ import annotations

from helmops.model.declarations.base import Resource
from helmops.model.declarations.core import ConfigMap, Secret
from helmops.model.declarations.helm_release import HelmRelease
from helmops.model.declarations.kustomization import Kustomization
from helmops.model.declarations.notification import Alert, Provider, Receiver
from helmops.model.declarations.policy import ReleasePolicy
from helmops.model.declarations.sources import (
    Bucket,
    GitRepository,
    HelmChart,
    HelmRepository,
    OCIRepository,
)

#: The kinds that are read, by name.
KINDS: dict[str, type[Resource]] = {
    model.__name__: model
    for model in (
        HelmRelease,
        HelmRepository,
        GitRepository,
        OCIRepository,
        HelmChart,
        Bucket,
        Kustomization,
        ConfigMap,
        Secret,
        Alert,
        Provider,
        Receiver,
        ReleasePolicy,
    )
}
