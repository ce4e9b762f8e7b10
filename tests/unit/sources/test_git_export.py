"""helmops/sources/git_export.py: sparse paths, submodules, what is ignored, included and signed."""

# ruff: noqa: ASYNC240, ASYNC221 - tests may block

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from helmops.errors import (
    SignatureRefused,
    SourceInvalid,
    SourceMissing,
    SourceUnavailable,
)
from helmops.model.charts import IncludedTree, Tree
from helmops.model.credentials import GitCredentials
from helmops.model.declarations import GitRepositorySpec
from helmops.sources.git import GitMirrors
from tests.fakes.git_server import GitRepository, serve_git
from tests.fakes.signing import OpenPgpSigner, SshSigner
from tests.fakes.web_server import web_server

NONE = GitCredentials()


@pytest.fixture
def mirrors(tmp_path: Path) -> Iterator[GitMirrors]:
    one = GitMirrors(tmp_path / "cache")
    yield one
    one.close()


@pytest.fixture
def apps(tmp_path: Path) -> GitRepository:
    one = GitRepository(tmp_path / "repos" / "apps")
    one.git("config", "uploadpack.allowFilter", "true")
    one.commit(
        {
            "charts/app/Chart.yaml": "name: app\n",
            "charts/web/Chart.yaml": "name: web\n",
            "docs/large.md": "x" * 1000,
            "README.md": "one",
        }
    )
    return one


def spec(url: str, **more: Any) -> GitRepositorySpec:
    return GitRepositorySpec.model_validate(
        {"url": url, "ref": {"branch": "main"}, "interval": "1m", **more}
    )


