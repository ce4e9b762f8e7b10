"""Records what real helms say when they fail, for test_failures.py.

    python -m devcluster up
    .venv/bin/python tests/unit/helm/record_samples.py [SCENARIO…]

Every scenario provokes one failure on the local cluster with each helm that `python -m devcluster
tools` names, and writes `samples/<scenario>.helm<major>.txt`: a header (which helm, which command,
its exit status, the class of the error it must become), an empty line, helm's standard error.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[3]
CHARTS = ROOT / "fixtures" / "charts"
SAMPLES = Path(__file__).parent / "samples"

Scenario = Callable[["Room"], None]
SCENARIOS: dict[str, tuple[str, Scenario]] = {}


def fails_as(error: str) -> Callable[[Scenario], Scenario]:
    """Register a scenario by its function's name, with the class its last failure must become."""

    def register(scenario: Scenario) -> Scenario:
        SCENARIOS[scenario.__name__.replace("_", "-")] = (error, scenario)
        return scenario

    return register


class Room:
    """A namespace, a folder for charts, and one helm. Remembers the last command's failure."""

    def __init__(self, tools: dict[str, str], helm: str, kubeconfig: str, scratch: Path) -> None:
        self.tools, self.helm_path, self.kubeconfig = tools, helm, kubeconfig
        self.scratch = scratch
        self.namespace = f"sample-{os.urandom(3).hex()}"
        self.env = {
            "PATH": os.environ["PATH"],
            "LANG": "C",
            "HOME": str(scratch),
            "HELM_CACHE_HOME": str(scratch / "cache"),
            "HELM_CONFIG_HOME": str(scratch / "config"),
            "HELM_DATA_HOME": str(scratch / "data"),
        }
        self.major = int(self.run_helm("version", "--template", "{{ .Version }}").stdout[1])
        self.last: subprocess.CompletedProcess[str] | None = None

    def kubectl(self, *arguments: str, stdin: str = "") -> str:
        command = [self.tools["kubectl"], "--kubeconfig", self.kubeconfig, *arguments]
        done = subprocess.run(command, input=stdin, text=True, capture_output=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)}: {done.stderr}")
        return done.stdout

    def apply(self, *objects: dict[str, Any]) -> None:
        for each in objects:
            self.kubectl("-n", self.namespace, "apply", "-f", "-", stdin=json.dumps(each))

    def run_helm(self, *arguments: str, **extra: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [self.helm_path, *arguments],
            env={**self.env, **extra.pop("env", {})},
            text=True,
            capture_output=True,
            check=False,
            **extra,
        )

    def cluster_flags(self, namespace: str | None = None) -> list[str]:
        return ["--kubeconfig", self.kubeconfig, "-n", namespace or self.namespace]

    def __call__(
        self,
        operation: str,
        *arguments: str,
        values: dict[str, Any] | None = None,
        env: dict[str, str] | None = None,
        namespace: str | None = None,
    ) -> int:
        """Run helm as the client does; a failure is remembered."""
        flags = self.cluster_flags(namespace)
        if operation in ("install", "upgrade", "template"):
            flags += ["--values", "-"]
        if operation in ("install", "upgrade"):
            flags += ["--hide-notes", "--take-ownership=false"]
        if operation in ("install", "upgrade", "rollback", "uninstall", "test"):
            flags += [] if "--timeout" in arguments else ["--timeout", "20s"]
        text = json.dumps(values or {})
        done = self.run_helm(operation, *flags, *arguments, input=text, env=env or {})
        if done.returncode:
            self.last = done
        return done.returncode

    def wait_flag(self, strategy: str = "watcher") -> str:
        return f"--wait={strategy}" if self.major >= 4 else "--wait"

    def chart(self, name: str) -> str:
        return str(CHARTS / name)

    def new_chart(self, template: str, *, chart_yaml: str = "", **files: str) -> str:
        """A chart `probe` with one template, packed as a directory."""
        folder = self.scratch / f"probe-{os.urandom(2).hex()}" / "probe"
        (folder / "templates").mkdir(parents=True)
        (folder / "Chart.yaml").write_text(
            "apiVersion: v2\nname: probe\nversion: 1.0.0\n" + chart_yaml
        )
        (folder / "templates" / "all.yaml").write_text(template)
        for path, text in files.items():
            target = folder / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text)
        return str(folder)

    @contextmanager
    def started(self, *arguments: str, values: dict[str, Any]) -> Iterator[subprocess.Popen[str]]:
        """helm running beside us; killed at the end."""
        with subprocess.Popen(
            [self.helm_path, *arguments, *self.cluster_flags()],
            env=self.env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            assert process.stdin is not None
            if "--values" in arguments:
                process.stdin.write(json.dumps(values))
            process.stdin.close()
            process.stdin = None
            try:
                yield process
            finally:
                process.kill()

    def wait_for_status(self, release: str, status: str) -> None:
        selector = f"owner=helm,name={release},status={status}"
        for _ in range(100):
            found = self.kubectl(
                "-n", self.namespace, "get", "secret", "-l", selector, "-o", "name"
            )
            if found.strip():
                return
            time.sleep(0.1)
        raise RuntimeError(f"{release} never became {status}")

    def user(self, name: str, *rules: dict[str, Any]) -> dict[str, str]:
        """The environment with which helm is a ServiceAccount that may do only this."""
        account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name}}
        role = {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "Role",
            "metadata": {"name": name},
            "rules": list(rules),
        }
        binding = {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "RoleBinding",
            "metadata": {"name": name},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name},
            "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": self.namespace}],
        }
        self.apply(account, role, binding)
        token = self.kubectl("-n", self.namespace, "create", "token", name).strip()
        return {"HELM_KUBETOKEN": token}


