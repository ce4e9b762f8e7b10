"""helmops/reconcile/trees.py: what declarations call by name, as trees of files."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from helmops.errors import SourceInvalid, SourceMissing, SourceUnavailable, ValuesError
from helmops.model.charts import IncludedTree, Tree
from helmops.model.declared import DeclarationSet
from helmops.reconcile.credentials import CredentialReader
from helmops.reconcile.secrets import DeclaredSecrets
from helmops.reconcile.trees import Trees
from tests.fakes.clock import FakeClock
from tests.fakes.git_trees import FakeGitTrees
from tests.fakes.references import FakeReferences
from tests.unit.reconcile.samples import GIT, declare, git_repository, key, secret

SHARED = "https://git.example.com/shared.git"


class Room:
    def __init__(self) -> None:
        self.clock = FakeClock()
        self.git = FakeGitTrees()
        self.secrets = DeclaredSecrets(FakeReferences())
        self.trees = Trees(
            clock=self.clock, git=self.git, credentials=CredentialReader(self.secrets)
        )

    async def tree(self, *documents: Any, declared: DeclarationSet | None = None) -> Tree:
        found = declared or declare(*documents)
        self.secrets.declarations = found
        return await self.trees.of(found, found.source("GitRepository", key("git")))


@pytest.fixture
def room() -> Room:
    room = Room()
    room.git.push(GIT, path="/trees/one")
    return room


async def test_a_repository_that_does_not_answer_is_taken_to_be_as_it_was(room: Room) -> None:
    before = await room.tree(git_repository())
    room.clock.advance(timedelta(minutes=6))
    room.git.push(GIT, path="/trees/two")
    room.git.refuse_to_resolve(GIT, SourceUnavailable("the connection is refused"))
    assert await room.tree(git_repository()) == before
    assert "refused" in room.trees.trouble(("GitRepository", key("git")))
    asked = len(room.git.asked)
    assert await room.tree(git_repository()) == before
    assert [what for what, _, _ in room.git.asked[asked:]] == ["checkout"]  # not asked again yet
    room.git.refuse_to_resolve(GIT, None)
    room.clock.advance(timedelta(minutes=6))
    assert (await room.tree(git_repository())).path == "/trees/two"
    assert room.trees.trouble(("GitRepository", key("git"))) == ""


async def test_one_that_never_answered_or_says_that_it_is_gone_fails(room: Room) -> None:
    room.git.refuse_to_resolve(GIT, SourceUnavailable("the connection is refused"))
    with pytest.raises(SourceUnavailable):
        await room.tree(git_repository())
    room.git.refuse_to_resolve(GIT, None)
    await room.tree(git_repository())
    room.clock.advance(timedelta(minutes=6))
    room.git.delete_branch(GIT, "main")
    with pytest.raises(SourceMissing):
        await room.tree(git_repository())


async def test_another_reference_is_asked_for_at_once(room: Room) -> None:
    await room.tree(git_repository())
    room.git.push(GIT, branch="next", path="/trees/next")
    assert (await room.tree(git_repository(ref={"branch": "next"}))).path == "/trees/next"


async def test_included_repositories_are_handed_on_with_their_places(room: Room) -> None:
    room.git.push(SHARED, path="/trees/shared")
    include = [
        {"repository": {"name": "shared"}},
        {"repository": {"name": "shared"}, "fromPath": "base", "toPath": "charts/base"},
    ]
    await room.tree(git_repository(include=include), git_repository("shared", url=SHARED))
    (first, second) = room.git.included
    assert (first.tree.path, first.from_path, first.to_path) == ("/trees/shared", "", "shared")
    assert second == IncludedTree(first.tree, "base", "charts/base")


async def test_repositories_that_include_each_other_are_refused(room: Room) -> None:
    with pytest.raises(SourceInvalid, match="apps/git -> apps/shared -> apps/git"):
        await room.tree(
            git_repository(include=[{"repository": {"name": "shared"}}]),
            git_repository("shared", include=[{"repository": {"name": "git"}}]),
        )


async def test_an_included_repository_that_is_not_declared_or_suspended_is_named(
    room: Room,
) -> None:
    including = git_repository(include=[{"repository": {"name": "shared"}}])
    with pytest.raises(SourceMissing, match="GitRepository apps/shared is not declared"):
        await room.tree(including)
    with pytest.raises(SourceUnavailable, match="GitRepository apps/shared is suspended"):
        await room.tree(including, git_repository("shared", suspend=True))


async def test_keys_to_verify_with_come_out_of_the_secret(room: Room) -> None:
    verify = {"mode": "HEAD", "secretRef": {"name": "keys"}}
    with pytest.raises(SourceMissing, match="Secret apps/keys does not exist"):
        await room.tree(git_repository(verify=verify))
    await room.tree(git_repository(verify=verify), secret("keys", ann__asc="KEY"))
    assert room.git.keys == {"ann.asc": b"KEY"}


async def test_a_proxy_s_address_and_login_come_out_of_its_secret(room: Room) -> None:
    proxied = git_repository(proxySecretRef={"name": "proxy"})
    proxy = secret("proxy", address="http://proxy:3128", username="u", password="p@ss/word")
    await room.tree(proxied, proxy)
    assert room.git.credentials is not None
    assert room.git.credentials.proxy == "http://u:p%40ss%2Fword@proxy:3128"
    with pytest.raises(ValuesError, match="no URL of a proxy"):
        await room.tree(proxied, secret("proxy", address="nothing"))
