"""The executable between helm and the cluster: rendered objects in, changed ones out.

helm starts it (helm 3 by `--post-renderer`, helm 4 by a plugin) as a script of its own, so it
imports nothing of helmops. What to do comes through an open file that helm inherits, and what goes
wrong goes back through another: helm 4 drops a plugin's standard error (seen with 4.3.1). Their
numbers are in HELMOPS_POST_RENDER, as `PLAN:ERROR`.

Each step is one run of `kubectl kustomize`. Nothing of the objects and of the patches is written to
disk where the system has files in memory (Linux): the objects are `/dev/stdin`, and the
kustomization is a link to a file that has no name.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

VARIABLE = "HELMOPS_POST_RENDER"

#: What begins a document; a comment may stand behind it.
_SEPARATOR = re.compile(rb"^---(?=\s|$)", re.M)
_HOOK = "helm.sh/hook"
_LONGEST_ERROR = 4_000
#: helm takes an empty output for a failure; a chart may render nothing.
_NOTHING = b"# nothing was rendered\n"


class StepFailed(Exception):
    """A step that did not go through; its text is for people."""


def main() -> int:
    """Change what comes by standard input; exit status 1 where that fails."""
    plan_file, error_file = (int(number) for number in os.environ[VARIABLE].split(":"))
    try:
        plan = json.loads(_content(plan_file))
        output = post_render(sys.stdin.buffer.read(), plan)
    except StepFailed as failure:
        os.write(error_file, str(failure).encode()[:_LONGEST_ERROR])
        return 1
    sys.stdout.buffer.write(output)
    return 0


def _content(file: int) -> bytes:
    """The whole of an open file, wherever somebody else's reading of it has come to."""
    return os.pread(file, os.fstat(file).st_size, 0)


def post_render(text: bytes, plan: Mapping[str, Any]) -> bytes:
    """The documents of `text` through all steps of a plan, as its `hooks` strategy says.

    A plan has `kubectl` (a path), `directory` (ours alone), `hooks` and `steps` (`name` and
    `kustomization`). Raises StepFailed.
    """
    documents = [document for document in _SEPARATOR.split(text) if not _is_empty(document)]
    if plan["hooks"] == "combined":
        groups, untouched = [documents], []
    else:
        hooks = [document for document in documents if _is_hook(document)]
        others = [document for document in documents if not _is_hook(document)]
        groups = [hooks, others] if plan["hooks"] == "separate" else [others]
        untouched = [] if plan["hooks"] == "separate" else hooks
    rendered = [_through_steps(group, plan) for group in groups if group]
    return _joined([*untouched, *rendered]) or _NOTHING


def _is_empty(document: bytes) -> bool:
    return all(not line.strip() or line.lstrip().startswith(b"#") for line in document.split(b"\n"))


def _is_hook(document: bytes) -> bool:
    if _HOOK.encode() not in document:
        return False
    import yaml  # only charts with hooks need it

    try:
        content = yaml.load(document, Loader=getattr(yaml, "CBaseLoader", yaml.BaseLoader))  # noqa: S506
        return _HOOK in (content["metadata"].get("annotations") or {})
    except (yaml.YAMLError, KeyError, TypeError, AttributeError):
        return False


def _joined(documents: list[bytes]) -> bytes:
    return b"".join(b"---\n" + document.strip(b"\r\n") + b"\n" for document in documents)


def _through_steps(documents: list[bytes], plan: Mapping[str, Any]) -> bytes:
    text = _joined(documents)
    for step in plan["steps"]:
        if not text.strip():
            break  # a patch deleted all there was
        text = _kustomized(text, step, plan["kubectl"], plan["directory"])
    return text


def _kustomized(text: bytes, step: Mapping[str, Any], kubectl: str, directory: str) -> bytes:
    kustomization = {**step["kustomization"], "resources": ["/dev/stdin"]}
    with _directory_of(json.dumps(kustomization).encode(), directory) as (folder, inherited):
        try:
            ended = subprocess.run(
                [kubectl, "kustomize", "--load-restrictor", "LoadRestrictionsNone", folder],
                input=text,
                capture_output=True,
                env={**os.environ, "KUBECONFIG": os.devnull},
                pass_fds=inherited,
                check=False,
            )
        except OSError as error:
            raise StepFailed(f"{step['name']}: {kubectl} cannot be started: {error}") from None
    if ended.returncode:
        said = ended.stderr.decode("utf-8", "replace").replace(folder, "").strip()
        raise StepFailed(f"{step['name']}: {said.removeprefix('error: ') or 'kustomize failed'}")
    return ended.stdout


@contextmanager
def _directory_of(kustomization: bytes, parent: str) -> Iterator[tuple[str, tuple[int, ...]]]:
    """A directory with a kustomization in it, and the open files that its reader must inherit."""
    with tempfile.TemporaryDirectory(prefix="step-", dir=parent) as folder:
        path = os.path.join(folder, "kustomization.yaml")
        if not hasattr(os, "memfd_create"):
            with open(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600), "wb") as stream:
                stream.write(kustomization)
            yield folder, ()
            return
        memory = os.memfd_create("kustomization")
        try:
            with open(memory, "wb", closefd=False) as stream:
                stream.write(kustomization)
            os.symlink(f"/proc/self/fd/{memory}", path)
            yield folder, (memory,)
        finally:
            os.close(memory)


if __name__ == "__main__":
    sys.exit(main())
