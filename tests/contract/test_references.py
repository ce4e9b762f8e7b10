"""Every `References` hands out data as bytes, and names objects that are another release's."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import pytest

from helmops.cluster.api import Api
from helmops.cluster.references import ClusterReferences
from helmops.model.releases import DeclarationKey, ReleaseId
from helmops.reconcile.ports import References
from tests.fakes.kubernetes_api import FakeKubernetes
from tests.fakes.references import FakeReferences


@dataclass
class World:
    """References, and a way to put something there."""

    references: References
    namespace: str
    put_config_map: Callable[[str, dict[str, str]], Awaitable[None]]
    put_secret: Callable[[str, dict[str, str]], Awaitable[None]]
    put_owned: Callable[[str, ReleaseId], Awaitable[None]]

    def key(self, name: str) -> DeclarationKey:
        return DeclarationKey(self.namespace, name)


def _on_api(references: References, namespace: str, put: Callable[[Any], Awaitable[Any]]) -> World:
    def metadata(name: str) -> dict[str, Any]:
        return {"name": name, "namespace": namespace}

    async def put_config_map(name: str, data: dict[str, str]) -> None:
        await put(
            {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata(name), "data": data}
        )

    async def put_secret(name: str, data: dict[str, str]) -> None:
        encoded = {key: base64.b64encode(text.encode()).decode() for key, text in data.items()}
        await put(
            {"apiVersion": "v1", "kind": "Secret", "metadata": metadata(name), "data": encoded}
        )

    async def put_owned(name: str, owner: ReleaseId) -> None:
        marks = {
            "meta.helm.sh/release-name": owner.name,
            "meta.helm.sh/release-namespace": owner.namespace,
        }
        await put(
            {
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": {**metadata(name), "annotations": marks},
            }
        )

    return World(references, namespace, put_config_map, put_secret, put_owned)


@pytest.fixture(params=["fake", "memory", pytest.param("cluster", marks=pytest.mark.e2e)])
async def world(request: pytest.FixtureRequest) -> AsyncIterator[World]:
    if request.param == "fake":
        fake = FakeReferences()

        async def put_config_map(name: str, data: dict[str, str]) -> None:
            fake.put_config_map("apps", name, **data)

        async def put_secret(name: str, data: dict[str, str]) -> None:
            fake.put_secret("apps", name, **data)

        async def put_owned(name: str, owner: ReleaseId) -> None:
            fake.owners["ConfigMap", "apps", name] = owner

        yield World(fake, "apps", put_config_map, put_secret, put_owned)
    elif request.param == "memory":
        server = FakeKubernetes("apps")

        async def put(manifest: Any) -> None:
            server.put(manifest)

        yield _on_api(ClusterReferences(server.api()), "apps", put)
    else:
        make: Callable[[], str] = request.getfixturevalue("make_namespace")
        async with await Api.connect(kubeconfig=str(request.getfixturevalue("kubeconfig"))) as api:
            yield _on_api(ClusterReferences(api), make(), api.create)


async def test_what_is_not_there_is_none(world: World) -> None:
    assert await world.references.config_map(world.key("nothing")) is None
    assert await world.references.secret(world.key("nothing")) is None


async def test_data_comes_as_bytes(world: World) -> None:
    await world.put_config_map("values", {"values.yaml": "replicas: 2\n", "empty": ""})
    await world.put_secret("token", {"token": "s3crät"})

    config_map = await world.references.config_map(world.key("values"))
    secret = await world.references.secret(world.key("token"))
    assert config_map == {"values.yaml": b"replicas: 2\n", "empty": b""}
    assert secret == {"token": "s3crät".encode()}


async def test_only_objects_of_another_release_are_named(world: World) -> None:
    us, them = ReleaseId(world.namespace, "web"), ReleaseId("other", "shop")
    await world.put_owned("ours", us)
    await world.put_owned("theirs", them)
    objects = [
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}}
        for name in ("ours", "theirs", "absent")
    ]

    told = await world.references.owned_by_other(us, objects)
    assert told == (f"ConfigMap {world.namespace}/theirs belongs to release other/shop",)
    assert await world.references.owned_by_other(us, ()) == ()
