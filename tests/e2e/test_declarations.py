"""What is declared, and what is wrong with it: an error hurts its own release, and says where."""

from __future__ import annotations

from typing import Any

import pytest

from devcluster.chart_server import ChartRepository
from devcluster.git_server import GitHttpServer, GitRepository
from tests.e2e.helmops_process import (
    Helmops,
    Seen,
    config_map,
    documents,
    policy,
    release,
    repository,
    secret,
)


@pytest.fixture
def charts(chart_repository: ChartRepository) -> dict[str, Any]:
    return repository(chart_repository.url)


def seen_all(helmops: Helmops) -> dict[str, Seen]:
    listed = helmops.run("get", "releases", "-o", "json").json
    assert listed["kind"] == "List"
    return {each["metadata"]["name"]: Seen(each) for each in listed["items"]}


# Files that cannot be used

MALFORMED = "apiVersion: helm.toolkit.fluxcd.io/v2\nkind: [HelmRelease\n"
BROKEN_FILES = {
    "malformed": MALFORMED,
    "unknown-field": documents({**release("unknown-field"), "sepc": {}}),
    "wrong-type": documents(release("wrong-type", interval=[5])),
    "no-duration": documents(release("no-duration", timeout="soon")),
    "unknown-kind": "apiVersion: helm.toolkit.fluxcd.io/v2\nkind: HelmRelaese\n"
    "metadata: {name: unknown-kind}\n",
}


def test_bad_files_are_all_told_at_once_and_hurt_nobody_else(
    helmops: Helmops, charts: dict[str, Any]
) -> None:
    helmops.declare(charts, release(), file="good.yaml")
    for name, text in BROKEN_FILES.items():
        helmops.declare(text, file=f"{name}.yaml")
    ended = helmops.reconcile(status=2)
    for name in BROKEN_FILES:
        assert f"{name}.yaml:" in ended.stderr, name
    assert "sepc" in ended.stderr
    assert "did you mean" in ended.stderr
    assert helmops.see().is_ready


def test_the_releases_of_a_file_that_broke_stay_as_they_are(
    helmops: Helmops, charts: dict[str, Any]
) -> None:
    helmops.declare(charts, release("other"), file="good.yaml")
    helmops.declare(release(), policy(prune=True), file="app.yaml")
    helmops.reconcile()
    helmops.declare(MALFORMED, file="app.yaml")
    helmops.declare(charts, release("other", values={"data": {"message": "new"}}), file="good.yaml")
    helmops.reconcile(status=2)
    assert helmops.revisions("app") == {1: "deployed"}
    assert helmops.data("other")["message"] == "new"


# Declarations that can be read, and cannot be done

CANNOT_BE_DONE = {
    "no-source": (release("no-source", source="HelmRepository/nobody"), "", "nobody"),
    "no-chart": (release("no-chart", "nothing"), "", "nothing"),
    "no-version": (release("no-version", version=">=7.0.0"), "", ">=7.0.0"),
    "no-range": (release("no-range", version="=>x.y"), "InvalidVersionRange", "=>x.y"),
    "no-values": (
        release("no-values", valuesFrom=[{"kind": "ConfigMap", "name": "nothing"}]),
        "ValuesError",
        "nothing",
    ),
    "bad-values": (
        release("bad-values", "schema", values={"replicas": 99, "tier": "small"}),
        "InstallFailed",
        "replicas",
    ),
    "bad-template": (release("bad-template", "template-error"), "InstallFailed", "template"),
    "library": (release("library", "library"), "", "librar"),
    "not-yet": (
        release("not-yet", kubeConfig={"secretRef": {"name": "far-away"}}),
        "NotSupported",
        "kubeConfig",
    ),
    "no-such-dependency": (
        release("no-such-dependency", dependsOn=[{"name": "nobody"}]),
        "DependencyNotReady",
        "nobody",
    ),
}


def test_what_cannot_be_done_is_said_of_that_release_alone(
    helmops: Helmops, charts: dict[str, Any]
) -> None:
    helmops.declare(charts, release(), *(each for each, _, _ in CANNOT_BE_DONE.values()))
    helmops.reconcile(status=1)
    found = seen_all(helmops)
    assert found.pop("app").is_ready
    for name, (_, reason, word) in CANNOT_BE_DONE.items():
        told = found[name]
        assert not told.is_ready, name
        assert word in told.message, (name, told.message)
        assert reason in ("", told.reason), (name, told.reason, told.message)
        assert helmops.revisions(name) == {}, name


