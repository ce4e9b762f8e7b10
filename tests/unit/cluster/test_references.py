from __future__ import annotations

from typing import Any

import pytest

from helmops.cluster.references import ClusterReferences
from helmops.errors import AccessDenied, ClusterError
from helmops.model.releases import DeclarationKey, ReleaseId
from tests.fakes.kubernetes_api import FakeKubernetes

WEB = ReleaseId("apps", "web")
KEY = DeclarationKey("apps", "values")
THEIRS = {"meta.helm.sh/release-name": "shop", "meta.helm.sh/release-namespace": "other"}


@pytest.fixture
def server() -> FakeKubernetes:
    return FakeKubernetes("apps")


def put(server: FakeKubernetes, api_version: str, kind: str, name: str, **rest: Any) -> None:
    namespace = rest.pop("namespace", "apps")
    metadata = {"name": name, "annotations": rest.pop("annotations", {})}
    if namespace:
        metadata["namespace"] = namespace
    server.put({"apiVersion": api_version, "kind": kind, "metadata": metadata, **rest})


def manifest(api_version: str, kind: str, name: str, **metadata: str) -> dict[str, Any]:
    return {"apiVersion": api_version, "kind": kind, "metadata": {"name": name, **metadata}}


async def test_text_and_binary_data_come_together(server: FakeKubernetes) -> None:
    put(server, "v1", "ConfigMap", "values", data={"a": "ä"}, binaryData={"b": "AAE="})
    assert await ClusterReferences(server.api()).config_map(KEY) == {
        "a": "ä".encode(),
        "b": b"\x00\x01",
    }


async def test_an_empty_secret_is_there(server: FakeKubernetes) -> None:
    put(server, "v1", "Secret", "values")
    assert await ClusterReferences(server.api()).secret(KEY) == {}


async def test_broken_data_is_an_error_without_the_data(server: FakeKubernetes) -> None:
    put(server, "v1", "Secret", "values", data={"a": "s3cre"})
    with pytest.raises(ClusterError, match="Secret apps/values: its data is not base64") as raised:
        await ClusterReferences(server.api()).secret(KEY)
    assert "s3cre" not in str(raised.value)


async def test_what_may_not_be_read_is_not_missing(server: FakeKubernetes) -> None:
    server.denied.add(("get", "secrets", "apps"))
    with pytest.raises(AccessDenied):
        await ClusterReferences(server.api()).secret(KEY)


async def test_objects_are_looked_for_where_helm_would_put_them(server: FakeKubernetes) -> None:
    put(server, "v1", "Service", "web", annotations=THEIRS)
    put(server, "v1", "Service", "web", namespace="default", annotations=THEIRS)
    put(server, "v1", "Namespace", "extra", namespace="", annotations=THEIRS)
    told = await ClusterReferences(server.api()).owned_by_other(
        WEB,
        [
            manifest("v1", "Service", "web"),
            manifest("v1", "Service", "web", namespace="default"),
            manifest("v1", "Namespace", "extra", namespace="ignored"),
        ],
    )
    assert told == (
        "Service apps/web belongs to release other/shop",
        "Service default/web belongs to release other/shop",
        "Namespace extra belongs to release other/shop",
    )


async def test_objects_of_nobody_and_of_unknown_kinds_are_left_to_helm(
    server: FakeKubernetes,
) -> None:
    put(server, "v1", "Service", "web", annotations={"some": "thing"})
    told = await ClusterReferences(server.api()).owned_by_other(
        WEB,
        [
            manifest("v1", "Service", "web"),
            manifest("example.com/v1", "Widget", "one"),
            {"apiVersion": "v1", "kind": "Pod", "metadata": {"generateName": "x-"}},
        ],
    )
    assert told == ()


async def test_the_same_name_in_another_namespace_is_another_release(
    server: FakeKubernetes,
) -> None:
    annotations = {**THEIRS, "meta.helm.sh/release-name": "web"}
    put(server, "v1", "Service", "web", annotations=annotations)
    told = await ClusterReferences(server.api()).owned_by_other(
        WEB, [manifest("v1", "Service", "web")]
    )
    assert told == ("Service apps/web belongs to release other/web",)


async def test_objects_in_lists_are_looked_at(server: FakeKubernetes) -> None:
    put(server, "v1", "Service", "web", annotations=THEIRS)
    items = {"apiVersion": "v1", "kind": "List", "items": [manifest("v1", "Service", "web")]}
    assert await ClusterReferences(server.api()).owned_by_other(WEB, [items])


async def test_only_metadata_is_asked_for(server: FakeKubernetes) -> None:
    await ClusterReferences(server.api()).owned_by_other(WEB, [manifest("v1", "Service", "web")])
    assert "PartialObjectMetadata" in server.headers[-1]["Accept"]
