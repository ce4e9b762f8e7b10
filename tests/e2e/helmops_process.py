"""helmops as people run it: commands and the service as child processes of a test.

Each `Helmops` has declarations, a state and a cache of its own, and works in one namespace.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self, TypeVar

import yaml

from devcluster.cluster import Cluster
from helmops.store import peek

T = TypeVar("T")

HELMOPS = Path(sys.executable).with_name("helmops")
RELEASE = {"apiVersion": "helm.toolkit.fluxcd.io/v2", "kind": "HelmRelease"}
SOURCE_API = "source.toolkit.fluxcd.io/v1"
PATIENCE = 60.0


class NeverCame(AssertionError):
    """Something that was waited for."""


def until(what: str, find: Callable[[], T], *, seconds: float = PATIENCE) -> T:
    """Ask again and again until the answer is true, and return it."""
    deadline = time.monotonic() + seconds
    while True:
        found = find()
        if found:
            return found
        if time.monotonic() > deadline:
            raise NeverCame(f"waited {seconds:.0f} s in vain: {what}")
        time.sleep(0.1)


# Declarations


def repository(url: str, *, name: str = "charts", **spec: Any) -> dict[str, Any]:
    """A HelmRepository that is asked often enough for a test."""
    return {
        "apiVersion": SOURCE_API,
        "kind": "HelmRepository",
        "metadata": {"name": name},
        "spec": {"url": url, "interval": "1s", "timeout": "5s", **spec},
    }


def release(
    name: str = "app",
    chart: str = "config",
    version: str = "",
    *,
    source: str = "HelmRepository/charts",
    metadata: Mapping[str, Any] | None = None,
    **spec: Any,
) -> dict[str, Any]:
    """A HelmRelease; further fields of `spec` as they are called there."""
    kind, _, of = source.partition("/")
    chart_spec = {"chart": chart, "sourceRef": {"kind": kind, "name": of}}
    if version:
        chart_spec["version"] = version
    return {
        **RELEASE,
        "metadata": {"name": name, **(metadata or {})},
        "spec": {"interval": "1h", "timeout": "20s", "chart": {"spec": chart_spec}, **spec},
    }


def policy(name: str = "policy", **spec: Any) -> dict[str, Any]:
    """A ReleasePolicy for all releases of the namespace, unless it has a selector."""
    return {
        "apiVersion": "helmops.dev/v1alpha1",
        "kind": "ReleasePolicy",
        "metadata": {"name": name},
        "spec": spec,
    }


def secret(name: str, **data: str) -> dict[str, Any]:
    """A Secret among the declarations."""
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": data}


def config_map(name: str, **data: str) -> dict[str, Any]:
    """A ConfigMap among the declarations."""
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}


def documents(*declared: Mapping[str, Any] | str) -> str:
    """The text of a file with these documents."""
    return "---\n".join(
        each if isinstance(each, str) else yaml.safe_dump(dict(each), sort_keys=False)
        for each in declared
    )


# What is seen of a release


@dataclass(frozen=True)
class Seen:
    """A release as `helmops get release -o json` shows it."""

    manifest: Mapping[str, Any]

    @property
    def status(self) -> Mapping[str, Any]:
        return self.manifest["status"]

    @property
    def ours(self) -> Mapping[str, Any]:
        """What is under `status.helmops`."""
        return self.status["helmops"]

    @property
    def history(self) -> list[dict[str, Any]]:
        return list(self.status["history"])

    def condition(self, kind: str) -> Mapping[str, Any]:
        """The condition of that type; empty where there is none."""
        return next((c for c in self.status["conditions"] if c["type"] == kind), {})

    @property
    def is_ready(self) -> bool:
        return bool(self.condition("Ready").get("status") == "True")

    @property
    def reason(self) -> str:
        """Ready's reason."""
        return str(self.condition("Ready").get("reason", ""))

    @property
    def message(self) -> str:
        """Ready's message."""
        return str(self.condition("Ready").get("message", ""))

    @property
    def healthy_revision(self) -> int | None:
        healthy = self.ours["lastHealthy"]
        return healthy["revision"] if healthy else None

    @property
    def verdicts(self) -> dict[int, str]:
        """Of each revision that helmops knows: its verdict."""
        return {each["version"]: each["helmops"]["verdict"] for each in self.history}


