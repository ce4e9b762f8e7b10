"""helmops/sources/git.py, against repositories on disk and on loopback."""

# ruff: noqa: ASYNC240 - tests may block

from __future__ import annotations

import asyncio
import base64
import os
import shutil
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from helmops.errors import (
    SourceDenied,
    SourceError,
    SourceInvalid,
    SourceMissing,
    SourceUnavailable,
    UsageError,
)
from helmops.model.credentials import GitCredentials
from helmops.model.declarations import GitRepositorySpec
from helmops.sources.git import GitMirrors, parse_git_filename
from helmops.sources.git_process import private_file
from tests.fakes.git_server import GitRepository, serve_git
from tests.fakes.web_server import (
    Answer,
    TestCertificates,
    WebServer,
    make_certificates,
    web_server,
)

NONE = GitCredentials()
LOGIN = GitCredentials(username="ann", password="s3cret' $(x) \"%s")
BASIC = "Basic " + base64.b64encode(f"ann:{LOGIN.password}".encode()).decode()
TOKEN = GitCredentials(bearer_token="s3cret-token\n")


@pytest.fixture
def mirrors(tmp_path: Path) -> Iterator[GitMirrors]:
    one = GitMirrors(tmp_path / "cache")
    yield one
    one.close()


@pytest.fixture
def apps(tmp_path: Path) -> GitRepository:
    one = GitRepository(tmp_path / "repos" / "apps")
    one.commit({"charts/app/Chart.yaml": "name: app\n", "file": "one"})
    return one


@pytest.fixture
def server() -> Iterator[WebServer]:
    with web_server() as one:
        yield one


def spec(url: str, **more: Any) -> GitRepositorySpec:
    return GitRepositorySpec.model_validate(
        {"url": url, "ref": {"branch": "main"}, "interval": timedelta(minutes=1), **more}
    )


async def checked_out(
    mirrors: GitMirrors, repository: GitRepositorySpec, credentials: GitCredentials = NONE
) -> Path:
    revision = await mirrors.resolve(repository, credentials)
    return Path((await mirrors.checkout(repository, credentials, revision)).path)


# Files.


async def test_a_checkout_holds_the_files_and_nothing_of_git(
    mirrors: GitMirrors, apps: GitRepository
) -> None:
    apps.commit({"run.sh": "#!/bin/sh\n", "päth/ü": "x"})
    (apps.path / "run.sh").chmod(0o755)
    (apps.path / "link").symlink_to("file")
    apps.commit({})
    tree = await checked_out(mirrors, spec(apps.url))
    assert sorted(path.relative_to(tree).as_posix() for path in tree.rglob("*")) == [
        "charts",
        "charts/app",
        "charts/app/Chart.yaml",
        "file",
        "link",
        "päth",
        "päth/ü",
        "run.sh",
    ]
    assert os.access(tree / "run.sh", os.X_OK)
    assert (tree / "link").is_symlink()


async def test_what_is_at_hand_needs_no_repository(
    mirrors: GitMirrors, apps: GitRepository, tmp_path: Path
) -> None:
    repository = spec(apps.url)
    revision = await mirrors.resolve(repository, NONE)
    tree = await mirrors.checkout(repository, NONE, revision)
    shutil.rmtree(apps.path)
    assert await mirrors.checkout(repository, NONE, revision) == tree
    assert await GitMirrors(tmp_path / "cache").checkout(repository, NONE, revision) == tree
    with pytest.raises(SourceMissing):
        await mirrors.resolve(repository, NONE)


async def test_many_checkouts_of_one_revision_are_one(
    mirrors: GitMirrors, apps: GitRepository, tmp_path: Path
) -> None:
    repository = spec(apps.url)
    revision = await mirrors.resolve(repository, NONE)
    other = GitMirrors(tmp_path / "cache")  # as another process
    trees = await asyncio.gather(
        *(one.checkout(repository, NONE, revision) for one in (mirrors, other) for _ in range(5))
    )
    assert len(set(trees)) == 1


