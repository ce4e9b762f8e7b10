"""Declarations for tests: whole ones, of which each test changes what it is about."""

import textwrap
from typing import Any

from helmops.model.declaration_set import SourceFile
from helmops.model.declarations import (
    ConfigMap,
    GitRepository,
    HelmRelease,
    HelmRepository,
    OCIRepository,
    Provider,
    ReleasePolicy,
    Secret,
)

CHART = {"spec": {"chart": "podinfo", "sourceRef": {"kind": "HelmRepository", "name": "podinfo"}}}


def document(
    api_version: str, kind: str, name: str, spec: dict[str, Any], **metadata: Any
) -> dict[str, Any]:
    return {
        "apiVersion": api_version,
        "kind": kind,
        "metadata": {"name": name, "namespace": "apps", **metadata},
        "spec": spec,
    }


def release_document(name: str = "web", /, *, metadata: Any = None, **spec: Any) -> dict[str, Any]:
    full = {"interval": "1h", "chart": CHART, **spec}
    return document("helm.toolkit.fluxcd.io/v2", "HelmRelease", name, full, **(metadata or {}))


def release(name: str = "web", /, *, metadata: Any = None, **spec: Any) -> HelmRelease:
    return HelmRelease.model_validate(release_document(name, metadata=metadata, **spec))


def chart(**spec: Any) -> dict[str, Any]:
    return {"spec": {**CHART["spec"], **spec}}


def helm_repository(**spec: Any) -> HelmRepository:
    full = {"url": "https://charts.example.com", **spec}
    return HelmRepository.model_validate(
        document("source.toolkit.fluxcd.io/v1", "HelmRepository", "podinfo", full)
    )


def git_repository(**spec: Any) -> GitRepository:
    full = {"url": "https://git.example.com/apps.git", "interval": "1m", **spec}
    return GitRepository.model_validate(
        document("source.toolkit.fluxcd.io/v1", "GitRepository", "apps", full)
    )


def oci_repository(**spec: Any) -> OCIRepository:
    full = {"url": "oci://registry.example.com/charts/app", "interval": "1m", **spec}
    return OCIRepository.model_validate(
        document("source.toolkit.fluxcd.io/v1", "OCIRepository", "app", full)
    )


def policy_document(name: str = "policy", /, **spec: Any) -> dict[str, Any]:
    return document("helmops.dev/v1alpha1", "ReleasePolicy", name, spec)


def policy(**spec: Any) -> ReleasePolicy:
    return ReleasePolicy.model_validate(policy_document("policy", **spec))


def provider(**spec: Any) -> Provider:
    full = {"type": "generic", "address": "https://hooks.example.com", **spec}
    return Provider.model_validate(
        document("notification.toolkit.fluxcd.io/v1beta3", "Provider", "hooks", full)
    )


def config_map(**metadata: Any) -> ConfigMap:
    return ConfigMap.model_validate(
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "settings", "namespace": "apps", **metadata},
            "data": {"a": "1"},
        }
    )


def secret(**fields: Any) -> Secret:
    return Secret.model_validate(
        {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "token"}, **fields}
    )


def file(path: str, text: str) -> SourceFile:
    return SourceFile(path, textwrap.dedent(text))
