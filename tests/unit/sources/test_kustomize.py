"""helmops/sources/kustomize.py: what is built, what is at hand, and how kubectl is run.

kubectl is a script here, which writes down how it was called. What the real one makes of
kustomizations is looked at in e2e.
"""

from __future__ import annotations

import json
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from helmops.errors import DeclarationError
from helmops.sources import kustomize
from helmops.sources.file_tree import FileTree, LeavesTree
from helmops.sources.kustomize import Built, Kustomizer, KustomizeUnavailable, Overlay

HEAD = "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\n"
#: What is not built without kubectl.
PREFIXED = f"{HEAD}namePrefix: my-\nresources:\n  - release.yaml\n"


def release(name: str, more: str = "") -> str:
    return (
        "apiVersion: helm.toolkit.fluxcd.io/v2\nkind: HelmRelease\n"
        f"metadata:\n  name: {name}\nspec:\n  interval: 1h\n{more}"
    )


def secret(more: str = "") -> str:
    return (
        "apiVersion: v1\nkind: Secret\nmetadata:\n  name: login\n"
        f"stringData:\n  password: swordfish\n{more}"
    )


class Room:
    """A tree, a cache, and a kubectl that is a script."""

    def __init__(self, root: Path) -> None:
        self.root = root / "tree"
        self.cache = root / "cache"
        self.kubectl = root / "bin" / "kubectl"
        self.log = root / "log"
        self.output = root / "output"
        self.kubectl.parent.mkdir()
        self.root.mkdir()
        self.output.write_text(release("built"))
        self.script(f"cat {self.output}")
        self.builder = self.another()
        self.tree = FileTree(str(self.root))

    def another(self, *, allow_remote: bool = False) -> Kustomizer:
        """As another process has it."""
        return Kustomizer(str(self.kubectl), self.cache, allow_remote=allow_remote)

    def script(self, *lines: str) -> None:
        """What kubectl does, after it wrote down what it was given."""
        said = f'{{ echo "$@"; env | sort; cd "$3" && cat kustomization.yaml; }} >> {self.log}'
        self.kubectl.write_text("\n".join(["#!/bin/sh", said, *lines, ""]))
        self.kubectl.chmod(0o755)
        # The same program, whatever it does: what it is counts among what a build depends on.
        os.utime(self.kubectl, ns=(1, 1))

    def write(self, path: str, text: str | bytes) -> None:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(text.encode() if isinstance(text, str) else text)

    def build(self, directory: str = "app", overlay: Overlay | None = None) -> Built:
        """By this process, after a look."""
        self.tree.look()
        return self.builder.build(self.tree, directory, overlay)

    def known(self, directory: str = "app", overlay: Overlay | None = None) -> Built | None:
        """By another process, which has the files and the cache only."""
        return self.another().known(FileTree(str(self.root)), directory, overlay)

    def kept(self) -> str:
        """All that is on disk."""
        return "".join(file.read_text() for file in self.cache.rglob("*") if file.is_file())


@pytest.fixture
def room(tmp_path: Path) -> Iterator[Room]:
    one = Room(tmp_path)
    yield one
    one.builder.close()


def names(built: Built | None) -> list[str]:
    assert built is not None
    return [each.data["metadata"]["name"] for each in built.objects]


# What is at hand ---------------------------------------------------------------------------------


def test_an_unchanged_build_is_at_hand_here_and_in_another_process(room: Room) -> None:
    room.write("app/kustomization.yaml", PREFIXED)
    room.write("app/release.yaml", release("web"))
    assert room.known() is None
    built = room.build()
    assert room.build() is built
    assert room.builder.known(room.tree, "app") is built
    assert room.known() == built
    assert room.builder.runs == 1
    assert room.another().build(FileTree(str(room.root)), "app") == built
    assert room.log.read_text().count("kustomize --load") == 1


def _change(room: Room) -> None:
    room.write("app/release.yaml", release("other"))


def _remove(room: Room) -> None:
    (room.root / "app/base/release.yaml").unlink()


