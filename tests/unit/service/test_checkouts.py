"""helmops/service/checkouts.py: the files of the sources that Kustomizations take them from."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from helmops.errors import (
    HelmopsError,
    NotSupported,
    SignatureRefused,
    SourceInvalid,
    SourceMissing,
    SourceUnavailable,
)
from helmops.model.declared import DeclarationSet, Declared
from helmops.model.releases import DeclarationKey
from helmops.service.checkouts import Checkouts
from helmops.service.waking import changed_releases
from helmops.sources.file_tree import FileTree
from tests.fakes.artifact_trees import FakeArtifactTrees
from tests.fakes.clock import FakeClock
from tests.fakes.flux_repository import FakeCluster, FluxRepository, keys, problems
from tests.fakes.git_trees import FakeGitTrees
from tests.unit.reconcile.samples import declare, document

GIT = "https://git.example.com/apps"
OCI = "oci://registry.example.com/apps"
SOURCE_API = "source.toolkit.fluxcd.io/v1"
AWAY = SourceUnavailable("the connection is refused")


class Room:
    """Checkouts of one GitRepository and one OCIRepository, both called `apps`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.clock = FakeClock()
        self.git = FakeGitTrees()
        self.artifacts = FakeArtifactTrees()
        self.cluster = FakeCluster()
        self.seen: list[Any] = []
        self.checkouts = Checkouts(
            clock=self.clock,
            git=self.git,
            artifacts=self.artifacts,
            random=lambda: 1.0,
            cluster=self.cluster,
            see=self.seen.append,
        )

    def files(self, name: str) -> str:
        directory = self.path / name
        directory.mkdir(exist_ok=True)
        (directory / "which.yaml").write_text(name)
        return str(directory)

    def push(self, kind: str, name: str) -> None:
        if kind == "GitRepository":
            self.git.push(GIT, branch="master", path=self.files(name))
        else:
            self.artifacts.push(OCI, path=self.files(name))

    def fail(self, kind: str, error: HelmopsError | None) -> None:
        if kind == "GitRepository":
            self.git.refuse_to_resolve(GIT, error)  # type: ignore[arg-type]
        else:
            self.artifacts.fail(OCI, error)

    def refuse(self, kind: str, error: HelmopsError) -> None:
        """Let it tell its revisions, and give no files."""
        if kind == "GitRepository":
            self.git.refused_checkout = error
        else:
            self.artifacts.refused_checkout = error

    async def files_of(self, kind: str, *others: dict[str, Any], **spec: Any) -> FileTree:
        """As they are given in another reading."""
        self.checkouts.begin()
        declared = declare(source(kind, **spec), *others)
        return await self.checkouts.files_of(declared, of(declared, kind))

    def asked(self, what: str = "resolve") -> int:
        asked = [*self.git.asked, *self.artifacts.asked]
        return len([each for each in asked if each[0] == what])


def source(kind: str, **spec: Any) -> dict[str, Any]:
    url = GIT if kind == "GitRepository" else OCI
    return document(SOURCE_API, kind, "apps", spec={"url": url, "interval": "5m", **spec})


def of(declared: DeclarationSet, kind: str) -> Declared[Any]:
    return declared.source(kind, DeclarationKey("apps", "apps"))


def which(files: FileTree) -> str:
    return (files.read("which.yaml") or b"").decode()


@pytest.fixture
def room(tmp_path: Path) -> Room:
    return Room(tmp_path)


both = pytest.mark.parametrize("kind", ["GitRepository", "OCIRepository"])


@both
async def test_the_files_are_those_of_the_revision_that_was_seen_last(
    room: Room, kind: str
) -> None:
    room.push(kind, "one")
    files = await room.files_of(kind)
    assert which(files) == "one"
    assert await room.files_of(kind) is files, "nothing is opened twice"
    room.push(kind, "two")
    assert which(await room.files_of(kind)) == "one", "not asked before its interval is over"
    assert not await room.checkouts.is_stale()
    assert room.asked() == 1
    room.clock.advance(timedelta(minutes=6))
    assert await room.checkouts.is_stale()
    assert which(await room.files_of(kind)) == "two"
    assert not await room.checkouts.is_stale()


