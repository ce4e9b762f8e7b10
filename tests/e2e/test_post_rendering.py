"""`postRenderers` and `commonMetadata`, with both helms, against kubectl's own kustomize."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from devcluster.chart_server import ChartRepository
from tests.e2e.helmops_process import Helmops, release, repository

IMAGE = {"name": "example.test/web", "newName": "example.test/other", "newTag": "9"}
SCALE = {
    "target": {"kind": "Deployment"},
    "patch": "- op: replace\n  path: /spec/replicas\n  value: 2\n",
}
ANNOTATE = {
    "patch": "apiVersion: v1\nkind: Service\nmetadata:\n  name: app\n  annotations: {a: '1'}\n"
}
COMMON = {"labels": {"team": "blue"}, "annotations": {"app.kubernetes.io/owner": "0755"}}


@pytest.fixture
def installed(
    make_helmops: Callable[..., Helmops],
    helm: Path,
    kubectl: Path,
    chart_repository: ChartRepository,
) -> Helmops:
    helmops = make_helmops(helm, more_environment={"HELMOPS_KUBECTL": str(kubectl)})
    helmops.declare(repository(chart_repository.url), file="charts.yaml")
    return helmops


def is_helm_3(helmops: Helmops) -> bool:
    return helmops.run_helm("version", "--short").startswith("v3")


def patched(*patches: dict[str, Any], **rest: Any) -> dict[str, Any]:
    return {"kustomize": {"patches": list(patches), **rest}}


def objects(text: str) -> dict[tuple[str, str], dict[str, Any]]:
    return {
        (each["kind"], each["metadata"]["name"]): each for each in yaml.safe_load_all(text) if each
    }


def kustomized(text: str, kubectl: Path, folder: Path, kustomization: dict[str, Any]) -> str:
    """What kubectl makes of some objects, from files as people write them."""
    folder.mkdir()
    (folder / "all.yaml").write_text(text)
    (folder / "kustomization.yaml").write_text(
        json.dumps({**kustomization, "resources": ["all.yaml"]})
    )
    told = subprocess.run([kubectl, "kustomize", folder], capture_output=True, check=True)
    return told.stdout.decode()


def test_released_is_what_kubectl_kustomize_makes_of_what_the_chart_renders(
    installed: Helmops, kubectl: Path, charts: Path, tmp_path: Path
) -> None:
    steps = [patched(ANNOTATE, images=[IMAGE]), patched(SCALE)]
    declared = release(chart="web", postRenderers=steps, values={"replicas": 1})
    installed.declare(declared)
    installed.reconcile()
    plain = installed.run_helm("template", "app", str(charts / "web"), "--no-hooks")
    for number, step in enumerate(steps):
        plain = kustomized(plain, kubectl, tmp_path / f"step-{number}", step["kustomize"])
    released = objects(installed.run_helm("get", "manifest", "app"))
    assert released == objects(plain)
    deployment = installed.get("apps/v1/deployments/app")
    assert deployment["spec"]["replicas"] == 2
    assert "postrenderer.helm.sh" not in json.dumps(deployment)

    installed.reconcile()
    assert list(installed.revisions()) == [1]
    steps[1]["kustomize"]["images"] = [{**IMAGE, "name": IMAGE["newName"], "newTag": "10"}]
    installed.declare(declared)
    plan = installed.run("plan", "-o", "json", status=2).json["releases"][0]
    assert (plan["action"], plan["why"].partition(";")[0]) == (
        "Upgrade",
        "postRenderers or commonMetadata changed",
    )
    installed.reconcile()
    containers = installed.get("apps/v1/deployments/app")["spec"]["template"]["spec"]["containers"]
    assert containers[0]["image"] == "example.test/other:10"
    assert list(installed.revisions()) == [1, 2]


def test_a_patch_that_does_not_fit_releases_nothing_and_says_which(installed: Helmops) -> None:
    nowhere = {"patch": "apiVersion: v1\nkind: Service\nmetadata: {name: nowhere}\n"}
    installed.declare(release(postRenderers=[patched(SCALE), patched(nowhere)]))
    ended = installed.reconcile(status=1)
    assert "spec.postRenderers[1]: no resource matches" in ended.text
    assert installed.revisions() == {}
    installed.declare(release(postRenderers=[patched(SCALE)]))
    installed.reconcile()
    assert installed.revisions() == {1: "deployed"}


def test_hooks_go_through_as_the_strategy_says_and_helm_can(installed: Helmops) -> None:
    def labels(kind: str) -> set[str]:
        hooks = objects(installed.run_helm("get", kind, "app")).values()
        return {str((each["metadata"].get("labels") or {}).get("team")) for each in hooks}

    installed.declare(release(chart="hooks", commonMetadata=COMMON))
    ended = installed.reconcile()
    configured = installed.get("configmaps/app")["metadata"]
    assert configured["labels"]["team"] == "blue"
    assert configured["annotations"]["app.kubernetes.io/owner"] == "0755"
    assert labels("manifest") == {"blue"}
    if not is_helm_3(installed):
        assert labels("hooks") == {"blue"}
        installed.declare(
            release(chart="hooks", commonMetadata=COMMON, postRenderStrategy="nohooks")
        )
        installed.reconcile()
        assert (labels("manifest"), labels("hooks")) == ({"blue"}, {"None"})
        return
    assert labels("hooks") == {"None"}
    assert "helm 3 gives post-renderers no hooks" in ended.text
    installed.declare(release(chart="hooks", commonMetadata=COMMON, postRenderStrategy="separate"))
    refused = installed.reconcile("-o", "json", status=1)
    assert "spec.postRenderStrategy: helm 3 gives" in refused.stdout
    assert list(installed.revisions()) == [1]


def test_a_release_that_the_common_metadata_would_change_is_not_taken_over(
    helmops: Helmops, kubectl: Path, charts: Path, chart_repository: ChartRepository
) -> None:
    installed = helmops
    installed.more_environment["HELMOPS_KUBECTL"] = str(kubectl)
    installed.declare(repository(chart_repository.url), file="charts.yaml")
    installed.run_helm("install", "app", str(charts / "config"))
    installed.declare(release(commonMetadata=COMMON))
    ended = installed.reconcile(status=1)
    assert "ConfigMap/app metadata" in ended.text
    assert installed.revisions() == {1: "deployed"}
    installed.declare(release())
    installed.reconcile()
    assert installed.revisions() == {1: "deployed"}
