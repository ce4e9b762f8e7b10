"""A real node: kubelet and containerd, for real containers, probes, crash loops and logs.

The node has mounts and process ids of its own (`unshare`), so that whatever ends it, `kill -9`
included, leaves no process and no mount behind. What is outside of these, its bridge and the
control groups of its containers, `clean` takes away. Needs root.

Its pods have an address that the machine reaches, and each other. They have no DNS, no way out and
no Service addresses: there is no kube-proxy. Images come from nowhere but this machine: `IMAGE` is
Debian's busybox.
"""

import contextlib
import hashlib
import io
import json
import os
import platform
import shutil
import subprocess
import tarfile
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from devcluster.errors import ToolMissing

#: To be used with `imagePullPolicy: Never`.
IMAGE = "helmops.dev/busybox:1"
#: API servers reach a kubelet by its node's name first, so this one is asked on loopback.
NAME = "localhost"

#: Where the node sees its folder.
_SHORT = "/run/node"
_PAUSE = "helmops.dev/pause:1"
_CGROUPS = Path("/sys/fs/cgroup")
_PLUGINS = (Path("/usr/lib/cni"), Path("/opt/cni/bin"))
# program: the Debian package that has it
_PROGRAMS = {
    "containerd": "containerd",
    "ctr": "containerd",
    "containerd-shim-runc-v2": "containerd",
    "runc": "runc",
    "busybox": "busybox-static",
    "ip": "iproute2",
    "unshare": "util-linux",
    "mount": "mount",
}

# Process 1 of the node: it ends when either of the two ends, and everything ends with it.
_INIT = """\
#!/bin/bash
set -eu
# What kubelet and containerd keep in these stays inside the node.
mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs /var/log
mkdir -p /run/containerd {short}
# Sockets have short paths, or none.
mount --bind "{folder}" {short}
cd {short}
containerd --config containerd.toml >>"{logs}/containerd.log" 2>&1 &
ctr="ctr --address /run/containerd/containerd.sock --namespace k8s.io"
for _ in {{1..300}}; do
    $ctr version >/dev/null 2>&1 && break
    sleep 0.1
done
$ctr images import images.tar
"{kubelet}" --config=kubelet.json --kubeconfig="{kubeconfig}" --hostname-override={name} \\
    --root-dir={short}/kubelet --cert-dir={short}/kubelet/pki &
wait -n
"""


def missing() -> list[str]:
    """Why there can be no real node on this machine; empty where there can be one."""
    if platform.system() != "Linux":
        return ["it needs Linux"]
    reasons = [] if os.geteuid() == 0 else ["it needs root"]
    if packages := _missing_packages():
        reasons.append(f"it needs Debian's {', '.join(packages)}")
    return reasons


def install_programs() -> None:
    """Install the Debian packages that are missing. Raises ToolMissing where that cannot be."""
    packages = _missing_packages()
    if packages and os.geteuid() == 0 and shutil.which("apt-get"):
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        install = ("install", "-y", "--no-install-recommends", *packages)
        for arguments in (("update",), install):
            # What came of it is looked at below.
            subprocess.run(
                ["apt-get", *arguments], env=environment, capture_output=True, check=False
            )
    if reasons := missing():
        raise ToolMissing(f"there can be no real node here: {'; '.join(reasons)}")


