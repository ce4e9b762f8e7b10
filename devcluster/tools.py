"""The client programs: helm of both major versions, and kubectl."""

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from devcluster.wheels import HELM_3, HELM_4, Say, Wheel


@dataclass(frozen=True)
class Tool:
    """One program: where it comes from, and which version on PATH does as well."""

    name: str
    names_on_path: tuple[str, ...]
    asks_version: tuple[str, ...]
    """Arguments that make it print its version."""
    oldest: tuple[int, int]
    below: tuple[int, int]
    wheel: Wheel
    program: str
    """Its name in the wheel."""

    def find(self, say: Say) -> Path:
        """Its path: of a fitting one on PATH, else of the pinned wheel's, fetched now if need be.

        Raises ToolMissing and DevclusterError as `Wheel.unpacked` does.
        """
        for name in self.names_on_path:
            on_path = shutil.which(name)
            if on_path and self.oldest <= self._version(on_path) < self.below:
                return Path(on_path)
        return self.wheel.unpacked(say) / self.program

    def _version(self, path: str) -> tuple[int, int]:
        # Some kubectl choose one that fits the cluster, and ask it: nobody's is asked here.
        environment = {**os.environ, "KUBECONFIG": os.devnull}
        try:
            answer = subprocess.run(
                [path, *self.asks_version],
                capture_output=True,
                text=True,
                timeout=20,
                check=True,
                env=environment,
            )
        except (OSError, subprocess.SubprocessError):
            return (0, 0)
        match = re.search(r"\bv(\d+)\.(\d+)\.\d+", answer.stdout)
        return (int(match[1]), int(match[2])) if match else (0, 0)


TOOLS = (
    Tool("helm", ("helm4", "helm"), ("version", "--short"), (4, 3), (5, 0), HELM_4, "helm"),
    Tool("helm3", ("helm3", "helm"), ("version", "--short"), (3, 19), (4, 0), HELM_3, "helm"),
    # kubectl may be one minor version away from the API server.
    Tool("kubectl", ("kubectl",), ("version", "--client"), (1, 36), (1, 39), HELM_4, "kubectl"),
)


def find_all(say: Say) -> dict[str, Path]:
    """The path of every tool by name."""
    return {tool.name: tool.find(say) for tool in TOOLS}