async def test_a_forced_push_is_followed(mirrors: GitMirrors, apps: GitRepository) -> None:
    apps.commit({"file": "two"})
    await checked_out(mirrors, spec(apps.url))
    apps.git("reset", "--quiet", "--hard", "HEAD~1")
    apps.commit({"file": "three"})
    tree = await checked_out(mirrors, spec(apps.url))
    assert (tree / "file").read_text() == "three"


async def test_an_empty_commit_is_an_empty_directory(
    mirrors: GitMirrors, apps: GitRepository
) -> None:
    apps.git("rm", "-r", "--quiet", ".")
    apps.git("commit", "--quiet", "--message", "empty")
    assert list((await checked_out(mirrors, spec(apps.url))).iterdir()) == []


async def test_an_annotated_tag_by_its_full_name_is_its_commit(
    mirrors: GitMirrors, apps: GitRepository
) -> None:
    apps.git("tag", "--annotate", "--message", "x", "v1")
    commit = apps.git("rev-parse", "HEAD")
    repository = spec(apps.url, ref={"name": "refs/tags/v1"})
    assert await mirrors.resolve(repository, NONE) == f"refs/tags/v1@sha1:{commit}"


async def test_a_branch_with_an_at_sign_is_read(mirrors: GitMirrors, apps: GitRepository) -> None:
    apps.git("config", "uploadpack.allowAnySHA1InWant", "false")
    apps.git("checkout", "--quiet", "-b", "team@prod")
    repository = spec(apps.url, ref={"branch": "team@prod"})
    assert ((await checked_out(mirrors, repository)) / "file").read_text() == "one"


async def test_a_server_that_gives_out_tips_only_is_enough(
    mirrors: GitMirrors, apps: GitRepository, server: WebServer
) -> None:
    apps.git("config", "uploadpack.allowAnySHA1InWant", "false")
    serve_git(server, apps.path.parent)
    repository = spec(f"{server.url}/apps/.git")
    assert ((await checked_out(mirrors, repository)) / "file").read_text() == "one"


# Damage.


def without_head(mirror: Path) -> None:
    (mirror / "HEAD").unlink()


def without_objects(mirror: Path) -> None:
    shutil.rmtree(mirror / "objects")


def with_broken_head(mirror: Path) -> None:
    (mirror / "HEAD").write_text("nonsense")


def with_broken_config(mirror: Path) -> None:
    (mirror / "config").write_text("[core\n")


def with_cut_objects(mirror: Path) -> None:
    for path in (mirror / "objects").rglob("*"):
        if path.is_file():
            path.chmod(0o644)
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def with_stale_locks(mirror: Path) -> None:
    (mirror / "shallow.lock").touch()
    (mirror / "config.lock").touch()


