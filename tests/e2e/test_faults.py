"""Whatever breaks, and whenever: nothing is lost, and the next pass finishes."""

from __future__ import annotations

import hashlib
import io
import os
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from devcluster.chart_server import ChartRepository
from devcluster.cluster import Cluster
from devcluster.loopback import Answer, Fault, LoopbackServer
from tests.e2e.helmops_process import Helmops, Seen, release, repository, until
from tests.e2e.phases import PHASES, Phase, begin, kill_both, kill_helm, until_in_the_middle

CHARTS = Path(__file__).resolve().parents[2] / "fixtures" / "charts"

# Our process is killed ------------------------------------------------------------------------


@pytest.fixture(params=[name for name in PHASES if name != "uninstall"])
def phase(request: pytest.FixtureRequest) -> Phase:
    return PHASES[request.param]


@pytest.fixture
def charts(chart_repository: ChartRepository) -> dict[str, Any]:
    return repository(chart_repository.url)


def assert_finished(helmops: Helmops, phase: Phase, revisions: dict[int, str]) -> None:
    """The next pass brings it to its end, without a lock that a person had to clear."""
    helmops.reconcile(status=0 if phase.ends_ready else 1)
    seen = helmops.see()
    assert helmops.revisions() == revisions
    assert seen.ours["verdict"] == "healthy"
    assert seen.healthy_revision == max(revisions)
    if not phase.ends_ready:
        assert seen.reason == "RetriesExceeded"
        assert seen.history[0]["action"] == "rollback"


def standing_still(folder: Path, helm: Path, operation: str, moment: str) -> Path:
    """A helm that stands still `before` or `after` an operation, and then is `halted`."""
    folder.mkdir(exist_ok=True)
    program = folder / "helm"
    halt = f"touch {folder}/halted; exec sleep 600"
    after = f'"{helm}" "$@"; {halt}'
    program.write_text(
        f'#!/bin/sh\nif [ "$1" = {operation} ]; then {halt if moment == "before" else after}; fi\n'
        f'exec "{helm}" "$@"\n'
    )
    program.chmod(0o755)
    return program


@pytest.mark.parametrize("moment", ["before", "after"])
def test_killed_before_or_after_helm_worked_nothing_is_done_twice(
    helmops: Helmops, charts: dict[str, Any], phase: Phase, moment: str
) -> None:
    begin(helmops, charts, phase)
    folder = helmops.directory / "still"
    still = standing_still(folder, helmops.helm, phase.operation, moment)
    with helmops.with_helm(still).start("reconcile") as killed:
        until("helm was called", (folder / "halted").exists)
        killed.kill()
    assert_finished(helmops, phase, phase.whole)


def test_killed_while_helm_works_the_next_pass_finishes(
    helmops: Helmops, charts: dict[str, Any], phase: Phase
) -> None:
    begin(helmops, charts, phase)
    with helmops.start("reconcile") as killed:
        until_in_the_middle(helmops, phase)
        killed.kill()
    assert_finished(helmops, phase, phase.broken_off)


def test_killed_with_its_helm_as_by_a_power_loss_the_lock_is_mended(
    helmops: Helmops, charts: dict[str, Any], phase: Phase
) -> None:
    begin(helmops, charts, phase)
    with helmops.start("reconcile") as killed:
        until_in_the_middle(helmops, phase)
        kill_both(killed)
    assert list(helmops.revisions().values())[-1] == phase.pending
    assert_finished(helmops, phase, phase.broken_off)


def test_a_helm_that_is_killed_alone_says_nothing_of_the_release(
    helmops: Helmops, charts: dict[str, Any], phase: Phase
) -> None:
    begin(helmops, charts, phase)
    with helmops.start("reconcile") as running:
        until_in_the_middle(helmops, phase)
        kill_helm(running)
        assert running.wait() == (0 if phase.ends_ready else 1), running.log
    assert helmops.revisions() == phase.broken_off
    seen = helmops.see()
    assert seen.ours["verdict"] == "healthy"
    assert seen.is_ready == phase.ends_ready


# Somebody else is at work ----------------------------------------------------------------------


def test_two_helmops_on_one_release_do_it_once(
    make_helmops: Callable[..., Helmops], charts: dict[str, Any]
) -> None:
    both = [make_helmops(), make_helmops()]
    for each in both:
        each.declare(charts, release("app", "hooks", values={"slow": "post-install"}))
    started = [each.start("reconcile") for each in both]
    with started[0], started[1]:
        statuses = [each.wait() for each in started]
    # Who came second says that it is being worked on, or finds it done.
    assert 0 in statuses
    assert both[0].revisions() == {1: "deployed"}
    for each in both:
        each.reconcile()
    assert both[0].revisions() == {1: "deployed"}


