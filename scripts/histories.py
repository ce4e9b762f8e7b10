"""Tells five histories to helm and to helmops, and writes what each ends on into docs/histories.md.

    python -m scripts.histories [PATTERN...] [--write | --check]

Each history is told on a local cluster: to somebody who goes back by `helm rollback`, to
`helm upgrade --rollback-on-failure` (helm 3: `--atomic`), and to helmops. `--check` only compares
the page with the histories here; what came of them it takes as it stands.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

from devcluster import cluster as devcluster
from devcluster import tools
from devcluster.chart_server import ChartRepository
from devcluster.cluster import Cluster
from tests.e2e.helmops_process import Helmops, policy, release, repository, until

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "histories.md"
CHART = ROOT / "fixtures" / "charts" / "story"
#: The only content that ever was well, in every history.
GOOD = "one"
_TIMEOUT = "40s"
#: For what will never be ready; and for going back, which takes a second or is in vain.
_SHORT = "10s"


# Who a history is told to ----------------------------------------------------------------------


@dataclass
class Teller:
    """A release in a namespace of its own, and somebody who looks after it."""

    helmops: Helmops
    charts: ChartRepository
    said: list[str] = field(default_factory=list)

    title = ""

    def bring(self, content: str, **values: Any) -> None:
        """Release this content; whether that succeeds is not asked."""
        raise NotImplementedError

    def remedy(self) -> None:
        """The last one failed: somebody who is not a program goes back now."""

    def go_back(self) -> None:
        """A person wants the one before."""
        self.helm("rollback", "app", "--wait", f"--timeout={_SHORT}")

    def fail_to_go_back(self, content: str) -> None:
        """Release a content that fails, and fail to go back from it."""
        self.bring(content, fail=True)
        self.remedy()

    def live_through_a_crash(self) -> None:
        """What was released goes on well for a while, and then crashes."""
        self.crash()

    def helm(self, *arguments: str) -> bool:
        """Run helm as a person does, and keep the last thing that it said."""
        finished = subprocess.run(
            [self.helmops.helm, *arguments, "--namespace", self.helmops.namespace],
            env={
                "PATH": os.environ["PATH"],
                "HOME": str(self.helmops.directory),
                "KUBECONFIG": str(self.helmops.cluster.kubeconfig),
            },
            capture_output=True,
            text=True,
            check=False,
        )
        if finished.returncode:
            self.said.append(finished.stderr.strip().splitlines()[-1])
        return finished.returncode == 0

    def upgrade(self, content: str, values: dict[str, Any], *flags: str) -> None:
        """`helm upgrade --install`."""
        settings = [f"--set={name}={str(value).lower()}" for name, value in values.items()]
        self.helm(
            *("upgrade", "app", str(CHART), "--install", "--wait", f"--set=content={content}"),
            *(f"--timeout={_SHORT if values.get('fail') else _TIMEOUT}", *settings, *flags),
        )

    # What happens to the release past whoever looks after it

    def crash(self) -> None:
        """All pods crash from now on, as by a leak or a bug that takes its time."""
        for pod in self.helmops.get("pods")["items"]:
            if pod["metadata"].get("ownerReferences", [{}])[0].get("kind") == "ReplicaSet":
                path = f"/api/v1/namespaces/{self.helmops.namespace}/pods/{pod['metadata']['name']}"
                self.helmops.cluster.request(
                    "PATCH",
                    path,
                    {"metadata": {"annotations": {"helmops.dev/simulate": "crash"}}},
                    content="merge-patch+json",
                )

    @contextmanager
    def quota(self) -> Iterator[None]:
        """No ConfigMap can be made meanwhile."""
        path = f"/api/v1/namespaces/{self.helmops.namespace}/resourcequotas"
        body = {"metadata": {"name": "full"}, "spec": {"hard": {"count/configmaps": "1"}}}
        self.helmops.cluster.request("POST", path, body)
        until("the quota holds", lambda: self._used().get("status", {}).get("used"))
        yield
        self.helmops.cluster.request("DELETE", f"{path}/full")

    def _used(self) -> dict[str, Any]:
        return dict(self.helmops.get("resourcequotas/full") or {})

    @contextmanager
    def pruned(self, revision: int) -> Iterator[None]:
        """Somebody deletes a stored revision as soon as there is a newer one."""

        def prune() -> None:
            until("there is a newer one", lambda: max(self.helmops.revisions()) > revision)
            path = f"/api/v1/namespaces/{self.helmops.namespace}/secrets"
            name = f"sh.helm.release.v1.app.v{revision}"
            self.helmops.cluster.request("DELETE", f"{path}/{name}")

        somebody = threading.Thread(target=prune)
        somebody.start()
        yield
        somebody.join()

    def ends_on(self) -> Ending:
        """What there is now."""
        revisions = self.helmops.revisions()
        deployment = self.helmops.get("apps/v1/deployments/app")
        content = deployment["metadata"]["annotations"]["example.test/content"]
        newest = max(revisions)
        return Ending(newest, revisions[newest], content, revisions, self.note())

    def note(self) -> str:
        """What is to be said of the end, if anything."""
        return ""


class WithRollback(Teller):
    """Somebody with helm, who goes back by `helm rollback` when an upgrade fails."""

    title = "`helm rollback`"

    def bring(self, content: str, **values: Any) -> None:
        self.upgrade(content, values)

    def remedy(self) -> None:
        self.go_back()


class WithFlag(Teller):
    """Somebody with helm, who leaves going back to helm."""

    title = "`helm upgrade --rollback-on-failure`"

    def bring(self, content: str, **values: Any) -> None:
        is_3 = self.helmops.helm.samefile(tools.TOOLS[1].find(_say))
        self.upgrade(content, values, "--atomic" if is_3 else "--rollback-on-failure")


class WithHelmops(Teller):
    """helmops, to which everything is declared."""

    title = "helmops"

    def bring(self, content: str, **values: Any) -> None:
        self._declare(content, values)
        self.helmops.reconcile(status=None)

    def _declare(self, content: str, values: dict[str, Any]) -> None:
        timeout = _SHORT if values.get("fail") else _TIMEOUT
        declared = release("app", "story", values={"content": content, **values}, timeout=timeout)
        verify = {"watch": "90s"} if self.is_watched else {}
        rules = policy(verify=verify)
        self.helmops.declare(repository(self.charts.url), declared, rules)

    is_watched = False

    def go_back(self) -> None:
        ended = self.helmops.run("rollback", "app", status=None)
        self.said += ended.text.strip().splitlines()[-1:]

    def fail_to_go_back(self, content: str) -> None:
        """The service would try again for as long as it takes, so it is stopped."""
        with self.helmops.serve() as service:
            self._declare(content, {"fail": True})
            service.until_seen("going back failed", lambda seen: seen.ours["rollbackFailures"])
            service.terminate()

    def live_through_a_crash(self) -> None:
        """The service is there to see it."""
        newest = max(self.helmops.revisions())
        with self.helmops.serve() as service:
            self.crash()
            service.until_seen(
                "it was rolled back", lambda seen: seen.history[0]["version"] > newest
            )
            service.until_ready()
            service.terminate()

    def note(self) -> str:
        seen = self.helmops.see()
        return "" if seen.is_ready else f"helmops says {seen.reason}"


TELLERS: tuple[type[Teller], ...] = (WithRollback, WithFlag, WithHelmops)


# The histories ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class History:
    """One history: what happens, in words and as it is told."""

    title: str
    steps: tuple[str, ...]
    tell: Callable[[Teller], None]


def _two_failures(teller: Teller) -> None:
    teller.bring("one")
    teller.bring("two", fail=True)
    teller.bring("three", fail=True)
    teller.remedy()


def _failed_install(teller: Teller) -> None:
    teller.bring("zero", fail=True)
    teller.bring("one")
    teller.go_back()


def _failed_rollback(teller: Teller) -> None:
    teller.bring("one", extra=True)
    with teller.quota():
        teller.fail_to_go_back("two")
    teller.bring("three", fail=True)
    teller.remedy()


def _late_crash(teller: Teller) -> None:
    teller.bring("one")
    if isinstance(teller, WithHelmops):
        teller.is_watched = True
    teller.bring("two")
    teller.live_through_a_crash()
    teller.bring("three", fail=True)
    teller.remedy()


def _pruned(teller: Teller) -> None:
    teller.bring("one")
    with teller.pruned(1):
        teller.bring("two", fail=True)
    teller.remedy()


HISTORIES = (
    History(
        "A failed upgrade, then another one",
        (
            "`one` is installed, and is well.",
            "`two` fails. Before anybody has gone back, `three` is tried, and fails as well.",
            "Whoever has not done so by now goes back.",
        ),
        _two_failures,
    ),
    History(
        "A failed first install, then a success, then back",
        (
            "`zero` is installed, and fails.",
            "`one` is released over it, and is well: from now on Helm calls `zero` superseded.",
            "A person wants the one before.",
        ),
        _failed_install,
    ),
    History(
        "A failed rollback, then another failure",
        (
            "`one` is installed, and is well.",
            "`two` fails, and going back fails too: a quota is full. Helm calls `two` superseded.",
            "There is room again. `three` fails, and somebody or something goes back.",
        ),
        _failed_rollback,
    ),
    History(
        "A crash after `deployed`",
        (
            "`one` is installed, and is well.",
            "`two` comes up, and Helm calls it deployed. Then all of its pods crash.",
            "`three` fails, and somebody or something goes back.",
        ),
        _late_crash,
    ),
    History(
        "The last good revision pruned",
        (
            "`one` is installed, and is well.",
            "While `two` is on its way, somebody deletes the revision of `one` from Helm's "
            "storage.",
            "`two` fails, and somebody or something goes back.",
        ),
        _pruned,
    ),
)


# What came of them -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Ending:
    """The newest revision, Helm's word for it, what runs, and all revisions that are stored."""

    revision: int
    status: str
    content: str
    revisions: dict[int, str]
    note: str = ""

    @property
    def cell(self) -> str:
        """Its cell in the table."""
        mark = "✔" if self.content == GOOD else "✘"
        return f"{mark} `{self.content}`: {self.revision}, {self.status}"

    @property
    def line(self) -> str:
        """All revisions, for whoever wants to know."""
        stored = ", ".join(f"{number} {status}" for number, status in self.revisions.items())
        return f"`{self.content}` runs; stored: {stored}" + (f"; {self.note}" if self.note else "")


