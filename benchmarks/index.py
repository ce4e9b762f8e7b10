"""One chart out of a 20 MB index of 18,000 versions: CPU and memory, beside helm.

`python -m benchmarks.index`, with helm on PATH or in HELMOPS_HELM. Each measurement is a process of
its own; helm reads the same file from a server on loopback.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from benchmarks.table import Row, render

CHARTS = 300
VERSIONS = 60
WANTED = f"chart-{CHARTS - 1:03}"

_ENTRY = """\
  - annotations:
      artifacthub.io/changes: |
        - Change number {v} of the chart with a rather long line to make it big
        - Another change of this, to make up the size of a real index, number {v}
      category: Infrastructure
      licenses: Apache-2.0
    apiVersion: v2
    appVersion: {v}.0.{c}
    created: "2026-03-19T21:16:17.141043059Z"
    dependencies:
    - name: common
      repository: oci://registry.example/charts
      tags:
      - common-libs
      version: 2.x.x
    description: A chart that is described by a sentence as long as that of others usually
      is, so that it wraps
    digest: {digest}
    home: https://charts.example
    icon: https://charts.example/assets/stacks/{name}/img/{name}-stack-220x234.png
    keywords:
    - one
    - two
    - three
    maintainers:
    - name: Somebody Inc. All Rights Reserved.
      url: https://git.example/charts
    name: {name}
    sources:
    - https://git.example/charts/tree/main/{name}
    urls:
    - https://charts.example/{name}-{version}.tgz
    version: {version}
"""

_NOTHING = "from helmops.sources.index import Index"
_NEW = """
from helmops.sources.index import Index
index = Index(Path(FILE), FILE)
index.check()
assert len(index.versions(WANTED)) == VERSIONS
"""
_KNOWN = """
import time
from helmops.sources.index import Index
index = Index(Path(FILE), FILE)
index.check()
began = time.process_time()
assert len(index.versions(WANTED)) == VERSIONS
print((time.process_time() - began) * 1000)
"""


def write_index(path: Path) -> None:
    """As Helm writes it."""
    with path.open("w") as file:
        file.write("apiVersion: v1\nentries:\n")
        for c in range(CHARTS):
            name = f"chart-{c:03}"
            file.write(f"  {name}:\n")
            for v in range(VERSIONS):
                version = f"{VERSIONS - v}.0.0"
                digest = hashlib.sha256(f"{name} {version}".encode()).hexdigest()
                file.write(_ENTRY.format(c=c, v=v, name=name, version=version, digest=digest))
        file.write('generated: "2026-03-19T21:16:17.141505525Z"\n')


@dataclass(frozen=True)
class Cost:
    """Time and CPU in milliseconds and the peak of memory in MiB, of one process; what it
    printed.
    """

    wall: float
    cpu: float
    memory: float
    printed: str


#: Runs a command from a small process: a child's peak of memory begins with its parent's.
_LAUNCHER = """
import json, resource, subprocess, sys, time
began = time.perf_counter()
status = subprocess.call(sys.argv[1:], stdout=2)
used = resource.getrusage(resource.RUSAGE_CHILDREN)
wall = time.perf_counter() - began
print(json.dumps([status, wall, used.ru_utime + used.ru_stime, used.ru_maxrss]))
"""


def measure(command: list[str], environment: dict[str, str], directory: Path) -> Cost:
    """Run a command to its end."""
    ended = subprocess.run(
        [sys.executable, "-I", "-S", "-c", _LAUNCHER, *command],
        env=environment,
        cwd=directory,
        capture_output=True,
        text=True,
        check=True,
    )
    status, wall, cpu, memory = json.loads(ended.stdout)
    if status:
        raise RuntimeError(ended.stderr)
    return Cost(wall * 1000, cpu * 1000, memory / 1024, ended.stderr)


@contextlib.contextmanager
def served(directory: Path) -> Iterator[str]:
    """The URL of a directory on loopback."""
    handler = partial(_Quiet, directory=str(directory))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *args: object) -> None:
        pass


def rows() -> Iterator[Row]:
    """Three figures; without helm, without its side."""
    helm = os.environ.get("HELMOPS_HELM") or shutil.which("helm")
    added = searched = None
    with tempfile.TemporaryDirectory() as scratch:
        directory = Path(scratch)
        file = directory / "index.yaml"
        write_index(file)
        environment = {**os.environ, "HOME": scratch, "no_proxy": "127.0.0.1"}
        if helm is not None:
            with served(directory) as url:
                added = measure([helm, "repo", "add", "b", url], environment, directory)
            search = [helm, "search", "repo", f"b/{WANTED}", "--versions", "-o", "json"]
            searched = measure(search, environment, directory)

        def python(code: str) -> Cost:
            head = f"from pathlib import Path\nFILE = {str(file)!r}\n"
            head += f"WANTED, VERSIONS = {WANTED!r}, {VERSIONS}\n"
            return measure([sys.executable, "-c", head + code], environment, directory)

        size = f"{file.stat().st_size / 1e6:.0f} MB index"
        bare, new, known = python(_NOTHING), python(_NEW), python(_KNOWN)
    yield Row(
        f"a new {size} checked, one chart of it read: CPU",
        new.cpu - bare.cpu,
        "ms",
        added.cpu if added else None,
        "helm repo add",
    )
    yield Row(
        f"one chart of a known {size}: CPU",
        float(known.printed),
        "ms",
        searched.cpu if searched else None,
        "helm search repo",
    )
    yield Row(
        "the same: peak of memory, the interpreter and the mapped file included",
        new.memory,
        "MiB",
        added.memory if added else None,
        "helm repo add",
    )


if __name__ == "__main__":
    print(render(rows()))
