"""What every test may ask for: the shared cluster, both helms, and servers on loopback.

Whatever test uses one of these is marked `e2e` by itself.
"""

import contextlib
import fcntl
import os
import secrets
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
# For `tests.fakes` and `devcluster`, which are not installed.
sys.path.insert(0, str(ROOT))

from devcluster import cluster as devcluster  # noqa: E402
from devcluster import paths, tools  # noqa: E402
from devcluster.certificates import Authority  # noqa: E402
from devcluster.chart_server import ChartRepository  # noqa: E402
from devcluster.errors import ToolMissing  # noqa: E402
from devcluster.git_server import GitHttpServer, GitRepository, GitSshServer  # noqa: E402
from devcluster.prometheus import Prometheus  # noqa: E402
from devcluster.prometheus import find as find_prometheus  # noqa: E402

CHARTS = ROOT / "fixtures" / "charts"
_REAL_PARTS = {
    "cluster",
    "private_cluster",
    "_tools",
    "serve_charts",
    "git_repository",
    "_prometheus_program",
}


def pytest_configure(config: pytest.Config) -> None:
    """Keep this person's clusters, helm settings and Git configuration out of every test."""
    os.environ["KUBECONFIG"] = "/nonexistent/kubeconfig-of-nobody"
    os.environ["GIT_CONFIG_GLOBAL"] = os.devnull
    os.environ["GIT_CONFIG_NOSYSTEM"] = "1"
    os.environ["GIT_TERMINAL_PROMPT"] = "0"
    for name in [name for name in os.environ if name.startswith(("HELM_", "HELMOPS_"))]:
        if name != "HELMOPS_TEST_CLUSTER":
            del os.environ[name]
    if not hasattr(config, "workerinput"):
        config.stash[_SHARED] = _SharedCluster()


def pytest_unconfigure(config: pytest.Config) -> None:
    """Let the shared cluster go; the last of several test runs stops it."""
    if shared := config.stash.get(_SHARED, None):
        shared.release()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if not _REAL_PARTS.isdisjoint(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.e2e)


