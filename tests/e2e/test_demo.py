"""The demo, as a person starts it: with a terminal, without one, with a cluster that is named."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from devcluster.cluster import Cluster
from devcluster.loopback import Answer, LoopbackServer

_NAMESPACE = "helmops-demo"
_SECONDS = 180


def _environment(tmp_path: Path, kubeconfig: Path | str, helm4: Path) -> dict[str, str]:
    return {
        **os.environ,
        "KUBECONFIG": str(kubeconfig),
        "HELMOPS_HELM": str(helm4),
        "XDG_STATE_HOME": str(tmp_path / "state"),
        "TMPDIR": str(_made(tmp_path / "tmp")),
    }


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def _demo(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "helmops", "demo", *arguments]


@pytest.fixture
def somebodys_cluster(tmp_path: Path) -> Iterator[tuple[LoopbackServer, Path]]:
    """What a person's kubeconfig points at; nothing may be asked of it."""
    with LoopbackServer(lambda _: Answer(200, b"{}")) as server:
        kubeconfig = tmp_path / "kubeconfig"
        cluster = {"name": "production", "cluster": {"server": server.url}}
        context = {"name": "production", "context": {"cluster": "production", "user": "me"}}
        fields = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "production",
            "clusters": [cluster],
            "users": [{"name": "me", "user": {"token": "secret"}}],
            "contexts": [context],
        }
        kubeconfig.write_text(json.dumps(fields))
        yield server, kubeconfig


def test_without_a_terminal_it_shows_the_main_job_on_a_cluster_of_its_own_and_leaves_nothing(
    tmp_path: Path, somebodys_cluster: tuple[LoopbackServer, Path], helm4: Path
) -> None:
    production, kubeconfig = somebodys_cluster
    ended = subprocess.run(
        _demo(),
        env=_environment(tmp_path, kubeconfig, helm4),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=_SECONDS,
        check=False,
    )
    shown = ended.stdout
    assert ended.returncode == 0, shown + ended.stderr
    _assert_in_order(
        shown,
        r"settings +ready: ",
        r"catalog +ready: ",
        r"shop +ready: ",
        r"git +pushed .*shop.yaml",
        r"shop +Upgrade: web 1\.0\.0 is to become 1\.1\.0",
        r"shop +Upgrade done",
        r"shop +CheckHealth failed",
        r"shop +Rollback: .*revision 1 \(web@1\.0\.0\) is the last one seen healthy",
        r"shop +runs the last revision that was seen healthy again",
        r"\$ helmops get releases -A",
        r"demo +shop .* web@1\.0\.0 +healthy",
        r"\$ helmops history shop -n demo",
        r"3 +rollback +web@1\.0\.0 .*\n2 +upgrade +web@1\.1\.0 .*\n1 +install +web@1\.0\.0",
        r"\$ helmops why shop -n demo",
        r"nothing is left running",
    )
    assert "\x1b" not in shown
    assert production.requests == []
    assert list((tmp_path / "tmp").iterdir()) == []
    assert not Cluster(tmp_path / "state" / "helmops" / "devcluster" / "demo").directory.exists()
    assert _left_behind(tmp_path) == []


