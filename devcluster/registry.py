"""A real OCI registry on loopback: Docker's, from Debian's package `docker-registry`.

Without a login, with `htpasswd`, or with tokens of a token server of our own; over HTTP or TLS,
also with client certificates.
"""

import base64
import json
import socket
import ssl
import subprocess
import time
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

from devcluster import debian, processes
from devcluster.certificates import KeyPair, openssl
from devcluster.closing import Closing
from devcluster.debian import Say
from devcluster.errors import StartFailed
from devcluster.loopback import Answer, LoopbackServer, Request
from devcluster.oci_server import HELM_CONFIG, HELM_CONTENT, MANIFEST, digest_of

_START_SECONDS = 20

#: What bcrypt makes of PASSWORD: the registry keeps no passwords, and Python has no bcrypt.
USER, PASSWORD = "helmops", "correct horse"
_HASH = "$2b$04$abcdefghijklmnopqrstuujydOTSfIH/d5oUHpsygqV5X9xJLQc6e"
_SERVICE, _ISSUER = "registry.test", "issuer.test"


def find(say: Say) -> Path:
    """The program. Raises ToolMissing where it can neither be found nor fetched."""
    return debian.find("docker-registry", "docker-registry", say)


class Registry(Closing):
    """A registry of one's own, empty, in `folder`. With `login` it wants USER and PASSWORD, with
    `tokens` a token that its token server gives for these.

    Raises ToolMissing where there is no such program, StartFailed.
    """

    def __init__(
        self,
        folder: Path,
        say: Say,
        *,
        login: bool = False,
        tokens: bool = False,
        tls: KeyPair | None = None,
        client_ca: Path | None = None,
    ) -> None:
        program = find(say)
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._tls = folder, tls
        self._login = login or tokens
        self.token_server = TokenServer(folder, tls) if tokens else None
        self.port = _free_port()
        self._configure(login, client_ca)
        self._log = folder / "registry.log"
        self._process = self._start(program)
        self._program = program

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        """`oci://` and its host."""
        return f"oci://{self.host}"

    def stop(self) -> None:
        """End it as a crash would look from outside; `start` brings it back with its content."""
        processes.stop([self._process], grace=5)

    def start(self) -> None:
        """Again, on the same port and with the same content."""
        self._process = self._start(self._program)

    def close(self) -> None:
        self.stop()
        if self.token_server is not None:
            self.token_server.close()

    # Content.

    def push(
        self,
        name: str,
        tag: str,
        content: bytes,
        *,
        client: KeyPair | None = None,
        config: bytes = b"{}",
        config_type: str = HELM_CONFIG,
        layer_type: str = HELM_CONTENT,
        of_layer: Mapping[str, str] | None = None,
        **annotations: str,
    ) -> str:
        """Put a chart archive there, as `helm push` does it; gives back the manifest's digest.
        `of_layer` are the layer's own annotations.
        """
        manifest = {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": {"mediaType": config_type, **self._push_blob(name, config, client)},
            "layers": [
                {
                    "mediaType": layer_type,
                    **self._push_blob(name, content, client),
                    "annotations": dict(of_layer or {}),
                }
            ],
            "annotations": annotations,
        }
        body = json.dumps(manifest).encode()
        headers = {"Content-Type": MANIFEST}
        self._ask("PUT", f"/v2/{name}/manifests/{tag}", name, client, body, headers)
        return digest_of(body)

    def _push_blob(self, name: str, content: bytes, client: KeyPair | None) -> dict[str, Any]:
        where = self._ask("POST", f"/v2/{name}/blobs/uploads/", name, client)["location"]
        digest = digest_of(content)
        path = where.partition(self.host)[2] or where
        joined = "&" if "?" in path else "?"
        headers = {"Content-Type": "application/octet-stream"}
        self._ask("PUT", f"{path}{joined}digest={digest}", name, client, content, headers)
        return {"digest": digest, "size": len(content)}

    def _ask(
        self,
        method: str,
        path: str,
        name: str,
        client: KeyPair | None,
        body: bytes = b"",
        headers: Mapping[str, str] | None = None,
    ) -> dict[str, str]:
        scheme = "https" if self._tls else "http"
        request = urllib.request.Request(
            f"{scheme}://{self.host}{path}", data=body, method=method, headers=dict(headers or {})
        )
        if self.token_server is not None:
            token = self.token_server.issue(f"repository:{name}:pull,push")
            request.add_header("Authorization", f"Bearer {token}")
        elif self._login:
            pair = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
            request.add_header("Authorization", f"Basic {pair}")
        context = None
        if self._tls is not None:
            context = ssl.create_default_context(cafile=str(self._tls.certificate))
            context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # that one certificate will do
            if client is not None:
                context.load_cert_chain(client.certificate, client.key)
        with urllib.request.urlopen(request, timeout=10, context=context) as answer:
            return {name.lower(): value for name, value in answer.headers.items()}

    # The process.

    def _configure(self, login: bool, client_ca: Path | None) -> None:
        http: dict[str, Any] = {"addr": self.host}
        if self._tls is not None:
            http["tls"] = {
                "certificate": str(self._tls.certificate),
                "key": str(self._tls.key),
                **({"clientcas": [str(client_ca)]} if client_ca else {}),
            }
        configuration: dict[str, Any] = {
            "version": 0.1,
            "log": {"level": "warn"},
            "storage": {
                "filesystem": {"rootdirectory": str(self._folder / "data")},
                "delete": {"enabled": True},
            },
            "http": http,
        }
        if login:
            (self._folder / "htpasswd").write_text(f"{USER}:{_HASH}\n")
            path = str(self._folder / "htpasswd")
            configuration["auth"] = {"htpasswd": {"realm": "registry", "path": path}}
        if self.token_server is not None:
            configuration["auth"] = {
                "token": {
                    "realm": f"{self.token_server.server.url}/token",
                    "service": _SERVICE,
                    "issuer": _ISSUER,
                    "rootcertbundle": str(self.token_server.certificate),
                }
            }
        # JSON is YAML, which is what it reads.
        (self._folder / "registry.yml").write_text(json.dumps(configuration))

    def _start(self, program: Path) -> "processes.Process":
        process = processes.start(
            [str(program), "serve", str(self._folder / "registry.yml")], log=self._log
        )
        deadline = time.monotonic() + _START_SECONDS
        while time.monotonic() < deadline:
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
            except OSError:
                time.sleep(0.05)
            else:
                return process
        processes.stop([process], grace=1)
        raise StartFailed(f"docker-registry did not start:\n{self._log.read_text()[-2000:]}")


