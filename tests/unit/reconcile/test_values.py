"""Layers of values that resolving a release does not show; the rest is in test_resolving.py."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from helmops.errors import DeclarationError, DecryptionFailed, ValuesError, ValuesReferenceMissing
from helmops.model.charts import Tree
from helmops.model.declaration_set import read_declarations
from helmops.model.declared import DeclarationSet
from helmops.reconcile.credentials import CredentialReader
from helmops.reconcile.secrets import DeclaredSecrets
from helmops.reconcile.trees import Trees
from helmops.reconcile.values import ValuesReader
from helmops.resolve.layers import Layer, composed
from helmops.sources.tree_files import TreeFiles
from tests.fakes.clock import FakeClock
from tests.fakes.git_trees import FakeGitTrees
from tests.fakes.references import FakeReferences
from tests.unit.reconcile.samples import (
    GIT,
    config_map,
    git_repository,
    key,
    release,
    secret,
    source_file,
)

LOCKED, PLAIN = b"locked", b"a: {password: s3cret-s3cret}\n"


async def unlock(content: bytes, name: str) -> bytes:
    if content == b"no key":
        raise DecryptionFailed("no key at hand decrypts it", where=name)
    return PLAIN if content == LOCKED else content


class Room:
    """A reader over a directory."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.cluster = FakeReferences()
        self.hidden: list[str] = []
        self.secrets = DeclaredSecrets(self.cluster, lambda *texts: self.hidden.extend(texts))
        self.git = FakeGitTrees()
        self.reader = ValuesReader(
            references=self.secrets,
            trees=Trees(
                clock=FakeClock(), git=self.git, credentials=CredentialReader(self.secrets)
            ),
            files=TreeFiles(),
            decrypt=unlock,
        )

    def write(self, name: str, content: str | bytes) -> None:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())

    async def layers(self, *references: Any, beside: Any = (), **spec: Any) -> tuple[Layer, ...]:
        declared = release(valuesFrom=list(references), **spec)
        documents = (declared, *beside)
        path = "apps/web.yaml"
        found = read_declarations([source_file(*documents, path=path, root=str(self.root))])
        return await self.layers_in(found)

    async def layers_in(self, declared: DeclarationSet) -> tuple[Layer, ...]:
        self.secrets.declarations = declared
        return await self.reader.layers(declared, declared.releases[key()])


@pytest.fixture
def room(tmp_path: Path) -> Room:
    return Room(tmp_path)


def files(path: str, **rest: Any) -> dict[str, Any]:
    return {"kind": "File", "path": path, **rest}


async def test_all_files_of_a_pattern_are_layers_in_the_order_of_their_paths(room: Room) -> None:
    for name in ("b.yaml", "a.yaml", "sub/c.yaml", ".d.yaml", "e.txt"):
        room.write(f"values/{name}", f"from: {name}")
    layers = await room.layers(files("../values/*.yaml"), values={"x": 1})
    assert [layer.where for layer in layers[:-1]] == ["../values/a.yaml", "../values/b.yaml"]
    assert composed(layers) == {"from": "b.yaml", "x": 1}
    deep = await room.layers(files("../values/**/*.yaml"))
    assert [layer.where for layer in deep][-1] == "../values/sub/c.yaml"


async def test_a_pattern_that_matches_nothing_is_an_error_unless_optional(room: Room) -> None:
    with pytest.raises(ValuesReferenceMissing, match=r"values/\*\.yaml matches no file"):
        await room.layers(files("values/*.yaml"))
    assert await room.layers(files("values/*.yaml", optional=True)) == ()


async def test_a_pattern_leads_to_nothing_outside(room: Room, tmp_path: Path) -> None:
    with pytest.raises(Exception, match="leaves"):
        await room.layers(files("../../*.yaml"))