def test_a_demo_that_is_stopped_half_way_leaves_nothing_running(
    tmp_path: Path, helm4: Path
) -> None:
    demo = subprocess.Popen(
        _demo(),
        env=_environment(tmp_path, "/nonexistent", helm4),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert demo.stdout is not None
    for line in demo.stdout:
        if "Install: " in line:
            break
    demo.send_signal(signal.SIGTERM)
    rest = demo.communicate(timeout=60)[0]
    assert demo.returncode == 130, rest
    assert "nothing is left running" in rest
    assert _left_behind(tmp_path) == []


def test_on_a_terminal_it_stays_up_until_enter_and_keeps_to_its_namespace_of_a_named_cluster(
    tmp_path: Path, private_cluster: Cluster, helm4: Path
) -> None:
    cluster = private_cluster
    screen = _Screen(
        _demo("--context", "devcluster"), _environment(tmp_path, cluster.kubeconfig, helm4)
    )
    screen.wait_for("Enter or Ctrl-C ends the demo")
    url = re.search(r"as a page: (http://\S+)", screen.text)
    assert url is not None
    with urllib.request.urlopen(url[1], timeout=10) as page:
        assert "catalog" in page.read().decode()
    made = cluster.request("GET", f"/api/v1/namespaces/{_NAMESPACE}/configmaps")["items"]
    assert {"settings", "catalog", "shop"} <= {each["metadata"]["name"] for each in made}
    screen.type("\n")
    assert screen.status() == 0
    assert "\x1b[32m" in screen.text
    assert "nowhere else" in screen.text
    assert _NAMESPACE not in _namespaces(cluster)
    assert _left_behind(tmp_path / "tmp") == []


def test_a_namespace_that_is_not_the_demos_is_left_alone(
    tmp_path: Path, private_cluster: Cluster, helm4: Path
) -> None:
    private_cluster.request("POST", "/api/v1/namespaces", {"metadata": {"name": _NAMESPACE}})
    ended = subprocess.run(
        _demo("--context", "devcluster"),
        env=_environment(tmp_path, private_cluster.kubeconfig, helm4),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=_SECONDS,
        check=False,
    )
    assert ended.returncode == 1
    assert f"the namespace {_NAMESPACE} exists and was not made by the demo" in ended.stderr
    assert _NAMESPACE in _namespaces(private_cluster)


def test_a_context_that_does_not_exist_is_said_to_be_none(
    tmp_path: Path, kubeconfig: Path, helm4: Path
) -> None:
    ended = subprocess.run(
        _demo("--context", "nowhere"),
        env=_environment(tmp_path, kubeconfig, helm4),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=_SECONDS,
        check=False,
    )
    assert ended.returncode == 1
    assert "context was not found for specified context: nowhere" in ended.stderr
    assert "Traceback" not in ended.stderr


class _Screen:
    """A program on a terminal of its own, and what it showed so far."""

    def __init__(self, command: list[str], environment: Mapping[str, str]) -> None:
        self.text = ""
        self._ours, theirs = pty.openpty()
        self._process = subprocess.Popen(
            command, env=dict(environment), stdin=theirs, stdout=theirs, stderr=theirs
        )
        os.close(theirs)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        while True:
            try:
                shown = os.read(self._ours, 4096)
            except OSError:  # the terminal's other side was closed: its way to say the end
                return
            self.text += shown.decode(errors="replace")

    def wait_for(self, text: str) -> None:
        deadline = time.monotonic() + _SECONDS
        while text not in self.text:
            assert self._process.poll() is None, self.text
            assert time.monotonic() < deadline, self.text
            time.sleep(0.1)

    def type(self, text: str) -> None:
        os.write(self._ours, text.encode())

    def status(self) -> int:
        status = self._process.wait(_SECONDS)
        self._reader.join()
        os.close(self._ours)
        return status


def _assert_in_order(text: str, *patterns: str) -> None:
    at = 0
    for pattern in patterns:
        found = re.compile(pattern).search(text, at)
        assert found is not None, f"{pattern!r} is not shown after this:\n{text[:at]}\n---\n{text}"
        at = found.start()


def _left_behind(tmp_path: Path) -> list[str]:
    """Processes whose command line or environment names the test's folder."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit() and int(folder.name) != os.getpid():
            try:
                told = (folder / "cmdline").read_bytes() + (folder / "environ").read_bytes()
            except OSError:
                continue
            if os.fsencode(tmp_path) in told:
                found.append(f"{folder.name}: {(folder / 'cmdline').read_bytes()!r}")
    return found


def _namespaces(cluster: Cluster) -> set[str]:
    items = cluster.request("GET", "/api/v1/namespaces")["items"]
    return {item["metadata"]["name"] for item in items}
