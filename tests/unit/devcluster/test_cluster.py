import json
import socket
from pathlib import Path

import pytest

from devcluster import processes
from devcluster.cluster import Cluster, start
from devcluster.errors import DevclusterError, StartFailed
from devcluster.processes import Process


@pytest.fixture
def prepared(tmp_path: Path) -> Cluster:
    """A cluster with its ports, keys and files, of which nothing runs."""
    cluster = Cluster(tmp_path / "cluster")
    cluster._prepare()
    return cluster


def test_the_kubeconfig_is_its_owners_alone_and_points_at_loopback(prepared: Cluster) -> None:
    assert prepared.kubeconfig.stat().st_mode & 0o777 == 0o600
    fields = json.loads(prepared.kubeconfig.read_text())
    assert fields["clusters"][0]["cluster"]["server"].startswith("https://127.0.0.1:")
    assert fields["users"][0]["user"]["token"] == prepared.token()


def test_no_secret_is_for_others_to_read(prepared: Cluster) -> None:
    secrets = prepared.directory / "secrets"
    assert secrets.stat().st_mode & 0o077 == 0
    assert (secrets / "tokens.csv").stat().st_mode & 0o077 == 0


def test_no_token_is_an_argument_that_all_can_see(prepared: Cluster) -> None:
    arguments = [
        argument
        for part in ("etcd", "kube-apiserver", "kube-controller-manager", "kwok")
        for argument in prepared._arguments(part)
    ]
    assert not any(prepared.token(user) in text for user in ("admin", "kwok") for text in arguments)
    listening = [text for text in arguments if "listen" in text or "address" in text]
    assert listening
    assert all("127.0.0.1" in text for text in listening)


def test_ports_and_tokens_stay_when_it_is_prepared_again(prepared: Cluster) -> None:
    before = prepared.server, prepared.token()
    prepared._prepare()
    assert (prepared.server, prepared.token()) == before


def test_a_port_that_somebody_took_meanwhile_is_replaced(prepared: Cluster) -> None:
    before = prepared._ports()
    with socket.socket() as other:
        other.bind(("127.0.0.1", before["etcd"]))
        other.listen()
        prepared._prepare()
        assert prepared._ports()["etcd"] != before["etcd"]
        server = json.loads(prepared.kubeconfig.read_text())["clusters"][0]["cluster"]["server"]
        assert server == prepared.server


def test_each_port_is_another(prepared: Cluster) -> None:
    ports = prepared._ports()
    assert len(set(ports.values())) == len(ports) == 5


def test_a_folder_without_a_cluster_says_so(tmp_path: Path) -> None:
    with pytest.raises(DevclusterError, match="there is no cluster in"):
        _ = Cluster(tmp_path).server


def test_a_pid_file_of_a_former_life_is_not_a_running_part(prepared: Cluster) -> None:
    alive = processes.start(["/bin/sleep", "60"], log=prepared.directory / "log")
    try:
        Process(pid=alive.pid, started="long ago").save(prepared._pid_file("etcd"))
        assert "etcd" in prepared.missing_parts()
        prepared.stop(grace=0)
        assert alive.alive()
        assert not prepared._pid_file("etcd").exists()
    finally:
        processes.stop([alive], grace=0)


def test_a_part_that_ends_at_once_is_an_error_with_the_end_of_its_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = tmp_path / "broken"
    broken.write_text("#!/bin/sh\necho 'no space left on device' >&2\nexit 1\n")
    broken.chmod(0o755)
    parts = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kwok")
    programs = dict.fromkeys(parts, broken)
    monkeypatch.setattr("devcluster.binaries.control_plane", lambda say: programs)
    with pytest.raises(StartFailed, match=r"etcd ended .*\n.*no space left on device"):
        start(tmp_path / "cluster")
    assert not Cluster(tmp_path / "cluster").running()
    assert list((tmp_path / "cluster" / "pids").iterdir()) == []
