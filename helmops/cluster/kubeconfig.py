"""Where the API server is and who we are to it: kubeconfig files and a pod's service account.

The rules are kubectl's: `--kubeconfig` names one file, which must exist; else `KUBECONFIG` names
several, of which missing ones are skipped and the first to set a value wins; else
`~/.kube/config`; else, inside a pod, its service account. The Python client's own merging lets the
last `current-context` win and drops impersonation (`as`) without a word, so it is done here; what
needs a plugin (`exec`, `auth-provider`) is left to the client.
"""

from __future__ import annotations

import base64
import binascii
import os
import ssl
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from helmops.errors import UsageError

_SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_FILE_FIELDS = {
    "clusters": ("certificate-authority",),
    "users": ("client-certificate", "client-key", "tokenFile"),
}


@dataclass(frozen=True, slots=True)
class Connection:
    """How one API server is reached. Its repr shows no credential.

    PEM material is either a file or data (`ca_file` or `ca_data`). `namespace` is the context's,
    empty where it names none. `plugin` is the kubeconfig, reduced to one context, of a user whose
    credentials come from a plugin.
    """

    server: str
    context: str = ""
    namespace: str = ""
    ca_file: str = ""
    ca_data: str = ""
    is_verified: bool = True
    tls_server_name: str = ""
    proxy: str = ""
    certificate_file: str = ""
    certificate_data: bytes = field(default=b"", repr=False)
    key_file: str = ""
    key_data: bytes = field(default=b"", repr=False)
    token: str = field(default="", repr=False)
    token_file: str = ""
    username: str = field(default="", repr=False)
    password: str = field(default="", repr=False)
    impersonate: tuple[tuple[str, str], ...] = ()
    plugin: Mapping[str, Any] | None = field(default=None, repr=False)

    def tls_context(self) -> ssl.SSLContext | None:
        """A TLS context with our CA and certificate, None for a plain http server.

        Key data is on disk only while OpenSSL reads it. Raises UsageError where the material
        cannot be read.
        """
        if not self.server.startswith("https://"):
            return None
        try:
            context = ssl.create_default_context(
                cafile=self.ca_file or None, cadata=self.ca_data or None
            )
            # Many cluster CAs lack what X.509 strictness asks for, and kubectl takes them.
            context.verify_flags &= ~getattr(ssl, "VERIFY_X509_STRICT", 0)
            if not self.is_verified:
                context.check_hostname = False
                context.verify_mode = ssl.CERT_NONE
            self._load_certificate(context)
        except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
            raise UsageError(
                f"the CA or client certificate cannot be used: {error}",
                where=f"kubeconfig context {self.context}" if self.context else self.server,
                next_step="compare with what `kubectl --context` says",
            ) from error
        return context

    def _load_certificate(self, context: ssl.SSLContext) -> None:
        if self.certificate_data:
            with tempfile.TemporaryDirectory(prefix="helmops-") as folder:
                chain = Path(folder, "chain.pem")
                chain.touch(mode=0o600)
                key = self.key_data or Path(self.key_file).read_bytes()
                chain.write_bytes(self.certificate_data + b"\n" + key)
                context.load_cert_chain(chain)
        elif self.certificate_file:
            if self.key_data:
                raise ValueError("client-key-data needs client-certificate-data")
            context.load_cert_chain(self.certificate_file, self.key_file or None)


def load_connection(
    kubeconfig: str | None = None,
    context: str | None = None,
    environ: Mapping[str, str] = os.environ,
) -> Connection:
    """The connection that kubectl would use with the same arguments and environment.

    Raises UsageError where nothing, or nothing usable, is found.
    """
    paths = _paths(kubeconfig, environ)
    found = [path for path in paths if _is_file(path)]
    if kubeconfig and not found:
        raise UsageError("no such kubeconfig", where=kubeconfig)
    if not found and not context and "KUBERNETES_SERVICE_HOST" in environ:
        return _service_account(environ, _SERVICE_ACCOUNT)
    looked_at = os.pathsep.join(str(path) for path in paths)
    if not found:
        raise UsageError(
            "no kubeconfig found",
            where=looked_at,
            next_step="set KUBECONFIG, or start a local cluster with `make cluster-up`",
        )
    return _from_config(_merge(found), context, looked_at)


def _paths(kubeconfig: str | None, environ: Mapping[str, str]) -> list[Path]:
    if kubeconfig:
        return [Path(kubeconfig).expanduser()]
    named = [part for part in environ.get("KUBECONFIG", "").split(os.pathsep) if part]
    if named:
        return [Path(part).expanduser() for part in named]
    return [Path(environ.get("HOME", "~")).expanduser() / ".kube" / "config"]


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError as error:
        raise UsageError(
            f"cannot be read: {error.strerror}",
            where=str(path),
            next_step="let this user read it, or name another one by --kubeconfig",
        ) from error


