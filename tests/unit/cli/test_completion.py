from __future__ import annotations

import shutil
import subprocess

import pytest

from helmops.cli.app import status_of

Capture = pytest.CaptureFixture[str]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_script_for_each_shell(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch, shell: str
) -> None:
    assert status_of(["completion", shell]) == 0
    script = capsys.readouterr().out
    assert "helmops" in script
    assert "_HELMOPS_COMPLETE" in script
    program = shutil.which(shell)
    if program is not None:
        subprocess.run([program, "-n"], input=script, text=True, check=True)


def test_another_shell_is_a_mistake_of_usage(capsys: Capture) -> None:
    assert status_of(["completion", "tcsh"]) == 2
    assert "tcsh" in capsys.readouterr().err
