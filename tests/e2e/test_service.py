"""`helmops run`, and the contract that scripts rely on."""

from __future__ import annotations

import base64
import json
import sqlite3
import threading
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from devcluster.chart_server import ChartRepository
from devcluster.loopback import Answer, LoopbackServer, Request
from tests.e2e.helmops_process import (
    Helmops,
    policy,
    release,
    repository,
    secret,
    until,
)


@pytest.fixture
def charts(chart_repository: ChartRepository) -> dict[str, Any]:
    return repository(chart_repository.url)


# Following declarations


def test_files_that_change_come_and_go_are_followed(
    helmops: Helmops, charts: dict[str, Any]
) -> None:
    helmops.declare(charts, file="charts.yaml")
    helmops.declare(release("app"), file="app.yaml")
    with helmops.serve() as service:
        service.until_ready("app")
        helmops.declare(release("app", values={"data": {"message": "new"}}), file="app.yaml")
        until("the change is there", lambda: helmops.data()["message"] == "new")
        helmops.declare(release("second"), file="second.yaml")
        service.until_ready("second")
        (helmops.declarations / "second.yaml").unlink()
        service.until_seen("it is told", lambda seen: seen.ours["removed"], "second")
        assert helmops.revisions("second") == {1: "deployed"}
        assert service.terminate() == 0


def test_a_removed_release_is_uninstalled_where_its_policy_said_prune(
    helmops: Helmops, charts: dict[str, Any]
) -> None:
    helmops.declare(charts, release("keep"), policy(prune=True), file="rest.yaml")
    helmops.declare(release("app"), file="app.yaml")
    with helmops.serve() as service:
        service.until_ready("app")
        (helmops.declarations / "app.yaml").unlink()
        until("app is gone", lambda: helmops.revisions("app") == {})
        until("its record as well", lambda: helmops.get("secrets/helmops.app") is None)
        assert helmops.get("configmaps/app") is None
        assert helmops.revisions("keep") == {1: "deployed"}
        assert service.terminate() == 0


def test_a_directory_that_vanishes_or_is_emptied_removes_nothing(
    helmops: Helmops, charts: dict[str, Any]
) -> None:
    file = helmops.declare(charts, release(), policy(prune=True))
    away = helmops.declarations.with_name("away")
    with helmops.serve() as service:
        service.until_ready()
        helmops.declarations.rename(away)
        service.until_logged("does not exist")
        away.rename(helmops.declarations)
        service.until_logged("can be read again")
        file.rename(away)
        service.until_logged("there are no YAML")
        away.rename(file)
        until("it is well again", lambda: service.log.count("can be read again") == 2)
        assert service.terminate() == 0
    assert helmops.revisions("app") == {1: "deployed"}


def test_a_file_that_breaks_leaves_its_releases_and_the_others_go_on(
    helmops: Helmops, charts: dict[str, Any]
) -> None:
    helmops.declare(charts, policy(prune=True), file="charts.yaml")
    helmops.declare(release("app"), file="app.yaml")
    helmops.declare(release("other"), file="other.yaml")
    with helmops.serve() as service:
        service.until_ready("app")
        service.until_ready("other")
        helmops.declare("kind: [\n", file="app.yaml")
        service.until_seen("it is said", lambda seen: seen.reason == "DeclarationInvalid")
        helmops.declare(release("other", values={"data": {"message": "new"}}), file="other.yaml")
        until("the other goes on", lambda: helmops.data("other")["message"] == "new")
        assert helmops.revisions("app") == {1: "deployed"}
        helmops.declare(release("app"), file="app.yaml")
        service.until_ready("app")
        assert service.terminate() == 0
    assert helmops.revisions("app") == {1: "deployed"}


def test_a_new_chart_version_is_noticed_and_released(
    helmops: Helmops, chart_repository: ChartRepository, charts: dict[str, Any]
) -> None:
    helmops.declare(charts, release())
    with helmops.serve() as service:
        service.until_ready()
        chart_repository.publish("config", "1.1.0")
        until("it is released", lambda: helmops.data()["chart"] == "1.1.0")
        service.until_seen("healthy", lambda seen: seen.healthy_revision == 2)
        assert service.terminate() == 0
    polls = [s.status for s in chart_repository.server.requests if s.request.path == "/index.yaml"]
    assert polls.count(200) == 2  # all other polls were conditional, and answered 304


