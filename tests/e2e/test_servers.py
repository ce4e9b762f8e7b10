"""The servers of the tests serve real clients, and fail in the ways they are told to."""

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import requests
import yaml

from devcluster.certificates import Authority
from devcluster.chart_server import ChartRepository
from devcluster.errors import DevclusterError
from devcluster.git_server import GitHttpServer, GitRepository, GitSshServer, git
from devcluster.loopback import Fault

Serve = Callable[..., ChartRepository]


def _index(repository: ChartRepository, **options: object) -> requests.Response:
    return requests.get(f"{repository.url}/index.yaml", timeout=5, **options)  # type: ignore[arg-type]


def test_helm_pulls_a_chart_with_its_dependency(
    helm: Path, chart_repository: ChartRepository, tmp_path: Path
) -> None:
    command = [str(helm), "pull", "with-dependency", "--repo", chart_repository.url, "--untar"]
    environment = {"HOME": str(tmp_path)}
    subprocess.run(command, cwd=tmp_path, env=environment, check=True, capture_output=True)
    assert (tmp_path / "with-dependency" / "charts" / "config-1.0.0.tgz").exists()


def test_helm_lints_what_was_packaged_with_other_values(
    helm4: Path, chart_repository: ChartRepository, tmp_path: Path
) -> None:
    packed = chart_repository.publish("config", "2.0.0-rc.1", values={"data": {"a": 1}})
    (tmp_path / packed.filename).write_bytes(packed.data)
    command = [str(helm4), "template", "r", packed.filename]
    environment = {"HOME": str(tmp_path)}
    shown = subprocess.run(
        command, cwd=tmp_path, env=environment, check=True, capture_output=True, text=True
    )
    assert 'a: "1"' in shown.stdout
    assert 'chart: "2.0.0-rc.1"' in shown.stdout


def test_helm_with_a_client_certificate_is_served_and_without_it_is_not(
    helm: Path, serve_charts: Serve, authority: Authority, tmp_path: Path
) -> None:
    repository = serve_charts(
        tls=authority.issue("server"), client_ca=authority.certificate, live=True
    )
    client = authority.issue("client", also=())
    pull = [str(helm), "pull", "config", "--repo", repository.url, "--ca-file"]
    pull.append(str(authority.certificate))
    shows = ["--cert-file", str(client.certificate), "--key-file", str(client.key)]
    environment = {"HOME": str(tmp_path)}
    codes = [
        subprocess.run(
            command, cwd=tmp_path, env=environment, check=False, capture_output=True
        ).returncode
        for command in ([*pull, *shows], pull)
    ]
    assert codes == [0, 1]


def test_who_has_the_index_is_told_so_and_counted(chart_repository: ChartRepository) -> None:
    etag = _index(chart_repository).headers["ETag"]
    known = {"If-None-Match": etag}
    assert _index(chart_repository, headers=known).status_code == 304
    chart_repository.publish("config", "1.1.0")
    assert _index(chart_repository, headers=known).status_code == 200
    server = chart_repository.server
    assert server.count("/index.yaml") == 3
    assert server.count(status=304) == 1


def test_only_who_knows_the_password_is_served(serve_charts: Serve) -> None:
    repository = serve_charts(live=True, user="reader", password="s3cret")
    assert _index(repository).status_code == 401
    assert _index(repository, auth=("reader", "wrong")).status_code == 401
    assert _index(repository, auth=("reader", "s3cret")).status_code == 200


@pytest.mark.parametrize("status", [401, 403, 404, 429, 500, 503])
def test_a_status_is_answered_as_often_as_was_asked(
    chart_repository: ChartRepository, status: int
) -> None:
    chart_repository.server.fail(Fault(status=status, times=2, headers={"Retry-After": "7"}))
    answers = [_index(chart_repository) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [status, status, 200]
    assert answers[0].headers["Retry-After"] == "7"


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (Fault(drop=True), requests.ConnectionError),
        (Fault(garbage=True), requests.ConnectionError),
        (Fault(truncate=True), requests.exceptions.ChunkedEncodingError),
        (Fault(slow=60), requests.ReadTimeout),
        (Fault(trickle=60), requests.ConnectionError),
    ],
    ids=["dropped", "garbage", "truncated", "slow", "trickling"],
)
def test_a_connection_breaks_as_asked_and_only_on_its_path(
    chart_repository: ChartRepository, fault: Fault, error: type[Exception]
) -> None:
    fault.path = "/index.*"
    with chart_repository.server.failing(fault):
        package = f"{chart_repository.url}/charts/config-1.0.0.tgz"
        assert requests.get(package, timeout=5).status_code == 200
        with pytest.raises(error):
            requests.get(f"{chart_repository.url}/index.yaml", timeout=0.3)
    assert _index(chart_repository).status_code == 200


def test_a_sign_in_page_comes_with_200(chart_repository: ChartRepository) -> None:
    chart_repository.server.fail(Fault(html=True))
    answer = _index(chart_repository)
    assert answer.status_code == 200
    assert answer.headers["Content-Type"].startswith("text/html")


