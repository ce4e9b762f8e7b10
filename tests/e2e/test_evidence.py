"""What a failure leaves behind, on a cluster whose simulated pods have logs."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from devcluster.chart_server import ChartRepository
from devcluster.cluster import Cluster
from helmops.checks.evidence import ReleaseEvidence
from helmops.cluster.api import Api
from helmops.helm.storage import HelmStorage
from helmops.model.evidence import EvidenceKind
from helmops.model.releases import ReleaseId
from helmops.service.clock import SystemClock
from tests.e2e.helmops_process import Helmops, release, repository

#: A hook and a test that helm deletes as soon as they are over, whatever became of them.
CHART = {
    "Chart.yaml": "apiVersion: v2\nname: gone\nversion: 1.0.0\n",
    "templates/hook.yaml": """
apiVersion: batch/v1
kind: Job
metadata:
  name: {{ .Release.Name }}-migrate
  annotations:
    helm.sh/hook: pre-upgrade
    helm.sh/hook-delete-policy: before-hook-creation,hook-succeeded,hook-failed
spec:
  backoffLimit: 0
  template:
    metadata: {annotations: {helmops.dev/simulate-delay: 1s}}
    spec:
      restartPolicy: Never
      containers: [{name: migrate, image: "example.test/x:1", command: ["{{ .Values.ends }}"]}]
""",
    "templates/test.yaml": """
apiVersion: v1
kind: Pod
metadata:
  name: {{ .Release.Name }}-test
  annotations:
    helm.sh/hook: test
    helm.sh/hook-delete-policy: before-hook-creation,hook-succeeded,hook-failed
    helmops.dev/simulate-delay: 1s
spec:
  restartPolicy: Never
  containers: [{name: try, image: "example.test/x:1", command: ["{{ .Values.ends }}"]}]
""",
}


@pytest.fixture
def chart(tmp_path: Path) -> Path:
    for name, text in CHART.items():
        path = tmp_path / "gone" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path / "gone"


@pytest.fixture
async def api(kubeconfig: Path) -> AsyncIterator[Api]:
    async with await Api.connect(kubeconfig=str(kubeconfig)) as one:
        yield one


async def run_helm(helm: Path, cluster: Cluster, *arguments: str) -> int:
    """Its status; what it says is not looked at."""
    process = await asyncio.create_subprocess_exec(
        str(helm),
        "--kubeconfig",
        str(cluster.kubeconfig),
        *arguments,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    return await process.wait()


@pytest.mark.parametrize("ends", ["true", "false"])
async def test_logs_of_hooks_and_tests_that_helm_deletes_are_kept(
    api: Api, cluster: Cluster, namespace: str, helm: Path, chart: Path, ends: str
) -> None:
    cluster.say_of_pods(namespace, "connecting\nfatal: no database", container="migrate")
    cluster.say_of_pods(namespace, "GET /\nexpected 200", container="try")
    release_id = ReleaseId(namespace, "app")
    gatherer = ReleaseEvidence(api, SystemClock(), HelmStorage(api).hooks)
    install = ("install", "app", str(chart), "-n", namespace, "--set", "ends=true")
    assert await run_helm(helm, cluster, *install) == 0
    upgrade = ("upgrade", "app", str(chart), "-n", namespace, "--set-string", f"ends={ends}")

    async with gatherer.recording(release_id):
        status = await run_helm(helm, cluster, *upgrade)
    assert (status == 0) is (ends == "true")
    if status == 0:
        async with gatherer.recording(release_id):
            assert await run_helm(helm, cluster, "test", "app", "-n", namespace) == 0
    assert (await api.list("v1", "Pod", namespace)).items == ()
    evidence = await gatherer.gather(release_id, 2, ())

    told = {section.kind: section for section in evidence.sections}
    assert told[EvidenceKind.HOOK_LOG].text == "connecting\nfatal: no database"
    assert told[EvidenceKind.HOOK_LOG].title.startswith("log of pre-upgrade hook Job/app-migrate")
    if ends == "true":
        assert told[EvidenceKind.TEST_LOG].text == "GET /\nexpected 200"
    else:
        assert evidence.summary == ('pre-upgrade hook Job/app-migrate failed: "fatal: no database"')
    assert evidence.missing == ()


def test_a_crash_that_was_rolled_back_can_be_looked_into(
    helmops: Helmops, cluster: Cluster, chart_repository: ChartRepository
) -> None:
    cluster.say_of_pods(
        helmops.namespace, "starting\n", before="reading config\npanic: no database password=abc"
    )

    def declare(**values: str) -> None:
        helmops.declare(
            repository(chart_repository.url), release("app", "web", values=values, timeout="3s")
        )

    declare(message="good")
    helmops.reconcile()
    declare(message="bad", simulate="crash")
    helmops.reconcile(status=1)

    assert helmops.revisions()[3] == "deployed"
    listed = helmops.run("events", "app").text
    assert "EvidenceGathered" in listed
    shown = helmops.run("events", "app", "--evidence").text
    head, summary, *_ = [line for line in shown.splitlines() if line]
    assert head.startswith(f"evidence 1 of {helmops.namespace}/app revision 2, ")
    assert summary.startswith("pod app-")
    assert summary.endswith(
        'container web: CrashLoopBackOff (exit code 1, Error): "panic: no database password=***"'
    )
    assert "before its restart\nreading config\npanic: no database password=***\n" in shown
    assert "Warning BackOff Pod/app-" in shown
    assert "--- helm\n" in shown
    assert "-        example.test/message: good\n" in shown
    assert "+        example.test/message: bad\n" in shown
    assert "abc" not in shown
    as_json = helmops.run("events", "app", "--evidence", "1", "-o", "json").json
    assert as_json["revision"] == 2
    assert {section["kind"] for section in as_json["sections"]} >= {"pods", "log", "helm", "diff"}
