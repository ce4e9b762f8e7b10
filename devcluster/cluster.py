"""One cluster: etcd, API server, controller manager, scheduler and KWOK, all on loopback.

With a real node, kubelet and containerd take the place of KWOK.

A cluster is a folder: its ports, keys, data, logs and process ids are in it, and whoever has the
folder can look at it, stop it, or cut its API server off and bring it back.
"""

import contextlib
import json
import os
import secrets
import shutil
import socket
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from devcluster import binaries, pod_logs, processes, stages
from devcluster.certificates import LOOPBACK, Authority, openssl
from devcluster.errors import DevclusterError, StartFailed, ToolMissing
from devcluster.real_node import RealNode, missing

Say = Callable[[str], None]

# In the order of starting, and after them the nodes; they are stopped the other way round.
_PARTS = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler")
_STOPPED_TOGETHER = (
    ("node", "kwok", "kube-scheduler", "kube-controller-manager"),
    ("kube-apiserver",),
    ("etcd",),
)
_NODES = ("node-0", "node-1")
_USERS = {
    # user: groups. KWOK writes the status of nodes and pods, and has no role of its own in RBAC.
    "admin": "system:masters",
    "kwok": "system:masters",
    "system:kube-controller-manager": "",
    "system:kube-scheduler": "",
}
_START_SECONDS = 90
# Only what is asked to be changed, and not by the cluster's own parts.
_AUDIT = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "rules": [
        {"level": "None", "verbs": ["get", "list", "watch"]},
        {"level": "None", "users": [user for user in _USERS if user != "admin"]},
        {"level": "None", "users": ["system:apiserver"]},
        {"level": "None", "userGroups": ["system:serviceaccounts:kube-system"]},
        {"level": "Metadata"},
    ],
}