class _SharedCluster:
    """This test run's share in the cluster that all test runs on this machine have together.

    A run holds a lock while it goes on, which ends with it however it ends. Who gets the lock alone
    at the end stops the cluster, unless a person had started it (`python -m devcluster up --name
    tests`).
    """

    def __init__(self) -> None:
        directory = paths.state(_name())
        directory.parent.mkdir(parents=True, mode=0o700, exist_ok=True)
        self._marker = directory / "started-by-tests"
        # Beside the cluster's folder, because that is deleted while the lock is held.
        self._users = directory.with_name(f"{directory.name}.users").open("w")
        fcntl.flock(self._users, fcntl.LOCK_SH)

    def release(self) -> None:
        with self._users:
            try:
                fcntl.flock(self._users, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return
            if self._marker.exists():
                devcluster.remove(devcluster.Cluster(paths.state(_name())))


_SHARED = pytest.StashKey[_SharedCluster]()


def _name() -> str:
    return os.environ.get("HELMOPS_TEST_CLUSTER", "tests")


def _say(text: str) -> None:
    print(text, file=sys.__stderr__, flush=True)


@pytest.fixture(scope="session")
def cluster() -> devcluster.Cluster:
    """The cluster that all tests share, started by the first that needs it.

    Leave it as you found it: work in `namespace`, and take a `private_cluster` to break things.
    """
    directory = paths.state(_name())
    if not devcluster.Cluster(directory).running():
        directory.mkdir(mode=0o700, exist_ok=True)
        (directory / "started-by-tests").touch()
    return devcluster.start(directory, _say)


@pytest.fixture
def private_cluster(tmp_path: Path) -> Iterator[devcluster.Cluster]:
    """A cluster of this test's own, to break as it likes; takes some five seconds."""
    own = devcluster.start(tmp_path / "cluster", _say)
    yield own
    devcluster.remove(own)


@pytest.fixture
def kubeconfig(cluster: devcluster.Cluster) -> Path:
    """The shared cluster's kubeconfig; may do everything there."""
    return cluster.kubeconfig


@pytest.fixture
def make_namespace(cluster: devcluster.Cluster) -> Iterator[Callable[[], str]]:
    """Makes namespaces of this test's own; they are deleted at its end, which is not waited for."""
    made: list[str] = []

    def make() -> str:
        made.append(f"t-{secrets.token_hex(5)}")
        cluster.request("POST", "/api/v1/namespaces", {"metadata": {"name": made[-1]}})
        return made[-1]

    yield make
    for name in made:
        cluster.request("DELETE", f"/api/v1/namespaces/{name}")


@pytest.fixture
def namespace(make_namespace: Callable[[], str]) -> str:
    """A fresh namespace of the shared cluster."""
    return make_namespace()


@pytest.fixture(scope="session")
def _tools() -> dict[str, Path]:
    return tools.find_all(_say)


@pytest.fixture(scope="session")
def helm4(_tools: dict[str, Path]) -> Path:
    """The helm of version 4."""
    return _tools["helm"]


@pytest.fixture(scope="session")
def helm3(_tools: dict[str, Path]) -> Path:
    """The helm of version 3."""
    return _tools["helm3"]


@pytest.fixture(scope="session")
def kubectl(_tools: dict[str, Path]) -> Path:
    """A kubectl that fits the cluster."""
    return _tools["kubectl"]


@pytest.fixture(params=["helm4", "helm3"])
def helm(request: pytest.FixtureRequest, _tools: dict[str, Path]) -> Path:
    """Either helm: a test that takes this runs once with each."""
    return _tools[{"helm4": "helm"}.get(request.param, request.param)]


@pytest.fixture(scope="session")
def charts() -> Path:
    """The folder of our own charts."""
    return CHARTS


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """A certificate authority of the tests' own, which nobody trusts unless told to."""
    return Authority.create(tmp_path_factory.mktemp("authority"), "helmops tests")


@pytest.fixture
def serve_charts() -> Iterator[Callable[..., ChartRepository]]:
    """Starts chart repositories of our own charts; the options are ChartRepository's.

    For TLS: `serve_charts(tls=authority.issue("server"), client_ca=authority.certificate)`.
    """
    with contextlib.ExitStack() as stack:

        def serve(**options: Any) -> ChartRepository:
            return stack.enter_context(ChartRepository(CHARTS, **options))

        yield serve


@pytest.fixture
def chart_repository(serve_charts: Callable[..., ChartRepository]) -> ChartRepository:
    """A chart repository with each of our charts as 1.0.0; `publish` more, `server.fail` it."""
    repository = serve_charts()
    repository.publish_all()
    return repository


@pytest.fixture
def git_repository(tmp_path: Path) -> GitRepository:
    """An empty Git repository; `commit` to it, clone it from its `file_url`."""
    return GitRepository(tmp_path / "git")


@pytest.fixture
def serve_git(tmp_path: Path) -> Iterator[Callable[..., GitHttpServer]]:
    """Serves the folder of `git_repository` by `git http-backend`; options as LoopbackServer's."""
    with contextlib.ExitStack() as stack:

        def serve(**options: Any) -> GitHttpServer:
            return stack.enter_context(GitHttpServer(tmp_path / "git", **options))

        yield serve


@pytest.fixture
def git_over_ssh(tmp_path: Path) -> Iterator[GitSshServer]:
    """OpenSSH's server over the folder of `git_repository`; skips where it is not installed."""
    try:
        server = GitSshServer(tmp_path / "git", tmp_path / "ssh")
    except ToolMissing as missing:
        pytest.skip(str(missing))
    with server:
        yield server


@pytest.fixture(scope="session")
def _prometheus_program() -> Path:
    try:
        return find_prometheus(_say)
    except ToolMissing as missing:
        pytest.skip(str(missing))


@pytest.fixture(scope="session")
def prometheus(
    _prometheus_program: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Prometheus]:
    """A real Prometheus, whose samples tests `set`; skips where there is none to be had."""
    with Prometheus(_prometheus_program, tmp_path_factory.mktemp("prometheus")) as one:
        yield one


@pytest.fixture
def serve_prometheus(
    _prometheus_program: Path, tmp_path: Path
) -> Iterator[Callable[..., Prometheus]]:
    """Starts a Prometheus of this test's own; for HTTPS and a login, which `prometheus` has not."""
    with contextlib.ExitStack() as stack:

        def serve(**options: Any) -> Prometheus:
            own = Prometheus(_prometheus_program, tmp_path / "prometheus", **options)
            return stack.enter_context(own)

        yield serve