CONFIG_MAP = """\
apiVersion: v1
kind: ConfigMap
metadata:
  name: {{ .Release.Name }}
data:
  mode: {{ .Values.mode | default "none" | quote }}
"""

SLOW_DEPLOYMENT = {"simulate": "never-ready"}


@fails_as("ReleaseExists")
def install_name_in_use(room: Room) -> None:
    room("install", "app", room.chart("config"))
    room("install", "app", room.chart("config"))


@fails_as("ReleaseNotFound")
def upgrade_without_release(room: Room) -> None:
    room("upgrade", "app", room.chart("config"))


@fails_as("ReleaseNotFound")
def rollback_without_release(room: Room) -> None:
    room("rollback", "app", "1")


@fails_as("ReleaseNotFound")
def rollback_without_revision(room: Room) -> None:
    room("install", "app", room.chart("config"))
    room("rollback", "app", "9")


@fails_as("ReleaseNotFound")
def uninstall_without_release(room: Room) -> None:
    room("uninstall", "app")


@fails_as("ReleaseNotFound")
def test_without_release(room: Room) -> None:
    room("test", "app")


@fails_as("ReleaseNotFound")
def upgrade_after_uninstall(room: Room) -> None:
    room("install", "app", room.chart("config"))
    room("uninstall", "app", "--keep-history")
    room("upgrade", "app", room.chart("config"))


@fails_as("HelmError")
def uninstall_twice(room: Room) -> None:
    room("install", "app", room.chart("config"))
    room("uninstall", "app", "--keep-history")
    room("uninstall", "app", "--keep-history")


@fails_as("ReleaseLocked")
def upgrade_while_another_runs(room: Room) -> None:
    room("install", "app", room.chart("web"))
    command = ("upgrade", "app", room.chart("web"), "--values", "-", room.wait_flag())
    with room.started(*command, values=SLOW_DEPLOYMENT):
        room.wait_for_status("app", "pending-upgrade")
        room("upgrade", "app", room.chart("web"))


@fails_as("ReleaseLocked")
def install_of_a_half_installed(room: Room) -> None:
    command = ("install", "app", room.chart("web"), "--values", "-", room.wait_flag())
    with room.started(*command, values=SLOW_DEPLOYMENT):
        room.wait_for_status("app", "pending-install")
        room("upgrade", "app", room.chart("web"))


