"""The real helms: stopped in every way, releases of each other's, objects of every sort."""

from __future__ import annotations

import asyncio
import json
import math
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helmops.cluster.api import Api
from helmops.errors import (
    HelmDenied,
    HelmTimeout,
    HelmUnreachable,
    ObjectRefused,
)
from helmops.helm.client import Deadlines, HelmClient
from helmops.helm.storage import HelmStorage
from helmops.model.charts import ChartArtifact
from helmops.model.declarations import InstallSpec, UpgradeSpec
from helmops.model.releases import ReleaseId
from tests.fakes.cluster_state import FakeChart
from tests.fakes.helm_stages import LONG, Play, RealStage

GOOD = FakeChart(version="1.0.0")
BETTER = FakeChart(version="1.1.0")
STUCK = FakeChart(version="1.3.0", never_ready=True)
TESTED = FakeChart(version="1.4.0", tests=["a"])
HERE = str(Path(__file__).resolve().parents[2])
SHORT = timedelta(seconds=20)


@pytest.fixture
async def api(kubeconfig: Path) -> AsyncIterator[Api]:
    async with await Api.connect(kubeconfig=str(kubeconfig)) as connected:
        yield connected


@pytest.fixture
def client_of(kubeconfig: Path, tmp_path: Path) -> Callable[..., HelmClient]:
    def make(helm: Path, **options: Any) -> HelmClient:
        settings = {
            "runtime_dir": tmp_path / "runtime",
            "executable": str(helm),
            "kubeconfig": kubeconfig,
        }
        return HelmClient(**{**settings, **options})

    return make


@pytest.fixture
def play_of(
    api: Api, namespace: str, tmp_path: Path, client_of: Callable[..., HelmClient]
) -> Callable[..., Play]:
    def make(helm: Path, **options: Any) -> Play:
        storage = HelmStorage(api)
        stage = RealStage(namespace, client_of(helm, **options), storage, tmp_path / "charts")
        return Play(stage)

    return make


def artifact(path: Path) -> ChartArtifact:
    return ChartArtifact(path.name, "1.0.0", str(path), "", "Directory/charts")


def is_alive(pid: int) -> bool:
    with suppress(OSError):
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    return False


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110 (another process does it)
            await asyncio.sleep(0.02)


# Stopped


async def test_a_cancelled_upgrade_ends_within_a_second(
    helm: Path, play_of: Callable[..., Play]
) -> None:
    play = play_of(helm)
    await play.install(GOOD)
    task = await play.stage.stuck("upgrade", play.upgrade(STUCK, timeout=LONG))
    before = time.monotonic()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert time.monotonic() - before < 1
    assert await play.statuses() == {1: "deployed", 2: "failed"}


async def test_a_helm_over_its_deadline_is_stopped_and_marks_its_revision(
    helm: Path, play_of: Callable[..., Play]
) -> None:
    play = play_of(helm, deadlines=Deadlines(factor=0, margin=timedelta(seconds=4)))
    await play.install(GOOD)
    with pytest.raises(HelmTimeout):
        await play.upgrade(STUCK, timeout=LONG)
    assert await play.statuses() == {1: "deployed", 2: "failed"}


KILLED = """
import asyncio, json, sys
from datetime import timedelta
from pathlib import Path
from helmops.helm.client import HelmClient
from helmops.model.charts import ChartArtifact
from helmops.model.declarations import InstallSpec, RollbackSpec, UpgradeSpec
from helmops.model.releases import ReleaseId

given = json.loads(sys.argv[1])
client = HelmClient(
    runtime_dir=Path(given["runtime"]), executable=given["helm"], kubeconfig=given["kubeconfig"]
)
release = ReleaseId(given["namespace"], "app")
chart = ChartArtifact("app", "1", given["chart"], "", "")
options = {"timeout": timedelta(seconds=60), "description": ""}
asyncio.run(
    client.rollback(release, 1, RollbackSpec(), **options)
    if given["operation"] == "rollback"
    else getattr(client, given["operation"])(
        release, chart, {}, {"install": InstallSpec, "upgrade": UpgradeSpec}[given["operation"]](),
        **options
    )
)
"""


