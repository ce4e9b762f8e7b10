import os
from pathlib import Path

import pytest

from helmops.errors import DeclarationError, DecryptionFailed, ValuesReferenceMissing
from helmops.model.declaration_set import SourceFile, read_declarations
from helmops.model.documents import MAX_SIZE
from helmops.sources import directory
from helmops.sources.directory import DeclarationDirectory, DirectoryContent, path_beside

CONFIG_MAP = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n"


def write(path: Path, text: str = CONFIG_MAP) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def read(path: Path) -> DirectoryContent:
    return DeclarationDirectory(str(path), label="D").read()


def shown(path: Path) -> list[str]:
    return [file.path for file in read(path).files]


def errors(path: Path) -> list[str]:
    return [str(file.error) for file in read(path).files if file.error]


def test_encrypted_files_are_decrypted_where_they_are_read(tmp_path: Path) -> None:
    def decrypt(content: bytes, name: str) -> bytes:
        return CONFIG_MAP.encode() if content == b"locked" else content

    write(tmp_path / "a.yaml", "locked")
    (found,) = DeclarationDirectory(str(tmp_path), decrypt=decrypt).read().files
    assert (found.text, found.error) == (CONFIG_MAP, None)


def test_a_file_that_cannot_be_decrypted_keeps_its_text_and_is_tried_again(tmp_path: Path) -> None:
    keys: list[str] = []

    def decrypt(content: bytes, name: str) -> bytes:
        if not keys:
            raise DecryptionFailed("no key", where=name)
        return b"plain"

    write(tmp_path / "a.yaml", "locked")
    watched = DeclarationDirectory(str(tmp_path), label="D", decrypt=decrypt)
    (found,) = watched.read().files
    assert (found.text, str(found.error)) == ("locked", "D/a.yaml: no key")
    assert watched.poll() is None
    keys.append("here")
    content = watched.poll()
    assert content is not None
    assert [(file.text, file.error) for file in content.files] == [("plain", None)]


def test_yaml_and_json_are_read_in_subdirectories_too(tmp_path: Path) -> None:
    for name in ("b.yaml", "a.yml", "sub/deep/c.json", "README.md", "script.sh", "yaml"):
        write(tmp_path / name)
    assert shown(tmp_path) == ["D/a.yml", "D/b.yaml", "D/sub/deep/c.json"]
    first = read(tmp_path).files[0]
    assert first.text == CONFIG_MAP
    assert first.location == str(tmp_path / "a.yml")
    assert first.root == str(tmp_path)


def test_the_label_is_the_path_as_it_was_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "apps" / "a.yaml")
    monkeypatch.chdir(tmp_path)
    assert DeclarationDirectory("apps").read().files[0].path == "apps/a.yaml"
    assert DeclarationDirectory("apps/a.yaml").read().files[0].path == "apps/a.yaml"


def test_a_single_file_is_read_whatever_it_is_called(tmp_path: Path) -> None:
    (file,) = read(write(tmp_path / "declarations.txt")).files
    assert (file.path, file.root) == ("D", str(tmp_path))


def test_hidden_files_and_charts_are_left_out(tmp_path: Path) -> None:
    for name in (".git/a.yaml", ".a.yaml", "chart/Chart.yaml", "chart/templates/a.yaml", "b.yaml"):
        write(tmp_path / name)
    assert shown(tmp_path) == ["D/b.yaml"]


def test_a_mounted_config_map_is_read_once(tmp_path: Path) -> None:
    # As the kubelet lays it out.
    write(tmp_path / "..2026_01_01" / "a.yaml")
    (tmp_path / "..data").symlink_to("..2026_01_01")
    (tmp_path / "a.yaml").symlink_to("..data/a.yaml")
    assert shown(tmp_path) == ["D/a.yaml"]
    assert errors(tmp_path) == []


def test_links_within_the_directory_are_followed_and_nothing_is_read_twice(tmp_path: Path) -> None:
    write(tmp_path / "real" / "a.yaml")
    (tmp_path / "again").symlink_to("real")
    (tmp_path / "b.yaml").symlink_to("real/a.yaml")
    (tmp_path / "real" / "loop").symlink_to("..")
    assert len(shown(tmp_path)) == 1
    assert errors(tmp_path) == []


def test_links_that_lead_out_are_errors(tmp_path: Path) -> None:
    outside = write(tmp_path / "outside" / "a.yaml")
    inside = tmp_path / "inside"
    inside.mkdir()
    (inside / "a.yaml").symlink_to(outside)
    (inside / "dir").symlink_to(outside.parent)
    (inside / "up").symlink_to("..")
    assert [text.split(":")[0] for text in errors(inside)] == ["D/a.yaml", "D/dir", "D/up"]
    assert all(not file.text for file in read(inside).files)


