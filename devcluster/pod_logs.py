"""Logs of simulated pods: KWOK serves files, which an object of its own kind names."""

import secrets
from pathlib import Path
from typing import Any

KIND = "ClusterLogs"
PATH = "/apis/kwok.x-k8s.io/v1alpha1/clusterlogs"

#: The kind, as far as an API server has to know it.
CRD: dict[str, Any] = {
    "metadata": {"name": "clusterlogs.kwok.x-k8s.io"},
    "spec": {
        "group": "kwok.x-k8s.io",
        "scope": "Cluster",
        "names": {"kind": KIND, "plural": "clusterlogs", "singular": "clusterlogs"},
        "versions": [
            {
                "name": "v1alpha1",
                "served": True,
                "storage": True,
                "subresources": {"status": {}},
                "schema": {
                    "openAPIV3Schema": {
                        "type": "object",
                        "x-kubernetes-preserve-unknown-fields": True,
                    }
                },
            }
        ],
    },
}


def objects_for(
    folder: Path, namespace: str, said: str, before: str, container: str
) -> dict[str, Any]:
    """The object for the pods of a namespace; the files are written to `folder`."""
    name = f"{namespace}-{secrets.token_hex(4)}"
    log: dict[str, Any] = {"logsFile": str(_written(folder / f"{name}.log", said))}
    log["previousLogsFile"] = str(_written(folder / f"{name}.previous.log", before))
    if container:
        log["containers"] = [container]
    return {
        "apiVersion": "kwok.x-k8s.io/v1alpha1",
        "kind": KIND,
        "metadata": {"name": name},
        "spec": {"selector": {"matchNamespaces": [namespace]}, "logs": [log]},
    }


def _written(path: Path, said: str) -> Path:
    """As a container runtime writes logs, with the time and the stream before each line."""
    lines = (f"2026-01-01T00:00:00.000000000Z stdout F {line}\n" for line in said.splitlines())
    path.write_text("".join(lines))
    return path
