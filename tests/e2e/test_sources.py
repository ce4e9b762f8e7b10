"""Sources with real helm, git and ssh: we see, choose and package what helm does."""

# ruff: noqa: ASYNC240, ASYNC221 - tests may block

from __future__ import annotations

import json
import subprocess
import tarfile
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from devcluster.certificates import Authority
from devcluster.chart_server import ChartRepository
from devcluster.git_server import GitHttpServer, GitRepository, GitSshServer
from helmops.errors import ChartRefused, SignatureRefused, SourceDenied, SourceError
from helmops.http import Http
from helmops.model.charts import ChartArtifact, Tree
from helmops.model.credentials import GitCredentials, HttpCredentials
from helmops.model.declarations import GitRepositorySpec, HelmRepositorySpec
from helmops.resolve.selection import choose
from helmops.sources.archive import ArchiveLimits, inspect_archive
from helmops.sources.artifact_cache import ArtifactCache, digest_of
from helmops.sources.charts import ChartPackager
from helmops.sources.git import GitMirrors
from helmops.sources.helm_repository import HelmRepositories
from helmops.sources.index import read_versions
from helmops.sources.provenance import verify_provenance
from tests.fakes.chart_archives import archive_of, chart_yaml, member
from tests.fakes.signing import OpenPgpSigner

NONE = HttpCredentials()
Serve = Callable[..., ChartRepository]


@pytest.fixture
async def http() -> AsyncIterator[Http]:
    async with Http() as one:
        yield one


@pytest.fixture
def repositories(http: Http, tmp_path: Path) -> HelmRepositories:
    return HelmRepositories(http, tmp_path / "cache")


@pytest.fixture
def packager(tmp_path: Path) -> ChartPackager:
    return ChartPackager(ArtifactCache(tmp_path / "cache"))


def spec_of(url: str, **more: Any) -> HelmRepositorySpec:
    return HelmRepositorySpec(url=url, interval=timedelta(minutes=1), **more)