def _merge(paths: Iterable[Path]) -> dict[str, Any]:
    """One kubeconfig of several: the first to name something wins; paths become absolute."""
    import yaml  # slow to load, and not needed inside a pod

    merged: dict[str, Any] = {"current-context": "", "clusters": {}, "users": {}, "contexts": {}}
    for path in paths:
        try:
            loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
            content = yaml.load(path.read_text(), Loader=loader) or {}  # noqa: S506
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"cannot be read: {error}", where=str(path)) from error
        except yaml.YAMLError as error:
            # The parser's own message quotes the line, which may hold a token.
            mark = getattr(error, "problem_mark", None)
            line = f":{mark.line + 1}" if mark else ""
            raise UsageError("not YAML", where=f"{path}{line}") from None
        if not isinstance(content, dict):
            raise UsageError("not a kubeconfig", where=str(path))
        merged["current-context"] = merged["current-context"] or content.get("current-context", "")
        for section, inner in (("clusters", "cluster"), ("users", "user"), ("contexts", "context")):
            for item in content.get(section) or []:
                if not isinstance(item, dict) or "name" not in item:
                    raise UsageError(f"an entry of {section} has no name", where=str(path))
                body = dict(item.get(inner) or {})
                for name in _FILE_FIELDS.get(section, ()):
                    if body.get(name):
                        body[name] = str(path.parent.absolute() / body[name])
                command = (body.get("exec") or {}).get("command", "")
                if os.sep in command:  # a bare name is looked up on PATH
                    body["exec"] = {
                        **body["exec"],
                        "command": str(path.parent.absolute() / command),
                    }
                merged[section].setdefault(item["name"], body)
    return merged


def _from_config(config: dict[str, Any], context: str | None, where: str) -> Connection:
    name = context or config["current-context"]
    if not name:
        raise UsageError("no current-context", where=where, next_step=_choices(config["contexts"]))
    chosen = _named(config, "contexts", name, where)
    cluster = _named(config, "clusters", chosen.get("cluster", ""), where)
    user = _named(config, "users", chosen["user"], where) if chosen.get("user") else {}
    server = str(cluster.get("server", "")).rstrip("/")
    if not server.startswith(("https://", "http://")):
        raise UsageError(f"cluster {chosen.get('cluster')!r} has no usable server", where=where)
    token = "" if user.get("tokenFile") else str(user.get("token", ""))
    return Connection(
        server=server,
        context=name,
        namespace=str(chosen.get("namespace", "")),
        ca_file=_unless(cluster, "certificate-authority"),
        ca_data=_decoded(cluster, "certificate-authority-data", where).decode(errors="replace"),
        is_verified=not cluster.get("insecure-skip-tls-verify", False),
        tls_server_name=str(cluster.get("tls-server-name", "")),
        proxy=str(cluster.get("proxy-url", "")),
        certificate_file=_unless(user, "client-certificate"),
        certificate_data=_decoded(user, "client-certificate-data", where),
        key_file=_unless(user, "client-key"),
        key_data=_decoded(user, "client-key-data", where),
        token=token,
        token_file=str(user.get("tokenFile", "")),
        username=str(user.get("username", "")),
        password=str(user.get("password", "")),
        impersonate=_impersonation(user),
        plugin=_plugin(name, chosen, cluster, user),
    )


def _named(config: dict[str, Any], section: str, name: str, where: str) -> dict[str, Any]:
    found = config[section].get(name)
    if found is None:
        raise UsageError(
            f"no {section.removesuffix('s')} named {name!r}",
            where=where,
            next_step=_choices(config[section]),
        )
    return dict(found)


def _choices(section: Mapping[str, Any]) -> str:
    return f"there are: {', '.join(sorted(section))}" if section else "there are none"


def _unless(body: Mapping[str, Any], name: str) -> str:
    """The file of a field, unless its data is given, which wins."""
    return "" if body.get(f"{name}-data") else str(body.get(name, ""))


def _decoded(body: Mapping[str, Any], name: str, where: str) -> bytes:
    try:
        return base64.b64decode(str(body.get(name) or ""), validate=False)
    except binascii.Error:
        raise UsageError(f"{name} is not base64", where=where) from None


def _impersonation(user: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    headers = []
    if user.get("as"):
        headers.append(("Impersonate-User", str(user["as"])))
    if user.get("as-uid"):
        headers.append(("Impersonate-Uid", str(user["as-uid"])))
    headers.extend(("Impersonate-Group", str(group)) for group in user.get("as-groups") or [])
    for key, values in (user.get("as-user-extra") or {}).items():
        headers.extend((f"Impersonate-Extra-{key}", str(value)) for value in values)
    return tuple(headers)


def _plugin(
    name: str, context: dict[str, Any], cluster: dict[str, Any], user: dict[str, Any]
) -> dict[str, Any] | None:
    if "exec" not in user and "auth-provider" not in user:
        return None
    return {
        "current-context": name,
        "contexts": [{"name": name, "context": {**context, "user": "user", "cluster": "cluster"}}],
        "clusters": [{"name": "cluster", "cluster": cluster}],
        "users": [{"name": "user", "user": user}],
    }


def _service_account(environ: Mapping[str, str], folder: Path) -> Connection:
    host = environ["KUBERNETES_SERVICE_HOST"]
    port = environ.get("KUBERNETES_SERVICE_PORT", "443")
    namespace = folder / "namespace"
    if not (folder / "token").is_file():
        raise UsageError(
            "in a pod, but without a service account token",
            where=str(folder),
            next_step="set automountServiceAccountToken: true, or mount a kubeconfig",
        )
    return Connection(
        server=f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}",
        context="in-cluster",
        namespace=namespace.read_text().strip() if namespace.is_file() else "",
        ca_file=str(folder / "ca.crt"),
        token_file=str(folder / "token"),
    )