@dataclass(frozen=True)
class RealNode:
    """The node of the cluster in `directory`; there is one where its folder is."""

    directory: Path

    @property
    def folder(self) -> Path:
        return self.directory / "node"

    @property
    def exists(self) -> bool:
        """Whether the cluster was started with one."""
        return self.folder.is_dir()

    @property
    def _id(self) -> str:
        return hashlib.sha256(str(self.directory).encode()).hexdigest()[:8]

    @property
    def bridge(self) -> str:
        """The network interface that its pods hang on."""
        return f"hops-{self._id}"

    def _cgroups(self) -> list[Path]:
        """The control groups of its containers, in every hierarchy that there is.

        containerd puts them into `k8s.io`, which may be another's as well, under the containers'
        ids, which it keeps a folder for.
        """
        kept = self.folder / "containerd" / "io.containerd.grpc.v1.cri"
        ids = [path.name for kind in ("containers", "sandboxes") for path in _folders(kept / kind)]
        parents = [hierarchy / "k8s.io" for hierarchy in (_CGROUPS, *_folders(_CGROUPS))]
        return [group for parent in parents for one in ids if (group := parent / one).is_dir()]

    def prepare(self, kubelet: Path, kubeconfig: Path, client_ca: Path, port: int) -> None:
        """Write all that it needs; it begins without pods and containers each time."""
        self.folder.mkdir(mode=0o700, exist_ok=True)
        plugins = _plugins()
        if plugins is None:
            raise ToolMissing("the CNI plugins are missing: containernetworking-plugins")
        for name, text in {
            "containerd.toml": self._containerd(plugins),
            "cni/net.conflist": json.dumps(self._network()),
            "kubelet.json": json.dumps(self._kubelet(client_ca, port)),
            "init": _INIT.format(
                folder=self.folder,
                logs=self.directory / "logs",
                kubelet=kubelet,
                kubeconfig=kubeconfig,
                name=NAME,
                short=_SHORT,
            ),
        }.items():
            path = self.folder / name
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)
        (self.folder / "init").chmod(0o700)
        (self.folder / "images.tar").write_bytes(_images())

    def command(self) -> list[str]:
        """What runs the node, until it is killed."""
        unshare = ("--mount", "--pid", "--fork", "--mount-proc", "--kill-child=SIGKILL")
        return [_find("unshare"), *unshare, "--", str(self.folder / "init")]

    def clean(self) -> None:
        """Take away what a node that has ended left on the machine: nothing of it is of use."""
        for group in self._cgroups():
            _remove_cgroup(group)
            # The last one takes what they were all in along.
            with contextlib.suppress(OSError):
                group.parent.rmdir()
        if ip := _find("ip"):
            subprocess.run([ip, "link", "delete", self.bridge], capture_output=True, check=False)
        for name in ("kubelet", "containerd", "networks"):
            shutil.rmtree(self.folder / name, ignore_errors=True)

    def remains(self) -> list[str]:
        """What there still is of it on the machine, outside of its folder."""
        found = [str(group) for group in self._cgroups()]
        if Path("/sys/class/net", self.bridge).exists():
            found.append(self.bridge)
        mounts = Path("/proc/self/mountinfo").read_text().splitlines()
        found += [line.split()[4] for line in mounts if f" {self.folder}/" in line]
        return found

    def _containerd(self, plugins: Path) -> str:
        return f"""\
version = 2
root = "{_SHORT}/containerd"
state = "/run/containerd"
disabled_plugins = [
  "io.containerd.internal.v1.opt", "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs",
]
oom_score = 0
[grpc]
address = "/run/containerd/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{_PAUSE}"
restrict_oom_score_adj = true
disable_apparmor = true
stream_server_address = "127.0.0.1"
[plugins."io.containerd.grpc.v1.cri".containerd]
# Works on whatever file system the folder is on; the only image is 2 MB.
snapshotter = "native"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
SystemdCgroup = false
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "{plugins}"
conf_dir = "{_SHORT}/cni"
"""

    def _network(self) -> Mapping[str, Any]:
        """A bridge of its own, in a range that two clusters hardly have in common."""
        second, third = int(self._id[:2], 16) % 100, int(self._id[2:4], 16)
        ipam = {
            "type": "host-local",
            "ranges": [[{"subnet": f"10.{130 + second}.{third}.0/24"}]],
            "dataDir": f"{_SHORT}/networks",
        }
        bridge = {
            "type": "bridge",
            "bridge": self.bridge,
            "isGateway": True,
            "ipMasq": False,
            "ipam": ipam,
        }
        return {"cniVersion": "0.4.0", "name": "devcluster", "plugins": [bridge]}

    def _kubelet(self, client_ca: Path, port: int) -> Mapping[str, Any]:
        return {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "address": "127.0.0.1",
            "port": port,
            "healthzPort": 0,
            "authentication": {
                "anonymous": {"enabled": False},
                "webhook": {"enabled": False},
                "x509": {"clientCAFile": str(client_ca)},
            },
            "authorization": {"mode": "AlwaysAllow"},
            "containerRuntimeEndpoint": "unix:///run/containerd/containerd.sock",
            "failCgroupV1": False,
            "cgroupDriver": "cgroupfs",
            "cgroupsPerQOS": False,
            "enforceNodeAllocatable": [],
            "evictionHard": {},
            "localStorageCapacityIsolation": False,
            "failSwapOn": False,
            "makeIPTablesUtilChains": False,
            "oomScoreAdj": 0,
            "resolvConf": "",
            "podLogsDir": f"{_SHORT}/kubelet/logs",
            "volumePluginDir": f"{_SHORT}/kubelet/plugins",
            # Nothing can be pulled again.
            "imageGCHighThresholdPercent": 100,
            "nodeStatusUpdateFrequency": "5s",
            "shutdownGracePeriod": "0s",
        }