@fails_as("HelmCancelled")
def upgrade_gets_sigterm(room: Room) -> None:
    room("install", "app", room.chart("web"))
    command = ("upgrade", "app", room.chart("web"), "--values", "-", room.wait_flag())
    with room.started(*command, values=SLOW_DEPLOYMENT) as process:
        room.wait_for_status("app", "pending-upgrade")
        time.sleep(0.5)
        process.terminate()
        stdout, stderr = process.communicate()
        room.last = subprocess.CompletedProcess(
            [room.helm_path, *command], process.returncode, stdout, stderr
        )


@fails_as("OwnershipConflict")
def install_over_anothers_object(room: Room) -> None:
    room("install", "first", room.new_chart(CONFIG_MAP.replace("{{ .Release.Name }}", "shared")))
    room("install", "app", room.new_chart(CONFIG_MAP.replace("{{ .Release.Name }}", "shared")))


@fails_as("OwnershipConflict")
def upgrade_over_nobodys_object(room: Room) -> None:
    shared = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "shared"}}
    room.apply(shared)
    room("install", "app", room.chart("config"))
    room("upgrade", "app", room.new_chart(CONFIG_MAP.replace("{{ .Release.Name }}", "shared")))


@fails_as("TemplateFailed")
def template_nil_pointer(room: Room) -> None:
    room("install", "app", room.chart("template-error"))


@fails_as("TemplateFailed")
def template_required(room: Room) -> None:
    room("install", "app", room.chart("template-error"), values={"owner": {"team": ""}})


@fails_as("TemplateFailed")
def template_fail(room: Room) -> None:
    chart = room.new_chart('{{ fail "replicas and autoscaling exclude each other" }}\n')
    room("install", "app", chart)


@fails_as("TemplateFailed")
def template_does_not_parse(room: Room) -> None:
    room("install", "app", room.new_chart("{{ if .Values.mode }\n"))


@fails_as("TemplateFailed")
def template_unknown_function(room: Room) -> None:
    room("install", "app", room.new_chart("{{ frobnicate .Values.mode }}\n"))


@fails_as("TemplateFailed")
def template_missing_include(room: Room) -> None:
    room("install", "app", room.new_chart('{{ include "probe.labels" . }}\n'))


@fails_as("TemplateFailed")
def template_gives_no_yaml(room: Room) -> None:
    room("install", "app", room.new_chart("apiVersion: v1\nkind: ConfigMap\n  name: {x\n"))


@fails_as("TemplateFailed")
def template_wrong_type(room: Room) -> None:
    chart = room.new_chart("{{ range .Values.mode }}{{ . }}{{ end }}\n")
    room("upgrade", "--install", "app", chart, values={"mode": "good"})


@fails_as("TemplateFailed")
def kube_version_excluded(room: Room) -> None:
    room("install", "app", room.new_chart(CONFIG_MAP, chart_yaml="kubeVersion: '>=9.0.0-0'\n"))


@fails_as("TemplateFailed")
def library_chart(room: Room) -> None:
    room("install", "app", room.chart("library"))


@fails_as("TemplateFailed")
def dependency_missing(room: Room) -> None:
    room("install", "app", room.chart("with-dependency"))


@fails_as("ValuesSchemaFailed")
def values_against_schema(room: Room) -> None:
    room("install", "app", room.chart("schema"), values={"replicas": "three", "tier": "huge"})


@fails_as("ValuesSchemaFailed")
def values_against_schema_on_upgrade(room: Room) -> None:
    room("install", "app", room.chart("schema"))
    room("upgrade", "app", room.chart("schema"), values={"colour": "red"})


@fails_as("ObjectRefused")
def install_object_refused(room: Room) -> None:
    room("install", "app", room.chart("broken-service"), values={"mode": "bad"})


@fails_as("ObjectRefused")
def upgrade_object_refused(room: Room) -> None:
    room("install", "app", room.chart("broken-service"))
    room("upgrade", "app", room.chart("broken-service"), values={"mode": "bad"})


