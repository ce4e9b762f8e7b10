"""What one case works with: a helmops of its own in a namespace of its own, and what is seen."""

from __future__ import annotations

import base64
import gzip
import json
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from devcluster import cluster as devcluster
from devcluster.cluster import Cluster
from devcluster.tcp_proxy import TcpProxy
from tests.e2e import phases
from tests.e2e.helmops_process import Helmops, Process, until
from tests.e2e.phases import Phase

#: Seconds that a slow machine may take for anything.
_PATIENCE = 150.0

_PROGRAM = """\
#!/bin/sh
# helm, which says what it was called for and stands still once, where that is asked for.
cd "{folder}"
halt=$(cat halt 2>/dev/null)
if [ "$halt" = "before $1" ]; then rm halt; touch halted; exec sleep 600; fi
case "$1" in install|upgrade|rollback|uninstall|test) echo "$1" >> calls;; esac
if [ "$halt" = "after $1" ]; then "{helm}" "$@"; rm halt; touch halted; exec sleep 600; fi
exec "{helm}" "$@"
"""


@dataclass(frozen=True)
class Stored:
    """One revision in Helm's storage; `content` is what it would put into the cluster."""

    status: str
    content: str


@dataclass(frozen=True)
class Expected:
    """How a case must end. `revisions` None: however many there are."""

    revisions: Mapping[int, str] | None
    content: Mapping[str, str] | None
    is_ready: bool
    #: How often the operation may begin: what was broken off in the middle has to begin again.
    begins: int | None = None


@dataclass
class Bench:
    """One case at work. `healthy` is what helmops had seen healthy before the disturbance."""

    cluster: Cluster
    helmops: Helmops
    charts: Mapping[str, Any]
    phase: Phase
    proxy: TcpProxy
    expected: Expected
    healthy: dict[int, Stored] = field(default_factory=dict)
    _hooks_seen: set[str] = field(default_factory=set)

    def begin(self) -> None:
        """Get to where the phase begins, without any disturbance."""
        phases.begin(self.helmops, self.charts, self.phase)
        self.note_healthy()

    def note_healthy(self) -> None:
        """Remember what there is now that was seen healthy: it must never be lost."""
        record = self.record()
        stored = self.stored()
        for each in record.get("history", ()) if record else ():
            if verdict(each) == "healthy" and each["revision"] in stored:
                self.healthy[each["revision"]] = stored[each["revision"]]

    def declare(self, values: Any) -> None:
        """The release with these values; None: no release any more."""
        phases.declare(self.helmops, self.charts, self.phase, values)

    def halt(self, moment: str) -> None:
        """Let helm stand still `before` or `after` the phase's operation, once."""
        (self.helmops.directory / "halt").write_text(f"{moment} {self.phase.operation}\n")

    def until_halted(self) -> None:
        """Until helm stands still."""
        until("helm was called", (self.helmops.directory / "halted").exists, seconds=_PATIENCE)

    def until_in_the_middle(self) -> None:
        """Until helm waits for a hook or a test; for another one each time that this is asked."""

        def is_there() -> bool:
            if not phases.is_in_the_middle(self.helmops, self.phase):
                return False
            hook = self.helmops.get(self.phase.hook)
            if hook is None:
                return False  # gone since: helm deletes it before it makes another
            uid = hook["metadata"]["uid"]
            is_new = uid not in self._hooks_seen
            self._hooks_seen.add(uid)
            return is_new

        what = f"helm is in the middle of {self.phase.operation}"
        until(what, is_there, seconds=_PATIENCE)

    def calls(self, operation: str) -> int:
        """How often helm was called for an operation, and began it."""
        try:
            return (self.helmops.directory / "calls").read_text().split().count(operation)
        except FileNotFoundError:
            return 0

    @contextmanager
    def service(self) -> Iterator[Process]:
        """`helmops run`; it must end well when it is told to."""
        with self.helmops.serve() as running:
            yield running
            if running.is_running:
                status = running.terminate()
                assert status == 0, f"the service ended with {status}:\n{running.log[-2000:]}"

    def until_ended(self) -> None:
        """Until a service that runs has brought the phase to its end."""

        def is_over() -> bool:
            self.as_a_kubelet_would()
            stored, record = self.stored(), self.record()
            if not stored or record is None:
                return self.expected.content is None and not stored and record is None
            head = record["history"][0] if record["history"] else {}
            return (
                record["in_flight"] is None
                and self.content() == self.expected.content
                and verdict(head) == "healthy"
                and head["revision"] == max(stored)
                and ready(record) is self.expected.is_ready
            )

        until(f"{self.phase.operation} comes to its end", is_over, seconds=_PATIENCE)

    def as_a_kubelet_would(self) -> None:
        """Start the parts of the control plane again that have ended.

        kube-scheduler ends where a pod is made anew under its old name while the scheduler is cut
        off: seen with 1.37.2, and told in kubernetes' pull request 141255.
        """
        devcluster.start(self.cluster.directory)

    # What is there, looked at past helmops and past the proxy

    def stored(self) -> dict[int, Stored]:
        """Helm's revisions by number."""
        found = self.helmops.get("secrets?labelSelector=owner%3Dhelm%2Cname%3Dapp")["items"]
        decoded = {}
        for each in found:
            packed = base64.b64decode(base64.b64decode(each["data"]["release"]))
            release = json.loads(gzip.decompress(packed))
            content = json.dumps([release.get("config"), release["manifest"]], sort_keys=True)
            decoded[int(release["version"])] = Stored(release["info"]["status"], content)
        return dict(sorted(decoded.items()))

    def record(self) -> dict[str, Any] | None:
        """What helmops remembers, None where it remembers nothing."""
        secret = self.helmops.get("secrets/helmops.app")
        if secret is None:
            return None
        packed = base64.b64decode(secret["data"]["record"])
        decoded: dict[str, Any] = json.loads(gzip.decompress(packed))
        return decoded

    def content(self) -> dict[str, str] | None:
        """The data of the release's ConfigMap."""
        found = self.helmops.get("configmaps/app")
        return None if found is None else dict(found["data"])

    def processes(self) -> list[str]:
        """The programs of this case that still run."""
        mark = f"={self.helmops.directory}".encode()
        found = []
        for environment in Path("/proc").glob("[0-9]*/environ"):
            try:
                if mark in environment.read_bytes():
                    line = environment.with_name("cmdline").read_bytes().replace(b"\0", b" ")
                    found.append(f"{environment.parent.name}: {line.decode(errors='replace')}")
            except OSError:
                continue
        return [each for each in found if not each.endswith(": ")]


