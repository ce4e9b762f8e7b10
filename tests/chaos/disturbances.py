"""What is done to helmops, to helm, to the API server and to the way there.

Each is a function of a bench: it begins the phase, does its worst in the middle of it, and returns
when that is over. What must come of it, `judge` knows.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeAlias

from tests.chaos.bench import Bench
from tests.e2e.helmops_process import PATIENCE, Process
from tests.e2e.phases import kill_both, kill_helm

Disturbance: TypeAlias = Callable[[Bench], None]

HELMOPS, HELM, BOTH = "helmops", "helm", "both"
BEFORE, MIDDLE, AFTER = "before", "middle", "after"


def killed(victim: str, moment: str) -> Disturbance:
    """`kill -9`, just before helm begins, in the middle of its work, or when it has ended."""

    def disturb(bench: Bench) -> None:
        bench.begin()
        if moment != MIDDLE:
            bench.halt(moment)
        with bench.helmops.start("reconcile") as process:
            _until_moment(bench, moment)
            _kill(process, victim)
            if victim == HELM:
                process.wait(seconds=4 * PATIENCE)

    return disturb


def killed_again_and_again(times: int) -> Disturbance:
    """`kill -9` of helmops and its helm in the middle of each attempt."""

    def disturb(bench: Bench) -> None:
        bench.begin()
        for _ in range(times):
            with bench.helmops.start("reconcile") as process:
                bench.until_in_the_middle()
                kill_both(process)

    return disturb


def killed_at(seconds: float) -> Disturbance:
    """`kill -9` of helmops so long after its start, wherever it is then.

    The helm is left to what the kernel and helm's own handlers make of it.
    """

    def disturb(bench: Bench) -> None:
        bench.begin()
        with bench.helmops.start("reconcile") as process:
            time.sleep(seconds)
            process.kill()

    return disturb


def service_killed(victim: str) -> Disturbance:
    """`kill -9` of a service in the middle; another one is started and finishes."""

    def disturb(bench: Bench) -> None:
        bench.begin()
        with bench.helmops.serve() as process:
            bench.until_in_the_middle()
            _kill(process, victim)
            if victim == HELM:
                bench.until_ended()
                return
        with bench.service():
            bench.until_ended()

    return disturb


def api_server_away(seconds: float) -> Disturbance:
    """The API server is stopped in the middle, as by a power loss, and comes back."""

    def disturb(bench: Bench) -> None:
        bench.begin()
        with bench.service():
            bench.until_in_the_middle()
            bench.cluster.stop_apiserver()
            time.sleep(seconds)
            bench.cluster.start_apiserver()
            bench.until_ended()

    return disturb


def connections_cut(seconds: float) -> Disturbance:
    """Every connection to the API server is reset, and new ones are refused for a while."""

    def disturb(bench: Bench) -> None:
        bench.begin()
        with bench.service():
            bench.until_in_the_middle()
            with bench.proxy.cutting():
                time.sleep(seconds)
            bench.until_ended()

    return disturb


def connections_stalled(seconds: float) -> Disturbance:
    """Nothing gets through for a while, and nobody is told; then all connections are reset."""

    def disturb(bench: Bench) -> None:
        bench.begin()
        with bench.service():
            bench.until_in_the_middle()
            with bench.proxy.stalling():
                time.sleep(seconds)
                bench.proxy.reset()
            bench.until_ended()

    return disturb


def connections_flaky(seconds: float) -> Disturbance:
    """Every connection is reset again and again, once a second."""

    def disturb(bench: Bench) -> None:
        bench.begin()
        with bench.service():
            bench.until_in_the_middle()
            end = time.monotonic() + seconds
            while time.monotonic() < end:
                bench.proxy.reset()
                time.sleep(1.0)
            bench.until_ended()

    return disturb


def _until_moment(bench: Bench, moment: str) -> None:
    if moment == MIDDLE:
        bench.until_in_the_middle()
    else:
        bench.until_halted()


def _kill(process: Process, victim: str) -> None:
    match victim:
        case "helmops":
            process.kill()
        case "helm":
            kill_helm(process)
        case _:
            kill_both(process)