@pytest.mark.parametrize(
    "damage",
    [
        without_head,
        without_objects,
        with_broken_head,
        with_broken_config,
        with_cut_objects,
        with_stale_locks,
    ],
)
async def test_a_damaged_mirror_is_made_anew(
    mirrors: GitMirrors, apps: GitRepository, tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    first = await checked_out(mirrors, spec(apps.url))
    shutil.rmtree(first)
    (mirror,) = (path for path in (tmp_path / "cache" / "mirrors").iterdir() if path.is_dir())
    damage(mirror)
    again = await checked_out(mirrors, spec(apps.url))
    assert (again / "file").read_text() == "one"
    apps.commit({"file": "two"})
    assert ((await checked_out(mirrors, spec(apps.url))) / "file").read_text() == "two"


async def test_a_damaged_repository_is_said_so_and_leaves_no_half_checkout(
    mirrors: GitMirrors, apps: GitRepository, tmp_path: Path
) -> None:
    repository = spec(apps.url)
    revision = await mirrors.resolve(repository, NONE)
    with_cut_objects(apps.path / ".git")
    with pytest.raises(SourceError):
        await mirrors.checkout(repository, NONE, revision)
    (trees,) = (tmp_path / "cache" / "trees").iterdir()
    assert list(trees.iterdir()) == []


# What is kept.


async def test_checkouts_that_were_not_used_for_long_go_and_the_mirror_forgets_them(
    mirrors: GitMirrors, apps: GitRepository, tmp_path: Path
) -> None:
    repository = spec(apps.url)
    trees = []
    for count in range(8):
        apps.commit({"file": str(count)})
        trees.append(await checked_out(mirrors, repository))
    assert all(tree.is_dir() for tree in trees)  # all were used just now
    for age, tree in enumerate(reversed(trees)):
        past = tree.stat().st_mtime - 7200 - age
        os.utime(tree, (past, past))
    first = f"main@sha1:{trees[0].name}"
    assert Path((await mirrors.checkout(repository, NONE, first)).path) == trees[0]  # used again
    apps.commit({"file": "last"})
    trees.append(await checked_out(mirrors, repository))
    assert [tree.is_dir() for tree in trees] == [
        *[True, False, False, False, False],
        *[True, True, True, True],
    ]
    (mirror,) = (path for path in (tmp_path / "cache" / "mirrors").iterdir() if path.is_dir())
    refs = {path.name for path in (mirror / "refs" / "helmops").iterdir()}
    assert refs == {tree.name for tree in trees if tree.is_dir()}


# Credentials.


@pytest.mark.parametrize(
    ("credentials", "header"), [(LOGIN, BASIC), (TOKEN, "Bearer s3cret-token")]
)
async def test_credentials_open_a_repository_and_are_nowhere_to_be_seen(
    mirrors: GitMirrors,
    apps: GitRepository,
    server: WebServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    credentials: GitCredentials,
    header: str,
) -> None:
    serve_git(server, apps.path.parent, authorization=header)
    seen = record_git(tmp_path, monkeypatch)
    repository = spec(f"{server.url}/apps/.git")
    tree = await checked_out(mirrors, repository, credentials)
    assert (tree / "file").read_text() == "one"
    assert "ls-remote" in seen.read_text()
    assert "s3cret" not in seen.read_text()
    written = b"".join(
        path.read_bytes() for path in (tmp_path / "cache").rglob("*") if path.is_file()
    )
    assert b"s3cret" not in written


async def test_a_user_in_the_url_is_used_and_not_shown(
    mirrors: GitMirrors, apps: GitRepository, server: WebServer
) -> None:
    serve_git(server, apps.path.parent, authorization="Basic YW5uOnB3")
    url = f"{server.url}/apps/.git".replace("//", "//ann:pw@")
    repository = spec(url)
    revision = await mirrors.resolve(repository, NONE)
    tree = await mirrors.checkout(repository, NONE, revision)
    assert "pw" not in tree.name
    with pytest.raises(SourceMissing) as caught:
        await mirrors.resolve(spec(url, ref={"branch": "gone"}), NONE)
    assert "pw" not in str(caught.value)


@pytest.mark.parametrize("credentials", [NONE, LOGIN, TOKEN])
async def test_wrong_credentials_are_denied_at_once(
    mirrors: GitMirrors, apps: GitRepository, server: WebServer, credentials: GitCredentials
) -> None:
    serve_git(server, apps.path.parent, authorization="Basic other")
    with pytest.raises(SourceDenied) as caught:
        await mirrors.resolve(spec(f"{server.url}/apps/.git"), credentials)
    assert "credentials" in caught.value.next_step
    assert "s3cret" not in str(caught.value)


async def test_a_redirect_to_another_host_gets_no_credentials(
    mirrors: GitMirrors, apps: GitRepository, server: WebServer
) -> None:
    serve_git(server, apps.path.parent, authorization=BASIC)
    with web_server() as other:
        serve_git(other, apps.path.parent)
        other_url = other.url

        def away(asked: Any) -> Answer:
            return Answer(302, headers={"Location": other_url + asked.path})

        server.routes["/apps/.git/info/refs"] = away
        repository = spec(f"{server.url}/apps/.git")
        await mirrors.resolve(repository, LOGIN)
        with pytest.raises(SourceError, match="no redirect is followed"):
            await mirrors.resolve(repository, TOKEN)
        assert all("authorization" not in asked.headers for asked in other.asked)
        assert len(other.asked) == 2


def record_git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put a git before git that writes down its arguments; gives back the file."""
    seen = tmp_path / "arguments"
    real = shutil.which("git")
    program(tmp_path / "bin", "git", f'echo "$@" >> {seen}\nexec {real} "$@"\n')
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    return seen


def program(directory: Path, name: str, text: str) -> None:
    directory.mkdir(exist_ok=True)
    path = directory / name
    path.write_text(f"#!/bin/sh\n{text}")
    path.chmod(0o755)


async def test_where_there_is_no_git_the_source_fails_with_what_to_install(
    mirrors: GitMirrors, apps: GitRepository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SourceUnavailable, match=r"there is no git on PATH \(install git\)"):
        await mirrors.resolve(spec(apps.url), NONE)


def test_what_cannot_be_used_without_git_is_imported_without_it(tmp_path: Path) -> None:
    program = [sys.executable, "-c", "import helmops.sources.git"]
    subprocess.run(program, check=True, env={"PATH": str(tmp_path)})


async def test_what_ssh_said_is_the_cause(
    mirrors: GitMirrors, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program(tmp_path / "bin", "ssh", 'echo "ssh: connect to host h: No route" >&2; exit 255')
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    with pytest.raises(SourceUnavailable, match="connect to host h: No route"):
        await mirrors.resolve(spec("ssh://git@127.0.0.1:1/apps.git"), NONE)


SSH = """\
{ for argument; do echo "$argument"; done; } >> %(seen)s
for argument; do
  case "$argument" in
    UserKnownHostsFile=*) file="${argument#*=}";;
    */identity) file="$argument";;
    *) continue;;
  esac
  stat -c %%a "$file" >> %(seen)s
  cat "$file" >> %(seen)s
