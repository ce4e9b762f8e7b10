"""Every command that the documentation shows is run, in order, and what it shows is what comes.

A block of commands (```sh, or ```console with what they print) says in a comment above it how:

    <!-- run -->                        each command ends with 0
    <!-- run, exit 2 -->                each command ends with 2
    <!-- run in background: TEXT -->    it goes on; the next block comes when TEXT was printed
    <!-- not run: why -->               and why not
    <!-- file: PATH -->                 above any other block: the file that it is

Numbers in the output may be others, and `…` stands for anything. Each document is a session of its
own, in a folder that looks like a checkout, on a cluster that only these tests have.
"""

from __future__ import annotations

import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

from devcluster import cluster as devcluster
from devcluster.cluster import Cluster
from helmops.model.declaration_set import SourceFile, read_declarations

ROOT = Path(__file__).resolve().parent.parent.parent
DOCUMENTS = [
    path.relative_to(ROOT).as_posix()
    for path in (
        ROOT / "README.md",
        ROOT / "CONTRIBUTING.md",
        *sorted((ROOT / "docs").glob("*.md")),
    )
]
_SECONDS = 120
_BLOCK = re.compile(
    r"^(?:<!-- (?P<how>.*?) -->\n)?```(?P<kind>\w*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL
)
#: Ports that the documents name; each session gets others.
_PORTS = ("8880", "8890", "9640")


@dataclass(frozen=True)
class Block:
    """One fenced block, and the comment above it."""

    how: str
    kind: str
    text: str
    line: int

    @property
    def is_commands(self) -> bool:
        return self.kind in ("sh", "console")


def blocks_of(document: str) -> list[Block]:
    text = (ROOT / document).read_text()
    return [
        Block(
            found["how"] or "", found["kind"], found["text"], text[: found.start()].count("\n") + 1
        )
        for found in _BLOCK.finditer(text)
    ]


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_block_says_how_it_is_tested(document: str) -> None:
    for block in blocks_of(document):
        known = (
            r"run(, exit \d)?|run in background: .+|not run: .{20,}"
            if block.is_commands
            else (r"(file: \S+)?")
        )
        assert re.fullmatch(known, block.how), f"{document}:{block.line}: {block.how!r}"


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_declaration_that_is_shown_is_one(document: str) -> None:
    for block in blocks_of(document):
        if block.kind == "yaml" and "apiVersion:" in block.text and "broken" not in block.how:
            file = SourceFile(f"{document}:{block.line}", block.text)
            assert read_declarations([file]).errors == ()


def _is_session(document: str) -> bool:
    return any(block.is_commands and block.how.startswith("run") for block in blocks_of(document))


@pytest.fixture(scope="module")
def own_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    own = devcluster.start(tmp_path_factory.mktemp("documents") / "cluster")
    yield own
    devcluster.remove(own)


@pytest.mark.parametrize("document", [each for each in DOCUMENTS if _is_session(each)])
def test_what_the_document_shows_is_what_happens(
    document: str, tmp_path: Path, own_cluster: Cluster, helm4: Path, helm3: Path, kubectl: Path
) -> None:
    session = _Session(tmp_path, own_cluster, {"helm": helm4, "helm3": helm3, "kubectl": kubectl})
    try:
        for block in blocks_of(document):
            session.take(block, f"{document}:{block.line}")
    finally:
        session.end()


class _Session:
    """A shell in a folder that looks like a checkout; what one block exports, the next one has."""

    def __init__(self, folder: Path, cluster: Cluster, programs: dict[str, Path]) -> None:
        self._folder = folder / "checkout"
        self._folder.mkdir()
        for name in ("config", "fixtures", "devcluster", "tests", "Makefile", ".venv"):
            (self._folder / name).symlink_to(ROOT / name)
        tools = folder / "bin"
        tools.mkdir()
        for name, program in programs.items():
            (tools / name).symlink_to(program)
        self._kept = folder / "environment"
        self._ports = {port: _free_port() for port in _PORTS}
        self._environment = {
            **{k: v for k, v in os.environ.items() if not k.startswith("HELMOPS_")},
            "PATH": f"{Path(sys.executable).parent}:{tools}:{os.environ['PATH']}",
            "KUBECONFIG": str(cluster.kubeconfig),
            "XDG_STATE_HOME": str(folder / "state"),
            "HELMOPS_CACHE_DIR": str(folder / "cache"),
            "HELMOPS_LISTEN": f"127.0.0.1:{self._ports['9640']}",
        }
        self._background: list[subprocess.Popen[str]] = []

    def take(self, block: Block, where: str) -> None:
        text = self._with_ports(block.text)
        if block.how.startswith("file: "):
            path = self._folder / block.how.removeprefix("file: ")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        elif block.how.startswith("run in background: "):
            self._start(text, block.how.removeprefix("run in background: "), where)
        elif block.is_commands and block.how.startswith("run"):
            status = int(block.how.rpartition(" ")[2]) if "exit" in block.how else 0
            commands = [(text, "")] if block.kind == "sh" else list(_commands(text))
            for command, shown in commands:
                self._run(command, self._with_ports(shown), status, where)

    def end(self) -> None:
        for process in self._background:
            os.killpg(process.pid, signal.SIGTERM)
            process.wait(30)
            assert process.stdout is not None
            process.stdout.close()

    def _run(self, command: str, shown: str, status: int, where: str) -> None:
        answer = subprocess.run(
            ["bash", "-c", self._script(command)],
            cwd=self._folder,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=_SECONDS,
            check=False,
        )
        assert answer.returncode == status, f"{where}: {command}\n{answer.stdout}"
        _assert_shown(shown, answer.stdout, f"{where}: {command}")

    def _start(self, command: str, until: str, where: str) -> None:
        process = subprocess.Popen(
            ["bash", "-c", self._script(f"exec {command}")],
            cwd=self._folder,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self._background.append(process)
        printed: list[str] = []
        stream = process.stdout
        assert stream is not None
        threading.Thread(target=lambda: printed.extend(stream), daemon=True).start()
        deadline = time.monotonic() + _SECONDS
        while not any(until in line for line in list(printed)):
            assert process.poll() is None, f"{where} ended:\n{''.join(printed)}"
            assert time.monotonic() < deadline, f"{where}: no {until!r} in\n{''.join(printed)}"
            time.sleep(0.05)

    def _script(self, command: str) -> str:
        kept = shlex.quote(str(self._kept))
        return f"set -euo pipefail\n[ ! -e {kept} ] || . {kept}\n{command}\nexport -p > {kept}\n"

    def _with_ports(self, text: str) -> str:
        for documented, port in self._ports.items():
            text = text.replace(documented, str(port))
        return text


def _commands(text: str) -> Iterator[tuple[str, str]]:
    """Each `$ command` (which goes on where a line ends with a backslash) and what it prints."""
    for part in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
        command, _, shown = re.sub(r"\\\n", "", part).partition("\n")
        yield command, shown


def _assert_shown(shown: str, printed: str, where: str) -> None:
    """Every line that is shown was printed, in this order."""
    lines = iter([_plain(line) for line in printed.splitlines()])
    for line in shown.splitlines():
        pattern = _plain(line).replace("[", "[[]").replace("…", "*").replace("?", "[?]")
        assert any(fnmatchcase(each, pattern) for each in lines), (
            f"{where}\nshows {line!r}, and printed was\n{printed}"
        )


def _plain(line: str) -> str:
    """Without what is another one each time: numbers, and the widths of columns."""
    return re.sub(r"\s+", " ", re.sub(r"\d+", "0", line)).strip()


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])