class TokenServer:
    """Gives tokens that a registry believes: JSON Web Tokens, signed with a key of its own."""

    def __init__(self, folder: Path, tls: KeyPair | None) -> None:
        self._folder = folder
        openssl(
            (
                *("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"),
                *("-subj", "/CN=tokens", "-keyout", "tokens.key", "-out", "tokens.crt"),
            ),
            folder,
        )
        self.certificate = folder / "tokens.crt"
        self.server = LoopbackServer(self._respond, user=USER, password=PASSWORD, tls=tls)

    def close(self) -> None:
        self.server.close()

    def issue(self, scope: str) -> str:
        """A token for a scope, as `repository:charts/app:pull`."""
        kind, name, actions = scope.split(":")
        der = base64.b64encode(ssl.PEM_cert_to_DER_cert(self.certificate.read_text())).decode()
        now = int(time.time())  # noqa: TID251 - the registry has the same clock
        claims = {
            "iss": _ISSUER,
            "aud": _SERVICE,
            "sub": USER,
            "jti": "1",
            "iat": now - 5,
            "nbf": now - 5,
            "exp": now + 300,
            "access": [{"type": kind, "name": name, "actions": actions.split(",")}],
        }
        parts = [{"typ": "JWT", "alg": "RS256", "x5c": [der]}, claims]
        text = ".".join(_packed(json.dumps(part).encode()) for part in parts)
        signed = subprocess.run(
            ["openssl", "dgst", "-sha256", "-sign", str(self._folder / "tokens.key")],
            input=text.encode(),
            capture_output=True,
            check=True,
        )
        return f"{text}.{_packed(signed.stdout)}"

    def _respond(self, request: Request) -> Answer:
        scope = parse_qs(request.query)["scope"][0]
        body = json.dumps({"token": self.issue(scope), "expires_in": 300}).encode()
        return Answer(200, body, {"Content-Type": "application/json"})


def _packed(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).decode().rstrip("=")


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])
