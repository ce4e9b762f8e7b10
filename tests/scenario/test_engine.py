"""The service over fakes: who wakes whom, and what is left alone. All intervals are an hour."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from helmops.decide.remember import resume
from helmops.errors import ClusterUnreachable, HelmError, SourceUnavailable
from helmops.model.health import LiveHealth
from helmops.model.records import ConditionStatus
from helmops.model.releases import DeclarationKey, ReleaseId
from tests.fakes.cluster_state import FakeChart, Point
from tests.fakes.service import URL, Service, running, until
from tests.unit.reconcile.samples import chart, config_map, key, policy, repository
from tests.unit.reconcile.samples import release as sample

WEB, DB = key("web"), key("db")
CHARTS = ("HelmRepository", key("charts"))
SOURCES = repository("charts", url=URL, interval="1h")
PRUNES = policy(prune=True)


def release(name: str = "web", /, **spec: Any) -> dict[str, Any]:
    return sample(name, **{"chart": chart(chart="app"), **spec})


def write(service: Service, name: str, *documents: dict[str, Any]) -> None:
    (service.directory / name).write_text(yaml.safe_dump_all(documents, sort_keys=False))


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Declarations with a chart repository; releases are the tests' own."""
    place = tmp_path / "declarations"
    place.mkdir()
    (place / "sources.yaml").write_text(yaml.safe_dump(SOURCES))
    return place


@pytest.fixture
async def service(place: Path) -> AsyncIterator[Service]:
    service = Service(place)
    yield service
    await service.engine.stop(timedelta(seconds=1))


async def at_rest(service: Service, *keys: DeclarationKey) -> None:
    """Until these are ready and nobody is at work."""
    await until(lambda: all(service.is_ready(each) for each in keys))
    await service.engine.passes.idle()


def reason(service: Service, of: DeclarationKey = WEB) -> str:
    record = service.reconciler.known.get(of)
    condition = record.condition("Ready") if record else None
    return condition.reason if condition else ""


# Who wakes whom


async def test_a_release_goes_on_as_soon_as_the_one_it_waits_for_is_ready(
    service: Service,
) -> None:
    write(service, "web.yaml", release(dependsOn=[{"name": "db"}]))
    async with running(service):
        await until(lambda: reason(service) == "DependencyNotReady")
        write(service, "db.yaml", release("db"))
        await at_rest(service, WEB, DB)

    order = [call.release.name for call in service.cluster.calls if call.operation == "install"]
    assert order == ["db", "web"]


async def test_a_source_that_answers_again_wakes_the_releases_that_use_it(
    service: Service,
) -> None:
    write(service, "web.yaml", release())
    async with running(service):
        await at_rest(service, WEB)
        service.repositories.fail(URL, SourceUnavailable("503", retry_after=0.3))
        service.engine.polling.wake(CHARTS, "a test")
        service.engine.passes.wake(WEB, "a test")
        await until(lambda: _condition(service, "FetchFailed") is ConditionStatus.TRUE)
        assert service.is_ready(WEB), "the release itself is well"

        service.repositories.fail(URL, None)
        await until(lambda: _condition(service, "FetchFailed") is None)


def _condition(service: Service, kind: str) -> ConditionStatus | None:
    condition = service.reconciler.known[WEB].condition(kind)
    return condition.status if condition else None


async def test_a_new_version_that_a_poll_finds_is_released(service: Service) -> None:
    write(service, "web.yaml", release())
    async with running(service):
        await at_rest(service, WEB)
        service.repositories.offer(URL, "app", "1.1.0")
        service.engine.polling.wake(CHARTS, "its interval")
        await until(lambda: service.cluster.runs["upgrade"])
        await at_rest(service, WEB)

    assert service.cluster.live[ReleaseId("apps", "web")].chart.version == "1.1.0"


async def test_what_somebody_does_to_a_release_is_seen_at_once(service: Service) -> None:
    write(service, "web.yaml", release())
    async with running(service):
        await at_rest(service, WEB)
        service.cluster.add(ReleaseId("apps", "web"), FakeChart("app", "9.9.9"))
        service.engine.on_cluster_change("release", ReleaseId("apps", "web"))
        service.engine.on_cluster_change("release", ReleaseId("apps", "of-nobody"))
        await until(lambda: reason(service) == "RevisionMadeByHand")


async def test_a_values_file_beside_the_declaration_is_followed(service: Service) -> None:
    (service.directory / "values-web.yaml").write_text("replicas: 1")
    write(service, "web.yaml", release(valuesFrom=[{"kind": "File", "path": "values-web.yaml"}]))
    async with running(service):
        await at_rest(service, WEB)
        (service.directory / "values-web.yaml").write_text("replicas: 22")
        await until(lambda: service.cluster.runs["upgrade"])

    assert service.cluster.calls[-1].values == {"replicas": 22}