@dataclass(frozen=True)
class Ended:
    """A command and how it ended."""

    status: int
    stdout: str
    stderr: str

    @property
    def json(self) -> Any:
        """What it printed, for `-o json`."""
        return json.loads(self.stdout)

    @property
    def text(self) -> str:
        """All that it said."""
        return self.stdout + self.stderr


@dataclass
class Helmops:
    """One installation; `filenames` replaces the directory `declarations` where it is set."""

    directory: Path
    cluster: Cluster
    namespace: str
    helm: Path
    kubeconfig: Path | None = None
    filenames: tuple[str, ...] = ()
    more_environment: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.declarations.mkdir(parents=True, exist_ok=True)

    @property
    def declarations(self) -> Path:
        return self.directory / "declarations"

    @property
    def state(self) -> Path:
        return self.directory / "state.db"

    @property
    def cache(self) -> Path:
        return self.directory / "cache"

    def with_helm(self, helm: Path) -> Helmops:
        """The same installation with another helm."""
        return Helmops(
            self.directory, self.cluster, self.namespace, helm, self.kubeconfig, self.filenames
        )

    def environment(self) -> dict[str, str]:
        """All settings as variables; nothing of the person's who runs the tests."""
        return {
            "PATH": os.environ["PATH"],
            "HOME": str(self.directory),
            "LANG": "C.UTF-8",
            "GIT_CONFIG_NOSYSTEM": "1",
            "KUBECONFIG": str(self.kubeconfig or self.cluster.kubeconfig),
            "HELMOPS_FILENAME": "\n".join(self.filenames or (str(self.declarations),)),
            "HELMOPS_STATE": f"sqlite:///{self.state}",
            "HELMOPS_CACHE_DIR": str(self.cache),
            "HELMOPS_HELM": str(self.helm),
            "HELMOPS_NAMESPACE": self.namespace,
            "HELMOPS_WATCH_NAMESPACE": self.namespace,
            "HELMOPS_LISTEN": "127.0.0.1:0",
            **self.more_environment,
        }

    # Declarations

    def declare(self, *declared: Mapping[str, Any] | str, file: str = "apps.yaml") -> Path:
        """Write a file of declarations, as an editor does: whole, or not at all."""
        path = self.declarations / file
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh = path.with_name(f".{path.name}.new")
        fresh.write_text(documents(*declared))
        fresh.replace(path)
        return path

    # Commands

    def run(self, *arguments: str, status: int | None = 0, seconds: float = 180.0) -> Ended:
        """Run a command to its end; its exit status must be `status` (None: whatever it is)."""
        finished = subprocess.run(
            [HELMOPS, *arguments],
            env=self.environment(),
            cwd=self.directory,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )
        ended = Ended(finished.returncode, finished.stdout, finished.stderr)
        assert status in (None, ended.status), (
            f"helmops {' '.join(arguments)} ended with {ended.status}, not {status}:\n{ended.text}"
        )
        return ended

    def reconcile(self, *arguments: str, status: int | None = 0) -> Ended:
        """`helmops reconcile`."""
        return self.run("reconcile", *arguments, status=status)

    def see(self, name: str = "app") -> Seen:
        """What `helmops get release` says."""
        return Seen(self.run("get", "release", f"{self.namespace}/{name}", "-o", "json").json)

    def start(self, *arguments: str) -> Process:
        """Start a command and leave it running."""
        return Process(self, arguments)

    def serve(self, *arguments: str) -> Process:
        """`helmops run`, once it is ready."""
        service = self.start("run", *arguments)
        try:
            service.wait_ready()
        except BaseException:
            service.kill()
            raise
        return service

    # The cluster, looked at past helmops

    def get(self, path: str) -> Any:
        """An object of the namespace, None where there is none: `configmaps/app`."""
        return get(self.cluster, self.namespace, path)

    def revisions(self, name: str = "app") -> dict[int, str]:
        """Helm's own status of each stored revision."""
        found = self.get(f"secrets?labelSelector=owner%3Dhelm%2Cname%3D{name}")["items"]
        labels = (each["metadata"]["labels"] for each in found)
        return dict(sorted((int(each["version"]), each["status"]) for each in labels))

    def data(self, name: str = "app") -> dict[str, str]:
        """The data of a ConfigMap."""
        found = self.get(f"configmaps/{name}")
        assert found is not None, f"there is no ConfigMap {name}"
        return dict(found["data"])

    def run_helm(self, *arguments: str, helm: Path | None = None) -> str:
        """What a person does with helm, past helmops."""
        finished = subprocess.run(
            [helm or self.helm, *arguments, "--namespace", self.namespace],
            env={
                "PATH": os.environ["PATH"],
                "HOME": str(self.directory),
                "KUBECONFIG": str(self.cluster.kubeconfig),
            },
            capture_output=True,
            text=True,
            check=False,
        )
        assert finished.returncode == 0, finished.stderr
        return finished.stdout

    def everything(self) -> dict[str, str]:
        """The resourceVersion of every object that anybody could have written for helmops."""
        found = {}
        for path in (
            *("configmaps", "secrets", "services", "pods"),
            *("apps/v1/deployments", "batch/v1/jobs", "coordination.k8s.io/v1/leases"),
        ):
            for item in self.get(path)["items"]:
                metadata = item["metadata"]
                found[f"{path}/{metadata['name']}"] = metadata["resourceVersion"]
        return found