async def test_patterns_are_for_git_as_well(room: Room) -> None:
    class Files:
        async def find(self, tree: Tree, pattern: str) -> tuple[str, ...]:
            assert pattern == "env/*.yaml"
            return ("env/a.yaml", "env/b.yaml")

        async def read(self, tree: Tree, path: str) -> bytes | None:
            return f"from: {path}".encode()

    room.git.push(GIT)
    room.reader._files = Files()
    reference = {"kind": "GitRepository", "name": "git", "path": "env/*.yaml"}
    layers = await room.layers(reference, beside=[git_repository()])
    assert [layer.where for layer in layers] == [
        "env/a.yaml in GitRepository apps/git",
        "env/b.yaml in GitRepository apps/git",
    ]
    assert composed(layers) == {"from": "env/b.yaml"}


async def test_one_value_cannot_be_of_several_files(room: Room) -> None:
    room.write("apps/a.txt", "1")
    room.write("apps/b.txt", "2")
    with pytest.raises(ValuesError, match="matches 2 files, and targetPath takes one value"):
        await room.layers(files("*.txt", targetPath="a"))
    (layer,) = await room.layers(files("a*.txt", targetPath="a"))
    assert composed([layer]) == {"a": 1}


async def test_what_was_encrypted_is_secret_and_hidden_from_then_on(room: Room) -> None:
    room.write("apps/locked.yaml", LOCKED)
    room.write("apps/open.yaml", "b: 1")
    locked, plain = await room.layers(files("locked.yaml"), files("open.yaml"))
    assert (locked.is_secret, plain.is_secret) == (True, False)
    assert locked.values == {"a": {"password": "s3cret-s3cret"}}
    assert any("s3cret-s3cret" in text for text in room.hidden)
    assert "s3cret" not in repr(locked)


async def test_encrypted_values_in_a_configmap_are_decrypted_too(room: Room) -> None:
    (layer,) = await room.layers(
        {"kind": "ConfigMap", "name": "one"},
        beside=[config_map("one", values__yaml=LOCKED.decode())],
    )
    assert layer.is_secret


async def test_what_cannot_be_decrypted_is_named(room: Room) -> None:
    room.write("apps/locked.yaml", b"no key")
    with pytest.raises(DecryptionFailed, match=r"^locked\.yaml: no key"):
        await room.layers(files("locked.yaml"))


async def test_layers_know_the_field_and_the_place_that_they_are_of(room: Room) -> None:
    layers = await room.layers(
        {"kind": "ConfigMap", "name": "one"},
        {"kind": "Secret", "name": "two", "valuesKey": "port", "targetPath": "db.port"},
        beside=[config_map("one", values__yaml="# none\na: 1"), secret("two", port="5432")],
        values={"c": 1},
    )
    assert [(each.reference, each.is_secret) for each in layers] == [
        ("spec.valuesFrom[0]", False),
        ("spec.valuesFrom[1]", True),
        ("spec.values", False),
    ]
    assert layers[0].place_of(("a",)) == "ConfigMap apps/one key values.yaml:2"
    assert layers[1].place_of(("db", "port")) == "Secret apps/two key port"
    assert layers[2].place_of(("c",)).startswith("apps/web.yaml:")


@pytest.mark.parametrize("kind", ["ConfigMap", "Secret"])
async def test_a_declared_object_with_an_error_is_not_taken_from_the_cluster(
    room: Room, kind: str
) -> None:
    room.cluster.put_config_map("apps", "one", values__yaml="a: of the cluster")
    room.cluster.put_secret("apps", "one", values__yaml="a: of the cluster")
    broken = source_file(
        {"apiVersion": "v1", "kind": kind, "metadata": {"name": "one"}, "dat": {}}, path="b.yaml"
    )
    web = source_file(release(valuesFrom=[{"kind": kind, "name": "one"}]), path="a.yaml")
    declared = read_declarations([web, broken], default_namespace="apps")
    with pytest.raises(DeclarationError, match=f"b.yaml:.*{kind} apps/one has an error"):
        await room.layers_in(declared)
    assert room.cluster.reads == []
