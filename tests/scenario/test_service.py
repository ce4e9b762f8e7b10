"""The engine over fakes: what it does when files change, sources fail and passes break."""

from __future__ import annotations

import textwrap
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from helmops.errors import ClusterUnreachable, SourceUnavailable
from helmops.model.releases import DeclarationKey, ReleaseId
from tests.fakes.service import URL, Service, running, until

WEB = DeclarationKey("apps", "web")
SITE = DeclarationKey("apps", "site")
PLACE = ReleaseId("apps", "web")
REPOSITORY = f"""
apiVersion: source.toolkit.fluxcd.io/v1
kind: HelmRepository
metadata: {{name: charts, namespace: apps}}
spec: {{url: {URL}, interval: 1h}}
"""
PRUNES = """
apiVersion: helmops.dev/v1alpha1
kind: ReleasePolicy
metadata: {name: policy, namespace: apps}
spec: {prune: true}
"""


def release(name: str, extra: str = "") -> str:
    return textwrap.dedent(f"""
        apiVersion: helm.toolkit.fluxcd.io/v2
        kind: HelmRelease
        metadata: {{name: {name}, namespace: apps}}
        spec:
          interval: 1h
          releaseName: web
          chart: {{spec: {{chart: app, sourceRef: {{kind: HelmRepository, name: charts}}}}}}
          {extra}
        """)


@pytest.fixture
async def service(tmp_path: Path) -> AsyncIterator[Service]:
    service = Service(tmp_path)
    service.write("sources.yaml", REPOSITORY)
    service.write("policy.yaml", PRUNES)
    yield service
    await service.engine.stop(timedelta(seconds=1))


async def test_a_declaration_that_gets_another_name_does_not_remove_its_release(
    service: Service,
) -> None:
    service.write("web.yaml", release("web"))
    async with running(service):
        await until(lambda: service.is_ready(WEB))

        service.write("web.yaml", release("site"))
        await until(lambda: service.is_ready(SITE) and service.removed)
        await service.engine.passes.idle()

    assert service.cluster.runs["uninstall"] == 0
    assert service.removed == [WEB]
    assert set(service.reconciler.known) == {SITE}
    kept = await service.records.load(PLACE)
    assert kept is not None
    assert kept.key == SITE


async def test_nothing_is_removed_while_its_new_name_may_be_in_a_declaration_with_errors(
    service: Service,
) -> None:
    service.write("web.yaml", release("web"))
    async with running(service):
        await until(lambda: service.is_ready(WEB))

        service.write("web.yaml", release("site", "noSuchField: 1"))
        await until(lambda: SITE in service.engine.declared.untouched)
        await service.engine.passes.idle()
        assert service.cluster.runs["uninstall"] == 0

        service.write("web.yaml", release("site"))
        await until(lambda: service.is_ready(SITE))
        await service.engine.passes.idle()

    assert service.cluster.runs["uninstall"] == 0


async def test_a_release_whose_declaration_goes_and_whose_policy_prunes_is_removed(
    service: Service,
) -> None:
    service.write("web.yaml", release("web"))
    async with running(service):
        await until(lambda: service.is_ready(WEB))

        (service.directory / "web.yaml").unlink()
        await until(lambda: service.removed)

    assert service.cluster.runs["uninstall"] == 1
    assert not service.reconciler.known


async def test_a_declaration_that_was_never_any_good_is_forgotten_when_it_goes(
    service: Service,
) -> None:
    service.write("web.yaml", release("web", "noSuchField: 1"))
    async with running(service):
        await until(lambda: WEB in service.reconciler.known)
        assert service.sample("helmops_release_ready", WEB) == 0

        (service.directory / "web.yaml").unlink()
        await until(lambda: WEB not in service.reconciler.known)

    assert service.removed == [WEB]
    assert service.sample("helmops_release_ready", WEB) is None


async def test_a_release_whose_declaration_gets_errors_is_not_counted_as_ready(
    service: Service,
) -> None:
    service.write("web.yaml", release("web"))
    async with running(service):
        await until(lambda: service.sample("helmops_release_ready", WEB) == 1)

        service.write("web.yaml", release("web", "noSuchField: 1"))
        await until(lambda: service.sample("helmops_release_ready", WEB) == 0)


async def test_a_pass_that_breaks_off_is_told_and_tried_again_and_the_service_goes_on(
    service: Service, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    broken = 2
    load = service.records.load

    async def breaks(place: ReleaseId) -> Any:
        nonlocal broken
        if place == PLACE and broken:
            broken -= 1
            raise KeyError("a mistake of ours")
        return await load(place)

    monkeypatch.setattr(service.records, "load", breaks)
    service.write("web.yaml", release("web"))
    async with running(service):
        await until(lambda: service.is_ready(WEB))

    assert broken == 0
    assert len([one for one in caplog.messages if "broke off" in one]) == 2


async def test_a_source_that_is_woken_while_it_is_left_alone_is_still_asked_when_it_is_due(
    service: Service,
) -> None:
    service.write("web.yaml", release("web"))
    charts = ("HelmRepository", DeclarationKey("apps", "charts"))
    async with running(service):
        await until(lambda: service.is_ready(WEB))
        service.repositories.fail(URL, SourceUnavailable("503", retry_after=0.5))
        asked = len(service.repositories.asked)
        service.engine.polling.wake(charts, "a test")
        await until(lambda: len(service.repositories.asked) > asked)

        service.engine.polling.wake(charts, "its interval, meanwhile")
        service.repositories.fail(URL, None)
        service.repositories.offer(URL, "app", "1.1.0")
        await until(lambda: service.cluster.runs["upgrade"])


async def test_what_was_told_of_a_cluster_that_was_gone_is_taken_back_when_it_is_there_again(
    service: Service,
) -> None:
    service.write("web.yaml", release("web"))
    async with running(service):
        await until(lambda: service.is_ready(WEB))
        await service.engine.passes.idle()

        service.records.fail_next(ClusterUnreachable("no answer"))
        service.engine.passes.wake(WEB, "a test")
        await until(lambda: not service.is_ready(WEB))
        service.engine.passes.wake(WEB, "again")
        await until(lambda: service.is_ready(WEB))

    (published,) = await service.journal.releases(WEB)
    ready = next(c for c in published.status["conditions"] if c["type"] == "Ready")
    assert ready["status"] == "True"
    assert service.journal.told[-1].reason != "ReconcileError"
