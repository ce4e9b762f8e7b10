"""Locks that the kernel keeps for as long as helm has them open."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from helmops.errors import HelmUnavailable, ReleaseLocked
from helmops.helm.locks import ReleaseLocks
from helmops.model.releases import ReleaseId

APP = ReleaseId("apps", "app")


@pytest.fixture
def locks(tmp_path: Path) -> ReleaseLocks:
    return ReleaseLocks(tmp_path / "locks")


def test_a_release_nobody_works_on_is_free(locks: ReleaseLocks) -> None:
    assert not locks.is_running(APP)


def test_our_own_helm_is_not_an_earlier_one(locks: ReleaseLocks) -> None:
    file = locks.take(APP)
    assert not locks.is_running(APP)
    locks.release(APP, file)


def test_a_helm_that_outlives_us_is_seen_until_it_ends(tmp_path: Path) -> None:
    dead, later = ReleaseLocks(tmp_path), ReleaseLocks(tmp_path)
    file = dead.take(APP)
    helm = subprocess.Popen(["cat"], stdin=subprocess.PIPE, pass_fds=[file])
    dead.note(file, helm.pid)
    dead.release(APP, file)

    assert later.is_running(APP)
    assert not later.is_running(ReleaseId("apps", "other"))
    with pytest.raises(ReleaseLocked, match=f"process {helm.pid}"):
        later.take(APP)

    helm.communicate()
    assert not later.is_running(APP)
    later.release(APP, later.take(APP))


def test_names_do_not_run_into_each_other(locks: ReleaseLocks) -> None:
    file = locks.take(ReleaseId("apps", "a.b"))
    other = locks.take(ReleaseId("apps", "a"))
    locks.release(ReleaseId("apps", "a.b"), file)
    locks.release(ReleaseId("apps", "a"), other)


def test_a_directory_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    locks = ReleaseLocks(tmp_path / "file" / "locks")
    with pytest.raises(HelmUnavailable) as caught:
        locks.take(APP)
    assert str(tmp_path) in caught.value.where
    assert not locks.is_running(APP)


def test_files_are_for_us_only(tmp_path: Path) -> None:
    locks = ReleaseLocks(tmp_path / "locks")
    file = locks.take(APP)
    assert os.fstat(file).st_mode & 0o077 == 0
    assert (tmp_path / "locks").stat().st_mode & 0o077 == 0
    locks.release(APP, file)