def test_a_dependent_release_is_woken_at_once(helmops: Helmops, charts: dict[str, Any]) -> None:
    slow = release("first", "hooks", values={"slow": "post-install"})
    helmops.declare(charts, slow, release("app", dependsOn=[{"name": "first"}]))
    with helmops.serve() as service:
        service.until_seen("it waits", lambda seen: seen.reason == "DependencyNotReady")
        assert helmops.revisions("app") == {}
        service.until_ready("app")  # its interval is an hour
        assert service.terminate() == 0


# Suspending


def test_a_suspended_release_is_left_alone_until_resume(
    helmops: Helmops, charts: dict[str, Any]
) -> None:
    helmops.declare(charts, release())
    with helmops.serve() as service:
        service.until_ready()
        helmops.run("suspend", "app")
        service.until_seen("it is suspended", lambda seen: seen.ours["suspended"])
        helmops.declare(charts, release(values={"data": {"message": "new"}}), release("marker"))
        service.until_ready("marker")
        assert helmops.revisions("app") == {1: "deployed"}
        helmops.run("resume", "app")
        until("it goes on", lambda: helmops.data()["message"] == "new")
        assert service.terminate() == 0


# The contract


def test_options_say_the_same_as_variables(
    helmops: Helmops, charts: dict[str, Any], tmp_path: Path
) -> None:
    helmops.declare(charts, release())
    for name in ("FILENAME", "STATE", "HELM", "DEFAULTS", "LISTEN", "NAMESPACE"):
        helmops.more_environment[f"HELMOPS_{name}"] = ""
    state = f"sqlite:///{helmops.state}"
    options = ("-f", str(helmops.declarations), "--state", state, "--defaults", "flux")
    options += ("--helm", str(helmops.helm), "-n", helmops.namespace)
    with helmops.start("run", *options, "--listen", "127.0.0.1:0") as service:
        service.wait_ready()
        service.until_ready()
        found = helmops.run(
            *("get", "release", "app", "-n", helmops.namespace, "-o", "json", "--state", state)
        ).json
        assert service.terminate() == 0
    assert found["kind"] == "HelmRelease"
    assert found["spec"]["chart"]["spec"]["chart"] == "config"
    status = found["status"]
    assert {c["type"] for c in status["conditions"]} >= {"Ready", "Released"}
    assert {"history", "failures", "installFailures", "upgradeFailures"} <= status.keys()
    assert status["lastAttemptedReleaseAction"] == "install"
    healthy = status["helmops"]["lastHealthy"]
    assert healthy["revision"] == 1
    assert healthy["digest"] == status["history"][0]["digest"]


def test_get_lists_all_releases_while_the_service_runs(
    helmops: Helmops, charts: dict[str, Any]
) -> None:
    helmops.declare(charts, release("one"), release("two"))
    with helmops.serve() as service:
        service.until_ready("one")
        service.until_ready("two")
        helmops.more_environment["HELMOPS_NAMESPACE"] = "default"
        listed = helmops.run("get", "releases", "-A", "-o", "json").json
        names = helmops.run("get", "releases", "-A", "-o", "name").stdout.split()
        table = helmops.run("get", "releases", "-n", helmops.namespace).stdout
    assert listed["kind"] == "List"
    here = [
        each["metadata"]["name"]
        for each in listed["items"]
        if each["metadata"]["namespace"] == helmops.namespace
    ]
    assert here == ["one", "two"]
    assert {"helmrelease/one", "helmrelease/two"} <= set(names)
    assert table.splitlines()[0].split()[:3] == ["NAME", "READY", "STATE"]


def test_versions_of_a_chart_are_listed_newest_first(
    helmops: Helmops, chart_repository: ChartRepository
) -> None:
    chart_repository.publish("config", "1.10.0")
    chart_repository.publish("config", "2.0.0-rc.1")
    url = chart_repository.url
    told = helmops.run("versions", "config", "--repo", url, "-o", "json", "--version", "1.x").json
    assert told["chart"] == "config"
    assert told["versions"] == ["2.0.0-rc.1", "1.10.0", "1.0.0"]
    assert told["selected"] == "1.10.0"
    assert told["reason"]
    helmops.run("versions", "nothing", "--repo", url, status=1)
    helmops.run("versions", "config", "--repo", url, "--version", ">=9", status=1)


