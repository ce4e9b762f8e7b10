"""`python -m devcluster`: a local Kubernetes API server for tests and the demo."""

import argparse
import contextlib
import json
import signal
import sys
import tempfile
import threading
from pathlib import Path

from devcluster import binaries, cluster, encryption, paths, prometheus, real_node, registry, tools
from devcluster.errors import DevclusterError, ToolMissing


def main(arguments: list[str] | None = None) -> int:
    """Run one command; exit status 0 done, 1 not running or failed, 2 usage."""
    options = _parser().parse_args(arguments)
    try:
        return int(options.run(options))
    except DevclusterError as error:
        print(f"devcluster: {error}", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m devcluster", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, run, summary in (
        ("up", _up, "start the cluster and wait until it is ready"),
        ("down", _down, "stop it; --delete removes its data too"),
        ("status", _status, "exit status 0 if it runs, 1 if not"),
        ("kubeconfig", _kubeconfig, "print the path of its kubeconfig"),
    ):
        command = commands.add_parser(name, help=summary, description=summary)
        command.set_defaults(run=run)
        command.add_argument("--name", default="dev", help="which cluster (default: dev)")
        command.add_argument("--dir", type=Path, help="its folder, instead of one by its name")
        if name == "up":
            command.add_argument(
                "--real-node",
                action="store_true",
                help="kubelet and containerd instead of KWOK; needs root and Debian's packages",
            )
        if name == "down":
            command.add_argument("--delete", action="store_true", help="remove its data too")
    for name, run, summary in (
        ("serve-charts", _serve_charts, "serve a folder of chart folders, until Ctrl-C"),
        ("serve-git", _serve_git, "serve a folder as a Git repository, until Ctrl-C"),
        ("serve-registry", _serve_registry, "serve a folder of charts as a registry, until Ctrl-C"),
    ):
        command = commands.add_parser(name, help=summary, description=summary)
        command.set_defaults(run=run)
        command.add_argument("folder", type=Path)
        command.add_argument("--port", type=int, default=0, help="default: any free one")
    summary = "print the paths of helm, helm3 and kubectl as JSON, or of one of them as it is"
    command = commands.add_parser("tools", help=summary, description=summary)
    command.set_defaults(run=_tools)
    command.add_argument("name", nargs="?", choices=[tool.name for tool in tools.TOOLS])
    summary = "fetch or build every program that is missing"
    command = commands.add_parser("programs", help=summary, description=summary)
    command.set_defaults(run=_programs)
    command.add_argument(
        "--tests", action="store_true", help="what only tests need, too: a registry, sops, …"
    )
    command.add_argument(
        "--real-node", action="store_true", help="a kubelet and containerd too, where that can be"
    )
    return parser


def _chosen(options: argparse.Namespace) -> cluster.Cluster:
    return cluster.Cluster((options.dir or paths.state(options.name)).absolute())


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _up(options: argparse.Namespace) -> int:
    chosen = _chosen(options)
    if options.real_node:
        real_node.install_programs()
    if chosen.running() and not options.real_node:
        _say(f"already running at {chosen.server}")
    else:
        cluster.start(chosen.directory, _say, real_node=options.real_node)
        _say(f"Kubernetes {binaries.KUBERNETES_VERSION} runs at {chosen.server}")
    _say(f"export KUBECONFIG={chosen.kubeconfig}")
    return 0


def _down(options: argparse.Namespace) -> int:
    chosen = _chosen(options)
    if options.delete:
        cluster.remove(chosen)
    else:
        chosen.stop()
    _say("stopped")
    return 0


def _status(options: argparse.Namespace) -> int:
    chosen = _chosen(options)
    missing = chosen.missing_parts()
    print("running" if not missing else f"not running: {', '.join(missing)}")
    return 1 if missing else 0


def _kubeconfig(options: argparse.Namespace) -> int:
    chosen = _chosen(options)
    if not chosen.kubeconfig.exists():
        raise DevclusterError(
            f"no cluster in {chosen.directory}; start one: python -m devcluster up"
        )
    print(chosen.kubeconfig)
    return 0


def _tools(options: argparse.Namespace) -> int:
    for tool in tools.TOOLS:
        if tool.name == options.name:
            print(tool.find(_say))
            return 0
    found = {name: str(path) for name, path in tools.find_all(_say).items()}
    print(json.dumps(found, indent=2))
    return 0


def _programs(options: argparse.Namespace) -> int:
    tools.find_all(_say)
    binaries.control_plane(_say)
    if options.tests:
        # One after the other, before two test processes want them at once.
        for find in (encryption.programs, registry.find, prometheus.find):
            try:
                find(_say)
            except ToolMissing as missing:
                _say(f"{missing}; tests that need it are skipped")
    if options.real_node:
        try:
            real_node.install_programs()
        except ToolMissing as missing:
            _say(f"{missing}; tests that need one are skipped")
        else:
            binaries.kubelet(_say)
    return 0


def _serve_charts(options: argparse.Namespace) -> int:
    from devcluster.chart_server import ChartRepository

    with ChartRepository(options.folder, live=True, port=options.port) as repository:
        _serve(repository.url)
    return 0


def _serve_git(options: argparse.Namespace) -> int:
    from devcluster.git_server import GitHttpServer, GitRepository

    with tempfile.TemporaryDirectory(prefix="helmops-git-") as name:
        repository = GitRepository(Path(name), options.folder.resolve().name)
        repository.commit_folder(options.folder)
        with GitHttpServer(Path(name), port=options.port) as server:
            _serve(f"{server.url(repository)}\n{repository.work}")
    return 0


def _serve_registry(options: argparse.Namespace) -> int:
    from devcluster.charts import package
    from devcluster.oci_server import OciServer

    with OciServer(port=options.port) as server:
        for folder in sorted(path.parent for path in options.folder.glob("*/Chart.yaml")):
            chart = package(folder)
            server.push(f"charts/{chart.name}", chart.version.replace("+", "_"), chart.data)
        _serve(f"{server.url}/charts")
    return 0


def _serve(where: str) -> None:
    """Print where, then go on until Ctrl-C or `kill`."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    print(where, flush=True)
    with contextlib.suppress(KeyboardInterrupt):
        threading.Event().wait()


if __name__ == "__main__":
    sys.exit(main())