def test_a_lock_of_somebody_else_is_left_alone_and_reported(
    helmops: Helmops, charts: dict[str, Any], tmp_path: Path
) -> None:
    helmops.declare(charts, release("app", "hooks"))
    helmops.reconcile()
    chart = CHARTS / "hooks"
    person = subprocess.Popen(
        [helmops.helm, "upgrade", "app", chart, "-n", helmops.namespace, "--set=slow=pre-upgrade"],
        env={**os.environ, "KUBECONFIG": str(helmops.cluster.kubeconfig)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    with person:
        until("the person's helm is at work", lambda: helmops.revisions().get(2))
        person.kill()
    helmops.declare(charts, release("app", "hooks", values={"message": "new"}))
    helmops.reconcile(status=1)
    assert helmops.revisions() == {1: "deployed", 2: "pending-upgrade"}
    seen = helmops.see()
    assert seen.reason == "PendingRelease"
    assert "somebody else" in seen.message


# The API server --------------------------------------------------------------------------------


def test_an_api_server_that_goes_and_comes_back_costs_nothing_but_time(
    private_cluster: Cluster, helm4: Path, tmp_path: Path, chart_repository: ChartRepository
) -> None:
    helmops = Helmops(tmp_path / "helmops", private_cluster, "default", helm4)
    charts = repository(chart_repository.url)
    helmops.declare(charts, release("app", "hooks"), release("other"))
    with helmops.serve() as service:
        service.until_ready("app")
        service.until_ready("other")
        helmops.declare(
            charts,
            release("app", "hooks", values={"slow": "pre-upgrade"}),
            release("other"),
        )
        until("the upgrade is under way", lambda: helmops.get("batch/v1/jobs/app-pre-upgrade"))
        private_cluster.stop_apiserver()
        helmops.declare(
            charts,
            release("app", "hooks", values={"message": "new"}),
            release("other", values={"data": {"message": "new"}}),
        )
        service.until_logged("answer")
        private_cluster.start_apiserver()
        service.until_seen(
            "both are upgraded", lambda seen: seen.is_ready and seen.history[0]["version"] > 1
        )
        service.until_ready("other")
        until("what was declared last is there", lambda: helmops.data()["message"] == "new")
        assert service.until_ready("app").ours["verdict"] == "healthy"
        assert service.terminate() == 0
    assert helmops.data("other")["message"] == "new"
    assert not [s for s in helmops.revisions().values() if s.startswith("pending")]
    assert helmops.see().status["upgradeFailures"] == 0


# Chart repositories ----------------------------------------------------------------------------


FAULTS = {
    "unauthorized": Fault(status=401),
    "forbidden": Fault(status=403),
    "missing": Fault(status=404),
    "throttled": Fault(status=429, headers={"Retry-After": "1"}),
    "broken": Fault(status=500),
    "overloaded": Fault(status=503),
    "slow": Fault(slow=30),
    "trickling": Fault(trickle=0.5),
    "dropped": Fault(drop=True),
    "truncated": Fault(truncate=True),
    "portal": Fault(html=True),
    "garbage": Fault(garbage=True),
    "endless": Fault(endless=True),
}
SAID = {
    "unauthorized": ("AuthenticationFailed", "401"),
    "forbidden": ("AuthenticationFailed", "403"),
    "missing": ("SourceNotReady", "404"),
    "throttled": ("SourceNotReady", "429"),
    "broken": ("SourceNotReady", "500"),
    "overloaded": ("SourceNotReady", "503"),
    "slow": ("SourceNotReady", "within"),
    "trickling": ("SourceNotReady", ""),
    "dropped": ("SourceNotReady", ""),
    "truncated": ("SourceNotReady", ""),
    "portal": ("IndexationFailed", "web page"),
    "garbage": ("SourceNotReady", ""),
    "endless": ("IndexationFailed", ""),
}


@pytest.fixture
def faulty(serve_charts: Callable[..., ChartRepository]) -> dict[str, ChartRepository]:
    """A chart repository of its own for each fault."""
    made = {name: serve_charts() for name in FAULTS}
    for each in made.values():
        each.publish("config")
    return made


def declare_all(helmops: Helmops, faulty: dict[str, ChartRepository], good: str) -> None:
    declared = []
    for name, served in faulty.items():
        declared.append(repository(served.url, name=name, timeout="8s"))
        declared.append(release(name, source=f"HelmRepository/{name}"))
    helmops.declare(*declared, repository(good), release())


def test_a_chart_repository_that_fails_stops_its_own_releases_only(
    helmops: Helmops, faulty: dict[str, ChartRepository], chart_repository: ChartRepository
) -> None:
    for name, fault in FAULTS.items():
        faulty[name].server.fail(fault)
    declare_all(helmops, faulty, chart_repository.url)
    helmops.reconcile(status=1)
    found = {
        each["metadata"]["name"]: Seen(each)
        for each in helmops.run("get", "releases", "-o", "json").json["items"]
    }
    assert found.pop("app").is_ready
    said = {name: (seen.reason, seen.message) for name, seen in found.items()}
    for name, (reason, word) in SAID.items():
        assert said[name][0] == reason, said[name]
        assert word in said[name][1], said[name]
        assert f"HelmRepository {helmops.namespace}/{name}" in said[name][1] or (
            faulty[name].url in said[name][1]
        ), said[name]
    for served in faulty.values():
        served.server.heal()
    helmops.reconcile()


def test_a_repository_that_fails_later_leaves_good_releases_ready(
    helmops: Helmops, faulty: dict[str, ChartRepository], chart_repository: ChartRepository
) -> None:
    declare_all(helmops, faulty, chart_repository.url)
    helmops.reconcile()
    for name, fault in FAULTS.items():
        faulty[name].publish("config", "1.1.0")
        faulty[name].server.fail(fault)
    helmops.reconcile("--with-source")
    for each in helmops.run("get", "releases", "-o", "json").json["items"]:
        assert Seen(each).is_ready
        assert helmops.data(each["metadata"]["name"])["chart"] == "1.0.0"


def test_a_chart_that_is_not_what_the_index_says_is_refused(
    helmops: Helmops, chart_repository: ChartRepository, charts: dict[str, Any]
) -> None:
    helmops.declare(charts, release("lie"), release("app", "web"))
    chart_repository.list_wrong_digest("config", "1.0.0")
    helmops.reconcile(status=1)
    assert helmops.see("app").is_ready
    assert "not the one that the index describes" in helmops.see("lie").message
    assert helmops.revisions("lie") == {}


def hostile_archive(name: str) -> bytes:
    """A chart of version 1.0.0 with a file that leaves its directory."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for path, text in (
            (f"{name}/Chart.yaml", f"apiVersion: v2\nname: {name}\nversion: 1.0.0\n"),
            (f"{name}/../../../../outside", "was here"),
        ):
            entry = tarfile.TarInfo(path)
            entry.size = len(text)
            archive.addfile(entry, io.BytesIO(text.encode()))
    return packed.getvalue()


def test_a_chart_that_leaves_its_directory_is_refused(
    helmops: Helmops, chart_repository: ChartRepository, charts: dict[str, Any]
) -> None:
    packed = hostile_archive("hostile")
    with LoopbackServer(lambda request: Answer(200, packed)) as server:
        chart_repository.list_entry(
            "hostile",
            "1.0.0",
            urls=[f"{server.url}/hostile-1.0.0.tgz"],
            digest=hashlib.sha256(packed).hexdigest(),
        )
        helmops.declare(charts, release("hostile", "hostile"), release())
        helmops.reconcile(status=1)
    assert helmops.see("app").is_ready
    assert "outside" in helmops.see("hostile").message
    assert not list(helmops.directory.rglob("outside"))


# The state database ----------------------------------------------------------------------------


def test_a_state_file_that_is_deleted_takes_nothing_with_it_that_matters(
    helmops: Helmops, charts: dict[str, Any]
) -> None:
    def declared(number: int) -> None:
        values = {"data": {"number": number}}
        helmops.declare(charts, *(release(name, values=values) for name in ("app", "b", "c")))

    declared(1)
    with helmops.serve() as service:
        for name in ("app", "b", "c"):
            service.until_ready(name)
        declared(2)
        service.until_seen("c is upgraded", lambda seen: seen.history[0]["version"] == 2, "c")
        service.until_ready("c")
        helmops.run("rollback", "c")
        helmops.run("suspend", "b")
        for path in helmops.directory.glob("state.db*"):
            path.unlink()
        declared(3)
        until("app is upgraded", lambda: helmops.data("app")["number"] == "3")
        service.until_ready("app")
        assert service.terminate() == 0
    assert helmops.see("b").ours["suspended"]
    assert helmops.data("b")["number"] == "2"
    assert helmops.see("app").verdicts == {1: "healthy", 2: "healthy", 3: "healthy"}


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a file system")
def test_a_full_disk_under_the_state_stops_no_release(
    helmops: Helmops, charts: dict[str, Any]
) -> None:
    full = helmops.directory / "full"
    full.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", full], check=True)
    try:
        helmops.more_environment["HELMOPS_STATE"] = f"sqlite:///{full}/state.db"
        helmops.declare(charts, release())
        ended = helmops.reconcile()
        assert ended.stderr.count("the state file cannot") == 1
        assert helmops.revisions() == {1: "deployed"}
        assert helmops.see().is_ready
    finally:
        subprocess.run(["umount", full], check=True)
    helmops.reconcile()
    assert helmops.run("events", "app").status == 0