def _second_kustomization(room: Room) -> None:
    room.write("app/kustomization.yml", HEAD)


def _second_kustomization_in_a_base(room: Room) -> None:
    room.write("app/base/Kustomization", HEAD)


def _component(room: Room) -> None:
    room.write("parts/kustomization.yaml", HEAD)


@pytest.mark.parametrize(
    "change",
    [_change, _remove, _second_kustomization, _second_kustomization_in_a_base, _component],
)
def test_a_build_is_not_at_hand_after_a_change_of_what_it_depends_on(
    room: Room, change: Callable[[Room], None]
) -> None:
    room.write("app/kustomization.yaml", f"{PREFIXED}  - base\n")
    room.write("app/release.yaml", release("web"))
    room.write("app/base/kustomization.yaml", f"{HEAD}resources:\n  - release.yaml\n")
    room.write("app/base/release.yaml", release("base"))
    overlay = Overlay(components=("../parts",), ignore_missing_components=True)
    built = room.build(overlay=overlay)
    room.write("app/README.md", "of no concern")
    room.write("other/release.yaml", release("other"))
    room.tree.look()
    assert room.builder.known(room.tree, "app", overlay) is built
    assert room.known(overlay=overlay) == built
    change(room)
    assert room.tree.look()
    assert room.builder.known(room.tree, "app", overlay) is None
    assert room.known(overlay=overlay) is None


def test_of_a_directory_without_kustomization_files_that_come_and_go_are_seen(room: Room) -> None:
    room.write("app/one.yaml", release("one"))
    before = room.build(overlay=Overlay())
    assert names(before) == ["one"]
    room.write("app/sub/two.yml", release("two"))
    room.write("app/README.md", "of no concern")
    assert room.known(overlay=Overlay()) is None
    assert names(room.build(overlay=Overlay())) == ["one", "two"]
    shutil.rmtree(room.root / "app/sub")
    (room.root / "app/README.md").unlink()
    room.tree.look()
    assert room.builder.known(room.tree, "app", Overlay()) is before, "as it was once"
    assert room.builder.runs == 0, "plain ones need no kubectl"


def test_an_empty_directory_is_built_to_nothing_and_that_is_at_hand(room: Room) -> None:
    room.write("app/README.md", "no YAML")
    assert room.build(overlay=Overlay()).objects == ()
    assert room.known(overlay=Overlay()) == Built(())


def test_what_is_asked_otherwise_is_another_build(room: Room) -> None:
    room.write("app/release.yaml", release("web"))
    assert names(room.build(overlay=Overlay())) == ["web"]
    shop = Overlay(namespace="shop")
    assert room.known(overlay=shop) is None
    assert room.build(overlay=shop).objects[0].data["metadata"]["namespace"] == "shop"
    assert "namespace" not in room.build(overlay=Overlay()).objects[0].data["metadata"]
    assert room.another().known(room.tree, "app", Overlay(), with_text=True) is None
    assert room.known("other", Overlay()) is None


def test_another_kubectl_builds_anew(room: Room) -> None:
    room.write("app/kustomization.yaml", PREFIXED)
    room.write("app/release.yaml", release("web"))
    room.build()
    room.kubectl.write_text(room.kubectl.read_text() + "# another version\n")
    assert room.known() is None
    room.build()
    assert room.builder.runs == 2


def test_a_few_former_builds_are_kept_and_older_ones_are_not(room: Room) -> None:
    room.write("app/kustomization.yaml", PREFIXED)
    for number in range(4):
        room.write("app/release.yaml", release(f"web-{number}"))
        room.build()
    at_hand = []
    for number in range(4):
        room.write("app/release.yaml", release(f"web-{number}"))
        at_hand.append(room.known() is not None)
    assert at_hand == [False, True, True, True]


def test_secrets_in_clear_text_are_never_on_disk(room: Room) -> None:
    room.write("app/kustomization.yaml", PREFIXED)
    room.write("app/release.yaml", secret())
    room.output.write_text(f"{secret()}---\n{release('web')}")
    assert names(room.build()) == ["login", "web"]
    assert "swordfish" not in room.kept()
    assert room.known() is None
    room.build()
    assert room.builder.runs == 1, "it is in memory"
    room.write("app/release.yaml", release("web"))
    room.output.write_text(release("web"))
    room.build()
    assert room.known() is not None
    assert "swordfish" not in room.kept(), "nor as what was built before"