@dataclass(frozen=True)
class Cluster:
    """A cluster in `directory`, running or not; see `start` for making one."""

    directory: Path

    @property
    def kubeconfig(self) -> Path:
        """A kubeconfig whose only context may do everything; readable by its owner only."""
        return self.directory / "kubeconfig"

    @property
    def server(self) -> str:
        """The API server's address, the same for as long as the cluster runs."""
        return f"https://127.0.0.1:{self._ports()['kube-apiserver']}"

    @property
    def ca_file(self) -> Path:
        return self.directory / "secrets" / "ca.crt"

    def token(self, user: str = "admin") -> str:
        """The bearer token of `user`."""
        for line in (self.directory / "secrets" / "tokens.csv").read_text().splitlines():
            token, name = line.split(",")[:2]
            if name == user:
                return token
        raise DevclusterError(f"{self.directory} has no user {user}")

    @property
    def real_node(self) -> RealNode:
        """Its real node; most clusters have none."""
        return RealNode(self.directory)

    @property
    def _parts(self) -> tuple[str, ...]:
        return (*_PARTS, "node" if self.real_node.exists else "kwok")

    def running(self) -> bool:
        """Whether every part of it runs (which does not say that it answers)."""
        return all(self._process(part) for part in self._parts)

    def _stopped(self) -> bool:
        return not any(self._process(part) for part in self._parts)

    def missing_parts(self) -> list[str]:
        """The names of the parts that do not run."""
        return [part for part in self._parts if not self._process(part)]

    def stop(self, *, grace: float = 20.0) -> None:
        """Stop every part and wait until they are gone; etcd last, so that nothing waits for it."""
        for parts in _STOPPED_TOGETHER:
            found = [process for part in parts if (process := self._process(part))]
            # A node's `unshare` ends only when it is killed, and everything in the node with it.
            node = self._process("node") if "node" in parts else None
            processes.stop([node] if node else [], grace=0)
            processes.stop([process for process in found if process != node], grace=grace)
            for part in parts:
                self._pid_file(part).unlink(missing_ok=True)
            if "node" in parts and self.real_node.exists:
                self.real_node.clean()

    def stop_apiserver(self, *, grace: float = 0.0) -> None:
        """Take the API server away in the middle of what goes on; at once unless `grace`."""
        if process := self._process("kube-apiserver"):
            processes.stop([process], grace=grace)

    def start_apiserver(self) -> None:
        """Bring the API server back on the same port, with the same data, and wait for it."""
        self._start_part("kube-apiserver", binaries.control_plane(lambda text: None))
        self._wait("the API server answers /readyz", self._ready)

    def request(self, method: str, path: str, body: Any = None, *, content: str = "json") -> Any:
        """One API request as admin; the decoded answer. Raises urllib's HTTPError for a refusal."""
        request = urllib.request.Request(
            self.server + path,
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={
                "Authorization": f"Bearer {self.token()}",
                "Content-Type": f"application/{content}",
                "Accept": "application/json",
            },
        )
        context = ssl.create_default_context(cafile=str(self.ca_file))
        with urllib.request.urlopen(request, timeout=10, context=context) as answer:
            text = answer.read()
        return json.loads(text) if text[:1] == b"{" else text.decode()

    def writes(self, namespace: str) -> list[str]:
        """All that people's programs have asked to be changed in a namespace, whether or not they
        might, oldest first: `patch secrets/web by helmops/0.1.0`. The cluster's own parts do not
        count.
        """
        if not self._audit_log.exists():
            raise DevclusterError(f"{self.directory} was started without an audit: start it anew")
        found = []
        for line in self._audit_log.read_text().splitlines():
            event = json.loads(line)
            what = event.get("objectRef", {})
            if what.get("namespace") == namespace:
                path = f"{what['resource']}/{what.get('name', '')}"
                found.append(f"{event['verb']} {path} by {event.get('userAgent', '')}")
        return found

    def say_of_pods(
        self, namespace: str, said: str, *, before: str = "", container: str = ""
    ) -> None:
        """From now on pods of `namespace` have this log, and `before` that of the container that
        was restarted; those of one container, or of all. Not on a real node.
        """
        folder = self.directory / "pod-logs"
        folder.mkdir(exist_ok=True)
        made = pod_logs.objects_for(folder, namespace, said, before, container)
        self.request("POST", pod_logs.PATH, made)

    # How it is built up. Everything below is called by `start`, in this order.

    def _prepare(self) -> None:
        for folder in ("", "secrets", "logs", "pids"):
            (self.directory / folder).mkdir(mode=0o700, parents=True, exist_ok=True)
        ports = self.directory / "ports.json"
        # The ports stay for life, unless somebody took one while the cluster was stopped.
        if not ports.exists() or (self._stopped() and not _all_free(self._ports())):
            names = ("etcd", "etcd-peer", "kube-apiserver", "kwok", "kubelet")
            _write(ports, json.dumps(_free_ports(names)))
        if not (self.directory / "secrets" / "tokens.csv").exists():
            rows = [
                f'{secrets.token_hex(24)},{user},{user},"{groups}"'
                for user, groups in _USERS.items()
            ]
            _make_keys(self.directory / "secrets")
            _write(self.directory / "secrets" / "tokens.csv", "\n".join(rows) + "\n")
        for user in _USERS:
            _write(self._kubeconfig_of(user), json.dumps(self._client_config(user), indent=1))
        _write(self.directory / "stages.yaml", stages.config())
        _write(self.directory / "audit.yaml", json.dumps(_AUDIT))

    def _start(self, say: Say) -> None:
        programs = binaries.control_plane(say)
        self._prepare()
        # After a crash or a reboot the records of those that ran are still there; a part that is
        # yet to be started must not be taken for one that ended.
        for part in self.missing_parts():
            self._pid_file(part).unlink(missing_ok=True)
        self._start_part("etcd", programs)
        self._start_part("kube-apiserver", programs)
        self._wait("the API server answers /readyz", self._ready)
        for part in ("kube-controller-manager", "kube-scheduler"):
            self._start_part(part, programs)
        if self.real_node.exists:
            self._start_node(binaries.kubelet(say))
        else:
            self._define_logs()
            self._start_part("kwok", programs)
            self._make_nodes()
        self._wait("the nodes are ready", self._nodes_ready)
        self._wait("the default service account exists", self._default_account)

    def _start_part(self, part: str, programs: dict[str, Path]) -> None:
        if self._process(part):
            return
        process = processes.start(
            [str(programs[part]), *self._arguments(part)], log=self._log(part)
        )
        process.save(self._pid_file(part))

    def _start_node(self, kubelet: Path) -> None:
        if self._process("node"):
            return
        client_ca, port = self.ca_file, self._ports()["kubelet"]
        self.real_node.clean()
        # As KWOK would, it writes the status of nodes and pods.
        self.real_node.prepare(kubelet, self._kubeconfig_of("kwok"), client_ca, port)
        process = processes.start(self.real_node.command(), log=self._log("node"))
        process.save(self._pid_file("node"))

    def _arguments(self, part: str) -> list[str]:
        ports, keys = self._ports(), self.directory / "secrets"
        match part:
            case "etcd":
                client = f"http://127.0.0.1:{ports['etcd']}"
                peer = f"http://127.0.0.1:{ports['etcd-peer']}"
                return [
                    f"--data-dir={self.directory / 'etcd'}",
                    f"--listen-client-urls={client}",
                    f"--advertise-client-urls={client}",
                    f"--listen-peer-urls={peer}",
                    f"--initial-advertise-peer-urls={peer}",
                    f"--initial-cluster=default={peer}",
                    "--unsafe-no-fsync",
                    "--log-level=warn",
                ]
            case "kube-apiserver":
                return [
                    f"--etcd-servers=http://127.0.0.1:{ports['etcd']}",
                    f"--secure-port={ports['kube-apiserver']}",
                    "--bind-address=127.0.0.1",
                    "--advertise-address=127.0.0.1",
                    "--endpoint-reconciler-type=none",
                    "--service-cluster-ip-range=10.0.0.0/16",
                    "--authorization-mode=RBAC",
                    f"--token-auth-file={keys / 'tokens.csv'}",
                    f"--client-ca-file={keys / 'ca.crt'}",
                    f"--tls-cert-file={keys / 'server.crt'}",
                    f"--tls-private-key-file={keys / 'server.key'}",
                    "--service-account-issuer=https://kubernetes.default.svc",
                    f"--service-account-key-file={keys / 'sa.pub'}",
                    f"--service-account-signing-key-file={keys / 'sa.key'}",
                    f"--cert-dir={self.directory / 'apiserver'}",
                    *self._as_client_of_kubelets(),
                    f"--audit-policy-file={self.directory / 'audit.yaml'}",
                    f"--audit-log-path={self._audit_log}",
                    "--audit-log-maxsize=20",
                    "--audit-log-maxbackup=1",
                ]
            case "kube-controller-manager":
                return [
                    f"--kubeconfig={self._kubeconfig_of('system:kube-controller-manager')}",
                    f"--service-account-private-key-file={keys / 'sa.key'}",
                    f"--root-ca-file={keys / 'ca.crt'}",
                    "--use-service-account-credentials",
                    "--leader-elect=false",
                    "--secure-port=0",
                ]
            case "kube-scheduler":
                return [
                    f"--kubeconfig={self._kubeconfig_of('system:kube-scheduler')}",
                    "--leader-elect=false",
                    "--secure-port=0",
                ]
            case _:
                return [
                    f"--kubeconfig={self._kubeconfig_of('kwok')}",
                    f"--config={self.directory / 'stages.yaml'}",
                    "--manage-all-nodes",
                    "--node-ip=127.0.0.1",
                    # The API server asks it for logs, as it would a kubelet.
                    f"--node-port={ports['kwok']}",
                    f"--server-address=127.0.0.1:{ports['kwok']}",
                    f"--tls-cert-file={keys / 'server.crt'}",
                    f"--tls-private-key-file={keys / 'server.key'}",
                    f"--enable-crds={pod_logs.KIND}",
                    "--node-lease-duration-seconds=40",
                    "--v=WARN",
                ]

    def _as_client_of_kubelets(self) -> list[str]:
        if not self.real_node.exists:
            return []
        pair = self.directory / "secrets" / "kubelet-client"
        return [
            f"--kubelet-client-certificate={pair}.crt",
            f"--kubelet-client-key={pair}.key",
        ]

    def _client_config(self, user: str) -> dict[str, Any]:
        """The fields of a kubeconfig, written as JSON, which is YAML too."""
        return {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "devcluster",
            "clusters": [
                {
                    "name": "devcluster",
                    "cluster": {"server": self.server, "certificate-authority": str(self.ca_file)},
                }
            ],
            "users": [{"name": user, "user": {"token": self.token(user)}}],
            "contexts": [
                {"name": "devcluster", "context": {"cluster": "devcluster", "user": user}}
            ],
        }

    def _define_logs(self) -> None:
        """KWOK takes the logs of its pods from objects of a kind of its own."""
        with contextlib.suppress(_Conflict):
            _create(self, "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", pod_logs.CRD)
        self._wait("the kind of logs is served", lambda: bool(self.request("GET", pod_logs.PATH)))

    def _make_nodes(self) -> None:
        for name in _NODES:
            node = {"metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}}}
            with contextlib.suppress(_Conflict):
                _create(self, "/api/v1/nodes", node)

    # What is waited for.

    def _ready(self) -> bool:
        return bool(self.request("GET", "/readyz") == "ok")

    def _nodes_ready(self) -> bool:
        nodes = self.request("GET", "/api/v1/nodes")["items"]
        conditions = [
            condition
            for node in nodes
            for condition in node["status"].get("conditions", [])
            if condition["type"] == "Ready" and condition["status"] == "True"
        ]
        # A tainted node takes no pods, so a ready one that is still tainted is not ready for us.
        wanted = 1 if self.real_node.exists else len(_NODES)
        return len(conditions) >= wanted and not any(n["spec"].get("taints") for n in nodes)

    def _default_account(self) -> bool:
        self.request("GET", "/api/v1/namespaces/default/serviceaccounts/default")
        return True

    def _wait(self, what: str, done: Callable[[], bool]) -> None:
        """Wait until `done`; a part that ends meanwhile, or the time, is a StartFailed."""
        deadline = time.monotonic() + _START_SECONDS
        while True:
            with contextlib.suppress(OSError):
                if done():
                    return
            for part in self._parts:
                if self._pid_file(part).exists() and not self._process(part):
                    raise StartFailed(
                        f"{part} ended while waiting until {what}:\n{self._tail(part)}"
                    )
            if time.monotonic() > deadline:
                raise StartFailed(
                    f"waited {_START_SECONDS} s in vain until {what}; logs are in "
                    f"{self.directory / 'logs'}:\n{self._tail('kube-apiserver')}"
                )
            time.sleep(0.1)

    # Files.

    def _ports(self) -> dict[str, int]:
        try:
            ports: dict[str, int] = json.loads((self.directory / "ports.json").read_text())
        except FileNotFoundError:
            raise DevclusterError(f"there is no cluster in {self.directory}") from None
        return ports

    def _process(self, part: str) -> processes.Process | None:
        process = processes.load(self._pid_file(part))
        return process if process and process.alive() else None

    def _pid_file(self, part: str) -> Path:
        return self.directory / "pids" / f"{part}.json"

    @property
    def _audit_log(self) -> Path:
        return self.directory / "logs" / "audit.log"

    def _log(self, part: str) -> Path:
        return self.directory / "logs" / f"{part}.log"

    def _tail(self, part: str) -> str:
        try:
            return "\n".join(self._log(part).read_text(errors="replace").splitlines()[-12:])
        except OSError:
            return "(no log)"

    def _kubeconfig_of(self, user: str) -> Path:
        if user == "admin":
            return self.kubeconfig
        return self.directory / "secrets" / f"{user.rpartition(':')[2]}.kubeconfig"


def start(directory: Path, say: Say = lambda text: None, *, real_node: bool = False) -> Cluster:
    """The cluster in `directory`, started where it does not run, and ready when this returns.

    A cluster that was stopped comes back with its data, and with the node that it had. A
    `real_node` is for a new one. Raises StartFailed, ToolMissing or DevclusterError, and then
    leaves nothing of it running.
    """
    cluster = Cluster(directory.absolute())
    cluster.directory.mkdir(parents=True, mode=0o700, exist_ok=True)
    lock = cluster.directory / "lock"
    with binaries.locked(lock, lambda: say(f"another start or stop of {directory} is going on")):
        if real_node and not cluster.real_node.exists:
            _expect_real_node(cluster)
        if cluster.running():
            return cluster
        try:
            cluster._start(say)
        except BaseException:
            cluster.stop(grace=5)
            raise
    return cluster


def _expect_real_node(cluster: Cluster) -> None:
    if (cluster.directory / "ports.json").exists():
        raise DevclusterError(
            f"the cluster in {cluster.directory} was made without a real node; delete it first "
            "(down --delete), or choose another name"
        )
    if reasons := missing():
        raise ToolMissing(f"there can be no real node here: {'; '.join(reasons)}")
    cluster.real_node.folder.mkdir(mode=0o700)


def remove(cluster: Cluster) -> None:
    """Stop the cluster and delete its folder, with all that was ever in it."""
    cluster.stop(grace=5)
    shutil.rmtree(cluster.directory, ignore_errors=True)


class _Conflict(Exception):
    """An object of that name exists."""


def _create(cluster: Cluster, path: str, body: dict[str, Any]) -> None:
    try:
        cluster.request("POST", path, body)
    except urllib.error.HTTPError as refusal:
        with refusal:
            if refusal.code == 409:
                raise _Conflict from refusal
            raise


def _write(path: Path, text: str) -> None:
    """Replace `path` as a whole, readable by the owner only from its first byte on."""
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    fresh.touch(mode=0o600)
    fresh.write_text(text)
    fresh.replace(path)


def _free_ports(names: tuple[str, ...]) -> dict[str, int]:
    """A free loopback port for each name; held all at once, so that no two are the same."""
    with contextlib.ExitStack() as stack:
        sockets = {name: stack.enter_context(socket.socket()) for name in names}
        for one in sockets.values():
            one.bind(("127.0.0.1", 0))
        return {name: one.getsockname()[1] for name, one in sockets.items()}


def _all_free(ports: dict[str, int]) -> bool:
    """Whether all can be listened on; one that only lingers after a close counts as free."""
    for port in ports.values():
        with socket.socket() as one:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                one.bind(("127.0.0.1", port))
            except OSError:
                return False
    return True


def _make_keys(folder: Path) -> None:
    """A CA, the API server's certificate for loopback, and the key pair of service accounts."""
    authority = Authority.create(folder, "devcluster")
    authority.issue("kube-apiserver", also=(*LOOPBACK, "DNS:kubernetes.default.svc"), file="server")
    authority.issue("kube-apiserver", also=(), file="kubelet-client")
    openssl(("genrsa", "-out", "sa.key", "2048"), folder)
    openssl(("rsa", "-in", "sa.key", "-pubout", "-out", "sa.pub"), folder)