def test_releases_that_depend_on_each_other_never_begin(
    helmops: Helmops, charts: dict[str, Any]
) -> None:
    helmops.declare(
        charts,
        release("app"),
        release("this", dependsOn=[{"name": "that"}]),
        release("that", dependsOn=[{"name": "this"}]),
    )
    ended = helmops.reconcile(status=2)
    assert "in a circle" in ended.stderr
    assert helmops.see().is_ready
    assert helmops.revisions("this") == helmops.revisions("that") == {}


def test_a_namespace_that_is_missing_is_said_at_once_or_made_where_that_is_asked(
    helmops: Helmops, charts: dict[str, Any]
) -> None:
    elsewhere = f"{helmops.namespace}-made"
    helmops.more_environment["HELMOPS_WATCH_NAMESPACE"] = f"{helmops.namespace},{elsewhere}"
    helmops.declare(charts, release(targetNamespace=elsewhere))
    helmops.reconcile(status=1)
    assert "does not exist" in helmops.see().message
    try:
        helmops.declare(
            charts, release(targetNamespace=elsewhere, install={"createNamespace": True})
        )
        helmops.reconcile()
        assert helmops.see().is_ready
    finally:
        helmops.cluster.request("DELETE", f"/api/v1/namespaces/{elsewhere}")


# Values


def test_values_are_merged_in_flux_order(helmops: Helmops, charts: dict[str, Any]) -> None:
    helmops.declare(
        charts,
        config_map("first", **{"values.yaml": "data: {a: first, b: first, c: first, d: first}"}),
        secret("second", **{"more.yaml": "data: {b: second, c: second, d: second}"}),
        config_map("path", answer="from,a,path"),
        release(
            values={"data": {"c": "inline", "d": "inline"}},
            valuesFrom=[
                {"kind": "ConfigMap", "name": "first"},
                {"kind": "Secret", "name": "second", "valuesKey": "more.yaml"},
                {
                    "kind": "ConfigMap",
                    "name": "path",
                    "valuesKey": "answer",
                    "targetPath": "data.d",
                    "literal": True,
                },
                {"kind": "Secret", "name": "nobody", "optional": True},
                {"kind": "File", "path": "values/app.yaml"},
            ],
        ),
    )
    values = helmops.declarations / "values"
    values.mkdir()
    (values / "app.yaml").write_text("data: {e: file}\n")
    helmops.reconcile()
    data = helmops.data()
    assert (data["a"], data["b"], data["c"], data["d"], data["e"]) == (
        *("first", "second", "inline", "from,a,path", "file"),
    )


def test_values_in_the_cluster_are_read_too(helmops: Helmops, charts: dict[str, Any]) -> None:
    made = config_map("there", **{"values.yaml": "data: {answer: from the cluster}"})
    helmops.cluster.request("POST", f"/api/v1/namespaces/{helmops.namespace}/configmaps", made)
    helmops.declare(charts, release(valuesFrom=[{"kind": "ConfigMap", "name": "there"}]))
    helmops.reconcile()
    assert helmops.data()["answer"] == "from the cluster"


# Versions


def test_the_newest_version_in_range_is_chosen_and_followed(
    helmops: Helmops, chart_repository: ChartRepository, charts: dict[str, Any]
) -> None:
    for version in ("1.1.0", "1.2.0-rc.1", "2.0.0"):
        chart_repository.publish("config", version)
    helmops.declare(charts, release(version="1.x"))
    helmops.reconcile()
    assert helmops.data()["chart"] == "1.1.0"
    chart_repository.publish("config", "1.1.1")
    helmops.reconcile("--with-source")
    assert helmops.data()["chart"] == "1.1.1"


def test_without_a_version_no_new_major_comes_by_itself(
    helmops: Helmops, chart_repository: ChartRepository, charts: dict[str, Any]
) -> None:
    helmops.declare(charts, release())
    helmops.reconcile()
    chart_repository.publish("config", "1.9.0")
    chart_repository.publish("config", "2.0.0")
    helmops.reconcile("--with-source")
    assert helmops.data()["chart"] == "1.9.0"
    assert any("2.0.0" in each for each in helmops.see().ours["heldBack"])
    helmops.declare(charts, release(), policy(upgrade={"allow": "major"}))
    helmops.reconcile()
    assert helmops.data()["chart"] == "2.0.0"