@fails_as("ObjectRefused")
def rollback_object_refused(room: Room) -> None:
    room("install", "app", room.chart("broken-service"))
    room("upgrade", "app", room.chart("broken-service"), values={"mode": "bad"})
    room("rollback", "app", "2")


IMMUTABLE = """\
apiVersion: apps/v1
kind: Deployment
metadata:
  name: {{ .Release.Name }}
spec:
  selector:
    matchLabels: {app: "{{ .Values.mode | default "a" }}"}
  template:
    metadata:
      labels: {app: "{{ .Values.mode | default "a" }}"}
    spec:
      containers:
      - {name: a, image: "example.test/a:1"}
"""


@fails_as("ObjectRefused")
def upgrade_immutable_field(room: Room) -> None:
    chart = room.new_chart(IMMUTABLE)
    room("install", "app", chart)
    room("upgrade", "app", chart, values={"mode": "b"})


@fails_as("ObjectRefused")
def upgrade_field_conflict(room: Room) -> None:
    """Server-side apply only: another manager has the field."""
    chart = room.new_chart(CONFIG_MAP)
    room("install", "app", chart)
    changed = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "app"},
        "data": {"mode": "by hand"},
    }
    room.kubectl(
        *("-n", room.namespace, "apply", "--server-side", "--force-conflicts", "-f", "-"),
        stdin=json.dumps(changed),
    )
    room("upgrade", "app", chart, values={"mode": "by chart"})


@fails_as("ObjectRefused")
def kind_unknown(room: Room) -> None:
    template = "apiVersion: example.test/v1\nkind: Widget\nmetadata:\n  name: a\n"
    room("install", "app", room.new_chart(template))


@fails_as("ObjectRefused")
def field_unknown(room: Room) -> None:
    room("install", "app", room.new_chart(CONFIG_MAP + "colour: red\n"))


@fails_as("ObjectRefused")
def namespace_missing(room: Room) -> None:
    room("install", "app", room.chart("config"), namespace="sample-nowhere")


@fails_as("ObjectRefused")
def quota_exceeded(room: Room) -> None:
    quota = {
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": {"name": "few"},
        "spec": {"hard": {"count/configmaps": "0"}},
    }
    room.apply(quota)
    for _ in range(50):
        if room.kubectl(
            "-n", room.namespace, "get", "quota", "few", "-o", "jsonpath={.status.used}"
        ):
            break
        time.sleep(0.1)
    room("install", "app", room.chart("config"))


def admission(room: Room, kind: str, **spec: Any) -> dict[str, Any]:
    """A cluster-wide object of admission, for this namespace only."""
    version = "v1"
    return {
        "apiVersion": f"admissionregistration.k8s.io/{version}",
        "kind": kind,
        "metadata": {"name": f"{room.namespace}.example.test"},
        **spec,
    }


@contextmanager
def present(room: Room, *objects: dict[str, Any]) -> Iterator[None]:
    """Cluster-wide objects for a while; admission takes a moment to see them."""
    room.apply(*objects)
    time.sleep(2)
    try:
        yield
    finally:
        for each in objects:
            room.kubectl("delete", each["kind"], each["metadata"]["name"])


@fails_as("ObjectRefused")
def webhook_does_not_answer(room: Room) -> None:
    hook = {
        "name": "check.example.test",
        "clientConfig": {"url": "https://127.0.0.1:1/check"},
        "rules": [
            {
                "apiGroups": [""],
                "apiVersions": ["v1"],
                "operations": ["*"],
                "resources": ["configmaps"],
            }
        ],
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": room.namespace}},
        "sideEffects": "None",
        "admissionReviewVersions": ["v1"],
    }
    with present(room, admission(room, "ValidatingWebhookConfiguration", webhooks=[hook])):
        room("install", "app", room.chart("config"))


