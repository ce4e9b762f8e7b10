"""The executable between helm and the cluster, with a stand-in for kubectl.

With the real kubectl and both helms: tests/e2e/test_post_rendering.py.
"""

import json
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from helmops.helm.post_render import VARIABLE, StepFailed, post_render

CONFIG = b"apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: a\n"
HOOK = b"kind: Job\nmetadata:\n  name: h\n  annotations:\n    helm.sh/hook: pre-install\n"
MENTION = b"kind: ConfigMap\nmetadata:\n  name: m\ndata:\n  note: helm.sh/hook\n"

#: Passes the objects on with a line that says what it was told to do.
ECHO = 'echo "# through $(cat "$4/kustomization.yaml" | tr -d " \\n")"; cat'


def plan(directory: Path, script: str = ECHO, *, hooks: str = "combined", steps: int = 1) -> Any:
    kubectl = directory / "kubectl"
    kubectl.write_text(f"#!/bin/sh\n{script}\n")
    kubectl.chmod(kubectl.stat().st_mode | stat.S_IXUSR)
    return {
        "kubectl": str(kubectl),
        "directory": str(directory),
        "hooks": hooks,
        "steps": [
            {"name": f"spec.postRenderers[{n}]", "kustomization": {"images": [f"image-{n}"]}}
            for n in range(steps)
        ],
    }


def stream(*documents: bytes) -> bytes:
    return b"".join(b"---\n" + document for document in documents)


def test_each_step_gets_what_the_one_before_made_of_the_objects(tmp_path: Path) -> None:
    found = post_render(stream(CONFIG), plan(tmp_path, steps=2)).decode()
    lines = [line for line in found.splitlines() if line.startswith("# through")]
    assert ["image-1" in lines[0], "image-0" in lines[1]] == [True, True]
    assert '"resources":["/dev/stdin"]' in lines[0]
    assert found.endswith(CONFIG.decode())


@pytest.mark.parametrize(
    ("hooks", "runs", "hook_is_changed"),
    [("combined", 1, True), ("separate", 2, True), ("nohooks", 1, False)],
)
def test_hooks_go_through_as_the_strategy_says(
    tmp_path: Path, hooks: str, runs: int, hook_is_changed: bool
) -> None:
    script = f"echo run >> {tmp_path}/runs; sed 's/^kind/changed: true\\nkind/'"
    found = post_render(stream(HOOK, MENTION), plan(tmp_path, script, hooks=hooks))
    assert (b"changed: true\nkind: Job" in found) is hook_is_changed
    assert b"changed: true\nkind: ConfigMap" in found
    assert len((tmp_path / "runs").read_text().splitlines()) == runs


@pytest.mark.parametrize("hooks", ["combined", "separate", "nohooks"])
@pytest.mark.parametrize("text", [b"", b"\n---\n# Source: a\n\n---\n"])
def test_a_chart_that_renders_nothing_is_no_failure(
    tmp_path: Path, text: bytes, hooks: str
) -> None:
    found = post_render(text, plan(tmp_path, "exit 1", hooks=hooks))
    assert found.strip().startswith(b"#")


def test_what_a_step_deletes_altogether_is_gone(tmp_path: Path) -> None:
    assert b"kind" not in post_render(stream(CONFIG), plan(tmp_path, "true", steps=2))


def test_separators_with_comments_and_windows_line_ends_part_documents(tmp_path: Path) -> None:
    text = b"--- # one\nkind: A\n---\r\nkind: B\n" + b"a: '---'\n"
    found = post_render(text, plan(tmp_path, "sed 's/^---/=/'", hooks="nohooks"))
    assert found == b"---\n=\n # one\nkind: A\n=\nkind: B\na: '---'\n"


def test_a_failure_names_the_step_and_not_our_directory(tmp_path: Path) -> None:
    script = 'echo "error: no matches for Id x in $4" >&2; exit 1'
    with pytest.raises(StepFailed) as caught:
        post_render(stream(CONFIG), plan(tmp_path, script))
    assert str(caught.value) == "spec.postRenderers[0]: no matches for Id x in"


def test_nothing_is_left_behind(tmp_path: Path) -> None:
    post_render(stream(CONFIG), plan(tmp_path))
    assert [entry.name for entry in tmp_path.iterdir()] == ["kubectl"]


@pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="files in memory are Linux's")
def test_nothing_is_written_to_disk(tmp_path: Path) -> None:
    script = f'ls -l "$4" > {tmp_path}/seen; cat'
    post_render(stream(CONFIG), plan(tmp_path, script))
    assert "kustomization.yaml -> /proc/self/fd/" in (tmp_path / "seen").read_text()


@pytest.mark.parametrize("fails", [False, True])
def test_as_a_program_it_reads_its_plan_and_tells_of_failures_through_open_files(
    tmp_path: Path, fails: bool
) -> None:
    plan_file, error_file = tmp_path / "plan", tmp_path / "error"
    script = "echo 'error: no' >&2; exit 1" if fails else ECHO
    plan_file.write_text(json.dumps(plan(tmp_path, script)))
    with plan_file.open("rb") as read, error_file.open("wb") as write:
        ended = subprocess.run(
            [sys.executable, "-P", post_render.__code__.co_filename],
            input=stream(CONFIG),
            capture_output=True,
            env={**os.environ, VARIABLE: f"{read.fileno()}:{write.fileno()}"},
            pass_fds=(read.fileno(), write.fileno()),
            check=False,
        )
    assert ended.returncode == int(fails)
    assert error_file.read_text() == ("spec.postRenderers[0]: no" if fails else "")
    assert (CONFIG in ended.stdout) is not fails