async def test_a_changed_config_map_wakes_the_releases_that_use_it_and_no_others(
    service: Service,
) -> None:
    write(service, "values.yaml", config_map("values", values__yaml="a: 1"))
    write(
        service,
        "all.yaml",
        release(valuesFrom=[{"kind": "ConfigMap", "name": "values"}]),
        release("db"),
    )
    async with running(service):
        await at_rest(service, WEB, DB)
        write(service, "values.yaml", config_map("values", values__yaml="a: 2"))
        await until(lambda: service.cluster.runs["upgrade"])
        await service.engine.passes.idle()

    upgraded = [call.release.name for call in service.cluster.calls if call.operation == "upgrade"]
    assert upgraded == ["web"]


async def test_comments_and_files_of_others_wake_nobody(service: Service) -> None:
    write(service, "web.yaml", release())
    async with running(service):
        await at_rest(service, WEB)
        looks = len(service.repositories.asked)
        text = (service.directory / "web.yaml").read_text()
        (service.directory / "web.yaml").write_text(text + "# a comment\n")
        write(service, "other.yaml", config_map("unused", a="1"))
        await until(lambda: key("unused") in service.engine.declared.config_maps)
        await service.engine.passes.idle()

    assert len(service.repositories.asked) == looks


async def test_fluxs_annotations_ask_for_something_once(service: Service) -> None:
    write(service, "web.yaml", release())
    async with running(service):
        await at_rest(service, WEB)
        asked = release()
        asked["metadata"]["annotations"] = {
            "reconcile.fluxcd.io/requestedAt": "now",
            "reconcile.fluxcd.io/forceAt": "now",
        }
        write(service, "web.yaml", asked)
        await until(lambda: service.cluster.runs["upgrade"])
        service.engine.passes.wake(WEB, "again")
        await at_rest(service, WEB)

    assert service.cluster.runs["upgrade"] == 1
    assert service.reconciler.known[WEB].handled.force == "now"


# What is left alone


async def test_a_broken_file_refuses_its_own_releases_only(service: Service) -> None:
    write(service, "web.yaml", release())
    write(service, "db.yaml", release("db"))
    async with running(service):
        await at_rest(service, WEB, DB)
        write(service, "web.yaml", release(noSuchField=1))
        write(service, "db.yaml", release("db", values={"a": 1}))
        await until(lambda: service.cluster.runs["upgrade"] and not service.is_ready(WEB))
        await at_rest(service, DB)

    assert reason(service) == "DeclarationInvalid"
    assert [call.release.name for call in service.cluster.calls[2:]] == ["db"]
    assert service.cluster.statuses(ReleaseId("apps", "web")) == {1: "deployed"}


async def test_an_emptied_directory_removes_nothing(service: Service) -> None:
    write(service, "web.yaml", release(), PRUNES)
    async with running(service):
        await at_rest(service, WEB)
        for file in service.directory.iterdir():
            file.unlink()
        await until(lambda: service.engine.declared.errors)
        await service.engine.passes.idle()
        assert "there are no YAML or JSON files" in str(service.engine.declared.errors[0])

    assert service.cluster.runs["uninstall"] == 0
    assert WEB in service.engine.declared.releases


async def test_without_prune_a_release_outlives_its_declaration_and_is_taken_up_again(
    service: Service,
) -> None:
    write(service, "web.yaml", release())
    async with running(service):
        await at_rest(service, WEB)
        (service.directory / "web.yaml").unlink()
        await until(lambda: service.reconciler.known[WEB].removed)
        write(service, "web.yaml", release())
        await until(lambda: not service.reconciler.known[WEB].removed)
        await at_rest(service, WEB)

    assert service.cluster.runs == {"install": 1}


async def test_a_removal_that_fails_is_tried_again(service: Service) -> None:
    write(service, "policy.yaml", PRUNES)
    write(service, "web.yaml", release())
    async with running(service):
        await at_rest(service, WEB)
        service.cluster.fail("uninstall", Point.STARTED, HelmError("helm says no"))
        (service.directory / "web.yaml").unlink()
        await until(lambda: service.removed)

    assert service.cluster.runs["uninstall"] == 2


# Another time and other places


async def again(service: Service, *places: Path) -> Service:
    """Another process, on the same cluster."""
    return Service(*places, cluster=service.cluster, records=service.records)