@pytest.mark.parametrize(
    ("operation", "number", "left"),
    [
        # helm dies of SIGPIPE while it says that it was cancelled, before or after it marked it
        ("install", 1, {"failed", "pending-install"}),
        ("upgrade", 3, {"failed", "pending-upgrade"}),
        ("rollback", 3, {"pending-rollback"}),
    ],
)
async def test_killing_helmops_takes_its_helm_with_it(
    helm: Path,
    play_of: Callable[..., Play],
    kubeconfig: Path,
    tmp_path: Path,
    operation: str,
    number: int,
    left: set[str],
) -> None:
    play = play_of(helm)
    if operation != "install":
        await play.install(STUCK, disable_wait=True)
        await play.upgrade(GOOD)
    given = {
        "runtime": str(tmp_path / "runtime"),
        "helm": str(helm),
        "kubeconfig": str(kubeconfig),
        "namespace": play.stage.release.namespace,
        "chart": play.stage.publish(STUCK).path,
        "operation": operation,
    }
    environment = {**os.environ, "PYTHONPATH": HERE}
    helmops = await asyncio.create_subprocess_exec(
        sys.executable, "-c", KILLED, json.dumps(given), env=environment
    )
    locks = tmp_path / "runtime" / "locks"
    lock = locks / f"{play.stage.release.namespace}.app.lock"
    async with asyncio.timeout(30):
        while not (await play.statuses()).get(number, "").startswith("pending"):  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    assert play.stage.helm.is_running(play.stage.release)
    pid = int(lock.read_text())

    helmops.kill()
    await helmops.wait()

    await until(lambda: not is_alive(pid))
    # The kernel lets go of the lock when the last of helm's threads is gone.
    await until(lambda: not play.stage.helm.is_running(play.stage.release))
    assert (await play.statuses())[number] in left


async def test_a_helm_that_survives_its_helmops_is_found_again(
    helm: Path, play_of: Callable[..., Play], tmp_path: Path
) -> None:
    """As when it hangs in a system call and does not hear SIGTERM: here it is stopped."""
    play = play_of(helm)
    await play.install(GOOD)
    task = await play.stage.stuck("upgrade", play.upgrade(STUCK, timeout=LONG))
    lock = tmp_path / "runtime" / "locks" / f"{play.stage.release.namespace}.app.lock"
    pid = int(lock.read_text())
    later = play_of(helm)
    assert later.stage.helm.is_running(later.stage.release)
    os.kill(pid, signal.SIGSTOP)
    try:
        assert later.stage.helm.is_running(later.stage.release)
    finally:
        os.kill(pid, signal.SIGCONT)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not later.stage.helm.is_running(later.stage.release)


# Helm 3 and 4 on one release


@pytest.mark.parametrize("order", ["3 then 4", "4 then 3"])
async def test_each_helm_goes_on_with_the_releases_of_the_other(
    helm3: Path, helm4: Path, play_of: Callable[..., Play], order: str
) -> None:
    first, then = (helm3, helm4) if order == "3 then 4" else (helm4, helm3)
    one, two = play_of(first), play_of(then)
    await one.install(TESTED, {"a": 1})
    digest = (await one.revisions())[1].digest

    await two.upgrade(BETTER, {"a": 1})
    await two.rollback(1)
    await two.test()
    await one.upgrade(TESTED, {"a": 1})
    await one.rollback(3)

    revisions = await two.revisions()
    assert [each.status.value for each in revisions.values()] == ["superseded"] * 4 + ["deployed"]
    assert revisions[1].digest == revisions[3].digest == revisions[5].digest == digest
    assert revisions[4].config_digest == revisions[1].config_digest
    await one.uninstall()
    assert await two.statuses() == {}