def test_usage_errors_end_with_two(helmops: Helmops, charts: dict[str, Any]) -> None:
    helmops.run("reconcile", "--nonsense", status=2)
    helmops.run("reconcile", "--defaults", "brave", status=2)
    helmops.run("reconcile", "-f", "/no/such/directory", status=2)
    helmops.run("plan", "--nonsense", status=1)
    helmops.run("get", "release", "nobody", status=1)
    helmops.declare(charts, release())
    helmops.run("reconcile", "nobody", status=2)


def test_sigterm_lets_what_runs_end_within_the_grace_period(
    helmops: Helmops, charts: dict[str, Any]
) -> None:
    helmops.declare(charts, release("app", "hooks", values={"slow": "pre-install"}))
    with helmops.serve() as service:
        until("helm is at work", lambda: helmops.get("batch/v1/jobs/app-pre-install"))
        assert service.terminate() == 0
    assert helmops.revisions() == {1: "deployed"}


def test_what_does_not_end_within_the_grace_period_is_stopped_and_finished_later(
    helmops: Helmops, charts: dict[str, Any]
) -> None:
    helmops.declare(charts, release("app", "web", values={"simulate": "never-ready"}))
    with helmops.serve("--grace-period", "2s") as service:
        until("helm is at work", lambda: helmops.get("apps/v1/deployments/app"))
        assert service.terminate() == 0
    assert not [s for s in helmops.revisions().values() if s.startswith("pending")]
    helmops.declare(charts, release("app", "web"))
    helmops.reconcile()
    assert helmops.see().is_ready


def test_health_readiness_metrics_and_a_page_are_served(
    helmops: Helmops, charts: dict[str, Any]
) -> None:
    helmops.declare(charts, release())
    with helmops.serve() as service:
        service.until_ready()

        def text(path: str) -> str:
            with urllib.request.urlopen(service.url + path, timeout=5) as answer:
                return str(answer.read().decode())

        assert text("/healthz") == "ok\n"
        assert json.loads(text("/readyz"))["ready"] is True
        assert f'namespace="{helmops.namespace}"' in text("/metrics")
        assert "app" in text("/")


def test_logs_are_json_lines_with_the_release_where_that_is_asked(
    helmops: Helmops, charts: dict[str, Any]
) -> None:
    helmops.declare(charts, release())
    helmops.more_environment["HELMOPS_LOG_FORMAT"] = "json"
    with helmops.serve() as service:
        service.until_ready()
        assert service.terminate() == 0
    lines = [json.loads(line) for line in service.log.splitlines()]
    about = [line for line in lines if line.get("release") == f"{helmops.namespace}/app"]
    assert any("Install" in str(line) for line in about)


# Telling


def test_receivers_are_told_of_success_failure_and_rollback(
    helmops: Helmops, charts: dict[str, Any]
) -> None:
    bodies: list[dict[str, Any]] = []

    def take(request: Request) -> Answer:
        bodies.append(json.loads(request.body))
        return Answer(200)

    api = {"apiVersion": "notification.toolkit.fluxcd.io/v1beta3"}
    with LoopbackServer(take) as server:
        provider = {
            **api,
            "kind": "Provider",
            "metadata": {"name": "hook"},
            "spec": {"type": "generic", "address": server.url},
        }
        alert = {
            **api,
            "kind": "Alert",
            "metadata": {"name": "all"},
            "spec": {
                "providerRef": {"name": "hook"},
                "eventSources": [{"kind": "HelmRelease", "name": "*"}],
            },
        }
        helmops.declare(charts, provider, alert, release("app", "broken-service"))
        helmops.reconcile()
        bad = release("app", "broken-service", values={"mode": "bad"})
        helmops.declare(charts, provider, alert, bad)
        helmops.reconcile(status=1)
    reasons = [each["reason"] for each in bodies]
    for reason in ("InstallSucceeded", "UpgradeFailed", "RollbackSucceeded"):
        assert reason in reasons, reasons
    assert {each["involvedObject"]["name"] for each in bodies} == {"app"}


# Secrets

PASSWORD = "correct-horse-battery-staple"


