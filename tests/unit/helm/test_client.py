"""What helm is called with, and what becomes of what it says; helm itself is a script here."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from helmops.errors import (
    HelmDenied,
    HelmError,
    HelmTimeout,
    HelmUnavailable,
    PostRenderFailed,
    ReleaseLocked,
    ReleaseNotFound,
    TemplateFailed,
    TestFailed,
)
from helmops.helm.client import Deadlines, HelmClient
from helmops.model.charts import ChartArtifact
from helmops.model.declarations import (
    InstallSpec,
    RollbackSpec,
    TestSpec,
    UninstallSpec,
    UpgradeSpec,
)
from helmops.model.post_rendering import PostRendering, PostRenderStep
from helmops.model.releases import ReleaseId

APP = ReleaseId("apps", "app")
CHART = ChartArtifact("web", "1.0.0", "/charts/web-1.0.0.tgz", "", "HelmRepository/web")
MINUTE = timedelta(minutes=1)
SECRET_PATCH = "a patch that nobody else shall see"

#: A helm that writes down how it was called and does what the files beside it say.
SCRIPT = """\
#!/bin/sh
cd "{room}"
case "$1" in version) cat version; exit 0;; esac
echo run >> runs
printf '%s\\n' "$@" > argv
env > env
cat > stdin
if [ -e "$1.sh" ]; then . "./$1.sh"; fi
cat stdout; cat stderr >&2
exit "$(cat status)"
"""


@dataclass
class Script:
    """The fake helm's folder."""

    room: Path

    def says(self, stdout: str = "", stderr: str = "", status: int = 0) -> None:
        (self.room / "stdout").write_text(stdout)
        (self.room / "stderr").write_text(stderr)
        (self.room / "status").write_text(str(status))

    def does(self, command: str, shell: str) -> None:
        (self.room / f"{command}.sh").write_text(shell + "\n")

    def read(self, name: str) -> str:
        path = self.room / name
        return path.read_text() if path.exists() else ""

    @property
    def argv(self) -> list[str]:
        return self.read("argv").splitlines()

    @property
    def environment(self) -> dict[str, str]:
        lines = (line.partition("=") for line in self.read("env").splitlines())
        return {name: value for name, _, value in lines}


@pytest.fixture
def script(tmp_path: Path) -> Script:
    room = tmp_path / "room"
    room.mkdir()
    helm = room / "helm"
    helm.write_text(SCRIPT.format(room=room))
    helm.chmod(helm.stat().st_mode | stat.S_IXUSR)
    (room / "version").write_text("v4.3.1")
    made = Script(room)
    made.says()
    return made


def client_of(script: Script, **options: Any) -> HelmClient:
    settings: dict[str, Any] = {
        "executable": str(script.room / "helm"),
        "runtime_dir": script.room / "runtime",
    }
    return HelmClient(**{**settings, **options})


@pytest.fixture
def client(script: Script) -> HelmClient:
    return client_of(script)


async def upgrade(client: HelmClient, values: dict[str, Any] | None = None, **spec: Any) -> Any:
    return await client.upgrade(
        APP,
        CHART,
        values or {},
        UpgradeSpec(**({"server_side_apply": "enabled"} | spec)),
        timeout=MINUTE,
        description="why",
    )


async def rollback(client: HelmClient, revision: int = 2, **spec: Any) -> Any:
    return await client.rollback(
        APP,
        revision,
        RollbackSpec(**({"server_side_apply": "enabled"} | spec)),
        timeout=MINUTE,
        description="back",
    )


async def run_test(client: HelmClient, **spec: Any) -> Any:
    return await client.test(APP, TestSpec(**spec), timeout=MINUTE)


# What becomes of the chart's objects

RENDERED = replace(
    CHART,
    post_rendering=PostRendering(
        (PostRenderStep("spec.postRenderers[0]", {"patches": [{"patch": SECRET_PATCH}]}),),
        "combined",
        "digest",
    ),
)


