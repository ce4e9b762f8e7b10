"""What changes behind one's back, and what is away: nothing in the cluster changes by itself."""

from __future__ import annotations

import json
from collections.abc import Callable

from devcluster.chart_server import ChartRepository
from tests.e2e.helmops_process import (
    RELEASE,
    SOURCE_API,
    Helmops,
    policy,
    release,
    repository,
)


def test_an_upgrade_runs_while_the_repository_is_down_when_its_chart_is_in_the_cache(
    helmops: Helmops, serve_charts: Callable[..., ChartRepository]
) -> None:
    with serve_charts() as served:
        served.publish("config", "1.0.0")
        helmops.declare(repository(served.url), release())
        helmops.reconcile()
    helmops.declare(repository(served.url), release(values={"data": {"added": "yes"}}))
    helmops.reconcile(status=None)  # each command is a new process
    assert helmops.data()["added"] == "yes"
    assert list(helmops.revisions().values()) == ["superseded", "deployed"]
    seen = helmops.see()
    assert seen.is_ready
    assert "FetchFailed" in json.dumps(helmops.run("get", "release", "app", "-o", "json").json)
    listed = helmops.run("cache", "ls", "-o", "json").json["entries"]
    assert {entry["kind"] for entry in listed} == {"chart", "index"}
    assert any(entry["name"].startswith("config-1.0.0 ") for entry in listed)


def test_a_withdrawn_version_and_a_changed_archive_are_held_until_somebody_says_so(
    helmops: Helmops, serve_charts: Callable[..., ChartRepository]
) -> None:
    """With a HelmChart between the release and its repository."""
    with serve_charts() as served:
        served.publish("config", "1.0.0")
        served.publish("config", "1.1.0")
        helm_chart = {
            "apiVersion": SOURCE_API,
            "kind": "HelmChart",
            "metadata": {"name": "config"},
            "spec": {
                "chart": "config",
                "interval": "1s",
                "sourceRef": {"kind": "HelmRepository", "name": "charts"},
            },
        }
        app = {
            **RELEASE,
            "metadata": {"name": "app"},
            "spec": {
                "interval": "1h",
                "timeout": "20s",
                "chartRef": {"kind": "HelmChart", "name": "config"},
            },
        }
        declared = [repository(served.url), helm_chart, app]
        helmops.declare(*declared)
        helmops.reconcile()
        assert helmops.data()["chart"] == "1.1.0"

        served.withdraw("config", "1.1.0")
        helmops.reconcile("--with-source", status=1)
        assert helmops.see().reason == "VersionYanked"
        assert helmops.data()["chart"] == "1.1.0"
        helmops.declare(*declared, policy(upgrade={"yank": "follow"}))
        helmops.reconcile("--with-source")
        assert helmops.data()["chart"] == "1.0.0"

        served.publish("config", "1.0.0", values={"data": {"said": "later"}})
        helmops.reconcile("--with-source", status=1)
        assert helmops.see().reason == "VersionRetagged"
        assert len(helmops.revisions()) == 2
        helmops.run("resume", "app")
        helmops.reconcile()
        assert helmops.data()["said"] == "later"
