"""helmops/sources/kustomize_files.py: what a build reads, and what it refuses to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from helmops.errors import DeclarationError
from helmops.model.documents import Document, dotted
from helmops.sources import kustomize_files
from helmops.sources.file_tree import FileTree, LeavesTree
from helmops.sources.kustomize_files import (
    InputReader,
    Inputs,
    kustomization_file,
    paths_of_plugin,
    read_kustomization,
    references,
)


class Room:
    def __init__(self, root: Path) -> None:
        self.root = root / "tree"
        self.root.mkdir()
        self.tree = FileTree(str(self.root), show=lambda path: f"fleet/{path}")

    def write(self, path: str, text: str = "") -> None:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def read(self, directory: str = "app", *, allow_remote: bool = False) -> Inputs:
        """What the build of a directory with a kustomization reads."""
        reader = InputReader(self.tree, allow_remote=allow_remote)
        reader.directory(directory, named_at="here:1")
        return reader.inputs

    def scan(self, directory: str = "app") -> tuple[list[str], Inputs]:
        reader = InputReader(self.tree, allow_remote=False)
        return reader.scanned(directory), reader.inputs

    def refusal(self, directory: str = "app") -> DeclarationError:
        with pytest.raises(DeclarationError) as refused:
            self.read(directory)
        return refused.value


@pytest.fixture
def room(tmp_path: Path) -> Room:
    return Room(tmp_path)


# The file itself ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["kustomization.yaml", "kustomization.yml", "Kustomization"])
def test_a_directorys_file_is_found_by_each_of_its_names(room: Room, name: str) -> None:
    room.write(f"app/{name}")
    room.write("other/kustomize.yaml")
    assert kustomization_file(room.tree, "app") == f"app/{name}"
    assert kustomization_file(room.tree, "other") == ""
    assert kustomization_file(room.tree, "none") == ""


def test_two_of_them_are_one_too_many(room: Room) -> None:
    room.write("app/kustomization.yaml")
    room.write("app/Kustomization")
    with pytest.raises(DeclarationError) as refused:
        kustomization_file(room.tree, "app")
    assert "kustomization.yaml and Kustomization" in refused.value.what
    assert refused.value.where == "fleet/app/Kustomization"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"\xff", "not text in UTF-8"),
        (b"- a\n", "must be one mapping"),
        (b"", "must be one mapping"),
        (b"a: 1\n---\nb: 1\n", "must be one mapping"),
        (b"a: [\n", "file.yaml:"),
    ],
)
def test_what_is_no_kustomization_is_told_by_its_file(content: bytes, said: str) -> None:
    with pytest.raises(DeclarationError) as refused:
        read_kustomization("file.yaml", content)
    assert said in str(refused.value)
    assert refused.value.where.startswith("file.yaml")


# What is named -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "found"),
    [
        ({"resources": ["a.yaml", "b"]}, {("resources[0]", "a.yaml"), ("resources[1]", "b")}),
        ({"bases": ["a"]}, {("bases[0]", "a")}),
        ({"components": ["../a"]}, {("components[0]", "../a")}),
        ({"crds": ["a"]}, {("crds[0]", "a")}),
        ({"configurations": ["a"]}, {("configurations[0]", "a")}),
        ({"openapi": {"path": "a.json"}}, {("openapi.path", "a.json")}),
        (
            {"patches": [{"patch": "inline"}, {"path": "a"}, {"path": ""}]},
            {("patches[1].path", "a")},
        ),
        ({"patchesJson6902": [{"path": "a"}]}, {("patchesJson6902[0].path", "a")}),
        ({"replacements": [{"path": "a"}, {"source": {}}]}, {("replacements[0].path", "a")}),
        (
            {"patchesStrategicMerge": ["a.yaml", "kind: X\nmetadata: {}\n", "a: b"]},
            {("patchesStrategicMerge[0]", "a.yaml")},
        ),
        (
            {"configMapGenerator": [{"files": ["a", "key=b=c"], "envs": ["d"], "env": "e"}]},
            {
                ("configMapGenerator[0].files[0]", "a"),
                ("configMapGenerator[0].files[1]", "b=c"),
                ("configMapGenerator[0].envs[0]", "d"),
                ("configMapGenerator[0].env", "e"),
            },
        ),
        ({"secretGenerator": [{"literals": ["a=b"]}]}, set()),
        (
            {"transformers": ["a.yaml", "kind: X\n", "{kind: X}"]},
            {("transformers[0]", "a.yaml")},
        ),
        ({"resources": "a", "patches": {}, "openapi": [], "configMapGenerator": [1]}, set()),
        ({"resources": [1, None, {}, "a"]}, {("resources[3]", "a")}),
    ],
)
def test_every_path_that_a_kustomization_names_is_found_with_its_field(
    data: dict[str, Any], found: set[tuple[str, str]]
) -> None:
    assert {(dotted(path), reference) for path, reference, _ in references(data)} == found


def test_only_some_references_may_be_directories() -> None:
    names = ("resources", "bases", "components", "transformers", "crds", "configurations")
    found = {path[0] for path, _, may_be in references({n: ["a"] for n in names}) if may_be}
    assert found == {"resources", "bases", "components", "transformers"}


def test_what_configurations_of_plugins_may_name_is_found_at_any_depth() -> None:
    data = {
        "kind": "X",
        "path": "a",
        "files": ["k=b"],
        "spec": [{"paths": ["c", 1], "valuesFile": "d", "inner": {"path": "e"}}],
        "fieldSpecs": [{"path": "spec/replicas"}],
    }
    assert set(paths_of_plugin(data)) == {"a", "b", "c", "d", "e", "spec/replicas"}


# What is read ------------------------------------------------------------------------------------


def test_everything_that_is_named_is_read_through_all_directories(room: Room) -> None:
    room.write(
        "app/kustomization.yaml",
        "resources: [release.yaml, ../base]\ncomponents: [../part]\n"
        "configMapGenerator:\n  - files: [values.yaml=more/values.yaml]\n",
    )
    room.write("app/release.yaml", "r")
    room.write("app/more/values.yaml", "v")
    room.write("app/unnamed.yaml", "u")
    room.write("base/Kustomization", "resources: [deep/er, ../shared]\n")
    room.write("base/deep/er/kustomization.yml", "resources: [../../../shared]\n")
    room.write("shared/kustomization.yaml", "resources: [one.yaml]\n")
    room.write("shared/one.yaml", "1")
    room.write("part/kustomization.yaml", "kind: Component\n")
    found = room.read()
    assert {path for path in found.files if "ustomization" not in path} == {
        "app/release.yaml",
        "app/more/values.yaml",
        "shared/one.yaml",
    }
    assert found.directories == {"app", "base", "base/deep/er", "shared", "part"}
    assert found.files["shared/one.yaml"] == b"1"
    assert {"app/Kustomization", "base/kustomization.yaml", "part/kustomization.yml"} <= (
        found.absent
    )
    assert not found.absent & found.files.keys()
    assert (found.is_remote, found.encrypted, found.links) == (False, [], {})


def test_a_directory_that_is_named_many_times_is_read_once(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    for level in range(6):
        again = f"../level-{level + 1}"
        room.write(f"level-{level}/kustomization.yaml", f"resources: [{again}, {again}]\n")
    room.write("level-6/kustomization.yaml", "resources: []\n")
    read: list[str] = []

    def counted(path: str, content: bytes) -> Document:
        read.append(path)
        return read_kustomization(path, content)

    monkeypatch.setattr(kustomize_files, "read_kustomization", counted)
    room.read("level-0")
    assert len(read) == 7


def test_files_that_sops_encrypted_are_named(room: Room) -> None:
    room.write("app/kustomization.yaml", "resources: [a.yaml, b.yaml]\n")
    room.write("app/a.yaml", "data: ENC[AES256_GCM,data:x]\n")
    room.write("app/b.yaml", "data: x\n")
    assert room.read().encrypted == ["app/a.yaml"]


def test_files_that_plugins_name_are_read_where_they_are_files(room: Room) -> None:
    room.write(
        "app/kustomization.yaml",
        "transformers:\n  - plugin.yaml\n  - |-\n    kind: X\n    path: inline.yaml\n",
    )
    room.write("app/plugin.yaml", "kind: PatchTransformer\npath: patch.yaml\nother: gone.yaml\n")
    room.write("app/patch.yaml", "p")
    room.write("app/inline.yaml", "i")
    assert set(room.read().files) == {
        f"app/{name}.yaml" for name in ("kustomization", "plugin", "patch", "inline")
    }


@pytest.mark.parametrize("path", ["../../secret", "/etc/passwd"])
def test_files_that_plugins_name_do_not_lead_out(room: Room, path: str) -> None:
    room.write("app/kustomization.yaml", f"generators:\n  - |-\n    kind: X\n    path: {path}\n")
    refused = room.refusal()
    assert isinstance(refused, LeavesTree)
    assert (refused.where, refused.field) == ("fleet/app/kustomization.yaml:2", "generators[0]")


def test_links_in_the_tree_are_followed_and_remembered(room: Room) -> None:
    room.write("shared/base/kustomization.yaml", "resources: [one.yaml]\n")
    room.write("shared/base/one.yaml", "1")
    room.write("app/kustomization.yaml", "resources: [base, two.yaml]\n")
    (room.root / "app/base").symlink_to("../shared/base")
    (room.root / "app/two.yaml").symlink_to("../shared/base/one.yaml")
    found = room.read()
    assert found.links == {"app/base": "shared/base", "app/two.yaml": "shared/base/one.yaml"}
    assert {"shared/base/one.yaml", "app/two.yaml"} <= found.files.keys()
    assert found.directories == {"app", "shared/base"}


# What is refused ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reference", "said"),
    [
        ("gone.yaml", "`gone.yaml` does not exist"),
        ("../../out", "leads out of the repository"),
        ("/etc/passwd", "`/etc/passwd` leads out of the repository"),
        ("link", "leads out of the repository"),
        ("link/secret", "leads out of the repository"),
        ("empty", "`app/empty` has no kustomization.yaml"),
    ],
)
def test_what_is_not_there_or_leads_out_is_told_by_the_place_that_names_it(
    room: Room, tmp_path: Path, reference: str, said: str
) -> None:
    (tmp_path / "secret").write_text("x")
    room.write("app/kustomization.yaml", f"kind: Kustomization\nresources:\n  - {reference}\n")
    room.write("app/empty/README.md")
    (room.root / "app/link").symlink_to(tmp_path)
    refused = room.refusal()
    assert said in refused.what
    assert refused.where == "fleet/app/kustomization.yaml:3"


def test_a_mistake_in_a_base_is_told_by_the_file_of_the_base(room: Room) -> None:
    room.write("app/kustomization.yaml", "resources: [../base]\n")
    room.write("base/kustomization.yaml", "kind: Kustomization\nresources: [gone.yaml]\n")
    refused = room.refusal()
    assert refused.where == "fleet/base/kustomization.yaml:2"
    assert refused.field == "resources[0]"


def test_a_mistake_without_a_field_does_not_get_that_of_who_includes_it(room: Room) -> None:
    room.write("app/kustomization.yaml", "resources: [../base]\n")
    room.write("base/kustomization.yaml")
    room.write("base/Kustomization")
    refused = room.refusal()
    assert (refused.where, refused.field) == ("fleet/base/Kustomization", "")


def test_a_directory_where_a_file_must_be_is_none(room: Room) -> None:
    room.write("app/kustomization.yaml", "crds: [../base]\n")
    room.write("base/kustomization.yaml", "resources: []\n")
    assert "`../base` does not exist" in room.refusal().what


def test_what_is_not_there_is_remembered_so_that_its_coming_is_seen(room: Room) -> None:
    room.write("app/kustomization.yaml", "resources: [gone.yaml]\n")
    reader = InputReader(room.tree, allow_remote=False)
    with pytest.raises(DeclarationError):
        reader.directory("app", named_at="here:1")
    assert "app/gone.yaml" in reader.inputs.absent


def test_kustomizations_that_include_each_other_are_a_circle_that_is_shown(room: Room) -> None:
    room.write("app/kustomization.yaml", "resources: [../one]\n")
    room.write("one/kustomization.yaml", "resources: [../two]\n")
    room.write("two/kustomization.yaml", "components:\n  - ../link\n")
    (room.root / "link").symlink_to("one")
    refused = room.refusal()
    assert refused.what == "the kustomizations include each other: one -> two -> one"
    assert refused.where == "fleet/two/kustomization.yaml:2"


def test_one_that_includes_itself_is_a_circle(room: Room) -> None:
    room.write("app/kustomization.yaml", "resources: [../app]\n")
    assert "include each other: app -> app" in room.refusal().what


@pytest.mark.parametrize("field", ["helmCharts", "helmChartInflationGenerator"])
def test_charts_are_not_rendered(room: Room, field: str) -> None:
    room.write("app/kustomization.yaml", f"resources: []\n{field}:\n  - name: web\n")
    refused = room.refusal()
    assert (refused.where, refused.field) == ("fleet/app/kustomization.yaml:2", field)


@pytest.mark.parametrize(
    "reference",
    [
        "https://git.example.com/team/bases//web?ref=v1",
        "git@git.example.com:team/bases",
        "ssh://git@git.example.com/team/bases",
        "git::https://git.example.com/x",
        "github.com/team/bases",
        "host/team/bases.git",
        "bases?ref=main",
    ],
)
def test_what_lies_elsewhere_is_remote(room: Room, reference: str) -> None:
    room.write("app/kustomization.yaml", f"resources: ['{reference}']\n")
    assert "is a remote base" in room.refusal().what
    found = room.read(allow_remote=True)
    assert found.is_remote
    assert set(found.files) == {"app/kustomization.yaml"}


def test_a_remote_base_is_shown_without_its_password(room: Room) -> None:
    reference = "https://me:hunter2@git.example.com/x?token=hunter3"
    room.write("app/kustomization.yaml", f"resources: ['{reference}']\n")
    said = str(room.refusal())
    assert "https://git.example.com/x" in said
    assert "hunter" not in said


def test_a_file_that_is_there_is_none_whatever_its_name(room: Room) -> None:
    room.write("app/kustomization.yaml", "resources: ['bases?ref=main']\n")
    room.write("app/bases?ref=main", "1")
    assert not room.read().is_remote


def test_files_and_bytes_are_bounded(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    room.write("app/kustomization.yaml", "resources: [a.yaml, b.yaml]\n")
    room.write("app/a.yaml", "a" * 600)
    room.write("app/b.yaml", "b" * 600)
    assert len(room.read().files) == 3
    monkeypatch.setattr(kustomize_files, "MAX_FILES", 2)
    assert "more than 2 files" in room.refusal().what
    monkeypatch.setattr(kustomize_files, "MAX_FILES", 3)
    monkeypatch.setattr(kustomize_files, "MAX_BYTES", 1000)
    refused = room.refusal()
    assert "more than 3 files or 0 MiB" in refused.what
    assert refused.where == "fleet/app/kustomization.yaml:1"


# A directory without -----------------------------------------------------------------------------


def test_a_directory_without_kustomization_is_all_its_yaml_and_directories_that_have_one(
    room: Room, tmp_path: Path
) -> None:
    for path in (
        "app/b.yaml",
        "app/a.yml",
        "app/c.json",
        "app/sub/d.yaml",
        "app/sub/.hidden.yaml",
        "app/.dot/e.yaml",
        "app/chart/Chart.yaml",
        "app/chart/templates/f.yaml",
        "app/own/kustomization.yml",
        "app/own/g.yaml",
        "elsewhere/h.yaml",
    ):
        room.write(path)
    (room.root / "app/link").symlink_to("../elsewhere")
    found, inputs = room.scan()
    assert found == ["app/a.yml", "app/b.yaml", "app/own", "app/sub/d.yaml"]
    assert inputs.listed == {"app", "app/sub", "app/chart"}
    assert {f"app/{name}/kustomization.yaml" for name in ("sub", "chart", "own")} <= inputs.absent
    assert "app/own/kustomization.yml" not in inputs.absent


def test_the_whole_tree_and_none_can_be_scanned(room: Room) -> None:
    room.write("a/b.yaml")
    assert room.scan("")[0] == ["a/b.yaml"]
    found, inputs = room.scan("none")
    assert (found, inputs.listed) == ([], {"none"})


def test_too_many_files_in_it_are_refused(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kustomize_files, "MAX_FILES", 2)
    for name in ("a", "b", "c"):
        room.write(f"app/{name}.yaml")
    with pytest.raises(DeclarationError, match="more than 2 files") as refused:
        room.scan()
    assert refused.value.where == "fleet/app"


def test_two_kustomizations_in_a_directory_of_it_are_refused(room: Room) -> None:
    room.write("app/own/kustomization.yml")
    room.write("app/own/kustomization.yaml")
    with pytest.raises(DeclarationError, match="keep one of them"):
        room.scan()
