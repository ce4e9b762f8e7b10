"""Declarations as they come out of files, for tests of what is done with them."""

from __future__ import annotations

from typing import Any

import yaml

from helmops.model.declaration_set import read_declarations
from helmops.model.declared import DeclarationSet, SourceFile
from helmops.model.releases import DeclarationKey

ROOT = "/declarations"
CHARTS = "https://charts.example.com"
REGISTRY = "oci://registry.example.com/charts/web"
GIT = "https://git.example.com/apps.git"
SOURCES = "source.toolkit.fluxcd.io/v1"


def key(name: str = "web", namespace: str = "apps") -> DeclarationKey:
    return DeclarationKey(namespace, name)


def document(api_version: str, kind: str, name: str, **body: Any) -> dict[str, Any]:
    """A document in the namespace `apps`; `metadata` adds to its own."""
    metadata = {"name": name, "namespace": "apps", **body.pop("metadata", {})}
    return {"apiVersion": api_version, "kind": kind, "metadata": metadata, **body}


def chart(**spec: Any) -> dict[str, Any]:
    """A chart of the repository `charts`, any version unless said otherwise."""
    source = {"kind": "HelmRepository", "name": "charts"}
    return {"spec": {"chart": "web", "sourceRef": source, **spec}}


def release(name: str = "web", /, *, metadata: Any = None, **spec: Any) -> dict[str, Any]:
    return document(
        "helm.toolkit.fluxcd.io/v2",
        "HelmRelease",
        name,
        metadata=metadata or {},
        spec={"interval": "1h", "chart": chart(), **spec},
    )


def repository(name: str = "charts", /, **spec: Any) -> dict[str, Any]:
    return document(SOURCES, "HelmRepository", name, spec={"url": CHARTS, "interval": "5m", **spec})


def git_repository(name: str = "git", /, **spec: Any) -> dict[str, Any]:
    return document(
        SOURCES,
        "GitRepository",
        name,
        spec={"url": GIT, "interval": "5m", "ref": {"branch": "main"}, **spec},
    )


def helm_chart(name: str = "web", /, *, metadata: Any = None, **spec: Any) -> dict[str, Any]:
    """A HelmChart of the repository `charts`, any version unless said otherwise."""
    source = {"kind": "HelmRepository", "name": "charts"}
    said = {"chart": "web", "sourceRef": source, "interval": "5m", **spec}
    return document(SOURCES, "HelmChart", name, metadata=metadata or {}, spec=said)


def artifact(name: str = "web", /, *, metadata: Any = None, **spec: Any) -> dict[str, Any]:
    """An OCIRepository, the tag latest unless said otherwise."""
    said = {"url": REGISTRY, "interval": "5m", **spec}
    return document(SOURCES, "OCIRepository", name, metadata=metadata or {}, spec=said)


def release_of_artifact(
    name: str = "web", /, *, namespace: str | None = None, **spec: Any
) -> dict[str, Any]:
    """A HelmRelease whose chart the OCIRepository `web` is."""
    reference = {"kind": "OCIRepository", "name": "web"}
    if namespace is not None:
        reference["namespace"] = namespace
    said = {"interval": "1h", "chartRef": reference, **spec}
    return document("helm.toolkit.fluxcd.io/v2", "HelmRelease", name, spec=said)


def policy(name: str = "policy", /, **spec: Any) -> dict[str, Any]:
    return document("helmops.dev/v1alpha1", "ReleasePolicy", name, spec=spec)


def config_map(name: str, /, **data: str) -> dict[str, Any]:
    """Data by key; a dot in a key is written as two underscores."""
    return document("v1", "ConfigMap", name, data=_dotted(data))


def secret(name: str, /, **data: str) -> dict[str, Any]:
    """Data by key; a dot in a key is written as two underscores."""
    return document("v1", "Secret", name, stringData=_dotted(data))


def _dotted(data: dict[str, str]) -> dict[str, str]:
    return {name.replace("__", "."): text for name, text in data.items()}


def source_file(*documents: Any, path: str = "all.yaml", root: str = ROOT) -> SourceFile:
    text = yaml.safe_dump_all(documents, sort_keys=False)
    return SourceFile(path, text, f"{root}/{path}", root)


def declare(*documents: Any, previous: DeclarationSet | None = None) -> DeclarationSet:
    """What one file with these documents declares; it must be without errors."""
    declared = read_declarations([source_file(*documents)], previous=previous)
    assert not declared.errors, declared.errors
    return declared