async def files(
    mirrors: GitMirrors,
    wanted: GitRepositorySpec,
    credentials: GitCredentials = NONE,
    **more: Any,
) -> dict[str, str]:
    revision = await mirrors.resolve(wanted, credentials)
    tree = await mirrors.checkout(wanted, credentials, revision, **more)
    root = Path(tree.path)
    return {
        path.relative_to(root).as_posix(): path.read_text()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


# Sparse paths.


async def test_only_the_directories_that_are_named_are_checked_out(
    mirrors: GitMirrors, apps: GitRepository
) -> None:
    wanted = spec(apps.url, sparseCheckout=["charts/app", "./docs/"])
    assert set(await files(mirrors, wanted)) == {"charts/app/Chart.yaml", "docs/large.md"}


async def test_files_that_are_not_wanted_are_not_fetched(
    mirrors: GitMirrors, apps: GitRepository, tmp_path: Path
) -> None:
    assert set(await files(mirrors, spec(apps.url, sparseCheckout=["charts/web"]))) == {
        "charts/web/Chart.yaml"
    }
    (mirror,) = (tmp_path / "cache" / "mirrors").glob("*[0-9a-f]")
    large = apps.git("rev-parse", "HEAD:docs/large.md")
    asked = ["git", "--git-dir", str(mirror), "cat-file", "--batch-all-objects", "--batch-check"]
    at_hand = subprocess.run(asked, capture_output=True, text=True, check=True).stdout
    assert large not in at_hand
    # The same mirror serves who wants everything, and fetches what it lacks.
    assert len(await files(mirrors, spec(apps.url))) == 4
    assert len(list((tmp_path / "cache" / "mirrors").glob("*[0-9a-f]"))) == 1


async def test_a_sparse_checkout_over_http_is_partial_too(
    mirrors: GitMirrors, apps: GitRepository, tmp_path: Path
) -> None:
    with web_server() as server:
        serve_git(server, tmp_path / "repos")
        wanted = spec(f"{server.url}/apps/.git", sparseCheckout=["charts"])
        assert set(await files(mirrors, wanted)) == {
            "charts/app/Chart.yaml",
            "charts/web/Chart.yaml",
        }


async def test_a_sparse_directory_that_is_not_there_is_missing(
    mirrors: GitMirrors, apps: GitRepository
) -> None:
    with pytest.raises(SourceMissing, match=r"sparseCheckout names gone, which .* not have"):
        await files(mirrors, spec(apps.url, sparseCheckout=["charts", "gone"]))


@pytest.mark.parametrize("directory", ["..", "../other", ".", "a\nb"])
async def test_what_is_no_directory_of_a_repository_is_refused(
    mirrors: GitMirrors, apps: GitRepository, directory: str
) -> None:
    with pytest.raises(SourceInvalid, match="no directory of a repository"):
        await files(mirrors, spec(apps.url, sparseCheckout=[directory]))


async def test_declarations_that_want_other_files_do_not_share_a_checkout(
    mirrors: GitMirrors, apps: GitRepository
) -> None:
    every, some = spec(apps.url), spec(apps.url, sparseCheckout=["docs"])
    found = await asyncio.gather(files(mirrors, every), files(mirrors, some))
    assert [len(each) for each in found] == [4, 1]
    shutil.rmtree(apps.path)
    revision = (
        "main@sha1:"
        + Path((await mirrors.checkout(every, NONE, await _only_revision(mirrors))).path).name
    )
    assert len(os.listdir((await mirrors.checkout(some, NONE, revision)).path)) == 1


async def _only_revision(mirrors: GitMirrors) -> str:
    names = [path.name for path in mirrors._directory.glob("trees/*/*")]
    return f"main@sha1:{min(names, key=len)}"


# What is ignored.


@pytest.mark.parametrize(
    ("ignore", "left"),
    [
        ("*.md\n", {"charts/app/Chart.yaml", "charts/web/Chart.yaml"}),
        ("/*\n!/charts/\n", {"charts/app/Chart.yaml", "charts/web/Chart.yaml"}),
        ("# all of it\n/charts/\n!/charts/app\n  docs  \n", {"README.md"}),
        (
            "\n\\#odd\n*.txt\n",
            {"README.md", "docs/large.md", "charts/app/Chart.yaml", "charts/web/Chart.yaml"},
        ),
    ],
)
async def test_what_is_to_be_ignored_is_left_out_as_git_would(
    mirrors: GitMirrors, apps: GitRepository, ignore: str, left: set[str]
) -> None:
    assert set(await files(mirrors, spec(apps.url, ignore=ignore))) == left


async def test_a_repository_says_itself_what_is_ignored_and_the_declaration_has_the_last_word(
    mirrors: GitMirrors, apps: GitRepository
) -> None:
    apps.commit({".sourceignore": "docs/\n", "charts/.sourceignore": "web/\n"})
    left = set(await files(mirrors, spec(apps.url)))
    assert left == {".sourceignore", "README.md", "charts/.sourceignore", "charts/app/Chart.yaml"}
    assert "docs/large.md" in await files(mirrors, spec(apps.url, ignore="!docs/\n"))


async def test_directories_that_are_empty_then_go_too(
    mirrors: GitMirrors, apps: GitRepository
) -> None:
    wanted = spec(apps.url, ignore="Chart.yaml")
    revision = await mirrors.resolve(wanted, NONE)
    tree = await mirrors.checkout(wanted, NONE, revision)
    assert sorted(os.listdir(tree.path)) == ["README.md", "docs"]


async def test_too_many_patterns_are_refused(mirrors: GitMirrors, apps: GitRepository) -> None:
    with pytest.raises(SourceInvalid, match="more than 1000 patterns"):
        await files(mirrors, spec(apps.url, ignore="a\n" * 1001))


async def test_a_pattern_is_never_an_option_of_git(
    mirrors: GitMirrors, apps: GitRepository
) -> None:
    assert len(await files(mirrors, spec(apps.url, ignore="--others\n-o\n"))) == 4


# Submodules.


@pytest.fixture
def library(tmp_path: Path) -> GitRepository:
    one = GitRepository(tmp_path / "repos" / "library")
    one.commit({"Chart.yaml": "name: library\n"})
    return one


def add_submodule(repository: GitRepository, url: str, path: str, commit: str) -> None:
    """As `git submodule add` does, without fetching anything."""
    text = f'[submodule "{path}"]\n\tpath = {path}\n\turl = {url}\n'
    modules = repository.path / ".gitmodules"
    modules.write_text((modules.read_text() if modules.exists() else "") + text)
    repository.git("add", ".gitmodules")
    repository.git("update-index", "--add", "--cacheinfo", f"160000,{commit},{path}")
    repository.git("commit", "--quiet", "--message", "submodule")


async def test_submodules_are_fetched_when_asked_for(
    mirrors: GitMirrors, apps: GitRepository, library: GitRepository
) -> None:
    commit = library.git("rev-parse", "HEAD")
    library.commit({"Chart.yaml": "name: newer\n"})  # which is not the one
    add_submodule(apps, "../library", "charts/library", commit)
    plain = await files(mirrors, spec(apps.url))
    assert "charts/library/Chart.yaml" not in plain
    found = await files(mirrors, spec(apps.url, recurseSubmodules=True))
    assert found["charts/library/Chart.yaml"] == "name: library\n"


async def test_submodules_of_submodules_are_fetched(
    mirrors: GitMirrors, apps: GitRepository, library: GitRepository, tmp_path: Path
) -> None:
    deep = GitRepository(tmp_path / "repos" / "deep")
    add_submodule(library, deep.url, "deep", deep.commit({"file": "deep"}))
    add_submodule(apps, library.url, "library", library.git("rev-parse", "HEAD"))
    found = await files(mirrors, spec(apps.url, recurseSubmodules=True))
    assert found["library/deep/file"] == "deep"


async def test_a_circle_of_submodules_comes_to_an_end(
    mirrors: GitMirrors, apps: GitRepository, library: GitRepository
) -> None:
    """Commits cannot contain each other, but each may have the one before of the other."""
    for _ in range(6):
        add_submodule(library, apps.url, "apps", apps.git("rev-parse", "HEAD"))
        add_submodule(apps, library.url, "library", library.git("rev-parse", "HEAD"))
    with pytest.raises(SourceInvalid, match="8 within each other"):
        await files(mirrors, spec(apps.url, recurseSubmodules=True))


@pytest.mark.parametrize(
    ("url", "kind", "says"),
    [
        ("ext::sh -c touch% /tmp/never", SourceInvalid, "no URL of a Git repository"),
        ("--upload-pack=/bin/false", SourceInvalid, "no URL of a Git repository"),
        ("git@host:path.git", SourceInvalid, "no URL of a Git repository"),
        ("../gone", SourceMissing, "gone"),
    ],
)
async def test_a_submodule_that_git_must_not_be_given_or_that_is_gone_is_said_so(
    mirrors: GitMirrors,
    apps: GitRepository,
    url: str,
    kind: type[Exception],
    says: str,
) -> None:
    add_submodule(apps, url, "library", "1" * 40)
    with pytest.raises(kind, match=says):
        await files(mirrors, spec(apps.url, recurseSubmodules=True))


async def test_a_repository_elsewhere_may_not_name_files_of_this_machine(
    mirrors: GitMirrors, apps: GitRepository, library: GitRepository, tmp_path: Path
) -> None:
    add_submodule(apps, library.url, "library", library.git("rev-parse", "HEAD"))
    with web_server() as server:
        serve_git(server, tmp_path / "repos")
        wanted = spec(f"{server.url}/apps/.git", recurseSubmodules=True)
        with pytest.raises(SourceInvalid, match="names a file of this machine"):
            await files(mirrors, wanted)


async def test_a_submodule_of_the_same_server_is_opened_alike_and_another_with_nothing(
    mirrors: GitMirrors, apps: GitRepository, library: GitRepository, tmp_path: Path
) -> None:
    login = GitCredentials(username="ann", password="s3cret-password")
    commit = library.git("rev-parse", "HEAD")
    with web_server() as server, web_server() as other:
        basic = "Basic YW5uOnMzY3JldC1wYXNzd29yZA=="
        add_submodule(apps, "../../library/.git", "library", commit)
        serve_git(server, tmp_path / "repos", authorization=basic)
        wanted = spec(f"{server.url}/apps/.git", recurseSubmodules=True)
        assert "library/Chart.yaml" in await files(mirrors, wanted, login)
        add_submodule(apps, f"{other.url}/library/.git", "other", commit)
        serve_git(other, tmp_path / "repos")
        assert "other/Chart.yaml" in await files(mirrors, wanted, login)
        assert not any("authorization" in asked.headers for asked in other.asked)


async def test_gitmodules_without_a_place_is_said_so(
    mirrors: GitMirrors, apps: GitRepository
) -> None:
    apps.git("update-index", "--add", "--cacheinfo", f"160000,{'1' * 40},library")
    apps.git("commit", "--quiet", "--message", "no .gitmodules")
    with pytest.raises(SourceInvalid, match=r"\.gitmodules has no URL for library"):
        await files(mirrors, spec(apps.url, recurseSubmodules=True))


# What is included.


def shared(tmp_path: Path) -> Tree:
    root = tmp_path / "shared"
    (root / "base").mkdir(parents=True)
    (root / "base" / "values.yaml").write_text("a: 1\n")
    (root / "top").write_text("top")
    return Tree("shared", "main@sha1:1", str(root))


@pytest.mark.parametrize(
    ("from_path", "to_path", "added"),
    [
        ("", "shared", {"shared/base/values.yaml", "shared/top"}),
        ("base", "charts/app/more", {"charts/app/more/values.yaml"}),
        ("/base/", "./deep/er", {"deep/er/values.yaml"}),
    ],
)
async def test_other_repositories_files_are_put_in(
    mirrors: GitMirrors,
    apps: GitRepository,
    tmp_path: Path,
    from_path: str,
    to_path: str,
    added: set[str],
) -> None:
    plain = await files(mirrors, spec(apps.url))
    one = IncludedTree(shared(tmp_path), from_path, to_path)
    found = await files(mirrors, spec(apps.url), included=[one])
    assert set(found) == set(plain) | added
    assert await files(mirrors, spec(apps.url)) == plain


@pytest.mark.parametrize(
    ("from_path", "to_path", "kind"),
    [
        ("../..", "shared", SourceInvalid),
        ("", "../out", SourceInvalid),
        ("gone", "shared", SourceMissing),
        ("top", "shared", SourceMissing),
        ("", "charts/app", SourceInvalid),
    ],
)
async def test_what_cannot_be_put_in_is_said_so(
    mirrors: GitMirrors,
    apps: GitRepository,
    tmp_path: Path,
    from_path: str,
    to_path: str,
    kind: type[Exception],
) -> None:
    one = IncludedTree(shared(tmp_path), from_path, to_path)
    with pytest.raises(kind, match="include"):
        await files(mirrors, spec(apps.url), included=[one])


async def test_a_link_in_the_repository_does_not_lead_what_is_included_out(
    mirrors: GitMirrors, apps: GitRepository, tmp_path: Path
) -> None:
    (tmp_path / "outside").mkdir()
    (apps.path / "link").symlink_to(tmp_path / "outside")
    apps.commit({})
    one = IncludedTree(shared(tmp_path), "", "link/in")
    with pytest.raises(SourceInvalid, match="leads out"):
        await files(mirrors, spec(apps.url), included=[one])
    assert os.listdir(tmp_path / "outside") == []


# What is signed.


@pytest.fixture(params=["openpgp", "ssh"])
def signer(request: pytest.FixtureRequest, tmp_path: Path) -> OpenPgpSigner | SshSigner:
    kind = OpenPgpSigner if request.param == "openpgp" else SshSigner
    return kind(tmp_path / "signer", "Ann")


@pytest.fixture
def stranger(signer: OpenPgpSigner | SshSigner, tmp_path: Path) -> OpenPgpSigner | SshSigner:
    return type(signer)(tmp_path / "stranger", "Mallory")


def verified(mode: str = "HEAD") -> dict[str, Any]:
    return {"verify": {"mode": mode, "secretRef": {"name": "keys"}}}


async def test_a_signed_commit_is_checked_out(
    mirrors: GitMirrors, apps: GitRepository, signer: OpenPgpSigner | SshSigner
) -> None:
    signer.commit(apps)
    assert "README.md" in await files(mirrors, spec(apps.url, **verified()), keys=signer.keys)


async def test_a_commit_by_somebody_else_is_not(
    mirrors: GitMirrors,
    apps: GitRepository,
    signer: OpenPgpSigner | SshSigner,
    stranger: OpenPgpSigner | SshSigner,
) -> None:
    stranger.commit(apps)
    wanted = spec(apps.url, **verified())
    assert "README.md" in await files(mirrors, spec(apps.url))  # nobody asks who signed
    with pytest.raises(SignatureRefused, match="not trusted"):
        await files(mirrors, wanted, keys=signer.keys)
    assert "README.md" in await files(mirrors, wanted, keys={**signer.keys, **stranger.keys})


async def test_a_commit_without_signature_is_refused_until_one_comes(
    mirrors: GitMirrors, apps: GitRepository, signer: OpenPgpSigner | SshSigner
) -> None:
    wanted = spec(apps.url, **verified())
    with pytest.raises(SignatureRefused, match="is not signed"):
        await files(mirrors, wanted, keys=signer.keys)
    signer.commit(apps)
    assert "README.md" in await files(mirrors, wanted, keys=signer.keys)


async def test_a_changed_commit_under_an_old_signature_is_refused(
    mirrors: GitMirrors, apps: GitRepository, signer: OpenPgpSigner | SshSigner, tmp_path: Path
) -> None:
    signer.commit(apps)
    content = subprocess.run(
        ["git", "cat-file", "commit", "HEAD"], cwd=apps.path, capture_output=True, check=True
    ).stdout
    forged = tmp_path / "forged"
    forged.write_bytes(content.replace(b"A Developer", b"B Developer") + b"more\n")
    commit = apps.git("hash-object", "-t", "commit", "-w", str(forged))
    apps.git("update-ref", "refs/heads/main", commit)
    with pytest.raises(SignatureRefused, match="does not fit"):
        await files(mirrors, spec(apps.url, **verified()), keys=signer.keys)


async def test_a_signed_tag_is_checked_and_a_light_one_cannot_be(
    mirrors: GitMirrors, apps: GitRepository, signer: OpenPgpSigner | SshSigner
) -> None:
    signer.tag(apps, "v1")
    apps.git("tag", "light")
    tagged = {"ref": {"tag": "v1"}, **verified("Tag")}
    assert "README.md" in await files(mirrors, spec(apps.url, **tagged), keys=signer.keys)
    tagged["ref"] = {"tag": "light"}
    with pytest.raises(SignatureRefused, match="tag light is not signed"):
        await files(mirrors, spec(apps.url, **tagged), keys=signer.keys)


async def test_tag_and_head_must_both_be_signed(
    mirrors: GitMirrors, apps: GitRepository, signer: OpenPgpSigner | SshSigner
) -> None:
    signer.tag(apps, "v1")
    wanted = {"ref": {"tag": "v1"}, **verified("TagAndHEAD")}
    with pytest.raises(SignatureRefused, match=r"commit .* is not signed"):
        await files(mirrors, spec(apps.url, **wanted), keys=signer.keys)
    signer.commit(apps)
    signer.tag(apps, "v2")
    wanted["ref"] = {"semver": "2.x"}
    assert "README.md" in await files(mirrors, spec(apps.url, **wanted), keys=signer.keys)


async def test_without_a_key_of_the_kind_nothing_is_trusted(
    mirrors: GitMirrors, apps: GitRepository, signer: OpenPgpSigner | SshSigner
) -> None:
    signer.commit(apps)
    with pytest.raises(SignatureRefused, match="and none is trusted"):
        await files(mirrors, spec(apps.url, **verified()), keys={})


# Loss and return.


async def test_a_repository_that_was_lost_and_comes_back_is_read_again(
    mirrors: GitMirrors, apps: GitRepository
) -> None:
    wanted = spec(apps.url)
    before = await files(mirrors, wanted)
    elsewhere = apps.path.rename(apps.path.with_name("elsewhere"))
    with pytest.raises(SourceMissing):
        await mirrors.resolve(wanted, NONE)
    elsewhere.rename(apps.path)
    assert await files(mirrors, wanted) == before
    apps.git("branch", "--move", "main", "other")
    with pytest.raises(SourceMissing, match="there is no branch main"):
        await mirrors.resolve(wanted, NONE)
    apps.git("branch", "--move", "other", "main")
    assert await files(mirrors, wanted) == before


async def test_a_proxy_is_gone_through_and_its_password_not_shown(
    mirrors: GitMirrors, apps: GitRepository, tmp_path: Path
) -> None:
    with web_server() as proxy:
        user = proxy.url.replace("http://", "http://ann:s3cret-password@")
        through = GitCredentials(proxy=user)
        with pytest.raises((SourceUnavailable, SourceMissing)) as raised:
            await mirrors.resolve(spec("http://git.invalid/apps.git"), through)
        assert any("git.invalid" in path for path in proxy.paths)
        assert "s3cret" not in str(raised.value)
    with pytest.raises(SourceInvalid, match="proxySecretRef is for http"):
        await mirrors.resolve(spec("ssh://git@git.invalid/apps.git"), through)
