from __future__ import annotations

import pytest

from helmops.cluster.resources import WELL_KNOWN, Resource, group_path


@pytest.mark.parametrize(
    ("api_version", "kind", "namespace", "name", "path"),
    [
        ("v1", "Secret", "", "", "/api/v1/secrets"),
        ("v1", "Secret", "apps", "", "/api/v1/namespaces/apps/secrets"),
        ("v1", "Secret", "apps", "web", "/api/v1/namespaces/apps/secrets/web"),
        ("v1", "Namespace", "apps", "apps", "/api/v1/namespaces/apps"),
        ("apps/v1", "Deployment", "apps", "w", "/apis/apps/v1/namespaces/apps/deployments/w"),
    ],
)
def test_paths_are_as_the_api_server_has_them(
    api_version: str, kind: str, namespace: str, name: str, path: str
) -> None:
    assert WELL_KNOWN[api_version, kind].path(namespace, name) == path


def test_a_subresource_comes_last() -> None:
    assert WELL_KNOWN["v1", "Pod"].path("a", "b", "log") == "/api/v1/namespaces/a/pods/b/log"


def test_the_group_of_the_core_is_empty() -> None:
    assert WELL_KNOWN["v1", "Pod"].group == ""
    assert Resource("batch/v1", "Job", "jobs", True).group == "batch"
    assert (group_path("v1"), group_path("batch/v1")) == ("/api/v1", "/apis/batch/v1")
