"""Programs out of Debian's packages, unpacked into the cache: nothing is installed or started, and
no root is needed.
"""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

from devcluster import paths
from devcluster.errors import ToolMissing

Say = Callable[[str], None]


def find(package: str, program: str, say: Say) -> Path:
    """A program on PATH, or from its package. Raises ToolMissing where it is neither."""
    if on_path := shutil.which(program):
        return Path(on_path)
    target = paths.cache() / f"{package}-debian"
    unpacked = target / "usr" / "bin" / program
    if unpacked.exists():
        return unpacked
    if not (shutil.which("apt-get") and shutil.which("dpkg-deb")):
        raise ToolMissing(f"{program} is not on PATH, and this is no Debian to take it from")
    target.parent.mkdir(parents=True, exist_ok=True)
    workdir = Path(tempfile.mkdtemp(prefix=f".{package}-", dir=target.parent))
    try:
        say(f"fetching Debian's {package}")
        if os.geteuid() == 0 and not _is_known(package):
            _run(package, ["apt-get", "update", "-qq"], workdir)
        _run(package, ["apt-get", "download", "-qq", package], workdir)
        [archive] = workdir.glob(f"{package}_*.deb")
        _run(package, ["dpkg-deb", "-x", str(archive), "unpacked"], workdir)
        if not target.is_dir():
            (workdir / "unpacked").rename(target)
    finally:
        shutil.rmtree(workdir, ignore_errors=True)
    return unpacked


def _is_known(package: str) -> bool:
    """Whether the lists of packages are there, which images of containers come without."""
    answer = subprocess.run(
        ["apt-cache", "show", package], capture_output=True, check=False, text=True
    )
    return answer.returncode == 0 and bool(answer.stdout.strip())


def _run(package: str, command: list[str], folder: Path) -> None:
    answer = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if answer.returncode != 0:
        raise ToolMissing(f"{package} cannot be fetched: {answer.stderr.strip()}")