@both
async def test_what_did_not_change_is_not_stale(room: Room, kind: str) -> None:
    room.push(kind, "one")
    await room.files_of(kind)
    room.clock.advance(timedelta(minutes=6))
    assert not await room.checkouts.is_stale()
    assert room.asked() == 2
    assert not await room.checkouts.is_stale()
    assert room.asked() == 2


@both
async def test_what_nothing_is_taken_from_any_more_is_not_asked(room: Room, kind: str) -> None:
    room.push(kind, "one")
    await room.files_of(kind)
    room.checkouts.begin()
    room.checkouts.begin()
    room.clock.advance(timedelta(minutes=6))
    assert not await room.checkouts.is_stale()
    assert room.asked() == 1


@both
async def test_one_that_does_not_answer_is_as_it_was_and_that_is_told_once(
    room: Room, kind: str
) -> None:
    room.push(kind, "one")
    await room.files_of(kind)
    room.push(kind, "two")
    room.fail(kind, AWAY)
    room.clock.advance(timedelta(minutes=6))
    assert await room.checkouts.is_stale(), "to be told"
    assert which(await room.files_of(kind)) == "one"
    (trouble,) = room.checkouts.troubles()
    assert trouble.where == "all.yaml:1"
    assert f"{kind} apps/apps cannot be asked, and is taken to be as it was" in trouble.what
    assert "refused" in trouble.what
    for _ in range(5):
        room.clock.advance(timedelta(minutes=3))
        assert not await room.checkouts.is_stale()
    room.fail(kind, None)
    room.clock.advance(timedelta(minutes=3))
    assert await room.checkouts.is_stale(), "sooner than its interval"
    assert which(await room.files_of(kind)) == "two"
    assert room.checkouts.troubles() == ()
    asked = room.asked()
    room.clock.advance(timedelta(minutes=3))
    assert not await room.checkouts.is_stale()
    assert room.asked() == asked, "at its interval again"


@both
async def test_one_that_ends_answering_soon_after_it_was_read_is_told_too(
    room: Room, kind: str
) -> None:
    room.push(kind, "one")
    await room.files_of(kind)
    room.clock.advance(timedelta(minutes=6))
    await room.files_of(kind)
    room.fail(kind, AWAY)
    assert await room.checkouts.is_stale()
    assert which(await room.files_of(kind)) == "one"
    assert len(room.checkouts.troubles()) == 1
    assert not await room.checkouts.is_stale()


@both
async def test_one_that_never_answered_is_asked_again_soon(room: Room, kind: str) -> None:
    room.push(kind, "one")
    room.fail(kind, AWAY)
    with pytest.raises(SourceUnavailable):
        await room.files_of(kind, interval="1h")
    room.fail(kind, None)
    room.clock.advance(timedelta(minutes=3))
    assert await room.checkouts.is_stale()
    assert which(await room.files_of(kind, interval="1h")) == "one"


@both
async def test_one_that_is_gone_is_an_error_and_asked_again_soon(room: Room, kind: str) -> None:
    with pytest.raises(SourceMissing):
        await room.files_of(kind, interval="1h")
    room.push(kind, "one")
    room.clock.advance(timedelta(minutes=3))
    assert await room.checkouts.is_stale()
    assert which(await room.files_of(kind, interval="1h")) == "one"
    assert not await room.checkouts.is_stale()


@both
async def test_one_whose_files_cannot_be_used_is_asked_again_at_its_interval(
    room: Room, kind: str
) -> None:
    room.push(kind, "one")
    room.refuse(kind, SourceInvalid("the archive of files is refused"))
    for _ in range(3):
        with pytest.raises(SourceInvalid):
            await room.files_of(kind)
        room.clock.advance(timedelta(minutes=3))
        assert not await room.checkouts.is_stale()
        room.clock.advance(timedelta(minutes=3))
        assert await room.checkouts.is_stale(), "it might be another one"