def test_secrets_that_are_encrypted_are_kept(room: Room) -> None:
    sealed = secret("sops:\n  mac: ENC[AES256_GCM,data:x]\n").replace("swordfish", "sealed")
    room.write("app/release.yaml", sealed)
    built = room.build(overlay=Overlay())
    assert built.encrypted == ("app/release.yaml",)
    assert room.known(overlay=Overlay()) == built


@pytest.mark.parametrize("reference", ["https://git.example.com/bases?ref=v1", "github.com/a/b"])
def test_remote_bases_are_refused_or_loaded_and_then_never_kept_on_disk(
    room: Room, reference: str
) -> None:
    room.write("app/kustomization.yaml", f"{HEAD}resources:\n  - {reference}\n")
    with pytest.raises(DeclarationError, match="is a remote base") as refused:
        room.build()
    assert (refused.value.where, refused.value.field) == (
        "app/kustomization.yaml:4",
        "resources[0]",
    )
    one, other = room.another(allow_remote=True), room.another(allow_remote=True)
    built = one.build(room.tree, "app")
    assert one.build(room.tree, "app") is built
    assert one.runs == 1
    assert not list(room.cache.glob("*.json"))
    assert other.known(room.tree, "app") is None
    remote = (room.root / "app/kustomization.yaml").read_text()
    room.write("app/kustomization.yaml", PREFIXED)
    room.write("app/release.yaml", release("web"))
    room.tree.look()
    one.build(room.tree, "app")
    assert room.known() is not None
    room.write("app/kustomization.yaml", remote)
    assert room.known() is None, "nor as what was built before"


@pytest.mark.parametrize("damage", ["", "{", "null", "[1]", '[{"files": {}}]', "\x00\x01"])
def test_a_damaged_cache_is_as_none_and_mended(room: Room, damage: str) -> None:
    room.write("app/release.yaml", release("web"))
    built = room.build(overlay=Overlay())
    (file,) = room.cache.glob("*.json")
    file.write_text(damage)
    assert room.known(overlay=Overlay()) is None
    assert room.another().build(FileTree(str(room.root)), "app", Overlay()) == built
    assert room.known(overlay=Overlay()) == built


def test_a_cache_that_cannot_be_written_is_no_failure(room: Room) -> None:
    room.cache.write_text("a file where the directory should be")
    room.write("app/release.yaml", release("web"))
    assert names(room.build(overlay=Overlay())) == ["web"]


def test_the_cache_does_not_grow_for_ever(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kustomize, "_KEPT_FILES", 8)
    for number in range(20):
        room.write(f"app-{number}/release.yaml", release("web"))
        room.build(f"app-{number}", Overlay())
    assert len(list(room.cache.glob("*.json"))) <= 8
    assert room.known("app-19", Overlay()) is not None


# kubectl -----------------------------------------------------------------------------------------


