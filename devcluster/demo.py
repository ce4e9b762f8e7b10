"""The demo: helmops at its main job, from nothing to a rollback, in lines that a person can read.

A chart repository and a Git repository on loopback, the real service as a process of its own
following the Git repository, and a commit with a version that does not stay healthy. The demo knows
helmops as any script does: it reads the service's log and `helmops get releases -o json --watch`.

Where no context is named, it has a local cluster of its own and touches no other. In a cluster that
is named it keeps to a namespace of its own.
"""

import contextlib
import fcntl
import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import yaml

from devcluster import binaries, cluster, paths, tools
from devcluster.chart_server import ChartRepository
from devcluster.errors import DevclusterError
from devcluster.git_server import GitHttpServer, GitRepository

_ROOT = paths.PACKAGE.parent
_CHARTS = _ROOT / "fixtures" / "charts"
_DECLARATIONS = _ROOT / "config" / "demo"
#: Stands for the chart repository's address in config/demo.
_PLACEHOLDER = "http://charts.example.test"

_CLUSTER = "demo"
_RELEASES = ("settings", "catalog", "shop")
#: Put on the namespace in a named cluster: one without it is somebody else's.
_LABEL = "app.kubernetes.io/created-by=helmops-demo"

#: Seconds that the three releases, and the broken version's way there and back, may take. They need
#: some ten each on two cores; the broken upgrade may wait for its 20 s timeout on a slower machine.
_HEALTHY_SECONDS = 90.0
_BACK_SECONDS = 120.0
_STOP_SECONDS = 20.0


@dataclass(frozen=True)
class Place:
    """Which cluster the demo works in, and where in it."""

    namespace: str
    #: Its folder of config/demo.
    declarations: Path
    #: What tells kubectl and helmops which cluster it is.
    environment: Mapping[str, str]


def run(*, context: str = "", keep: bool = False, wait: bool = True) -> int:
    """The whole demo; its exit status: 0, or 1 where something did not happen in time.

    `context` names a cluster in the kubeconfig. With `keep` the cluster (or the namespace in a
    named one) stays as it is. With `wait`, and on a terminal, it goes on until Enter or Ctrl-C.
    Raises DevclusterError where something is missing, KeyboardInterrupt.
    """
    teller = Teller(sys.stdout)
    waits = wait and sys.stdin.isatty() and sys.stdout.isatty()
    with _ended_by_signals(), _only_one(), contextlib.ExitStack() as stack:
        work = Path(tempfile.mkdtemp(prefix="helmops-demo-"))
        clear = stack.enter_context(contextlib.ExitStack())
        if not keep:
            clear.callback(shutil.rmtree, work, ignore_errors=True)
        where = _named_cluster(context, teller, keep) if context else _own_cluster(teller, keep)
        place = stack.enter_context(where)
        stack.callback(_go_through)
        try:
            demo = _Demo(place, work, teller, stack)
            demo.play()
            demo.look_around(waits=waits, keep=keep)
        except _TookTooLong as error:
            clear.pop_all()
            teller.line(str(error), "demo", colour=_RED)
            teller.line(f"the service's log is left in {work / 'helmops.log'}", "demo")
            return 1
    return 0


class _TookTooLong(Exception):
    """Something that the demo waited for did not happen; the text says what, and how it is."""


_BOLD, _DIM, _RED, _GREEN, _YELLOW = "1", "2", "31", "32", "33"