@both
async def test_one_whose_files_cannot_be_fetched_is_asked_less_and_less(
    room: Room, kind: str
) -> None:
    room.push(kind, "one")
    room.refuse(kind, AWAY)
    for _ in range(10):
        with pytest.raises(SourceUnavailable):
            await room.files_of(kind, interval="1h")
        while not await room.checkouts.is_stale():
            room.clock.advance(timedelta(seconds=1))
    waited = room.clock.now()
    with pytest.raises(SourceUnavailable):
        await room.files_of(kind, interval="1h")
    while not await room.checkouts.is_stale():
        room.clock.advance(timedelta(seconds=1))
    assert room.clock.now() - waited >= timedelta(minutes=1)


@both
async def test_one_that_is_suspended_gives_nothing(room: Room, kind: str) -> None:
    room.push(kind, "one")
    with pytest.raises(SourceUnavailable, match="apps/apps is suspended"):
        await room.files_of(kind, suspend=True)
    assert room.asked() == 0


@both
async def test_what_is_not_acted_on_is_refused(room: Room, kind: str) -> None:
    with pytest.raises(NotSupported) as refused:
        await room.files_of(kind, provider="azure")
    assert str(refused.value).startswith("all.yaml:")


@both
async def test_many_that_come_at_once_ask_once(room: Room, kind: str) -> None:
    room.push(kind, "one")
    declared = declare(source(kind))
    found = await asyncio.gather(
        *(room.checkouts.files_of(declared, of(declared, kind)) for _ in range(5))
    )
    assert {which(files) for files in found} == {"one"}
    assert (room.asked(), room.asked("checkout")) == (1, 1)
    room.push(kind, "two")
    room.clock.advance(timedelta(minutes=6))
    late = await room.checkouts.files_of(declared, of(declared, kind))
    assert which(late) == "one", "all that is read at once is of one revision"


@both
async def test_sources_are_opened_with_declared_secrets_before_those_of_the_cluster(
    room: Room, kind: str
) -> None:
    room.push(kind, "one")
    login = {"username": "ann", "password": "hunter2"}
    beside = document("v1", "Secret", "login", stringData=login)
    await room.files_of(kind, beside, secretRef={"name": "login"})
    used = room.git.credentials if kind == "GitRepository" else room.artifacts.credentials
    assert used is not None
    assert (used.username, used.password) == ("ann", "hunter2")
    assert {"username": b"ann", "password": b"hunter2"} in room.seen, "to be hidden"
    assert room.cluster.asked == 0
    with pytest.raises(SourceMissing, match="Secret apps/login"):
        await room.files_of(kind, secretRef={"name": "login"})
    assert room.cluster.asked == 1


async def test_sources_of_both_kinds_may_have_one_name(room: Room) -> None:
    room.push("GitRepository", "of git")
    room.push("OCIRepository", "of a registry")
    assert which(await room.files_of("GitRepository")) == "of git"
    assert which(await room.files_of("OCIRepository")) == "of a registry"


async def test_what_an_earlier_process_saw_counts_while_the_registry_is_away(room: Room) -> None:
    revision = room.artifacts.push(OCI, path=room.files("one"))
    room.artifacts.seen_before[OCI] = revision
    room.artifacts.fail(OCI, AWAY)
    assert which(await room.files_of("OCIRepository")) == "one"
    assert len(room.checkouts.troubles()) == 1


async def test_an_artifact_must_be_signed_by_a_key_of_the_secret(room: Room) -> None:
    keys_of = document("v1", "Secret", "keys", stringData={"a.pub": "A", "b.pub": "B"})
    verify = {"provider": "cosign", "secretRef": {"name": "keys"}}
    room.artifacts.push(OCI, path=room.files("one"), key=b"B")
    assert which(await room.files_of("OCIRepository", keys_of, verify=verify)) == "one"
    assert room.artifacts.keys == (b"A", b"B")
    room.artifacts.push(OCI, path=room.files("two"), key=b"C")
    room.clock.advance(timedelta(minutes=6))
    with pytest.raises(SignatureRefused):
        await room.files_of("OCIRepository", keys_of, verify=verify)


# Kustomizations whose files are in a registry.


@pytest.fixture
def repository(tmp_path: Path) -> FluxRepository:
    return FluxRepository(tmp_path)