def verdict(snapshot: Mapping[str, Any]) -> str:
    """The verdict of a snapshot as a record Secret has it; a record holds proofs only."""
    from msgspec import convert

    from helmops.model.records import Snapshot, Verdict

    if not snapshot:
        return Verdict.UNKNOWN.value
    return convert(snapshot, Snapshot, strict=False).verdict.value


def ready(record: Mapping[str, Any]) -> bool:
    """Whether Ready is True for what is declared now."""
    conditions = {each["type"]: each["status"] for each in record["conditions"]}
    return bool(
        conditions.get("Ready") == "True" and record["observed_generation"] == record["generation"]
    )


@contextmanager
def bench(
    directory: Path,
    cluster: Cluster,
    helm: Path,
    charts: Mapping[str, Any],
    phase: Phase,
    expected: Expected,
) -> Iterator[Bench]:
    """A bench for one case; its namespace is deleted at the end, which is not waited for."""
    namespace = f"chaos-{secrets.token_hex(4)}"
    cluster.request("POST", "/api/v1/namespaces", {"metadata": {"name": namespace}})
    directory.mkdir(parents=True)
    program = directory / "helm"
    program.write_text(_PROGRAM.format(folder=directory, helm=helm))
    program.chmod(0o755)
    with TcpProxy(int(cluster.server.rpartition(":")[2])) as proxy:
        config = json.loads(cluster.kubeconfig.read_text())
        config["clusters"][0]["cluster"]["server"] = f"https://127.0.0.1:{proxy.port}"
        kubeconfig = directory / "kubeconfig"
        kubeconfig.write_text(json.dumps(config))
        helmops = Helmops(directory, cluster, namespace, program, kubeconfig)
        yield Bench(cluster, helmops, charts, phase, proxy, expected)
    cluster.request("DELETE", f"/api/v1/namespaces/{namespace}")
