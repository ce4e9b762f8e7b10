"""Releases on the local cluster (KWOK nodes), in the running service, beside plain helm.

`python -m benchmarks.releases` prints the rows; the cluster is started where it does not run.
"""

from __future__ import annotations

import base64
import contextlib
import gzip
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.table import Row, render
from devcluster import cluster as local
from devcluster import paths, tools
from devcluster.chart_server import ChartRepository
from helmops.model.records import (
    Condition,
    ConditionStatus,
    Origin,
    Proof,
    Record,
    Snapshot,
)
from helmops.model.releases import DeclarationKey, HelmStatus, ReleaseId
from helmops.store.peek import published

CHARTS = Path(__file__).resolve().parent.parent / "fixtures" / "charts"
HELMOPS = [sys.executable, "-m", "helmops"]
MANY = 100
RECORDS = 1000
#: Releases acted on at once, by helmops and by xargs alike.
AT_ONCE = 8


def say(text: str) -> None:
    print(text, file=sys.stderr)


class Bench:
    """A cluster, a chart repository, and a helmops that runs against a directory."""

    def __init__(self, scratch: Path) -> None:
        self.scratch = scratch
        self.cluster = local.start(paths.state("bench"), say)
        self.helm = str(tools.find_all(say)["helm"])
        self.repository = ChartRepository(CHARTS)
        for version in ("1.0.0", "1.1.0"):
            self.repository.publish("web", version)
            self.repository.publish("config", version)
        self.declarations = scratch / "declarations"
        self.declarations.mkdir()
        self.state = scratch / "state.db"
        self.environment = {
            # An interpreter that keeps nothing compiled is nobody's installation.
            **{k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"},
            "KUBECONFIG": str(self.cluster.kubeconfig),
            "HELMOPS_HELM": self.helm,
            "HELMOPS_STATE": f"sqlite:///{self.state}",
            "HELMOPS_CACHE_DIR": str(scratch / "cache"),
            "HELMOPS_CONCURRENCY": str(AT_ONCE),
        }
        self.stamp = f"{time.time_ns():x}"[-8:]

    def namespace(self, name: str) -> str:
        whole = f"bench-{name}-{self.stamp}"
        body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": whole}}
        self.cluster.request("POST", "/api/v1/namespaces", body)
        return whole

    def archive(self, chart: str) -> str:
        path = self.scratch / f"{chart}.tgz"
        path.write_bytes(self.repository.publish(chart, "1.0.0").data)
        return str(path)

    def write(self, name: str, text: str) -> None:
        """As editors and Git do: beside, then moved into place."""
        beside = self.declarations / f".{name}"
        beside.write_text(text)
        beside.rename(self.declarations / name)

    def source(self, namespace: str) -> str:
        return (
            "apiVersion: source.toolkit.fluxcd.io/v1\nkind: HelmRepository\n"
            f"metadata: {{name: charts, namespace: {namespace}}}\n"
            f"spec: {{url: {self.repository.url}, interval: 1h}}\n"
        )

    def release(self, namespace: str, name: str, chart: str, version: str, extra: str = "") -> str:
        return (
            "---\napiVersion: helm.toolkit.fluxcd.io/v2\nkind: HelmRelease\n"
            f"metadata: {{name: {name}, namespace: {namespace}}}\n"
            "spec:\n  interval: 1h\n  timeout: 1m\n"
            f"  chart: {{spec: {{chart: {chart}, version: {version}, "
            "sourceRef: {kind: HelmRepository, name: charts}}}\n" + extra
        )

    def run(self, *command: str) -> float:
        """Seconds of a command."""
        started = time.monotonic()
        subprocess.run(
            command, env=self.environment, check=True, capture_output=True, stdin=subprocess.DEVNULL
        )
        return time.monotonic() - started

    def until(
        self, is_so: Callable[[dict[DeclarationKey, dict[str, Any]]], bool], every: float = 0.01
    ) -> None:
        """Wait for what the service publishes, looking every so many seconds."""
        end = time.monotonic() + 300
        while time.monotonic() < end:
            found = {key: status for key, status, _ in published(self.state)}
            if is_so(found):
                return
            time.sleep(every)
        raise TimeoutError("the service did not get there")

    @contextlib.contextmanager
    def service(self) -> Iterator[subprocess.Popen[bytes]]:
        log = self.scratch / "run.log"
        with log.open("wb") as file:
            process = subprocess.Popen(
                [*HELMOPS, "run", "-f", str(self.declarations), "--listen", "127.0.0.1:0"],
                env=self.environment,
                stdout=file,
                stderr=file,
            )
        try:
            while b"http://" not in log.read_bytes():
                time.sleep(0.05)
            time.sleep(1)
            yield process
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(60)

    def page(self) -> str:
        found = re.search(rb"http://\S+", (self.scratch / "run.log").read_bytes())
        assert found is not None
        return found.group().decode()


def is_ready(status: dict[str, Any], revision: int = 0) -> bool:
    conditions = {c["type"]: c["status"] for c in status.get("conditions", [])}
    newest = (status.get("history") or [{"version": 0}])[0]["version"]
    return conditions.get("Ready") == "True" and newest >= revision


def one_chart_with_tests(bench: Bench) -> Row:
    plain, ours = bench.namespace("plain"), bench.namespace("ours")
    archive = bench.archive("web")
    peer = bench.run(bench.helm, "install", "web", archive, "-n", plain, "--wait")
    peer += bench.run(bench.helm, "test", "web", "-n", plain)
    key = DeclarationKey(ours, "web")
    with bench.service():
        bench.write("source.yaml", bench.source(ours))
        time.sleep(1)
        started = time.monotonic()
        bench.write(
            "web.yaml",
            bench.release(ours, "web", "web", "1.0.0", "  test: {enable: true}\n").removeprefix(
                "---\n"
            ),
        )
        bench.until(lambda found: is_ready(found.get(key, {})))
        took = time.monotonic() - started
    return Row(
        "one Deployment and three tests: file to verified",
        took,
        "s",
        peer,
        "helm install --wait && helm test",
        "<= 1.3 times",
    )


def failing_test_until_rolled_back(bench: Bench) -> Row:
    ours = bench.namespace("back")
    key = DeclarationKey(ours, "web")
    tested = "  test: {enable: true}\n"
    with bench.service():
        bench.write(
            "web.yaml", bench.source(ours) + bench.release(ours, "web", "web", "1.0.0", tested)
        )
        bench.until(lambda found: is_ready(found.get(key, {})))
        started = time.monotonic()
        bench.write(
            "web.yaml",
            bench.source(ours)
            + bench.release(
                ours, "web", "web", "1.1.0", tested + "  values: {tests: {fail: true}}\n"
            ),
        )

        def is_back(found: dict[DeclarationKey, dict[str, Any]]) -> bool:
            newest = (found.get(key, {}).get("history") or [{}])[0]
            return bool(newest.get("version") == 3 and newest["helmops"]["verdict"] == "healthy")

        bench.until(is_back)
        took = time.monotonic() - started
    return Row("upgrade whose test fails, until rolled back and checked", took, "s", goal="<= 4 s")


def a_hundred(bench: Bench) -> Iterator[Row]:
    plain, ours = bench.namespace("plain100"), bench.namespace("ours100")
    archive = bench.archive("config")
    peer = bench.run(
        "sh",
        "-c",
        f"seq {MANY} | xargs -P {AT_ONCE} -I@ {bench.helm} install c@ {archive} -n {plain} --wait",
    )
    text = bench.source(ours) + "".join(
        bench.release(ours, f"c{n}", "config", "1.0.0") for n in range(MANY)
    )
    for old in bench.declarations.iterdir():
        old.unlink()
    with bench.service() as process:
        started = time.monotonic()
        bench.write("all.yaml", text)
        bench.until(
            lambda found: (
                sum(is_ready(status) for key, status in found.items() if key.namespace == ours)
                == MANY
            )
        )
        took = time.monotonic() - started
        yield Row(
            f"{MANY} releases of one ConfigMap, from nothing to ready",
            took,
            "s",
            peer,
            f"xargs -P {AT_ONCE} helm install --wait",
            "<= 1.15 times",
        )
        yield from settled(bench, process, text)


def settled(bench: Bench, process: subprocess.Popen[bytes], text: str) -> Iterator[Row]:
    """Passes over releases with nothing to do, forced by a short interval."""
    bench.write("all.yaml", text.replace("  interval: 1h\n  timeout", "  interval: 2s\n  timeout"))
    time.sleep(6)
    helm_before, passes, cpu = _helm_runs(bench), _passes(bench), _cpu(process.pid)
    time.sleep(20)
    passes, cpu = _passes(bench) - passes, _cpu(process.pid) - cpu
    yield Row(
        "a pass with nothing to do, CPU of the whole service",
        1000 * cpu / max(passes, 1),
        "ms",
        goal="< 2 ms, no helm",
    )
    yield Row("helm processes in these passes", _helm_runs(bench) - helm_before, "", goal="0")
    bench.write("all.yaml", text)
    time.sleep(4)
    cpu = _cpu(process.pid)
    time.sleep(20)
    yield Row(
        f"{MANY} settled releases, CPU of the service in a minute",
        1000 * (_cpu(process.pid) - cpu) * 3,
        "ms",
    )


def commands(bench: Bench) -> Iterator[Row]:
    yield Row(
        "helmops version",
        1000 * _best(lambda: bench.run(*HELMOPS, "version")),
        "ms",
        1000 * _best(lambda: bench.run(bench.helm, "version")),
        "helm version",
        "< 150 ms",
    )
    namespace = bench.namespace("records")
    for number in range(RECORDS):
        _create_record(bench, namespace, f"r{number}")
    bench.state.unlink(missing_ok=True)
    yield Row(
        f"helmops get releases, {RECORDS} records",
        _best(lambda: bench.run(*HELMOPS, "get", "releases", "-n", namespace)),
        "s",
        goal="< 0.8 s",
    )


def _best(run: Callable[[], float], times: int = 5) -> float:
    return min(run() for _ in range(times))


def _metric(bench: Bench, pattern: str) -> float:
    with urllib.request.urlopen(f"{bench.page()}/metrics", timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if re.match(pattern, line))


def _passes(bench: Bench) -> float:
    return _metric(bench, r"helmops_passes_total\{")


def _helm_runs(bench: Bench) -> float:
    return _metric(bench, r"helmops_actions_total\{")


def _cpu(pid: int) -> float:
    """Seconds of CPU of a process and the children that it waited for."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return sum(int(fields[i]) for i in (11, 12, 13, 14)) / os.sysconf("SC_CLK_TCK")


def _create_record(bench: Bench, namespace: str, name: str) -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    snapshot = Snapshot(
        1, "a" * 64, Origin.INSTALL, HelmStatus.DEPLOYED, "config", "1.0.0", "1.0.0", "b" * 64,
        now, now, released=Proof.PASSED, health=Proof.PASSED, tests=Proof.SKIPPED,
    )  # fmt: skip
    record = Record(
        DeclarationKey(namespace, name),
        ReleaseId(namespace, name),
        manifest={"spec": {"interval": "1h", "values": {"message": "hello"}}},
        history=(snapshot,),
        conditions=(
            Condition("Ready", ConditionStatus.TRUE, "InstallSucceeded", "installed", now),
        ),
        state="InSync",
    )
    body = {
        "apiVersion": "v1",
        "kind": "Secret",
        "type": "helmops.dev/record",
        "metadata": {"name": f"helmops.{name}", "labels": {"owner": "helmops", "name": name}},
        "data": {"record": base64.b64encode(gzip.compress(record.to_json(), 1)).decode()},
    }
    bench.cluster.request("POST", f"/api/v1/namespaces/{namespace}/secrets", body)


def rows() -> Iterator[Row]:
    with tempfile.TemporaryDirectory(prefix="helmops-bench-") as scratch:
        bench = Bench(Path(scratch))
        try:
            yield one_chart_with_tests(bench)
            yield failing_test_until_rolled_back(bench)
            yield from a_hundred(bench)
            yield from commands(bench)
        finally:
            bench.repository.close()
            local.remove(bench.cluster)


if __name__ == "__main__":
    print(render(rows()))