def kubectl_of(script: Script, shell: str) -> str:
    path = script.room / "kubectl"
    path.write_text(f"#!/bin/sh\n{shell}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


async def act(client: HelmClient, operation: str) -> Any:
    if operation == "template":
        return await client.render(APP, RENDERED, {}, is_upgrade=True)
    if operation == "install":
        return await client.install(
            APP, RENDERED, {}, InstallSpec(), timeout=MINUTE, description=""
        )
    spec = UpgradeSpec(server_side_apply="enabled")
    return await client.upgrade(APP, RENDERED, {}, spec, timeout=MINUTE, description="")


#: What helm does with a post-renderer: 3 runs the program, 4 the plugin's.
AS_HELM_3 = 'program="$3"; shift 4; "$program" -P "${1#--post-renderer-args=}"'
AS_HELM_4 = '"$HELMOPS_POST_RENDER_PYTHON" -P "$HELMOPS_POST_RENDER_SCRIPT"'


@pytest.mark.parametrize("operation", ["install", "upgrade", "template"])
@pytest.mark.parametrize(("version", "how"), [("v3.19.0", AS_HELM_3), ("v4.3.1", AS_HELM_4)])
async def test_wherever_a_chart_is_rendered_its_post_renderers_run(
    script: Script, operation: str, version: str, how: str
) -> None:
    script.room.joinpath("version").write_text(version)
    kubectl = kubectl_of(script, "cat; echo seen: yes")
    script.does(operation, f"echo 'kind: A' | {{ {how}; }} > rendered 2> said")
    await act(client_of(script, kubectl=kubectl), operation)
    assert script.read("rendered").endswith("\nkind: A\nseen: yes\n"), script.read("said")
    assert SECRET_PATCH not in script.read("argv") + script.read("env")
    left = [path.name for path in (script.room / "runtime").iterdir()]
    assert not [name for name in left if name.startswith("run-")]


@pytest.mark.parametrize("operation", ["install", "upgrade", "template"])
async def test_a_post_renderer_that_fails_is_the_error_whatever_helm_says(
    script: Script, operation: str
) -> None:
    kubectl = kubectl_of(script, "echo 'error: no matches for Id' >&2; exit 1")
    script.says(stderr="Error: plugin exited with error", status=1)
    script.does(operation, f"echo 'kind: A' | {{ {AS_HELM_4}; }} 2> said")
    with pytest.raises(PostRenderFailed, match=r"spec\.postRenderers\[0\]: no matches for Id"):
        await act(client_of(script, kubectl=kubectl), operation)


async def test_a_failure_of_helm_itself_stays_what_it_is(script: Script) -> None:
    script.says(stderr="Error: release: not found", status=1)
    with pytest.raises(ReleaseNotFound):
        await act(client_of(script, kubectl=kubectl_of(script, "cat")), "upgrade")


# How helm is called


async def test_values_go_through_standard_input_and_never_the_command_line(
    client: HelmClient, script: Script
) -> None:
    await upgrade(client, {"password": "hunter22", "n": 1})

    assert json.loads(script.read("stdin")) == {"password": "hunter22", "n": 1}
    assert "hunter22" not in script.read("argv") + script.read("env")


async def test_names_stand_behind_the_flags_where_they_cannot_be_flags(
    client: HelmClient, script: Script
) -> None:
    await upgrade(client)
    assert script.argv[-3:] == ["--", "app", "/charts/web-1.0.0.tgz"]
    await rollback(client, 3)
    assert script.argv[-3:] == ["--", "app", "3"]
    await client.uninstall(APP, UninstallSpec(), timeout=MINUTE, description="")
    assert script.argv[-2:] == ["--", "app"]
    await run_test(client)
    assert script.argv[-2:] == ["--", "app"]
    await client.install(APP, CHART, {}, InstallSpec(), timeout=MINUTE, description="")
    assert script.argv[-3:] == ["--", "app", "/charts/web-1.0.0.tgz"]
    assert script.argv[script.argv.index("--namespace") + 1] == "apps"


async def test_the_cluster_is_named_by_flags_and_its_token_by_the_environment(
    script: Script,
) -> None:
    client = client_of(
        script,
        kubeconfig="/etc/kube.config",
        context="prod",
        environment={"HELM_KUBETOKEN": "hunter22"},
    )
    await upgrade(client)

    assert script.argv[1:5] == ["--kubeconfig", "/etc/kube.config", "--kube-context", "prod"]
    assert script.environment["HELM_KUBETOKEN"] == "hunter22"
    assert "hunter22" not in script.read("argv")


async def test_helm_sees_none_of_the_users_helm_settings(
    script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HELM_NAMESPACE", "elsewhere")
    monkeypatch.setenv("HELM_DRIVER", "configmap")
    monkeypatch.setenv("HELMOPS_STATE", "postgresql://user:hunter22@db/x")
    monkeypatch.setenv("LANG", "de_DE.UTF-8")
    await upgrade(client_of(script))

    seen = script.environment
    assert "HELM_NAMESPACE" not in seen
    assert "HELMOPS_STATE" not in seen
    assert seen["HELM_DRIVER"] == "secret"
    assert seen["LANG"] == "C"
    homes = [value for name, value in seen.items() if name.startswith("HELM_") and "/" in value]
    assert homes
    assert all(home.startswith(str(script.room / "runtime")) for home in homes)


async def test_relative_paths_mean_what_they_mean_to_the_user(
    script: Script, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KUBECONFIG", "here/kubeconfig")
    script.does("upgrade", f'echo "$OLDPWD" > {script.room}/from')
    await upgrade(client_of(script, executable="room/helm"))
    assert script.read("from").strip() == str(tmp_path)
    assert script.environment["KUBECONFIG"] == "here/kubeconfig"


# Which helm


async def test_the_version_is_asked_once(client: HelmClient, script: Script) -> None:
    assert await asyncio.gather(*(client.version() for _ in range(3))) == ["4.3.1"] * 3
    (script.room / "version").write_text("v3.19.0")
    assert await client.version() == "4.3.1"
    assert client.major == 4
    assert client.unsupported("upgrade.crds", "Create")
    assert not client.unsupported("upgrade.force", True)


def test_before_it_was_asked_nothing_is_guessed(client: HelmClient) -> None:
    with pytest.raises(HelmUnavailable):
        _ = client.major


@pytest.mark.parametrize(
    ("version", "why"), [("v3.9.4", "too old"), ("hello", "no helm"), ("", "no helm")]
)
async def test_what_is_no_usable_helm_is_refused(script: Script, version: str, why: str) -> None:
    (script.room / "version").write_text(version)
    with pytest.raises(HelmUnavailable, match=why):
        await client_of(script).prepare()


async def test_a_missing_helm_is_named(script: Script) -> None:
    with pytest.raises(HelmUnavailable, match="there is no helm") as caught:
        await client_of(script, executable="/no/helm").prepare()
    assert "HELMOPS_HELM" in caught.value.next_step


async def test_a_helm_that_vanishes_later_is_unavailable(
    client: HelmClient, script: Script
) -> None:
    await client.prepare()
    client._setpriv = ""
    (script.room / "helm").unlink()
    with pytest.raises(HelmUnavailable, match="cannot be started"):
        await upgrade(client)


# How objects are applied


async def test_auto_follows_what_is_stored(script: Script) -> None:
    asked: list[tuple[ReleaseId, int | None]] = []

    async def apply_method(release: ReleaseId, revision: int | None) -> str:
        asked.append((release, revision))
        return "ssa" if revision is None else ""

    client = client_of(script, apply_method=apply_method)
    await upgrade(client, server_side_apply="auto")
    assert "--server-side=true" in script.argv
    await rollback(client, 2, server_side_apply="auto", force=True)
    assert {"--server-side=false", "--force-replace"} <= set(script.argv)
    assert asked == [(APP, None), (APP, 2)]


async def test_auto_asks_helm_where_nobody_else_knows(client: HelmClient, script: Script) -> None:
    script.does("get", """echo '{"applyMethod": "ssa"}' > stdout; cp argv get-argv""")
    await rollback(client, 2, server_side_apply="auto")
    assert "--server-side=true" in script.argv
    assert "metadata" in script.read("get-argv")
    assert script.read("runs").count("run") == 2


# What comes of it


async def test_a_run_keeps_what_helm_said_without_log_lines(
    client: HelmClient, script: Script
) -> None:
    script.says("STATUS: deployed\n", "E1123 04:00:42.035857   19050 request.go:1198] x\nnote\n")
    run = await upgrade(client)
    assert run.output == "note\nSTATUS: deployed"
    assert run.duration > timedelta(0)


async def test_a_failure_becomes_our_error_with_redacted_output(
    script: Script,
) -> None:
    secrets: set[str] = set()
    client = client_of(script, secrets=secrets)
    secrets.add("learned-later")
    text = "Error: UPGRADE FAILED: execution error at (a.yaml:1:2): learned-later and hunter22\n"
    script.says("", text, 1)

    with pytest.raises(TemplateFailed) as caught:
        await upgrade(client, {"db": {"password": "hunter22"}})

    shown = f"{caught.value} {caught.value.output} {caught.value!r}"
    assert "hunter22" not in shown
    assert "learned-later" not in shown
    assert caught.value.where == "apps/app"
    assert "a.yaml:1:2" in caught.value.what


async def test_lines_are_told_as_they_come_redacted(client: HelmClient, script: Script) -> None:
    lines: list[str] = []
    script.says("one\ntoken=abcdefgh\n")
    await client.install(
        APP,
        CHART,
        {},
        InstallSpec(),
        timeout=MINUTE,
        description="",
        progress=lines.append,
    )
    assert lines == ["one", "token=***"]


async def test_helms_account_of_the_release_is_no_progress(
    client: HelmClient, script: Script
) -> None:
    lines: list[str] = []
    account = """\
Release "app" has been upgraded. Happy Helming!
NAME: app
LAST DEPLOYED: Mon Nov 23 04:24:32 2026
NAMESPACE: apps
STATUS: deployed
REVISION: 1
DESCRIPTION: helmops: install app 1.0.0
waiting for something
TEST SUITE:     app-answers-test
Last Started:   Mon Nov 23 04:24:32 2026
Last Completed: Mon Nov 23 04:24:33 2026
Phase:          Succeeded
TEST SUITE: None
release "app" uninstalled
"""
    script.says(account)
    run = await client.test(APP, TestSpec(), timeout=MINUTE, progress=lines.append)
    assert lines == ["waiting for something", "test app-answers-test: Succeeded"]
    assert "STATUS: deployed" in run.output


async def test_helms_error_is_no_progress(client: HelmClient, script: Script) -> None:
    lines: list[str] = []
    error = """\
level=WARN msg="upgrade failed" name=app error="resource Deployment/apps/app not ready"
W1123 04:43:52.0 1 warnings.go:70] apps/v1beta1 Deployment is deprecated
Error: UPGRADE FAILED: resource Deployment/apps/app not ready
context deadline exceeded
"""
    script.says(error)
    await client.test(APP, TestSpec(), timeout=MINUTE, progress=lines.append)
    assert lines == ["W1123 04:43:52.0 1 warnings.go:70] apps/v1beta1 Deployment is deprecated"]


async def test_values_that_json_has_not_never_reach_helm(
    client: HelmClient, script: Script
) -> None:
    with pytest.raises(TemplateFailed):
        await upgrade(client, {"ratio": float("nan")})
    assert script.read("runs") == ""


@pytest.mark.parametrize("revision", [0, -1])
async def test_a_rollback_always_says_where_to(
    client: HelmClient, script: Script, revision: int
) -> None:
    with pytest.raises(HelmError, match="revision to go to"):
        await rollback(client, revision)
    assert script.read("runs") == ""


# Tests

SUITE = """\
NAME: app
STATUS: deployed
TEST SUITE:     a
Last Started:   Mon Nov 23 04:01:43 2026
Last Completed: Mon Nov 23 04:01:43 2026
Phase:          {a}
TEST SUITE:     b
Last Started:   Mon Nov 23 04:01:43 2026
Last Completed: Mon Nov 23 04:01:43 2026
Phase:          {b}
TEST SUITE:     c
"""
NO_LOGS = 'Error: unable to get pod logs for a: pods "a" not found\n'


async def test_a_failed_test_is_named_with_its_logs(client: HelmClient, script: Script) -> None:
    logs = "\nPOD LOGS: b (main)\nconnection refused\n"
    script.says(
        SUITE.format(a="Succeeded", b="Failed") + logs,
        "Error: 1 error occurred:\n\t* pod b failed\n\n\n",
        1,
    )
    with pytest.raises(TestFailed, match="the test b failed") as caught:
        await run_test(client)
    assert "POD LOGS: b" in caught.value.output
    assert "kubectl -n apps logs b" in caught.value.next_step


async def test_a_failed_test_whose_logs_are_gone_is_named_too(
    client: HelmClient, script: Script
) -> None:
    script.says(SUITE.format(a="Failed", b="Failed"), NO_LOGS, 1)
    with pytest.raises(TestFailed, match="the tests a, b failed"):
        await run_test(client)


async def test_tests_that_passed_have_passed_without_logs_too(
    client: HelmClient, script: Script
) -> None:
    script.says(SUITE.format(a="Succeeded", b="Succeeded"), NO_LOGS, 1)
    run = await run_test(client)
    assert "unable to get pod logs" in run.output


async def test_a_test_that_was_left_out_does_not_count(client: HelmClient, script: Script) -> None:
    script.says(SUITE.format(a="Succeeded", b="Failed"), NO_LOGS, 1)
    await run_test(client, filters=({"name": "b", "exclude": True},))
    await run_test(client, filters=({"name": "a"},))


async def test_a_test_whose_pod_is_refused_has_failed(client: HelmClient, script: Script) -> None:
    refused = 'Error: warning: Hook test web/t.yaml failed: Pod "a" is invalid: spec: Required\n'
    script.says(SUITE.format(a="Failed", b=""), refused, 1)
    with pytest.raises(TestFailed, match=r'the test a failed: .*Pod "a" is invalid'):
        await run_test(client)


async def test_trouble_with_the_cluster_is_no_failed_test(
    client: HelmClient, script: Script
) -> None:
    denied = 'Error: pods is forbidden: User "me" cannot create resource "pods" in API group ""\n'
    script.says(SUITE.format(a="Failed", b=""), denied, 1)
    with pytest.raises(HelmDenied):
        await run_test(client)
    script.says("", "Error: release: not found\n", 1)
    with pytest.raises(ReleaseNotFound):
        await run_test(client)


# Rendering


async def test_rendering_asks_the_cluster_and_writes_nothing(
    client: HelmClient, script: Script
) -> None:
    script.says("---\nkind: ConfigMap\nmetadata: {name: a}\n")
    objects = await client.render(APP, CHART, {"a": 1}, is_upgrade=True)
    assert objects == ({"kind": "ConfigMap", "metadata": {"name": "a"}},)
    assert script.argv[0] == "template"
    assert {"--dry-run=server", "--is-upgrade", "--no-hooks"} <= set(script.argv)
    await client.render(APP, CHART, {}, is_upgrade=False, skip_schema_validation=True)
    assert "--is-upgrade" not in script.argv
    assert "--skip-schema-validation" in script.argv


async def test_a_large_manifest_is_rendered_whole(client: HelmClient, script: Script) -> None:
    text = "x" * 1_000_000
    script.says(f"kind: ConfigMap\ndata: {{text: {text}}}\n")
    (rendered,) = await client.render(APP, CHART, {}, is_upgrade=True)
    assert rendered["data"]["text"] == text


async def test_kinds_that_the_chart_brings_itself_are_rendered_without_the_cluster(
    client: HelmClient, script: Script
) -> None:
    script.does(
        "template",
        """case "$*" in
*--dry-run=server*)
  echo 'Error: no matches for kind "A" in version "b/v1"' > stderr
  echo 1 > status;;
*)
  echo 'kind: A' > stdout
  : > stderr
  echo 0 > status;;
esac""",
    )
    assert await client.render(APP, CHART, {}, is_upgrade=False) == ({"kind": "A"},)


# Locks and deadlines


async def test_a_helm_that_runs_over_its_deadline_is_stopped(script: Script) -> None:
    client = client_of(script, deadlines=Deadlines(factor=0, margin=timedelta(seconds=0.3)))
    script.does("upgrade", "sleep 60")
    with pytest.raises(HelmTimeout, match="still running"):
        await upgrade(client)
    assert not client.is_running(APP)


async def test_one_helm_at_a_time_works_on_a_release(client: HelmClient, script: Script) -> None:
    script.does("upgrade", f"while [ ! -e {script.room}/go ]; do sleep 0.02; done")
    first = asyncio.create_task(upgrade(client))
    while not script.argv:  # noqa: ASYNC110 (another process does it)
        await asyncio.sleep(0.01)
    other = client_of(script)

    assert not client.is_running(APP)
    assert other.is_running(APP)
    with pytest.raises(ReleaseLocked):
        await upgrade(other)
    elsewhere = ReleaseId("apps", "other")
    await other.uninstall(elsewhere, UninstallSpec(), timeout=MINUTE, description="")

    (script.room / "go").touch()
    await first
    assert not other.is_running(APP)


async def test_a_failed_call_lets_go_of_its_lock(client: HelmClient, script: Script) -> None:
    script.says("", "Error: release: not found\n", 1)
    for _ in range(2):
        with pytest.raises(ReleaseNotFound):
            await rollback(client)


async def test_whoever_watches_is_told_while_a_release_changes(script: Script) -> None:
    told: list[str] = []

    @contextlib.contextmanager
    def changing(release: ReleaseId) -> Iterator[None]:
        told.append(f"begin {release}, {script.read('runs').count('run')} runs")
        yield
        told.append(f"end, {script.read('runs').count('run')} runs")

    client = client_of(script, changing=changing)
    await upgrade(client)
    await client.render(APP, CHART, {}, is_upgrade=True)
    assert told == ["begin apps/app, 0 runs", "end, 1 runs"]


# The rest


async def test_pyhelm3s_own_commands_run_through_ours(client: HelmClient, script: Script) -> None:
    script.says('[{"revision": 1}]')
    assert await client.history("app", namespace="apps") == [{"revision": 1}]
    script.says("", "Error: release: not found\n", 1)
    with pytest.raises(ReleaseNotFound):
        await client.status("app")


def test_a_client_shows_no_secrets(script: Script) -> None:
    client = client_of(script, environment={"HELM_KUBETOKEN": "hunter22"}, secrets={"hunter23"})
    assert "hunter2" not in repr(client)


def test_the_runtime_directory_may_be_relative(
    script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(script.room)
    client = client_of(script, runtime_dir=Path("here"))
    assert os.path.isabs(client._environment["HELM_CACHE_HOME"])