def test_an_endless_body_goes_on_until_the_client_has_enough(
    chart_repository: ChartRepository,
) -> None:
    chart_repository.server.fail(Fault(endless=True))
    with _index(chart_repository, stream=True) as answer:
        taken = sum(len(next(answer.iter_content(65536))) for _ in range(50))
    assert taken > 1_000_000


def test_git_over_http_wants_the_password_and_takes_a_push(
    git_repository: GitRepository, serve_git: Callable[..., GitHttpServer], tmp_path: Path
) -> None:
    first = git_repository.commit({"a.yaml": "one", "deep/b.yaml": "two"}, tag="v1")
    url = serve_git(user="reader", password="s3cret").url(git_repository)
    with pytest.raises(DevclusterError, match="could not read Username"):
        git("clone", "--quiet", url, "refused", folder=tmp_path)

    known = url.replace("://", "://reader:s3cret@")
    git("clone", "--quiet", "--depth=1", "--filter=blob:none", known, "clone", folder=tmp_path)
    clone = tmp_path / "clone"
    assert git("rev-parse", "HEAD", folder=clone) == first
    git("commit", "--quiet", "--allow-empty", "-m", "Back", folder=clone)
    git("push", "--quiet", folder=clone)
    assert git_repository.head() == git("rev-parse", "HEAD", folder=clone)


def test_git_over_ssh_takes_only_the_right_key(
    git_repository: GitRepository, git_over_ssh: GitSshServer, tmp_path: Path
) -> None:
    first = git_repository.commit({"a.yaml": "one"})
    (tmp_path / "known_hosts").write_text(git_over_ssh.known_hosts)
    ssh = f"ssh -F none -o IdentitiesOnly=yes -o UserKnownHostsFile={tmp_path / 'known_hosts'}"
    url = git_over_ssh.url(git_repository)
    with_key = {"GIT_SSH_COMMAND": f"{ssh} -i {git_over_ssh.client_key}"}
    assert first in git("ls-remote", url, "main", folder=tmp_path, **with_key)
    with pytest.raises(DevclusterError, match="Permission denied"):
        git("ls-remote", url, folder=tmp_path, GIT_SSH_COMMAND=f"{ssh} -i /nonexistent")


def test_a_branch_that_was_rewritten_has_lost_its_commits(git_repository: GitRepository) -> None:
    first = git_repository.commit({"a.yaml": "one"})
    second = git_repository.commit({"a.yaml": "two"})
    git_repository.rewrite("main", first)
    assert git_repository.head() == first != second


@contextlib.contextmanager
def _command(*arguments: str) -> Iterator[list[str]]:
    """`python -m devcluster ARGUMENTS`: the lines that say where it serves; ended with SIGTERM."""
    command = [sys.executable, "-m", "devcluster", *arguments]
    root = Path(__file__).parents[2]
    with subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            lines = 2 if arguments[0] == "serve-git" else 1
            yield [process.stdout.readline().strip() for _ in range(lines)]
        finally:
            process.terminate()
    assert process.returncode == 0


def test_a_served_folder_of_charts_offers_a_version_as_soon_as_it_is_written(
    charts: Path, tmp_path: Path
) -> None:
    shutil.copytree(charts / "config", tmp_path / "charts" / "config")
    with _command("serve-charts", str(tmp_path / "charts")) as (url,):

        def versions() -> list[str]:
            index = yaml.safe_load(requests.get(f"{url}/index.yaml", timeout=5).text)
            return [entry["version"] for entry in index["entries"]["config"]]

        assert versions() == ["1.0.0"]
        metadata = tmp_path / "charts" / "config" / "Chart.yaml"
        metadata.write_text(metadata.read_text().replace("version: 1.0.0", "version: 1.1.0"))
        assert versions() == ["1.1.0", "1.0.0"]
        package = requests.get(f"{url}/charts/config-1.0.0.tgz", timeout=5)
        assert package.status_code == 200


def test_a_served_folder_of_charts_is_a_registry_that_helm_pulls_from(
    charts: Path, tmp_path: Path, helm4: Path
) -> None:
    with _command("serve-registry", str(charts)) as (url,):
        pull = [helm4, "pull", f"{url}/config", "--version", "1.0.0", "--plain-http"]
        environment = {"HOME": str(tmp_path), "PATH": os.environ["PATH"]}
        subprocess.run(pull, cwd=tmp_path, env=environment, check=True, capture_output=True)
    assert (tmp_path / "config-1.0.0.tgz").exists()


def test_a_served_folder_is_a_repository_that_takes_commits(tmp_path: Path) -> None:
    (tmp_path / "declarations").mkdir()
    (tmp_path / "declarations" / "a.yaml").write_text("one")
    with _command("serve-git", str(tmp_path / "declarations")) as (url, work):
        before = git("ls-remote", url, "main", folder=tmp_path)
        Path(work, "a.yaml").write_text("two")
        git("commit", "--quiet", "--all", "-m", "Change", folder=Path(work))
        git("push", "--quiet", "origin", "main", folder=Path(work))
        assert git("ls-remote", url, "main", folder=tmp_path) != before
    assert not Path(work).exists()