def test_kubectl_gets_copies_of_the_files_that_are_named_and_nothing_of_our_own(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HELMOPS_STATE", "postgresql://user:hunter2@db")
    monkeypatch.setenv("KUBECONFIG", "/home/me/config")
    room.write("app/kustomization.yaml", f"{PREFIXED}  - ../base\n")
    room.write("app/release.yaml", release("web"))
    room.write("app/unnamed.yaml", release("unnamed"))
    room.write("base/kustomization.yaml", f"{HEAD}resources:\n  - more.yaml\n")
    room.write("base/more.yaml", release("more"))
    room.script(f"find . ../base -type f | sort > {room.log}.files", f"cat {room.output}")
    room.build()
    files = Path(f"{room.log}.files").read_text().split()
    assert files == [
        "../base/kustomization.yaml",
        "../base/more.yaml",
        "./kustomization.yaml",
        "./release.yaml",
    ]
    said = room.log.read_text()
    assert "hunter2" not in said
    assert "KUBECONFIG=/dev/null" in said
    assert str(room.root) not in said
    assert (room.root / "app/kustomization.yaml").read_text().startswith(PREFIXED)
    assert list((room.cache / "scratch").iterdir()) == []


def test_links_are_laid_out_as_they_are(room: Room) -> None:
    room.write("shared/release.yaml", release("web"))
    room.write("shared/base/kustomization.yaml", f"{HEAD}resources: []\n")
    room.write("app/kustomization.yaml", f"{PREFIXED}  - base\n")
    (room.root / "app/release.yaml").symlink_to("../shared/release.yaml")
    (room.root / "app/base").symlink_to("../shared/base")
    room.script(f"cat release.yaml base/kustomization.yaml > {room.log}.read", f"cat {room.output}")
    built = room.build()
    assert Path(f"{room.log}.read").read_text() == f"{release('web')}{HEAD}resources: []\n"
    room.write("shared/release.yaml", release("other"))
    assert room.build() is not built
    assert room.builder.runs == 2


def test_what_has_links_is_never_built_without_kubectl(room: Room) -> None:
    room.write("shared/release.yaml", release("web"))
    room.write("app/kustomization.yaml", f"{HEAD}resources:\n  - release.yaml\n")
    (room.root / "app/release.yaml").symlink_to("../shared/release.yaml")
    assert names(room.build()) == ["built"]


def test_links_that_lead_out_are_refused(room: Room, tmp_path: Path) -> None:
    (tmp_path / "secret.yaml").write_text(secret())
    room.write("app/kustomization.yaml", PREFIXED)
    (room.root / "app/release.yaml").symlink_to(tmp_path / "secret.yaml")
    with pytest.raises(DeclarationError, match="leads out of the repository"):
        room.build()
    (room.root / "out").symlink_to(tmp_path)
    with pytest.raises(LeavesTree):
        room.build("out", Overlay())
    assert room.builder.runs == 0


def test_without_kubectl_plain_ones_are_built_and_others_say_what_is_missing(room: Room) -> None:
    room.write("app/kustomization.yaml", PREFIXED)
    room.write("app/release.yaml", release("web"))
    room.kubectl.unlink()
    with pytest.raises(KustomizeUnavailable) as refused:
        room.build()
    assert str(room.kubectl) in refused.value.what
    assert "--kubectl" in refused.value.next_step
    room.write("plain/release.yaml", release("web"))
    assert names(room.build("plain", Overlay())) == ["web"]


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (["echo 'warning: old' >&2", "echo 'error: no matches for Id x' >&2"], "no matches for Id"),
        (["echo 'panic: runtime error' >&2", "echo 'goroutine 1' >&2"], "panic: runtime error"),
        (["echo 'something else' >&2"], "something else"),
        (['echo \'error: bad {"password": "swordfish"}\' >&2'], "bad …"),
        (["echo 'error: bad map[password:swordfish]' >&2"], "bad …"),
        ([], "it said nothing"),
        ([f'echo \'error: bad [{{"password": "{"swordfish" * 9}"}}]\' >&2'], "bad …"),
    ],
)
def test_what_kubectl_says_is_told_with_the_file_and_without_what_may_be_secret(
    room: Room, lines: list[str], said: str
) -> None:
    room.write("app/kustomization.yaml", PREFIXED)
    room.write("app/release.yaml", release("web"))
    room.script(*lines, "exit 1")
    for _ in range(2):  # a failure is not kept
        with pytest.raises(DeclarationError) as refused:
            room.build()
    assert refused.value.where == "app/kustomization.yaml"
    assert refused.value.what.startswith("kustomize: ")
    assert said in refused.value.what
    assert "swordfish" not in str(refused.value)
    assert room.builder.runs == 2
    room.script(f"cat {room.output}")
    assert names(room.build()) == ["built"]