def leaky_chart(folder: Path) -> Path:
    """A chart that puts its password where it can, and prints it when it fails."""
    chart = folder / "leaky"
    (chart / "templates").mkdir(parents=True)
    (chart / "Chart.yaml").write_text("apiVersion: v2\nname: leaky\nversion: 1.0.0\n")
    (chart / "values.yaml").write_text('password: ""\nfail: false\nslow: false\n')
    (chart / "templates" / "NOTES.txt").write_text("log in with {{ .Values.password }}\n")
    (chart / "templates" / "all.yaml").write_text(
        """\
{{- if .Values.fail }}{{ fail (printf "%s is no good" .Values.password) }}{{ end }}
apiVersion: v1
kind: Secret
metadata: {name: "{{ .Release.Name }}-login"}
stringData: {password: "{{ .Values.password }}"}
---
apiVersion: v1
kind: Pod
metadata:
  name: {{ .Release.Name }}-hook
  annotations:
    helm.sh/hook: pre-upgrade
    helm.sh/hook-delete-policy: before-hook-creation
    helmops.dev/simulate-delay: 1s
spec:
  restartPolicy: Never
  containers: [{name: a, image: example.test/a, command: ["{{ .Values.password }}"]}]
"""
    )
    return chart


class Arguments(threading.Thread):
    """Reads the command lines and environments of all processes again and again."""

    def __init__(self, word: str) -> None:
        super().__init__(daemon=True)
        self.word = word.encode()
        self.done = threading.Event()
        self.helms = 0
        self.found: list[str] = []

    def run(self) -> None:
        while not self.done.wait(0.02):
            for path in Path("/proc").glob("[0-9]*/cmdline"):
                try:
                    line = path.read_bytes()
                except OSError:
                    continue
                self.helms += b"\0upgrade\0" in line
                if self.word in line:
                    self.found.append(line.decode(errors="replace"))


def encodings(word: str) -> list[bytes]:
    """How a secret may look in a file: as it is, and in base64 at each of three offsets."""
    encoded = [base64.b64encode(b" " * shift + word.encode())[4:-4] for shift in range(3)]
    return [word.encode(), *encoded]


def test_secret_values_are_nowhere_but_where_they_belong(
    helmops: Helmops,
    charts: dict[str, Any],
    chart_repository: ChartRepository,
    tmp_path: Path,
) -> None:
    chart_repository.publish(str(leaky_chart(tmp_path)))
    login = secret("login", **{"values.yaml": f"password: {PASSWORD}"})
    told: list[bytes] = []

    def take(request: Request) -> Answer:
        told.append(request.body)
        return Answer(200)

    def declared(**values: object) -> None:
        app = release(
            "app",
            "leaky",
            values=values,
            valuesFrom=[{"kind": "Secret", "name": "login"}],
        )
        helmops.declare(charts, login, app)

    watching = Arguments(PASSWORD)
    watching.start()
    with LoopbackServer(take), helmops.serve() as service:
        declared()
        service.until_ready()
        declared(slow=True)
        service.until_seen("upgraded", lambda seen: seen.healthy_revision == 2)
        declared(fail=True)
        failed = service.until_seen("failed", lambda seen: "is no good" in seen.message)
        said = [
            helmops.run(command, "app", "-o", "json").stdout
            for command in ("events", "history", "why")
        ]
        said.append(json.dumps(failed.manifest))
        with urllib.request.urlopen(service.url, timeout=5) as page:
            said.append(page.read().decode())
        assert service.terminate() == 0
    watching.done.set()
    watching.join()
    assert helmops.get("secrets/app-login")  # it did get there
    assert watching.helms
    assert not watching.found
    assert PASSWORD not in "".join(said)
    assert PASSWORD not in service.log
    for path in helmops.directory.rglob("*"):
        if path.is_file() and helmops.declarations not in path.parents:
            contents = path.read_bytes()
            assert not [each for each in encodings(PASSWORD) if each in contents], path


def test_the_state_database_holds_no_manifest(helmops: Helmops, charts: dict[str, Any]) -> None:
    inline = {"data": {"message": PASSWORD}}  # people do that
    helmops.declare(charts, release(values=inline))
    helmops.reconcile()
    with sqlite3.connect(helmops.state) as connection:
        dump = "\n".join(connection.iterdump())
    assert PASSWORD not in dump
    assert "app" in dump
