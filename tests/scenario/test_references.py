"""The engine when ConfigMaps and Secrets in the cluster change."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest

from helmops.errors import SourceDenied
from helmops.model.releases import DeclarationKey
from tests.fakes.service import URL, Service, running, until

WEB = DeclarationKey("apps", "web")
VALUES = DeclarationKey("apps", "values")
TOKEN = DeclarationKey("apps", "token")
DECLARED = f"""
apiVersion: source.toolkit.fluxcd.io/v1
kind: HelmRepository
metadata: {{name: charts, namespace: apps}}
spec: {{url: {URL}, interval: 1h, secretRef: {{name: token}}}}
---
apiVersion: helm.toolkit.fluxcd.io/v2
kind: HelmRelease
metadata: {{name: web, namespace: apps}}
spec:
  interval: 1h
  chart: {{spec: {{chart: app, sourceRef: {{kind: HelmRepository, name: charts}}}}}}
  valuesFrom: [{{kind: ConfigMap, name: values}}]
"""


@pytest.fixture
async def service(tmp_path: Path) -> AsyncIterator[Service]:
    service = Service(tmp_path)
    service.write("web.yaml", DECLARED)
    service.references.put_config_map("apps", "values", values__yaml="replicas: 1")
    service.references.put_secret("apps", "token", username="ada", password="secret")
    yield service
    await service.engine.stop(timedelta(seconds=1))


async def test_a_changed_configmap_is_an_upgrade_at_once(service: Service) -> None:
    async with running(service):
        await until(lambda: service.is_ready(WEB))
        service.references.put_config_map("apps", "values", values__yaml="replicas: 2")
        service.engine.on_reference_change("ConfigMap", VALUES)
        await until(lambda: service.cluster.runs["upgrade"] == 1)
        await service.engine.passes.idle()
    assert service.cluster.calls[-1].values == {"replicas": 2}


async def test_a_file_that_begins_to_match_a_pattern_is_an_upgrade(service: Service) -> None:
    written = DECLARED.replace("kind: ConfigMap, name: values", "kind: File, path: 'env/*.yaml'")
    (service.directory / "env").mkdir()
    service.write("env/a.yaml", "replicas: 1")
    service.write("web.yaml", written)
    async with running(service):
        await until(lambda: service.is_ready(WEB))
        service.write("env/b.yaml", "replicas: 2")
        await until(lambda: service.cluster.runs["upgrade"] == 1)
        await service.engine.passes.idle()
    assert service.cluster.calls[-1].values == {"replicas": 2}


async def test_one_that_says_the_same_again_upgrades_nothing(service: Service) -> None:
    async with running(service):
        await until(lambda: service.is_ready(WEB))
        service.references.put_config_map("apps", "values", values__yaml="replicas: 1 # one")
        service.engine.on_reference_change("ConfigMap", VALUES)
        await service.engine.passes.idle()
    assert service.cluster.runs["upgrade"] == 0


async def test_values_that_come_at_last_are_not_waited_for_by_the_clock(service: Service) -> None:
    del service.references.config_maps[VALUES]
    async with running(service):
        await until(lambda: WEB in service.reconciler.known)
        await service.engine.passes.idle()
        assert service.cluster.runs["install"] == 0
        service.references.put_config_map("apps", "values", values__yaml="replicas: 3")
        service.engine.on_reference_change("ConfigMap", VALUES)
        await until(lambda: service.is_ready(WEB))


async def test_a_changed_secret_opens_a_source_that_was_denied(service: Service) -> None:
    service.repositories.fail(URL, SourceDenied("401", where=URL))
    async with running(service):
        await until(lambda: WEB in service.reconciler.known)
        await service.engine.passes.idle()
        service.repositories.fail(URL, None)
        service.engine.on_reference_change("Secret", TOKEN)
        await until(lambda: service.is_ready(WEB))