def test_paths_of_the_copy_are_told_as_those_of_the_repository(room: Room) -> None:
    room.write("app/kustomization.yaml", PREFIXED)
    room.write("app/release.yaml", release("web"))
    room.script('echo "error: $3/release.yaml: bad" >&2', "exit 1")
    with pytest.raises(DeclarationError, match=r": kustomize: app/release.yaml: bad"):
        room.build()


def test_one_that_takes_too_long_is_ended_with_all_that_it_started(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kustomize, "_SECONDS", 0.3)
    room.write("app/kustomization.yaml", PREFIXED)
    room.write("app/release.yaml", release("web"))
    room.script(f"sleep 600 & echo $! > {room.log}.child", "wait")
    with pytest.raises(DeclarationError, match="was not done after 0 s, and was stopped"):
        room.build()
    assert _has_ended(int(Path(f"{room.log}.child").read_text()))


def test_closing_ends_what_runs_and_starts_nothing_more(room: Room) -> None:
    room.write("app/kustomization.yaml", PREFIXED)
    room.write("app/release.yaml", release("web"))
    room.script(f"touch {room.log}.started", "exec sleep 600")
    failures: list[DeclarationError] = []

    def build() -> None:
        try:
            room.build()
        except DeclarationError as error:
            failures.append(error)

    thread = threading.Thread(target=build)
    thread.start()
    while not Path(f"{room.log}.started").exists():
        time.sleep(0.01)
    room.builder.close()
    thread.join(30)
    assert not thread.is_alive()
    with pytest.raises(DeclarationError, match="helmops is stopping"):
        room.build()
    assert len(failures) == 1
    assert room.builder.runs == 1


def test_too_much_output_ends_it(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kustomize, "_MAX_OUTPUT", 100_000)
    room.write("app/kustomization.yaml", PREFIXED)
    room.write("app/release.yaml", release("web"))
    room.script("exec head -c 300000 /dev/zero")
    with pytest.raises(DeclarationError, match="ended by SIGXFSZ: the build needs too much"):
        room.build()


@pytest.mark.parametrize(
    ("output", "said"),
    [("- a list\n", "no object"), ("a: [\n", "no YAML"), ("a: 1\n---\nb: {\n", "no YAML")],
)
def test_what_is_no_object_is_told_and_not_kept(room: Room, output: str, said: str) -> None:
    room.write("app/kustomization.yaml", PREFIXED)
    room.write("app/release.yaml", release("web"))
    room.output.write_text(output)
    with pytest.raises(DeclarationError, match=said):
        room.build()
    assert room.known() is None


def test_no_more_than_two_run_at_once(room: Room) -> None:
    room.script(
        f"touch {room.log}.runs.$$ && sleep 0.2",
        f"ls -d {room.log}.runs.* | wc -l >> {room.log}.count; rm {room.log}.runs.$$",
        f"cat {room.output}",
    )
    threads = []
    for number in range(6):
        room.write(f"app-{number}/kustomization.yaml", PREFIXED)
        room.write(f"app-{number}/release.yaml", release("web"))
        arguments = (FileTree(str(room.root)), f"app-{number}")
        threads.append(threading.Thread(target=room.builder.build, args=arguments))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert room.builder.runs == 6
    assert max(map(int, Path(f"{room.log}.count").read_text().split())) <= kustomize.CONCURRENT


# What goes in, and what comes out ----------------------------------------------------------------


def handed_over(room: Room) -> dict[str, object]:
    """The kustomization that kubectl was given last."""
    said = room.log.read_text()
    found = json.loads(said[said.rindex("\n{") :])
    assert isinstance(found, dict)
    return found


