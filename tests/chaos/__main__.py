"""`make chaos`: kills, a lost API server and cut connections, on real clusters with real helm.

    python -m tests.chaos [PATTERN...] [--write] [--list] [--jobs N] [--keep DIR]

A line for each case as it ends, then the table. Exit status 1 where any case failed; its logs are
then kept.
"""

from __future__ import annotations

import argparse
import contextlib
import fnmatch
import os
import queue
import shutil
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from devcluster import cluster as devcluster
from devcluster import tools
from devcluster.chart_server import ChartRepository
from tests.chaos import report
from tests.chaos.bench import bench
from tests.chaos.cases import Case, all_cases
from tests.chaos.judge import Kind, Problem, judge
from tests.e2e.helmops_process import NeverCame, repository
from tests.e2e.phases import PHASES

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "chaos.md"
_HELMS = {"helm 4": "helm", "helm 3": "helm3"}


@dataclass
class Run:
    """All cases, shared out among workers that have a cluster each."""

    cases: Sequence[Case]
    folder: Path
    helms: dict[str, Path]
    charts_url: str

    def __post_init__(self) -> None:
        self.results: list[report.Result] = []
        self.is_stopped = False
        self._waiting: queue.SimpleQueue[tuple[int, Case]] = queue.SimpleQueue()
        for numbered in enumerate(self.cases):
            self._waiting.put(numbered)
        self._lock = threading.Lock()
        self._failed: list[BaseException] = []

    def go(self, jobs: int) -> None:
        """Work through all cases, so many at a time."""
        ended = [threading.Event() for _ in range(jobs)]
        for number, event in enumerate(ended):
            threading.Thread(target=self._guarded, args=(number, event)).start()
        try:
            _wait_for(ended)
        except KeyboardInterrupt:
            _say("stopping, once the cases that are under way have ended")
            with contextlib.suppress(queue.Empty):
                while True:
                    self._waiting.get_nowait()
            _wait_for(ended)
            self.is_stopped = True
        if self._failed:
            raise self._failed[0]

    def _guarded(self, number: int, ended: threading.Event) -> None:
        try:
            self._work(number)
        except BaseException as error:
            self._failed.append(error)
        finally:
            ended.set()

    def _work(self, number: int) -> None:
        own = devcluster.start(self.folder / f"cluster-{number}", _say)
        try:
            while True:
                try:
                    index, case = self._waiting.get_nowait()
                except queue.Empty:
                    return
                self._one(index, case, own)
        finally:
            devcluster.remove(own)

    def _one(self, index: int, case: Case, cluster: devcluster.Cluster) -> None:
        began = time.monotonic()
        directory = self.folder / f"case-{index}"
        problems: list[Problem]
        try:
            with bench(
                directory,
                cluster,
                self.helms[case.helm],
                repository(self.charts_url),
                PHASES[case.phase],
                case.expected,
            ) as made:
                case.disturb(made)
                problems = judge(made)
        except NeverCame as error:
            problems = [Problem(Kind.STUCK, str(error))]
        except Exception:
            problems = [Problem(Kind.UNEXPECTED, traceback.format_exc())]
        devcluster.start(cluster.directory)
        result = report.Result(case, problems, time.monotonic() - began)
        if not problems:
            shutil.rmtree(directory, ignore_errors=True)
        with self._lock:
            self.results.append(result)
            print(report.line(result, len(self.results), len(self.cases)), flush=True)
            for problem in problems:
                print(f"      {problem.kind}: {_shortened(problem.message)}", flush=True)
            if problems:
                whole = "\n\n".join(f"{each.kind}: {each.message}" for each in problems)
                (directory / "problems.txt").write_text(whole)
                print(f"      its logs: {directory}", flush=True)


def _wait_for(events: Sequence[threading.Event]) -> None:
    """Until all are set. Not `Thread.join`: one that Ctrl-C interrupts takes the thread for ended
    (seen with Python 3.11), and its cluster would be left behind.
    """
    for event in events:
        while not event.wait(0.5):
            pass


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("patterns", nargs="*", metavar="PATTERN", help="cases whose name has it")
    parser.add_argument("--write", action="store_true", help="write the table to docs/chaos.md")
    parser.add_argument("--list", action="store_true", help="only say which cases there are")
    parser.add_argument("--jobs", type=int, choices=(1, 2), default=2, help="cases at a time")
    parser.add_argument("--keep", type=Path, help="where to work, and to leave everything")
    options = parser.parse_args()
    cases = [case for case in all_cases() if _is_chosen(case, options.patterns)]
    if not cases:
        parser.error("no case has such a name; see --list")
    if options.write and options.patterns:
        parser.error("the page is written of all cases, or not at all")
    if options.list:
        print("\n".join(case.name for case in cases))
        return 0
    return _run(cases, options)


def _run(cases: Sequence[Case], options: argparse.Namespace) -> int:
    for name in [name for name in os.environ if name.startswith(("HELM_", "HELMOPS_"))]:
        del os.environ[name]
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    folder = options.keep or Path(tempfile.mkdtemp(prefix="helmops-chaos-"))
    found = tools.find_all(_say)
    began = time.monotonic()
    with ChartRepository(ROOT / "fixtures" / "charts") as charts:
        charts.publish_all()
        helms = {name: found[tool] for name, tool in _HELMS.items()}
        run = Run(cases, folder, helms, charts.url)
        run.go(min(options.jobs, len(cases)))
    results = sorted(run.results, key=lambda result: cases.index(result.case))
    took = time.monotonic() - began
    print()
    print(report.table(results))
    print()
    print(report.summary(results, took))
    has_failed = any(result.problems for result in results)
    if options.write and not has_failed and not run.is_stopped:
        PAGE.write_text(report.page(results, took, helms))
    if not has_failed and options.keep is None:
        with contextlib.suppress(OSError):
            shutil.rmtree(folder)
    return 1 if has_failed or run.is_stopped else 0


def _is_chosen(case: Case, patterns: Sequence[str]) -> bool:
    return not patterns or any(
        fnmatch.fnmatchcase(case.name, f"*{pattern}*") for pattern in patterns
    )


def _shortened(message: str) -> str:
    """The end of a long message: whole it is beside the logs."""
    return message if len(message) < 600 else f"… {message[-600:]}"


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
