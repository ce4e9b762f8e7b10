from __future__ import annotations

import io
import json
import os
import tarfile
from pathlib import Path

import pytest

from devcluster import binaries, cluster, real_node
from devcluster.cluster import Cluster
from devcluster.errors import DevclusterError, ToolMissing
from devcluster.real_node import RealNode


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine that has all that a node needs; returns the folder of its programs."""
    programs = tmp_path / "programs"
    plugins = tmp_path / "plugins"
    for folder, names in (
        (programs, real_node._PROGRAMS),
        (plugins, ("bridge", "host-local", "loopback")),
    ):
        folder.mkdir()
        for name in names:
            (folder / name).write_text("#!/bin/sh\nprintf 'cat\\nsh\\n'\n")
            (folder / name).chmod(0o755)
    monkeypatch.setattr(
        real_node, "_find", lambda name: str(programs / name) if (programs / name).exists() else ""
    )
    monkeypatch.setattr(real_node, "_PLUGINS", (plugins,))
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    return programs


@pytest.fixture
def node(machine: Path, tmp_path: Path) -> RealNode:
    """A node that is prepared, and does not run."""
    made = RealNode(tmp_path / "cluster")
    (tmp_path / "cluster").mkdir()
    made.prepare(Path("/bin/kubelet"), Path("/kubeconfig"), Path("/ca.crt"), 12345)
    return made


def test_a_machine_that_has_everything_lacks_nothing(machine: Path) -> None:
    assert real_node.missing() == []


def test_what_is_missing_is_named_by_its_package(machine: Path) -> None:
    (machine / "runc").unlink()
    (machine / "busybox").unlink()
    assert real_node.missing() == ["it needs Debian's busybox-static, runc"]


def test_somebody_who_is_not_root_is_told_so(
    machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert real_node.missing() == ["it needs root"]
    with pytest.raises(ToolMissing, match="it needs root"):
        real_node.install_programs()


def test_a_cluster_without_root_gets_no_node_and_stays_as_it_is(
    machine: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(ToolMissing, match="it needs root"):
        cluster.start(tmp_path / "fresh", real_node=True)
    assert not Cluster(tmp_path / "fresh").real_node.exists


def test_a_cluster_that_was_made_without_a_node_gets_none_later(
    machine: Path, tmp_path: Path
) -> None:
    made = Cluster(tmp_path / "made")
    made._prepare()
    with pytest.raises(DevclusterError, match="made without a real node"):
        cluster.start(made.directory, real_node=True)


def test_the_node_takes_the_place_of_kwok(node: RealNode) -> None:
    assert Cluster(node.directory).missing_parts()[-1] == "node"


def test_nobody_but_the_api_server_may_ask_the_kubelet(node: RealNode) -> None:
    config = json.loads((node.folder / "kubelet.json").read_text())
    assert config["address"] == "127.0.0.1"
    assert config["authentication"]["anonymous"] == {"enabled": False}
    assert config["authentication"]["x509"] == {"clientCAFile": "/ca.crt"}


def test_its_bridge_is_its_own(node: RealNode, tmp_path: Path) -> None:
    assert RealNode(tmp_path / "other").bridge != node.bridge
    # Linux allows for fifteen.
    assert len(node.bridge) <= 15
    network = json.loads((node.folder / "cni" / "net.conflist").read_text())
    assert network["plugins"][0]["bridge"] == node.bridge


def test_its_images_are_an_archive_of_one_layer(node: RealNode, machine: Path) -> None:
    with tarfile.open(node.folder / "images.tar") as archive:
        manifest = json.load(archive.extractfile("manifest.json") or io.BytesIO())
        assert [each["RepoTags"] for each in manifest] == [
            [real_node.IMAGE],
            ["helmops.dev/pause:1"],
        ]
        (layer,) = {each["Layers"][0] for each in manifest}
        packed = archive.extractfile(layer)
        assert packed is not None
        with tarfile.open(fileobj=io.BytesIO(packed.read())) as files:
            assert files.getmember("bin/busybox").mode == 0o755
            assert files.getmember("bin/cat").linkname == "busybox"


def test_the_control_groups_of_its_containers_go_and_no_others(
    node: RealNode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cgroups = tmp_path / "cgroups"
    monkeypatch.setattr(real_node, "_CGROUPS", cgroups)
    for hierarchy in ("memory", "pids"):
        for container in ("ours/below", "sandbox", *(["theirs"] if hierarchy == "pids" else [])):
            (cgroups / hierarchy / "k8s.io" / container).mkdir(parents=True)
    kept = node.folder / "containerd" / "io.containerd.grpc.v1.cri"
    (kept / "containers" / "ours").mkdir(parents=True)
    (kept / "sandboxes" / "sandbox").mkdir(parents=True)
    assert len(node.remains()) == 4
    node.clean()
    assert sorted(path.name for path in cgroups.rglob("*")) == [
        "k8s.io",
        "memory",
        "pids",
        "theirs",
    ]


def test_nothing_remains_of_a_node_that_never_ran(node: RealNode) -> None:
    node.clean()
    assert node.remains() == []


def test_the_kubelet_is_of_the_control_planes_version() -> None:
    assert (
        f"k8s.io/kubernetes v{binaries.KUBERNETES_VERSION}"
        in (binaries.KUBELET.folder / "go.mod").read_text()
    )
    assert binaries.KUBELET.programs == ("kubelet",)