def test_an_older_version_is_held_until_resume(
    helmops: Helmops, chart_repository: ChartRepository, charts: dict[str, Any]
) -> None:
    chart_repository.publish("config", "1.1.0")
    helmops.declare(charts, release(version="1.1.0"))
    helmops.reconcile()
    helmops.declare(charts, release(version="1.0.0"))
    helmops.reconcile(status=1)
    assert helmops.see().reason == "DowngradeHeld"
    assert helmops.data()["chart"] == "1.1.0"
    helmops.run("resume", "app")
    helmops.reconcile()
    assert helmops.data()["chart"] == "1.0.0"


# Charts from elsewhere


def test_a_chart_beside_its_declaration_is_released_with_its_dependencies(
    helmops: Helmops, chart_repository: ChartRepository
) -> None:
    import shutil

    from tests.e2e.test_faults import CHARTS

    for name in ("with-dependency", "config"):
        shutil.copytree(CHARTS / name, helmops.declarations / "charts" / name)
    helmops.declare(release(chart="with-dependency", source="Directory/charts"))
    helmops.reconcile()
    assert helmops.data("app")["message"] == "from the parent"
    assert helmops.data("app-parent")["chart"] == "1.0.0"


def test_a_chart_and_values_in_git_are_followed(
    helmops: Helmops, git_repository: GitRepository, serve_git: Any
) -> None:
    from tests.e2e.test_faults import CHARTS

    git_repository.commit_folder(CHARTS / "config", "charts/config")
    git_repository.commit({"env/prod.yaml": "data: {where: production}\n"})
    server: GitHttpServer = serve_git()
    source = {
        "apiVersion": "source.toolkit.fluxcd.io/v1",
        "kind": "GitRepository",
        "metadata": {"name": "code"},
        "spec": {"url": server.url(git_repository), "interval": "1s", "ref": {"branch": "main"}},
    }
    app = release(
        chart="charts/config",
        source="GitRepository/code",
        valuesFrom=[{"kind": "GitRepository", "name": "code", "path": "env/prod.yaml"}],
    )
    helmops.declare(source, app)
    helmops.reconcile()
    assert helmops.data()["where"] == "production"
    git_repository.commit({"env/prod.yaml": "data: {where: elsewhere}\n"})
    helmops.reconcile("--with-source")
    assert helmops.data()["where"] == "elsewhere"


# Declarations in Git


@pytest.fixture
def in_git(
    helmops: Helmops, git_repository: GitRepository, charts: dict[str, Any]
) -> tuple[Helmops, GitRepository]:
    """helmops that reads its declarations from a Git repository; `app` is released and pruned."""
    text = documents(charts, release(), policy(prune=True))
    git_repository.commit({"prod/app.yaml": text, "README": "hello\n"})
    helmops.filenames = (f"git+{git_repository.file_url}?ref=main&path=prod",)
    helmops.reconcile()
    assert helmops.see().is_ready
    return helmops, git_repository


def test_a_pushed_commit_is_released(in_git: tuple[Helmops, GitRepository]) -> None:
    helmops, git = in_git
    text = (git.work / "prod/app.yaml").read_text()
    git.commit({"prod/app.yaml": text.replace("interval: 1h", "interval: 2h", 1)})
    helmops.reconcile()
    assert helmops.see().manifest["spec"]["interval"] == "2h"


def test_a_branch_that_is_force_pushed_is_followed(in_git: tuple[Helmops, GitRepository]) -> None:
    helmops, git = in_git
    before = git.head()
    text = (git.work / "prod/app.yaml").read_text()
    git.commit({"prod/app.yaml": text.replace("interval: 1h", "interval: 2h", 1)})
    helmops.reconcile()
    git.rewrite("main", before)
    helmops.reconcile()
    assert helmops.see().manifest["spec"]["interval"] == "1h"


@pytest.mark.parametrize("trouble", ["empty", "no-path", "no-branch", "unreachable"])
def test_declarations_that_cannot_be_had_remove_nothing(
    in_git: tuple[Helmops, GitRepository], trouble: str
) -> None:
    helmops, git = in_git
    match trouble:
        case "empty":
            git.commit({"prod/app.yaml": "", "README": "hello\n"})
        case "no-path":
            git.commit({"prod/app.yaml": None})
        case "no-branch":
            helmops.filenames = (helmops.filenames[0].replace("ref=main", "ref=gone"),)
        case _:
            git.bare.rename(git.bare.with_name("away.git"))
    ended = helmops.reconcile(status=2)
    assert "git+file" in ended.stderr or ".yaml" in ended.stderr
    assert helmops.revisions() == {1: "deployed"}
    assert helmops.get("configmaps/app") is not None