async def test_helm_4_goes_on_applying_as_the_last_revision_was(
    helm3: Path, helm4: Path, play_of: Callable[..., Play]
) -> None:
    old, new = play_of(helm3), play_of(helm4)
    storage = new.stage.storage
    assert isinstance(storage, HelmStorage)
    await old.install(GOOD)
    assert await storage.apply_method(new.stage.release, None) == ""
    await new.upgrade(BETTER, force=True)
    assert await storage.apply_method(new.stage.release, None) == "csa"
    await new.upgrade(GOOD, server_side_apply="enabled", force=True)
    assert await storage.apply_method(new.stage.release, None) == "ssa"
    await new.upgrade(BETTER, force=True)
    assert await storage.apply_method(new.stage.release, None) == "ssa"
    await new.rollback(1, force=True)
    assert await storage.apply_method(new.stage.release, None) == "csa"


async def test_a_field_that_somebody_else_took_is_taken_back(
    helm4: Path, play_of: Callable[..., Play], api: Api
) -> None:
    play = play_of(helm4)
    await play.install(GOOD)
    namespace = play.stage.release.namespace
    change = {"apiVersion": "v1", "kind": "ConfigMap", "data": {"version": "by hand"}}
    await api.patch(
        *("v1", "ConfigMap", "app", namespace, change),
        how="apply",
        force=True,
        field_manager="somebody",
    )
    await play.upgrade(BETTER)
    found = await api.get("v1", "ConfigMap", "app", namespace)
    assert found is not None
    assert found["data"]["version"] == "1.1.0"


# Rendering


async def test_a_rendering_sees_the_cluster(
    helm: Path, client_of: Callable[..., HelmClient], namespace: str, tmp_path: Path, api: Api
) -> None:
    chart = tmp_path / "looking"
    (chart / "templates").mkdir(parents=True)
    (chart / "Chart.yaml").write_text("apiVersion: v2\nname: looking\nversion: 1.0.0\n")
    (chart / "templates" / "all.yaml").write_text(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndata:\n"
        '  found: {{ (lookup "v1" "ConfigMap" .Release.Namespace "there").data.key | quote }}\n'
        "  version: {{ .Capabilities.KubeVersion.Version | quote }}\n"
        '  has: {{ .Capabilities.APIVersions.Has "apps/v1" | quote }}\n'
        "  upgrade: {{ .Release.IsUpgrade | quote }}\n"
    )
    there = {"apiVersion": "v1", "kind": "ConfigMap", "data": {"key": "value"}}
    await api.create({**there, "metadata": {"name": "there", "namespace": namespace}})
    (rendered,) = await client_of(helm).render(
        ReleaseId(namespace, "app"), artifact(chart), {}, is_upgrade=True
    )
    assert rendered["data"] == {
        "found": "value",
        "version": await api.server_version(),
        "has": "true",
        "upgrade": "true",
    }


async def test_what_is_rendered_is_what_is_stored(
    helm: Path, play_of: Callable[..., Play], charts: Path
) -> None:
    play = play_of(helm)
    client, release = play.stage.helm, play.stage.release
    chart, values = artifact(charts / "web"), {"message": "yes", "replicas": 2}
    before = await client.render(release, chart, values, is_upgrade=False)
    spec = InstallSpec(disable_wait=True)
    await client.install(release, chart, values, spec, timeout=SHORT, description="")
    assert await play.stage.storage.objects(release, 1) == before
    assert await client.render(release, chart, values, is_upgrade=True) == before


async def test_objects_of_a_kind_that_the_chart_brings_are_rendered_and_installed(
    helm: Path, play_of: Callable[..., Play], tmp_path: Path, kubectl: Path, kubeconfig: Path
) -> None:
    group = f"t{secrets.token_hex(4)}.example.test"
    chart = tmp_path / "crds"
    for folder in ("crds", "templates"):
        (chart / folder).mkdir(parents=True)
    (chart / "Chart.yaml").write_text("apiVersion: v2\nname: crds\nversion: 1.0.0\n")
    schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    definition = {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"widgets.{group}"},
        "spec": {
            "group": group,
            "scope": "Namespaced",
            "names": {"kind": "Widget", "plural": "widgets", "singular": "widget"},
            "versions": [
                {
                    "name": "v1",
                    "served": True,
                    "storage": True,
                    "schema": {"openAPIV3Schema": schema},
                }
            ],
        },
    }
    (chart / "crds" / "widget.yaml").write_text(json.dumps(definition))
    (chart / "templates" / "widget.yaml").write_text(
        f"apiVersion: {group}/v1\nkind: Widget\nmetadata: {{name: a}}\n"
    )
    play = play_of(helm)
    client, release = play.stage.helm, play.stage.release
    try:
        (widget,) = await client.render(release, artifact(chart), {}, is_upgrade=False)
        assert widget["kind"] == "Widget"
        options: dict[str, Any] = {"timeout": SHORT, "description": ""}
        with pytest.raises(ObjectRefused, match="no kind Widget"):
            await client.install(release, artifact(chart), {}, InstallSpec(crds="Skip"), **options)
        await client.install(release, artifact(chart), {}, InstallSpec(), **options)
        assert await play.statuses() == {1: "deployed"}
    finally:
        await asyncio.to_thread(
            subprocess.run,
            [kubectl, "--kubeconfig", kubeconfig, "delete", "crd", f"widgets.{group}"],
            check=False,
        )