def flux(repository: FluxRepository, name: str, path: str = "./", spec: str = "") -> None:
    """A Kustomization of the OCIRepository `apps`."""
    repository.flux(name, path, spec)
    file = repository.root / f"clusters/prod/{name}.yaml"
    file.write_text(
        file.read_text().replace(
            "kind: GitRepository\n    name: flux-system", "kind: OCIRepository\n    name: apps"
        )
    )


def declare_source(repository: FluxRepository, more: str = "") -> None:
    repository.write(
        "clusters/prod/source.yaml",
        f"""
        apiVersion: {SOURCE_API}
        kind: OCIRepository
        metadata: {{name: apps, namespace: flux-system}}
        spec: {{interval: 5m, url: '{OCI}'{more}}}
        """,
    )


def artifact(path: Path, **files: str) -> str:
    """A directory of releases, each in a file of its name: other `files` have their text."""
    path.mkdir(parents=True)
    for name, text in files.items():
        (path / f"{name}.yaml").write_text(
            text
            or "apiVersion: helm.toolkit.fluxcd.io/v2\nkind: HelmRelease\n"
            f"metadata: {{name: {name}}}\n"
            "spec: {interval: 1h, chartRef: {kind: OCIRepository, name: web}}\n"
        )
    return str(path)


def change(file: Path, before: str, after: str) -> None:
    file.write_text(file.read_text().replace(before, after))


async def test_releases_come_out_of_an_artifact_with_file_and_line(
    repository: FluxRepository, tmp_path: Path
) -> None:
    repository.artifacts.push(OCI, path=artifact(tmp_path / "one", web="", db=""))
    declare_source(repository)
    flux(repository, "apps", spec="targetNamespace: shop")
    declared = await repository.read()
    assert (keys(declared), problems(declared)) == ({"shop/web", "shop/db"}, [])
    web = declared.releases[DeclarationKey("shop", "web")]
    assert web.where == f"{OCI}/web.yaml:1"
    assert web.file.built_by is not None
    assert web.file.built_by.chain == (DeclarationKey("flux-system", "apps"),)


async def test_a_new_digest_changes_what_it_changes_and_nothing_else(
    repository: FluxRepository, tmp_path: Path
) -> None:
    repository.artifacts.push(OCI, path=artifact(tmp_path / "one", web="", db=""))
    declare_source(repository)
    flux(repository, "apps")
    before = await repository.read()
    assert await repository.poll() is None
    two = artifact(tmp_path / "two", web="", db="", cache="")
    change(tmp_path / "two/db.yaml", "1h", "2h")
    repository.artifacts.push(OCI, path=two)
    assert await repository.poll() is None, "not before its interval is over"
    repository.clock.advance(timedelta(minutes=6))
    after = await repository.poll()
    assert after is not None
    assert keys(after) == {"default/web", "default/db", "default/cache"}
    assert {str(key) for key in changed_releases(before, after)} == {"default/db", "default/cache"}


async def test_while_the_registry_is_away_nothing_is_taken_for_removed_and_that_is_said(
    repository: FluxRepository, tmp_path: Path
) -> None:
    repository.artifacts.push(OCI, path=artifact(tmp_path / "one", web=""))
    declare_source(repository)
    flux(repository, "apps")
    await repository.read()
    repository.artifacts.fail(OCI, AWAY)
    repository.clock.advance(timedelta(minutes=6))
    away = await repository.poll()
    assert away is not None
    assert keys(away) == {"default/web"}
    (said,) = problems(away)
    assert said.startswith("clusters/prod/source.yaml:1: OCIRepository flux-system/apps")
    assert DeclarationKey("default", "web") not in away.untouched
    repository.artifacts.fail(OCI, None)
    repository.clock.advance(timedelta(minutes=6))
    back = await repository.poll()
    assert back is not None
    assert (keys(back), back.errors) == ({"default/web"}, ())


