"""Programs that encrypt, for the tests of encrypted declarations: sops, and age's maker of keys."""

from pathlib import Path

from devcluster import binaries
from devcluster.binaries import GoModule, Say

SOPS = GoModule(
    name="sops",
    version="3.13.3",
    packages=("github.com/getsops/sops/v3/cmd/sops", "filippo.io/age/cmd/age-keygen"),
)


def programs(say: Say) -> dict[str, Path]:
    """The paths of `sops` and `age-keygen`; built when they are nowhere, which takes minutes once.

    Raises ToolMissing where no Go is to be had, DevclusterError where the build fails.
    """
    return {program: binaries.find(SOPS, program, say) for program in SOPS.programs}
