from pathlib import Path

import pytest

from devcluster.__main__ import main


def test_a_cluster_that_was_never_started_has_status_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["status", "--dir", str(tmp_path)]) == 1
    assert capsys.readouterr().out.startswith("not running: etcd, kube-apiserver")


def test_it_says_how_to_start_one_where_there_is_no_kubeconfig(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["kubeconfig", "--dir", str(tmp_path)]) == 1
    assert "start one: python -m devcluster up" in capsys.readouterr().err


def test_stopping_what_does_not_run_is_no_error(tmp_path: Path) -> None:
    assert main(["down", "--dir", str(tmp_path / "none"), "--delete"]) == 0


def test_an_unknown_command_is_a_usage_error() -> None:
    with pytest.raises(SystemExit) as ended:
        main(["frobnicate"])
    assert ended.value.code == 2
