import json
import os
import stat
import sys
from pathlib import Path

import pytest

from helmops.errors import PostRenderFailed
from helmops.helm.post_render import VARIABLE
from helmops.helm.post_renderer import ensure_plugin, post_renderer
from helmops.model.post_rendering import PostRendering, PostRenderStep

RENDERING = PostRendering(
    (PostRenderStep("spec.postRenderers[0]", {"patches": [{"patch": "s3cret"}]}),), "separate", "d"
)


@pytest.fixture
def kubectl(tmp_path: Path) -> str:
    path = tmp_path / "kubectl"
    path.write_text("#!/bin/sh\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


@pytest.mark.parametrize("helm_major", [3, 4])
def test_nothing_of_the_patches_is_on_the_command_line_or_in_the_environment(
    tmp_path: Path, kubectl: str, helm_major: int
) -> None:
    with post_renderer(
        RENDERING, helm_major=helm_major, kubectl=kubectl, plugins=tmp_path, directory="/private"
    ) as prepared:
        assert "s3cret" not in repr((prepared.flags, prepared.environment))
        plan_file, error_file = map(int, prepared.environment[VARIABLE].split(":"))
        assert prepared.files == (plan_file, error_file)
        plan = json.loads(os.pread(plan_file, 10_000, 0))
        assert plan["kubectl"] == kubectl
        assert (plan["hooks"], plan["directory"]) == ("separate", "/private")
        assert plan["steps"][0]["kustomization"]["patches"][0]["patch"] == "s3cret"
        assert prepared.failure == ""
        os.write(error_file, b" no such target\n")
        assert prepared.failure == "no such target"


def test_helm_3_takes_the_program_and_its_arguments(tmp_path: Path, kubectl: str) -> None:
    with post_renderer(
        RENDERING, helm_major=3, kubectl=kubectl, plugins=tmp_path / "p", directory=""
    ) as prepared:
        assert prepared.flags[:2] == ("--post-renderer", sys.executable)
        assert prepared.flags[2] == "--post-renderer-args=-P"
        assert prepared.flags[3].endswith("/helm/post_render.py")
    assert not (tmp_path / "p").exists()


def test_helm_4_takes_a_plugin_that_is_written_once(tmp_path: Path, kubectl: str) -> None:
    for _ in range(2):
        with post_renderer(
            RENDERING, helm_major=4, kubectl=kubectl, plugins=tmp_path / "p", directory=""
        ) as prepared:
            assert prepared.flags == ("--post-renderer", "helmops-post-render")
            assert prepared.environment["HELM_PLUGINS"] == str(tmp_path / "p")
    files = [str(each.relative_to(tmp_path / "p")) for each in (tmp_path / "p").rglob("*.*")]
    assert files == ["helmops-post-render/plugin.yaml"]


def test_a_plugin_of_an_earlier_helmops_is_replaced(tmp_path: Path) -> None:
    ensure_plugin(tmp_path)
    file = tmp_path / "helmops-post-render" / "plugin.yaml"
    good = file.read_text()
    file.write_text("old")
    ensure_plugin(tmp_path)
    assert file.read_text() == good


def test_without_kubectl_it_is_said_what_needs_it(tmp_path: Path) -> None:
    with (
        pytest.raises(PostRenderFailed, match=r"there is no nowhere.*HELMOPS_KUBECTL"),
        post_renderer(RENDERING, helm_major=4, kubectl="nowhere", plugins=tmp_path, directory=""),
    ):
        pass