async def test_a_bad_artifact_is_one_error_and_the_others_stand(
    repository: FluxRepository, tmp_path: Path
) -> None:
    declare_source(repository)
    flux(repository, "apps", "./apps")
    flux(repository, "more", "./more")
    repository.flux("own", "./own")
    repository.release("own/release.yaml", "own")
    artifact(tmp_path / "one/apps", web="", db="")
    change(tmp_path / "one/apps/db.yaml", "1h", "1h, intervall: 2h")
    artifact(tmp_path / "one/more", more="")
    repository.artifacts.push(OCI, path=str(tmp_path / "one"))
    declared = await repository.read()
    assert keys(declared) == {"default/web", "default/own", "default/more"}
    (said,) = problems(declared)
    assert said.startswith(f"{OCI}/apps/db.yaml:4: spec.intervall: ")
    assert "default/db" in map(str, declared.untouched)
    artifact(tmp_path / "two/apps", web="")
    repository.artifacts.push(OCI, path=str(tmp_path / "two"))
    repository.clock.advance(timedelta(minutes=6))
    after = await repository.poll()
    assert after is not None
    assert keys(after) == {"default/web", "default/own"}
    (said,) = problems(after)
    assert said.startswith("clusters/prod/more.yaml:9: spec.path: there is no directory `more`")
    more = declared.releases[DeclarationKey("default", "more")].file
    assert repository.declarations.location_of(more) not in repository.declarations.locations, (
        "nothing of it is taken for removed"
    )


async def test_a_directory_of_the_same_name_as_in_the_artifact_is_read_as_it_lies(
    repository: FluxRepository, tmp_path: Path
) -> None:
    inside = tmp_path / "one"
    artifact(inside / "apps", web="")
    repository.artifacts.push(OCI, path=str(inside))
    declare_source(repository)
    flux(repository, "apps", "./apps")
    repository.release("apps/release.yaml", "own")
    declared = await repository.read("")
    assert (keys(declared), problems(declared)) == ({"default/web", "default/own"}, [])


async def test_a_source_that_is_not_declared_is_where_the_kustomization_came_from(
    repository: FluxRepository,
) -> None:
    flux(repository, "apps", "./apps")
    repository.release("apps/release.yaml", "web")
    declared = await repository.read()
    assert (keys(declared), problems(declared)) == ({"default/web"}, [])
    assert repository.artifacts.asked == []


async def test_files_that_are_pushed_from_here_lack_here_what_is_ignored(
    repository: FluxRepository,
) -> None:
    flux(repository, "apps", "./apps")
    repository.release("apps/release.yaml", "web")
    repository.release("apps/old/release.yaml", "old")
    repository.write("apps/.sourceignore", "old/\n")
    assert keys(await repository.read()) == {"default/web"}


async def test_a_chart_of_the_same_name_makes_no_other_source_of_a_repository(
    repository: FluxRepository,
) -> None:
    repository.flux("web", "./apps/web", "targetNamespace: shop")
    repository.release("apps/web/release.yaml", "flux-system")
    declared = await repository.read("")
    assert (keys(declared), problems(declared)) == ({"shop/flux-system"}, [])


async def test_kustomizations_in_an_artifact_are_followed_in_it(
    repository: FluxRepository, tmp_path: Path
) -> None:
    inside = tmp_path / "one"
    artifact(inside / "web", web="")
    artifact(
        inside / "cluster",
        web=(
            "apiVersion: kustomize.toolkit.fluxcd.io/v1\nkind: Kustomization\n"
            "metadata: {name: web, namespace: flux-system}\n"
            "spec:\n  interval: 1m\n  prune: true\n  path: ./web\n  targetNamespace: shop\n"
            "  sourceRef: {kind: OCIRepository, name: apps}\n"
        ),
    )
    repository.artifacts.push(OCI, path=str(inside))
    declare_source(repository)
    flux(repository, "apps", "./cluster")
    declared = await repository.read()
    assert (keys(declared), problems(declared)) == ({"shop/web"}, [])


async def test_a_path_that_leads_out_of_the_artifact_is_refused(
    repository: FluxRepository, tmp_path: Path
) -> None:
    repository.artifacts.push(OCI, path=artifact(tmp_path / "one", web=""))
    declare_source(repository)
    flux(repository, "apps", "../../etc")
    declared = await repository.read()
    assert "leads out of the repository" in problems(declared)[0]