def run(helm: Path, home: Path, *arguments: str) -> str:
    done = subprocess.run(
        [str(helm), *arguments],
        env={"HOME": str(home), "PATH": "/usr/bin:/bin"},
        cwd=home,
        check=False,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise AssertionError(done.stderr)
    return done.stdout


def names_in(archive: str | Path) -> set[str]:
    with tarfile.open(archive) as opened:
        return {member.name for member in opened if member.isfile()}


# Chart repositories.


async def test_every_chart_that_is_pulled_renders_as_helm_renders_it_from_the_repository(
    helm4: Path, chart_repository: ChartRepository, repositories: HelmRepositories, tmp_path: Path
) -> None:
    spec = spec_of(chart_repository.url)
    for chart in ("config", "web", "with-dependency", "deprecated"):
        (version,) = await repositories.versions(spec, chart, NONE)
        artifact = await repositories.pull(spec, version, NONE)
        ours = run(helm4, tmp_path, "template", "r", artifact.path)
        theirs = run(helm4, tmp_path, "template", "r", chart, "--repo", chart_repository.url)
        assert ours == theirs
        assert artifact.deprecated is (chart == "deprecated")


async def test_an_index_that_helm_wrote_is_read_as_helm_reads_it(
    helm: Path, chart_repository: ChartRepository, repositories: HelmRepositories, tmp_path: Path
) -> None:
    folder = tmp_path / "published"
    folder.mkdir()
    for version in ("1.0.0", "1.10.0", "1.2.0", "2.0.0-rc.1", "0.1.0+build.5"):
        packed = chart_repository.publish("config", version)
        (folder / packed.filename).write_bytes(packed.data)
    run(helm, tmp_path, "repo", "index", str(folder), "--url", "https://charts.example")
    body = (folder / "index.yaml").read_bytes()
    run(helm, tmp_path, "repo", "add", "local", chart_repository.url)
    searched = json.loads(
        run(helm, tmp_path, "search", "repo", "local/config", "-l", "--devel", "-o", "json")
    )
    found = read_versions(body, "config")
    assert {one.version for one in found} == {
        "1.0.0",
        "1.10.0",
        "1.2.0",
        "2.0.0-rc.1",
        "0.1.0+build.5",
    }
    assert {one["version"] for one in searched} == {one.version for one in found}
    for one in found:
        entry = next(
            entry
            for entry in yaml.safe_load(body)["entries"]["config"]
            if entry["version"] == one.version
        )
        assert (one.digest, list(one.urls)) == (entry["digest"], entry["urls"])


@pytest.mark.parametrize("as_json", [False, True])
async def test_login_own_ca_and_client_certificate_open_a_repository(
    serve_charts: Serve,
    authority: Authority,
    repositories: HelmRepositories,
    as_json: bool,
) -> None:
    served = serve_charts(
        tls=authority.issue("server"),
        client_ca=authority.certificate,
        user="ann",
        password="s3cret",
        live=True,
        as_json=as_json,
        prefix="/team/charts",
    )
    client = authority.issue("client", also=())
    ours = HttpCredentials(
        username="ann",
        password="s3cret",
        ca=authority.certificate.read_text(),
        certificate=client.certificate.read_text(),
        key=client.key.read_text(),
    )
    spec = spec_of(served.url)
    (version,) = await repositories.versions(spec, "config", ours)
    assert (await repositories.pull(spec, version, ours)).name == "config"
    with pytest.raises(SourceDenied) as caught:
        await repositories.refresh(spec, replace(ours, password="wrong"))
    assert "wrong" not in str(caught.value)
    # Since TLS 1.3 a server says no after the handshake, and may have hung up before it is heard.
    with pytest.raises(SourceError):
        await repositories.refresh(spec, replace(ours, certificate="", key=""))


async def test_a_wrong_digest_is_refused_though_helm_would_take_the_chart(
    helm4: Path, chart_repository: ChartRepository, repositories: HelmRepositories, tmp_path: Path
) -> None:
    chart_repository.list_wrong_digest("config", "1.0.0")
    spec = spec_of(chart_repository.url)
    (version,) = await repositories.versions(spec, "config", NONE)
    with pytest.raises(ChartRefused):
        await repositories.pull(spec, version, NONE)


def test_helm_takes_the_last_of_two_chart_yamls(helm: Path, tmp_path: Path) -> None:
    """Why an archive with a file twice is refused: what was checked would not be what is used."""
    archive = tmp_path / "twice.tgz"
    archive.write_bytes(
        archive_of(
            member("app/Chart.yaml", chart_yaml("app", version).encode())
            for version in ("1.0.0", "6.6.6")
        )
    )
    assert "version: 6.6.6" in run(helm, tmp_path, "show", "chart", str(archive))


# Charts in directories.


async def test_every_chart_of_ours_is_packaged_as_helm_packages_it(
    helm: Path, charts: Path, packager: ChartPackager, tmp_path: Path
) -> None:
    tree = Tree(name="fixtures", revision="test", path=str(charts))
    for folder in sorted(path.name for path in charts.iterdir() if (path / "Chart.yaml").exists()):
        metadata = yaml.safe_load((charts / folder / "Chart.yaml").read_text())
        if metadata.get("type") == "library" or metadata.get("dependencies"):
            continue
        artifact = await packager.build(tree, folder)
        run(helm, tmp_path, "package", str(charts / folder), "-d", str(tmp_path / "theirs"))
        (theirs,) = (tmp_path / "theirs").glob(f"{metadata['name']}-*.tgz")
        assert names_in(artifact.path) == names_in(theirs)
        shown = [run(helm, tmp_path, "show", "all", str(path)) for path in (artifact.path, theirs)]
        assert shown[0] == shown[1]


async def test_a_local_dependency_is_built_and_renders_as_after_helm_dependency_build(
    helm: Path, charts: Path, packager: ChartPackager, tmp_path: Path
) -> None:
    tree = Tree(name="fixtures", revision="test", path=str(charts))
    artifact = await packager.build(tree, "with-dependency")
    copy = tmp_path / "copy"
    subprocess.run(["cp", "-r", str(charts), str(copy)], check=True)
    run(helm, tmp_path, "dependency", "build", str(copy / "with-dependency"))
    ours = run(helm, tmp_path, "template", "r", artifact.path)
    assert ours == run(helm, tmp_path, "template", "r", str(copy / "with-dependency"))


CONDITIONAL = """\
dependencies:
- name: config
  version: ^1.0.0
  repository: {url}
  alias: first
  condition: first.enabled
- name: config
  version: ^2.0.0
  repository: {url}
  alias: second
  tags: [more]
"""


async def test_dependencies_of_a_repository_render_as_after_helm_dependency_build(
    helm: Path,
    chart_repository: ChartRepository,
    repositories: HelmRepositories,
    packager: ChartPackager,
    tmp_path: Path,
) -> None:
    """Locked, with conditions, tags and aliases; newer versions are there."""
    chart_repository.publish("config", "1.4.0")
    chart_repository.publish("config", "2.0.0")
    folder = tmp_path / "tree" / "app"
    folder.mkdir(parents=True)
    more = CONDITIONAL.format(url=chart_repository.url)
    (folder / "Chart.yaml").write_text(chart_yaml("app", "1.0.0", more))
    (folder / "values.yaml").write_text("first: {enabled: true}\n")
    copy = tmp_path / "copy"
    subprocess.run(["cp", "-r", str(folder), str(copy)], check=True)
    run(helm, tmp_path, "dependency", "update", str(copy))
    chart_repository.publish("config", "1.5.0")
    (folder / "Chart.lock").write_bytes((copy / "Chart.lock").read_bytes())

    async def fetch(name: str, version: str, repository: str) -> ChartArtifact:
        spec = spec_of(repository)
        found = await repositories.versions(spec, name, HttpCredentials())
        chosen = choose(found, version).selected
        return await repositories.pull(spec, chosen, HttpCredentials())

    tree = Tree(name="tree", revision="one", path=str(tmp_path / "tree"))
    artifact = await packager.build(tree, "app", fetch=fetch)
    assert names_in(artifact.path) == {
        "app/Chart.yaml",
        "app/Chart.lock",
        "app/values.yaml",
        "app/charts/config-1.4.0.tgz",
        "app/charts/config-2.0.0.tgz",
    }
    for options in ([], ["--set", "first.enabled=false"], ["--set", "tags.more=false"]):
        ours = run(helm, tmp_path, "template", "r", artifact.path, *options)
        assert ours == run(helm, tmp_path, "template", "r", str(copy), *options)
    assert not (folder / "charts").exists()


IGNORE_FILES = [
    "",
    "*.md\n",
    "docs/\n",
    "docs\n",
    "/README.md\n",
    "docs/*\n",
    "templates/tests\n",
    "[a-m]*.txt\n",
    "[^a-m]*.txt\n",
    "?.txt\n",
    "# README.md\n  notes.txt  \n",
    "\\#odd.txt\n",
    "!*.yaml\n",
    "*.txt\n!a.txt\n",
    "a\\.txt\n",
    "docs/inner/*.md\n",
    "inner/\n",
    "*\n!Chart.yaml\n",
]


@pytest.mark.parametrize("rules", IGNORE_FILES)
async def test_helmignore_leaves_out_what_helm_leaves_out(
    helm: Path, packager: ChartPackager, tmp_path: Path, rules: str
) -> None:
    folder = tmp_path / "tree" / "app"
    for name in (
        *("README.md", "a.txt", "notes.txt", "ab.txt", "#odd.txt", "z.txt", ".hidden"),
        *("docs/a.md", "docs/inner/b.md", "docs/inner/c.txt", "files/README.md"),
        *("templates/a.yaml", "templates/.swp", "templates/tests/t.yaml", "templates/tests/.swp"),
        *("templates/_helpers.tpl", "crds/crd.yaml"),
    ):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("")
    (folder / "Chart.yaml").write_text(chart_yaml("app", "1.0.0"))
    (folder / "values.yaml").write_text("{}")
    (folder / ".helmignore").write_text(rules)
    tree = Tree(name="tree", revision="one", path=str(tmp_path / "tree"))
    try:
        run(helm, tmp_path, "package", str(folder), "-d", str(tmp_path))
    except AssertionError:
        with pytest.raises(ChartRefused):
            await packager.build(tree, "app")
        return
    artifact = await packager.build(tree, "app")
    assert names_in(artifact.path) == names_in(tmp_path / "app-1.0.0.tgz")


async def test_a_chart_with_a_suffix_and_other_values_is_one_that_helm_takes(
    helm: Path, charts: Path, packager: ChartPackager, tmp_path: Path
) -> None:
    tree_path = tmp_path / "tree"
    subprocess.run(["cp", "-r", str(charts), str(tree_path)], check=True)
    (tree_path / "prod.yaml").write_text("data: {greeting: hello, on: yes}\n")
    (tree_path / "more.yaml").write_text("data: {mode: 0755}\n")
    tree = Tree(name="tree", revision="one", path=str(tree_path))
    artifact = await packager.build(
        tree, "config", values_files=["prod.yaml", "more.yaml"], version_suffix="0123456789ab"
    )
    shown = yaml.safe_load(run(helm, tmp_path, "show", "chart", artifact.path))
    assert shown["version"] == artifact.version == "1.0.0+0123456789ab"
    values = json.loads(run(helm, tmp_path, "show", "values", artifact.path))
    assert values == {"data": {"greeting": "hello", "true": True, "mode": 493}}


# Git.


async def test_git_over_ssh_opens_with_the_right_key_and_host_only(
    git_repository: GitRepository, git_over_ssh: GitSshServer, tmp_path: Path
) -> None:
    git_repository.commit({"file": "one"})
    mirrors = GitMirrors(tmp_path / "cache")
    spec = GitRepositorySpec.model_validate(
        {"url": git_over_ssh.url(git_repository), "ref": {"branch": "main"}, "interval": "1m"}
    )
    right = GitCredentials(
        identity=git_over_ssh.client_key.read_text(), known_hosts=git_over_ssh.known_hosts
    )
    revision = await mirrors.resolve(spec, right)
    tree = await mirrors.checkout(spec, right, revision)
    assert (Path(tree.path) / "file").read_text() == "one"
    for wrong in (
        GitCredentials(identity=right.identity, known_hosts="[127.0.0.1]:1 ssh-ed25519 AAAA"),
        GitCredentials(known_hosts=right.known_hosts, identity="no key"),
    ):
        with pytest.raises(SourceDenied):
            await mirrors.resolve(spec, wrong)
    mirrors.close()


async def test_git_over_https_with_a_login_and_an_own_ca(
    git_repository: GitRepository,
    serve_git: Callable[..., GitHttpServer],
    authority: Authority,
    tmp_path: Path,
) -> None:
    commit = git_repository.commit({"charts/a": "one"}, tag="v1.0.0")
    served = serve_git(tls=authority.issue("server"), user="ann", password="s3cret")
    mirrors = GitMirrors(tmp_path / "cache")
    spec = GitRepositorySpec.model_validate(
        {"url": served.url(git_repository), "ref": {"semver": "^1"}, "interval": "1m"}
    )
    right = GitCredentials(username="ann", password="s3cret", ca=authority.certificate.read_text())
    revision = await mirrors.resolve(spec, right)
    assert revision == f"v1.0.0@sha1:{commit}"
    tree = await mirrors.checkout(spec, right, revision)
    assert (Path(tree.path) / "charts/a").read_text() == "one"
    with pytest.raises(SourceDenied):
        await mirrors.resolve(spec, GitCredentials(ca=right.ca))
    mirrors.close()


async def test_what_helm_signs_is_taken_and_what_it_did_not_sign_is_not(
    helm: Path, charts: Path, tmp_path: Path
) -> None:
    ann = OpenPgpSigner(tmp_path / "ann", "Ann", algorithm="rsa2048")  # all that helm knows
    keyring = tmp_path / "secring.gpg"
    keyring.write_bytes(ann.secret)
    sign = ["--sign", "--key", "Ann", "--keyring", str(keyring), "--destination", str(tmp_path)]
    run(helm, tmp_path, "package", *sign, str(charts / "config"))
    (archive,) = tmp_path.glob("config-*.tgz")
    provenance = Path(f"{archive}.prov").read_bytes()
    facts = inspect_archive(archive, "here", ArchiveLimits())
    artifact = ChartArtifact(facts.name, facts.version, str(archive), digest_of(archive), "here")
    signer = verify_provenance(provenance, artifact, ann.keys, "here")
    assert signer == "Ann <ann@example.invalid>"
    with pytest.raises(SignatureRefused):
        verify_provenance(provenance, replace(artifact, digest="0" * 64), ann.keys, "here")