def test_an_overlay_is_put_into_the_kustomization_as_flux_does(room: Room) -> None:
    room.write("parts/kustomization.yaml", HEAD.replace("v1beta1", "v1alpha1"))
    room.write(
        "app/kustomization.yaml",
        f"{PREFIXED}namespace: old\nnameSuffix: -kept\n"
        "patches:\n  - patch: 'own'\n"
        "images:\n  - {name: web, newTag: '1'}\n  - {name: db, digest: 'sha256:0a'}\n"
        "  - {name: pin, newTag: '1'}\n",
    )
    room.write("app/release.yaml", release("web"))
    room.build(
        overlay=Overlay(
            namespace="shop",
            name_prefix="your-",
            components=("../parts", "../gone"),
            ignore_missing_components=True,
            patches=({"patch": "added"},),
            images=(
                {"name": "web", "newName": "registry/web"},
                {"name": "db", "newTag": "2"},
                {"name": "pin", "digest": "sha256:0b"},
                {"name": "new", "newTag": "3"},
            ),
        )
    )
    found = handed_over(room)
    assert found["buildMetadata"] == ["originAnnotations"]
    assert (found["namespace"], found["namePrefix"], found["nameSuffix"]) == (
        "shop",
        "your-",
        "-kept",
    )
    assert found["patches"] == [{"patch": "own"}, {"patch": "added"}]
    assert found["components"] == ["../parts"]
    assert found["images"] == [
        {"name": "web", "newTag": "1", "newName": "registry/web"},
        {"name": "db", "newTag": "2"},
        {"name": "pin", "digest": "sha256:0b"},
        {"name": "new", "newTag": "3"},
    ]


@pytest.mark.parametrize(
    ("component", "said"),
    [
        ("../gone", "there is no directory `gone`"),
        ("/etc", "is no path in the repository"),
        ("https://x.example/y", "is no path in the repository"),
        ("git@x.example:y", "is no path in the repository"),
        ("../../out", "leads out"),
    ],
)
def test_a_component_that_is_no_directory_of_the_tree_is_told_by_its_place(
    room: Room, component: str, said: str
) -> None:
    room.write("app/release.yaml", release("web"))
    with pytest.raises(DeclarationError, match=said) as refused:
        room.build(overlay=Overlay(components=("../app", component)))
    if "out" not in component:
        assert refused.value.field == "spec.components[1]"


@pytest.mark.parametrize(
    ("directory", "overlay", "said"),
    [
        ("none", Overlay(), "there is no directory `none`"),
        ("app/release.yaml", Overlay(), "there is no directory"),
        ("app", None, "the directory has no kustomization.yaml"),
        ("../out", Overlay(), "leads out of the repository"),
    ],
)
def test_what_cannot_be_built_is_told(
    room: Room, directory: str, overlay: Overlay | None, said: str
) -> None:
    room.write("app/release.yaml", release("web"))
    with pytest.raises(DeclarationError, match=said):
        room.build(directory, overlay)


def test_each_object_knows_its_file_and_line(room: Room) -> None:
    room.write("app/kustomization.yaml", PREFIXED)
    room.write("app/release.yaml", f"# two\n{release('one')}---\n\n{release('web')}")
    origin = "  annotations:\n    config.kubernetes.io/origin: |\n      path: release.yaml\n"
    room.output.write_text(
        "\n---\n".join(
            release(f"my-{name}").replace("spec:", f"{origin}spec:").rstrip("\n")
            for name in ("web", "one")
        )
    )
    built = room.build()
    assert [(each.file, each.line) for each in built.objects] == [
        ("app/release.yaml", 10),
        ("app/release.yaml", 2),
    ]
    assert all("annotations" not in each.data["metadata"] for each in built.objects)
    assert {each.text for each in built.objects} == {""}


def test_the_text_of_what_may_have_variables_is_handed_on(room: Room) -> None:
    room.write("app/release.yaml", release("web", "  timeout: ${TIMEOUT}\n"))
    assert room.build(overlay=Overlay()).objects[0].text == ""
    room.output.write_text(f"{release('web', '  timeout: ${TIMEOUT}')}\n---\n{release('plain')}")
    built = room.builder.build(room.tree, "app", Overlay(), with_text=True)
    assert [each.text for each in built.objects] == [
        release("web", "  timeout: ${TIMEOUT}\n"),
        "",
    ]
    assert room.builder.runs == 1, "only kustomize's own text will do"


# One process that is gone ------------------------------------------------------------------------


def _has_ended(pid: int) -> bool:
    for _ in range(500):
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return True
        if state == "Z":
            return True
        time.sleep(0.01)
    return False