#: By the history's title and the teller's: helm's version and what came of it.
Endings = dict[tuple[str, str], dict[str, Ending]]


def tell(history: History, kind: type[Teller], charts: ChartRepository, helmops: Helmops) -> Ending:
    """Tell a history, and say what it ends on."""
    teller = kind(helmops, charts)
    history.tell(teller)
    return teller.ends_on()


def page(endings: Endings) -> str:
    """docs/histories.md."""
    versions = dict.fromkeys(v for by_helm in endings.values() for v in by_helm)
    return f"""\
{_INTRODUCTION}
{_table(endings)}

Told to helm {" and ".join(versions)}; where these end alike there is one entry.

{"".join(_section(number, history, endings) for number, history in enumerate(HISTORIES, 1))}"""


_INTRODUCTION = """\
<!-- Written by `python -m scripts.histories --write`; changes belong there. -->

# Where they end

The same five histories, told to somebody who goes back by `helm rollback`, to
`helm upgrade --rollback-on-failure` (`--atomic` in helm 3) and to helmops. In each of them `one` is
the only content that was ever well. An entry names what runs in the end, the newest revision, and
what Helm calls that revision: ✔ where it is `one`, ✘ where it is not.
"""


def _table(endings: Endings) -> str:
    rows = [
        ["", *(teller.title for teller in TELLERS)],
        ["---", *("---" for _ in TELLERS)],
    ]
    for number, history in enumerate(HISTORIES, 1):
        cells = [_cell(endings[history.title, teller.title]) for teller in TELLERS]
        rows.append([f"{number}. {history.title}", *cells])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _cell(by_helm: dict[str, Ending]) -> str:
    cells = {version: ending.cell for version, ending in by_helm.items()}
    if len(set(cells.values())) == 1:
        return next(iter(cells.values()))
    return "; ".join(f"helm {version}: {cell}" for version, cell in cells.items())