def _missing_packages() -> list[str]:
    packages = {package for program, package in _PROGRAMS.items() if not _find(program)}
    if _plugins() is None:
        packages.add("containernetworking-plugins")
    return sorted(packages)


def _find(program: str) -> str:
    """Its path; also where the PATH of a person lacks what only root uses."""
    return shutil.which(program, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin") or ""


def _plugins() -> Path | None:
    """The folder of the CNI plugins."""
    wanted = ("bridge", "host-local", "loopback")
    return next((f for f in _PLUGINS if all((f / name).exists() for name in wanted)), None)


def _folders(folder: Path) -> Iterable[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else ()


def _remove_cgroup(group: Path) -> None:
    """Remove a control group and all below it, as soon as the last process has left them."""
    deadline = time.monotonic() + 10
    while group.is_dir():
        below = sorted((path for path in group.rglob("*") if path.is_dir()), reverse=True)
        for each in (*below, group):
            with contextlib.suppress(OSError):
                each.rmdir()
        if time.monotonic() > deadline:
            return
        if group.is_dir():
            time.sleep(0.05)


def _images() -> bytes:
    """An archive as `docker save` makes it, of busybox and of what holds a pod together."""
    layer = _layer(Path(_find("busybox")))
    digest = hashlib.sha256(layer).hexdigest()
    files = {f"{digest}/layer.tar": layer}
    manifest = []
    for tag, command in ((IMAGE, ["sh"]), (_PAUSE, ["tail", "-f", "/dev/null"])):
        config = {
            "architecture": {"x86_64": "amd64", "aarch64": "arm64"}[platform.machine()],
            "os": "linux",
            "config": {"Env": ["PATH=/bin"], "Cmd": command},
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]},
        }
        text = json.dumps(config).encode()
        name = f"{hashlib.sha256(text).hexdigest()}.json"
        files[name] = text
        manifest.append({"Config": name, "RepoTags": [tag], "Layers": [f"{digest}/layer.tar"]})
    files["manifest.json"] = json.dumps(manifest).encode()
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for name, contents in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(contents)
            archive.addfile(entry, io.BytesIO(contents))
    return packed.getvalue()


def _layer(busybox: Path) -> bytes:
    """busybox, and a name for each of its commands."""
    listed = subprocess.run([busybox, "--list"], capture_output=True, text=True, check=True)
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for folder, mode in (("bin", 0o755), ("tmp", 0o1777), ("etc", 0o755)):
            entry = tarfile.TarInfo(folder)
            entry.type, entry.mode = tarfile.DIRTYPE, mode
            archive.addfile(entry)
        program = tarfile.TarInfo("bin/busybox")
        program.size, program.mode = busybox.stat().st_size, 0o755
        archive.addfile(program, io.BytesIO(busybox.read_bytes()))
        for name in sorted(set(listed.stdout.split()) - {"busybox"}):
            entry = tarfile.TarInfo(f"bin/{name}")
            entry.type, entry.linkname = tarfile.SYMTYPE, "busybox"
            archive.addfile(entry)
    return packed.getvalue()
