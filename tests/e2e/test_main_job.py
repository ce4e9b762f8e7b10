"""The main job, by the real command line: declarations in, healthy releases out."""

from __future__ import annotations

from devcluster.chart_server import ChartRepository
from tests.e2e.helmops_process import Helmops, release, repository


def test_a_declared_release_is_installed_and_seen_healthy(
    helmops_of_either: Helmops, chart_repository: ChartRepository
) -> None:
    helmops = helmops_of_either
    helmops.declare(
        repository(chart_repository.url),
        release("app", "web", values={"message": "hi"}, test={"enable": True}),
    )
    helmops.reconcile()
    seen = helmops.see()
    assert seen.is_ready
    assert seen.reason == "TestSucceeded"
    assert seen.healthy_revision == 1
    assert helmops.revisions() == {1: "deployed"}
    tests = seen.history[0]["testHooks"]
    assert {name: test["phase"] for name, test in tests.items()} == {
        "app-answers-test": "Succeeded",
        "app-health-test": "Succeeded",
        "app-version-test": "Succeeded",
    }


def test_a_second_look_changes_nothing(helmops: Helmops, chart_repository: ChartRepository) -> None:
    helmops.declare(repository(chart_repository.url), release())
    helmops.reconcile()
    before = helmops.everything()
    helmops.reconcile()
    assert helmops.everything() == before
