"""What helmops did not make: releases, revisions and objects of other people."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from devcluster.chart_server import ChartRepository
from devcluster.cluster import Cluster
from tests.e2e.helmops_process import Helmops, policy, release, repository

CHARTS = Path(__file__).resolve().parents[2] / "fixtures" / "charts"


@pytest.fixture
def charts(chart_repository: ChartRepository) -> dict[str, Any]:
    return repository(chart_repository.url)


def install_by_hand(helmops: Helmops, chart: str, *values: str) -> None:
    sets = [f"--set={each}" for each in values]
    helmops.run_helm("install", "app", str(CHARTS / chart), "--wait", *sets)


def without_ours(objects: dict[str, str]) -> dict[str, str]:
    """Objects but the record and the Lease, which are helmops' own."""
    return {
        name: version
        for name, version in objects.items()
        if "/helmops." not in name and not name.startswith("coordination")
    }


# Taking over


def test_a_release_as_declared_is_taken_over_and_nothing_of_it_changes(
    helmops_of_either: Helmops, charts: dict[str, Any]
) -> None:
    helmops = helmops_of_either
    install_by_hand(helmops, "hooks", "message=ours")
    before = without_ours(helmops.everything())
    helmops.declare(charts, release("app", "hooks", values={"message": "ours"}))
    helmops.reconcile()
    assert without_ours(helmops.everything()) == before  # objects, revisions, the Jobs of hooks
    seen = helmops.see()
    assert seen.is_ready
    assert seen.history[0]["action"] == "adopt"
    assert seen.healthy_revision == 1


def test_the_first_upgrade_after_it_has_somewhere_to_go_back_to(
    helmops: Helmops, charts: dict[str, Any]
) -> None:
    install_by_hand(helmops, "broken-service")
    helmops.declare(charts, release("app", "broken-service"))
    helmops.reconcile()
    helmops.declare(charts, release("app", "broken-service", values={"mode": "bad"}))
    helmops.reconcile(status=1)
    assert helmops.data() == {"mode": "good"}
    assert helmops.see().verdicts == {3: "healthy", 2: "failed", 1: "healthy"}


def test_a_release_of_another_plan_is_held_with_the_plan(
    helmops: Helmops, charts: dict[str, Any]
) -> None:
    install_by_hand(helmops, "config", "data.message=theirs")
    before = without_ours(helmops.everything())
    helmops.declare(charts, release(values={"data": {"message": "ours"}}))
    helmops.reconcile(status=1)
    seen = helmops.see()
    assert seen.reason == "ReleaseNotManaged"
    assert seen.ours["hold"]["plan"]
    assert without_ours(helmops.everything()) == before
    helmops.run("resume", "app")
    helmops.reconcile()
    assert helmops.data()["message"] == "ours"
    assert helmops.see().verdicts == {2: "healthy", 1: "healthy"}


def test_a_chart_of_the_same_version_and_other_content_is_another_plan(
    helmops: Helmops, charts: dict[str, Any], chart_repository: ChartRepository
) -> None:
    install_by_hand(helmops, "config")
    chart_repository.publish("config", "1.0.0", values={"data": {"message": "other"}})
    helmops.declare(charts, release())
    helmops.reconcile(status=1)
    plan = helmops.see().ours["hold"]["plan"]
    assert plan == ["changes ConfigMap/app data.message"]
    assert helmops.revisions() == {1: "deployed"}


def test_a_release_that_failed_is_not_taken_for_good_because_its_objects_are_ready(
    helmops: Helmops, charts: dict[str, Any]
) -> None:
    with pytest.raises(AssertionError, match="post-install"):
        install_by_hand(helmops, "hooks", "fail=post-install")
    helmops.declare(charts, release("app", "hooks", values={"fail": "post-install"}))
    helmops.reconcile(status=1)
    seen = helmops.see()
    assert seen.reason == "ReleaseNotManaged"
    assert "helm calls it failed" in seen.message
    assert helmops.revisions() == {1: "failed"}


def test_objects_of_other_releases_are_not_taken(helmops: Helmops, charts: dict[str, Any]) -> None:
    helmops.run_helm("install", "app-parent", str(CHARTS / "config"))
    helmops.declare(charts, release("app", "with-dependency"))
    helmops.reconcile(status=1)
    assert "belongs to the release" in helmops.see().message
    owner = helmops.get("configmaps/app-parent")["metadata"]["annotations"]
    assert owner["meta.helm.sh/release-name"] == "app-parent"


def test_with_flux_defaults_another_plan_is_upgraded_to(
    helmops: Helmops, charts: dict[str, Any]
) -> None:
    install_by_hand(helmops, "config", "data.message=theirs")
    helmops.declare(charts, release(values={"data": {"message": "ours"}}))
    helmops.reconcile("--defaults", "flux")
    assert helmops.data()["message"] == "ours"


# Revisions made by hand


@pytest.fixture
def changed_by_hand(helmops: Helmops, charts: dict[str, Any]) -> Helmops:
    """`app` was released by helmops, and then upgraded by a person."""
    helmops.declare(charts, release(values={"data": {"message": "ours"}}))
    helmops.reconcile()
    chart = str(CHARTS / "config")
    helmops.run_helm("upgrade", "app", chart, "--set=data.message=theirs")
    return helmops


def test_a_revision_made_by_hand_is_held_and_said_once(changed_by_hand: Helmops) -> None:
    helmops = changed_by_hand
    for _ in range(2):
        helmops.reconcile(status=1)
    assert helmops.see().reason == "RevisionMadeByHand"
    assert helmops.revisions() == {1: "superseded", 2: "deployed"}
    assert helmops.data()["message"] == "theirs"
    events = helmops.run("events", "app", "-o", "json").json
    assert [each["kind"] for each in events].count("hold") == 1