@fails_as("ObjectRefused")
def policy_denies(room: Room) -> None:
    name = f"{room.namespace}.example.test"
    rules = [
        {
            "apiGroups": [""],
            "apiVersions": ["v1"],
            "operations": ["CREATE", "UPDATE"],
            "resources": ["configmaps"],
        }
    ]
    policy = {
        "matchConstraints": {"resourceRules": rules},
        "validations": [{"expression": "false", "message": "no ConfigMaps on Mondays"}],
    }
    selector = {"matchLabels": {"kubernetes.io/metadata.name": room.namespace}}
    binding = {
        "policyName": name,
        "validationActions": ["Deny"],
        "matchResources": {"namespaceSelector": selector},
    }
    with present(
        room,
        admission(room, "ValidatingAdmissionPolicy", spec=policy),
        admission(room, "ValidatingAdmissionPolicyBinding", spec=binding),
    ):
        room("install", "app", room.chart("config"))


@fails_as("ObjectRefused")
def release_too_large(room: Room) -> None:
    chart = Path(room.new_chart(CONFIG_MAP))
    (chart / "files").mkdir()
    (chart / "files" / "noise.bin").write_bytes(os.urandom(1_400_000))
    room("install", "app", str(chart))


@fails_as("HelmDenied")
def storage_forbidden(room: Room) -> None:
    room("upgrade", "app", room.chart("config"), env=room.user("nobody"))


@fails_as("HelmDenied")
def object_forbidden(room: Room) -> None:
    secrets = {"apiGroups": [""], "resources": ["secrets"], "verbs": ["*"]}
    user = room.user("secrets-only", secrets)
    room("install", "app", room.chart("config"), env=user)


@fails_as("HelmDenied")
def object_forbidden_to_write(room: Room) -> None:
    secrets = {"apiGroups": [""], "resources": ["secrets"], "verbs": ["*"]}
    reading = {"apiGroups": ["", "apps"], "resources": ["*"], "verbs": ["get"]}
    user = room.user("reader", secrets, reading)
    room("install", "app", room.chart("config"), env=user)


@fails_as("HelmDenied")
def token_refused(room: Room) -> None:
    room("upgrade", "app", room.chart("config"), env={"HELM_KUBETOKEN": "nonsense"})


@fails_as("HelmUnreachable")
def server_refuses_connections(room: Room) -> None:
    server = {"HELM_KUBEAPISERVER": "https://127.0.0.1:1"}
    room("upgrade", "app", room.chart("config"), env=server)


@fails_as("HelmUnreachable")
def server_not_found(room: Room) -> None:
    server = {"HELM_KUBEAPISERVER": "https://nowhere.invalid:6443"}
    room("upgrade", "app", room.chart("config"), env=server)


@fails_as("HelmUnreachable")
def certificate_refused(room: Room) -> None:
    authority = room.scratch / "other.crt"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1"),
            *("-subj", "/CN=other", "-keyout", os.devnull, "-out", str(authority)),
        ],
        check=True,
        capture_output=True,
    )
    room("upgrade", "app", room.chart("config"), env={"HELM_KUBECAFILE": str(authority)})


@fails_as("HelmUnreachable")
def kubeconfig_without_context(room: Room) -> None:
    room("upgrade", "app", room.chart("config"), "--kube-context", "nowhere")


@fails_as("HookFailed")
def hook_failed(room: Room) -> None:
    room("install", "app", room.chart("hooks"), values={"fail": "pre-install"})


@fails_as("HookFailed")
def hook_failed_on_upgrade(room: Room) -> None:
    room("install", "app", room.chart("hooks"))
    room("upgrade", "app", room.chart("hooks"), values={"fail": "post-upgrade"})


@fails_as("HookFailed")
def hook_failed_on_rollback(room: Room) -> None:
    room("install", "app", room.chart("hooks"), values={"fail": "pre-rollback"})
    room("upgrade", "app", room.chart("hooks"))
    room("rollback", "app", "1")


@fails_as("HookFailed")
def hook_failed_on_uninstall(room: Room) -> None:
    room("install", "app", room.chart("hooks"), values={"fail": "pre-delete"})
    room("uninstall", "app")


HOOK = """\
apiVersion: batch/v1
kind: Job
metadata:
  name: {{ .Release.Name }}-migrate
  annotations: {helm.sh/hook: pre-upgrade}
spec:
  backoffLimit: 0
  template:
    metadata:
      annotations: {helmops.dev/simulate: hang}
    spec:
      restartPolicy: Never
      containers:
      - {name: a, image: "example.test/a:1"}
"""