# Values

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
NUMBERS = st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False)
LEAVES = TEXTS | NUMBERS | st.booleans()
VALUES = st.dictionaries(
    TEXTS.filter(lambda key: "\0" not in key),
    st.recursive(
        LEAVES,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
        max_leaves=8,
    ),
    max_size=4,
)


@pytest.fixture(scope="module")
def showing(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A chart that shows the values that helm has."""
    chart = tmp_path_factory.mktemp("charts") / "showing"
    (chart / "templates").mkdir(parents=True)
    (chart / "Chart.yaml").write_text("apiVersion: v2\nname: showing\nversion: 1.0.0\n")
    (chart / "templates" / "all.yaml").write_text(
        "kind: Shown\nvalues: {{ .Values.given | toJson | b64enc }}\n"
    )
    return chart


@pytest.fixture(params=["helm4", "helm3"], scope="module")
def any_helm(request: pytest.FixtureRequest, _tools: dict[str, Path]) -> Path:
    return _tools[{"helm4": "helm"}.get(request.param, request.param)]


@settings(max_examples=25, deadline=None)
@given(values=st.lists(VALUES, min_size=10, max_size=30))
def test_values_reach_helm_as_they_are(
    any_helm: Path, showing: Path, values: list[dict[str, Any]]
) -> None:
    import base64

    from helmops.helm.documents import encode_values

    done = subprocess.run(
        [any_helm, "template", "x", showing, "--values", "-"],
        input=encode_values({"given": values}),
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    encoded = done.stdout.decode().rpartition("values: ")[2].strip()
    assert same(json.loads(base64.b64decode(encoded)), values)


def same(one: Any, two: Any) -> bool:
    """Equal as Helm counts: every number is a 64-bit float."""
    if isinstance(one, dict) and isinstance(two, dict):
        return one.keys() == two.keys() and all(same(one[key], two[key]) for key in one)
    if isinstance(one, list) and isinstance(two, list):
        return len(one) == len(two) and all(map(same, one, two))
    if isinstance(one, bool) or isinstance(two, bool):
        return one is two
    if isinstance(one, int | float) and isinstance(two, int | float):
        return math.isclose(one, two, rel_tol=1e-15)
    return bool(one == two)


# Trouble with the cluster


async def test_a_server_that_is_gone_is_said_so(
    helm: Path, client_of: Callable[..., HelmClient], namespace: str, charts: Path
) -> None:
    client = client_of(helm, environment={"HELM_KUBEAPISERVER": "https://127.0.0.1:1"})
    with pytest.raises(HelmUnreachable):
        await client.upgrade(
            ReleaseId(namespace, "app"),
            artifact(charts / "config"),
            {},
            UpgradeSpec(server_side_apply="disabled"),
            timeout=SHORT,
            description="",
        )


async def test_a_token_is_used_and_a_bad_one_refused(
    helm: Path, client_of: Callable[..., HelmClient], namespace: str, charts: Path
) -> None:
    client = client_of(helm, environment={"HELM_KUBETOKEN": "nonsense"})
    with pytest.raises(HelmDenied):
        await client.install(
            ReleaseId(namespace, "app"),
            artifact(charts / "config"),
            {},
            InstallSpec(),
            timeout=SHORT,
            description="",
        )


# Charts in directories
