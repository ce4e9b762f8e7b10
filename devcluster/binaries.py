"""The control plane's programs: found on this machine, or built from the pinned Go modules.

Each is looked for in `KUBEBUILDER_ASSETS`, on `PATH` (in the pinned version only: the programs of
one control plane must fit each other), in the cache, and is built when it is nowhere. The cache is
keyed by the module's go.mod and go.sum, so that another pin is another build.
"""

import contextlib
import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from devcluster import paths, wheels
from devcluster.errors import DevclusterError

KUBERNETES_VERSION = "1.37.2"
_STAMP = "k8s.io/component-base/version"

Say = Callable[[str], None]


@dataclass(frozen=True)
class GoModule:
    """One folder of `modules/`: what it builds, and the version that the programs must report."""

    name: str
    packages: tuple[str, ...]
    version: str
    ldflags: str = "-s -w"

    @property
    def folder(self) -> Path:
        return paths.MODULES / self.name

    @property
    def programs(self) -> tuple[str, ...]:
        names = (_PROGRAM_NAMES.get(package, package) for package in self.packages)
        return tuple(name.rsplit("/", 1)[-1] for name in names)

    def key(self) -> str:
        """Twelve hex digits that change with every pin and flag."""
        pins = b"".join((self.folder / name).read_bytes() for name in ("go.mod", "go.sum"))
        return hashlib.sha256(pins + self.ldflags.encode()).hexdigest()[:12]

    def cached(self) -> Path:
        return paths.cache() / f"{self.name}-{self.version}-{self.key()}"


# The main package of etcd is called `v3` after its module path.
_PROGRAM_NAMES = {"go.etcd.io/etcd/server/v3": "etcd"}

# Without the version stamp the API server reports v0.0.0-master, and every chart that has a
# kubeVersion constraint is refused.
KUBERNETES = GoModule(
    name="kubernetes",
    version=KUBERNETES_VERSION,
    packages=tuple(
        f"k8s.io/kubernetes/cmd/{program}"
        for program in ("kube-apiserver", "kube-controller-manager", "kube-scheduler")
    ),
    ldflags="-s -w "
    + " ".join(
        f"-X {_STAMP}.{field}={value}"
        for field, value in {
            "gitVersion": f"v{KUBERNETES_VERSION}",
            "gitMajor": "1",
            "gitMinor": "37",
            "gitTreeState": "clean",
            "buildDate": "2026-01-01T00:00:00Z",
        }.items()
    ),
)
ETCD = GoModule(name="etcd", version="3.7.3", packages=("go.etcd.io/etcd/server/v3",))
KWOK = GoModule(name="kwok", version="0.8.0", packages=("sigs.k8s.io/kwok/cmd/kwok",))
MODULES = (ETCD, KWOK, KUBERNETES)
# Built only for a real node, and pinned apart, so that it never makes anybody build the control
# plane anew.
KUBELET = GoModule(
    name="kubelet",
    version=KUBERNETES_VERSION,
    packages=("k8s.io/kubernetes/cmd/kubelet",),
    ldflags=KUBERNETES.ldflags,
)


def control_plane(say: Say) -> dict[str, Path]:
    """The path of every program by name; builds what is missing, which takes minutes at first.

    Raises ToolMissing where no Go is to be had, DevclusterError where a build fails.
    """
    return {
        program: find(module, program, say) for module in MODULES for program in module.programs
    }


def kubelet(say: Say) -> Path:
    """The kubelet that fits the control plane; raises as `control_plane` does."""
    return find(KUBELET, "kubelet", say)


def find(module: GoModule, program: str, say: Say) -> Path:
    """One program of a module: of this machine, or of the cache, built now if need be."""
    return _on_this_machine(module, program) or _built(module, say) / program


def _on_this_machine(module: GoModule, program: str) -> Path | None:
    if assets := os.environ.get("KUBEBUILDER_ASSETS"):
        named = Path(assets) / program
        if os.access(named, os.X_OK):
            return named
    on_path = shutil.which(program)
    # Some machines have a stand-in of that name which only says what to install.
    if on_path and reported_version(Path(on_path)) == module.version:
        return Path(on_path)
    return None


