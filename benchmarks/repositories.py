"""Helm repositories over HTTP at size: one chart out of a 20 MB index as a command and in a running
service, three out of 100 MB, an index that did not change, and a thousand repositories polled.

`python -m benchmarks.repositories`, with helm on PATH or in HELMOPS_HELM. Servers and measurements
are processes of their own, on loopback. Where the recorded indexes are at hand (a folder
`shared/data/indexes` beside the checkout) the 20 MB are those, five times under other names.
"""

from __future__ import annotations

import contextlib
import gzip
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from benchmarks import index
from benchmarks.table import Row, render

RECORDED = Path(__file__).parents[2] / "shared" / "data" / "indexes" / "grafana.yaml.gz"
SOURCES = 1000
#: Runs of what is timed by the clock, of which the least disturbed counts.
TIMES = 9

_SERVER = """
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
files = {name: open(f"{sys.argv[1]}/{name}", "rb").read() for name in sys.argv[2:]}
class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        name = self.path.split("/")[-2] + ".yaml" if self.path.endswith("index.yaml") else ""
        body = files.get(name, files[next(iter(files))])
        if self.headers.get("If-None-Match") == '"1"':
            self.send_response(304)
            body = b""
        else:
            self.send_response(200)
        self.send_header("ETag", '"1"')
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *args):
        pass
server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
print(server.server_address[1], flush=True)
server.serve_forever()
"""

_SERVICE = """
import asyncio, resource, sys, tempfile, time
from pathlib import Path
from helmops.http import Http
from helmops.model.credentials import HttpCredentials
from helmops.model.declarations import HelmRepositorySpec
from helmops.sources.helm_repository import HelmRepositories
URL, CHARTS, ROUNDS = sys.argv[1], sys.argv[2].split(","), int(sys.argv[3])

def resident():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

async def main():
    async with Http() as http:
        repositories = HelmRepositories(http, Path(tempfile.mkdtemp()))
        def spec(number):
            return HelmRepositorySpec(url=f"{URL}/{number}/" if number else URL)
        none, before = HttpCredentials(), resident()
        began = time.perf_counter()
        for chart in CHARTS:
            assert await repositories.versions(spec(0), chart, none)
        first, peak = time.perf_counter() - began, resident()
        cpu = time.process_time()
        assert not await repositories.refresh(spec(0), none)
        unchanged = time.process_time() - cpu
        if ROUNDS:
            every = [spec(number) for number in range(1, ROUNDS + 1)]
            for start in range(0, ROUNDS, 50):
                await asyncio.gather(*(repositories.refresh(s, none) for s in every[start:][:50]))
        cpu = time.process_time()
        for start in range(0, ROUNDS, 50):
            await asyncio.gather(*(repositories.refresh(s, none) for s in every[start:][:50]))
        polled = time.process_time() - cpu
        print(first * 1000, peak - before, peak, unchanged * 1000, polled * 1000)

asyncio.run(main())
"""


def write_five_times(path: Path) -> str:
    """The recorded index five times over, or one of that size that is made up; gives back the name
    of its last chart.
    """
    if not RECORDED.exists():
        index.write_index(path)
        return index.WANTED
    with path.open("wb") as out:
        out.write(b"apiVersion: v1\nentries:\n")
        for copy in range(5):
            with gzip.open(RECORDED) as lines:
                inside = False
                for line in lines:
                    if not line.startswith((b" ", b"\n")):
                        inside = line.startswith(b"entries:")
                    elif inside:
                        named = re.fullmatch(rb"(  )([\w.-]+)(:\n)|(    name: )(\S+)(\n)", line)
                        if named:
                            head, name, tail = filter(None, named.groups())
                            line = head + name + b"-%d" % copy + tail
                        out.write(line)
        out.write(b'generated: "2026-01-01T00:00:00Z"\n')
    return "grafana-4"


def write_large(path: Path, part: Path) -> list[str]:
    """100 MB of the made-up index, each chart once; gives back three of its charts."""
    with path.open("w") as out:
        out.write("apiVersion: v1\nentries:\n")
        for copy in range(5):
            with part.open() as lines:
                for line in lines:
                    if line.startswith(" "):
                        out.write(re.sub(r"chart-(\d)", rf"chart-{copy}\1", line))
    return ["chart-0000", "chart-2150", "chart-4299"]


