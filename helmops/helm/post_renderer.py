"""How helm is made to run `post_render.py`: flags, environment and open files of one run.

Helm 3 takes a program with arguments, helm 4 the name of a plugin. The plugin is a file that says
nothing but "the program that the environment names"; it lies in a directory of its own, so that no
other run of helm looks at it.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from helmops.errors import PostRenderFailed
from helmops.helm import post_render
from helmops.model.post_rendering import PostRendering

_PYTHON: Final = "HELMOPS_POST_RENDER_PYTHON"
_SCRIPT: Final = "HELMOPS_POST_RENDER_SCRIPT"
_PLUGIN: Final = "helmops-post-render"
_PLUGIN_FILE: Final = f"""\
apiVersion: v1
type: postrenderer/v1
name: {_PLUGIN}
version: 1.0.0
runtime: subprocess
runtimeConfig:
  platformCommand:
    - command: ${{{_PYTHON}}}
      args: ["-P", "${{{_SCRIPT}}}"]
"""
_LONGEST_ERROR: Final = 4_000


@dataclass(frozen=True, slots=True)
class PostRenderer:
    """What one run of helm needs to have its objects changed."""

    flags: tuple[str, ...]
    environment: dict[str, str]
    #: Open files that helm has to inherit.
    files: tuple[int, ...]

    @property
    def failure(self) -> str:
        """What went wrong, in the words of the step that failed; empty where nothing did."""
        return os.pread(self.files[1], _LONGEST_ERROR, 0).decode("utf-8", "replace").strip()


def ensure_plugin(plugins: Path) -> None:
    """Write helm 4's plugin where it is not there yet; two may do so at once."""
    file = plugins / _PLUGIN / "plugin.yaml"
    if file.is_file() and file.read_text() == _PLUGIN_FILE:
        return
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with tempfile.NamedTemporaryFile("w", dir=file.parent, delete=False) as stream:
        stream.write(_PLUGIN_FILE)
    os.replace(stream.name, file)


@contextmanager
def post_renderer(
    rendering: PostRendering, *, helm_major: int, kubectl: str, plugins: Path, directory: str
) -> Iterator[PostRenderer]:
    """For one run of helm. `directory` is one that only we can read, for as long as it runs.

    Raises PostRenderFailed where there is no kubectl.
    """
    found = shutil.which(kubectl)
    if found is None:
        raise PostRenderFailed(
            f"there is no {kubectl}, whose kustomize makes postRenderers and commonMetadata",
            next_step="install kubectl, or name its path (HELMOPS_KUBECTL)",
        )
    plan = {
        "kubectl": os.path.abspath(found),
        "directory": directory,
        "hooks": rendering.hooks,
        "steps": [
            {"name": step.name, "kustomization": dict(step.kustomization)}
            for step in rendering.steps
        ],
    }
    script = os.path.abspath(post_render.__file__)
    if helm_major < 4:
        flags = ("--post-renderer", sys.executable, *_arguments("-P", script))
    else:
        ensure_plugin(plugins)
        flags = ("--post-renderer", _PLUGIN)
    with ExitStack() as stack:
        files = [stack.enter_context(_unnamed_file()) for _ in range(2)]
        files[0].write(json.dumps(plan).encode())
        files[0].flush()
        numbers = tuple(file.fileno() for file in files)
        yield PostRenderer(
            flags=flags,
            environment={
                "HELM_PLUGINS": str(plugins),
                _PYTHON: sys.executable,
                _SCRIPT: script,
                post_render.VARIABLE: ":".join(map(str, numbers)),
            },
            files=numbers,
        )


def _arguments(*arguments: str) -> tuple[str, ...]:
    return tuple(f"--post-renderer-args={argument}" for argument in arguments)


def _unnamed_file() -> BinaryIO:
    """In memory where the system can (Linux), else one that is deleted already."""
    if hasattr(os, "memfd_create"):
        return os.fdopen(os.memfd_create("helmops"), "w+b")
    return tempfile.TemporaryFile()