@fails_as("HookFailed")
def hook_runs_out_of_time(room: Room) -> None:
    chart = room.new_chart(CONFIG_MAP, **{"templates/hook.yaml": HOOK})
    room("install", "app", chart)
    room("upgrade", "app", chart, "--timeout", "3s")


@fails_as("HookFailed")
def hook_refused(room: Room) -> None:
    refused = HOOK.replace("Never", "Always")
    room("upgrade", "--install", "app", room.new_chart(CONFIG_MAP))
    room("upgrade", "app", room.new_chart(CONFIG_MAP, **{"templates/hook.yaml": refused}))


@fails_as("TestFailed")
def test_failed(room: Room) -> None:
    room("install", "app", room.chart("failing-test"))
    room("test", "app", "--logs")


@fails_as("TestFailed")
def test_failed_without_logs(room: Room) -> None:
    room("install", "app", room.chart("web"), values={"tests": {"fail": True}})
    room("test", "app")


@fails_as("TestFailed")
def test_runs_out_of_time(room: Room) -> None:
    pod = """\
apiVersion: v1
kind: Pod
metadata:
  name: {{ .Release.Name }}-slow
  annotations: {helm.sh/hook: test, helmops.dev/simulate: hang}
spec:
  restartPolicy: Never
  containers:
  - {name: a, image: "example.test/a:1"}
"""
    room("install", "app", room.new_chart(CONFIG_MAP, **{"templates/test.yaml": pod}))
    room("test", "app", "--timeout", "3s")


@fails_as("HelmWaitTimeout")
def wait_runs_out(room: Room) -> None:
    flags = (room.wait_flag(), "--timeout", "3s")
    room("install", "app", room.chart("web"), *flags, values=SLOW_DEPLOYMENT)


@fails_as("HelmWaitTimeout")
def wait_runs_out_on_upgrade(room: Room) -> None:
    room("install", "app", room.chart("web"))
    flags = (room.wait_flag(), "--timeout", "3s")
    room("upgrade", "app", room.chart("web"), *flags, values={"image": {"tag": "broken"}})


@fails_as("HelmWaitTimeout")
def wait_runs_out_by_helm_3_rules(room: Room) -> None:
    flags = (room.wait_flag("legacy"), "--timeout", "3s")
    room("install", "app", room.chart("web"), *flags, values=SLOW_DEPLOYMENT)


@fails_as("HelmWaitTimeout")
def wait_runs_out_on_rollback(room: Room) -> None:
    room("install", "app", room.chart("web"), values=SLOW_DEPLOYMENT)
    room("upgrade", "app", room.chart("web"))
    room("rollback", "app", "1", room.wait_flag(), "--timeout", "3s")


@fails_as("HelmWaitTimeout")
def wait_meets_a_failed_deployment(room: Room) -> None:
    chart = room.new_chart(
        IMMUTABLE.replace(
            "spec:\n  selector", "spec:\n  progressDeadlineSeconds: 2\n  selector"
        ).replace(
            "      labels:", "      annotations: {helmops.dev/simulate: crash}\n      labels:"
        )
    )
    room("install", "app", chart, room.wait_flag(), "--timeout", "15s")


@fails_as("HelmWaitTimeout")
def wait_meets_a_failed_job(room: Room) -> None:
    job = HOOK.replace("  annotations: {helm.sh/hook: pre-upgrade}\n", "").replace("hang", "fail")
    flags = (room.wait_flag(), "--wait-for-jobs", "--timeout", "10s")
    room("install", "app", room.new_chart(job), *flags)


@fails_as("HelmWaitTimeout")
def uninstall_runs_out_of_time(room: Room) -> None:
    kept = CONFIG_MAP.replace("metadata:\n", "metadata:\n  finalizers: [example.test/never]\n")
    room("install", "app", room.new_chart(kept))
    room("uninstall", "app", room.wait_flag(), "--timeout", "3s")
    room.kubectl(
        *("-n", room.namespace, "patch", "configmap", "app", "--type=json"),
        '-p=[{"op": "remove", "path": "/metadata/finalizers"}]',
    )