def get(cluster: Cluster, namespace: str, path: str) -> Any:
    """An object or a list of a namespace; None where there is no such object."""
    import urllib.error

    group, _, rest = path.rpartition("/v1/")
    prefix = f"/apis/{group}/v1" if group else "/api/v1"
    try:
        return cluster.request("GET", f"{prefix}/namespaces/{namespace}/{rest or path}")
    except urllib.error.HTTPError as refusal:
        with refusal:
            if refusal.code == 404:
                return None
            raise


class Process:
    """A helmops that runs; `with` kills it at the end, whatever happened."""

    def __init__(self, helmops: Helmops, arguments: tuple[str, ...]) -> None:
        self._helmops = helmops
        number = len(list(helmops.directory.glob("process-*.log")))
        self.log_file = helmops.directory / f"process-{number}.log"
        with self.log_file.open("wb") as log:
            self.process = subprocess.Popen(
                [HELMOPS, *arguments],
                env={**helmops.environment(), "HELMOPS_LOG_LEVEL": "debug"},
                cwd=helmops.directory,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    @property
    def log(self) -> str:
        return self.log_file.read_text(errors="replace")

    @property
    def is_running(self) -> bool:
        return self.process.poll() is None

    def wait_ready(self) -> None:
        """Until /readyz says so."""
        import urllib.error
        import urllib.request

        def ready() -> bool:
            if not self.is_running:
                raise NeverCame(f"helmops ended with {self.process.returncode}:\n{self.log}")
            try:
                with urllib.request.urlopen(f"{self.url}/readyz", timeout=2) as answer:
                    return bool(answer.status == 200)
            except (OSError, ValueError):
                return False

        until("helmops is ready", ready)

    @property
    def url(self) -> str:
        """Where it listens, out of its log."""
        found = re.search(r"helmops runs: .*(http://[\w.:]+)", self.log)
        return found[1] if found else ""

    def until_seen(self, what: str, wanted: Callable[[Seen], object], name: str = "app") -> Seen:
        """Until a release is as wanted; returns what `helmops get release` says then.

        What the service publishes is looked at while waiting, because a command costs a second.
        """
        key = (self._helmops.namespace, name)

        def look() -> bool:
            published = peek.published(self._helmops.state)
            status = next((s for k, s, _ in published if (k.namespace, k.name) == key), None)
            return status is not None and bool(wanted(Seen({"status": status})))

        try:
            until(what, look)
        except NeverCame as error:
            raise NeverCame(f"{error}\n{self.log}") from None
        return self._helmops.see(name)

    def until_ready(self, name: str = "app") -> Seen:
        return self.until_seen(f"{name} is ready", lambda seen: seen.is_ready, name)

    def until_logged(self, text: str) -> None:
        """Until the log has a text."""
        try:
            until(f"the log says {text!r}", lambda: text in self.log)
        except NeverCame as error:
            raise NeverCame(f"{error}\n{self.log}") from None

    def terminate(self, *, seconds: float = PATIENCE) -> int:
        """SIGTERM, as Kubernetes does; the exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(seconds)

    def kill(self) -> None:
        """`kill -9`."""
        self.process.kill()
        self.process.wait(PATIENCE)

    def wait(self, *, seconds: float = PATIENCE) -> int:
        """The exit status, once it ends by itself."""
        return self.process.wait(seconds)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.is_running:
            self.kill()