def reported_version(program: Path) -> str | None:
    """The first version that `program --version` prints; nothing where it does not work."""
    try:
        answer = subprocess.run(
            [program, "--version"], capture_output=True, text=True, timeout=20, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    match = re.search(r"\bv?(\d+\.\d+\.\d+)\b", answer.stdout)
    return match[1] if match else None


def _built(module: GoModule, say: Say) -> Path:
    """The folder of the module's programs in the cache, built now if need be."""
    target = module.cached()
    if target.is_dir():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    # Two test runs at once must not build twice.
    lock = target.with_name(f"{target.name}.lock")
    with locked(lock, lambda: say(f"waiting for another build of {target}")):
        if not target.is_dir():
            build(module, target, say)
    return target


def build(module: GoModule, target: Path, say: Say) -> None:
    """Build `module` into the new folder `target`; half a build never gets that name."""
    go = go_toolchain(say)
    names = ", ".join(module.programs)
    say(f"building {names} {module.version} with {go} (once; kept in {target.parent})")
    workdir = Path(tempfile.mkdtemp(prefix=f".{module.name}-", dir=target.parent))
    try:
        for package, program in zip(module.packages, module.programs, strict=True):
            _go_build(go, module, package, workdir / program, say)
        workdir.chmod(0o755)
        workdir.rename(target)
    finally:
        shutil.rmtree(workdir, ignore_errors=True)


def _go_build(go: Path, module: GoModule, package: str, output: Path, say: Say) -> None:
    # No more at once than there are cores: a linker of the API server takes over 2 GB of memory.
    jobs = str(min(os.cpu_count() or 1, 4))
    argv = [str(go), "build", "-p", jobs, "-ldflags", module.ldflags, "-o", str(output), package]
    environment = {
        **os.environ,
        "GOFLAGS": "-mod=readonly -trimpath",
        "GOTOOLCHAIN": "local",
        "GOWORK": "off",
        "CGO_ENABLED": "0",
    }
    began = time.monotonic()
    with tempfile.TemporaryFile("w+") as output_text:
        process = subprocess.Popen(
            argv,
            cwd=module.folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output_text,
            stderr=subprocess.STDOUT,
        )
        with process, _progress(output.name, began, say):
            code = process.wait()
        output_text.seek(0)
        tail = "".join(output_text.readlines()[-15:])
    if code != 0:
        raise DevclusterError(
            f"building {output.name} {module.version} failed (go build exited {code}); the modules "
            f"come through GOPROXY, so look there first if a download failed:\n{tail}"
        )
    say(f"built {output.name} in {time.monotonic() - began:.0f} s")


@contextlib.contextmanager
def _progress(name: str, began: float, say: Say) -> Iterator[None]:
    """Say every 30 s that it still goes on; the API server takes minutes on two cores."""
    done = threading.Event()

    def report() -> None:
        while not done.wait(30):
            say(f"  … {name}: {time.monotonic() - began:.0f} s")

    reporter = threading.Thread(target=report, daemon=True)
    reporter.start()
    try:
        yield
    finally:
        done.set()
        reporter.join()


def go_toolchain(say: Say) -> Path:
    """A `go` new enough for the modules: the one on PATH, or the pinned wheel's in the cache."""
    needed = max(_go_directive(module) for module in MODULES)
    on_path = shutil.which("go")
    if on_path:
        environment = {**os.environ, "GOTOOLCHAIN": "local"}
        answer = subprocess.run(
            [on_path, "env", "GOVERSION"],
            capture_output=True,
            text=True,
            env=environment,
            check=False,
        )
        version = tuple(int(part) for part in re.findall(r"\d+", answer.stdout)[:3])
        if version >= needed:
            return Path(on_path)
    return wheels.GO.unpacked(say) / "go" / "bin" / "go"


def _go_directive(module: GoModule) -> tuple[int, ...]:
    text = (module.folder / "go.mod").read_text()
    match = re.search(r"^go (\d+(?:\.\d+)*)$", text, re.MULTILINE)
    if match is None:
        raise DevclusterError(f"{module.folder}/go.mod has no `go` line")
    return tuple(int(part) for part in match[1].split("."))


@contextlib.contextmanager
def locked(path: Path, waiting: Callable[[], None]) -> Iterator[None]:
    """Hold the lock file at `path`; calls `waiting` first where somebody else has it."""
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            waiting()
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