class Teller:
    """Prints what happens: time, who, what. In colour on a terminal (`NO_COLOR` is respected)."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream
        self._lock = threading.Lock()
        self._has_colour = stream.isatty() and not os.environ.get("NO_COLOR")

    def chapter(self, text: str) -> None:
        self.text(f"\n{self._in(_BOLD, text)}")

    def line(self, text: str, who: str, *, at: str = "", colour: str = "") -> None:
        """One happening. `at` is a time as 12:00:01, now where it is not given."""
        moment = at or time.strftime("%H:%M:%S", time.gmtime())
        first, *rest = text.split("\n")
        head = f"{self._in(_DIM, moment)}  {self._in(_BOLD, f'{who:<9}')}  "
        indent = " " * (len(moment) + 13)
        self.text("\n".join([head + self._in(colour, first), *(indent + more for more in rest)]))

    def command(self, text: str) -> None:
        self.text(f"\n{self._in(_BOLD, f'$ {text}')}")

    def text(self, text: str) -> None:
        with self._lock:
            print(text, file=self._stream, flush=True)

    def _in(self, colour: str, text: str) -> str:
        return f"\x1b[{colour}m{text}\x1b[0m" if self._has_colour and colour else text


class _Demo:
    """One run, once there is a cluster. What it starts is stopped by `stack`."""

    def __init__(
        self, place: Place, work: Path, teller: Teller, stack: contextlib.ExitStack
    ) -> None:
        self._place = place
        self._work = work
        self._teller = teller
        self._stack = stack
        self._listen = f"127.0.0.1:{_free_port()}"
        self._shown = {
            "HELMOPS_STATE": f"sqlite:///{work / 'state.db'}",
            **place.environment,
        }
        helm = os.environ.get("HELMOPS_HELM") or _tool("helm", teller)
        self._environment = {
            **_inherited(),
            **self._shown,
            "HELMOPS_HELM": helm,
            "HELMOPS_CACHE_DIR": str(work / "cache"),
        }
        self._releases = _Watched()

    def play(self) -> None:
        """From nothing to the rollback. Raises _TookTooLong."""
        charts = self._serve_charts()
        repository, address = self._serve_git()
        self._teller.chapter("1. Three releases are declared in Git")
        self._push(repository, charts, "declared", "Declare settings, catalog and shop")
        self._start_service(address)
        self._follow_releases()
        self._await("all three releases to be healthy", _all_healthy, _HEALTHY_SECONDS)

        self._teller.chapter("2. A commit brings a version of shop that does not stay healthy")
        self._push(repository, charts, "broken", "Upgrade shop to 1.1")
        self._await(
            "shop 1.1.0 to fail its health check and 1.0.0 to be back, healthy",
            _is_back,
            _BACK_SECONDS,
        )
        self._teller.line(
            "runs the last revision that was seen healthy again", "shop", colour=_GREEN
        )

    def look_around(self, *, waits: bool, keep: bool) -> None:
        """Show how to look at what happened, and where one may go on looking."""
        self._teller.chapter("3. Look around")
        if not shutil.which("helmops"):
            self._teller.text(f"export PATH={shlex.quote(str(Path(sys.executable).parent))}:$PATH")
        for name, value in self._shown.items():
            self._teller.text(f"export {name}={shlex.quote(value)}")
        namespace = self._place.namespace
        self._show("get", "releases", "-A")
        self._show("history", "shop", "-n", namespace)
        self._show("why", "shop", "-n", namespace)
        self._teller.text("")
        if waits:
            self._teller.text(
                f"The releases as a page: http://{self._listen}/\n"
                "Try the commands in another terminal. Enter or Ctrl-C ends the demo."
            )
            with contextlib.suppress(KeyboardInterrupt, EOFError):
                input()
        elif not keep:
            self._teller.text("With --keep, or on a terminal, it stays up to be looked at.")

    # What is served, and the service

    def _serve_charts(self) -> ChartRepository:
        charts = self._stack.enter_context(ChartRepository(_CHARTS))
        charts.publish("web", "1.0.0")
        values = yaml.safe_load((_CHARTS / "web" / "values.yaml").read_text())
        # Its pods get ready, and crash two seconds later: nothing that helm waits for.
        charts.publish("web", "1.1.0", values={**values, "simulate": "crash-later"})
        charts.publish("config", "1.0.0", values={"data": {"open": "yes"}})
        charts.publish("config", "1.1.0", values={"data": {"open": "no"}})
        return charts

    def _serve_git(self) -> tuple[GitRepository, str]:
        folder = self._work / "git"
        repository = GitRepository(folder, "demo")
        server = self._stack.enter_context(GitHttpServer(folder))
        return repository, f"git+{server.url(repository)}?ref=main&interval=1s"

    def _push(
        self, repository: GitRepository, charts: ChartRepository, folder: str, message: str
    ) -> None:
        source = self._place.declarations / folder
        files: dict[str, str | bytes | None] = {
            path.name: path.read_text().replace(_PLACEHOLDER, charts.url)
            for path in sorted(source.glob("*.yaml"))
        }
        commit = repository.commit(files, message)
        self._teller.line(f"pushed {commit[:7]} “{message}”: {', '.join(files)}", "git")

    def _start_service(self, address: str) -> None:
        log = self._stack.enter_context((self._work / "helmops.log").open("w"))

        def tell(line: str) -> None:
            log.write(line)
            log.flush()
            self._tell(line)

        arguments = ["run", "-f", address, "-n", self._place.namespace, "--listen", self._listen]
        self._service = self._start([*arguments, "--log-format", "json"], on_stderr=tell)

    def _tell(self, line: str) -> None:
        if told := readable(line, self._place.namespace):
            at, who, what, level = told
            self._teller.line(what, who, at=at, colour=_colour_of(what, level))

    def _follow_releases(self) -> None:
        namespace = self._place.namespace
        arguments = ["get", "releases", "-n", namespace, "-o", "json", "--watch"]
        self._start(arguments, on_stdout=self._releases.take)

    def _start(
        self,
        arguments: Sequence[str],
        *,
        on_stdout: Callable[[str], None] | None = None,
        on_stderr: Callable[[str], None] | None = None,
    ) -> subprocess.Popen[str]:
        """A helmops in a session of its own: Ctrl-C in the terminal is for the demo."""
        process = subprocess.Popen(
            [*_helmops(), *arguments],
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE if on_stdout else subprocess.DEVNULL,
            stderr=subprocess.PIPE if on_stderr else subprocess.DEVNULL,
            text=True,
            start_new_session=True,
        )
        for stream, take in ((process.stdout, on_stdout), (process.stderr, on_stderr)):
            if stream is not None and take is not None:
                reader = threading.Thread(target=_read, args=(stream, take), daemon=True)
                reader.start()
                self._stack.callback(reader.join)
        self._stack.callback(_end, process)
        return process

    # What is waited for

    def _await(
        self, what: str, happened: Callable[[Mapping[str, Any]], bool], seconds: float
    ) -> None:
        deadline = time.monotonic() + seconds
        while not happened(self._releases.current):
            if self._service.poll() is not None:
                raise _TookTooLong(f"the service ended while the demo waited for {what}")
            if time.monotonic() > deadline:
                state = "\n".join(_how_it_is(self._releases.current))
                raise _TookTooLong(f"waited {seconds:.0f} s in vain for {what}:\n{state}")
            time.sleep(0.1)

    def _show(self, *arguments: str) -> None:
        self._teller.command(f"helmops {shlex.join(arguments)}")
        answer = subprocess.run(
            [*_helmops(), *arguments],
            env=self._environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        self._teller.text((answer.stdout + answer.stderr).rstrip())
        if answer.returncode != 0:
            raise DevclusterError(f"helmops {arguments[0]} ended with {answer.returncode}")


class _Watched:
    """The releases as the newest document of `get releases -o json --watch` has them."""

    def __init__(self) -> None:
        self.current: Mapping[str, Any] = {}
        self._begun = ""

    def take(self, line: str) -> None:
        """A line of the output; documents follow each other, each over several lines."""
        self._begun += line
        if line.rstrip() == "}":
            document = json.loads(self._begun)
            self._begun = ""
            self.current = {item["metadata"]["name"]: item for item in document["items"]}


def _all_healthy(releases: Mapping[str, Any]) -> bool:
    return all(_is_healthy(releases.get(name)) for name in _RELEASES)


def _is_healthy(release: Mapping[str, Any] | None) -> bool:
    ready = _ready(release)
    if release is None or ready is None:
        return False
    return bool(ready["status"] == "True" and release["status"]["helmops"]["verdict"] == "healthy")


def _ready(release: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    conditions = ((release or {}).get("status") or {}).get("conditions") or ()
    return next((c for c in conditions if c["type"] == "Ready"), None)


def _is_back(releases: Mapping[str, Any]) -> bool:
    history = releases.get("shop", {}).get("status", {}).get("history") or []
    if len(history) < 2:
        return False
    newest, before = history[0], history[1]
    return bool(
        newest["action"] == "rollback"
        and newest["chartVersion"] == "1.0.0"
        and newest["helmops"]["verdict"] == "healthy"
        and before["chartVersion"] == "1.1.0"
        and before["helmops"]["verdict"] == "failed"
    )


def _how_it_is(releases: Mapping[str, Any]) -> Iterator[str]:
    for name in _RELEASES:
        ready = _ready(releases.get(name))
        yield f"{name}: {ready['reason']}: {ready['message']}" if ready else f"{name}: not seen yet"


def readable(line: str, namespace: str) -> tuple[str, str, str, str] | None:
    """Time, who, what and level of a line of the service's JSON log; None for an empty line.

    A line that is no JSON (Python's own complaint, say) is told as it is.
    """
    try:
        entry = json.loads(line)
        at, what, level = str(entry["time"])[11:19], str(entry["message"]), str(entry["level"])
    except (ValueError, KeyError, TypeError):
        return ("", "helmops", line.rstrip(), "error") if line.strip() else None
    who = str(entry.get("release") or "helmops").removeprefix(f"{namespace}/")
    return at, who, what, level


def _colour_of(what: str, level: str) -> str:
    if level == "error" or " failed after " in what:
        return _RED
    if level == "warning":
        return _YELLOW
    return _GREEN if what.startswith("ready: ") else ""


# Clusters


@contextlib.contextmanager
def _own_cluster(teller: Teller, keep: bool) -> Iterator[Place]:
    """The local cluster called `demo`: started where it does not run, and then removed again."""
    own = cluster.Cluster(paths.state(_CLUSTER))
    ran_before = own.running()
    if not ran_before:
        teller.line("starting a cluster on this machine", "demo")
    cluster.start(own.directory, lambda text: teller.line(text, "demo"))
    try:
        teller.line(
            f"Kubernetes {binaries.KUBERNETES_VERSION} at {own.server}, with simulated nodes; "
            "no other cluster is touched",
            "demo",
        )
        kubectl = [_tool("kubectl", teller), "--kubeconfig", str(own.kubeconfig)]
        _make_namespace(kubectl, _CLUSTER, teller)
        environment = {"KUBECONFIG": str(own.kubeconfig)}
        yield Place(_CLUSTER, _DECLARATIONS / "local", environment)
    finally:
        if keep or ran_before:
            delete = f"python -m devcluster down --name {_CLUSTER} --delete"
            teller.line(
                f"the cluster runs on (KUBECONFIG={own.kubeconfig}) until: {delete}", "demo"
            )
        else:
            cluster.remove(own)
            teller.line("stopped; nothing is left running", "demo")


@contextlib.contextmanager
def _named_cluster(context: str, teller: Teller, keep: bool) -> Iterator[Place]:
    """A namespace of the demo's own in a cluster that the user named."""
    namespace = "helmops-demo"
    teller.line(f"works in the namespace {namespace} of {context}, and nowhere else", "demo")
    kubectl = [_tool("kubectl", teller), "--context", context]
    _make_namespace(kubectl, namespace, teller)
    environment = {"HELMOPS_CONTEXT": context, "HELMOPS_WATCH_NAMESPACE": namespace}
    if kubeconfig := os.environ.get("KUBECONFIG"):
        environment["KUBECONFIG"] = kubeconfig
    try:
        yield Place(namespace, _DECLARATIONS / "any-cluster", environment)
    finally:
        if keep:
            delete = f"kubectl --context {shlex.quote(context)} delete namespace {namespace}"
            teller.line(f"the releases stay until: {delete}", "demo")
        else:
            _run(*kubectl, "delete", "namespace", namespace, "--timeout=60s")
            teller.line(f"deleted the namespace {namespace}; nothing is left", "demo")


def _make_namespace(kubectl: Sequence[str], namespace: str, teller: Teller) -> None:
    """An empty namespace; one of an earlier demo is deleted first, anybody else's is refused."""
    found = _run(*kubectl, "get", "namespace", namespace, "--ignore-not-found", "--output=json")
    if found:
        name, _, value = _LABEL.partition("=")
        if json.loads(found)["metadata"].get("labels", {}).get(name) != value:
            raise DevclusterError(
                f"the namespace {namespace} exists and was not made by the demo; it is left alone"
            )
        teller.line(f"deleting the namespace {namespace} of an earlier demo", "demo")
        _run(*kubectl, "delete", "namespace", namespace, "--timeout=60s")
    _run(*kubectl, "create", "namespace", namespace)
    _run(*kubectl, "label", "namespace", namespace, _LABEL)


def _tool(name: str, teller: Teller) -> str:
    tool = next(tool for tool in tools.TOOLS if tool.name == name)
    return str(tool.find(lambda text: teller.line(text, "demo")))


@contextlib.contextmanager
def _only_one() -> Iterator[None]:
    # Beside the cluster's folder, because that is deleted while the lock is held.
    lock = paths.state(f"{_CLUSTER}.lock")
    lock.parent.mkdir(parents=True, mode=0o700, exist_ok=True)
    with lock.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DevclusterError("another demo runs on this machine; let it end first") from None
        yield


# Processes


def _helmops() -> list[str]:
    return [sys.executable, "-m", "helmops"]


def _inherited() -> dict[str, str]:
    """This environment without settings of helmops or helm, and without a proxy to loopback."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("HELMOPS_", "HELM_"))
    }
    for name in ("no_proxy", "NO_PROXY"):
        kept[name] = ",".join(filter(None, [kept.get(name), "127.0.0.1", "localhost"]))
    return kept


def _run(*command: str) -> str:
    """What a program printed. Raises DevclusterError with what it complained of."""
    answer = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    if answer.returncode != 0:
        shown = shlex.join([Path(command[0]).name, *command[1:]])
        raise DevclusterError(f"{shown}: {answer.stderr.strip()}")
    return answer.stdout


def _end(process: subprocess.Popen[str]) -> None:
    """SIGTERM, as a cluster would, and SIGKILL for one that does not end."""
    process.terminate()
    try:
        process.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _read(stream: IO[str], take: Callable[[str], None]) -> None:
    for line in stream:
        take(line)


_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextlib.contextmanager
def _ended_by_signals() -> Iterator[None]:
    """SIGTERM ends the demo as Ctrl-C does, so that nothing is left running."""
    before = {number: signal.getsignal(number) for number in _SIGNALS}
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _go_through() -> None:
    """Clearing away takes seconds, and is not broken off by an impatient second Ctrl-C."""
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])