def test_a_directory_whose_name_begins_the_same_is_outside(tmp_path: Path) -> None:
    write(tmp_path / "apps-old" / "a.yaml")
    (tmp_path / "apps").mkdir()
    (tmp_path / "apps" / "a.yaml").symlink_to(tmp_path / "apps-old" / "a.yaml")
    assert "leads out" in errors(tmp_path / "apps")[0]


def test_the_directory_itself_may_be_a_link(tmp_path: Path) -> None:
    write(tmp_path / "v1" / "a.yaml")
    (tmp_path / "current").symlink_to("v1")
    polled = DeclarationDirectory(str(tmp_path / "current"), label="D")
    assert [file.text for file in polled.read().files] == [CONFIG_MAP]
    write(tmp_path / "v2" / "a.yaml", "# two\n" + CONFIG_MAP)
    (tmp_path / "next").symlink_to("v2")
    os.replace(tmp_path / "next", tmp_path / "current")
    content = polled.poll()
    assert content is not None
    assert content.files[0].text.startswith("# two")


def test_what_cannot_be_read_is_an_error_of_that_file(tmp_path: Path) -> None:
    write(tmp_path / "good.yaml")
    (tmp_path / "dangling.yaml").symlink_to("gone.yaml")
    (tmp_path / "latin.yaml").write_bytes(b"a: 1\nb: \xe9\n")
    (tmp_path / "large.yaml").write_bytes(b"#" * (MAX_SIZE + 1))
    os.mkfifo(tmp_path / "pipe.yaml")
    assert errors(tmp_path) == [
        "D/dangling.yaml: cannot be read: it does not exist",
        "D/large.yaml: the file is larger than 4 MiB",
        "D/latin.yaml:2: not text in UTF-8 (save it in UTF-8)",
        "D/pipe.yaml: not a regular file",
    ]
    assert shown(tmp_path)[1] == "D/good.yaml"


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_files_without_permission_are_errors(tmp_path: Path) -> None:
    write(tmp_path / "a.yaml").chmod(0)
    write(tmp_path / "sub" / "b.yaml")
    (tmp_path / "sub").chmod(0)
    assert [text.split(": ")[-1] for text in errors(tmp_path)] == ["permission denied"] * 2
    (tmp_path / "sub").chmod(0o755)


def test_a_file_that_is_refused_while_it_is_read_is_an_error_until_it_can_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "a.yaml")
    polled = DeclarationDirectory(str(tmp_path))
    with monkeypatch.context() as patched:
        patched.setattr(directory, "open", refuse, raising=False)
        (file,) = polled.read().files
        assert str(file.error).endswith("cannot be read: permission denied")
        assert polled.poll() is None
    content = polled.poll()
    assert content is not None
    assert content.files[0].text == CONFIG_MAP


def refuse(*_: object) -> object:
    raise PermissionError(13, "Permission denied")


def test_a_missing_and_an_empty_directory_have_vanished(tmp_path: Path) -> None:
    assert read(tmp_path / "gone") == DirectoryContent(vanished="it does not exist")
    assert read(tmp_path).vanished == "there are no YAML or JSON files"
    assert read(write(tmp_path / "a.yaml").parent).vanished == ""


def test_a_directory_that_vanishes_says_so_once_and_comes_back(tmp_path: Path) -> None:
    root = tmp_path / "apps"
    write(root / "a.yaml")
    polled = DeclarationDirectory(str(root))
    assert polled.poll() is not None
    os.rename(root, tmp_path / "away")
    content = polled.poll()
    assert content is not None
    assert content.vanished
    assert content.files == ()
    assert polled.poll() is None
    os.rename(tmp_path / "away", root)
    content = polled.poll()
    assert content is not None
    assert [file.text for file in content.files] == [CONFIG_MAP]


def polled_twice(path: Path) -> DeclarationDirectory:
    polled = DeclarationDirectory(str(path))
    assert polled.poll() is not None
    assert polled.poll() is None
    assert polled.poll() is None
    return polled


def test_changed_new_and_removed_files_are_seen(tmp_path: Path) -> None:
    write(tmp_path / "a.yaml")
    polled = polled_twice(tmp_path)
    write(tmp_path / "a.yaml", "# changed\n" + CONFIG_MAP)
    content = polled.poll()
    assert content is not None
    assert content.files[0].text.startswith("# changed")
    write(tmp_path / "b.yaml")
    content = polled.poll()
    assert content is not None
    assert len(content.files) == 2
    (tmp_path / "a.yaml").unlink()
    content = polled.poll()
    assert content is not None
    assert len(content.files) == 1
    assert polled.poll() is None


def test_a_file_that_was_replaced_by_one_of_the_same_size_and_time_is_seen(tmp_path: Path) -> None:
    path = write(tmp_path / "a.yaml", CONFIG_MAP + "# 1\n")
    polled = polled_twice(tmp_path)
    status = path.stat()
    other = write(tmp_path / "new", CONFIG_MAP + "# 2\n")
    os.utime(other, ns=(status.st_atime_ns, status.st_mtime_ns))
    os.replace(other, path)
    content = polled.poll()
    assert content is not None
    assert content.files[0].text.endswith("# 2\n")