done
for last; do :; done
eval exec "$last"
"""


async def test_ssh_gets_its_key_and_known_hosts_in_private_files_that_go_away(
    mirrors: GitMirrors, apps: GitRepository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = tmp_path / "seen"
    program(tmp_path / "bin", "ssh", SSH % {"seen": seen})
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    credentials = GitCredentials(identity="THE KEY", known_hosts="git.example ssh-ed25519 AAAA")
    repository = spec(f"ssh://git@git.example:2222{apps.path}")
    tree = await checked_out(mirrors, repository, credentials)
    assert (tree / "file").read_text() == "one"
    lines = seen.read_text().splitlines()
    for wanted in (
        "StrictHostKeyChecking=yes",
        "BatchMode=yes",
        "IdentitiesOnly=yes",
        "GlobalKnownHostsFile=/dev/null",
        "git@git.example",
        "2222",
        "THE KEY",
        "git.example ssh-ed25519 AAAA",
    ):
        assert wanted in lines
    assert lines.count("600") == 2 * lines.count("THE KEY")
    assert not list(tmp_path.glob("helmops-git-*"))


@pytest.mark.parametrize(
    ("words", "kind"),
    [
        ("Host key verification failed.", SourceDenied),
        ("git@h: Permission denied (publickey).", SourceDenied),
        ("ssh: Could not resolve hostname h: Name or service not known", SourceUnavailable),
        ("ssh: connect to host h port 22: Connection refused", SourceUnavailable),
        ("ERROR: Repository not found.", SourceMissing),
    ],
)
async def test_what_ssh_says_is_understood(
    mirrors: GitMirrors,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    words: str,
    kind: type[SourceError],
) -> None:
    program(tmp_path / "bin", "ssh", f"echo '{words}' >&2\nexit 255\n")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    with pytest.raises(kind) as caught:
        await mirrors.resolve(spec("ssh://git@h/apps.git"), NONE)
    assert type(caught.value) is kind


async def test_an_own_ca_is_taken_and_an_unknown_one_refused(
    mirrors: GitMirrors, apps: GitRepository, tmp_path: Path
) -> None:
    certificates: TestCertificates = make_certificates(tmp_path)
    with web_server(certificates.server_context()) as secure:
        serve_git(secure, apps.path.parent)
        repository = spec(f"https://localhost:{secure.port}/apps/.git")
        with pytest.raises(SourceDenied) as caught:
            await mirrors.resolve(repository, NONE)
        assert "ca.crt" in caught.value.next_step
        own = GitCredentials(ca=certificates.ca)
        assert ((await checked_out(mirrors, repository, own)) / "file").exists()


# What a repository may be.


@pytest.mark.parametrize(
    "url",
    [
        "ext::sh -c touch% /tmp/x",
        "--upload-pack=touch /tmp/x",
        "-u",
        "git://h/x",
        "ftp://h/x",
        "ssh://-oProxyCommand=touch/x",
        "https://h/a b",
        "https://h/a\nb",
        "fd::3",
        "",
        "/etc",
    ],
)
async def test_what_git_would_take_for_something_else_never_reaches_it(
    mirrors: GitMirrors, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    seen = record_git(tmp_path, monkeypatch)
    repository = GitRepositorySpec.model_construct(
        **(spec("https://h/x").model_dump() | {"url": url, "ref": spec("https://h/x").ref})
    )
    with pytest.raises(SourceInvalid, match="no URL of a Git repository"):
        await mirrors.resolve(repository, NONE)
    assert not seen.exists()


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (403, SourceDenied),
        (404, SourceMissing),
        (429, SourceUnavailable),
        (500, SourceUnavailable),
        (503, SourceUnavailable),
    ],
)
async def test_statuses_are_understood_whatever_the_url_is_called(
    mirrors: GitMirrors, server: WebServer, status: int, kind: type[SourceError]
) -> None:
    url = f"{server.url}/tls-corrupt-not-found/access-denied.git"
    server.routes["/tls-corrupt-not-found/access-denied.git/info/refs"] = Answer(status)
    with pytest.raises(kind) as caught:
        await mirrors.resolve(spec(url), NONE)
    assert type(caught.value) is kind


async def test_nobody_listening_is_unavailable(mirrors: GitMirrors) -> None:
    with web_server() as gone:
        pass
    with pytest.raises(SourceUnavailable):
        await mirrors.resolve(spec(f"{gone.url}/apps.git"), NONE)


async def test_git_in_a_hook_does_not_meet_the_hook_s_repository(
    mirrors: GitMirrors, apps: GitRepository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = GitRepository(tmp_path / "mine")
    mine.commit({"mine": "1"})
    monkeypatch.setenv("GIT_DIR", str(mine.path / ".git"))
    monkeypatch.setenv("GIT_WORK_TREE", str(mine.path))
    monkeypatch.setenv("GIT_INDEX_FILE", str(mine.path / ".git" / "index"))
    before = mine.git("rev-parse", "HEAD")
    tree = await checked_out(mirrors, spec(apps.url))
    assert (tree / "file").read_text() == "one"
    assert mine.git("rev-parse", "HEAD") == before
    assert mine.git("status", "--porcelain") == ""


# Time.


def hanging(out: Any, stopping: threading.Event) -> None:
    stopping.wait(30)


async def eventually(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not holds():  # noqa: ASYNC110 - what is waited for happens in threads
            await asyncio.sleep(0.01)


def children() -> set[str]:
    """Processes that came from git and still live."""
    found = set()
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().split(b"\0")
        except OSError:
            continue
        if b"git" in words[0] and any(b"/hanging.git" in word for word in words):
            found.add(path.parent.name)
    return found


async def test_a_server_that_hangs_is_cut_off_with_all_that_git_started(
    mirrors: GitMirrors, server: WebServer
) -> None:
    server.routes["/hanging.git/info/refs"] = Answer(raw=hanging)
    repository = spec(f"{server.url}/hanging.git", timeout=timedelta(seconds=0.5))
    with pytest.raises(SourceUnavailable, match=r"within 0\.5 s"):
        await mirrors.resolve(repository, NONE)
    await eventually(lambda: not children())


@pytest.mark.parametrize("how", ["cancelled", "closed"])
async def test_git_ends_when_its_caller_does(
    mirrors: GitMirrors, server: WebServer, how: str
) -> None:
    server.routes["/hanging.git/info/refs"] = Answer(raw=hanging)
    call = asyncio.create_task(mirrors.resolve(spec(f"{server.url}/hanging.git"), NONE))
    await eventually(lambda: bool(server.asked and children()))
    if how == "cancelled":
        call.cancel()
    else:
        mirrors.close()
    with pytest.raises((asyncio.CancelledError, SourceUnavailable)):
        await call
    await eventually(lambda: not children())


# -f git+…


@pytest.mark.parametrize(
    ("text", "url", "ref", "path"),
    [
        (
            "git+https://h.example/repo.git?ref=main&path=clusters/prod",
            "https://h.example/repo.git",
            {"branch": "main"},
            "clusters/prod",
        ),
        ("git+https://h:8443/r", "https://h:8443/r", {"name": "HEAD"}, ""),
        ("git+ssh://git@h/r.git?tag=v1", "ssh://git@h/r.git", {"tag": "v1"}, ""),
        ("git+file:///srv/r?semver=1.x", "file:///srv/r", {"semver": "1.x"}, ""),
        ("git+http://h/r?commit=" + "a" * 40, "http://h/r", {"commit": "a" * 40}, ""),
        ("git+https://h/r?name=refs/pull/1/head", "https://h/r", {"name": "refs/pull/1/head"}, ""),
        ("git+https://h/r?path=/a/b/", "https://h/r", {"name": "HEAD"}, "a/b"),
    ],
)
def test_a_git_location_is_read(text: str, url: str, ref: dict[str, str], path: str) -> None:
    location = parse_git_filename(text)
    assert location.repository.url == url
    assert location.repository.ref.model_dump(exclude_defaults=True) == ref
    assert location.path == path
    assert location.credentials == NONE


def test_a_user_in_a_git_location_is_a_credential_and_not_shown() -> None:
    location = parse_git_filename("git+https://ann:p%40ss@h/r.git?path=a")
    assert location.credentials == GitCredentials(username="ann", password="p@ss")
    assert location.repository.url == "https://h/r.git"
    assert location.label == "git+https://h/r.git?path=a"


@pytest.mark.parametrize(
    "text",
    [
        "https://h/r.git",
        "git+ftp://h/r",
        "git+ext::sh",
        "git+https:///r",
        "git+https://h/r?branch=main",
        "git+https://h/r?path=../x",
        "git+https://h/r?path=a/../../x",
        "git+https://h/r?timeout=soon",
        "git+https://[::1/r",
        "git+https://h:port/r",
        "git+",
    ],
)
def test_what_is_no_git_location_is_a_usage_error(text: str) -> None:
    with pytest.raises(UsageError):
        parse_git_filename(text)


async def test_the_head_of_a_location_without_reference_is_found(
    mirrors: GitMirrors, apps: GitRepository
) -> None:
    location = parse_git_filename(f"git+{apps.url}")
    commit = apps.git("rev-parse", "HEAD")
    assert await mirrors.resolve(location.repository, NONE) == f"HEAD@sha1:{commit}"


def test_private_files_are_for_us_only(tmp_path: Path) -> None:
    path = private_file(tmp_path / "key", "KEY")
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    assert Path(path).read_text() == "KEY\n"  # ssh refuses a key without it