@contextlib.contextmanager
def served(directory: Path, *names: str) -> Iterator[str]:
    """The URL of a server of its own process."""
    server = subprocess.Popen(
        [sys.executable, "-c", _SERVER, str(directory), *names], stdout=subprocess.PIPE, text=True
    )
    assert server.stdout is not None
    try:
        with server.stdout:
            yield f"http://127.0.0.1:{int(server.stdout.readline())}"
    finally:
        server.terminate()
        server.wait()


def rows() -> Iterator[Row]:
    """Seven figures; without helm, without its side."""
    helm = os.environ.get("HELMOPS_HELM") or shutil.which("helm")
    with tempfile.TemporaryDirectory() as scratch:
        directory = Path(scratch)
        environment = {
            **os.environ,
            "HOME": scratch,
            "XDG_CACHE_HOME": str(directory / "cache"),
            "no_proxy": "127.0.0.1",
        }
        wanted = write_five_times(directory / "twenty.yaml")
        size = f"{(directory / 'twenty.yaml').stat().st_size / 1e6:.0f} MB index"
        bare = index.measure([sys.executable, "-c", "pass"], environment, directory)
        with served(directory, "twenty.yaml") as url:
            helmops = str(Path(sys.executable).with_name("helmops"))
            command = [helmops, "versions", wanted, "--repo", url, "-o", "name"]
            every = []
            for number in range(TIMES):
                cold = environment | {"HELMOPS_CACHE_DIR": str(directory / f"cold-{number}")}
                every.append(index.measure(command, cold, directory))
            ours = min(every, key=lambda cost: cost.wall)
            peer_wall, peer_memory = None, None
            if helm is not None:
                added = index.measure([helm, "repo", "add", "b", url], environment, directory)
                search = [helm, "search", "repo", f"b/{wanted}", "--versions", "-o", "json"]
                searched = index.measure(search, environment, directory)
                peer_wall = added.wall + searched.wall
                peer_memory = max(added.memory, searched.memory) - bare.memory
            services = [_service(url, [wanted], 0, environment, directory) for _ in range(TIMES)]
            running = min(services)
        yield Row(
            f"`helmops versions`, one chart of a {size}, nothing cached",
            ours.wall,
            "ms",
            peer_wall,
            "helm repo add, search",
            "at most 400 ms",
        )
        yield Row(
            "the same: CPU",
            ours.cpu,
            "ms",
            added.cpu + searched.cpu if helm is not None else None,
            "helm repo add, search",
        )
        yield Row(
            "the same: memory above an empty Python",
            ours.memory - bare.memory,
            "MiB",
            peer_memory,
            "helm, above the same",
            "at most 40 MiB",
        )
        yield Row("the same in a running service", running[0], "ms", goal="at most 150 ms")
        yield Row("the same, unchanged: CPU of one poll", running[3], "ms", goal="no parse")
        index.write_index(directory / "part.yaml")
        charts = write_large(directory / "hundred.yaml", directory / "part.yaml")
        with served(directory, "hundred.yaml") as url:
            large = _service(url, charts, 0, environment, directory)
        yield Row(
            "three charts of a 100 MB index: memory of the process, all imported",
            large[2],
            "MiB",
            goal="at most 150 MiB",
        )
        (directory / "small.yaml").write_text(
            "apiVersion: v1\nentries:\n  a:\n  - name: a\n    version: 1.0.0\n"
        )
        with served(directory, "small.yaml") as url:
            many = _service(url, ["a"], SOURCES, environment, directory)
        yield Row(
            f"{SOURCES} repositories polled each minute: share of a core",
            many[4] / 60_000 * 100,
            "%",
            goal="under 5 %",
        )


def _service(
    url: str, charts: list[str], sources: int, environment: dict[str, str], directory: Path
) -> list[float]:
    command = [sys.executable, "-c", _SERVICE, url, ",".join(charts), str(sources)]
    return [
        float(figure) for figure in index.measure(command, environment, directory).printed.split()
    ]


if __name__ == "__main__":
    print(render(rows()))