def test_a_second_write_within_one_tick_of_the_clock_is_seen_at_the_next_poll(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "a.yaml", CONFIG_MAP + "# 1\n")
    signature = directory._Entry("", signature=(1, 1, 1, 1, 1)).signature
    real = DeclarationDirectory._file

    def coarse(self: DeclarationDirectory, label: str, location: str) -> object:
        return directory._Entry(real(self, label, location).shown, location, signature)

    monkeypatch.setattr(DeclarationDirectory, "_file", coarse)
    polled = DeclarationDirectory(str(tmp_path))
    polled.read()
    write(tmp_path / "a.yaml", CONFIG_MAP + "# 2\n")
    content = polled.poll()
    assert content is not None
    assert content.files[0].text.endswith("# 2\n")


def test_files_that_did_not_change_are_not_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a.yaml", "b.yaml"):
        write(tmp_path / name)
    polled = polled_twice(tmp_path)
    opened: list[str] = []

    def counting(path: str, *rest: str) -> object:
        opened.append(os.path.basename(path))
        return open(path, *rest)  # type: ignore[call-overload]

    monkeypatch.setattr(directory, "open", counting, raising=False)
    assert polled.poll() is None
    assert opened == []
    write(tmp_path / "b.yaml", "# changed\n" + CONFIG_MAP)
    polled.poll()
    assert opened == ["b.yaml"]


def test_errors_that_stay_are_no_change(tmp_path: Path) -> None:
    (tmp_path / "dangling.yaml").symlink_to("gone.yaml")
    (tmp_path / "latin.yaml").write_bytes(b"\xe9")
    polled_twice(tmp_path)


def test_a_tree_that_is_too_large_is_an_error_and_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(directory, "MAX_FILES", 3)
    for number in range(5):
        write(tmp_path / f"{number}.yaml")
    assert "more than 3 files" in errors(tmp_path)[0]


def test_an_unreadable_file_never_looks_like_a_removal(tmp_path: Path) -> None:
    release = (
        "apiVersion: helm.toolkit.fluxcd.io/v2\nkind: HelmRelease\nmetadata: {name: web}\n"
        "spec: {interval: 1h, chart: {spec: {chart: a, sourceRef: {kind: Directory, name: .}}}}\n"
    )
    path = write(tmp_path / "a.yaml", release)
    polled = DeclarationDirectory(str(tmp_path))
    for spoil in (b"", b"\xff", release.encode()[:20]):
        path.write_bytes(spoil)
        assert not read_declarations(polled.read().files).complete
    path.write_text(release)
    assert read_declarations(polled.read().files).complete


def beside(root: Path, relative: str) -> str:
    file = SourceFile("D/apps/a.yaml", location=str(root / "apps" / "a.yaml"), root=str(root))
    return path_beside(file, relative, where="D/apps/a.yaml:7")


def test_a_path_is_relative_to_the_file_that_names_it(tmp_path: Path) -> None:
    for name in ("apps/values.yaml", "env/prod.yaml"):
        write(tmp_path / name)
    assert beside(tmp_path, "values.yaml") == str(tmp_path / "apps" / "values.yaml")
    assert beside(tmp_path, "../env/prod.yaml") == str(tmp_path / "env" / "prod.yaml")


@pytest.mark.parametrize("relative", ["../../secret", "/etc/passwd", "link/secret"])
def test_a_path_must_not_leave_what_was_read(tmp_path: Path, relative: str) -> None:
    write(tmp_path / "secret")
    write(tmp_path / "root" / "apps" / "a.yaml")
    (tmp_path / "root" / "apps" / "link").symlink_to(tmp_path)
    with pytest.raises(DeclarationError, match="leads out") as raised:
        beside(tmp_path / "root", relative)
    assert raised.value.where == "D/apps/a.yaml:7"


def test_a_path_with_nothing_there_is_waited_for(tmp_path: Path) -> None:
    with pytest.raises(ValuesReferenceMissing, match=r"`values\.yaml` does not exist"):
        beside(tmp_path, "values.yaml")


def test_a_declaration_from_nowhere_has_nothing_beside_it() -> None:
    with pytest.raises(DeclarationError, match="needs a declaration in a directory"):
        path_beside(SourceFile("custom resource"), "a", where="x")


def test_a_subdirectory_that_goes_away_while_it_is_read_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "a.yaml")
    write(tmp_path / "sub" / "b.yaml")
    real = os.scandir

    def going(path: str) -> object:
        if path.endswith("/sub"):
            raise FileNotFoundError(2, "No such file or directory")
        return real(path)

    monkeypatch.setattr(os, "scandir", going)
    assert shown(tmp_path) == ["D/a.yaml", "D/sub"]
    assert errors(tmp_path) == ["D/sub: cannot be read: it does not exist"]