def test_resume_goes_on_after_a_revision_made_by_hand(changed_by_hand: Helmops) -> None:
    helmops = changed_by_hand
    helmops.reconcile(status=1)
    helmops.run("resume", "app")
    helmops.reconcile()
    assert helmops.data()["message"] == "ours"
    # What the person made ran well, so it may be gone back to.
    assert helmops.see().verdicts == {3: "healthy", 2: "healthy", 1: "healthy"}


def test_a_changed_declaration_goes_on_after_a_revision_made_by_hand(
    changed_by_hand: Helmops, charts: dict[str, Any]
) -> None:
    helmops = changed_by_hand
    helmops.reconcile(status=1)
    helmops.declare(charts, release(values={"data": {"message": "newer"}}))
    helmops.reconcile()
    assert helmops.data()["message"] == "newer"


def test_a_release_that_a_person_uninstalled_is_installed_again(
    helmops: Helmops, charts: dict[str, Any]
) -> None:
    helmops.declare(charts, release())
    helmops.reconcile()
    helmops.run_helm("uninstall", "app")
    helmops.reconcile()
    assert helmops.revisions() == {1: "deployed"}
    assert helmops.see().is_ready


# Only looking


def test_a_plan_writes_nothing_and_says_what_would_be_done(
    helmops: Helmops, charts: dict[str, Any]
) -> None:
    helmops.declare(charts, release(), release("web", "web"))
    helmops.reconcile("app")
    helmops.declare(charts, release(values={"data": {"a": "b"}}), release("web", "web"))
    before = helmops.everything()
    planned = helmops.run("plan", "-o", "json", status=2).json["releases"]
    assert {each["name"]: each["action"] for each in planned} == {
        "app": "Upgrade",
        "web": "Install",
    }
    assert helmops.everything() == before
    helmops.reconcile()
    settled = helmops.everything()
    helmops.run("plan", status=0)
    assert helmops.everything() == settled


def read_only(helmops: Helmops, cluster: Cluster, folder: Path) -> Path:
    """The kubeconfig of a user who may look at everything, and write nothing."""
    import json

    namespace = helmops.namespace
    group = "/apis/rbac.authorization.k8s.io/v1"
    account = f"/api/v1/namespaces/{namespace}/serviceaccounts"
    cluster.request("POST", account, {"metadata": {"name": "looker"}})
    rules = [{"apiGroups": ["*"], "resources": ["*"], "verbs": ["get", "list", "watch"]}]
    role = {"metadata": {"name": "looker"}, "rules": rules}
    cluster.request("POST", f"{group}/namespaces/{namespace}/roles", role)
    binding = {
        "metadata": {"name": "looker"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "looker"},
        "subjects": [{"kind": "ServiceAccount", "name": "looker", "namespace": namespace}],
    }
    cluster.request("POST", f"{group}/namespaces/{namespace}/rolebindings", binding)
    granted = cluster.request("POST", f"{account}/looker/token", {"spec": {}})
    config = json.loads(cluster.kubeconfig.read_text())
    config["users"][0]["user"] = {"token": granted["status"]["token"]}
    path = folder / "looker"
    path.write_text(json.dumps(config))
    return path


def watched(helmops: Helmops, charts: dict[str, Any]) -> Callable[[str], None]:
    """Declares three releases that a helmops which acts would install, upgrade and take over."""

    def declare(message: str) -> None:
        values = {"data": {"message": message}}
        names = ("app", "new", "theirs")
        helmops.declare(charts, *(release(name, values=values) for name in names))

    return declare


def test_observing_asks_for_nothing_to_be_changed(helmops: Helmops, charts: dict[str, Any]) -> None:
    declare = watched(helmops, charts)
    declare("one")
    helmops.reconcile("app")
    helmops.run_helm("install", "theirs", str(CHARTS / "config"), "--set=data.message=two")
    declare("two")
    before, asked = helmops.everything(), helmops.cluster.writes(helmops.namespace)
    assert any("configmaps/app" in each for each in asked)  # so that it would be seen
    with helmops.serve("--observe") as service:
        service.until_seen("app", lambda seen: "Upgrade" in seen.message, "app")
        service.until_seen("new", lambda seen: "Install" in seen.message, "new")
        service.until_seen("theirs", lambda seen: "Adopt" in seen.message, "theirs")
        assert service.terminate() == 0
    helmops.run("plan", status=2)
    assert helmops.everything() == before
    assert helmops.cluster.writes(helmops.namespace) == asked


def test_observing_needs_no_right_to_write(
    helmops: Helmops, charts: dict[str, Any], cluster: Cluster, tmp_path: Path
) -> None:
    declare = watched(helmops, charts)
    declare("one")
    helmops.kubeconfig = read_only(helmops, cluster, tmp_path)
    with helmops.serve("--observe") as service:
        for name in ("app", "new", "theirs"):
            service.until_seen(name, lambda seen: "Install" in seen.message, name)
        assert service.terminate() == 0
        assert "forbidden" not in service.log.lower()
        assert "cannot" not in service.log.lower()


def test_a_policy_of_observing_touches_its_releases_only(
    helmops: Helmops, charts: dict[str, Any]
) -> None:
    watch_only = policy(mode="observe", selector={"names": ["app"]})
    helmops.declare(charts, release(), release("other"), watch_only)
    helmops.reconcile(status=None)
    assert helmops.revisions("app") == {}
    assert helmops.revisions("other") == {1: "deployed"}