async def test_what_was_removed_while_nobody_looked_is_seen_at_the_start(
    service: Service, place: Path
) -> None:
    write(service, "policy.yaml", PRUNES)
    write(service, "web.yaml", release())
    async with running(service):
        await at_rest(service, WEB)
    (place / "web.yaml").unlink()

    later = await again(service, place)
    async with running(later):
        await until(lambda: later.removed)

    assert service.cluster.runs["uninstall"] == 1
    await later.engine.stop(timedelta(seconds=1))


async def test_what_another_place_declares_is_nothing_to_remove(
    service: Service, place: Path, tmp_path: Path
) -> None:
    write(service, "all.yaml", release(), PRUNES)
    async with running(service):
        await at_rest(service, WEB)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "all.yaml").write_text(yaml.safe_dump_all([SOURCES, release("db")]))

    later = await again(service, elsewhere)
    async with running(later):
        await at_rest(later, DB)

    assert service.cluster.runs["uninstall"] == 0
    kept = await service.records.load(ReleaseId("apps", "web"))
    assert kept is not None
    assert not kept.removed
    await later.engine.stop(timedelta(seconds=1))


async def test_a_start_without_an_api_server_waits_for_it(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("helmops.service.engine._LOAD_RETRY_SECONDS", 0.05)
    service.records.fail_next(ClusterUnreachable("gone"), ClusterUnreachable("still gone"))
    write(service, "web.yaml", release())
    assert set(service.engine.missing()) == {"declarations", "cluster"}
    async with running(service):
        await until(lambda: service.engine.missing().get("cluster") == "still gone")
        assert not service.cluster.runs
        await at_rest(service, WEB)
        assert service.engine.missing() == {}


# What is looked after between passes

RELEASE = ReleaseId("apps", "web")


def bad(why: str = "Deployment/apps/web: available: 0/1", version: int = 1) -> LiveHealth:
    return LiveHealth(is_live=True, bad=why, version=version)


async def test_what_is_released_is_looked_after_with_its_policy(service: Service) -> None:
    rules = policy(verify={"maxRestarts": 7})
    write(service, "web.yaml", release(), rules)
    async with running(service):
        await at_rest(service, WEB)
        assert service.liveness.followed == {RELEASE: 1}
        assert service.liveness.limits == {RELEASE: 7}
        write(service, "web.yaml", release(values={"a": 2}), rules)
        await until(lambda: service.liveness.followed == {RELEASE: 2})


async def test_what_watches_see_wakes_a_pass_which_tells_of_it(service: Service) -> None:
    write(service, "web.yaml", release())
    async with running(service):
        await at_rest(service, WEB)
        service.liveness.health[RELEASE] = bad()
        service.engine.on_live_change(RELEASE, "available: 0/1")
        await until(lambda: healthy(service) is ConditionStatus.FALSE)
        service.liveness.health[RELEASE] = LiveHealth(is_live=True, version=2)
        service.engine.on_live_change(RELEASE, "is well again")
        await until(lambda: healthy(service) is not ConditionStatus.FALSE)
    assert service.cluster.statuses(RELEASE) == {1: "deployed"}


async def test_a_release_that_nobody_declared_wakes_nobody(service: Service) -> None:
    service.engine.on_live_change(ReleaseId("apps", "stranger"), "is gone")
    assert service.engine.passes.depth == 0


@pytest.mark.parametrize("how", ["spec.suspend", "no longer declared"])
async def test_what_is_left_alone_is_not_looked_after(service: Service, how: str) -> None:
    write(service, "web.yaml", release())
    async with running(service):
        await at_rest(service, WEB)
        assert service.liveness.followed
        if how == "spec.suspend":
            write(service, "web.yaml", release(suspend=True))
        else:
            (service.directory / "web.yaml").unlink()
        await until(lambda: not service.liveness.followed)


async def test_a_release_that_moved_is_looked_after_where_it_is(service: Service) -> None:
    write(service, "web.yaml", release())
    async with running(service):
        await at_rest(service, WEB)
        write(service, "web.yaml", release(releaseName="shop"))
        await until(lambda: reason(service) == "ReleaseMoved")
        held = await service.records.load(RELEASE)
        assert held is not None
        service.records.write_by_other(resume(held))
        service.engine.on_cluster_change("record", RELEASE)
        await until(lambda: set(service.liveness.followed) == {ReleaseId("apps", "shop")})


async def test_what_failed_is_not_looked_after(service: Service) -> None:
    service.cluster.fail("install", Point.APPLIED, HelmError("no"), times=9)
    write(service, "web.yaml", release())
    async with running(service):
        await until(lambda: reason(service) == "RetriesExceeded")
        await service.engine.passes.idle()
    assert service.liveness.followed == {}


def healthy(service: Service) -> ConditionStatus | None:
    condition = service.reconciler.known[WEB].condition("Healthy")
    return condition.status if condition else None
