"""The newest version in a range among 10,000 tags of a registry, beside helm.

`python -m benchmarks.oci`, with helm on PATH or in HELMOPS_HELM. The registry is a process of its
own on loopback and gives a thousand tags a page. helmops is measured as a command from its start to
its end, and as the service does it, which then polls a list that did not change. What others do on
the machine meanwhile makes the seconds longer, the CPU hardly.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.index import Cost, measure
from benchmarks.table import Row, render
from devcluster import charts
from devcluster.oci_server import OciServer
from helmops.http import Http
from helmops.model.credentials import HttpCredentials
from helmops.model.declarations import OCIRepositorySpec
from helmops.resolve.selection import choose
from helmops.sources.oci_artifacts import OciArtifacts

TAGS = 10_000
NEWEST = "49.199.0"
CHART = Path(__file__).resolve().parent.parent / "fixtures" / "charts" / "config"


@contextlib.contextmanager
def registry() -> Iterator[str]:
    """The host of a registry with 10,000 versions of one chart."""
    command = [sys.executable, "-m", "benchmarks.oci", "serve"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.terminate()


def serve() -> None:
    """Be that registry until somebody ends it."""
    with OciServer(page=1000) as server:
        package = charts.package(CHART, version=NEWEST)
        digest = server.push("charts/config", NEWEST, package.data)
        tags = server.repository("charts/config").tags
        tags.clear()
        tags.update((f"{n // 200}.{n % 200}.0", digest) for n in range(TAGS))
        print(server.host, flush=True)
        while True:
            time.sleep(60)


def rows() -> Iterator[Row]:
    """One measurement each."""
    helm = os.environ.get("HELMOPS_HELM") or shutil.which("helm")
    with registry() as host, tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        peer = _helm(helm, host, scratch) if helm else None
        ours = _command(host, scratch)
        what = f"newest in range of {TAGS:,} tags in a registry"
        yield Row(
            f"{what}, as a command",
            ours.wall / 1000,
            "s",
            peer.wall / 1000 if peer else None,
            "helm show chart",
            goal="1 s",
        )
        yield Row(
            "the same: CPU",
            ours.cpu / 1000,
            "s",
            peer.cpu / 1000 if peer else None,
            "helm show chart",
        )
        served = asyncio.run(_service(host, scratch / "service"))
        yield Row(f"{what}, in the service, asked for the first time", served[0], "s", goal="1 s")
        yield Row("the same: CPU", served[1], "s")
        yield Row("a poll of that list without news", served[2] * 1000, "ms")
        yield Row("a poll of one tag that did not move (one HEAD)", served[3] * 1000, "ms")


def _command(host: str, scratch: Path) -> Cost:
    repository = ("--repo", f"oci://{host}/charts", "--plain-http", "--version", ">=1 <50")
    command = [sys.executable, "-m", "helmops", "versions", "config", *repository, "-o", "json"]
    environment = {**os.environ, "HELMOPS_CACHE_DIR": str(scratch / "cold")}
    return _best(command, environment, scratch, f'"selected": "{NEWEST}"')


def _helm(helm: str, host: str, scratch: Path) -> Cost:
    chart = f"oci://{host}/charts/config"
    command = [helm, "show", "chart", chart, "--plain-http", "--version", ">=1 <50"]
    environment = {"HOME": str(scratch), "PATH": os.environ["PATH"]}
    return _best(command, environment, scratch, NEWEST)


def _best(command: list[str], environment: dict[str, str], directory: Path, must_say: str) -> Cost:
    costs = [measure(command, environment, directory) for _ in range(3)]
    if any(must_say not in cost.printed for cost in costs):
        raise AssertionError(f"{command[0]} does not say {must_say}")
    return min(costs, key=lambda cost: cost.wall)


async def _service(host: str, cache: Path) -> tuple[float, float, float, float]:
    """Seconds to resolve and pull, CPU of that, seconds to poll the list, and to poll one tag."""
    nobody = HttpCredentials()

    def spec(**ref: str) -> OCIRepositorySpec:
        url = f"oci://{host}/charts/config"
        given = {"url": url, "interval": "1m", "insecure": True, "ref": ref}
        return OCIRepositorySpec.model_validate(given)

    ranged, tagged = spec(semver=">=1 <50"), spec(tag=NEWEST)
    async with Http() as http:
        artifacts = OciArtifacts(http, cache)
        started, cpu = time.perf_counter(), time.process_time()
        chosen = choose(await artifacts.versions(ranged, nobody), ranged.ref.semver).selected
        artifact = await artifacts.pull(ranged, chosen, nobody)
        resolved, cpu = time.perf_counter() - started, time.process_time() - cpu
        if artifact.version != NEWEST:
            raise AssertionError(f"{artifact.version} is not the newest")
        await artifacts.versions(tagged, nobody)
        polls = []
        for each in (ranged, tagged):
            best = 60.0
            for _ in range(5):
                started = time.perf_counter()
                if await artifacts.refresh(each, nobody):
                    raise AssertionError("nothing changed")
                best = min(best, time.perf_counter() - started)
            polls.append(best)
    return resolved, cpu, polls[0], polls[1]


if __name__ == "__main__":
    if sys.argv[1:] == ["serve"]:
        serve()
    else:
        print(render(rows()))