def _section(number: int, history: History, endings: Endings) -> str:
    lines = [_heading(number, history), ""]
    for teller in TELLERS:
        by_helm = endings[history.title, teller.title]
        texts = {version: ending.line for version, ending in by_helm.items()}
        if len(set(texts.values())) == 1:
            lines.append(f"- {teller.title}: {next(iter(texts.values()))}")
        else:
            lines += [f"- {teller.title}, helm {v}: {text}" for v, text in texts.items()]
    return "\n".join(lines) + "\n\n"


def _heading(number: int, history: History) -> str:
    steps = "\n".join(f"{step}. {text}" for step, text in enumerate(history.steps, 1))
    return f"## {number}. {history.title}\n\n{steps}"


def is_current(text: str) -> bool:
    """Whether a page tells of these histories and tellers, whatever came of them."""
    header = f"| {' | '.join(['', *(teller.title for teller in TELLERS)])} |"
    wanted = [_INTRODUCTION, header]
    for number, history in enumerate(HISTORIES, 1):
        wanted += [f"| {number}. {history.title} | ", f"{_heading(number, history)}\n\n- "]
    return all(part in text for part in wanted) and text.count("\n## ") == len(HISTORIES)


# Running them ----------------------------------------------------------------------------------


def main() -> int:
    """Exit status 0, or 1 where the page is not what it should be."""
    parser = argparse.ArgumentParser(prog="python -m scripts.histories", description=__doc__)
    parser.add_argument("patterns", nargs="*", metavar="PATTERN", help="only titles with this")
    parser.add_argument("--write", action="store_true", help="write docs/histories.md")
    parser.add_argument("--check", action="store_true", help="only compare its shape")
    options = parser.parse_args()
    if options.check:
        if PAGE.exists() and is_current(PAGE.read_text()):
            return 0
        _say(f"{PAGE.relative_to(ROOT)} tells of other histories: make histories")
        return 1
    chosen = [
        each
        for each in HISTORIES
        if not options.patterns or any(p in each.title for p in options.patterns)
    ]
    if options.write and len(chosen) < len(HISTORIES):
        parser.error("the page is written of all histories, or not at all")
    endings = _tell_all(chosen)
    if options.write:
        PAGE.write_text(page(endings))
    return 0