@fails_as("HelmError")
def chart_file_missing(room: Room) -> None:
    room("install", "app", str(room.scratch / "no-such-chart-1.0.0.tgz"))


@fails_as("TemplateFailed")
def chart_file_damaged(room: Room) -> None:
    archive = room.scratch / "damaged-1.0.0.tgz"
    archive.write_text("<html>not a chart</html>")
    room("install", "app", str(archive))


@fails_as("TemplateFailed")
def chart_file_truncated(room: Room) -> None:
    archive = room.scratch / "cut-1.0.0.tgz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(room.chart("web"), "web")
    archive.write_bytes(archive.read_bytes()[:400])
    room("install", "app", str(archive))


@fails_as("HelmError")
def name_invalid(room: Room) -> None:
    room("install", "App_1", room.chart("config"))


@fails_as("HelmUnavailable")
def flag_unknown(room: Room) -> None:
    room("install", "app", room.chart("config"), "--no-such-flag")


@fails_as("HelmError")
def dependency_repository_unknown(room: Room) -> None:
    dependencies = (
        "dependencies:\n- {name: a, version: 1.x.x, repository: 'http://127.0.0.1:1/charts'}\n"
    )
    chart = room.new_chart(CONFIG_MAP, chart_yaml=dependencies)
    room("dependency", "build", chart)


@fails_as("HelmError")
def dependency_not_in_repository(room: Room) -> None:
    dependencies = "dependencies:\n- {name: a, version: 9.x.x, repository: 'file://../a'}\n"
    chart = room.new_chart(CONFIG_MAP, chart_yaml=dependencies)
    room("dependency", "build", chart)


def clean(text: str, room: Room) -> str:
    """No names of this machine, of this run and of this cluster's address."""
    text = text.replace(str(room.scratch), "/charts").replace(str(CHARTS), "/charts")
    text = re.sub(r"/charts/probe-[0-9a-f]{4}", "/charts", text)
    text = text.replace(room.namespace, "apps").replace(room.kubeconfig, "/kubeconfig")
    text = re.sub(r"https://127\.0\.0\.1:\d{4,5}", "https://127.0.0.1:6443", text)
    return re.sub(
        r"lookup nowhere\.invalid on \S+", "lookup nowhere.invalid on 192.0.2.53:53", text
    )


def record(name: str, room: Room) -> None:
    error, scenario = SCENARIOS[name]
    room.kubectl("create", "namespace", room.namespace)
    try:
        scenario(room)
    finally:
        room.kubectl("delete", "namespace", room.namespace, "--wait=false")
    if room.last is None:
        sys.stderr.write(f"{name}: helm {room.major} did not fail\n")
        return
    version = room.run_helm("version", "--template", "{{ .Version }}").stdout
    command = " ".join(["helm", *map(str, room.last.args[1:])])
    header = {
        "helm": version,
        "command": clean(command, room),
        "exit": room.last.returncode,
        "error": error,
    }
    lines = [f"# {key}: {value}" for key, value in header.items()]
    path = SAMPLES / f"{name}.helm{room.major}.txt"
    path.write_text("\n".join(lines) + "\n\n" + clean(room.last.stderr, room))
    sys.stdout.write(f"{path.name}\n")


def main(chosen: list[str]) -> int:
    def devcluster(*arguments: str) -> str:
        command = [sys.executable, "-m", "devcluster", *arguments]
        return subprocess.run(
            command, cwd=ROOT, check=True, text=True, capture_output=True
        ).stdout.strip()

    tools = json.loads(devcluster("tools"))
    kubeconfig = devcluster("kubeconfig")
    for name in chosen or SCENARIOS:
        for helm in (tools["helm"], tools["helm3"]):
            with tempfile.TemporaryDirectory() as scratch:
                record(name, Room(tools, helm, kubeconfig, Path(scratch)))
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