def _tell_all(histories: Sequence[History]) -> Endings:
    for name in [name for name in os.environ if name.startswith(("HELM_", "HELMOPS_"))]:
        del os.environ[name]
    found = tools.find_all(_say)
    helms = {name: found[name] for name in ("helm", "helm3")}
    endings: Endings = {}
    with (
        ThreadPoolExecutor(len(helms) * len(TELLERS)) as side_by_side,
        tempfile.TemporaryDirectory(prefix="helmops-histories-") as folder,
        _cluster(Path(folder) / "cluster") as cluster,
        ChartRepository(CHART.parent) as charts,
    ):
        charts.publish("story")
        for number, history in enumerate(histories):
            _say(history.title)
            told = {}
            for teller, (tool, helm) in product(TELLERS, helms.items()):
                namespace = f"h{number}-{tool}-{teller.__name__}".lower()
                own = _release(cluster, Path(folder), namespace, helm)
                told[teller, helm] = side_by_side.submit(tell, history, teller, charts, own)
            for teller in TELLERS:
                by_helm = {_version(helm): told[teller, helm].result() for helm in helms.values()}
                endings[history.title, teller.title] = by_helm
                lines = dict.fromkeys(ending.line for ending in by_helm.values())
                _say(f"  {teller.title}: {' | '.join(lines)}")
    return endings


def _release(cluster: Cluster, folder: Path, namespace: str, helm: Path) -> Helmops:
    cluster.request("POST", "/api/v1/namespaces", {"metadata": {"name": namespace}})
    return Helmops(folder / namespace, cluster, namespace, helm)


@contextmanager
def _cluster(folder: Path) -> Iterator[Cluster]:
    own = devcluster.start(folder, _say)
    try:
        yield own
    finally:
        with suppress(OSError):
            devcluster.remove(own)


def _version(helm: Path) -> str:
    answer = subprocess.run(
        [helm, "version", "--short"], capture_output=True, text=True, check=True
    )
    return answer.stdout.strip().partition("+")[0].removeprefix("v")


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")


if __name__ == "__main__":
    sys.exit(main())
